//! The sessions as deployments know them: who asked for each, what it runs, and what it may go back
//! to.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;

use super::record::{Cause, Record};
use crate::session::{RunningVersion, SessionHandle};

impl From<&Record> for RunningVersion {
    fn from(record: &Record) -> Self {
        Self {
            number: record.number,
            pipeline: record.pipeline.clone(),
            digest: record.digest.clone(),
            since: record.requested.clone(),
            by: record.by.clone(),
            of_config: matches!(record.cause, Cause::Config | Cause::File),
        }
    }
}

struct IndexedSession {
    handle: SessionHandle,
    /// The pipeline that the config or the subscriber asked for.
    requested: String,
    /// Whether it is the config's.
    configured: bool,
    /// Components that it runs or may go back to.
    needed: BTreeSet<String>,
}

/// The sessions, by name. One of the config stays until the config drops it, whether it has ended
/// or not.
#[derive(Default)]
pub(super) struct SessionIndex {
    sessions: Mutex<BTreeMap<String, IndexedSession>>,
}

impl SessionIndex {
    /// Adds a session that is made, or made anew. `running` is `None` if it has nothing to run.
    pub(super) fn insert(
        &self,
        handle: &SessionHandle,
        requested: &str,
        configured: bool,
        running: Option<RunningVersion>,
    ) {
        let needed = running.iter().map(|running| running.digest.clone()).collect();
        handle.set_running(running);
        let (handle, requested) = (handle.clone(), requested.to_owned());
        let id = handle.id().to_owned();
        self.sessions.lock().insert(id, IndexedSession { handle, requested, configured, needed });
    }

    /// The config drops a session.
    pub(super) fn remove(&self, session: &str) {
        self.sessions.lock().remove(session);
    }

    /// Notes what a session runs from now on. Returns what it ran before, if that is another.
    pub(super) fn set_running(
        &self,
        session: &str,
        running: RunningVersion,
    ) -> Option<RunningVersion> {
        let mut sessions = self.sessions.lock();
        let session = sessions.get_mut(session)?;
        session.needed.insert(running.digest.clone());
        session.handle.set_running(Some(running))
    }

    /// Notes that a session has gone back from deployment `from` to `prior`, unless a later one has
    /// taken its place.
    pub(super) fn roll_back(&self, session: &str, from: u64, prior: Option<&RunningVersion>) {
        if let Some(session) = self.sessions.lock().get(session) {
            session.handle.roll_back(from, prior.cloned());
        }
    }

    /// Sets the components that a session needs, beside the one that it runs.
    pub(super) fn set_needed(&self, session: &str, mut needed: BTreeSet<String>) {
        if let Some(session) = self.sessions.lock().get_mut(session) {
            needed.extend(session.handle.running().map(|running| running.digest));
            session.needed = needed;
        }
    }

    /// The components that any session needs. Forgets sessions of subscribers that have ended.
    pub(super) fn needed(&self) -> BTreeSet<String> {
        let mut sessions = self.sessions.lock();
        sessions.retain(|_, session| session.configured || session.handle.is_alive());
        sessions.values().flat_map(|session| session.needed.iter().cloned()).collect()
    }

    /// Notes that the config asks for another pipeline of this name.
    pub(super) fn set_requested(&self, session: &str, pipeline: &str) {
        if let Some(session) = self.sessions.lock().get_mut(session) {
            pipeline.clone_into(&mut session.requested);
        }
    }

    /// The pipeline that the config or the subscriber asked for, whatever the session runs by now.
    /// `None` if the session has ended.
    pub(super) fn requested(&self, session: &str) -> Option<String> {
        let sessions = self.sessions.lock();
        let session = sessions.get(session).filter(|session| session.handle.is_alive())?;
        Some(session.requested.clone())
    }

    /// The deployment that a session runs.
    pub(super) fn running(&self, session: &str) -> Option<RunningVersion> {
        self.sessions.lock().get(session)?.handle.running()
    }

    /// The sessions that have not ended and use a pipeline by its name, with what each runs.
    pub(super) fn users(&self, pipeline: &str) -> Vec<(String, RunningVersion)> {
        let sessions = self.sessions.lock();
        let alive = sessions.iter().filter(|(_, session)| session.handle.is_alive());
        let users = alive.filter_map(|(id, session)| Some((id.clone(), session.handle.running()?)));
        users.filter(|(_, running)| running.pipeline == pipeline).collect()
    }

    /// A camera's session that has not ended.
    pub(super) fn camera(&self, session: &str) -> Option<SessionHandle> {
        let sessions = self.sessions.lock();
        let session = sessions.get(session)?;
        Some(&session.handle).filter(|handle| session.configured && handle.is_alive()).cloned()
    }

    /// Whether a session is the config's.
    pub(super) fn configured(&self, session: &str) -> bool {
        self.sessions.lock().get(session).is_some_and(|session| session.configured)
    }
}
