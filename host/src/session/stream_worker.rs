//! The worker of a session: a [`WorkerHandle`] with what the session knows of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::worker::{Counters, FromWorker, StoreChange, WorkerLimits};

use super::feed::MissedUnits;
use super::spec::Spec;
use super::totals::Frames;
use crate::worker::{
    Handshake, StartError, WorkerExit, WorkerHandle, WorkerLaunch, WorkerLauncher, Workload,
};

/// How long a worker that its session gave up may take to end by itself.
const END_GRACE: Duration = Duration::from_millis(500);

/// A worker that runs a session's pipeline, or is to.
pub(super) struct StreamWorker {
    pub(super) spec: Arc<Spec>,
    pub(super) handle: WorkerHandle,
    /// When it was ready, or became active.
    pub(super) since: Instant,
    /// When its last result came.
    pub(super) last_result: Option<Instant>,
    /// Changes of the session's store by a call whose outcome has not come yet.
    pub(super) pending_store_changes: Vec<StoreChange>,
    /// Units that no worker got before it became active.
    pub(super) missed_before: MissedUnits,
}

impl StreamWorker {
    /// Starts a worker for a session. `store` is the session's key-value store, encoded.
    pub(super) async fn launch(
        workers: Arc<WorkerLauncher>,
        limits: WorkerLimits,
        spec: Arc<Spec>,
        standby: bool,
        store: Vec<u8>,
    ) -> anyhow::Result<Self> {
        let component = match &spec.pipeline.compiled {
            Ok(component) => component,
            Err(reason) => anyhow::bail!("{reason}"),
        };
        let workload = Workload::Stream {
            live: spec.source.is_live(),
            priority: spec.priority,
            decode: spec.decode,
            standby,
            redis_prefix: spec.redis_prefix.as_deref(),
            store: &store,
        };
        let launch = WorkerLaunch {
            name: &spec.id,
            deployment: &spec.pipeline.id,
            component,
            settings: &spec.settings,
            limits,
            workload,
        };
        let handle = workers.launch(launch).await?;
        Ok(Self {
            spec,
            handle,
            since: Instant::now(),
            last_result: None,
            pending_store_changes: Vec::new(),
            missed_before: MissedUnits::default(),
        })
    }

    /// Handles a message of a worker that is not ready yet. Whether it is now.
    pub(super) fn on_start_message(&mut self, message: FromWorker) -> Result<bool, StartError> {
        match self.handle.handshake(message)? {
            Handshake::Pending => Ok(false),
            Handshake::StoreCommit(changes) => {
                self.pending_store_changes.extend(changes);
                Ok(false)
            }
            Handshake::Ready => {
                self.since = Instant::now();
                Ok(true)
            }
        }
    }

    /// Its counts, with what never reached it: `missed` so far.
    pub(super) fn frames(&self, counters: Counters, missed: MissedUnits) -> Frames {
        let mut frames = Frames::from(counters);
        frames.skipped.queue = missed.dropped.saturating_sub(self.missed_before.dropped);
        frames.skipped.unreadable = missed.lost.saturating_sub(self.missed_before.lost);
        frames
    }

    /// Ends it. A feed that has its sender has to be closed by then. A worker that was given up has
    /// less time than one that ends in peace.
    pub(super) async fn end(self, given_up: bool, cleanup: Duration) -> WorkerExit {
        self.handle.end(if given_up { END_GRACE } else { cleanup }).await
    }
}
