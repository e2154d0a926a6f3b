//! The configured cameras: brought up at the start, and made to follow the config while the host runs.
//!
//! Applying a config touches the cameras whose entry differs from the one that they run with, and no other. What each of
//! them is to run is found and compiled before it is touched, so a mistake costs a line in the log and no results:
//!
//! | entry | pipeline found and compiled | not |
//! | --- | --- | --- |
//! | new | a new session | a session that has failed, with the reason |
//! | changed | the session goes on with the new entry, in a new worker | it goes on as it was |
//! | gone | the session ends | |
//!
//! What could not be done is tried again whenever a config is applied.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::watch;

use super::{DeployError, Deployer, find_pipeline};
use crate::config::diff::{self, CameraChanges, Effect};
use crate::config::{Camera, Config};
use crate::session::{Deployment, SessionError, Spec};

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
enum Cause {
    New,
    Changed(Vec<String>),
    /// It has failed for want of a component.
    Retried,
}

/// What applying a config has done: numbers of cameras.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// New.
    pub started: usize,
    /// Changed.
    pub restarted: usize,
    /// Gone.
    pub stopped: usize,
    /// Not as the config says; the log says why.
    pub refused: usize,
    /// Not touched.
    pub untouched: usize,
}

impl fmt::Display for Applied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, restarted, stopped, refused, untouched } = self;
        write!(formatter, "cameras: {started} started, {restarted} restarted, {stopped} stopped, ")?;
        write!(formatter, "{refused} not as configured, {untouched} untouched")
    }
}

impl Deployer {
    /// Starts the cameras of the config at the same time. One that cannot be started keeps no other from it.
    pub async fn start_configured(&self) {
        let mut cameras = self.inner.cameras.lock().await;
        let config = self.config();
        let plan = config.cameras.iter().map(|camera| (camera.clone(), Cause::New)).collect();
        self.bring_up_all(&mut cameras, plan, &config).await;
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
        self.inner.config.send_replace(Arc::clone(&config));

        let changes = CameraChanges::between(cameras.values().map(|known| &known.camera), &config.cameras);
        let untold = |camera: &Camera| {
            !changes.removed.contains(&camera.id)
                && changes.changed.iter().all(|changed| changed.camera.id != camera.id)
        };
        let faulty = cameras.values().filter(|known| known.session.faulty && known.session.lives());
        let faulty = faulty.map(|known| &known.camera).filter(|camera| untold(camera));
        let mut plan: Vec<(Camera, Cause)> = faulty.map(|camera| (camera.clone(), Cause::Retried)).collect();
        plan.extend(
            changes.changed.into_iter().map(|changed| (changed.camera, Cause::Changed(changed.keys))),
        );
        plan.extend(changes.added.into_iter().map(|camera| (camera, Cause::New)));

        // First, so that their places are free for others.
        let gone: Vec<Configured> = changes.removed.iter().filter_map(|id| cameras.remove(id)).collect();
        let gone = gone.iter().filter(|known| known.session.lives());
        let stopped = join_all(gone.map(|known| self.take_down(&known.camera.id))).await.len();
        let untouched = config.cameras.len() - plan.len();
        let brought_up = self.bring_up_all(&mut cameras, plan, &config).await;
        Applied { stopped, untouched, ..brought_up }
    }

    /// Tries again to find and compile what a failed camera lacks. False where the session lacks nothing of that kind.
    pub(super) async fn retry(&self, id: &str) -> bool {
        let lacks = self.inner.sessions.spec(id).is_some_and(|spec| spec.deployment.compiled.is_err());
        if !lacks {
            return false;
        }
        let (deployer, id) = (self.clone(), id.to_owned());
        // Compiling may take minutes, for which nobody waits.
        tokio::spawn(async move {
            let mut cameras = deployer.inner.cameras.lock().await;
            let Some(known) = cameras.get(&id).filter(|known| known.session.faulty) else { return };
            let plan = vec![(known.camera.clone(), Cause::Retried)];
            deployer.bring_up_all(&mut cameras, plan, &deployer.config()).await;
        });
        true
    }

    async fn bring_up_all(
        &self,
        cameras: &mut BTreeMap<String, Configured>,
        plan: Vec<(Camera, Cause)>,
        config: &Config,
    ) -> Applied {
        let known = |camera: &Camera| Some(cameras.get(&camera.id)?.session.clone()).filter(Known::lives);
        let brought_up = plan.into_iter().map(|(camera, cause)| {
            let known = known(&camera);
            async move { (self.bring_up(&camera, &cause, known, config).await, camera, cause) }
        });
        let mut applied = Applied::default();
        for (session, camera, cause) in join_all(brought_up).await {
            let count = match (&session, cause) {
                (None | Some(Known { faulty: true, .. }), _) => &mut applied.refused,
                (Some(_), Cause::New) => &mut applied.started,
                (Some(_), _) => &mut applied.restarted,
            };
            *count += 1;
            if let Some(session) = session {
                cameras.insert(camera.id.clone(), Configured { camera, session });
            }
        }
        applied
    }

    /// Brings up one camera, and logs what came of it. `known` is none for a camera that has no session. None: nothing
    /// has changed.
    async fn bring_up(
        &self,
        camera: &Camera,
        cause: &Cause,
        known: Option<Known>,
        config: &Config,
    ) -> Option<Known> {
        let session = camera.id.as_str();
        let (deployment, faulty) = match self.deployment(&camera.pipeline, config).await {
            Ok(deployment) => (deployment, false),
            Err(error) if known.as_ref().is_some_and(|known| !known.faulty) => {
                tracing::error!(
                    target: "ocelli::deploy",
                    session,
                    "the new entry in the config is not applied, the camera runs on as before: {error}"
                );
                return None;
            }
            Err(error) => {
                tracing::error!(target: "ocelli::deploy", session, "the camera is not started: {error}");
                (Deployment::missing(&camera.pipeline, error.to_string()), true)
            }
        };
        match cause {
            Cause::New => tracing::info!(target: "ocelli::deploy", session, "starts: in the config"),
            Cause::Changed(keys) => {
                let keys = keys.join(", ");
                tracing::info!(target: "ocelli::deploy", session, "restarts: changed in the config: {keys}");
            }
            Cause::Retried => tracing::info!(target: "ocelli::deploy", session, "is tried again"),
        }
        let spec = Spec {
            id: camera.id.clone(),
            source: camera.source.clone(),
            deployment,
            settings: camera.settings.clone(),
            decode: camera.decode,
            priority: camera.priority,
        };
        match self.put(spec, known.map(|known| known.over)).await {
            Ok(over) => Some(Known { faulty, over }),
            Err(SessionError::Exists(_)) => {
                tracing::error!(
                    target: "ocelli::deploy",
                    session,
                    "the camera is not started: a subscriber has made a session of this name. End it with DELETE \
                     /v1/sessions/NAME, or call the camera otherwise, and have the config applied again"
                );
                None
            }
            Err(error) => {
                tracing::error!(target: "ocelli::deploy", session, "the camera is not started: {error}");
                None
            }
        }
    }

    /// Gives a camera's session what it is made of, or makes one where there is none. What it returns, and what `over`
    /// is, closes when the session is over.
    async fn put(
        &self,
        spec: Spec,
        over: Option<watch::Receiver<()>>,
    ) -> Result<watch::Receiver<()>, SessionError> {
        let sessions = &self.inner.sessions;
        if let Some(over) = over {
            match sessions.replace(spec.clone(), None).await {
                Ok(()) => return Ok(over),
                // An operator has ended it meanwhile.
                Err(SessionError::Unknown(_)) => {}
                Err(error) => return Err(error),
            }
        }
        sessions.settled(&spec.id).await;
        sessions.start(spec, None)
    }

    async fn take_down(&self, session: &str) {
        tracing::info!(target: "ocelli::deploy", session, "ends: no longer in the config");
        // An operator may have ended it before.
        let _ = self.inner.sessions.stop(session, "no longer in the config").await;
    }

    async fn deployment(&self, pipeline: &str, config: &Config) -> Result<Deployment, DeployError> {
        let path = find_pipeline(pipeline, config)?;
        Ok(self.inner.compiler.deployment(pipeline, &path).await?)
    }
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
