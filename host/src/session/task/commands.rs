//! Commands to a session's pipeline that wait for their answers.

use std::collections::BTreeMap;

use super::ServeOutcome;
use crate::session::error::SessionError;
use crate::session::handle::CommandReply;

/// Commands to a pipeline that wait for their answer.
const MAX_PENDING: usize = 64;

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
    pub(super) fn add(&mut self, session: &str, reply: CommandReply) -> Option<u64> {
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
            let reason = format!("an answer to command {id}, which was not given");
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
