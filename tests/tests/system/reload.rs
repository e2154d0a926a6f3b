//! The config of a running host: an edit touches the cameras that it is about, and a mistake
//! touches none.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ocelli_testkit::{ClosedPort, DEADLINE, Ocelli, Process, built_in_pipeline, clip};
use rustix::process::Signal;
use serde_json::Value;
use tokio::time::timeout;

use crate::{SLOW, camera};

/// A file that plays for ever at its own speed.
fn playing(id: &str, more: &str) -> String {
    let source = format!("file:{}", clip("people-576-high-b3.mp4").display());
    camera(id, &source, &format!("pace = \"realtime\"\nrepeat = true\n{more}"))
}

/// A camera that never answers: its session is there and costs nothing.
fn silent(id: &str, port: &ClosedPort, more: &str) -> String {
    camera(id, &format!("rtsp://{}/cam", port.address), more)
}

/// Waits for a line of the host's log that holds all these words.
async fn logged(host: &Ocelli, words: &[&str]) -> String {
    let holds = |line: &str| words.iter().all(|word| line.contains(word)).then(|| line.to_owned());
    let line = timeout(DEADLINE, host.log().find(holds)).await;
    line.unwrap_or_else(|_| panic!("nothing in the log holds {words:?}")).expect("the host lives")
}

/// A session's worker, once there is one.
async fn worker(host: &Ocelli, id: &str) -> Process {
    host.wait_for_session(id, |session| !session["pid"].is_null()).await;
    host.worker(id).await
}

/// The sessions' workers by the sessions' names.
async fn workers(host: &Ocelli) -> BTreeMap<String, Value> {
    let answer: Value = serde_json::from_str(&host.get("/v1/sessions").await).unwrap();
    let sessions = answer["sessions"].as_array().unwrap().iter();
    sessions
        .map(|session| (session["id"].as_str().unwrap().to_owned(), session["pid"].clone()))
        .collect()
}

/// Sends SIGHUP and waits until the config is applied.
async fn hang_up(host: &Ocelli) {
    let before = host.log().text().lines().filter(|line| is_applied(line)).count();
    host.process().signal(Signal::HUP);
    let seen = std::cell::Cell::new(0);
    let applied = host.log().find(|line| {
        seen.set(seen.get() + usize::from(is_applied(line)));
        (seen.get() > before).then_some(())
    });
    timeout(DEADLINE, applied).await.expect("applied in time").expect("the host lives");
}

fn is_applied(line: &str) -> bool {
    line.contains("config applied") && line.contains("SIGHUP")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_entry_restarts_its_camera_and_costs_the_others_no_frame() {
    let steady = playing("one", "") + &playing("three", SLOW);
    let host = Ocelli::start(&(steady.clone() + &playing("two", SLOW))).await;
    let mut client = host.client().await;
    for session in ["one", "two", "three"] {
        client.subscribe(session).await;
    }
    for session in ["one", "two", "three"] {
        client.detections(session).await;
    }
    let is_event =
        |message: &Value| (message["type"] == "event" && message["session"] == "two").then_some(());
    client.find(is_event).await;
    let before = workers(&host).await;
    let seen = client.received().len();

    host.edit_config(&(playing("two", &format!("{SLOW}\npriority = \"high\"")) + &steady));
    client.state("two", "starting").await;
    client.state("two", "running").await;
    client.detections("two").await;
    client.find(is_event).await;
    client.detections("one").await;
    logged(&host, &["two", "changed in the config: priority"]).await;

    let after = workers(&host).await;
    assert_eq!((&after["one"], &after["three"]), (&before["one"], &before["three"]), "untouched");
    assert_ne!(after["two"], before["two"]);
    let messages: Vec<Value> =
        client.received().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let of = |session: &'static str, kind: &'static str| {
        // What came of states before the edit is of no interest.
        let skipped = if kind == "session" { seen } else { 0 };
        messages
            .iter()
            .skip(skipped)
            .filter(move |message| message["session"] == session && message["type"] == kind)
    };
    let frames: Vec<u64> =
        of("one", "detections").map(|message| message["frame"].as_u64().unwrap()).collect();
    // A client that was slow for a moment was told how many it missed.
    let missed: u64 = of("one", "lagged").map(|message| message["missed"].as_u64().unwrap()).sum();
    assert_eq!(
        frames[frames.len() - 1] - frames[0] + 1,
        frames.len() as u64 + missed,
        "{frames:?}"
    );
    let seqs: Vec<u64> =
        of("two", "event").map(|message| message["seq"].as_u64().unwrap()).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "events are numbered on: {seqs:?}");
    let states: Vec<&str> =
        of("two", "session").map(|message| message["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["starting", "running"]);
    assert_eq!(
        of("one", "session").count() + of("three", "session").count(),
        0,
        "nothing to be told of these"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_come_and_go_with_their_entries_while_others_run() {
    let port = ClosedPort::new();
    let host = Ocelli::start(&(silent("one", &port, "") + &silent("two", &port, ""))).await;
    let mut client = host.client().await;
    client.subscribe("two").await;
    let (one, two) = (worker(&host, "one").await, worker(&host, "two").await);

    host.edit_config_in_place(&(silent("three", &port, "") + &silent("one", &port, "")));
    let stopped = client.state("two", "stopped").await;
    assert_eq!(stopped["reason"], "no longer in the config", "{stopped}");
    assert!(two.ends_within(DEADLINE));
    worker(&host, "three").await;
    assert!(host.session("two").await.is_null());
    assert_eq!(host.worker("one").await.pid, one.pid);
    logged(&host, &["config applied", "1 started", "0 restarted", "1 stopped", "1 untouched"])
        .await;

    // Back again: whoever listened still does.
    host.edit_config(&(silent("one", &port, "") + &silent("two", &port, "")));
    client.state("two", "starting").await;
    assert_eq!(host.worker("one").await.pid, one.pid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_config_with_errors_changes_nothing_and_each_error_is_said_with_its_line() {
    let port = ClosedPort::new();
    let good = silent("one", &port, "") + &silent("two", &port, "");
    let host = Ocelli::start(&good).await;
    for session in ["one", "two"] {
        worker(&host, session).await;
    }
    let before = workers(&host).await;

    let password = "rtsp://ann:hush@[/cam";
    let broken =
        format!("[resource_limits]\ncall_cpu_ms = 0\n[alert]\n{}", camera("one", password, ""));
    host.edit_config_in_place(&broken);
    logged(&host, &["not applied", "runs on as before"]).await;
    logged(&host, &["line 2", "resource_limits.call_cpu_ms", "1 to 60000"]).await;
    logged(&host, &["line 3", "did you mean alerts?"]).await;
    assert_eq!(workers(&host).await, before);

    host.edit_config(&(good.clone() + "[[cameras]\n"));
    let line = format!("line {}", good.lines().count() + 1);
    logged(&host, &["not applied", "not valid TOML", &line]).await;
    std::fs::write(host.config_path(), "").unwrap();
    logged(&host, &["not applied", "empty"]).await;
    std::fs::remove_file(host.config_path()).unwrap();
    logged(&host, &["not applied", "no such file"]).await;
    assert_eq!(workers(&host).await, before);
    assert!(!host.log().text().contains("hush"), "a password in the log");

    host.edit_config(&(good + &silent("three", &port, "")));
    hang_up(&host).await;
    let after = workers(&host).await;
    assert!(before.iter().all(|(id, pid)| after[id] == *pid), "{before:?}, {after:?}");
    assert!(after.contains_key("three"), "{after:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_that_cannot_be_had_stops_no_camera_and_is_tried_again() {
    let port = ClosedPort::new();
    let store = |host: &Ocelli| -> PathBuf {
        let folder = host.folder().join("data/pipelines");
        std::fs::create_dir_all(&folder).unwrap();
        folder.join("eye.wasm")
    };
    let host = Ocelli::start(&silent("one", &port, "")).await;
    let one = worker(&host, "one").await;
    std::fs::write(store(&host), b"not a component").unwrap();

    // Another pipeline, which there is not, and a new camera whose pipeline cannot be compiled.
    let with = |id: &str, pipeline: &str| silent(id, &port, "").replace("object-detect", pipeline);
    host.edit_config(&(with("one", "nowhere") + &with("two", "eye")));
    logged(&host, &["one", "runs on as before", "nowhere"]).await;
    let failed = host.wait_for_session("two", |session| session["state"] == "failed").await;
    assert!(failed["reason"].as_str().unwrap().contains("eye"), "{failed}");
    let session = host.session("one").await;
    assert_eq!(
        (&session["pid"], &session["pipeline"]),
        (&one.pid.into(), &"object-detect".into()),
        "{session}"
    );

    // Both are there now.
    std::fs::copy(built_in_pipeline("object-detect"), store(&host)).unwrap();
    std::fs::copy(store(&host), store(&host).with_file_name("nowhere.wasm")).unwrap();
    host.restart("two").await;
    worker(&host, "two").await;
    hang_up(&host).await;
    assert!(one.ends_within(DEADLINE));
    host.wait_for_session("one", |session| {
        session["pipeline"] == "nowhere" && !session["pid"].is_null()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sections_are_applied_where_they_can_be_and_named_where_they_cannot() {
    let port = ClosedPort::new();
    let url = format!("rtsp://{}/cam", port.address);
    let one = silent("one", &port, "");
    let host = Ocelli::start(&format!("[subscriptions]\nsources = []\n{one}")).await;
    let mut client = host.client().await;
    client.subscribe_to("mine", &url).await;
    assert_eq!(client.next_of("error").await["cause"], "source_not_allowed");
    let first = worker(&host, "one").await;

    host.edit_config(&format!(
        "[subscriptions]\ngrace_s = 0\nsources = [\"rtsp://*:*\"]\n[inference]\nthreads = \
            1\n[resource_limits]\nopen_files = 65\n{one}"
    ));
    hang_up(&host).await;
    logged(&host, &["WARN", "takes effect when the host is restarted", "inference.threads"]).await;
    logged(&host, &["workers that start from now on", "resource_limits.open_files"]).await;
    logged(&host, &["in force from now on", "subscriptions.sources"]).await;
    client.subscribe_to("mine", &url).await;
    client.state("mine", "degraded").await;
    assert_eq!(host.worker("one").await.pid, first.pid);

    // A name that a subscriber took is not taken away from under it.
    let mine = worker(&host, "mine").await;
    host.edit_config(&(one + &silent("mine", &port, "decode = \"key\"")));
    logged(&host, &["mine", "a subscriber has made a session of this name"]).await;
    assert_eq!(host.worker("mine").await.pid, mine.pid);
    client.close().await;
    host.wait_for_session("mine", Value::is_null).await;
    hang_up(&host).await;
    worker(&host, "mine").await;
}
