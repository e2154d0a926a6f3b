//! The hub: one topic for each session, and for each subscriber a queue that its topics write to.

mod relay;

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::SystemTime;

use ocelli_protocol::worker::FrameResult;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

pub use relay::Relay;

use super::convert::{self, InvalidResult};
use super::host::HostStatus;
use super::queue::{HubCounts, MessageQueue};
use super::subscriber::Subscriber;
use super::wire::{self, Detections, EncodedMessage, Event, ServerMessage, SessionState};
use crate::journal::events::{EventDraft, EventJournal, StoredEvent};

/// Where sessions publish and subscribers listen. Cheap to clone; all clones are one hub. Nothing
/// here ever waits for a subscriber.
#[derive(Debug, Clone)]
pub struct Hub {
    shared: Arc<HubInner>,
}

#[derive(Debug)]
struct HubInner {
    events: EventJournal,
    /// Carries what is live between hosts of a site, where this one belongs to one.
    relay: OnceLock<Arc<dyn Relay>>,
    // Locked before a topic's own lock where both are held, and never while a message is
    // serialised.
    topics: Mutex<Topics>,
    next_subscriber: AtomicU64,
    host: Mutex<HostState>,
    // A leaf: locked under any of the others.
    counts: Arc<Mutex<HubCounts>>,
}

/// How the host is, and who is told.
#[derive(Debug)]
struct HostState {
    status: HostStatus,
    subscribers: HashMap<u64, Weak<MessageQueue>>,
}

#[derive(Debug, Default)]
struct Topics {
    sessions: HashMap<Arc<str>, Arc<Topic>>,
    /// Subscriptions to every session, by subscriber.
    wildcards: HashMap<u64, Wildcard>,
}

/// A subscription to every session.
#[derive(Debug)]
struct Wildcard {
    /// As it joins each of them.
    member: TopicSubscriber,
    /// The sessions that it is about; none: every one.
    only: Option<Arc<BTreeSet<String>>>,
    /// The last event that it has, of sessions that have not been there yet.
    after: HashMap<String, u64>,
}

#[derive(Debug)]
struct Topic {
    session: Arc<str>,
    inner: Mutex<TopicState>,
    /// Subscribers to this very session, and holds.
    count: watch::Sender<usize>,
}

#[derive(Debug)]
struct TopicState {
    state: SessionState,
    members: HashMap<u64, TopicSubscriber>,
    holds: usize,
    /// Whether there is a session behind it; without, the topic goes with its last subscriber.
    exists: bool,
}

#[derive(Debug, Clone)]
struct TopicSubscriber {
    queue: Arc<MessageQueue>,
    wants_detections: bool,
    /// Whether the hub gives it events: one that reads them from the journal has them already.
    wants_events: bool,
    /// Whether it came by listening to every session: such a one keeps no session alive.
    by_wildcard: bool,
}

impl Hub {
    /// A hub without topics, whose events go to a journal that has no other hub.
    pub fn new(events: EventJournal) -> Self {
        let shared = Arc::new(HubInner {
            events,
            relay: OnceLock::new(),
            topics: Mutex::default(),
            next_subscriber: AtomicU64::new(0),
            host: Mutex::new(HostState {
                status: HostStatus::new(SystemTime::now()),
                subscribers: HashMap::new(),
            }),
            counts: Arc::default(),
        });
        let hub = Arc::downgrade(&shared);
        shared
            .events
            .set_delivery_handler(Box::new(move |session, entry| deliver(&hub, session, entry)));
        Self { shared }
    }

    pub fn events(&self) -> &EventJournal {
        &self.shared.events
    }

    /// Publishes all that came of a frame: its detections at once, its events when they are on the
    /// disk. `deployment` says which one it was. What cannot be told is an error, and nothing of
    /// the frame is published then. Waits where the session has more events than the disk takes.
    /// `clip` is the number of the clip that its events have.
    pub async fn publish_result(
        &self,
        session: &str,
        deployment: &str,
        mut result: FrameResult,
        clip: Option<u64>,
    ) -> Result<(), InvalidResult> {
        let detections = if self.wants_detections(session) {
            convert::detections(&result, deployment)?
        } else {
            None
        };
        let events: Result<Vec<Event>, InvalidResult> =
            result.events.iter().map(|event| convert::event(event, &result, deployment)).collect();
        let events = events?;
        if let Some(detections) = detections {
            self.publish_detections(session, &detections);
        }
        if !events.is_empty() {
            // Where there is no room the journal counts what it cannot take.
            self.shared.events.wait_for_capacity(session).await;
        }
        for (event, told) in events.into_iter().zip(&mut result.events) {
            let pictures = std::mem::take(&mut told.attachments);
            self.append(session, convert::draft(event, pictures, clip));
        }
        Ok(())
    }

    /// Publishes what was found in a frame. Costs nothing where no subscriber wants it and no other
    /// host gets it.
    pub fn publish_detections(&self, session: &str, detections: &Detections) {
        if !self.may_speak(session) {
            return;
        }
        let topic = self.live_topic(session);
        let inner = topic.inner.lock();
        let relay = self.shared.relay.get();
        let mut listeners =
            inner.members.values().filter(|member| member.wants_detections).peekable();
        if relay.is_some() || listeners.peek().is_some() {
            let told = ServerMessage::Detections { session, detections }.encode();
            listeners.for_each(|member| member.queue.push_detections(&topic.session, told.clone()));
            drop(inner);
            if let Some(relay) = relay {
                relay.tell_detections(session, &told.text);
            }
        }
    }

    /// Whether a subscriber wants the session's detections, or other hosts get them: if not, they need
    /// not be made.
    pub fn wants_detections(&self, session: &str) -> bool {
        if self.shared.relay.get().is_some() {
            return self.may_speak(session);
        }
        let topic = self.topics().sessions.get(session).cloned();
        topic.is_some_and(|topic| {
            topic.inner.lock().members.values().any(|member| member.wants_detections)
        })
    }

    /// Publishes an event of the host in the session's numbering, once it is on the disk.
    pub fn publish_event(&self, session: &str, event: Event) {
        self.live_topic(session);
        self.append(session, convert::draft(event, Vec::new(), None));
    }

    /// As [`publish_event`](Self::publish_event), of a session that may have ended meanwhile: then
    /// nothing is told, and the answer is false.
    pub fn publish_event_if_exists(&self, session: &str, event: Event) -> bool {
        let topic = self.topics().sessions.get(session).cloned();
        let lives = topic.is_some_and(|topic| topic.inner.lock().exists);
        if lives {
            self.append(session, convert::draft(event, Vec::new(), None));
        }
        lives
    }

    /// As [`publish_event`](Self::publish_event), of a session that may have ended or never was:
    /// none is made by it.
    pub fn record_event(&self, session: &str, event: Event) {
        self.append(session, convert::draft(event, Vec::new(), None));
    }

    /// Notes what the session is doing and tells all subscribers, behind the events that were
    /// published before, or at once while the disk takes no events. `reason` is for a person and holds no credential.
    pub fn publish_state(&self, session: &str, state: SessionState, reason: Option<String>) {
        if !self.may_speak(session) {
            return;
        }
        let topic = self.live_topic(session);
        let hub = self.clone();
        let tell = move || {
            let mut inner = topic.inner.lock();
            inner.state = state;
            topic.tell(&mut inner, || {
                let session = &topic.session;
                ServerMessage::Session { session, state, reason: reason.as_deref() }.encode()
            });
            drop(inner);
            if let Some(relay) = hub.shared.relay.get() {
                relay.tell_state(&topic.session, state, reason.as_deref());
            }
        };
        self.shared.events.after_pending_while_kept(session, Box::new(tell));
    }

    /// Drops what the hub knows of a session that is gone for good. Its subscribers stay: they
    /// would hear a session that is made under the same name. Those that came by listening to every
    /// session go when they have heard the last of it.
    pub fn remove_session(&self, session: &str) {
        let mut topics = self.topics();
        let Some(topic) = topics.sessions.get(session).cloned() else { return };
        topic.inner.lock().exists = false;
        topics.remove_idle(&topic);
        drop(topics);
        let hub = self.clone();
        let part = move || {
            let mut topics = hub.topics();
            let mut inner = topic.inner.lock();
            // Another session may have been made under the name.
            if !inner.exists {
                for member in inner.members.extract_if(|_, member| member.by_wildcard) {
                    member.1.queue.end(&topic.session);
                }
            }
            drop(inner);
            topics.remove_idle(&topic);
        };
        self.shared.events.after_pending(session, Box::new(part));
    }

    /// A new subscriber that listens to nothing yet. It is told how the host is where that is not
    /// well.
    pub fn subscriber(&self) -> Subscriber {
        let id = self.shared.next_subscriber.fetch_add(1, Ordering::Relaxed);
        self.shared.counts.lock().subscribers += 1;
        let queue = Arc::new(MessageQueue::new(Arc::clone(&self.shared.counts)));
        let mut host = self.shared.host.lock();
        if !host.status.is_well() {
            queue.push_host(ServerMessage::Host { host: &host.status }.encode());
        }
        host.subscribers.insert(id, Arc::downgrade(&queue));
        drop(host);
        Subscriber::new(self.clone(), id, queue)
    }

    /// How the host is.
    pub fn host(&self) -> HostStatus {
        self.shared.host.lock().status.clone()
    }

    /// Changes how the host is, and tells every subscriber of it where it differs. Needs no disk.
    pub fn update_host(&self, change: impl FnOnce(&mut HostStatus)) {
        let mut host = self.shared.host.lock();
        let mut status = host.status.clone();
        change(&mut status);
        if status == host.status {
            return;
        }
        host.status = status;
        let told = ServerMessage::Host { host: &host.status }.encode();
        for queue in host.subscribers.values().filter_map(Weak::upgrade) {
            queue.push_host(told.clone());
        }
    }

    /// A subscriber is closed since it took nothing of what was sent.
    pub fn note_untaken(&self) {
        self.shared.counts.lock().closed += 1;
    }

    /// How many listen, and what was lost so far.
    pub fn counts(&self) -> HubCounts {
        *self.shared.counts.lock()
    }

    /// What a session is doing, as far as it has been told here.
    pub fn state(&self, session: &str) -> Option<SessionState> {
        let topic = self.topics().sessions.get(session).cloned()?;
        let inner = topic.inner.lock();
        inner.exists.then_some(inner.state)
    }

    /// How many subscribe to a session, those included who only [`hold`](Self::hold) it, and those
    /// not who listen to every session.
    pub fn subscriber_count(&self, session: &str) -> usize {
        self.topics().sessions.get(session).map_or(0, |topic| *topic.count.borrow())
    }

    /// The number of an existing session's subscribers as it changes; an error from it means that
    /// the session was [forgotten](Self::remove_session).
    pub fn watch_subscribers(&self, session: &str) -> watch::Receiver<usize> {
        self.live_topic(session).count.subscribe()
    }

    /// Counts as a subscriber until it is dropped. Taken before a session is made for a client, so
    /// that it does not end before the client has subscribed.
    pub fn hold(&self, session: &str) -> SubscriberHold {
        let mut topics = self.topics();
        let topic = topics.topic(session);
        let mut inner = topic.inner.lock();
        inner.holds += 1;
        topic.count_again(&inner);
        drop(inner);
        SubscriberHold { hub: self.clone(), session: session.into() }
    }

    /// Makes a subscriber a member, and answers it.
    pub(super) fn join(
        &self,
        id: u64,
        queue: &Arc<MessageQueue>,
        session: &str,
        wants: super::SubscribeOptions,
    ) -> Option<Arc<str>> {
        let mut topics = self.topics();
        let topic = topics.topic(session);
        let mut inner = topic.inner.lock();
        if !wants.detections {
            queue.clear_detections(session);
        }
        let (queue, wants_detections) = (Arc::clone(queue), wants.detections);
        let member =
            TopicSubscriber { queue, wants_detections, wants_events: true, by_wildcard: false };
        let joined = topic.join(&mut inner, id, member, wants.after);
        drop(inner);
        topics.remove_idle(&topic);
        joined.then(|| Arc::clone(&topic.session))
    }

    /// Makes a subscriber a member of every session.
    pub(super) fn join_all(
        &self,
        id: u64,
        queue: &Arc<MessageQueue>,
        wants_detections: bool,
        after: HashMap<String, u64>,
    ) {
        let member = TopicSubscriber::of_all(queue, wants_detections, true);
        self.join_each(id, Wildcard { member, only: None, after });
    }

    /// Makes a subscriber a member of every session, or of those that it names, but for their
    /// events.
    pub(super) fn follow_all(
        &self,
        id: u64,
        queue: &Arc<MessageQueue>,
        wants_detections: bool,
        only: Option<Arc<BTreeSet<String>>>,
    ) {
        let member = TopicSubscriber::of_all(queue, wants_detections, false);
        self.join_each(id, Wildcard { member, only, after: HashMap::new() });
    }

    fn join_each(&self, id: u64, mut wildcard: Wildcard) {
        let mut topics = self.topics();
        let Topics { sessions, wildcards } = &mut *topics;
        let mut there: Vec<&Arc<Topic>> = sessions.values().collect();
        there.sort_unstable_by(|one, other| one.session.cmp(&other.session));
        for topic in there {
            let mut inner = topic.inner.lock();
            if inner.exists {
                wildcard.join(id, topic, &mut inner);
            }
        }
        wildcards.insert(id, wildcard);
    }

    /// Ends that a subscriber listens to every session; the sessions that it came to by that.
    pub(super) fn leave_all(&self, id: u64) -> Vec<Arc<str>> {
        let mut topics = self.topics();
        if topics.wildcards.remove(&id).is_none() {
            return Vec::new();
        }
        let mut left = Vec::new();
        for topic in topics.sessions.values() {
            let mut inner = topic.inner.lock();
            if inner.members.get(&id).is_some_and(|member| member.by_wildcard) {
                inner.members.remove(&id);
                left.push(Arc::clone(&topic.session));
            }
        }
        topics.sessions.retain(|_, topic| !topic.is_idle());
        left
    }

    /// Ends a subscription to one session.
    pub(super) fn part(&self, id: u64, session: &str) {
        self.leave(session, |inner| {
            inner.members.remove(&id);
        });
    }

    /// A subscriber is gone.
    pub(super) fn forget_subscriber(&self, id: u64) {
        self.shared.host.lock().subscribers.remove(&id);
        self.shared.counts.lock().subscribers -= 1;
    }

    fn append(&self, session: &str, draft: EventDraft) {
        // Where there is no room the journal counts it, and says so in its place.
        let _ = self.shared.events.append(session, draft);
    }

    fn topics(&self) -> MutexGuard<'_, Topics> {
        self.shared.topics.lock()
    }

    /// The topic of a session that exists.
    fn live_topic(&self, session: &str) -> Arc<Topic> {
        let mut topics = self.topics();
        let topic = topics.topic(session);
        let mut inner = topic.inner.lock();
        if !std::mem::replace(&mut inner.exists, true) {
            for (&id, wildcard) in &mut topics.wildcards {
                wildcard.join(id, &topic, &mut inner);
            }
        }
        drop(inner);
        topic
    }

    /// Changes the subscribers of a session; the topic goes when none is left and there is no
    /// session behind it.
    fn leave(&self, session: &str, change: impl FnOnce(&mut TopicState)) {
        let mut topics = self.topics();
        let Some(topic) = topics.sessions.get(session).cloned() else { return };
        let mut inner = topic.inner.lock();
        change(&mut inner);
        topic.count_again(&inner);
        drop(inner);
        topics.remove_idle(&topic);
    }
}

/// Tells the members of a session of an event that the journal has written.
fn deliver(hub: &Weak<HubInner>, session: &Arc<str>, entry: &StoredEvent) {
    let Some(shared) = hub.upgrade() else { return };
    let topic = shared.topics.lock().sessions.get(session).cloned();
    let Some(topic) = topic else { return };
    let inner = topic.inner.lock();
    if !inner.members.is_empty() {
        let told = wire::encode_event(session, entry.seq, &entry.body);
        inner
            .members
            .values()
            .for_each(|member| member.queue.push_event(&topic.session, entry.seq, &told));
    }
}

impl Topics {
    /// The topic of a session that may not exist.
    fn topic(&mut self, session: &str) -> Arc<Topic> {
        if let Some(topic) = self.sessions.get(session) {
            return Arc::clone(topic);
        }
        let session: Arc<str> = session.into();
        let inner = TopicState {
            state: SessionState::Starting,
            members: HashMap::new(),
            holds: 0,
            exists: false,
        };
        let topic = Topic {
            session: Arc::clone(&session),
            inner: Mutex::new(inner),
            count: watch::Sender::new(0),
        };
        Arc::clone(self.sessions.entry(session).or_insert(Arc::new(topic)))
    }

    /// Drops a topic that is idle, unless another one has its place.
    fn remove_idle(&mut self, topic: &Arc<Topic>) {
        let in_place =
            self.sessions.get(&topic.session).is_some_and(|other| Arc::ptr_eq(other, topic));
        if in_place && topic.is_idle() {
            self.sessions.remove(&topic.session);
        }
    }
}

impl TopicSubscriber {
    /// One that listens to every session.
    fn of_all(queue: &Arc<MessageQueue>, wants_detections: bool, wants_events: bool) -> Self {
        let queue = Arc::clone(queue);
        Self { queue, wants_detections, wants_events, by_wildcard: true }
    }
}

impl Wildcard {
    /// Comes to a session, unless it subscribes to that by name already.
    fn join(&mut self, id: u64, topic: &Topic, inner: &mut TopicState) {
        if inner.members.get(&id).is_some_and(|member| !member.by_wildcard)
            || self.only.as_ref().is_some_and(|only| !only.contains(&*topic.session))
        {
            return;
        }
        topic.join(inner, id, self.member.clone(), self.after.remove(&*topic.session));
    }
}

impl Topic {
    /// Whether it has no subscribers and no session behind it.
    fn is_idle(&self) -> bool {
        let inner = self.inner.lock();
        !inner.exists && inner.members.is_empty() && inner.holds == 0
    }

    /// Takes a member in, and answers it. False where its subscriber is closed.
    fn join(
        &self,
        inner: &mut TopicState,
        id: u64,
        member: TopicSubscriber,
        after: Option<u64>,
    ) -> bool {
        let answer =
            ServerMessage::Subscribed { session: &self.session, state: inner.state }.encode();
        let open = member.queue.push(answer);
        if open {
            if member.wants_events {
                member.queue.open_lane(&self.session, after);
            }
            inner.members.insert(id, member);
        }
        self.count_again(inner);
        open
    }

    /// Gives every subscriber a message, and loses those that are too slow for it.
    fn tell(&self, inner: &mut TopicState, message: impl FnOnce() -> EncodedMessage) {
        if inner.members.is_empty() {
            return;
        }
        let told = message();
        inner.members.retain(|_, member| member.queue.push(told.clone()));
        self.count_again(inner);
    }

    fn count_again(&self, inner: &TopicState) {
        let count =
            inner.members.values().filter(|member| !member.by_wildcard).count() + inner.holds;
        self.count.send_if_modified(|before| std::mem::replace(before, count) != count);
    }
}

/// See [`Hub::hold`].
#[derive(Debug)]
pub struct SubscriberHold {
    hub: Hub,
    session: Arc<str>,
}

impl Drop for SubscriberHold {
    fn drop(&mut self) {
        self.hub.leave(&self.session, |inner| inner.holds = inner.holds.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;
