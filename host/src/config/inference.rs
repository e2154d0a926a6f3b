//! `[inference]`: where and how models run.

use std::path::PathBuf;

use ocelli_protocol::inference::Device;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The process in which models run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Isolation {
    /// One supervised child process.
    #[default]
    Process,
    /// A child process for each session.
    Session,
    /// In the host itself.
    InProcess,
}

/// Policy for a device that is not usable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DeviceFallback {
    /// An unusable device is an error.
    #[default]
    None,
    /// The processor takes over, and the log, the metrics and the API say so.
    Cpu,
}

/// The process that runs the models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct InferenceConfig {
    /// Where models run: in one supervised child process, in one for each session, or in the host
    /// itself, which a crash then ends.
    pub isolation: Isolation,
    /// The device that runs models: cpu, cuda:N, tensorrt:N or openvino. An unusable device is an
    /// error at start, unless fallback is cpu.
    #[serde(with = "super::text")]
    #[schemars(with = "String", length(min = 1))]
    pub device: Device,
    /// Policy for a device that is not usable: none is an error; cpu runs the model on the
    /// processor, with a warning, a metric and a field of GET /v1/models.
    pub fallback: DeviceFallback,
    /// Inferences at the same time, one thread each. Left out: as many as there are cores.
    #[schemars(range(min = 1, max = 256))]
    pub threads: Option<u32>,
    /// Cores for the inferences of pipelines that ask for them frame by frame
    /// (ocelli:pipeline/budget), shared between their cameras. Left out: half of the cores.
    #[schemars(range(min = 0.01, max = 256))]
    pub budget_cores: Option<f64>,
    /// Milliseconds that one inference of a stream may take, waiting in the queue included. A run
    /// that takes longer is ended, by killing the process where nothing else helps.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: u32,
    /// Milliseconds after which an inference of a live camera that still waits is dropped, since
    /// its frame is too old. 0: never.
    #[schemars(range(min = 0, max = 600_000))]
    pub stale_ms: u32,
    /// Private memory of an inference process in MiB at which it is replaced by a fresh one between
    /// two requests. At twice as much it gets no more. 0: unbounded.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub memory_mb: u64,
    /// Whether a second inference process with the models loaded stands by, so that a crash costs
    /// milliseconds. It takes as much memory as the first.
    pub spare: bool,
    /// Whether pipelines may load their own models (wasi:nn load). Such a model is an untrusted
    /// file that ONNX Runtime parses in the inference process.
    pub load: bool,
    /// ONNX Runtime's shared library. Left out: the one that came with the programs, or that
    /// `./x setup` puts into the cache folder.
    #[schemars(length(min = 1))]
    pub library: Option<PathBuf>,
    /// Models to load and warm before the first camera starts. Others load when a pipeline asks for
    /// them.
    #[schemars(inner(length(min = 1)))]
    pub preload: Vec<String>,
    /// Models with options of their own.
    pub models: Vec<ModelOptions>,
}

impl Default for InferenceConfig {
    fn default() -> Self {
        Self {
            isolation: Isolation::default(),
            device: Device::default(),
            fallback: DeviceFallback::default(),
            threads: None,
            budget_cores: None,
            timeout_ms: 5000,
            stale_ms: 2000,
            memory_mb: 4096,
            spare: true,
            load: false,
            library: None,
            preload: Vec::new(),
            models: Vec::new(),
        }
    }
}

/// How one model is run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelOptions {
    /// The model's name: that of its folder.
    #[schemars(length(min = 1))]
    pub name: String,
    /// The device that runs it. Left out: inference.device.
    #[serde(default, with = "super::text::optional")]
    #[schemars(with = "String", length(min = 1))]
    pub device: Option<Device>,
    /// Policy for an unusable device. Left out: inference.fallback.
    #[serde(default)]
    pub fallback: Option<DeviceFallback>,
    /// Most requests that one run answers, of a model whose first dimension is open. 1: each runs
    /// by itself, which is best on a processor.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 32))]
    pub max_batch: u32,
    /// Milliseconds that the first request of a run waits for others.
    #[serde(default = "batch_delay")]
    #[schemars(range(min = 0, max = 1000))]
    pub batch_delay_ms: u32,
}

fn one() -> u32 {
    1
}

/// Shorter than the time between two frames of a camera, and long enough for the requests of
/// cameras in step.
fn batch_delay() -> u32 {
    5
}
