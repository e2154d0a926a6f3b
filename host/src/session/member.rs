//! One worker of a session with all that belongs to it, from its start to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::worker::{
    Counters, Description, FromWorker, Pacing, StoreChange, WorkerLimits, WorkerMode, WorkerStage,
};

use super::bounds;
use super::feed::SentCounts;
use super::launch::WorkerLaunch;
use super::watched::{WorkerFault, WorkerMonitor, failed, log, out_of_turn};
use super::worker::{WorkerProcess, WorkerSender};
use super::{Environment, Frames, Limits, Spec};
use crate::inference::{InferenceAttachment, catalog};

/// How long a worker that its session gave up may take to end by itself.
const END_GRACE: Duration = Duration::from_millis(500);

/// Why a worker that starts is of no use.
#[derive(Debug)]
pub(super) enum StartError {
    /// Another attempt may go well.
    Fault(WorkerFault),
    /// No attempt will before a person has changed something.
    Permanent(String),
}

impl StartError {
    /// The error in words.
    pub(super) fn into_reason(self) -> String {
        match self {
            Self::Fault(fault) => fault.into_reason(),
            Self::Permanent(reason) => reason,
        }
    }
}

impl From<WorkerFault> for StartError {
    fn from(unfit: WorkerFault) -> Self {
        Self::Fault(unfit)
    }
}

/// A worker that runs.
pub(super) struct StreamWorker {
    pub(super) spec: Arc<Spec>,
    pub(super) worker: WorkerProcess,
    pub(super) health: WorkerMonitor,
    /// The way to it, until it is given to a feed.
    pub(super) outbox: Option<WorkerSender>,
    /// What it was given.
    pub(super) sent: Arc<SentCounts>,
    /// What it may use.
    pub(super) limits: WorkerLimits,
    pub(super) confinement: Option<Confinement>,
    pub(super) description: Option<Description>,
    pub(super) guest_memory: u64,
    /// When it was ready, or began to speak.
    pub(super) since: Instant,
    /// When its last result came.
    pub(super) last_result: Option<Instant>,
    /// Changes of the session's store by a call that has not been told of yet.
    pub(super) pending_store_changes: Vec<StoreChange>,
    /// Units that the source had left out before it spoke.
    pub(super) dropped_before: u64,
    /// Each worker has a place of its own at the inference process: what the one before it left
    /// unanswered there, or in its shared memory, stays with that one.
    _attachment: InferenceAttachment,
}

impl StreamWorker {
    /// Starts a worker for a session within these limits. `kept` is what the session's store holds,
    /// encoded.
    pub(super) async fn launch(
        environment: Arc<Environment>,
        limits: Limits,
        spec: Arc<Spec>,
        standby: bool,
        kept: Vec<u8>,
    ) -> anyhow::Result<Self> {
        let component = match &spec.pipeline.compiled {
            Ok(component) => Arc::clone(component),
            Err(reason) => anyhow::bail!("{reason}"),
        };
        let live = spec.source.is_live();
        let launch = WorkerLaunch {
            name: &spec.id,
            component: &component,
            settings: &spec.settings,
            mode: WorkerMode::Stream(if live { Pacing::NewestWins } else { Pacing::EveryFrame }),
            decode: spec.decode,
            terms: limits.service(spec.priority, live),
            limits,
            standby,
            redis_prefix: spec.redis_prefix.as_deref(),
            store: Some(kept),
        };
        let (worker, outbox, attachment) = environment.launch(launch).await?;
        Ok(Self {
            spec: Arc::clone(&spec),
            worker,
            health: limits.watch(),
            outbox: Some(outbox),
            sent: Arc::default(),
            limits: limits.worker,
            confinement: None,
            description: None,
            guest_memory: 0,
            since: Instant::now(),
            last_result: None,
            pending_store_changes: Vec::new(),
            dropped_before: 0,
            _attachment: attachment,
        })
    }

    /// Handles a message of a worker that is not initialised yet. Whether it is now.
    pub(super) fn starting(
        &mut self,
        message: FromWorker,
        environment: &Environment,
    ) -> Result<bool, StartError> {
        match message {
            FromWorker::SandboxReport(confinement) => {
                let admitted = environment.limits().admit(&confinement);
                self.confinement = Some(confinement);
                admitted.map_err(StartError::Permanent)?;
            }
            FromWorker::Described(description) => {
                if self.confinement.is_none() {
                    return Err(WorkerFault::ProtocolViolation(
                        "the worker did not say how it is confined".into(),
                    )
                    .into());
                }
                bounds::description(&description).map_err(WorkerFault::ProtocolViolation)?;
                let lacks = catalog::missing_model(&environment.inference.models(), &description);
                self.description = Some(description);
                if let Some(lacks) = lacks {
                    return Err(StartError::Permanent(lacks));
                }
            }
            FromWorker::Ready => {
                self.since = Instant::now();
                return Ok(true);
            }
            FromWorker::StoreCommit(changes) => self.pending_store_changes.extend(changes),
            FromWorker::Heartbeat { counters, guest_memory } => {
                self.health.counted(counters);
                self.guest_memory = guest_memory;
            }
            FromWorker::Log { level, context, message, frame } => {
                log(&self.spec.id, &self.spec.pipeline.id, level, &context, &message, frame);
            }
            // The settings are as they are.
            FromWorker::Failed { stage: WorkerStage::Settings, message, .. } => {
                return Err(StartError::Permanent(format!(
                    "settings: {}",
                    bounds::truncate_cause(message)
                )));
            }
            FromWorker::Failed { stage, message, .. } => return Err(failed(stage, message).into()),
            other => return Err(out_of_turn(&other).into()),
        }
        Ok(false)
    }

    /// Looks whether it is well.
    pub(super) fn look(&mut self) -> Result<(), WorkerFault> {
        self.health.look(self.sent.units.load(Ordering::Relaxed))
    }

    /// Its counts, with what never reached it. `dropped` is what the source has left out so far.
    pub(super) fn frames(&self, counters: Counters, dropped: u64) -> Frames {
        let mut frames = Frames::from(counters);
        frames.skipped.queue = dropped.saturating_sub(self.dropped_before);
        frames
    }

    /// Ends it. Its connection has to be closed by then. One that was given up has less time than
    /// one that ends in peace.
    pub(super) async fn end(self, given_up: bool, cleanup: Duration) -> (String, bool) {
        drop(self.outbox);
        self.worker.end(if given_up { END_GRACE } else { cleanup }).await
    }
}
