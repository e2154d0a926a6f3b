//! What the host keeps on disk beside files: the sessions' `wasi:keyvalue` stores, the history of
//! deployments, and the readers of cameras. One SQLite file, `journal.db` in the store's folder.
//!
//! # Theory of operation
//!
//! One thread ([`writer`]) owns the one connection. What is asked of it waits in a bounded queue
//! and is done in its order, so a read sees every write that was asked for before it. Each write is
//! a savepoint: it happens as a whole or not at all.
//!
//! Writes are committed together, with `synchronous = FULL`: what is committed is on the disk. Two
//! kinds differ in who waits:
//!
//! - **Deployments** are committed at once, and the caller waits for it.
//! - **Changes of a session's store** are committed without a caller that waits, as soon as 100 ms
//!   have passed since the commit before, so a pipeline that writes with each frame costs ten
//!   writes to the disk in a second. When the power fails, or the host is killed, the last 100 ms
//!   of such changes may be lost; of the changes that one call made, and that are given together,
//!   never a part alone.
//!
//! The file is looked through at the start. One that is damaged is put aside under another name and
//! a new one is begun, which the log says as an error. While a host has the file no other process
//! can open it.

mod backup;
mod deployments;
mod error;
pub mod events;
mod file;
mod kv_store;
mod readers;
mod writer;

use std::path::Path;
use std::sync::{Arc, OnceLock};

use rusqlite::Connection;
use tokio::sync::{mpsc, oneshot};

use crate::util::folder::Folder;
pub use backup::{Backup, copy as copy_backup, discard as discard_backup};
pub use deployments::DeploymentRow;
pub use error::JournalError;
use events::EventJournal;
pub use kv_store::StoreMirror;
pub use readers::ReaderRow;
use writer::{FailingReason, JournalJob};

/// Jobs that may wait for the writer: those of a second in which fifty sessions write with each
/// frame, and the disk does not answer.
const QUEUE: usize = 1024;

/// The name of the file in the store's folder.
pub const FILE: &str = "journal.db";

/// What a file is to be like.
#[derive(Debug)]
struct DatabaseSpec {
    /// What leads from each version of the schema to the next; `user_version` counts those that a
    /// file has had.
    migrations: &'static [&'static str],
    /// Set when it is opened, in this order.
    pragmas: &'static [(&'static str, &'static str)],
    /// What is lost with a damaged one, for the log.
    contents: &'static str,
}

const KIND: DatabaseSpec = DatabaseSpec {
    migrations: &[
        "
    CREATE TABLE stores (session TEXT PRIMARY KEY, used INTEGER NOT NULL) WITHOUT ROWID;
    CREATE INDEX stores_used ON stores (used);
    CREATE TABLE kept (
        session TEXT NOT NULL REFERENCES stores ON DELETE CASCADE,
        bucket TEXT NOT NULL,
        key TEXT NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (session, bucket, key)
    ) WITHOUT ROWID;
    CREATE TABLE deployments (
        session TEXT NOT NULL,
        number INTEGER NOT NULL,
        -- Ascends over all sessions.
        seq INTEGER NOT NULL,
        under_way INTEGER NOT NULL,
        -- Whether the session is the config's.
        configured INTEGER NOT NULL,
        -- JSON.
        record TEXT NOT NULL,
        PRIMARY KEY (session, number)
    ) WITHOUT ROWID;
    CREATE INDEX deployments_seq ON deployments (seq);
    CREATE INDEX deployments_under_way ON deployments (under_way) WHERE under_way;
    -- The entry of the config that a camera was given last.
    CREATE TABLE entries (session TEXT PRIMARY KEY, entry TEXT NOT NULL) WITHOUT ROWID;
",
        "
    -- Cameras that the compatible reader reads, by a digest of their URLs without credentials.
    CREATE TABLE readers (
        source TEXT PRIMARY KEY,
        reason TEXT NOT NULL,
        -- Seconds since 1970.
        since INTEGER NOT NULL
    ) WITHOUT ROWID;
",
    ],
    pragmas: &[
        // One process at a time, and no shared memory beside the file: it may lie on a network file
        // system.
        ("locking_mode", "EXCLUSIVE"),
        ("journal_mode", "WAL"),
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
    ],
    contents: "the sessions' stores and the history of deployments",
};

/// The journal. Cheap to clone; the files are closed when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Journal {
    jobs: mpsc::Sender<JournalJob>,
    events: EventJournal,
    failing: FailingReason,
    /// The data directory.
    folder: Folder,
    /// Held while a backup is made.
    backups: Arc<tokio::sync::Mutex<()>>,
    /// Told of changes of stores.
    mirror: Arc<OnceLock<Arc<dyn StoreMirror>>>,
}

impl Journal {
    /// Opens the journal in this folder, or begins one. One of a version to come is refused as
    /// [`JournalError::Newer`] before anything is written.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let folder = file::folder(folder)?;
        file::refuse_newer(&folder, FILE, &KIND)?;
        events::refuse_newer(&folder)?;
        // First the file that no second host can open.
        let (connection, _) = file::open(&folder, FILE, &KIND)?;
        backup::remove(&folder);
        let (jobs, queue) = mpsc::channel(QUEUE);
        let failing = FailingReason::default();
        writer::start(connection, queue, Arc::clone(&failing))?;
        let events = EventJournal::open(&folder)?;
        Ok(Self { jobs, events, failing, folder, backups: Arc::default(), mirror: Arc::default() })
    }

    /// A journal for tests and for `ocelli probe`, in a folder that goes with the last clone of its events.
    pub fn temporary() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let journal = Self::open(folder.path())?;
        journal.events.own(folder);
        Ok(journal)
    }

    /// The journal of events.
    pub fn events(&self) -> &EventJournal {
        &self.events
    }

    /// Why stores and deployments cannot be written, while they cannot.
    pub fn failing(&self) -> Option<String> {
        self.failing.lock().clone()
    }

    /// Waits until everything that was asked for so far is on the disk.
    pub async fn flush(&self) -> Result<(), JournalError> {
        self.commit(|_| Ok(())).await
    }

    /// Writes, and waits until it is on the disk.
    async fn commit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (give, value) = oneshot::channel();
        let (done, committed) = oneshot::channel();
        let work = move |connection: &Connection| {
            // Written all the same where the caller is gone.
            let _ = give.send(work(connection)?);
            Ok(())
        };
        self.send(JournalJob::Write { work: Box::new(work), done: Some(done) }).await?;
        committed.await.map_err(|_| JournalError::Ended)?.map_err(JournalError::Write)?;
        value.await.map_err(|_| JournalError::Ended)
    }

    /// Writes, and waits for room in the queue alone. What fails is logged.
    async fn enqueue_write(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<()> + Send + 'static,
    ) -> Result<(), JournalError> {
        self.send(JournalJob::Write { work: Box::new(work), done: None }).await
    }

    /// Reads. Sees every write that was asked for before.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.read_as(JournalJob::Read, work).await
    }

    /// As [`read`](Self::read), as a command of its own, which no transaction may be around.
    async fn read_outside<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        self.read_as(JournalJob::ReadOutside, work).await
    }

    async fn read_as<T: Send + 'static>(
        &self,
        job: impl FnOnce(Box<dyn FnOnce(&Connection) + Send>) -> JournalJob,
        work: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (give, value) = oneshot::channel();
        let work = move |connection: &Connection| {
            let _ = give.send(work(connection));
        };
        self.send(job(Box::new(work))).await?;
        value.await.map_err(|_| JournalError::Ended)?.map_err(JournalError::Read)
    }

    async fn send(&self, job: JournalJob) -> Result<(), JournalError> {
        self.jobs.send(job).await.map_err(|_| JournalError::Ended)
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod versions;
