//! What goes wrong with a registry, each in one line.

use std::time::Duration;

use hyper::StatusCode;
use ocelli_protocol::digest::Digest;

use super::manifest::ManifestError;
use crate::util::http_client::{self, HttpFault};

/// Characters of a registry's own words that are repeated.
const MAX_WORDS: usize = 200;

/// Why a registry gave or took no component.
#[derive(Debug, thiserror::Error)]
#[error("registry {registry}: {fault}")]
pub struct RegistryError {
    registry: String,
    fault: RegistryFault,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistryFault {
    /// A setting of it does not do.
    #[error("{0}")]
    Setting(String),
    /// There is no connection.
    #[error("it cannot be reached: {0}")]
    Away(String),
    /// It ends a connection, or does not speak HTTP.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// It does not answer in time.
    #[error("{what} took longer than {} s", limit.as_secs())]
    Late { what: &'static str, limit: Duration },
    /// It wants a login, or another one.
    #[error("it wants {} (HTTP status {}){}", if *logged_in { "another login" } else { "a login" },
        status.as_u16(), quoted(said))]
    Login { status: StatusCode, logged_in: bool, said: String },
    /// It does not know what it is asked for.
    #[error("it has no {0}")]
    Unknown(String),
    /// It answers with another status than what was asked for has.
    #[error("{what}: HTTP status {}{}", status.as_u16(), quoted(said))]
    Status { what: &'static str, status: StatusCode, said: String },
    /// Its answer is none.
    #[error("{what}: its answer is not understood: {cause}")]
    Strange { what: &'static str, cause: String },
    /// It leads to a place where the host does not go.
    #[error("it leads to {place}: {cause}")]
    Astray { place: String, cause: &'static str },
    /// It serves something else under a digest.
    #[error("it serves another {what} than asked for: sha256:{found}, not sha256:{asked}")]
    OtherDigest { what: &'static str, asked: Digest, found: Digest },
    /// What is served is no component.
    #[error("{what} is no component: {cause}")]
    NoComponent { what: String, cause: ManifestError },
    /// The component is too large.
    #[error(
        "{what} has {size} bytes: a component has at most {} MiB (deploy.max_component_mb)",
        most >> 20
    )]
    TooLarge { what: String, size: u64, most: u64 },
}

impl RegistryError {
    pub(super) fn new(registry: &str, fault: RegistryFault) -> Self {
        Self { registry: registry.to_owned(), fault }
    }

    /// The error's stable name for programs.
    pub(crate) fn code(&self) -> &'static str {
        match &self.fault {
            RegistryFault::Unknown(_) => "unknown_pipeline",
            RegistryFault::NoComponent { .. } => "invalid_pipeline",
            RegistryFault::TooLarge { .. } => "component_too_large",
            _ => "registry_failed",
        }
    }

    /// Whether the registry is at fault, and not what was asked of it: it is away, or its answer is
    /// none.
    pub(crate) fn is_of_registry(&self) -> bool {
        self.code() == "registry_failed"
    }

    /// Whether the same may go well in a moment: a connection broke, the registry is starting or has
    /// too much to do. What took its whole time is not among that.
    pub(crate) fn is_passing(&self) -> bool {
        match &self.fault {
            RegistryFault::Away(_) | RegistryFault::Broken(_) => true,
            RegistryFault::Status { status, .. } => {
                status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
            }
            _ => false,
        }
    }

    /// Whether a login might help that was not given.
    pub(crate) fn wants_login(&self) -> bool {
        matches!(self.fault, RegistryFault::Login { logged_in: false, .. })
    }
}

impl RegistryFault {
    pub(super) fn strange(what: &'static str, cause: impl Into<String>) -> Self {
        Self::Strange { what, cause: cause.into() }
    }

    /// Of a place that the registry is, or leads to; `place` is for a person.
    pub(super) fn at(place: impl FnOnce() -> String, fault: HttpFault) -> Self {
        match fault {
            HttpFault::Setting(cause) => Self::Setting(cause),
            HttpFault::Away(cause) => Self::Away(cause),
            HttpFault::Late(limit) => Self::Late { what: "connecting to it", limit },
            HttpFault::Refused { cause, .. } => Self::Astray { place: place(), cause },
            HttpFault::Broken(cause) => Self::Broken(cause),
        }
    }
}

/// A registry's own words: cleaned, and cut.
pub(super) fn words(text: &str) -> String {
    http_client::words(text, MAX_WORDS)
}

fn quoted(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said:?}") }
}
