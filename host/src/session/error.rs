//! Why a request to a session fails.

use std::time::Duration;

/// How long an answer may take: longer than the pipeline's own time limit for a call.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

/// Why a request to a session failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no such session.
    #[error("there is no session {0:?}")]
    Unknown(String),
    /// There is one already.
    #[error("session {0:?} exists already")]
    Exists(String),
    /// As many sessions as are allowed.
    #[error(
        "{limit} sessions run, as many as session_processes.max_concurrent_sessions allows: {}",
        holders.join(", ")
    )]
    Limit { limit: usize, holders: Vec<String> },
    /// No worker runs that could answer.
    #[error("session {0:?} has no running pipeline")]
    NotRunning(String),
    /// The pipeline's own words.
    #[error("{0}")]
    Refused(String),
    /// The pipeline has no queries.
    #[error(
        "the pipeline of session {0:?} is made for a contract before 0.3, which has commands alone: \
            send it as a command, which takes the right to operate"
    )]
    NoQueries(String),
    /// No answer in time.
    #[error("session {0:?} gave no answer within {limit} s", limit = ANSWER_TIMEOUT.as_secs())]
    Timeout(String),
}

impl SessionError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown_session",
            Self::Exists(_) => "session_exists",
            Self::Limit { .. } => "session_limit",
            Self::NotRunning(_) => "not_running",
            Self::Refused(_) => "refused",
            Self::NoQueries(_) => "no_queries",
            Self::Timeout(_) => "timeout",
        }
    }
}
