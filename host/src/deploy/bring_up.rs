//! A camera's session, made from what the config says and what its history says ([`super::start`]).

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::components::ComponentLease;
use super::configured::{not_applied, refused};
use super::execute::{Change, Ordered, draft};
use super::history::{CameraEntry, find_number};
use super::record::{Cause, Outcome, Record};
use super::request::{Component, DeployError, DeployRequest};
use super::start::{self, StartDecision};
use super::{ComponentSource, Deployer, find_pipeline};
use crate::config::Camera;
use crate::session::change::{ProbationRequest, REPORT_CAPACITY, Report, Step};
use crate::session::{CompiledPipeline, RunningVersion, SessionError, SessionHandle, Spec};

/// Who asks for what the config says.
const CONFIG: &str = "config";

/// The session of a camera.
#[derive(Clone)]
pub(super) struct CameraSession {
    /// Whether there is nothing to run: the session has failed.
    pub(super) faulty: bool,
    pub(super) handle: SessionHandle,
}

/// What an entry of the config names.
pub(super) struct ResolvedEntry {
    pub(super) entry: CameraEntry,
    /// None where it is larger than any component may be, which its check will say.
    held: Option<ComponentLease>,
    source: ComponentSource,
}

/// Why an entry does not run.
pub(super) enum BringUpError {
    /// Its component is refused.
    Refused(String),
    /// The session is.
    Session(SessionError),
}

impl Deployer {
    /// Brings a camera up that runs nothing. `failed` is its session, if it has one. Returns `None`
    /// if there is no session.
    pub(super) async fn begin(
        &self,
        camera: &Camera,
        failed: Option<SessionHandle>,
    ) -> Option<CameraSession> {
        let deployments = &self.inner.deployments;
        let session = camera.id.as_str();
        let (records, applied) = match self.known(session).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(target: "ocelli::deploy", session, "the history cannot be read: \
                    {error:#}");
                (Vec::new(), None)
            }
        };
        let found = self.find(camera).await;
        let wanted = found.as_ref().ok().map(|found| &found.entry);
        let decided = start::resolve(wanted, applied.as_ref(), &records, |digest| {
            deployments.components.contains(digest)
        });
        if let (StartDecision::Resume { number, .. }, Some(wanted)) = (decided, wanted)
            && applied.as_ref() != Some(wanted)
            && find_number(&records, number)
                .is_some_and(|record| record.same_as(&wanted.digest, &wanted.settings))
        {
            self.note(camera, wanted).await;
        }
        let proven = match decided {
            StartDecision::Resume { number, .. }
            | StartDecision::Entry { fallback: Some(number) } => {
                self.proven(camera, find_number(&records, number), wanted).await
            }
            _ => None,
        };
        let done = match (decided, found, proven) {
            (StartDecision::Resume { then_entry, .. }, found, Some((spec, running))) => {
                let number = running.number;
                match found {
                    Err(error) => tracing::error!(
                        target: "ocelli::deploy",
                        session,
                        "runs deployment {number}, the last that was healthy: the config's cannot \
                            be had: {error}"
                    ),
                    Ok(found) if found.entry.digest != running.digest => tracing::info!(
                        target: "ocelli::deploy",
                        session,
                        "runs deployment {number}, the last that was healthy, and not what its \
                            file is now"
                    ),
                    Ok(_) => {}
                }
                self.resume(camera, spec, running, failed, then_entry)
                    .await
                    .map_err(BringUpError::Session)
            }
            (_, Ok(found), proven) => {
                let back = proven.clone().map(|(spec, running)| (spec, Some(running)));
                match self.run_entry(camera, found, back, failed.clone()).await {
                    Err(BringUpError::Refused(reason)) => match proven {
                        Some((spec, running)) => {
                            let number = running.number;
                            tracing::error!(
                                target: "ocelli::deploy",
                                session,
                                "runs deployment {number}, the last that was healthy: the \
                                    config's is refused: {reason}"
                            );
                            self.resume(camera, spec, running, failed, false)
                                .await
                                .map_err(BringUpError::Session)
                        }
                        None => {
                            self.fail(camera, reason, failed).await.map_err(BringUpError::Session)
                        }
                    },
                    done => done,
                }
            }
            (_, Err(error), _) => {
                self.fail(camera, error.to_string(), failed).await.map_err(BringUpError::Session)
            }
        };
        match done {
            Ok(known) => Some(known),
            Err(BringUpError::Session(error)) => {
                refused(camera, &error);
                None
            }
            Err(BringUpError::Refused(reason)) => {
                not_applied(camera, &reason);
                None
            }
        }
    }

    async fn known(&self, session: &str) -> anyhow::Result<(Vec<Record>, Option<CameraEntry>)> {
        let history = &self.inner.deployments.history;
        Ok((history.list(session, usize::MAX).await?, history.entry(session).await?))
    }

    /// What a deployment of the history would be run as; none where it cannot be had any more.
    async fn proven(
        &self,
        camera: &Camera,
        record: Option<&Record>,
        wanted: Option<&CameraEntry>,
    ) -> Option<(Spec, RunningVersion)> {
        let record = record?;
        // What the config names by now is called as there.
        let same = wanted.filter(|wanted| record.same_as(&wanted.digest, &wanted.settings));
        let pipeline = same.map_or(&record.pipeline, |wanted| &wanted.pipeline);
        let held = self.inner.deployments.components.lease(&record.digest)?;
        let source = ComponentSource::Path(held.path.clone());
        match self.inner.deployments.ground.compiler.prepare(pipeline, source).await {
            Ok(prepared) => {
                let spec =
                    camera_spec(camera, prepared.deployment(pipeline), record.settings.clone());
                Some((
                    spec,
                    RunningVersion { pipeline: pipeline.clone(), ..RunningVersion::from(record) },
                ))
            }
            Err(error) => {
                let (session, number) = (&camera.id, record.number);
                tracing::error!(target: "ocelli::deploy", session, "deployment {number} was \
                    healthy and is refused now: {error}");
                None
            }
        }
    }

    /// Runs a version that has proven itself: no deployment, but what is left of one. `then_entry`:
    /// once it serves, what the config says is deployed beside it.
    async fn resume(
        &self,
        camera: &Camera,
        spec: Spec,
        running: RunningVersion,
        session: Option<SessionHandle>,
        then_entry: bool,
    ) -> Result<CameraSession, SessionError> {
        let (reports, mut told) = mpsc::channel(REPORT_CAPACITY);
        let trial = then_entry.then_some(ProbationRequest { fallback: None, reports });
        let handle = self.put(spec, session, trial).await?;
        self.born(camera, &handle, Some(running)).await;
        if then_entry {
            let (deployer, camera) = (self.clone(), camera.clone());
            tokio::spawn(async move {
                // The first report is that it serves, or that it never will.
                if let Some(Report::Described { .. }) = told.recv().await {
                    deployer.deploy_entry(&camera).await;
                }
            });
        }
        Ok(CameraSession { faulty: false, handle })
    }

    /// Runs what the config says, on trial. `fallback` is what the session goes back to.
    pub(super) async fn run_entry(
        &self,
        camera: &Camera,
        found: ResolvedEntry,
        fallback: Option<(Spec, Option<RunningVersion>)>,
        session: Option<SessionHandle>,
    ) -> Result<CameraSession, BringUpError> {
        let deployments = &self.inner.deployments;
        let ResolvedEntry { entry, held, source } = found;
        let settings = camera.settings.clone();
        let mut record =
            draft(&camera.id, held.as_ref(), &camera.pipeline, settings, Cause::Config, CONFIG);
        let before = fallback.as_ref().map(|(spec, _)| spec.pipeline.id.clone());
        record.before = before.filter(|id| !id.is_empty());
        // A disk that is full is no reason for a camera not to run.
        let mut record = match deployments.history.begin(record.clone(), true).await {
            Ok(begun) => begun,
            Err(error) => {
                let session = &camera.id;
                tracing::error!(target: "ocelli::deploy", session, "the history cannot be \
                    written: {error:#}");
                record
            }
        };
        deployments.tell(&record);
        let prepared = match deployments.prepare(&mut record, source).await {
            Ok(prepared) => prepared,
            Err((outcome, reason)) => {
                let told = Some(reason.clone());
                deployments.end(record, outcome, told, Some(&entry), held).await;
                return Err(BringUpError::Refused(reason));
            }
        };
        record.step = Step::Start;
        deployments.history.write(&record, None).await;
        let spec =
            camera_spec(camera, prepared.deployment(&camera.pipeline), camera.settings.clone());
        let (fallback, prior) = fallback.unzip();
        let (reports, told) = mpsc::channel(REPORT_CAPACITY);
        let handle =
            match self.put(spec, session, Some(ProbationRequest { fallback, reports })).await {
                Ok(handle) => handle,
                Err(error) => {
                    deployments
                        .end(record, Outcome::Interrupted, Some(error.to_string()), None, held)
                        .await;
                    return Err(BringUpError::Session(error));
                }
            };
        self.born(camera, &handle, Some(RunningVersion::from(&record))).await;
        let change = Change {
            record,
            entry: Some(entry),
            prior: prior.flatten(),
            answer: None,
            place: None,
            admission: None,
            held,
        };
        let deployments = Arc::clone(deployments);
        tokio::spawn(async move { deployments.follow(change, told).await });
        Ok(CameraSession { faulty: false, handle })
    }

    /// A session that has failed, so that everybody sees why.
    async fn fail(
        &self,
        camera: &Camera,
        reason: String,
        failed: Option<SessionHandle>,
    ) -> Result<CameraSession, SessionError> {
        let session = &camera.id;
        tracing::error!(target: "ocelli::deploy", session, "the camera is not started: {reason}");
        let missing = CompiledPipeline::missing(&camera.pipeline, reason);
        let spec = camera_spec(camera, missing, camera.settings.clone());
        let handle = self.put(spec, failed, None).await?;
        self.born(camera, &handle, None).await;
        Ok(CameraSession { faulty: true, handle })
    }

    async fn born(&self, camera: &Camera, handle: &SessionHandle, running: Option<RunningVersion>) {
        let deployments = &self.inner.deployments;
        deployments.lives.insert(handle, &camera.pipeline, true, running);
        deployments.tidy(&camera.id).await;
    }

    /// Deploys what the config says beside what runs.
    async fn deploy_entry(&self, camera: &Camera) {
        let entry = Some((camera.pipeline.clone(), camera.settings.clone()));
        let ordered = Ordered { order: entry_order(camera), rollback: false, entry };
        // What becomes of a deployment is told by itself.
        if let Err(error) = self.inner.deployments.deploy(ordered).await {
            let session = &camera.id;
            tracing::error!(target: "ocelli::deploy", session, "the config's entry is not \
                deployed: {error}");
        }
    }

    /// What the config says of a configured session: pipeline and settings.
    pub(super) fn entry_of(&self, session: &str) -> Option<(String, Map<String, Value>)> {
        let config = self.config();
        let camera = config.cameras.iter().find(|camera| camera.id == session)?;
        Some((camera.pipeline.clone(), camera.settings.clone()))
    }

    /// Notes that a camera has an entry, without a deployment.
    pub(super) async fn note(&self, camera: &Camera, entry: &CameraEntry) {
        self.inner.deployments.lives.set_requested(&camera.id, &camera.pipeline);
        if let Err(error) = self.inner.deployments.history.set_entry(&camera.id, entry).await {
            let session = &camera.id;
            tracing::error!(target: "ocelli::deploy", session, "the journal cannot be written: \
                {error:#}");
        }
    }

    /// The component that an entry names, as its file is now.
    pub(super) async fn find(&self, camera: &Camera) -> Result<ResolvedEntry, DeployError> {
        let path = find_pipeline(&camera.pipeline, &self.config())?;
        let held = self.inner.deployments.keep(&ComponentSource::Path(path.clone())).await?;
        let digest = held.as_ref().map(|held| held.digest.clone()).unwrap_or_default();
        let source = ComponentSource::Path(held.as_ref().map_or(path, |held| held.path.clone()));
        let entry = CameraEntry {
            pipeline: camera.pipeline.clone(),
            settings: camera.settings.clone(),
            digest,
        };
        Ok(ResolvedEntry { entry, held, source })
    }

    /// Gives a camera's session another spec, or makes one if there is none.
    pub(super) async fn put(
        &self,
        spec: Spec,
        session: Option<SessionHandle>,
        trial: Option<ProbationRequest>,
    ) -> Result<SessionHandle, SessionError> {
        let sessions = &self.inner.sessions;
        let again = |trial: &ProbationRequest| ProbationRequest {
            fallback: trial.fallback.clone(),
            reports: trial.reports.clone(),
        };
        if let Some(session) = session {
            match session.replace(spec.clone(), trial.as_ref().map(again)).await {
                Ok(()) => return Ok(session),
                // An operator has ended it meanwhile.
                Err(SessionError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        sessions.wait_until_gone(&spec.id).await;
        sessions.start(spec, trial)
    }
}

/// What a camera's session is, with this version of its pipeline.
pub(super) fn camera_spec(
    camera: &Camera,
    deployment: CompiledPipeline,
    settings: Map<String, Value>,
) -> Spec {
    Spec {
        id: camera.id.clone(),
        source: camera.source.clone(),
        pipeline: deployment,
        settings,
        decode: camera.decode,
        priority: camera.priority,
        redis_prefix: camera.redis_prefix.clone(),
    }
}

/// The deployment that an entry is.
pub(super) fn entry_order(camera: &Camera) -> DeployRequest {
    DeployRequest {
        session: camera.id.clone(),
        component: Component::Pipeline(camera.pipeline.clone()),
        settings: Some(camera.settings.clone()),
        shadow: 0,
        refused_state: None,
        cause: Cause::Config,
        by: CONFIG.to_owned(),
    }
}
