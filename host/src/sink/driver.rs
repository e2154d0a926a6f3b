//! The task that hands a target the journal's events.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::{
    EventBatch, EventSink, Owners, Resume, SessionOwner, SessionPosition, SinkConnection,
    SinkError, SinkHealth, SinkName, Written,
};
use crate::config::SinkStart;
use crate::journal::JournalError;
use crate::journal::events::{EventJournal, EventQuery, SequenceRange};
use crate::util::backoff::{Backoff, BackoffPolicy};

/// Behind a sink's name: by which the journal knows where the sink began. Turning one on does not
/// send a month of events, unless it is to.
const STARTS: &str = " starts";

/// Stands there in the place of a session's name, for a host without sessions. None has this name.
const BEGUN: &str = "";

/// Most events of one batch: a transaction of Redis, which does nothing else meanwhile, takes about
/// a millisecond.
pub(super) const MAX_EVENTS: usize = 256;

/// How often a target is asked whether it is there while there is nothing to write.
const IDLE: Duration = Duration::from_secs(2);

/// How long to wait before a target is tried again.
pub(super) const WAITS: BackoffPolicy = BackoffPolicy {
    free: 0,
    // A Redis or a broker that was restarted is back within a second.
    first: Duration::from_millis(100),
    // How long a target that is back may go unnoticed.
    longest: Duration::from_secs(5),
    // The hosts of one target do not all come at once.
    jitter: -0.5,
};

/// How long a session that a target does not take is left alone: its key in Redis is something
/// else, say.
pub(super) const ASIDE: Duration = Duration::from_secs(30);

/// A session on this connection.
enum SessionProgress {
    /// Goes on with the event after this one.
    Known(u64),
    /// Left alone until then.
    Suspended(Instant),
}

/// See the module's documentation.
pub(super) struct SinkDriver<S> {
    name: SinkName,
    sink: S,
    journal: EventJournal,
    owners: Owners,
    health: Arc<Mutex<SinkHealth>>,
    /// How far each session was ever written; none before the journal was asked.
    cursors: Option<BTreeMap<Arc<str>, u64>>,
    /// The newest event of each session when the sink began for the first time ever.
    starts: BTreeMap<Arc<str>, u64>,
    /// Those that the connection in use was asked about.
    sessions: HashMap<Arc<str>, SessionProgress>,
    /// Events of the next batch: fewer where the target does not answer in time.
    limit: usize,
    backoff: Backoff,
    /// Since when the target takes nothing, once the log was told.
    down: Option<Instant>,
}

impl<S: EventSink> SinkDriver<S> {
    pub(super) fn new(
        name: SinkName,
        sink: S,
        journal: EventJournal,
        owners: Owners,
        health: Arc<Mutex<SinkHealth>>,
    ) -> Self {
        Self {
            name,
            sink,
            journal,
            owners,
            health,
            cursors: None,
            starts: BTreeMap::new(),
            sessions: HashMap::new(),
            limit: MAX_EVENTS,
            backoff: Backoff::new(S::WAITS),
            down: None,
        }
    }

    /// Writes, by the settings that are in force at the time, until it is dropped.
    pub(super) async fn run(mut self, mut wanted: watch::Receiver<Option<S::Settings>>) {
        loop {
            let settings = wanted.borrow_and_update().clone();
            let Some(settings) = settings else {
                self.health.lock().turn_off();
                self.down = None;
                if wanted.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let Err(fault) = tokio::select! {
                served = self.serve(&settings) => served,
                () = next(&mut wanted) => {
                    self.backoff.reset();
                    let label = &self.name.label;
                    tracing::info!(target: "ocelli::sink", "{label}: other settings, connecting \
                        anew");
                    continue;
                }
            };
            let mut changed = self.journal.changed();
            let wait = self.failed(&fault).await;
            let mut over = std::pin::pin!(tokio::time::sleep(wait));
            loop {
                tokio::select! {
                    () = &mut over => break,
                    () = next(&mut wanted) => {
                        self.backoff.reset();
                        break;
                    }
                    () = next(&mut changed) => self.recount().await,
                }
            }
        }
    }

    /// Tells of a failure, and gives how long to wait.
    async fn failed(&mut self, fault: &SinkError) -> Duration {
        self.count_error();
        self.recount().await;
        self.health.lock().fail(fault.to_string());
        if matches!(fault, SinkError::Timeout(_)) {
            self.limit = (self.limit / 2).max(1);
        }
        let label = &self.name.label;
        if self.down.is_none() {
            self.down = Some(Instant::now());
            tracing::warn!(target: "ocelli::sink", "{label} takes no events, they wait in the \
                journal: {fault}");
        } else {
            tracing::debug!(target: "ocelli::sink", "{label} takes no events: {fault}");
        }
        let wait = self.backoff.fail(rand::random());
        match fault {
            SinkError::Rest { wait: asked, .. } => wait.max(*asked),
            _ => wait,
        }
    }

    /// Counts what waits in the journal while nothing is written.
    async fn recount(&mut self) {
        if let Ok(spans) = self.journal.sessions().await {
            self.count_behind(&spans);
        }
    }

    /// The target does what it is asked.
    fn works(&mut self) {
        self.backoff.reset();
        if !self.health.lock().succeed() {
            let label = &self.name.label;
            match self.down.take() {
                Some(since) => {
                    let seconds = since.elapsed().as_secs_f64();
                    tracing::info!(target: "ocelli::sink", "{label} takes events again, after \
                        {seconds:.1} s");
                }
                None => tracing::info!(target: "ocelli::sink", "{label} takes events"),
            }
        }
    }

    async fn serve(&mut self, settings: &S::Settings) -> Result<Infallible, SinkError> {
        if self.cursors.is_none() {
            let cursors: BTreeMap<_, _> =
                self.journal.cursors(&self.name.id).await?.into_iter().collect();
            self.starts = self.begin(!cursors.is_empty()).await?;
            self.cursors = Some(cursors);
        }
        let start = S::start(settings);
        if start == SinkStart::Now {
            self.leave_out_what_was_before().await?;
        }
        let mut changed = self.journal.changed();
        let mut connection = self.sink.connect(settings).await?;
        self.sessions.clear();
        loop {
            changed.borrow_and_update();
            let spans = self.journal.sessions().await?;
            let spans = self.leave_to_owners(spans);
            self.resume(&mut connection, start, &spans).await?;
            let written = self.round(&mut connection, &spans).await?;
            self.count_behind(&spans);
            self.works();
            if !written {
                tokio::select! {
                    () = next(&mut changed) => {}
                    idle = connection.idle(IDLE) => idle?,
                }
            }
        }
    }

    /// Behind which event of each session that has any the sink has begun, or begins now. A host
    /// from before that was noted has begun with all of them.
    async fn begin(&self, has_cursors: bool) -> Result<BTreeMap<Arc<str>, u64>, JournalError> {
        let noted: Arc<str> = format!("{}{STARTS}", self.name.id).into();
        let known: BTreeMap<_, _> = self.journal.cursors(&noted).await?.into_iter().collect();
        if !known.is_empty() {
            return Ok(known);
        }
        let mut starts = BTreeMap::from([(Arc::from(BEGUN), 0)]);
        if !has_cursors {
            let spans = self.journal.sessions().await?.into_iter();
            starts.extend(spans.map(|(session, span)| (session, span.newest)));
        }
        self.journal.set_cursors(&noted, starts.clone().into_iter().collect());
        Ok(starts)
    }

    /// Asks the target how far it has come with the sessions that it was not asked about yet.
    async fn resume(
        &mut self,
        connection: &mut S::Connection,
        start: SinkStart,
        spans: &[(Arc<str>, SequenceRange)],
    ) -> Result<(), SinkError> {
        let now = Instant::now();
        let unknown = spans.iter().filter(|(session, _)| match self.sessions.get(session) {
            None => true,
            Some(SessionProgress::Known(_)) => false,
            Some(SessionProgress::Suspended(until)) => *until <= now,
        });
        let unknown: Vec<SessionPosition> = unknown
            .map(|(session, span)| {
                let (session, cursor) = (Arc::clone(session), self.cursor(session));
                SessionPosition { session, span: *span, cursor }
            })
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let unknown = self.with_cursors(unknown).await?;
        let resumed = connection.resume(&unknown).await?;
        for (position, resumed) in unknown.into_iter().zip(resumed) {
            let state = match resumed {
                Resume::After(after) => SessionProgress::Known(self.go_on(start, &position, after)),
                Resume::Suspended(reason) => self.suspend(&position.session, &reason),
            };
            self.sessions.insert(position.session, state);
        }
        Ok(())
    }

    fn go_on(&self, start: SinkStart, position: &SessionPosition, mut after: u64) -> u64 {
        let SessionPosition { session, span, cursor } = position;
        if start == SinkStart::Now {
            let start = self.starts.get(session).copied().unwrap_or(0);
            // What is behind a cursor is owed, however the sink began.
            let start = cursor.map_or(start, |cursor| cursor.min(start));
            after = after.max(start.min(span.newest));
        }
        if let Some(cursor) = cursor.filter(|cursor| after < *cursor) {
            let label = &self.name.label;
            tracing::info!(
                target: "ocelli::sink", session = &**session,
                "{label} has lost events: {} to {cursor} are written again", after + 1
            );
        }
        after
    }

    fn suspend(&self, session: &Arc<str>, reason: &str) -> SessionProgress {
        self.count_error();
        let label = &self.name.label;
        tracing::warn!(
            target: "ocelli::sink", session = &**session,
            "{label} does not take this session's events, they wait in the journal: {reason}"
        );
        SessionProgress::Suspended(Instant::now() + ASIDE)
    }

    /// Writes a batch for each session that has more. Gives whether there was any.
    async fn round(
        &mut self,
        connection: &mut S::Connection,
        spans: &[(Arc<str>, SequenceRange)],
    ) -> Result<bool, SinkError> {
        let mut any = false;
        for (session, span) in spans {
            let Some(SessionProgress::Known(after)) = self.sessions.get(session) else { continue };
            let after = *after;
            if after < span.newest {
                any = true;
                self.write(connection, session, after).await?;
            }
            // Without a write, too: the target may have more than the host came to noting.
            if let Some(SessionProgress::Known(now)) = self.sessions.get(session) {
                let now = *now;
                self.advance(session, now);
            }
        }
        Ok(any)
    }

    /// The sessions whose events this host hands over. Another host hands over those of its own: of
    /// these nothing is owed here.
    fn leave_to_owners(
        &mut self,
        spans: Vec<(Arc<str>, SequenceRange)>,
    ) -> Vec<(Arc<str>, SequenceRange)> {
        let mut own = Vec::with_capacity(spans.len());
        for (session, span) in spans {
            match (self.owners)(&session) {
                SessionOwner::ThisHost => own.push((session, span)),
                SessionOwner::OtherHost => {
                    self.sessions.remove(&session);
                    self.advance(&session, span.newest);
                }
                SessionOwner::Changing => {
                    self.sessions.remove(&session);
                }
            }
        }
        own
    }

    /// Positions with what the journal knows now: a session that has come from another host has that
    /// host's cursor.
    async fn with_cursors(
        &mut self,
        unknown: Vec<SessionPosition>,
    ) -> Result<Vec<SessionPosition>, JournalError> {
        let cursors = self.journal.cursors(&self.name.id).await?;
        self.cursors = Some(cursors.into_iter().collect());
        let with = |position: SessionPosition| {
            let cursor = self.cursor(&position.session);
            SessionPosition { cursor, ..position }
        };
        Ok(unknown.into_iter().map(with).collect())
    }

    /// Moves the cursor of a session where that is forward, in the journal, too: this task may be
    /// stopped at the next wait.
    fn advance(&mut self, session: &Arc<str>, to: u64) {
        if to <= self.cursor(session).unwrap_or(0) {
            return;
        }
        self.cursors.get_or_insert_default().insert(Arc::clone(session), to);
        self.journal.set_cursors(&self.name.id, vec![(Arc::clone(session), to)]);
    }

    /// Moves the cursors of sessions that were never written to where the sink began, which is owed
    /// nothing from before: the journal keeps for a sink what is behind its cursor, whether or not
    /// its target is ever there.
    async fn leave_out_what_was_before(&mut self) -> Result<(), JournalError> {
        for (session, span) in self.journal.sessions().await? {
            if self.cursor(&session).is_some() {
                continue;
            }
            let start = self.starts.get(&session).copied().unwrap_or(0);
            self.advance(&session, start.min(span.newest));
        }
        Ok(())
    }

    /// Writes events of a session, as many as fit one batch, and notes how far it has come.
    async fn write(
        &mut self,
        connection: &mut S::Connection,
        session: &Arc<str>,
        after: u64,
    ) -> Result<(), SinkError> {
        let limit = self.limit.min(connection.max_events());
        let query = EventQuery { after, limit, ..EventQuery::default() };
        let page = self.journal.page(session, query).await?;
        let gap =
            (page.span.oldest > after.saturating_add(1)).then(|| (after + 1, page.span.oldest - 1));
        let cursor = self.cursor(session);
        let batch = EventBatch { session, gap, events: &page.events, cursor };
        let last = match page.events.is_empty() {
            false => batch.last(),
            // Everything up to there was looked at.
            true => batch.last().max(page.next.unwrap_or(page.span.newest)),
        };
        let written = match gap.is_none() && page.events.is_empty() {
            true => Written::Through { after: last, events: 0, refused: 0 },
            false => connection.write(batch).await?,
        };
        let state = match written {
            Written::Through { after: to, events, refused } => {
                if let Some((from, until)) = gap.filter(|(_, until)| to >= *until) {
                    let label = &self.name.label;
                    self.health.lock().metrics.gaps += 1;
                    tracing::warn!(
                        target: "ocelli::sink", session = &**session,
                        "the journal has deleted events {from} to {until} before {label} had them"
                    );
                }
                self.health.lock().note_written(events, refused);
                self.limit = (self.limit * 2).min(MAX_EVENTS);
                // Neither back, nor beyond what it was given.
                Some(SessionProgress::Known(to.clamp(after, last)))
            }
            Written::Unknown => None,
            Written::Suspended(reason) => Some(self.suspend(session, &reason)),
        };
        match state {
            Some(state) => self.sessions.insert(Arc::clone(session), state),
            None => self.sessions.remove(session),
        };
        Ok(())
    }

    fn count_error(&self) {
        self.health.lock().metrics.errors += 1;
    }

    fn cursor(&self, session: &Arc<str>) -> Option<u64> {
        self.cursors.as_ref()?.get(session).copied()
    }

    /// Counts the events that the target does not have.
    fn count_behind(&self, spans: &[(Arc<str>, SequenceRange)]) {
        let behind = spans.iter().map(|(session, span)| {
            let at = match self.sessions.get(session) {
                Some(SessionProgress::Known(at)) => Some(*at),
                _ => self.cursor(session),
            };
            span.newest.saturating_sub(at.unwrap_or(0).max(span.oldest.saturating_sub(1)))
        });
        self.health.lock().metrics.behind = behind.sum();
    }
}

/// Returns when there is something new; never where nothing will be any more.
async fn next<T>(changed: &mut watch::Receiver<T>) {
    if changed.changed().await.is_err() {
        pending().await
    }
}

#[cfg(test)]
mod tests;
