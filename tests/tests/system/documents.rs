//! What a running host says beside the documents that it serves.

use boon::{Compiler, Schemas};
use ocelli_testkit::{Ocelli, PipelineFolder, clip, root};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

/// A host with a session `gate` that makes an event with a picture of every fifth frame.
async fn host() -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let source = format!("file:{}", clip("bikes.mp4").display());
    let camera = format!(
        "[[cameras]]\nid = \"gate\"\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\nsettings = {{ every = 5, attach = true }}\n"
    );
    let host = Ocelli::start(&(store.section() + &camera)).await;
    (store, host)
}

/// Holds a value to a schema of a document.
#[track_caller]
fn check(document: &Value, schema: &Value, value: &Value, what: &str) {
    let mut compiler = Compiler::new();
    // Beside the schemas that it refers to.
    let resource = json!({"components": document["components"], "$defs": {"asked": schema}});
    compiler.add_resource("http://document/", resource).unwrap();
    let mut schemas = Schemas::new();
    let schema = compiler.compile("http://document/#/$defs/asked", &mut schemas).unwrap();
    let checked = schemas.validate(value, schema);
    assert!(checked.is_ok(), "{what}: {value}\n{:#}", checked.unwrap_err());
}

/// Holds an answer to what a document says of it.
#[track_caller]
fn check_answer(document: &Value, method: &str, path: &str, status: u16, body: &Value) {
    let operation = &document["paths"][path][method];
    let answer = &operation["responses"][status.to_string()];
    let answer = match answer["$ref"].as_str().and_then(|place| place.strip_prefix('#')) {
        Some(place) => document.pointer(place).unwrap(),
        None => answer,
    };
    let content = answer["content"].as_object();
    let content =
        content.unwrap_or_else(|| panic!("{method} {path}: {status} is not documented: {body}"));
    let json = content.iter().find(|(kind, _)| kind.ends_with("json")).expect("a JSON answer");
    check(document, &json.1["schema"], body, &format!("{method} {path}: {status}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_as_the_http_document_says() {
    let (_store, host) = host().await;
    let document: Value = serde_json::from_str(&host.get("/openapi.json").await).unwrap();
    let mut client = host.client().await;
    client.send(&json!({"type": "subscribe", "session": "gate", "after": 0})).await;
    client.next_of("event").await;
    client.next_of("detections").await;
    let picture = std::fs::read(root().join("tests/faces/collins-1.jpg")).unwrap();
    let (status, job) =
        host.post("/v1/analyze/object-detect?async=1", "image/jpeg", &picture).await;
    let job: Value = serde_json::from_str(&job).unwrap();
    check_answer(&document, "post", "/v1/analyze/{pipeline}", status, &job);
    let job = job["id"].as_str().unwrap();
    let gets = [
        ("/healthz", "/healthz", 200),
        ("/readyz", "/readyz", 200),
        ("/openapi.json", "/openapi.json", 200),
        ("/asyncapi.json", "/asyncapi.json", 200),
        ("/v1/sessions", "/v1/sessions", 200),
        ("/v1/sessions/{id}", "/v1/sessions/gate", 200),
        ("/v1/sessions/{id}", "/v1/sessions/nobody", 404),
        ("/v1/sessions/{id}", "/v1/sessions/%ff", 400),
        ("/v1/sessions/{id}/stats", "/v1/sessions/gate/stats", 200),
        ("/v1/sessions/{id}/stats", "/v1/sessions/nobody/stats", 404),
        ("/v1/sessions/{id}/log", "/v1/sessions/gate/log?lines=5", 200),
        ("/v1/sessions/{id}/log", "/v1/sessions/gate/log?lines=0", 400),
        ("/v1/sessions/{id}/log", "/v1/sessions/nobody/log", 404),
        ("/v1/sessions/{id}/events", "/v1/sessions/gate/events?after=0&limit=10", 200),
        (
            "/v1/sessions/{id}/events",
            "/v1/sessions/gate/events?kind=counted&from=1970-01-01T00:00:00Z",
            200,
        ),
        ("/v1/sessions/{id}/events", "/v1/sessions/gate/events?limit=0", 400),
        ("/v1/sessions/{id}/events", "/v1/sessions/gate/events?after=1000000", 400),
        ("/v1/sessions/{id}/stream", "/v1/sessions/gate/stream?after=1000000", 400),
        ("/v1/sessions/{id}/events", "/v1/sessions/gate/events?since=0", 400),
        ("/v1/sessions/{id}/events", "/v1/sessions/nobody/events", 404),
        ("/v1/sessions/{id}/stream", "/v1/sessions/nobody/stream", 404),
        ("/v1/attachments/{digest}", "/v1/attachments/none", 400),
        ("/v1/events/{id}/clip.mp4", "/v1/events/gate/clip.mp4", 400),
        ("/v1/events/{id}/clip.mp4", "/v1/events/gate:1/clip.mp4", 404),
        ("/v1/sessions/{id}/deployments", "/v1/sessions/gate/deployments", 200),
        ("/v1/sessions/{id}/deployments", "/v1/sessions/gate/deployments?limit=x", 400),
        ("/v1/sessions/{id}/settings", "/v1/sessions/gate/settings", 200),
        ("/v1/sessions/{id}/settings", "/v1/sessions/nobody/settings", 404),
        ("/v1/pipelines", "/v1/pipelines", 200),
        ("/v1/pipelines/{name}/schema", "/v1/pipelines/object-detect/schema", 200),
        ("/v1/pipelines/{name}/schema", "/v1/pipelines/nothing/schema", 404),
        ("/v1/models", "/v1/models", 200),
        ("/v1/jobs", "/v1/jobs", 200),
        ("/v1/jobs/{id}", &format!("/v1/jobs/{job}"), 200),
        ("/v1/jobs/{id}", "/v1/jobs/none", 404),
    ];
    for (path, url, expected) in gets {
        let (status, body) = host.request("GET", url).await;
        assert_eq!(status, expected, "{url}: {body}");
        check_answer(&document, "get", path, status, &serde_json::from_str(&body).unwrap());
    }
    let (status, body) = host.post("/v1/analyze/object-detect", "image/jpeg", &picture).await;
    assert_eq!(status, 200, "{body}");
    check_answer(
        &document,
        "post",
        "/v1/analyze/{pipeline}",
        status,
        &serde_json::from_str(&body).unwrap(),
    );
    for (body, expected) in [
        (json!({"session": "gate"}), 200),
        (json!({"source": "file:no-such-file.mp4"}), 200),
        (json!({"source": "http://camera/"}), 400),
        (json!({"source": "file:a", "session": "gate"}), 400),
        (json!({"session": "nobody"}), 404),
    ] {
        let asked = body.to_string();
        let (status, body) = host.post("/v1/probe", "application/json", asked.as_bytes()).await;
        assert_eq!(status, expected, "{asked}: {body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        check_answer(&document, "post", "/v1/probe", status, &body);
        if asked.contains("gate") && status == 200 {
            assert!(body["picture"].as_str().unwrap().starts_with("data:image/jpeg;base64,/9j/"));
            assert_eq!((&body["codec"], &body["plays"]), (&json!("h264"), &json!(true)));
        }
    }
    let (status, body) = host.post("/v1/analyze/object-detect", "image/jpeg", b"no picture").await;
    check_answer(
        &document,
        "post",
        "/v1/analyze/{pipeline}",
        status,
        &serde_json::from_str(&body).unwrap(),
    );
    // What a deployment is answered, and what one that cannot be.
    let component =
        ocelli_testkit::tagged(&std::fs::read(ocelli_testkit::guest("changeling")).unwrap(), "2");
    for component in [component.as_slice(), b"\0asm\x0d\0\x01\0", b"no component"] {
        let (status, body) = host.deploy("gate", "", component).await;
        check_answer(&document, "put", "/v1/sessions/{id}/pipeline", status, &body);
    }
    let (status, body) = host.request("POST", "/v1/sessions/gate/rollback").await;
    check_answer(
        &document,
        "post",
        "/v1/sessions/{id}/rollback",
        status,
        &serde_json::from_str(&body).unwrap(),
    );
    let (status, body) = host.request("POST", "/v1/sessions/gate/restart").await;
    check_answer(
        &document,
        "post",
        "/v1/sessions/{id}/restart",
        status,
        &serde_json::from_str(&body).unwrap(),
    );
    let (status, body) = host.request("PATCH", "/v1/sessions").await;
    check_answer(&document, "get", "/v1/sessions", status, &serde_json::from_str(&body).unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_as_the_websockets_document_says() {
    let (_store, host) = host().await;
    let document: Value = serde_json::from_str(&host.get("/asyncapi.json").await).unwrap();
    let mut client = host.client().await;
    client.send(&json!({"type": "subscribe", "session": "gate", "after": 0})).await;
    client.next_of("event").await;
    client.next_of("detections").await;
    client.send(&json!({"type": "ping"})).await;
    client.next_of("pong").await;
    client.send(&json!({"type": "query", "session": "gate", "id": 1, "query": {}})).await;
    client.next_of("answer").await;
    for wrong in ["{", r#"{"type":"dance"}"#, r#"{"type":"subscribe","session":"nobody"}"#] {
        client.send_raw(Message::text(wrong)).await;
        client.next_of("error").await;
    }
    client.send(&json!({"type": "subscribe", "session": "gate", "after": 1_000_000})).await;
    client.next_of("error").await;
    host.restart("gate").await;
    client.next_of("session").await;
    client.send(&json!({"type": "unsubscribe", "session": "gate"})).await;
    client.next_of("unsubscribed").await;
    for message in client.received() {
        let message: Value = serde_json::from_str(message).unwrap();
        let kind = message["type"].as_str().unwrap();
        let schema = &document["components"]["messages"][kind]["payload"];
        assert!(schema.is_object(), "{kind} is not documented: {message}");
        check(&document, schema, &message, kind);
    }
}
