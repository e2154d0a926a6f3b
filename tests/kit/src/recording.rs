//! Everything that a subscriber gets, with the moment at which it came.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::{Client, DEADLINE};

/// A message.
#[derive(Debug, Clone)]
pub struct Received {
    /// When it came.
    pub at: Instant,
    /// What it says.
    pub message: Value,
}

/// A subscriber that takes down what it gets until this is dropped.
#[derive(Debug)]
pub struct Recording {
    messages: Arc<Mutex<Vec<Received>>>,
    count: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl Recording {
    /// Goes on with a client that has subscribed.
    pub fn of(mut client: Client) -> Self {
        let messages = Arc::<Mutex<Vec<Received>>>::default();
        let (counted, count) = watch::channel(0);
        let taken = Arc::clone(&messages);
        let task = tokio::spawn(async move {
            while let Some(message) = client.next_or_end().await {
                let mut messages = taken.lock();
                messages.push(Received { at: Instant::now(), message });
                let _ = counted.send(messages.len());
            }
        });
        Self { messages, count, task }
    }

    /// How many messages have come.
    pub fn len(&self) -> usize {
        *self.count.borrow()
    }

    /// Whether none has come.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those that have come so far.
    pub fn messages(&self) -> Vec<Received> {
        self.messages.lock().clone()
    }

    /// The first message for which `find` has an answer, of those from number `from` on, come or to
    /// come.
    pub async fn find<T>(&self, from: usize, mut find: impl FnMut(&Value) -> Option<T>) -> T {
        let mut count = self.count.clone();
        let mut seen = from;
        let search = async {
            loop {
                let there = *count.borrow_and_update();
                let new = {
                    let messages = self.messages.lock();
                    messages.get(seen..there).unwrap_or_default().to_vec()
                };
                if let Some(found) = new.iter().find_map(|received| find(&received.message)) {
                    return Some(found);
                }
                seen = seen.max(there);
                count.changed().await.ok()?;
            }
        };
        let found = timeout(DEADLINE, search).await;
        found.ok().flatten().unwrap_or_else(|| {
            panic!("not what was waited for; the last was {:?}", self.messages().last())
        })
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}
