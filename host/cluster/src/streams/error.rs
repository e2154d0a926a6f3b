//! Why the streams did not do what was asked.

use crate::site::{Epoch, SiteError};

/// What can go wrong with events, state, objects and live messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// Another host has taken the camera over. Whoever gets this stops speaking for it at once.
    #[error("camera {camera:?} of epoch {epoch} was taken over{}", whom(.by))]
    Fenced {
        camera: String,
        /// The epoch that was refused.
        epoch: Epoch,
        /// The epoch that is there now, where it is known.
        by: Option<Epoch>,
    },
    /// No answer, no connection, or JetStream elects a leader: try again.
    #[error("NATS is unavailable: {0}")]
    Unavailable(String),
    /// No room: a full disk, or a limit of the account or of the server.
    #[error("JetStream is full: {0}")]
    Full(String),
    /// The account or key of this host may not do that.
    #[error("NATS does not allow this host to {0}")]
    NotAllowed(String),
    /// A certificate was refused, by this host or by the server.
    #[error("NATS: a certificate is refused: {0}")]
    Certificate(String),
    /// More than a message, a batch or an object can be.
    #[error("{what} has {size}, {most} are the most")]
    TooLarge { what: &'static str, size: usize, most: usize },
    /// Events that are not numbered on from the chain's last one, or carry another epoch.
    #[error("the next event has number {expected} of epoch {epoch}, not {got}")]
    Order { expected: u64, got: u64, epoch: Epoch },
    /// An earlier append of this epoch arrived with other content, after its outcome was unknown.
    /// Take over again with the same epoch to go on behind it.
    #[error("event {seq} of camera {camera:?} is there already, with other content")]
    Diverged { camera: String, seq: u64 },
    /// Something of the site's name is there and is not a site's.
    #[error("{0}")]
    NotOurs(String),
    /// No object of this digest.
    #[error("object {0} is not there")]
    NotFound(String),
    /// What was read is not what was written.
    #[error("{0} is damaged")]
    Damaged(String),
    /// A name, a URL or a file that cannot be used.
    #[error("{0}")]
    Options(String),
    /// What JetStream refuses for another reason, with its code.
    #[error("JetStream refuses: {reason} ({code})")]
    Refused { code: u64, reason: String },
}

/// The owner's epoch at the end of a sentence.
fn whom(epoch: &Option<Epoch>) -> String {
    epoch.map(|epoch| format!(" by epoch {epoch}")).unwrap_or_default()
}

impl StreamError {
    /// A stable word for logs, metrics and other programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fenced { .. } => "fenced",
            Self::Unavailable(_) => "unavailable",
            Self::Full(_) => "full",
            Self::NotAllowed(_) => "not_allowed",
            Self::Certificate(_) => "certificate",
            Self::TooLarge { .. } => "too_large",
            Self::Order { .. } => "order",
            Self::Diverged { .. } => "diverged",
            Self::NotOurs(_) => "not_ours",
            Self::NotFound(_) => "not_found",
            Self::Damaged(_) => "damaged",
            Self::Options(_) => "options",
            Self::Refused { .. } => "refused",
        }
    }

    /// Whether the same may succeed later without anybody's change of the request.
    pub fn passes(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_) | Self::Full(_) | Self::NotAllowed(_) | Self::Certificate(_)
        )
    }

    /// What an error of JetStream's API means, by its code.
    pub(super) fn of_engine(code: u64, reason: String) -> Self {
        match code {
            ACCOUNT_RESOURCES | INSUFFICIENT_RESOURCES | MEMORY | STORAGE | MAX_STREAM_BYTES => {
                Self::Full(reason)
            }
            STORE_FAILED if reason.contains("maximum") || reason.contains("space") => {
                Self::Full(reason)
            }
            CLUSTER_NOT_AVAILABLE
            | NOT_LEADER
            | STREAM_OFFLINE
            | STREAM_OFFLINE_REASON
            | NO_PEERS
            | STORE_FAILED
            | CONSUMER_NOT_FOUND => Self::Unavailable(reason),
            _ => Self::Refused { code, reason },
        }
    }
}

impl From<SiteError> for StreamError {
    fn from(error: SiteError) -> Self {
        Self::Options(error.to_string())
    }
}

/// JetStream's codes (`server/errors.json` of nats-server).
const ACCOUNT_RESOURCES: u64 = 10002;
const NO_PEERS: u64 = 10005;
const CLUSTER_NOT_AVAILABLE: u64 = 10008;
const NOT_LEADER: u64 = 10009;
const CONSUMER_NOT_FOUND: u64 = 10014;
const INSUFFICIENT_RESOURCES: u64 = 10023;
const MEMORY: u64 = 10028;
const STORAGE: u64 = 10047;
const STORE_FAILED: u64 = 10077;
const STREAM_OFFLINE: u64 = 10118;
const MAX_STREAM_BYTES: u64 = 10122;
const STREAM_OFFLINE_REASON: u64 = 10194;
/// An expected last sequence that is not the last one.
pub(super) const WRONG_LAST_SEQUENCE: u64 = 10071;
/// The same, while another message of the subject is being replicated.
pub(super) const WRONG_LAST_SEQUENCE_IN_PROCESS: u64 = 10164;
/// A batch of which messages are missing, or that the server could not begin.
pub(super) const BATCH_INCOMPLETE: u64 = 10176;
/// Too many batches at once.
pub(super) const BATCHES_IN_FLIGHT: u64 = 10210;
/// No stream of that name.
pub(super) const STREAM_NOT_FOUND: u64 = 10059;
/// A stream's name that is taken, with another configuration.
pub(super) const STREAM_NAME_IN_USE: u64 = 10058;
