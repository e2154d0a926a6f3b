//! Desired against actual: what the config says of each camera, what runs, and why they differ.
//!
//! Differences are found when somebody asks, by comparing the config with the sessions. What cannot
//! be seen there is noted when it happens ([`DriftNote`]): why an entry was refused, and that an
//! operator has ended a camera.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

use super::cameras::Applied;
use super::history::CameraEntry;
use super::record::now;
use crate::config::{Camera, ShownProblem, diff};
use crate::session::{Drift, DriftKind, RunningVersion};
use crate::shape::TIME;

/// Something that happened to a configured camera.
#[derive(Debug, Clone)]
struct DriftNote {
    kind: DriftKind,
    since: String,
    reason: String,
    /// The entry that it concerns: another one has nothing to do with it. `None`: any.
    entry: Option<(String, Map<String, Value>)>,
}

/// The notes by the cameras' names: at most one of each camera. Those of cameras that the config
/// has dropped go with the next reload.
#[derive(Debug, Default)]
pub(super) struct DriftNotes(Mutex<BTreeMap<String, DriftNote>>);

impl DriftNotes {
    /// The config's entry could not be applied, or did not last. `kind` is `Failed` where nothing
    /// runs.
    pub(super) fn refused(
        &self,
        session: &str,
        kind: DriftKind,
        pipeline: &str,
        settings: &Map<String, Value>,
        reason: &str,
    ) {
        let entry = Some((pipeline.to_owned(), settings.clone()));
        let note = DriftNote { kind, since: now(), reason: reason.to_owned(), entry };
        self.0.lock().insert(session.to_owned(), note);
    }

    /// An operator has ended the camera.
    pub(super) fn ended(&self, session: &str) {
        let reason = "an operator has ended it; it starts with another entry, or with the host";
        let (kind, since) = (DriftKind::Ended, now());
        let note = DriftNote { kind, since, reason: reason.to_owned(), entry: None };
        self.0.lock().insert(session.to_owned(), note);
    }

    /// The camera runs as its entry says.
    pub(super) fn clear(&self, session: &str) {
        self.0.lock().remove(session);
    }

    /// Forgets cameras that the config does not have.
    pub(super) fn retain(&self, cameras: &[Camera]) {
        self.0.lock().retain(|id, _| cameras.iter().any(|camera| camera.id == *id));
    }

    /// What is noted of this entry.
    fn of(&self, camera: &Camera) -> Option<DriftNote> {
        let note = self.0.lock().get(&camera.id).cloned()?;
        let concerns = |(pipeline, settings): &(String, Map<String, Value>)| {
            *pipeline == camera.pipeline && *settings == camera.settings
        };
        Some(note).filter(|note| note.entry.as_ref().is_none_or(concerns))
    }
}

/// What a camera's session runs.
pub(super) struct ActualVersion<'a> {
    /// `None`: nothing.
    pub(super) version: Option<RunningVersion>,
    pub(super) settings: &'a Map<String, Value>,
}

/// How a camera differs from its entry. `applied` is the entry that it was given last, `started`
/// the time of the config in force.
pub(super) fn drift(
    camera: &Camera,
    actual: Option<ActualVersion<'_>>,
    applied: Option<&CameraEntry>,
    notes: &DriftNotes,
    started: &str,
) -> Option<Drift> {
    let note = notes.of(camera);
    let drift = |kind: DriftKind, actual: Option<String>, keys, since: &str, reason: &str| Drift {
        kind,
        desired: camera.pipeline.clone(),
        actual,
        keys,
        since: since.to_owned(),
        reason: reason.to_owned(),
    };
    let noted = |note: &DriftNote, actual, keys| {
        Some(drift(note.kind, actual, keys, &note.since, &note.reason))
    };
    let nothing_runs = |kind, reason| match &note {
        Some(note) => noted(note, None, Vec::new()),
        None => Some(drift(kind, None, Vec::new(), started, reason)),
    };
    let Some(ActualVersion { version, settings }) = actual else {
        return nothing_runs(DriftKind::Ended, "it has no session");
    };
    let Some(version) = version else {
        return nothing_runs(DriftKind::Failed, "its pipeline is not there, or not usable");
    };
    let keys = diff::settings(&camera.settings, settings);
    let actual = Some(version.pipeline.clone());
    if let Some(note) = note.as_ref().filter(|note| note.kind != DriftKind::Ended) {
        return noted(note, actual, keys);
    }
    let of_entry = applied.is_some_and(|applied| applied.digest == version.digest);
    let same = version.pipeline == camera.pipeline && (version.of_config || of_entry);
    let kind = match (same, keys.is_empty()) {
        (true, true) => return None,
        (true, false) => DriftKind::Settings,
        (false, _) => DriftKind::Pipeline,
    };
    let reason = format!("deployment {}, by {}", version.number, version.by);
    Some(drift(kind, actual, keys, &version.since, &reason))
}

/// A config that was not applied.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RefusedConfig {
    /// When: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub time: String,
    /// Why it was read: edited, SIGHUP, or by somebody over the API.
    pub cause: String,
    /// All that is wrong with it.
    pub problems: Vec<ShownProblem>,
}

/// A camera of the config.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct CameraStatus {
    /// The camera's name.
    pub id: String,
    /// How it differs from its entry. Null: it does not.
    pub drift: Option<Drift>,
}

/// The config in force, as `GET /v1/config` shows it.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
pub struct ConfigStatus {
    /// When it came into force: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub applied: String,
    /// Its faults, of single cameras and of what they name.
    pub problems: Vec<ShownProblem>,
    /// Keys that have another value in the file and take effect when the host is restarted.
    pub waiting: Vec<String>,
    /// The file as it was found since. Null: as it is in force.
    pub refused: Option<RefusedConfig>,
    /// The cameras, in the config's order.
    pub cameras: Vec<CameraStatus>,
}

/// What has become of a config that was read again.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Reload")]
pub struct ReloadReport {
    /// The cameras, by name.
    pub cameras: Applied,
    /// Keys outside the cameras that have changed and are in force.
    pub now: Vec<String>,
    /// Those that workers get which start from now on.
    pub next_worker: Vec<String>,
    /// Keys that have another value in the file and take effect when the host is restarted.
    pub waiting: Vec<String>,
    /// Faults of single cameras, of what they name, and of the host that do not keep it from
    /// following the config.
    pub problems: Vec<ShownProblem>,
}

/// What is remembered of reloads.
#[derive(Debug, Clone, Default)]
pub(super) struct ReloadState {
    pub(super) applied: String,
    pub(super) problems: Vec<ShownProblem>,
    pub(super) waiting: Vec<String>,
    pub(super) refused: Option<RefusedConfig>,
    /// Configs that were applied since the start of the host.
    pub(super) times_applied: u64,
    /// Configs that were not.
    pub(super) times_refused: u64,
}

impl ReloadState {
    pub(super) fn figures(&self) -> ReloadFigures {
        ReloadFigures {
            applied: self.times_applied,
            refused: self.times_refused,
            is_refused: self.refused.is_some(),
        }
    }
}

/// Counts of reloads since the start of the host, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReloadFigures {
    /// Configs that were applied.
    pub applied: u64,
    /// Configs that were not.
    pub refused: u64,
    /// Whether the last one was not.
    pub is_refused: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn camera(settings: &str) -> Camera {
        let text = format!(
            "[[cameras]]\nid = \"cam\"\nsource = \"file:a.mp4\"\npipeline = \"eye\"\n\
             settings = {{ {settings} }}\n"
        );
        let path = std::path::Path::new("test.toml");
        Config::from_text(path, &text, &[]).unwrap().cameras.remove(0)
    }

    fn version(pipeline: &str, digest: &str, of_config: bool) -> RunningVersion {
        RunningVersion {
            number: 7,
            pipeline: pipeline.into(),
            digest: digest.into(),
            since: "2026-01-01T00:00:00.000Z".into(),
            by: "ann".into(),
            of_config,
        }
    }

    fn entry(digest: &str) -> CameraEntry {
        CameraEntry { pipeline: "eye".into(), settings: Map::new(), digest: digest.into() }
    }

    fn found(
        camera: &Camera,
        version: Option<RunningVersion>,
        settings: &Map<String, Value>,
        notes: &DriftNotes,
    ) -> Option<Drift> {
        let actual = Some(ActualVersion { version, settings });
        drift(camera, actual, Some(&entry("a")), notes, "start")
    }

    #[test]
    fn what_came_over_the_api_is_told_with_who_and_when() {
        let (camera, notes) = (camera("score = 0.4"), DriftNotes::default());
        let same = &camera.settings;
        assert_eq!(found(&camera, Some(version("eye", "a", true)), same, &notes), None);
        // A rollback to what the config says is no difference.
        assert_eq!(found(&camera, Some(version("eye", "a", false)), same, &notes), None);
        let other = found(&camera, Some(version("nose.wasm", "b", false)), same, &notes).unwrap();
        assert_eq!(
            (other.kind, other.desired.as_str(), other.actual.as_deref(), other.reason.as_str()),
            (DriftKind::Pipeline, "eye", Some("nose.wasm"), "deployment 7, by ann")
        );
        assert_eq!(other.since, "2026-01-01T00:00:00.000Z");
        let newer = found(&camera, Some(version("eye", "b", false)), same, &notes).unwrap();
        assert_eq!(newer.kind, DriftKind::Pipeline, "another version of the same name");
        let settings = Map::from_iter([("score".to_owned(), 0.5.into())]);
        let set = found(&camera, Some(version("eye", "a", false)), &settings, &notes).unwrap();
        assert_eq!((set.kind, set.keys), (DriftKind::Settings, vec!["settings.score".to_owned()]));
    }

    #[test]
    fn a_refused_entry_and_an_ended_camera_are_told_until_they_are_no_more() {
        let (camera, notes) = (camera(""), DriftNotes::default());
        let run = |notes: &DriftNotes, camera: &Camera| {
            found(camera, Some(version("eye", "a", true)), &camera.settings, notes)
        };
        notes.refused("cam", DriftKind::Refused, "eye", &camera.settings, "it does not compile");
        let refused = run(&notes, &camera).unwrap();
        assert_eq!(
            (refused.kind, refused.reason.as_str()),
            (DriftKind::Refused, "it does not compile")
        );
        let reverted = self::camera("score = 0.4");
        assert_eq!(run(&notes, &reverted), None, "another entry");
        notes.ended("cam");
        let gone = drift(&camera, None, None, &notes, "start").unwrap();
        assert_eq!((gone.kind, gone.actual.as_deref()), (DriftKind::Ended, None));
        assert!(gone.reason.contains("operator"), "{gone:?}");
        notes.clear("cam");
        assert_eq!(run(&notes, &camera), None);
    }
}
