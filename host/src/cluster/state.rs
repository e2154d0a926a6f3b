//! Sessions' key-value stores in the site, so that a camera's next host goes on with them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ocelli_cluster::streams::{StateChange, StateEntry, StreamError, Streams};
use ocelli_protocol::limit::MAX_STORE_BUCKET;
use ocelli_protocol::worker::{StoreChange, StoreContents};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::chains::Chains;
use super::snapshots::{PipelineSnapshot, SnapshotError};
use crate::journal::{Journal, StoreMirror};

/// Between two writes: a pipeline that writes with each frame costs ten in a second.
const BATCH: Duration = Duration::from_millis(100);

/// Entries in one write.
const ENTRIES: usize = 500;

/// The bucket of sinks' cursors. No pipeline's store has one with so long a name.
const CURSORS: &str = "how far sinks have come: a bucket whose name is longer than those of \
    pipelines";
const _: () = assert!(CURSORS.len() > MAX_STORE_BUCKET);

/// What a session's store has changed and the site has not yet: the newest of each key.
type Pending = BTreeMap<(String, String), Option<Bytes>>;

/// See the module's documentation.
pub(super) struct StateMirror {
    streams: Streams,
    chains: Arc<Chains>,
    journal: Journal,
    /// Bounded as the stores are.
    pending: Mutex<HashMap<Arc<str>, Pending>>,
    changed: Notify,
    written: Notify,
}

impl StateMirror {
    pub(super) fn new(streams: Streams, chains: Arc<Chains>, journal: Journal) -> Self {
        let (changed, written) = (Notify::new(), Notify::new());
        Self { streams, chains, journal, pending: Mutex::default(), changed, written }
    }

    /// Writes changes, until it is dropped.
    pub(super) async fn run(&self) {
        loop {
            let changed = self.changed.notified();
            if self.pending.lock().is_empty() {
                changed.await;
            }
            tokio::time::sleep(BATCH).await;
            let cameras: Vec<_> = self.pending.lock().keys().cloned().collect();
            let writes = cameras.iter().map(|camera| self.write(camera));
            futures_util::future::join_all(writes).await;
            self.written.notify_waiters();
        }
    }

    async fn write(&self, camera: &Arc<str>) {
        let Some(fence) = self.chains.fence(camera) else {
            // It is another host's by now, which has what the site has.
            self.pending.lock().remove(camera);
            return;
        };
        let batch = self.take(camera);
        let change = |((bucket, key), value): (&(String, String), &Option<Bytes>)| StateChange {
            bucket: bucket.clone(),
            key: key.clone(),
            value: value.clone(),
        };
        match self.streams.put_state(&fence, batch.iter().map(change).collect()).await {
            Ok(()) => {}
            Err(StreamError::Fenced { epoch, .. }) => self.chains.refuse(camera, epoch),
            Err(error) => {
                tracing::debug!(
                    target: "ocelli::cluster", session = &**camera,
                    "its store is not held by the site yet: {error}"
                );
                let mut pending = self.pending.lock();
                let newer = pending.entry(Arc::clone(camera)).or_default();
                for (key, value) in batch {
                    newer.entry(key).or_insert(value);
                }
            }
        }
    }

    /// Takes the next changes of a camera.
    fn take(&self, camera: &Arc<str>) -> Pending {
        let mut pending = self.pending.lock();
        let Some(all) = pending.get_mut(camera) else { return Pending::new() };
        let mut batch = Pending::new();
        while batch.len() < ENTRIES
            && let Some((key, value)) = all.pop_first()
        {
            batch.insert(key, value);
        }
        if all.is_empty() {
            pending.remove(camera);
        }
        batch
    }

    /// Notes how far a sink has come with a camera's events. Of another host's camera it says
    /// nothing.
    pub(super) fn note_cursor(&self, sink: &str, camera: &Arc<str>, seq: u64) {
        if self.chains.epoch(camera).is_none() {
            return;
        }
        let key = (CURSORS.to_owned(), sink.to_owned());
        let value = Some(Bytes::from(seq.to_string()));
        self.pending.lock().entry(Arc::clone(camera)).or_default().insert(key, value);
        self.changed.notify_one();
    }

    /// Waits until the site holds all that a session's store has.
    pub(super) async fn flush(&self, camera: &str) {
        loop {
            let written = self.written.notified();
            if !self.pending.lock().contains_key(camera) {
                // One that was taken out a moment ago is on its way.
                let _ = tokio::time::timeout(2 * BATCH, written).await;
                if !self.pending.lock().contains_key(camera) {
                    return;
                }
                continue;
            }
            written.await;
        }
    }

    /// Puts the site's store of a camera in the place of this host's. Gives the state of its
    /// pipeline.
    pub(super) async fn load(
        &self,
        camera: &Arc<str>,
    ) -> Result<Option<PipelineSnapshot>, StreamError> {
        let state = self.streams.load(camera).await?;
        let mut contents = StoreContents::new();
        for StateEntry { bucket, key, value } in state.entries {
            if bucket == CURSORS {
                let seq = std::str::from_utf8(&value).ok().and_then(|text| text.parse().ok());
                if let Some(seq) = seq {
                    let sink: Arc<str> = key.into();
                    self.journal.events().set_cursors(&sink, vec![(Arc::clone(camera), seq)]);
                }
                continue;
            }
            contents.entry(bucket).or_default().insert(key, value.to_vec());
        }
        let kept = self.journal.replace_store(camera, contents).await;
        kept.map_err(|error| {
            StreamError::Unavailable(format!("the journal of this host: {error}"))
        })?;
        Ok(state.snapshot.and_then(|snapshot| readable(camera, &snapshot.bytes)))
    }
}

/// A snapshot of the site's, if this version reads it: a camera starts without one, too.
fn readable(camera: &str, bytes: &Bytes) -> Option<PipelineSnapshot> {
    let read = PipelineSnapshot::decode(bytes);
    let unreadable = |error: &SnapshotError| {
        tracing::warn!(
            target: "ocelli::cluster", session = camera,
            "its pipeline begins anew, since its state in the site cannot be read: {error}"
        );
    };
    read.inspect_err(unreadable).ok()
}

impl StoreMirror for StateMirror {
    fn changed(&self, session: &str, changes: &[StoreChange]) {
        let mut pending = self.pending.lock();
        let store = pending.entry(session.into()).or_default();
        for StoreChange { bucket, key, value } in changes {
            let value = value.as_ref().map(|value| Bytes::copy_from_slice(value));
            store.insert((bucket.clone(), key.clone()), value);
        }
        drop(pending);
        self.changed.notify_one();
    }
}
