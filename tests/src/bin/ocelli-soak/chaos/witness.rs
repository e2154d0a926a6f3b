//! A subscriber that follows the events of all sessions through every loss of its connection, by
//! the project's own client.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ocelli_client::{Client, Message, Subscribe};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// What it has seen so far.
#[derive(Default)]
struct Seen {
    /// The last event of each session.
    last: BTreeMap<String, u64>,
    total: u64,
    /// Events that did not follow the one before, each in words.
    breaks: Vec<String>,
}

impl Seen {
    fn take(&mut self, session: String, seq: u64) {
        self.total += 1;
        let last = self.last.get(&session).copied().unwrap_or(0);
        if seq != last + 1 {
            self.breaks.push(format!("{session}: event {seq} after {last}"));
        }
        self.last.insert(session, seq);
    }
}

/// The subscriber's task; it ends when this is dropped.
pub(super) struct Witness {
    seen: watch::Receiver<Seen>,
    task: AbortHandle,
}

impl Witness {
    /// Follows these sessions from their first event on.
    pub(super) fn follow(host: SocketAddr, sessions: impl Iterator<Item = String>) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        let sessions: BTreeMap<String, u64> = sessions.map(|session| (session, 0)).collect();
        let task = tokio::spawn(async move {
            let client = Client::new(&format!("http://{host}")).expect("a URL");
            let mut subscriber = client.subscriber();
            let request = Subscribe::to_all().after_each(sessions).detections(false);
            subscriber.subscribe(request).await;
            loop {
                // The client connects again by itself, and resumes after the last event.
                if let Ok(Message::Event(event)) = subscriber.next().await {
                    sender.send_modify(|seen| seen.take(event.session, event.seq));
                }
            }
        });
        Self { seen, task: task.abort_handle() }
    }

    /// The last event of a session that came.
    pub(super) fn last(&self, session: &str) -> u64 {
        self.seen.borrow().last.get(session).copied().unwrap_or(0)
    }

    /// Events that came.
    pub(super) fn total(&self) -> u64 {
        self.seen.borrow().total
    }

    /// Events that did not follow the one before.
    pub(super) fn breaks(&self) -> Vec<String> {
        self.seen.borrow().breaks.clone()
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}
