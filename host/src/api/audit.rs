//! The audit log: one line in the main log for each change and for each request that is denied.

use std::net::SocketAddr;

use ocelli_protocol::digest::Digest;
use serde_json::Value;

use super::access::Caller;

/// The log target of these lines.
const TARGET: &str = "ocelli::audit";

/// Bytes of a command that its line shows: a line of the log stays a line.
const MAX_SHOWN: usize = 200;

/// A change that a caller makes. The line is written on drop, for a client that goes away before
/// the answer too.
#[derive(Debug)]
pub(super) struct AuditEntry {
    caller: Caller,
    peer: SocketAddr,
    action: &'static str,
    /// The session's or the pipeline's name.
    subject: String,
    /// What the action is given, as [`shown`] shows it.
    detail: Option<String>,
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
        let (caller, subject) = (caller.clone(), subject.to_owned());
        Self { caller, peer, action, subject, detail: None, outcome }
    }

    /// With what the action is given.
    pub(super) fn given(mut self, value: &Value) -> Self {
        self.detail = Some(shown(value));
        self
    }

    /// Ends it with this outcome.
    pub(super) fn finish(mut self, outcome: impl ToString) {
        self.outcome = outcome.to_string();
    }
}

impl Drop for AuditEntry {
    fn drop(&mut self) {
        let Self { caller, peer, action, subject, detail, outcome } = self;
        // No field `session`: it would make a log file for any name that a client sends.
        tracing::info!(
            target: TARGET,
            caller = &*caller.name, role = caller.role.name(), %peer, action, subject = subject.as_str(),
            detail = detail.as_deref(), outcome = outcome.as_str(), "done"
        );
    }
}

/// A value as JSON. Of a long one its beginning, with its length and digest.
fn shown(value: &Value) -> String {
    let whole = value.to_string();
    if whole.len() <= MAX_SHOWN {
        return whole;
    }
    let beginning = whole.get(..whole.floor_char_boundary(MAX_SHOWN)).unwrap_or_default();
    format!("{beginning}... ({} bytes, SHA-256 {})", whole.len(), Digest::of(&whole))
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_long_command_is_shown_by_its_beginning_and_its_digest() {
        assert_eq!(shown(&json!({"reset": "counts\n"})), r#"{"reset":"counts\n"}"#);
        let long = json!("ü".repeat(10_000));
        let text = shown(&long);
        let digest = Digest::of(long.to_string()).to_string();
        assert!(text.starts_with("\"üü") && text.contains("(20002 bytes"), "{text}");
        assert!(text.contains(&digest) && text.len() < 2 * MAX_SHOWN, "{text}");
    }
}
