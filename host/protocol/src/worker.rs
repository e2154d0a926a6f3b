//! Messages between the host and the worker of one session.
//!
//! The host opens with [`InferenceResponse::StartDecision`]; the worker answers with how it is
//! confined ([`InferenceRequest::SandboxReport`]), what the pipeline says of itself
//! ([`InferenceRequest::Described`]), then [`InferenceRequest::Candidate`] once it is initialised,
//! or [`InferenceRequest::Internal`] and exits. From then on access units flow one way and results
//! the other.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::confinement::Confinement;
use crate::limit::{Limit, LimitCounts};

/// The compression of an access unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Codec {
    /// H.264, Annex B, parameter sets before each key frame.
    H264,
    /// H.265, Annex B, parameter sets before each key frame.
    H265,
    /// One JPEG picture per access unit.
    Mjpeg,
}

/// Which frames a worker decodes: decoding is a camera's largest fixed cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decode {
    /// Every frame.
    #[default]
    All,
    /// Frames that others refer to.
    Reference,
    /// Key frames alone.
    Key,
}

/// What a worker does with frames that arrive faster than its pipeline takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pacing {
    /// A live source: the newest frame wins, those before it are skipped and counted.
    NewestWins,
    /// A file: every frame, in order; the reader waits.
    EveryFrame,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerMode {
    /// One pipeline on one stream, with one instance of the component that lives as long as the
    /// worker.
    Stream(Pacing),
    /// Single pictures ([`InferenceResponse::AnalyzeConfig`]), each with a fresh instance of the
    /// component.
    Analyze,
}

/// The first message to a worker: all that it needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The session's name, for the process title and messages.
    pub session: String,
    /// The pipeline's settings, a JSON object.
    pub settings: String,
    /// See [`WorkerMode`].
    pub mode: WorkerMode,
    /// See [`Decode`].
    pub decode: Decode,
    /// See [`WorkerLimits`].
    pub limits: WorkerLimits,
    /// How often the worker says that it is alive ([`InferenceRequest::Heartbeat`]), in
    /// milliseconds.
    pub heartbeat_ms: u32,
    /// Whether the worker stands by: it decodes what it is sent and keeps the newest frames, and
    /// lets its pipeline process none until [`InferenceResponse::Activate`] but those of
    /// [`InferenceResponse::DryRun`].
    pub standby: bool,
    /// Whether the session was granted keys of Redis ([`redis_granted`](crate::redis_granted)).
    pub redis_granted: bool,
}

/// Frames that a worker on standby keeps: as many as the standards let a decoder hold back. A
/// handoff goes by frame number, not by access unit: with B frames, two decoders that got the same
/// units may hold back a different number of pictures, but their numbers agree. So this worker keeps
/// what its decoder gave out and the other's still holds.
pub const STANDBY_FRAMES: usize = 16;

/// What the session's `wasi:keyvalue` store holds, by bucket and key.
pub type StoreContents = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// One change of a session's `wasi:keyvalue` store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreChange {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
    /// None: the key is deleted.
    pub value: Option<Vec<u8>>,
}

/// What a worker and its component may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerLimits {
    /// Private memory of the process (RLIMIT_DATA), in bytes.
    pub memory: u64,
    /// Descriptors of the process (RLIMIT_NOFILE).
    pub open_files: u64,
    /// The component's linear memories together, in bytes.
    pub guest_memory: u64,
    /// CPU time of one call into the component, in milliseconds. Waiting for inference is not
    /// counted.
    pub call_cpu_ms: u32,
    /// Time of one call into the component by the clock, in milliseconds.
    pub call_timeout_ms: u32,
    /// Time of one host import by the clock, in milliseconds; inference has its own.
    pub host_call_ms: u32,
    /// Time of one inference by the clock, waiting in the queue included, in milliseconds.
    pub inference_timeout_ms: u32,
    /// Events of one frame.
    pub events_per_frame: u32,
    /// Bytes of one event without its attachments.
    pub event_bytes: u32,
    /// Attachments of one frame's events together.
    pub attachments_per_frame: u32,
    /// Log lines of the component in a second. What is beyond is dropped and counted.
    pub log_lines_per_second: u32,
    /// Pixels of a single picture that is to be analysed.
    pub image_pixels: u32,
    /// Bytes of the session's `wasi:keyvalue` store: names of buckets, keys and values together.
    pub store_bytes: u32,
    /// Keys of that store, those of all buckets together.
    pub store_keys: u32,
}

/// What the host knows of an access unit; its bytes are the message's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitHeader {
    /// The access unit's number in the source, in decoding order, from 0 on without gaps.
    pub number: u64,
    /// See [`Codec`].
    pub codec: Codec,
    /// Decoding can start here.
    pub key: bool,
    /// No other picture refers to this one.
    pub disposable: bool,
    /// Something before this unit is missing: what the decoder still holds is given out, then it
    /// starts afresh.
    pub discontinuity: bool,
    /// Presentation time since the source began, in nanoseconds. None where the container has no
    /// times.
    pub presentation_ns: Option<i64>,
    /// Wall-clock time of the picture, in nanoseconds since 1970, where it is known.
    pub capture_ns: u64,
    /// When the host had received the unit, on the monotonic clock, in nanoseconds.
    pub received_ns: u64,
}

/// From the host to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The first message.
    Start(Start),
    /// A compressed picture; the payload holds its bytes.
    Unit(UnitHeader),
    /// The source has ended: give out what the decoder holds, then answer
    /// [`InferenceRequest::Finished`].
    EndOfStream,
    /// A question to the pipeline, JSON.
    Command {
        /// Repeated in the answer.
        id: u64,
        /// JSON.
        request: String,
    },
    /// What the session's store holds, in the payload: a [`StoreContents`] in postcard. A stream's
    /// worker gets it right after `StartDecision`, and waits for it before `init`; one on standby
    /// gets it once more before it [speaks](Self::Activate).
    LoadStore,
    /// Say how far the access units before this message are decoded: answered by
    /// [`InferenceRequest::BarrierReached`].
    Barrier {
        /// Repeated in the answer.
        id: u64,
    },
    /// To a worker on standby: process a frame that it keeps, unheard; answered by
    /// [`InferenceRequest::DryRunResult`]. Changes of the session's store are thrown away.
    DryRun {
        /// The frame's number; none: the newest that it keeps.
        frame: Option<u64>,
    },
    /// To a worker on standby: drop the instance and make a fresh one, initialised; answered by
    /// [`InferenceRequest::Reinstantiated`].
    Reinstantiate,
    /// Give the pipeline's state once all frames of the units before this message are processed;
    /// the answer's payload holds it. The worker goes on as if it had not been asked.
    Snapshot,
    /// Take over another instance's state; the payload holds it.
    Restore {
        /// Version of the pipeline that gave the state.
        version: String,
    },
    /// To a worker on standby, once: from now on process frames and send results, those first that
    /// it keeps. Answered by [`InferenceRequest::Active`]. The worker counts from here on, as if it
    /// had been started with the next unit.
    Activate {
        /// The last frame that another worker has processed: this one leaves out all up to it.
        /// None: there was no other.
        after: Option<u64>,
    },
    /// Analyse the picture in the payload, a JPEG or PNG file; answered by
    /// [`InferenceRequest::Analyzed`]. One at a time.
    Analyze {
        /// Repeated in the answer.
        id: u64,
        /// The pipeline's settings, a JSON object; none: those of `StartDecision`.
        settings: Option<String>,
    },
}

/// A rectangle in frame pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rect {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Width.
    pub width: f32,
    /// Height.
    pub height: f32,
}

/// A property of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// What is said.
    pub name: String,
    /// Its value.
    pub value: String,
    /// 0 to 1.
    pub score: f32,
}

/// An object found in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The object's class.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// Where it is.
    pub area: Rect,
    /// The same number for the same object from frame to frame.
    pub track: Option<u64>,
    /// What further stages made of it.
    pub attributes: Vec<Attribute>,
    /// A vector that describes it.
    pub embedding: Option<Vec<f32>>,
}

/// Something that happened, as a pipeline told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub kind: String,
    /// The detections that it is about.
    pub detections: Vec<Detection>,
    /// A JSON object, or empty.
    pub data: String,
    /// JPEG pictures.
    pub attachments: Vec<Vec<u8>>,
}

/// When a frame passed each station, on the monotonic clock, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamps {
    /// The host had the access unit.
    pub received: u64,
    /// The worker had the picture.
    pub decoded: u64,
    /// The pipeline got the frame.
    pub submitted: u64,
    /// The last inference for the frame had answered; `submitted` where there was none.
    pub inferred: u64,
    /// The pipeline had returned.
    pub emitted: u64,
}

/// What a pipeline made of one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameResult {
    /// The frame's number in the source, in presentation order.
    pub frame: u64,
    /// Wall-clock time of the picture, nanoseconds since 1970.
    pub capture_ns: u64,
    /// Frame size in pixels.
    pub width: u32,
    /// Frame size in pixels.
    pub height: u32,
    /// None where the pipeline did not look at the frame.
    pub detections: Option<Vec<Detection>>,
    /// What happened.
    pub events: Vec<Event>,
    /// See [`Timestamps`].
    pub timestamps: Timestamps,
}

/// What became of the access units so far: totals since the worker started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Access units taken in.
    pub received: u64,
    /// Pictures decoded.
    pub decoded: u64,
    /// Frames that the pipeline has processed.
    pub processed: u64,
    /// Inferences run.
    pub inferred: u64,
    /// Inferences that brought an error.
    pub inference_failed: u64,
    /// Inferences that were dropped because they had waited too long.
    pub inference_stale: u64,
    /// Time that inferences waited for a free runner, together, in nanoseconds.
    pub inference_wait_ns: u64,
    /// Time that inferences ran, together, in nanoseconds.
    pub inference_run_ns: u64,
    /// Frames skipped because a newer one had come.
    pub skipped_newer: u64,
    /// Access units that the decode setting leaves out.
    pub skipped_setting: u64,
    /// Access units that came before the first key frame.
    pub skipped_no_key: u64,
    /// Pictures that the decoder marked as damaged, and access units that it refused.
    pub skipped_corrupt: u64,
    /// Frames that came out of the decoder after [`InferenceResponse::Activate`] and that the
    /// worker before this one had processed.
    pub already_processed: u64,
    /// How often each limit was run into.
    pub limits: LimitCounts,
}

/// Severity of a log line, least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Steps of an algorithm.
    Trace,
    /// For whoever looks for a fault.
    Debug,
    /// Worth knowing.
    Info,
    /// Something is not as it should be.
    Warn,
    /// Something failed.
    Error,
}

/// The part of a worker that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerStage {
    /// Setting up the process.
    Setup,
    /// Loading the compiled component.
    Load,
    /// Instantiating it: an import that this host does not offer, a limit that its memory exceeds.
    Instantiate,
    /// Its `describe`.
    Describe,
    /// The settings do not fit the schema that it describes.
    Settings,
    /// Its `init`.
    Init,
    /// Decoding the stream.
    Decode,
    /// Its `process`.
    Process,
    /// Its `command`.
    Command,
    /// Its `snapshot`.
    Snapshot,
    /// Its `restore`.
    Restore,
}

/// A model that a pipeline says it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelNeed {
    /// The model's name in the catalogue.
    pub name: String,
    /// Inputs by name with their shapes; -1 is a dimension left open.
    pub inputs: Vec<(String, Vec<i64>)>,
}

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// The pipeline's name.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Models that it loads.
    pub models: Vec<ModelNeed>,
    /// JSON Schema of its settings.
    pub settings_schema: String,
}

/// Why a picture was not analysed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AnalysisFault {
    /// The bytes are neither a JPEG nor a PNG file.
    UnsupportedImage,
    /// The file is damaged or ends too soon.
    DamagedImage,
    /// The picture has more pixels than are allowed.
    ImageTooLarge,
    /// The pipeline's `init` refused the settings.
    InvalidSettings,
    /// `process` returned an error.
    PipelineFailed,
    /// The pipeline trapped; with the limit that it ran into, where it was one.
    PipelineTrapped(Option<Limit>),
}

/// From a worker to the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// How the process is confined. The first message.
    SandboxReport(Confinement),
    /// What the pipeline says of itself, before it is initialised.
    Described(Description),
    /// The pipeline is initialised and waits for frames.
    Ready,
    /// A frame has been processed.
    Result {
        /// What came of it.
        result: FrameResult,
        /// Totals so far.
        counters: Counters,
    },
    /// `process` returned an error: this frame has no result, the pipeline goes on.
    FrameFailed {
        /// The frame's number.
        frame: u64,
        /// The pipeline's own words.
        message: String,
        /// Totals so far.
        counters: Counters,
    },
    /// A line for the session's log.
    Log {
        /// See [`LogLevel`].
        level: LogLevel,
        /// Which part of the pipeline or the worker speaks.
        context: String,
        /// The line.
        message: String,
        /// The frame in work.
        frame: Option<u64>,
    },
    /// Answer to [`InferenceResponse::PumpCommand`].
    CommandAnswer {
        /// As asked.
        id: u64,
        /// JSON, or the pipeline's own words on why not.
        answer: Result<String, String>,
    },
    /// What the call that has just returned changed in the session's store: all of it is to be
    /// kept, or nothing. Comes before what the call returned. Never from a worker on standby.
    StoreCommit(Vec<StoreChange>),
    /// Answer to [`InferenceResponse::Barrier`].
    BarrierReached {
        /// As asked.
        id: u64,
        /// The first frame that came out of the decoder, if any has: earlier ones will not come.
        first: Option<u64>,
        /// The newest.
        newest: Option<u64>,
    },
    /// Answer to [`InferenceResponse::DryRun`].
    DryRunResult {
        /// The frame as asked for, or the one that was the newest; none where none is kept.
        frame: Option<u64>,
        /// What the pipeline made of it, without attachments; or its own words on why not. A trap
        /// is [`InferenceRequest::Internal`]. None where the frame is not kept any more or not
        /// decoded yet.
        outcome: Option<Result<FrameResult, String>>,
    },
    /// Answer to [`InferenceResponse::Reinstantiate`].
    Reinstantiated,
    /// Answer to [`InferenceResponse::Snapshot`]; the payload holds the state.
    Snapshot {
        /// The last frame that was processed or skipped for a newer one: all up to it are done
        /// with. None: there was none.
        last_frame: Option<u64>,
        /// Totals so far.
        counters: Counters,
    },
    /// Answer to [`InferenceResponse::Restore`].
    Restored(Result<(), String>),
    /// Answer to [`InferenceResponse::Activate`].
    Active,
    /// Answer to [`InferenceResponse::AnalyzeConfig`].
    Analyzed {
        /// As asked.
        id: u64,
        /// What came of the picture, as frame 0; or why nothing did, with words for a person.
        outcome: Result<FrameResult, (AnalysisFault, String)>,
        /// Totals so far.
        counters: Counters,
    },
    /// Answer to [`InferenceResponse::EndOfStream`]: every frame is processed.
    Finished {
        /// Totals.
        counters: Counters,
    },
    /// The worker is alive: sent at a steady interval from `StartDecision` on, whatever the
    /// pipeline does.
    Heartbeat {
        /// Totals so far.
        counters: Counters,
        /// Bytes of the component's linear memories together.
        guest_memory: u64,
    },
    /// The worker cannot go on. It exits after this message.
    Failed {
        /// Where.
        stage: WorkerStage,
        /// The limit that was run into, where it was one.
        limit: Option<Limit>,
        /// Totals, that limit counted.
        counters: Counters,
        /// Why, with the wasm backtrace where there is one.
        message: String,
    },
}
