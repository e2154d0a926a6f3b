use std::collections::{BTreeMap, BTreeSet};

use ocelli_protocol::limit::{Limit, LimitCounts};
use ocelli_protocol::worker::Timestamps;

use super::*;
use crate::cluster::SiteFigures;
use crate::deploy::ReloadFigures;
use crate::event::SessionState;
use crate::inference::{Duty, ProcessStatus, Restarts};
use crate::session::latency::Latencies;
use crate::session::{Frames, Skipped};

/// Names that a config accepts, and some that no config does.
const ODD_NAMES: [&str; 6] = [
    "display-001;cam-001",
    "the \"gate\"",
    r"back\slash\n",
    "Eingang Süd, 門",
    "a}b{c=\"d\",e\"",
    "two\nlines",
];

fn session(id: &str) -> SessionSample {
    let mut limits = LimitCounts::default();
    limits.add(Limit::LogLines, 3);
    let skipped = Skipped {
        newer: 5,
        setting: 0,
        no_key: 1,
        corrupt: 0,
        hidden: 0,
        no_picture: 0,
        queue: 2,
        unreadable: 3,
    };
    let mut latencies = Latencies::default();
    for ms in [4u64, 40, 400] {
        let ns = ms * 1_000_000;
        let (decoded, submitted) = (1_000_000, 1_500_000);
        latencies.record(&Timestamps {
            received: 0,
            decoded,
            submitted,
            inferred: ns - 1,
            emitted: ns,
        });
    }
    let status = SessionStatus {
        host: None,
        id: id.to_owned(),
        state: SessionState::Degraded,
        reason: Some("connection refused".into()),
        pid: Some(77),
        source: "rtsp://camera/stream".into(),
        substream: None,
        main_stream: None,
        codec: Some("h264"),
        size: Some((768, 576)),
        pipeline: "object-detect".into(),
        pipeline_version: None,
        deployment: "0a1b2c3d4e5f".into(),
        uptime_s: 12.0,
        restarts: 1,
        last_error: None,
        last_error_time: None,
        reader: Some(crate::source::ReaderStatus {
            kind: crate::source::ReaderKind::Compatible,
            reason: "strict failed".into(),
            since: "2026-01-01T00:00:00Z".into(),
        }),
        results: 3,
        events: 2,
        frames: Frames {
            received: 45,
            decoded: 44,
            processed: 40,
            inferred: 39,
            inference_failed: 2,
            inference_stale: 1,
            inference_wait_ns: 500_000_000,
            inference_run_ns: 2_000_000_000,
            budget_asked: 38,
            budget_granted: 12,
            skipped,
        },
        guest_memory: 1 << 20,
        limits,
        runs_per_second: 2.5,
        last_run_age_s: Some(0.5),
        alerts: vec!["source_down"],
        sandbox: None,
        control_group: false,
        drift: None,
    };
    let worker = ProcessUsage {
        identity: (77, 5),
        cpu: 1.25,
        resident: 40 << 20,
        data: 30 << 20,
        threads: 3,
    };
    SessionSample {
        observation: Observation {
            status,
            latencies,
            last_result: None,
            source_down: Some(std::time::Instant::now()),
            losses: 1,
            memory_limit: 2 << 30,
            guest_memory_limit: 256 << 20,
            viewing: Default::default(),
        },
        worker: WorkerUsage { now: Some(worker), cpu: 3.5 },
        proportional: Some(21 << 20),
        subscribers: 2,
        result_age: Some(0.25),
        alerts: vec![Alert::SourceDown],
    }
}

fn figures() -> AnalysisFigures {
    AnalysisFigures {
        load: crate::analyze::PoolLoad { waiting: 3, starting: 1, idle: 2, busy: 4 },
        worker_limit: 8,
        outcomes: vec![("ok", 40), ("damaged_image", 2)],
        jobs: vec![("queued", 1), ("done", 5)],
        lost_workers: 1,
    }
}

fn exposition(sessions: &[&str]) -> Exposition {
    let own =
        ProcessUsage { identity: (7, 5), cpu: 2.5, resident: 20 << 20, data: 15 << 20, threads: 4 };
    Exposition {
        analysis: figures(),
        journal: crate::journal::events::JournalMetrics {
            events: 50,
            lost: 3,
            failures: 2,
            pictures_lost: 6,
            bytes: 4096,
            attachment_bytes: 77,
            clips: crate::journal::events::ClipMetrics {
                whole: 4,
                cut: 3,
                refused: 2,
                failed: 1,
                bytes: 99,
            },
        },
        events_waiting: 8,
        token_ends: vec![("wall".to_owned(), 1_900_000_000.0)],
        deployments: crate::deploy::DeploymentFigures {
            outcomes: [(crate::deploy::Outcome::Aborted, 2)].into(),
            gap_ms: sessions.iter().map(|id| ((*id).to_owned(), 40.0)).collect(),
        },
        sessions: sessions.iter().map(|id| session(id)).collect(),
        programs: [
            ProcessSample { name: "host", now: Some(own), cpu: 2.5 },
            ProcessSample { name: "inference", now: None, cpu: 100.0 },
        ],
        descriptors: Some((40, 16_384)),
        inference: InferenceStatus {
            serves: false,
            processes: vec![ProcessStatus {
                pid: 99,
                duty: Duty::Spare,
                sessions: 0,
                memory: 1 << 20,
            }],
            spare_ready: Some(true),
            restarts: Restarts { crash: 1, hang: 0, timeout: 0, memory: 2 },
            poison: 3,
            ..InferenceStatus::default()
        },
        fallbacks: BTreeMap::from([("eye".to_owned(), true)]),
        session_limit: 20,
        hub: HubCounts { subscribers: 3, missed: 44, fell_behind: 5, closed: 1 },
        site: Some(SiteFigures {
            member: true,
            streams: true,
            cameras: 3,
            ..SiteFigures::default()
        }),
        sinks: BTreeMap::from([(
            "redis".into(),
            crate::sink::SinkMetrics {
                up: true,
                behind: 7,
                written: 90,
                errors: 2,
                gaps: 1,
                refused: 0,
            },
        )]),
        traces: Some(TraceMetrics { sent: 5, dropped: 2, errors: 1, fault: None }),
        lost_lines: 9,
        rooms: vec![DiskSpace { folder: "logs", free: 1 << 30, size: 4 << 30 }],
        reloads: ReloadFigures { applied: 3, refused: 2, is_refused: true },
        drifts: [("gate".to_owned(), DriftKind::Settings)].into(),
        host_alerts: Alert::OF_HOST.map(|alert| (alert, alert == Alert::HostOverload)),
    }
}

type Labels = BTreeMap<String, String>;

/// An exposition as a strict reader of OpenMetrics takes it: types by family, and samples by name
/// and labels.
struct Parsed {
    types: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Parsed {
    fn of(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        Self::read(text).get(name, labels)
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels: Labels =
            labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// Panics at whatever the format does not allow.
    fn read(text: &str) -> Self {
        let body = text.strip_suffix("# EOF\n").expect("the last line is # EOF");
        let (mut types, mut samples) = (BTreeMap::new(), BTreeMap::new());
        let mut family = (String::new(), String::new());
        let mut described = BTreeSet::new();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# ") {
                let mut words = rest.splitn(3, ' ');
                let (keyword, name, value) =
                    (words.next().unwrap(), words.next().unwrap(), words.next().expect("a value"));
                assert!(described.insert((keyword.to_owned(), name.to_owned())), "twice: {line}");
                match keyword {
                    "HELP" => {
                        assert!(!value.is_empty(), "{line}");
                        family = (name.to_owned(), String::new());
                        check_name(name);
                    }
                    "TYPE" => {
                        assert_eq!(family.0, name, "the help comes first: {line}");
                        assert!(
                            ["counter", "gauge", "histogram", "info"].contains(&value),
                            "{line}"
                        );
                        family.1 = value.to_owned();
                        types.insert(name.to_owned(), value.to_owned());
                    }
                    "UNIT" => {
                        assert!(family.0 == name && name.ends_with(&format!("_{value}")), "{line}")
                    }
                    _ => panic!("an unknown keyword: {line}"),
                }
                continue;
            }
            let (name, labels, value) = sample(line);
            let suffix = name
                .strip_prefix(&family.0)
                .unwrap_or_else(|| panic!("outside its family: {line}"));
            let suffixes: &[&str] = match family.1.as_str() {
                "counter" => &["_total"],
                "gauge" => &[""],
                "info" => &["_info"],
                "histogram" => &["_bucket", "_count", "_sum"],
                _ => panic!("a sample before its type: {line}"),
            };
            assert!(suffixes.contains(&suffix), "{line}");
            assert_eq!(suffix == "_bucket", labels.contains_key("le"), "{line}");
            if family.1 != "gauge" {
                assert!(value >= 0.0, "{line}");
            }
            assert_eq!(samples.insert((name, labels), value), None, "twice: {line}");
        }
        Self { types, samples }
    }
}

fn check_name(name: &str) {
    assert!(name.starts_with("ocelli_"), "{name}");
    assert!(
        name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'),
        "{name}"
    );
}

/// Name, labels, value.
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    check_name(name);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (key, quoted) =
                rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(
                !key.is_empty()
                    && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                "{line}"
            );
            let mut value = String::new();
            let mut characters = quoted.char_indices();
            let end = loop {
                match characters.next().unwrap_or_else(|| panic!("a label without end: {line}")) {
                    (at, '"') => break at,
                    (_, '\\') => value.push(match characters.next() {
                        Some((_, 'n')) => '\n',
                        Some((_, '\\')) => '\\',
                        Some((_, '"')) => '"',
                        other => panic!("an unknown escape {other:?}: {line}"),
                    }),
                    (_, character) => value.push(character),
                }
            };
            assert_eq!(labels.insert(key.to_owned(), value), None, "twice: {line}");
            rest = &quoted[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("labels without end: {line}"));
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    (name.to_owned(), labels, value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

#[test]
fn the_exposition_is_open_metrics_and_says_what_is_so() {
    let text = exposition(&["cam"]).into_text();
    let parsed = Parsed::read(&text);
    let cam = ("session", "cam");
    for (name, labels, value) in [
        ("ocelli_build_info", vec![("version", env!("CARGO_PKG_VERSION"))], 1.0),
        ("ocelli_process_cpu_seconds_total", vec![("process", "host")], 2.5),
        ("ocelli_process_cpu_seconds_total", vec![("process", "inference")], 100.0),
        ("ocelli_process_resident_memory_bytes", vec![("process", "host")], f64::from(20 << 20)),
        ("ocelli_process_open_fds", vec![("process", "host")], 40.0),
        ("ocelli_inference_up", vec![], 0.0),
        ("ocelli_inference_restarts_total", vec![("reason", "crash")], 1.0),
        ("ocelli_inference_restarts_total", vec![("reason", "memory")], 2.0),
        ("ocelli_inference_processes", vec![("duty", "spare")], 1.0),
        ("ocelli_inference_processes", vec![("duty", "serving")], 0.0),
        (
            "ocelli_inference_private_memory_bytes",
            vec![("pid", "99"), ("duty", "spare")],
            1048576.0,
        ),
        ("ocelli_inference_spare_ready", vec![], 1.0),
        ("ocelli_inference_poison_requests_total", vec![], 3.0),
        ("ocelli_inference_model_fallback", vec![("model", "eye")], 1.0),
        ("ocelli_sessions", vec![("state", "degraded")], 1.0),
        ("ocelli_sessions", vec![("state", "running")], 0.0),
        ("ocelli_subscribers", vec![], 3.0),
        ("ocelli_detections_missed_total", vec![], 44.0),
        ("ocelli_subscribers_closed_total", vec![], 1.0),
        ("ocelli_log_lines_lost_total", vec![], 9.0),
        ("ocelli_disk_free_bytes", vec![("folder", "logs")], f64::from(1 << 30)),
        ("ocelli_alert_active", vec![("alert", "disk")], 0.0),
        ("ocelli_alert_active", vec![cam, ("alert", "source_down")], 1.0),
        ("ocelli_alert_active", vec![cam, ("alert", "memory")], 0.0),
        ("ocelli_session_state", vec![cam, ("state", "degraded")], 1.0),
        ("ocelli_session_state", vec![cam, ("state", "failed")], 0.0),
        ("ocelli_session_source_up", vec![cam], 0.0),
        ("ocelli_session_compatible_reader", vec![cam], 1.0),
        ("ocelli_session_frames_received_total", vec![cam], 45.0),
        ("ocelli_session_frames_decoded_total", vec![cam], 44.0),
        ("ocelli_session_frames_processed_total", vec![cam], 40.0),
        ("ocelli_session_inferences_total", vec![cam], 39.0),
        ("ocelli_session_inferences_failed_total", vec![cam], 2.0),
        ("ocelli_session_inferences_stale_total", vec![cam], 1.0),
        ("ocelli_session_inference_wait_seconds_total", vec![cam], 0.5),
        ("ocelli_session_inference_run_seconds_total", vec![cam], 2.0),
        ("ocelli_session_frames_skipped_total", vec![cam, ("reason", "newer")], 5.0),
        ("ocelli_session_frames_skipped_total", vec![cam, ("reason", "queue")], 2.0),
        ("ocelli_session_frames_skipped_total", vec![cam, ("reason", "unreadable")], 3.0),
        ("ocelli_session_results_total", vec![cam], 3.0),
        ("ocelli_session_events_total", vec![cam], 2.0),
        ("ocelli_session_restarts_total", vec![cam], 1.0),
        ("ocelli_session_limit_hits_total", vec![cam, ("limit", "log_lines")], 3.0),
        ("ocelli_session_limit_hits_total", vec![cam, ("limit", "memory")], 0.0),
        ("ocelli_session_latency_seconds_count", vec![cam, ("stage", "total")], 3.0),
        (
            "ocelli_session_latency_seconds_bucket",
            vec![cam, ("stage", "total"), ("le", "0.005")],
            1.0,
        ),
        (
            "ocelli_session_latency_seconds_bucket",
            vec![cam, ("stage", "total"), ("le", "0.05")],
            2.0,
        ),
        (
            "ocelli_session_latency_seconds_bucket",
            vec![cam, ("stage", "total"), ("le", "+Inf")],
            3.0,
        ),
        ("ocelli_session_latency_seconds_sum", vec![cam, ("stage", "total")], 0.444),
        ("ocelli_session_subscribers", vec![cam], 2.0),
        ("ocelli_session_viewers", vec![cam], 0.0),
        ("ocelli_session_viewer_pictures_dropped_total", vec![cam], 0.0),
        ("ocelli_session_clip_buffer_bytes", vec![cam], 0.0),
        ("ocelli_deployments_total", vec![("outcome", "aborted")], 2.0),
        ("ocelli_config_reloads_total", vec![("outcome", "refused")], 2.0),
        ("ocelli_config_refused", vec![], 1.0),
        ("ocelli_config_drift", vec![("kind", "settings")], 1.0),
        ("ocelli_config_drift", vec![("kind", "ended")], 0.0),
        ("ocelli_session_drift", vec![("session", "gate"), ("kind", "settings")], 1.0),
        ("ocelli_alert_active", vec![("alert", "host_overload")], 1.0),
        ("ocelli_journal_events_total", vec![], 50.0),
        ("ocelli_journal_events_lost_total", vec![], 3.0),
        ("ocelli_journal_commit_failures_total", vec![], 2.0),
        ("ocelli_journal_bytes", vec![], 4096.0),
        ("ocelli_attachments_bytes", vec![], 77.0),
        ("ocelli_clips_total", vec![("outcome", "whole")], 4.0),
        ("ocelli_clips_total", vec![("outcome", "cut")], 3.0),
        ("ocelli_clips_total", vec![("outcome", "refused")], 2.0),
        ("ocelli_clips_total", vec![("outcome", "failed")], 1.0),
        ("ocelli_clips_bytes", vec![], 99.0),
        ("ocelli_deployments_total", vec![("outcome", "healthy")], 0.0),
        ("ocelli_session_swap_gap_seconds", vec![cam], 0.04),
        ("ocelli_session_last_result_age_seconds", vec![cam], 0.25),
        ("ocelli_session_last_run_age_seconds", vec![cam], 0.5),
        ("ocelli_session_guest_memory_bytes", vec![cam], f64::from(1 << 20)),
        ("ocelli_worker_cpu_seconds_total", vec![cam], 3.5),
        ("ocelli_worker_resident_memory_bytes", vec![cam], f64::from(40 << 20)),
        ("ocelli_worker_proportional_memory_bytes", vec![cam], f64::from(21 << 20)),
    ] {
        assert_eq!(parsed.get(name, &labels), Some(value), "{name} {labels:?}\n{text}");
    }
    let process = [("process", "inference")];
    let missing = parsed.get("ocelli_process_resident_memory_bytes", &process);
    assert_eq!(missing, None, "a process that is not there uses no memory, not 0");
}

#[test]
fn names_follow_the_conventions() {
    let parsed = Parsed::read(&exposition(&["cam"]).into_text());
    for (family, kind) in &parsed.types {
        assert!(!family.ends_with("_total") && !family.ends_with("_count"), "{family}");
        assert!(
            !["_ms", "_mb", "_kb", "_percent"].iter().any(|unit| family.ends_with(unit)),
            "base units: {family}"
        );
        if kind == "histogram" {
            assert!(family.ends_with("_seconds"), "{family}");
        }
    }
    // A histogram's buckets are cumulative and end with the count.
    let mut last: BTreeMap<Labels, f64> = BTreeMap::new();
    let buckets = parsed.samples.iter().filter(|((name, _), _)| name.ends_with("_bucket"));
    let mut buckets: Vec<(Labels, f64, f64)> = buckets
        .map(|((_, labels), count)| {
            let mut labels = labels.clone();
            let bound = labels.remove("le").unwrap();
            (labels, bound.parse().unwrap_or(f64::INFINITY), *count)
        })
        .collect();
    buckets.sort_by(|one, other| (&one.0, one.1).partial_cmp(&(&other.0, other.1)).unwrap());
    for (labels, _, count) in buckets {
        let before = last.insert(labels.clone(), count).unwrap_or_default();
        assert!(before <= count, "{labels:?}");
    }
    assert_eq!(last.len(), 5);
    for (labels, count) in last {
        let name = "ocelli_session_latency_seconds_count".to_owned();
        assert_eq!(parsed.samples.get(&(name, labels)), Some(&count));
    }
}

#[test]
fn any_name_of_a_session_comes_through_as_it_is() {
    let text = exposition(&ODD_NAMES).into_text();
    let parsed = Parsed::read(&text);
    for name in ODD_NAMES {
        let labels = [("session", name)];
        assert_eq!(
            parsed.get("ocelli_session_results_total", &labels),
            Some(3.0),
            "{name:?}\n{text}"
        );
    }
    let sessions =
        parsed.samples.keys().filter(|(name, _)| name == "ocelli_session_results_total").count();
    assert_eq!(sessions, ODD_NAMES.len());
}

#[test]
fn a_sessions_series_end_with_it() {
    let of = |text: &str, session: &str| {
        let parsed = Parsed::read(text);
        let of = |labels: &Labels| labels.get("session").is_some_and(|name| name == session);
        parsed.samples.keys().filter(|(_, labels)| of(labels)).count()
    };
    let both = exposition(&["one", "two"]).into_text();
    let series = of(&both, "one");
    assert_eq!(series, of(&both, "two"));
    assert!(series < 150, "{series} series for a session");
    let one = exposition(&["two"]).into_text();
    assert_eq!((of(&one, "one"), of(&one, "two")), (0, series));
    assert_eq!(Parsed::of(&one, "ocelli_sessions", &[("state", "degraded")]), Some(1.0));
    let none = exposition(&[]).into_text();
    assert_eq!(Parsed::of(&none, "ocelli_subscribers", &[]), Some(3.0));
}

#[test]
fn every_metric_is_in_the_operator_reference() {
    let page = include_str!("../../../../docs/operator-reference.md");
    let text = exposition(&["cam"]).into_text();
    let names = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<&str> = names.filter(|name| !page.contains(&format!("`{name}"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn rules_and_dashboard_name_what_is_exported_with_labels_that_it_has() {
    let text = exposition(&["cam"]).into_text();
    let Parsed { types, samples } = Parsed::read(&text);
    // Words name a family as such, too.
    let mut exported: BTreeMap<String, BTreeSet<String>> =
        types.into_keys().map(|family| (family, BTreeSet::new())).collect();
    for (name, labels) in samples.into_keys() {
        exported.entry(name).or_default().extend(labels.into_keys());
    }
    // What Prometheus adds by itself.
    for labels in exported.values_mut() {
        labels.extend(["instance", "job"].map(str::to_owned));
    }
    let rules = include_str!("../../../../config/monitoring/ocelli.rules.yml");
    let tried = include_str!("../../../../config/monitoring/ocelli.rules.test.yml");
    let dashboard = include_str!("../../../../config/monitoring/grafana.json");
    for (file, text) in [("rules", rules), ("their tests", tried), ("dashboard", dashboard)] {
        let named = selectors(text);
        assert!(named.len() >= 30, "{file}: {named:?}");
        for (name, labels) in named {
            let has = exported.get(name);
            let has = has.unwrap_or_else(|| panic!("{file}: there is no {name}"));
            for label in labels {
                assert!(has.contains(label), "{file}: {name} has no label {label}");
            }
        }
    }
}

/// The metrics that a text names, each with the labels in the braces behind it.
fn selectors(text: &str) -> Vec<(&str, Vec<&str>)> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let starts = text.match_indices("ocelli_").map(|(at, _)| at);
    let starts = starts.filter(|at| *at == 0 || !word(text.as_bytes()[at - 1]));
    let named = starts.map(|at| {
        let rest = &text[at..];
        let (name, rest) = rest.split_at(rest.bytes().position(|byte| !word(byte)).unwrap());
        let braces = rest.strip_prefix('{').and_then(|rest| rest.split_once('}'));
        let labels = braces.map_or("", |(labels, _)| labels).split(',');
        let labels = labels.filter_map(|label| label.split(['=', '!']).next());
        (name, labels.filter(|label| !label.is_empty()).collect())
    });
    named.collect()
}
