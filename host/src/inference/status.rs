//! The state of inference as metrics and the API show it.

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Isolation;

/// ONNX Runtime and its processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct InferenceStatus {
    /// ONNX Runtime's.
    pub version: Option<String>,
    pub isolation: Isolation,
    /// Whether every session has a process for its requests.
    pub serves: bool,
    /// Whether a process stands by; null where none is to.
    pub spare_ready: Option<bool>,
    // Those that are ready, the oldest first. The host's own is not among them.
    pub processes: Vec<ProcessStatus>,
    /// Processes that were replaced.
    #[serde(skip)]
    pub restarts: Restarts,
    /// Requests that were refused since they ended processes.
    #[serde(skip)]
    pub poison: u64,
}

// A running inference process. What the API shows of it has no description there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct ProcessStatus {
    pub pid: u32,
    pub duty: Duty,
    // Those that it serves.
    pub sessions: usize,
    /// Bytes of private memory at the last measurement, at most some seconds ago.
    #[serde(skip)]
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
