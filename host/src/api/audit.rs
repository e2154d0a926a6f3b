//! The audit log: one line in the main log for each change and for each request that is denied. The
//! newest are kept for `GET /v1/audit`.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use ocelli_protocol::digest::Digest;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::access::{Caller, Role};
use super::client_address;
use super::control::Control;
use super::extract::InQuery;
use super::problem::Problem;
use super::request_id::RequestId;
use super::state::ApiState;

/// The log target of these lines.
const TARGET: &str = "ocelli::audit";

/// Bytes of a command that its line shows: a line of the log stays a line.
const MAX_SHOWN: usize = 200;

/// Lines that are kept: with texts of [`MAX_SHOWN`] some 1 MiB. The log has the others.
const KEPT: usize = 1000;

/// Lines of `GET /v1/audit` unless the client sets `lines`.
const LISTED: usize = 100;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum AuditKind {
    /// A change, a login or a logout.
    Done,
    /// A known caller lacks a right.
    Denied,
    /// No valid token and no login.
    NotAuthenticated,
    /// Connections over a limit.
    TurnedAway,
}

/// A line of the audit log.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub(super) struct AuditLine {
    /// By this machine's clock, as RFC 3339 writes it.
    time: String,
    what: AuditKind,
    /// The token's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    caller: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    /// The client's address, and its port if one connection is meant.
    peer: String,
    /// The `operationId` or message in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    action: Option<&'static str>,
    /// The session, pipeline or other name that the action is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// What the action was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    /// The status of the answer, or a word.
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    /// Why somebody was not let in.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// `X-Request-Id` of the request, of a WebSocket's messages that of its opening.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl AuditLine {
    fn new(what: AuditKind, peer: String) -> Self {
        Self {
            time: format!("{:.3}", Timestamp::now()),
            what,
            caller: None,
            role: None,
            peer,
            action: None,
            subject: None,
            detail: None,
            outcome: None,
            reason: None,
            request_id: RequestId::current().map(|id| id.as_str().to_owned()),
        }
    }

    fn of(what: AuditKind, caller: &Caller, peer: SocketAddr, action: &'static str) -> Self {
        Self {
            caller: Some((*caller.name).to_owned()),
            role: Some(caller.role),
            action: Some(action),
            ..Self::new(what, client_address::shown(peer))
        }
    }

    fn about(self, subject: &str) -> Self {
        Self { subject: (!subject.is_empty()).then(|| cut(subject)), ..self }
    }
}

/// The newest lines. A clone is the same log.
#[derive(Debug, Clone, Default)]
pub(super) struct AuditLog(Arc<Mutex<VecDeque<AuditLine>>>);

impl AuditLog {
    fn keep(&self, line: AuditLine) {
        let mut lines = self.0.lock();
        if lines.len() >= KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    /// The last so many lines, the newest last.
    fn newest(&self, count: usize) -> Vec<AuditLine> {
        let lines = self.0.lock();
        lines.iter().skip(lines.len().saturating_sub(count)).cloned().collect()
    }

    /// Begins an action of a caller that comes from `peer`.
    pub(super) fn begin(
        &self,
        caller: &Caller,
        peer: SocketAddr,
        action: &'static str,
        subject: &str,
    ) -> AuditEntry {
        let outcome = "not waited for".to_owned();
        let (log, caller, subject) = (self.clone(), caller.clone(), subject.to_owned());
        let request = RequestId::current();
        AuditEntry { log, caller, peer, action, subject, detail: None, outcome, request }
    }

    /// A caller has no right to an action.
    pub(super) fn denied(
        &self,
        caller: &Caller,
        peer: SocketAddr,
        action: &'static str,
        subject: &str,
    ) {
        let line = AuditLine::of(AuditKind::Denied, caller, peer, action).about(subject);
        tracing::warn!(
            target: TARGET,
            caller = &*caller.name, role = caller.role.name(), peer = %line.peer, action,
            subject,
            request_id = line.request_id, "denied"
        );
        self.keep(line);
    }

    /// A request has no valid token.
    pub(super) fn unknown(&self, peer: SocketAddr, action: &'static str, reason: &str) {
        let line = AuditLine::new(AuditKind::NotAuthenticated, client_address::shown(peer));
        let (peer, request_id) = (line.peer.as_str(), line.request_id.as_deref());
        tracing::warn!(target: TARGET, %peer, action, reason, request_id, "not authenticated");
        self.keep(AuditLine { action: Some(action), reason: Some(cut(reason)), ..line });
    }

    /// So many connections have been closed, the last one of this address.
    pub(super) fn turned_away(&self, peer: IpAddr, connections: u64, reason: &str) {
        tracing::warn!(target: TARGET, %peer, connections, "turned away: {reason}");
        let reason = Some(format!("{connections} connections: {reason}"));
        self.keep(AuditLine { reason, ..AuditLine::new(AuditKind::TurnedAway, peer.to_string()) });
    }
}

/// The query of `GET /v1/audit`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    lines: Option<usize>,
}

/// `GET /v1/audit`.
pub(super) async fn list<C: Control>(
    State(state): State<Arc<ApiState<C>>>,
    InQuery(AuditQuery { lines }): InQuery<AuditQuery>,
) -> Result<Response, Problem> {
    let lines = lines.unwrap_or(LISTED);
    if !(1..=KEPT).contains(&lines) {
        return Err(Problem::bad("bad_query", format!("lines is 1 to {KEPT}")));
    }
    Ok(Json(json!({"lines": state.gate.audit.newest(lines)})).into_response())
}

/// What an action was given, for its line: a route puts it into its answer's extensions.
#[derive(Debug, Clone)]
pub(super) struct AuditDetail(pub(super) Value);

/// A change that a caller makes. The line is written on drop, for a client that goes away before
/// the answer too.
#[derive(Debug)]
pub(super) struct AuditEntry {
    log: AuditLog,
    caller: Caller,
    peer: SocketAddr,
    action: &'static str,
    /// The session's or the pipeline's name.
    subject: String,
    /// What the action is given, as [`shown`] shows it.
    detail: Option<String>,
    outcome: String,
    request: Option<RequestId>,
}

impl AuditEntry {
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
        let Self { log, caller, peer, action, subject, detail, outcome, request } = self;
        let request_id = request.as_ref().map(RequestId::as_str);
        let line = AuditLine::of(AuditKind::Done, caller, *peer, action).about(subject);
        // No field `session`: it would make a log file for any name that a client sends.
        tracing::info!(
            target: TARGET,
            caller = &*caller.name, role = caller.role.name(), peer = %line.peer, action,
            subject = subject.as_str(),
            detail = detail.as_deref(), outcome = outcome.as_str(), request_id, "done"
        );
        let (detail, outcome) = (detail.take(), Some(std::mem::take(outcome)));
        // It may be dropped by another task than the request's.
        let request_id = request_id.map(str::to_owned);
        log.keep(AuditLine { detail, outcome, request_id, ..line });
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

/// The beginning of a text from a client.
fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_SHOWN)).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_lines_are_kept_and_none_is_longer_than_its_bound() {
        let log = AuditLog::default();
        let (caller, peer) = (Caller::local(), SocketAddr::from(([192, 0, 2, 1], 9)));
        for number in 0..KEPT + 2 {
            log.denied(&caller, peer, "stop", &format!("{number} {}", "ü".repeat(500)));
        }
        log.begin(&caller, peer, "restart", "gate").finish(202);
        let lines = log.newest(usize::MAX);
        assert_eq!(lines.len(), KEPT);
        assert!(lines[0].subject.as_ref().unwrap().starts_with("3 "), "the oldest are gone");
        assert!(lines.iter().all(|line| line.subject.as_ref().unwrap().len() <= MAX_SHOWN));
        let newest = serde_json::to_value(log.newest(1)).unwrap();
        let time = newest[0]["time"].as_str().unwrap().to_owned();
        assert_eq!(time.len(), "2026-01-02T03:04:05.678Z".len(), "{time}");
        let line = json!({
            "time": time, "what": "done", "caller": "local", "role": "admin",
            "peer": "192.0.2.1:9", "action": "restart", "subject": "gate", "outcome": "202"
        });
        assert_eq!(newest, json!([line]));
    }

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
