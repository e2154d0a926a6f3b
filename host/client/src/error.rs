//! Errors, of this crate and of the host.

use std::fmt;
use std::io;
use std::time::Duration;

use hyper::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Why a request failed. The text includes the causes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The URL is not that of a host.
    #[error("{0:?} is not the URL of a host")]
    Url(String),
    /// The token or the program's name cannot stand in a header.
    #[error("{0} holds what no header may")]
    Header(&'static str),
    /// A file of certificates has none.
    #[error("no certificate in PEM")]
    NoCertificate,
    /// TLS cannot be set up.
    #[error("TLS: {0}")]
    Tls(rustls::Error),
    /// There is no connection: the host does not listen, or TLS fails.
    #[error("no connection: {0}")]
    Connect(io::Error),
    /// The host took too long.
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The connection broke before the answer.
    #[error("the connection failed: {}", with_causes(.0))]
    Http(hyper::Error),
    /// The host refused the request.
    #[error("{0}")]
    Problem(Box<Problem>),
    /// The answer is not of an Ocelli host.
    #[error("this is no Ocelli host: {0}")]
    InvalidAnswer(String),
    /// The WebSocket ended. The next call opens another.
    #[error("the WebSocket ended: {0}")]
    Disconnected(String),
}

impl Error {
    /// Whether the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Connect(_) | Self::TimedOut(_) | Self::Http(_) | Self::Disconnected(_) => true,
            Self::Problem(problem) => problem.status >= 500 || problem.status == 429,
            _ => false,
        }
    }
}

impl From<hyper::Error> for Error {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// An error answer: problem details (RFC 9457). The answer of a proxy has an empty `code` and
/// `detail`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// A stable code for programs: `unknown_session`, `forbidden`, ...
    pub code: String,
    /// The reason, for a person.
    pub detail: String,
    /// The `X-Request-Id` of the answer, with which the host's log has the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Further members, such as those of a failed deployment.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

impl Problem {
    /// The problem in an answer with this status.
    pub(crate) fn parse(status: StatusCode, body: &[u8]) -> Self {
        let mut problem: Self = serde_json::from_slice(body).unwrap_or_default();
        // The answer's status counts, not the one in its body.
        problem.status = status.as_u16();
        if problem.title.is_empty() {
            status.canonical_reason().unwrap_or_default().clone_into(&mut problem.title);
        }
        problem
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.status, self.title)?;
        if !self.detail.is_empty() {
            write!(formatter, ": {}", self.detail)?;
        }
        // A person looks into the host's log for the host's own faults alone.
        match &self.request_id {
            Some(id) if self.status >= 500 => write!(formatter, " (request {id})"),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_keeps_its_code_its_words_and_what_else_there_is() {
        let body = json!({"title": "Not Found", "status": 404, "code": "unknown_session", "detail": "there is none",
            "oldest": 3});
        let problem = Problem::parse(StatusCode::NOT_FOUND, body.to_string().as_bytes());
        assert_eq!((problem.status, problem.code.as_str()), (404, "unknown_session"));
        assert_eq!(problem.more.get("oldest"), Some(&json!(3)));
        assert_eq!(problem.to_string(), "404 Not Found: there is none");
        assert_eq!(serde_json::to_value(&problem).unwrap(), body, "nothing is lost");
    }

    #[test]
    fn a_fault_of_the_host_names_the_request_to_look_for_in_its_log() {
        let of = |status, code: &str| {
            let body = json!({"code": code, "detail": "no", "request_id": "a1"});
            Problem::parse(status, body.to_string().as_bytes())
        };
        let fault = of(StatusCode::INTERNAL_SERVER_ERROR, "internal");
        assert_eq!(fault.to_string(), "500 Internal Server Error: no (request a1)");
        let refusal = of(StatusCode::NOT_FOUND, "unknown_session");
        assert_eq!(refusal.to_string(), "404 Not Found: no");
        assert_eq!(refusal.request_id.as_deref(), Some("a1"));
    }

    #[test]
    fn the_answer_of_a_proxy_is_a_problem_too() {
        let problem = Problem::parse(StatusCode::BAD_GATEWAY, b"<html>");
        assert_eq!((problem.status, problem.code.as_str()), (502, ""));
        assert_eq!(problem.to_string(), "502 Bad Gateway");
    }

    #[test]
    fn what_a_person_has_to_change_does_not_pass() {
        let of = |status| Error::from(Problem::parse(status, b"{}"));
        for status in [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS] {
            assert!(of(status).is_transient(), "{status}");
        }
        for status in [StatusCode::UNAUTHORIZED, StatusCode::NOT_FOUND] {
            assert!(!of(status).is_transient(), "{status}");
        }
        assert!(Error::Disconnected("reset".into()).is_transient());
        assert!(!Error::Url("x".into()).is_transient());
    }
}
