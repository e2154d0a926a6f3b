//! The documents beside the routes and messages that there are.

use std::collections::BTreeSet;

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};

use super::*;
use crate::api::message::ClientMessage;
use crate::api::routes::ROUTES;
use crate::event::{
    AttachmentRef, Attribute, Attributes, Clock, Detection, DetectionSource, Detections, Event,
    HostStatus, Latency, PartState, PictureChoice, PictureCodec, ServerMessage, SessionState,
    encode_event,
};

/// Where a document is for the schemas in it.
const PLACE: &str = "http://document/";

/// The schemas of a document, by their places in it.
struct Checker {
    compiler: Compiler,
    schemas: Schemas,
}

impl Checker {
    fn of(document: Value) -> (Value, Self) {
        let mut compiler = Compiler::new();
        compiler.add_resource(PLACE, document.clone()).unwrap();
        (document, Self { compiler, schemas: Schemas::new() })
    }

    fn schema(&mut self, pointer: &str) -> SchemaIndex {
        let place = format!("{PLACE}#{pointer}");
        self.compiler
            .compile(&place, &mut self.schemas)
            .unwrap_or_else(|error| panic!("{pointer}: {error:#}"))
    }

    /// What a schema has against a value.
    fn check(&mut self, pointer: &str, value: &Value) -> Result<(), String> {
        let schema = self.schema(pointer);
        self.schemas.validate(value, schema).map_err(|error| format!("{value}\n{error:#}"))
    }
}

/// The place of something in a document, by its keys.
fn pointer(keys: &[&str]) -> String {
    keys.iter().map(|key| format!("/{}", key.replace('~', "~0").replace('/', "~1"))).collect()
}

fn keys(value: &Value) -> BTreeSet<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

/// All references within a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(key, value)| match value.as_str() {
            Some(place) if key == "$ref" => drop(found.insert(place.to_owned())),
            _ => references(value, found),
        }),
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn a_host_below_a_path_says_so_in_its_documents() {
    let read = |base: &str, document: Value, place, path| -> Value {
        let text = below(document, place, &base.parse().unwrap(), path);
        serde_json::from_slice::<Value>(&text).unwrap().pointer(place).unwrap().clone()
    };
    for (base, server, socket) in [("", "/", "/v1/ws"), ("/cams", "/cams", "/cams/v1/ws")] {
        assert_eq!(read(base, http_document(), "/servers/0/url", ""), server);
        let place = "/channels/ws/address";
        assert_eq!(read(base, websocket_document(), place, "/v1/ws"), socket);
    }
}

#[test]
fn whatever_a_document_refers_to_is_there() {
    for document in [http_document(), websocket_document()] {
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for place in found {
            let place = place.strip_prefix('#').unwrap_or_else(|| panic!("{place} lies elsewhere"));
            assert!(document.pointer(place).is_some(), "there is no {place}");
        }
    }
}

/// The dashboard's types are made from copies in `host/ui/schema`. With
/// `OCELLI_WRITE_DOCUMENTS=1` in the environment this test writes them.
#[test]
fn the_dashboards_types_are_those_of_the_documents() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/ui/schema");
    let documents = [("openapi.json", http_document()), ("asyncapi.json", websocket_document())];
    for (name, document) in documents {
        let path = format!("{folder}/{name}");
        if std::env::var_os("OCELLI_WRITE_DOCUMENTS").is_some() {
            std::fs::write(&path, format!("{document:#}\n")).unwrap();
        }
        let copy: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert!(copy == document, "{path} is old: run this test with OCELLI_WRITE_DOCUMENTS=1");
    }
}

#[test]
fn every_schema_of_the_http_document_is_one() {
    let (document, mut checker) = Checker::of(http_document());
    for name in keys(&document["components"]["schemas"]) {
        checker.schema(&pointer(&["components", "schemas", name]));
    }
}

#[test]
fn every_route_is_in_the_http_document_and_no_other() {
    let document = http_document();
    let paths = document["paths"].as_object().unwrap();
    let documented = paths.iter().flat_map(|(path, methods)| {
        keys(methods)
            .into_iter()
            .map(|method| (method.to_owned(), path.clone()))
            .collect::<Vec<_>>()
    });
    let routes =
        ROUTES.iter().map(|route| (route.method.as_str().to_lowercase(), route.path.to_owned()));
    assert_eq!(routes.collect::<BTreeSet<_>>(), documented.collect());
}

#[test]
fn every_operation_says_how_it_refuses_and_has_a_name_of_its_own() {
    let document = http_document();
    let mut names = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            assert!(names.insert(operation["operationId"].as_str().unwrap()), "{method} {path}");
            let answers = keys(&operation["responses"]);
            let everyone = operation["security"] == json!([]);
            let refusals =
                if everyone { &["403", "405", "429"][..] } else { &["401", "403", "405", "429"] };
            for status in refusals {
                assert!(answers.contains(status), "{method} {path} without {status}");
            }
            // A name in a path may be malformed, and there may be nothing of that name.
            if path.contains('{') {
                assert!(answers.contains("400") && answers.contains("404"), "{method} {path}");
            }
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let in_path = parameters.map(|parameter| {
                let place = parameter["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
                place.map_or(parameter, |place| document.pointer(place).unwrap())
            });
            let in_path = in_path.filter(|parameter| parameter["in"] == "path");
            let in_path: Vec<String> = in_path
                .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
                .collect();
            assert_eq!(in_path.len(), path.matches('{').count(), "{method} {path}: {in_path:?}");
            assert!(in_path.iter().all(|name| path.contains(name)), "{method} {path}: {in_path:?}");
        }
    }
}

#[test]
fn every_answer_of_the_http_document_has_the_id_of_its_request() {
    let document = http_document();
    for methods in document["paths"].as_object().unwrap().values() {
        for operation in methods.as_object().unwrap().values() {
            for (status, answer) in operation["responses"].as_object().unwrap() {
                let place = answer["$ref"].as_str().and_then(|place| place.strip_prefix('#'));
                let answer = place.map_or(answer, |place| document.pointer(place).unwrap());
                assert!(answer["headers"]["X-Request-Id"].is_object(), "{status}: {answer}");
            }
        }
    }
}

#[test]
fn every_problem_is_as_the_http_document_says() {
    use crate::analyze::{AnalysisError, AnalysisErrorKind};
    use crate::api::problem::Problem;
    use axum::http::StatusCode;
    use ocelli_protocol::limit::Limit;

    let (_, mut checker) = Checker::of(http_document());
    let problem =
        Problem::new(StatusCode::NOT_FOUND, "unknown_session", "there is no session \"nobody\"");
    let trapped = AnalysisError::new(AnalysisErrorKind::PipelineTrapped, "it trapped");
    let limited = AnalysisError { limit: Some(Limit::Memory), ..trapped };
    for problem in [problem, limited.into()] {
        let told = serde_json::to_value(&problem).unwrap();
        checker.check(&pointer(&["components", "schemas", "Problem"]), &told).unwrap();
    }
}

#[test]
fn a_decoder_of_each_family_is_as_the_http_document_says() {
    use crate::inference::catalog::ModelDecoder;

    let (_, mut checker) = Checker::of(http_document());
    let place = pointer(&["components", "schemas", "Model", "properties", "decoder"]);
    for table in [
        json!({"family": "yolov5", "output": "a", "classes": 80}),
        json!({"family": "yolov8", "output": "a", "classes": 80}),
        json!({"family": "yolov10", "output": "a"}),
        json!({"family": "yolox", "output": "a", "classes": 80, "strides": [8, 16]}),
        json!({"family": "nanodet", "scores": ["a"], "sides": ["b"], "classes": 80,
            "strides": [8], "bins": 11, "point": 0.5}),
        json!({"family": "detr", "boxes": "a", "logits": "b"}),
        json!({"family": "ssd", "boxes": "a", "scores": "b", "order": "yxyx", "unit": true,
            "first": 1}),
        json!({"family": "classifier", "output": "a", "activation": "softmax"}),
    ] {
        let decoder: ModelDecoder = serde_json::from_value(table.clone()).unwrap();
        assert_eq!(serde_json::to_value(&decoder).unwrap(), table);
        checker.check(&place, &table).unwrap();
    }
    checker.check(&place, &Value::Null).unwrap();
    assert!(checker.check(&place, &json!({"family": "yolov10", "rows": "a"})).is_err());
}

fn found() -> Detection {
    Detection {
        label: "car".into(),
        score: 0.9,
        area: [1.0, 2.5, 30.0, 40.0],
        track: Some(7),
        attributes: Attributes(vec![(
            "colour".into(),
            Attribute { value: "red".into(), score: 0.8 },
        )]),
        embedding: Some(vec![0.5, -0.25]),
    }
}

fn detections() -> Detections {
    let latency_ms =
        Latency { decode: 1.5, wait: 0.0, inference: 20.0, pipeline: 0.5, total: 22.0 };
    Detections {
        frame: 3,
        presentation_ns: -40_000_000,
        time: "2026-11-22T02:16:28.798Z".into(),
        clock: Clock::Camera,
        deployment: "c2247ebd57c7".into(),
        width: 768,
        height: 576,
        detections: vec![found()],
        source: Some(DetectionSource::Flow),
        model_age_ms: Some(300),
        latency_ms,
    }
}

fn event(frame: Option<u64>) -> Event {
    Event {
        time_ns: 1_795_313_788_798_000_000,
        clock: Clock::Camera,
        kind: "entered".into(),
        deployment: "c2247ebd57c7".into(),
        frame,
        detections: vec![found()],
        data: Map::new(),
        attachments: frame.map(|_| picture()).into_iter().collect(),
        clip: frame.is_some(),
    }
}

fn picture() -> AttachmentRef {
    AttachmentRef { digest: "0a".repeat(32), media_type: "image/jpeg", bytes: 2048 }
}

#[test]
fn every_message_of_the_host_is_as_the_websockets_document_says() {
    let (document, mut checker) = Checker::of(websocket_document());
    let (detections, seen, told) = (detections(), event(Some(3)), event(None));
    let (id, answer) = (json!([1, null]), json!({"counts": {}}));
    let session = "display-001;cam-001";
    let now = std::time::SystemTime::now();
    let mut host = HostStatus::new(now);
    host.storage.set(PartState::Failed, Some("full".to_owned()), now);
    host.set_sinks([("redis", (PartState::Degraded, None))], now);
    let gone = ServerMessage::Error {
        code: "events_gone",
        message: "gone",
        session: Some(session),
        id: Some(&id),
        cause: Some("retention"),
        after: Some(1),
        oldest: Some(7),
        newest: Some(9),
    };
    // One of each and more where members may be left out. Whoever adds a message adds it here, too.
    let messages = [
        ServerMessage::Subscribed { session, state: SessionState::Running },
        ServerMessage::Unsubscribed { session },
        ServerMessage::Pong { id: Some(&id) },
        ServerMessage::Pong { id: None },
        ServerMessage::Answer { session, id: Some(&id), answer: &answer },
        ServerMessage::Answer { session, id: None, answer: &answer },
        ServerMessage::Detections { session, detections: &detections },
        ServerMessage::Session { session, state: SessionState::Degraded, reason: Some("gone") },
        ServerMessage::Session { session, state: SessionState::Failed, reason: None },
        ServerMessage::Lagged { session, missed: 4 },
        ServerMessage::Watching {
            session,
            pictures: PictureChoice::All,
            codec: Some(PictureCodec::H265),
            stream: 1,
        },
        ServerMessage::Watching { session, pictures: PictureChoice::None, codec: None, stream: 0 },
        ServerMessage::Host { host: &host },
        ServerMessage::error("bad_json", "not JSON", None),
        gone,
    ];
    let body = |event: &Event| serde_json::to_string(event).unwrap();
    let events = [encode_event(session, 1, &body(&seen)), encode_event(session, 2, &body(&told))];
    let mut kinds = BTreeSet::new();
    for message in &messages {
        match message {
            ServerMessage::Subscribed { .. }
            | ServerMessage::Unsubscribed { .. }
            | ServerMessage::Pong { .. }
            | ServerMessage::Answer { .. }
            | ServerMessage::Detections { .. }
            | ServerMessage::Session { .. }
            | ServerMessage::Lagged { .. }
            | ServerMessage::Watching { .. }
            | ServerMessage::Host { .. }
            | ServerMessage::Error { .. } => {}
        }
    }
    for told in messages.iter().map(ServerMessage::encode).chain(events) {
        let message: Value = serde_json::from_str(&told.text).unwrap();
        assert_eq!(message["type"], told.kind);
        checker
            .check(&pointer(&["components", "messages", told.kind, "payload"]), &message)
            .unwrap();
        kinds.insert(told.kind);
    }
    assert_eq!(
        kinds,
        operation(&document, "tell"),
        "the host's messages are those of the document"
    );
}

/// What an operation of the WebSocket's document sends.
fn operation<'a>(document: &'a Value, name: &str) -> BTreeSet<&'a str> {
    let messages = document["operations"][name]["messages"].as_array().unwrap();
    messages
        .iter()
        .map(|message| message["$ref"].as_str().unwrap().rsplit('/').next().unwrap())
        .collect()
}

#[test]
fn the_examples_of_the_websockets_document_are_what_it_says_and_what_the_host_reads() {
    let (document, mut checker) = Checker::of(websocket_document());
    let (from_clients, from_host) = (operation(&document, "ask"), operation(&document, "tell"));
    let texts: BTreeSet<&str> = from_clients.union(&from_host).copied().collect();
    let all = texts.union(&operation(&document, "show")).copied().collect();
    assert_eq!(keys(&document["components"]["messages"]), all);
    assert_eq!(keys(&document["channels"]["ws"]["messages"]), all);
    for name in texts {
        let examples = document["components"]["messages"][name]["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{name}");
        for example in examples {
            let payload = &example["payload"];
            checker.check(&pointer(&["components", "messages", name, "payload"]), payload).unwrap();
            if from_clients.contains(name) {
                let parsed = ClientMessage::parse(&payload.to_string()).unwrap();
                assert_eq!(of_clients(&parsed), name);
            }
        }
    }
}

/// As [`of_the_host`], of clients.
fn of_clients(message: &ClientMessage) -> &'static str {
    match message {
        ClientMessage::Subscribe(_) => "subscribe",
        ClientMessage::Unsubscribe { .. } => "unsubscribe",
        ClientMessage::Watch { .. } => "watch",
        ClientMessage::Query { .. } => "query",
        ClientMessage::Command { .. } => "command",
        ClientMessage::Ping { .. } => "ping",
    }
}

#[test]
fn what_the_host_refuses_to_read_the_websockets_document_refuses_too() {
    let (_, mut checker) = Checker::of(websocket_document());
    let cases = [
        ("subscribe", json!({"type": "subscribe"})),
        ("subscribe", json!({"type": "subscribe", "session": "a", "detection": false})),
        ("subscribe", json!({"type": "subscribe", "session": "a", "detections": "no"})),
        ("subscribe", json!({"type": "subscribe", "session": "a", "source": "rtsp://h/"})),
        ("subscribe", json!({"type": "subscribe", "session": "a", "settings": {}})),
        ("subscribe", json!({"type": "subscribe", "session": "a", "after": -1})),
        ("subscribe", json!({"type": "subscribe", "session": "", "after": 1})),
        ("unsubscribe", json!({"type": "unsubscribe", "session": ""})),
        ("watch", json!({"type": "watch", "session": "a"})),
        ("watch", json!({"type": "watch", "session": "a", "pictures": "most"})),
        ("query", json!({"type": "query", "session": "a"})),
        ("command", json!({"type": "command", "session": "a"})),
        ("ping", json!({"type": "ping", "session": "a"})),
    ];
    for (name, message) in cases {
        assert!(ClientMessage::parse(&message.to_string()).is_err(), "{message}");
        let checked =
            checker.check(&pointer(&["components", "messages", name, "payload"]), &message);
        assert!(checked.is_err(), "{message}");
    }
}
