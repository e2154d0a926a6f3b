//! Redis as a sink.
//!
//! Each session's events are written to a stream of its own. An entry's id is `SEQ-0`: Redis itself
//! refuses an event that it has, and a reader of the stream goes on from the last id. So nothing is
//! there twice.
//!
//! Each transaction holds events of one session. It is done as a whole or not at all: were one
//! event refused for want of memory and the next one taken, the first could never be written under
//! its number any more.
//!
//! After each connection Redis is asked how far its streams have come, since it may be another one
//! than before: restarted without its data, or the replica of one that failed (`resume.rs`).

mod entry;
mod resume;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, cmd};

use super::{
    EventBatch, EventSink, Resume, SessionPosition, SinkConnection, SinkError, SinkKind, Written,
};
use crate::config::{self, SinkStart};
use crate::journal::events::EventJournal;
use crate::redis::{ask, connect, short_message};
use entry::{StreamBatch, is_too_small, stream_key};
use resume::{EntryIds, ResumePoint, StreamTail, resume};

/// Streams that are asked about at once: each answer holds the newest entry, which may be 256 KiB.
const LOOK_UP: usize = 16;

/// See the module's documentation.
pub(super) struct RedisSink {
    /// Has the pictures of events.
    journal: EventJournal,
}

/// A connection to Redis.
pub(super) struct RedisConnection {
    settings: config::RedisConfig,
    journal: EventJournal,
    connection: MultiplexedConnection,
    /// How entries are named, of each stream that Redis was asked about.
    ids: HashMap<Arc<str>, EntryIds>,
}

impl RedisSink {
    pub(super) fn new(journal: EventJournal) -> Self {
        Self { journal }
    }
}

impl EventSink for RedisSink {
    const KIND: SinkKind = SinkKind::Redis;

    type Settings = config::RedisConfig;
    type Connection = RedisConnection;

    fn address(settings: &Self::Settings) -> String {
        settings.shown_address()
    }

    fn start(settings: &Self::Settings) -> SinkStart {
        settings.from
    }

    async fn connect(&self, settings: &Self::Settings) -> Result<RedisConnection, SinkError> {
        Ok(RedisConnection {
            settings: settings.clone(),
            journal: self.journal.clone(),
            connection: connect(settings).await?,
            ids: HashMap::new(),
        })
    }
}

impl SinkConnection for RedisConnection {
    async fn resume(&mut self, sessions: &[SessionPosition]) -> Result<Vec<Resume>, SinkError> {
        let mut resumed = Vec::with_capacity(sessions.len());
        for some in sessions.chunks(LOOK_UP) {
            let mut commands = Pipeline::new();
            for SessionPosition { session, .. } in some {
                let key = stream_key(&self.settings, session);
                commands.add_command(cmd("XINFO").arg("STREAM").arg(key).to_owned());
            }
            let answers = ask(&mut self.connection, &mut commands).await?;
            for (position, answer) in some.iter().zip(answers) {
                resumed.push(match StreamTail::read(answer)? {
                    Ok(top) => self.go_on(position, top),
                    Err(error) => Resume::Suspended(not_written(&error)),
                });
            }
        }
        Ok(resumed)
    }

    async fn write(&mut self, given: EventBatch<'_>) -> Result<Written, SinkError> {
        let EventBatch { session, gap, events: entries, cursor } = given;
        let ids = self.ids.get(session).copied().unwrap_or(EntryIds::Numbers);
        let mut batch = StreamBatch::new(&self.settings, session, ids);
        let (mut after, mut events) = (0, 0);
        if let Some((from, to)) = gap {
            batch.add_gap(from, to);
            after = to;
        }
        for entry in entries {
            // What is written again was published the first time.
            let publish = self.settings.publish && cursor.is_none_or(|cursor| cursor < entry.seq);
            events += u64::from(batch.add_event(&self.journal, entry, publish).await?);
            after = entry.seq;
            if batch.is_full() {
                break;
            }
        }
        Ok(match batch.send(&mut self.connection).await? {
            None => Written::Through { after, events, refused: 0 },
            // Redis has it already: another client writes to this stream. It is asked how far it
            // has come.
            Some(error) if is_too_small(&error) => Written::Unknown,
            Some(error) => Written::Suspended(not_written(&error)),
        })
    }

    async fn idle(&mut self, wait: Duration) -> Result<(), SinkError> {
        tokio::time::sleep(wait).await;
        ask(&mut self.connection, Pipeline::new().add_command(cmd("PING"))).await?;
        Ok(())
    }
}

impl RedisConnection {
    fn go_on(&mut self, position: &SessionPosition, top: Option<StreamTail>) -> Resume {
        let SessionPosition { session, span, cursor } = position;
        let ResumePoint { after, ids } = resume(top, *cursor, *span, self.settings.stream_length);
        if ids == EntryIds::Own {
            tracing::warn!(
                target: "ocelli::sink", session = &**session,
                "its stream in Redis has ids beyond the newest event, {}: from now on Redis names \
                    the entries, and only the field `seq` has the number", span.newest
            );
        }
        self.ids.insert(Arc::clone(session), ids);
        Resume::After(after)
    }
}

fn not_written(error: &RedisError) -> String {
    format!("its stream cannot be written: {}", short_message(error))
}

impl From<RedisError> for SinkError {
    fn from(error: RedisError) -> Self {
        let text = short_message(&error);
        if error.is_timeout() { Self::Timeout(text) } else { Self::Target(text) }
    }
}
