//! A subscriber, and the pages of the journal that it reads to catch up.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::Hub;
use super::catch_up::PageRequest;
use super::queue::{MessageQueue, SlowSubscriber};
use super::wire::{EncodedMessage, ServerMessage};
use crate::config::EVERY_SESSION;
use crate::journal::events::{EventJournal, EventQuery};

/// Events of a page that a subscriber reads to catch up: a quarter of what may wait for it.
const PAGE: usize = 256;

/// Before a page is asked for again that could not be read: a disk that fails is not asked more
/// often for it.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What a subscriber wants of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SubscribeOptions {
    /// Whether it gets detections, or events and changes of state alone.
    pub detections: bool,
    /// The number of the last event that it has: those that follow come first, out of the journal.
    /// None: from now on.
    pub after: Option<u64>,
}

/// A subscriber. Dropping it ends all its subscriptions.
#[derive(Debug)]
pub struct Subscriber {
    hub: Hub,
    id: u64,
    queue: Arc<MessageQueue>,
    /// Those that it subscribes to by name.
    sessions: Mutex<HashSet<Arc<str>>>,
}

impl Subscriber {
    pub(super) fn new(hub: Hub, id: u64, queue: Arc<MessageQueue>) -> Self {
        Self { hub, id, queue, sessions: Mutex::default() }
    }

    /// Listens to a session, whether it exists or not. `subscribed` with the session's present
    /// state comes first, then everything that is published from now on, without a gap between the
    /// two; with `after`, the events that follow that number before those that are published.
    /// Subscribing again is answered again, changes whether detections come, and with `after`
    /// begins anew.
    pub fn subscribe(&self, session: &str, wants: SubscribeOptions) {
        if let Some(session) = self.hub.join(self.id, &self.queue, session, wants) {
            self.sessions.lock().insert(session);
        }
    }

    /// Listens to every session that there is and that will be. `after` has the last event that the
    /// subscriber has of some sessions; of the others it gets those from now on. `subscribed` comes
    /// for `*`, then for each session, and for each that is made later. It keeps no session alive.
    pub fn subscribe_all(&self, detections: bool, after: HashMap<String, u64>) {
        self.send(&ServerMessage::Subscribed {
            session: EVERY_SESSION,
            state: super::SessionState::Running,
        });
        self.hub.join_all(self.id, &self.queue, detections, after);
    }

    /// Listens to every session that there is and that will be, or to those of these names, but for
    /// their events, which the subscriber reads from the journal. `subscribed` comes for each. It
    /// keeps no session alive.
    pub fn follow_all(&self, detections: bool, only: Option<BTreeSet<String>>) {
        self.hub.follow_all(self.id, &self.queue, detections, only.map(Arc::new));
    }

    /// Ends a subscription, if there is one; that of `*` with those that came by it. `unsubscribed`
    /// is the last message of the session.
    pub fn unsubscribe(&self, session: &str) {
        if session == EVERY_SESSION {
            self.hub.leave_all(self.id).iter().for_each(|session| self.queue.leave(session));
        } else {
            self.hub.part(self.id, session);
            self.sessions.lock().remove(session);
            self.queue.leave(session);
        }
        self.send(&ServerMessage::Unsubscribed { session });
    }

    /// How many sessions it subscribes to by name.
    pub fn subscriptions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// Whether it subscribes to this session by name.
    pub fn is_subscribed(&self, session: &str) -> bool {
        self.sessions.lock().contains(session)
    }

    /// Queues a message for this subscriber alone, behind those that wait already.
    pub fn send(&self, message: &ServerMessage<'_>) {
        self.queue.push(message.encode());
    }

    /// The next message, once there is one. To be called by one task at a time; dropping the future
    /// loses nothing. An error means that the subscriber was too slow: it gets nothing more.
    pub async fn next(&self) -> Result<EncodedMessage, SlowSubscriber> {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            self.queue.changed().await;
        }
    }

    /// As [`next`](Self::next), without waiting. To be called within a runtime.
    pub fn try_next(&self) -> Option<Result<EncodedMessage, SlowSubscriber>> {
        let next = self.queue.try_next();
        if let Some(load) = self.queue.next_page_request() {
            tokio::spawn(load_page(self.hub.events().clone(), Arc::clone(&self.queue), load));
        }
        next
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let sessions = std::mem::take(&mut *self.sessions.lock());
        sessions.iter().for_each(|session| self.hub.part(self.id, session));
        self.hub.leave_all(self.id);
        self.hub.forget_subscriber(self.id);
    }
}

/// Reads a page for a queue, for as long as its subscriber is there.
async fn load_page(events: EventJournal, queue: Arc<MessageQueue>, load: PageRequest) {
    let query = EventQuery { after: load.after, limit: PAGE, ..EventQuery::default() };
    loop {
        match events.page(&load.session, query.clone()).await {
            Ok(page) => return queue.accept_page(&load, &page),
            Err(error) => {
                let session = &*load.session;
                tracing::error!(target: "ocelli::journal", session, "a subscriber waits for its \
                    events: {error:#}");
            }
        }
        // The queue's own subscriber has gone.
        if Arc::strong_count(&queue) == 1 {
            return;
        }
        tokio::time::sleep(READ_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Subscriber {
        /// Messages and bytes that wait.
        pub(in crate::event) fn waiting(&self) -> (usize, usize) {
            self.queue.waiting()
        }
    }
}
