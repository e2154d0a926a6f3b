//! Events as Redis gets them.

use std::collections::HashSet;
use std::sync::Arc;

use ::redis::{Pipeline, cmd};
use bytes::Bytes;
use ocelli_protocol::digest::Digest;
use serde::Deserialize;

use super::resume::EntryIds;
use crate::config;
use crate::event::event_told;
use crate::journal::events::StoredEvent;

/// Kind of the entry that stands for events that the journal had deleted before Redis had them.
pub(super) const GONE: &str = "events_gone";

/// What of an event's body stands in fields of its own.
#[derive(Deserialize)]
struct EventHead {
    #[serde(default)]
    time: String,
    #[serde(default)]
    deployment: String,
    #[serde(default)]
    attachments: Vec<AttachmentName>,
}

/// A picture, as the body names it.
#[derive(Deserialize)]
struct AttachmentName {
    digest: String,
}

/// An event on its way to Redis.
pub(super) struct OutgoingEvent<'a> {
    entry: &'a StoredEvent,
    head: EventHead,
    /// The event as subscribers get it.
    message: Arc<str>,
}

impl<'a> OutgoingEvent<'a> {
    /// Of a session. The journal keeps JSON objects: an error means that its file was changed.
    pub(super) fn new(session: &str, entry: &'a StoredEvent) -> serde_json::Result<Self> {
        let head: EventHead = serde_json::from_str(&entry.body)?;
        Ok(Self { entry, head, message: event_told(session, entry.seq, &entry.body).text })
    }

    /// The pictures that it names.
    pub(super) fn digests(&self) -> impl Iterator<Item = Digest> {
        self.head.attachments.iter().filter_map(|named| named.digest.parse().ok())
    }

    /// Bytes that it takes to send, without pictures.
    pub(super) fn bytes(&self) -> usize {
        self.message.len()
    }
}

/// The stream of a session, and the channel.
pub(super) fn stream_key(settings: &config::RedisConfig, session: &str) -> String {
    format!("{}events:{session}", settings.prefix)
}

/// What is written to the stream of one session in one transaction.
pub(super) struct StreamBatch<'a> {
    settings: &'a config::RedisConfig,
    key: String,
    ids: EntryIds,
    pub(super) commands: Pipeline,
    /// Which commands add entries.
    pub(super) added: Vec<usize>,
    pictures: HashSet<Digest>,
    bytes: usize,
}

impl<'a> StreamBatch<'a> {
    pub(super) fn new(settings: &'a config::RedisConfig, session: &str, ids: EntryIds) -> Self {
        let mut commands = Pipeline::new();
        commands.atomic();
        let key = stream_key(settings, session);
        Self { settings, key, ids, commands, added: Vec::new(), pictures: HashSet::new(), bytes: 0 }
    }

    /// Bytes to send so far, as far as they count.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether the picture is to be [added](Self::picture).
    pub(super) fn wants(&self, digest: &Digest) -> bool {
        self.settings.crops && !self.pictures.contains(digest)
    }

    /// Adds a picture of an event that follows.
    pub(super) fn picture(&mut self, digest: Digest, bytes: &Bytes) {
        let key = format!("{}attachment:{digest}", self.settings.prefix);
        self.commands.add_command(
            cmd("SET")
                .arg(key)
                .arg(&bytes[..])
                .arg("EX")
                .arg(self.settings.crops_expire_s)
                .to_owned(),
        );
        self.pictures.insert(digest);
        self.bytes += bytes.len();
    }

    /// Adds an event. `publish`: on its channel too.
    pub(super) fn event(&mut self, event: &OutgoingEvent<'_>, publish: bool) {
        let OutgoingEvent { entry, head, message } = event;
        let mut add = self.add((entry.seq, 0));
        add.arg("seq").arg(entry.seq).arg("kind").arg(&*entry.kind).arg("time").arg(&head.time);
        add.arg("deployment").arg(&head.deployment).arg("event").arg(&**message);
        self.commands.add_command(add);
        if publish {
            self.commands.add_command(cmd("PUBLISH").arg(&self.key).arg(&**message).to_owned());
        }
        self.bytes += event.bytes();
    }

    /// Adds the entry that says that events are missing, these two included. Its id lies between
    /// those of the last of them and of the event that follows.
    pub(super) fn gone(&mut self, from: u64, to: u64) {
        let mut add = self.add((to, 1));
        add.arg("kind").arg(GONE).arg("from").arg(from).arg("to").arg(to);
        self.commands.add_command(add);
    }

    fn add(&mut self, (id, part): (u64, u64)) -> ::redis::Cmd {
        self.added.push(self.commands.len());
        let mut add = cmd("XADD");
        add.arg(&self.key).arg("MAXLEN").arg("~").arg(self.settings.stream_length);
        match self.ids {
            EntryIds::Numbers => add.arg(format!("{id}-{part}")),
            EntryIds::Own => add.arg("*"),
        };
        add
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, body: &str) -> StoredEvent {
        StoredEvent { seq, kind: "k".into(), body: body.into() }
    }

    fn settings(publish: bool) -> config::RedisConfig {
        serde_json::from_value(serde_json::json!({"url": "redis://h", "publish": publish})).unwrap()
    }

    #[test]
    fn the_message_is_what_subscribers_get() {
        let entry = entry(7, r#"{"time":"t","kind":"k","deployment":"d","data":{}}"#);
        let outgoing = OutgoingEvent::new("a \"b\"", &entry).unwrap();
        let message: serde_json::Value = serde_json::from_str(&outgoing.message).unwrap();
        let expected = serde_json::json!({
            "type": "event", "session": "a \"b\"", "seq": 7, "time": "t", "kind": "k", "deployment": "d", "data": {},
        });
        assert_eq!(message, expected);
    }

    #[test]
    fn pictures_come_before_the_event_that_names_them_and_once() {
        let settings = settings(true);
        let (digest, body) = (Digest::from([0x0f; 32]), Bytes::from_static(b"jpeg"));
        let named =
            entry(3, &format!(r#"{{"attachments":[{{"digest":"{digest}"}},{{"digest":"no"}}]}}"#));
        let outgoing = OutgoingEvent::new("cam", &named).unwrap();
        assert_eq!(outgoing.digests().collect::<Vec<_>>(), [Digest::from([0x0f; 32])]);
        let mut batch = StreamBatch::new(&settings, "cam", EntryIds::Numbers);
        assert!(batch.wants(&digest));
        batch.picture(digest, &body);
        assert!(!batch.wants(&digest));
        batch.event(&outgoing, true);
        batch.gone(4, 9);
        assert_eq!(batch.added, [1, 3]);
        let packed = String::from_utf8(batch.commands.get_packed_pipeline()).unwrap();
        let at =
            |text: &str| packed.find(text).unwrap_or_else(|| panic!("{text} is not in {packed}"));
        assert!(at("MULTI") < at(&format!("ocelli:attachment:{digest}")));
        assert!(at(&format!("ocelli:attachment:{digest}")) < at("3-0"));
        assert!(
            at("ocelli:events:cam") < at("PUBLISH")
                && at("PUBLISH") < at("9-1")
                && at("9-1") < at("EXEC")
        );
    }
}
