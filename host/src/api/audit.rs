//! Who did what: one line in the main log for everything that changes something, and for everybody
//! who is turned away.

use std::net::SocketAddr;

use super::access::Caller;

/// The target of these lines.
const TARGET: &str = "ocelli::audit";

/// What somebody does. The line is written when it is dropped: whoever goes away before the answer
/// has done it too.
#[derive(Debug)]
pub(super) struct AuditEntry {
    caller: Caller,
    peer: SocketAddr,
    action: &'static str,
    /// The session, or the pipeline.
    subject: String,
    outcome: String,
}

impl AuditEntry {
    /// Of a caller who comes from `peer`.
    pub(super) fn begin(
        caller: &Caller,
        peer: SocketAddr,
        action: &'static str,
        subject: &str,
    ) -> Self {
        let outcome = "not waited for".to_owned();
        Self { caller: caller.clone(), peer, action, subject: subject.to_owned(), outcome }
    }

    /// What came of it.
    pub(super) fn finish(mut self, outcome: impl ToString) {
        self.outcome = outcome.to_string();
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        let Self { caller, peer, action, subject, outcome } = self;
        // No field `session`: it would make a log file for every name that somebody thinks of.
        tracing::info!(
            target: TARGET,
            caller = &*caller.name, role = caller.role.name(), %peer, action, subject = subject.as_str(),
            outcome = outcome.as_str(), "done"
        );
    }
}

/// Somebody is known and has no right to it.
pub(super) fn denied(caller: &Caller, peer: SocketAddr, action: &str, subject: &str) {
    tracing::warn!(
        target: TARGET,
        caller = &*caller.name, role = caller.role.name(), %peer, action, subject, "denied"
    );
}

/// Somebody is not known.
pub(super) fn unknown(peer: SocketAddr, action: &str, reason: &str) {
    tracing::warn!(target: TARGET, %peer, action, reason, "not authenticated");
}
