//! Events as Redis gets them.

use std::collections::HashSet;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, RedisResult, cmd};
use bytes::Bytes;
use ocelli_protocol::digest::Digest;
use serde::Deserialize;

use super::resume::{EntryIds, is_other_type};
use crate::config;
use crate::event::{HOST_KINDS, encode_event};
use crate::journal::JournalError;
use crate::journal::events::{EventJournal, StoredEvent};
use crate::redis::ask;

/// Bytes of events and pictures at which a transaction is full. One event with its pictures may be
/// more.
const MAX_BYTES: usize = 4 << 20;

/// Kind of the entry that stands for events that the journal had deleted before Redis had them.
const GONE: &str = "events_gone";

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

/// The stream of a session, and the channel.
pub(super) fn stream_key(settings: &config::RedisConfig, session: &str) -> String {
    format!("{}events:{session}", settings.prefix)
}

/// What is written to the stream of one session in one transaction.
pub(super) struct StreamBatch<'a> {
    settings: &'a config::RedisConfig,
    session: &'a str,
    key: String,
    ids: EntryIds,
    commands: Pipeline,
    /// Which commands add entries.
    added: Vec<usize>,
    pictures: HashSet<Digest>,
    /// To send so far, as far as they count.
    bytes: usize,
}

impl<'a> StreamBatch<'a> {
    pub(super) fn new(settings: &'a config::RedisConfig, session: &'a str, ids: EntryIds) -> Self {
        let mut commands = Pipeline::new();
        commands.atomic();
        Self {
            settings,
            session,
            key: stream_key(settings, session),
            ids,
            commands,
            added: Vec::new(),
            pictures: HashSet::new(),
            bytes: 0,
        }
    }

    /// Whether no more is to be added.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= MAX_BYTES
    }

    /// Adds an event, behind its pictures where they are wanted. `publish`: on its channel too.
    /// False where the event cannot be read.
    pub(super) async fn add_event(
        &mut self,
        journal: &EventJournal,
        event: &StoredEvent,
        publish: bool,
    ) -> Result<bool, JournalError> {
        let head: EventHead = match serde_json::from_str(&event.body) {
            Ok(head) => head,
            // The journal keeps JSON objects: its file was changed.
            Err(error) => {
                let (session, seq) = (self.session, event.seq);
                tracing::error!(target: "ocelli::sink", session, "event {seq} is not JSON: {error}");
                return Ok(false);
            }
        };
        for digest in head.attachments.iter().filter_map(|named| named.digest.parse().ok()) {
            if self.settings.crops
                && !self.pictures.contains(&digest)
                && let Some((bytes, _)) = journal.attachment(digest).await?
            {
                self.add_picture(digest, &bytes);
            }
        }
        let message = encode_event(self.session, event.seq, &event.body).text;
        let mut add = self.add((event.seq, 0));
        let origin = if HOST_KINDS.contains(&&*event.kind) { "host" } else { "pipeline" };
        add.arg("seq").arg(event.seq).arg("kind").arg(&*event.kind).arg("time").arg(&head.time);
        add.arg("origin").arg(origin);
        add.arg("deployment").arg(&head.deployment).arg("event").arg(&*message);
        self.commands.add_command(add);
        if publish {
            self.commands.add_command(cmd("PUBLISH").arg(&self.key).arg(&*message).to_owned());
        }
        self.bytes += message.len();
        Ok(true)
    }

    fn add_picture(&mut self, digest: Digest, bytes: &Bytes) {
        let key = format!("{}attachment:{digest}", self.settings.prefix);
        let mut set = cmd("SET");
        set.arg(key).arg(&bytes[..]).arg("EX").arg(self.settings.crops_expire_s);
        self.commands.add_command(set);
        self.pictures.insert(digest);
        self.bytes += bytes.len();
    }

    /// Adds the entry that says that events are missing, these two included. Its id lies between
    /// those of the last of them and of the event that follows.
    pub(super) fn add_gap(&mut self, from: u64, to: u64) {
        let mut add = self.add((to, 1));
        add.arg("kind").arg(GONE).arg("origin").arg("host").arg("from").arg(from).arg("to").arg(to);
        self.commands.add_command(add);
    }

    /// Sends it, if there is anything. Gives the error of the first entry that Redis did not take,
    /// where the others of the transaction do not matter to that. What concerns Redis as a whole is
    /// the outer error.
    pub(super) async fn send(
        mut self,
        connection: &mut MultiplexedConnection,
    ) -> RedisResult<Option<RedisError>> {
        if self.added.is_empty() {
            return Ok(None);
        }
        let answers = ask(connection, &mut self.commands).await?;
        for (index, answer) in answers.into_iter().enumerate() {
            match answer {
                Ok(_) => {}
                Err(error)
                    if self.added.contains(&index)
                        && (is_too_small(&error) || is_other_type(&error)) =>
                {
                    return Ok(Some(error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
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

/// Whether the stream has an entry with this id or a greater one.
pub(super) fn is_too_small(error: &RedisError) -> bool {
    error.detail().is_some_and(|words| words.contains("equal or smaller"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use crate::journal::events::{Attachment, EventDraft, LOST_KIND};

    #[test]
    fn the_kinds_that_stand_for_missing_events_are_the_hosts() {
        assert!(HOST_KINDS.contains(&GONE) && HOST_KINDS.contains(&LOST_KIND));
    }

    fn entry(seq: u64, body: &str) -> StoredEvent {
        StoredEvent { seq, kind: "k".into(), body: body.into() }
    }

    fn settings(publish: bool) -> config::RedisConfig {
        serde_json::from_value(serde_json::json!({"url": "redis://h", "publish": publish})).unwrap()
    }

    fn packed(batch: &StreamBatch<'_>) -> String {
        String::from_utf8(batch.commands.get_packed_pipeline()).unwrap()
    }

    #[tokio::test]
    async fn the_message_is_what_subscribers_get() {
        let settings = settings(false);
        let journal = Journal::temporary().unwrap();
        let mut batch = StreamBatch::new(&settings, "a \"b\"", EntryIds::Numbers);
        let event = entry(7, r#"{"time":"t","kind":"k","deployment":"d","data":{}}"#);
        assert!(batch.add_event(journal.events(), &event, false).await.unwrap());
        let packed = packed(&batch);
        let message = packed.lines().find(|line| line.starts_with('{')).unwrap();
        let message: serde_json::Value = serde_json::from_str(message).unwrap();
        let expected = serde_json::json!({
            "type": "event", "session": "a \"b\"", "seq": 7, "time": "t", "kind": "k", "deployment": "d", "data": {},
        });
        assert_eq!(message, expected);
        assert!(!batch.add_event(journal.events(), &entry(8, "{"), false).await.unwrap());
    }

    #[tokio::test]
    async fn pictures_come_before_the_event_that_names_them_and_once() {
        let settings = settings(true);
        let (digest, bytes) = (Digest::from([0x0f; 32]), Bytes::from_static(b"jpeg"));
        let journal = Journal::temporary().unwrap();
        let body = format!(r#"{{"attachments":[{{"digest":"{digest}"}},{{"digest":"no"}}]}}"#);
        let draft = EventDraft {
            kind: "k".into(),
            time_ms: 0,
            body: body.clone().into(),
            attachments: vec![Attachment { digest, bytes }],
            clip: None,
        };
        assert!(journal.events().append("cam", draft));
        journal.events().flush().await.unwrap();
        let mut batch = StreamBatch::new(&settings, "cam", EntryIds::Numbers);
        for seq in [2, 3] {
            assert!(batch.add_event(journal.events(), &entry(seq, &body), true).await.unwrap());
        }
        batch.add_gap(4, 9);
        assert_eq!(batch.added, [1, 3, 5]);
        let packed = packed(&batch);
        let at =
            |text: &str| packed.find(text).unwrap_or_else(|| panic!("{text} is not in {packed}"));
        let picture = format!("ocelli:attachment:{digest}");
        assert_eq!(packed.matches(&picture).count(), 1, "{packed}");
        assert!(at("MULTI") < at(&picture) && at(&picture) < at("2-0"));
        assert!(at("ocelli:events:cam") < at("PUBLISH") && at("PUBLISH") < at("3-0"));
        assert!(at("3-0") < at("9-1") && at("9-1") < at("EXEC"));
    }
}
