//! What a session is made of.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use ocelli_protocol::inference::Priority;
use ocelli_protocol::worker::Decode;
use serde_json::{Map, Value};

use crate::config::source::Source;

/// A compiled pipeline, ready to be run by any number of workers, or why there is none.
#[derive(Debug, Clone)]
pub struct CompiledPipeline {
    /// The pipeline's name or path, as the config or the subscriber gave it.
    pub name: String,
    /// The first 12 hexadecimal digits of the component's SHA-256: what results carry as
    /// `deployment`. Empty where there is no component.
    pub id: String,
    /// The whole of that SHA-256, hexadecimal.
    pub digest: String,
    /// The compiled component, open for reading; or why there is none, with which the session
    /// fails.
    pub compiled: Result<Arc<OwnedFd>, String>,
}

impl CompiledPipeline {
    /// Stands for a pipeline that cannot be run.
    pub fn missing(pipeline: &str, reason: String) -> Self {
        Self {
            name: pipeline.to_owned(),
            id: String::new(),
            digest: String::new(),
            compiled: Err(reason),
        }
    }
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Unique; anything printable.
    pub id: String,
    /// Where its frames come from.
    pub source: Source,
    /// What processes them.
    pub pipeline: CompiledPipeline,
    /// The pipeline's settings.
    pub settings: Map<String, Value>,
    /// Which frames are decoded.
    pub decode: Decode,
    /// Its share of the inference process.
    pub priority: Priority,
    /// What the keys of Redis begin with that its pipeline may use; none: it may use none.
    pub redis_prefix: Option<String>,
}
