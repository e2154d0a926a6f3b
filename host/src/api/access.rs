//! Who may do what. Every request has a [`Caller`]; what a caller has no right to is denied.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::config::LOCAL_CALLER;
pub use crate::config::Role;

/// What somebody may be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Right {
    /// Look at the sessions that the caller [sees](Caller::sees), subscribe to them, ask their
    /// pipelines.
    View,
    /// Analyse single pictures.
    Analyze,
    /// Deploy, roll back, restart and end sessions, and make sessions on sources of the allow-list.
    Operate,
    /// Put components into the store.
    Administer,
}

impl Right {
    /// As it is told to whoever has it not.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The sessions that somebody may know of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every session, those included that will be made.
    All,
    /// These alone.
    Named(BTreeSet<String>),
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The token's name in the config; "local" where the config has no tokens.
    pub name: Arc<str>,
    /// What its token stands for.
    pub role: Role,
    /// What the caller sees.
    pub scope: Scope,
    /// Cancelled when the token is valid no more: what was opened with it is closed.
    pub revoked: CancellationToken,
}

impl Caller {
    /// Whoever reaches a host that has no tokens: such a host listens on loopback alone.
    pub fn local() -> Self {
        Self {
            name: LOCAL_CALLER.into(),
            role: Role::Admin,
            scope: Scope::All,
            revoked: CancellationToken::new(),
        }
    }

    /// Whether the caller may do this at all.
    pub fn may(&self, right: Right) -> bool {
        match self.role {
            Role::Viewer => right == Right::View,
            Role::Operator => right <= Right::Operate,
            Role::Admin => true,
        }
    }

    /// Whether the caller may know of a session. Whoever may not gets the answer that a session has
    /// which does not exist.
    pub fn sees(&self, session: &str) -> bool {
        match &self.scope {
            Scope::All => true,
            Scope::Named(names) => names.contains(session),
        }
    }

    /// Whether the caller sees every session, so that it may subscribe to `*`.
    pub fn sees_all(&self) -> bool {
        self.scope == Scope::All
    }
}
