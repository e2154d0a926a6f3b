//! The spec of a session.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::worker::Decode;
use serde_json::{Map, Value};

use crate::config::Directory;
use crate::config::source::Source;

/// A compiled pipeline, for any number of workers, or why there is none.
#[derive(Debug, Clone)]
pub struct CompiledPipeline {
    /// The pipeline's name or path, as the config or the subscriber gave it.
    pub name: String,
    /// SHA-256 of the component, hexadecimal. Empty without a component.
    pub digest: String,
    /// The compiled component, open for reading; or the reason with which the session fails.
    pub compiled: Result<Arc<OwnedFd>, String>,
}

impl CompiledPipeline {
    /// A pipeline that cannot run.
    pub fn missing(pipeline: &str, reason: String) -> Self {
        Self { name: pipeline.to_owned(), digest: String::new(), compiled: Err(reason) }
    }

    /// The [`deployment_id`] of its component.
    pub fn id(&self) -> &str {
        deployment_id(&self.digest)
    }
}

/// The first 12 digits of a component's SHA-256: results carry them as `deployment`.
pub fn deployment_id(digest: &str) -> &str {
    digest.get(..12).unwrap_or_default()
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The session's name: unique and printable.
    pub id: String,
    /// The camera or file.
    pub source: Source,
    /// A smaller stream of the same camera, which is analysed in its place.
    pub substream: Option<Source>,
    /// The pipeline that processes its frames.
    pub pipeline: CompiledPipeline,
    pub settings: Map<String, Value>,
    /// Which frames are decoded.
    pub decode: Decode,
    /// What decodes them.
    pub decode_device: DecodeDevice,
    /// Its share of the inference process.
    pub priority: Priority,
    /// The prefix of the Redis keys that its pipeline may use; `None`: it has no access.
    pub redis_prefix: Option<String>,
    /// The folders that its pipeline may use.
    pub directories: Vec<Directory>,
}

impl Spec {
    /// The source whose frames the pipeline gets.
    pub fn analysed(&self) -> &Source {
        self.substream.as_ref().unwrap_or(&self.source)
    }
}
