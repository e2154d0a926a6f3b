//! The messages of a WebSocket. `docs/subscriber.md` describes them.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name for every session, later ones included.
pub(crate) const EVERY_SESSION: &str = "*";

/// The state of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Its worker starts.
    Starting,
    /// Its pipeline processes frames.
    Running,
    /// Its source delivers nothing.
    Degraded,
    /// Its worker has ended, and the next one starts after a pause.
    Restarting,
    /// It needs an operator or another pipeline.
    Failed,
    /// It has ended.
    Stopped,
    /// A state that this crate does not know.
    #[serde(untagged)]
    Other(String),
}

impl fmt::Display for SessionState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Restarting => "restarting",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Other(name) => name,
        })
    }
}

/// A message of a host.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Message {
    /// A subscription has begun: the session's messages follow.
    Subscribed {
        /// The session, or `*`.
        session: String,
        /// The session's state now.
        state: SessionState,
    },
    /// A subscription has ended: no message of the session follows.
    Unsubscribed {
        /// The session's name, or `*`.
        session: String,
    },
    /// The detections of one frame.
    Detections(Detections),
    /// An event of a session.
    Event(Event),
    /// The session has another state.
    Session {
        /// The session's name.
        session: String,
        /// The new state.
        state: SessionState,
        /// The reason of the state, for a person.
        #[serde(default)]
        reason: Option<String>,
    },
    /// This subscriber was too slow for some detections.
    Lagged {
        /// The session's name.
        session: String,
        /// Detections missed since the last that came.
        missed: u64,
    },
    /// The answer of a pipeline to a query or a command.
    Answer {
        /// The session's name.
        session: String,
        /// The `id` of the request.
        #[serde(default)]
        id: Option<Value>,
        /// The pipeline's JSON.
        answer: Value,
    },
    /// The answer to a ping.
    Pong {},
    /// How the host is: whenever that changes, and first of all where it is not well.
    Host(HostStatus),
    /// A request was refused, or the connection is about to end.
    Error(Refusal),
    /// A message that this crate does not know, as JSON.
    #[serde(untagged)]
    Unknown(Value),
}

/// How the host is. It does not come from the journal, so it arrives even when the disk is full.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Events that wait for the host's disk, and for their numbers.
    pub events_waiting: u64,
    /// Events since the host was started for which there was no room to wait.
    pub events_lost: u64,
    /// Pictures of events since then that were not kept, or went early, for want of room.
    pub pictures_lost: u64,
    /// The sinks of events, by their names; Redis is among the parts too.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sinks: BTreeMap<String, HostPart>,
    /// `storage`, `clock`, `config`, `inference`, and `redis` where there is one.
    #[serde(flatten)]
    pub parts: BTreeMap<String, HostPart>,
}

/// How a part of the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPart {
    /// `ok`, `degraded` or `failed`.
    pub state: String,
    /// Why, for a person; none while it is `ok`.
    pub reason: Option<String>,
    /// Since when it is so: RFC 3339 in UTC.
    pub since: String,
}

/// The detections of one frame; the list may be empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    /// The session's name.
    pub session: String,
    /// The frame's number in its source, from 0.
    pub frame: u64,
    /// Presentation time of the picture in nanoseconds since its source began: the same as in the
    /// message that brings the picture. 0 where the host does not say.
    #[serde(default)]
    pub presentation_ns: i64,
    /// When the camera took the picture: RFC 3339 in UTC.
    pub time: String,
    /// Whose clock `time` is of: `camera` or `host`. Empty where the host does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub clock: String,
    /// The component that detected them: the first 12 digits of its SHA-256.
    pub deployment: String,
    /// Width of the frame in pixels.
    pub width: u32,
    /// Height of the frame in pixels.
    pub height: u32,
    /// The objects in the frame.
    pub detections: Vec<Detection>,
    /// What the detections rest on, by the least certain of them: `model`, `flow` or `predicted`.
    /// Empty where the pipeline does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// Milliseconds since the frame on which a model ran last, 0 where it ran on this one. `None`
    /// where `source` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_age_ms: Option<u64>,
    /// Milliseconds of each stage: `decode`, `wait`, `inference`, `pipeline`, ...
    pub latency_ms: BTreeMap<String, f64>,
}

/// An object in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The name of its class.
    pub label: String,
    /// Confidence, 0 to 1.
    pub score: f64,
    /// Left edge, upper edge, width, height in frame pixels.
    #[serde(rename = "box")]
    pub area: [f64; 4],
    /// The number of its track: the same for the same object in all frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
    /// Results of further models, by name.
    #[serde(default)]
    pub attributes: BTreeMap<String, Attribute>,
    /// A vector by which objects can be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
}

/// The result of a further model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// The name of the class.
    pub value: String,
    /// Confidence, 0 to 1.
    pub score: f64,
}

/// An event of a pipeline or of the host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The session's name.
    pub session: String,
    /// Counts the session's events, from 1 without gaps.
    pub seq: u64,
    /// When it happened: RFC 3339 in UTC.
    pub time: String,
    /// Whose clock `time` is of: `camera` or `host`. Empty where the host does not say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub clock: String,
    /// The kind of event, such as `entered`.
    pub kind: String,
    /// The component that reported it, or that ran: the first 12 digits of its SHA-256.
    pub deployment: String,
    /// The frame's number in its source. `None` for the host's own events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// The objects that it concerns.
    #[serde(default)]
    pub detections: Vec<Detection>,
    /// Further data of the event's kind.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// Its images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// An image of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// SHA-256 of the file, hexadecimal: its name under `/v1/attachments`.
    pub digest: String,
    /// The media type of the file.
    #[serde(rename = "type")]
    pub media_type: String,
    /// Size of the file in bytes.
    pub bytes: u64,
}

/// An error over a WebSocket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// A stable code for programs.
    pub code: String,
    /// The reason, for a person.
    pub message: String,
    /// The session that it concerns.
    #[serde(default)]
    pub session: Option<String>,
    /// The `id` of the request that was refused.
    #[serde(default)]
    pub id: Option<Value>,
    /// The cause, for a `code` that has several.
    #[serde(default)]
    pub cause: Option<String>,
    /// With `after_ahead` and `events_gone`: the requested number.
    #[serde(default)]
    pub after: Option<u64>,
    /// With these codes: the number of the first event in the journal.
    #[serde(default)]
    pub oldest: Option<u64>,
    /// With these codes: the number of the session's last event.
    #[serde(default)]
    pub newest: Option<u64>,
}

/// A request to subscribe to a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename = "subscribe")]
pub struct Subscribe {
    pub(crate) session: String,
    #[serde(skip_serializing_if = "is_yes")]
    detections: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) after: Option<After>,
    #[serde(flatten)]
    make: Option<MakeSession>,
}

/// The number of the last event that the client has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum After {
    /// A number for the session.
    One(u64),
    /// Numbers for some sessions, with a subscription to all.
    Each(BTreeMap<String, u64>),
}

/// The source and the pipeline of a session to make.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct MakeSession {
    source: String,
    pipeline: String,
    settings: Map<String, Value>,
}

impl Subscribe {
    /// Subscribes to a session: from now on, with detections.
    pub fn to(session: &str) -> Self {
        Self { session: session.into(), detections: true, after: None, make: None }
    }

    /// Subscribes to every session, later ones included. The token has to see all.
    pub fn to_all() -> Self {
        Self::to(EVERY_SESSION)
    }

    /// Asks first for the events after this number.
    pub fn after(mut self, seq: u64) -> Self {
        self.after = Some(After::One(seq));
        self
    }

    /// As [`after`](Self::after), for some sessions, with a subscription to all.
    pub fn after_each(mut self, each: BTreeMap<String, u64>) -> Self {
        self.after = Some(After::Each(each));
        self
    }

    /// Subscribes with detections, or to events and states only.
    pub fn detections(mut self, wanted: bool) -> Self {
        self.detections = wanted;
        self
    }

    /// Makes the session if there is none. The token has to be an operator's, and the host's config
    /// has to allow the source.
    pub fn make(mut self, source: &str, pipeline: &str, settings: Map<String, Value>) -> Self {
        self.make =
            Some(MakeSession { source: source.into(), pipeline: pipeline.into(), settings });
        self
    }
}

/// The other messages of a client.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ClientMessage<'a> {
    Unsubscribe {
        session: &'a str,
    },
    Query {
        session: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        query: &'a Value,
    },
    Command {
        session: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        command: &'a Value,
    },
    Ping {},
}

/// The message as JSON text.
pub(crate) fn text(message: &impl Serialize) -> String {
    // Keys are strings and numbers finite: it does not fail.
    serde_json::to_string(message).unwrap_or_default()
}

fn is_yes(detections: &bool) -> bool {
    *detections
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: Value) -> Message {
        Message::deserialize(message).unwrap()
    }

    #[test]
    fn messages_are_what_their_type_says() {
        let subscribed = Message::Subscribed { session: "*".into(), state: SessionState::Running };
        assert_eq!(
            read(json!({"type": "subscribed", "session": "*", "state": "running"})),
            subscribed
        );
        assert_eq!(read(json!({"type": "pong"})), Message::Pong {});
        let state =
            json!({"type": "session", "session": "a;b", "state": "degraded", "reason": null});
        let expected =
            Message::Session { session: "a;b".into(), state: SessionState::Degraded, reason: None };
        assert_eq!(read(state), expected);
        let Message::Event(event) = read(
            json!({"type": "event", "session": "a", "seq": 3, "time": "t", "kind": "left",
            "deployment": "0a", "frame": 5, "data": {"x": 1}, "detections": [
            {"label": "person", "score": 0.5, "box": [1, 2, 3, 4.5], "track": 7, "attributes": {"colour": {"value": "red", "score": 0.9}}}]}),
        ) else {
            panic!("not an event")
        };
        assert_eq!(
            (event.seq, event.detections[0].area, event.frame),
            (3, [1.0, 2.0, 3.0, 4.5], Some(5))
        );
        assert_eq!(event.detections[0].attributes["colour"].value, "red");
        let Message::Host(host) =
            read(json!({"type": "host", "events_waiting": 2, "events_lost": 0,
            "pictures_lost": 1, "storage": {"state": "failed", "reason": "full", "since": "t"}}))
        else {
            panic!("not how the host is")
        };
        assert_eq!((host.events_waiting, host.parts["storage"].state.as_str()), (2, "failed"));
        let Message::Error(refusal) = read(
            json!({"type": "error", "code": "after_ahead", "message": "m", "id": 7, "newest": 4}),
        ) else {
            panic!("not an error")
        };
        assert_eq!((refusal.code.as_str(), refusal.newest), ("after_ahead", Some(4)));
        assert_eq!(refusal.id, Some(json!(7)));
    }

    #[test]
    fn what_is_not_known_is_kept_as_it_came() {
        for message in
            [json!({"type": "weather", "rain": true}), json!({"type": "lagged"}), json!(7)]
        {
            assert_eq!(read(message.clone()), Message::Unknown(message));
        }
    }

    #[test]
    fn wishes_are_written_as_the_host_reads_them() {
        let json = |message: &Subscribe| serde_json::from_str::<Value>(&text(message)).unwrap();
        assert_eq!(json(&Subscribe::to("gate")), json!({"type": "subscribe", "session": "gate"}));
        let wish =
            Subscribe::to("gate").after(41).detections(false).make("file:a.mp4", "eye", Map::new());
        let expected = json!({"type": "subscribe", "session": "gate", "after": 41, "detections": false,
            "source": "file:a.mp4", "pipeline": "eye", "settings": {}});
        assert_eq!(json(&wish), expected);
        let all = Subscribe::to_all().after_each([("gate".to_owned(), 41)].into());
        assert_eq!(json(&all), json!({"type": "subscribe", "session": "*", "after": {"gate": 41}}));
        let command = ClientMessage::Command {
            session: "gate",
            id: None,
            command: &json!({"reset": "counts"}),
        };
        assert_eq!(
            text(&command),
            r#"{"type":"command","session":"gate","command":{"reset":"counts"}}"#
        );
        let query =
            ClientMessage::Query { session: "gate", id: Some(&json!(7)), query: &json!("tracks") };
        assert_eq!(text(&query), r#"{"type":"query","session":"gate","id":7,"query":"tracks"}"#);
        assert_eq!(text(&ClientMessage::Ping {}), r#"{"type":"ping"}"#);
    }
}
