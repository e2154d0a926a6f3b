//! Sessions of other hosts in the hub, and this host's sessions for those.

use std::sync::Arc;

use super::{EncodedMessage, Hub, SessionState, TopicState, wire};

/// Carries what is live between the hubs of a site.
pub trait Relay: Send + Sync {
    /// Whether this host speaks for the session at this moment. What it says of another one is
    /// dropped, here and everywhere.
    fn may_speak(&self, session: &str) -> bool;

    /// Tells other hosts what was found in a frame. Never waits.
    fn tell_detections(&self, session: &str, message: &Arc<str>);

    /// Tells other hosts what the session is doing. Never waits.
    fn tell_state(&self, session: &str, state: SessionState, reason: Option<&str>);
}

impl std::fmt::Debug for dyn Relay {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Relay")
    }
}

impl Hub {
    /// What is live goes to other hosts too from now on. To be called once, before the first
    /// session.
    pub fn set_relay(&self, relay: Arc<dyn Relay>) {
        if self.shared.relay.set(relay).is_err() {
            tracing::error!(target: "ocelli::event", "the hub has a relay already");
        }
    }

    /// Whether what this host says of a session is to be told.
    pub(super) fn may_speak(&self, session: &str) -> bool {
        self.shared.relay.get().is_none_or(|relay| relay.may_speak(session))
    }

    /// What another host says that a session is doing.
    pub fn receive_state(&self, session: &str, state: SessionState, reason: Option<&str>) {
        let topic = self.live_topic(session);
        let mut inner = topic.inner.lock();
        inner.state = state;
        topic.tell(&mut inner, || {
            let session = &topic.session;
            wire::ServerMessage::Session { session, state, reason }.encode()
        });
    }

    /// What another host's pipeline has found in a frame of a session: the message as its hub tells
    /// it.
    pub fn receive_detections(&self, session: &str, message: Arc<str>) {
        let topic = self.topics().sessions.get(session).cloned();
        let Some(topic) = topic else { return };
        let told = EncodedMessage { kind: wire::DETECTIONS, seq: None, text: message };
        let inner = topic.inner.lock();
        let listeners = inner.members.values().filter(|member| member.wants_detections);
        listeners.for_each(|member| member.queue.push_detections(&topic.session, told.clone()));
    }

    /// The sessions whose detections somebody here wants.
    pub fn wanted_detections(&self) -> Vec<Arc<str>> {
        let wants =
            |inner: &TopicState| inner.members.values().any(|member| member.wants_detections);
        let topics: Vec<_> = self.topics().sessions.values().cloned().collect();
        let wanted = topics.into_iter().filter(|topic| wants(&topic.inner.lock()));
        wanted.map(|topic| Arc::clone(&topic.session)).collect()
    }
}
