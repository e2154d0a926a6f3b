//! The configured cameras: brought up at the start, and made to follow the config while the host runs.
//!
//! Applying a config touches the cameras whose entry differs from the one that they run with, and no other. What each of
//! them is to run is found and compiled before it is touched, so a mistake costs a line in the log and no results:
//!
//! | entry | pipeline found and compiled | not |
//! | --- | --- | --- |
//! | new | a new session; [`super::start`] says with what | a session that has failed, with the reason |
//! | changed in pipeline or settings | a deployment beside the running worker | it goes on as it was |
//! | changed in source, decode or priority | the session goes on with the new entry, in a new worker | |
//! | changed in both | likewise, and it goes back to what it ran where that does not last | it goes on as it was |
//! | gone | the session ends | |
//!
//! What could not be done is tried again whenever a config is applied.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::{mpsc, watch};

use super::components::Held;
use super::flow::{Change, Ordered, Running, draft};
use super::history::{Entry, numbered};
use super::order::{Component, DeployError, Order};
use super::record::{Cause, Outcome, Record, State};
use super::start::{self, Start};
use super::{ComponentSource, Deployer, find_pipeline};
use crate::config::diff::{self, CameraChanges, Effect};
use crate::config::{Camera, Config};
use crate::session::change::{REPORTS, Step, Trial};
use crate::session::{Deployment, SessionError, Spec};

/// Who asks for what the config says.
const CONFIG: &str = "config";

/// A camera that was given a session.
pub(super) struct Configured {
    /// The entry that the session runs with.
    camera: Camera,
    session: Known,
}

/// The session of a camera.
#[derive(Clone)]
struct Known {
    /// Whether there is nothing to run: the session has failed.
    faulty: bool,
    /// Closed when the session is over. An operator may end it, and a subscriber make another one of its name.
    over: watch::Receiver<()>,
}

impl Known {
    fn lives(&self) -> bool {
        self.over.has_changed().is_ok()
    }
}

/// Why a camera is brought up.
enum Why {
    New,
    Changed(Vec<String>),
    /// It has failed for want of a component.
    Retried,
}

/// What became of a camera that was brought up.
enum Done {
    Started(Known),
    Restarted(Known),
    Deployed(Known),
    /// It runs what its entry says already.
    Same(Known),
    /// There is nothing to run.
    Faulty(Known),
    /// Nothing has changed, or there is no session.
    Refused,
}

/// What an entry of the config names.
struct Found {
    entry: Entry,
    /// None where it is larger than any component may be, which its check will say.
    held: Option<Held>,
    source: ComponentSource,
}

/// What applying a config has done: numbers of cameras.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// New.
    pub started: usize,
    /// Changed, with a new worker in the place of the one before.
    pub restarted: usize,
    /// Changed beside the running worker, without a pause.
    pub deployed: usize,
    /// Gone.
    pub stopped: usize,
    /// Not as the config says; the log says why.
    pub refused: usize,
    /// Not touched.
    pub untouched: usize,
}

impl fmt::Display for Applied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, restarted, deployed, stopped, refused, untouched } = self;
        write!(formatter, "cameras: {started} started, {restarted} restarted, {deployed} deployed, ")?;
        write!(formatter, "{stopped} stopped, ")?;
        write!(formatter, "{refused} not as configured, {untouched} untouched")
    }
}

impl Deployer {
    /// Starts the cameras of the config at the same time. One that cannot be started keeps no other from it.
    pub async fn start_configured(&self) {
        let mut cameras = self.inner.cameras.lock().await;
        let config = self.config();
        let plan = config.cameras.iter().map(|camera| (camera.clone(), Why::New)).collect();
        self.bring_up_all(&mut cameras, plan).await;
        self.inner.deployments.settle().await;
    }

    /// Makes the running host follow another config, as far as a running host can, and logs what it does and why.
    /// Whoever calls it again meanwhile waits.
    pub async fn apply(&self, wanted: Config) -> Applied {
        let mut cameras = self.inner.cameras.lock().await;
        let running = self.config();
        log_sections(&running, &wanted);
        let config = Arc::new(diff::in_force(&running, wanted));
        // First, so that workers that start below get the new limits.
        self.inner.sessions.follow(&config);
        self.inner.deployments.ground.compiler.configure(&config.deploy);
        self.inner.config.send_replace(Arc::clone(&config));

        let changes = CameraChanges::between(cameras.values().map(|known| &known.camera), &config.cameras);
        let untold = |camera: &Camera| {
            !changes.removed.contains(&camera.id)
                && changes.changed.iter().all(|changed| changed.camera.id != camera.id)
        };
        let faulty = cameras.values().filter(|known| known.session.faulty && known.session.lives());
        let faulty = faulty.map(|known| &known.camera);
        let faulty = faulty.filter(|camera| self.lacks(&camera.id) && untold(camera));
        let mut plan: Vec<(Camera, Why)> = faulty.map(|camera| (camera.clone(), Why::Retried)).collect();
        plan.extend(changes.changed.into_iter().map(|changed| (changed.camera, Why::Changed(changed.keys))));
        plan.extend(changes.added.into_iter().map(|camera| (camera, Why::New)));

        // First, so that their places are free for others.
        let gone: Vec<Configured> = changes.removed.iter().filter_map(|id| cameras.remove(id)).collect();
        gone.iter().for_each(|known| self.inner.deployments.forget(&known.camera.id));
        let gone = gone.iter().filter(|known| known.session.lives());
        let stopped = join_all(gone.map(|known| self.take_down(&known.camera.id))).await.len();
        let untouched = config.cameras.len() - plan.len();
        let brought_up = self.bring_up_all(&mut cameras, plan).await;
        Applied { stopped, untouched: untouched + brought_up.untouched, ..brought_up }
    }

    /// Tries again to find and compile what a failed camera lacks. False where the session lacks nothing of that kind.
    pub(super) async fn retry(&self, id: &str) -> bool {
        if !self.lacks(id) {
            return false;
        }
        let (deployer, id) = (self.clone(), id.to_owned());
        // Compiling may take minutes, for which nobody waits.
        tokio::spawn(async move {
            let mut cameras = deployer.inner.cameras.lock().await;
            let Some(known) = cameras.get(&id).filter(|_| deployer.lacks(&id)) else { return };
            let plan = vec![(known.camera.clone(), Why::Retried)];
            deployer.bring_up_all(&mut cameras, plan).await;
        });
        true
    }

    /// Whether a session has nothing to run.
    fn lacks(&self, id: &str) -> bool {
        self.inner.sessions.spec(id).is_some_and(|spec| spec.deployment.compiled.is_err())
    }

    async fn bring_up_all(
        &self,
        cameras: &mut BTreeMap<String, Configured>,
        plan: Vec<(Camera, Why)>,
    ) -> Applied {
        let known = |camera: &Camera| Some(cameras.get(&camera.id)?.session.clone()).filter(Known::lives);
        let brought_up = plan.into_iter().map(|(camera, why)| {
            let known = known(&camera);
            async move { (self.bring_up(&camera, why, known).await, camera) }
        });
        let mut applied = Applied::default();
        for (done, camera) in join_all(brought_up).await {
            let (count, session) = match done {
                Done::Started(known) => (&mut applied.started, Some(known)),
                Done::Restarted(known) => (&mut applied.restarted, Some(known)),
                Done::Deployed(known) => (&mut applied.deployed, Some(known)),
                Done::Same(known) => (&mut applied.untouched, Some(known)),
                Done::Faulty(known) => (&mut applied.refused, Some(known)),
                Done::Refused => (&mut applied.refused, None),
            };
            *count += 1;
            if let Some(session) = session {
                cameras.insert(camera.id.clone(), Configured { camera, session });
            }
        }
        applied
    }

    /// Brings up one camera, and logs what came of it. `known` is none for a camera that has no session.
    async fn bring_up(&self, camera: &Camera, why: Why, known: Option<Known>) -> Done {
        let session = camera.id.as_str();
        match (why, known) {
            (Why::Changed(keys), Some(known)) if !self.lacks(session) => {
                let ours = |key: &String| matches!(key.split('.').next(), Some("pipeline" | "settings"));
                let (version, place) = (keys.iter().any(ours), !keys.iter().all(ours));
                let keys = keys.join(", ");
                match (version, place) {
                    (true, false) => {
                        tracing::info!(target: "ocelli::deploy", session, "is deployed to: changed in the config: {keys}");
                        self.redeploy(camera, known).await
                    }
                    (version, _) => {
                        tracing::info!(target: "ocelli::deploy", session, "restarts: changed in the config: {keys}");
                        if version {
                            self.replace(camera, known).await
                        } else {
                            self.relocate(camera, known).await
                        }
                    }
                }
            }
            (why, known) => {
                match why {
                    Why::New => tracing::info!(target: "ocelli::deploy", session, "starts: in the config"),
                    Why::Changed(keys) => {
                        let keys = keys.join(", ");
                        tracing::info!(target: "ocelli::deploy", session, "restarts: changed in the config: {keys}");
                    }
                    Why::Retried => tracing::info!(target: "ocelli::deploy", session, "is tried again"),
                }
                let new = known.is_none();
                match self.begin(camera, known.map(|known| known.over)).await {
                    Some(known) if known.faulty => Done::Faulty(known),
                    Some(known) if new => Done::Started(known),
                    Some(known) => Done::Restarted(known),
                    None => Done::Refused,
                }
            }
        }
    }

    /// A camera that runs, with another pipeline or other settings: a deployment.
    async fn redeploy(&self, camera: &Camera, known: Known) -> Done {
        let deployments = &self.inner.deployments;
        let found = match self.find(camera).await {
            Ok(found) => found,
            Err(error) => return not_applied(camera, &error.to_string()),
        };
        let runs = self.inner.sessions.spec(&camera.id).is_some_and(|spec| {
            spec.deployment.digest == found.entry.digest && spec.settings == found.entry.settings
        });
        if runs {
            // It came over the API before it came into the config.
            self.note(camera, &found.entry).await;
            return Done::Same(known);
        }
        let order = entry_order(camera);
        let entry = Some((camera.pipeline.clone(), camera.settings.clone()));
        match deployments.deploy(Ordered { order, rollback: false, entry }).await {
            Ok(Record {
                state: State::Probation | State::Ended(Outcome::Healthy | Outcome::Superseded),
                ..
            }) => {
                deployments.asks(&camera.id, &camera.pipeline);
                Done::Deployed(known)
            }
            Ok(record) => not_applied(camera, record.reason.as_deref().unwrap_or_default()),
            Err(error) => not_applied(camera, &error.to_string()),
        }
    }

    /// A camera that runs, with another source, or decoded otherwise: a new worker for the same version.
    async fn relocate(&self, camera: &Camera, known: Known) -> Done {
        let Some(spec) = self.inner.sessions.spec(&camera.id) else { return Done::Refused };
        let spec = placed(camera, spec.deployment.clone(), spec.settings.clone());
        match self.put(spec, Some(known.over), None).await {
            Ok(over) => Done::Restarted(Known { faulty: false, over }),
            Err(error) => refused(camera, &error),
        }
    }

    /// A camera that runs, with another source and another version.
    async fn replace(&self, camera: &Camera, known: Known) -> Done {
        let found = match self.find(camera).await {
            Ok(found) => found,
            Err(error) => return not_applied(camera, &error.to_string()),
        };
        let fallback = self.inner.sessions.spec(&camera.id).map(|spec| {
            let running = self.inner.deployments.running(&camera.id);
            (placed(camera, spec.deployment.clone(), spec.settings.clone()), running)
        });
        match self.run_entry(camera, found, fallback, Some(known.over)).await {
            Ok(known) => Done::Restarted(known),
            Err(Unrun::Refused(reason)) => not_applied(camera, &reason),
            Err(Unrun::Session(error)) => refused(camera, &error),
        }
    }

    /// A camera without anything that runs. `over` is that of the session which has failed, where it has one. None: there
    /// is no session.
    async fn begin(&self, camera: &Camera, over: Option<watch::Receiver<()>>) -> Option<Known> {
        let deployments = &self.inner.deployments;
        let session = camera.id.as_str();
        let (records, applied) = match self.known(session).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(target: "ocelli::deploy", session, "the history cannot be read: {error:#}");
                (Vec::new(), None)
            }
        };
        let found = self.find(camera).await;
        let wanted = found.as_ref().ok().map(|found| &found.entry);
        let decided =
            start::resolve(wanted, applied.as_ref(), &records, |digest| deployments.components.has(digest));
        if let (Start::Resume { number, .. }, Some(wanted)) = (decided, wanted)
            && applied.as_ref() != Some(wanted)
            && numbered(&records, number)
                .is_some_and(|record| record.same_as(&wanted.digest, &wanted.settings))
        {
            self.note(camera, wanted).await;
        }
        let proven = match decided {
            Start::Resume { number, .. } | Start::Entry { fallback: Some(number) } => {
                self.proven(camera, numbered(&records, number)).await
            }
            _ => None,
        };
        let done = match (decided, found, proven) {
            (Start::Resume { then_entry, .. }, found, Some((spec, running))) => {
                let number = running.number;
                match found {
                    Err(error) => tracing::error!(
                        target: "ocelli::deploy",
                        session,
                        "runs deployment {number}, the last that was healthy: the config's cannot be had: {error}"
                    ),
                    Ok(found) if found.entry.digest != running.digest => tracing::info!(
                        target: "ocelli::deploy",
                        session,
                        "runs deployment {number}, the last that was healthy, and not what its file is now"
                    ),
                    Ok(_) => {}
                }
                let resumed = self.resume(camera, spec, running, over).await;
                if then_entry && resumed.is_ok() {
                    self.deploy_entry(camera);
                }
                resumed.map_err(Unrun::Session)
            }
            (_, Ok(found), proven) => {
                let back = proven.clone().map(|(spec, running)| (spec, Some(running)));
                match self.run_entry(camera, found, back, over.clone()).await {
                    Err(Unrun::Refused(reason)) => match proven {
                        Some((spec, running)) => {
                            let number = running.number;
                            tracing::error!(
                                target: "ocelli::deploy",
                                session,
                                "runs deployment {number}, the last that was healthy: the config's is refused: {reason}"
                            );
                            self.resume(camera, spec, running, over).await.map_err(Unrun::Session)
                        }
                        None => self.fail(camera, reason, over).await.map_err(Unrun::Session),
                    },
                    done => done,
                }
            }
            (_, Err(error), _) => self.fail(camera, error.to_string(), over).await.map_err(Unrun::Session),
        };
        match done {
            Ok(known) => Some(known),
            Err(Unrun::Session(error)) => {
                refused(camera, &error);
                None
            }
            Err(Unrun::Refused(reason)) => {
                not_applied(camera, &reason);
                None
            }
        }
    }

    async fn known(&self, session: &str) -> anyhow::Result<(Vec<Record>, Option<Entry>)> {
        let history = &self.inner.deployments.history;
        Ok((history.list(session, usize::MAX).await?, history.entry(session).await?))
    }

    /// What a deployment of the history would be run as; none where it cannot be had any more.
    async fn proven(&self, camera: &Camera, record: Option<&Record>) -> Option<(Spec, Running)> {
        let record = record?;
        let held = self.inner.deployments.components.hold(&record.digest)?;
        let source = ComponentSource::Path(held.path.clone());
        match self.inner.deployments.ground.compiler.prepare(&record.pipeline, source).await {
            Ok(prepared) => {
                let deployment = prepared.deployment(&record.pipeline);
                Some((placed(camera, deployment, record.settings.clone()), Running::of(record)))
            }
            Err(error) => {
                let (session, number) = (&camera.id, record.number);
                tracing::error!(target: "ocelli::deploy", session, "deployment {number} was healthy and is refused now: {error}");
                None
            }
        }
    }

    /// Runs a version that has proven itself: no deployment, but what is left of one.
    async fn resume(
        &self,
        camera: &Camera,
        spec: Spec,
        running: Running,
        over: Option<watch::Receiver<()>>,
    ) -> Result<Known, SessionError> {
        let over = self.put(spec, over, None).await?;
        self.born(camera, &over, Some(running)).await;
        Ok(Known { faulty: false, over })
    }

    /// Runs what the config says, on trial. `fallback` is what the session goes back to.
    async fn run_entry(
        &self,
        camera: &Camera,
        found: Found,
        fallback: Option<(Spec, Option<Running>)>,
        over: Option<watch::Receiver<()>>,
    ) -> Result<Known, Unrun> {
        let deployments = &self.inner.deployments;
        let Found { entry, held, source } = found;
        let settings = camera.settings.clone();
        let mut record = draft(&camera.id, held.as_ref(), &camera.pipeline, settings, Cause::Config, CONFIG);
        let before = fallback.as_ref().map(|(spec, _)| spec.deployment.id.clone());
        record.before = before.filter(|id| !id.is_empty());
        // A disk that is full is no reason for a camera not to run.
        let mut record = match deployments.history.begin(record.clone(), true).await {
            Ok(begun) => begun,
            Err(error) => {
                let session = &camera.id;
                tracing::error!(target: "ocelli::deploy", session, "the history cannot be written: {error:#}");
                record
            }
        };
        deployments.tell(&record);
        let prepared = match deployments.prepare(&mut record, source).await {
            Ok(prepared) => prepared,
            Err((outcome, reason)) => {
                let told = Some(reason.clone());
                deployments.end(record, outcome, told, Some(&entry), held).await;
                return Err(Unrun::Refused(reason));
            }
        };
        record.step = Step::Start;
        deployments.history.write(&record, None).await;
        let spec = placed(camera, prepared.deployment(&camera.pipeline), camera.settings.clone());
        let (fallback, prior) = fallback.unzip();
        let (reports, told) = mpsc::channel(REPORTS);
        let over = match self.put(spec, over, Some(Trial { fallback, reports })).await {
            Ok(over) => over,
            Err(error) => {
                deployments.end(record, Outcome::Interrupted, Some(error.to_string()), None, held).await;
                return Err(Unrun::Session(error));
            }
        };
        self.born(camera, &over, Some(Running::of(&record))).await;
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
        Ok(Known { faulty: false, over })
    }

    /// A session that has failed, so that everybody sees why.
    async fn fail(
        &self,
        camera: &Camera,
        reason: String,
        over: Option<watch::Receiver<()>>,
    ) -> Result<Known, SessionError> {
        let session = &camera.id;
        tracing::error!(target: "ocelli::deploy", session, "the camera is not started: {reason}");
        let missing = Deployment::missing(&camera.pipeline, reason);
        let over = self.put(placed(camera, missing, camera.settings.clone()), over, None).await?;
        self.born(camera, &over, None).await;
        Ok(Known { faulty: true, over })
    }

    async fn born(&self, camera: &Camera, over: &watch::Receiver<()>, running: Option<Running>) {
        let deployments = &self.inner.deployments;
        deployments.born(&camera.id, &camera.pipeline, true, Some(over.clone()), running);
        deployments.tidy(&camera.id).await;
    }

    /// Deploys what the config says beside what runs. Nobody waits for it.
    fn deploy_entry(&self, camera: &Camera) {
        let entry = Some((camera.pipeline.clone(), camera.settings.clone()));
        let ordered = Ordered { order: entry_order(camera), rollback: false, entry };
        let deployments = Arc::clone(&self.inner.deployments);
        let session = camera.id.clone();
        tokio::spawn(async move {
            // What becomes of a deployment is told by itself.
            if let Err(error) = deployments.deploy(ordered).await {
                tracing::error!(target: "ocelli::deploy", session, "the config's entry is not deployed: {error}");
            }
        });
    }

    /// What the config says of a configured session: pipeline and settings.
    pub(super) fn entry_of(
        &self,
        session: &str,
    ) -> Option<(String, serde_json::Map<String, serde_json::Value>)> {
        let config = self.config();
        let camera = config.cameras.iter().find(|camera| camera.id == session)?;
        Some((camera.pipeline.clone(), camera.settings.clone()))
    }

    /// Notes that a camera has an entry, without a deployment.
    async fn note(&self, camera: &Camera, entry: &Entry) {
        self.inner.deployments.asks(&camera.id, &camera.pipeline);
        if let Err(error) = self.inner.deployments.history.set_entry(&camera.id, entry).await {
            let session = &camera.id;
            tracing::error!(target: "ocelli::deploy", session, "the journal cannot be written: {error:#}");
        }
    }

    /// The component that an entry names, as its file is now.
    async fn find(&self, camera: &Camera) -> Result<Found, DeployError> {
        let path = find_pipeline(&camera.pipeline, &self.config())?;
        let held = self.inner.deployments.keep(&ComponentSource::Path(path.clone())).await?;
        let digest = held.as_ref().map(|held| held.digest.clone()).unwrap_or_default();
        let source = ComponentSource::Path(held.as_ref().map_or(path, |held| held.path.clone()));
        let entry = Entry { pipeline: camera.pipeline.clone(), settings: camera.settings.clone(), digest };
        Ok(Found { entry, held, source })
    }

    /// Gives a camera's session what it is made of, or makes one where there is none. What it returns, and what `over`
    /// is, closes when the session is over.
    async fn put(
        &self,
        spec: Spec,
        over: Option<watch::Receiver<()>>,
        trial: Option<Trial>,
    ) -> Result<watch::Receiver<()>, SessionError> {
        let sessions = &self.inner.sessions;
        let again =
            |trial: &Trial| Trial { fallback: trial.fallback.clone(), reports: trial.reports.clone() };
        if let Some(over) = over {
            match sessions.replace(spec.clone(), trial.as_ref().map(again)).await {
                Ok(()) => return Ok(over),
                // An operator has ended it meanwhile.
                Err(SessionError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        sessions.settled(&spec.id).await;
        sessions.start(spec, trial)
    }

    async fn take_down(&self, session: &str) {
        tracing::info!(target: "ocelli::deploy", session, "ends: no longer in the config");
        // An operator may have ended it before.
        let _ = self.inner.sessions.stop(session, "no longer in the config").await;
    }
}

/// Why an entry does not run.
enum Unrun {
    /// Its component is refused.
    Refused(String),
    /// The session is.
    Session(SessionError),
}

/// What a camera's session is, with this version of its pipeline.
fn placed(
    camera: &Camera,
    deployment: Deployment,
    settings: serde_json::Map<String, serde_json::Value>,
) -> Spec {
    Spec {
        id: camera.id.clone(),
        source: camera.source.clone(),
        deployment,
        settings,
        decode: camera.decode,
        priority: camera.priority,
    }
}

/// The deployment that an entry is.
fn entry_order(camera: &Camera) -> Order {
    Order {
        session: camera.id.clone(),
        component: Component::Pipeline(camera.pipeline.clone()),
        settings: Some(camera.settings.clone()),
        shadow: 0,
        refused_state: None,
        cause: Cause::Config,
        by: CONFIG.to_owned(),
    }
}

fn not_applied(camera: &Camera, reason: &str) -> Done {
    let session = &camera.id;
    tracing::error!(
        target: "ocelli::deploy",
        session,
        "the new entry in the config is not applied, the camera runs on as before: {reason}"
    );
    Done::Refused
}

fn refused(camera: &Camera, error: &SessionError) -> Done {
    let session = &camera.id;
    match error {
        SessionError::Exists(_) => tracing::error!(
            target: "ocelli::deploy",
            session,
            "the camera is not started: a subscriber has made a session of this name. End it with DELETE \
             /v1/sessions/NAME, or call the camera otherwise, and have the config applied again"
        ),
        error => tracing::error!(target: "ocelli::deploy", session, "the camera is not started: {error}"),
    }
    Done::Refused
}

/// Tells what changed outside the cameras, and from when on it counts.
fn log_sections(running: &Config, wanted: &Config) {
    for (effect, keys) in diff::sections(running, wanted) {
        let keys = keys.join(", ");
        match effect {
            Effect::Now => tracing::info!(target: "ocelli::deploy", "in force from now on: {keys}"),
            Effect::NextWorker => tracing::info!(
                target: "ocelli::deploy",
                "in force for workers that start from now on, others keep what they have: {keys}"
            ),
            Effect::NextHost => {
                tracing::warn!(target: "ocelli::deploy", "takes effect when the host is restarted: {keys}");
            }
        }
    }
}
