//! States of cameras' pipelines in the site, so that a camera's next host goes on with them.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use ocelli_cluster::streams::{Fence, StreamError, Streams};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::chains::Chains;

/// Snapshots that are written at once: one that is large holds up no other, and few fill a line.
const WRITES: usize = 4;

/// Between two attempts at what the site does not take: a camera that is handed over waits for it,
/// and a state may have megabytes.
const AGAIN: Duration = Duration::from_secs(1);

/// The form that this version writes and reads.
const FORMAT: u32 = 1;

/// Ends the header: JSON has no line breaks in its texts.
const END: u8 = b'\n';

/// The state that a pipeline gave, and which pipeline that is.
///
/// In the site it is a line of JSON, `{"format":1,"pipeline":"eye","version":"1.2.0"}`, and behind
/// it the state as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PipelineSnapshot {
    /// As it describes itself.
    pub pipeline: String,
    /// Likewise.
    pub version: String,
    /// Empty: it has none.
    pub state: Bytes,
}

#[derive(Serialize, Deserialize)]
struct SnapshotHeader {
    format: u32,
    pipeline: String,
    version: String,
}

/// Bytes that are no snapshot of this version's.
#[derive(Debug, thiserror::Error)]
pub(super) enum SnapshotError {
    #[error("it has no header: {0}")]
    Header(String),
    #[error("its format is {0}, and this version reads {FORMAT}")]
    Format(u32),
}

impl PipelineSnapshot {
    /// As the site holds it.
    pub fn encode(&self) -> Bytes {
        let Self { pipeline, version, state } = self;
        let (pipeline, version) = (pipeline.clone(), version.clone());
        let header = SnapshotHeader { format: FORMAT, pipeline, version };
        // Texts and numbers always serialise.
        let mut bytes = serde_json::to_vec(&header).unwrap_or_default();
        bytes.push(END);
        bytes.extend_from_slice(state);
        bytes.into()
    }

    /// Reads what [`encode`](Self::encode) gave.
    pub(super) fn decode(bytes: &Bytes) -> Result<Self, SnapshotError> {
        let missing = || SnapshotError::Header("no line of JSON".to_owned());
        let end = bytes.iter().position(|byte| *byte == END).ok_or_else(missing)?;
        let wrong = |error: serde_json::Error| SnapshotError::Header(error.to_string());
        let (line, state) = (bytes.slice(..end), bytes.slice(end + 1..));
        let header: serde_json::Value = serde_json::from_slice(&line).map_err(wrong)?;
        let format = header.get("format").and_then(serde_json::Value::as_u64).unwrap_or_default();
        if format != u64::from(FORMAT) {
            return Err(SnapshotError::Format(u32::try_from(format).unwrap_or(u32::MAX)));
        }
        let SnapshotHeader { pipeline, version, .. } =
            serde_json::from_value(header).map_err(wrong)?;
        Ok(Self { pipeline, version, state })
    }
}

/// Where states of sessions' pipelines outlast their host.
pub trait SnapshotStore: Send + Sync {
    /// Whether a snapshot of this session would be kept at this moment.
    fn keeps(&self, session: &str) -> bool;

    /// Keeps a snapshot, [encoded](PipelineSnapshot::encode), in the place of the last one. Never
    /// waits.
    fn keep(&self, session: &str, snapshot: Bytes);

    /// The snapshot that came with the session's camera, once.
    fn take(&self, session: &str) -> Option<PipelineSnapshot>;

    /// Notes that a snapshot could not be had.
    fn note_failure(&self);
}

/// A snapshot that the site does not hold yet.
#[derive(Clone)]
struct WaitingSnapshot {
    /// The right to write it, as of when it was given: it is no later epoch's.
    fence: Fence,
    bytes: Bytes,
}

/// See the module's documentation.
pub(super) struct SiteSnapshots {
    streams: Streams,
    chains: Arc<Chains>,
    /// The newest of each camera.
    waiting: Mutex<HashMap<Arc<str>, WaitingSnapshot>>,
    changed: Notify,
    written: Notify,
    failures: AtomicU64,
}

impl SiteSnapshots {
    pub(super) fn new(streams: Streams, chains: Arc<Chains>) -> Self {
        let (changed, written) = (Notify::new(), Notify::new());
        let (waiting, failures) = (Mutex::default(), AtomicU64::new(0));
        Self { streams, chains, waiting, changed, written, failures }
    }

    /// Snapshots that could not be had or were not taken by the site, since the start.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Writes snapshots, until it is dropped.
    pub(super) async fn run(&self) {
        loop {
            let changed = self.changed.notified();
            let cameras: Vec<_> = self.waiting.lock().keys().cloned().collect();
            if cameras.is_empty() {
                changed.await;
                continue;
            }
            let writes = cameras.into_iter().map(|camera| self.write(camera));
            let writes = futures_util::stream::iter(writes).buffer_unordered(WRITES);
            let done = writes.fold(true, |all, done| std::future::ready(all && done)).await;
            self.written.notify_waiters();
            if !done {
                self.streams.ready().await;
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// Whether there is nothing left to write of a camera.
    async fn write(&self, camera: Arc<str>) -> bool {
        let waiting = self.waiting.lock().get(&camera).cloned();
        let Some(WaitingSnapshot { fence, bytes }) = waiting else { return true };
        if self.chains.epoch(&camera) != Some(fence.epoch()) {
            self.forget(&camera, &bytes);
            return true;
        }
        match self.streams.put_snapshot(&fence, bytes.clone()).await {
            Ok(()) => {}
            Err(StreamError::Fenced { epoch, .. }) => self.chains.refuse(&camera, epoch),
            Err(error) => {
                self.note_failure();
                if error.passes() {
                    tracing::debug!(
                        target: "ocelli::cluster", session = &*camera,
                        "its pipeline's state is not held by the site yet: {error}"
                    );
                    return false;
                }
                tracing::warn!(
                    target: "ocelli::cluster", session = &*camera,
                    "its pipeline's state is not held by the site: {error}"
                );
            }
        }
        self.forget(&camera, &bytes);
        true
    }

    /// Forgets these bytes, unless there are newer ones.
    fn forget(&self, camera: &str, bytes: &Bytes) {
        let mut waiting = self.waiting.lock();
        if waiting.get(camera).is_some_and(|newest| newest.bytes.as_ptr() == bytes.as_ptr()) {
            waiting.remove(camera);
        }
    }

    /// Waits until the site holds the last snapshot of a camera.
    pub(super) async fn flush(&self, camera: &str) {
        loop {
            let written = self.written.notified();
            if !self.waiting.lock().contains_key(camera) {
                return;
            }
            written.await;
        }
    }
}

impl SnapshotStore for SiteSnapshots {
    fn keeps(&self, session: &str) -> bool {
        self.chains.epoch(session).is_some()
    }

    fn keep(&self, session: &str, bytes: Bytes) {
        // What came with the camera is older.
        self.chains.take_snapshot(session);
        let Some(fence) = self.chains.fence(session) else { return };
        self.waiting.lock().insert(session.into(), WaitingSnapshot { fence, bytes });
        self.changed.notify_one();
    }

    fn take(&self, session: &str) -> Option<PipelineSnapshot> {
        self.chains.take_snapshot(session)
    }

    fn note_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_comes_back_as_it_was_and_says_of_what_it_is() {
        for state in [&b""[..], b"\n", b"{\"format\":2}\n", &[0xff; 3000]] {
            let (pipeline, version) = ("a \"line\"\n".to_owned(), "1.2.0".to_owned());
            let snapshot =
                PipelineSnapshot { pipeline, version, state: Bytes::copy_from_slice(state) };
            assert_eq!(PipelineSnapshot::decode(&snapshot.encode()).unwrap(), snapshot);
        }
        let snapshot = PipelineSnapshot {
            pipeline: "eye".into(),
            version: "1.2.0".into(),
            state: "state".into(),
        };
        let written = "{\"format\":1,\"pipeline\":\"eye\",\"version\":\"1.2.0\"}\nstate";
        assert_eq!(snapshot.encode(), written);
    }

    #[test]
    fn what_another_version_or_nobody_wrote_is_refused_in_words() {
        let refused = |bytes: &'static [u8]| {
            PipelineSnapshot::decode(&Bytes::from_static(bytes)).unwrap_err().to_string()
        };
        for (bytes, words) in [
            (&b"{\"format\":2,\"else\":1}\nstate"[..], "its format is 2"),
            (b"{\"format\":99999999999}\n", "its format is 4294967295"),
            (b"{\"format\":1,\"pipeline\":\"eye\"}\n", "missing field `version`"),
            (b"state", "no line"),
            (b"state\n", "it has no header"),
            (b"", "no line"),
        ] {
            assert!(refused(bytes).contains(words), "{} for {words}", refused(bytes));
        }
    }
}
