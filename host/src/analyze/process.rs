//! Workers of single images that are processes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_protocol::worker::{FrameResult, FromWorker, ToWorker, WorkerLimits, WorkerStage};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::factory::{
    ImageResult, ImageWorker, ImageWorkerLost, ImageWorkerStartError, WorkerFactory,
};
use super::{AnalysisError, AnalysisErrorKind};
use crate::deploy::Deployer;
use crate::event;
use crate::inference::Share;
use crate::worker::{
    Handshake, READY_TIMEOUT, StartError, WorkerFault, WorkerHandle, WorkerLaunch, WorkerLauncher,
    Workload,
};

/// How long a worker that is no longer needed may take to end by itself.
const END_GRACE: Duration = Duration::from_secs(2);

/// Starts workers of the pipelines in the data directory and of the built-in ones.
pub(crate) struct ProcessFactory {
    launcher: Arc<WorkerLauncher>,
    deployer: Deployer,
    timeout_ms: u32,
    /// The number of each pipeline's share of the inference process.
    shares: Mutex<BTreeMap<Arc<str>, u32>>,
}

impl ProcessFactory {
    /// One image may take `timeout_ms`.
    pub(crate) fn new(launcher: Arc<WorkerLauncher>, deployer: Deployer, timeout_ms: u32) -> Self {
        Self { launcher, deployer, timeout_ms, shares: Mutex::default() }
    }

    /// All workers of a pipeline have one share, however many they are. There are no more shares
    /// than pipelines, which are files.
    fn share(&self, pipeline: &Arc<str>) -> Share {
        let mut shares = self.shares.lock();
        let next = u32::try_from(shares.len()).unwrap_or(u32::MAX);
        Share::Group(*shares.entry(Arc::clone(pipeline)).or_insert(next))
    }
}

impl WorkerFactory for ProcessFactory {
    fn find(&self, pipeline: &str) -> Result<(), AnalysisError> {
        Ok(self.deployer.knows(pipeline)?)
    }

    fn start(
        &self,
        pipeline: Arc<str>,
        settings: Arc<Map<String, Value>>,
    ) -> BoxFuture<'static, Result<Box<dyn ImageWorker>, ImageWorkerStartError>> {
        let (launcher, deployer) = (Arc::clone(&self.launcher), self.deployer.clone());
        let (timeout_ms, share) = (self.timeout_ms, self.share(&pipeline));
        Box::pin(async move {
            let deployment = deployer.component(&pipeline).await;
            let deployment = deployment.map_err(|error| permanent(error.into()))?;
            let component = deployment.compiled.as_ref().map_err(|reason| {
                permanent(AnalysisError::new(AnalysisErrorKind::InvalidPipeline, reason))
            })?;
            // All that is done for an image may take as long as the image.
            let limits = WorkerLimits {
                call_timeout_ms: timeout_ms,
                inference_timeout_ms: timeout_ms,
                ..launcher.limits()
            };
            let launch = WorkerLaunch {
                name: &format!("analyze:{pipeline}"),
                deployment: deployment.id(),
                component,
                settings: &settings,
                limits,
                workload: Workload::Images { share },
            };
            let mut worker =
                launcher.launch(launch).await.map_err(|error| temporary(&format!("{error:#}")))?;
            let ready = tokio::time::timeout(READY_TIMEOUT, until_ready(&mut worker)).await;
            ready.map_err(|_| {
                temporary(&format!("not ready within {} s", READY_TIMEOUT.as_secs()))
            })??;
            let lacks_model = worker.check_models().is_err();
            Ok(Box::new(ProcessWorker { worker, lacks_model, next: 0 }) as Box<dyn ImageWorker>)
        })
    }
}

/// A model that the pipeline needs and that is missing is no reason to end: an image may bring
/// settings that name another one.
async fn until_ready(worker: &mut WorkerHandle) -> Result<(), StartError> {
    let mut missing = None;
    loop {
        let taken = match worker.next().await {
            Ok((message, _)) => worker.handshake(message),
            Err(fault) => Err(fault.into()),
        };
        match taken {
            Ok(Handshake::Ready) => return Ok(()),
            Ok(_) => {}
            Err(StartError::Model(words)) => missing = Some(words),
            // Whatever it then fails with follows from that.
            Err(error) => return Err(missing.map_or(error, StartError::Model)),
        }
    }
}

fn permanent(error: AnalysisError) -> ImageWorkerStartError {
    ImageWorkerStartError { error, permanent: true }
}

/// The next worker may get ready.
fn temporary(reason: &str) -> ImageWorkerStartError {
    let message = format!("its worker does not start: {reason}");
    ImageWorkerStartError {
        error: AnalysisError::new(AnalysisErrorKind::PipelineCrashed, message),
        permanent: false,
    }
}

impl From<StartError> for ImageWorkerStartError {
    fn from(error: StartError) -> Self {
        let message = error.to_string();
        let kind = match error {
            StartError::Fault(_) | StartError::Failed { stage: WorkerStage::Setup, .. } => {
                return temporary(&message);
            }
            // The component itself is at fault.
            StartError::Settings(_) | StartError::Failed { .. } | StartError::Sandbox(_) => {
                AnalysisErrorKind::InvalidPipeline
            }
            StartError::Model(_) => {
                let message = format!(
                    "{message}. Settings of the request go first; for requests without, \
                     [[analyze.pipelines]] in the config has some"
                );
                return permanent(AnalysisError::new(AnalysisErrorKind::ModelMissing, message));
            }
        };
        permanent(AnalysisError::new(kind, message))
    }
}

struct ProcessWorker {
    worker: WorkerHandle,
    /// Whether a model that its pipeline needs was missing when it was started.
    lacks_model: bool,
    /// The id of the next request.
    next: u64,
}

impl From<WorkerFault> for ImageWorkerLost {
    fn from(fault: WorkerFault) -> Self {
        Self { reason: fault.to_string(), received: true }
    }
}

impl ProcessWorker {
    /// The next message that is not a heartbeat. May be dropped at any time.
    async fn next(&mut self) -> Result<FromWorker, WorkerFault> {
        loop {
            match self.worker.next().await?.0 {
                FromWorker::Heartbeat { .. } => {}
                FromWorker::Failed { stage, message, .. } => {
                    return Err(WorkerFault::failed(stage, &message));
                }
                other => return Ok(other),
            }
        }
    }

    /// Sends an image and waits for its result, which has to be the worker's next message.
    async fn send_and_wait(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> Result<Result<ImageResult, AnalysisError>, ImageWorkerLost> {
        if self.lacks_model {
            match self.worker.check_models() {
                Ok(()) => {
                    // It was told of the models that there were.
                    let reason = "the model that it lacked is there now".to_owned();
                    return Err(ImageWorkerLost { reason, received: false });
                }
                Err(error) if settings.is_none() => {
                    return Ok(Err(ImageWorkerStartError::from(error).error));
                }
                Err(_) => {}
            }
        }
        let id = self.next;
        self.next += 1;
        let request = ToWorker::Analyze { id, settings: settings.as_deref().map(str::to_owned) };
        let sent = self.worker.send(&request, &image).await;
        sent.map_err(|error| ImageWorkerLost { reason: error.to_string(), received: false })?;
        drop(image);
        let outcome = match self.next().await? {
            FromWorker::Analyzed { id: answered, outcome, .. } if answered == id => outcome,
            other => return Err(WorkerFault::unexpected(&other).into()),
        };
        let mut result = match outcome {
            Ok(result) => result,
            Err((fault, message)) => return Ok(Err(AnalysisError::from_worker(fault, message))),
        };
        if let Err(exceeded) = self.worker.validate(&result) {
            return Err(ImageWorkerLost { reason: exceeded.to_string(), received: true });
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        result.capture_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        Ok(image_result(&result, self.worker.deployment()).map_err(|error| {
            AnalysisError::new(AnalysisErrorKind::InvalidResult, error.to_string())
        }))
    }
}

/// A worker's result as subscribers get it. An image is no frame of a source.
fn image_result(
    result: &FrameResult,
    deployment: &str,
) -> Result<ImageResult, event::InvalidResult> {
    let detections = event::detections(result, deployment)?.map(|found| found.detections);
    let events = result.events.iter();
    let events = events
        .map(|event| Ok(event::Event { frame: None, ..event::event(event, result, deployment)? }));
    Ok(ImageResult {
        deployment: deployment.to_owned(),
        width: result.width,
        height: result.height,
        detections: detections.unwrap_or_default(),
        events: events.collect::<Result<_, _>>()?,
        timestamps: result.timestamps,
    })
}

impl ImageWorker for ProcessWorker {
    fn analyze(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> BoxFuture<'_, Result<Result<ImageResult, AnalysisError>, ImageWorkerLost>> {
        Box::pin(self.send_and_wait(image, settings))
    }

    fn watch_idle(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            match self.next().await {
                Ok(other) => WorkerFault::unexpected(&other).to_string(),
                Err(fault) => fault.to_string(),
            }
        })
    }

    fn end(mut self: Box<Self>, hurry: bool) -> BoxFuture<'static, String> {
        Box::pin(async move {
            if hurry {
                self.worker.kill();
            }
            self.worker.end(END_GRACE).await.status
        })
    }
}
