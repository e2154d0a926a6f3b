//! The task of one session. [`Task::run`] only loops: it serves, and decides what follows. What one worker's life is stands in
//! [`serve`](super::serve), what happens beside it while the pipeline is changed in [`changeover`](super::changeover).

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::change::{Report, Reports, Step, Swap, Trial};
use super::feed::Feed;
use super::green::tell;
use super::kept::Mirror;
use super::phase::{Change, Life};
use super::watched::Unfit;
use super::{Environment, Request, SessionError, Shared, Spec};
use crate::event::State;
use crate::source::Subscription;
use crate::util::backoff::Waits;

/// Waits after losses of a worker in a row.
const WAITS: Waits = Waits {
    free: 0,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(10),
    // Sessions that fell together do not start together.
    jitter: 0.25,
};

/// How one worker's life ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// Asked for.
    Stop(String),
    /// Asked for.
    Restart,
    /// The file has no more frames.
    Finished,
    /// Not to be tried again before a person has changed something.
    Failed(String),
    /// As `Failed`, for the source's sake: no pipeline could do anything about it.
    SourceFailed(String),
    /// The worker died, said that it cannot go on, or could not be started.
    Lost(String),
    /// The worker hangs or breaks the protocol: it is killed.
    Broken(String),
}

impl Ended {
    /// In words, and as a part of a sentence.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Stop(reason)
            | Self::Failed(reason)
            | Self::SourceFailed(reason)
            | Self::Lost(reason)
            | Self::Broken(reason) => reason,
            Self::Restart => "the session is started anew",
            Self::Finished => "the file has ended",
        }
    }

    /// Whether the pipeline is to blame, or may be.
    pub(super) fn blames_pipeline(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Lost(_) | Self::Broken(_))
    }
}

impl From<Unfit> for Ended {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Lost(reason) => Self::Lost(reason),
            Unfit::Broken(reason) => Self::Broken(reason),
        }
    }
}

/// The state that a pipeline gave: its version, and the bytes.
pub(super) type Given = (String, Vec<u8>);

/// What the session runs has to last a while before it counts as proven.
pub(super) struct OnTrial {
    pub(super) reports: Reports,
    /// What the session goes back to when it does not, with the state that it gave.
    pub(super) fallback: Option<(Arc<Spec>, Option<Given>)>,
    /// When it is proven, once it serves.
    pub(super) until: Option<Instant>,
    /// When it was asked for, where it takes the place of one that was not running and has not served yet.
    pub(super) cold: Option<Instant>,
}

/// The session goes back to what it ran before.
pub(super) struct GoingBack {
    pub(super) reports: Reports,
    pub(super) reason: String,
    pub(super) state: Option<Given>,
}

/// What is left of a lost worker for the one that is to go on in its place.
pub(super) struct Legacy {
    pub(super) feed: Feed,
    /// The last frame that is done with.
    pub(super) done: Option<u64>,
}

pub(super) struct Task {
    pub(super) environment: Arc<Environment>,
    pub(super) shared: Arc<Shared>,
    pub(super) spec: Arc<Spec>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) life: Life,
    /// The last worker's subscription, kept so that the source's reader lives on until the next one has subscribed.
    pub(super) subscription: Option<Subscription>,
    /// The session's store, once it was asked for.
    pub(super) mirror: Option<Mirror>,
    pub(super) trial: Option<OnTrial>,
    pub(super) going_back: Option<GoingBack>,
    pub(super) legacy: Option<Legacy>,
    /// Whether what the session is has given a result.
    pub(super) worked: bool,
    /// The end of the worker that was passed over last.
    pub(super) ending: Option<JoinHandle<()>>,
}

impl Task {
    pub(super) fn new(
        environment: Arc<Environment>,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<Request>,
        trial: Option<Trial>,
    ) -> Self {
        let spec = shared.spec();
        Self {
            environment,
            shared,
            spec,
            requests,
            life: Life::default(),
            subscription: None,
            mirror: None,
            trial: trial.map(OnTrial::from),
            going_back: None,
            legacy: None,
            worked: false,
            ending: None,
        }
    }

    /// Serves until the session is stopped.
    pub(super) async fn run(mut self) {
        self.show();
        self.run_until_stopped().await;
        if let Some(ending) = self.ending.take() {
            // A name is free again only when all its workers are gone. It failed only where the host itself ends.
            let _ = ending.await;
        }
    }

    async fn run_until_stopped(&mut self) {
        loop {
            let ended = self.serve().await;
            if ended.blames_pipeline() && self.goes_back(&ended) {
                continue;
            }
            match ended {
                Ended::Stop(reason) => {
                    self.end_trial(|| Report::Unproven {
                        reason: format!("the session has ended: {reason}"),
                    });
                    self.end_going_back();
                    return self.change(Change::Stop(reason));
                }
                Ended::Restart => self.change(Change::Restart),
                Ended::Finished => {
                    let worked = self.worked;
                    let ended = || Report::Unproven { reason: "the file has ended".to_owned() };
                    self.end_trial(|| if worked { Report::Proven } else { ended() });
                    self.change(Change::Stop("the file has ended".into()));
                }
                Ended::Failed(reason) | Ended::SourceFailed(reason) => {
                    self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                    self.change(Change::Fail(reason));
                }
                Ended::Lost(reason) | Ended::Broken(reason) => {
                    let deployment = &self.spec.deployment.id;
                    tracing::error!(target: "ocelli::session", session = self.id(), deployment, "worker lost: {reason}");
                    self.shared.update(|shown| shown.last_error = Some(reason.clone()));
                    self.change(Change::WorkerLost(reason));
                }
            }
            if let (State::Failed, Some(reason)) = self.life.state() {
                let reason = reason.to_owned();
                self.end_trial(|| Report::Unproven { reason });
            }
            if !self.wait_for_next_start().await {
                return;
            }
        }
    }

    /// Makes what the session ran before its own again, where a worker was lost on trial and there is something to go back
    /// to. Whether it was so.
    fn goes_back(&mut self, ended: &Ended) -> bool {
        let reason = ended.reason().to_owned();
        // The version before it does not start with its state either.
        self.end_going_back();
        let Some(trial) = self.trial.take_if(|trial| trial.fallback.is_some()) else { return false };
        let OnTrial { reports, fallback, .. } = trial;
        let Some((spec, state)) = fallback else { return false };
        let (deployment, before) = (&self.spec.deployment.id, &spec.deployment.id);
        tracing::error!(
            target: "ocelli::session",
            session = self.id(), deployment,
            "worker lost on probation, {before} comes back: {reason}"
        );
        self.shared.update(|shown| shown.last_error = Some(reason.clone()));
        self.change(Change::GoBack(reason.clone()));
        self.take_over(spec);
        self.going_back = Some(GoingBack { reports, reason, state });
        true
    }

    /// Waits as long as the session's state asks for. False where the session is over.
    async fn wait_for_next_start(&mut self) -> bool {
        let deadline = match self.life.state().0 {
            State::Restarting => {
                // No loss counts any more where the session goes back to what it ran before: the wait is the first, too.
                let losses = self.life.losses().max(1);
                Some(tokio::time::Instant::now() + WAITS.after(losses, rand::random()))
            }
            State::Failed | State::Stopped => {
                // Nothing is held for a session that a person has to start again.
                self.subscription = None;
                None
            }
            _ => return true,
        };
        loop {
            let request = match deadline {
                Some(deadline) => match tokio::time::timeout_at(deadline, self.requests.recv()).await {
                    Ok(request) => request,
                    Err(_) => return true,
                },
                None => self.requests.recv().await,
            };
            match self.asked_without_worker(request) {
                None => {}
                Some(Ended::Stop(reason)) => {
                    self.end_trial(|| Report::Unproven {
                        reason: format!("the session has ended: {reason}"),
                    });
                    self.end_going_back();
                    self.change(Change::Stop(reason));
                    return false;
                }
                Some(_) => {
                    self.change(Change::Restart);
                    return true;
                }
            }
        }
    }

    /// What a request means to a session without a worker that serves: none where it goes on as it does.
    pub(super) fn asked_without_worker(&mut self, request: Option<Request>) -> Option<Ended> {
        match request {
            Some(Request::Restart) => Some(Ended::Restart),
            Some(Request::Replace { spec, trial }) => {
                self.replace(spec, trial.map(|trial| *trial));
                Some(Ended::Restart)
            }
            Some(Request::Swap(swap)) => {
                self.swap_cold(*swap);
                Some(Ended::Restart)
            }
            Some(Request::Stop { reason }) => Some(Ended::Stop(reason)),
            Some(Request::Command { answer, .. }) => {
                let _ = answer.send(Err(SessionError::NotRunning(self.id().to_owned())));
                None
            }
            None => Some(Ended::Stop("the host stops".into())),
        }
    }

    /// Makes another spec the session's, for the next worker.
    pub(super) fn replace(&mut self, spec: Arc<Spec>, trial: Option<Trial>) {
        self.supersede();
        self.trial = trial.map(OnTrial::from);
        self.take_over(spec);
    }

    /// A change where there is no running version to change places with.
    fn swap_cold(&mut self, swap: Swap) {
        let Swap { spec, reports, .. } = swap;
        tell(&reports, Report::Began(Step::Start));
        // What has failed is nothing to go back to.
        let has_failed = matches!(self.life.state().0, State::Failed | State::Stopped);
        let fallback = (self.worked && !has_failed).then(|| (Arc::clone(&self.spec), None));
        self.supersede();
        self.trial = Some(OnTrial { reports, fallback, until: None, cold: Some(Instant::now()) });
        self.take_over(Arc::new(Spec {
            deployment: spec.deployment,
            settings: spec.settings,
            ..(*self.spec).clone()
        }));
    }

    /// Something else takes the place of what is on trial.
    pub(super) fn supersede(&mut self) {
        let served = self.trial.as_ref().is_some_and(|trial| trial.until.is_some());
        let unproven =
            || Report::Unproven { reason: "another version took its place before it served".to_owned() };
        self.end_trial(|| if served { Report::Superseded } else { unproven() });
    }

    /// The trial is over, if there is one.
    pub(super) fn end_trial(&mut self, report: impl FnOnce() -> Report) {
        if let Some(trial) = self.trial.take() {
            tell(&trial.reports, report());
        }
    }

    /// It has gone back, without the state.
    fn end_going_back(&mut self) {
        if let Some(GoingBack { reports, reason, .. }) = self.going_back.take() {
            tell(&reports, Report::Returned { reason, with_state: false });
        }
    }

    pub(super) fn id(&self) -> &str {
        &self.spec.id
    }

    /// Makes another spec the session's, for the next worker.
    fn take_over(&mut self, spec: Arc<Spec>) {
        if spec.source != self.spec.source {
            // What is wrong with the old source says nothing of the new one.
            self.life.apply(Change::SourceUp);
            self.shared.update(|shown| shown.source_down = None);
            self.legacy = None;
        }
        self.end_going_back();
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
    pub(super) fn change(&mut self, change: Change) {
        let before = (self.life.state().0, self.life.state().1.map(str::to_owned));
        let now = Instant::now();
        self.shared.update(|shown| match &change {
            Change::Restart => shown.since = now,
            Change::WorkerReady => shown.last_result = Some(now),
            Change::SourceDown(_) => shown.source_down = shown.source_down.or(Some(now)),
            Change::SourceUp => shown.source_down = None,
            _ => {}
        });
        let new_worker = matches!(change, Change::WorkerLost(_) | Change::GoBack(_) | Change::Restart);
        self.life.apply(change);
        let (state, reason) = self.life.state();
        if new_worker && matches!(state, State::Restarting | State::Starting) {
            self.shared.update(|shown| shown.restarts += 1);
        }
        if (state, reason) != (before.0, before.1.as_deref()) {
            self.show();
        }
    }

    fn show(&self) {
        let (state, reason) = self.life.state();
        self.shared.update(|shown| {
            shown.state = state;
            shown.reason = reason.map(str::to_owned);
        });
        // A backtrace has been logged with the loss that it explains.
        let told = reason.and_then(|reason| reason.lines().next());
        let deployment = &self.spec.deployment.id;
        tracing::info!(target: "ocelli::session", session = self.id(), deployment, %state, reason = told, "session state");
        self.environment.hub.publish_state(self.id(), state, reason.map(str::to_owned));
    }
}

impl From<Trial> for OnTrial {
    fn from(trial: Trial) -> Self {
        let Trial { fallback, reports } = trial;
        Self { reports, fallback: fallback.map(|spec| (Arc::new(spec), None)), until: None, cold: None }
    }
}
