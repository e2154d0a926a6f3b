//! The configured cameras: brought up at the start, and made to follow the config while the host
//! runs.
//!
//! Applying a config touches the cameras whose entry differs from the one that they run with, and
//! no other. A camera's component is found and compiled before the camera is touched, so a mistake
//! costs a line in the log and no results:
//!
//! | entry | pipeline found and compiled | not |
//! | --- | --- | --- |
//! | new | a new session; [`start`] says with what | a session that has failed, with the reason |
//! | changed in pipeline or settings | a deployment beside the running worker | it goes on as it was |
//! | changed in source, decode or priority | the session goes on with the new entry, in a new worker | |
//! | changed in both | likewise, and it goes back to what it ran where that does not last | it goes on as it was |
//! | gone | the session ends | |
//!
//! What could not be done is tried again whenever a config is applied; a component that a registry
//! did not give, from time to time.

mod bring_up;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use futures_util::future::join_all;
use schemars::JsonSchema;
use serde::Serialize;

use super::backend::HostBackend;
use super::execute::Executor;
use crate::config::diff::CameraChanges;
use crate::config::{Camera, Config};
use bring_up::{BringUp, BringUpOutcome, BringUpReason, CameraSession};

pub(super) use bring_up::has_nothing_to_run;

/// A camera that was given a session.
struct ConfiguredCamera {
    /// The entry that the session runs with.
    camera: Camera,
    session: CameraSession,
}

/// What applying a config has done with its cameras.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ReloadedCameras")]
pub struct Applied {
    /// Cameras that are new.
    pub started: Vec<String>,
    /// Changed cameras, with a new worker in the place of the one before.
    pub restarted: Vec<String>,
    /// Cameras changed beside the running worker, without a pause.
    pub deployed: Vec<String>,
    /// Cameras that the config no longer has.
    pub stopped: Vec<String>,
    /// Cameras that do not run as the config says; the log says why.
    pub refused: Vec<String>,
    /// The number of cameras whose entry is the same.
    pub untouched: usize,
}

impl Applied {
    /// Whether there is a camera that had to follow.
    pub fn has_touched(&self) -> bool {
        let Self { started, restarted, deployed, stopped, refused, untouched: _ } = self;
        [started, restarted, deployed, stopped, refused].iter().any(|names| !names.is_empty())
    }
}

impl fmt::Display for Applied {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, restarted, deployed, stopped, refused, untouched } = self;
        write!(
            formatter,
            "cameras: {} started, {} restarted, {} deployed, {} stopped, {} not as configured, \
             {untouched} untouched",
            started.len(),
            restarted.len(),
            deployed.len(),
            stopped.len(),
            refused.len()
        )
    }
}

/// The configured cameras that have a session, by name.
pub(super) struct Cameras {
    executor: Arc<Executor<HostBackend>>,
    by_name: BTreeMap<String, ConfiguredCamera>,
}

impl Cameras {
    pub(super) fn new(executor: Arc<Executor<HostBackend>>) -> Self {
        Self { executor, by_name: BTreeMap::new() }
    }

    /// Starts the cameras of a config at the same time. One that fails stops no other.
    pub(super) async fn start(&mut self, config: &Config) {
        let new = |camera: &Camera| (camera.clone(), BringUpReason::New);
        self.bring_up(config.cameras.iter().map(new).collect()).await;
        self.executor.on_cameras_started().await;
    }

    /// Makes the cameras follow a config.
    pub(super) async fn apply(&mut self, config: &Config) -> Applied {
        let running = self.by_name.values().map(|running| &running.camera);
        let changes = CameraChanges::between(running, &config.cameras);
        let unchanged = |camera: &Camera| {
            !changes.removed.contains(&camera.id)
                && changes.changed.iter().all(|changed| changed.camera.id != camera.id)
        };
        let faulty = self.by_name.values().filter(|one| one.session.faulty && lacks(one));
        let faulty = faulty.map(|one| one.camera.clone()).filter(unchanged);
        let mut plan: Vec<(Camera, BringUpReason)> =
            faulty.map(|camera| (camera, BringUpReason::Retried)).collect();
        let changed = changes.changed.into_iter();
        plan.extend(changed.map(|one| (one.camera, BringUpReason::Changed(one.keys))));
        plan.extend(changes.added.into_iter().map(|camera| (camera, BringUpReason::New)));

        // First, so that others can have their places among `max_concurrent_sessions`.
        let removed: Vec<ConfiguredCamera> =
            changes.removed.iter().filter_map(|id| self.by_name.remove(id)).collect();
        removed.iter().for_each(|one| self.executor.state.sessions.remove(&one.camera.id));
        self.executor.state.notes.retain(&config.cameras);
        let removed = removed.iter().filter(|one| one.session.handle.is_alive());
        let stopped: Vec<String> = removed.map(|one| one.camera.id.clone()).collect();
        join_all(stopped.iter().map(|id| self.stop(id))).await;
        let untouched = config.cameras.len() - plan.len();
        let applied = self.bring_up(plan).await;
        Applied { stopped, untouched: untouched + applied.untouched, ..applied }
    }

    /// Looks for the component of a failed camera again.
    pub(super) async fn retry(&mut self, id: &str) {
        let Some(one) = self.by_name.get(id).filter(|one| lacks(one)) else { return };
        let plan = vec![(one.camera.clone(), BringUpReason::Retried)];
        self.bring_up(plan).await;
    }

    /// Tries the cameras again that lack a component of these registries.
    pub(super) async fn fetch_missing(&mut self, registries: &BTreeSet<String>) {
        let mut missing = self.missing();
        missing.retain(|registry, _| registries.contains(registry));
        let cameras = missing.into_values().flatten();
        self.bring_up(cameras.map(|camera| (camera, BringUpReason::Retried)).collect()).await;
    }

    /// The cameras that lack a component, by the registry that did not give it.
    pub(super) fn missing(&self) -> BTreeMap<String, Vec<Camera>> {
        let mut missing: BTreeMap<String, Vec<Camera>> = BTreeMap::new();
        for one in self.by_name.values().filter(|one| lacks(one)) {
            if let Some(registry) = &one.session.registry {
                missing.entry(registry.clone()).or_default().push(one.camera.clone());
            }
        }
        missing
    }

    async fn bring_up(&mut self, plan: Vec<(Camera, BringUpReason)>) -> Applied {
        let brought_up = plan.into_iter().map(|(camera, reason)| {
            let session = self.by_name.get(&camera.id).map(|one| one.session.clone());
            let session = session.filter(|session| session.handle.is_alive());
            let bring_up = BringUp::new(&self.executor, camera.clone());
            async move { (bring_up.run(reason, session).await, camera) }
        });
        let mut applied = Applied::default();
        for (outcome, camera) in join_all(brought_up).await {
            let (names, session) = match outcome {
                BringUpOutcome::Started(session) => (Some(&mut applied.started), Some(session)),
                BringUpOutcome::Restarted(session) => (Some(&mut applied.restarted), Some(session)),
                BringUpOutcome::Deployed(session) => (Some(&mut applied.deployed), Some(session)),
                BringUpOutcome::Unchanged(session) => (None, Some(session)),
                BringUpOutcome::Faulty(session) => (Some(&mut applied.refused), Some(session)),
                BringUpOutcome::Refused => (Some(&mut applied.refused), None),
            };
            match names {
                Some(names) => names.push(camera.id.clone()),
                None => applied.untouched += 1,
            }
            if let Some(session) = session {
                self.by_name.insert(camera.id.clone(), ConfiguredCamera { camera, session });
            }
        }
        applied
    }

    async fn stop(&self, session: &str) {
        tracing::info!(target: "ocelli::deploy", session, "ends: no longer in the config");
        // An operator may have ended it before.
        let _ = self.executor.backend.sessions.stop(session, "no longer in the config").await;
    }
}

/// Whether a camera has failed for want of a component.
fn lacks(one: &ConfiguredCamera) -> bool {
    one.session.handle.is_alive() && has_nothing_to_run(&one.session.handle)
}
