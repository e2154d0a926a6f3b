//! The ways to a deployment, one and the same behind all of them: a request, a rollback, a changed
//! file, a changed config.

use std::time::Duration;

use ocelli_testkit::{Ocelli, PipelineFolder, Recording};
use serde_json::{Value, json};

use super::{
    COMMON, assert_seamless, deployed, faulty, host_with_changeling, more_results, number, playing,
    processed, results, version, watch,
};

/// Waits for the newest deployment of a session, by its cause, to have taken over.
async fn has_taken_over(host: &Ocelli, cause: &str, version: &str) -> Value {
    host.wait_for_deployment("cam", |newest| {
        newest["cause"] == cause
            && newest["version"] == version
            && (newest["state"] == "probation" || newest["state"] == "healthy")
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_the_store_that_changes_is_deployed_however_it_is_written() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = host_with_changeling(&store, "").await;
    let file = store.pipeline("changeling");

    // As an editor does that renames.
    let beside = file.with_extension("part");
    std::fs::write(&beside, version("1.1.0")).unwrap();
    std::fs::rename(&beside, &file).unwrap();
    has_taken_over(&host, "file", "1.1.0").await;

    // In place and in two parts.
    let component = version("1.2.0");
    let (first, second) = component.split_at(component.len() / 2);
    std::fs::write(&file, first).unwrap();
    more_results(&recording, 5).await;
    let mut open = std::fs::OpenOptions::new().append(true).open(&file).unwrap();
    std::io::Write::write_all(&mut open, second).unwrap();
    drop(open);
    has_taken_over(&host, "file", "1.2.0").await;

    // By the API.
    let (status, answer) = host.put("/v1/pipelines/changeling", &version("1.3.0")).await;
    assert_eq!(status, 200, "{answer}");
    has_taken_over(&host, "file", "1.3.0").await;
    let list: Value = serde_json::from_str(&host.get("/v1/pipelines").await).unwrap();
    let entry = list["pipelines"]
        .as_array()
        .unwrap()
        .iter()
        .find(|pipeline| pipeline["name"] == "changeling");
    assert_eq!(entry.unwrap()["sessions"], json!(["cam"]), "{list}");
    let (status, answer) = host.put("/v1/pipelines/changeling", b"nothing").await;
    assert!(status == 422 && answer["problems"][0]["kind"] == "not_wasm", "{answer}");

    // What cannot be a pipeline changes nothing.
    std::fs::write(&file, b"half of it").unwrap();
    let refused = host.wait_for_deployment("cam", |newest| newest["state"] == "refused").await;
    assert_eq!(
        (&refused["cause"], &refused["step"]),
        (&json!("file"), &json!("check")),
        "{refused}"
    );
    assert_eq!(host.session("cam").await["pipeline_version"], "changeling 1.3.0");
    more_results(&recording, 5).await;
    assert_seamless(&recording.messages(), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edited_entry_goes_the_same_way_as_a_request() {
    let store = PipelineFolder::with(&["changeling"]);
    store.put("changeling", &version("1.0.0"));
    store.put("other", &version("2.0.0"));
    let config = |pipeline: &str, settings: &str| {
        format!("{}{COMMON}{}", store.section(), playing("cam", pipeline, settings))
    };
    let host = Ocelli::start(&config("changeling", "")).await;
    let recording = watch(&host, "cam").await;

    host.edit_config(&config("other", ""));
    let record = has_taken_over(&host, "config", "2.0.0").await;
    assert_eq!(record["pipeline"], "other", "{record}");
    host.edit_config_in_place(&config("other", "settings = { every = 10 }"));
    let becomes = |newest: &Value| {
        newest["settings"] == json!({"every": 10}) && newest["swapped"].is_object()
    };
    host.wait_for_deployment("cam", becomes).await;
    let seen = recording.len();
    let counted = |message: &Value| {
        (message["kind"] == "counted").then(|| number(&message["data"]["frames"]))
    };
    let first = recording.find(seen, counted).await;
    let next =
        recording.find(seen, |message| counted(message).filter(|frames| *frames > first)).await;
    assert_eq!(next - first, 10);

    // Settings that the pipeline refuses cost nothing.
    host.edit_config(&config("other", "settings = { every = 0 }"));
    let kept = host.wait_for_deployment("cam", |newest| newest["state"] == "aborted").await;
    assert!(kept["reason"].as_str().is_some_and(|reason| reason.contains("every")), "{kept}");
    more_results(&recording, 5).await;
    assert_seamless(&recording.messages(), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_brings_the_version_before_and_one_more_the_one_before_that() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = host_with_changeling(&store, "probation_s = 1").await;
    let first = host.session("cam").await["deployment"].clone();
    let (status, body) = host.request("POST", "/v1/sessions/cam/rollback").await;
    assert!(status == 409 && body.contains("no_previous_version"), "{status}: {body}");
    for version_of in ["1.1.0", "1.2.0"] {
        deployed(&host, "cam", "", &version(version_of)).await;
        host.wait_for_deployment("cam", |newest| newest["state"] == "healthy").await;
    }
    for expected in ["1.1.0", "1.0.0"] {
        let (status, body) = host.request("POST", "/v1/sessions/cam/rollback").await;
        assert_eq!(status, 200, "{body}");
        let record: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (&record["version"], &record["cause"]),
            (&json!(expected), &json!("rollback")),
            "{record}"
        );
        host.wait_for_deployment("cam", |newest| newest["state"] == "healthy").await;
        more_results(&recording, 3).await;
    }
    assert_eq!(host.session("cam").await["deployment"], first);
    assert_seamless(&recording.messages(), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shadow_compares_both_versions_and_is_heard_by_nobody() {
    let store = PipelineFolder::with(&["changeling"]);
    let (host, recording) = host_with_changeling(&store, "").await;
    // The same but for one frame in the middle for which it returns an error.
    let new = faulty("1.1.0", "frame", "refuse", json!({"after_s": 0.5}));
    let seen = recording.len();
    let record = deployed(&host, "cam", "?shadow=40", &new).await;
    let comparison = &record["comparison"];
    println!("{comparison}");
    assert_eq!(comparison["errors"], 1, "{record}");
    assert_eq!(number(&comparison["frames"]) + number(&comparison["missed"]) + 1, 40, "{record}");
    assert!(
        comparison["first_error"].as_str().is_some_and(|error| error.contains("refuses at Frame")),
        "{record}"
    );
    let detections = &comparison["detections"];
    assert!(number(&detections["running"]) > 0, "{record}");
    for same in ["new", "matched"] {
        assert_eq!(detections[same], detections["running"], "{same}: {record}");
    }
    // Nothing of the shadow was heard: the new version's first result is behind the old one's last.
    let deployment = &record["deployment"];
    let new = |message: &Value| {
        (message["type"] == "detections" && message["deployment"] == *deployment).then_some(())
    };
    recording.find(seen, new).await;
    let messages = recording.messages();
    let first = results(&messages[seen..])
        .into_iter()
        .position(|result| result.message["deployment"] == *deployment);
    assert!(
        first.is_some_and(|first| first >= 40),
        "the new version spoke after {first:?} results"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_of_a_session_survives_changes_and_the_end_of_the_host() {
    let store = PipelineFolder::with(&["changeling"]);
    store.put("changeling", &version("1.0.0"));
    let camera = playing("cam", "changeling", "settings = { every = 5, keep = true }");
    let config = format!("{}{COMMON}probation_s = 1\n{camera}", store.section());
    let mut host = Ocelli::start(&config).await;
    let recording = watch(&host, "cam").await;
    let before = ask(&host, 3).await;

    deployed(&host, "cam", "", &version("1.1.0")).await;
    let after = ask(&host, before + 2).await;
    // As often as there were events: no change was lost or counted twice by rehearsals.
    let counted =
        |recording: &Recording| super::events(&recording.messages(), "counted").len() as u64;
    assert!(after <= counted(&recording) + 2, "{after} kept, {} events", counted(&recording));
    host.wait_for_deployment("cam", |newest| newest["state"] == "healthy").await;
    let before = ask(&host, 1).await;
    // A cut may take the changes of the last 100 ms, and counts are five frames apart: after two
    // more this one is on the disk.
    ask(&host, before + 2).await;
    drop(recording);
    host.cut_and_start_again().await;
    let recording = watch(&host, "cam").await;
    assert_eq!(
        host.session("cam").await["pipeline_version"],
        "changeling 1.1.0",
        "the last healthy version"
    );
    let first = results(&recording.messages())[0].message.clone();
    assert_eq!(processed(&first), number(&first["frame"]) + 1, "the state itself is the worker's");
    let after = ask(&host, 1).await;
    assert!(after >= before, "{after} after {before}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pipeline_gets_neither_the_state_nor_the_settings_of_the_one_before() {
    let store = PipelineFolder::with(&["changeling", "motion"]);
    let (host, _recording) = host_with_changeling(&store, "").await;
    // As version after version of one pipeline does, state and settings go along.
    let settings = "?settings=%7B%22keep%22%3Atrue%7D";
    let same = deployed(&host, "cam", settings, &version("1.1.0")).await;
    assert_eq!(same["swapped"]["fresh"], false, "{same}");
    let asked = deployed(&host, "cam", "?state=fresh", &version("1.2.0")).await;
    assert_eq!((&asked["swapped"]["fresh"], &asked["settings"]), (&true.into(), &same["settings"]));

    // By its file or by its name: no one's settings are taken for its own.
    let motion = std::fs::read(store.pipeline("motion")).unwrap();
    for (query, component) in [("", motion.as_slice()), ("?pipeline=motion", b"")] {
        let other = deployed(&host, "cam", query, component).await;
        assert_eq!((&other["name"], &other["settings"]), (&"motion".into(), &json!({})), "{other}");
        assert_eq!(other["changed"], json!(["settings.keep"]), "{other}");
        assert_eq!(other["swapped"]["fresh"], true, "{other}");
        assert!(number(&other["swapped"]["state_bytes"]) > 0, "{other}");
        let back = deployed(&host, "cam", settings, &version("1.3.0")).await;
        assert_eq!(back["settings"], same["settings"], "{back}");
    }

    // What a stored pipeline is, its schema says without a session that runs it.
    let answer: Value =
        serde_json::from_str(&host.get("/v1/pipelines/motion/schema").await).unwrap();
    assert_eq!((&answer["name"], &answer["pipeline"]), (&"motion".into(), &"motion".into()));
    assert!(answer["schema"].is_object(), "{answer}");
}

/// How many events the session's store has counted, once it is at least so many.
async fn ask(host: &Ocelli, least: u64) -> u64 {
    let mut client = host.client().await;
    loop {
        client.send(&json!({"type": "query", "session": "cam", "query": {}})).await;
        let answer = client.next_of("answer").await;
        let kept = number(&answer["answer"]["kept"]);
        if kept >= least {
            return kept;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
