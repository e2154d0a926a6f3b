//! SIGKILL to each process of a deployment at each of its steps: afterwards the session runs a
//! version that was once healthy, and the history says what happened.

use std::time::{Duration, Instant};

use ocelli_testkit::{DEADLINE, Ocelli, PipelineFolder, Process, Recording, children, tagged};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::{
    COMMON, assert_every_frame, assert_seamless, faulty, more_results, playing, results, version,
    watch,
};

/// Between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Time that a step has to be long enough to be met, in milliseconds.
const LONG: u64 = 4000;

/// Steps that can be met, and what makes them long.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Compile,
    Start,
    DryRun,
    Shadow,
    Handoff,
    Restore,
    FirstResult,
    Probation,
}

const ALL: [At; 8] = [
    At::Compile,
    At::Start,
    At::DryRun,
    At::Shadow,
    At::Handoff,
    At::Restore,
    At::FirstResult,
    At::Probation,
];

impl At {
    fn name(self) -> &'static str {
        match self {
            Self::Compile => "compile",
            Self::Start => "start",
            Self::DryRun => "dry_run",
            Self::Shadow => "shadow",
            Self::Handoff => "handoff",
            Self::Restore => "restore",
            Self::FirstResult => "first_result",
            Self::Probation => "probation",
        }
    }

    /// A version whose deployment stays at this step for a while.
    fn version(self, number: usize) -> Vec<u8> {
        let version_of = format!("2.{}.{number}", self as usize);
        let slow = |at: &str| faulty(&version_of, at, "slow", json!({"ms": LONG}));
        match self {
            Self::Start => slow("init"),
            Self::DryRun => slow("frame"),
            Self::Restore => slow("restore"),
            Self::FirstResult => slow("restored-frame"),
            // Another one each time: what any host has compiled before is not compiled again.
            Self::Compile => tagged(&version(&version_of), &format!("{:x}", fastrand::u64(..))),
            Self::Shadow | Self::Handoff | Self::Probation => version(&version_of),
        }
    }

    fn query(self) -> &'static str {
        if self == Self::Shadow { "?shadow=15000" } else { "" }
    }

    /// Returns when the deployment is there.
    async fn reached(self, host: &Ocelli, deployments_before: usize) {
        if self == Self::Compile {
            compiler(host).await;
            return;
        }
        let begun = Instant::now();
        loop {
            let records = host.deployments("cam").await;
            if records.len() > deployments_before && records[0]["step"] == self.name() {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{self:?} is not reached: {}", records[0]);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// A child of the host by its program's name, once there is one that `good` takes.
async fn child(host: &Ocelli, name: &str, good: impl Fn(&Process) -> bool) -> Process {
    let begun = Instant::now();
    loop {
        if let Some(found) =
            children(host.process().pid).into_iter().find(|child| child.name == name && good(child))
        {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "there is no {name}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// The compiler, stopped so that it does not end by itself.
async fn compiler(host: &Ocelli) -> Process {
    let compiler = child(host, "ocelli-compile", |_| true).await;
    compiler.signal(Signal::STOP);
    compiler
}

/// A host whose steps may take their time, on which version 1.0.0 is healthy. It gives its state
/// slowly.
async fn start(store: &PipelineFolder) -> (Ocelli, Recording) {
    store.put("changeling", &faulty("1.0.0", "snapshot", "slow", json!({"ms": LONG})));
    let config = format!(
        "{}{COMMON}probation_s = 2\nfirst_frame_ms = 60000\nswap_timeout_ms = 60000\n\
         [resource_limits]\ncall_timeout_ms = 60000\n{}",
        store.section(),
        playing("cam", "changeling", "")
    );
    let host = Ocelli::start(&config).await;
    let recording = watch(&host, "cam").await;
    (host, recording)
}

/// The versions that have served for their probation, and the one that the config names.
async fn healthy(host: &Ocelli, configured: &Value) -> Vec<Value> {
    let records = host.deployments("cam").await;
    let healthy = records.iter().filter(|record| record["state"] == "healthy");
    healthy.map(|record| record["deployment"].clone()).chain([configured.clone()]).collect()
}

/// Every deployment has an end, and says why where that is no good one.
async fn assert_history_is_true(host: &Ocelli, at: At) {
    for record in host.deployments("cam").await {
        let state = record["state"].as_str().unwrap();
        assert!(state != "pending", "{at:?}: {record}");
        if !["healthy", "probation", "superseded"].contains(&state) {
            assert!(
                record["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
                "{at:?}: {record}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_that_is_killed_at_any_step_leaves_the_running_one_as_it_was() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = start(&store).await;
    let good = host.session("cam").await["deployment"].clone();
    let mut until_probation = Vec::new();
    for (number, at) in ALL.into_iter().enumerate().skip(1) {
        until_probation = recording.messages();
        let before = host.deployments("cam").await.len();
        let blue = host.worker("cam").await.pid;
        let component = at.version(number);
        let killing = async {
            at.reached(&host, before).await;
            let green = match at {
                At::Probation => host.worker("cam").await,
                _ => child(&host, "ocelli-worker", |child| child.pid != blue).await,
            };
            green.signal(Signal::KILL);
        };
        let ((status, answer), ()) =
            tokio::join!(host.deploy("cam", at.query(), &component), killing);
        let ended = host
            .wait_for_deployment("cam", |newest| {
                newest["state"] != "pending" && newest["state"] != "probation"
            })
            .await;
        println!("{at:?}: {status}, {} at {}: {}", ended["state"], ended["step"], ended["reason"]);
        let expected = if at == At::Probation { (200, "rolled_back") } else { (409, "aborted") };
        assert_eq!(
            (status, ended["state"].as_str().unwrap()),
            expected,
            "{at:?}: {answer}: {ended}"
        );
        assert_eq!(ended["step"], at.name(), "{ended}");
        host.wait_for_session("cam", |session| {
            session["deployment"] == good && session["state"] == "running"
        })
        .await;
        more_results(&recording, 3).await;
        assert_history_is_true(&host, at).await;
    }
    // What comes back from a probation goes on from the state that it gave.
    assert_seamless(&until_probation, true);
    assert_every_frame(&recording.messages());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compiler_that_is_killed_is_a_reason() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = start(&store).await;
    let good = host.session("cam").await["deployment"].clone();
    let component = At::Compile.version(0);
    let killing = async { compiler(&host).await.signal(Signal::KILL) };
    let ((status, answer), ()) = tokio::join!(host.deploy("cam", "", &component), killing);
    println!("{status}: {}", answer["detail"]);
    assert!((400..600).contains(&status), "{answer}");
    assert!(["check", "compile"].contains(&answer["step"].as_str().unwrap()), "{answer}");
    assert_eq!(host.session("cam").await["deployment"], good);
    // The next attempt is another one.
    let (status, answer) = host.deploy("cam", "", &component).await;
    assert_eq!(status, 200, "{answer}");
    more_results(&recording, 3).await;
    assert_seamless(&recording.messages(), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_version_that_is_killed_during_a_deployment_comes_back_or_is_followed() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = start(&store).await;
    let configured = host.session("cam").await["deployment"].clone();
    // What runs is lost each time: each case begins with a version that has been healthy for a
    // while.
    for (number, at) in
        [At::Start, At::DryRun, At::Shadow, At::Handoff, At::Restore, At::FirstResult]
            .into_iter()
            .enumerate()
    {
        let before = host.deployments("cam").await.len();
        let component = at.version(100 + number);
        let killing = async {
            at.reached(&host, before).await;
            // The session shows the new one as its own when that has given a result.
            host.worker("cam").await.signal(Signal::KILL);
        };
        let ((status, answer), ()) =
            tokio::join!(host.deploy("cam", at.query(), &component), killing);
        let ended = host
            .wait_for_deployment("cam", |newest| {
                newest["state"] != "pending" && newest["state"] != "probation"
            })
            .await;
        println!("{at:?}: {status}, {} at {}: {}", ended["state"], ended["step"], ended["reason"]);
        let session = host.wait_for_session("cam", |session| session["state"] == "running").await;
        assert!(
            healthy(&host, &configured).await.contains(&session["deployment"]),
            "{at:?}: {answer}: {session}"
        );
        more_results(&recording, 3).await;
        assert_history_is_true(&host, at).await;
        // The answer may come while the worker before still counts as running.
        let worker = host.session("cam").await["pid"].clone();
        host.restart("cam").await;
        host.wait_for_session("cam", |session| {
            session["state"] == "running" && session["pid"] != worker
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_at_any_step_starts_with_a_version_that_was_healthy_and_a_true_history()
 {
    let store = PipelineFolder::with(&["changeling"]);
    let (mut host, recording) = start(&store).await;
    drop(recording);
    let configured = host.session("cam").await["deployment"].clone();
    for (number, at) in ALL.into_iter().enumerate() {
        let records = host.deployments("cam").await;
        let (before, newest) = (records.len(), super::number(&records[0]["number"]));
        let component = at.version(200 + number);
        let killing = async {
            at.reached(&host, before).await;
            host.process().signal(Signal::KILL);
        };
        let (answer, ()) = tokio::join!(host.try_deploy("cam", at.query(), &component), killing);
        assert!(answer.is_none() || at == At::Probation, "{at:?}: {answer:?}");
        host.cut_and_start_again().await;
        let recording = watch(&host, "cam").await;
        let session = host.wait_for_session("cam", |session| session["state"] == "running").await;
        let records = host.deployments("cam").await;
        let met = records.iter().find(|record| super::number(&record["number"]) == newest + 1);
        let met = met.unwrap_or_else(|| panic!("{at:?}: the deployment is forgotten: {records:?}"));
        println!(
            "{at:?}: {} at {}: {}; runs {}",
            met["state"], met["step"], met["reason"], session["pipeline_version"]
        );
        assert_eq!(met["state"], "interrupted", "{at:?}: {met}");
        assert!(
            healthy(&host, &configured).await.contains(&session["deployment"]),
            "{at:?}: {session}"
        );
        more_results(&recording, 3).await;
        assert_history_is_true(&host, at).await;
        // What it gives goes on being numbered by frames that ascend.
        let frames: Vec<u64> = results(&recording.messages())
            .iter()
            .map(|result| super::number(&result.message["frame"]))
            .collect();
        assert!(frames.windows(2).all(|pair| pair[0] < pair[1]), "{at:?}: {frames:?}");
        assert_no_workers_are_left(&host, 1).await;
    }
}

/// Workers of a host that has come to rest.
async fn assert_no_workers_are_left(host: &Ocelli, expected: usize) {
    let begun = Instant::now();
    loop {
        let workers = children(host.process().pid)
            .iter()
            .filter(|child| child.name == "ocelli-worker")
            .count();
        if workers == expected {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "{workers} workers");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
