//! The thread that numbers events, commits and delivers them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use serde_json::json;

use super::age_clock::AgeClock;
use super::outbox::{OutboxBatch, OutboxItem};
use super::room::{self, Shortage};
use super::store::EventStore;
use super::{Cursors, EventDraft, JournalInner, JournalState, LOST_KIND, StoredEvent};

/// Between two looks at what is due when no event comes: cursors, and what is kept no longer.
const TICK: Duration = Duration::from_secs(1);

/// Between two times that the file keeps the clock: what a power cut may set the age of events back
/// by, for one write to the disk.
const SAVE_CLOCK: Duration = Duration::from_secs(60);

/// Between two attempts at a commit that fails.
const AGAIN: Duration = Duration::from_secs(1);

/// Attempts at a commit before old events make way for it. Where the system itself says that the
/// disk has no room they do so at once, with the next step.
const PATIENCE: u32 = 10;

/// Between two steps that delete what is kept no longer.
const BETWEEN_STEPS: Duration = Duration::from_millis(50);

/// Rows that such a step deletes at most, or twice as many as came since the one before: whatever
/// comes, the journal does not outgrow its bounds. A thousand take some 10 ms.
const STEP_ROWS: usize = 1000;

/// Starts the thread. It ends, with everything committed, when the last clone of the journal is
/// gone.
pub(super) fn start(
    store: EventStore,
    clock: AgeClock,
    shared: Arc<JournalInner>,
) -> anyhow::Result<()> {
    let (soon, save_due) = (Instant::now() + BETWEEN_STEPS, Instant::now());
    let writer = EventWriter {
        store,
        clock,
        save_due,
        shared,
        step_due: soon,
        since_step: 0,
        stuck: false,
        refused: None,
    };
    let thread = std::thread::Builder::new().name("journal-events".to_owned());
    thread.spawn(move || writer.run()).context("starting the journal of events")?;
    Ok(())
}

struct EventWriter {
    store: EventStore,
    clock: AgeClock,
    /// When the file is to keep the clock again.
    save_due: Instant,
    shared: Arc<JournalInner>,
    /// When it is looked after what is kept no longer.
    step_due: Instant,
    since_step: usize,
    /// Whether that failed the last time.
    stuck: bool,
    /// Why the last pictures were not kept.
    refused: Option<String>,
}

impl EventWriter {
    fn run(mut self) {
        let mut due = Instant::now() + TICK;
        loop {
            let (mut parts, closed) = self.take(due.min(self.step_due));
            settle_lost(&mut parts, (self.shared.clocks)().wall);
            self.store.drop_known(&mut parts);
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
                let Some(firsts) = self.keep(&mut parts, &cursors) else { return };
                let written = |cursor: &_, seq: &u64| cursors.get(cursor) == Some(seq);
                self.shared.state.lock().cursors.retain(|cursor, seq| !written(cursor, seq));
                self.deliver(parts, firsts);
            }
            self.keep_clips();
            for flushing in flushing {
                // The caller may be gone.
                let _ = flushing.send(());
            }
            if closed && !self.shared.state.lock().has_writable() {
                self.save_clock();
                return;
            }
            if Instant::now() >= self.step_due {
                self.step();
            }
        }
    }

    /// Keeps the clips whose files are whole.
    fn keep_clips(&mut self) {
        let clips = std::mem::take(&mut self.shared.state.lock().clips);
        if clips.is_empty() {
            return;
        }
        let age = self.clock.look((self.shared.clocks)());
        for (session, clip) in clips {
            let kept = self.store.keep_clip(&session, &clip, age);
            // After the row: who asks meanwhile is told to wait.
            self.store.clips().settle(clip.id);
            let mut metrics = self.shared.metrics.lock();
            match kept {
                Ok(true) if clip.cut.is_some() => metrics.clips.cut += 1,
                Ok(true) => metrics.clips.whole += 1,
                Ok(false) => metrics.clips.failed += 1,
                Err(error) => {
                    metrics.clips.failed += 1;
                    drop(metrics);
                    tracing::warn!(target: "ocelli::journal", "a clip is not kept: {error}");
                }
            }
        }
        self.shared.metrics.lock().clips.bytes = self.store.clip_bytes();
    }

    /// Waits until there is something to do, or this moment has come. What is to be written, and
    /// whether no clone of the journal is left.
    fn take(&self, until: Instant) -> (Vec<OutboxBatch>, bool) {
        let idle = |state: &mut JournalState| {
            !state.has_writable()
                && state.flushing.is_empty()
                && state.clips.is_empty()
                && !state.closed
        };
        let mut state = self.shared.state.lock();
        self.shared.wake.wait_while_until(&mut state, idle, until);
        let parts = if state.is_replicated {
            state.numbered.drain(..).collect()
        } else {
            state.outboxes.take()
        };
        let closed = state.closed;
        drop(state);
        self.shared.room.notify_waiters();
        (parts, closed)
    }

    /// Notes why commits fail, if they do. Whether they did before.
    fn set_failing(&self, failing: Option<String>) -> bool {
        let now = failing.is_some();
        let before = std::mem::replace(&mut self.shared.state.lock().failing, failing).is_some();
        if before != now {
            self.shared.progress.send_modify(|count| *count += 1);
        }
        before
    }

    /// Commits a batch, however often it has to be tried. None: it cannot be, and no clone of the
    /// journal is left.
    fn keep(&mut self, parts: &mut [OutboxBatch], cursors: &Cursors) -> Option<Vec<u64>> {
        for attempt in 1.. {
            let error = match self.commit(parts, cursors) {
                Ok(firsts) => {
                    if self.set_failing(None) {
                        tracing::info!(target: "ocelli::journal", "events are kept again");
                    }
                    return Some(firsts);
                }
                Err(error) => error,
            };
            self.shared.metrics.lock().failures += 1;
            if !self.set_failing(Some(error.to_string())) {
                tracing::error!(
                    target: "ocelli::journal",
                    "events cannot be kept: they wait until they can, none is told before, and \
                        those are lost that a session has more of than may wait: {error}"
                );
            }
            if room::is_database_full(&error) {
                self.relieve(Shortage { events: attempt >= PATIENCE, ..Shortage::ACUTE });
            }
            if !self.wait_to_try_again(parts) {
                return None;
            }
        }
        None
    }

    /// Waits, and runs the notes that do not wait with the events. False: no clone of the journal is
    /// left.
    fn wait_to_try_again(&self, parts: &mut [OutboxBatch]) -> bool {
        let until = Instant::now() + AGAIN;
        loop {
            let notes = self.shared.state.lock().outboxes.take_overtaking(parts);
            // Not under the lock: a note may append events.
            notes.into_iter().for_each(|note| note());
            let idle = |state: &mut JournalState| !state.closed && !state.outboxes.has_overtaking();
            let mut state = self.shared.state.lock();
            let waited = self.shared.wake.wait_while_until(&mut state, idle, until);
            if state.closed {
                return false;
            }
            if waited.timed_out() {
                return true;
            }
        }
    }

    /// Tries to commit a batch: with its pictures, or without where there is no room for them.
    fn commit(&mut self, parts: &[OutboxBatch], cursors: &Cursors) -> rusqlite::Result<Vec<u64>> {
        let count = EventStore::count_pictures(parts);
        let mut written = self.store.write_pictures(parts);
        if written.as_ref().is_err_and(room::is_full) {
            self.relieve(Shortage { events: false, ..Shortage::ACUTE });
            written = self.store.write_pictures(parts);
        }
        let age = self.clock.look((self.shared.clocks)());
        let firsts = self.store.commit(parts, cursors, age, written.is_ok())?;
        match written {
            Ok(()) if count == 0 => {}
            Ok(()) => self.refused = None,
            Err(error) => {
                if self.refused.is_none() {
                    tracing::error!(
                        target: "ocelli::journal",
                        "pictures of events cannot be kept, their events are: {error}"
                    );
                }
                self.refused = Some(format!("pictures of events cannot be kept: {error}"));
                self.shared.metrics.lock().pictures_lost += count;
            }
        }
        Ok(firsts)
    }

    /// Deletes what is to go for want of room, a step of it. Whether something went.
    fn relieve(&mut self, shortage: Shortage) -> bool {
        let keep = self.shared.keep.lock().clone();
        if shortage.is_none() || keep.reserve_bytes == 0 {
            return false;
        }
        match self.store.relieve(shortage, &keep.sinks, STEP_ROWS) {
            Ok(gone) => {
                self.shared.metrics.lock().pictures_lost += gone.pictures;
                gone.clips + gone.pictures + gone.events > 0
            }
            // Tried again with the next step.
            Err(error) => {
                tracing::debug!(target: "ocelli::journal", "making room: {error}");
                false
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
                    OutboxItem::Note(note) => (note.run)(),
                    // Was made an event when it was taken.
                    OutboxItem::Lost(_) => {}
                }
            }
            self.shared.done(&part);
        }
        self.shared.metrics.lock().events += told as u64;
        self.since_step += told;
    }

    /// Logs what there is to tell of the system's clock, once, and shows it.
    fn tell_clock(&self) {
        let told = self.clock.told();
        let mut state = self.shared.state.lock();
        let before = std::mem::replace(&mut state.clock, told.clone());
        drop(state);
        match (before, told) {
            (None, Some(jump)) => {
                tracing::warn!(target: "ocelli::journal", seconds = jump.seconds, "{}", jump.message);
            }
            (Some(_), None) => {
                tracing::info!(target: "ocelli::journal", "the system's clock holds");
            }
            _ => {}
        }
    }

    /// Has the file keep the clock.
    fn save_clock(&mut self) {
        self.save_due = Instant::now() + SAVE_CLOCK;
        let record = self.clock.record((self.shared.clocks)());
        // What could not be kept is kept a minute later; a kill before that sets the age back.
        if let Err(error) = self.store.save_clock(&record) {
            tracing::debug!(target: "ocelli::journal", "the events' clock is not kept: {error}");
        }
    }

    /// Deletes some of what is kept no longer.
    fn step(&mut self) {
        let rows = STEP_ROWS.max(2 * std::mem::take(&mut self.since_step));
        let keep = self.shared.keep.lock().clone();
        let age = self.clock.look((self.shared.clocks)());
        self.tell_clock();
        if Instant::now() >= self.save_due {
            self.save_clock();
        }
        let more = self.store.retain(&keep, age, rows);
        let failed = more.is_err();
        if let Err(error) = &more
            && !self.stuck
        {
            tracing::error!(target: "ocelli::journal", "old events cannot be deleted, tried \
                again: {error}");
        }
        self.stuck = failed;
        let shortage = self.store.shortage(keep.reserve_bytes);
        let relieved = self.relieve(shortage);
        if shortage.is_none() && self.refused.is_none() {
            self.store.keep_ballast();
        }
        let little = "little room on the disk: the oldest clips and pictures of events go";
        let little = (!shortage.is_none()).then(|| little.to_owned());
        self.shared.state.lock().pictures = self.refused.clone().or(little);
        let bytes = self.store.bytes();
        let mut metrics = self.shared.metrics.lock();
        // As it was before where it cannot be asked for.
        metrics.bytes = bytes.unwrap_or(metrics.bytes);
        metrics.attachment_bytes = self.store.picture_bytes();
        metrics.clips.bytes = self.store.clip_bytes();
        drop(metrics);
        self.step_due =
            Instant::now() + if relieved || more.unwrap_or(false) { BETWEEN_STEPS } else { TICK };
    }
}

/// Puts events in the place of those that were lost.
pub(super) fn settle_lost(parts: &mut [OutboxBatch], now_ms: i64) {
    for item in parts.iter_mut().flat_map(|part| &mut part.items) {
        if let OutboxItem::Lost(lost) = item {
            *item = OutboxItem::Event(events_lost(*lost, now_ms));
        }
    }
}

/// Stands for events that could not be kept. Its body has the members that every event has.
fn events_lost(lost: u64, now_ms: i64) -> EventDraft {
    let time = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    let body = json!({
        "time": format!("{time:.3}"), "clock": "host", "kind": LOST_KIND, "deployment": "",
        "detections": [], "data": {"events": lost},
    });
    EventDraft {
        kind: LOST_KIND.to_owned(),
        time_ms: now_ms,
        body: body.to_string().into(),
        attachments: Vec::new(),
        clip: None,
    }
}
