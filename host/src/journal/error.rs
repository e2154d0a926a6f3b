//! Why the journal did not do what it was asked.

use std::io;
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
}
