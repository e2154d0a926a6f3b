//! The workers of the pool: how they start, analyse one image after another, and end. The real ones
//! are processes ([`process`](super::process)); tests have others.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_protocol::worker::Timestamps;
use serde_json::{Map, Value};

use super::AnalysisError;
use crate::event::{Detection, Event};

/// Finds pipelines and starts workers of them.
pub trait WorkerFactory: Send + Sync + 'static {
    /// Fails if there is no pipeline of this name. Called for each request.
    fn find(&self, pipeline: &str) -> Result<(), AnalysisError>;

    /// Starts a worker. Returns when it is ready for an image. Dropping the future ends what it has
    /// started.
    fn start(
        &self,
        pipeline: Arc<str>,
        settings: Arc<Map<String, Value>>,
    ) -> BoxFuture<'static, Result<Box<dyn ImageWorker>, ImageWorkerStartError>>;
}

/// Why a worker did not start.
#[derive(Debug)]
pub struct ImageWorkerStartError {
    /// The error that images get that wait for this worker.
    pub error: AnalysisError,
    /// Whether the next worker would not start either.
    pub permanent: bool,
}

/// A worker that is ready. Dropping it kills it.
pub trait ImageWorker: Send {
    /// Analyses an image. The inner error is about the image; the outer one is the end of the
    /// worker.
    fn analyze(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> BoxFuture<'_, Result<Result<ImageResult, AnalysisError>, ImageWorkerLost>>;

    /// Waits without an image until the worker fails, and returns the reason. May be dropped at any
    /// time.
    fn watch_idle(&mut self) -> BoxFuture<'_, String>;

    /// Ends the worker and returns its exit status. `hurry`: kills it first.
    fn end(self: Box<Self>, hurry: bool) -> BoxFuture<'static, String>;
}

/// A worker ended that was given an image.
#[derive(Debug)]
pub struct ImageWorkerLost {
    /// The cause, for the log and the answer.
    pub reason: String,
    /// Whether the worker had received the image, which may then be the cause.
    pub received: bool,
}

/// A pipeline's result for one image.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageResult {
    /// The component that made it: the first 12 hexadecimal digits of its SHA-256.
    pub deployment: String,
    /// Size of the image in pixels.
    pub width: u32,
    /// Size of the image in pixels.
    pub height: u32,
    /// Objects in the image, each with its area in pixels.
    pub detections: Vec<Detection>,
    /// Events that the pipeline emitted for the image.
    pub events: Vec<Event>,
    /// When the image passed each stage in the worker.
    pub timestamps: Timestamps,
}
