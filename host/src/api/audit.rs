//! The audit log: one line in the main log for each change and for each request that is denied.

use std::net::SocketAddr;

use super::access::Caller;

/// The log target of these lines.
const TARGET: &str = "ocelli::audit";

/// A change that a caller makes. The line is written on drop, for a client that goes away before
/// the answer too.
#[derive(Debug)]
pub(super) struct AuditEntry {
    caller: Caller,
    peer: SocketAddr,
    action: &'static str,
    /// The session's or the pipeline's name.
    subject: String,
    outcome: String,
}

impl AuditEntry {
    /// Begins an action of a caller that comes from `peer`.
    pub(super) fn begin(
        caller: &Caller,
        peer: SocketAddr,
        action: &'static str,
        subject: &str,
    ) -> Self {
        let outcome = "not waited for".to_owned();
        Self { caller: caller.clone(), peer, action, subject: subject.to_owned(), outcome }
    }

    /// Ends it with this outcome.
    pub(super) fn finish(mut self, outcome: impl ToString) {
        self.outcome = outcome.to_string();
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        let Self { caller, peer, action, subject, outcome } = self;
        // No field `session`: it would make a log file for any name that a client sends.
        tracing::info!(
            target: TARGET,
            caller = &*caller.name, role = caller.role.name(), %peer, action, subject = subject.as_str(),
            outcome = outcome.as_str(), "done"
        );
    }
}

/// Logs that a caller has no right to an action.
pub(super) fn denied(caller: &Caller, peer: SocketAddr, action: &str, subject: &str) {
    tracing::warn!(
        target: TARGET,
        caller = &*caller.name, role = caller.role.name(), %peer, action, subject, "denied"
    );
}

/// Logs a request without a valid token.
pub(super) fn unknown(peer: SocketAddr, action: &str, reason: &str) {
    tracing::warn!(target: TARGET, %peer, action, reason, "not authenticated");
}
