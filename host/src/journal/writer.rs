//! The thread that owns the connection: it does what is asked for in its order, and commits several
//! writes at once.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Between two commits that no caller waits for; the module above says what that costs.
const SPACING: Duration = Duration::from_millis(100);

/// Writes of one commit at most, so that a caller does not wait for a flood of others.
const BATCH: usize = 256;

/// Between two looks whether a journal that could not be written can be written again.
const PROBE: Duration = Duration::from_secs(1);

type Write = Box<dyn FnOnce(&Connection) -> rusqlite::Result<()> + Send>;
type Read = Box<dyn FnOnce(&Connection) + Send>;

/// Why the journal cannot be written, while it cannot.
pub(super) type FailingReason = Arc<Mutex<Option<String>>>;

/// What became of a write. One error fails all writes of a commit.
type Committed = Result<(), Arc<rusqlite::Error>>;

pub(super) enum JournalJob {
    /// Done as a whole or not at all. With `done` it is committed soon, and said to be.
    Write {
        work: Write,
        done: Option<oneshot::Sender<Committed>>,
    },
    Read(Read),
    /// As `Read`, after a commit: it cannot be done within a transaction.
    ReadOutside(Read),
}

/// Starts the thread. It ends, with everything committed, when the last sender is gone.
pub(super) fn start(
    connection: Connection,
    queue: mpsc::Receiver<JournalJob>,
    failing: FailingReason,
) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.context("starting the journal")?;
    let writer = JournalWriter { connection, batch: None, last_commit: None, failing };
    let thread = std::thread::Builder::new().name("journal".to_owned());
    thread.spawn(move || runtime.block_on(writer.run(queue))).context("starting the journal")?;
    Ok(())
}

/// Writes that are not committed yet.
#[derive(Default)]
struct WriteBatch {
    writes: usize,
    /// Callers that wait for the commit.
    waiting: Vec<oneshot::Sender<Committed>>,
}

struct JournalWriter {
    connection: Connection,
    /// Some while a transaction is open.
    batch: Option<WriteBatch>,
    last_commit: Option<Instant>,
    /// Why the last commit failed: a disk that stays full is one line in the log.
    failing: FailingReason,
}

impl JournalWriter {
    async fn run(mut self, mut queue: mpsc::Receiver<JournalJob>) {
        loop {
            let job = match &self.batch {
                None if self.failing.lock().is_some() => {
                    match tokio::time::timeout(PROBE, queue.recv()).await {
                        Ok(job) => job,
                        Err(_) => {
                            self.probe();
                            continue;
                        }
                    }
                }
                None => queue.recv().await,
                Some(batch) if batch.writes >= BATCH => {
                    self.commit();
                    continue;
                }
                // A caller that waits gets its commit as soon as nothing more is there to share it.
                Some(batch) if !batch.waiting.is_empty() => match queue.try_recv() {
                    Ok(job) => Some(job),
                    Err(_) => {
                        self.commit();
                        continue;
                    }
                },
                Some(_) => match tokio::time::timeout_at(self.due(), queue.recv()).await {
                    Ok(job) => job,
                    Err(_) => {
                        self.commit();
                        continue;
                    }
                },
            };
            match job {
                Some(job) => self.take(job),
                None => break,
            }
        }
        self.commit();
    }

    /// When writes that no caller waits for are committed.
    fn due(&self) -> Instant {
        self.last_commit.map_or_else(Instant::now, |last| last + SPACING)
    }

    fn take(&mut self, job: JournalJob) {
        match job {
            JournalJob::Read(work) => work(&self.connection),
            JournalJob::ReadOutside(work) => {
                self.commit();
                work(&self.connection);
            }
            JournalJob::Write { work, done } => match self.write(work) {
                Ok(()) => {
                    if let Some(batch) = &mut self.batch {
                        batch.writes += 1;
                        batch.waiting.extend(done);
                    }
                }
                Err(error) => {
                    if done.is_none() || error.sqlite_error_code() == Some(ErrorCode::DiskFull) {
                        self.failed(1, &error);
                    }
                    if let Some(done) = done {
                        // The caller may be gone.
                        let _ = done.send(Err(Arc::new(error)));
                    }
                }
            },
        }
    }

    /// One write, within the batch's transaction.
    fn write(&mut self, work: Write) -> rusqlite::Result<()> {
        if self.batch.is_none() {
            self.connection.execute_batch("BEGIN IMMEDIATE")?;
            self.batch = Some(WriteBatch::default());
        }
        self.connection.execute_batch("SAVEPOINT one")?;
        let written = work(&self.connection);
        let end = if written.is_ok() { "RELEASE one" } else { "ROLLBACK TO one; RELEASE one" };
        // A full disk can have ended the transaction by itself: then the commit fails, and says so.
        written.and(self.connection.execute_batch(end))
    }

    fn commit(&mut self) {
        let Some(batch) = self.batch.take() else { return };
        let committed = self.connection.execute_batch("COMMIT").map_err(Arc::new);
        self.last_commit = Some(Instant::now());
        match &committed {
            Ok(()) => self.works(),
            Err(error) => {
                self.failed(batch.writes, error);
                // An error here says that there is no transaction any more.
                let _ = self.connection.execute_batch("ROLLBACK");
            }
        }
        for waiting in batch.waiting {
            // The caller may be gone.
            let _ = waiting.send(committed.clone());
        }
    }

    /// Tries whether the file can be written: who would have written it may have given up.
    fn probe(&mut self) {
        let version = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        let rewrite = || {
            let version = self.connection.query_row("PRAGMA user_version", [], version)?;
            self.connection.pragma_update(None, "user_version", version)
        };
        if rewrite().is_ok() {
            self.works();
        }
    }

    fn works(&mut self) {
        if self.failing.lock().take().is_some() {
            tracing::info!(target: "ocelli::journal", "the journal is written again");
        }
    }

    fn failed(&mut self, writes: usize, error: &rusqlite::Error) {
        if self.failing.lock().replace(error.to_string()).is_none() {
            tracing::error!(
                target: "ocelli::journal",
                "the journal cannot be written, {writes} changes are lost, and so are those that \
                    follow until it can: {error}"
            );
        }
    }
}
