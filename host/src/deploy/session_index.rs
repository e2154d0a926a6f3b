//! What is remembered of the sessions that live: what each runs, and what it may go back to.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::record::Record;

/// What a session runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RunningVersion {
    /// The deployment's number.
    pub(super) number: u64,
    /// The pipeline as it was asked for: a name is followed when its file changes.
    pub(super) pipeline: String,
    /// The component.
    pub(super) digest: String,
}

impl RunningVersion {
    pub(super) fn of(record: &Record) -> Self {
        let (pipeline, digest) = (record.pipeline.clone(), record.digest.clone());
        Self { number: record.number, pipeline, digest }
    }
}

#[derive(Debug)]
struct IndexedSession {
    /// The pipeline that whoever made the session asked for.
    requested: String,
    /// Whether it is the config's.
    configured: bool,
    /// Closed when it is over.
    over: watch::Receiver<()>,
    running: Option<RunningVersion>,
    /// Components that it runs or may go back to.
    needed: BTreeSet<String>,
}

impl IndexedSession {
    fn is_alive(&self) -> bool {
        self.over.has_changed().is_ok()
    }
}

/// The sessions, by name. One of the config stays until the config drops it, whether it is over or
/// not.
#[derive(Debug, Default)]
pub(super) struct SessionIndex {
    lives: Mutex<BTreeMap<String, IndexedSession>>,
}

impl SessionIndex {
    /// A session is made, or made anew. `over` closes when it is over; `running` is none where it
    /// has nothing to run.
    pub(super) fn insert(
        &self,
        session: &str,
        asked: &str,
        configured: bool,
        over: watch::Receiver<()>,
        running: Option<RunningVersion>,
    ) {
        let needed = running.iter().map(|running| running.digest.clone()).collect();
        let life =
            IndexedSession { requested: asked.to_owned(), configured, over, running, needed };
        self.lives.lock().insert(session.to_owned(), life);
    }

    /// The config drops a session.
    pub(super) fn remove(&self, session: &str) {
        self.lives.lock().remove(session);
    }

    /// What a session runs, from now on. What it ran before; none where that is known already.
    pub(super) fn set_running(
        &self,
        session: &str,
        running: RunningVersion,
    ) -> Option<RunningVersion> {
        let mut lives = self.lives.lock();
        let life = lives.get_mut(session)?;
        life.needed.insert(running.digest.clone());
        if life.running.as_ref() == Some(&running) {
            return None;
        }
        life.running.replace(running)
    }

    /// A session has gone back from a deployment. One after it may have taken its place already.
    pub(super) fn roll_back(&self, session: &str, from: u64, prior: Option<&RunningVersion>) {
        if let Some(life) = self.lives.lock().get_mut(session)
            && life.running.as_ref().is_none_or(|running| running.number == from)
        {
            life.running = prior.cloned();
        }
    }

    /// The components that a session needs, beside the one that it runs.
    pub(super) fn set_needed(&self, session: &str, mut needed: BTreeSet<String>) {
        if let Some(life) = self.lives.lock().get_mut(session) {
            needed.extend(life.running.as_ref().map(|running| running.digest.clone()));
            life.needed = needed;
        }
    }

    /// The components that any session needs. Forgets sessions of subscribers that are over.
    pub(super) fn needed(&self) -> BTreeSet<String> {
        let mut lives = self.lives.lock();
        lives.retain(|_, life| life.configured || life.is_alive());
        lives.values().flat_map(|life| life.needed.iter().cloned()).collect()
    }

    /// The config asks for another pipeline of this name.
    pub(super) fn set_requested(&self, session: &str, pipeline: &str) {
        if let Some(life) = self.lives.lock().get_mut(session) {
            pipeline.clone_into(&mut life.requested);
        }
    }

    /// The pipeline that whoever made the session asked for, whatever it runs by now.
    pub(super) fn requested(&self, session: &str) -> Option<String> {
        self.lives
            .lock()
            .get(session)
            .filter(|life| life.is_alive())
            .map(|life| life.requested.clone())
    }

    /// What a session runs.
    pub(super) fn running(&self, session: &str) -> Option<RunningVersion> {
        self.lives.lock().get(session)?.running.clone()
    }

    /// The sessions that live and use a pipeline by its name, with what each runs.
    pub(super) fn users(&self, pipeline: &str) -> Vec<(String, RunningVersion)> {
        let lives = self.lives.lock();
        let users =
            lives.iter().filter(|(_, life)| life.is_alive()).filter_map(|(session, life)| {
                let running =
                    life.running.clone().filter(|running| running.pipeline == pipeline)?;
                Some((session.clone(), running))
            });
        users.collect()
    }

    /// Whether a session is the config's.
    pub(super) fn configured(&self, session: &str) -> bool {
        self.lives.lock().get(session).is_some_and(|life| life.configured)
    }
}
