//! The services and bounds that all sessions share.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::rollout::RolloutTerms;
use crate::cluster::SnapshotStore;
use crate::config::Config;
use crate::event::Hub;
use crate::journal::Journal;
use crate::source::{Clips, Sources};
use crate::worker::WorkerLauncher;

/// The services that every session needs.
pub(super) struct Environment {
    pub(super) workers: Arc<WorkerLauncher>,
    pub(super) sources: Sources,
    pub(super) hub: Hub,
    pub(super) journal: Journal,
    pub(super) clips: Clips,
    /// Where states of pipelines outlast the host, if it belongs to a site.
    pub(super) snapshots: Option<Arc<dyn SnapshotStore>>,
    limits: Mutex<SessionLimits>,
}

impl Environment {
    pub(super) fn new(
        workers: Arc<WorkerLauncher>,
        sources: Sources,
        hub: Hub,
        journal: Journal,
        snapshots: Option<Arc<dyn SnapshotStore>>,
        config: &Config,
    ) -> Self {
        let clips = Clips::start(journal.events().clone(), config);
        let limits = Mutex::new(SessionLimits::new(config));
        Self { workers, sources, hub, journal, clips, snapshots, limits }
    }

    /// See [`Sessions::apply_config`](super::Sessions::apply_config).
    pub(super) fn apply_config(&self, config: &Config) {
        *self.limits.lock() = SessionLimits::new(config);
        self.workers.apply_config(config);
        self.sources.apply_config(config);
        self.clips.apply_config(config);
    }

    /// The bounds of the config in force.
    pub(super) fn limits(&self) -> SessionLimits {
        *self.limits.lock()
    }
}

/// Bounds on sessions from the config.
#[derive(Debug, Clone, Copy)]
pub(super) struct SessionLimits {
    /// How long a worker may take to end by itself.
    pub(super) cleanup: Duration,
    /// Time limits of a change beside a running worker.
    pub(super) rollout: RolloutTerms,
    /// Sessions at a time.
    pub(super) sessions: usize,
}

impl SessionLimits {
    fn new(config: &Config) -> Self {
        Self {
            cleanup: Duration::from_secs(config.session_processes.process_cleanup_timeout),
            rollout: RolloutTerms {
                start: Duration::from_secs(config.deploy.start_timeout_s),
                first_frame: Duration::from_millis(config.deploy.first_frame_ms),
                swap: Duration::from_millis(config.deploy.swap_timeout_ms),
                probation: Duration::from_secs(config.deploy.probation_s),
            },
            sessions: config.session_processes.max_concurrent_sessions,
        }
    }
}
