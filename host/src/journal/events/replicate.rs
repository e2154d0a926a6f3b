//! Events that are held by more than this host: they are numbered there before they come to the
//! file.
//!
//! # Theory of operation
//!
//! With an [`EventLog`] the journal has one step more. A task takes what waits in the outboxes, a
//! turn of each session, and has the log hold it. What the log holds has numbers, and goes to the
//! writer, which keeps it in the file under these and tells of it, as without a log. So a slow log
//! delays one session and not the others, and whoever is told of an event can ask for it when this
//! host is gone.
//!
//! What other hosts have appended comes in by [`EventJournal::receive`], and goes the same way from
//! there on: the file has the events of all, so whoever reads it need not know whose they are.
//!
//! Events of a session that this host no longer speaks for are not held, kept or told; a file of
//! their own has them ([`untold`](super::untold)).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use super::outbox::{OutboxBatch, OutboxItem};
use super::untold::UntoldEvents;
use super::writer::settle_lost;
use super::{EventDraft, EventJournal, JournalInner};

/// Between two attempts at what the log does not take: an election of its servers takes seconds.
const AGAIN: Duration = Duration::from_millis(300);

/// Batches of other hosts that wait for the writer: two turns of twenty cameras.
const RECEIVED: usize = 40;

/// Numbers and holds events.
pub trait EventLog: Send + Sync {
    /// Holds events of a session, in their order, all or none. Returns the number of the first once
    /// they outlast this host; further ones follow without a gap. Called for one batch of a session
    /// at a time. It is called again with the same events where it was unavailable, and must then
    /// find those that it holds already.
    fn append(&self, session: Arc<str>, events: Vec<EventDraft>) -> Appended;

    /// A sink has taken a session's events up to this number. Never waits.
    fn note_cursor(&self, sink: &str, session: &Arc<str>, seq: u64);
}

impl fmt::Debug for dyn EventLog {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("EventLog")
    }
}

/// See [`EventLog::append`].
pub type Appended = Pin<Box<dyn Future<Output = Result<u64, EventLogError>> + Send>>;

/// Why events are not held.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventLogError {
    /// They are tried again.
    #[error("{0}")]
    Unavailable(String),
    /// This host does not speak for the session, or no more.
    #[error("{0}")]
    NotOwned(String),
}

/// Events of another host, numbered without a gap.
#[derive(Debug, Clone)]
pub struct ReceivedEvents {
    pub session: Arc<str>,
    /// The number of the first.
    pub first: u64,
    pub events: Vec<EventDraft>,
}

impl EventJournal {
    /// Has events held by a log from now on. To be called once, in a runtime, before the first is
    /// appended.
    pub fn set_log(&self, log: Arc<dyn EventLog>) {
        self.shared().state.lock().is_replicated = true;
        if self.shared().log.set(Arc::clone(&log)).is_err() {
            tracing::error!(target: "ocelli::journal", "events have a log already");
        }
        tokio::spawn(replicate(Arc::downgrade(&self.owner.shared), log));
    }

    /// Keeps and tells events of another host. Those that the file has already are passed over.
    /// Waits while the disk has enough to do.
    pub async fn receive(&self, received: ReceivedEvents) {
        let ReceivedEvents { session, first, events } = received;
        let batch = OutboxBatch::received(session, first, events);
        let shared = self.shared();
        loop {
            let room = shared.room.notified();
            {
                let mut state = shared.state.lock();
                if state.numbered.len() < RECEIVED {
                    state.numbered.push_back(batch);
                    break;
                }
            }
            room.await;
        }
        shared.wake.notify_all();
    }
}

/// Has the log hold what waits, until no clone of the journal is left.
async fn replicate(shared: Weak<JournalInner>, log: Arc<dyn EventLog>) {
    loop {
        let Some(journal) = shared.upgrade() else { return };
        let mut parts = {
            let mut state = journal.state.lock();
            if state.closed && !state.outboxes.has_pending() {
                return;
            }
            state.outboxes.take()
        };
        if parts.is_empty() {
            let pending = journal.pending.notified();
            // One that came meanwhile has left a permit.
            pending.await;
            continue;
        }
        settle_lost(&mut parts, (journal.clocks)().wall);
        for part in parts {
            // As many as there are sessions: each has one part at a time.
            tokio::spawn(hold(Arc::clone(&journal), Arc::clone(&log), part));
        }
    }
}

/// Has the log hold a part, however often it has to be tried, and gives it to the writer.
async fn hold(journal: Arc<JournalInner>, log: Arc<dyn EventLog>, part: OutboxBatch) {
    let mut parts = [part];
    let [part] = &parts;
    let events: Vec<EventDraft> = part.events().cloned().collect();
    let session = Arc::clone(&part.session);
    if !events.is_empty() {
        loop {
            let held = log.append(Arc::clone(&session), events.clone()).await;
            let [part] = &mut parts;
            match held {
                Ok(first) => {
                    part.first = Some(first);
                    note_failing(&journal, None);
                    break;
                }
                Err(EventLogError::NotOwned(reason)) => {
                    refuse(&journal, part, &reason).await;
                    break;
                }
                Err(EventLogError::Unavailable(reason)) => note_failing(&journal, Some(reason)),
            }
            // States do not wait for it.
            let notes = journal.state.lock().outboxes.take_overtaking(&mut parts);
            notes.into_iter().for_each(|note| note());
            tokio::time::sleep(AGAIN).await;
            if journal.state.lock().closed {
                return;
            }
        }
    }
    journal.state.lock().numbered.extend(parts);
    journal.wake.notify_all();
}

/// Takes the events out of a part that are not this host's to tell, and keeps them aside.
async fn refuse(journal: &Arc<JournalInner>, part: &mut OutboxBatch, reason: &str) {
    let events: Vec<EventDraft> = part.events().cloned().collect();
    part.items.retain(|item| matches!(item, OutboxItem::Note(_)));
    let (journal, session, reason) =
        (Arc::clone(journal), Arc::clone(&part.session), reason.to_owned());
    let kept = tokio::task::spawn_blocking(move || keep(&journal, &session, &reason, &events));
    // It fails where the host ends.
    let _ = kept.await;
}

/// Keeps events in the file of those that were never told; in the log where that takes none.
fn keep(journal: &JournalInner, session: &str, reason: &str, events: &[EventDraft]) {
    let at = (journal.clocks)().wall;
    let untold = journal.untold.get();
    let kept = match untold {
        Some(untold) => untold.keep(session, reason, at, events),
        None => Err(std::io::ErrorKind::NotFound.into()),
    };
    let file = untold.map(UntoldEvents::shown).unwrap_or_default();
    match kept {
        Ok(()) => tracing::warn!(
            target: "ocelli::journal",
            session,
            events = events.len(),
            "events were neither held nor told, and are kept in {file}: {reason}"
        ),
        Err(error) => {
            for event in events {
                tracing::warn!(
                    target: "ocelli::journal",
                    session,
                    kind = event.kind,
                    event = %event.body,
                    "an event was neither held nor told: {reason}; {file}: {error}"
                );
            }
        }
    }
}

/// Notes why the log holds nothing, or that it does.
fn note_failing(journal: &JournalInner, failing: Option<String>) {
    let now = failing.is_some();
    let text = failing.clone().unwrap_or_default();
    let before = std::mem::replace(&mut journal.state.lock().not_replicated, failing).is_some();
    if before == now {
        return;
    }
    journal.progress.send_modify(|count| *count += 1);
    if now {
        tracing::error!(
            target: "ocelli::journal",
            "events are not held by the site: they wait until they are, none is told before: {text}"
        );
    } else {
        tracing::info!(target: "ocelli::journal", "the site holds events again");
    }
}

#[cfg(test)]
mod tests;
