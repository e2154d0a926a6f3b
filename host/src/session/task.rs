//! The task of one session. [`SessionTask::task`] only loops: it serves, and decides what follows.
//! What one worker's life is stands in [`serve`](super::serve), what happens beside it while the
//! pipeline is changed in [`changeover`](super::changeover).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::change::{ProbationRequest, Report, ReportSender, Step, SwapRequest};
use super::error::SessionError;
use super::feed::Feed;
use super::green::send_report;
use super::handle::{SessionRequest, SessionShared};
use super::kv_replica::StoreReplica;
use super::lifecycle::{Lifecycle, LifecycleEvent};
use super::watched::WorkerFault;
use super::{Environment, Spec};
use crate::event::SessionState;
use crate::source::Subscription;
use crate::util::backoff::BackoffPolicy;

/// Waits after losses of a worker in a row.
const RESTART_BACKOFF: BackoffPolicy = BackoffPolicy {
    free: 0,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(10),
    // Sessions that fell together do not start together.
    jitter: 0.25,
};

/// How one worker's life ended.
#[derive(Debug)]
pub(super) enum ServeOutcome {
    /// Asked for.
    Stop(String),
    /// Asked for.
    Restart,
    /// The file has no more frames.
    Finished,
    /// Not to be tried again before a person has changed something.
    Failed(String),
    /// As `Internal`, for the source's sake: no pipeline could do anything about it.
    SourceFailed(String),
    /// The worker died, said that it cannot go on, or could not be started.
    WorkerLost(String),
    /// The worker hangs or breaks the protocol: it is killed.
    ProtocolViolation(String),
}

impl ServeOutcome {
    /// In words, and as a part of a sentence.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Stop(reason)
            | Self::Failed(reason)
            | Self::SourceFailed(reason)
            | Self::WorkerLost(reason)
            | Self::ProtocolViolation(reason) => reason,
            Self::Restart => "the session is started anew",
            Self::Finished => "the file has ended",
        }
    }

    /// Whether the pipeline is to blame, or may be.
    pub(super) fn blames_pipeline(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::WorkerLost(_) | Self::ProtocolViolation(_))
    }
}

impl From<WorkerFault> for ServeOutcome {
    fn from(unfit: WorkerFault) -> Self {
        match unfit {
            WorkerFault::Exited(reason) => Self::WorkerLost(reason),
            WorkerFault::ProtocolViolation(reason) => Self::ProtocolViolation(reason),
        }
    }
}

/// The state that a pipeline gave: its version, and the bytes.
pub(super) type PipelineState = (String, Vec<u8>);

/// What the session runs has to last a while before it counts as proven.
pub(super) struct Probation {
    pub(super) reports: ReportSender,
    /// What the session goes back to when it does not, with the state that it gave.
    pub(super) fallback: Option<(Arc<Spec>, Option<PipelineState>)>,
    /// When it is proven, once it serves.
    pub(super) until: Option<Instant>,
    /// When it was asked for, where it takes the place of one that was not running and has not
    /// served yet.
    pub(super) cold: Option<Instant>,
}

/// The session goes back to what it ran before.
pub(super) struct Rollback {
    pub(super) reports: ReportSender,
    pub(super) reason: String,
    pub(super) state: Option<PipelineState>,
}

/// What is left of a lost worker for the one that is to go on in its place.
pub(super) struct FeedHandoff {
    pub(super) feed: Feed,
    /// The last frame that is done with.
    pub(super) done: Option<u64>,
}

pub(super) struct SessionTask {
    pub(super) environment: Arc<Environment>,
    pub(super) shared: Arc<SessionShared>,
    pub(super) spec: Arc<Spec>,
    pub(super) requests: mpsc::Receiver<SessionRequest>,
    pub(super) life: Lifecycle,
    /// The last worker's subscription, kept so that the source's reader lives on until the next one
    /// has subscribed.
    pub(super) subscription: Option<Subscription>,
    /// The session's store, once it was asked for.
    pub(super) mirror: Option<StoreReplica>,
    pub(super) trial: Option<Probation>,
    pub(super) going_back: Option<Rollback>,
    pub(super) legacy: Option<FeedHandoff>,
    /// Whether what the session is has given a result.
    pub(super) worked: bool,
    /// The end of the worker that was passed over last.
    pub(super) ending: Option<JoinHandle<()>>,
}

impl SessionTask {
    pub(super) fn new(
        environment: Arc<Environment>,
        shared: Arc<SessionShared>,
        requests: mpsc::Receiver<SessionRequest>,
        trial: Option<ProbationRequest>,
    ) -> Self {
        let spec = shared.spec();
        Self {
            environment,
            shared,
            spec,
            requests,
            life: Lifecycle::default(),
            subscription: None,
            mirror: None,
            trial: trial.map(Probation::from),
            going_back: None,
            legacy: None,
            worked: false,
            ending: None,
        }
    }

    /// Serves until the session is stopped.
    pub(super) async fn run(mut self) {
        self.publish_state();
        self.run_until_stopped().await;
        if let Some(ending) = self.ending.take() {
            // A name is free again only when all its workers are gone. It failed only where the
            // host itself ends.
            let _ = ending.await;
        }
    }

    async fn run_until_stopped(&mut self) {
        loop {
            let ended = self.serve().await;
            if ended.blames_pipeline() && self.try_rollback(&ended) {
                continue;
            }
            match ended {
                ServeOutcome::Stop(reason) => {
                    self.end_probation(|| Report::Unproven {
                        reason: format!("the session has ended: {reason}"),
                    });
                    self.end_rollback();
                    return self.apply_event(LifecycleEvent::Stop(reason));
                }
                ServeOutcome::Restart => self.apply_event(LifecycleEvent::Restart),
                ServeOutcome::Finished => {
                    let worked = self.worked;
                    let ended = || Report::Unproven { reason: "the file has ended".to_owned() };
                    self.end_probation(|| if worked { Report::Healthy } else { ended() });
                    self.apply_event(LifecycleEvent::Stop("the file has ended".into()));
                }
                ServeOutcome::Failed(reason) | ServeOutcome::SourceFailed(reason) => {
                    self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                    self.apply_event(LifecycleEvent::Fail(reason));
                }
                ServeOutcome::WorkerLost(reason) | ServeOutcome::ProtocolViolation(reason) => {
                    let deployment = &self.spec.pipeline.id;
                    tracing::error!(target: "ocelli::session", session = self.id(), deployment, "worker lost: {reason}");
                    self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                    self.apply_event(LifecycleEvent::WorkerLost(reason));
                }
            }
            if let (SessionState::Failed, Some(reason)) = self.life.state() {
                let reason = reason.to_owned();
                self.end_probation(|| Report::Unproven { reason });
            }
            if !self.wait_for_next_start().await {
                return;
            }
        }
    }

    /// Makes what the session ran before its own again, where a worker was lost on trial and there
    /// is something to go back to. Whether it was so.
    fn try_rollback(&mut self, ended: &ServeOutcome) -> bool {
        let reason = ended.reason().to_owned();
        // The version before it does not start with its state either.
        self.end_rollback();
        let Some(trial) = self.trial.take_if(|trial| trial.fallback.is_some()) else {
            return false;
        };
        let Probation { reports, fallback, .. } = trial;
        let Some((spec, state)) = fallback else { return false };
        let (deployment, before) = (&self.spec.pipeline.id, &spec.pipeline.id);
        tracing::error!(
            target: "ocelli::session",
            session = self.id(), deployment,
            "worker lost on probation, {before} comes back: {reason}"
        );
        self.shared.update(|shown| shown.last_error = Some(reason.clone()));
        self.apply_event(LifecycleEvent::RollBack(reason.clone()));
        self.adopt_spec(spec);
        self.going_back = Some(Rollback { reports, reason, state });
        true
    }

    /// Waits as long as the session's state asks for. False where the session is over.
    async fn wait_for_next_start(&mut self) -> bool {
        let deadline = match self.life.state().0 {
            SessionState::Restarting => {
                // No loss counts any more where the session goes back to what it ran before: the
                // wait is the first, too.
                let losses = self.life.losses().max(1);
                Some(tokio::time::Instant::now() + RESTART_BACKOFF.delay(losses, rand::random()))
            }
            SessionState::Failed | SessionState::Stopped => {
                // Nothing is held for a session that a person has to start again.
                self.subscription = None;
                None
            }
            _ => return true,
        };
        loop {
            let request = match deadline {
                Some(deadline) => {
                    match tokio::time::timeout_at(deadline, self.requests.recv()).await {
                        Ok(request) => request,
                        Err(_) => return true,
                    }
                }
                None => self.requests.recv().await,
            };
            match self.on_idle_request(request) {
                None => {}
                Some(ServeOutcome::Stop(reason)) => {
                    self.end_probation(|| Report::Unproven {
                        reason: format!("the session has ended: {reason}"),
                    });
                    self.end_rollback();
                    self.apply_event(LifecycleEvent::Stop(reason));
                    return false;
                }
                Some(_) => {
                    self.apply_event(LifecycleEvent::Restart);
                    return true;
                }
            }
        }
    }

    /// What a request means to a session without a worker that serves: none where it goes on as it
    /// does.
    pub(super) fn on_idle_request(
        &mut self,
        request: Option<SessionRequest>,
    ) -> Option<ServeOutcome> {
        match request {
            Some(SessionRequest::Restart) => Some(ServeOutcome::Restart),
            Some(SessionRequest::Replace { spec, probation }) => {
                self.replace(spec, probation.map(|request| *request));
                Some(ServeOutcome::Restart)
            }
            Some(SessionRequest::Swap(swap)) => {
                self.start_cold(*swap);
                Some(ServeOutcome::Restart)
            }
            Some(SessionRequest::Stop { reason }) => Some(ServeOutcome::Stop(reason)),
            Some(SessionRequest::Command { reply, .. }) => {
                let _ = reply.send(Err(SessionError::NotRunning(self.id().to_owned())));
                None
            }
            None => Some(ServeOutcome::Stop("the host stops".into())),
        }
    }

    /// Makes another spec the session's, for the next worker.
    pub(super) fn replace(&mut self, spec: Arc<Spec>, trial: Option<ProbationRequest>) {
        self.supersede();
        self.trial = trial.map(Probation::from);
        self.adopt_spec(spec);
    }

    /// A change where there is no running version to change places with.
    fn start_cold(&mut self, swap: SwapRequest) {
        let SwapRequest { spec, reports, .. } = swap;
        send_report(&reports, Report::StepStarted(Step::Start));
        // What has failed is nothing to go back to.
        let has_failed =
            matches!(self.life.state().0, SessionState::Failed | SessionState::Stopped);
        let fallback = (self.worked && !has_failed).then(|| (Arc::clone(&self.spec), None));
        self.supersede();
        self.trial = Some(Probation { reports, fallback, until: None, cold: Some(Instant::now()) });
        self.adopt_spec(Arc::new(Spec {
            pipeline: spec.pipeline,
            settings: spec.settings,
            ..(*self.spec).clone()
        }));
    }

    /// Something else takes the place of what is on trial.
    pub(super) fn supersede(&mut self) {
        let served = self.trial.as_ref().is_some_and(|trial| trial.until.is_some());
        let unproven = || Report::Unproven {
            reason: "another version took its place before it served".to_owned(),
        };
        self.end_probation(|| if served { Report::Superseded } else { unproven() });
    }

    /// The trial is over, if there is one.
    pub(super) fn end_probation(&mut self, report: impl FnOnce() -> Report) {
        if let Some(trial) = self.trial.take() {
            send_report(&trial.reports, report());
        }
    }

    /// It has gone back, without the state.
    fn end_rollback(&mut self) {
        if let Some(Rollback { reports, reason, .. }) = self.going_back.take() {
            send_report(&reports, Report::Returned { reason, with_state: false });
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.spec.id
    }

    /// Makes another spec the session's, for the next worker.
    fn adopt_spec(&mut self, spec: Arc<Spec>) {
        if spec.source != self.spec.source {
            // What is wrong with the old source says nothing of the new one.
            self.life.apply(LifecycleEvent::SourceUp);
            self.shared.update(|shown| shown.source_down = None);
            self.legacy = None;
        }
        self.end_rollback();
        // The next pipeline speaks for itself.
        self.shared.update(|shown| shown.description = None);
        self.worked = false;
        self.set_spec(spec);
    }

    pub(super) fn set_spec(&mut self, spec: Arc<Spec>) {
        self.shared.set_spec(Arc::clone(&spec));
        self.spec = spec;
    }

    /// Takes a change in, and shows and publishes the state if it is another than before.
    pub(super) fn apply_event(&mut self, change: LifecycleEvent) {
        let before = (self.life.state().0, self.life.state().1.map(str::to_owned));
        let now = Instant::now();
        self.shared.update(|shown| match &change {
            LifecycleEvent::Restart => shown.since = now,
            LifecycleEvent::WorkerReady => shown.last_result = Some(now),
            LifecycleEvent::SourceDown(_) => shown.source_down = shown.source_down.or(Some(now)),
            LifecycleEvent::SourceUp => shown.source_down = None,
            _ => {}
        });
        let new_worker = matches!(
            change,
            LifecycleEvent::WorkerLost(_) | LifecycleEvent::RollBack(_) | LifecycleEvent::Restart
        );
        self.life.apply(change);
        let (state, reason) = self.life.state();
        if new_worker && matches!(state, SessionState::Restarting | SessionState::Starting) {
            self.shared.update(|shown| shown.restarts += 1);
        }
        if (state, reason) != (before.0, before.1.as_deref()) {
            self.publish_state();
        }
    }

    fn publish_state(&self) {
        let (state, reason) = self.life.state();
        self.shared.update(|shown| {
            shown.state = state;
            shown.reason = reason.map(str::to_owned);
        });
        // A backtrace has been logged with the loss that it explains.
        let told = reason.and_then(|reason| reason.lines().next());
        let deployment = &self.spec.pipeline.id;
        tracing::info!(target: "ocelli::session", session = self.id(), deployment, %state, reason = told, "session state");
        self.environment.hub.publish_state(self.id(), state, reason.map(str::to_owned));
    }
}

impl From<ProbationRequest> for Probation {
    fn from(trial: ProbationRequest) -> Self {
        let ProbationRequest { fallback, reports } = trial;
        Self {
            reports,
            fallback: fallback.map(|spec| (Arc::new(spec), None)),
            until: None,
            cold: None,
        }
    }
}
