//! Messages between the host and the worker of one session.
//!
//! The host opens with [`ToWorker::Start`]. The worker answers with [`FromWorker::SandboxReport`],
//! then with [`FromWorker::Described`], then with [`FromWorker::Ready`] once the pipeline is
//! initialised. A worker that cannot start sends [`FromWorker::Failed`] and exits. From then on
//! access units flow one way and results the other.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::confinement::Confinement;
use crate::limit::{ATTRIBUTE_BYTES, Limit, LimitCounts};
pub use crate::orientation::Orientation;
use crate::usage::GuestUsage;

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

impl Codec {
    /// Its name for clients.
    pub fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::Mjpeg => "mjpeg",
        }
    }
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

/// How a worker treats frames that arrive faster than its pipeline takes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pacing {
    /// A live source: the newest frame wins, those before it are skipped and counted.
    NewestWins,
    /// A file: every frame, in order; the reader waits.
    EveryFrame,
}

/// The task of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerMode {
    /// One pipeline on one stream, with one instance of the component that lives as long as the
    /// worker.
    Stream(Pacing),
    /// Single pictures ([`ToWorker::Analyze`]), each with a fresh instance of the component.
    Analyze,
    /// Nothing: the component describes itself, the settings are held against its schema, and the
    /// worker ends with [`FromWorker::Ready`] or its failure.
    Describe,
}

/// The first message to a worker: its whole configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// The session's name, for the process title and messages.
    pub session: String,
    /// The pipeline's settings, a JSON object.
    pub settings: String,
    pub mode: WorkerMode,
    /// The frames to decode.
    pub decode: Decode,
    /// The bounds on the process and its component.
    pub limits: WorkerLimits,
    /// Interval of [`FromWorker::Heartbeat`] in milliseconds.
    pub heartbeat_ms: u32,
    /// Whether the worker starts on standby: it decodes access units and keeps the newest frames.
    /// Its pipeline processes no frame but those of [`ToWorker::DryRun`] until
    /// [`ToWorker::Activate`].
    pub standby: bool,
    /// Whether the operator granted the session keys of Redis
    /// ([`redis_bridge`](crate::redis_bridge)).
    pub redis_granted: bool,
    /// Whether each frame is to be sent with its output drawn in: [`FromWorker::Annotated`].
    pub annotate: bool,
}

/// Frames that a worker on standby keeps: as many as the standards let a decoder hold back. A
/// handoff goes by frame number, not by access unit: with B frames, two decoders that got the same
/// units may hold back a different number of pictures, but their numbers agree. So this worker
/// keeps what its decoder gave out and the other's still holds.
pub const STANDBY_FRAMES: usize = 16;

/// The content of the session's `wasi:keyvalue` store, by bucket and key.
pub type StoreContents = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

/// One change of a session's `wasi:keyvalue` store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreChange {
    /// Name of the bucket.
    pub bucket: String,
    /// Name of the key within the bucket.
    pub key: String,
    /// The new value; `None` deletes the key.
    pub value: Option<Vec<u8>>,
}

/// The bounds on a worker and its component.
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
    /// Log lines of the component in a second. Lines beyond that are dropped and counted.
    pub log_lines_per_second: u32,
    /// Pixels of a single picture ([`ToWorker::Analyze`]).
    pub image_pixels: u32,
    /// Bytes of the session's `wasi:keyvalue` store: names of buckets, keys and values together.
    pub store_bytes: u32,
    /// Keys of that store, all buckets together.
    pub store_keys: u32,
}

/// Whose clock a wall-clock time is of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CaptureClock {
    /// The camera's, by its RTCP sender reports.
    Camera,
    /// The host's at the receipt; for a file the presentation time counted from 1970-01-01.
    #[default]
    Host,
}

/// The description of an access unit; its bytes are the message's payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitHeader {
    /// The access unit's number in the source, in decoding order, from 0 on without gaps.
    pub number: u64,
    /// The compression of the payload.
    pub codec: Codec,
    /// Decoding can start here.
    pub key: bool,
    /// No other picture refers to this one.
    pub disposable: bool,
    /// Units before this one are missing: the decoder is drained, then starts afresh.
    pub discontinuity: bool,
    /// Presentation time since the source began, in nanoseconds. `None` if the container has no
    /// times.
    pub presentation_ns: Option<i64>,
    /// Wall-clock time of the picture, in nanoseconds since 1970.
    pub capture_ns: u64,
    /// Whose clock that is.
    pub capture_clock: CaptureClock,
    /// How the picture is turned before anything looks at it.
    pub orientation: Orientation,
    /// Decoded because others refer to it, and not shown: it lies outside of the file's edit list.
    pub hidden: bool,
    /// When the host had received the unit, on the monotonic clock, in nanoseconds.
    pub received_ns: u64,
}

/// Time from one access unit to the next where the container has no times: 25 a second.
const UNTIMED_UNIT_NS: u64 = 40_000_000;

impl UnitHeader {
    /// The time by which results name this picture, in nanoseconds: its presentation time. Where
    /// the container has none, the unit's number at 25 a second, in decoding order: it names the
    /// picture as exactly, though B frames make it go back and forth.
    pub fn shown_ns(&self) -> i64 {
        let untimed = || self.number.saturating_mul(UNTIMED_UNIT_NS);
        self.presentation_ns.unwrap_or_else(|| i64::try_from(untimed()).unwrap_or(i64::MAX))
    }
}

/// What a request to a pipeline may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestKind {
    /// Answer a question. The pipeline cannot write to its session's store or to Redis meanwhile.
    Query,
    /// Change the pipeline's state.
    Command,
}

/// Why a pipeline did not do what it was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestFault {
    /// The pipeline's error text.
    Refused(String),
    /// It is a query, and the pipeline is made for a version of the contract without them.
    NoQueries,
}

/// From the host to a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// The payload holds the [`ModelDescriptions`](crate::model::ModelDescriptions) of the models
    /// that the session may use, in postcard; it is empty where no pipeline asks for any.
    Start(Start),
    /// A compressed picture; the payload holds its bytes.
    Unit(UnitHeader),
    /// The next frame as a file by itself, a JPEG or PNG; the payload holds its bytes. The header's
    /// codec says nothing.
    Picture(UnitHeader),
    /// The source has ended: drain the decoder, then answer [`FromWorker::Finished`].
    EndOfStream,
    /// A request to the pipeline, answered by [`FromWorker::Answer`].
    Ask {
        /// Repeated in the answer.
        id: u64,
        kind: RequestKind,
        /// JSON.
        request: String,
    },
    /// Load the session's store: the payload holds a [`StoreContents`] in postcard. A stream's
    /// worker gets it right after `Start`, and waits for it before `init`. A worker on standby gets
    /// it once more before [`Self::Activate`].
    LoadStore,
    /// Report how far the access units before this message are decoded: answered by
    /// [`FromWorker::BarrierReached`].
    Barrier {
        /// Repeated in the answer.
        id: u64,
    },
    /// To a worker on standby: process a kept frame and discard its output and its changes of the
    /// store. Answered by [`FromWorker::DryRunResult`].
    DryRun {
        /// The frame's number; `None` for the newest kept frame.
        frame: Option<u64>,
    },
    /// To a worker on standby: replace the instance by a fresh, initialised one; answered by
    /// [`FromWorker::Reinstantiated`].
    Reinstantiate,
    /// Send the pipeline's state once all frames of the units before this message are processed;
    /// the answer's payload holds it. The worker goes on as before.
    Snapshot,
    /// Take over another instance's state; the payload holds it.
    Restore {
        /// Version of the pipeline that wrote the state.
        version: String,
    },
    /// To a worker on standby, once: process frames and send results from now on, the kept frames
    /// first. Answered by [`FromWorker::Active`]. The worker's counters start again at 0, as if it
    /// had been started with the next unit.
    Activate {
        /// The last frame that another worker has processed: this one leaves out all up to it.
        /// `None` if there was no other worker.
        after: Option<u64>,
    },
    /// Analyse the picture in the payload, a JPEG or PNG file; answered by
    /// [`FromWorker::Analyzed`]. One at a time.
    Analyze {
        /// Repeated in the answer.
        id: u64,
        /// The pipeline's settings, a JSON object; `None` for those of `Start`.
        settings: Option<String>,
    },
    /// Encode the newest picture for people; answered by [`FromWorker::PictureEncoded`].
    EncodePicture {
        /// Repeated in the answer.
        id: u64,
        wish: PictureWish,
        /// The frame that the host has already, encoded alike.
        known: Option<u64>,
    },
}

/// How a picture for people is encoded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PictureWish {
    /// Width in pixels; none is enlarged. `None`: as it is.
    pub width: Option<u32>,
    /// With the boxes of what the pipeline found: the newest picture that it has looked at.
    pub boxes: bool,
}

/// The first line, in JSON, of what `ocelli-worker --still` writes to its standard output after it
/// was given [`ToWorker::Unit`] messages on its standard input. A PNG file follows, if a picture
/// could be decoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StillReport {
    /// Width and height in pixels of the first sound picture, as shown. `None` without one.
    pub size: Option<(u32, u32)>,
    /// The decoder's words, if there is no picture.
    pub fault: Option<String>,
}

/// A rectangle in frame pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rect {
    /// Left edge, in frame pixels.
    pub x: f32,
    /// Upper edge, in frame pixels.
    pub y: f32,
    /// Width in frame pixels.
    pub width: f32,
    /// Height in frame pixels.
    pub height: f32,
}

/// A property of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// The property: "colour".
    pub name: String,
    /// Its value as text: "red".
    pub value: String,
    /// Confidence, 0 to 1.
    pub score: f32,
}

/// An object found in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    pub label: String,
    /// Confidence, 0 to 1.
    pub score: f32,
    /// The object's bounding box.
    pub area: Rect,
    /// The same number for the same object from frame to frame.
    pub track: Option<u64>,
    /// The results of further stages.
    pub attributes: Vec<Attribute>,
    /// A vector that describes the object.
    pub embedding: Option<Vec<f32>>,
}

impl Detection {
    /// Bytes of the texts, attributes and embedding, as the limits count them.
    pub fn payload_bytes(&self) -> usize {
        let attributes = self
            .attributes
            .iter()
            .map(|a| a.name.len() + a.value.len() + ATTRIBUTE_BYTES)
            .sum::<usize>();
        let embedding = self.embedding.as_ref().map_or(0, |values| size_of_val(values.as_slice()));
        self.label.len() + attributes + embedding
    }
}

/// An event that a pipeline reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The type of the event: "entered".
    pub kind: String,
    /// The detections that the event is about.
    pub detections: Vec<Detection>,
    /// A JSON object, or empty.
    pub data: String,
    pub attachments: Vec<Vec<u8>>,
}

impl Event {
    /// Bytes of the event without its attachments, as the limits count them.
    pub fn payload_bytes(&self) -> usize {
        let detections: usize = self.detections.iter().map(Detection::payload_bytes).sum();
        self.kind.len() + self.data.len() + detections
    }
}

/// When a frame passed each step, on the monotonic clock, in nanoseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamps {
    /// The host had the access unit.
    pub received: u64,
    /// The worker had the picture.
    pub decoded: u64,
    /// The pipeline got the frame.
    pub submitted: u64,
    /// The last inference for the frame had answered; `submitted` if the frame needed none.
    pub inferred: u64,
    /// The pipeline had returned.
    pub emitted: u64,
}

/// What boxes rest on, the most certain first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Source {
    /// A model ran on the frame.
    Model,
    /// Pixels were followed from a frame on which a model ran.
    Flow,
    /// Extrapolated, without a look at the pixels.
    Predicted,
}

/// What a frame's detections rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Basis {
    /// The least certain of them.
    pub source: Source,
    /// Presentation time since the frame on which a model ran last, in nanoseconds.
    pub model_age_ns: u64,
}

/// The output of a pipeline for one frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FrameResult {
    /// The frame's number in the source, in presentation order.
    pub frame: u64,
    /// [`UnitHeader::shown_ns`] of the frame's access unit.
    pub presentation_ns: i64,
    /// Wall-clock time of the picture, nanoseconds since 1970.
    pub capture_ns: u64,
    /// Whose clock that is.
    pub capture_clock: CaptureClock,
    /// Width of the frame in pixels.
    pub width: u32,
    /// Height of the frame in pixels.
    pub height: u32,
    /// `None` if the pipeline skipped the frame.
    pub detections: Option<Vec<Detection>>,
    /// The events of this frame, in the pipeline's order.
    pub events: Vec<Event>,
    /// What the detections rest on, where the pipeline says so.
    pub basis: Option<Basis>,
    /// When the frame passed each step.
    pub timestamps: Timestamps,
}

/// Totals of a worker since it started, or since [`ToWorker::Activate`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    pub received: u64,
    pub decoded: u64,
    /// Frames that the pipeline has processed.
    pub processed: u64,
    pub inferred: u64,
    /// Inferences that returned an error.
    pub inference_failed: u64,
    /// Inferences that were dropped because they had waited too long.
    pub inference_stale: u64,
    /// Time that inferences waited for a free runner, together, in nanoseconds.
    pub inference_wait_ns: u64,
    /// Time that inferences ran, together, in nanoseconds.
    pub inference_run_ns: u64,
    /// Time that the component waited for the inference process, together, in nanoseconds: for
    /// inferences, on their way there and back too, and for models that were opened.
    pub inference_call_ns: u64,
    /// Frames for which the component asked whether its models may run.
    pub budget_asked: u64,
    /// Of these, frames for which they might.
    pub budget_granted: u64,
    /// Frames skipped because a newer one had come.
    pub skipped_newer: u64,
    /// Access units that the decode setting leaves out.
    pub skipped_setting: u64,
    /// Access units that came before the first key frame.
    pub skipped_no_key: u64,
    /// Pictures that the decoder marked as damaged, and access units that it refused.
    pub skipped_corrupt: u64,
    /// Pictures that the source does not show: they lie outside of a file's edit list.
    pub skipped_hidden: u64,
    /// Access units that the decoder took and made no picture of.
    pub skipped_no_picture: u64,
    /// Frames that came out of the decoder after [`ToWorker::Activate`] and that the previous
    /// worker had processed.
    pub already_processed: u64,
    /// How often the component ran into each limit.
    pub limits: LimitCounts,
}

/// Severity of a log line, least severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LogLevel {
    /// Steps of an algorithm.
    Trace,
    Debug,
    Info,
    /// Something is not as it should be.
    Warn,
    Error,
}

/// The step of a worker that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WorkerStage {
    /// Setting up the process.
    Setup,
    /// Loading the compiled component.
    Load,
    /// Instantiating the component: it has an import that this host does not offer, or its memory
    /// exceeds a limit.
    Instantiate,
    /// The component's `describe`.
    Describe,
    /// Checking the settings against the schema that the component describes.
    Settings,
    /// The component's `init`.
    Init,
    /// The device that is to decode: it is not there, or does not decode the stream.
    Device,
    Decode,
    /// The component's `process`.
    Process,
    /// The component's `query` or `command`.
    Request,
    /// The component's `snapshot`.
    Snapshot,
    /// The component's `restore`.
    Restore,
}

/// A model that a pipeline declares as needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelNeed {
    /// The model's name in the catalog.
    pub name: String,
    /// Inputs by name with their shapes; -1 is a dimension left open.
    pub inputs: Vec<(String, Vec<i64>)>,
}

/// A component's description of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// Models that the pipeline loads.
    pub models: Vec<ModelNeed>,
    /// JSON Schema of the settings.
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
    /// The pipeline trapped, by the limit that it ran into, if any.
    PipelineTrapped(Option<Limit>),
}

/// From a worker to the host: [`gate`](crate::gate) says which may come when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, strum::EnumDiscriminants)]
#[strum_discriminants(name(FromWorkerKind))]
#[strum_discriminants(derive(strum::Display, strum::FromRepr, strum::VariantArray))]
#[strum_discriminants(doc = "A message of a worker, by its number: the first byte of the message.")]
pub enum FromWorker {
    /// How the process is confined. The first message.
    SandboxReport(Confinement),
    /// The pipeline's description, before it is initialised.
    Described(Description),
    /// The pipeline is initialised and waits for frames.
    Ready,
    /// The pipeline has processed a frame.
    Result { result: FrameResult, counters: Counters },
    /// `process` returned an error: this frame has no result, the pipeline goes on.
    FrameFailed {
        frame: u64,
        /// The pipeline's error text.
        message: String,
        counters: Counters,
    },
    /// A line for the session's log.
    Log {
        /// Severity of the line.
        level: LogLevel,
        /// The part of the pipeline or the worker that wrote the line.
        context: String,
        message: String,
        /// The frame in process.
        frame: Option<u64>,
    },
    /// Answer to [`ToWorker::Ask`].
    Answer {
        /// As in the request.
        id: u64,
        /// JSON.
        answer: Result<String, RequestFault>,
    },
    /// Changes of the session's store by the call that has just returned: the host keeps all of
    /// them or none. Sent before the call's result. A worker on standby sends none.
    StoreCommit(Vec<StoreChange>),
    /// Answer to [`ToWorker::Barrier`].
    BarrierReached {
        /// As in the barrier.
        id: u64,
        /// The first frame that came out of the decoder, if any: earlier ones will not come.
        first: Option<u64>,
        /// The newest frame that came out of the decoder.
        newest: Option<u64>,
    },
    /// Answer to [`ToWorker::DryRun`].
    DryRunResult {
        /// The requested frame, or the newest one; `None` if no frame is kept.
        frame: Option<u64>,
        /// The pipeline's output without attachments, or its error text. `None` if the frame is no
        /// longer kept or not decoded yet. A trap is [`FromWorker::Failed`] instead.
        outcome: Option<Result<FrameResult, String>>,
    },
    /// Answer to [`ToWorker::Reinstantiate`].
    Reinstantiated,
    /// Answer to [`ToWorker::Snapshot`]; the payload holds the state.
    Snapshot {
        /// The last frame that was processed, or skipped for a newer one. `None` if there was none.
        last_frame: Option<u64>,
        counters: Counters,
    },
    /// Answer to [`ToWorker::Restore`]; the error is the pipeline's.
    Restored(Result<(), String>),
    /// Answer to [`ToWorker::Activate`].
    Active,
    /// Answer to [`ToWorker::Analyze`].
    Analyzed {
        /// As in the request.
        id: u64,
        /// The output for the picture as frame 0, or the fault with a text for a person.
        outcome: Result<FrameResult, (AnalysisFault, String)>,
        counters: Counters,
    },
    /// Answer to [`ToWorker::EndOfStream`]: every frame is processed.
    Finished {
        counters: Counters,
        /// The decoder's words, if not one picture of the source was sound.
        damage: Option<String>,
    },
    /// The worker is alive: sent every [`Start::heartbeat_ms`], whatever the pipeline does.
    Heartbeat {
        counters: Counters,
        /// Bytes of the component's linear memories together.
        guest_memory: u64,
        /// The decoder's words, while pictures come and not one has been sound for several seconds.
        damage: Option<String>,
    },
    /// The worker cannot go on. It exits after this message.
    Failed {
        /// The step that failed.
        stage: WorkerStage,
        /// The limit that the worker ran into, if any.
        limit: Option<Limit>,
        /// Totals, with that limit counted.
        counters: Counters,
        /// The cause, with the wasm backtrace if there is one.
        message: String,
    },
    /// Answer to [`ToWorker::EncodePicture`]; the payload holds the picture, a JPEG, and is empty
    /// if the host has it already.
    PictureEncoded {
        /// As in the request.
        id: u64,
        /// The frame's number; `None` if there is no picture.
        frame: Option<u64>,
        /// [`UnitHeader::shown_ns`] of the frame's access unit.
        presentation_ns: i64,
    },
    /// What the component has used. Comes before [`FromWorker::Finished`] and
    /// [`FromWorker::Failed`].
    Used(GuestUsage),
    /// The frame whose outcome follows, with [`Start::annotate`] alone; the payload holds the
    /// picture with what was found drawn in, a JPEG.
    Annotated {
        frame: u64,
        /// [`UnitHeader::shown_ns`] of the frame's access unit.
        presentation_ns: i64,
        /// Width and height in pixels.
        size: (u32, u32),
    },
}
