//! The hub: one topic for each session, and for each subscriber a queue that its topics write to.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ocelli_protocol::worker::FrameResult;
use tokio::sync::watch;

use super::convert::{self, BadResult};
use super::queue::{Losses, Queue, Slow};
use super::wire::{Detections, Event, ServerMessage, State};
use crate::journal::events::Events;

/// Where sessions publish and subscribers listen. Cheap to clone; all clones are one hub. Nothing here ever waits for a
/// subscriber.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    // Locked before a topic's own lock where both are held, and never while a message is serialised.
    topics: Mutex<HashMap<Arc<str>, Arc<Topic>>>,
    /// Subscribers made and subscribers gone, so far.
    subscribers: AtomicU64,
    gone: AtomicU64,
    losses: Arc<Losses>,
    events: Events,
}

/// How a hub stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Who listens now, whether to a session or to none yet.
    pub subscribers: u64,
    /// Detections that subscribers were too slow for, so far.
    pub missed: u64,
    /// Subscribers closed for being too slow for events, so far.
    pub closed: u64,
}

#[derive(Debug)]
struct Topic {
    session: Arc<str>,
    inner: Mutex<Inner>,
    /// Subscribers and holds.
    count: watch::Sender<usize>,
}

#[derive(Debug)]
struct Inner {
    /// The last event's number.
    seq: u64,
    state: State,
    members: HashMap<u64, Member>,
    holds: usize,
    /// Whether there is a session behind it; without, the topic goes with its last subscriber.
    lives: bool,
}

#[derive(Debug)]
struct Member {
    queue: Arc<Queue>,
    wants_detections: bool,
}

impl Hub {
    /// A hub without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// The journal.
    pub fn events(&self) -> &Events {
        &self.shared.events
    }

    /// Publishes all that came of a frame: its detections, then its events. `deployment` says which one it was. What
    /// cannot be told is an error, and nothing of the frame is published then.
    pub fn publish_result(
        &self,
        session: &str,
        deployment: &str,
        result: FrameResult,
    ) -> Result<(), BadResult> {
        let detections =
            if self.wants_detections(session) { convert::detections(&result, deployment)? } else { None };
        let events: Result<Vec<Event>, BadResult> =
            result.events.iter().map(|event| convert::event(event, &result, deployment)).collect();
        let events = events?;
        if let Some(detections) = detections {
            self.publish_detections(session, &detections);
        }
        for event in &events {
            self.publish_event(session, event);
        }
        Ok(())
    }

    /// Tells all who want to know what was found in a frame. Costs nothing where nobody listens.
    pub fn publish_detections(&self, session: &str, detections: &Detections) {
        let topic = self.live_topic(session);
        let inner = lock(&topic.inner);
        let mut listeners = inner.members.values().filter(|member| member.wants_detections).peekable();
        if listeners.peek().is_some() {
            let text = ServerMessage::Detections { session, detections }.to_text();
            listeners.for_each(|member| member.queue.push_detections(&topic.session, Arc::clone(&text)));
        }
    }

    /// Whether anyone wants the session's detections: if not, they need not be made.
    pub fn wants_detections(&self, session: &str) -> bool {
        let topic = self.topics().get(session).cloned();
        topic.is_some_and(|topic| lock(&topic.inner).members.values().any(|member| member.wants_detections))
    }

    /// Gives an event the session's next number, tells all subscribers, and returns the number.
    pub fn publish_event(&self, session: &str, event: &Event) -> u64 {
        let topic = self.live_topic(session);
        let mut inner = lock(&topic.inner);
        topic.number(&mut inner, event)
    }

    /// As [`publish_event`](Self::publish_event), of a session that may have ended meanwhile: then nothing is told, and
    /// there is no number.
    pub fn publish_event_if_alive(&self, session: &str, event: &Event) -> Option<u64> {
        let topic = self.topics().get(session).cloned()?;
        let mut inner = lock(&topic.inner);
        inner.lives.then(|| topic.number(&mut inner, event))
    }

    /// Notes what the session is doing and tells all subscribers. `reason` is for a person and holds no credential.
    pub fn publish_state(&self, session: &str, state: State, reason: Option<String>) {
        let topic = self.live_topic(session);
        let mut inner = lock(&topic.inner);
        inner.state = state;
        topic.tell(&mut inner, || {
            ServerMessage::Session { session, state, reason: reason.as_deref() }.to_text()
        });
    }

    /// Drops what the hub knows of a session that is gone for good. Its subscribers stay: they would hear a session
    /// that is made under the same name.
    pub fn forget(&self, session: &str) {
        let mut topics = self.topics();
        let Some(topic) = topics.get(session) else { return };
        let mut inner = lock(&topic.inner);
        inner.lives = false;
        let empty = inner.is_empty();
        drop(inner);
        if empty {
            topics.remove(session);
        }
    }

    /// A new subscriber that listens to nothing yet.
    pub fn subscriber(&self) -> Subscriber {
        Subscriber {
            hub: self.clone(),
            id: self.shared.subscribers.fetch_add(1, Ordering::Relaxed),
            queue: Arc::new(Queue::new(Arc::clone(&self.shared.losses))),
            sessions: Mutex::default(),
        }
    }

    /// How many listen, and what was lost so far.
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Shared { subscribers, gone, losses, .. } = &*self.shared;
        // Read first, so that nobody counts as gone who is not yet counted as made.
        let gone = load(gone);
        Counts {
            subscribers: load(subscribers).saturating_sub(gone),
            missed: load(&losses.missed),
            closed: load(&losses.closed),
        }
    }

    /// How many subscribe to a session, those included who only [`hold`](Self::hold) it.
    pub fn subscriber_count(&self, session: &str) -> usize {
        self.topics().get(session).map_or(0, |topic| *topic.count.borrow())
    }

    /// The number of an existing session's subscribers as it changes; an error from it means that the session was
    /// [forgotten](Self::forget).
    pub fn watch_subscribers(&self, session: &str) -> watch::Receiver<usize> {
        self.live_topic(session).count.subscribe()
    }

    /// Counts as a subscriber until it is dropped. Taken before a session is made for somebody, so that it does not end
    /// before they have subscribed.
    pub fn hold(&self, session: &str) -> Hold {
        let mut topics = self.topics();
        let topic = topic(&mut topics, session);
        let mut inner = lock(&topic.inner);
        inner.holds += 1;
        topic.count_again(&inner);
        drop(inner);
        Hold { hub: self.clone(), session: session.into() }
    }

    fn topics(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<Topic>>> {
        lock(&self.shared.topics)
    }

    /// The topic of a session that exists.
    fn live_topic(&self, session: &str) -> Arc<Topic> {
        let topic = topic(&mut self.topics(), session);
        lock(&topic.inner).lives = true;
        topic
    }

    /// Changes who listens to a session; the topic goes when nobody does and there is no session behind it.
    fn leave(&self, session: &str, change: impl FnOnce(&mut Inner)) {
        let mut topics = self.topics();
        let Some(topic) = topics.get(session) else { return };
        let mut inner = lock(&topic.inner);
        change(&mut inner);
        topic.count_again(&inner);
        let over = inner.is_empty() && !inner.lives;
        drop(inner);
        if over {
            topics.remove(session);
        }
    }
}

fn topic(topics: &mut HashMap<Arc<str>, Arc<Topic>>, session: &str) -> Arc<Topic> {
    if let Some(topic) = topics.get(session) {
        return Arc::clone(topic);
    }
    let session: Arc<str> = session.into();
    let inner = Inner { seq: 0, state: State::Starting, members: HashMap::new(), holds: 0, lives: false };
    let topic =
        Topic { session: Arc::clone(&session), inner: Mutex::new(inner), count: watch::Sender::new(0) };
    Arc::clone(topics.entry(session).or_insert(Arc::new(topic)))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these, and each step leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inner {
    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.holds == 0
    }
}

impl Topic {
    /// Gives an event the session's next number and tells every subscriber.
    fn number(&self, inner: &mut Inner, event: &Event) -> u64 {
        inner.seq += 1;
        let seq = inner.seq;
        self.tell(inner, || ServerMessage::Event { session: &self.session, seq, event }.to_text());
        seq
    }

    /// Gives every subscriber a message, and loses those that are too slow for it.
    fn tell(&self, inner: &mut Inner, message: impl FnOnce() -> Arc<str>) {
        if inner.members.is_empty() {
            return;
        }
        let text = message();
        inner.members.retain(|_, member| member.queue.push_event(Arc::clone(&text)));
        self.count_again(inner);
    }

    fn count_again(&self, inner: &Inner) {
        let count = inner.members.len() + inner.holds;
        self.count.send_if_modified(|before| std::mem::replace(before, count) != count);
    }
}

/// See [`Hub::hold`].
#[derive(Debug)]
pub struct Hold {
    hub: Hub,
    session: Arc<str>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.hub.leave(&self.session, |inner| inner.holds = inner.holds.saturating_sub(1));
    }
}

/// What a subscriber wants of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wants {
    /// Whether it gets detections, or events and changes of state alone.
    pub detections: bool,
    /// The number of the last event that it has: those that follow come first, out of the journal. None: from now on.
    pub after: Option<u64>,
}

/// What a subscriber gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The message's type.
    pub kind: &'static str,
    /// The event's number, where it is an event.
    pub seq: Option<u64>,
    /// The message as it goes over the wire: one JSON object.
    pub text: Arc<str>,
}

/// One who listens. Dropping it ends all its subscriptions.
#[derive(Debug)]
pub struct Subscriber {
    hub: Hub,
    id: u64,
    queue: Arc<Queue>,
    sessions: Mutex<HashSet<Arc<str>>>,
}

impl Subscriber {
    /// Listens to a session, whether it exists or not. `subscribed` with the session's present state comes first, then
    /// everything that is published from now on, without a gap between the two. Subscribing again changes
    /// `wants_detections` and is answered again.
    pub fn subscribe(&self, session: &str, wants: Wants) {
        let wants_detections = wants.detections;
        let mut topics = self.hub.topics();
        let topic = topic(&mut topics, session);
        let mut inner = lock(&topic.inner);
        let answer = ServerMessage::Subscribed { session, state: inner.state }.to_text();
        if !wants_detections {
            self.queue.clear_detections(session);
        }
        if self.queue.push_event(answer) {
            inner.members.insert(self.id, Member { queue: Arc::clone(&self.queue), wants_detections });
            lock(&self.sessions).insert(Arc::clone(&topic.session));
        }
        topic.count_again(&inner);
    }

    /// Listens to every session that there is and that will be. `after` has the last event that the subscriber has of some
    /// sessions; of the others it gets those from now on. `subscribed` comes for `*`, then for each session; a session that is made
    /// later comes with `subscribed` as well. It does not keep a session alive.
    pub fn subscribe_all(&self, detections: bool, after: &HashMap<String, u64>) {
        let _ = (detections, after);
    }

    /// Ends a subscription, if there is one; that of `*` with those that came by it. `unsubscribed` is the last message of the session.
    pub fn unsubscribe(&self, session: &str) {
        self.leave(session);
        lock(&self.sessions).remove(session);
        self.queue.clear_detections(session);
        self.send(&ServerMessage::Unsubscribed { session });
    }

    /// How many sessions it listens to.
    pub fn subscriptions(&self) -> usize {
        lock(&self.sessions).len()
    }

    /// Whether it listens to this session.
    pub fn is_subscribed(&self, session: &str) -> bool {
        lock(&self.sessions).contains(session)
    }

    /// Queues a message for this subscriber alone, behind those that wait already.
    pub fn send(&self, message: &ServerMessage<'_>) {
        self.queue.push_event(message.to_text());
    }

    /// The next message as it goes over the wire, once there is one. To be called by one task at a time; dropping the
    /// future loses nothing. An error means that the subscriber was too slow: it gets nothing more.
    pub async fn next(&self) -> Result<Told, Slow> {
        Ok(Told { kind: "", seq: None, text: self.queue.next().await? })
    }

    /// As [`next`](Self::next), without waiting.
    pub fn try_next(&self) -> Option<Result<Told, Slow>> {
        let next = self.queue.try_next()?;
        Some(next.map(|text| Told { kind: "", seq: None, text }))
    }

    /// Messages and bytes that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        self.queue.waiting()
    }

    fn leave(&self, session: &str) {
        self.hub.leave(session, |inner| {
            inner.members.remove(&self.id);
        });
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let sessions = std::mem::take(&mut *lock(&self.sessions));
        sessions.iter().for_each(|session| self.leave(session));
        self.hub.shared.gone.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
