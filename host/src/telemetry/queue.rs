//! What waits to be written. Logging puts an entry here and goes on: where there is no room, the
//! entry is counted and dropped.
//!
//! Pipelines and workers get a share of the room alone, each session a part of that share: a flood
//! of one costs its own lines, not those of its neighbours or of the host.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use parking_lot::{Condvar, Mutex};
use tracing::Level;

/// Bytes that an entry counts beyond its text, about what it takes up. It bounds the number of
/// short ones.
const OVERHEAD: usize = 256;

/// Sessions whose missing lines are counted one by one. What other sessions miss until the writer
/// comes by is counted together.
const MAX_MISSED: usize = 1000;

/// Lines that were dropped, by session; without one, those of the host.
pub(super) type MissedLines = BTreeMap<Option<Arc<str>>, u64>;

/// A written line, or several that belong together, and where it goes.
pub(super) struct LogEntry {
    pub(super) time: Timestamp,
    pub(super) level: Level,
    pub(super) session: Option<Arc<str>>,
    /// Whether a session's pipeline or worker says it, not the host.
    pub(super) guest: bool,
    /// With the line feed at its end.
    pub(super) line: Arc<str>,
}

impl LogEntry {
    fn cost(&self) -> usize {
        OVERHEAD + self.line.len()
    }

    /// The session whose share of the room this takes.
    fn guest(&self) -> Option<&Arc<str>> {
        self.session.as_ref().filter(|_| self.guest)
    }
}

/// A bounded queue of entries.
pub(super) struct LogQueue {
    room: usize,
    state: Mutex<LogQueueState>,
    arrived: Condvar,
    lost: Arc<AtomicU64>,
}

#[derive(Default)]
struct LogQueueState {
    entries: VecDeque<LogEntry>,
    cost: usize,
    /// Of those of pipelines and workers, by session.
    guests: HashMap<Arc<str>, usize>,
    missed: MissedLines,
    closed: bool,
}

impl LogQueue {
    /// A queue of at most `room` bytes. What it drops is added to `lost`.
    pub(super) fn new(room: usize, lost: Arc<AtomicU64>) -> Self {
        Self { room, state: Mutex::default(), arrived: Condvar::new(), lost }
    }

    /// Queues an entry, or drops and counts it. Never waits.
    pub(super) fn push(&self, entry: LogEntry) {
        let mut state = self.state.lock();
        if state.closed || !state.admits(&entry, self.room) {
            let key = Some(entry.session)
                .filter(|key| state.missed.len() < MAX_MISSED || state.missed.contains_key(key));
            *state.missed.entry(key.flatten()).or_default() += 1;
            drop(state);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        state.cost += entry.cost();
        if let Some(guest) = entry.guest() {
            *state.guests.entry(Arc::clone(guest)).or_default() += entry.cost();
        }
        state.entries.push_back(entry);
        drop(state);
        self.arrived.notify_one();
    }

    /// Waits for the next entry, and tells with it what has been dropped since the last. None where
    /// the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<(LogEntry, MissedLines)> {
        let mut state = self.state.lock();
        loop {
            if let Some(entry) = state.entries.pop_front() {
                state.release(&entry);
                return Some((entry, std::mem::take(&mut state.missed)));
            }
            if state.closed {
                return None;
            }
            self.arrived.wait(&mut state);
        }
    }

    /// Takes no more. What is in it is still handed out.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.arrived.notify_all();
    }
}

impl LogQueueState {
    /// Pipelines and workers may fill three quarters, one session of them an eighth.
    fn admits(&self, entry: &LogEntry, room: usize) -> bool {
        let Some(guest) = entry.guest() else { return self.cost + entry.cost() <= room };
        let own = self.guests.get(guest).copied().unwrap_or_default();
        self.cost + entry.cost() <= room / 4 * 3 && own + entry.cost() <= room / 8
    }

    fn release(&mut self, entry: &LogEntry) {
        self.cost -= entry.cost();
        let Some(guest) = entry.guest() else { return };
        if let Some(cost) = self.guests.get_mut(guest) {
            *cost -= entry.cost();
            if *cost == 0 {
                self.guests.remove(guest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1 << 20;

    fn entry(session: Option<&str>, guest: bool) -> LogEntry {
        LogEntry {
            time: Timestamp::UNIX_EPOCH,
            level: Level::INFO,
            session: session.map(Arc::from),
            guest,
            line: "line\n".into(),
        }
    }

    fn drain(queue: &LogQueue) -> (usize, MissedLines) {
        queue.close();
        let (mut taken, mut missed) = (0, MissedLines::new());
        while let Some((_, more)) = queue.pop() {
            taken += 1;
            missed.extend(more);
        }
        (taken, missed)
    }

    #[test]
    fn a_flood_that_nobody_takes_is_counted_and_blocks_nobody() {
        let queue = LogQueue::new(ROOM, Arc::default());
        for _ in 0..100_000 {
            queue.push(entry(None, false));
        }
        let lost = queue.lost.load(Ordering::Relaxed);
        let (taken, missed) = drain(&queue);
        assert_eq!(taken, ROOM / (OVERHEAD + 5));
        assert_eq!(taken as u64 + lost, 100_000);
        assert_eq!(missed, MissedLines::from([(None, lost)]));
        queue.push(entry(None, false));
        assert_eq!(queue.lost.load(Ordering::Relaxed), lost + 1, "a closed queue counts too");
    }

    #[test]
    fn floods_of_pipelines_leave_room_for_their_neighbours_and_the_host() {
        let queue = LogQueue::new(ROOM, Arc::default());
        for _ in 0..100_000 {
            queue.push(entry(Some("loud"), true));
        }
        queue.push(entry(Some("quiet"), true));
        for session in (0..20).map(|index| format!("loud {index}")) {
            for _ in 0..10_000 {
                queue.push(entry(Some(&session), true));
            }
        }
        queue.push(entry(Some("loud"), false));
        queue.push(entry(None, false));
        let (_, missed) = drain(&queue);
        assert_eq!(missed.get(&None), None);
        assert_eq!(missed.get(&Some("quiet".into())), None);
        assert!(missed[&Some("loud".into())] > 90_000, "{missed:?}");
        let state = queue.state.lock();
        assert_eq!((state.cost, state.guests.len()), (0, 0));
    }

    #[test]
    fn counting_what_is_missed_is_bounded_too() {
        let queue = LogQueue::new(0, Arc::default());
        for index in 0..2 * MAX_MISSED {
            queue.push(entry(Some(&index.to_string()), true));
        }
        let missed = std::mem::take(&mut queue.state.lock().missed);
        assert!(missed.len() <= MAX_MISSED + 1);
        assert_eq!(missed.values().sum::<u64>(), 2 * MAX_MISSED as u64);
    }
}
