//! What is kept for a camera beside its events, written by its owner alone.

use bytes::Bytes;

use super::{Fence, StreamError, Streams, later};
use crate::site::Epoch;

/// A change of a key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChange {
    pub bucket: String,
    pub key: String,
    /// `None` removes the entry.
    pub value: Option<Bytes>,
}

/// An entry of a key-value store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub bucket: String,
    pub key: String,
    pub value: Bytes,
}

/// Who owns a camera, by its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub epoch: Epoch,
    pub host: String,
}

/// A pipeline's state at some time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    pub epoch: Epoch,
    /// The last event before it.
    pub seq: u64,
    pub bytes: Bytes,
}

/// All that is kept for a camera but its events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredState {
    pub owner: Option<Owner>,
    pub entries: Vec<Entry>,
    pub snapshot: Option<Snapshot>,
    /// The session's state, as its owner gave it.
    pub session: Option<SessionState>,
}

/// What a camera's session is doing, and who says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionState {
    pub camera: String,
    pub epoch: Epoch,
    pub host: String,
    /// The text that was given, JSON.
    pub json: Box<str>,
}

/// The states of all sessions: the last one of each camera first, then as they change.
pub struct SessionStates;

impl SessionStates {
    /// The next one, waiting for ever. After a reconnect each camera's last one comes again.
    pub async fn next(&mut self) -> SessionState {
        std::future::pending().await
    }
}

impl Streams {
    /// Changes a camera's entries, all (1,000 at most) or none. Refused where the camera has
    /// another owner.
    pub async fn put_state(
        &self,
        _fence: &Fence,
        _changes: Vec<StateChange>,
    ) -> Result<(), StreamError> {
        Err(later())
    }

    /// Keeps a snapshot instead of the last one. Refused where the camera has another owner.
    pub async fn put_snapshot(&self, _fence: &Fence, _bytes: Bytes) -> Result<(), StreamError> {
        Err(later())
    }

    /// Tells every host what the camera's session is doing. Refused where the camera has another
    /// owner.
    pub async fn put_session_state(&self, _fence: &Fence, _json: &str) -> Result<(), StreamError> {
        Err(later())
    }

    /// What is kept for a camera: at least everything that was written before its last take-over.
    pub async fn load(&self, _camera: &str) -> Result<StoredState, StreamError> {
        Err(later())
    }

    /// The states of all sessions of the site.
    pub fn follow_states(&self) -> SessionStates {
        SessionStates
    }
}
