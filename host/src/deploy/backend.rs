//! The host as deployments need it.

use std::sync::Arc;

use super::admission::{Admission, MemoryBudget};
use super::compile::{CompileError, Compiler, ComponentSource, PreparedComponent};
use super::execute::DeployBackend;
use crate::event::{Event, Hub};
use crate::session::change::SwapRequest;
use crate::session::{SessionError, Sessions, Spec};

/// Sessions, subscribers, and the compiler.
pub(super) struct HostBackend {
    pub(super) sessions: Sessions,
    pub(super) hub: Hub,
    pub(super) compiler: Compiler,
    pub(super) memory: MemoryBudget,
}

impl DeployBackend for HostBackend {
    fn spec(&self, session: &str) -> Option<Arc<Spec>> {
        Some(self.sessions.get(session)?.spec())
    }

    async fn prepare(
        &self,
        pipeline: &str,
        source: ComponentSource,
    ) -> Result<PreparedComponent, CompileError> {
        self.compiler.prepare(pipeline, source).await
    }

    async fn admit(&self, session: &str, reserve: u64) -> Result<Admission, String> {
        let running = self.sessions.get(session).and_then(|session| session.status().pid);
        let room = self.memory.clone();
        let asked = tokio::task::spawn_blocking(move || room.admit(running, reserve)).await;
        asked.unwrap_or_else(|error| Err(error.to_string()))
    }

    async fn swap(&self, swap: SwapRequest) -> Result<(), SessionError> {
        self.sessions.find(&swap.spec.id)?.swap(swap).await
    }

    fn publish(&self, session: &str, event: &Event) {
        // A session that has ended meanwhile has nobody to be told.
        let _ = self.hub.publish_event_if_exists(session, event.clone());
    }
}
