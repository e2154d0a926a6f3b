//! Differences between two configs by key: which take effect at once, and which have to wait.
//!
//! Only names of keys are shown, never their values: those may be secrets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::document::{Camera, Config};
use super::sections::SessionProcesses;
use super::server::ServerConfig;
use super::source::Source;

/// When a changed key outside `[[cameras]]` takes effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// Takes effect with the reload.
    Now,
    /// For workers started from now on. Running ones keep the old value.
    NextWorker,
    /// When the host is restarted.
    NextHost,
}

/// Keys and sections that take effect later than at once.
const LATER: [(&str, Effect); 13] = [
    ("server.base_path", Effect::NextHost),
    ("server.listen", Effect::NextHost),
    ("server.tls", Effect::NextHost),
    ("session_processes.log_rotation", Effect::NextHost),
    ("inference", Effect::NextHost),
    ("models", Effect::NextHost),
    ("logs", Effect::NextHost),
    ("store", Effect::NextHost),
    ("analyze", Effect::NextHost),
    ("cluster", Effect::NextHost),
    ("session_processes.health_check_interval", Effect::NextWorker),
    ("session_processes.sandbox", Effect::NextWorker),
    ("resource_limits", Effect::NextWorker),
];

/// The keys outside `[[cameras]]` that differ, as `section.key`, by their effect.
pub fn sections(old: &Config, new: &Config) -> BTreeMap<Effect, Vec<String>> {
    let mut changes = BTreeMap::<Effect, Vec<String>>::new();
    for key in differing("", Some(&as_json(old)), Some(&as_json(new))) {
        let below = |section: &str| {
            key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let effect = LATER
            .iter()
            .find(|(section, _)| below(section))
            .map_or(Effect::Now, |(_, effect)| *effect);
        changes.entry(effect).or_default().push(key);
    }
    changes
}

/// The config after a reload of `wanted`: new values except those that need a restart.
#[must_use]
pub fn effective(running: &Config, wanted: Config) -> Config {
    let Config {
        server, session_processes, inference, models, logs, store, analyze, cluster, ..
    } = running.clone();
    let ServerConfig { listen, base_path, tls, .. } = server;
    let log_rotation = session_processes.log_rotation;
    Config {
        server: ServerConfig { listen, base_path, tls, ..wanted.server },
        session_processes: SessionProcesses { log_rotation, ..wanted.session_processes },
        inference,
        models,
        logs,
        store,
        analyze,
        cluster,
        ..wanted
    }
}

/// The sections without cameras, secrets included.
fn as_json(config: &Config) -> Value {
    serde_json::to_value(config).unwrap_or_default()
}

/// The paths of the innermost keys that differ, or that only one of the two has.
fn differing(path: &str, old: Option<&Value>, new: Option<&Value>) -> Vec<String> {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let below = keys.into_iter().flat_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differing(&path, old.get(key), new.get(key))
            });
            below.collect()
        }
        _ if old == new => Vec::new(),
        _ => vec![path.to_owned()],
    }
}

/// Differences between the cameras of two configs.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CameraChanges {
    /// Cameras that the old config lacks.
    pub added: Vec<Camera>,
    /// Names of those that are gone.
    pub removed: Vec<String>,
    /// Those with another entry than before.
    pub changed: Vec<ChangedCamera>,
}

/// A camera with another entry than before.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedCamera {
    /// The entry of the new config.
    pub camera: Camera,
    /// The keys that differ; never empty.
    pub keys: Vec<String>,
}

impl CameraChanges {
    /// The changes from one set of cameras to another. The order of entries does not count.
    pub fn between<'a>(
        old: impl IntoIterator<Item = &'a Camera>,
        new: impl IntoIterator<Item = &'a Camera>,
    ) -> Self {
        let mut old: BTreeMap<&str, &Camera> =
            old.into_iter().map(|camera| (camera.id.as_str(), camera)).collect();
        let mut changes = Self::default();
        for camera in new {
            match old.remove(camera.id.as_str()) {
                None => changes.added.push(camera.clone()),
                Some(before) if before == camera => {}
                Some(before) => changes.changed.push(ChangedCamera {
                    camera: camera.clone(),
                    keys: differing_keys(before, camera),
                }),
            }
        }
        changes.removed = old.into_keys().map(str::to_owned).collect();
        changes
    }
}

/// The settings that differ, as `settings.key`.
pub fn settings(old: &Map<String, Value>, new: &Map<String, Value>) -> Vec<String> {
    differing("settings", Some(&old.clone().into()), Some(&new.clone().into()))
}

/// The keys that differ between two entries of one camera.
fn differing_keys(old: &Camera, new: &Camera) -> Vec<String> {
    let mut keys = source_keys(&old.source, &new.source);
    keys.extend(substream_keys(old.substream.as_ref(), new.substream.as_ref()));
    keys.extend(named(&[("pipeline", old.pipeline != new.pipeline)]));
    keys.extend(settings(&old.settings, &new.settings));
    keys.extend(named(&[
        ("decode", old.decode != new.decode),
        ("decode_device", old.decode_device != new.decode_device),
        ("priority", old.priority != new.priority),
        ("redis_prefix", old.redis_prefix != new.redis_prefix),
        ("directories", old.directories != new.directories),
    ]));
    keys
}

/// The keys that differ.
fn named(keys: &[(&str, bool)]) -> Vec<String> {
    keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned()).collect()
}

fn source_keys(old: &Source, new: &Source) -> Vec<String> {
    match (old, new) {
        (Source::Rtsp(old), Source::Rtsp(new)) => named(&[
            ("source", old.url() != new.url()),
            ("source (user name or password)", old.credentials != new.credentials),
            ("transport", old.transport != new.transport),
            ("silence_s", old.silence != new.silence),
            ("reader", old.reader != new.reader),
            ("ca or certificate_sha256", old.tls != new.tls),
        ]),
        (Source::File(old), Source::File(new)) => named(&[
            ("source", old.path != new.path),
            ("pace", old.pace != new.pace),
            ("repeat", old.repeat != new.repeat),
        ]),
        _ => named(&[("source", true)]),
    }
}

/// Keys that both streams share are named with the source's.
fn substream_keys(old: Option<&Source>, new: Option<&Source>) -> Vec<String> {
    match (old, new) {
        (Some(Source::Rtsp(old)), Some(Source::Rtsp(new))) => named(&[
            ("substream", old.url() != new.url()),
            ("substream (user name or password)", old.credentials != new.credentials),
        ]),
        _ => named(&[("substream", old != new)]),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn parsed(text: &str) -> Config {
        Config::from_text(Path::new("test.toml"), text, &[]).unwrap()
    }

    fn one(entry: &str) -> Camera {
        let mut config = parsed(&format!("[[cameras]]\nid = \"cam\"\n{entry}\n"));
        config.cameras.remove(0)
    }

    fn keys(old: &str, new: &str) -> Vec<String> {
        let changes = CameraChanges::between(&[one(old)], &[one(new)]);
        assert!(changes.added.is_empty() && changes.removed.is_empty());
        changes.changed.into_iter().flat_map(|changed| changed.keys).collect()
    }

    #[test]
    fn the_keys_that_changed_are_named_and_no_value_of_theirs() {
        let rtsp = "source = \"rtsp://ann:hush@camera/a\"\npipeline = \"eye\"";
        assert_eq!(keys(rtsp, rtsp), Vec::<String>::new());
        let password = rtsp.replace("hush", "secret");
        assert_eq!(keys(rtsp, &password), ["source (user name or password)"]);
        assert_eq!(keys(rtsp, &rtsp.replace("camera/a", "camera/b")), ["source"]);
        assert_eq!(
            keys(rtsp, &format!("{rtsp}\ntransport = \"udp\"\nsilence_s = 90\ndecode = \"key\"")),
            ["transport", "silence_s", "decode"]
        );
        assert_eq!(keys(rtsp, &rtsp.replace("eye", "ear")), ["pipeline"]);
        let file = "source = \"file:a.mp4\"\npipeline = \"eye\"";
        assert_eq!(keys(rtsp, file), ["source"]);
        assert_eq!(
            keys(file, &format!("{file}\npace = \"realtime\"\nrepeat = true")),
            ["pace", "repeat"]
        );
        let set = |settings: &str| format!("{file}\nsettings = {{ {settings} }}");
        assert_eq!(
            keys(
                &set("score = 0.4, zone = { left = 1, top = 2 }"),
                &set("zone = { left = 1, top = 3 }, token = \"t\"")
            ),
            ["settings.score", "settings.token", "settings.zone.top"]
        );
    }

    #[test]
    fn each_key_outside_the_cameras_has_its_effect() {
        let new = parsed(
            "[server]\nlisten = \"127.0.0.1:9000\"\norigins = [\"https://dash.example\"]\n\
             tls = { certificate = \"c.pem\", key = \"k.pem\" }\nrequests_per_second = 1\n\
             [session_processes]\nmax_concurrent_sessions = 30\nprocess_cleanup_timeout = 5\n\
             health_check_interval = 3\nsandbox = \"required\"\n\
             [session_processes.log_rotation]\nbackup_count = 1\n\
             [resource_limits]\ncall_cpu_ms = 500\ncpu_percent = 100\n\
             [inference]\nthreads = 3\n[models]\ndirectory = \"m\"\n[logs]\ndirectory = \"l\"\n\
             [store]\ndirectory = \"d\"\ncache = \"c\"\n[events]\nkeep_mb = 5\n[redis]\nurl = \
             \"redis://h\"\n[mqtt]\nurl = \"mqtt://h\"\n\
             [analyze]\nworkers = 2\n[subscriptions]\ngrace_s = 1\n[alerts]\nno_results_s = 1\n",
        );
        let changes = sections(&Config::default(), &new);
        assert_eq!(
            changes[&Effect::Now],
            [
                "alerts.no_results_s",
                "events.keep_mb",
                "mqtt",
                "redis",
                "server.origins",
                "server.requests_per_second",
                "session_processes.max_concurrent_sessions",
                "session_processes.process_cleanup_timeout",
                "subscriptions.grace_s"
            ]
        );
        assert_eq!(
            changes[&Effect::NextWorker],
            [
                "resource_limits.call_cpu_ms",
                "resource_limits.cpu_percent",
                "session_processes.health_check_interval",
                "session_processes.sandbox"
            ]
        );
        assert_eq!(
            changes[&Effect::NextHost],
            [
                "analyze.workers",
                "inference.threads",
                "logs.directory",
                "models.directory",
                "server.listen",
                "server.tls",
                "session_processes.log_rotation.backup_count",
                "store.cache",
                "store.directory"
            ]
        );
        // What is in force afterwards differs from what is wanted by what has to wait, and by
        // nothing else.
        let waiting = sections(&effective(&Config::default(), new.clone()), &new);
        assert_eq!(waiting.keys().collect::<Vec<_>>(), [&Effect::NextHost]);
        assert_eq!(waiting[&Effect::NextHost], changes[&Effect::NextHost]);
    }

    /// Entries that differ in few ways, so that equal ones are common.
    fn camera() -> impl Strategy<Value = Camera> {
        let source = prop_oneof![
            Just("rtsp://a/"),
            Just("rtsp://u:p@a/"),
            Just("rtsp://u:q@a/"),
            Just("file:a.mp4")
        ];
        ("[a-f]", source, "[xy]", prop::option::of(0..2)).prop_map(
            |(id, source, pipeline, score)| Camera {
                id,
                source: Source::parse(source, None, None, false).unwrap(),
                substream: None,
                pipeline,
                settings: score
                    .map(|score| ("score".to_owned(), Value::from(score)))
                    .into_iter()
                    .collect(),
                decode: Default::default(),
                decode_device: Default::default(),
                priority: Default::default(),
                redis_prefix: None,
                directories: Vec::new(),
            },
        )
    }

    fn cameras() -> impl Strategy<Value = Vec<Camera>> {
        prop::collection::vec(camera(), 0..6).prop_map(|cameras| {
            let unique: BTreeMap<String, Camera> =
                cameras.into_iter().map(|camera| (camera.id.clone(), camera)).collect();
            unique.into_values().collect()
        })
    }

    fn by_id(cameras: &[Camera]) -> BTreeMap<String, Camera> {
        cameras.iter().map(|camera| (camera.id.clone(), camera.clone())).collect()
    }

    proptest! {
        #[test]
        fn applying_the_changes_touches_exactly_the_cameras_that_differ_whatever_the_order(
            (old, old_shuffled) in cameras().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
            (new, new_shuffled) in cameras().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        ) {
            let changes = CameraChanges::between(&old_shuffled, &new_shuffled);
            let (old, new) = (by_id(&old), by_id(&new));
            let mut running = old.clone();
            let mut touched = Vec::new();
            for id in &changes.removed {
                prop_assert!(running.remove(id).is_some(), "{id} did not run");
                touched.push(id.clone());
            }
            for changed in &changes.changed {
                prop_assert!(!changed.keys.is_empty());
                let before = running.insert(changed.camera.id.clone(), changed.camera.clone());
                prop_assert!(before.is_some_and(|before| before != changed.camera));
                touched.push(changed.camera.id.clone());
            }
            for camera in &changes.added {
                prop_assert!(running.insert(camera.id.clone(), camera.clone()).is_none());
                touched.push(camera.id.clone());
            }
            prop_assert_eq!(&running, &new);
            touched.sort();
            let all: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
            let differ: Vec<String> = all.into_iter().filter(|id| old.get(*id) != new.get(*id)).cloned().collect();
            prop_assert_eq!(touched, differ);
        }

        #[test]
        fn a_config_differs_in_nothing_from_itself_in_another_order(
            (list, shuffled) in cameras().prop_flat_map(|list| (Just(list.clone()), Just(list).prop_shuffle())),
        ) {
            prop_assert_eq!(CameraChanges::between(&list, &shuffled), CameraChanges::default());
        }
    }
}
