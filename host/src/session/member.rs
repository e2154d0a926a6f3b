//! One worker of a session with all that belongs to it, from its start to its end.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::worker::{
    Counters, Description, FromWorker, KeptChange, Mode, Pacing, Stage, WorkerLimits,
};

use super::bounds;
use super::feed::Sent;
use super::launch::Launch;
use super::watched::{Unfit, Watched, failed, log, out_of_turn};
use super::worker::{Outbox, Worker};
use super::{Environment, Frames, Limits, Spec};
use crate::inference::{Attachment, catalogue};

/// How long a worker that its session gave up may take to end by itself.
const END_GRACE: Duration = Duration::from_millis(500);

/// Why a worker that starts is of no use.
#[derive(Debug)]
pub(super) enum NoStart {
    /// Another attempt may go well.
    Unfit(Unfit),
    /// No attempt will before a person has changed something.
    Lasting(String),
}

impl From<Unfit> for NoStart {
    fn from(unfit: Unfit) -> Self {
        Self::Unfit(unfit)
    }
}

/// A worker that runs.
pub(super) struct Member {
    pub(super) spec: Arc<Spec>,
    pub(super) worker: Worker,
    pub(super) health: Watched,
    /// The way to it, until it is given to a feed.
    pub(super) outbox: Option<Outbox>,
    /// What it was given.
    pub(super) sent: Arc<Sent>,
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
    pub(super) held: Vec<KeptChange>,
    /// Units that the source had left out before it spoke.
    pub(super) dropped_before: u64,
    /// Each worker has a place of its own at the inference process: what the one before it left unanswered there, or in its
    /// shared memory, stays with that one.
    _attachment: Attachment,
}

impl Member {
    /// Starts a worker for a session within these limits. `kept` is what the session's store holds, encoded.
    pub(super) async fn launch(
        environment: Arc<Environment>,
        limits: Limits,
        spec: Arc<Spec>,
        standby: bool,
        kept: Vec<u8>,
    ) -> anyhow::Result<Self> {
        let component = match &spec.deployment.compiled {
            Ok(component) => Arc::clone(component),
            Err(reason) => anyhow::bail!("{reason}"),
        };
        let live = spec.source.is_live();
        let launch = Launch {
            name: &spec.id,
            component: &component,
            settings: &spec.settings,
            mode: Mode::Stream(if live { Pacing::NewestWins } else { Pacing::EveryFrame }),
            decode: spec.decode,
            terms: limits.service(spec.priority, live),
            limits,
            standby,
            redis_prefix: spec.redis_prefix.as_deref(),
            kept: Some(kept),
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
            held: Vec::new(),
            dropped_before: 0,
            _attachment: attachment,
        })
    }

    /// Handles a message of a worker that is not initialised yet. Whether it is now.
    pub(super) fn starting(
        &mut self,
        message: FromWorker,
        environment: &Environment,
    ) -> Result<bool, NoStart> {
        match message {
            FromWorker::Confined(confinement) => {
                let admitted = environment.limits().admit(&confinement);
                self.confinement = Some(confinement);
                admitted.map_err(NoStart::Lasting)?;
            }
            FromWorker::Described(description) => {
                if self.confinement.is_none() {
                    return Err(Unfit::Broken("the worker did not say how it is confined".into()).into());
                }
                bounds::description(&description).map_err(Unfit::Broken)?;
                let lacks = catalogue::lacks(&environment.inference.models(), &description);
                self.description = Some(description);
                if let Some(lacks) = lacks {
                    return Err(NoStart::Lasting(lacks));
                }
            }
            FromWorker::Ready => {
                self.since = Instant::now();
                return Ok(true);
            }
            FromWorker::Stored(changes) => self.held.extend(changes),
            FromWorker::Alive { counters, guest_memory } => {
                self.health.counted(counters);
                self.guest_memory = guest_memory;
            }
            FromWorker::Log { level, context, message, frame } => {
                log(&self.spec.id, &self.spec.deployment.id, level, &context, &message, frame);
            }
            // The settings are as they are.
            FromWorker::Failed { stage: Stage::Settings, message, .. } => {
                return Err(NoStart::Lasting(format!("settings: {}", bounds::cause(message))));
            }
            FromWorker::Failed { stage, message, .. } => return Err(failed(stage, message).into()),
            other => return Err(out_of_turn(&other).into()),
        }
        Ok(false)
    }

    /// Looks whether it is well.
    pub(super) fn look(&mut self) -> Result<(), Unfit> {
        self.health.look(self.sent.units.load(Ordering::Relaxed))
    }

    /// Its counts, with what never reached it. `dropped` is what the source has left out so far.
    pub(super) fn frames(&self, counters: Counters, dropped: u64) -> Frames {
        let mut frames = Frames::from(counters);
        frames.skipped.queue = dropped.saturating_sub(self.dropped_before);
        frames
    }

    /// Ends it. Its connection has to be closed by then. One that was given up has less time than one that ends in peace.
    pub(super) async fn end(self, given_up: bool, cleanup: Duration) -> (String, bool) {
        drop(self.outbox);
        self.worker.end(if given_up { END_GRACE } else { cleanup }).await
    }
}
