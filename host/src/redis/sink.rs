//! The task that writes the journal's events to Redis.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::redis::aio::MultiplexedConnection;
use ::redis::{Pipeline, RedisError, cmd};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::RedisMetrics;
use super::entry::{StreamBatch, is_too_small, stream_key};
use super::link::{ask, connect, short_message};
use super::resume::{EntryIds, ResumePoint, StreamTail, resume};
use crate::config::{self, RedisStart};
use crate::journal::JournalError;
use crate::journal::events::{EventJournal, EventQuery, REDIS_SINK, SequenceRange};
use crate::util::backoff::{Backoff, BackoffPolicy};

/// By which the journal knows where the sink began: turning Redis on does not send a month of
/// events, unless it is to.
const STARTS: &str = "redis starts";

/// Stands there in the place of a session's name, for a host without sessions. None has this name.
const BEGUN: &str = "";

/// Most events of one transaction: Redis does nothing else meanwhile, for about a millisecond.
const MAX_EVENTS: usize = 256;

/// Streams that are asked about at once: each answer holds the newest entry, which may be 256 KiB.
const LOOK_UP: usize = 16;

/// How often Redis is asked whether it is there while there is nothing to write.
const IDLE: Duration = Duration::from_secs(2);

/// How long to wait before Redis is tried again.
const WAITS: BackoffPolicy = BackoffPolicy {
    free: 0,
    // A Redis that was restarted is back within a second.
    first: Duration::from_millis(100),
    // How long a Redis that is back may go unnoticed.
    longest: Duration::from_secs(5),
    // The hosts of one Redis do not all come at once.
    jitter: -0.5,
};

/// How long a stream that Redis does not write is left alone: its key is something else, say.
const ASIDE: Duration = Duration::from_secs(30);

/// Why nothing can be written now.
#[derive(Debug, thiserror::Error)]
enum SinkError {
    /// Redis does not do what it is asked.
    #[error("{}", short_message(.0))]
    Redis(#[from] RedisError),
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A stream on this connection.
enum StreamState {
    /// See [`ResumePoint`].
    Known(ResumePoint),
    /// Left alone until then.
    Suspended(Instant),
}

/// See the module's documentation.
pub(super) struct EventSink {
    journal: EventJournal,
    metrics: Arc<Mutex<RedisMetrics>>,
    /// How far each stream was ever written; none before the journal was asked.
    cursors: Option<BTreeMap<Arc<str>, u64>>,
    /// The newest event of each session when the sink began for the first time ever.
    starts: BTreeMap<Arc<str>, u64>,
    /// Those that the connection in use was asked about.
    streams: HashMap<Arc<str>, StreamState>,
    /// Events of the next transaction: fewer where Redis does not answer in time.
    limit: usize,
    backoff: Backoff,
    /// Since when Redis takes nothing, and whether the log was told.
    down: Option<Instant>,
}

impl EventSink {
    pub(super) fn new(journal: EventJournal, metrics: Arc<Mutex<RedisMetrics>>) -> Self {
        Self {
            journal,
            metrics,
            cursors: None,
            starts: BTreeMap::new(),
            streams: HashMap::new(),
            limit: MAX_EVENTS,
            backoff: Backoff::new(WAITS),
            down: None,
        }
    }

    /// Writes, by the settings that are in force at the time, until it is dropped.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Option<config::RedisConfig>>) {
        loop {
            let settings = wanted.borrow_and_update().clone();
            let Some(settings) = settings else {
                self.metrics.lock().up = false;
                self.down = None;
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let Err(fault) = tokio::select! {
                served = self.serve(&settings) => served,
                () = next(&mut wanted) => {
                    tracing::info!(target: "ocelli::redis", "other settings: connecting anew");
                    continue;
                }
            };
            let wait = self.failed(&fault).await;
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = next(&mut wanted) => {}
            }
        }
    }

    /// Tells of a failure, and gives how long to wait.
    async fn failed(&mut self, fault: &SinkError) -> Duration {
        self.count_error();
        self.metrics.lock().up = false;
        if matches!(fault, SinkError::Redis(error) if error.is_timeout()) {
            self.limit = (self.limit / 2).max(1);
        }
        if let Ok(spans) = self.journal.sessions().await {
            self.count_behind(&spans);
        }
        if self.down.is_none() {
            self.down = Some(Instant::now());
            tracing::warn!(target: "ocelli::redis", "Redis takes no events, they wait in the \
                journal: {fault}");
        } else {
            tracing::debug!(target: "ocelli::redis", "Redis takes no events: {fault}");
        }
        self.backoff.fail(rand::random())
    }

    /// Redis does what it is asked.
    fn works(&mut self) {
        self.backoff.reset();
        if !std::mem::replace(&mut self.metrics.lock().up, true) {
            match self.down.take() {
                Some(since) => {
                    let seconds = since.elapsed().as_secs_f64();
                    tracing::info!(target: "ocelli::redis", "Redis takes events again, after \
                        {seconds:.1} s");
                }
                None => tracing::info!(target: "ocelli::redis", "Redis takes events"),
            }
        }
    }

    async fn serve(&mut self, settings: &config::RedisConfig) -> Result<Infallible, SinkError> {
        if self.cursors.is_none() {
            let cursors: BTreeMap<_, _> =
                self.journal.cursors(REDIS_SINK).await?.into_iter().collect();
            self.starts = self.begin(!cursors.is_empty()).await?;
            self.cursors = Some(cursors);
        }
        let mut changed = self.journal.changed();
        let mut connection = connect(settings).await?;
        self.streams.clear();
        loop {
            changed.borrow_and_update();
            let spans = self.journal.sessions().await?;
            self.look_up(&mut connection, settings, &spans).await?;
            let mut moved = Vec::new();
            let written = self.round(&mut connection, settings, &spans, &mut moved).await;
            if !moved.is_empty() {
                self.journal.set_cursors(REDIS_SINK, moved);
            }
            let written = written?;
            self.count_behind(&spans);
            self.works();
            if !written {
                tokio::select! {
                    () = next(&mut changed) => {}
                    () = tokio::time::sleep(IDLE) => {
                        ask(&mut connection, Pipeline::new().add_command(cmd("PING"))).await?;
                    }
                }
            }
        }
    }

    /// Behind which event of each session that has any the sink has begun, or begins now. A host
    /// from before that was noted has begun with all of them.
    async fn begin(&self, has_cursors: bool) -> Result<BTreeMap<Arc<str>, u64>, JournalError> {
        let known: BTreeMap<_, _> = self.journal.cursors(STARTS).await?.into_iter().collect();
        if !known.is_empty() {
            return Ok(known);
        }
        let mut starts = BTreeMap::from([(Arc::from(BEGUN), 0)]);
        if !has_cursors {
            let spans = self.journal.sessions().await?.into_iter();
            starts.extend(spans.map(|(session, span)| (session, span.newest)));
        }
        self.journal.set_cursors(STARTS, starts.clone().into_iter().collect());
        Ok(starts)
    }

    /// Asks Redis how far it has come with the streams that it was not asked about yet.
    async fn look_up(
        &mut self,
        connection: &mut MultiplexedConnection,
        settings: &config::RedisConfig,
        spans: &[(Arc<str>, SequenceRange)],
    ) -> Result<(), SinkError> {
        let now = Instant::now();
        let unknown: Vec<&(Arc<str>, SequenceRange)> = spans
            .iter()
            .filter(|(session, _)| match self.streams.get(session) {
                None => true,
                Some(StreamState::Known(_)) => false,
                Some(StreamState::Suspended(until)) => *until <= now,
            })
            .collect();
        for some in unknown.chunks(LOOK_UP) {
            let mut commands = Pipeline::new();
            for (session, _) in some {
                commands.add_command(
                    cmd("XINFO").arg("STREAM").arg(stream_key(settings, session)).to_owned(),
                );
            }
            for ((session, span), answer) in some.iter().zip(ask(connection, &mut commands).await?)
            {
                let stream = match StreamTail::read(answer)? {
                    Ok(top) => StreamState::Known(self.go_on(settings, session, *span, top)),
                    Err(error) => self.suspend(session, &error),
                };
                self.streams.insert(Arc::clone(session), stream);
            }
        }
        Ok(())
    }

    fn go_on(
        &self,
        settings: &config::RedisConfig,
        session: &Arc<str>,
        span: SequenceRange,
        top: Option<StreamTail>,
    ) -> ResumePoint {
        let cursor = self.cursor(session);
        let mut resumed = resume(top, cursor, span, settings.stream_length);
        if settings.from == RedisStart::Now {
            let start = self.starts.get(session).copied().unwrap_or(0);
            resumed.after = resumed.after.max(start.min(span.newest));
        }
        if resumed.ids == EntryIds::Own {
            tracing::warn!(
                target: "ocelli::redis", session = &**session,
                "its stream in Redis has ids beyond the newest event, {}: from now on Redis names \
                    the entries, and only the \
                 field `seq` has the number", span.newest
            );
        }
        if let Some(cursor) = cursor.filter(|cursor| resumed.after < *cursor) {
            tracing::info!(
                target: "ocelli::redis", session = &**session,
                "Redis has lost events: {} to {cursor} are written again", resumed.after + 1
            );
        }
        resumed
    }

    fn suspend(&self, session: &Arc<str>, error: &RedisError) -> StreamState {
        self.count_error();
        tracing::warn!(
            target: "ocelli::redis", session = &**session,
            "its stream cannot be written, its events wait in the journal: {}", short_message(error)
        );
        StreamState::Suspended(Instant::now() + ASIDE)
    }

    /// Writes a transaction for each session that has more. Gives whether there was any, and adds
    /// to `moved` how far streams have come.
    async fn round(
        &mut self,
        connection: &mut MultiplexedConnection,
        settings: &config::RedisConfig,
        spans: &[(Arc<str>, SequenceRange)],
        moved: &mut Vec<(Arc<str>, u64)>,
    ) -> Result<bool, SinkError> {
        let mut any = false;
        for (session, span) in spans {
            let Some(StreamState::Known(at)) = self.streams.get(session) else { continue };
            let at = *at;
            if at.after < span.newest {
                any = true;
                self.write(connection, settings, session, at).await?;
                if let Some(StreamState::Known(now)) = self.streams.get(session)
                    && self.cursor(session).is_none_or(|cursor| cursor < now.after)
                {
                    moved.push((Arc::clone(session), now.after));
                    self.cursors.get_or_insert_default().insert(Arc::clone(session), now.after);
                }
            }
        }
        Ok(any)
    }

    /// Writes events of a session, as many as fit one transaction, and notes how far its stream has
    /// come.
    async fn write(
        &mut self,
        connection: &mut MultiplexedConnection,
        settings: &config::RedisConfig,
        session: &Arc<str>,
        at: ResumePoint,
    ) -> Result<(), SinkError> {
        let query = EventQuery { after: at.after, limit: self.limit, ..EventQuery::default() };
        let page = self.journal.page(session, query).await?;
        let (cursor, mut after, mut events) = (self.cursor(session), at.after, 0);
        let mut batch = StreamBatch::new(settings, session, at.ids);
        if page.span.oldest > after.saturating_add(1) {
            let (from, to) = (after + 1, page.span.oldest - 1);
            self.metrics.lock().gaps += 1;
            tracing::warn!(
                target: "ocelli::redis", session = &**session,
                "the journal has deleted events {from} to {to} before Redis had them"
            );
            batch.add_gap(from, to);
            after = to;
        }
        for entry in &page.events {
            // What is written again was published the first time.
            let publish = settings.publish && cursor.is_none_or(|cursor| cursor < entry.seq);
            events += u64::from(batch.add_event(&self.journal, entry, publish).await?);
            after = entry.seq;
            if batch.is_full() {
                break;
            }
        }
        if page.events.is_empty() {
            // Everything up to there was looked at.
            after = after.max(page.next.unwrap_or(page.span.newest));
        }
        match batch.send(connection).await? {
            None => {
                self.metrics.lock().written += events;
                self.limit = (self.limit * 2).min(MAX_EVENTS);
                self.streams.insert(
                    Arc::clone(session),
                    StreamState::Known(ResumePoint { after, ids: at.ids }),
                );
            }
            // Redis has it already: another client writes to this stream. It is asked how far it
            // has come.
            Some(error) if is_too_small(&error) => {
                self.streams.remove(session);
            }
            Some(error) => {
                let aside = self.suspend(session, &error);
                self.streams.insert(Arc::clone(session), aside);
            }
        }
        Ok(())
    }

    fn count_error(&self) {
        self.metrics.lock().errors += 1;
    }

    fn cursor(&self, session: &Arc<str>) -> Option<u64> {
        self.cursors.as_ref()?.get(session).copied()
    }

    /// Counts the events that Redis does not have.
    fn count_behind(&self, spans: &[(Arc<str>, SequenceRange)]) {
        let behind = spans.iter().map(|(session, span)| {
            let at = match self.streams.get(session) {
                Some(StreamState::Known(at)) => Some(at.after),
                _ => self.cursor(session),
            };
            span.newest.saturating_sub(at.unwrap_or(0).max(span.oldest.saturating_sub(1)))
        });
        self.metrics.lock().behind = behind.sum();
    }
}

/// Returns when there is something new; never where nothing will be any more.
async fn next<T>(changed: &mut watch::Receiver<T>) {
    if changed.changed().await.is_err() {
        pending().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Clock, Event, Hub, SessionState};
    use crate::journal::Journal;

    #[tokio::test]
    async fn a_sink_that_begins_leaves_out_what_was_before_and_knows_that_ever_after() {
        let journal = Journal::temporary().unwrap();
        let hub = Hub::new(journal.events().clone());
        hub.publish_state("gate", SessionState::Running, None);
        let event = || Event {
            time_ns: 0,
            clock: Clock::Host,
            kind: "entered".into(),
            deployment: "a".into(),
            frame: None,
            detections: Vec::new(),
            data: Default::default(),
            attachments: Vec::new(),
        };
        for _ in 0..3 {
            assert!(hub.publish_event_if_exists("gate", event()));
        }
        journal.events().flush().await.unwrap();
        let sink = || EventSink::new(journal.events().clone(), Arc::default());
        let starts = sink().begin(false).await.unwrap();
        assert_eq!(starts.get("gate"), Some(&3));
        assert!(hub.publish_event_if_exists("gate", event()));
        journal.events().flush().await.unwrap();
        assert_eq!(sink().begin(true).await.unwrap(), starts, "as it began the first time");

        let older = Journal::temporary().unwrap();
        let sink = EventSink::new(older.events().clone(), Arc::default());
        let starts = sink.begin(true).await.unwrap();
        assert_eq!(starts.keys().map(|name| &**name).collect::<Vec<_>>(), [BEGUN]);
    }
}
