//! Checks a client's last event numbers against the journal.

use std::collections::HashMap;
use std::sync::Arc;

use crate::event::Hub;
use crate::journal::JournalError;
use crate::journal::events::{EventQuery, SequenceRange};

/// Why a client cannot resume.
#[derive(Debug, thiserror::Error)]
pub(super) enum ResumeError {
    /// The session has not had so many events.
    #[error("\"after\" is {after}, and the newest event of {session:?} is {}", .span.newest)]
    Ahead { session: String, after: u64, span: SequenceRange },
    /// The journal could not be read.
    #[error("the journal of events cannot be read: {0}")]
    Unreadable(#[from] JournalError),
}

/// Checks the number for one session.
pub(super) async fn check(hub: &Hub, session: &str, after: u64) -> Result<(), ResumeError> {
    if after == 0 {
        return Ok(());
    }
    let query = EventQuery { after, limit: 0, ..EventQuery::default() };
    let page = hub.events().page(session, query).await?;
    compare(session, after, page.span)
}

/// Checks the numbers for several sessions.
pub(super) async fn check_each(hub: &Hub, each: &HashMap<String, u64>) -> Result<(), ResumeError> {
    if each.values().all(|after| *after == 0) {
        return Ok(());
    }
    let spans: HashMap<Arc<str>, SequenceRange> =
        hub.events().sessions().await?.into_iter().collect();
    each.iter().try_for_each(|(session, after)| {
        compare(session, *after, spans.get(session.as_str()).copied().unwrap_or_default())
    })
}

/// Compares a number with those in the journal.
pub(super) fn compare(session: &str, after: u64, span: SequenceRange) -> Result<(), ResumeError> {
    if after <= span.newest {
        Ok(())
    } else {
        Err(ResumeError::Ahead { session: session.into(), after, span })
    }
}
