//! What a page shows of a session and of the machine, and changes of the config file over the API.

use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use ocelli_testkit::{
    DEADLINE, HookReceiver, Mosquitto, Ocelli, PipelineFolder, Reception, Redis, clip, program,
};
use serde_json::{Value, json};
use tokio::time::sleep;

/// Between two looks at a session's figures.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A camera on a file that plays for ever.
fn playing(id: &str) -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "# The {id}.\n[[cameras]]\nid = {id:?}\nsource = {source:?} # a clip\npace = \"realtime\"\n\
         repeat = true\npipeline = \"changeling\"\n"
    )
}

/// A host with a session `gate`; `server` are further lines of its section.
async fn host(server: &str) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let server = format!("[server]\nlisten = \"127.0.0.1:0\"\n{server}\n");
    let host = Ocelli::start(&(server + &store.section() + &playing("gate"))).await;
    host.wait_for_session("gate", |session| session["results"].as_u64() > Some(0)).await;
    (store, host)
}

async fn get(host: &Ocelli, path: &str) -> Value {
    serde_json::from_str(&host.get(path).await).unwrap()
}

/// Puts a camera's table into the config.
async fn put(host: &Ocelli, id: &str, table: &Value) -> (u16, Value) {
    host.put(&format!("/v1/config/cameras/{id}"), table.to_string().as_bytes()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sessions_figures_are_of_late_and_its_log_is_at_hand() {
    let (_store, host) = host("").await;
    let begun = Instant::now();
    let stats = loop {
        let stats = get(&host, "/v1/sessions/gate/stats").await;
        if stats["rates"]["span_s"].as_f64() >= Some(3.0) {
            break stats;
        }
        assert!(begun.elapsed() < DEADLINE, "{stats}");
        sleep(LOOK_AGAIN).await;
    };
    let rate = stats["rates"]["processed"].as_f64().unwrap();
    assert!((1.0..=60.0).contains(&rate), "{stats}");
    let total = stats["latency"].as_array().unwrap().last().unwrap();
    assert_eq!(total["stage"], "total", "{stats}");
    assert!(total["p50_ms"].as_f64() <= total["p95_ms"].as_f64() && total["p50_ms"].is_f64());
    let memory = &stats["memory"];
    assert!(memory["private"].as_u64() > Some(0), "{stats}");
    assert!(memory["private"].as_u64() < memory["limit"].as_u64(), "{stats}");
    assert_eq!(stats["restarts"], json!([]));

    host.restart("gate").await;
    let anew =
        |session: &Value| session["restarts"].as_u64() > Some(0) && session["state"] == "running";
    let session = host.wait_for_session("gate", anew).await;
    assert_eq!((&session["codec"], session["size"].as_array().unwrap().len()), (&json!("h264"), 2));
    let stats = get(&host, "/v1/sessions/gate/stats").await;
    assert_eq!(stats["restarts"][0]["cause"], "asked", "{stats}");
    let part = get(&host, "/v1/sessions/gate/log?lines=50").await;
    let log = part["lines"].as_array().unwrap();
    assert!(log.iter().any(|line| line.as_str().unwrap().contains("session state")), "{log:?}");

    let system = get(&host, "/v1/system").await;
    let processes = system["processes"].as_array().unwrap();
    let of = |kind: &'static str| processes.iter().filter(move |process| process["kind"] == kind);
    assert_eq!(of("host").count(), 1, "{system}");
    assert!(of("inference").count() >= 1 && of("reader").count() >= 1, "{system}");
    let worker = of("worker").find(|process| process["session"] == "gate").unwrap();
    assert_eq!(worker["pid"], host.session("gate").await["pid"]);
    assert!(worker["limit"].as_u64() > worker["private"].as_u64(), "{worker}");
    assert_eq!(system["store"]["events"]["keep_hours"], 720, "{system}");
    assert_eq!(system["config"]["cameras"][0]["id"], "gate");
}

/// What the host says of its sinks once that is as wanted.
async fn sinks(host: &Ocelli, good: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let sinks = get(host, "/v1/system").await["sinks"].clone();
        if good(&sinks) {
            return sinks;
        }
        assert!(begun.elapsed() < DEADLINE, "{sinks}");
        sleep(LOOK_AGAIN).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sink_is_shown_with_what_it_has_and_why_it_takes_nothing_and_no_secret() {
    let (redis, mut broker) = (Redis::start(), Mosquitto::nowhere());
    let settings = broker.user("ann", "hush1");
    broker.run(&settings);
    let hook = HookReceiver::with(Reception::Answer(503, "Retry-After: 3600\r\n".into())).await;
    let sections = redis.section("").replace("redis://", "redis://:hush2@")
        + &broker.section("").replace("mqtt://", "mqtt://ann:hush1@")
        + &hook.section("hub", "").replace("/hook", "/hush3");
    redis.cli(&["CONFIG", "SET", "requirepass", "hush2"]);
    let store = PipelineFolder::with(&["changeling"]);
    let camera = playing("gate") + "settings = { every = 1 }\n";
    let host = Ocelli::start(&(store.section() + &sections + &camera)).await;
    let sinks = sinks(&host, |sinks| {
        let has = |name: &str| sinks[name]["written"].as_u64() > Some(0);
        has("redis") && has("mqtt") && sinks["webhook:hub"]["reason"].is_string()
    })
    .await;
    let (redis_at, broker_at) = (redis.port(), broker.port());
    for (name, kind, address) in [
        ("redis", "redis", format!("redis://127.0.0.1:{redis_at}/0")),
        ("mqtt", "mqtt", format!("mqtt://127.0.0.1:{broker_at}")),
        ("webhook:hub", "webhook", format!("http://{}", hook.address)),
    ] {
        let sink = &sinks[name];
        assert_eq!((&sink["kind"], &sink["address"]), (&json!(kind), &json!(address)));
        let up = name != "webhook:hub";
        assert_eq!(sink["up"], up, "{sink}");
        assert_eq!(sink["reason"].is_null(), up, "{sink}");
        assert_eq!(sink["last_written"].is_string(), up, "{sink}");
    }
    let hub = &sinks["webhook:hub"];
    assert!(hub["reason"].as_str().unwrap().contains("503"), "{hub}");
    assert!(hub["behind"].as_u64() > Some(0), "{hub}");
    assert!(!get(&host, "/v1/system").await.to_string().contains("hush"));

    let url = format!("http://{}", host.address());
    let mut status = tokio::process::Command::new(program("ocelli"));
    let status = status.arg("status").env("OCELLI_URL", url).output().await.unwrap();
    let said = String::from_utf8(status.stdout).unwrap();
    assert_eq!(status.status.code(), Some(1), "{said}");
    for row in ["inference", "redis", "mqtt", "webhook:hub"] {
        assert!(said.lines().any(|line| line.starts_with(row)), "{said}");
    }
    assert!(said.contains("  reason: it answers with HTTP status 503"), "{said}");
    assert!(!said.contains("hush"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_is_added_changed_and_removed_in_the_file_and_the_rest_of_it_stays() {
    let (_store, host) = host("edit_config = true # ours").await;
    std::fs::set_permissions(host.config_path(), PermissionsExt::from_mode(0o640)).unwrap();
    let before = std::fs::read_to_string(host.config_path()).unwrap();
    let read = || std::fs::read_to_string(host.config_path()).unwrap();

    let entry = get(&host, "/v1/config/cameras/gate").await;
    assert_eq!((&entry["not_editable"], &entry["camera"]["id"]), (&json!(null), &json!("gate")));
    let mut yard = entry["camera"].clone();
    yard["id"] = "yard".into();
    yard["settings"] = json!({"every": 7});
    let (status, answer) = put(&host, "yard", &yard).await;
    assert_eq!(status, 200, "{answer}");
    host.wait_for_session("yard", |session| session["results"].as_u64() > Some(0)).await;
    for kept in ["edit_config = true # ours\n", "# The gate.\n", " # a clip\n", "every = 7\n"] {
        assert!(read().contains(kept), "{kept}: {}", read());
    }
    let mode = std::fs::metadata(host.config_path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);

    yard["settings"]["every"] = "never".into();
    let (status, answer) = put(&host, "yard", &yard).await;
    assert_eq!((status, &answer["code"]), (422, &json!("invalid_config")), "{answer}");
    assert_eq!(answer["config_problems"][0]["camera"], "yard", "{answer}");
    yard["pipelin"] = "x".into();
    assert_eq!(put(&host, "yard", &yard).await.0, 422);
    assert!(read().contains("every = 7"), "{}", read());

    assert_eq!(host.request("DELETE", "/v1/config/cameras/yard").await.0, 204);
    assert_eq!(host.request("GET", "/v1/sessions/yard").await.0, 404, "its session has ended");
    assert_eq!(host.request("DELETE", "/v1/config/cameras/yard").await.0, 404);
    assert_eq!(read().trim_end(), before.trim_end());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_may_not_change_its_config_says_what_to_paste() {
    let (_store, host) = host("").await;
    let before = std::fs::read_to_string(host.config_path()).unwrap();
    let entry = get(&host, "/v1/config/cameras/gate").await;
    assert!(entry["not_editable"].as_str().unwrap().contains("edit_config"), "{entry}");
    let table = json!({"source": "rtsp://192.0.2.10/main", "pipeline": "object-detect"});
    let (status, answer) = put(&host, "yard", &table).await;
    assert_eq!((status, &answer["code"]), (409, &json!("config_not_editable")), "{answer}");
    let toml = answer["toml"].as_str().unwrap();
    assert!(toml.starts_with("[[cameras]]\nid = \"yard\"\n"), "{toml}");
    let (status, _) = host.request("DELETE", "/v1/config/cameras/gate").await;
    assert_eq!(status, 409);
    assert_eq!(std::fs::read_to_string(host.config_path()).unwrap(), before);
}
