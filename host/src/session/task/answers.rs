//! Queries and commands to a session's pipeline that wait for their answers.

use std::collections::BTreeMap;

use ocelli_protocol::worker::RequestFault;

use super::ServeOutcome;
use crate::session::error::SessionError;
use crate::session::handle::AnswerSender;

/// Requests to a pipeline that wait for their answers.
const MAX_PENDING: usize = 64;

/// Requests without an answer yet.
#[derive(Default)]
pub(super) struct PendingAnswers {
    /// By their numbers, with the number of the worker that was asked.
    waiting: BTreeMap<u64, (u64, AnswerSender)>,
    next: u64,
    /// How often another worker took over.
    worker: u64,
}

impl PendingAnswers {
    /// The request's number; `None` if too many wait.
    pub(super) fn add(&mut self, session: &str, reply: AnswerSender) -> Option<u64> {
        // A request whose caller has gone away does not count.
        self.waiting.retain(|_, (_, reply)| !reply.is_closed());
        if self.waiting.len() >= MAX_PENDING {
            let message = format!("session {session:?} has too many unanswered requests");
            let _ = reply.send(Err(SessionError::Refused(message)));
            return None;
        }
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, (self.worker, reply));
        Some(id)
    }

    /// Passes an answer on. An error says that no request has this number.
    pub(super) fn answer(
        &mut self,
        id: u64,
        session: &str,
        answer: Result<String, RequestFault>,
    ) -> Result<(), ServeOutcome> {
        let Some((_, reply)) = self.waiting.remove(&id) else {
            let reason = format!("an answer to request {id}, which was not given");
            return Err(ServeOutcome::ProtocolViolation(reason));
        };
        let _ = reply.send(answer.map_err(|fault| match fault {
            RequestFault::Refused(message) => SessionError::Refused(message),
            RequestFault::NoQueries => SessionError::NoQueries(session.to_owned()),
        }));
        Ok(())
    }

    /// From now on another worker is asked.
    pub(super) fn next_worker(&mut self) {
        self.worker += 1;
    }

    /// Requests to the workers before get no answer.
    pub(super) fn cancel_others(&mut self) {
        let worker = self.worker;
        self.waiting.retain(|_, (asked, _)| *asked == worker);
    }
}
