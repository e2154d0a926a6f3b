//! Bad versions: what ran goes on or comes back with its state, whoever asked reads step and
//! reason, and a neighbour notices nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use ocelli_testkit::{
    FileSession, Ocelli, PipelineFolder, Recording, assert_identical, changeling,
};
use serde_json::{Value, json};

use super::{
    COMMON, assert_every_frame, assert_seamless, deployed, faulty, more_results, number, playing,
    processed, results, version, watch,
};

/// A version that does not take over.
struct Bad {
    what: &'static str,
    component: Vec<u8>,
    query: &'static str,
    status: u16,
    step: &'static str,
    /// The kind of a problem that the check finds.
    problem: Option<&'static str>,
    /// Stands in the answer.
    said: &'static str,
}

impl Bad {
    fn found(
        what: &'static str,
        component: Vec<u8>,
        problem: &'static str,
        said: &'static str,
    ) -> Self {
        Self {
            what,
            component,
            query: "",
            status: 422,
            step: "check",
            problem: Some(problem),
            said,
        }
    }

    fn aborted(
        what: &'static str,
        component: Vec<u8>,
        step: &'static str,
        said: &'static str,
    ) -> Self {
        Self { what, component, query: "", status: 409, step, problem: None, said }
    }

    /// Deploys it, and holds answer, history, log and event to what they are to say.
    async fn is_refused(&self, host: &Ocelli, recording: &Recording) {
        let Self { what, component, query, status, step, problem, said } = self;
        let before = host.session("cam").await;
        let seen = recording.len();
        let (got, answer) = host.deploy("cam", query, component).await;
        println!("{what}: {got}, at {}: {}", answer["step"], answer["detail"]);
        assert_eq!((got, &answer["step"]), (*status, &json!(step)), "{what}: {answer}");
        if let Some(kind) = problem {
            let problems =
                answer["problems"].as_array().unwrap_or_else(|| panic!("{what}: {answer}"));
            assert!(problems.iter().any(|problem| problem["kind"] == *kind), "{what}: {answer}");
        }
        assert!(answer.to_string().contains(said), "{what}: {said:?} is not in {answer}");

        let record = &host.deployments("cam").await[0];
        assert_eq!(record["number"], answer["deployment"]["number"], "{what}: {record}");
        assert_eq!(record["step"], *step, "{what}: {record}");
        let reason =
            record["reason"].as_str().unwrap_or_else(|| panic!("{what}: no reason: {record}"));
        let number = number(&record["number"]);
        let tells = |message: &Value| {
            let data = &message["data"];
            (message["kind"] == "deployment"
                && data["number"] == number
                && data["reason"].is_string())
            .then(|| data.clone())
        };
        let event = recording.find(seen, tells).await;
        assert_eq!(event["step"], *step, "{what}: {event}");
        let first = reason.lines().next().unwrap_or_default();
        assert!(first.starts_with(event["reason"].as_str().unwrap()), "{what}: {event}");
        let state = record["state"].as_str().unwrap();
        let told = format!("deployment {number} (request, by operator) is {state}:");
        let log = host.wait_for_session_log("cam", &told).await;
        let line = log.lines().find(|line| line.contains(&told)).unwrap_or_default();
        assert!(line.contains(&format!(", {step}: ")), "{what}: {line}");

        // The same process goes on with the same version.
        let after = host.session("cam").await;
        for key in ["pid", "deployment", "restarts", "pipeline_version"] {
            assert_eq!(after[key], before[key], "{what}: {key}");
        }
    }
}

/// A session that runs the model, once for each round, while others are deployed to.
fn neighbour() -> FileSession<'static> {
    FileSession {
        settings: json!({"max_results_per_second": 3}),
        ..FileSession::detecting("neighbour", "people-576-high-b3.mp4")
    }
}

/// Deploys them all to changeling 1.0.0 while a neighbour plays a file again and again; compares
/// the neighbour with a run without, and `cam` with one that nobody has touched. Gives the host.
async fn none_takes_over(more: &str, bad: &[Bad]) -> (PipelineFolder, Ocelli, Recording) {
    let store = PipelineFolder::with(&["changeling"]);
    store.put("changeling", &version("1.0.0"));
    let config = format!(
        "{}{}{COMMON}{more}\n{}",
        store.section(),
        FileSession::ALLOWED,
        playing("cam", "changeling", "")
    );
    let expected = {
        let alone = Ocelli::start(&config).await;
        neighbour().play(&alone).await
    };
    let host = Ocelli::start(&config).await;
    let recording = watch(&host, "cam").await;
    let over = AtomicBool::new(false);
    let beside = async {
        let mut played = 0;
        while !over.load(Ordering::Relaxed) || played == 0 {
            let results = neighbour().play(&host).await;
            assert_identical("neighbour", &expected, &results);
            host.wait_for_session("neighbour", Value::is_null).await;
            played += 1;
        }
        played
    };
    let deploying = async {
        for bad in bad {
            bad.is_refused(&host, &recording).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let (played, ()) = tokio::join!(beside, deploying);
    println!("the neighbour has played its file {played} times");
    more_results(&recording, 5).await;
    assert_seamless(&recording.messages(), true);
    (store, host, recording)
}

/// Gives every name of the contract another version.
fn of_a_newer_world() -> Vec<u8> {
    let mut component = version("2.0.0");
    let contract = b"ocelli:pipeline/";
    let mut renamed = 0;
    let mut at = 0;
    while let Some(next) =
        component[at..].windows(contract.len()).position(|bytes| bytes == contract)
    {
        at += next + contract.len();
        let name = component[at..]
            .iter()
            .take_while(|byte| byte.is_ascii_lowercase() || **byte == b'-')
            .count();
        if component.get(at + name..at + name + 3) == Some(b"@0.") {
            component[at + name + 3] = b'9';
            renamed += 1;
        }
    }
    assert!(renamed > 1, "the component names no version of the contract");
    component
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_pipeline_of_this_host_is_refused_before_the_session_hears_of_it() {
    let text = |text: &str| wat::parse_str(text).unwrap();
    let other = r#"(component (import "acme:doors/bell@1.0.0" (instance (export "ring" (func)))))"#;
    let bad = [
        Bad::found(
            "no WebAssembly",
            b"#!/bin/sh\nexit 0\n".to_vec(),
            "not_wasm",
            "not WebAssembly",
        ),
        Bad::found("cut off", version("2.0.0")[..5000].to_vec(), "malformed", "at byte"),
        Bad::found("a core module", text("(module)"), "core_module", "wasm-tools component new"),
        Bad::found("another world", text(other), "other_world", "it is no pipeline"),
        Bad::found("a newer world", of_a_newer_world(), "unsupported_version", "0.9.0"),
    ];
    let (_store, host, _recording) = none_takes_over("", &bad).await;
    // The host tells what it would have taken.
    let (_, answer) = host.deploy("cam", "", &of_a_newer_world()).await;
    assert!(answer["detail"].as_str().is_some_and(|detail| detail.contains("0.1")), "{answer}");
    let (status, answer) = host.deploy("nobody", "", &version("2.0.0")).await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown_session")), "{answer}");
    let (status, answer) = host.deploy("cam", "?pipeline=nowhere", b"").await;
    assert_eq!((status, &answer["code"]), (404, &json!("unknown_pipeline")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_start_costs_the_running_version_nothing() {
    let settings = "?settings=%7B%22every%22%3A0%7D";
    let missing = changeling(&json!({"version": "2.0.0", "model": "no-such-model"}));
    let bad = [
        Bad::aborted("a missing model", missing, "start", "no-such-model"),
        Bad::aborted(
            "a trap in describe",
            faulty("2.0.1", "describe", "trap", json!({})),
            "start",
            "unreachable",
        ),
        Bad::aborted(
            "a trap in init",
            faulty("2.0.2", "init", "trap", json!({})),
            "start",
            "unreachable",
        ),
        Bad::aborted(
            "hangs in init",
            faulty("2.0.3", "init", "hang", json!({})),
            "start",
            "cpu_time",
        ),
        Bad::aborted(
            "init refuses",
            faulty("2.0.4", "init", "refuse", json!({})),
            "start",
            "refuses at Init",
        ),
        Bad { query: settings, ..Bad::aborted("settings", version("2.0.5"), "start", "every") },
    ];
    none_takes_over("[resource_limits]\ncall_cpu_ms = 500\n", &bad).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_unheard_or_with_the_state_costs_the_running_version_nothing() {
    let slow = json!({"ms": 20_000});
    let bad = [
        Bad::aborted(
            "slow on the first frame",
            faulty("2.1.0", "frame", "slow", slow.clone()),
            "dry_run",
            "1000 ms",
        ),
        Bad::aborted(
            "a trap on the first frame",
            faulty("2.1.1", "frame", "trap", json!({})),
            "dry_run",
            "unreachable",
        ),
        Bad::aborted(
            "refuses the state",
            faulty("2.1.2", "restore", "refuse", json!({})),
            "restore",
            "refuses at Restore",
        ),
        Bad::aborted(
            "a trap in restore",
            faulty("2.1.3", "restore", "trap", json!({})),
            "restore",
            "unreachable",
        ),
        Bad::aborted(
            "hangs in restore",
            faulty("2.1.4", "restore", "hang", json!({})),
            "restore",
            "cpu_time",
        ),
        Bad::aborted(
            "slow in restore",
            faulty("2.1.5", "restore", "slow", slow.clone()),
            "restore",
            "3000 ms",
        ),
        Bad::aborted(
            "a trap on the first heard frame",
            faulty("2.1.6", "restored-frame", "trap", json!({})),
            "first_result",
            "unreachable",
        ),
        Bad::aborted(
            "slow on the first heard frame",
            faulty("2.1.7", "restored-frame", "slow", slow),
            "first_result",
            "3000 ms",
        ),
    ];
    let more = "first_frame_ms = 1000\nswap_timeout_ms = 3000\n[resource_limits]\ncall_cpu_ms = \
        500\ncall_timeout_ms = 60000\n";
    let (_store, host, recording) = none_takes_over(more, &bad).await;

    // Asked to, a version that refuses the state starts without.
    let refuses = faulty("2.2.0", "restore", "refuse", json!({}));
    let seen = recording.len();
    let record = deployed(&host, "cam", "?state=fresh", &refuses).await;
    assert_eq!(record["swapped"]["fresh"], true, "{record}");
    let new = |message: &Value| {
        (message["type"] == "detections" && message["deployment"] == record["deployment"])
            .then(|| message.clone())
    };
    let first = recording.find(seen, new).await;
    assert_eq!(processed(&first), 1, "{first}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_dies_in_its_probation_is_followed_by_the_version_before_with_its_state() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = super::host_with_changeling(&store, "probation_s = 60").await;
    let good = host.session("cam").await["deployment"].clone();
    for (number_of, fault) in [
        ("3.0.0", faulty("3.0.0", "frame", "trap", json!({"after_s": 10}))),
        ("3.0.1", faulty("3.0.1", "frame", "hang", json!({"after_s": 2}))),
    ] {
        let seen = recording.len();
        let record = deployed(&host, "cam", "", &fault).await;
        assert_eq!(record["state"], "probation", "{record}");
        let ended =
            host.wait_for_deployment("cam", |newest| newest["state"] == "rolled_back").await;
        assert_eq!(
            (&ended["number"], &ended["step"]),
            (&record["number"], &json!("probation")),
            "{ended}"
        );
        assert!(ended["reason"].as_str().is_some_and(|reason| !reason.is_empty()), "{ended}");
        println!("{number_of}: {}", ended["reason"]);
        let back = host
            .wait_for_session("cam", |session| {
                session["deployment"] == good && session["state"] == "running"
            })
            .await;
        assert_eq!(back["pipeline_version"], "changeling 1.0.0", "{back}");
        let told = |message: &Value| {
            (message["kind"] == "deployment" && message["data"]["state"] == "rolled_back")
                .then_some(())
        };
        recording.find(seen, told).await;
        more_results(&recording, 10).await;
        // The version before goes on from the state that it gave: it knows nothing of the frames
        // that the other one had.
        let messages = recording.messages();
        let all = results(&messages);
        let place = |deployment: &Value| {
            all.iter().rposition(|result| result.message["deployment"] == *deployment)
        };
        let (last_of_bad, first_of_good) = {
            let last =
                place(&record["deployment"]).expect("the version that dies has given results");
            (&all[last].message, &all[last + 1].message)
        };
        let handed_over = all
            .iter()
            .rev()
            .skip_while(|result| result.message["deployment"] == good)
            .find(|result| result.message["deployment"] == good)
            .expect("results of before");
        assert_eq!(
            processed(first_of_good),
            processed(&handed_over.message) + 1,
            "{first_of_good}"
        );
        println!(
            "  {} frames were its own",
            processed(last_of_bad) - processed(&handed_over.message)
        );
        host.wait_for_session_log("cam", "rolled_back").await;
    }
    let messages = recording.messages();
    assert_every_frame(&messages);
    assert!(results(&messages).len() > 250, "{}", results(&messages).len());
}
