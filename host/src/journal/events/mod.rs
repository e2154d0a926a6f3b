//! The event journal: every event of every session, numbered and on the disk before anyone is told
//! of it. One SQLite file, `events.db`, beside the folder of its attachments.
//!
//! # Theory of operation
//!
//! [`EventJournal::append`] puts an event into its session's [`outbox`], which is bounded, and
//! never waits. One thread ([`writer`]) owns the one connection that writes. It takes a turn of
//! each session that has something, numbers it, and commits all of that at once; then it delivers
//! it. What arrives while it commits is the next commit's: the slower the disk, the more share one
//! write to it. A session that floods has its outbox to fill, and delays the others by one turn.
//!
//! Commits are `synchronous = FULL` in WAL mode: each is one append to the log and one fsync of it,
//! and only then is anything of it delivered. So whatever anybody was told of survives a kill and a
//! power cut, with its number, and what is found after one is a prefix of what was appended. A
//! commit that fails takes no number; it is tried again each second until the disk takes it.
//!
//! Pages are read by a second thread ([`reader`]) on a connection that only reads: in WAL mode it
//! delays no commit and sees all that is committed.
//!
//! # Numbers
//!
//! The numbers of a session never go back. The file knows the last of each stream. Where a stream
//! has to be forgotten, its last number becomes the floor above which new streams begin; where the
//! file was damaged and begun anew the floor is the milliseconds since 1970, as no session has had
//! that many events.

mod outbox;
mod pictures;
mod reader;
mod retention;
mod shared;
mod store;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use ocelli_protocol::digest::Digest;
use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot, watch};

use pictures::AttachmentFiles;
use reader::EventRead;
use shared::{Clock, JournalInner};
use store::EventStore;

use super::JournalError;
use crate::config;

/// An event that has no number yet.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    pub kind: String,
    /// Wall-clock time in milliseconds since 1970: what `from` and `to` of a [`EventQuery`] are
    /// compared with.
    pub time_ms: i64,
    /// All there is to say of it but session and number: the text of a JSON object.
    pub body: Box<str>,
    /// Pictures that `body` names by their digests; kept before the event is.
    pub attachments: Vec<Attachment>,
}

/// A picture of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    pub bytes: Bytes,
}

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Counts the session's events.
    pub seq: u64,
    pub kind: Box<str>,
    /// As in [`EventDraft`].
    pub body: Box<str>,
}

/// Which events of a session are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
    /// Those with greater numbers.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
    /// Of this kind alone.
    pub kind: Option<String>,
    /// Not before this time, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Before this time, in milliseconds since 1970.
    pub to_ms: Option<i64>,
}

/// Events of one session, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalPage {
    /// Bounded by [`EventQuery::limit`] and in bytes, and by how many events are looked at for one
    /// page.
    pub events: Vec<StoredEvent>,
    /// What the session has now.
    pub span: SequenceRange,
    /// What to ask for next, as [`EventQuery::after`]: everything up to it was looked at. None:
    /// that was all there is.
    pub next: Option<u64>,
}

/// The numbers of the events that are kept of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SequenceRange {
    /// The first that is kept; `newest + 1` where none is.
    pub oldest: u64,
    /// The last that was given; 0 where there was no event yet.
    pub newest: u64,
}

/// Something that waits its turn behind the events of a session that were given before it.
pub type DeliveryCallback = Box<dyn FnOnce() + Send>;

/// Told of each event, on the journal's own thread, in the order of the session's numbers, once it
/// is on the disk.
pub type DeliveryHandler = Box<dyn Fn(&Arc<str>, &StoredEvent) + Send + Sync>;

/// How much is kept, and for how long. 0: no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    /// Hours after which an event goes.
    pub hours: u64,
    /// Bytes of the events' file.
    pub bytes: u64,
    /// Hours after which an attachment goes.
    pub attachment_hours: u64,
    /// Bytes of all attachments.
    pub attachment_bytes: u64,
}

impl From<&config::EventsConfig> for RetentionLimits {
    fn from(config: &config::EventsConfig) -> Self {
        let bytes = |mb: u64| mb.saturating_mul(1 << 20);
        Self {
            hours: config.keep_hours,
            bytes: bytes(config.keep_mb),
            attachment_hours: config.attachments_hours,
            attachment_bytes: bytes(config.attachments_mb),
        }
    }
}

/// How the journal stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalMetrics {
    /// Events kept since the host was started.
    pub events: u64,
    /// Events since then for which there was no room.
    pub lost: u64,
    /// Commits since then that failed.
    pub failures: u64,
    /// What the events take on the disk.
    pub bytes: u64,
    /// What the attachments take.
    pub attachment_bytes: u64,
}

/// How long [`EventJournal::wait_for_capacity`] waits: several commits of a disk that works, and no
/// time in which a camera misses much.
const ROOM: Duration = Duration::from_secs(2);

/// The event journal. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct EventJournal {
    owner: Arc<JournalOwner>,
    reads: mpsc::Sender<EventRead>,
    pictures: AttachmentFiles,
}

/// Shared by all clones: the writer ends when it is gone.
struct JournalOwner(Arc<JournalInner>);

impl Drop for JournalOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl fmt::Debug for EventJournal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Events").finish_non_exhaustive()
    }
}

/// A journal in memory.
impl Default for EventJournal {
    fn default() -> Self {
        let (reads, queue) = mpsc::channel(reader::QUEUE);
        let shared = Arc::new(JournalInner::new(Box::new(now_ms)));
        let mut pictures = AttachmentFiles::temporary();
        let started = store::in_memory().and_then(|(store, reader)| {
            pictures = store.pictures.clone();
            reader::start(reader, queue)?;
            writer::start(store, Arc::clone(&shared))
        });
        if let Err(error) = started {
            // Without a writer every call fails, and says so.
            tracing::error!(target: "ocelli::journal", "no journal of events: {error:#}");
            shared.close();
        }
        Self { owner: Arc::new(JournalOwner(shared)), reads, pictures }
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

impl EventJournal {
    /// Opens the journal in this folder, or begins one.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        let (store, reader) = store::open(folder, now_ms())?;
        Self::start(store, reader, Box::new(now_ms))
    }

    fn start(store: EventStore, reader: Connection, clock: Clock) -> anyhow::Result<Self> {
        let (reads, queue) = mpsc::channel(reader::QUEUE);
        let pictures = store.pictures.clone();
        let owner = Arc::new(JournalOwner(Arc::new(JournalInner::new(clock))));
        reader::start(reader, queue)?;
        writer::start(store, Arc::clone(&owner.0))?;
        Ok(Self { owner, reads, pictures })
    }

    /// Sets how much is kept. What is too much goes soon.
    pub fn set_retention(&self, keep: RetentionLimits) {
        *self.shared().keep.lock() = keep;
    }

    /// Who is told of events. To be called once, before the first is appended. `deliver` lives as
    /// long as the journal does, and must not hold it.
    pub fn set_delivery_handler(&self, deliver: DeliveryHandler) {
        if self.shared().deliver.set(deliver).is_err() {
            tracing::error!(target: "ocelli::journal", "somebody is told of events already");
        }
    }

    /// Takes an event of a session in, in order. It is numbered, kept and delivered soon. False:
    /// the session has too many that wait for the disk, and this one is lost; an event of kind
    /// `events_lost` will say how many were.
    pub fn append(&self, session: &str, draft: EventDraft) -> bool {
        self.shared().append(session, draft)
    }

    /// Waits until the session has room for a frame's events again, or until it is clear that the
    /// disk does not take them (then false): a pipeline that is faster than the disk is slowed
    /// down, and one whose disk has failed is not stopped.
    pub async fn wait_for_capacity(&self, session: &str) -> bool {
        let mut progress = self.changed();
        let wait = async {
            loop {
                {
                    let outboxes = self.shared().outboxes();
                    if outboxes.failing || outboxes.closed {
                        return false;
                    }
                    if outboxes.has_capacity(session) {
                        return true;
                    }
                }
                if progress.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(ROOM, wait).await.unwrap_or(false)
    }

    /// Calls `note` once every event of the session that was appended before is delivered: at once
    /// where none waits. No later event is delivered before it has returned.
    pub fn after_pending(&self, session: &str, note: DeliveryCallback) {
        self.shared().behind(session, note);
    }

    /// Reads events of a session. Sees everything that was delivered. An unknown session has an
    /// empty page.
    pub async fn page(
        &self,
        session: &str,
        query: EventQuery,
    ) -> Result<JournalPage, JournalError> {
        let session = session.to_owned();
        self.read(move |connection| reader::page(connection, &session, &query)).await
    }

    /// Every session that the journal has events of, or had.
    pub async fn sessions(&self) -> Result<Vec<(Arc<str>, SequenceRange)>, JournalError> {
        self.read(reader::sessions).await
    }

    /// How far a sink has come with each session: the number of the last event that it has taken.
    pub async fn cursors(&self, sink: &'static str) -> Result<Vec<(Arc<str>, u64)>, JournalError> {
        // First those that are not written yet: what is written meanwhile is read.
        let waiting: Vec<(Arc<str>, u64)> = {
            let outboxes = self.shared().outboxes();
            let own = outboxes.cursors.iter().filter(|((of, _), _)| *of == sink);
            own.map(|((_, session), seq)| (Arc::clone(session), *seq)).collect()
        };
        let written = self.read(move |connection| reader::cursors(connection, sink)).await?;
        let cursors: BTreeMap<_, _> = written.into_iter().chain(waiting).collect();
        Ok(cursors.into_iter().collect())
    }

    /// Notes how far a sink has come. Written with the next events; a kill may set a sink back by a
    /// second.
    pub fn set_cursors(&self, sink: &'static str, cursors: Vec<(Arc<str>, u64)>) {
        self.shared().set_cursors(sink, cursors);
    }

    /// Changes whenever events were delivered.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.shared().progress.subscribe()
    }

    /// A picture, and the sessions whose events it belongs to. None where it is not kept, or no
    /// more.
    pub async fn attachment(
        &self,
        digest: Digest,
    ) -> Result<Option<(Bytes, Vec<Arc<str>>)>, JournalError> {
        let pictures = self.pictures.clone();
        let (owners, bytes) = self
            .read(move |connection| {
                let owners = reader::owners(connection, &digest)?;
                let bytes = if owners.is_empty() { Ok(None) } else { pictures.read(&digest) };
                Ok((owners, bytes))
            })
            .await?;
        Ok(bytes.map_err(JournalError::Attachment)?.map(|bytes| (bytes, owners)))
    }

    /// Waits until everything that was appended is on the disk and delivered. An error where the
    /// disk does not take it.
    pub async fn flush(&self) -> Result<(), JournalError> {
        let mut progress = self.changed();
        // Every note has a clone: when all are gone each has had its turn.
        let (waiting, mut all) = mpsc::channel::<()>(1);
        let busy = self.shared().outboxes().busy();
        for session in busy {
            let waiting = waiting.clone();
            self.after_pending(&session, Box::new(move || drop(waiting)));
        }
        drop(waiting);
        loop {
            {
                let outboxes = self.shared().outboxes();
                if outboxes.closed {
                    return Err(JournalError::Ended);
                }
                if outboxes.failing {
                    return Err(JournalError::Failing);
                }
            }
            tokio::select! {
                _ = all.recv() => break,
                changed = progress.changed() => changed.map_err(|_| JournalError::Ended)?,
            }
        }
        let (done, written) = oneshot::channel();
        self.shared().flush_cursors(done);
        written.await.map_err(|_| JournalError::Ended)
    }

    /// How the journal stands.
    pub fn metrics(&self) -> JournalMetrics {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared().counters;
        JournalMetrics {
            events: load(&counters.events),
            lost: load(&counters.lost),
            failures: load(&counters.failures),
            bytes: load(&counters.bytes),
            attachment_bytes: load(&counters.picture_bytes),
        }
    }

    fn shared(&self) -> &JournalInner {
        &self.owner.0
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (give, value) = oneshot::channel();
        let work = move |connection: &Connection| {
            // Whoever asked may be gone.
            let _ = give.send(work(connection));
        };
        self.reads.send(Box::new(work)).await.map_err(|_| JournalError::Ended)?;
        value.await.map_err(|_| JournalError::Ended)?.map_err(JournalError::Read)
    }
}

#[cfg(test)]
mod tests;
