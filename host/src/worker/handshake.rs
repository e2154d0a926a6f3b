//! The beginning of a worker's life: it reports its sandbox, describes its pipeline, and is ready.

use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::worker::{Description, FromWorker, StoreChange, WorkerStage};

use super::fault::{StartError, WorkerFault};
use super::limits::WorkerPolicy;
use super::validate;

/// How long a worker may take until it is ready: loading the component, its `init`, and opening its
/// models. A model of hundreds of megabytes that is not preloaded takes tens of seconds.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// How far a worker is.
pub(crate) enum Handshake {
    Pending,
    /// Not ready yet; `init` of a stream's pipeline has changed the session's store.
    StoreCommit(Vec<StoreChange>),
    /// Its pipeline is initialised.
    Ready,
}

/// A worker's handshake so far.
pub(super) struct HandshakeState {
    policy: Arc<WorkerPolicy>,
    confinement: Option<Confinement>,
    description: Option<Description>,
}

impl HandshakeState {
    pub(super) fn new(policy: Arc<WorkerPolicy>) -> Self {
        Self { policy, confinement: None, description: None }
    }

    pub(super) fn confinement(&self) -> Option<&Confinement> {
        self.confinement.as_ref()
    }

    pub(super) fn description(&self) -> Option<&Description> {
        self.description.as_ref()
    }

    pub(super) fn check_models(&self) -> Result<(), StartError> {
        self.description.as_ref().map_or(Ok(()), |pipeline| self.policy.check_models(pipeline))
    }

    /// Handles a message; the gate has seen to its order.
    pub(super) fn on_message(&mut self, message: FromWorker) -> Result<Handshake, StartError> {
        match message {
            FromWorker::SandboxReport(confinement) => {
                let admitted = self.policy.settings().admit(&confinement);
                self.confinement = Some(confinement);
                admitted?;
            }
            FromWorker::Described(description) => {
                validate::description(&description)?;
                let offered = self.policy.check_models(&description);
                self.description = Some(description);
                offered?;
            }
            FromWorker::Ready => return Ok(Handshake::Ready),
            FromWorker::StoreCommit(changes) => return Ok(Handshake::StoreCommit(changes)),
            FromWorker::Heartbeat { .. } => {}
            FromWorker::Failed { stage: WorkerStage::Settings, message, .. } => {
                return Err(StartError::Settings(message));
            }
            FromWorker::Failed { stage: stage @ WorkerStage::Device, message, .. } => {
                return Err(WorkerFault::failed(stage, &message).into());
            }
            FromWorker::Failed { stage, message, .. } => {
                return Err(StartError::Failed { stage, message });
            }
            other => return Err(WorkerFault::unexpected(&other).into()),
        }
        Ok(Handshake::Pending)
    }
}
