//! How workers fail: before they are ready, and at any time.

use ocelli_protocol::wire::WireError;
use ocelli_protocol::worker::{FromWorker, WorkerStage};

use super::health::HealthFault;
use super::inbox::InboxError;
use crate::util::line::line;

/// Why a worker is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkerFault {
    /// It has exited, or reported that it cannot go on.
    #[error("{0}")]
    Exited(String),
    /// It has to be killed.
    #[error("{0}")]
    ProtocolViolation(String),
    /// It has to be killed.
    #[error(transparent)]
    Unhealthy(#[from] HealthFault),
}

impl WorkerFault {
    /// The worker's own report that it cannot go on.
    pub(crate) fn failed(stage: WorkerStage, message: &str) -> Self {
        Self::Exited(format!("{stage:?}: {message}"))
    }

    /// A message that may not come now. The reason has only its beginning: a message may have
    /// megabytes.
    pub(crate) fn unexpected(message: &FromWorker) -> Self {
        const SHOWN: usize = 200;
        Self::ProtocolViolation(line(&format!("out of turn: {:.SHOWN$}", format!("{message:?}"))))
    }
}

impl From<InboxError> for WorkerFault {
    fn from(error: InboxError) -> Self {
        match error {
            InboxError::Wire(WireError::Closed) => Self::Exited("the connection is closed".into()),
            InboxError::Wire(WireError::Io(error)) => Self::Exited(error.to_string()),
            error => Self::ProtocolViolation(format!("it broke the protocol: {error}")),
        }
    }
}

/// Why a worker did not get ready.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    /// It has exited, hangs, or broke the protocol.
    #[error(transparent)]
    Fault(#[from] WorkerFault),
    /// It refuses the pipeline's settings, in its own words.
    #[error("settings: {0}")]
    Settings(String),
    /// It reported that it cannot start the pipeline, in its own words.
    #[error("{stage:?}: {message}")]
    Failed { stage: WorkerStage, message: String },
    /// Its sandbox is not what the config requires.
    #[error("{0}")]
    Sandbox(String),
    /// A model that the pipeline needs is missing or another than it needs.
    #[error("{0}")]
    Model(String),
}
