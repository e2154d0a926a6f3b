//! The task of one session. [`SessionTask::run`] only loops: it serves, and decides what follows.
//! `serve` is the service of one worker, `changeover` a change beside it, `snapshot` the state that
//! goes with a camera to its next host.

mod answers;
mod changeover;
mod serve;
mod snapshot;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocelli_protocol::worker::{Counters, ToWorker};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::environment::Environment;
use super::error::SessionError;
use super::feed::{Feed, MissedUnits, PumpCommand, Target};
use super::handle::{SessionRequest, SessionShared, TaskEnd};
use super::kv_replica::StoreReplica;
use super::lifecycle::{Lifecycle, LifecycleEvent};
use super::main_stream::{MainStream, MainStreamStatus};
use super::picture::{PendingPicture, PictureOrder};
use super::recent::RestartCause;
use super::rollout::{
    Candidate, Fallback, ProbationRequest, Report, Step, SwapRequest, VersionChange, VersionInput,
    send_report,
};
use super::snapshots::SnapshotSchedule;
use super::spec::Spec;
use super::stream_worker::StreamWorker;
use super::totals::Frames;
use crate::cluster::PipelineSnapshot;
use crate::event::{SessionState, rfc3339, unix_ns};
use crate::source::{ClipRecorder, PictureFeedOwner, PictureTap, Subscription};
use crate::util::backoff::BackoffPolicy;
use crate::util::line;
use crate::util::shown::without_folders;
use crate::worker::{StartError, WorkerFault};

use answers::PendingAnswers;
use snapshot::SnapshotPurpose;

/// Waits after losses of a worker in a row.
const RESTART_BACKOFF: BackoffPolicy = BackoffPolicy {
    free: 0,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(10),
    // Sessions that fell together do not start together.
    jitter: 0.25,
};

/// How a session has stopped serving.
#[derive(Debug)]
enum ServeOutcome {
    Stop(String),
    Restart,
    /// The file has no more frames.
    Finished,
    /// Not to be tried again before a person has changed something.
    Failed(String),
    /// As `Failed`, because of the source: no pipeline could do anything about it.
    SourceFailed(String),
    /// The worker died, said that it cannot go on, or could not be started.
    WorkerLost(String),
    /// The worker hangs or breaks the protocol: it is killed.
    ProtocolViolation(String),
}

impl ServeOutcome {
    /// The reason, as a part of a sentence.
    fn reason(&self) -> &str {
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
    fn blames_pipeline(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::WorkerLost(_) | Self::ProtocolViolation(_))
    }
}

impl From<WorkerFault> for ServeOutcome {
    fn from(fault: WorkerFault) -> Self {
        match fault {
            WorkerFault::Exited(reason) => Self::WorkerLost(reason),
            // The next worker would have the same, and no pipeline can do anything about it.
            device @ WorkerFault::Device(_) => Self::SourceFailed(device.to_string()),
            WorkerFault::ProtocolViolation(reason) => Self::ProtocolViolation(reason),
            WorkerFault::Unhealthy(fault) => Self::ProtocolViolation(fault.to_string()),
        }
    }
}

impl From<StartError> for ServeOutcome {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Fault(fault) => fault.into(),
            // The next worker would get the same settings, and the same sandbox and models.
            StartError::Settings(_) | StartError::Sandbox(_) | StartError::Model(_) => {
                Self::Failed(error.to_string())
            }
            StartError::Failed { .. } => Self::WorkerLost(error.to_string()),
        }
    }
}

/// The worker that is active, what feeds it, and the candidate that gets ready beside it.
struct Serving {
    worker: StreamWorker,
    /// When the worker became active.
    since: Instant,
    /// When its last result came.
    last_result: Option<Instant>,
    /// Units that no worker got before this one became active.
    missed_before: MissedUnits,
    feed: Feed,
    candidate: Option<Candidate>,
    answers: PendingAnswers,
    picture: PendingPicture,
    /// The last frame that is done with.
    last_done: Option<u64>,
    /// Snapshots that the worker was asked for and has not given, in their order: a change may be
    /// given up meanwhile.
    snapshots_owed: VecDeque<SnapshotPurpose>,
}

impl Serving {
    fn new(
        worker: StreamWorker,
        feed: Feed,
        last_done: Option<u64>,
        missed_before: MissedUnits,
    ) -> Self {
        Self {
            worker,
            since: Instant::now(),
            last_result: None,
            missed_before,
            feed,
            candidate: None,
            answers: PendingAnswers::default(),
            picture: PendingPicture::default(),
            last_done,
            snapshots_owed: VecDeque::new(),
        }
    }

    /// Makes another worker the active one. Returns the one before.
    fn replace_worker(&mut self, worker: StreamWorker) -> StreamWorker {
        self.since = Instant::now();
        self.last_result = None;
        self.missed_before = self.feed.missed();
        self.snapshots_owed.clear();
        self.picture = PendingPicture::default();
        std::mem::replace(&mut self.worker, worker)
    }

    /// The worker's counts, with what never reached it.
    fn frames(&self, counters: Counters) -> Frames {
        let mut frames = Frames::from(counters);
        let missed = self.feed.missed();
        frames.skipped.queue = missed.dropped.saturating_sub(self.missed_before.dropped);
        frames.skipped.unreadable = missed.lost.saturating_sub(self.missed_before.lost);
        frames
    }

    /// No worker has to process this frame any more.
    fn mark_done(&mut self, frame: u64) {
        self.last_done = self.last_done.max(Some(frame));
        self.feed.mark_done(frame);
    }

    /// Asks the active worker for a picture. While another takes over, its answer would not be
    /// told from the candidate's: whoever asked asks again.
    async fn order_picture(&mut self, order: PictureOrder) {
        if self.is_promoted() {
            return;
        }
        let (id, wish, known) = self.picture.begin(order);
        self.feed.send(Target::Active, ToWorker::EncodePicture { id, wish, known }).await;
    }

    /// Whether the candidate has the source's units.
    fn is_promoted(&self) -> bool {
        self.candidate.as_ref().is_some_and(Candidate::is_promoted)
    }

    /// Takes the candidate out and lets the running version have everything.
    async fn detach_candidate(&mut self) -> Option<Candidate> {
        let candidate = self.candidate.take()?;
        if candidate.is_promoted() {
            self.feed.command(PumpCommand::Revert).await;
            // Requests to the candidate get no answer.
            self.answers.next_worker();
            self.answers.cancel_others();
        } else {
            self.feed.command(PumpCommand::Detach).await;
        }
        Some(candidate)
    }
}

/// The feed of a lost worker, for the one that is to go on in its place.
struct FeedHandoff {
    feed: Feed,
    /// The last frame that is done with.
    last_done: Option<u64>,
}

pub(super) struct SessionTask {
    environment: Arc<Environment>,
    shared: Arc<SessionShared>,
    spec: Arc<Spec>,
    requests: mpsc::Receiver<SessionRequest>,
    lifecycle: Lifecycle,
    /// The last worker's subscription: the source's reader goes on until the next
    /// worker has subscribed.
    subscription: Option<Subscription>,
    /// The last part of the source that could not be read.
    source_damage: Option<String>,
    /// The session's store, once it was read.
    replica: Option<StoreReplica>,
    /// The change that made the session's version what it is, until its outcome is known.
    change: Option<VersionChange>,
    handoff: Option<FeedHandoff>,
    /// The state with which the camera came to this host, until a worker is given it.
    inherited: Option<PipelineSnapshot>,
    snapshots: SnapshotSchedule,
    /// Whether the session's version has given a result.
    has_results: bool,
    /// The name by which the pipeline that last served describes itself.
    served: Option<String>,
    /// The pipeline whose settings the session's version has, if it was given none of its own.
    settings_of: Option<String>,
    /// The end of the last worker whose place another took.
    ending: Option<JoinHandle<()>>,
    /// What viewers get of a session with a substream.
    main_stream: Option<MainStream>,
    /// Of what viewers get.
    clips: ClipRecorder,
    /// Dropped when the session has ended, as is `_alive`.
    pictures: PictureFeedOwner,
    _alive: watch::Sender<()>,
}

impl SessionTask {
    pub(super) fn new(
        environment: Arc<Environment>,
        end: TaskEnd,
        probation: Option<ProbationRequest>,
    ) -> Self {
        let TaskEnd { shared, requests, alive, pictures } = end;
        let spec = shared.spec();
        let terms = environment.limits().rollout;
        let inherited = environment.snapshots.as_ref().and_then(|store| store.take(&spec.id));
        let clips = environment.clips.recorder(&spec.id, Arc::clone(pictures.feed().counts()));
        Self {
            environment,
            shared,
            spec,
            requests,
            lifecycle: Lifecycle::default(),
            subscription: None,
            source_damage: None,
            replica: None,
            change: probation.map(|request| VersionChange::in_place(request, terms)),
            handoff: None,
            inherited,
            snapshots: SnapshotSchedule::default(),
            has_results: false,
            served: None,
            settings_of: None,
            ending: None,
            main_stream: None,
            clips,
            pictures,
            _alive: alive,
        }
    }

    /// Serves until the session is stopped.
    pub(super) async fn run(mut self) {
        self.publish_state();
        self.run_until_stopped().await;
        if let Some(ending) = self.ending.take() {
            // A name is free again only after the end of all its workers. This fails only if the
            // host itself ends.
            let _ = ending.await;
        }
    }

    async fn run_until_stopped(&mut self) {
        loop {
            let outcome = self.serve().await;
            if outcome.blames_pipeline() && self.try_rollback(&outcome) {
                continue;
            }
            match outcome {
                ServeOutcome::Stop(reason) => return self.stop(reason),
                ServeOutcome::Restart => self.apply_event(LifecycleEvent::Restart),
                ServeOutcome::Finished => {
                    self.on_version(VersionInput::Finished);
                    let reason = match self.source_damage.take() {
                        Some(damage) => format!("the file has ended, with losses: {damage}"),
                        None => "the file has ended".to_owned(),
                    };
                    self.apply_event(LifecycleEvent::Stop(reason));
                }
                ServeOutcome::Failed(reason) | ServeOutcome::SourceFailed(reason) => {
                    self.shared.note_error(&reason);
                    self.apply_event(LifecycleEvent::Fail(reason));
                }
                ServeOutcome::WorkerLost(reason) | ServeOutcome::ProtocolViolation(reason) => {
                    let deployment = self.spec.pipeline.id();
                    tracing::error!(target: "ocelli::session", session = self.id(), deployment, "worker lost: {reason}");
                    self.shared.note_error(&reason);
                    self.apply_event(LifecycleEvent::WorkerLost(reason));
                }
            }
            if let (SessionState::Failed, Some(reason)) = self.lifecycle.state() {
                self.on_version(VersionInput::Failed(reason.to_owned()));
            }
            if !self.wait_for_next_start().await {
                return;
            }
        }
    }

    fn stop(&mut self, reason: String) {
        self.on_version(VersionInput::Stopped(reason.clone()));
        self.apply_event(LifecycleEvent::Stop(reason));
    }

    /// After a loss in probation, makes the version before the session's again, if there is one.
    /// Whether it did.
    fn try_rollback(&mut self, outcome: &ServeOutcome) -> bool {
        let reason = outcome.reason();
        // The version before does not start with its state either.
        self.on_version(VersionInput::Lost);
        let Some(spec) = self.change.as_mut().and_then(|change| change.roll_back(reason)) else {
            return false;
        };
        let (deployment, before) = (self.spec.pipeline.id(), spec.pipeline.id());
        tracing::error!(
            target: "ocelli::session",
            session = self.id(), deployment,
            "worker lost on probation, {before} comes back: {reason}"
        );
        self.shared.note_error(reason);
        self.apply_event(LifecycleEvent::RollBack(reason.to_owned()));
        self.adopt_spec(spec);
        true
    }

    /// Waits as long as the session's state asks for. False if the session is over.
    async fn wait_for_next_start(&mut self) -> bool {
        let deadline = match self.lifecycle.state().0 {
            SessionState::Restarting => {
                // After a rollback no loss counts; the wait is the first, too.
                let losses = self.lifecycle.losses().max(1);
                Some(tokio::time::Instant::now() + RESTART_BACKOFF.delay(losses, rand::random()))
            }
            SessionState::Failed | SessionState::Stopped => {
                // Nothing is held for a session that a person has to start again.
                self.subscription = None;
                self.clips.follow(PictureTap::default());
                if self.main_stream.take().is_some() {
                    let idle = Some(MainStreamStatus::default());
                    self.shared.update(|status| status.shown.main_stream = idle);
                }
                self.pictures.follow(PictureTap::default());
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
                    self.stop(reason);
                    return false;
                }
                Some(_) => {
                    self.apply_event(LifecycleEvent::Restart);
                    return true;
                }
            }
        }
    }

    /// Handles a request while no worker serves. `None`: the session goes on as it does.
    fn on_idle_request(&mut self, request: Option<SessionRequest>) -> Option<ServeOutcome> {
        match request {
            Some(SessionRequest::Restart) => Some(ServeOutcome::Restart),
            Some(SessionRequest::Replace { spec, probation }) => {
                self.replace(spec, probation.map(|request| *request));
                Some(ServeOutcome::Restart)
            }
            Some(SessionRequest::Swap(request)) => {
                self.start_cold(*request).then_some(ServeOutcome::Restart)
            }
            Some(SessionRequest::Stop { reason }) => Some(ServeOutcome::Stop(reason)),
            // No worker has one. Whoever asked learns it by the end of the order.
            Some(SessionRequest::Picture(_)) => None,
            Some(SessionRequest::Ask { reply, .. }) => {
                let _ = reply.send(Err(SessionError::NotRunning(self.id().to_owned())));
                None
            }
            None => Some(ServeOutcome::Stop("the host stops".into())),
        }
    }

    /// Makes another spec the session's, for the next worker.
    fn replace(&mut self, spec: Arc<Spec>, probation: Option<ProbationRequest>) {
        self.on_version(VersionInput::Superseded);
        let terms = self.environment.limits().rollout;
        self.change = probation.map(|request| VersionChange::in_place(request, terms));
        self.adopt_spec(spec);
    }

    /// Changes the pipeline without a running version beside it. Whether it does: there is nothing
    /// to compare with.
    fn start_cold(&mut self, request: SwapRequest) -> bool {
        let SwapRequest { spec, shadow, inherits_settings, reports, .. } = request;
        send_report(&reports, Report::StepStarted(Step::Start));
        if shadow.is_condition() {
            let reason = "the session does not run: there is nothing to compare with".to_owned();
            send_report(&reports, Report::Aborted { step: Step::Start, reason });
            return false;
        }
        // A version that has failed is nothing to go back to.
        let has_failed =
            matches!(self.lifecycle.state().0, SessionState::Failed | SessionState::Stopped);
        let fallback = (self.has_results && !has_failed)
            .then(|| Fallback { spec: Arc::clone(&self.spec), state: None });
        self.on_version(VersionInput::Superseded);
        let terms = self.environment.limits().rollout;
        self.change = Some(VersionChange::cold(reports, fallback, terms, Instant::now()));
        self.adopt_spec(Arc::new(Spec {
            pipeline: spec.pipeline,
            settings: spec.settings,
            ..(*self.spec).clone()
        }));
        self.settings_of = self.served.clone().filter(|_| inherits_settings);
        true
    }

    /// Passes an input to the change of the session's version, and drops it with its outcome.
    fn on_version(&mut self, input: VersionInput) {
        let (has_results, now) = (self.has_results, Instant::now());
        self.change.take_if(|change| change.on(input, has_results, now));
    }

    fn id(&self) -> &str {
        &self.spec.id
    }

    /// Makes another spec the session's, for the next worker.
    fn adopt_spec(&mut self, spec: Arc<Spec>) {
        if spec.analysed() != self.spec.analysed() {
            // A fault of the old source says nothing of the new one.
            self.lifecycle.apply(LifecycleEvent::SourceUp);
            self.lifecycle.apply(LifecycleEvent::Damage(None));
            self.shared.update(|status| {
                status.source_down = None;
                (status.shown.codec, status.shown.size) = (None, None);
            });
            self.handoff = None;
        }
        self.shared.update(|status| {
            status.shown.pipeline_version = None;
            status.settings_schema = None;
        });
        self.has_results = false;
        self.settings_of = None;
        self.set_spec(spec);
    }

    fn set_spec(&mut self, spec: Arc<Spec>) {
        self.shared.set_spec(Arc::clone(&spec));
        self.spec = spec;
    }

    /// The session's store as a worker gets it; empty before it was read.
    fn encoded_store(&self) -> Vec<u8> {
        self.replica.as_ref().map(StoreReplica::encode).unwrap_or_default()
    }

    /// Applies an event, and publishes the state if it has changed.
    fn apply_event(&mut self, event: LifecycleEvent) {
        let before = (self.lifecycle.state().0, self.lifecycle.state().1.map(str::to_owned));
        let now = Instant::now();
        self.shared.update(|status| match &event {
            LifecycleEvent::Restart => status.since = now,
            LifecycleEvent::WorkerReady => status.last_result = Some(now),
            _ => {}
        });
        // A version that is rolled back was an operator's own change: its deployment tells.
        let is_loss = matches!(event, LifecycleEvent::WorkerLost(_));
        let shown = |reason: &str| without_folders(&line::text(reason));
        let anew = match &event {
            LifecycleEvent::WorkerLost(reason) => Some((RestartCause::Lost, Some(shown(reason)))),
            LifecycleEvent::RollBack(reason) => {
                Some((RestartCause::RolledBack, Some(shown(reason))))
            }
            LifecycleEvent::Restart => Some((RestartCause::Asked, None)),
            _ => None,
        };
        self.lifecycle.apply(event);
        let lacks_pictures = self.lifecycle.lacks_pictures();
        self.shared.update(|status| {
            status.source_down = lacks_pictures.then(|| status.source_down.unwrap_or(now));
        });
        let (state, reason) = self.lifecycle.state();
        if let (Some((cause, why)), SessionState::Restarting | SessionState::Starting) =
            (anew, state)
        {
            let time = rfc3339(unix_ns(SystemTime::now()));
            self.shared.update(|status| {
                status.shown.restarts += 1;
                status.losses += u64::from(is_loss);
                status.recent.restart(time, cause, why.as_deref());
            });
        }
        if (state, reason) != (before.0, before.1.as_deref()) {
            self.publish_state();
        }
    }

    fn publish_state(&self) {
        let (state, reason) = self.lifecycle.state();
        let reason = reason.map(line::text);
        self.shared.update(|status| {
            status.shown.state = state;
            status.running_since = (state == SessionState::Running).then(Instant::now);
            status.shown.reason.clone_from(&reason);
        });
        // A backtrace has been logged with the loss that it explains.
        let first_line = reason.as_deref().and_then(|reason| reason.lines().next());
        let deployment = self.spec.pipeline.id();
        tracing::info!(target: "ocelli::session", session = self.id(), deployment, %state, reason = first_line, "session state");
        self.environment.hub.publish_state(self.id(), state, reason);
    }

    /// Shows a worker as the session's.
    fn show_worker(&self, worker: &StreamWorker) {
        self.shared.update(|status| {
            let worker = &worker.handle;
            status.allowed = *worker.limits();
            status.shown.pid = worker.pid();
            status.shown.sandbox = worker.confinement().cloned();
            status.shown.control_group = worker.is_in_group();
            status.shown.guest_memory = worker.guest_memory();
            if let Some(described) = worker.description() {
                let version = format!("{} {}", described.name, described.version);
                status.shown.pipeline_version = Some(version);
                if status.described_as.as_ref() != Some(&described.name) {
                    status.described_as = Some(described.name.clone());
                }
                if status.settings_schema.as_ref() != Some(&described.settings_schema) {
                    status.settings_schema = Some(described.settings_schema.clone());
                }
            }
        });
    }
}
