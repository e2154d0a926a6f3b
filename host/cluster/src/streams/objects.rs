//! Objects by their SHA-256: components, models, attachments, large snapshots.

use std::fmt;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{StreamError, Streams, later};

/// A SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl Streams {
    /// Stores an object unless it is there.
    pub async fn put_object(&self, _bytes: Bytes) -> Result<Digest, StreamError> {
        Err(later())
    }

    /// Stores what is read, whose digest has to be `digest`, unless it is there.
    pub async fn put_object_from(
        &self,
        _digest: Digest,
        _from: &mut (impl AsyncRead + Unpin + Send),
    ) -> Result<(), StreamError> {
        Err(later())
    }

    /// An object of at most `most` bytes, verified.
    pub async fn get_object(&self, _digest: Digest, _most: usize) -> Result<Bytes, StreamError> {
        Err(later())
    }

    /// Writes an object and verifies it. After an error what was written is to be thrown away.
    pub async fn get_object_into(
        &self,
        _digest: Digest,
        _into: &mut (impl AsyncWrite + Unpin + Send),
    ) -> Result<u64, StreamError> {
        Err(later())
    }
}
