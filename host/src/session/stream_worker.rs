//! The worker of a session.

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::worker::{FromWorker, StoreChange, WorkerLimits};

use super::spec::Spec;
use crate::worker::{
    Handshake, StartError, WorkerExit, WorkerHandle, WorkerLaunch, WorkerLauncher, Workload,
};

/// How long a worker that its session gave up may take to end by itself.
const END_GRACE: Duration = Duration::from_millis(500);

/// A worker that runs a session's pipeline, or is to.
pub(super) struct StreamWorker {
    pub(super) handle: WorkerHandle,
    /// Changes of the session's store by a call whose outcome has not come yet.
    pub(super) pending_store_changes: Vec<StoreChange>,
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
            live: spec.analysed().is_live(),
            priority: spec.priority,
            decode: spec.decode,
            decode_device: &spec.decode_device,
            standby,
            redis_prefix: spec.redis_prefix.as_deref(),
            directories: &spec.directories,
            store: &store,
            annotate: false,
        };
        let launch = WorkerLaunch {
            name: &spec.id,
            deployment: spec.pipeline.id(),
            component,
            settings: &spec.settings,
            limits,
            workload,
        };
        Ok(Self { handle: workers.launch(launch).await?, pending_store_changes: Vec::new() })
    }

    /// Handles a message of a worker that is not ready yet. Whether it is now.
    pub(super) fn on_start_message(&mut self, message: FromWorker) -> Result<bool, StartError> {
        match self.handle.handshake(message)? {
            Handshake::Ready => return Ok(true),
            Handshake::StoreCommit(changes) => self.pending_store_changes = changes,
            Handshake::Pending => {}
        }
        Ok(false)
    }

    /// Ends it. A feed that has its sender has to be closed by then. A worker that was given up has
    /// less time than one that ends in peace.
    pub(super) async fn end(self, given_up: bool, cleanup: Duration) -> WorkerExit {
        self.handle.end(if given_up { END_GRACE } else { cleanup }).await
    }
}
