//! What an operator is told at three in the morning: what a config leads to before it is in force,
//! and what does not run as it says.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use ocelli_testkit::{DEADLINE, Ocelli, PipelineFolder, changeling, clip, program, root};
use serde_json::{Value, json};

/// Runs `ocelli` to its end: status, standard output and standard error.
fn ocelli(arguments: &[&str]) -> (i32, String, String) {
    let run = Command::new(program("ocelli")).args(arguments).stdin(Stdio::null()).output();
    let Output { status, stdout, stderr } = run.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn version(version: &str) -> Vec<u8> {
    changeling(&json!({"version": version}))
}

/// A camera on a file that plays for ever.
fn playing(id: &str, pipeline: &str, settings: &str) -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = {id:?}\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = {pipeline:?}\nsettings = {{ {settings} }}\n"
    )
}

async fn config_status(host: &Ocelli) -> Value {
    serde_json::from_str(&host.get("/v1/config").await).unwrap()
}

/// Asks for the config's state until it is as it should be.
async fn config_becomes(host: &Ocelli, good: impl Fn(&Value) -> bool) -> Value {
    let waits = async {
        loop {
            let status = config_status(host).await;
            if good(&status) {
                return status;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waits).await.expect("the config's state in time")
}

/// The drift of a camera.
fn drift<'a>(status: &'a Value, id: &str) -> &'a Value {
    let mut cameras = status["cameras"].as_array().unwrap().iter();
    &cameras.find(|camera| camera["id"] == id).unwrap()["drift"]
}

/// The shared part of a config for `ocelli check`.
fn common(site: &Path) -> String {
    format!(
        "[models]\ndirectory = {:?}\n[store]\ndirectory = {:?}\n[logs]\ndirectory = {:?}\n",
        root().join("models").display().to_string(),
        site.join("data").display().to_string(),
        site.join("logs").display().to_string()
    )
}

#[test]
fn a_check_finds_at_once_what_a_start_and_each_camera_would_fail_with() {
    let site = tempfile::tempdir().unwrap();
    let at = |name: &str| site.path().join(name).display().to_string();
    std::fs::write(at("text.wasm"), "no component").unwrap();
    let config = at("cams.toml");
    let bad = format!(
        "{}[server.tls]\ncertificate = {:?}\nkey = {:?}\n{}{}{}{}",
        common(site.path()),
        at("cert.pem"),
        at("key.pem"),
        playing("settings", "object-detect", "score = 7"),
        playing("text", &at("text.wasm"), ""),
        playing("nowhere", "nowhere", ""),
        playing("file", "object-detect", "").replace("bikes.mp4", "bicycles.mp4"),
    );
    std::fs::write(&config, &bad).unwrap();
    let (status, out, error) = ocelli(&["check", "--config", &config, "--json"]);
    assert_eq!(status, 1, "{error}");
    let told: Value = serde_json::from_str(&out).unwrap();
    let problems = told["problems"].as_array().unwrap();
    let keys: Vec<&str> = problems.iter().map(|one| one["key"].as_str().unwrap()).collect();
    assert_eq!(
        keys,
        [
            "server.tls",
            "cameras[0].settings",
            "cameras[1].pipeline",
            "cameras[2].pipeline",
            "cameras[3].source"
        ],
        "{told:#}"
    );
    for problem in problems {
        let line = usize::try_from(problem["line"].as_u64().unwrap()).unwrap();
        let key = problem["key"].as_str().unwrap().rsplit(['.', ']']).next().unwrap();
        let written = bad.lines().nth(line - 1).unwrap();
        assert!(written.contains(key), "line {line} is {written:?}, not {key}");
    }
    assert!(problems[1]["message"].as_str().unwrap().contains("score"), "{told:#}");
    let (status, _, error) = ocelli(&["check", "--config", &config]);
    assert!(status == 1 && error.contains("5 problems"), "{error}");

    let good = common(site.path()) + &playing("cam", "object-detect", "score = 0.7");
    std::fs::write(&config, &good).unwrap();
    let (status, out, error) = ocelli(&["check", "--config", &config, "--probe"]);
    assert_eq!(status, 0, "{error}");
    assert!(out.contains("cam: plays, "), "{out}");
    assert!(!site.path().join("data").exists(), "a check makes no data directory");
    std::fs::write(&config, good + "[alert]\n").unwrap();
    assert_eq!(ocelli(&["check", "--config", &config]).0, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_run_as_the_config_says_is_told_with_who_and_when() {
    let store = PipelineFolder::with(&["changeling"]);
    store.put("changeling", &version("1.0.0"));
    let common = format!("{}[deploy]\nreserve_mb = 0\nprobation_s = 1\n", store.section());
    let cameras = playing("cam", "changeling", "") + &playing("other", "changeling", "");
    let host = Ocelli::start(&(common.clone() + &cameras)).await;
    let status = config_becomes(&host, |status| drift(status, "cam").is_null()).await;
    assert!(status["refused"].is_null(), "{status}");
    for id in ["cam", "other"] {
        host.wait_for_session(id, |session| session["results"].as_u64() > Some(0)).await;
    }

    // By the API.
    let (code, answer) = host.deploy("cam", "?name=mine", &version("2.0.0")).await;
    assert_eq!(code, 200, "{answer}");
    let status = config_becomes(&host, |status| !drift(status, "cam").is_null()).await;
    let told = drift(&status, "cam");
    assert_eq!((&told["kind"], &told["desired"]), (&json!("pipeline"), &json!("changeling")));
    assert_eq!((&told["actual"], &told["since"]), (&json!("mine.wasm"), &answer["requested"]));
    assert!(told["reason"].as_str().unwrap().contains("operator"), "{told}");
    assert_eq!(host.session("cam").await["drift"], *told);
    let metrics = host.get("/metrics").await;
    assert!(metrics.contains("ocelli_config_drift{kind=\"pipeline\"} 1\n"), "{metrics}");

    // By hand.
    assert_eq!(host.request("DELETE", "/v1/sessions/other").await.0, 204);
    let status = config_status(&host).await;
    assert_eq!(drift(&status, "other")["kind"], "ended", "{status}");

    // A refused edit.
    host.edit_config(&(common.clone() + "[alert]\n" + &cameras));
    let status = config_becomes(&host, |status| !status["refused"].is_null()).await;
    let problem = &status["refused"]["problems"][0];
    assert!(problem["message"].as_str().unwrap().contains("did you mean alerts"), "{status}");
    assert!(problem["line"].is_u64(), "{status}");
    assert!(host.get("/metrics").await.contains("ocelli_config_refused 1\n"));
    let url = format!("http://{}", host.address());
    let (code, out, _) = ocelli(&["config", "--url", &url]);
    assert_eq!(code, 1, "{out}");
    for words in ["refused at", "did you mean alerts", "pipeline", "ended", "operator"] {
        assert!(out.contains(words), "{words} is not in {out}");
    }

    // Settings that the pipeline refuses concern their camera alone.
    let refused = playing("cam", "changeling", "every = \"never\"");
    host.edit_config(&(common.clone() + &refused + &playing("new", "changeling", "")));
    let good = |status: &Value| status["refused"].is_null() && !status["problems"][0].is_null();
    let status = config_becomes(&host, good).await;
    let problem = &status["problems"][0];
    assert_eq!(
        (&problem["camera"], &problem["key"]),
        (&json!("cam"), &json!("cameras[0].settings"))
    );
    config_becomes(&host, |status| drift(status, "cam")["kind"] == "refused").await;
    host.wait_for_session("new", |session| session["state"] == "running").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_that_is_waited_for_tells_its_return_and_a_comparison_may_be_all() {
    let store = PipelineFolder::with(&["changeling"]);
    store.put("changeling", &version("1.0.0"));
    let config = store.section()
        + "[alerts]\nrestarts_per_hour = 1\n[deploy]\nreserve_mb = 0\nprobation_s = 8\n"
        + &playing("cam", "changeling", "");
    let host = Ocelli::start(&config).await;
    host.wait_for_session("cam", |session| session["results"].as_u64() > Some(0)).await;
    let url = format!("http://{}", host.address());
    let component = host.folder().join("new.wasm");
    let deploy = |bytes: &[u8], more: &[&str]| {
        std::fs::write(&component, bytes).unwrap();
        let file = component.display().to_string();
        ocelli(&[&["deploy", "cam", &file, "--url", &url], more].concat())
    };
    let before = host.session("cam").await["deployment"].clone();

    let (code, out, error) = deploy(&version("1.1.0"), &["--shadow", "5", "--shadow-only"]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("running version stays") && out.contains("agreement 1"), "{out}");
    assert_eq!(host.session("cam").await["deployment"], before);

    let fault = json!({"at": "frame", "does": "trap", "after_s": 3});
    let dies = changeling(&json!({"version": "3.0.0", "fault": fault}));
    let (code, _, error) = deploy(&dies, &["--wait", "healthy"]);
    assert_eq!(code, 1, "{error}");
    // As docs/pipeline-author.md shows it: the cause on one line, without the backtrace.
    let told = "ocelli: cam: the deployment is rolled_back: Process: wasm trap: wasm `unreachable` \
        instruction executed; the version before it goes on with the state that it gave";
    assert_eq!(error.lines().last(), Some(told), "{error}");
    assert_eq!(host.session("cam").await["deployment"], before);

    // An operator's own doing raises no alert, however often.
    host.restart("cam").await;
    let settings = ["--settings", "{\"every\": 7}", "--wait", "healthy"];
    let (code, out, error) = deploy(&version("1.1.0"), &settings);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("changed: settings.every") && out.contains("healthy"), "{out}");
    let session = host.session("cam").await;
    assert!(session["restarts"].as_u64() >= Some(2), "{session}");
    assert_eq!(session["alerts"], json!([]), "{session}");
    assert!(session["last_error_time"].is_string(), "{session}");
}
