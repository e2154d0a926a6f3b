//! What is kept for a camera beside its events, written by its owner alone.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use async_nats::HeaderMap;
use async_nats::header::{HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::events::Tries;
use super::link::{Failure, Kept, Outgoing};
use super::names::Bucket;
use super::{Digest, Fence, StreamError, Streams, names};
use crate::site::Epoch;

/// The most changes of one batch: what JetStream takes.
pub const MAX_CHANGES: usize = 1000;

/// A longer snapshot is an object: a message of NATS has at most 1 MB, with its headers.
const INLINE_SNAPSHOT: usize = 900_000;

/// The largest snapshot that is read back: what a pipeline may keep.
const MAX_SNAPSHOT: usize = 64 << 20;

/// The most messages and bytes that are read at once.
const READ: (usize, usize) = (256, 4 << 20);

/// Has the condition on which JetStream stores a message: the last sequence of this subject.
const CONDITION_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// Says who wrote a message, as JSON.
const BY_HEADER: &str = "Ocelli-By";

/// Marks a removed entry. JetStream deletes the mark itself after [`REMOVED_TTL`].
const REMOVED_HEADER: &str = "Ocelli-Removed";

/// Longer than a replica may be behind the others and still answer readers.
const REMOVED_TTL: &str = "1h";

/// Names the object that a snapshot is.
const OBJECT_HEADER: &str = "Ocelli-Object";

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
pub struct StateEntry {
    pub bucket: String,
    pub key: String,
    pub value: Bytes,
}

/// Who owns a camera, by its streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOwner {
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
    pub owner: Option<StreamOwner>,
    /// By bucket and key.
    pub entries: Vec<StateEntry>,
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

/// Who wrote a message, and the camera's last event then.
#[derive(Serialize, Deserialize)]
pub(super) struct By {
    pub(super) epoch: Epoch,
    pub(super) host: String,
    pub(super) seq: u64,
}

impl By {
    pub(super) fn read(kept: &Kept) -> Result<Self, StreamError> {
        let header = kept.headers.get(BY_HEADER).map(|header| header.as_str()).unwrap_or_default();
        let damaged = |error| StreamError::Damaged(format!("{} ({error})", kept.subject));
        serde_json::from_str(header).map_err(damaged)
    }
}

/// The message `own`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OwnRecord {
    pub(super) epoch: Epoch,
    pub(super) host: String,
    /// The greatest number of an event that its writer knew of.
    pub(super) seq: u64,
    pub(super) from_epoch: Option<Epoch>,
    pub(super) from_host: Option<String>,
}

impl OwnRecord {
    pub(super) fn written(&self) -> Result<Bytes, StreamError> {
        let damaged = |error: serde_json::Error| StreamError::Damaged(error.to_string());
        Ok(serde_json::to_vec(self).map_err(damaged)?.into())
    }

    fn read(kept: &Kept) -> Result<Self, StreamError> {
        let damaged = |error| StreamError::Damaged(format!("{} ({error})", kept.subject));
        serde_json::from_slice(&kept.payload).map_err(damaged)
    }
}

/// The object of a camera's last snapshot.
#[derive(Debug, Default)]
pub(super) enum SnapshotObject {
    /// Not read yet.
    #[default]
    Unknown,
    Known(Option<Digest>),
}

impl Streams {
    /// Changes a camera's entries, all ([`MAX_CHANGES`] at most) or none. Refused where the camera
    /// has another owner.
    pub async fn put_state(
        &self,
        fence: &Fence,
        changes: Vec<StateChange>,
    ) -> Result<(), StreamError> {
        if changes.len() > MAX_CHANGES {
            let (size, most) = (changes.len(), MAX_CHANGES);
            return Err(StreamError::TooLarge { what: "a batch of changes", size, most });
        }
        let messages = |changes: &[StateChange]| {
            let message = |change: &StateChange| {
                let mut headers = HeaderMap::new();
                if change.value.is_none() {
                    headers.insert(REMOVED_HEADER, HeaderValue::from(1u64));
                    headers.insert("Nats-TTL", REMOVED_TTL);
                }
                Outgoing {
                    subject: self.names().entry(fence.camera(), &change.bucket, &change.key),
                    headers,
                    payload: change.value.clone().unwrap_or_default(),
                }
            };
            changes.iter().map(message).collect()
        };
        let _writing = fence.shared.writing.lock().await;
        self.store_fenced(fence, || messages(&changes)).await
    }

    /// Keeps a snapshot instead of the last one. Refused where the camera has another owner.
    pub async fn put_snapshot(&self, fence: &Fence, bytes: Bytes) -> Result<(), StreamError> {
        let mut last = fence.shared.writing.lock().await;
        let subject = self.names().snapshot(fence.camera());
        if let SnapshotObject::Unknown = *last {
            let stream = self.names().state_stream();
            let kept = self.link().last(&stream, &subject).await?;
            *last = SnapshotObject::Known(kept.as_ref().and_then(object_of));
        }
        let object = (bytes.len() > INLINE_SNAPSHOT).then(|| Digest::of(&bytes));
        if let Some(digest) = object {
            self.put_named(
                Bucket::Objects,
                &snapshot_name(fence.camera(), digest),
                digest,
                &mut &bytes[..],
            )
            .await?;
        }
        let message = || {
            let mut headers = self.by(fence);
            if let Some(digest) = object {
                headers.insert(OBJECT_HEADER, digest.to_string());
            }
            let payload = if object.is_some() { Bytes::new() } else { bytes.clone() };
            vec![Outgoing { subject: subject.clone(), headers, payload }]
        };
        self.store_fenced(fence, message).await?;
        let before = std::mem::replace(&mut *last, SnapshotObject::Known(object));
        if let SnapshotObject::Known(Some(digest)) = before
            && Some(digest) != object
        {
            // One that stays takes room, and no more.
            if let Err(error) =
                self.remove_named(Bucket::Objects, &snapshot_name(fence.camera(), digest)).await
            {
                tracing::warn!(camera = fence.camera(), "an old snapshot stays: {error}");
            }
        }
        Ok(())
    }

    /// Tells every host what the camera's session is doing. Refused where the camera has another
    /// owner.
    pub async fn put_session_state(&self, fence: &Fence, json: &str) -> Result<(), StreamError> {
        let message = || {
            vec![Outgoing {
                subject: self.names().session(fence.camera()),
                headers: self.by(fence),
                payload: Bytes::copy_from_slice(json.as_bytes()),
            }]
        };
        let _writing = fence.shared.writing.lock().await;
        self.store_fenced(fence, message).await
    }

    fn by(&self, fence: &Fence) -> HeaderMap {
        let by = By {
            epoch: fence.epoch,
            host: self.host().to_owned(),
            seq: fence.shared.seq.load(Ordering::Acquire),
        };
        let mut headers = HeaderMap::new();
        headers.insert(BY_HEADER, serde_json::to_string(&by).unwrap_or_default());
        headers
    }

    /// Stores messages on the condition that the camera's owner is the fence's. The same ones may
    /// be stored twice.
    async fn store_fenced(
        &self,
        fence: &Fence,
        messages: impl Fn() -> Vec<Outgoing>,
    ) -> Result<(), StreamError> {
        self.layout()?;
        let under = self.names().state_under(fence.camera());
        let mut tries = Tries::new();
        loop {
            let mut messages = messages();
            let Some(first) = messages.first_mut() else { return Ok(()) };
            let own = self.names().own(fence.camera());
            first.headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(fence.own));
            first.headers.insert(CONDITION_SUBJECT, own);
            match self.link().store(&under, messages).await {
                Ok(_) => return Ok(()),
                Err(Failure::Sequence) => {
                    if tries.settle(self.still_own(fence).await).await?.is_none() {
                        continue;
                    }
                    let error = format!("{under} is being written");
                    tries.again(StreamError::Unavailable(error)).await?;
                }
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    /// Fails where the camera has another owner.
    pub(super) async fn still_own(&self, fence: &Fence) -> Result<(), StreamError> {
        match self.read_own(fence.camera()).await? {
            Some((place, _)) if place == fence.own => Ok(()),
            other => Err(fence.fenced(other.map(|(_, own)| own.epoch))),
        }
    }

    /// The message `own`, as its stream's leader has it.
    pub(super) async fn read_own(
        &self,
        camera: &str,
    ) -> Result<Option<(u64, OwnRecord)>, StreamError> {
        let names = self.names();
        match self.link().last(&names.state_stream(), &names.own(camera)).await? {
            Some(kept) => Ok(Some((kept.place, OwnRecord::read(&kept)?))),
            None => Ok(None),
        }
    }

    /// What is kept for a camera: at least everything that was written before its last take-over.
    pub async fn load(&self, camera: &str) -> Result<StoredState, StreamError> {
        self.layout()?;
        let mut tries = Tries::new();
        let kept = loop {
            let kept = match self.read_own(camera).await {
                Ok(own) => self.read_state(camera, own.map(|(place, _)| place)).await,
                Err(error) => Err(error),
            };
            if let Some(kept) = tries.settle(kept).await? {
                break kept;
            }
        };
        self.understood(camera, kept).await
    }

    /// All messages of a camera by subject, from replicas that have the message at `own`.
    async fn read_state(
        &self,
        camera: &str,
        own: Option<u64>,
    ) -> Result<BTreeMap<String, Kept>, StreamError> {
        let (stream, filter) = (self.names().state_stream(), self.names().state_of(camera));
        let mut found = BTreeMap::new();
        let (mut from, mut newest) = (1, 0);
        loop {
            // Each page may come from another replica. One that is behind has older messages at
            // lower places; what replaced them comes in a later page.
            let (page, more) = self.link().read(&stream, &filter, from, READ.0, READ.1).await?;
            for kept in page {
                from = kept.place + 1;
                newest = kept.place.max(newest);
                found.insert(kept.subject.clone(), kept);
            }
            if !more {
                break;
            }
        }
        if newest < own.unwrap_or_default() {
            return Err(StreamError::Unavailable(format!("a replica of {stream} is behind")));
        }
        Ok(found)
    }

    async fn understood(
        &self,
        camera: &str,
        kept: BTreeMap<String, Kept>,
    ) -> Result<StoredState, StreamError> {
        let mut state = StoredState::default();
        let under = format!("{}.", self.names().state_under(camera));
        for (subject, kept) in &kept {
            let tokens: Vec<&str> =
                subject.strip_prefix(&under).unwrap_or_default().split('.').collect();
            match tokens.as_slice() {
                ["own"] => {
                    let own = OwnRecord::read(kept)?;
                    state.owner = Some(StreamOwner { epoch: own.epoch, host: own.host });
                }
                ["snap"] => state.snapshot = self.snapshot(camera, kept).await?,
                ["state"] => state.session = Some(session(camera, kept)?),
                ["kv", bucket, key] if kept.headers.get(REMOVED_HEADER).is_none() => {
                    if let (Some(bucket), Some(key)) = (names::text(bucket), names::text(key)) {
                        state.entries.push(StateEntry { bucket, key, value: kept.payload.clone() });
                    }
                }
                _ => {}
            }
        }
        state.entries.sort_by(|a, b| (&a.bucket, &a.key).cmp(&(&b.bucket, &b.key)));
        Ok(state)
    }

    /// The snapshot of a message, `None` where its object is gone. One that is damaged is none: it
    /// keeps no camera from its next host.
    async fn snapshot(&self, camera: &str, kept: &Kept) -> Result<Option<Snapshot>, StreamError> {
        match self.whole_snapshot(camera, kept).await {
            Err(error) if !error.passes() => {
                tracing::warn!(camera, "a snapshot is left out: {error}");
                Ok(None)
            }
            snapshot => snapshot,
        }
    }

    async fn whole_snapshot(
        &self,
        camera: &str,
        kept: &Kept,
    ) -> Result<Option<Snapshot>, StreamError> {
        let By { epoch, seq, .. } = By::read(kept)?;
        let bytes = match object_of(kept) {
            None => kept.payload.clone(),
            Some(digest) => {
                let name = snapshot_name(camera, digest);
                match self.get_named(Bucket::Objects, &name, digest, MAX_SNAPSHOT).await {
                    Ok(bytes) => bytes,
                    Err(StreamError::NotFound(_)) => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
        };
        Ok(Some(Snapshot { epoch, seq, bytes }))
    }
}

/// Reads the message of a session.
pub(super) fn session(camera: &str, kept: &Kept) -> Result<SessionState, StreamError> {
    let By { epoch, host, .. } = By::read(kept)?;
    let json = std::str::from_utf8(&kept.payload)
        .map_err(|error| StreamError::Damaged(format!("{} ({error})", kept.subject)))?;
    Ok(SessionState { camera: camera.to_owned(), epoch, host, json: json.into() })
}

/// The name of a snapshot's object. It is no other camera's, so it can be removed.
fn snapshot_name(camera: &str, digest: Digest) -> String {
    format!("snapshot.{}.{digest}", names::token(camera))
}

fn object_of(kept: &Kept) -> Option<Digest> {
    kept.headers.get(OBJECT_HEADER)?.as_str().parse().ok()
}
