//! The thread that numbers events, commits and delivers them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;

use super::outbox::{OutboxBatch, OutboxItem};
use super::store::EventStore;
use super::{Cursors, EventDraft, JournalInner, JournalState, StoredEvent};

/// The kind of the event that stands for those that could not be kept.
const EVENTS_LOST: &str = "events_lost";

/// Between two looks at what is due when no event comes: cursors, and what is kept no longer.
const TICK: Duration = Duration::from_secs(1);

/// Between two attempts at a commit that fails.
const AGAIN: Duration = Duration::from_secs(1);

/// Between two steps that delete what is kept no longer.
const BETWEEN_STEPS: Duration = Duration::from_millis(50);

/// Rows that such a step deletes at most, or twice as many as came since the one before: whatever
/// comes, the journal does not outgrow its bounds. A thousand take some 10 ms.
const STEP_ROWS: usize = 1000;

/// Starts the thread. It ends, with everything committed, when the last clone of the journal is
/// gone.
pub(super) fn start(store: EventStore, shared: Arc<JournalInner>) -> anyhow::Result<()> {
    let soon = Instant::now() + BETWEEN_STEPS;
    let writer = EventWriter { store, shared, step_due: soon, since_step: 0, stuck: false };
    let thread = std::thread::Builder::new().name("journal-events".to_owned());
    thread.spawn(move || writer.run()).context("starting the journal of events")?;
    Ok(())
}

struct EventWriter {
    store: EventStore,
    shared: Arc<JournalInner>,
    /// When it is looked after what is kept no longer.
    step_due: Instant,
    since_step: usize,
    /// Whether that failed the last time.
    stuck: bool,
}

impl EventWriter {
    fn run(mut self) {
        let mut due = Instant::now() + TICK;
        loop {
            let (mut parts, closed) = self.take(due.min(self.step_due));
            for item in parts.iter_mut().flat_map(|part| &mut part.items) {
                if let OutboxItem::Lost(lost) = item {
                    *item = OutboxItem::Event(events_lost(*lost, (self.shared.now_ms)()));
                }
            }
            let ticks = Instant::now() >= due;
            if ticks {
                due = Instant::now() + TICK;
            }
            let (cursors, flushing) = {
                let mut state = self.shared.state.lock();
                // Without an event they wait for the tick.
                let now = !parts.is_empty() || ticks || closed || !state.flushing.is_empty();
                let cursors = if now { state.cursors.clone() } else { Cursors::new() };
                (cursors, std::mem::take(&mut state.flushing))
            };
            if !parts.is_empty() || !cursors.is_empty() {
                let Some(firsts) = self.keep(&parts, &cursors) else { return };
                let written = |cursor: &_, seq: &u64| cursors.get(cursor) == Some(seq);
                self.shared.state.lock().cursors.retain(|cursor, seq| !written(cursor, seq));
                self.deliver(parts, firsts);
            }
            for flushing in flushing {
                // The caller may be gone.
                let _ = flushing.send(());
            }
            if closed && !self.shared.state.lock().outboxes.has_pending() {
                return;
            }
            if Instant::now() >= self.step_due {
                self.step();
            }
        }
    }

    /// Waits until there is something to do, or this moment has come. What is to be written, and
    /// whether no clone of the journal is left.
    fn take(&self, until: Instant) -> (Vec<OutboxBatch>, bool) {
        let idle = |state: &mut JournalState| {
            !state.outboxes.has_pending() && state.flushing.is_empty() && !state.closed
        };
        let mut state = self.shared.state.lock();
        self.shared.wake.wait_while_until(&mut state, idle, until);
        (state.outboxes.take(), state.closed)
    }

    /// Notes whether commits fail. Whether they did before.
    fn set_failing(&self, failing: bool) -> bool {
        let before = std::mem::replace(&mut self.shared.state.lock().failing, failing);
        if before != failing {
            self.shared.progress.send_modify(|count| *count += 1);
        }
        before
    }

    /// Commits a batch, however often it has to be tried. None: it cannot be, and no clone of the
    /// journal is left.
    fn keep(&mut self, parts: &[OutboxBatch], cursors: &Cursors) -> Option<Vec<u64>> {
        loop {
            let error = match self.store.commit(parts, cursors, (self.shared.now_ms)()) {
                Ok(firsts) => {
                    if self.set_failing(false) {
                        tracing::info!(target: "ocelli::journal", "events are kept again");
                    }
                    return Some(firsts);
                }
                Err(error) => error,
            };
            self.shared.metrics.lock().failures += 1;
            if !self.set_failing(true) {
                tracing::error!(
                    target: "ocelli::journal",
                    "events cannot be kept: none is told to anyone until they can, and those are \
                        lost that a session has \
                     more of than may wait: {error:#}"
                );
            }
            let mut state = self.shared.state.lock();
            self.shared.wake.wait_while_for(&mut state, |state| !state.closed, AGAIN);
            if state.closed {
                return None;
            }
        }
    }

    /// Tells of a batch that is on the disk.
    fn deliver(&mut self, parts: Vec<OutboxBatch>, firsts: Vec<u64>) {
        let mut told = 0;
        for (mut part, mut seq) in parts.into_iter().zip(firsts) {
            for item in std::mem::take(&mut part.items) {
                match item {
                    OutboxItem::Event(EventDraft { kind, body, .. }) => {
                        let event = StoredEvent { seq, kind: kind.into(), body };
                        if let Some(deliver) = self.shared.deliver.get() {
                            deliver(&part.session, &event);
                        }
                        seq += 1;
                        told += 1;
                    }
                    OutboxItem::Note(note) => note(),
                    // Was made an event when it was taken.
                    OutboxItem::Lost(_) => {}
                }
            }
            self.shared.done(&part);
        }
        self.shared.metrics.lock().events += told as u64;
        self.since_step += told;
    }

    /// Deletes some of what is kept no longer.
    fn step(&mut self) {
        let rows = STEP_ROWS.max(2 * std::mem::take(&mut self.since_step));
        let keep = *self.shared.keep.lock();
        let more = self.store.retain(&keep, (self.shared.now_ms)(), rows);
        let failed = more.is_err();
        if let Err(error) = &more
            && !self.stuck
        {
            tracing::error!(target: "ocelli::journal", "old events cannot be deleted, tried \
                again: {error}");
        }
        self.stuck = failed;
        let bytes = self.store.bytes();
        let mut metrics = self.shared.metrics.lock();
        // As it was before where it cannot be asked for.
        metrics.bytes = bytes.unwrap_or(metrics.bytes);
        metrics.attachment_bytes = self.store.picture_bytes();
        drop(metrics);
        self.step_due = Instant::now() + if more.unwrap_or(false) { BETWEEN_STEPS } else { TICK };
    }
}

/// Stands for events that could not be kept. Its body has the members that every event has.
fn events_lost(lost: u64, now_ms: i64) -> EventDraft {
    let time = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let body = json!({
        "time": format!("{time:.3}"), "clock": "host", "kind": EVENTS_LOST, "deployment": "",
        "detections": [], "data": {"events": lost},
    });
    EventDraft {
        kind: EVENTS_LOST.to_owned(),
        time_ms: now_ms,
        body: body.to_string().into(),
        attachments: Vec::new(),
    }
}
