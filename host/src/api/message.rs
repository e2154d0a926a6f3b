//! The messages of clients over a WebSocket.

use std::collections::HashMap;

use schemars::JsonSchema;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::config::{EVERY_SESSION, MAX_ID_BYTES, check_session_id};
use crate::event::PictureChoice;

/// Longest message of a client in bytes: settings and commands are small.
pub(super) const MAX_MESSAGE: usize = 64 << 10;

/// Longest `id` of a message in bytes, as JSON: a UUID has 38, and the host returns it.
const MAX_MESSAGE_ID: usize = 1 << 10;

/// The types of messages, for error messages.
const TYPES: &str = "subscribe, unsubscribe, watch, query, command, ping";

/// A message of a client.
#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[schemars(tag = "type")]
pub(super) enum ClientMessage {
    Subscribe(Subscribe),
    Unsubscribe {
        #[schemars(length(min = 1, max = MAX_ID_BYTES))]
        session: String,
        /// Returned with an error.
        id: Option<Value>,
    },
    Watch {
        #[schemars(length(min = 1, max = MAX_ID_BYTES))]
        session: String,
        /// Returned with an error.
        id: Option<Value>,
        /// Which of the session's pictures come from now on, each as a binary message.
        pictures: PictureChoice,
    },
    Query {
        #[schemars(length(min = 1, max = MAX_ID_BYTES))]
        session: String,
        /// Returned with the answer, or an error.
        id: Option<Value>,
        query: Value,
    },
    Command {
        #[schemars(length(min = 1, max = MAX_ID_BYTES))]
        session: String,
        /// Returned with the answer, or an error.
        id: Option<Value>,
        command: Value,
    },
    Ping {
        /// Returned with the answer.
        id: Option<Value>,
    },
}

#[derive(Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(
    inline,
    extend("dependentRequired" = {"source": ["pipeline"], "pipeline": ["source"], "settings": ["source"]})
)]
pub(super) struct Subscribe {
    /// `*`: every session, later ones included, for tokens that see all.
    #[schemars(length(min = 1, max = MAX_ID_BYTES))]
    pub(super) session: String,
    /// Returned with an error.
    pub(super) id: Option<Value>,
    /// Makes the session if there is none.
    pub(super) source: Option<String>,
    pub(super) pipeline: Option<String>,
    pub(super) settings: Option<Map<String, Value>>,
    /// false: events and states alone.
    #[serde(default = "yes")]
    pub(super) detections: bool,
    /// Events with greater numbers come from the journal first; with `*` a number for each session.
    pub(super) after: Option<After>,
}

/// The number of the last event that a client has.
#[derive(Debug, PartialEq, JsonSchema)]
#[schemars(untagged, inline)]
pub(super) enum After {
    /// A number for the session.
    One(u64),
    /// Numbers for some sessions, with a subscription to all.
    Each(HashMap<String, u64>),
}

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || {
            D::Error::custom(
                "\"after\" is an event's number, or for all sessions an object of them",
            )
        };
        match Value::deserialize(deserializer)? {
            Value::Object(each) => {
                let each = each.into_iter().map(|(session, seq)| Some((session, seq.as_u64()?)));
                each.collect::<Option<_>>().map(Self::Each)
            }
            one => one.as_u64().map(Self::One),
        }
        .ok_or_else(wrong)
    }
}

fn yes() -> bool {
    true
}

/// A message that is no request, and the reason.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed {
    pub(super) code: &'static str,
    pub(super) message: String,
    pub(super) session: Option<String>,
    /// The message's `id`, if it has one that can be returned.
    pub(super) id: Option<Value>,
}

impl ClientMessage {
    /// The session that it is about.
    pub(super) fn session(&self) -> Option<&str> {
        match self {
            Self::Subscribe(request) => Some(&request.session),
            Self::Unsubscribe { session, .. }
            | Self::Watch { session, .. }
            | Self::Query { session, .. }
            | Self::Command { session, .. } => Some(session),
            Self::Ping { .. } => None,
        }
    }

    /// What the answer returns.
    pub(super) fn id(&self) -> Option<&Value> {
        match self {
            Self::Subscribe(Subscribe { id, .. })
            | Self::Unsubscribe { id, .. }
            | Self::Watch { id, .. }
            | Self::Query { id, .. }
            | Self::Command { id, .. }
            | Self::Ping { id } => id.as_ref(),
        }
    }

    /// Reads one message. Unknown keys are refused: a misspelt one would be ignored otherwise.
    pub(super) fn parse(text: &str) -> Result<Self, Malformed> {
        let malformed =
            |code, message: String| Malformed { code, message, session: None, id: None };
        if text.len() > MAX_MESSAGE {
            let message =
                format!("a message has at most {MAX_MESSAGE} bytes, this one has {}", text.len());
            return Err(malformed("too_large", message));
        }
        let value: Value = serde_json::from_str(text)
            .map_err(|error| malformed("bad_json", format!("the message is not JSON: {error}")))?;
        let Value::Object(mut members) = value else {
            return Err(malformed("bad_message", "a message is one JSON object".into()));
        };
        let session = members.get("session").and_then(Value::as_str);
        // A text that is no name is not repeated: it may be as long as the message.
        let session =
            session.filter(|session| check_session_id(session).is_ok()).map(str::to_owned);
        let id = members.get("id").filter(|id| !id.is_null()).cloned();
        let long = id.as_ref().is_some_and(|id| id.to_string().len() > MAX_MESSAGE_ID);
        let id = id.filter(|_| !long);
        let malformed =
            |code, message| Malformed { session: session.clone(), id: id.clone(), code, message };
        if long {
            let message = format!("an \"id\" has at most {MAX_MESSAGE_ID} bytes as JSON");
            return Err(malformed("bad_message", message));
        }
        let kind = match members.remove("type") {
            Some(Value::String(kind)) if TYPES.split(", ").any(|known| known == kind) => kind,
            Some(Value::String(other)) => {
                let other: String = other.chars().take(60).collect();
                let message = format!("there is no message of type {other:?}; types are {TYPES}");
                return Err(malformed("unknown_type", message));
            }
            _ => {
                let message = format!("a message says what it is in \"type\", one of {TYPES}");
                return Err(malformed("bad_message", message));
            }
        };
        // The type is the key of the rest.
        let parsed = Self::deserialize(json!({kind: members}));
        let checked = parsed.map_err(|error| error.to_string()).and_then(Self::checked);
        checked.map_err(|message| malformed("bad_message", message))
    }

    fn checked(self) -> Result<Self, String> {
        let check_id = |id: &str| check_session_id(id).map_err(|error| error.to_string());
        match &self {
            Self::Subscribe(subscribe) => {
                check_id(&subscribe.session)?;
                match (&subscribe.source, &subscribe.pipeline, &subscribe.settings) {
                    (Some(_), Some(_), _) | (None, None, None) => {}
                    (None, None, Some(_)) => {
                        return Err(
                            "settings go with a source and a pipeline, which make a session".into(),
                        );
                    }
                    _ => return Err("source and pipeline go together: both make a session".into()),
                }
                let all = subscribe.session == EVERY_SESSION;
                match &subscribe.after {
                    _ if all && subscribe.source.is_some() => {
                        return Err(
                            "\"*\" stands for all sessions; no session has this name".into()
                        );
                    }
                    Some(After::One(_)) if all => {
                        return Err(
                            "\"after\" of \"*\" is an object of sessions and numbers".into()
                        );
                    }
                    Some(After::Each(_)) if !all => {
                        return Err("\"after\" of one session is an event's number".into());
                    }
                    Some(After::Each(each)) => each.keys().try_for_each(|id| check_id(id))?,
                    Some(After::One(_)) | None => {}
                }
            }
            Self::Unsubscribe { session, .. }
            | Self::Watch { session, .. }
            | Self::Query { session, .. }
            | Self::Command { session, .. } => check_id(session)?,
            Self::Ping { .. } => {}
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn code(text: &str) -> (&'static str, String) {
        let malformed = ClientMessage::parse(text).unwrap_err();
        (malformed.code, malformed.message)
    }

    #[test]
    fn requests_are_read_with_their_defaults() {
        let message =
            ClientMessage::parse(r#"{"type":"subscribe","session":"display-001;cam-001"}"#)
                .unwrap();
        let ClientMessage::Subscribe(subscribe) = message else { panic!("{message:?}") };
        assert_eq!(subscribe.session, "display-001;cam-001");
        assert!(subscribe.detections);
        assert_eq!((subscribe.source, subscribe.pipeline, subscribe.after), (None, None, None));
        assert_eq!(
            ClientMessage::parse(
                r#"{"session":"a","command":{"count":"cars"},"type":"command","id":4}"#
            )
            .unwrap(),
            ClientMessage::Command {
                session: "a".into(),
                id: Some(json!(4)),
                command: json!({"count": "cars"})
            }
        );
        assert_eq!(
            ClientMessage::parse(r#"{"type":"query","session":"a","query":"tracks"}"#).unwrap(),
            ClientMessage::Query { session: "a".into(), id: None, query: json!("tracks") }
        );
        assert_eq!(
            ClientMessage::parse(r#"{"type":"ping","id":null}"#).unwrap(),
            ClientMessage::Ping { id: None }
        );
    }

    #[test]
    fn after_is_a_number_or_one_for_each_of_all_sessions() {
        let after = |text| match ClientMessage::parse(text).unwrap() {
            ClientMessage::Subscribe(subscribe) => subscribe.after,
            other => panic!("{other:?}"),
        };
        let one = r#"{"type":"subscribe","session":"a","after":18446744073709551615}"#;
        assert_eq!(after(one), Some(After::One(u64::MAX)));
        let each = r#"{"type":"subscribe","session":"*","after":{"a":7,"b":0}}"#;
        let expected = HashMap::from([("a".to_owned(), 7), ("b".to_owned(), 0)]);
        assert_eq!(after(each), Some(After::Each(expected)));
        assert_eq!(after(r#"{"type":"subscribe","session":"*"}"#), None);
    }

    #[test]
    fn what_is_wrong_with_a_message_is_said() {
        assert_eq!(code("{").0, "bad_json");
        assert_eq!(code("").0, "bad_json");
        assert_eq!(code("[1]").0, "bad_message");
        assert_eq!(code("{}").0, "bad_message");
        assert_eq!(code(r#"{"type":7}"#).0, "bad_message");
        assert_eq!(code(&"[".repeat(10_000)).0, "bad_json");
        assert_eq!(code(&" ".repeat(MAX_MESSAGE + 1)).0, "too_large");
        let (kind, message) = code(r#"{"type":"subscrib","session":"a"}"#);
        assert!(
            kind == "unknown_type"
                && message.contains("subscrib")
                && message.contains("unsubscribe")
        );
        let cases = [
            (r#"{"type":"subscribe"}"#, "session"),
            (r#"{"type":"subscribe","session":"a","detection":false}"#, "detection"),
            (r#"{"type":"subscribe","session":"a","detections":"no"}"#, "\"no\""),
            (r#"{"type":"subscribe","session":"a","source":"rtsp://h/"}"#, "pipeline"),
            (r#"{"type":"subscribe","session":"a","pipeline":"p"}"#, "source"),
            (r#"{"type":"subscribe","session":"a","settings":{}}"#, "source"),
            (r#"{"type":"subscribe","session":"a\nb"}"#, "U+000A"),
            (r#"{"type":"subscribe","session":"a","after":-1}"#, "after"),
            (r#"{"type":"subscribe","session":"a","after":1.5}"#, "after"),
            (r#"{"type":"subscribe","session":"a","after":{"a":1}}"#, "one session"),
            (r#"{"type":"subscribe","session":"*","after":1}"#, "object"),
            (r#"{"type":"subscribe","session":"*","after":{"a":-1}}"#, "after"),
            (r#"{"type":"subscribe","session":"*","after":{"":1}}"#, "empty"),
            (
                r#"{"type":"subscribe","session":"*","source":"rtsp://h/","pipeline":"p"}"#,
                "all sessions",
            ),
            (r#"{"type":"unsubscribe","session":""}"#, "empty"),
            (r#"{"type":"watch","session":"a"}"#, "pictures"),
            (r#"{"type":"watch","session":"a","pictures":"most"}"#, "most"),
            (r#"{"type":"watch","session":"","pictures":"all"}"#, "empty"),
            (r#"{"type":"query","session":"a"}"#, "query"),
            (r#"{"type":"query","session":"a","command":{}}"#, "command"),
            (r#"{"type":"command","session":"a"}"#, "command"),
            (r#"{"type":"ping","session":"a"}"#, "session"),
        ];
        for (text, named) in cases {
            let (kind, message) = code(text);
            assert!(kind == "bad_message" && message.contains(named), "{text}: {kind} {message}");
        }
    }

    #[test]
    fn the_session_that_a_malformed_message_is_about_is_named_and_its_id_returned() {
        let malformed =
            ClientMessage::parse(r#"{"type":"subscribe","session":"a","id":[7],"after":-1}"#)
                .unwrap_err();
        assert_eq!(malformed.session.as_deref(), Some("a"));
        assert_eq!(malformed.id, Some(json!([7])));
        let of = |text: &str| ClientMessage::parse(text).unwrap_err().id;
        assert_eq!(of(r#"{"type":"weather","id":"w"}"#), Some(json!("w")));
        assert_eq!(of(r#"{"id":7}"#), Some(json!(7)));
        assert_eq!(of(r#"[{"id":7}]"#), None);
    }

    #[test]
    fn an_id_is_any_short_json_and_a_long_one_is_not_repeated() {
        let ping =
            |id: &Value| ClientMessage::parse(&json!({"type": "ping", "id": id}).to_string());
        for id in [json!("a\n\u{0}ü"), json!({"a": [1, null]}), json!("a".repeat(1022))] {
            assert_eq!(ping(&id).unwrap().id(), Some(&id));
        }
        // A control character takes six bytes as JSON.
        for id in ["a".repeat(10 << 10), "a".repeat(1023), "\u{1}".repeat(200)] {
            let malformed = ping(&json!(id)).unwrap_err();
            assert_eq!((malformed.code, malformed.id), ("bad_message", None));
            assert!(malformed.message.contains("1024"), "{}", malformed.message);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            let _ = ClientMessage::parse(&text);
        }
    }
}
