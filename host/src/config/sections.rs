//! The sections of the config without a file of their own.
//!
//! Keys, ranges, defaults and meanings are written here alone: the schema is made of these types.
//! Their comments are the schema's descriptions, so they are written for operators.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::allow::SourcePattern;
use super::registry::RegistryConfig;
use super::source::Source;

/// The worker processes, one for each session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SessionProcesses {
    /// Sessions at the same time, configured cameras and subscribers' sessions together.
    #[schemars(range(min = 1, max = 1000))]
    pub max_concurrent_sessions: usize,
    /// Seconds for all sessions together to end when the host stops; processes that still run then
    /// are killed.
    #[schemars(range(min = 1, max = 600))]
    pub process_cleanup_timeout: u64,
    /// Seconds within which a worker process that hangs is noticed and replaced.
    #[schemars(range(min = 1, max = 3600))]
    pub health_check_interval: u64,
    /// Whether the host runs if the kernel cannot fully confine child processes: best-effort runs
    /// and reports the missing measures, required does not run.
    pub sandbox: Sandbox,
    /// When a log file is closed and a new one begun: at this size, and each day at midnight UTC.
    pub log_rotation: LogRotation,
}

impl Default for SessionProcesses {
    fn default() -> Self {
        Self {
            max_concurrent_sessions: 20,
            process_cleanup_timeout: 30,
            health_check_interval: 10,
            sandbox: Sandbox::default(),
            log_rotation: LogRotation::default(),
        }
    }
}

/// Policy for a kernel that cannot fully confine a child process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Sandbox {
    /// It runs with the measures available; the log and the API report the missing ones.
    #[default]
    BestEffort,
    /// It does not run.
    Required,
}

/// When log files are rotated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogRotation {
    /// Size of a log file in MiB at which it is rotated.
    #[schemars(range(min = 1, max = 10_240))]
    pub max_size_mb: u64,
    /// Rotated files kept of each log.
    #[schemars(range(min = 0, max = 100))]
    pub backup_count: usize,
}

impl Default for LogRotation {
    fn default() -> Self {
        Self { max_size_mb: 100, backup_count: 5 }
    }
}

/// Limits of one session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ResourceLimits {
    /// Private memory of a worker process in MiB (RLIMIT_DATA). A decoder at 1080p takes 24, an
    /// idle worker 8.
    #[schemars(range(min = 64, max = 1_048_576))]
    pub memory_per_process_mb: u64,
    /// Share of a GPU's memory that one inference process may take.
    #[schemars(range(min = 0.01, max = 1))]
    pub gpu_memory_fraction: f64,
    /// Linear memories of a pipeline together, in MiB; at most memory_per_process_mb. 4096 is all
    /// that wasm32 can address.
    #[schemars(range(min = 1, max = 4096))]
    pub guest_memory_mb: u64,
    /// Shared memory for the tensors of a session in MiB, inputs and outputs together. It is
    /// allocated as a whole when the session starts.
    #[schemars(range(min = 1, max = 1024))]
    pub tensor_memory_mb: u32,
    /// CPU time of one call into a pipeline, in milliseconds. Waiting for inference is not counted.
    #[schemars(range(min = 1, max = 60_000))]
    pub call_cpu_ms: u32,
    /// Time of one call into a pipeline by the clock, in milliseconds, waiting for inference
    /// included.
    #[schemars(range(min = 1, max = 600_000))]
    pub call_timeout_ms: u32,
    /// Time of one call from a pipeline to the host by the clock, in milliseconds. Inference has
    /// inference.timeout_ms.
    #[schemars(range(min = 1, max = 600_000))]
    pub host_call_ms: u32,
    /// Events that a pipeline may return for one frame.
    #[schemars(range(min = 1, max = 1000))]
    pub events_per_frame: u32,
    /// Size of one event in KiB, without its attachments.
    #[schemars(range(min = 1, max = 1024))]
    pub event_kb: u32,
    /// Attachments of the events of one frame together.
    #[schemars(range(min = 0, max = 1000))]
    pub attachments_per_frame: u32,
    /// Log lines of a pipeline per second. Further ones are dropped and counted.
    #[schemars(range(min = 1, max = 1000))]
    pub log_lines_per_second: u32,
    /// Descriptors of a worker process (RLIMIT_NOFILE).
    #[schemars(range(min = 16, max = 65_536))]
    pub open_files: u64,
    /// CPU time of a worker process in percent of one core, where the host may make control groups
    /// (cgroup v2).
    #[schemars(range(min = 1, max = 100_000))]
    pub cpu_percent: u32,
    /// A session's wasi:keyvalue store in KiB: names of buckets, keys and values together.
    #[schemars(range(min = 0, max = 8192))]
    pub keyvalue_kb: u32,
    /// Keys of that store.
    #[schemars(range(min = 0, max = 100_000))]
    pub keyvalue_keys: u32,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self {
            memory_per_process_mb: 2048,
            gpu_memory_fraction: 0.3,
            guest_memory_mb: 256,
            // Input and outputs of nanodet at 416 are 3.9 MB, those of a model with 640 x 640
            // pixels and 8400 boxes 7.7 MB.
            tensor_memory_mb: 8,
            call_cpu_ms: 1000,
            call_timeout_ms: 8000,
            host_call_ms: 5000,
            events_per_frame: 100,
            event_kb: 256,
            attachments_per_frame: 16,
            log_lines_per_second: 50,
            open_files: 64,
            cpu_percent: 200,
            keyvalue_kb: 1024,
            keyvalue_keys: 1000,
        }
    }
}

/// The models that pipelines may use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelsConfig {
    /// One folder for each model: model.onnx and model.toml. Relative to the working directory.
    #[schemars(length(min = 1))]
    pub directory: PathBuf,
}

impl Default for ModelsConfig {
    fn default() -> Self {
        Self { directory: "models".into() }
    }
}

/// The folder and the format of log files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogsConfig {
    /// Where they go; made when it is not there. Relative to the working directory.
    #[schemars(length(min = 1))]
    pub directory: PathBuf,
    /// How a line of a log file, and of standard error, is written: text for people, or one JSON
    /// object.
    pub format: LogFormat,
}

impl Default for LogsConfig {
    fn default() -> Self {
        Self { directory: "logs".into(), format: LogFormat::default() }
    }
}

/// How a line of a log file is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line of text for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// When an alert is raised as an event. 0 turns an alert off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Memory of a worker process in percent of resource_limits.memory_per_process_mb.
    #[schemars(range(min = 0, max = 100))]
    pub memory_percent: u32,
    /// Seconds without a result of a session whose source delivers.
    #[schemars(range(min = 0, max = 86_400))]
    pub no_results_s: u64,
    /// Lost workers of a session within an hour. What an operator restarts does not count.
    #[schemars(range(min = 0, max = 10_000))]
    pub restarts_per_hour: u32,
    /// Seconds that the source of a session has been down.
    #[schemars(range(min = 0, max = 86_400))]
    pub source_down_s: u64,
    /// Free space, in percent, of the disks that hold the logs and the data directory.
    #[schemars(range(min = 0, max = 100))]
    pub disk_free_percent: u32,
    /// Frames of a session, or of all sessions together, that were skipped for load within the last
    /// minute, in percent.
    #[schemars(range(min = 0, max = 100))]
    pub overload_percent: u32,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            memory_percent: 90,
            no_results_s: 30,
            restarts_per_hour: 5,
            source_down_s: 10,
            disk_free_percent: 5,
            overload_percent: 50,
        }
    }
}

/// The data directory and the cache of compiled pipelines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// Pipelines, journals and, where it has no folder of its own, the cache of compiled pipelines.
    /// Relative to the working directory.
    #[schemars(length(min = 1))]
    pub directory: PathBuf,
    /// The cache of compiled pipelines. Hosts of one user may share it. Left out: the folder
    /// compiled in the store's. Relative to the working directory.
    #[schemars(length(min = 1))]
    pub cache: Option<PathBuf>,
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { directory: "data".into(), cache: None }
    }
}

impl StoreConfig {
    /// The folder of compiled pipelines.
    pub fn compiled(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(|| self.directory.join("compiled"))
    }
}

/// Retention of events, their pictures and their clips. 0: no bound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EventsConfig {
    /// Hours after which an event is deleted.
    #[schemars(range(min = 0, max = 876_000))]
    pub keep_hours: u64,
    /// Size of the events' file in MiB at which the oldest events are deleted, of the sessions that
    /// have most.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub keep_mb: u64,
    /// Hours after which an attachment is deleted.
    #[schemars(range(min = 0, max = 876_000))]
    pub attachments_hours: u64,
    /// Size of all attachments in MiB at which the oldest are deleted, of the sessions that have
    /// most.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub attachments_mb: u64,
    /// Whether the seconds of video around each event of a pipeline are kept, as they came from the
    /// camera.
    pub clips: bool,
    /// The sessions whose events have clips. Empty: every session.
    #[schemars(inner(length(min = 1)))]
    pub clip_cameras: Vec<String>,
    /// Seconds before the event with which a clip begins; it begins at the key frame before them.
    /// They are kept in memory for each session with clips.
    #[schemars(range(min = 0, max = 60))]
    pub clip_before_s: u64,
    /// Seconds after the event with which a clip ends.
    #[schemars(range(min = 1, max = 60))]
    pub clip_after_s: u64,
    /// Hours after which a clip is deleted.
    #[schemars(range(min = 0, max = 876_000))]
    pub clips_hours: u64,
    /// Size of all clips in MiB at which the oldest are deleted, of the sessions that have most.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub clips_mb: u64,
    /// Free space in MiB on the disk of store.directory, at most 3 % of it, below which clips are
    /// deleted and then attachments, the oldest first; below an eighth of it old events make way for
    /// new ones. 0: nothing is deleted for want of space.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub reserve_mb: u64,
}

impl Default for EventsConfig {
    fn default() -> Self {
        Self {
            keep_hours: 720,
            // Some two million events with a detection each.
            keep_mb: 1024,
            attachments_hours: 168,
            // Some hundred thousand crops of persons.
            attachments_mb: 2048,
            clips: false,
            clip_cameras: Vec::new(),
            clip_before_s: 5,
            clip_after_s: 5,
            clips_hours: 168,
            // Two thousand clips of ten seconds of 4 Mbit/s.
            clips_mb: 10_240,
            // A day of crops of twenty cameras, which is a night and a morning to make room in.
            reserve_mb: 512,
        }
    }
}

/// Sessions that subscribers make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct SubscriptionsConfig {
    /// Seconds that such a session continues after its last subscriber has left.
    #[schemars(range(min = 0, max = 3600))]
    pub grace_s: u64,
    /// The sources that a subscriber may name: `rtsp://HOST[:PORT][/PATH]`, `rtsp://*.DOMAIN`,
    /// `rtsp://ADDRESS/BITS`, the same with `rtsps://`, `file:PATH`. Empty: subscribers make no
    /// sessions.
    #[schemars(with = "Vec<String>", inner(length(min = 1)))]
    pub sources: Vec<SourcePattern>,
    /// Whether cameras that subscribers name may be read by the compatible reader, as reader =
    /// "auto" does. A redirect then reaches what `sources` admits.
    pub compatible: bool,
}

impl SubscriptionsConfig {
    /// A source that a subscriber named as it may be read; `None`: it is not admitted.
    pub fn admitted(&self, source: &Source) -> Option<Source> {
        self.sources.iter().find_map(|pattern| pattern.admitted(source))
    }
}

impl Default for SubscriptionsConfig {
    fn default() -> Self {
        Self { grace_s: 10, sources: Vec::new(), compatible: false }
    }
}

/// Policy for a new version that refuses the state of the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RefusedState {
    /// The session keeps the pipeline that it has.
    #[default]
    Keep,
    /// The new version starts without it.
    Fresh,
}

/// Whether components have to be signed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Signatures {
    /// Signatures are not checked.
    #[default]
    Off,
    /// A component without a signature by one of the trusted keys is refused.
    Required,
}

/// Changing the pipeline of a running session: deployments.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DeployConfig {
    /// Size of a component in MiB.
    #[schemars(range(min = 1, max = 128))]
    pub max_component_mb: u32,
    /// Seconds that checking and compiling a component may take.
    #[schemars(range(min = 1, max = 3600))]
    pub compile_timeout_s: u64,
    /// Compiled components in the cache, in MiB together; those unused for longest are deleted
    /// first.
    #[schemars(range(min = 16, max = 1_048_576))]
    pub cache_mb: u64,
    /// Memory in MiB that has to stay free on the machine when a second worker is started for a
    /// session.
    #[schemars(range(min = 0, max = 1_048_576))]
    pub reserve_mb: u64,
    /// Seconds that the new worker may take to initialise and to catch up with the running one.
    #[schemars(range(min = 1, max = 600))]
    pub start_timeout_s: u64,
    /// Milliseconds that the new version may take for its first frame, whose output is discarded.
    #[schemars(range(min = 1, max = 600_000))]
    pub first_frame_ms: u64,
    /// Milliseconds that the change itself may take: snapshot, restore and the first result.
    #[schemars(range(min = 100, max = 600_000))]
    pub swap_timeout_ms: u64,
    /// Seconds after the change within which a lost worker causes a rollback to the version before
    /// it.
    #[schemars(range(min = 0, max = 86_400))]
    pub probation_s: u64,
    /// Policy for a new version that refuses the state of the one before it: "keep" the running
    /// pipeline, or start the new one "fresh".
    pub refused_state: RefusedState,
    /// Whether a changed file in the store's `pipelines` folder is deployed to the sessions that
    /// use it.
    pub watch: bool,
    /// Deployments that the history keeps for each session.
    #[schemars(range(min = 2, max = 10_000))]
    pub history: u32,
    /// "required": a component without a signature by one of the trusted keys is refused.
    pub signatures: Signatures,
    /// Ed25519 public keys of those whose components are taken: OpenSSH (`ssh-ed25519 AAAA...`) or
    /// PEM.
    #[schemars(inner(length(min = 1)))]
    pub trusted_keys: Vec<String>,
    /// Registries that deployments over the API may name, and how each is asked. Those that
    /// cameras name need no entry if they want no login.
    pub registries: Vec<RegistryConfig>,
}

impl Default for DeployConfig {
    fn default() -> Self {
        Self {
            // A component made of CPython is 40 MB.
            max_component_mb: 64,
            // Such a component takes 63 s of processor time.
            compile_timeout_s: 300,
            // Some five hundred components of Rust, or ten of CPython.
            cache_mb: 1024,
            reserve_mb: 256,
            // A model of hundreds of megabytes that is not preloaded takes tens of seconds.
            start_timeout_s: 90,
            first_frame_ms: 2000,
            swap_timeout_ms: 5000,
            probation_s: 30,
            refused_state: RefusedState::default(),
            watch: true,
            history: 100,
            signatures: Signatures::default(),
            trusted_keys: Vec::new(),
            registries: Vec::new(),
        }
    }
}

/// The analysis of single pictures: POST /v1/analyze/PIPELINE.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AnalyzeConfig {
    /// Worker processes at the same time, waiting ones included. 0: no image is analysed.
    #[schemars(range(min = 0, max = 256))]
    pub workers: usize,
    /// Seconds after which an unused worker ends.
    #[schemars(range(min = 0, max = 86_400))]
    pub idle_s: u64,
    /// Milliseconds that one picture may take from its arrival on, waiting included.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: u32,
    /// Size of a picture's file in MiB.
    #[schemars(range(min = 1, max = 16))]
    pub max_image_mb: u32,
    /// Pixels of a picture in millions.
    #[schemars(range(min = 1, max = 400))]
    pub max_megapixels: u32,
    /// Pictures of one request.
    #[schemars(range(min = 1, max = 1000))]
    pub max_images: usize,
    /// Pictures that may wait for a worker.
    #[schemars(range(min = 1, max = 10_000))]
    pub queue: usize,
    /// Jobs kept, running ones included.
    #[schemars(range(min = 1, max = 10_000))]
    pub jobs: usize,
    /// Seconds that the result of a job is kept.
    #[schemars(range(min = 1, max = 86_400))]
    pub job_ttl_s: u64,
    /// Pipelines whose workers are started with the host and never end. Others are started when
    /// they are asked for.
    pub pipelines: Vec<AnalyzePipeline>,
}

impl Default for AnalyzeConfig {
    fn default() -> Self {
        Self {
            workers: 4,
            idle_s: 60,
            timeout_ms: 60_000,
            max_image_mb: 16,
            max_megapixels: 50,
            max_images: 64,
            queue: 256,
            jobs: 256,
            job_ttl_s: 600,
            pipelines: Vec::new(),
        }
    }
}

/// A pipeline with workers that wait for images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnalyzePipeline {
    /// The name of a pipeline, as GET /v1/pipelines lists it.
    #[schemars(length(min = 1))]
    pub name: String,
    /// Worker processes that are kept for the pipeline.
    #[serde(default = "one_worker")]
    #[schemars(range(min = 1, max = 256))]
    pub workers: usize,
    /// Settings of the pipeline if the request has none.
    #[serde(default)]
    pub settings: Map<String, Value>,
}

fn one_worker() -> usize {
    1
}
