//! Traces reach a collector as OpenTelemetry has them, and one that takes none stops nothing.

use std::io::Write;
use std::process::{Command, Stdio};

use ocelli_testkit::{HookReceiver, Ocelli, PipelineFolder, Reception, client_python, clip, guest};
use serde_json::Value;

/// A camera of 25 frames a second, without models.
fn camera() -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = \"gate\"\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\n"
    )
}

async fn host(collector: &HookReceiver, more: &str) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let endpoint = format!("http://{}/v1/traces", collector.address);
    let section = format!(
        "[otlp]\nendpoint = {endpoint:?}\nauthorization = \"Bearer hush\"\n{more}\n\
         [deploy]\nprobation_s = 1\n"
    );
    let host = Ocelli::start(&(store.section() + &section + &camera())).await;
    (store, host)
}

/// The spans of all requests, as the protobuf of those who wrote the standard reads them.
fn spans(collector: &HookReceiver) -> Vec<Value> {
    let script = "import sys, json\n\
        from google.protobuf.json_format import MessageToDict\n\
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import \
        ExportTraceServiceRequest\n\
        request = ExportTraceServiceRequest()\n\
        request.ParseFromString(sys.stdin.buffer.read())\n\
        print(json.dumps(MessageToDict(request)))";
    let read = |request: &ocelli_testkit::HookRequest| {
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
        assert_eq!(request.headers["authorization"], "Bearer hush");
        let mut command = Command::new(client_python());
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&request.bytes).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let resource = &told["resourceSpans"][0];
        assert_eq!(attribute(&resource["resource"], "service.name"), "ocelli");
        resource["scopeSpans"][0]["spans"].as_array().unwrap().clone()
    };
    collector.taken().iter().flat_map(read).collect()
}

fn attribute(of: &Value, key: &str) -> String {
    let mut attributes = of["attributes"].as_array().into_iter().flatten();
    let found = attributes.find(|attribute| attribute["key"] == key);
    found.map_or_else(String::new, |it| it["value"]["stringValue"].as_str().unwrap_or("").into())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_and_deployments_are_traced_in_their_steps() {
    let collector = HookReceiver::start().await;
    let (_store, host) = host(&collector, "frames = 1.0").await;
    collector.until("frames", |collector| !collector.taken().is_empty()).await;
    let told = spans(&collector);
    let frame = told.iter().find(|span| span["name"] == "frame").unwrap();
    assert_eq!(attribute(frame, "ocelli.session"), "gate");
    let of_frame = told.iter().filter(|span| span["parentSpanId"] == frame["spanId"]);
    let names: Vec<&str> = of_frame.map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["decode", "wait", "pipeline", "publish"], "without inference");

    let component = ocelli_testkit::tagged(&std::fs::read(guest("changeling")).unwrap(), "two");
    let headers = format!(
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\
         Content-Length: {}",
        component.len()
    );
    let (status, said) = host.send("PUT", "/v1/sessions/gate/pipeline", &headers, &component).await;
    assert_eq!(status, 200, "{said}");
    let mut seen = 0;
    let deployment = loop {
        collector.until("more", |collector| collector.taken().len() > seen).await;
        seen = collector.taken().len();
        let told = spans(&collector);
        // base64 of the trace that the client has named.
        let is_own = |span: &&Value| span["traceId"] == "CvdlGRbNQ92ESOshHIAxnA==";
        let own: Vec<Value> = told.iter().filter(is_own).cloned().collect();
        if own.iter().any(|span| span["name"] == "deployment") {
            break own;
        }
    };
    let whole = deployment.iter().find(|span| span["name"] == "deployment").unwrap();
    assert_eq!(whole["parentSpanId"], "t61rcWkgMzE=");
    assert_eq!(attribute(whole, "ocelli.outcome"), "healthy");
    for step in ["check", "start", "first_result", "probation"] {
        let span = deployment.iter().find(|span| span["name"] == step);
        let span = span.unwrap_or_else(|| panic!("no {step} in {deployment:#?}"));
        assert_eq!(span["parentSpanId"], whole["spanId"], "{step}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_takes_nothing_stops_nothing_and_is_told() {
    let collector = HookReceiver::with(Reception::Answer(503, String::new())).await;
    let (_store, host) = host(&collector, "frames = 1.0\ntimeout_ms = 200").await;
    let mut client = host.client().await;
    client.subscribe("gate").await;
    collector.until("requests", |collector| collector.asked() > 2).await;
    for _ in 0..25 {
        client.detections("gate").await;
    }
    let told = |line: &str| line.contains("the collector takes no spans").then_some(());
    assert!(host.log().find(told).await.is_some());
    let metrics = host.get("/metrics").await;
    let errors = metrics.lines().find_map(|line| line.strip_prefix("ocelli_otlp_errors_total "));
    assert!(errors.unwrap().parse::<f64>().unwrap() >= 2.0);
    collector.set(Reception::Take);
    collector.until("spans again", |collector| !collector.taken().is_empty()).await;
    let told = |line: &str| line.contains("the collector takes spans again").then_some(());
    assert!(host.log().find(told).await.is_some());
}
