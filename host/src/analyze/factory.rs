//! What the pool needs of workers: to be started, to analyse one picture after another, to end. The
//! real ones are processes (`workers`); the tests have others.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_protocol::worker::Timestamps;
use serde_json::{Map, Value};

use super::AnalysisError;
use crate::event::{Detection, Event};

/// Makes workers.
pub trait WorkerFactory: Send + Sync + 'static {
    /// Whether there is a pipeline of this name; if not, why. Called for each request.
    fn find(&self, pipeline: &str) -> Result<(), AnalysisError>;

    /// Starts a worker. Returns when it is ready for a picture. Dropping the future ends what has
    /// been started.
    fn start(
        &self,
        pipeline: Arc<str>,
        settings: Arc<Map<String, Value>>,
    ) -> BoxFuture<'static, Result<Box<dyn ImageWorker>, ImageWorkerStartError>>;
}

/// Why a worker did not get ready.
#[derive(Debug)]
pub struct ImageWorkerStartError {
    /// What pictures are answered that wait for it.
    pub fault: AnalysisError,
    /// Whether the next one would not get ready either.
    pub permanent: bool,
}

/// A worker that is ready. Dropping it ends it at once.
pub trait ImageWorker: Send {
    /// Analyses a picture. An error within is about the picture; the outer one is the end of the
    /// worker.
    fn analyze(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> BoxFuture<'_, Result<Result<ImageResult, AnalysisError>, ImageWorkerLost>>;

    /// Waits as long as the worker is well, and says what became of it. May be dropped at any time.
    fn watch_idle(&mut self) -> BoxFuture<'_, String>;

    /// Ends the worker: it is gone when this returns. `hurry`: without asking it.
    fn end(self: Box<Self>, hurry: bool) -> BoxFuture<'static, String>;
}

/// The end of a worker that was given a picture.
#[derive(Debug)]
pub struct ImageWorkerLost {
    /// How it came.
    pub reason: String,
    /// Whether the picture had reached the worker, and so may have been the cause.
    pub received: bool,
}

/// What a pipeline found in a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageResult {
    /// The deployment that found it.
    pub deployment: String,
    /// Size of the picture in pixels.
    pub width: u32,
    /// Size of the picture in pixels.
    pub height: u32,
    /// What was found.
    pub detections: Vec<Detection>,
    /// What happened.
    pub events: Vec<Event>,
    /// When the picture passed each station in the worker.
    pub timestamps: Timestamps,
}
