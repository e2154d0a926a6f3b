//! What waits for one subscriber: bounded in number and in bytes, whatever is published and however
//! slowly it reads.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::catch_up::{EventLane, PageRequest};
use super::wire::{EncodedMessage, ServerMessage, encode_event};
use crate::journal::events::{JournalPage, StoredEvent};

/// Detections of one session that wait for a subscriber: 10 s at 25 frames a second, so that a
/// client that keeps up on average loses nothing to a pause.
pub const MAX_DETECTIONS: usize = 256;

/// Changes of state and answers that wait for a subscriber: nothing else has them, so a client that
/// leaves more is closed.
pub const MAX_ANSWERS: usize = 1024;

/// Events of all sessions that wait for a subscriber. Those beyond it are read from the journal
/// once there is room again.
pub const MAX_EVENTS: usize = 1024;

/// Bytes of detections, of events, and of the rest, that wait for a subscriber: 16 KiB for each of
/// 1024 messages. Messages are shared between subscribers, so this much is reached only where all
/// of them are slow.
pub const MAX_BYTES: usize = 16 << 20;

/// A subscriber had too many messages waiting that nothing keeps, and is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_ANSWERS} answers and changes of state were waiting to be read")]
pub struct SlowSubscriber;

/// What a hub counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HubCounts {
    /// Subscribers now, whether to a session or to none yet.
    pub subscribers: u64,
    /// Detections that subscribers were too slow for, so far.
    pub missed: u64,
    /// How often a subscriber was too slow for a session's events and went on from the journal, so
    /// far.
    pub fell_behind: u64,
    /// Subscribers closed for being too slow for what nothing keeps, or for taking nothing, so far.
    pub closed: u64,
}

/// A subscriber's queue: written by the hub, read by the subscriber alone.
#[derive(Debug)]
pub(super) struct MessageQueue {
    waiting: Mutex<PendingMessages>,
    changed: Notify,
    counts: Arc<Mutex<HubCounts>>,
}

#[derive(Debug, Default)]
struct PendingMessages {
    /// Given to each message as it comes: what waits leaves by ticket.
    next_ticket: u64,
    /// Events, changes of state and answers.
    ordered: VecDeque<OrderedMessage>,
    events: usize,
    event_bytes: usize,
    answer_bytes: usize,
    detections: BTreeMap<u64, (Arc<str>, EncodedMessage)>,
    detection_bytes: usize,
    lanes: HashMap<Arc<str>, SessionLane>,
    /// Whether a page of the journal is being read.
    loading: bool,
    closed: bool,
}

#[derive(Debug)]
struct OrderedMessage {
    ticket: u64,
    /// The session, where it is an event.
    event_of: Option<Arc<str>>,
    told: EncodedMessage,
}

#[derive(Debug, Default)]
struct SessionLane {
    /// Of the detections that wait.
    tickets: VecDeque<u64>,
    /// Detections dropped since the last that was read.
    missed: u64,
    /// None: the subscriber has not subscribed, or no more.
    events: Option<EventLane>,
    /// Whether it is over when the subscriber has got what the journal has of it.
    ending: bool,
}

impl MessageQueue {
    /// An empty queue that counts what it loses.
    pub(super) fn new(counts: Arc<Mutex<HubCounts>>) -> Self {
        Self { waiting: Mutex::default(), changed: Notify::default(), counts }
    }

    /// Adds what nothing keeps: a change of state, an answer. False when the subscriber is closed,
    /// by this message or before.
    pub(super) fn push(&self, told: EncodedMessage) -> bool {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return false;
        }
        let answers = waiting.ordered.len().saturating_sub(waiting.events);
        if answers >= MAX_ANSWERS
            || waiting.answer_bytes.saturating_add(told.text.len()) > MAX_BYTES
        {
            *waiting = PendingMessages { closed: true, ..PendingMessages::default() };
            self.counts.lock().closed += 1;
        } else {
            waiting.answer_bytes += told.text.len();
            waiting.add(None, told);
        }
        let open = !waiting.closed;
        drop(waiting);
        self.changed.notify_one();
        open
    }

    /// Adds how the host is. One that waits unread is no longer so: the new one takes its place.
    pub(super) fn push_host(&self, told: EncodedMessage) {
        let mut waiting = self.waiting.lock();
        let unread = waiting.ordered.iter_mut().find(|message| message.told.kind == told.kind);
        let Some(unread) = unread else {
            drop(waiting);
            self.push(told);
            return;
        };
        let (before, now) = (unread.told.text.len(), told.text.len());
        unread.told = told;
        waiting.answer_bytes = waiting.answer_bytes.saturating_sub(before) + now;
    }

    /// Takes events of a session from now on; with `after`, those that follow this number out of
    /// the journal first.
    pub(super) fn open_lane(&self, session: &Arc<str>, after: Option<u64>) {
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            let lane = waiting.lanes.entry(Arc::clone(session)).or_default();
            lane.ending = false;
            match (&mut lane.events, after) {
                // Subscribed again, and nothing is asked for twice.
                (Some(_), None) => {}
                (events, after) => *events = Some(EventLane::new(after)),
            }
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Adds an event that has just been written to the journal, or notes that it will have to be
    /// read there.
    pub(super) fn push_event(&self, session: &Arc<str>, seq: u64, told: &EncodedMessage) {
        let mut waiting = self.waiting.lock();
        let full = waiting.events >= MAX_EVENTS
            || waiting.event_bytes.saturating_add(told.text.len()) > MAX_BYTES
                && waiting.events > 0;
        let Some(lane) = waiting.events_of(session) else { return };
        let was_live = lane.is_live();
        let queued = lane.publish(seq, full);
        let fell_behind = was_live && !lane.is_live();
        if queued {
            waiting.add_event(session, told.clone());
        }
        drop(waiting);
        if fell_behind {
            self.counts.lock().fell_behind += 1;
        }
        self.changed.notify_one();
    }

    /// Adds a frame's detections; the oldest go where there are too many.
    pub(super) fn push_detections(&self, session: &Arc<str>, told: EncodedMessage) {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return;
        }
        let ticket = waiting.ticket();
        waiting.detection_bytes += told.text.len();
        waiting.detections.insert(ticket, (Arc::clone(session), told));
        let lane = waiting.lanes.entry(Arc::clone(session)).or_default();
        lane.tickets.push_back(ticket);
        if lane.tickets.len() > MAX_DETECTIONS
            && let Some(&oldest) = lane.tickets.front()
        {
            waiting.skip(oldest);
            self.counts.lock().missed += 1;
        }
        // The message that has just come stays, whatever its size.
        while waiting.detection_bytes > MAX_BYTES && waiting.detections.len() > 1 {
            let Some((&oldest, _)) = waiting.detections.first_key_value() else { break };
            waiting.skip(oldest);
            self.counts.lock().missed += 1;
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// Forgets a session's detections, those missed included.
    pub(super) fn clear_detections(&self, session: &str) {
        let mut waiting = self.waiting.lock();
        waiting.clear_detections(session);
        waiting.remove_idle_lane(session);
    }

    /// Forgets all that waits of a session but the answers, and takes no more of its events.
    pub(super) fn leave(&self, session: &str) {
        let mut waiting = self.waiting.lock();
        waiting.clear_detections(session);
        let (mut events, mut bytes) = (0, 0);
        waiting.ordered.retain(|message| {
            let goes = message.event_of.as_deref() == Some(session);
            events += usize::from(goes);
            bytes += if goes { message.told.text.len() } else { 0 };
            !goes
        });
        waiting.events = waiting.events.saturating_sub(events);
        waiting.event_bytes = waiting.event_bytes.saturating_sub(bytes);
        waiting.lanes.remove(session);
    }

    /// Forgets a session that is over as soon as the subscriber has got all of it.
    pub(super) fn end(&self, session: &str) {
        let mut waiting = self.waiting.lock();
        if let Some(lane) = waiting.lanes.get_mut(session) {
            lane.ending = true;
        }
        waiting.remove_idle_lane(session);
    }

    /// Waits until something may be there to take or to load. One reader: a permit that was stored
    /// before wakes it at once.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The next message, if there is one.
    pub(super) fn try_next(&self) -> Option<Result<EncodedMessage, SlowSubscriber>> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Some(Err(SlowSubscriber));
        }
        let ordered = waiting.ordered.front().map(|message| message.ticket);
        let detections = waiting.detections.first_key_value().map(|(ticket, _)| *ticket);
        match detections {
            Some(ticket) if ordered.is_none_or(|ordered| ticket < ordered) => {
                waiting.next_detections(ticket).map(Ok)
            }
            _ => waiting.next_ordered().map(Ok),
        }
    }

    /// What is to be read from the journal now: events of a session that is behind and of which
    /// nothing waits. One at a time, and only while there is room for a page.
    pub(super) fn next_page_request(&self) -> Option<PageRequest> {
        let mut waiting = self.waiting.lock();
        if waiting.loading || waiting.events > MAX_EVENTS / 2 || waiting.event_bytes > MAX_BYTES / 2
        {
            return None;
        }
        let load =
            waiting.lanes.iter().find_map(|(session, lane)| lane.events.as_ref()?.load(session));
        waiting.loading = load.is_some();
        load
    }

    /// Takes a page of the journal in.
    pub(super) fn accept_page(&self, load: &PageRequest, page: &JournalPage) {
        let mut waiting = self.waiting.lock();
        waiting.loading = false;
        let lane = waiting.events_of(&load.session);
        // The subscription may have ended, or begun anew, meanwhile.
        if let Some((skip, gone)) = lane.and_then(|lane| lane.take(load, page)) {
            if let Some(after) = gone {
                let message = format!(
                    "the events after {after} are kept no more: it goes on with the oldest that \
                        are, from {}",
                    page.span.oldest
                );
                let error = ServerMessage::Error {
                    code: "events_gone",
                    message: &message,
                    session: Some(&load.session),
                    id: None,
                    cause: None,
                    after: Some(after),
                    oldest: Some(page.span.oldest),
                    newest: Some(page.span.newest),
                };
                let told = error.encode();
                waiting.answer_bytes += told.text.len();
                waiting.add(None, told);
            }
            for StoredEvent { seq, body, .. } in page.events.get(skip..).unwrap_or_default() {
                waiting.add_event(&load.session, encode_event(&load.session, *seq, body));
            }
            waiting.remove_idle_lane(&load.session);
        }
        drop(waiting);
        self.changed.notify_one();
    }
}

impl PendingMessages {
    fn ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    fn events_of(&mut self, session: &str) -> Option<&mut EventLane> {
        self.lanes.get_mut(session)?.events.as_mut()
    }

    fn add(&mut self, event_of: Option<Arc<str>>, told: EncodedMessage) {
        let ticket = self.ticket();
        self.ordered.push_back(OrderedMessage { ticket, event_of, told });
    }

    fn add_event(&mut self, session: &Arc<str>, told: EncodedMessage) {
        self.events += 1;
        self.event_bytes += told.text.len();
        self.add(Some(Arc::clone(session)), told);
    }

    fn next_ordered(&mut self) -> Option<EncodedMessage> {
        let OrderedMessage { event_of, told, .. } = self.ordered.pop_front()?;
        match event_of {
            None => self.answer_bytes = self.answer_bytes.saturating_sub(told.text.len()),
            Some(session) => {
                self.events = self.events.saturating_sub(1);
                self.event_bytes = self.event_bytes.saturating_sub(told.text.len());
                if let Some(lane) = self.events_of(&session) {
                    lane.read();
                }
                self.remove_idle_lane(&session);
            }
        }
        Some(told)
    }

    fn take(&mut self, ticket: u64) -> Option<(Arc<str>, EncodedMessage)> {
        let taken = self.detections.remove(&ticket)?;
        self.detection_bytes = self.detection_bytes.saturating_sub(taken.1.text.len());
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
    fn next_detections(&mut self, ticket: u64) -> Option<EncodedMessage> {
        let session = Arc::clone(&self.detections.get(&ticket)?.0);
        let lane = self.lanes.get_mut(&session)?;
        if lane.missed > 0 {
            let missed = std::mem::take(&mut lane.missed);
            return Some(ServerMessage::Lagged { session: &session, missed }.encode());
        }
        lane.tickets.pop_front();
        self.remove_idle_lane(&session);
        self.take(ticket).map(|(_, told)| told)
    }

    fn clear_detections(&mut self, session: &str) {
        let Some(lane) = self.lanes.get_mut(session) else { return };
        lane.missed = 0;
        for ticket in std::mem::take(&mut lane.tickets) {
            self.take(ticket);
        }
    }

    /// Drops a lane that has nothing to remember.
    fn remove_idle_lane(&mut self, session: &str) {
        let Some(lane) = self.lanes.get_mut(session) else { return };
        if lane.ending && lane.events.as_ref().is_some_and(EventLane::is_drained) {
            lane.events = None;
        }
        if lane.tickets.is_empty() && lane.missed == 0 && lane.events.is_none() {
            self.lanes.remove(session);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl MessageQueue {
        /// Messages and bytes that wait.
        pub(in crate::event) fn waiting(&self) -> (usize, usize) {
            let waiting = self.waiting.lock();
            (
                waiting.ordered.len() + waiting.detections.len(),
                waiting.event_bytes + waiting.answer_bytes + waiting.detection_bytes,
            )
        }
    }
}
