//! Brings one configured camera to what its entry says: a new session, a new worker, or a
//! deployment beside the running one.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::start::{StartDecision, resolve};
use crate::config::{Camera, OciReference};
use crate::deploy::backend::{DeployBackend, HostBackend};
use crate::deploy::execute::{ExecuteError, Executor, Fresh, Placement};
use crate::deploy::history::{CameraEntry, find_number};
use crate::deploy::plan::{Origin, Plan};
use crate::deploy::record::{DeploymentState, Outcome, Record};
use crate::deploy::request::DeployError;
use crate::session::rollout::{ProbationRequest, REPORT_CAPACITY, Report};
use crate::session::{
    CompiledPipeline, DriftKind, RunningVersion, SessionError, SessionHandle, Spec,
};

/// The session of a camera.
#[derive(Clone)]
pub(super) struct CameraSession {
    /// Whether there is nothing to run: the session has failed.
    pub(super) faulty: bool,
    /// The registry that did not give its component, if that is why.
    pub(super) registry: Option<String>,
    pub(super) handle: SessionHandle,
}

/// Why a camera is brought up.
pub(super) enum BringUpReason {
    New,
    /// The keys of its entry that differ.
    Changed(Vec<String>),
    /// It has failed for want of a component.
    Retried,
}

/// What became of a camera that was brought up.
pub(super) enum BringUpOutcome {
    Started(CameraSession),
    Restarted(CameraSession),
    Deployed(CameraSession),
    /// It runs what its entry says already.
    Unchanged(CameraSession),
    /// There is nothing to run.
    Faulty(CameraSession),
    /// Nothing has changed, or there is no session.
    Refused,
}

/// A version that was healthy, ready to run again.
type Proven = (Spec, RunningVersion);

/// One camera, and what brings it up.
#[derive(Clone)]
pub(super) struct BringUp {
    executor: Arc<Executor<HostBackend>>,
    camera: Camera,
}

impl BringUp {
    pub(super) fn new(executor: &Arc<Executor<HostBackend>>, camera: Camera) -> Self {
        Self { executor: Arc::clone(executor), camera }
    }

    /// Brings the camera up, and logs what came of it. `session` is `None` if it has none.
    pub(super) async fn run(
        &self,
        reason: BringUpReason,
        session: Option<CameraSession>,
    ) -> BringUpOutcome {
        let id = self.camera.id.as_str();
        match (reason, session) {
            (BringUpReason::Changed(keys), Some(running))
                if !has_nothing_to_run(&running.handle) =>
            {
                let ours =
                    |key: &String| matches!(key.split('.').next(), Some("pipeline" | "settings"));
                let (version, place) = (keys.iter().any(ours), !keys.iter().all(ours));
                let keys = keys.join(", ");
                if !place {
                    tracing::info!(target: "ocelli::deploy", session = id, "is deployed to: \
                        changed in the config: {keys}");
                    return self.redeploy(running).await;
                }
                tracing::info!(target: "ocelli::deploy", session = id, "restarts: changed in the \
                    config: {keys}");
                self.executor.state.notes.clear(id);
                if version { self.replace(running).await } else { self.relocate(running).await }
            }
            (reason, session) => {
                match reason {
                    BringUpReason::New => {
                        tracing::info!(target: "ocelli::deploy", session = id, "starts: in the \
                            config");
                    }
                    BringUpReason::Changed(keys) => {
                        let keys = keys.join(", ");
                        tracing::info!(target: "ocelli::deploy", session = id, "restarts: changed \
                            in the config: {keys}");
                    }
                    BringUpReason::Retried => {
                        tracing::info!(target: "ocelli::deploy", session = id, "is tried again");
                    }
                }
                let new = session.is_none();
                self.executor.state.notes.clear(id);
                match self.start(session.map(|session| session.handle)).await {
                    Ok(session) if session.faulty => BringUpOutcome::Faulty(session),
                    Ok(session) if new => BringUpOutcome::Started(session),
                    Ok(session) => BringUpOutcome::Restarted(session),
                    Err(error) => self.refused(&error),
                }
            }
        }
    }

    /// Starts a camera that runs nothing. `failed` is its session, if it has one.
    async fn start(&self, failed: Option<SessionHandle>) -> Result<CameraSession, SessionError> {
        let session = self.camera.id.as_str();
        let (records, applied) = self.history().await;
        let plan = self.plan().await;
        let wanted = plan.as_ref().ok().and_then(|plan| plan.entry.as_ref());
        let components = &self.executor.state.components;
        let decision =
            resolve(wanted, applied.as_ref(), &records, |digest| components.contains(digest));
        if let (StartDecision::Resume { number, .. }, Some(wanted)) = (decision, wanted)
            && applied.as_ref() != Some(wanted)
            && find_number(&records, number)
                .is_some_and(|record| record.same_as(&wanted.digest, &wanted.settings))
        {
            self.note(wanted).await;
        }
        let proven = match decision {
            StartDecision::Resume { number, .. }
            | StartDecision::Entry { fallback: Some(number) } => {
                self.proven(find_number(&records, number), wanted).await
            }
            _ => None,
        };
        match (decision, plan, proven) {
            (StartDecision::Resume { then_entry, .. }, plan, Some((spec, running))) => {
                let number = running.number;
                match plan {
                    Err(error) => tracing::error!(
                        target: "ocelli::deploy",
                        session,
                        "runs deployment {number}, the last that was healthy: the config's cannot \
                            be had: {error}"
                    ),
                    Ok(plan) if plan.record.digest != running.digest => tracing::info!(
                        target: "ocelli::deploy",
                        session,
                        "runs deployment {number}, the last that was healthy, and not what its \
                            file is now"
                    ),
                    Ok(_) => {}
                }
                self.resume(spec, running, failed, then_entry).await
            }
            (_, Ok(plan), proven) => {
                let fallback = proven.clone().map(|(spec, running)| (spec, Some(running)));
                match (self.run_plan(plan, fallback, failed.clone()).await, proven) {
                    (Ok(session), _) => Ok(session),
                    (Err(ExecuteError::Session(error)), _) => Err(error),
                    (Err(refused), Some((spec, running))) => {
                        let number = running.number;
                        tracing::error!(
                            target: "ocelli::deploy",
                            session,
                            "runs deployment {number}, the last that was healthy: the config's is \
                                refused: {refused}"
                        );
                        self.resume(spec, running, failed, false).await
                    }
                    (Err(refused), None) => self.fail(refused.to_string(), failed, None).await,
                }
            }
            (_, Err(error), _) => {
                let away = match &error {
                    DeployError::Registry(error) if error.is_of_registry() => self.registry(),
                    _ => None,
                };
                self.fail(error.to_string(), failed, away).await
            }
        }
    }

    /// A camera that runs, with another pipeline or other settings: a deployment.
    async fn redeploy(&self, session: CameraSession) -> BringUpOutcome {
        let id = &self.camera.id;
        let plan = match self.plan().await {
            Ok(plan) => plan,
            Err(error) => return self.not_applied(&error.to_string()),
        };
        let spec = session.handle.spec();
        let Record { pipeline, settings, digest, .. } = &plan.record;
        let runs = (&spec.pipeline.name, &spec.settings, &spec.pipeline.digest)
            == (pipeline, settings, digest);
        if let Some(entry) = plan.entry.filter(|_| runs) {
            // It came over the API before it came into the config.
            self.note(&entry).await;
            return BringUpOutcome::Unchanged(session);
        }
        match self.executor.deploy(id, self.origin()).await {
            Ok(Record {
                state:
                    DeploymentState::Probation
                    | DeploymentState::Ended(Outcome::Healthy | Outcome::Superseded),
                ..
            }) => {
                self.executor.state.sessions.set_requested(id, &self.camera.pipeline);
                BringUpOutcome::Deployed(session)
            }
            Ok(record) => self.not_applied(record.reason.as_deref().unwrap_or_default()),
            Err(error) => self.not_applied(&error.to_string()),
        }
    }

    /// A camera that runs, with another source, or decoded otherwise: a new worker for the same
    /// version.
    async fn relocate(&self, session: CameraSession) -> BringUpOutcome {
        let running = session.handle.spec();
        let spec = self.spec(running.pipeline.clone(), running.settings.clone());
        match self.executor.backend.start(spec, Some(session.handle), None).await {
            Ok(handle) => {
                BringUpOutcome::Restarted(CameraSession { faulty: false, registry: None, handle })
            }
            Err(error) => self.refused(&error),
        }
    }

    /// A camera that runs, with another source and another version.
    async fn replace(&self, session: CameraSession) -> BringUpOutcome {
        let plan = match self.plan().await {
            Ok(plan) => plan,
            Err(error) => return self.not_applied(&error.to_string()),
        };
        let spec = session.handle.spec();
        let fallback = self.spec(spec.pipeline.clone(), spec.settings.clone());
        let fallback = Some((fallback, session.handle.running()));
        match self.run_plan(plan, fallback, Some(session.handle)).await {
            Ok(session) => BringUpOutcome::Restarted(session),
            Err(ExecuteError::Session(error)) => self.refused(&error),
            Err(error) => self.not_applied(&error.to_string()),
        }
    }

    /// The session's deployments, newest first, and the entry that it was given last.
    async fn history(&self) -> (Vec<Record>, Option<CameraEntry>) {
        let (history, session) = (&self.executor.state.history, self.camera.id.as_str());
        let known = async {
            let records = history.list(session, usize::MAX).await?;
            anyhow::Ok((records, history.entry(session).await?))
        };
        known.await.unwrap_or_else(|error| {
            tracing::error!(target: "ocelli::deploy", session, "the history cannot be read: \
                {error:#}");
            Default::default()
        })
    }

    fn origin(&self) -> Origin {
        let Camera { pipeline, settings, .. } = &self.camera;
        Origin::Config { pipeline: pipeline.clone(), settings: settings.clone() }
    }

    /// The deployment of the config's entry, with the component as its file is now.
    async fn plan(&self) -> Result<Plan, DeployError> {
        Plan::new(&self.executor.state, &self.camera.id, self.origin(), None).await
    }

    /// A healthy deployment of the history, compiled. `None` if its component is lost or refused.
    async fn proven(
        &self,
        record: Option<&Record>,
        wanted: Option<&CameraEntry>,
    ) -> Option<Proven> {
        let record = record?;
        // If the config names the same version by now, it goes by the config's name.
        let same = wanted.filter(|wanted| record.same_as(&wanted.digest, &wanted.settings));
        let pipeline = same.map_or(&record.pipeline, |wanted| &wanted.pipeline);
        let lease = self.executor.state.components.lease(&record.digest)?;
        let backend = &self.executor.backend;
        match backend.prepare(&record.caller(), pipeline, lease.source()).await {
            Ok(prepared) => {
                let compiled = prepared.compiled_pipeline(pipeline);
                let running = RunningVersion { pipeline: pipeline.clone(), ..record.into() };
                Some((self.spec(compiled, record.settings.clone()), running))
            }
            Err(error) => {
                let (session, number) = (&self.camera.id, record.number);
                tracing::error!(target: "ocelli::deploy", session, "deployment {number} was \
                    healthy and is refused now: {error}");
                None
            }
        }
    }

    /// Runs a version that was healthy: no new deployment. `then_entry`: once it is active, the
    /// config's entry is deployed beside it.
    async fn resume(
        &self,
        spec: Spec,
        running: RunningVersion,
        session: Option<SessionHandle>,
        then_entry: bool,
    ) -> Result<CameraSession, SessionError> {
        let (reports, mut received) = mpsc::channel(REPORT_CAPACITY);
        let probation = then_entry.then_some(ProbationRequest { fallback: None, reports });
        let handle = self.executor.backend.start(spec, session, probation).await?;
        self.started(&handle, Some(running)).await;
        if then_entry {
            let this = self.clone();
            tokio::spawn(async move {
                // The first report is that it serves, or that it never will.
                if let Some(Report::Described { .. }) = received.recv().await {
                    this.deploy_entry().await;
                }
            });
        }
        Ok(CameraSession { faulty: false, registry: None, handle })
    }

    /// Deploys the config's entry beside what runs.
    async fn deploy_entry(&self) {
        let session = &self.camera.id;
        // The record and the log say what becomes of a deployment that has begun.
        if let Err(error) = self.executor.deploy(session, self.origin()).await {
            tracing::error!(target: "ocelli::deploy", session, "the config's entry is not \
                deployed: {error}");
        }
    }

    /// Runs the config's entry on probation. `fallback` is what the session goes back to.
    async fn run_plan(
        &self,
        mut plan: Plan,
        fallback: Option<(Spec, Option<RunningVersion>)>,
        session: Option<SessionHandle>,
    ) -> Result<CameraSession, ExecuteError> {
        let before = fallback.as_ref().map(|(spec, _)| spec.pipeline.id().to_owned());
        plan.record.before = before.filter(|id| !id.is_empty());
        let missing = CompiledPipeline::missing(&self.camera.pipeline, String::new());
        let spec = self.spec(missing, Map::new());
        let fresh = Placement::Fresh(Box::new(Fresh { spec, session, fallback }));
        let started = self.executor.execute(plan, fresh).await.map_err(|failed| failed.error)?;
        let handle = started.session.clone();
        self.executor.follow_in_background(started);
        Ok(CameraSession { faulty: false, registry: None, handle })
    }

    /// The registry that the camera's entry names.
    fn registry(&self) -> Option<String> {
        let reference = self.camera.pipeline.parse::<OciReference>().ok()?;
        Some(reference.registry)
    }

    /// Makes a session that has failed, so that its status shows the reason.
    async fn fail(
        &self,
        reason: String,
        failed: Option<SessionHandle>,
        registry: Option<String>,
    ) -> Result<CameraSession, SessionError> {
        let session = &self.camera.id;
        tracing::error!(target: "ocelli::deploy", session, "the camera is not started: {reason}");
        self.note_refusal(DriftKind::Failed, &reason);
        let missing = CompiledPipeline::missing(&self.camera.pipeline, reason);
        let spec = self.spec(missing, self.camera.settings.clone());
        let handle = self.executor.backend.start(spec, failed, None).await?;
        self.started(&handle, None).await;
        Ok(CameraSession { faulty: true, registry, handle })
    }

    async fn started(&self, handle: &SessionHandle, running: Option<RunningVersion>) {
        let Camera { id, pipeline, .. } = &self.camera;
        self.executor.state.sessions.insert(handle, pipeline, true, running);
        self.executor.prune(id).await;
    }

    /// Notes an entry that the camera has without a deployment.
    async fn note(&self, entry: &CameraEntry) {
        let session = &self.camera.id;
        self.executor.state.sessions.set_requested(session, &self.camera.pipeline);
        if let Err(error) = self.executor.state.history.set_entry(session, entry).await {
            tracing::error!(target: "ocelli::deploy", session, "the journal cannot be written: \
                {error:#}");
        }
    }

    /// What the camera's session is made of, with this version of its pipeline.
    fn spec(&self, pipeline: CompiledPipeline, settings: Map<String, Value>) -> Spec {
        let camera = &self.camera;
        Spec {
            id: camera.id.clone(),
            source: camera.source.clone(),
            substream: camera.substream.clone(),
            pipeline,
            settings,
            decode: camera.decode,
            decode_device: camera.decode_device.clone(),
            priority: camera.priority,
            redis_prefix: camera.redis_prefix.clone(),
            directories: camera.directories.clone(),
        }
    }

    fn note_refusal(&self, kind: DriftKind, reason: &str) {
        let Camera { id, pipeline, settings, .. } = &self.camera;
        self.executor.state.notes.refused(id, kind, pipeline, settings, reason);
    }

    fn not_applied(&self, reason: &str) -> BringUpOutcome {
        let session = &self.camera.id;
        self.note_refusal(DriftKind::Refused, reason);
        tracing::error!(
            target: "ocelli::deploy",
            session,
            "the new entry in the config is not applied, the camera runs on as before: {reason}"
        );
        BringUpOutcome::Refused
    }

    fn refused(&self, error: &SessionError) -> BringUpOutcome {
        let session = &self.camera.id;
        self.note_refusal(DriftKind::Refused, &error.to_string());
        match error {
            SessionError::Exists(_) => tracing::error!(
                target: "ocelli::deploy",
                session,
                "the camera is not started: a subscriber has made a session of this name. End it \
                 with DELETE /v1/sessions/NAME, or call the camera otherwise, and have the config \
                 applied again"
            ),
            error => {
                tracing::error!(target: "ocelli::deploy", session, "the camera is not started: \
                    {error}");
            }
        }
        BringUpOutcome::Refused
    }
}

/// Whether a session has failed because it has nothing to run.
pub(in crate::deploy) fn has_nothing_to_run(session: &SessionHandle) -> bool {
    session.spec().pipeline.compiled.is_err()
}
