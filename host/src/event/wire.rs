//! The messages that the host sends over a WebSocket, one JSON object each, `type` first.

use std::collections::BTreeMap;
use std::sync::Arc;

use ocelli_protocol::worker::{CaptureClock, Codec, Source};
use schemars::JsonSchema;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::host::HostStatus;
use super::time::rfc3339;
use crate::journal::events::{ALERT_KIND, LOST_KIND};
use crate::shape::{DIGEST, TIME};

/// The kind of the event by which the host tells that an alert was raised or cleared.
pub const ALERT: &str = ALERT_KIND;

/// Kinds of the host's own events: no event of a pipeline has one of them.
pub(crate) const HOST_KINDS: [&str; 5] =
    [ALERT, "deployment", "events_gone", LOST_KIND, "takeover"];

/// What a session is doing. The session manager owns the transitions.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::Display,
    strum::IntoStaticStr,
    strum::VariantArray,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum SessionState {
    /// Its worker is being set up.
    #[default]
    Starting,
    /// It works.
    Running,
    /// The source is down; the session waits for it.
    Degraded,
    /// The worker has ended and a new one comes after a pause.
    Restarting,
    /// It needs a person or another pipeline.
    Failed,
    /// It has ended on request, or with its source.
    Stopped,
}

impl SessionState {
    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Everything that the host sends. Borrowed: a message is made, serialised once, and shared as
/// text.
#[derive(Debug, Serialize, JsonSchema, strum::IntoStaticStr)]
#[serde(tag = "type", rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum ServerMessage<'a> {
    /// Answer to `subscribe`: the session's messages follow.
    Subscribed {
        /// The session's name.
        session: &'a str,
        /// What it is doing now; every change follows as `session`.
        state: SessionState,
    },
    /// Answer to `unsubscribe`: no message of the session follows.
    Unsubscribed {
        /// The session's name.
        session: &'a str,
    },
    /// Answer to `ping`.
    Pong {
        /// As the client gave it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
    },
    /// Answer to `query` or `command`.
    Answer {
        /// The session's name.
        session: &'a str,
        /// As the client gave it.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        /// The pipeline's own words.
        answer: &'a Value,
    },
    /// What a pipeline found in one frame.
    Detections {
        /// The session's name.
        session: &'a str,
        /// The rest.
        #[serde(flatten)]
        detections: &'a Detections,
    },
    /// The session is doing something else now.
    Session {
        /// The session's name.
        session: &'a str,
        /// What.
        state: SessionState,
        /// Why, for a person.
        reason: Option<&'a str>,
    },
    /// Detections that this subscriber was too slow for.
    Lagged {
        /// The session's name.
        session: &'a str,
        /// How many, since the last that it got.
        #[schemars(range(min = 1))]
        missed: u64,
    },
    /// Answer to `watch`; the host's own message when the session has ended.
    Watching {
        /// The session's name.
        session: &'a str,
        /// Which of its pictures come from now on, each as a binary message.
        pictures: PictureChoice,
        /// The compression; null before the source has delivered a picture.
        codec: Option<PictureCodec>,
        /// The number of the session in binary messages.
        stream: u32,
    },
    /// How the host is, whenever that changes; first of all where it is not well.
    Host {
        /// Each part.
        #[serde(flatten)]
        host: &'a HostStatus,
    },
    /// Something that the client sent was not done, or the connection is about to end.
    Error {
        /// Stable, for programs.
        #[schemars(regex(pattern = CODE))]
        code: &'a str,
        /// For a person.
        message: &'a str,
        /// The session that it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        session: Option<&'a str>,
        /// The `id` of the message that it answers.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        /// Which of the causes of `code` it was, where it has several.
        #[serde(skip_serializing_if = "Option::is_none")]
        #[schemars(regex(pattern = CODE))]
        cause: Option<&'a str>,
        /// With `events_gone`: what was asked for.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<u64>,
        /// With `events_gone` and `after_ahead`: the first number that is kept.
        #[serde(skip_serializing_if = "Option::is_none")]
        oldest: Option<u64>,
        /// Likewise: the last number that was given.
        #[serde(skip_serializing_if = "Option::is_none")]
        newest: Option<u64>,
    },
}

/// Which pictures of a session a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PictureChoice {
    /// All, in decoding order.
    All,
    /// Those that can be decoded by themselves.
    Key,
    /// None.
    None,
}

/// The compression of pictures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PictureCodec {
    /// H.264, Annex B, parameter sets before each key picture.
    H264,
    /// H.265, likewise.
    H265,
    /// A JPEG for each picture.
    Mjpeg,
}

impl From<Codec> for PictureCodec {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::H264 => Self::H264,
            Codec::H265 => Self::H265,
            Codec::Mjpeg => Self::Mjpeg,
        }
    }
}

/// What the codes of errors and problems look like.
pub(crate) const CODE: &str = "^[a-z0-9_]+$";

/// The type of the message that tells of an event.
const EVENT: &str = "event";

/// The type of the message that tells what was found in a frame.
pub(super) const DETECTIONS: &str = "detections";

/// An event of a session, with its number.
// For the documents alone: `event` writes it.
#[derive(JsonSchema)]
#[schemars(rename = "JournalledEvent")]
#[expect(dead_code, reason = "the message is put together as text")]
pub(crate) struct JournalledEvent {
    #[schemars(rename = "type", extend("const" = EVENT))]
    kind: String,
    /// The session's name.
    session: String,
    /// Counts the session's events, without gaps.
    #[schemars(range(min = 1))]
    seq: u64,
    #[schemars(flatten)]
    event: Event,
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedMessage {
    pub kind: &'static str,
    /// The event's number, where it is an event.
    pub seq: Option<u64>,
    /// The message as it goes over the wire: one JSON object.
    pub text: Arc<str>,
}

/// A session's event as it is told, from what the journal keeps of it: the text of a JSON object
/// with further members.
pub fn encode_event(session: &str, seq: u64, body: &str) -> EncodedMessage {
    let id = Value::from(session);
    let rest = body.strip_prefix('{').unwrap_or_default();
    let text = format!("{{\"type\":\"{EVENT}\",\"session\":{id},\"seq\":{seq},{rest}").into();
    EncodedMessage { kind: EVENT, seq: Some(seq), text }
}

impl<'a> ServerMessage<'a> {
    pub fn error(code: &'a str, message: &'a str, session: Option<&'a str>) -> Self {
        Self::refusal(code, message, session, None)
    }

    /// The error that answers the message with this `id`.
    pub fn refusal(
        code: &'a str,
        message: &'a str,
        session: Option<&'a str>,
        id: Option<&'a Value>,
    ) -> Self {
        let (cause, after, oldest, newest) = (None, None, None, None);
        Self::Error { code, message, session, id, cause, after, oldest, newest }
    }

    pub fn kind(&self) -> &'static str {
        self.into()
    }

    /// The message as it goes over the wire, to be shared by all who get it.
    pub fn encode(&self) -> EncodedMessage {
        // Every field is a string, a finite number, or JSON itself, and every key a string: nothing
        // to refuse.
        let text = serde_json::to_string(self).unwrap_or_default().into();
        EncodedMessage { kind: self.kind(), seq: None, text }
    }
}

/// Whose clock a time is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// The camera's own.
    Camera,
    /// The host's: when the picture arrived, or when the host's event happened. A file's pictures
    /// have their presentation time.
    Host,
}

impl From<CaptureClock> for Clock {
    fn from(clock: CaptureClock) -> Self {
        match clock {
            CaptureClock::Camera => Self::Camera,
            CaptureClock::Host => Self::Host,
        }
    }
}

/// What detections rest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DetectionSource {
    /// A model ran on this frame.
    Model,
    /// Pixels were followed from a frame on which a model ran.
    Flow,
    /// Extrapolated, without a look at the pixels.
    Predicted,
}

impl From<Source> for DetectionSource {
    fn from(source: Source) -> Self {
        match source {
            Source::Model => Self::Model,
            Source::Flow => Self::Flow,
            Source::Predicted => Self::Predicted,
        }
    }
}

/// What a pipeline found in one frame.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Detections {
    /// The frame's number in its source, in presentation order.
    pub frame: u64,
    /// Presentation time of the picture in nanoseconds, as its binary message has it.
    pub presentation_ns: i64,
    /// Wall-clock time of the picture: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub time: String,
    /// Whose clock `time` is of.
    pub clock: Clock,
    /// The deployment that found it: the first 12 hexadecimal digits of a component's SHA-256.
    pub deployment: String,
    /// Frame size in pixels.
    #[schemars(range(min = 1))]
    pub width: u32,
    /// Frame size in pixels.
    #[schemars(range(min = 1))]
    pub height: u32,
    /// What was found.
    pub detections: Vec<Detection>,
    /// What the detections rest on, by the least certain of them. Left out where the pipeline does
    /// not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<DetectionSource>,
    /// Whole milliseconds since the frame on which a model ran last, 0 where it ran on this one.
    /// Left out where `source` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_age_ms: Option<u64>,
    /// Milliseconds that each station took.
    pub latency_ms: Latency,
}

/// An object found in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Detection {
    /// Its class.
    pub label: String,
    /// 0 to 1, 4 decimals.
    #[schemars(range(min = 0, max = 1))]
    pub score: f64,
    /// Left edge, upper edge, width, height in frame pixels, 2 decimals.
    #[serde(rename = "box")]
    pub area: [f64; 4],
    /// The same number for the same object from frame to frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
    /// What further stages made of it.
    #[schemars(with = "BTreeMap<String, Attribute>")]
    pub attributes: Attributes,
    /// A vector that describes it, as the pipeline gave it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
}

/// A value that a further stage gave an object.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Attribute {
    /// The value.
    pub value: String,
    /// 0 to 1, 4 decimals.
    #[schemars(range(min = 0, max = 1))]
    pub score: f64,
}

/// Attributes by name, in the pipeline's order; each name once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Attributes(pub Vec<(String, Attribute)>);

impl Serialize for Attributes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, attribute) in &self.0 {
            map.serialize_entry(name, attribute)?;
        }
        map.end()
    }
}

/// Milliseconds on a frame's way, 2 decimals.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
pub struct Latency {
    /// From the access unit's arrival at the host to the decoded picture.
    #[schemars(range(min = 0))]
    pub decode: f64,
    /// From there until the pipeline took the frame.
    #[schemars(range(min = 0))]
    pub wait: f64,
    /// From there to the last inference's answer; 0 where there was none.
    #[schemars(range(min = 0))]
    pub inference: f64,
    /// From there until the pipeline returned.
    #[schemars(range(min = 0))]
    pub pipeline: f64,
    /// All of it.
    #[schemars(range(min = 0))]
    pub total: f64,
}

/// Something that happened, as a pipeline or the host told it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct Event {
    /// Wall-clock time of the picture that it was seen in, or of the host's event: RFC 3339 in UTC,
    /// with milliseconds.
    // In nanoseconds since 1970 until it is told.
    #[serde(rename = "time", serialize_with = "as_rfc3339")]
    #[schemars(with = "String", regex(pattern = TIME))]
    pub time_ns: u64,
    /// Whose clock `time` is of.
    pub clock: Clock,
    /// What happened. `alert` where the host tells it.
    pub kind: String,
    /// The deployment that saw it, or that ran: the first 12 hexadecimal digits of a component's
    /// SHA-256.
    pub deployment: String,
    /// The frame's number in its source. Left out of the host's own events: they were seen in no
    /// frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// The objects that it is about.
    pub detections: Vec<Detection>,
    /// What else there is to say.
    pub data: Map<String, Value>,
    /// Its pictures.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1))]
    pub attachments: Vec<AttachmentRef>,
    /// True where a clip of the seconds around it was begun: `GET /v1/events/{id}/clip.mp4` has it,
    /// from some seconds after the event until it is deleted. Left out otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("const" = true))]
    pub clip: bool,
}

/// A picture of an event, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Attachment")]
pub struct AttachmentRef {
    /// SHA-256 of the file, in hexadecimal digits: its name under `/v1/attachments`.
    #[schemars(regex(pattern = DIGEST))]
    pub digest: String,
    /// What the file is.
    #[serde(rename = "type")]
    #[schemars(extend("const" = "image/jpeg"))]
    pub media_type: &'static str,
    /// Its size.
    #[schemars(range(min = 1))]
    pub bytes: usize,
}

fn as_rfc3339<S: Serializer>(time_ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time_ns))
}
