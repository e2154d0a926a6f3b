//! Clients that nobody here wrote: a Python library, a browser, curl, and checkers of HTTP APIs and
//! of AsyncAPI documents.

use std::process::Command;

use ocelli_testkit::browser::Browser;
use ocelli_testkit::depth::rounds;
use ocelli_testkit::{
    BrowserPage, ClientProcess, Ocelli, PipelineFolder, client_python, clip, root,
};
use serde_json::Value;

/// A host with a session `gate`, whose pipeline makes an event with a picture of every fifth frame.
/// `server` are further lines of its section.
async fn host(server: &str) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let source = format!("file:{}", clip("bikes.mp4").display());
    let camera = format!(
        "[[cameras]]\nid = \"gate\"\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\nsettings = {{ every = 5, attach = true }}\n"
    );
    let server = format!("[server]\nlisten = \"127.0.0.1:0\"\n{server}\n");
    let host = Ocelli::start(&(server + &store.section() + &camera)).await;
    (store, host)
}

fn is_result(message: &Value) -> bool {
    message["type"] == "detections" && message["detections"][0]["label"] == "object"
}

fn is_event(message: &Value) -> bool {
    message["type"] == "event" && message["kind"] == "counted" && message["attachments"].is_array()
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn pythons_websockets_gets_compressed_results_and_events_from_the_first_on() {
    let (_store, host) = host("").await;
    let script = root().join("tests/clients/subscriber.py");
    let url = format!("ws://{}/v1/ws", host.address());
    let mut client = ClientProcess::start(
        Command::new(client_python()).arg(script).args([&url, "gate"]).args([
            "--after",
            "0",
            "--messages",
            "1000",
        ]),
    );
    let extensions = client.find(|line| json(line)["extensions"].as_str().map(str::to_owned)).await;
    assert!(
        extensions.contains("permessage-deflate"),
        "it asks for compression and gets {extensions:?}"
    );
    assert_eq!(client.find(|line| Some(json(line))).await["type"], "subscribed");
    let first =
        client.find(|line| Some(json(line)).filter(|message| message["type"] == "event")).await;
    assert_eq!(first["seq"], 1, "{first}");
    client.find(|line| Some(json(line)).filter(is_event)).await;
    client.find(|line| Some(json(line)).filter(is_result)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_an_origin_that_is_listed_gets_results_and_events_over_websocket_and_stream() {
    let text = std::fs::read_to_string(root().join("tests/clients/page.html")).unwrap();
    let mut page = BrowserPage::serve(text).await;
    let (_store, host) = host(&format!("origins = [\"{}\"]", page.origin())).await;
    let browser = Browser::start().await;
    let url = format!("{}/?host={}&session=gate", page.origin(), host.address());
    let _window = browser.open(&url).await;
    let mut missing: Vec<(&str, &str)> = ["websocket", "stream"]
        .into_iter()
        .flat_map(|from| [(from, "event"), (from, "detections")])
        .collect();
    while !missing.is_empty() {
        let report = page.report().await;
        let (from, message) = (&report["from"], &report["message"]);
        assert_ne!(message["type"], "closed", "{report}");
        match message["type"].as_str().unwrap() {
            // The host tells of its deployments as well.
            "event" if !is_event(message) => continue,
            "detections" => assert!(is_result(message), "{report}"),
            _ => {}
        }
        missing.retain(|(wanted, kind)| from != wanted || message["type"] != *kind);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_gets_nothing() {
    let text = std::fs::read_to_string(root().join("tests/clients/page.html")).unwrap();
    let mut page = BrowserPage::serve(text).await;
    let (_store, host) = host("origins = [\"https://dash.example\"]").await;
    let browser = Browser::start().await;
    let url = format!("{}/?host={}&session=gate", page.origin(), host.address());
    let _window = browser.open(&url).await;
    let mut closed = Vec::new();
    while closed.len() < 2 {
        let report = page.report().await;
        assert_eq!(report["message"]["type"], "closed", "{report}");
        if !closed.contains(&report["from"]) {
            closed.push(report["from"].clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn curl_streams_results_and_events_and_resumes_after_the_last_that_it_had() {
    let (_store, host) = host("").await;
    let url = format!("http://{}/v1/sessions/gate/stream", host.address());
    let mut curl =
        ClientProcess::start(Command::new("curl").args(["-sSN", &format!("{url}?after=0")]));
    let data = |line: &str| line.strip_prefix("data:").map(|text| json(text.trim()));
    let id = |line: &str| line.strip_prefix("id:").and_then(|id| id.trim().parse::<u64>().ok());
    let first = curl.find(id).await;
    assert_eq!(first, 1);
    curl.find(|line| data(line).filter(is_result)).await;
    let last = curl.find(id).await;
    drop(curl);
    let header = format!("Last-Event-ID: {last}");
    let mut curl = ClientProcess::start(Command::new("curl").args(["-sSN", "-H", &header, &url]));
    let event = curl.find(|line| data(line).filter(|message| message["type"] == "event")).await;
    assert_eq!(event["seq"], last + 1, "{event}");
}

#[tokio::test(flavor = "multi_thread")]
async fn schemathesis_finds_no_fault_of_the_host_and_no_answer_that_is_not_documented() {
    // As fast as it asks; a limit for clients would answer most of it.
    let (_store, host) = host("requests_per_second = 0").await;
    let folder = tempfile::tempdir().unwrap();
    let checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
    let examples = rounds(12).to_string();
    let mut command = Command::new(client_python());
    command
        .args(["-m", "schemathesis.cli", "run", &format!("http://{}/openapi.json", host.address())])
        .args([
            "--checks",
            checks,
            "--seed",
            "6",
            "--max-examples",
            &examples,
            "--no-color",
            "--continue-on-failure",
        ])
        // An answer that takes longer is a fault as well.
        .args(["--request-timeout", "60"])
        // Without end, so that their answers cannot be checked as a whole; curl and the browser read
        // them.
        .args(["--exclude-path", "/v1/sessions/{id}/stream"])
        .args(["--exclude-path", "/v1/stream"])
        .args(["--exclude-path", "/v1/sessions/{id}/mjpeg"])
        // A session that was just restarted has no picture yet: 503, which would count as a fault.
        .args(["--exclude-path", "/v1/sessions/{id}/frame.jpg"])
        // It asks all machines of the network, and waits for them.
        .args(["--exclude-path", "/v1/discover"])
        .env("SCHEMATHESIS_HOOKS", "schemathesis_hooks")
        .env("PYTHONPATH", root().join("tests/clients"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("OCELLI_PICTURE", root().join("tests/faces/collins-1.jpg"))
        .current_dir(folder.path());
    let (well, said) = ClientProcess::start(&mut command).end().await;
    assert!(well, "{said}");
    // The host lives, and so does the camera or nothing: it may have been ended by request.
    assert_eq!(host.get("/healthz").await, r#"{"status":"ok"}"#);
}

#[tokio::test(flavor = "multi_thread")]
async fn asyncapis_own_parser_finds_no_fault_of_the_document_of_messages() {
    let (_store, host) = host("").await;
    let mut node = Command::new("node");
    node.arg(root().join("tests/clients/asyncapi.mjs"));
    node.arg(format!("http://{}/asyncapi.json", host.address()));
    let (well, said) = ClientProcess::start(&mut node).end().await;
    assert!(well, "{said}");
}
