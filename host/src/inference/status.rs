//! The published state of inference.

use std::sync::Arc;

use ocelli_protocol::inference::{LoadedModel, Model};
use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Isolation;

/// Inference at a moment.
#[derive(Debug, Clone, Default)]
pub struct InferenceStatus {
    /// How models are isolated.
    pub isolation: Isolation,
    /// ONNX Runtime's version, like `1.28.0`.
    pub version: Option<String>,
    /// Whether every session has a process.
    pub serves: bool,
    /// The processes that are ready, the oldest first. The host's own is not among them.
    pub processes: Vec<ProcessStatus>,
    /// Whether a spare process is ready. `None`: no spare is configured.
    pub spare_ready: Option<bool>,
    /// Processes that were replaced.
    pub restarts: Restarts,
    /// Requests that were refused since they ended processes.
    pub poison: u64,
}

/// A running inference process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessStatus {
    /// The system's number of the process.
    pub pid: u32,
    pub duty: Duty,
    /// Sessions that it serves.
    pub sessions: usize,
    /// Bytes of private memory at the last measurement, at most some seconds ago.
    pub memory: u64,
}

/// The role of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schemars(inline)]
pub enum Duty {
    /// It waits to take over, with models loaded.
    Spare,
    /// It runs the requests of sessions.
    Serving,
    /// It answers the requests taken before another process takes over.
    Draining,
}

impl Duty {
    /// Its name in metrics and in the log.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How many processes were replaced, by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restarts {
    /// They died by themselves.
    pub crash: u64,
    /// They showed no sign of life.
    pub hang: u64,
    /// A run could not be ended otherwise.
    pub timeout: u64,
    /// They used more memory than the budget allows.
    pub memory: u64,
}

impl Restarts {
    /// With the reasons' names in metrics.
    pub fn by_reason(self) -> [(&'static str, u64); 4] {
        [
            ("crash", self.crash),
            ("hang", self.hang),
            ("timeout", self.timeout),
            ("memory", self.memory),
        ]
    }
}

/// State that the supervising task publishes to readers.
#[derive(Debug, Default)]
pub(super) struct PublishedState {
    pub(super) status: InferenceStatus,
    pub(super) models: Arc<[Model]>,
    pub(super) loaded: Vec<LoadedModel>,
}
