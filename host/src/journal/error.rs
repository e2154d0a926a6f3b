//! Why the journal did not do what it was asked.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// An error of the journal. The API answers with `internal`, whichever it is: the reason is the
/// host's own.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The thread that reads or writes has ended, or was never started.
    #[error("the journal has ended")]
    Ended,
    /// SQLite refused a change, or the commit that it was a part of.
    #[error("writing the journal: {0}")]
    Write(Arc<rusqlite::Error>),
    /// SQLite could not read.
    #[error("reading the journal: {0}")]
    Read(rusqlite::Error),
    /// The file of an attachment could not be read.
    #[error("reading an attachment: {0}")]
    Attachment(io::Error),
    /// Commits of events fail: the events that wait are lost if the host ends now.
    #[error("events cannot be kept: those that wait are lost")]
    Failing,
    /// The file's schema is one of a version to come. Nothing was changed in its folder.
    #[error(
        "newer_store: {} was written by a newer version of ocelli (schema {found}, this version \
         knows {known}): run that version, or restore a backup from before it", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: usize,
        /// The schema of this version.
        known: usize,
    },
    /// Another backup is being made.
    #[error("a backup is being made")]
    BackupUnderWay,
    /// The backup could not be made. Nothing of it is left.
    #[error("making a backup: {0:#}")]
    Backup(anyhow::Error),
}
