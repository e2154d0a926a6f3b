//! Rollouts: a version of a pipeline for many cameras of a site, one first, then a tenth, then all.
//!
//! ```text
//! who asks --create--> rollout/ID --watched by all--> owner of each camera: deploys, or gives back
//!                          ^                               |
//!                          +---- planner: step <---- rollout/ID/cam/CAMERA
//! ```
//!
//! A rollout is a document of the site ([`record`]). Each host deploys to its own cameras whose wave is
//! open, by the way of any deployment, and writes what became of it ([`owner`]). The host that plans for
//! the site opens the next wave, or has the rollout go back, by a pure function ([`step`]): it writes
//! only over the revision that it has read, so a planner that dies is followed by the next one, and two
//! never both decide.

mod owner;
mod record;
mod step;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use ocelli_cluster::documents::{Documents, Expect};
use ocelli_cluster::member::{CoordError, SiteView};
use ocelli_cluster::streams::StreamError;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::cluster::Cluster;
use crate::config::{OciReference, OciReferenceError};
use crate::deploy::{DeployError, Deployer};
use crate::event::{rfc3339, unix_ns};
use crate::journal::Journal;
use crate::shape::TIME;
use owner::OwnerTask;
pub use record::{CameraStep, RolloutState};
use record::{FORMAT, FleetRollout, RolloutSource, Rollouts};

/// Rollouts that are over and kept, to be looked up.
const KEPT: usize = 100;

/// Times that a new rollout is written, where others write one at the same time.
const TRIES: u32 = 5;

/// Most cameras of a rollout: what one document of etcd, of 1.5 MiB, can name.
const MAX_CAMERAS: usize = 5000;

/// What a rollout deploys, as a client says it.
#[derive(Debug, Clone)]
pub enum WantedVersion {
    /// A component, with its name.
    Component { name: String, bytes: Bytes },
    /// A pipeline's name, or a component in a registry.
    Named(String),
}

/// A rollout to begin.
#[derive(Debug, Clone)]
pub struct NewRollout {
    pub wanted: WantedVersion,
    pub settings: Option<Map<String, Value>>,
    pub shadow: u32,
    pub threshold: Option<f64>,
    /// Names of cameras, in which `*` stands for anything.
    pub selectors: Vec<String>,
    pub by: String,
}

/// Why a rollout does not begin, or is not changed.
#[derive(Debug, thiserror::Error)]
pub enum RolloutError {
    #[error("no camera of the site is meant by {0}")]
    NoCameras(String),
    #[error("{0} cameras: {MAX_CAMERAS} are the most of one rollout")]
    TooMany(usize),
    #[error("camera {camera:?} belongs to rollout {id}, which is under way")]
    UnderWay { camera: String, id: u64 },
    #[error("there is no rollout {0}")]
    Unknown(String),
    #[error("rollout {0} is over, or goes back already")]
    Over(u64),
    #[error("pipeline: {0}")]
    Reference(#[from] OciReferenceError),
    #[error(transparent)]
    Deploy(#[from] DeployError),
    #[error(transparent)]
    Site(#[from] CoordError),
    #[error(transparent)]
    Streams(#[from] StreamError),
}

/// A rollout, and how it stands.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Rollout")]
pub struct RolloutStatus {
    /// Counts the site's rollouts.
    pub id: u64,
    /// The pipeline as it was asked for: a name, a registry's component, or the name of a file.
    pub pipeline: String,
    /// The pipeline's settings; null: each camera keeps its own.
    pub settings: Option<Map<String, Value>>,
    /// Frames on which each camera compares both versions before the change.
    pub shadow: u32,
    /// The agreement below which a camera's comparison fails, 0 to 1; null: none.
    pub threshold: Option<f64>,
    /// "running", "returning", "returned" or "done".
    pub state: RolloutState,
    /// Why it goes back: `canary_failed`, `wave_failed` or `stopped`; null: it does not.
    pub code: Option<String>,
    /// The same for a person.
    pub reason: Option<String>,
    /// Who asked for it.
    pub by: String,
    /// When it was asked for: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub started: String,
    /// When it ended: RFC 3339 in UTC, with milliseconds. Null while it is under way.
    #[schemars(regex(pattern = TIME))]
    pub ended: Option<String>,
    /// The wave under way, from 1.
    pub wave: usize,
    /// How many waves there are.
    pub waves: usize,
    /// Its cameras that the token sees, in their order: the canary first.
    pub cameras: Vec<RolloutCamera>,
}

/// A camera of a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct RolloutCamera {
    /// The camera's name.
    pub id: String,
    /// Its wave, from 1.
    pub wave: usize,
    /// What its host has done: "deploying", "healthy", "failed" or "returned". Null: nothing yet.
    pub state: Option<CameraStep>,
    /// The host that has done so.
    pub host: Option<String>,
    /// The number of the deployment in the camera's history on that host.
    pub number: Option<u64>,
    /// The first 12 digits of the component's SHA-256.
    pub deployment: Option<String>,
    /// Why it failed: an outcome of a deployment, the code of its refusal, `alert`,
    /// `component_unavailable`, or `not_returned`. Null: it did not.
    pub code: Option<String>,
    /// The same for a person.
    pub reason: Option<String>,
}

/// The rollouts of the site that this host belongs to. Cheap to clone; ends when the last clone is
/// gone.
#[derive(Clone)]
pub struct Fleet {
    inner: Arc<FleetInner>,
}

struct FleetInner {
    cluster: Cluster,
    deployer: Deployer,
    rollouts: watch::Receiver<Arc<Rollouts>>,
    _task: AbortOnDropHandle<()>,
}

impl Fleet {
    /// Takes part in the site's rollouts from now on.
    pub fn start(
        cluster: Cluster,
        deployer: Deployer,
        journal: Journal,
    ) -> Result<Self, RolloutError> {
        let documents = cluster.member().documents().watch(record::FOLDER)?;
        let (task, rollouts) =
            OwnerTask::new(cluster.clone(), deployer.clone(), journal, documents);
        let task = AbortOnDropHandle::new(tokio::spawn(task.run()));
        let inner = FleetInner { cluster, deployer, rollouts, _task: task };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Begins a rollout to cameras that `sees` lets through.
    pub async fn create(
        &self,
        new: NewRollout,
        sees: impl Fn(&str) -> bool,
    ) -> Result<RolloutStatus, RolloutError> {
        let cameras = self.chosen(&new.selectors, sees)?;
        let (pipeline, source) = self.source(new.wanted).await?;
        let mut rollout = FleetRollout {
            format: FORMAT,
            id: 0,
            pipeline,
            source,
            settings: new.settings,
            shadow: new.shadow,
            threshold: new.threshold,
            waves: step::waves(cameras.len()),
            cameras,
            wave: 0,
            state: RolloutState::Running,
            code: None,
            reason: None,
            by: new.by,
            started: now(),
            ended: None,
        };
        let member = self.inner.cluster.member();
        for _ in 0..TRIES {
            let rollouts = self.read("").await?;
            let busy = rollouts.busy();
            let taken = rollout
                .cameras
                .iter()
                .find_map(|camera| busy.get(camera.as_str()).map(|id| (camera.clone(), *id)));
            if let Some((camera, id)) = taken {
                return Err(RolloutError::UnderWay { camera, id });
            }
            rollout.id = rollouts.by_id.keys().last().map_or(1, |last| last + 1);
            match owner::put(member, &rollout, Expect::Nothing).await {
                // Another one was faster, perhaps with a camera of this one.
                Err(CoordError::Changed { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    self.forget(&rollouts).await;
                    return Ok(status(&rollout, &Rollouts::default(), |_| true));
                }
            }
        }
        Err(CoordError::Changed { key: record::key(rollout.id) }.into())
    }

    /// All rollouts, the newest first, with their cameras that `sees` lets through.
    pub fn list(&self, sees: impl Fn(&str) -> bool) -> Vec<RolloutStatus> {
        let rollouts = Arc::clone(&self.inner.rollouts.borrow());
        let all = rollouts.by_id.values().rev();
        all.map(|(rollout, _)| status(rollout, &rollouts, &sees)).collect()
    }

    /// One rollout, likewise.
    pub async fn find(
        &self,
        id: &str,
        sees: impl Fn(&str) -> bool,
    ) -> Result<RolloutStatus, RolloutError> {
        let unknown = || RolloutError::Unknown(id.to_owned());
        let number: u64 = id.parse().map_err(|_| unknown())?;
        let rollouts = self.read(&number.to_string()).await?;
        let rollout = rollouts.rollout(number).ok_or_else(unknown)?;
        Ok(status(rollout, &rollouts, sees))
    }

    /// Has a rollout go back. Who asks has to see all its cameras.
    pub async fn stop(
        &self,
        id: &str,
        by: &str,
        sees: impl Fn(&str) -> bool,
    ) -> Result<RolloutStatus, RolloutError> {
        let unknown = || RolloutError::Unknown(id.to_owned());
        let number: u64 = id.parse().map_err(|_| unknown())?;
        for _ in 0..TRIES {
            let rollouts = self.read(&number.to_string()).await?;
            let (rollout, revision) = rollouts.by_id.get(&number).ok_or_else(unknown)?;
            if !rollout.cameras.iter().all(|camera| sees(camera)) {
                return Err(unknown());
            }
            if rollout.state != RolloutState::Running {
                return Err(RolloutError::Over(number));
            }
            let next = FleetRollout {
                state: RolloutState::Returning,
                code: Some("stopped".to_owned()),
                reason: Some(format!("stopped by {by}")),
                ..rollout.clone()
            };
            let expect = Expect::Revision(*revision);
            match owner::put(self.inner.cluster.member(), &next, expect).await {
                // The planner was faster.
                Err(CoordError::Changed { .. }) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => return Ok(status(&next, &rollouts, sees)),
            }
        }
        Err(CoordError::Changed { key: record::key(number) }.into())
    }

    /// What etcd has of the rollouts whose numbers begin so.
    async fn read(&self, begin: &str) -> Result<Rollouts, RolloutError> {
        let prefix = format!("{}{begin}", record::FOLDER);
        Ok(Rollouts::read(&self.documents().list(&prefix).await?))
    }

    fn documents(&self) -> Documents {
        self.inner.cluster.member().documents()
    }

    fn chosen(
        &self,
        selectors: &[String],
        sees: impl Fn(&str) -> bool,
    ) -> Result<Vec<String>, RolloutError> {
        let site = Arc::clone(&self.inner.cluster.member().site().borrow());
        let chosen = chosen(&site, selectors, sees);
        match chosen.len() {
            0 => Err(RolloutError::NoCameras(selectors.join(", "))),
            count if count > MAX_CAMERAS => Err(RolloutError::TooMany(count)),
            _ => Ok(chosen),
        }
    }

    /// Finds out what is meant, and gives the site what it lacks.
    async fn source(&self, wanted: WantedVersion) -> Result<(String, RolloutSource), RolloutError> {
        match wanted {
            WantedVersion::Component { name, bytes } => {
                let digest = self.inner.cluster.streams().put_object(bytes).await?;
                Ok((name, RolloutSource::Object(digest.to_string())))
            }
            WantedVersion::Named(name) if OciReference::is_meant_by(&name) => {
                let reference = name.parse::<OciReference>()?;
                Ok((name, RolloutSource::Reference(reference.to_string())))
            }
            WantedVersion::Named(name) => {
                self.inner.deployer.knows(&name)?;
                Ok((name.clone(), RolloutSource::Name(name)))
            }
        }
    }

    /// Deletes the oldest rollouts that are over.
    async fn forget(&self, rollouts: &Rollouts) {
        let documents = self.documents();
        for id in rollouts.surplus(KEPT) {
            let results = rollouts.results.get(&id).into_iter().flatten();
            let results = results.map(|(camera, _)| record::camera_key(id, camera));
            for key in results.chain([record::key(id)]) {
                if let Err(error) = documents.delete(&key, Expect::Anything).await {
                    tracing::debug!(target: "ocelli::fleet", key, "is not deleted: {error}");
                }
            }
        }
    }
}

/// The cameras of a site that are meant: those that a host has at this moment first, since one of them
/// is the canary; each part sorted by name.
fn chosen(site: &SiteView, selectors: &[String], sees: impl Fn(&str) -> bool) -> Vec<String> {
    let meant = |camera: &&String| {
        sees(camera) && selectors.iter().any(|selector| matches(selector, camera))
    };
    let (first, last): (BTreeSet<_>, BTreeSet<_>) =
        site.cameras.keys().filter(meant).partition(|camera| site.owner(camera).is_some());
    first.into_iter().chain(last).cloned().collect()
}

/// Whether a name is as a pattern, in which `*` stands for anything, also for nothing.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let begin = parts.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(begin) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(end)
}

fn status(
    rollout: &FleetRollout,
    rollouts: &Rollouts,
    sees: impl Fn(&str) -> bool,
) -> RolloutStatus {
    let camera = |(place, id): (usize, &String)| {
        let result = rollouts.result(rollout.id, id);
        RolloutCamera {
            id: id.clone(),
            wave: rollout.waves.iter().position(|end| place < *end).unwrap_or_default() + 1,
            state: result.map(|result| result.state),
            host: result.map(|result| result.host.clone()),
            number: result.and_then(|result| result.number),
            deployment: result.and_then(|result| result.deployment.clone()),
            code: result.and_then(|result| result.code.clone()),
            reason: result.and_then(|result| result.reason.clone()),
        }
    };
    let FleetRollout { id, pipeline, settings, shadow, threshold, state, code, reason, .. } =
        rollout.clone();
    RolloutStatus {
        id,
        pipeline,
        settings,
        shadow,
        threshold,
        state,
        code,
        reason,
        by: rollout.by.clone(),
        started: rollout.started.clone(),
        ended: rollout.ended.clone(),
        wave: rollout.wave + 1,
        waves: rollout.waves.len(),
        cameras: {
            let cameras = rollout.cameras.iter().enumerate();
            cameras.filter(|(_, id)| sees(id)).map(camera).collect()
        },
    }
}

/// The time now as documents have it: RFC 3339 in UTC, with milliseconds.
fn now() -> String {
    rfc3339(unix_ns(SystemTime::now()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name) in [
            ("*", "gate"),
            ("gate", "gate"),
            ("hall-*", "hall-7"),
            ("*-7", "hall-7"),
            ("h*l*7", "hall-7"),
            ("hall*", "hall"),
            ("*a*", "hall"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("gate", "gates"), ("", "gate"), ("a*a", "a"), ("h*7", "hall-8"), ("*x*", "hall")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
