//! What an operator's monitoring sees of the host, and the alerts that subscribers get.

use std::collections::BTreeMap;

use ocelli_testkit::skip::skip;
use ocelli_testkit::{Cameras, Ocelli};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{SLOW, camera};

const SESSION: &str = "display-001;cam-001";

/// The samples of `/metrics`, by name and labels as they are written there.
struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    async fn of(host: &Ocelli) -> Self {
        let text = host.get("/metrics").await;
        // The format of Prometheus: OpenMetrics has to be asked for.
        assert!(text.starts_with("# HELP ocelli_") && !text.contains("# EOF"), "{text}");
        let open = "Accept: application/openmetrics-text";
        let (_, open) = host.send("GET", "/metrics", open, &[]).await;
        assert!(open.ends_with("# EOF\n"), "{open}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        });
        Self(samples.collect())
    }

    fn get(&self, series: &str) -> f64 {
        *self.0.get(series).unwrap_or_else(|| panic!("no {series} in {:#?}", self.0.keys()))
    }

    /// A session's series without further labels.
    fn session(&self, name: &str) -> f64 {
        self.get(&format!("{name}{{session={SESSION:?}}}"))
    }

    /// A session's series with one more label.
    fn labelled(&self, name: &str, label: &str, value: &str) -> f64 {
        self.get(&format!("{name}{{session={SESSION:?},{label}={value:?}}}"))
    }

    /// Everything that only ever grows.
    fn counters(&self) -> impl Iterator<Item = (&String, f64)> {
        let grows = |series: &str| {
            let name = series.split('{').next().unwrap_or_default();
            ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end))
        };
        self.0
            .iter()
            .filter(move |(series, _)| grows(series))
            .map(|(series, value)| (series, *value))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_what_a_session_does_and_go_on_when_its_worker_is_replaced() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let host = Ocelli::start(&camera(SESSION, &cameras.url("/cam"), SLOW)).await;
    let mut client = host.client().await;
    client.subscribe(SESSION).await;
    for _ in 0..5 {
        client.detections(SESSION).await;
    }
    // Told with the worker's signs of life, which come less often than results.
    host.wait_for_session(SESSION, |session| session["guest_memory"].as_u64() > Some(0)).await;
    let before = Metrics::of(&host).await;
    let worker = host.worker(SESSION).await;
    assert!(before.session("ocelli_session_results_total") >= 5.0);
    let [received, decoded, processed] = ["received", "decoded", "processed"]
        .map(|what| before.session(&format!("ocelli_session_frames_{what}_total")));
    assert!(
        received >= decoded && decoded >= processed && processed >= 5.0,
        "{received} {decoded} {processed}"
    );
    assert!(before.session("ocelli_session_inferences_total") >= 5.0);
    for stage in ["decode", "wait", "inference", "pipeline", "total"] {
        let [count, sum] = ["count", "sum"].map(|what| {
            before.labelled(&format!("ocelli_session_latency_seconds_{what}"), "stage", stage)
        });
        assert!(
            count >= 5.0 && sum > 0.0 && sum / count < 60.0,
            "{stage}: {sum} s in {count} frames"
        );
    }
    let resident = before.session("ocelli_worker_resident_memory_bytes");
    let limit = before.session("ocelli_worker_private_memory_limit_bytes");
    assert!((1e6..limit).contains(&resident), "{resident} of {limit} bytes");
    // Shown only where the kernel lets the host look.
    if let Some(proportional) =
        before.0.get(&format!("ocelli_worker_proportional_memory_bytes{{session={SESSION:?}}}"))
    {
        assert!(
            (1e5..=resident * 1.5).contains(proportional),
            "{proportional} of {resident} bytes"
        );
    } else {
        skip("in part: the kernel does not show the proportional memory of a worker");
    }
    let guest = before.session("ocelli_session_guest_memory_bytes");
    assert!(
        (65_536.0..=before.session("ocelli_session_guest_memory_limit_bytes")).contains(&guest),
        "{guest}"
    );
    assert_eq!(before.labelled("ocelli_session_state", "state", "running"), 1.0);
    assert_eq!(before.labelled("ocelli_session_state", "state", "failed"), 0.0);
    assert_eq!(before.session("ocelli_session_source_up"), 1.0);
    assert_eq!(before.session("ocelli_session_subscribers"), 1.0);
    assert_eq!(before.get("ocelli_sessions{state=\"running\"}"), 1.0);
    assert_eq!(before.get("ocelli_subscribers"), 1.0);
    assert_eq!(before.get("ocelli_inference_up"), 1.0);
    for process in ["host", "inference"] {
        let of = |name: &str| before.get(&format!("{name}{{process={process:?}}}"));
        assert!(of("ocelli_process_resident_memory_bytes") > 1e6, "{process}");
        assert!(of("ocelli_process_cpu_seconds_total") > 0.0, "{process}");
    }
    for folder in ["logs", "store"] {
        assert!(before.get(&format!("ocelli_disk_free_bytes{{folder={folder:?}}}")) > 0.0);
    }

    worker.signal(Signal::KILL);
    host.wait_for_session(SESSION, |session| {
        session["restarts"] == 1
            && session["results"].as_f64() > Some(before.session("ocelli_session_results_total"))
    })
    .await;
    let after = Metrics::of(&host).await;
    assert_eq!(after.session("ocelli_session_restarts_total"), 1.0);
    for (series, value) in before.counters() {
        assert!(after.get(series) >= value, "{series}: {} after {value}", after.get(series));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_goes_away_raises_an_alert_which_its_return_clears() {
    let mut cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let alerts = "[alerts]\nsource_down_s = 1\n";
    let host = Ocelli::start(&(camera(SESSION, &cameras.url("/cam"), SLOW) + alerts)).await;
    let mut client = host.client().await;
    client.subscribe(SESSION).await;
    client.detections(SESSION).await;
    assert_eq!(host.session(SESSION).await["alerts"], json!([]));

    cameras.kill();
    let alert = |message: &Value| (message["kind"] == "alert").then(|| message.clone());
    let raised = client.find(alert).await;
    assert_eq!(raised["type"], "event", "{raised}");
    assert_eq!(raised["session"], SESSION, "{raised}");
    assert_eq!(
        (&raised["data"]["alert"], &raised["data"]["raised"]),
        (&json!("source_down"), &json!(true)),
        "{raised}"
    );
    assert_eq!(raised["data"]["threshold"], 1, "{raised}");
    assert!(raised["data"]["value"].as_f64().is_some_and(|seconds| seconds >= 1.0), "{raised}");
    assert!(raised["data"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{raised}");
    assert!(raised.get("frame").is_none(), "it was seen in no frame: {raised}");
    let session = host.session(SESSION).await;
    assert_eq!(
        (&session["alerts"], &session["state"]),
        (&json!(["source_down"]), &json!("degraded")),
        "{session}"
    );
    assert_eq!(raised["deployment"], session["deployment"], "{raised}");
    let metrics = Metrics::of(&host).await;
    assert_eq!(metrics.labelled("ocelli_alert_active", "alert", "source_down"), 1.0);
    assert_eq!(metrics.session("ocelli_session_source_up"), 0.0);
    let line = |line: &str| (line.contains("alert raised") && line.contains(SESSION)).then_some(());
    assert!(host.log().find(line).await.is_some());

    cameras.restart();
    let cleared = client.find(alert).await;
    let data = &cleared["data"];
    assert_eq!(
        (&data["alert"], &data["raised"]),
        (&json!("source_down"), &json!(false)),
        "{cleared}"
    );
    assert_eq!(host.session(SESSION).await["alerts"], json!([]));
    assert_eq!(
        Metrics::of(&host).await.labelled("ocelli_alert_active", "alert", "source_down"),
        0.0
    );
    client.detections(SESSION).await;
    // The host's events and the pipeline's are numbered together.
    let told = client.received().iter().map(|text| serde_json::from_str::<Value>(text).unwrap());
    let numbers: Vec<u64> = told
        .filter(|message| message["type"] == "event")
        .map(|event| event["seq"].as_u64().unwrap())
        .collect();
    let first = numbers.first().copied().unwrap_or_default();
    assert_eq!(numbers, (first..first + numbers.len() as u64).collect::<Vec<_>>());
}
