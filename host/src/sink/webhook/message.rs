//! A message as it goes over the wire: its body, its id and its signature, by Standard Webhooks
//! (<https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>).

use std::time::SystemTime;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use ocelli_protocol::digest::Digest;
use ring::hmac;
use serde::Deserialize;
use serde_json::Value;

use crate::config::{WebhookConfig, WebhookSecret};
use crate::event::{encode_event, rfc3339, unix_ns};
use crate::journal::events::StoredEvent;

/// The kind of messages with events.
const EVENTS: &str = "ocelli.events";

/// The kind of the message that only tries the way.
const PING: &str = "ocelli.ping";

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");

/// Hexadecimal digits of a message's id: 128 bits of a digest.
const ID_DIGITS: usize = 32;

/// A message. The same content has the same id, however often it is sent: receivers drop what they
/// have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct WebhookMessage {
    id: String,
    pub(super) body: Bytes,
}

impl WebhookMessage {
    /// With events of a session, behind those that are gone. Each is what subscribers get.
    pub(super) fn of_events(
        session: &str,
        gap: Option<(u64, u64)>,
        events: &[&StoredEvent],
        now: SystemTime,
    ) -> Self {
        #[derive(Deserialize)]
        struct Head {
            time: String,
        }
        let last = events.last().and_then(|event| serde_json::from_str(&event.body).ok());
        let time = last.map_or_else(|| rfc3339(unix_ns(now)), |head: Head| head.time);
        let gap = gap.map(|(from, to)| format!("\"gap\":{{\"from\":{from},\"to\":{to}}},"));
        let gap = gap.unwrap_or_default();
        let events = events.iter().map(|event| encode_event(session, event.seq, &event.body).text);
        let events = events.map(|text| text.to_string()).collect::<Vec<_>>().join(",");
        let session = Value::from(session);
        let data = format!("{{\"session\":{session},{gap}\"events\":[{events}]}}");
        Self::new(EVENTS, &time, &data)
    }

    /// The one that only tries the way.
    pub(super) fn ping(now: SystemTime) -> Self {
        Self::new(PING, &rfc3339(unix_ns(now)), "{}")
    }

    fn new(kind: &str, time: &str, data: &str) -> Self {
        let time = Value::from(time);
        let body = format!("{{\"type\":\"{kind}\",\"timestamp\":{time},\"data\":{data}}}");
        let digest = Digest::of(&body).to_string();
        let id = format!("msg_{}", digest.get(..ID_DIGITS).unwrap_or(&digest));
        Self { id, body: body.into() }
    }

    /// The headers of an attempt at this time.
    pub(super) fn headers(&self, config: &WebhookConfig, now: SystemTime) -> HeaderMap {
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let secrets = [Some(&config.secret), config.previous_secret.as_ref()];
        let signatures = secrets.into_iter().flatten();
        let signatures: Vec<String> =
            signatures.map(|secret| self.signature(secret, seconds)).collect();
        let text = |text: &str| HeaderValue::from_str(text).ok();
        let headers = [
            (CONTENT_TYPE, text("application/json")),
            (ID, text(&self.id)),
            (TIMESTAMP, text(&seconds.to_string())),
            (SIGNATURE, text(&signatures.join(" "))),
        ];
        headers.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
    }

    /// `v1,` and the HMAC-SHA256 of id, time and body in base64.
    fn signature(&self, secret: &WebhookSecret, seconds: u64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.bytes());
        let mut context = hmac::Context::with_key(&key);
        context.update(format!("{}.{seconds}.", self.id).as_bytes());
        context.update(&self.body);
        format!("v1,{}", BASE64_STANDARD.encode(context.sign()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// The vector of the specification's libraries: id, time, body, and what they sign it as.
    #[test]
    fn a_message_is_signed_as_the_standard_does() {
        let message = WebhookMessage {
            id: "msg_p5jXN8AQM9LWM0D4loKWxJek".to_owned(),
            body: Bytes::from_static(br#"{"test": 2432232314}"#),
        };
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
        let signature = message.signature(&secret, 1_614_265_330);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn the_same_events_are_the_same_message_and_both_secrets_sign_it() {
        let event = |seq: u64| StoredEvent {
            seq,
            kind: "entered".into(),
            body: r#"{"time":"2026-01-01T00:00:00.000Z","kind":"entered","data":{}}"#.into(),
        };
        let (one, two) = (event(3), event(4));
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let message = |events: &[&StoredEvent], gap, second| {
            WebhookMessage::of_events("a \"b\"", gap, events, at(second))
        };
        assert_eq!(message(&[&one, &two], None, 1), message(&[&one, &two], None, 9));
        assert_ne!(message(&[&one], None, 1).id, message(&[&one, &two], None, 1).id);
        let told: Value =
            serde_json::from_slice(&message(&[&one, &two], Some((1, 2)), 1).body).unwrap();
        assert_eq!(told["type"], "ocelli.events");
        assert_eq!(told["timestamp"], "2026-01-01T00:00:00.000Z");
        assert_eq!(told["data"]["session"], "a \"b\"");
        assert_eq!(told["data"]["gap"]["to"], 2);
        assert_eq!(told["data"]["events"][1]["seq"], 4);
        assert_eq!(told["data"]["events"][0]["session"], "a \"b\"");
        let config: WebhookConfig = serde_json::from_value(serde_json::json!({
            "name": "hook", "url": "https://h/",
            "secret": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "previous_secret": "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        }))
        .unwrap();
        let headers = message(&[&one], None, 1).headers(&config, at(77));
        assert_eq!(headers["webhook-timestamp"], "77");
        let signatures: Vec<_> =
            headers["webhook-signature"].to_str().unwrap().split(' ').collect();
        assert!(signatures.len() == 2 && signatures[0] != signatures[1], "{signatures:?}");
    }
}
