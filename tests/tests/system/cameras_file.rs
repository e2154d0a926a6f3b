//! Cameras that come over the API, in a file of their own beside the config.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use ocelli_testkit::{Ocelli, PipelineFolder, clip};
use serde_json::{Value, json};

use crate::terminal::run;

/// The keys of a camera on a file that plays for ever.
fn table() -> Value {
    let source = format!("file:{}", clip("bikes.mp4").display());
    json!({"source": source, "pace": "realtime", "repeat": true, "pipeline": "changeling"})
}

/// The same as the config has it.
fn playing(id: &str) -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = {id:?}\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\n"
    )
}

/// A host with a camera `steady` of its config, and a file of cameras that is not there yet.
async fn host() -> (PipelineFolder, Ocelli, PathBuf) {
    let store = PipelineFolder::with(&["changeling"]);
    let server = "[server]\nlisten = \"127.0.0.1:0\"\nedit_config = true\n\
                  cameras_file = \"cameras.toml\"\n";
    let host = Ocelli::start(&(server.to_owned() + &store.section() + &playing("steady"))).await;
    let cameras = host.folder().join("cameras.toml");
    (store, host, cameras)
}

/// Asks for something with an `If-Match` or without: the status and the answer.
async fn ask(host: &Ocelli, method: &str, id: &str, tag: &str, body: &Value) -> (u16, Value) {
    let text = if body.is_null() { String::new() } else { body.to_string() };
    let tag = if tag.is_empty() { String::new() } else { format!("If-Match: \"{tag}\"\r\n") };
    let headers = format!("{tag}Content-Length: {}", text.len());
    let path = format!("/v1/config/cameras/{id}");
    let (status, answer) = host.send(method, &path, &headers, text.as_bytes()).await;
    (status, serde_json::from_str(&answer).unwrap_or_default())
}

async fn reload(host: &Ocelli) -> (u16, Value) {
    let (status, answer) = host.request("POST", "/v1/config/reload").await;
    (status, serde_json::from_str(&answer).unwrap())
}

/// Waits until a session has results: the number of its worker.
async fn runs(host: &Ocelli, id: &str) -> Value {
    let good =
        |session: &Value| session["state"] == "running" && session["results"].as_u64() > Some(0);
    host.wait_for_session(id, good).await["pid"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn cameras_of_the_api_come_and_go_in_their_own_file_and_cost_another_no_frame() {
    let (_store, mut host, cameras) = host().await;
    let config = std::fs::read_to_string(host.config_path()).unwrap();
    let steady = runs(&host, "steady").await;
    let mut client = host.client().await;
    client.subscribe("steady").await;
    client.detections("steady").await;

    let (status, gate) = ask(&host, "PUT", "gate", "", &table()).await;
    assert_eq!(status, 200, "{gate}");
    assert_eq!(gate["file"], cameras.display().to_string(), "{gate}");
    runs(&host, "gate").await;
    let mode = std::fs::metadata(&cameras).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let tag = gate["digest"].as_str().unwrap();
    let mut changed = table();
    changed["settings"] = json!({"every": 7});
    let (status, answer) = ask(&host, "PUT", "gate", tag, &changed).await;
    assert_eq!(status, 200, "{answer}");
    let (status, answer) = ask(&host, "PUT", "gate", tag, &table()).await;
    assert_eq!((status, &answer["code"]), (412, &json!("config_changed")), "{answer}");
    changed["settings"] = json!({"every": "never"});
    let (status, answer) = ask(&host, "PUT", "yard", "", &changed).await;
    assert_eq!((status, &answer["code"]), (422, &json!("invalid_config")), "{answer}");
    let problem = &answer["config_problems"][0];
    assert_eq!(problem["file"], cameras.display().to_string(), "{answer}");
    assert!(problem["key"].as_str().unwrap().starts_with("cameras[1]."), "{answer}");
    for method in ["PUT", "DELETE"] {
        let body = if method == "PUT" { changed.clone() } else { Value::Null };
        let (status, answer) = ask(&host, method, "steady", "", &body).await;
        assert_eq!((status, &answer["code"]), (409, &json!("camera_read_only")), "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains("ocelli.toml, line"), "{answer}");
    }
    let (_, entry) = ask(&host, "GET", "steady", "", &Value::Null).await;
    assert_eq!(entry["file"], host.config_path().display().to_string(), "{entry}");
    assert!(entry["not_editable"].is_string(), "{entry}");

    assert_eq!(ask(&host, "PUT", "yard", "", &table()).await.0, 200);
    assert_eq!(ask(&host, "DELETE", "gate", "", &Value::Null).await.0, 204);
    assert!(host.session("gate").await.is_null(), "its session has ended");
    assert_eq!(ask(&host, "DELETE", "gate", "", &Value::Null).await.0, 404);
    runs(&host, "yard").await;

    client.detections("steady").await;
    assert_eq!(host.session("steady").await["pid"], steady, "untouched");
    let seen: Vec<Value> =
        client.received().iter().map(|text| serde_json::from_str(text).unwrap()).collect();
    let of = |kind: &'static str| seen.iter().filter(move |message| message["type"] == kind);
    let frames: Vec<u64> =
        of("detections").map(|message| message["frame"].as_u64().unwrap()).collect();
    let missed: u64 = of("lagged").map(|message| message["missed"].as_u64().unwrap()).sum();
    let shown = frames[frames.len() - 1] - frames[0] + 1;
    assert_eq!(shown, frames.len() as u64 + missed, "{frames:?}");
    assert_eq!(std::fs::read_to_string(host.config_path()).unwrap(), config);

    host.cut_and_start_again().await;
    runs(&host, "yard").await;
    runs(&host, "steady").await;
    assert!(host.session("gate").await.is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_file_of_cameras_changes_nothing_and_is_told_with_its_place() {
    let (_store, host, cameras) = host().await;
    std::fs::write(&cameras, playing("gate")).unwrap();
    let (status, report) = reload(&host).await;
    assert_eq!(status, 200, "{report}");
    // The host may have seen the file by itself before it was asked.
    let follows = &report["cameras"];
    assert!(follows["started"] == json!(["gate"]) || follows["untouched"] == 2, "{report}");
    let (gate, steady) = (runs(&host, "gate").await, runs(&host, "steady").await);

    let in_both = playing("gate") + "\n" + &playing("steady");
    let half = playing("gate") + "[[cameras]]\nid = \"ya";
    for (wrong, words) in [(half.as_str(), "TOML"), (&in_both, "ocelli.toml"), ("\n", "empty")] {
        std::fs::write(&cameras, wrong).unwrap();
        let (status, refused) = reload(&host).await;
        assert_eq!((status, &refused["code"]), (409, &json!("config_not_applied")), "{refused}");
        let problem = &refused["config_problems"][0];
        assert_eq!(problem["file"], cameras.display().to_string(), "{refused}");
        assert!(problem["message"].as_str().unwrap().contains(words), "{refused}");
        host.metric_becomes("ocelli_config_refused", |value| value == 1.0).await;
    }
    std::fs::remove_file(&cameras).unwrap();
    assert_eq!(reload(&host).await.0, 409, "a file that is gone ends no camera");
    for (id, before) in [("gate", gate.clone()), ("steady", steady.clone())] {
        assert_eq!(host.session(id).await["pid"], before, "{id} runs on");
    }

    std::fs::write(&cameras, playing("gate") + "\n" + &playing("yard")).unwrap();
    let (status, said, error) = run(&host, &["reload"]).await;
    assert_eq!(status, 0, "{said}{error}");
    assert!(said.contains("started: yard") || said.contains("nothing has changed"), "{said}");
    runs(&host, "yard").await;
    host.metric_becomes("ocelli_config_refused", |value| value == 0.0).await;
    assert_eq!(host.session("gate").await["pid"], gate);

    // An edit by hand is seen without being asked for, and ends what it leaves out.
    std::fs::write(&cameras, "# none\n").unwrap();
    for id in ["gate", "yard"] {
        host.wait_for_session(id, Value::is_null).await;
    }
    assert_eq!(host.session("steady").await["pid"], steady);
}
