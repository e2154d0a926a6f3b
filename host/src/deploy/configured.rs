//! The configured cameras: brought up at the start, and made to follow the config while the host
//! runs.
//!
//! Applying a config touches the cameras whose entry differs from the one that they run with, and
//! no other. What each of them is to run is found and compiled before it is touched, so a mistake
//! costs a line in the log and no results:
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

use super::Deployer;
use super::bring_up::{BringUpError, CameraSession, camera_spec, entry_order};
use super::execute::Ordered;
use super::history::CameraEntry;
use super::record::{DeploymentState, Outcome, Record};
use crate::config::diff::{self, CameraChanges, Effect};
use crate::config::{Camera, Config};
use crate::session::{SessionError, Spec};

/// A camera that was given a session.
pub(super) struct ConfiguredCamera {
    /// The entry that the session runs with.
    camera: Camera,
    session: CameraSession,
}

/// Why a camera is brought up.
enum BringUpReason {
    New,
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
    Same(CameraSession),
    /// There is nothing to run.
    Faulty(CameraSession),
    /// Nothing has changed, or there is no session.
    Refused,
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
        write!(
            formatter,
            "cameras: {started} started, {restarted} restarted, {deployed} deployed, "
        )?;
        write!(formatter, "{stopped} stopped, ")?;
        write!(formatter, "{refused} not as configured, {untouched} untouched")
    }
}

impl Deployer {
    /// Starts the cameras of the config at the same time. One that cannot be started keeps no other
    /// from it.
    pub async fn start_configured(&self) {
        let mut cameras = self.inner.cameras.lock().await;
        let config = self.config();
        let plan =
            config.cameras.iter().map(|camera| (camera.clone(), BringUpReason::New)).collect();
        self.bring_up_all(&mut cameras, plan).await;
        self.inner.deployments.settle().await;
    }

    /// Makes the running host follow another config, as far as a running host can, and logs what it
    /// does and why. Whoever calls it again meanwhile waits.
    pub async fn apply(&self, wanted: Config) -> Applied {
        let mut cameras = self.inner.cameras.lock().await;
        let running = self.config();
        log_sections(&running, &wanted);
        let config = Arc::new(diff::effective(&running, wanted));
        // First, so that workers that start below get the new limits.
        self.inner.sessions.apply_config(&config);
        self.inner.deployments.ground.compiler.configure(&config.deploy);
        self.inner.journal.events().set_retention((&config.events).into());
        self.inner.config.send_replace(Arc::clone(&config));

        let changes =
            CameraChanges::between(cameras.values().map(|known| &known.camera), &config.cameras);
        let untold = |camera: &Camera| {
            !changes.removed.contains(&camera.id)
                && changes.changed.iter().all(|changed| changed.camera.id != camera.id)
        };
        let faulty = cameras
            .values()
            .filter(|known| known.session.faulty && known.session.handle.is_alive());
        let faulty = faulty.map(|known| &known.camera);
        let faulty = faulty.filter(|camera| self.lacks(&camera.id) && untold(camera));
        let mut plan: Vec<(Camera, BringUpReason)> =
            faulty.map(|camera| (camera.clone(), BringUpReason::Retried)).collect();
        plan.extend(
            changes
                .changed
                .into_iter()
                .map(|changed| (changed.camera, BringUpReason::Changed(changed.keys))),
        );
        plan.extend(changes.added.into_iter().map(|camera| (camera, BringUpReason::New)));

        // First, so that their places are free for others.
        let gone: Vec<ConfiguredCamera> =
            changes.removed.iter().filter_map(|id| cameras.remove(id)).collect();
        gone.iter().for_each(|known| self.inner.deployments.lives.remove(&known.camera.id));
        let gone = gone.iter().filter(|known| known.session.handle.is_alive());
        let stopped = join_all(gone.map(|known| self.take_down(&known.camera.id))).await.len();
        let untouched = config.cameras.len() - plan.len();
        let brought_up = self.bring_up_all(&mut cameras, plan).await;
        Applied { stopped, untouched: untouched + brought_up.untouched, ..brought_up }
    }

    /// Tries again to find and compile what a failed camera lacks. False where the session lacks
    /// nothing of that kind.
    pub(super) async fn retry(&self, id: &str) -> bool {
        if !self.lacks(id) {
            return false;
        }
        let (deployer, id) = (self.clone(), id.to_owned());
        // Compiling may take minutes, for which nobody waits.
        tokio::spawn(async move {
            let mut cameras = deployer.inner.cameras.lock().await;
            let Some(known) = cameras.get(&id).filter(|_| deployer.lacks(&id)) else { return };
            let plan = vec![(known.camera.clone(), BringUpReason::Retried)];
            deployer.bring_up_all(&mut cameras, plan).await;
        });
        true
    }

    fn spec(&self, session: &str) -> Option<Arc<Spec>> {
        Some(self.inner.sessions.get(session)?.spec())
    }

    /// Whether a session has nothing to run.
    fn lacks(&self, id: &str) -> bool {
        self.spec(id).is_some_and(|spec| spec.pipeline.compiled.is_err())
    }

    async fn bring_up_all(
        &self,
        cameras: &mut BTreeMap<String, ConfiguredCamera>,
        plan: Vec<(Camera, BringUpReason)>,
    ) -> Applied {
        let known = |camera: &Camera| {
            Some(cameras.get(&camera.id)?.session.clone()).filter(|known| known.handle.is_alive())
        };
        let brought_up = plan.into_iter().map(|(camera, why)| {
            let known = known(&camera);
            async move { (self.bring_up(&camera, why, known).await, camera) }
        });
        let mut applied = Applied::default();
        for (done, camera) in join_all(brought_up).await {
            let (count, session) = match done {
                BringUpOutcome::Started(known) => (&mut applied.started, Some(known)),
                BringUpOutcome::Restarted(known) => (&mut applied.restarted, Some(known)),
                BringUpOutcome::Deployed(known) => (&mut applied.deployed, Some(known)),
                BringUpOutcome::Same(known) => (&mut applied.untouched, Some(known)),
                BringUpOutcome::Faulty(known) => (&mut applied.refused, Some(known)),
                BringUpOutcome::Refused => (&mut applied.refused, None),
            };
            *count += 1;
            if let Some(session) = session {
                cameras.insert(camera.id.clone(), ConfiguredCamera { camera, session });
            }
        }
        applied
    }

    /// Brings up one camera, and logs what came of it. `known` is none for a camera that has no
    /// session.
    async fn bring_up(
        &self,
        camera: &Camera,
        why: BringUpReason,
        known: Option<CameraSession>,
    ) -> BringUpOutcome {
        let session = camera.id.as_str();
        match (why, known) {
            (BringUpReason::Changed(keys), Some(known)) if !self.lacks(session) => {
                let ours =
                    |key: &String| matches!(key.split('.').next(), Some("pipeline" | "settings"));
                let (version, place) = (keys.iter().any(ours), !keys.iter().all(ours));
                let keys = keys.join(", ");
                match (version, place) {
                    (true, false) => {
                        tracing::info!(target: "ocelli::deploy", session, "is deployed to: \
                            changed in the config: {keys}");
                        self.redeploy(camera, known).await
                    }
                    (version, _) => {
                        tracing::info!(target: "ocelli::deploy", session, "restarts: changed in \
                            the config: {keys}");
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
                    BringUpReason::New => {
                        tracing::info!(target: "ocelli::deploy", session, "starts: in the config")
                    }
                    BringUpReason::Changed(keys) => {
                        let keys = keys.join(", ");
                        tracing::info!(target: "ocelli::deploy", session, "restarts: changed in \
                            the config: {keys}");
                    }
                    BringUpReason::Retried => {
                        tracing::info!(target: "ocelli::deploy", session, "is tried again")
                    }
                }
                let new = known.is_none();
                match self.begin(camera, known.map(|known| known.handle)).await {
                    Some(known) if known.faulty => BringUpOutcome::Faulty(known),
                    Some(known) if new => BringUpOutcome::Started(known),
                    Some(known) => BringUpOutcome::Restarted(known),
                    None => BringUpOutcome::Refused,
                }
            }
        }
    }

    /// A camera that runs, with another pipeline or other settings: a deployment.
    async fn redeploy(&self, camera: &Camera, known: CameraSession) -> BringUpOutcome {
        let deployments = &self.inner.deployments;
        let found = match self.find(camera).await {
            Ok(found) => found,
            Err(error) => return not_applied(camera, &error.to_string()),
        };
        let runs = self.spec(&camera.id).is_some_and(|spec| {
            let CameraEntry { pipeline, settings, digest } = &found.entry;
            (&spec.pipeline.name, &spec.settings, &spec.pipeline.digest)
                == (pipeline, settings, digest)
        });
        if runs {
            // It came over the API before it came into the config.
            self.note(camera, &found.entry).await;
            return BringUpOutcome::Same(known);
        }
        let order = entry_order(camera);
        let entry = Some((camera.pipeline.clone(), camera.settings.clone()));
        match deployments.deploy(Ordered { order, rollback: false, entry }).await {
            Ok(Record {
                state:
                    DeploymentState::Probation
                    | DeploymentState::Ended(Outcome::Healthy | Outcome::Superseded),
                ..
            }) => {
                deployments.lives.set_requested(&camera.id, &camera.pipeline);
                BringUpOutcome::Deployed(known)
            }
            Ok(record) => not_applied(camera, record.reason.as_deref().unwrap_or_default()),
            Err(error) => not_applied(camera, &error.to_string()),
        }
    }

    /// A camera that runs, with another source, or decoded otherwise: a new worker for the same
    /// version.
    async fn relocate(&self, camera: &Camera, known: CameraSession) -> BringUpOutcome {
        let Some(spec) = self.spec(&camera.id) else {
            return BringUpOutcome::Refused;
        };
        let spec = camera_spec(camera, spec.pipeline.clone(), spec.settings.clone());
        match self.put(spec, Some(known.handle), None).await {
            Ok(handle) => BringUpOutcome::Restarted(CameraSession { faulty: false, handle }),
            Err(error) => refused(camera, &error),
        }
    }

    /// A camera that runs, with another source and another version.
    async fn replace(&self, camera: &Camera, known: CameraSession) -> BringUpOutcome {
        let found = match self.find(camera).await {
            Ok(found) => found,
            Err(error) => return not_applied(camera, &error.to_string()),
        };
        let fallback = self.spec(&camera.id).map(|spec| {
            let running = self.inner.deployments.lives.running(&camera.id);
            (camera_spec(camera, spec.pipeline.clone(), spec.settings.clone()), running)
        });
        match self.run_entry(camera, found, fallback, Some(known.handle)).await {
            Ok(known) => BringUpOutcome::Restarted(known),
            Err(BringUpError::Refused(reason)) => not_applied(camera, &reason),
            Err(BringUpError::Session(error)) => refused(camera, &error),
        }
    }

    async fn take_down(&self, session: &str) {
        tracing::info!(target: "ocelli::deploy", session, "ends: no longer in the config");
        // An operator may have ended it before.
        let _ = self.inner.sessions.stop(session, "no longer in the config").await;
    }
}

pub(super) fn not_applied(camera: &Camera, reason: &str) -> BringUpOutcome {
    let session = &camera.id;
    tracing::error!(
        target: "ocelli::deploy",
        session,
        "the new entry in the config is not applied, the camera runs on as before: {reason}"
    );
    BringUpOutcome::Refused
}

pub(super) fn refused(camera: &Camera, error: &SessionError) -> BringUpOutcome {
    let session = &camera.id;
    match error {
        SessionError::Exists(_) => tracing::error!(
            target: "ocelli::deploy",
            session,
            "the camera is not started: a subscriber has made a session of this name. End it with \
                DELETE \
             /v1/sessions/NAME, or call the camera otherwise, and have the config applied again"
        ),
        error => {
            tracing::error!(target: "ocelli::deploy", session, "the camera is not started: {error}")
        }
    }
    BringUpOutcome::Refused
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
                tracing::warn!(target: "ocelli::deploy", "takes effect when the host is \
                    restarted: {keys}");
            }
        }
    }
}
