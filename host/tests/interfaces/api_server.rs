//! The API against a real server on a loopback port, with a double in place of the sessions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use ocelli::analyze::Analyses;
use ocelli::api::{Control, Refusal, Server, Timing};
use ocelli::config::AnalyzeConfig;
use ocelli::event::{Clock, Detections, Event, Hub, Latency, PartState, SessionState};
use ocelli::session::{EncodedPicture, PictureError};
use ocelli::source::PictureFeed;
use ocelli_protocol::worker::{PictureWish, RequestKind};
use ocelli_testkit::http::{self, HttpResponse};
use ocelli_testkit::within;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::Client;

const NAME: &str = "display-001;cam/001 ü";

#[derive(Clone)]
struct Double {
    sessions: Arc<Mutex<BTreeMap<String, u64>>>,
    /// Sessions on the source `slow:` are made once this is notified.
    gate: Arc<Notify>,
    analyses: Analyses,
}

impl Control for Double {
    type Status = Value;
    type Models = Value;

    fn models(&self) -> Value {
        json!({"models": [{"name": "eye"}]})
    }

    fn sessions(&self) -> Vec<Value> {
        self.sessions
            .lock()
            .iter()
            .map(|(id, restarts)| json!({"id": id, "restarts": restarts}))
            .collect()
    }

    fn id(status: &Value) -> &str {
        status["id"].as_str().unwrap()
    }

    fn session(&self, id: &str) -> Option<Value> {
        self.sessions().into_iter().find(|session| session["id"] == id)
    }

    async fn picture(
        &self,
        _: &str,
        _: PictureWish,
    ) -> Option<Result<EncodedPicture, PictureError>> {
        None
    }

    fn pictures(&self, _: &str) -> Option<PictureFeed> {
        None
    }

    async fn ensure(
        &self,
        id: &str,
        source: &str,
        _: &str,
        _: Map<String, Value>,
    ) -> Result<(), Refusal> {
        match source {
            "slow:" => self.gate.notified().await,
            "rtsp://camera/" => {}
            _ => {
                return Err(Refusal { code: "source_not_allowed", message: "not this one".into() });
            }
        }
        self.sessions.lock().insert(id.into(), 0);
        Ok(())
    }

    async fn ask(&self, id: &str, kind: RequestKind, request: Value) -> Result<Value, Refusal> {
        self.session(id).ok_or_else(|| Refusal::unknown(id))?;
        if request == json!("hang") {
            std::future::pending::<()>().await;
        }
        Ok(json!({"echo": request, "writes": kind == RequestKind::Command}))
    }

    async fn restart(&self, id: &str) -> Result<(), Refusal> {
        let mut sessions = self.sessions.lock();
        *sessions.get_mut(id).ok_or_else(|| Refusal::unknown(id))? += 1;
        Ok(())
    }

    async fn stop(&self, id: &str) -> Result<(), Refusal> {
        self.sessions.lock().remove(id).map(drop).ok_or_else(|| Refusal::unknown(id))
    }

    fn analyses(&self) -> &Analyses {
        &self.analyses
    }

    async fn metrics(&self) -> String {
        "# TYPE ocelli_build info\nocelli_build_info{version=\"1\"} 1\n# EOF\n".into()
    }
}

no_deployments!(Double);
no_insight!(Double);
no_config!(Double);

struct Host {
    server: Server,
    hub: Hub,
    double: Double,
}

impl Host {
    async fn start() -> Self {
        Self::with(Timing::default()).await
    }

    /// One session, running.
    async fn with(timing: Timing) -> Self {
        let hub = Hub::new(crate::support::events());
        let analyses =
            Analyses::start(&AnalyzeConfig::default(), Box::new(crate::support::NoPipelines));
        let double = Double { sessions: Arc::default(), gate: Arc::default(), analyses };
        double.sessions.lock().insert(NAME.into(), 0);
        hub.publish_state(NAME, SessionState::Running, None);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server::start(
            listener,
            hub.clone(),
            double.clone(),
            timing,
            crate::support::defaults(),
        )
        .unwrap();
        Self { server, hub, double }
    }

    fn address(&self) -> SocketAddr {
        self.server.address()
    }

    async fn http(&self, request: &str) -> HttpResponse {
        self.http_with(request, "").await
    }

    /// `request` is method and path, `headers` are whole lines.
    async fn http_with(&self, request: &str, headers: &str) -> HttpResponse {
        HttpResponse::read(&mut http::request(self.address(), request, headers, b"").await.unwrap())
            .await
    }

    async fn client(&self) -> Client {
        Client::connect(self.address(), &[]).await
    }

    /// Waits until a session has this many subscribers.
    async fn subscribers(&self, session: &str, count: usize) {
        let mut counts = self.hub.watch_subscribers(session);
        within(counts.wait_for(|now| *now == count)).await.unwrap();
    }
}

fn found(frame: u64) -> Detections {
    let latency_ms = Latency { decode: 0.0, wait: 0.0, inference: 0.0, pipeline: 0.0, total: 0.0 };
    Detections {
        frame,
        presentation_ns: 100_000_000,
        time: "2026-01-02T03:04:05.678Z".into(),
        clock: Clock::Host,
        deployment: "0a1b".into(),
        width: 4,
        height: 3,
        detections: vec![],
        source: None,
        model_age_ms: None,
        latency_ms,
    }
}

fn happened(size: usize) -> Event {
    Event {
        // 2026-01-02T03:04:05.678Z.
        time_ns: 1_767_323_045_678_000_000,
        clock: Clock::Host,
        kind: "x".repeat(size),
        deployment: "0a1b".into(),
        frame: Some(1),
        detections: vec![],
        data: Map::new(),
        attachments: vec![],
        clip: false,
    }
}

#[tokio::test]
async fn health_is_at_once_and_readiness_when_the_cameras_have_started() {
    let host = Host::start().await;
    let health = host.http("GET /healthz").await;
    assert_eq!((health.status, health.body), (200, json!({"status": "ok"})));
    host.http("GET /readyz").await.assert_problem(503, "starting");
    host.server.set_ready();
    let ready = host.http("GET /readyz").await;
    assert_eq!((ready.status, &ready.body["status"]), (200, &json!("ready")));
    assert_eq!(ready.body["host"]["storage"]["state"], "ok");
    let fail = |storage, inference| {
        host.hub.update_host(|host| {
            let now = std::time::SystemTime::now();
            host.storage.set(storage, Some("full".to_owned()), now);
            host.inference.set(inference, Some("no process runs models".to_owned()), now);
        });
    };
    fail(PartState::Failed, PartState::Ok);
    let degraded = host.http("GET /readyz").await;
    assert_eq!((degraded.status, &degraded.body["status"]), (200, &json!("degraded")));
    assert_eq!(degraded.body["host"]["storage"]["reason"], "full");
    let mut client = host.client().await;
    assert_eq!(client.next().await.unwrap()["type"], "host", "a client hears of it first of all");
    fail(PartState::Ok, PartState::Failed);
    host.http("GET /readyz").await.assert_problem(503, "inference_failed");
}

#[tokio::test]
async fn models_are_listed() {
    let list = Host::start().await.http("GET /v1/models").await;
    assert_eq!((list.status, list.body), (200, json!({"models": [{"name": "eye"}]})));
}

#[tokio::test]
async fn sessions_are_listed_shown_restarted_and_ended_whatever_their_names_hold() {
    let host = Host::start().await;
    let list = host.http("GET /v1/sessions").await;
    assert_eq!((list.status, list.body), (200, json!({"sessions": [{"id": NAME, "restarts": 0}]})));
    let path = "/v1/sessions/display-001;cam%2F001%20%C3%BC";
    assert_eq!(host.http(&format!("GET {path}")).await.body["id"], NAME);
    let restarted = host.http(&format!("POST {path}/restart")).await;
    assert_eq!((restarted.status, &restarted.body["restarts"]), (202, &json!(1)));
    assert_eq!(host.http(&format!("DELETE {path}")).await.status, 204);
    for request in [format!("GET {path}"), format!("POST {path}/restart"), format!("DELETE {path}")]
    {
        host.http(&request).await.assert_problem(404, "unknown_session");
    }
}

#[tokio::test]
async fn metrics_come_in_the_format_that_the_client_wants() {
    let host = Host::start().await;
    let open = "application/openmetrics-text";
    let prometheus = format!("{open};version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1");
    for (accept, is_open) in [
        (open, true),
        (prometheus.as_str(), true),
        ("", false),
        ("*/*", false),
        ("text/plain; version=0.0.4", false),
        ("application/openmetrics-text;q=0.1, text/plain", false),
        ("application/openmetrics-text;q=0", false),
    ] {
        let accept =
            if accept.is_empty() { String::new() } else { format!("Accept: {accept}\r\n") };
        let metrics = host.http_with("GET /metrics", &accept).await;
        assert_eq!(metrics.status, 200);
        let kind = if is_open {
            "application/openmetrics-text; version=1.0.0; charset=utf-8"
        } else {
            "text/plain; version=0.0.4; charset=utf-8"
        };
        assert!(metrics.head.contains(&format!("content-type: {kind}")), "{accept}: {metrics:?}");
        assert_eq!(metrics.text.ends_with("# EOF\n"), is_open, "{accept}: {metrics:?}");
        assert!(metrics.text.contains("# TYPE ocelli_"), "{metrics:?}");
    }
}

#[tokio::test]
async fn what_cannot_be_answered_is_a_problem_of_rfc_9457() {
    let host = Host::start().await;
    host.http("GET /v1/nothing").await.assert_problem(404, "unknown_path");
    let wrong = host.http("PUT /v1/sessions").await;
    wrong.assert_problem(405, "wrong_method");
    assert!(wrong.head.contains("allow: get"), "{wrong:?}");
    host.http("GET /v1/sessions/%FF").await.assert_problem(400, "bad_path");
    let plain = host.http("GET /v1/ws").await;
    plain.assert_problem(426, "not_a_websocket");
    assert_eq!(plain.header("upgrade"), "websocket");
    assert!(plain.text.contains("a reverse proxy in front"), "{plain:?}");
}

#[tokio::test]
async fn a_page_of_another_origin_gets_neither_a_socket_nor_a_restart() {
    let host = Host::start().await;
    let evil = "Origin: https://evil.example\r\n";
    host.http_with("POST /v1/sessions/x/restart", evil).await.assert_problem(403, "foreign_origin");
    let mut request = format!("ws://{}/v1/ws", host.address()).into_client_request().unwrap();
    request.headers_mut().insert("origin", "https://evil.example".parse().unwrap());
    let refused = within(tokio_tungstenite::connect_async(request)).await.unwrap_err();
    assert!(refused.to_string().contains("403"), "{refused}");
    let own = format!("Origin: http://{}\r\n", host.address());
    assert_eq!(host.http_with("GET /v1/sessions", &own).await.status, 200);
}

#[tokio::test]
async fn a_subscriber_gets_the_state_and_then_everything_in_order() {
    let host = Host::start().await;
    let mut client = host.client().await;
    let subscribed = client.ask(json!({"type": "subscribe", "session": NAME})).await;
    assert_eq!(subscribed, json!({"type": "subscribed", "session": NAME, "state": "running"}));
    for frame in 0..50 {
        host.hub.publish_detections(NAME, &found(frame));
        host.hub.publish_event(NAME, happened(1));
        host.hub.events().flush().await.unwrap();
    }
    host.hub.publish_state(NAME, SessionState::Degraded, Some("no pictures".into()));
    for frame in 0..50 {
        let detections = client.next().await.unwrap();
        assert_eq!(
            (&detections["type"], &detections["frame"]),
            (&json!("detections"), &json!(frame))
        );
        let event = client.next().await.unwrap();
        assert_eq!((&event["type"], &event["seq"]), (&json!("event"), &json!(frame + 1)));
    }
    let state = client.next().await.unwrap();
    assert_eq!(
        state,
        json!({"type": "session", "session": NAME, "state": "degraded", "reason": "no pictures"})
    );
    let unsubscribed = client.ask(json!({"type": "unsubscribe", "session": NAME})).await;
    assert_eq!(unsubscribed, json!({"type": "unsubscribed", "session": NAME}));
    assert_eq!(host.hub.subscriber_count(NAME), 0);
    host.hub.publish_detections(NAME, &found(99));
    assert_eq!(client.ask(json!({"type": "ping"})).await, json!({"type": "pong"}));
}

#[tokio::test]
async fn events_alone_come_to_whoever_wants_no_detections() {
    let host = Host::start().await;
    let mut client = host.client().await;
    client.ask(json!({"type": "subscribe", "session": NAME, "detections": false})).await;
    host.hub.publish_detections(NAME, &found(1));
    host.hub.publish_event(NAME, happened(1));
    assert_eq!(client.next().await.unwrap()["type"], "event");
}

#[tokio::test]
async fn what_a_client_gets_wrong_is_told_by_code_and_the_socket_stays() {
    let host = Host::start().await;
    let mut client = host.client().await;
    let cases = [
        ("{".to_owned(), "bad_json", None),
        ("[]".to_owned(), "bad_message", None),
        (json!({"type": "dance", "session": "a"}).to_string(), "unknown_type", Some("a")),
        (
            json!({"type": "subscribe", "session": "a", "sauce": "x"}).to_string(),
            "bad_message",
            Some("a"),
        ),
        (
            json!({"type": "subscribe", "session": "nobody"}).to_string(),
            "unknown_session",
            Some("nobody"),
        ),
        (
            json!({"type": "subscribe", "session": NAME, "after": 3}).to_string(),
            "after_ahead",
            Some(NAME),
        ),
        (
            json!({"type": "command", "session": "nobody", "command": {}}).to_string(),
            "unknown_session",
            Some("nobody"),
        ),
        (" ".repeat((64 << 10) + 1), "too_large", None),
    ];
    for (text, code, session) in cases {
        let answer = client.ask(&text).await;
        assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
        assert_eq!(
            answer.get("session"),
            session.map(|session| json!(session)).as_ref(),
            "{answer}"
        );
        assert!(!answer["message"].as_str().unwrap().is_empty());
    }
    within(client.0.send(Message::binary(vec![1, 2, 3]))).await.unwrap();
    assert_eq!(client.next().await.unwrap()["code"], "unsupported_binary");
    assert_eq!(host.hub.subscriber_count(NAME), 0);
    client.subscribe(NAME).await;
}

#[tokio::test]
async fn a_message_far_beyond_the_bound_closes_the_socket_with_the_reason() {
    let host = Host::start().await;
    let mut client = host.client().await;
    client.subscribe(NAME).await;
    client.say(" ".repeat(300 << 10)).await;
    let error = client.next().await.unwrap();
    assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("too_large")));
    assert_eq!(client.next().await, Err(1009));
    host.subscribers(NAME, 0).await;
}

#[tokio::test]
async fn a_session_is_made_for_a_subscriber_or_refused_with_the_cause() {
    let host = Host::start().await;
    let mut client = host.client().await;
    let make = |source| json!({"type": "subscribe", "session": "mine", "source": source, "pipeline": "p", "settings": {}});
    let refused = client.ask(make("ftp://camera/")).await;
    let expected = json!({"type": "error", "code": "session_refused", "message": "not this one", "session": "mine",
                          "cause": "source_not_allowed"});
    assert_eq!(refused, expected);
    assert_eq!(host.hub.subscriber_count("mine"), 0);
    let made = client.ask(make("rtsp://camera/")).await;
    assert_eq!(made, json!({"type": "subscribed", "session": "mine", "state": "starting"}));
    host.hub.publish_state("mine", SessionState::Running, None);
    assert_eq!(client.next().await.unwrap()["state"], "running");
    assert_eq!(host.hub.subscriber_count("mine"), 1);
}

#[tokio::test]
async fn while_a_session_is_made_its_maker_counts_and_pings_are_answered() {
    let host = Host::start().await;
    let make = json!({"type": "subscribe", "session": "mine", "source": "slow:", "pipeline": "p"});
    let mut client = host.client().await;
    client.say(&make).await;
    assert_eq!(client.ask(json!({"type": "ping"})).await["type"], "pong");
    host.subscribers("mine", 1).await;
    host.double.gate.notify_one();
    assert_eq!(client.next().await.unwrap()["type"], "subscribed");
    host.subscribers("mine", 1).await;

    // Whoever goes away meanwhile does not break the making off, and is no subscriber afterwards.
    let mut gone = host.client().await;
    gone.say(json!({"type": "subscribe", "session": "theirs", "source": "slow:", "pipeline": "p"}))
        .await;
    host.subscribers("theirs", 1).await;
    drop(gone);
    host.double.gate.notify_one();
    host.subscribers("theirs", 0).await;
    assert!(host.double.session("theirs").is_some());
}

#[tokio::test]
async fn queries_and_commands_are_answered_and_one_that_hangs_holds_nobody_up() {
    let host = Host::start().await;
    let mut client = host.client().await;
    client.say(json!({"type": "command", "session": NAME, "command": "hang"})).await;
    let answer = client
        .ask(json!({"type": "command", "session": NAME, "id": "q7", "command": {"count": 1}}))
        .await;
    let answer_of = |writes: bool| {
        json!({"type": "answer", "session": NAME, "id": "q7",
            "answer": {"echo": {"count": 1}, "writes": writes}})
    };
    assert_eq!(answer, answer_of(true));
    let answer = client
        .ask(json!({"type": "query", "session": NAME, "id": "q7", "query": {"count": 1}}))
        .await;
    assert_eq!(answer, answer_of(false));
    let hang = json!({"type": "query", "session": NAME, "query": "hang"});
    for _ in 0..16 {
        client.say(&hang).await;
    }
    assert_eq!(client.next().await.unwrap()["code"], "too_many_requests");
    client.subscribe(NAME).await;
}

#[tokio::test]
async fn a_pipeline_is_asked_over_http_as_on_a_websocket() {
    let host = Host::start().await;
    let path = |what: &str| format!("POST /v1/sessions/display-001%3Bcam%2F001%20%C3%BC/{what}");
    let open = async |what: &str, body: &[u8]| {
        let length = format!("Content-Length: {}\r\n", body.len());
        http::request(host.address(), &path(what), &length, body).await.unwrap()
    };
    let send =
        async |what: &str, body: &[u8]| HttpResponse::read(&mut open(what, body).await).await;
    for (what, writes) in [("query", false), ("command", true)] {
        let answer = send(what, br#"{"count": 1}"#).await;
        let echo = json!({"echo": {"count": 1}, "writes": writes});
        assert_eq!((answer.status, answer.body), (200, json!({"session": NAME, "answer": echo})));
        send(what, b"{").await.assert_problem(400, "bad_json");
        send(what, b"").await.assert_problem(400, "bad_json");
        let long = format!("\"{}\"", "x".repeat(64 << 10));
        send(what, long.as_bytes()).await.assert_problem(413, "too_large");
    }
    let nobody = "POST /v1/sessions/nobody/query";
    let mut nobody =
        http::request(host.address(), nobody, "Content-Length: 1\r\n", b"1").await.unwrap();
    HttpResponse::read(&mut nobody).await.assert_problem(404, "unknown_session");

    // One caller has so many, and those of a client that goes away make room.
    let mut waiting = Vec::new();
    for _ in 0..16 {
        waiting.push(open("query", b"\"hang\"").await);
    }
    let refused = async || send("query", b"1").await.body["code"] == "too_many_requests";
    within(async {
        while !refused().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(waiting);
    within(async {
        while refused().await {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_socket_that_ends_ends_its_subscriptions() {
    let host = Host::start().await;
    let (mut polite, mut abrupt) = (host.client().await, host.client().await);
    polite.subscribe(NAME).await;
    abrupt.subscribe(NAME).await;
    assert_eq!(host.hub.subscriber_count(NAME), 2);
    drop(abrupt);
    host.subscribers(NAME, 1).await;
    within(polite.0.close(None)).await.unwrap();
    while let Some(Ok(_)) = within(polite.0.next()).await {}
    host.subscribers(NAME, 0).await;
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_takes_nothing_from_another() {
    let host = Host::with(Timing { send: Duration::from_millis(500), ..Timing::default() }).await;
    let mut never = host.client().await;
    never.subscribe(NAME).await;
    let mut reader = host.client().await;
    reader.subscribe(NAME).await;
    let mut count = host.hub.watch_subscribers(NAME);
    let mut expected = 0;
    // Each message is read by the one before the next is sent; the other's fill the system's
    // buffers, then its queue.
    within(async {
        while *count.borrow_and_update() == 2 {
            expected += 1;
            host.hub.publish_event(NAME, happened(16 << 10));
            assert_eq!(reader.next().await.unwrap()["seq"], expected);
        }
    })
    .await;
    host.hub.publish_event(NAME, happened(1));
    assert_eq!(reader.next().await.unwrap()["seq"], expected + 1);
    drop(never);
}

/// A client that shakes hands and from then on neither answers a ping nor closes.
#[tokio::test]
async fn a_client_that_answers_no_ping_is_told_and_closed() {
    let timing = Timing {
        ping: Duration::from_millis(50),
        silence: Duration::from_secs(2),
        ..Timing::default()
    };
    let host = Host::with(timing).await;
    // One that answers them, as a library does by itself while it reads, stays.
    let mut alive = host.client().await;
    alive.subscribe(NAME).await;
    let mut pinged = async || {
        let message = within(alive.0.next()).await.unwrap().unwrap();
        assert!(message.is_ping(), "{message:?}");
    };
    let mut dead = TcpStream::connect(host.address()).await.unwrap();
    let request = format!(
        "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: \
            websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        host.address()
    );
    dead.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    let answering = async {
        loop {
            pinged().await;
        }
    };
    tokio::select! {
        closed = within(dead.read_to_end(&mut all)) => drop(closed.unwrap()),
        () = answering => {}
    }
    let text = String::from_utf8_lossy(&all);
    assert!(text.starts_with("HTTP/1.1 101"), "{text}");
    assert!(text.contains(r#"{"type":"error","code":"silent""#), "{text}");

    for _ in 0..20 {
        pinged().await;
    }
    assert_eq!(host.hub.subscriber_count(NAME), 1);
}

#[tokio::test]
async fn a_stop_is_told_to_every_subscriber_behind_what_waits_and_refuses_newcomers() {
    let host = Host::start().await;
    let mut clients = [host.client().await, host.client().await];
    for client in &mut clients {
        client.subscribe(NAME).await;
    }
    host.hub.publish_event(NAME, happened(1));
    host.hub.events().flush().await.unwrap();
    let address = host.address();
    let stopping = tokio::spawn(host.server.stop());
    for client in &mut clients {
        assert_eq!(client.next().await.unwrap()["type"], "event");
        let error = client.next().await.unwrap();
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("shutting_down")));
        assert_eq!(client.next().await, Err(1001));
    }
    drop(clients);
    within(stopping).await.unwrap();
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_stop_does_not_wait_for_a_client_that_does_not_read() {
    let host =
        Host::with(Timing { farewell: Duration::from_millis(200), ..Timing::default() }).await;
    let mut never = host.client().await;
    never.subscribe(NAME).await;
    (0..500).for_each(|_| {
        host.hub.publish_event(NAME, happened(16 << 10));
    });
    within(host.server.stop()).await;
    drop(never);
}
