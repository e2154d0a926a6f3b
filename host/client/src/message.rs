//! What goes over a WebSocket. `docs/subscriber.md` says when each comes.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The name that stands for every session, those made later too.
pub(crate) const EVERY_SESSION: &str = "*";

/// What a session is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionState {
    /// Its worker is being set up.
    Starting,
    /// It works.
    Running,
    /// The source is down.
    Degraded,
    /// The worker has ended and a new one comes after a pause.
    Restarting,
    /// It needs a person or another pipeline.
    Failed,
    /// It has ended.
    Stopped,
    /// What this crate does not know.
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

/// What a host sends.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Message {
    /// A subscription holds: the session's messages follow.
    Subscribed {
        /// The session, or `*`.
        session: String,
        /// What it is doing now.
        state: SessionState,
    },
    /// A subscription has ended: no message of the session follows.
    Unsubscribed {
        /// The session.
        session: String,
    },
    /// What a pipeline found in one frame.
    Detections(Detections),
    /// Something happened.
    Event(Event),
    /// A session is doing something else now.
    Session {
        /// The session.
        session: String,
        /// What.
        state: SessionState,
        /// Why, for a person.
        #[serde(default)]
        reason: Option<String>,
    },
    /// Detections that this subscriber was too slow for.
    Lagged {
        /// The session.
        session: String,
        /// How many, since the last that came.
        missed: u64,
    },
    /// What a pipeline says to a command.
    Answer {
        /// The session.
        session: String,
        /// As the command gave it.
        #[serde(default)]
        id: Option<Value>,
        /// The pipeline's own words.
        answer: Value,
    },
    /// The answer to a ping.
    Pong {},
    /// Something was not done, or the connection is about to end.
    Error(Refusal),
    /// What this crate does not know, as it came.
    #[serde(untagged)]
    Unknown(Value),
}

/// What a pipeline found in one frame. Also when it found nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    /// The session.
    pub session: String,
    /// The frame's number in its source, from 0.
    pub frame: u64,
    /// When the camera took the picture: RFC 3339 in UTC.
    pub time: String,
    /// The component that found it: the first 12 digits of its SHA-256.
    pub deployment: String,
    /// Of the frame, in pixels.
    pub width: u32,
    /// Of the frame, in pixels.
    pub height: u32,
    /// What was found.
    pub detections: Vec<Detection>,
    /// Milliseconds by station.
    pub latency_ms: BTreeMap<String, f64>,
}

/// An object found in a frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// Its class.
    pub label: String,
    /// 0 to 1.
    pub score: f64,
    /// Left edge, upper edge, width, height in frame pixels.
    #[serde(rename = "box")]
    pub area: [f64; 4],
    /// The same number for the same object from frame to frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub track: Option<u64>,
    /// What further stages made of it, by name.
    #[serde(default)]
    pub attributes: BTreeMap<String, Attribute>,
    /// A vector that describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Vec<f32>>,
}

/// What a further stage made of an object.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attribute {
    /// The value.
    pub value: String,
    /// 0 to 1.
    pub score: f64,
}

/// Something that happened, as a pipeline or the host told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// The session.
    pub session: String,
    /// Its number in the session's name, from 1 without gaps.
    pub seq: u64,
    /// When: RFC 3339 in UTC.
    pub time: String,
    /// What happened.
    pub kind: String,
    /// The component that saw it, or that ran.
    pub deployment: String,
    /// The frame's number in its source. None for the host's own events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<u64>,
    /// The objects that it is about.
    #[serde(default)]
    pub detections: Vec<Detection>,
    /// What else there is to say.
    #[serde(default)]
    pub data: Map<String, Value>,
    /// Its pictures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// A picture of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// SHA-256 of the file, in hexadecimal digits: its name under `/v1/attachments`.
    pub digest: String,
    /// What the file is.
    #[serde(rename = "type")]
    pub media_type: String,
    /// Its size.
    pub bytes: u64,
}

/// An error that came over a WebSocket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Stable, for programs.
    pub code: String,
    /// For a person.
    pub message: String,
    /// The session that it is about.
    #[serde(default)]
    pub session: Option<String>,
    /// Which of the causes of `code` it was, where it has several.
    #[serde(default)]
    pub cause: Option<String>,
    /// The number after which events were asked for.
    #[serde(default)]
    pub after: Option<u64>,
    /// The first of the session's events that is kept.
    #[serde(default)]
    pub oldest: Option<u64>,
    /// The number of the session's last event.
    #[serde(default)]
    pub newest: Option<u64>,
}

/// A wish to listen to a session.
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

/// The last event that somebody has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum After {
    /// Of the session.
    One(u64),
    /// Of some sessions, where the subscription is to all.
    Each(BTreeMap<String, u64>),
}

/// How to make a session.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct MakeSession {
    source: String,
    pipeline: String,
    settings: Map<String, Value>,
}

impl Subscribe {
    /// To a session: from now on, with detections.
    pub fn to(session: &str) -> Self {
        Self { session: session.into(), detections: true, after: None, make: None }
    }

    /// To every session that there is and that is made later. The token has to see all.
    pub fn to_all() -> Self {
        Self::to(EVERY_SESSION)
    }

    /// With the events that follow this number first.
    pub fn after(mut self, seq: u64) -> Self {
        self.after = Some(After::One(seq));
        self
    }

    /// As [`after`](Self::after), of some sessions, where the subscription is to all.
    pub fn after_each(mut self, each: BTreeMap<String, u64>) -> Self {
        self.after = Some(After::Each(each));
        self
    }

    /// With detections, or with events and states alone.
    pub fn detections(mut self, wanted: bool) -> Self {
        self.detections = wanted;
        self
    }

    /// Makes the session where it is not there. The token has to be an operator's, and the host's
    /// config has to admit the source.
    pub fn make(mut self, source: &str, pipeline: &str, settings: Map<String, Value>) -> Self {
        self.make =
            Some(MakeSession { source: source.into(), pipeline: pipeline.into(), settings });
        self
    }
}

/// What else is sent.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum ClientMessage<'a> {
    Unsubscribe {
        session: &'a str,
    },
    Command {
        session: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<&'a Value>,
        command: &'a Value,
    },
    Ping {},
}

/// The message as it goes over the wire.
pub(crate) fn text(message: &impl Serialize) -> String {
    // Every key is a string and every number finite: nothing to refuse.
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
        let Message::Error(refusal) =
            read(json!({"type": "error", "code": "after_ahead", "message": "m", "newest": 4}))
        else {
            panic!("not an error")
        };
        assert_eq!((refusal.code.as_str(), refusal.newest), ("after_ahead", Some(4)));
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
            command: &json!({"query": "tracks"}),
        };
        assert_eq!(
            text(&command),
            r#"{"type":"command","session":"gate","command":{"query":"tracks"}}"#
        );
        assert_eq!(text(&ClientMessage::Ping {}), r#"{"type":"ping"}"#);
    }
}
