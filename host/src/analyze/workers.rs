//! The workers of the host: processes as those of sessions, in control groups and confined as these, each with one
//! pipeline.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_protocol::worker::{Decode, FrameResult, FromWorker, Mode, Stage, ToWorker};
use serde_json::{Map, Value};

use super::bench::{Analyst, Bench, Found, Lost, NotStarted};
use super::{Fault, Kind};
use crate::deploy::Deployer;
use crate::event;
use crate::inference::{Attachment, Share, catalogue};
use crate::session::watched::{Unfit, Watched, failed, log, out_of_turn};
use crate::session::{Environment, Launch, Outbox, READY_TIMEOUT, Sessions, Worker, bounds};

/// How long a worker that is no longer needed may take to end by itself.
const END_GRACE: Duration = Duration::from_secs(2);

/// Makes workers of the pipelines in the store and the gallery.
pub(crate) struct Workers {
    environment: Arc<Environment>,
    deployer: Deployer,
    timeout_ms: u32,
    /// What tells the pipelines' shares of the inference process apart.
    shares: Mutex<BTreeMap<Arc<str>, u32>>,
}

impl Workers {
    /// Workers that give one picture so many milliseconds.
    pub(crate) fn new(sessions: &Sessions, deployer: Deployer, timeout_ms: u32) -> Self {
        Self { environment: sessions.environment(), deployer, timeout_ms, shares: Mutex::default() }
    }

    /// All workers of a pipeline have one share, however many they are. There are no more pipelines than files.
    fn share(&self, pipeline: &Arc<str>) -> Share {
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(shares.len()).unwrap_or(u32::MAX);
        Share::Group(*shares.entry(Arc::clone(pipeline)).or_insert(next))
    }
}

impl Bench for Workers {
    fn find(&self, pipeline: &str) -> Result<(), Fault> {
        Ok(self.deployer.knows(pipeline)?)
    }

    fn start(
        &self,
        pipeline: Arc<str>,
        settings: Arc<Map<String, Value>>,
    ) -> BoxFuture<'static, Result<Box<dyn Analyst>, NotStarted>> {
        let environment = Arc::clone(&self.environment);
        let (deployer, timeout_ms) = (self.deployer.clone(), self.timeout_ms);
        let share = self.share(&pipeline);
        Box::pin(async move {
            let deployment = deployer.component(&pipeline).await;
            let deployment = deployment.map_err(|error| lasting(error.into()))?;
            let component =
                deployment.compiled.map_err(|reason| lasting(Fault::new(Kind::InvalidPipeline, reason)))?;
            let limits = environment.limits().for_pictures(timeout_ms);
            let name = format!("analyze:{pipeline}");
            let launch = Launch {
                name: &name,
                component: &component,
                settings: &settings,
                mode: Mode::Analyze,
                decode: Decode::default(),
                terms: limits.service_for_pictures(share),
                limits,
                standby: false,
                redis_prefix: None,
                kept: None,
            };
            let (worker, outbox, attachment) =
                environment.launch(launch).await.map_err(|error| passing(format!("{error:#}")))?;
            let (watched, deployment) = (limits.watch(), deployment.id);
            let mut process =
                Process { worker, outbox, _attachment: attachment, watched, name, deployment, next: 0 };
            let ready = tokio::time::timeout(READY_TIMEOUT, process.until_ready(&environment)).await;
            ready.unwrap_or_else(|_| {
                Err(passing(format!("not ready within {} s", READY_TIMEOUT.as_secs())))
            })?;
            Ok(Box::new(process) as Box<dyn Analyst>)
        })
    }
}

fn lasting(fault: Fault) -> NotStarted {
    NotStarted { fault, lasting: true }
}

/// The next worker may get ready.
fn passing(reason: String) -> NotStarted {
    let message = format!("its worker does not start: {reason}");
    NotStarted { fault: Fault::new(Kind::PipelineCrashed, message), lasting: false }
}

/// A worker process.
struct Process {
    worker: Worker,
    outbox: Outbox,
    /// Its place at the inference process, which it needs as long as it lives.
    _attachment: Attachment,
    watched: Watched,
    /// As in the log.
    name: String,
    deployment: String,
    /// The number of the next picture.
    next: u64,
}

impl From<Unfit> for Lost {
    fn from(unfit: Unfit) -> Self {
        let (Unfit::Lost(reason) | Unfit::Broken(reason)) = unfit;
        Self { reason, took: true }
    }
}

impl Process {
    async fn until_ready(&mut self, environment: &Environment) -> Result<(), NotStarted> {
        let mut confined = false;
        loop {
            let message = self.next().await.map_err(|unfit| passing(Lost::from(unfit).reason))?;
            match message {
                FromWorker::Confined(confinement) => {
                    confined = true;
                    let admitted = environment.limits().admit(&confinement);
                    admitted.map_err(|reason| lasting(Fault::new(Kind::InvalidPipeline, reason)))?;
                }
                FromWorker::Described(description) => {
                    if !confined {
                        return Err(passing("it did not say how it is confined".into()));
                    }
                    bounds::description(&description).map_err(passing)?;
                    if let Some(lacks) = catalogue::lacks(&environment.inference.models(), &description) {
                        return Err(lasting(Fault::new(Kind::ModelMissing, lacks)));
                    }
                }
                FromWorker::Ready => return Ok(()),
                FromWorker::Failed { stage: Stage::Setup, message, .. } => {
                    return Err(passing(Lost::from(failed(Stage::Setup, message)).reason));
                }
                // The component itself is at fault.
                FromWorker::Failed { stage, message, .. } => {
                    let message = Lost::from(failed(stage, message)).reason;
                    return Err(lasting(Fault::new(Kind::InvalidPipeline, message)));
                }
                other => return Err(passing(Lost::from(out_of_turn(&other)).reason)),
            }
        }
    }

    /// The next message that is neither a sign of life nor a log line. May be dropped at any time.
    async fn next(&mut self) -> Result<FromWorker, Unfit> {
        loop {
            tokio::select! {
                received = self.worker.inbox.recv() => match self.watched.message(received)?.0 {
                    FromWorker::Alive { .. } => {}
                    FromWorker::Log { level, context, message, frame: _ } => {
                        log(&self.name, &self.deployment, level, &context, &message, None);
                    }
                    other => return Ok(other),
                },
                _ = self.watched.looks.tick() => self.watched.look(0)?,
            }
        }
    }

    async fn have_analyzed(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> Result<Result<Found, Fault>, Lost> {
        let id = self.next;
        self.next += 1;
        let request = ToWorker::Analyze { id, settings: settings.as_deref().map(str::to_owned) };
        self.outbox
            .send(&request, &image)
            .await
            .map_err(|error| Lost { reason: error.to_string(), took: false })?;
        drop(image);
        match self.next().await? {
            FromWorker::Analyzed { id: answered, outcome, .. } if answered == id => self.checked(outcome),
            FromWorker::Failed { stage, message, .. } => Err(failed(stage, message).into()),
            other => Err(out_of_turn(&other).into()),
        }
    }

    /// What a worker says, held against what it may say.
    fn checked(
        &self,
        outcome: Result<FrameResult, (ocelli_protocol::worker::AnalysisFault, String)>,
    ) -> Result<Result<Found, Fault>, Lost> {
        let mut result = match outcome {
            Ok(result) => result,
            Err((fault, message)) => return Ok(Err(Fault::told(fault, bounds::cause(message)))),
        };
        if let Err((_, reason)) = bounds::result(&result, &self.watched.limits) {
            return Err(Lost { reason, took: true });
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        result.capture_ns = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        Ok(found(&result, &self.deployment)
            .map_err(|error| Fault::new(Kind::InvalidResult, error.to_string())))
    }
}

/// A result as it is told.
fn found(result: &FrameResult, deployment: &str) -> Result<Found, event::BadResult> {
    let detections = event::detections(result, deployment)?.map(|found| found.detections);
    let events = result.events.iter().map(|told| {
        // A picture is no frame of a source.
        Ok(event::Event { frame: None, ..event::event(told, result, deployment)? })
    });
    Ok(Found {
        deployment: deployment.to_owned(),
        width: result.width,
        height: result.height,
        detections: detections.unwrap_or_default(),
        events: events.collect::<Result<_, _>>()?,
        stations: result.stations,
    })
}

impl Analyst for Process {
    fn analyze(
        &mut self,
        image: Bytes,
        settings: Option<Arc<str>>,
    ) -> BoxFuture<'_, Result<Result<Found, Fault>, Lost>> {
        Box::pin(self.have_analyzed(image, settings))
    }

    fn rest(&mut self) -> BoxFuture<'_, String> {
        Box::pin(async {
            match self.next().await {
                Ok(other) => Lost::from(out_of_turn(&other)).reason,
                Err(unfit) => Lost::from(unfit).reason,
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
