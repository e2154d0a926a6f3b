//! A worker while it serves: what is sent to it, and the questions that it has not answered.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ocelli_protocol::worker::{Counters, ToWorker};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::worker::Outbox;
use super::{Frames, SessionError};
use crate::source::{SourceEvent, Subscription};

/// Questions to a pipeline that wait for their answer.
const MAX_PENDING: usize = 64;

/// Words from the pump that wait to be heard: one is enough to say that the source changed.
const NOTES: usize = 4;

/// Questions that wait for the pump.
const OUTGOING: usize = 8;

/// How long the pump may take to see that its worker is gone.
const PUMP_GRACE: Duration = Duration::from_millis(500);

/// What the pump says of the source.
pub(super) enum Note {
    Up,
    Down(String),
    Ended,
}

type Answer = oneshot::Sender<Result<String, SessionError>>;

/// What was written to a worker.
#[derive(Default)]
pub(super) struct Sent {
    /// Access units.
    pub(super) units: AtomicU64,
    /// The end of its file.
    pub(super) end: AtomicBool,
}

/// A worker that gets frames.
pub(super) struct Serving {
    pub(super) notes: mpsc::Receiver<Note>,
    outgoing: mpsc::Sender<ToWorker>,
    pump: JoinHandle<Subscription>,
    pub(super) pending: BTreeMap<u64, Answer>,
    next_question: u64,
    pub(super) since: Instant,
    pub(super) sent: Arc<Sent>,
    dropped: Arc<AtomicU64>,
}

impl Serving {
    pub(super) fn start(outbox: Outbox, subscription: Subscription) -> Self {
        let (note_sender, notes) = mpsc::channel(NOTES);
        let (outgoing, questions) = mpsc::channel(OUTGOING);
        let dropped = subscription.dropped();
        let sent = Arc::<Sent>::default();
        let pump = tokio::spawn(pump(outbox, subscription, questions, note_sender, Arc::clone(&sent)));
        Self {
            notes,
            outgoing,
            pump,
            pending: BTreeMap::new(),
            next_question: 0,
            since: Instant::now(),
            sent,
            dropped,
        }
    }

    /// The worker's counts, with what never reached it.
    pub(super) fn frames(&self, counters: Counters) -> Frames {
        let mut frames = Frames::from(counters);
        frames.skipped.queue = self.dropped.load(Ordering::Relaxed);
        frames
    }

    pub(super) fn ask(&mut self, session: &str, request: String, answer: Answer) {
        let id = self.next_question;
        self.next_question += 1;
        // A question whose asker has gone away does not take up room.
        self.pending.retain(|_, waiting| !waiting.is_closed());
        let sent = self.pending.len() < MAX_PENDING
            && self.outgoing.try_send(ToWorker::Command { id, request }).is_ok();
        if sent {
            self.pending.insert(id, answer);
        } else {
            let message = format!("session {session:?} has too many unanswered commands");
            let _ = answer.send(Err(SessionError::Refused(message)));
        }
    }

    /// Ends the pump, which closes the worker's connection, and gives the subscription back. Questions still open are
    /// answered by dropping them.
    pub(super) async fn stop(self, session: &str) -> Option<Subscription> {
        // The pump may be waiting for a worker that no longer reads: its write fails when that worker is killed, but a
        // session must not wait for that.
        drop(self.outgoing);
        drop(self.notes);
        let mut pump = self.pump;
        match tokio::time::timeout(PUMP_GRACE, &mut pump).await {
            Ok(Ok(subscription)) => Some(subscription),
            Ok(Err(error)) => {
                tracing::error!(target: "ocelli::session", session, "the pump failed: {error}");
                None
            }
            Err(_) => {
                pump.abort();
                let _ = pump.await;
                None
            }
        }
    }
}

/// Carries access units from the source to the worker, and questions between them, until the session or the worker is
/// gone. Gives the subscription back.
async fn pump(
    mut outbox: Outbox,
    mut subscription: Subscription,
    mut questions: mpsc::Receiver<ToWorker>,
    notes: mpsc::Sender<Note>,
    written: Arc<Sent>,
) -> Subscription {
    let mut ended = false;
    loop {
        let sent = tokio::select! {
            biased;
            question = questions.recv() => match question {
                Some(question) => outbox.send(&question, &[]).await,
                None => return subscription,
            },
            event = subscription.next(), if !ended => match event {
                SourceEvent::Unit(unit) => {
                    let sent = outbox.send_unit(&unit).await;
                    written.units.fetch_add(1, Ordering::Relaxed);
                    sent
                }
                SourceEvent::Up => {
                    let _ = notes.send(Note::Up).await;
                    Ok(())
                }
                SourceEvent::Down(fault) => {
                    let _ = notes.send(Note::Down(fault.message)).await;
                    Ok(())
                }
                SourceEvent::Ended => {
                    ended = true;
                    let _ = notes.send(Note::Ended).await;
                    written.end.store(true, Ordering::Release);
                    outbox.send(&ToWorker::End, &[]).await
                }
            },
        };
        // The worker is gone: its end of the connection tells the session.
        if sent.is_err() {
            return subscription;
        }
    }
}
