//! The way of every deployment, whoever asked for it: its place in the session's queue, the
//! component's check, memory, the change itself, and the probation. What it needs of the rest of
//! the host is the trait [`DeployBackend`].

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};

use super::admission::Admission;
use super::compile::{CompileError, ComponentSource, PreparedComponent};
use super::components::{ComponentLease, ComponentStore};
use super::history::{self, CameraEntry, History, now};
use super::pipelines::{find_named, find_pipeline};
use super::queue::{DeployQueue, Turn};
use super::record::{Cause, DeploymentState, Outcome, Record};
use super::report::{self, DeploymentCounters};
use super::request::{Component, DeployError, DeployRequest};
use super::session_index::SessionIndex;
use crate::config::Config;
use crate::event::Event;
use crate::session::change::{MAX_SHADOW, REPORT_CAPACITY, Report, Step, SwapRequest};
use crate::session::{RunningVersion, SessionError, Spec};

/// What a deployment needs of the host.
pub(super) trait DeployBackend: Send + Sync + 'static {
    /// What a session is made of.
    fn spec(&self, session: &str) -> Option<Arc<Spec>>;
    /// Checks and compiles.
    fn prepare(
        &self,
        pipeline: &str,
        source: ComponentSource,
    ) -> impl Future<Output = Result<PreparedComponent, CompileError>> + Send;
    /// Asks for memory for a second worker of a session; `reserve` has to stay free.
    fn admit(
        &self,
        session: &str,
        reserve: u64,
    ) -> impl Future<Output = Result<Admission, String>> + Send;
    /// Has the session change.
    fn swap(&self, swap: SwapRequest) -> impl Future<Output = Result<(), SessionError>> + Send;
    /// Tells the session's subscribers.
    fn publish(&self, session: &str, event: &Event);
}

/// An order on its way.
pub(super) struct Ordered {
    pub(super) order: DeployRequest,
    /// It is for the deployment before, whatever the order's component is.
    pub(super) rollback: bool,
    /// What the config says, where that is what is deployed: pipeline and settings.
    pub(super) entry: Option<(String, Map<String, Value>)>,
}

impl From<DeployRequest> for Ordered {
    fn from(order: DeployRequest) -> Self {
        Self { order, rollback: false, entry: None }
    }
}

type Answer = oneshot::Sender<Result<Record, DeployError>>;

/// A deployment that the session has heard of.
pub(super) struct Change {
    pub(super) record: Record,
    /// The config's entry that it brings the camera to.
    pub(super) entry: Option<CameraEntry>,
    /// What runs when the session goes back.
    pub(super) prior: Option<RunningVersion>,
    /// Waits until the new version speaks.
    pub(super) answer: Option<Answer>,
    pub(super) place: Option<Turn>,
    pub(super) admission: Option<Admission>,
    /// Until it is known whether anything needs the component.
    pub(super) held: Option<ComponentLease>,
}

/// All deployments.
pub(super) struct Deployments<G> {
    pub(super) ground: G,
    pub(super) history: History,
    pub(super) components: ComponentStore,
    pub(super) lives: SessionIndex,
    pub(super) tally: DeploymentCounters,
    lanes: DeployQueue,
    config: watch::Receiver<Arc<Config>>,
    /// Whether all configured cameras have been looked at: before, nobody knows what they need.
    settled: AtomicBool,
    stopping: AtomicBool,
}

impl<G: DeployBackend> Deployments<G> {
    pub(super) fn new(
        ground: G,
        history: History,
        components: ComponentStore,
        config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        Self {
            ground,
            history,
            components,
            lives: SessionIndex::default(),
            tally: DeploymentCounters::default(),
            lanes: DeployQueue::default(),
            config,
            settled: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// See [`super::Deployer::deploy`].
    pub(super) async fn deploy(self: &Arc<Self>, ordered: Ordered) -> Result<Record, DeployError> {
        let DeployRequest { session, shadow, .. } = &ordered.order;
        if *shadow > MAX_SHADOW {
            return Err(DeployError::Shadow { asked: *shadow, most: MAX_SHADOW });
        }
        if self.stopping.load(Ordering::Relaxed) {
            return Err(DeployError::Stopping);
        }
        if self.ground.spec(session).is_none() {
            return Err(SessionError::Unknown(session.clone()).into());
        }
        let place = self.lanes.enqueue(session)?;
        let (answer, answered) = oneshot::channel();
        // Whether its caller waits or not.
        tokio::spawn(Arc::clone(self).run(ordered, now(), place, answer));
        answered
            .await
            .unwrap_or_else(|_| Err(DeployError::Internal("the deployment was given up".into())))
    }

    /// Nothing new begins, and what ends now is interrupted.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    async fn run(
        self: Arc<Self>,
        ordered: Ordered,
        requested: String,
        mut place: Turn,
        answer: Answer,
    ) {
        place.wait().await;
        let entry = ordered.entry.clone();
        let (mut record, held, source, order) = match self.take(ordered, requested).await {
            Ok(taken) => taken,
            Err(error) => return drop(answer.send(Err(error))),
        };
        place.set_progress(record.number, record.step);
        self.tell(&record);
        let entry = entry.map(|(pipeline, settings)| {
            let digest = record.digest.clone();
            CameraEntry { pipeline, settings, digest }
        });
        match self.begin_change(&mut record, &order, source, &place).await {
            Ok((reports, admission)) => {
                let change = Change {
                    record,
                    entry,
                    prior: None,
                    answer: Some(answer),
                    place: Some(place),
                    admission: Some(admission),
                    held,
                };
                self.follow(change, reports).await;
            }
            Err((outcome, reason)) => {
                let reason = Some(reason);
                let record = self.end(record, outcome, reason, entry.as_ref(), held).await;
                let _ = answer.send(Ok(record));
            }
        }
    }

    /// Reads the component and begins the row.
    async fn take(
        &self,
        ordered: Ordered,
        requested: String,
    ) -> Result<(Record, Option<ComponentLease>, ComponentSource, DeployRequest), DeployError> {
        let Ordered { mut order, rollback, .. } = ordered;
        let session = order.session.clone();
        let Some(spec) = self.ground.spec(&session) else {
            return Err(SessionError::Unknown(session).into());
        };
        let mut back_to = None;
        let records = if rollback {
            let listed = self.history.list(&session, usize::MAX).await;
            listed.map_err(|error| DeployError::Internal(format!("{error:#}")))?
        } else {
            Vec::new()
        };
        if rollback {
            let running = self.lives.running(&session).map(|running| running.number);
            let before = history::previous_version(&records, running);
            let before = before.ok_or_else(|| DeployError::NoPreviousVersion(session.clone()))?;
            let (digest, pipeline) = (before.digest.clone(), before.pipeline.clone());
            order.component = Component::Digest { digest, pipeline };
            order.settings = Some(before.settings.clone());
            back_to = Some(before.number);
        }
        let (pipeline, source, held) = self.find(&order).await?;
        let held = match held {
            Some(held) => Some(held),
            None => self.keep(&source).await?,
        };
        let settings = order.settings.clone().unwrap_or_else(|| spec.settings.clone());
        let mut record =
            draft(&session, held.as_ref(), &pipeline, settings, order.cause, &order.by);
        record.shadow = order.shadow;
        record.requested = requested;
        record.back_to = back_to;
        record.before = Some(spec.pipeline.id.clone()).filter(|id| !id.is_empty());
        let source = held.as_ref().map_or(source, |held| ComponentSource::Path(held.path.clone()));
        let begun = self.history.begin(record, self.lives.configured(&session)).await;
        let record = begun.map_err(|error| {
            DeployError::Internal(format!("the history cannot be written: {error:#}"))
        })?;
        Ok((record, held, source, order))
    }

    /// What the pipeline is called in the history, and where the component is.
    async fn find(
        &self,
        order: &DeployRequest,
    ) -> Result<(String, ComponentSource, Option<ComponentLease>), DeployError> {
        Ok(match &order.component {
            Component::Bytes { name, bytes } => {
                // As that of a file, so that it is never taken for a pipeline's name.
                let name =
                    if name.ends_with(".wasm") { name.clone() } else { format!("{name}.wasm") };
                (name, ComponentSource::Bytes(bytes.clone()), None)
            }
            Component::Pipeline(name) => {
                let config = self.config();
                let path = match order.cause {
                    Cause::Config => find_pipeline(name, &config)?,
                    _ => find_named(name, &config)?,
                };
                (name.clone(), ComponentSource::Path(path), None)
            }
            Component::Digest { digest, pipeline } => {
                let held = self
                    .components
                    .lease(digest)
                    .ok_or_else(|| DeployError::ComponentGone(digest.clone()))?;
                (pipeline.clone(), ComponentSource::Path(held.path.clone()), Some(held))
            }
        })
    }

    /// Keeps a component; none where it is larger than any may be, which its check will say.
    pub(super) async fn keep(
        &self,
        source: &ComponentSource,
    ) -> Result<Option<ComponentLease>, DeployError> {
        let (components, source) = (self.components.clone(), source.clone());
        let most = u64::from(self.config().deploy.max_component_mb) << 20;
        let kept = tokio::task::spawn_blocking(move || components.insert(&source, most)).await;
        let kept = kept.map_err(|error| DeployError::Internal(error.to_string()))?;
        kept.map_err(|error| DeployError::Internal(format!("keeping the component: {error}")))
    }

    /// The steps before the session hears of it, and its first word to the session. What it fails
    /// by else.
    async fn begin_change(
        &self,
        record: &mut Record,
        order: &DeployRequest,
        source: ComponentSource,
        place: &Turn,
    ) -> Result<(mpsc::Receiver<Report>, Admission), (Outcome, String)> {
        let prepared = self.prepare(record, source).await?;
        let deploy = &self.config().deploy;
        self.step(record, Step::Admit, Some(place)).await;
        let admission = self.ground.admit(&record.session, deploy.reserve_mb << 20).await;
        let admission = admission.map_err(|reason| (Outcome::Refused, reason))?;
        record.admitted = Some(admission.bytes);
        self.step(record, Step::Start, Some(place)).await;
        let over = || (Outcome::Interrupted, "the session has ended".to_owned());
        // As it is by now.
        let spec = self.ground.spec(&record.session).ok_or_else(over)?;
        record.before = Some(spec.pipeline.id.clone()).filter(|id| !id.is_empty());
        let spec = Spec {
            pipeline: prepared.deployment(&record.pipeline),
            settings: record.settings.clone(),
            ..(*spec).clone()
        };
        let refused_state = order.refused_state.unwrap_or(deploy.refused_state);
        let (reports, told) = mpsc::channel(REPORT_CAPACITY);
        let swap = SwapRequest { spec, shadow: order.shadow, refused_state, reports };
        self.ground.swap(swap).await.map_err(|_| over())?;
        Ok((told, admission))
    }

    /// Checks and compiles, and notes what came of it.
    pub(super) async fn prepare(
        &self,
        record: &mut Record,
        source: ComponentSource,
    ) -> Result<PreparedComponent, (Outcome, String)> {
        match self.ground.prepare(&record.pipeline, source).await {
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
                Err((Outcome::Refused, error.to_string()))
            }
        }
    }

    /// Writes the row before the step is taken.
    async fn step(&self, record: &mut Record, step: Step, place: Option<&Turn>) {
        record.step = step;
        if let Some(place) = place {
            place.set_progress(record.number, step);
        }
        self.history.write(record, None).await;
    }

    /// Takes in what the session says of a change, to its end.
    pub(super) async fn follow(&self, mut change: Change, mut reports: mpsc::Receiver<Report>) {
        let (outcome, reason) = loop {
            let Some(report) = reports.recv().await else {
                let outcome = match change.record.state {
                    DeploymentState::Probation => Outcome::Unverified,
                    _ => Outcome::Interrupted,
                };
                break (outcome, Some("the session has ended".to_owned()));
            };
            match report {
                Report::StepStarted(step) => {
                    self.step(&mut change.record, step, change.place.as_ref()).await;
                }
                Report::Described { name, version } => {
                    (change.record.name, change.record.version) = (Some(name), Some(version));
                    // One that takes nobody's place has its first result as its trial.
                    if change.answer.is_none() && change.record.state == DeploymentState::Pending {
                        change.record.state = DeploymentState::Probation;
                        change.record.step = Step::Probation;
                    }
                    self.history.write(&change.record, None).await;
                }
                Report::Compared(comparison) => {
                    change.record.comparison = Some(comparison);
                    self.history.write(&change.record, None).await;
                }
                Report::Swapped(swapped) => {
                    change.record.swapped = Some(swapped);
                    self.speaks(&mut change).await;
                }
                Report::Kept { step, reason } => {
                    change.record.step = step;
                    break (Outcome::Aborted, Some(reason));
                }
                Report::Returned { reason, with_state } => {
                    let Record { session, number, .. } = &change.record;
                    self.lives.roll_back(session, *number, change.prior.as_ref());
                    let state = if with_state {
                        "with the state that it gave"
                    } else {
                        "without its state"
                    };
                    break (
                        Outcome::RolledBack,
                        Some(format!("{reason}; the version before it goes on {state}")),
                    );
                }
                Report::Unproven { reason } => break (Outcome::Unverified, Some(reason)),
                Report::Superseded => break (Outcome::Superseded, None),
                Report::Healthy => break (Outcome::Healthy, None),
            }
        };
        let Change { record, entry, answer, place, admission, held, .. } = change;
        drop(admission);
        // What ends because the host does is not to blame for it.
        let outcome = match outcome {
            Outcome::Unverified if self.stopping.load(Ordering::Relaxed) => Outcome::Interrupted,
            outcome => outcome,
        };
        let record = self.end(record, outcome, reason, entry.as_ref(), held).await;
        // The next in the queue finds everything written.
        drop(place);
        if let Some(answer) = answer {
            let _ = answer.send(Ok(record));
        }
    }

    /// The new version speaks: whoever asked for it is told, and the next deployment may come.
    async fn speaks(&self, change: &mut Change) {
        change.record.state = DeploymentState::Probation;
        change.record.step = Step::Probation;
        let record = &change.record;
        if let Some(before) = self.lives.set_running(&record.session, RunningVersion::from(record))
        {
            change.prior = Some(before);
        }
        change.admission = None;
        self.history.write(&change.record, None).await;
        self.tally.count(&change.record);
        self.tell(&change.record);
        change.place = None;
        if let Some(answer) = change.answer.take() {
            let _ = answer.send(Ok(change.record.clone()));
        }
    }

    /// Closes a deployment.
    pub(super) async fn end(
        &self,
        mut record: Record,
        outcome: Outcome,
        reason: Option<String>,
        entry: Option<&CameraEntry>,
        held: Option<ComponentLease>,
    ) -> Record {
        record.state = DeploymentState::Ended(outcome);
        record.reason = reason;
        record.ended = Some(now());
        // What failed for want of time or memory may do another time.
        let applied = match outcome {
            Outcome::Interrupted => false,
            Outcome::Refused => {
                record.check.as_ref().is_some_and(|check| !check.problems.is_empty())
            }
            _ => true,
        };
        self.history.write(&record, entry.filter(|_| applied)).await;
        self.tally.count(&record);
        self.tidy(&record.session).await;
        drop(held);
        self.clean().await;
        self.tell(&record);
        record
    }

    /// One line in the log, and one event.
    pub(super) fn tell(&self, record: &Record) {
        report::log(record);
        self.ground.publish(&record.session, &report::event(record));
    }

    /// Bounds a session's history, and finds out which components it still needs.
    pub(super) async fn tidy(&self, session: &str) {
        let running = self.lives.running(session).map(|running| running.number);
        let most = usize::try_from(self.config().deploy.history).unwrap_or(usize::MAX);
        match self.history.prune(session, running, most).await {
            Ok(needed) => self.lives.set_needed(session, needed),
            Err(error) => {
                tracing::warn!(target: "ocelli::deploy", session, "the history is not tidied: \
                    {error:#}");
            }
        }
    }

    /// Deletes components that nothing needs.
    async fn clean(&self) {
        if !self.settled.load(Ordering::Relaxed) {
            return;
        }
        let needed = self.lives.needed();
        self.tally.retain(|session| self.lives.requested(session).is_some());
        let components = self.components.clone();
        let _ = tokio::task::spawn_blocking(move || components.remove_unneeded(&needed)).await;
    }

    /// All configured cameras have been looked at.
    pub(super) async fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
        self.clean().await;
    }
}

/// A deployment that begins with its check.
pub(super) fn draft(
    session: &str,
    held: Option<&ComponentLease>,
    pipeline: &str,
    settings: Map<String, Value>,
    cause: Cause,
    by: &str,
) -> Record {
    /// Digits of the digest that name a deployment.
    const ID_DIGITS: usize = 12;
    let digest = held.map(|held| held.digest.clone()).unwrap_or_default();
    Record {
        number: 0,
        session: session.to_owned(),
        deployment: digest.get(..ID_DIGITS).unwrap_or_default().to_owned(),
        digest,
        size: held.map_or(0, |held| held.size),
        pipeline: pipeline.to_owned(),
        name: None,
        version: None,
        settings,
        cause,
        by: by.to_owned(),
        shadow: 0,
        requested: now(),
        ended: None,
        before: None,
        back_to: None,
        step: Step::Check,
        state: DeploymentState::Pending,
        reason: None,
        check: None,
        compile_ms: None,
        cached: false,
        admitted: None,
        comparison: None,
        swapped: None,
    }
}

#[cfg(test)]
mod tests;
