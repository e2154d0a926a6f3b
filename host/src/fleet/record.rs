//! A rollout as it lies in the site's documents, and what the owners of its cameras say of it.
//!
//! `rollout/ID` is written by whoever asks for it, then by the site's planner and by whoever stops it,
//! each with the revision that it has read. `rollout/ID/cam/CAMERA` is written by the camera's owner
//! alone, which the site holds to its epoch.

use std::collections::{BTreeMap, BTreeSet};

use ocelli_cluster::Epoch;
use ocelli_cluster::documents::{Document, DocumentMap, Revision};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The format of both documents that this version writes, and the latest that it knows.
pub(super) const FORMAT: u32 = 1;

/// The folder of rollouts among the site's documents.
pub(super) const FOLDER: &str = "rollout/";

/// The key of a rollout.
pub(super) fn key(id: u64) -> String {
    format!("{FOLDER}{id}")
}

/// The key of what a camera's owner says.
pub(super) fn camera_key(id: u64, camera: &str) -> String {
    format!("{FOLDER}{id}/cam/{camera}")
}

/// What is deployed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RolloutSource {
    /// A pipeline by its name, as each camera's host has it.
    Name(String),
    /// A component in a registry.
    Reference(String),
    /// A component in the site's store of objects, by its SHA-256.
    Object(String),
}

/// How a rollout stands.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schemars(inline)]
pub enum RolloutState {
    /// Cameras get the version, wave by wave.
    Running,
    /// It was stopped; cameras that have the version get back what they had.
    Returning,
    /// No camera has the version because of it any more.
    Returned,
    /// Each camera was given the version.
    Done,
}

impl RolloutState {
    /// Whether it still changes what cameras run.
    pub(super) fn is_under_way(self) -> bool {
        matches!(self, Self::Running | Self::Returning)
    }
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct FleetRollout {
    pub(super) format: u32,
    pub(super) id: u64,
    /// The pipeline as it was asked for.
    pub(super) pipeline: String,
    pub(super) source: RolloutSource,
    /// `None`: each camera keeps its own.
    pub(super) settings: Option<Map<String, Value>>,
    /// Frames on which each camera compares both versions before the change.
    #[serde(default)]
    pub(super) shadow: u32,
    /// The agreement below which a camera's comparison fails.
    #[serde(default)]
    pub(super) threshold: Option<f64>,
    /// The canary first.
    pub(super) cameras: Vec<String>,
    /// How many of `cameras` have been given the version by the end of each wave. Ascending; the last
    /// is all.
    pub(super) waves: Vec<usize>,
    /// The wave under way, from 0.
    pub(super) wave: usize,
    pub(super) state: RolloutState,
    /// Why it was stopped, for programs.
    pub(super) code: Option<String>,
    /// The same for a person.
    pub(super) reason: Option<String>,
    /// Who asked for it.
    pub(super) by: String,
    pub(super) started: String,
    pub(super) ended: Option<String>,
}

impl FleetRollout {
    /// The cameras of a wave.
    pub(super) fn of_wave(&self, wave: usize) -> &[String] {
        let end = self.waves.get(wave).copied().unwrap_or_default();
        let start =
            wave.checked_sub(1).and_then(|before| self.waves.get(before)).copied().unwrap_or(0);
        self.cameras.get(start..end).unwrap_or_default()
    }

    /// The wave of a camera.
    pub(super) fn wave_of(&self, camera: &str) -> Option<usize> {
        let place = self.cameras.iter().position(|one| one == camera)?;
        self.waves.iter().position(|end| place < *end)
    }

    /// As whom the hosts deploy its version: what a camera's history says.
    pub(super) fn deployer(&self) -> String {
        format!("rollout {}", self.id)
    }
}

/// What a camera's owner has done for a rollout.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
#[schemars(inline)]
pub enum CameraStep {
    /// The version is on its way, or on probation.
    Deploying,
    /// The version has passed its probation.
    Healthy,
    /// The camera runs what it ran before, or what the reason says.
    Failed,
    /// The camera has got back what it ran before.
    Returned,
}

/// What a camera's owner says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct CameraResult {
    pub(super) format: u32,
    pub(super) state: CameraStep,
    /// The owner's.
    pub(super) epoch: Epoch,
    pub(super) host: String,
    /// The number of the deployment in the camera's history on that host.
    pub(super) number: Option<u64>,
    /// The first digits of the component's digest.
    pub(super) deployment: Option<String>,
    /// Why it failed, for programs.
    pub(super) code: Option<String>,
    /// The same for a person.
    pub(super) reason: Option<String>,
}

/// All rollouts of a site.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rollouts {
    pub(super) by_id: BTreeMap<u64, (FleetRollout, Revision)>,
    pub(super) results: BTreeMap<u64, CameraResults>,
}

/// By camera.
pub(super) type CameraResults = BTreeMap<String, CameraResult>;

impl Rollouts {
    /// Reads documents. Those of a version to come are left out.
    pub(super) fn read(documents: &DocumentMap) -> Self {
        let mut rollouts = Self::default();
        for (key, document) in documents {
            let Some(rest) = key.strip_prefix(FOLDER) else { continue };
            match rest.split_once("/cam/") {
                None => {
                    if let Some(rollout) = parse::<FleetRollout>(key, document, |one| one.format) {
                        rollouts.by_id.insert(rollout.id, (rollout, document.revision));
                    }
                }
                Some((id, camera)) => {
                    let Ok(id) = id.parse() else { continue };
                    if let Some(result) = parse::<CameraResult>(key, document, |one| one.format) {
                        let of = rollouts.results.entry(id).or_default();
                        of.insert(camera.to_owned(), result);
                    }
                }
            }
        }
        rollouts
    }

    pub(super) fn rollout(&self, id: u64) -> Option<&FleetRollout> {
        self.by_id.get(&id).map(|(rollout, _)| rollout)
    }

    pub(super) fn result(&self, id: u64, camera: &str) -> Option<&CameraResult> {
        self.results.get(&id)?.get(camera)
    }

    /// The cameras of rollouts that are under way, with the rollouts.
    pub(super) fn busy(&self) -> BTreeMap<&str, u64> {
        let under_way = self.by_id.values().filter(|(one, _)| one.state.is_under_way());
        under_way
            .flat_map(|(one, _)| one.cameras.iter().map(|camera| (camera.as_str(), one.id)))
            .collect()
    }

    /// Rollouts that are over, the oldest first, without the newest `keep`.
    pub(super) fn surplus(&self, keep: usize) -> BTreeSet<u64> {
        let over = self.by_id.values().filter(|(one, _)| !one.state.is_under_way());
        let over: Vec<u64> = over.map(|(one, _)| one.id).collect();
        over.into_iter().rev().skip(keep).collect()
    }
}

fn parse<T: serde::de::DeserializeOwned>(
    key: &str,
    document: &Document,
    format: impl Fn(&T) -> u32,
) -> Option<T> {
    let read = serde_json::from_slice::<T>(&document.value);
    match read {
        Ok(read) if format(&read) <= FORMAT => Some(read),
        Ok(_) => None,
        Err(error) => {
            tracing::debug!(target: "ocelli::fleet", key, "is no document of this version: {error}");
            None
        }
    }
}
