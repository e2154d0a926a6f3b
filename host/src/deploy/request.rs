//! Requests to the deployer, and its errors.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::compile::CompileError;
use super::pipelines::PipelineError;
use crate::config::OciReference;
use crate::config::source::SourceError;
use crate::registry::RegistryError;
use crate::session::SessionError;
use crate::session::rollout::{MAX_SHADOW, Shadow, StateHandover, Step};
use crate::shape::DIGEST;
use crate::telemetry::otlp::TraceParent;

/// Deployments that may wait for one session, behind the one under way: each holds a component in
/// memory.
pub const MAX_WAITING: usize = 8;

/// A component to deploy.
#[derive(Debug, Clone)]
pub enum Component {
    /// A component that is sent.
    Bytes {
        /// Its name in the history: the file's, if it is known.
        name: String,
        /// The component's bytes.
        bytes: Bytes,
    },
    /// A pipeline by its name, in the data directory or built in.
    Pipeline(String),
    /// One in a registry, as it is there now.
    Reference(OciReference),
}

/// A request to deploy to a session.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    pub session: String,
    /// The new version's component.
    pub component: Component,
    /// The pipeline's settings. `None`: those that the session has; of another pipeline those of the
    /// camera's entry in the config, if that names it, and else its defaults.
    pub settings: Option<Map<String, Value>>,
    /// What the new version does beside the running one before the change.
    pub shadow: Shadow,
    /// What becomes of the running version's state. `None`: as the config says.
    pub handover: Option<StateHandover>,
    /// Who asks: "operator", "ocelli deploy".
    pub by: String,
    /// Within which trace it is made, if the caller has said so.
    pub trace: Option<TraceParent>,
}

/// A pipeline that has a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Pipeline")]
pub struct NamedPipeline {
    /// The name by which sessions are given it.
    pub name: String,
    /// Its file, in the data directory or built in.
    pub file: std::path::PathBuf,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, hexadecimal.
    #[schemars(regex(pattern = DIGEST))]
    pub digest: String,
    /// The sessions that run a version of it.
    pub sessions: Vec<String>,
}

/// Why no deployment began. The error of a deployment itself is in its [`Record`](super::Record).
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The pipeline cannot be found or read.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// A registry gives no component.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The config does not name this registry.
    #[error(
        "the config does not name the registry {0}: an entry of [[deploy.registries]] with host = \
            \"{0}\" admits it"
    )]
    RegistryNotAllowed(String),
    /// The component cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The source is neither a URL nor a file.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The config does not let subscribers name this source.
    #[error(
        "this source is not among those that subscribers may name: `[subscriptions] sources` in \
            the config, by default none"
    )]
    SourceNotAllowed,
    /// The config does not let sources of subscribers have the reader that this one needs.
    #[error(
        "rtsps:// is read by the compatible reader, which sources of subscribers get with \
            `[subscriptions] compatible = true` in the config alone"
    )]
    ReaderNotAllowed,
    /// A session of this name has another source or pipeline.
    #[error("session {0:?} exists with another source or pipeline")]
    SessionDiffers(String),
    /// The session refused it.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The session's queue is full.
    #[error(
        "deployment {number} of session {session:?} is under way ({step}), and {MAX_WAITING} more \
            wait"
    )]
    UnderWay {
        session: String,
        /// The number of the deployment under way; 0 if it has none yet.
        number: u64,
        /// The step of the deployment under way.
        step: Step,
    },
    /// The shadow has too many frames.
    #[error("a shadow of {0} frames: {MAX_SHADOW} are the most")]
    Shadow(u32),
    /// A comparison is to decide, and has no frames.
    #[error("a comparison that is all, or that is to decide, needs frames: `shadow`")]
    NoShadow,
    /// No other version of the session has served.
    #[error("session {0:?} has run no other version that served: there is nothing to go back to")]
    NoPreviousVersion(String),
    /// The component of the version is no longer stored.
    #[error("the component {0} is no longer stored: deploy its file")]
    ComponentGone(String),
    /// A pipeline for the data directory has a name that no file may have.
    #[error(transparent)]
    InvalidName(PipelineError),
    /// The host stops.
    #[error("the host stops")]
    Stopping,
    /// The pipeline does not say what it is.
    #[error("pipeline {pipeline} does not describe itself: {reason}")]
    Undescribed { pipeline: String, reason: String },
    /// The disk of the data directory is full. Says what could not be written.
    #[error("no space is left on the disk of the data directory for {0}")]
    StorageFull(&'static str),
    /// The host itself has failed.
    #[error("making the deployment failed: {0}")]
    Internal(String),
}

impl DeployError {
    /// The error's stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pipeline(_) => "unknown_pipeline",
            Self::InvalidName(_) => "invalid_name",
            Self::Registry(error) => error.code(),
            Self::RegistryNotAllowed(_) => "registry_not_allowed",
            Self::Compile(_) | Self::Undescribed { .. } => "invalid_pipeline",
            Self::Source(_) => "invalid_source",
            Self::SourceNotAllowed | Self::ReaderNotAllowed => "source_not_allowed",
            Self::SessionDiffers(_) => "session_differs",
            Self::Session(error) => error.code(),
            Self::UnderWay { .. } => "deployment_under_way",
            Self::Shadow(_) | Self::NoShadow => "invalid_shadow",
            Self::NoPreviousVersion(_) => "no_previous_version",
            Self::ComponentGone(_) => "component_gone",
            Self::Stopping => "stopping",
            Self::StorageFull(_) => "storage_full",
            Self::Internal(_) => "internal",
        }
    }

    /// Why a file could not be written. `what` names it.
    pub(super) fn storing(what: &'static str, error: &std::io::Error) -> Self {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        match error.kind() {
            StorageFull | QuotaExceeded => Self::StorageFull(what),
            _ => Self::Internal(format!("storing {what}: {error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use super::*;

    #[test]
    fn a_full_disk_is_no_fault_of_the_host() {
        let storing = |kind| DeployError::storing("the component", &Error::from(kind));
        let full = storing(ErrorKind::StorageFull);
        assert_eq!(full.code(), "storage_full");
        assert_eq!(
            full.to_string(),
            "no space is left on the disk of the data directory for the component"
        );
        assert_eq!(storing(ErrorKind::PermissionDenied).code(), "internal");
    }
}
