//! The one way of every deployment: it waits for its turn, is planned, checked and compiled, given
//! memory, started, and followed through its probation to its outcome.
//!
//! [`Executor::deploy`] is for a session that runs; a session that is made or whose worker is
//! replaced comes to [`Executor::execute`] at once, with a [`Placement::Fresh`].

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::admission::{Admission, AdmissionError};
use super::backend::DeployBackend;
use super::compile::{CompileError, ComponentSource, PreparedComponent};
use super::components::ComponentLease;
use super::history::CameraEntry;
use super::plan::{Origin, Plan, settings_of_entry};
use super::queue::{DeployQueue, Turn};
use super::record::{Cause, DeploymentState, Outcome, Record, after, now};
use super::report::{self, DeploymentFigures};
use super::request::{DeployError, DeployRequest};
use super::state::DeployState;
use crate::config::diff;
use crate::session::rollout::{
    MAX_SHADOW, ProbationRequest, REPORT_CAPACITY, Report, ReportSender, Shadow, StateHandover,
    Step, SwapRequest,
};
use crate::session::{DriftKind, RunningVersion, SessionError, SessionHandle, Spec};

/// A check takes milliseconds: what takes longer compiles, or waits for its turn to.
const LONGEST_CHECK: Duration = Duration::from_millis(500);

type Answer = oneshot::Sender<Result<Record, DeployError>>;

/// Where the new version gets its worker.
pub(super) enum Placement {
    /// Beside the running worker, from which it takes over.
    Beside(Turn),
    /// In the session's only worker.
    Fresh(Box<Fresh>),
}

/// A session that is made, or whose worker is replaced.
pub(super) struct Fresh {
    /// What the session is made of; pipeline and settings are the plan's.
    pub(super) spec: Spec,
    /// The session whose worker is replaced. `None`: the session is made.
    pub(super) session: Option<SessionHandle>,
    /// What the session goes back to when the new version is lost on probation.
    pub(super) fallback: Option<(Spec, Option<RunningVersion>)>,
}

/// A deployment under way.
struct Active {
    record: Record,
    entry: Option<CameraEntry>,
    /// What the session runs again after a rollback.
    previous: Option<RunningVersion>,
    /// Answered when the new version is active.
    answer: Option<Answer>,
    /// Held until the new version is active.
    turn: Option<Turn>,
    admission: Option<Admission>,
    /// Held until the history says whether the component is still needed.
    lease: Option<ComponentLease>,
}

/// A deployment that the session has taken over, to be [followed](Executor::follow).
pub(super) struct Started {
    active: Active,
    reports: mpsc::Receiver<Report>,
    pub(super) session: SessionHandle,
}

/// A deployment that the session has not taken over.
pub(super) struct Failed {
    /// `None` if there is none: a subscriber's, or one that the history could not take.
    record: Option<Record>,
    pub(super) error: ExecuteError,
}

/// Why a session has not taken a deployment over.
#[derive(Debug, thiserror::Error)]
pub(super) enum ExecuteError {
    #[error("the history cannot be written: {0:#}")]
    History(anyhow::Error),
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error(transparent)]
    Memory(#[from] AdmissionError),
    #[error(transparent)]
    Session(#[from] SessionError),
    #[error("the session has ended")]
    SessionEnded,
}

impl ExecuteError {
    fn outcome(&self) -> Outcome {
        match self {
            Self::Compile(_) | Self::Memory(_) => Outcome::Refused,
            Self::History(_) | Self::Session(_) | Self::SessionEnded => Outcome::Interrupted,
        }
    }
}

impl From<ExecuteError> for DeployError {
    fn from(error: ExecuteError) -> Self {
        match error {
            ExecuteError::Compile(error) => Self::Compile(error),
            ExecuteError::Session(error) => Self::Session(error),
            error => Self::Internal(error.to_string()),
        }
    }
}

/// Runs the deployments of all sessions.
pub(super) struct Executor<B> {
    pub(super) backend: B,
    pub(super) state: DeployState,
    pub(super) figures: Mutex<DeploymentFigures>,
    queue: DeployQueue,
    /// Whether every configured camera has been started. Before, it is not known which components
    /// they need.
    cameras_started: AtomicBool,
    stopping: AtomicBool,
}

impl<B: DeployBackend> Executor<B> {
    pub(super) fn new(backend: B, state: DeployState) -> Self {
        Self {
            backend,
            state,
            figures: Mutex::default(),
            queue: DeployQueue::default(),
            cameras_started: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Deploys to a session that runs; see [`super::Deployer::deploy`].
    pub(super) async fn deploy(
        self: &Arc<Self>,
        session: &str,
        origin: Origin,
    ) -> Result<Record, DeployError> {
        if let Origin::Request(DeployRequest { shadow, .. }) = &origin {
            if shadow.frames > MAX_SHADOW {
                return Err(DeployError::Shadow(shadow.frames));
            }
            if shadow.frames == 0 && shadow.is_condition() {
                return Err(DeployError::NoShadow);
            }
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(DeployError::Stopping);
        }
        if self.backend.session(session).is_none() {
            return Err(SessionError::Unknown(session.to_owned()).into());
        }
        let turn = self.queue.enqueue(session)?;
        let (answer, answered) = oneshot::channel();
        // It runs to its end even if the caller stops waiting.
        tokio::spawn(Arc::clone(self).run(session.to_owned(), origin, turn, answer));
        answered
            .await
            .unwrap_or_else(|_| Err(DeployError::Internal("the deployment was dropped".into())))
    }

    /// No deployment begins any more, and one that ends now counts as interrupted.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn run(self: Arc<Self>, session: String, origin: Origin, mut turn: Turn, answer: Answer) {
        let requested = now();
        turn.wait().await;
        let plan = match self.backend.session(&session) {
            Some(running) => Plan::new(&self.state, &session, origin, Some(&running.spec())).await,
            None => Err(SessionError::Unknown(session).into()),
        };
        let mut plan = match plan {
            Ok(plan) => plan,
            Err(error) => return drop(answer.send(Err(error))),
        };
        plan.record.requested = requested;
        match self.execute(plan, Placement::Beside(turn)).await {
            Ok(mut started) => {
                started.active.answer = Some(answer);
                self.follow(started).await;
            }
            Err(Failed { record, error }) => {
                let _ = answer.send(record.ok_or_else(|| error.into()));
            }
        }
    }

    /// Takes the steps up to the start of the new worker.
    pub(super) async fn execute(
        &self,
        plan: Plan,
        placement: Placement,
    ) -> Result<Started, Failed> {
        let Plan { record, entry, source, lease, inherits_settings, handover } = plan;
        let (turn, fresh) = match placement {
            Placement::Beside(turn) => (Some(turn), None),
            Placement::Fresh(fresh) => (None, Some(fresh)),
        };
        let mut active =
            Active { record, entry, previous: None, answer: None, turn, admission: None, lease };
        let late = recorded_late(&active.record);
        if !late {
            match self.begin(&mut active.record).await {
                Ok(()) => {}
                // A full disk is no reason for a camera not to run.
                Err(error) if fresh.is_some() => {
                    let session = &active.record.session;
                    tracing::error!(target: "ocelli::deploy", session, "{error}");
                }
                Err(error) => return Err(Failed { record: None, error }),
            }
            if let Some(turn) = &active.turn {
                turn.set_progress(active.record.number, active.record.step);
            }
            self.announce(&active.record);
        }
        let (reports, received) = mpsc::channel(REPORT_CAPACITY);
        let started = async {
            let prepared = self.prepare(&mut active, source).await?;
            match fresh {
                None => {
                    let active = &mut active;
                    self.start_beside(active, &prepared, inherits_settings, handover, reports).await
                }
                Some(fresh) => self.start_fresh(&mut active, &prepared, *fresh, reports).await,
            }
        };
        match started.await {
            Ok(session) => Ok(Started { active, reports: received, session }),
            Err(error) if late => Err(Failed { record: None, error }),
            Err(error) => {
                let record = self.finish(active, error.outcome(), Some(error.to_string())).await;
                Err(Failed { record: Some(record), error })
            }
        }
    }

    /// Gives a deployment its number in the history.
    async fn begin(&self, record: &mut Record) -> Result<(), ExecuteError> {
        let configured =
            record.cause == Cause::Config || self.state.sessions.configured(&record.session);
        let begun = self.state.history.begin(record, configured).await;
        begun.map_err(ExecuteError::History)
    }

    async fn prepare(
        &self,
        active: &mut Active,
        source: ComponentSource,
    ) -> Result<PreparedComponent, ExecuteError> {
        let (caller, pipeline) = (active.record.caller(), active.record.pipeline.clone());
        let mut preparing = pin!(self.backend.prepare(&caller, &pipeline, source));
        let prepared = match tokio::time::timeout(LONGEST_CHECK, &mut preparing).await {
            Ok(prepared) => prepared,
            Err(_) => {
                self.step(active, Step::Compile).await;
                preparing.await
            }
        };
        let record = &mut active.record;
        match prepared {
            Ok(prepared) => {
                record.step = Step::Compile;
                record.compile_ms = prepared.report.compile_ms;
                record.cached = prepared.cached;
                record.check = Some(prepared.report.clone());
                Ok(prepared)
            }
            Err(error) => {
                record.step = error.step();
                record.check = error.report().cloned();
                Err(error.into())
            }
        }
    }

    /// The settings of a component that was given none, if it is another pipeline than the one that
    /// the session runs, whose settings are not for it. One that cannot be asked shows that when it
    /// is started.
    async fn own_settings(
        &self,
        record: &Record,
        prepared: &PreparedComponent,
    ) -> Option<Map<String, Value>> {
        let running = self.backend.session(&record.session)?.described_as()?;
        let config = self.state.config();
        let described = self.backend.describe(&record.pipeline, prepared, &config).await;
        let described = described.ok().filter(|described| described.name != running)?;
        let of = |pipeline: &str| settings_of_entry(&config, &record.session, pipeline);
        // The config names it by its file or its reference, whatever it calls itself.
        Some(of(&record.pipeline).or_else(|| of(&described.name)).unwrap_or_default())
    }

    /// Asks for memory, and has the session start a second worker.
    async fn start_beside(
        &self,
        active: &mut Active,
        prepared: &PreparedComponent,
        mut inherits_settings: bool,
        handover: Option<StateHandover>,
        reports: ReportSender,
    ) -> Result<SessionHandle, ExecuteError> {
        let deploy = &self.state.config().deploy;
        if inherits_settings && let Some(own) = self.own_settings(&active.record, prepared).await {
            inherits_settings = false;
            active.record.changed = diff::settings(&active.record.settings, &own);
            active.record.settings = own;
        }
        self.step(active, Step::Admit).await;
        let admitted = self.backend.admit(&active.record.session, deploy.reserve_mb << 20).await;
        let admission = active.admission.insert(admitted?);
        active.record.admitted = Some(admission.bytes);
        self.step(active, Step::Start).await;
        let Record { shadow: frames, shadow_only: only, threshold, .. } = active.record;
        let shadow = Shadow { frames, only, threshold };
        let Record { session, pipeline, settings, before, .. } = &mut active.record;
        let session = self.backend.session(session).ok_or(ExecuteError::SessionEnded)?;
        // It may have changed since the deployment was planned.
        let spec = session.spec();
        *before = Some(spec.pipeline.id().to_owned()).filter(|id| !id.is_empty());
        let swap = SwapRequest {
            spec: Spec {
                pipeline: prepared.compiled_pipeline(pipeline),
                settings: settings.clone(),
                ..(*spec).clone()
            },
            shadow,
            inherits_settings,
            handover: handover.unwrap_or_else(|| deploy.refused_state.into()),
            reports,
        };
        self.backend.swap(swap).await.map_err(|_| ExecuteError::SessionEnded)?;
        Ok(session)
    }

    /// Makes a session, or replaces its worker.
    async fn start_fresh(
        &self,
        active: &mut Active,
        prepared: &PreparedComponent,
        fresh: Fresh,
        reports: ReportSender,
    ) -> Result<SessionHandle, ExecuteError> {
        self.step(active, Step::Start).await;
        let record = &active.record;
        let spec = Spec {
            pipeline: prepared.compiled_pipeline(&record.pipeline),
            settings: record.settings.clone(),
            ..fresh.spec
        };
        let (fallback, previous) = fresh.fallback.unzip();
        active.previous = previous.flatten();
        let probation = ProbationRequest { fallback, reports };
        let session = self.backend.start(spec, fresh.session, Some(probation)).await?;
        let configured = record.cause == Cause::Config;
        let running = configured.then(|| record.into());
        self.state.sessions.insert(&session, &record.pipeline, configured, running);
        if configured {
            self.prune(&record.session).await;
        }
        Ok(session)
    }

    /// Writes a step to the history before it is taken.
    async fn step(&self, active: &mut Active, step: Step) {
        active.record.step = step;
        if let Some(turn) = &active.turn {
            turn.set_progress(active.record.number, step);
        }
        if active.record.number > 0 {
            self.state.history.write(&active.record, None).await;
        }
    }

    /// Follows a deployment in a task of its own.
    pub(super) fn follow_in_background(self: &Arc<Self>, started: Started) {
        let executor = Arc::clone(self);
        tokio::spawn(async move { executor.follow(started).await });
    }

    /// Records what the session reports of a deployment, to its end.
    async fn follow(&self, started: Started) {
        let Started { mut active, mut reports, .. } = started;
        if recorded_late(&active.record) {
            if let Err(error) = self.begin(&mut active.record).await {
                return tracing::error!(target: "ocelli::deploy", "{error}");
            }
            let record = &active.record;
            self.state.sessions.set_running(&record.session, record.into());
        }
        let (outcome, reason) = loop {
            let Some(report) = reports.recv().await else {
                let outcome = match active.record.state {
                    DeploymentState::Probation => Outcome::Unverified,
                    _ => Outcome::Interrupted,
                };
                break (outcome, Some("the session has ended".to_owned()));
            };
            match report {
                Report::StepStarted(step) => self.step(&mut active, step).await,
                Report::Described { name, version } => {
                    let record = &mut active.record;
                    (record.name, record.version) = (Some(name), Some(version));
                    // Without a worker to take over from, the probation begins at once.
                    if active.turn.is_none() && record.state == DeploymentState::Pending {
                        record.state = DeploymentState::Probation;
                        record.step = Step::Probation;
                        record.probation_ends = Some(self.probation_end());
                    }
                    self.state.history.write(record, None).await;
                }
                Report::Compared(comparison) => {
                    active.record.comparison = Some(comparison);
                    self.state.history.write(&active.record, None).await;
                }
                Report::Swapped(swapped) => {
                    active.record.swapped = Some(swapped);
                    self.on_active(&mut active).await;
                }
                Report::Aborted { step, reason } => {
                    active.record.step = step;
                    break (Outcome::Aborted, Some(reason));
                }
                Report::RolledBack { reason, with_state } => {
                    let Record { session, number, .. } = &active.record;
                    self.state.sessions.roll_back(session, *number, active.previous.as_ref());
                    let state = if with_state {
                        "with the state that it gave"
                    } else {
                        "without its state"
                    };
                    let lost = report::first_line(&reason);
                    let reason = format!("{lost}; the version before it goes on {state}");
                    break (Outcome::RolledBack, Some(reason));
                }
                Report::Unverified { reason } => break (Outcome::Unverified, Some(reason)),
                Report::Superseded => break (Outcome::Superseded, None),
                Report::Healthy => break (Outcome::Healthy, None),
                Report::OnlyCompared => break (Outcome::Compared, None),
            }
        };
        active.admission = None;
        let outcome = match outcome {
            // A version that ends because the host stops has not failed.
            Outcome::Unverified if self.stopping.load(Ordering::Relaxed) => Outcome::Interrupted,
            outcome => outcome,
        };
        self.finish(active, outcome, reason).await;
    }

    /// The new version is active: answers the caller and lets the next deployment begin.
    async fn on_active(&self, active: &mut Active) {
        active.record.state = DeploymentState::Probation;
        active.record.step = Step::Probation;
        active.record.probation_ends = Some(self.probation_end());
        let record = &active.record;
        let sessions = &self.state.sessions;
        if let Some(before) = sessions.set_running(&record.session, record.into()) {
            active.previous = Some(before);
        }
        active.admission = None;
        self.state.history.write(record, None).await;
        self.figures.lock().count(record);
        self.announce(record);
        active.turn = None;
        if let Some(answer) = active.answer.take() {
            let _ = answer.send(Ok(record.clone()));
        }
    }

    /// When a probation that begins now ends.
    fn probation_end(&self) -> String {
        after(Duration::from_secs(self.state.config().deploy.probation_s))
    }

    /// Closes a deployment, and answers the caller if it still waits.
    async fn finish(&self, active: Active, outcome: Outcome, reason: Option<String>) -> Record {
        let Active { mut record, entry, answer, turn, admission, lease, .. } = active;
        drop(admission);
        record.state = DeploymentState::Ended(outcome);
        record.reason = reason;
        record.ended = Some(now());
        // What failed for want of time or memory may succeed another time.
        let applied = match outcome {
            Outcome::Interrupted => false,
            Outcome::Refused => {
                record.check.as_ref().is_some_and(|check| !check.problems.is_empty())
            }
            _ => true,
        };
        self.state.history.write(&record, entry.as_ref().filter(|_| applied)).await;
        self.figures.lock().count(&record);
        self.prune(&record.session).await;
        drop(lease);
        self.remove_unneeded_components().await;
        self.announce(&record);
        self.note_outcome(&record, outcome);
        // The next in the queue finds everything written.
        drop(turn);
        if let Some(answer) = answer {
            let _ = answer.send(Ok(record.clone()));
        }
        record
    }

    /// Notes whether a camera runs as the config says.
    fn note_outcome(&self, record: &Record, outcome: Outcome) {
        if record.cause != Cause::Config {
            return;
        }
        let (notes, session) = (&self.state.notes, record.session.as_str());
        match outcome {
            Outcome::Healthy | Outcome::Superseded => notes.clear(session),
            Outcome::Refused | Outcome::Aborted | Outcome::RolledBack | Outcome::Unverified => {
                let reason = record.reason.as_deref().unwrap_or_default();
                let reason =
                    format!("deployment {} is {}: {reason}", record.number, outcome.name());
                let kind = DriftKind::Refused;
                notes.refused(session, kind, &record.pipeline, &record.settings, &reason);
            }
            Outcome::Interrupted | Outcome::Compared => {}
        }
    }

    /// Logs a deployment as it stands, and tells the session's subscribers.
    fn announce(&self, record: &Record) {
        report::log(record);
        self.backend.publish(&record.session, &report::event(record));
    }

    /// Bounds a session's history, and notes which components the session still needs.
    pub(super) async fn prune(&self, session: &str) {
        let DeployState { history, sessions, .. } = &self.state;
        let running = sessions.running(session).map(|running| running.number);
        let most = usize::try_from(self.state.config().deploy.history).unwrap_or(usize::MAX);
        match history.prune(session, running, most).await {
            Ok(needed) => sessions.set_needed(session, needed),
            Err(error) => {
                tracing::warn!(target: "ocelli::deploy", session, "the history is not pruned: \
                    {error:#}");
            }
        }
    }

    /// Deletes components that no session needs.
    async fn remove_unneeded_components(&self) {
        if !self.cameras_started.load(Ordering::Relaxed) {
            return;
        }
        let DeployState { sessions, components, .. } = &self.state;
        let needed = sessions.needed();
        self.figures.lock().retain(|session| sessions.requested(session).is_some());
        let components = components.clone();
        let _ = tokio::task::spawn_blocking(move || components.remove_unneeded(&needed)).await;
    }

    /// Every configured camera has been started: what is needed of the components is known.
    pub(super) async fn on_cameras_started(&self) {
        self.cameras_started.store(true, Ordering::Relaxed);
        self.remove_unneeded_components().await;
    }
}

/// Whether a deployment comes into the history once its worker starts: a subscriber does not wait
/// for the disk.
fn recorded_late(record: &Record) -> bool {
    record.cause == Cause::Subscription
}

#[cfg(test)]
mod tests;
