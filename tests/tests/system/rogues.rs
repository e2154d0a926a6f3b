//! Workers that break the protocol. Whatever one sends, its host lives, loses nothing but the
//! session, says why, and does not grow.
//!
//! The host has `rogue-worker` in the place of its worker (see there for the rules that it breaks),
//! but for one session, which has the real one and must not notice any of this.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use ocelli_testkit::depth::rounds;
use ocelli_testkit::{Client, Ocelli, ProcessResources, Programs, clip};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::isolation::{notices_nothing, people};
use crate::{SLOW, camera};

/// Sessions that break a rule at the same time. A session has five workers before it fails, so that
/// 17 rules are broken in 85 ways, or 255 in a full run.
fn sessions() -> usize {
    rounds(3)
}

/// What a host may have taken at most beyond what it has at rest, in MiB.
const MOST_MEMORY: u64 = 64;

/// How long the host may leave a question unanswered meanwhile, on a machine whose cores rogues
/// keep busy.
const LONGEST_ANSWER: Duration = Duration::from_secs(20);

/// Rules that are broken at once, and what one of the words of the reason has to be.
type Rules = &'static [(&'static str, &'static [&'static str])];

/// What the host says of messages that are none, or that come at the wrong time.
const PROTOCOL: &[&str] =
    &["broke the protocol", "Setup: or so", "closed", "Broken pipe", "reset by peer"];
const CLOSED: &[&str] = &["closed", "Broken pipe", "reset by peer"];
/// What a host says of so much that it may not even be ready with it when the worker's health is
/// looked at.
const TOO_MUCH: &[&str] = &[
    "broke the protocol",
    "closed",
    "reset by peer",
    "Broken pipe",
    "limit ",
    "nothing in",
    "no result",
    "no sign of life",
];
const FLOOD: &[&str] =
    &["broke the protocol", "messages within", "log lines", "nothing in", "no result"];
const ORDER: &[&str] = &["out of turn"];
const STORED: &[&str] = &["out of turn", "bytes of memory", "no sign of life"];
const SILENT: &[&str] = &["no sign of life"];
const IDLE: &[&str] = &["nothing in", "no result", "no sign of life"];

const ROUNDS: [Rules; 6] = [
    &[("noise", PROTOCOL), ("order", PROTOCOL), ("finished", ORDER), ("answers", ORDER)],
    &[("absurd", TOO_MUCH), ("heavy", TOO_MUCH), ("stored", STORED), ("again", ORDER)],
    &[("closing", PROTOCOL), ("leaving", CLOSED)],
    &[("flood", FLOOD), ("stderr", &["exit status: 3", "no sign of life"])],
    // With a control group, the kernel ends the first of them and gives the other no more threads.
    &[
        ("hoard", &["limit memory: it uses", "memory limit (control group)"]),
        ("crowd", &["threads, 8 are allowed", "closed", "Broken pipe", "reset by peer"]),
    ],
    // These take as long as a health check does.
    &[
        ("lengths", &["exceeds the bound", "an empty message", "no sign of life"]),
        ("deaf", IDLE),
        ("mute", SILENT),
        ("stiff", SILENT),
        ("pulse", IDLE),
    ],
];

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_breaks_the_protocol_ends_its_session_alone() {
    let cameras = people();
    let programs = Programs::with_worker(Path::new(env!("CARGO_BIN_EXE_rogue-worker")));
    let honest = format!("file:{}", clip("people-576-high.mp4").display());
    let honest =
        camera("honest-0", &honest, &format!("repeat = true\npace = \"realtime\"\n{SLOW}"));
    let config = "[resource_limits]\nmemory_per_process_mb = 256\nguest_memory_mb = 128\n\
        [session_processes]\nhealth_check_interval = 5\nmax_concurrent_sessions = 50\n\
        [subscriptions]\ngrace_s = 0\nsources = [\"rtsp://127.0.0.1:*\"]\n";
    let host = Ocelli::start_from(&programs, &(config.to_owned() + &honest)).await;
    let mut client = host.client().await;
    client.subscribe("honest-0").await;
    client.detections("honest-0").await;
    let worker = host.worker("honest-0").await.pid;
    let rest = ProcessResources::of(host.process().pid).resident_kib >> 10;
    let mut wrong = Vec::new();
    for rules in ROUNDS {
        let begun = Instant::now();
        let mut rogues = host.client().await;
        let url = cameras.url("/cam");
        let (mut reasons, mut slowest) = (Vec::new(), Duration::ZERO);
        tokio::select! {
            broken = break_rules(&host, &mut rogues, &url, rules) => reasons = broken,
            () = keep_asking(&host, &mut slowest) => {}
        }
        let held = ProcessResources::of(host.process().pid);
        let names: Vec<_> = rules.iter().map(|(rule, _)| *rule).collect();
        println!(
            "{}: {:.1} s, slowest answer {slowest:.0?}; host {} MiB, at most {} MiB, {} \
                descriptors, {} threads",
            names.join(", "),
            begun.elapsed().as_secs_f64(),
            held.resident_kib >> 10,
            held.peak_kib >> 10,
            held.descriptors.len(),
            held.threads
        );
        for (session, reason) in reasons {
            println!("  {session}: {reason:.150}");
            let (_, words) = rules.iter().find(|(rule, _)| session.starts_with(rule)).unwrap();
            if !words.iter().any(|word| reason.contains(word)) {
                wrong.push(format!("{session}: {reason:.1000}"));
            }
        }
        assert!(slowest < LONGEST_ANSWER, "an answer took {slowest:?}");
        assert!(held.peak_kib >> 10 <= rest + MOST_MEMORY, "{rest} MiB at rest; {held:?}");
        notices_nothing(&host, &mut client, "honest-0", worker).await;
    }
    assert!(wrong.is_empty(), "not for what they did: {wrong:#?}");
}

/// Asks the host about its sessions all the time, and keeps the time of the slowest answer.
async fn keep_asking(host: &Ocelli, slowest: &mut Duration) {
    loop {
        let asked = Instant::now();
        host.get("/v1/sessions").await;
        *slowest = asked.elapsed().max(*slowest);
        sleep(Duration::from_millis(100)).await;
    }
}

/// Has sessions break these rules until all have failed; the reason of each.
async fn break_rules(
    host: &Ocelli,
    client: &mut Client,
    source: &str,
    rules: Rules,
) -> Vec<(String, String)> {
    let sessions: BTreeSet<String> = rules
        .iter()
        .flat_map(|(rule, _)| (0..sessions()).map(move |number| format!("{rule}-{number}")))
        .collect();
    for session in &sessions {
        client.subscribe_to(session, source).await;
    }
    let mut waited_for = sessions.clone();
    let ended = |message: &Value| {
        let state = message["state"].as_str().unwrap_or_default();
        if message["type"] == "session" && ["failed", "stopped"].contains(&state) {
            waited_for.remove(message["session"].as_str().unwrap());
        }
        waited_for.is_empty().then_some(())
    };
    client.find(ended).await;
    let mut reasons = Vec::new();
    for session in sessions {
        let status = host.session(&session).await;
        assert_eq!(status["state"], "failed", "{status}");
        assert!(status["pid"].is_null(), "{status}");
        reasons.push((session, status["reason"].as_str().unwrap().to_owned()));
    }
    reasons
}
