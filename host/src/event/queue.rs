//! What waits for one subscriber: bounded in number and in bytes, whatever is published and however slowly it reads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::wire::ServerMessage;

/// Detections of one session that wait for a subscriber: 10 s at 25 frames a second, so that a client that keeps up
/// on average loses nothing to a pause.
pub const MAX_DETECTIONS: usize = 256;

/// Events, changes of state and answers that wait for a subscriber: more than a camera's busiest minute.
pub const MAX_EVENTS: usize = 1024;

/// Bytes of detections, and of the rest, that wait for a subscriber: 16 KiB for each of a session's 1024 messages.
/// Messages are shared between subscribers, so this much is reached only where all of them are slow.
pub const MAX_BYTES: usize = 16 << 20;

/// A subscriber had too many events waiting and is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_EVENTS} events were waiting to be read")]
pub struct Slow;

/// What all queues of a hub have lost so far.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// Detections that a subscriber was too slow for.
    pub(super) missed: AtomicU64,
    /// Subscribers closed because they were too slow for events.
    pub(super) closed: AtomicU64,
}

/// A subscriber's queue: written by the hub, read by the subscriber alone.
#[derive(Debug)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    changed: Notify,
    losses: Arc<Losses>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Given to each message as it comes: what waits leaves by ticket.
    next_ticket: u64,
    events: VecDeque<(u64, Arc<str>)>,
    event_bytes: usize,
    detections: BTreeMap<u64, (Arc<str>, Arc<str>)>,
    detection_bytes: usize,
    lanes: HashMap<Arc<str>, Lane>,
    closed: bool,
}

/// One session's detections.
#[derive(Debug, Default)]
struct Lane {
    tickets: VecDeque<u64>,
    /// Dropped since the last that was read.
    missed: u64,
}

impl Queue {
    /// An empty queue that counts what it loses.
    pub(super) fn new(losses: Arc<Losses>) -> Self {
        Self { waiting: Mutex::default(), changed: Notify::default(), losses }
    }

    /// Adds something that must not be skipped. False when the subscriber is closed, by this message or before.
    pub(super) fn push_event(&self, text: Arc<str>) -> bool {
        let mut waiting = self.lock();
        if waiting.closed {
            return false;
        }
        if waiting.events.len() >= MAX_EVENTS || waiting.event_bytes.saturating_add(text.len()) > MAX_BYTES {
            *waiting = Waiting { closed: true, ..Waiting::default() };
            self.losses.closed.fetch_add(1, Ordering::Relaxed);
        } else {
            let ticket = waiting.ticket();
            waiting.event_bytes += text.len();
            waiting.events.push_back((ticket, text));
        }
        let open = !waiting.closed;
        drop(waiting);
        self.changed.notify_one();
        open
    }

    /// Adds a frame's detections; the oldest go where there are too many.
    pub(super) fn push_detections(&self, session: &Arc<str>, text: Arc<str>) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        let ticket = waiting.ticket();
        waiting.detection_bytes += text.len();
        waiting.detections.insert(ticket, (Arc::clone(session), text));
        let lane = waiting.lanes.entry(Arc::clone(session)).or_default();
        lane.tickets.push_back(ticket);
        if lane.tickets.len() > MAX_DETECTIONS
            && let Some(&oldest) = lane.tickets.front()
        {
            waiting.skip(oldest);
            self.losses.missed.fetch_add(1, Ordering::Relaxed);
        }
        // The message that has just come stays, whatever its size.
        while waiting.detection_bytes > MAX_BYTES && waiting.detections.len() > 1 {
            let Some((&oldest, _)) = waiting.detections.first_key_value() else { break };
            waiting.skip(oldest);
            self.losses.missed.fetch_add(1, Ordering::Relaxed);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Forgets a session's detections, those missed included.
    pub(super) fn clear_detections(&self, session: &str) {
        let mut waiting = self.lock();
        let lane = waiting.lanes.remove(session).unwrap_or_default();
        for ticket in lane.tickets {
            waiting.take(ticket);
        }
    }

    /// The next message, once there is one. Dropping the future loses nothing.
    pub(super) async fn next(&self) -> Result<Arc<str>, Slow> {
        loop {
            // One reader: a permit that `notify_one` stored before this wakes the wait at once.
            if let Some(next) = self.try_next() {
                return next;
            }
            self.changed.notified().await;
        }
    }

    /// The next message, if there is one.
    pub(super) fn try_next(&self) -> Option<Result<Arc<str>, Slow>> {
        let mut waiting = self.lock();
        if waiting.closed {
            return Some(Err(Slow));
        }
        let event = waiting.events.front().map(|(ticket, _)| *ticket);
        let detections = waiting.detections.first_key_value().map(|(ticket, _)| *ticket);
        match (event, detections) {
            (None, None) => None,
            (Some(event), found) if found.is_none_or(|found| event < found) => {
                let (_, text) = waiting.events.pop_front()?;
                waiting.event_bytes = waiting.event_bytes.saturating_sub(text.len());
                Some(Ok(text))
            }
            (_, Some(ticket)) => waiting.next_detections(ticket).map(Ok),
            (Some(_), None) => None,
        }
    }

    /// Messages and bytes that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        let waiting = self.lock();
        (waiting.events.len() + waiting.detections.len(), waiting.event_bytes + waiting.detection_bytes)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics while it holds the lock, and each step leaves the queue whole.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn take(&mut self, ticket: u64) -> Option<(Arc<str>, Arc<str>)> {
        let taken = self.detections.remove(&ticket)?;
        self.detection_bytes = self.detection_bytes.saturating_sub(taken.1.len());
        Some(taken)
    }

    /// Drops a lane's oldest detections and counts them.
    fn skip(&mut self, ticket: u64) {
        if let Some((session, _)) = self.take(ticket)
            && let Some(lane) = self.lanes.get_mut(&session)
        {
            lane.tickets.pop_front();
            lane.missed += 1;
        }
    }

    /// The detections with this ticket, or what was missed before them.
    fn next_detections(&mut self, ticket: u64) -> Option<Arc<str>> {
        let session = Arc::clone(&self.detections.get(&ticket)?.0);
        let lane = self.lanes.get_mut(&session)?;
        if lane.missed > 0 {
            let missed = std::mem::take(&mut lane.missed);
            return Some(ServerMessage::Lagged { session: &session, missed }.to_text());
        }
        lane.tickets.pop_front();
        if lane.tickets.is_empty() {
            self.lanes.remove(&session);
        }
        self.take(ticket).map(|(_, text)| text)
    }
}
