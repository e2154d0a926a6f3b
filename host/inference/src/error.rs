//! Errors of the engine, each with its remedy.

use std::path::PathBuf;

use ocelli_protocol::inference::ErrorCode;

use crate::tensor::SignatureError;

/// The version of ONNX Runtime that this release is tested with and that `./x setup` installs.
pub const PINNED_VERSION: &str = "1.28.0";

/// Why the engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The library is not there.
    #[error(
        "ONNX Runtime {PINNED_VERSION} not found at {}: {source}; run `./x setup`, or set \
         `inference.library` to its path",
        path.display()
    )]
    LibraryMissing { path: PathBuf, source: std::io::Error },
    /// The file is no usable ONNX Runtime.
    #[error(
        "{} is not a usable ONNX Runtime: {reason}; run `./x setup`, or set `inference.library` \
         to version {PINNED_VERSION}",
        path.display()
    )]
    LibraryUnusable { path: PathBuf, reason: String },
    /// The library is not the one that was asked for.
    #[error(
        "ONNX Runtime at {} has sha256 {found}, expected {expected}; delete it and run `./x \
         setup`, or set `inference.library` to one that you trust",
        path.display()
    )]
    LibraryDiffers { path: PathBuf, expected: String, found: String },
    /// A process can load one library only.
    #[error("this process has loaded ONNX Runtime from {} already; restart to use \
        {}", loaded.display(), asked.display())]
    OtherLibraryLoaded { loaded: PathBuf, asked: PathBuf },
    /// The configuration makes no sense.
    #[error("the inference configuration is invalid: {0}")]
    Configuration(String),
    /// A model to preload cannot be used.
    #[error("{0}")]
    Model(#[from] RequestError),
    /// ONNX Runtime reported an error of its own.
    #[error("ONNX Runtime cannot start: {0}")]
    Runtime(#[from] ort::Error),
    /// The system refused a thread or a descriptor.
    #[error("the inference engine cannot start: {0}")]
    System(#[from] std::io::Error),
}

impl From<SignatureError> for EngineError {
    fn from(error: SignatureError) -> Self {
        Self::Configuration(error.to_string())
    }
}

/// Why a session was not taken on.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// There are [`crate::MAX_SESSIONS`] already.
    #[error("there are {} sessions already", crate::MAX_SESSIONS)]
    TooMany,
    /// The models of its catalog version are not there, or not any more.
    #[error("version {0} of the catalog is not known")]
    UnknownVersion(u32),
    /// Its memory or its socket cannot be used.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// Its worker cannot be greeted.
    #[error("the worker cannot be greeted: {0}")]
    Greeting(#[from] ocelli_protocol::inference::PacketError),
}

/// Why a request failed; goes to the worker as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The kind that the worker maps to an error of wasi:nn.
    pub code: ErrorCode,
    /// The cause, for people.
    pub message: String,
}

impl RequestError {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    /// An argument of a request is wrong.
    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidArgument, message)
    }
}
