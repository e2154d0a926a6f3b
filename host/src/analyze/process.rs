//! The workers of the host: processes as those of sessions, in control groups and confined as
//! these, each with one pipeline.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_protocol::worker::{Decode, FrameResult, FromWorker, ToWorker, WorkerMode, WorkerStage};
use parking_lot::Mutex;
use serde_json::{Map, Value};

use super::factory::{
    ImageResult, ImageWorker, ImageWorkerLost, ImageWorkerStartError, WorkerFactory,
};
use super::{AnalysisError, AnalysisErrorKind};
use crate::deploy::Deployer;
use crate::event;
use crate::inference::{InferenceAttachment, Share, catalog};
use crate::session::watched::{WorkerFault, WorkerMonitor, failed, log, out_of_turn};
use crate::session::{
    Environment, READY_TIMEOUT, Sessions, WorkerLaunch, WorkerProcess, WorkerSender, bounds,
};

/// How long a worker that is no longer needed may take to end by itself.
const END_GRACE: Duration = Duration::from_secs(2);

/// Makes workers of the pipelines in the store and the gallery.
pub(crate) struct ProcessFactory {
    environment: Arc<Environment>,
    deployer: Deployer,
    timeout_ms: u32,
    /// What tells the pipelines' shares of the inference process apart.
    shares: Mutex<BTreeMap<Arc<str>, u32>>,
}

impl ProcessFactory {
    /// Workers that give one picture so many milliseconds.
    pub(crate) fn new(sessions: &Sessions, deployer: Deployer, timeout_ms: u32) -> Self {
        Self { environment: sessions.environment(), deployer, timeout_ms, shares: Mutex::default() }
    }

    /// All workers of a pipeline have one share, however many they are. There are no more pipelines
    /// than files.
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
        let environment = Arc::clone(&self.environment);
        let (deployer, timeout_ms) = (self.deployer.clone(), self.timeout_ms);
        let share = self.share(&pipeline);
        Box::pin(async move {
            let deployment = deployer.component(&pipeline).await;
            let deployment = deployment.map_err(|error| permanent(error.into()))?;
            let component = deployment.compiled.map_err(|reason| {
                permanent(AnalysisError::new(AnalysisErrorKind::InvalidPipeline, reason))
            })?;
            let limits = environment.limits().for_pictures(timeout_ms);
            let name = format!("analyze:{pipeline}");
            let launch = WorkerLaunch {
                name: &name,
                component: &component,
                settings: &settings,
                mode: WorkerMode::Analyze,
                decode: Decode::default(),
                terms: limits.service_for_pictures(share),
                limits,
                standby: false,
                redis_prefix: None,
                store: None,
            };
            let (worker, outbox, attachment) = environment
                .launch(launch)
                .await
                .map_err(|error| temporary(format!("{error:#}")))?;
            let (watched, deployment) = (limits.watch(), deployment.id);
            let mut process = ProcessWorker {
                worker,
                outbox,
                _attachment: attachment,
                watched,
                name,
                deployment,
                next: 0,
            };
            let ready =
                tokio::time::timeout(READY_TIMEOUT, process.until_ready(&environment)).await;
            ready.unwrap_or_else(|_| {
                Err(temporary(format!("not ready within {} s", READY_TIMEOUT.as_secs())))
            })?;
            Ok(Box::new(process) as Box<dyn ImageWorker>)
        })
    }
}

fn permanent(fault: AnalysisError) -> ImageWorkerStartError {
    ImageWorkerStartError { fault, permanent: true }
}

/// The next worker may get ready.
fn temporary(reason: String) -> ImageWorkerStartError {
    let message = format!("its worker does not start: {reason}");
    ImageWorkerStartError {
        fault: AnalysisError::new(AnalysisErrorKind::PipelineCrashed, message),
        permanent: false,
    }
}

/// A worker process.
struct ProcessWorker {
    worker: WorkerProcess,
    outbox: WorkerSender,
    /// Its place at the inference process, which it needs as long as it lives.
    _attachment: InferenceAttachment,
    watched: WorkerMonitor,
    /// As in the log.
    name: String,
    deployment: String,
    /// The number of the next picture.
    next: u64,
}

impl From<WorkerFault> for ImageWorkerLost {
    fn from(unfit: WorkerFault) -> Self {
        let (WorkerFault::Exited(reason) | WorkerFault::ProtocolViolation(reason)) = unfit;
        Self { reason, received: true }
    }
}

impl ProcessWorker {
    async fn until_ready(
        &mut self,
        environment: &Environment,
    ) -> Result<(), ImageWorkerStartError> {
        let mut confined = false;
        loop {
            let message = self
                .next()
                .await
                .map_err(|unfit| temporary(ImageWorkerLost::from(unfit).reason))?;
            match message {
                FromWorker::SandboxReport(confinement) => {
                    confined = true;
                    let admitted = environment.limits().admit(&confinement);
                    admitted.map_err(|reason| {
                        permanent(AnalysisError::new(AnalysisErrorKind::InvalidPipeline, reason))
                    })?;
                }
                FromWorker::Described(description) => {
                    if !confined {
                        return Err(temporary("it did not say how it is confined".into()));
                    }
                    bounds::description(&description).map_err(temporary)?;
                    if let Some(lacks) =
                        catalog::missing_model(&environment.inference.models(), &description)
                    {
                        return Err(permanent(AnalysisError::new(
                            AnalysisErrorKind::ModelMissing,
                            lacks,
                        )));
                    }
                }
                FromWorker::Ready => return Ok(()),
                FromWorker::Failed { stage: WorkerStage::Setup, message, .. } => {
                    return Err(temporary(
                        ImageWorkerLost::from(failed(WorkerStage::Setup, message)).reason,
                    ));
                }
                // The component itself is at fault.
                FromWorker::Failed { stage, message, .. } => {
                    let message = ImageWorkerLost::from(failed(stage, message)).reason;
                    return Err(permanent(AnalysisError::new(
                        AnalysisErrorKind::InvalidPipeline,
                        message,
                    )));
                }
                other => return Err(temporary(ImageWorkerLost::from(out_of_turn(&other)).reason)),
            }
        }
    }

    /// The next message that is neither a sign of life nor a log line. May be dropped at any time.
    async fn next(&mut self) -> Result<FromWorker, WorkerFault> {
        loop {
            tokio::select! {
                received = self.worker.inbox.recv() => match self.watched.message(received)?.0 {
                    FromWorker::Heartbeat { .. } => {}
                    FromWorker::Log { level, context, message, frame: _ } => {
                        log(&self.name, &self.deployment, level, &context, &message, None);
                    }
                    other => return Ok(other),
                },
                _ = self.watched.looks.tick() => self.watched.look(0)?,
            }
        }
    }

    async fn send_and_wait(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> Result<Result<ImageResult, AnalysisError>, ImageWorkerLost> {
        let id = self.next;
        self.next += 1;
        let request = ToWorker::Analyze { id, settings: settings.as_deref().map(str::to_owned) };
        self.outbox
            .send(&request, &image)
            .await
            .map_err(|error| ImageWorkerLost { reason: error.to_string(), received: false })?;
        drop(image);
        match self.next().await? {
            FromWorker::Analyzed { id: answered, outcome, .. } if answered == id => {
                self.checked(outcome)
            }
            FromWorker::Failed { stage, message, .. } => Err(failed(stage, message).into()),
            other => Err(out_of_turn(&other).into()),
        }
    }

    /// What a worker says, held against what it may say.
    fn checked(
        &self,
        outcome: Result<FrameResult, (ocelli_protocol::worker::AnalysisFault, String)>,
    ) -> Result<Result<ImageResult, AnalysisError>, ImageWorkerLost> {
        let mut result = match outcome {
            Ok(result) => result,
            Err((fault, message)) => {
                return Ok(Err(AnalysisError::from_worker(fault, bounds::truncate_cause(message))));
            }
        };
        if let Err((_, reason)) = bounds::result(&result, &self.watched.limits) {
            return Err(ImageWorkerLost { reason, received: true });
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        result.capture_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        Ok(image_result(&result, &self.deployment).map_err(|error| {
            AnalysisError::new(AnalysisErrorKind::InvalidResult, error.to_string())
        }))
    }
}

/// A result as it is told.
fn image_result(
    result: &FrameResult,
    deployment: &str,
) -> Result<ImageResult, event::InvalidResult> {
    let detections = event::detections(result, deployment)?.map(|found| found.detections);
    let events = result.events.iter().map(|told| {
        // A picture is no frame of a source.
        Ok(event::Event { frame: None, ..event::event(told, result, deployment)? })
    });
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
                Ok(other) => ImageWorkerLost::from(out_of_turn(&other)).reason,
                Err(unfit) => ImageWorkerLost::from(unfit).reason,
            }
        })
    }

    fn end(self: Box<Self>, hurry: bool) -> BoxFuture<'static, String> {
        Box::pin(async move {
            let Self { mut worker, outbox, .. } = *self;
            if hurry {
                worker.kill();
            }
            // Without its connection the worker ends by itself.
            drop(outbox);
            worker.end(END_GRACE).await.0
        })
    }
}
