//! What callers and the writer share.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::sync::watch;

use super::outbox::{OutboxBatch, Outboxes};
use super::{DeliveryCallback, DeliveryHandler, EventDraft, RetentionLimits, StoredEvent};

/// Milliseconds since 1970.
pub(super) type Clock = Box<dyn Fn() -> i64 + Send + Sync>;

pub(super) struct JournalInner {
    outboxes: Mutex<Outboxes>,
    /// Told of what the writer waits for.
    wake: Condvar,
    /// Changes when events were delivered, and when commits begin to fail.
    pub(super) progress: watch::Sender<u64>,
    pub(super) deliver: OnceLock<DeliveryHandler>,
    pub(super) keep: Mutex<RetentionLimits>,
    pub(super) counters: JournalCounters,
    pub(super) now_ms: Clock,
}

/// Since the host was started, but bytes: those are as they are now.
#[derive(Debug, Default)]
pub(super) struct JournalCounters {
    pub(super) events: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) bytes: AtomicU64,
    pub(super) picture_bytes: AtomicU64,
}

impl JournalCounters {
    pub(super) fn kept(&self, events: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

impl JournalInner {
    pub(super) fn new(now_ms: Clock) -> Self {
        Self {
            outboxes: Mutex::default(),
            wake: Condvar::new(),
            progress: watch::Sender::new(0),
            deliver: OnceLock::new(),
            keep: Mutex::default(),
            counters: JournalCounters::default(),
            now_ms,
        }
    }

    pub(super) fn outboxes(&self) -> MutexGuard<'_, Outboxes> {
        self.outboxes.lock()
    }

    /// What is kept, as the config has it.
    pub(super) fn keep(&self) -> RetentionLimits {
        *self.keep.lock()
    }

    pub(super) fn append(&self, session: &str, draft: EventDraft) -> bool {
        let taken = self.outboxes().append(session, draft);
        if taken {
            self.wake.notify_all();
        } else {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    pub(super) fn behind(&self, session: &str, note: DeliveryCallback) {
        // Not run under the lock: a note may append events.
        let at_once = self.outboxes().behind(session, note);
        if let Some((note, part)) = at_once {
            note();
            self.done(&part);
        }
    }

    pub(super) fn deliver(&self, session: &Arc<str>, entry: &StoredEvent) {
        if let Some(deliver) = self.deliver.get() {
            deliver(session, entry);
        }
    }

    /// A part was told of, or its note was run.
    pub(super) fn done(&self, part: &OutboxBatch) {
        self.outboxes().done(part);
        self.wake.notify_all();
        self.progress.send_modify(|count| *count += 1);
    }

    /// Waits until there is something to do, or this moment has come. What is to be kept, and
    /// whether nobody can ask any more.
    pub(super) fn take(&self, until: Instant) -> (Vec<OutboxBatch>, bool) {
        let mut outboxes = self.outboxes();
        loop {
            let idle = !outboxes.has_pending() && outboxes.flushing.is_empty() && !outboxes.closed;
            let rest = until.saturating_duration_since(Instant::now());
            if !idle || rest.is_zero() {
                return (outboxes.take(), outboxes.closed);
            }
            self.wake.wait_for(&mut outboxes, rest);
        }
    }

    /// Waits before a commit is tried again. True: nobody can ask any more.
    pub(super) fn sleep(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut outboxes = self.outboxes();
        loop {
            let rest = until.saturating_duration_since(Instant::now());
            if outboxes.closed || rest.is_zero() {
                return outboxes.closed;
            }
            self.wake.wait_for(&mut outboxes, rest);
        }
    }

    /// Notes whether commits fail. Whether they did before.
    pub(super) fn set_failing(&self, failing: bool) -> bool {
        let before = std::mem::replace(&mut self.outboxes().failing, failing);
        if before != failing {
            self.progress.send_modify(|count| *count += 1);
        }
        before
    }

    pub(super) fn set_cursors(&self, sink: &'static str, cursors: Vec<(Arc<str>, u64)>) {
        let cursors = cursors.into_iter().map(|(session, seq)| ((sink, session), seq));
        self.outboxes().cursors.extend(cursors);
    }

    /// These cursors are on the disk.
    pub(super) fn forget_cursors(&self, written: &BTreeMap<(&'static str, Arc<str>), u64>) {
        self.outboxes().cursors.retain(|cursor, seq| written.get(cursor) != Some(seq));
    }

    /// The last clone is gone, or the writer could not be started.
    pub(super) fn close(&self) {
        self.outboxes().closed = true;
        self.wake.notify_all();
    }

    /// Waits until the writer has written the cursors.
    pub(super) fn flush_cursors(&self, done: tokio::sync::oneshot::Sender<()>) {
        self.outboxes().flushing.push(done);
        self.wake.notify_all();
    }
}
