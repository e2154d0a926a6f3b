//! Messages that matter now or not at all.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{HeaderMap, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;

use super::link::Link;
use super::names::Names;
use super::{StreamError, Streams};
use crate::site::Epoch;

/// Live messages that wait for the socket: a second of 30 cameras at 30 messages a second.
const QUEUE: usize = 1024;

const EPOCH_HEADER: &str = "Ocelli-Epoch";

/// A live message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMessage {
    pub camera: String,
    pub epoch: Epoch,
    pub bytes: Bytes,
}

/// Sends live messages while there is a connection.
pub(super) struct LiveSender {
    queue: mpsc::Sender<Queued>,
    dropped: Arc<AtomicU64>,
}

struct Queued {
    subject: String,
    epoch: Epoch,
    bytes: Bytes,
    /// The connection's count when it was queued: it goes through that connection or none.
    connection: u64,
}

impl LiveSender {
    /// With the task that has to run for it.
    pub(super) fn new(link: Link) -> (Self, impl Future<Output = ()>) {
        let (queue, queued) = mpsc::channel(QUEUE);
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { queue, dropped: Arc::clone(&dropped) }, send(link, queued, dropped))
    }
}

/// Passes on what is queued. The client keeps what it was given through a reconnect: it is given
/// little at a time.
async fn send(link: Link, mut queued: mpsc::Receiver<Queued>, dropped: Arc<AtomicU64>) {
    while let Some(message) = queued.recv().await {
        let mut headers = HeaderMap::new();
        headers.insert(EPOCH_HEADER, message.epoch.0.to_string());
        let sent = message.connection == link.changes()
            && link.connected()
            && link
                .client
                .publish_with_headers(message.subject, headers, message.bytes)
                .await
                .is_ok();
        if !sent {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Live messages as they come. Those of a lower epoch than one seen of the same camera are dropped.
pub struct Live {
    names: Names,
    messages: Subscriber,
    epochs: Epochs,
}

impl Live {
    /// The next one, waiting for ever. What came while nobody asked is dropped beyond a bound.
    pub async fn next(&mut self) -> LiveMessage {
        loop {
            let Some(message) = self.messages.next().await else {
                // The connection is closed, which only its owner's end does.
                return std::future::pending().await;
            };
            let epoch = message.headers.as_ref().and_then(|headers| headers.get(EPOCH_HEADER));
            let epoch = epoch.and_then(|epoch| epoch.as_str().parse().ok()).map(Epoch);
            let (Some(epoch), Some(camera)) = (epoch, self.names.camera(&message.subject)) else {
                continue;
            };
            if self.epochs.admit(&camera, epoch) {
                return LiveMessage { camera, epoch, bytes: message.payload };
            }
        }
    }
}

/// The greatest epoch seen of each camera.
#[derive(Default)]
struct Epochs(HashMap<String, Epoch>);

impl Epochs {
    fn admit(&mut self, camera: &str, epoch: Epoch) -> bool {
        match self.0.get_mut(camera) {
            Some(seen) if *seen > epoch => false,
            Some(seen) => {
                *seen = epoch;
                true
            }
            None => {
                self.0.insert(camera.to_owned(), epoch);
                true
            }
        }
    }
}

impl Streams {
    /// Sends a live message without waiting. It is dropped while NATS is away or cannot take more.
    pub fn publish_live(&self, camera: &str, epoch: Epoch, bytes: Bytes) {
        let live = self.live();
        let link = self.link();
        let connection = link.changes();
        let subject = self.names().live(camera);
        let queued = Queued { subject, epoch, bytes, connection };
        if !link.connected() || live.queue.try_send(queued).is_err() {
            live.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many live messages were dropped instead of sent.
    pub fn live_dropped(&self) -> u64 {
        self.live().dropped.load(Ordering::Relaxed)
    }

    /// One camera's live messages. Goes on through reconnects.
    pub async fn subscribe_live(&self, camera: &str) -> Result<Live, StreamError> {
        self.listen(self.names().live(camera)).await
    }

    /// The live messages of all cameras.
    pub async fn subscribe_all_live(&self) -> Result<Live, StreamError> {
        self.listen(self.names().all_live()).await
    }

    async fn listen(&self, subject: String) -> Result<Live, StreamError> {
        let subscribed = self.link().client.subscribe(subject).await;
        let messages = subscribed.map_err(|error| StreamError::Unavailable(error.to_string()))?;
        Ok(Live { names: self.names().clone(), messages, epochs: Epochs::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lower_epoch_is_dropped_for_its_camera_alone() {
        let mut epochs = Epochs::default();
        let said = [("a", 5), ("b", 2), ("a", 4), ("a", 5), ("a", 9), ("a", 5), ("b", 2)];
        let admitted: Vec<bool> =
            said.iter().map(|(camera, epoch)| epochs.admit(camera, Epoch(*epoch))).collect();
        assert_eq!(admitted, [true, true, false, true, true, false, true]);
    }
}
