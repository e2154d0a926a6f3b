//! Roles and rights. Every request has a [`Caller`]; the API denies what the caller has no right
//! to.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::LOCAL_CALLER;
pub use crate::config::Role;

/// A right of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Right {
    /// To look at the sessions that the caller [sees](Caller::sees), subscribe to them and send
    /// queries to their pipelines.
    View,
    /// To analyse single pictures.
    Analyze,
    /// To send commands to pipelines, to deploy, roll back, restart and end sessions, and make
    /// sessions on sources of the allow-list.
    Operate,
    /// To put components into the data directory, to change the config, and to see the tokens and
    /// the audit log.
    Administer,
}

/// The sessions that a caller may know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every session, later ones included.
    All,
    /// The named sessions only.
    Named(BTreeSet<String>),
}

/// The client of a request, by its token.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name in the config; "local" if the config has no tokens.
    pub name: Arc<str>,
    /// The role of the token.
    pub role: Role,
    /// The sessions of the token.
    pub scope: Scope,
    /// Cancelled when the token is no longer valid. Connections that it opened are then closed.
    pub revoked: CancellationToken,
}

impl Caller {
    /// The caller of a host without tokens, which listens on loopback only.
    pub fn local() -> Self {
        Self {
            name: LOCAL_CALLER.into(),
            role: Role::Admin,
            scope: Scope::All,
            revoked: CancellationToken::new(),
        }
    }

    /// Whether the caller has this right.
    pub fn may(&self, right: Right) -> bool {
        match self.role {
            Role::Viewer => right == Right::View,
            Role::Operator => right <= Right::Operate,
            Role::Admin => true,
        }
    }

    /// Whether the caller may know of a session. To a caller that may not, the session does not
    /// exist.
    pub fn sees(&self, session: &str) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Named(names) => names.contains(session),
        }
    }

    /// Whether the caller sees every session, and so may subscribe to `*`.
    pub fn sees_all(&self) -> bool {
        self.scope == Scope::All
    }
}
