//! The event journal: every event of every session, numbered and on the disk before it is
//! delivered. One SQLite file, `events.db`, beside the folder of its attachments.
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
//! and only then is anything of it delivered. So whatever was delivered survives a kill and a
//! power cut, with its number, and what is found after one is a prefix of what was appended. A
//! commit that fails takes no number; it is tried again each second until the disk takes it. What
//! comes meanwhile waits in the outboxes, and what they do not hold is counted in its place.
//! Changes of state do not wait ([`EventJournal::after_pending_while_kept`]).
//!
//! [`clips`] are kept beside their events, with bounds of their own: an event names its clip before
//! that is whole.
//!
//! Clips go before pictures and those before events where room is short ([`room`]): the oldest are
//! deleted, and where that is not enough events are committed without their pictures.
//!
//! Pages are read by a second thread ([`reader`]) on a connection that only reads: in WAL mode it
//! delays no commit and sees all that is committed.
//!
//! # Age
//!
//! Events and pictures age by a clock of the journal's own ([`age_clock`]), which no setting of the
//! system's moves: none is deleted because the clock was set. What is to be told of a clock that has
//! jumped is in [`EventJournal::health`].
//!
//! # Numbers
//!
//! The numbers of a session never go back. The file knows the last of each stream. Where a stream
//! has to be forgotten, its last number becomes the floor above which new streams begin; where the
//! file was damaged and begun anew the floor is the milliseconds since 1970, as no session has had
//! that many events. So they are in a journal that begins with a copy, whose original may have given
//! further numbers (`store/copy.rs`).
//!
//! Beside it each event has a number among those of all sessions, in the order in which they were
//! kept ([`EventJournal::kept_after`]). Events that were kept before there were such numbers have
//! none.

mod age_clock;
mod clips;
mod filter;
mod outbox;
mod pictures;
mod reader;
mod replicate;
mod room;
mod search;
mod store;
mod types;
mod untold;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use ocelli_protocol::digest::Digest;
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use super::JournalError;
use crate::util::folder::Folder;
pub use age_clock::ClockJump;
use age_clock::{AgeClock, ClockReading, boot_id};
use clips::ClipFiles;
pub use clips::{ClipDraft, ClipFile, ClipOutcome, ClipState, KeptClip};
pub use filter::EventFilter;
use outbox::{DeliveryNote, OutboxBatch, Outboxes};
use pictures::AttachmentFiles;
use reader::EventRead;
pub use replicate::{Appended, EventLog, EventLogError, ReceivedEvents};
pub use search::{EventPlace, EventSearch, FoundEvents};
use store::EventStore;
pub(super) use store::FILE;
pub(super) use store::relief::BALLAST;
#[cfg(test)]
pub(super) use store::schema;
pub use types::{
    ALERT_KIND, Attachment, ClipMetrics, DeliveryCallback, DeliveryHandler, EventDraft,
    EventHealth, EventQuery, JournalMetrics, JournalPage, LOST_KIND, MQTT_SINK, NumberedEvent,
    NumberedPage, REDIS_SINK, RetentionLimits, SequenceRange, StoredEvent,
};
use untold::UntoldEvents;

/// An error where a version to come has written the file of this folder.
pub(super) fn refuse_newer(folder: &Folder) -> Result<(), JournalError> {
    store::refuse_newer(folder)
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
    clips: ClipFiles,
}

/// Shared by all clones: the writer ends when it is gone.
struct JournalOwner {
    shared: Arc<JournalInner>,
    /// The folder, where it goes with the journal.
    folder: OnceLock<TempDir>,
}

impl Drop for JournalOwner {
    fn drop(&mut self) {
        self.shared.state.lock().closed = true;
        self.shared.wake();
    }
}

/// What callers and the writer share.
struct JournalInner {
    state: Mutex<JournalState>,
    /// Told of what the writer waits for.
    wake: Condvar,
    /// Changes when events were delivered, and when commits begin to fail.
    progress: watch::Sender<u64>,
    deliver: OnceLock<DeliveryHandler>,
    /// Where events go that are not this host's to tell.
    untold: OnceLock<UntoldEvents>,
    /// Holds events besides the file, where they are.
    log: OnceLock<Arc<dyn EventLog>>,
    keep: Mutex<RetentionLimits>,
    metrics: Mutex<JournalMetrics>,
    clocks: Clocks,
    /// Told of what the task waits for that has events held elsewhere.
    pending: Notify,
    /// Told when the writer has taken what is numbered.
    room: Notify,
}

/// What waits for the writer.
#[derive(Default)]
struct JournalState {
    outboxes: Outboxes,
    /// Whether events are numbered and held elsewhere before they come to the writer.
    is_replicated: bool,
    /// Then, what is.
    numbered: VecDeque<OutboxBatch>,
    /// Why it is not.
    not_replicated: Option<String>,
    /// One for each stream and sink.
    cursors: Cursors,
    /// Clips whose files are whole, with their sessions: as many as are collected at most.
    clips: Vec<(Arc<str>, KeptClip)>,
    /// Told when the cursors are on the disk.
    flushing: Vec<oneshot::Sender<()>>,
    /// Why the last commit failed.
    failing: Option<String>,
    /// Why pictures are not kept, or go early.
    pictures: Option<String>,
    /// What is to be told of the system's clock.
    clock: Option<ClockJump>,
    /// Whether no clone of the journal is left.
    closed: bool,
}

/// How far sinks have come, by sink and session.
type Cursors = BTreeMap<(Arc<str>, Arc<str>), u64>;

type Clocks = Box<dyn Fn() -> ClockReading + Send + Sync>;

impl JournalState {
    /// Whether there is something for the writer.
    fn has_writable(&self) -> bool {
        if self.is_replicated { !self.numbered.is_empty() } else { self.outboxes.has_pending() }
    }

    /// Why events are not kept.
    fn why_failing(&self) -> Option<&String> {
        self.failing.as_ref().or(self.not_replicated.as_ref())
    }
}

impl JournalInner {
    /// Something waits in an outbox.
    fn wake(&self) {
        self.wake.notify_all();
        self.pending.notify_one();
    }

    /// The events of a batch were delivered, or its note was run.
    fn done(&self, batch: &OutboxBatch) {
        self.state.lock().outboxes.done(batch);
        self.wake();
        self.progress.send_modify(|count| *count += 1);
    }
}

impl fmt::Debug for EventJournal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Events").finish_non_exhaustive()
    }
}

impl EventJournal {
    /// Writes a copy of the file, as of one moment, which a journal that begins with it knows for
    /// one. Beside a running journal; takes as long as writing the file does.
    pub(super) fn copy(folder: &Folder, to: &Path, now_ms: i64) -> rusqlite::Result<()> {
        store::copy::write(folder, to, now_ms)
    }

    /// Opens the journal in this folder, or begins one.
    pub(super) fn open(folder: &Folder) -> anyhow::Result<Self> {
        let (store, reader) = store::open(folder, ClockReading::now().wall)?;
        let journal = Self::start(store, reader, Box::new(ClockReading::now))?;
        // It has none yet.
        let _ = journal.shared().untold.set(UntoldEvents::new(folder.clone()));
        Ok(journal)
    }

    fn start(store: EventStore, reader: Connection, clocks: Clocks) -> anyhow::Result<Self> {
        let (pictures, clips) = (store.pictures().clone(), store.clips().clone());
        let shared = Arc::new(JournalInner {
            state: Mutex::default(),
            wake: Condvar::new(),
            progress: watch::Sender::new(0),
            deliver: OnceLock::new(),
            untold: OnceLock::new(),
            log: OnceLock::new(),
            keep: Mutex::default(),
            metrics: Mutex::default(),
            clocks,
            pending: Notify::new(),
            room: Notify::new(),
        });
        let reads = reader::start(reader)?;
        let record = store.clock_record().context("reading the events' clock")?;
        let clock = AgeClock::resume(record, boot_id(), (shared.clocks)());
        writer::start(store, clock, Arc::clone(&shared))?;
        let owner = Arc::new(JournalOwner { shared, folder: OnceLock::new() });
        Ok(Self { owner, reads, pictures, clips })
    }

    /// Removes the journal's folder with the last clone.
    pub(super) fn own(&self, folder: TempDir) {
        // A second folder would not be the journal's.
        let _ = self.owner.folder.set(folder);
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
        let shared = self.shared();
        let mut state = shared.state.lock();
        let taken = !state.closed && state.outboxes.append(session, draft);
        drop(state);
        if taken {
            shared.wake();
        } else {
            shared.metrics.lock().lost += 1;
        }
        taken
    }

    /// Waits until the session has room for a frame's events again, or until it is clear that the
    /// disk does not take them (then false): a pipeline that is faster than the disk is slowed
    /// down, and one whose disk has failed is not stopped.
    pub async fn wait_for_capacity(&self, session: &str) -> bool {
        let mut progress = self.changed();
        let wait = async {
            loop {
                {
                    let state = self.shared().state.lock();
                    if state.why_failing().is_some() || state.closed {
                        return false;
                    }
                    if state.outboxes.has_capacity(session) {
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
        self.note(session, DeliveryNote { run: note, overtakes: false });
    }

    /// As [`after_pending`](Self::after_pending), but that it does not wait for a disk that takes no
    /// events: it is called before them while commits fail.
    pub fn after_pending_while_kept(&self, session: &str, note: DeliveryCallback) {
        self.note(session, DeliveryNote { run: note, overtakes: true });
    }

    fn note(&self, session: &str, note: DeliveryNote) {
        // Not run under the lock: a note may append events.
        let at_once = self.shared().state.lock().outboxes.behind(session, note);
        if let Some((note, batch)) = at_once {
            note();
            self.shared().done(&batch);
        } else {
            self.shared().wake();
        }
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

    /// Which numbers a session has given, and which are kept.
    pub async fn span(&self, session: &str) -> Result<SequenceRange, JournalError> {
        // No event has a greater number.
        let query =
            EventQuery { after: i64::MAX.unsigned_abs(), limit: 1, ..EventQuery::default() };
        Ok(self.page(session, query).await?.span)
    }

    /// Reads events of several sessions in the order of their times. A page that is not the last may
    /// have no event.
    pub async fn search(&self, search: EventSearch) -> Result<FoundEvents, JournalError> {
        self.read(move |connection| search::search(connection, &search)).await
    }

    /// Reads events of all sessions in the order in which they were kept: at most so many of those
    /// that were kept after this number.
    pub async fn kept_after(
        &self,
        number: u64,
        limit: usize,
    ) -> Result<NumberedPage, JournalError> {
        self.read(move |connection| reader::kept_after(connection, number, limit)).await
    }

    /// Every session that the journal has events of, or had.
    pub async fn sessions(&self) -> Result<Vec<(Arc<str>, SequenceRange)>, JournalError> {
        self.read(reader::sessions).await
    }

    /// The alerts that the events of each session say are raised, by the alerts' names.
    pub async fn raised_alerts(&self) -> Result<Vec<(Arc<str>, String)>, JournalError> {
        self.read(reader::raised).await
    }

    /// How far a sink has come with each session: the number of the last event that it has taken.
    pub async fn cursors(&self, sink: &Arc<str>) -> Result<Vec<(Arc<str>, u64)>, JournalError> {
        // First those that are not written yet: what is written meanwhile is read.
        let waiting: Vec<(Arc<str>, u64)> = {
            let state = self.shared().state.lock();
            let own = state.cursors.iter().filter(|((of, _), _)| of == sink);
            own.map(|((_, session), seq)| (Arc::clone(session), *seq)).collect()
        };
        let sink = Arc::clone(sink);
        let written = self.read(move |connection| reader::cursors(connection, &sink)).await?;
        let cursors: BTreeMap<_, _> = written.into_iter().chain(waiting).collect();
        Ok(cursors.into_iter().collect())
    }

    /// Notes how far a sink has come. Written with the next events; a kill may set a sink back by a
    /// second.
    pub fn set_cursors(&self, sink: &Arc<str>, cursors: Vec<(Arc<str>, u64)>) {
        if let Some(log) = self.shared().log.get() {
            cursors.iter().for_each(|(session, seq)| log.note_cursor(sink, session, *seq));
        }
        let cursors = cursors.into_iter().map(|(session, seq)| ((Arc::clone(sink), session), seq));
        self.shared().state.lock().cursors.extend(cursors);
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
        let busy = self.shared().state.lock().outboxes.busy();
        for session in busy {
            let waiting = waiting.clone();
            self.after_pending(&session, Box::new(move || drop(waiting)));
        }
        drop(waiting);
        loop {
            {
                let state = self.shared().state.lock();
                if state.closed {
                    return Err(JournalError::Ended);
                }
                if state.why_failing().is_some() {
                    return Err(JournalError::Failing);
                }
            }
            tokio::select! {
                _ = all.recv() => break,
                changed = progress.changed() => changed.map_err(|_| JournalError::Ended)?,
            }
        }
        let (done, written) = oneshot::channel();
        self.shared().state.lock().flushing.push(done);
        self.shared().wake.notify_all();
        written.await.map_err(|_| JournalError::Ended)
    }

    /// Whether events and their pictures are kept. Needs no disk.
    pub fn health(&self) -> EventHealth {
        let metrics = self.metrics();
        let state = self.shared().state.lock();
        EventHealth {
            failing: state.why_failing().cloned(),
            pictures: state.pictures.clone(),
            clock: state.clock.clone(),
            waiting: state.outboxes.waiting() as u64,
            lost: metrics.lost,
            pictures_lost: metrics.pictures_lost,
        }
    }

    /// How the journal stands.
    pub fn metrics(&self) -> JournalMetrics {
        *self.shared().metrics.lock()
    }

    fn shared(&self) -> &JournalInner {
        &self.owner.shared
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (give, value) = oneshot::channel();
        let work = move |connection: &Connection| {
            // The caller may be gone.
            let _ = give.send(work(connection));
        };
        self.reads.send(Box::new(work)).await.map_err(|_| JournalError::Ended)?;
        value.await.map_err(|_| JournalError::Ended)?.map_err(JournalError::Read)
    }
}

#[cfg(test)]
mod tests;
