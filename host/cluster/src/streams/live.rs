//! Messages that matter now or not at all.

use bytes::Bytes;

use super::{StreamError, Streams, later};
use crate::site::Epoch;

/// A live message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LiveMessage {
    pub camera: String,
    pub epoch: Epoch,
    pub bytes: Bytes,
}

/// Live messages as they come. Those of a lower epoch than one seen of the same camera are dropped.
pub struct Live;

impl Live {
    /// The next one, waiting for ever. What came while nobody asked is dropped beyond a bound.
    pub async fn next(&mut self) -> LiveMessage {
        std::future::pending().await
    }
}

impl Streams {
    /// Sends a live message without waiting. It is dropped while NATS is away or cannot take more.
    pub fn publish_live(&self, _camera: &str, _epoch: Epoch, _bytes: Bytes) {}

    /// How many live messages were dropped instead of sent.
    pub fn live_dropped(&self) -> u64 {
        0
    }

    /// One camera's live messages. Goes on through reconnects.
    pub async fn subscribe_live(&self, _camera: &str) -> Result<Live, StreamError> {
        Err(later())
    }

    /// The live messages of all cameras.
    pub async fn subscribe_all_live(&self) -> Result<Live, StreamError> {
        Err(later())
    }
}
