//! What is asked of the deployer, and why it may say no.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::compile::CompileError;
use super::pipelines::PipelineError;
use crate::config::RefusedState;
use crate::config::source::SourceError;
use crate::session::SessionError;
use crate::session::rollout::Step;
use crate::shape::DIGEST;

/// Deployments of one session that may wait for the one under way: each holds a component in
/// memory.
pub const MAX_WAITING: usize = 8;

/// A component that is to be deployed.
#[derive(Debug, Clone)]
pub enum Component {
    /// Its bytes.
    Bytes {
        /// What the history calls it: the file's name, if it is known.
        name: String,
        /// The file.
        bytes: Bytes,
    },
    /// A pipeline by its name, in the store or the gallery; for the config alone a path to a
    /// `.wasm` file.
    Pipeline(String),
}

/// A deployment that is asked for.
#[derive(Debug, Clone)]
pub struct DeployRequest {
    /// The session's name.
    pub session: String,
    /// What it is to run.
    pub component: Component,
    /// The pipeline's settings; none: those that the session has.
    pub settings: Option<Map<String, Value>>,
    /// Frames that both versions process before the change; at most
    /// [`crate::session::rollout::MAX_SHADOW`].
    pub shadow: u32,
    /// What happens when the new version refuses the state; none: as the config says.
    pub refused_state: Option<RefusedState>,
    /// Who: "operator", "ocelli deploy".
    pub by: String,
}

/// A pipeline that sessions can be given by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Pipeline")]
pub struct NamedPipeline {
    /// Its name.
    pub name: String,
    /// Its file: in the store, or in the gallery.
    pub file: std::path::PathBuf,
    /// Size of the file in bytes.
    pub size: u64,
    /// SHA-256 of the file, hexadecimal.
    #[schemars(regex(pattern = DIGEST))]
    pub digest: String,
    /// The sessions that use it, whichever of its versions they run.
    pub sessions: Vec<String>,
}

/// Why there was no deployment. What a deployment itself fails by stands in its
/// [`LogRecord`](super::LogRecord).
#[derive(Debug, thiserror::Error)]
pub enum DeployError {
    /// The pipeline cannot be found or read.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The component cannot be compiled.
    #[error(transparent)]
    Compile(#[from] CompileError),
    /// The source is not one.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A subscriber may not name this source.
    #[error(
        "this source is not among those that subscribers may name: `[subscriptions] sources` in \
            the config, by default none"
    )]
    SourceNotAllowed,
    /// There is a session of this name with another source or pipeline.
    #[error("session {0:?} exists with another source or pipeline")]
    SessionDiffers(String),
    /// The session was refused.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// As many deployments wait for the session as may.
    #[error(
        "deployment {number} of session {session:?} is under way ({step}), and {MAX_WAITING} more \
            wait"
    )]
    UnderWay {
        /// The session.
        session: String,
        /// The one under way.
        number: u64,
        /// How far it is.
        step: Step,
    },
    /// More frames of a shadow than are allowed.
    #[error("a shadow of {asked} frames: {most} are the most")]
    Shadow {
        /// As asked for.
        asked: u32,
        /// The bound.
        most: u32,
    },
    /// There is no version to go back to.
    #[error("session {0:?} has run no other version that served: there is nothing to go back to")]
    NoPreviousVersion(String),
    /// The component is not kept any more.
    #[error("the component {0} is not kept any more: deploy its file")]
    ComponentGone(String),
    /// A pipeline that is put into the store has a name that no file may have.
    #[error(transparent)]
    InvalidName(PipelineError),
    /// The host stops.
    #[error("the host stops")]
    Stopping,
    /// The host itself is at fault.
    #[error("making the deployment failed: {0}")]
    Internal(String),
}

impl DeployError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pipeline(_) => "unknown_pipeline",
            Self::InvalidName(_) => "invalid_name",
            Self::Compile(_) => "invalid_pipeline",
            Self::Source(_) => "invalid_source",
            Self::SourceNotAllowed => "source_not_allowed",
            Self::SessionDiffers(_) => "session_differs",
            Self::Session(error) => error.code(),
            Self::UnderWay { .. } => "deployment_under_way",
            Self::Shadow { .. } => "invalid_shadow",
            Self::NoPreviousVersion(_) => "no_previous_version",
            Self::ComponentGone(_) => "component_gone",
            Self::Stopping => "stopping",
            Self::Internal(_) => "internal",
        }
    }
}
