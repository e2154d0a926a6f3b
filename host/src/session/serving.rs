//! The worker that is active, what feeds it, and the candidate that gets ready beside it.

use std::collections::BTreeMap;

use ocelli_protocol::worker::ToWorker;

use super::error::SessionError;
use super::feed::{Feed, Target};
use super::handle::CommandReply;
use super::rollout::Candidate;
use super::stream_worker::StreamWorker;
use super::task::ServeOutcome;

/// Commands to a pipeline that wait for their answer.
const MAX_PENDING: usize = 64;

/// See the module's documentation.
pub(super) struct Serving {
    pub(super) worker: StreamWorker,
    pub(super) feed: Feed,
    pub(super) candidate: Option<Candidate>,
    pub(super) commands: PendingCommands,
    /// The last frame that is done with.
    pub(super) last_done: Option<u64>,
    /// Snapshots that the worker was asked for and has not given: a change may be given up
    /// meanwhile.
    pub(super) snapshots_pending: u32,
}

impl Serving {
    pub(super) fn new(worker: StreamWorker, feed: Feed, last_done: Option<u64>) -> Self {
        let commands = PendingCommands::default();
        Self { worker, feed, candidate: None, commands, last_done, snapshots_pending: 0 }
    }

    /// No worker has to process this frame any more.
    pub(super) fn mark_done(&mut self, frame: u64) {
        self.last_done = self.last_done.max(Some(frame));
        self.feed.mark_done(frame);
    }

    /// Whether the candidate has the source's units.
    pub(super) fn is_promoted(&self) -> bool {
        self.candidate.as_ref().is_some_and(Candidate::is_promoted)
    }

    /// Asks the pipeline that is active, or will be after the units in its lane.
    pub(super) async fn command(&mut self, session: &str, request: String, reply: CommandReply) {
        if let Some(id) = self.commands.add(session, reply) {
            self.feed.send(Target::Active, ToWorker::Command { id, request }, Vec::new()).await;
        }
    }

    /// Takes the candidate out and lets the running version have everything.
    pub(super) async fn detach_candidate(&mut self) -> Option<Candidate> {
        let candidate = self.candidate.take()?;
        if candidate.is_promoted() {
            self.feed.revert().await;
            // Commands to the candidate get no answer.
            self.commands.next_worker();
            self.commands.cancel_others();
        } else {
            self.feed.detach().await;
        }
        Some(candidate)
    }
}

/// Commands without an answer yet.
#[derive(Default)]
pub(super) struct PendingCommands {
    /// By their numbers, with the number of the worker that was asked.
    waiting: BTreeMap<u64, (u64, CommandReply)>,
    next: u64,
    /// How often another worker took over.
    worker: u64,
}

impl PendingCommands {
    /// The command's number; `None` if too many wait.
    fn add(&mut self, session: &str, reply: CommandReply) -> Option<u64> {
        // A command whose caller has gone away does not count.
        self.waiting.retain(|_, (_, reply)| !reply.is_closed());
        if self.waiting.len() >= MAX_PENDING {
            let message = format!("session {session:?} has too many unanswered commands");
            let _ = reply.send(Err(SessionError::Refused(message)));
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, (self.worker, reply));
        Some(id)
    }

    /// Passes an answer on. An error says that no command has this number.
    pub(super) fn answer(
        &mut self,
        id: u64,
        answer: Result<String, String>,
    ) -> Result<(), ServeOutcome> {
        let Some((_, reply)) = self.waiting.remove(&id) else {
            let reason = format!("an answer to a question {id} that nobody asked");
            return Err(ServeOutcome::ProtocolViolation(reason));
        };
        let _ = reply.send(answer.map_err(SessionError::Refused));
        Ok(())
    }

    /// From now on another worker is asked.
    pub(super) fn next_worker(&mut self) {
        self.worker += 1;
    }

    /// Commands to the workers before get no answer.
    pub(super) fn cancel_others(&mut self) {
        let worker = self.worker;
        self.waiting.retain(|_, (asked, _)| *asked == worker);
    }
}
