//! The host as deployments need it.

use std::sync::Arc;

use ocelli_protocol::worker::Description;

use super::admission::{Admission, AdmissionError, MemoryBudget};
use super::compile::{CompileError, Compiler, ComponentSource, PreparedComponent};
use super::describe::Describer;
use crate::config::Config;
use crate::event::{Event, Hub};
use crate::session::rollout::{ProbationRequest, SwapRequest};
use crate::session::{SessionError, SessionHandle, Sessions, Spec};

/// What a deployment needs of the host.
pub(super) trait DeployBackend: Send + Sync + 'static {
    fn session(&self, id: &str) -> Option<SessionHandle>;

    /// `caller`: who asks, for the turns of the compiler.
    fn prepare(
        &self,
        caller: &str,
        pipeline: &str,
        source: ComponentSource,
    ) -> impl Future<Output = Result<PreparedComponent, CompileError>> + Send;

    /// What a component says of itself where no settings are given.
    fn describe(
        &self,
        pipeline: &str,
        component: &PreparedComponent,
        config: &Config,
    ) -> impl Future<Output = anyhow::Result<Arc<Description>>> + Send;

    /// Asks for memory for a second worker of a session; `reserve` bytes have to stay free.
    fn admit(
        &self,
        session: &str,
        reserve: u64,
    ) -> impl Future<Output = Result<Admission, AdmissionError>> + Send;

    /// Changes what a session runs, in a second worker.
    fn swap(&self, swap: SwapRequest) -> impl Future<Output = Result<(), SessionError>> + Send;

    /// Makes a session; or replaces the worker of `session`, if that has not ended meanwhile.
    fn start(
        &self,
        spec: Spec,
        session: Option<SessionHandle>,
        probation: Option<ProbationRequest>,
    ) -> impl Future<Output = Result<SessionHandle, SessionError>> + Send;

    /// Sends an event to the session's subscribers.
    fn publish(&self, session: &str, event: &Event);
}

/// Sessions, subscribers, and the compiler.
pub(super) struct HostBackend {
    pub(super) sessions: Sessions,
    pub(super) hub: Hub,
    pub(super) compiler: Arc<Compiler>,
    pub(super) memory: MemoryBudget,
    pub(super) describer: Describer,
}

impl DeployBackend for HostBackend {
    fn session(&self, id: &str) -> Option<SessionHandle> {
        self.sessions.get(id)
    }

    async fn prepare(
        &self,
        caller: &str,
        pipeline: &str,
        source: ComponentSource,
    ) -> Result<PreparedComponent, CompileError> {
        self.compiler.prepare(caller, pipeline, source).await
    }

    async fn describe(
        &self,
        pipeline: &str,
        component: &PreparedComponent,
        config: &Config,
    ) -> anyhow::Result<Arc<Description>> {
        self.describer.describe(pipeline, component, config).await
    }

    async fn admit(&self, session: &str, reserve: u64) -> Result<Admission, AdmissionError> {
        let running = self.sessions.get(session).and_then(|session| session.status().pid);
        let memory = self.memory.clone();
        tokio::task::spawn_blocking(move || memory.admit(running, reserve)).await?
    }

    async fn swap(&self, swap: SwapRequest) -> Result<(), SessionError> {
        self.sessions.find(&swap.spec.id)?.swap(swap).await
    }

    async fn start(
        &self,
        spec: Spec,
        session: Option<SessionHandle>,
        probation: Option<ProbationRequest>,
    ) -> Result<SessionHandle, SessionError> {
        if let Some(session) = session {
            let again = probation.as_ref().map(|probation| ProbationRequest {
                fallback: probation.fallback.clone(),
                reports: probation.reports.clone(),
            });
            match session.replace(spec.clone(), again).await {
                Ok(()) => return Ok(session),
                // An operator has ended it meanwhile.
                Err(SessionError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.sessions.wait_until_gone(&spec.id).await;
        self.sessions.start(spec, probation)
    }

    fn publish(&self, session: &str, event: &Event) {
        // A session that has ended meanwhile has no subscribers.
        let _ = self.hub.publish_event_if_exists(session, event.clone());
    }
}
