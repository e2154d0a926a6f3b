//! The registry of all sessions.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::environment::Environment;
use super::error::SessionError;
use super::handle::SessionHandle;
use super::rollout::ProbationRequest;
use super::spec::Spec;
use super::status::{Observation, SessionStatus, StatusInner};
use super::task::SessionTask;
use crate::cluster::SnapshotStore;
use crate::config::Config;
use crate::event::Hub;
use crate::journal::Journal;
use crate::source::Sources;
use crate::worker::WorkerLauncher;

/// All sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    environment: Arc<Environment>,
    handles: Arc<Mutex<BTreeMap<String, SessionHandle>>>,
}

impl Sessions {
    /// An empty registry. Results go to `hub`, the sessions' stores to `journal`, and states of
    /// pipelines to `snapshots`.
    pub fn new(
        workers: Arc<WorkerLauncher>,
        sources: Sources,
        hub: Hub,
        journal: Journal,
        snapshots: Option<Arc<dyn SnapshotStore>>,
        config: &Config,
    ) -> Self {
        let environment = Environment::new(workers, sources, hub, journal, snapshots, config);
        Self { environment: Arc::new(environment), handles: Arc::default() }
    }

    /// Takes limits and Redis over from another config: limits on workers for workers that start
    /// from now on, all else at once.
    pub fn apply_config(&self, config: &Config) {
        self.environment.apply_config(config);
    }

    /// Makes a session and starts it. `probation`: reports whether its version lasts.
    pub fn start(
        &self,
        spec: Spec,
        probation: Option<ProbationRequest>,
    ) -> Result<SessionHandle, SessionError> {
        let mut handles = self.handles.lock();
        if handles.contains_key(&spec.id) {
            return Err(SessionError::Exists(spec.id));
        }
        let limit = self.environment.limits().sessions;
        if handles.len() >= limit {
            return Err(SessionError::Limit { limit, holders: handles.keys().cloned().collect() });
        }
        let (handle, end) =
            SessionHandle::new(spec, StatusInner::new(self.environment.workers.limits()));
        tokio::spawn(SessionTask::new(Arc::clone(&self.environment), end, probation).run());
        handles.insert(handle.id().to_owned(), handle.clone());
        Ok(handle)
    }

    /// A session by its name.
    pub fn get(&self, id: &str) -> Option<SessionHandle> {
        self.handles.lock().get(id).cloned()
    }

    /// A session by its name, or the error that there is none.
    pub fn find(&self, id: &str) -> Result<SessionHandle, SessionError> {
        self.get(id).ok_or_else(|| SessionError::Unknown(id.to_owned()))
    }

    /// All sessions, sorted by name.
    pub fn list(&self) -> Vec<SessionStatus> {
        self.all().iter().map(SessionHandle::status).collect()
    }

    /// All sessions with what metrics and alerts need, sorted by name. Holds up no session for
    /// longer than its numbers take to copy.
    pub fn observe(&self) -> Vec<Observation> {
        self.all().iter().map(SessionHandle::observe).collect()
    }

    /// Ends a session and forgets it. Returns when its worker is gone.
    pub async fn stop(&self, id: &str, reason: &str) -> Result<(), SessionError> {
        let handle = self.find(id)?;
        handle.stop(reason).await;
        self.forget(&handle);
        Ok(())
    }

    /// Waits until a session that is stopping is gone; returns at once if there is none.
    pub async fn wait_until_gone(&self, id: &str) {
        if let Some(handle) = self.get(id).filter(SessionHandle::is_stopping) {
            handle.ended().await;
            self.forget(&handle);
        }
    }

    /// Frees the name of a session after its end, so that no name ever has two workers.
    fn forget(&self, handle: &SessionHandle) {
        let mut handles = self.handles.lock();
        // Another caller may have waited for the same end, and the name been given anew.
        if handles.get(handle.id()).is_some_and(|other| other.is_same(handle)) {
            handles.remove(handle.id());
            self.environment.hub.remove_session(handle.id());
        }
    }

    /// Ends all sessions at the same time.
    pub async fn stop_all(&self, reason: &str) {
        let handles = self.all();
        let stopped = handles.iter().map(|handle| async {
            handle.stop(reason).await;
            self.forget(handle);
        });
        futures_util::future::join_all(stopped).await;
    }

    fn all(&self) -> Vec<SessionHandle> {
        self.handles.lock().values().cloned().collect()
    }
}
