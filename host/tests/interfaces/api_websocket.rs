//! WebSockets and streams against a real server: compression, resuming, who hears what, and clients
//! that misbehave.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use futures_util::{SinkExt, StreamExt};
use ocelli::analyze::Analyses;
use ocelli::api::{Control, Refusal, Server, Timing};
use ocelli::config::{AnalyzeConfig, Config};
use ocelli::event::{Attributes, Clock, Detection, Detections, Event, Hub, Latency, SessionState};
use ocelli::session::{EncodedPicture, PictureError};
use ocelli::source::{PictureFeed, PictureFeedOwner};
use ocelli_protocol::worker::{PictureWish, RequestKind};
use ocelli_testkit::depth::rounds;
use ocelli_testkit::http::{self, EventStream};
use ocelli_testkit::within;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::Message;
use tungstenite::protocol::frame::FrameHeader;

use crate::support::Client;

mod all_sessions;
mod pictures;

/// The sessions that there are.
const GATE: &str = "gate";
const YARD: &str = "yard";

/// How a browser offers compression.
const DEFLATE: &str = "permessage-deflate; client_max_window_bits";

#[derive(Clone)]
struct Double {
    sessions: Arc<Mutex<BTreeMap<String, Value>>>,
    /// Of the sessions with pictures.
    pictures: Arc<Mutex<BTreeMap<String, PictureFeedOwner>>>,
    /// The picture of each session for people.
    shown: Arc<Mutex<Option<EncodedPicture>>>,
    analyses: Analyses,
}

impl Control for Double {
    type Status = Value;
    type Models = Value;

    fn models(&self) -> Value {
        Value::Null
    }

    fn sessions(&self) -> Vec<Value> {
        self.sessions.lock().values().cloned().collect()
    }

    fn id(status: &Value) -> &str {
        status["id"].as_str().unwrap()
    }

    fn session(&self, id: &str) -> Option<Value> {
        self.sessions.lock().get(id).cloned()
    }

    async fn picture(
        &self,
        id: &str,
        wish: PictureWish,
    ) -> Option<Result<EncodedPicture, PictureError>> {
        let shown = self.shown.lock().clone();
        self.session(id).map(|_| {
            let mut picture = shown.ok_or(PictureError::None)?;
            let said = format!("{:?} {}", wish.width, wish.boxes);
            picture.jpeg = [&picture.jpeg[..], said.as_bytes()].concat().into();
            Ok(picture)
        })
    }

    fn pictures(&self, id: &str) -> Option<PictureFeed> {
        Some(self.pictures.lock().get(id)?.feed())
    }

    async fn ensure(
        &self,
        id: &str,
        _: &str,
        _: &str,
        _: Map<String, Value>,
    ) -> Result<(), Refusal> {
        self.sessions.lock().insert(id.into(), json!({"id": id}));
        Ok(())
    }

    async fn ask(&self, id: &str, _: RequestKind, request: Value) -> Result<Value, Refusal> {
        self.session(id).map(|_| json!({"echo": request})).ok_or_else(|| Refusal::unknown(id))
    }

    async fn restart(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    async fn stop(&self, _: &str) -> Result<(), Refusal> {
        Ok(())
    }

    fn analyses(&self) -> &Analyses {
        &self.analyses
    }

    async fn metrics(&self) -> String {
        String::new()
    }
}

no_deployments!(Double);
no_insight!(Double);
no_config!(Double);

struct Host {
    server: Server,
    hub: Hub,
    double: Double,
    config: watch::Sender<Arc<Config>>,
}

/// As many connections and requests as a test makes; `tokens` as the config has them.
fn config(tokens: Value) -> Arc<Config> {
    let mut config = Config::default();
    config.server.requests_per_second = 0;
    config.server.tokens = serde_json::from_value(tokens).unwrap();
    Arc::new(config)
}

impl Host {
    async fn start() -> Self {
        Self::with(Timing::default(), json!([])).await
    }

    async fn with(timing: Timing, tokens: Value) -> Self {
        let hub = Hub::new(crate::support::events());
        let analyses =
            Analyses::start(&AnalyzeConfig::default(), Box::new(crate::support::NoPipelines));
        let double = Double {
            sessions: Arc::default(),
            pictures: Arc::default(),
            shown: Arc::default(),
            analyses,
        };
        for session in [GATE, YARD] {
            double.sessions.lock().insert(session.into(), json!({"id": session}));
            hub.publish_state(session, SessionState::Running, None);
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = watch::Sender::new(config(tokens));
        let server =
            Server::start(listener, hub.clone(), double.clone(), timing, config.subscribe())
                .unwrap();
        Self { server, hub, double, config }
    }

    async fn client(&self) -> Client {
        self.client_with(&[]).await
    }

    async fn client_with(&self, headers: &[(&'static str, &str)]) -> Client {
        Client::connect(self.server.address(), headers).await
    }

    /// A connection after the handshake, and the head of the answer.
    async fn raw(&self, headers: &str) -> (TcpStream, String) {
        let mut stream = TcpStream::connect(self.server.address()).await.unwrap();
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: {}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: \
                websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: \
             dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n",
            self.server.address()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(within(stream.read_u8()).await.unwrap());
        }
        (stream, String::from_utf8(answer).unwrap())
    }

    /// The answer to a request, until the connection is closed.
    async fn get(&self, path: &str, headers: &str) -> String {
        let mut stream = self.ask(path, headers).await;
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    }

    async fn ask(&self, path: &str, headers: &str) -> TcpStream {
        http::request(self.server.address(), &format!("GET {path}"), headers, b"").await.unwrap()
    }

    async fn happens(&self, session: &str, times: usize) {
        for _ in 0..times {
            self.hub.publish_event(session, happened());
        }
        within(self.hub.events().flush()).await.unwrap();
    }
}

fn happened() -> Event {
    Event {
        // 2026-01-02T03:04:05.678Z.
        time_ns: 1_767_323_045_678_000_000,
        clock: Clock::Host,
        kind: "entered".into(),
        deployment: "0a1b".into(),
        frame: Some(1),
        detections: vec![],
        data: Map::new(),
        attachments: vec![],
        clip: false,
    }
}

/// A frame with this many objects.
fn found(frame: u64, objects: usize) -> Detections {
    let object = Detection {
        label: "person".into(),
        score: 0.5,
        area: [1.0, 2.0, 3.0, 4.0],
        track: Some(1),
        attributes: Attributes::default(),
        embedding: None,
    };
    Detections {
        frame,
        presentation_ns: 100_000_000,
        time: "2026-01-02T03:04:05.678Z".into(),
        clock: Clock::Host,
        deployment: "0a1b".into(),
        width: 4,
        height: 3,
        detections: vec![object; objects],
        source: None,
        model_age_ms: None,
        latency_ms: Latency { decode: 0.0, wait: 0.0, inference: 0.0, pipeline: 0.0, total: 0.0 },
    }
}

/// A client's frame: `first` has the bits and the opcode.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x5a, 0x0f, 0xc3, 0x99];
    let mut bytes = vec![first];
    match payload.len() {
        short @ ..126 => bytes.push(0x80 | u8::try_from(short).unwrap()),
        middle @ ..0x1_0000 => {
            bytes.push(0x80 | 126);
            bytes.extend(u16::try_from(middle).unwrap().to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend((long as u64).to_be_bytes());
        }
    }
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    bytes
}

/// What the host sends: first byte and payload, unpacked where it was compressed.
async fn read_frame(stream: &mut TcpStream) -> Option<(u8, Vec<u8>)> {
    let first = within(stream.read_u8()).await.ok()?;
    let length = match stream.read_u8().await.unwrap() {
        126 => u64::from(stream.read_u16().await.unwrap()),
        127 => stream.read_u64().await.unwrap(),
        short => u64::from(short),
    };
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    within(stream.read_exact(&mut payload)).await.unwrap();
    if first & 0x40 != 0 {
        payload = unpacked(&payload);
    }
    Some((first, payload))
}

fn packed(plain: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::default(), false);
    let mut packed = Vec::with_capacity(plain.len() + 100);
    compress.compress_vec(plain, &mut packed, FlushCompress::Sync).unwrap();
    assert!(packed.ends_with(&[0, 0, 0xff, 0xff]));
    packed.truncate(packed.len() - 4);
    packed
}

fn unpacked(packed: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(1 << 20);
    let packed = [packed, &[0, 0, 0xff, 0xff]].concat();
    Decompress::new(false).decompress_vec(&packed, &mut plain, FlushDecompress::Sync).unwrap();
    plain
}

fn text((first, payload): (u8, Vec<u8>)) -> Value {
    assert_eq!(first & 0x0f, 1, "{first:#x}");
    serde_json::from_slice(&payload).unwrap()
}

fn subscribe(session: &str) -> Value {
    json!({"type": "subscribe", "session": session})
}

#[tokio::test]
async fn messages_are_compressed_for_whoever_asks_and_read_compressed() {
    let host = Host::start().await;
    let (mut stream, head) = host.raw(&format!("Sec-WebSocket-Extensions: {DEFLATE}\r\n")).await;
    let chosen = "sec-websocket-extensions: permessage-deflate; server_no_context_takeover; \
        client_no_context_takeover\r\n";
    assert!(head.contains(chosen), "{head}");
    stream.write_all(&frame(0xc1, &packed(subscribe(GATE).to_string().as_bytes()))).await.unwrap();
    let subscribed = read_frame(&mut stream).await.unwrap();
    assert_eq!(subscribed.0, 0x81, "a short message goes as it is");
    assert_eq!(text(subscribed)["type"], "subscribed");
    for number in 0..3 {
        host.hub.publish_detections(GATE, &found(number, 50));
        let detections = read_frame(&mut stream).await.unwrap();
        assert_eq!(detections.0, 0xc1);
        assert_eq!(text(detections)["frame"], number);
    }
    // Far more than is read, in far fewer bytes.
    let bomb = packed(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 128 << 10, "{}", bomb.len());
    stream.write_all(&frame(0xc1, &bomb)).await.unwrap();
    assert_eq!(text(read_frame(&mut stream).await.unwrap())["code"], "too_large");
    let (first, close) = read_frame(&mut stream).await.unwrap();
    assert_eq!((first, &close[..2]), (0x88, &1009u16.to_be_bytes()[..]));

    let (mut plain, head) = host.raw("").await;
    assert!(!head.contains("extensions"), "{head}");
    plain.write_all(&frame(0x81, subscribe(GATE).to_string().as_bytes())).await.unwrap();
    read_frame(&mut plain).await.unwrap();
    host.hub.publish_detections(GATE, &found(9, 50));
    assert_eq!(read_frame(&mut plain).await.unwrap().0, 0x81);
}

#[tokio::test]
async fn a_large_message_comes_whole_and_in_its_place() {
    let host = Host::start().await;
    let mut client = host.client().await;
    client.ask(subscribe(GATE)).await;
    for (number, objects) in [(1, 1), (2, 5000), (3, 1), (4, 20_000), (5, 2)] {
        host.hub.publish_detections(GATE, &found(number, objects));
    }
    for (number, objects) in [(1, 1), (2, 5000), (3, 1), (4, 20_000), (5, 2)] {
        let message = client.next().await.unwrap();
        assert_eq!(
            (&message["frame"], message["detections"].as_array().unwrap().len()),
            (&json!(number), objects)
        );
    }
}

#[tokio::test]
async fn the_subprotocol_is_chosen_and_a_token_among_them_is_not_repeated() {
    let host = Host::start().await;
    let (_, head) = host.raw("Sec-WebSocket-Protocol: ocelli.bearer.secret, ocelli.v1\r\n").await;
    assert!(
        head.contains("sec-websocket-protocol: ocelli.v1\r\n") && !head.contains("secret"),
        "{head}"
    );
    let (_, head) = host.raw("Sec-WebSocket-Protocol: ocelli.bearer.secret\r\n").await;
    assert!(!head.contains("sec-websocket-protocol"), "{head}");
}

#[tokio::test]
async fn whoever_says_what_it_has_gets_what_follows_and_then_what_happens() {
    let host = Host::start().await;
    host.happens(GATE, 5).await;
    let mut client = host.client().await;
    let resumed = client.ask(json!({"type": "subscribe", "session": GATE, "after": 2})).await;
    assert_eq!(resumed["type"], "subscribed");
    host.happens(GATE, 2).await;
    for seq in 3..=7 {
        assert_eq!(client.event().await, (GATE.into(), seq));
    }
    let ahead = client.ask(json!({"type": "subscribe", "session": YARD, "after": 99})).await;
    assert_eq!(
        (&ahead["code"], &ahead["session"]),
        (&json!("after_ahead"), &json!(YARD)),
        "{ahead}"
    );
    assert_eq!((&ahead["after"], &ahead["newest"]), (&json!(99), &json!(0)), "{ahead}");
    let mut other = host.client().await;
    let ahead = other.ask(json!({"type": "subscribe", "session": GATE, "after": 8})).await;
    assert_eq!(
        (&ahead["code"], &ahead["oldest"], &ahead["newest"]),
        (&json!("after_ahead"), &json!(1), &json!(7))
    );
    assert_eq!(host.hub.subscriber_count(GATE), 1, "no subscription came of it");
}

#[tokio::test]
async fn every_session_can_be_listened_to_at_once_and_each_resumed() {
    let host = Host::start().await;
    host.happens(GATE, 3).await;
    host.happens(YARD, 3).await;
    let mut client = host.client().await;
    let ahead =
        client.ask(json!({"type": "subscribe", "session": "*", "after": {GATE: 1, YARD: 4}})).await;
    assert_eq!(
        (&ahead["code"], &ahead["session"]),
        (&json!("after_ahead"), &json!(YARD)),
        "{ahead}"
    );
    let subscribed =
        client.ask(json!({"type": "subscribe", "session": "*", "after": {GATE: 1}})).await;
    assert_eq!((&subscribed["type"], &subscribed["session"]), (&json!("subscribed"), &json!("*")));
    let mut events = vec![client.event().await, client.event().await];
    host.happens(YARD, 1).await;
    events.push(client.event().await);
    assert_eq!(events, [(GATE.into(), 2), (GATE.into(), 3), (YARD.into(), 4)]);
    client.say(json!({"type": "unsubscribe", "session": "*"})).await;
    while client.next().await.unwrap() != json!({"type": "unsubscribed", "session": "*"}) {}
}

/// The config's line for a token.
fn token(name: &str, secret: &str, role: &str, sessions: Value) -> Value {
    let hash = ocelli::config::TokenHash::of(secret).to_string();
    json!({"name": name, "hash": hash, "role": role, "sessions": sessions})
}

#[tokio::test]
async fn what_a_caller_does_not_see_is_as_what_is_not_there() {
    let tokens = json!([
        token("viewer", "viewer-secret", "viewer", json!([GATE])),
        token("operator", "operator-secret", "operator", Value::Null),
    ]);
    let host = Host::with(Timing::default(), tokens).await;
    let mut viewer = host.client_with(&[("authorization", "Bearer viewer-secret")]).await;
    for kind in ["subscribe", "query", "command"] {
        let mut answers = [YARD, "nobody"].map(|session| {
            let mut message = json!({"type": kind, "session": session});
            if kind != "subscribe" {
                message[kind] = json!({});
            }
            (session, message)
        });
        let mut told = Vec::new();
        for (session, message) in &mut answers {
            told.push(viewer.ask(message.take()).await.to_string().replace(*session, "X"));
        }
        assert_eq!(told[0], told[1]);
        assert!(told[0].contains("unknown_session"), "{told:?}");
    }
    let make =
        json!({"type": "subscribe", "session": GATE, "source": "rtsp://camera/", "pipeline": "p"});
    assert_eq!(viewer.ask(make.clone()).await["code"], "forbidden");
    assert_eq!(viewer.ask(subscribe("*")).await["code"], "forbidden");
    assert_eq!(viewer.ask(subscribe(GATE)).await["type"], "subscribed");
    let stream = |session| format!("/v1/sessions/{session}/stream");
    let authorization = "Authorization: Bearer viewer-secret\r\n";
    let unseen = host.get(&stream(YARD), authorization).await;
    assert!(unseen.starts_with("HTTP/1.1 404") && unseen.contains("unknown_session"), "{unseen}");
    assert!(host.get(&stream("nobody"), authorization).await.starts_with("HTTP/1.1 404"));

    let mut operator = host
        .client_with(&[("sec-websocket-protocol", "ocelli.v1, ocelli.bearer.operator-secret")])
        .await;
    assert_eq!(operator.ask(make).await["type"], "subscribed");
    assert_eq!(operator.ask(subscribe("*")).await["session"], "*");

    // A token that is taken back ends what was opened with it, and nothing else.
    let mut body = EventStream::open(host.server.address(), &stream(GATE), authorization).await;
    host.config.send_replace(config(json!([token(
        "operator",
        "operator-secret",
        "operator",
        Value::Null
    )])));
    assert_eq!(viewer.next().await.unwrap()["code"], "token_revoked");
    assert_eq!(viewer.next().await, Err(1008));
    let error = loop {
        let (kind, _, message) = body.next().await;
        if kind == "error" {
            break message;
        }
    };
    assert_eq!(error["code"], "token_revoked");
    body.ends().await;
    operator.say(json!({"type": "ping"})).await;
    while operator.next().await.unwrap()["type"] != "pong" {}
}

#[tokio::test]
async fn a_stream_resumes_where_its_reader_was_and_says_why_it_ends() {
    let host = Host::start().await;
    host.happens(GATE, 5).await;
    let path = format!("/v1/sessions/{GATE}/stream");
    let query = format!("{path}?after=1&detections=false");
    let mut stream = EventStream::open(host.server.address(), &query, "Last-Event-ID: 3\r\n").await;
    let head = &stream.head;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    for line in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-store\r\n",
        "x-accel-buffering: no\r\n",
    ] {
        assert!(head.contains(line), "{head}");
    }
    let (kind, id, subscribed) = stream.next().await;
    assert_eq!((kind.as_str(), id, &subscribed["state"]), ("subscribed", None, &json!("running")));
    host.hub.publish_detections(GATE, &found(1, 1));
    host.happens(GATE, 1).await;
    for seq in 4..=6 {
        let (kind, id, event) = stream.next().await;
        assert_eq!((kind.as_str(), id, &event["seq"]), ("event", Some(seq), &json!(seq)));
    }
    for (query, headers, status, code) in [
        ("?after=7", "", 400, "after_ahead"),
        ("?after=x", "", 400, "bad_query"),
        ("?before=1", "", 400, "bad_query"),
        ("", "Last-Event-ID: last\r\n", 400, "bad_last_event_id"),
    ] {
        let answer = host.get(&format!("{path}{query}"), headers).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")) && answer.contains(code),
            "{answer}"
        );
    }
    let mut other = EventStream::open(host.server.address(), &path, "").await;
    other.next().await;
    host.hub.publish_detections(GATE, &found(2, 1));
    assert_eq!(other.next().await.0, "detections");
    let stopping = tokio::spawn(host.server.stop());
    let (kind, _, error) = stream.next().await;
    assert_eq!((kind.as_str(), &error["code"]), ("error", &json!("shutting_down")));
    within(stopping).await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_quiet_shows_that_it_lives_and_ends_with_its_reader() {
    let host =
        Host::with(Timing { ping: Duration::from_millis(20), ..Timing::default() }, json!([]))
            .await;
    let path = format!("/v1/sessions/{GATE}/stream");
    let mut stream = EventStream::open(host.server.address(), &path, "").await;
    let mut comments = 0;
    while comments < 3 {
        comments += usize::from(stream.line().await == ":\n");
    }
    drop(stream);
    let mut counts = host.hub.watch_subscribers(GATE);
    within(counts.wait_for(|count| *count == 0)).await.unwrap();
}

#[tokio::test]
async fn ten_thousand_subscribes_cost_a_client_some_answers_and_not_its_socket() {
    let host = Host::start().await;
    let client = host.client().await;
    let (mut sink, stream) = client.0.split();
    let sending = tokio::spawn(async move {
        for _ in 0..10_000 {
            sink.feed(Message::text(subscribe(GATE).to_string())).await.unwrap();
        }
        sink.flush().await.unwrap();
        sink
    });
    let told = stream.filter_map(async |message| match message.unwrap() {
        Message::Text(text) => Some(serde_json::from_str::<Value>(&text).unwrap()),
        _ => None,
    });
    let mut told = Box::pin(told);
    let (mut subscribed, mut limited) = (0, 0);
    let reading = async {
        loop {
            let message = told.next().await.unwrap();
            match (message["type"].as_str().unwrap(), message["code"].as_str()) {
                ("subscribed", _) => subscribed += 1,
                // Those of the burst that come faster than they are done wait, as many as may.
                ("error", Some(code @ ("rate_limited" | "too_many_requests"))) => {
                    limited += 1;
                    if code == "rate_limited" {
                        host.happens(GATE, 1).await;
                    }
                }
                ("event", _) => break,
                _ => panic!("{message}"),
            }
        }
    };
    within(reading).await;
    let sink = within(sending).await.unwrap();
    assert!(
        subscribed >= 1 && limited >= 1 && subscribed + limited < 10_000,
        "{subscribed} {limited}"
    );
    assert_eq!(host.hub.subscriber_count(GATE), 1);
    drop(sink);
}

#[tokio::test]
async fn a_client_that_floods_is_told_and_closed() {
    let host = Host::start().await;
    let (stream, _) = host.raw("").await;
    let (mut reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move {
        let pings = frame(0x89, b"").repeat(1000);
        while writer.write_all(&pings).await.is_ok() {}
    });
    let mut all = Vec::new();
    // The system may throw the rest away, but not before the host has closed the connection.
    let _ = within(reader.read_to_end(&mut all)).await;
    let told = String::from_utf8_lossy(&all);
    assert!(told.contains(r#"{"type":"error","code":"rate_limited""#), "{told}");
    within(flood).await.unwrap();
}

#[tokio::test]
async fn a_message_that_does_not_come_to_its_end_closes_the_socket() {
    let host =
        Host::with(Timing { message: Duration::from_millis(100), ..Timing::default() }, json!([]))
            .await;
    let ping = frame(0x81, br#"{"type":"ping"}"#);
    for unfinished in [ping[..9].to_vec(), [frame(0x01, br#"{"type":"#), frame(0x89, b"")].concat()]
    {
        let (mut stream, _) = host.raw("").await;
        stream.write_all(&[ping.clone(), unfinished].concat()).await.unwrap();
        let mut told = Vec::new();
        while told.len() < 3 {
            let next = read_frame(&mut stream).await.unwrap();
            // The answer to the ping within the message may come before that to the message before.
            if next.0 != 0x8a {
                told.push(next);
            }
        }
        let close = told.pop().unwrap();
        assert_eq!(text(told.pop().unwrap())["code"], "message_timeout");
        assert_eq!(text(told.pop().unwrap())["type"], "pong");
        assert_eq!((close.0, &close.1[..2]), (0x88, &1008u16.to_be_bytes()[..]));
    }
}

#[tokio::test]
async fn whoever_asks_for_no_websocket_is_told_what_is_missing() {
    let host = Host::start().await;
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for headers in [
        format!("Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{key}"),
        format!("Connection: Upgrade\r\nUpgrade: h2c\r\nSec-WebSocket-Version: 13\r\n{key}"),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 8\r\n{key}"),
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".to_owned(),
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
            13\r\nSec-WebSocket-Key: x\r\n"
            .to_owned(),
    ] {
        let mut stream = TcpStream::connect(host.server.address()).await.unwrap();
        let head = format!(
            "GET /v1/ws HTTP/1.1\r\nHost: \
            {}\r\n{headers}\r\n",
            host.server.address()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        within(stream.read_to_string(&mut answer)).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 4") && answer.contains("not_a_websocket"),
            "{headers}: {answer}"
        );
    }
}

/// Bytes of this process in memory.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// A message that a client may send, or almost.
fn message(random: &mut StdRng) -> Vec<u8> {
    let session = *[GATE, YARD, "nobody", "*", ""].choose(random).unwrap();
    let message = match random.random_range(0..7) {
        0 => json!({"type": "ping"}),
        6 => json!({"type": "watch", "session": session, "pictures": "all"}),
        1 => json!({"type": "unsubscribe", "session": session}),
        2 => {
            let kind = *["query", "command"].choose(random).unwrap();
            json!({"type": kind, "session": session, "id": random.random::<u8>(), kind: {"a": [1, null]}})
        }
        3 => json!({"type": "subscribe", "session": session, "after": random.random_range(0..3)}),
        4 => json!({"type": "subscribe", "session": "*", "after": {session: 0}}),
        _ => {
            json!({"type": "subscribe", "session": session, "detections": random.random::<bool>()})
        }
    };
    let mut text = message.to_string().into_bytes();
    for _ in 0..[0, 0, 1, 4].choose(random).copied().unwrap() {
        let at = random.random_range(0..text.len());
        match random.random_range(0..3) {
            0 => text[at] = random.random(),
            1 => text.insert(at, *b"{}[]\",:\\0".choose(random).unwrap()),
            _ => text.truncate(at.max(1)),
        }
    }
    text
}

/// Something to send, well formed or not.
fn anything(random: &mut StdRng, bomb: &[u8]) -> Vec<u8> {
    let noise = |random: &mut StdRng, most: usize| -> Vec<u8> {
        let length = random.random_range(0..=most);
        (0..length).map(|_| random.random()).collect()
    };
    match random.random_range(0..24) {
        0 => noise(random, 40),
        1 => frame(0x80 | random.random_range(0..16), &message(random)),
        2 => frame(random.random(), &message(random)),
        3 => {
            let mut unmasked = frame(0x81, b"");
            unmasked[1] &= 0x7f;
            unmasked
        }
        4 => {
            [&[random.random(), 0xff][..], &random.random::<u64>().to_be_bytes(), &[0; 20]].concat()
        }
        5 => {
            let mut cut = frame(0x81, &message(random));
            cut.truncate(random.random_range(1..cut.len()));
            cut
        }
        6 => frame(0x81, &noise(random, 300)),
        7 => frame(0x82, &noise(random, 300)),
        8 => frame(0xc1, &noise(random, 300)),
        9 => frame(0xc1, &packed(&message(random))),
        10 => frame(0xc1, bomb),
        11 => {
            let mut damaged = packed(&message(random));
            let at = random.random_range(0..damaged.len());
            damaged[at] ^= random.random::<u8>();
            frame(0xc1, &damaged)
        }
        12 => frame(0x88, &noise(random, 10)),
        13 => frame(0x89, &noise(random, 130)),
        14 => frame(0x8a, &noise(random, 130)),
        15 => frame(0x80, b""),
        16 => frame(0x81, &vec![b' '; random.random_range(60_000..140_000)]),
        // In parts, with a ping between.
        _ => {
            let text = message(random);
            let (one, two) = text.split_at(random.random_range(0..=text.len()));
            [frame(0x01, one), frame(0x89, b"between"), frame(0x80, two)].concat()
        }
    }
}

/// What a socket was told, and whether it was told why it was closed. How many messages it got, and
/// how many reasons.
fn check_answer(mut bytes: &[u8]) -> (usize, usize) {
    let (mut last, mut messages, mut reasons) = (None, 0, 0);
    while !bytes.is_empty() {
        let mut cursor = Cursor::new(bytes);
        let Some((header, length)) = FrameHeader::parse(&mut cursor).unwrap() else { break };
        let start = usize::try_from(cursor.position()).unwrap();
        let Some(payload) = bytes.get(start..start + usize::try_from(length).unwrap()) else {
            break;
        };
        assert!(
            header.mask.is_none() && header.is_final && !header.rsv2 && !header.rsv3,
            "{header:?}"
        );
        match u8::from(header.opcode) {
            1 if header.rsv1 => {
                last = Some(serde_json::from_slice::<Value>(&unpacked(payload)).unwrap())
            }
            1 => last = Some(serde_json::from_slice::<Value>(payload).unwrap()),
            8 => {
                let status = u16::from_be_bytes([payload[0], payload[1]]);
                if [1002, 1007, 1008, 1009].contains(&status) && payload.len() > 2 {
                    let last = last.as_ref().unwrap();
                    assert_eq!(last["type"], "error", "{status}");
                    assert_eq!(last["code"].as_str().unwrap().as_bytes(), &payload[2..]);
                    reasons += 1;
                }
            }
            9 | 10 => {}
            other => panic!("opcode {other}"),
        }
        messages += usize::from(u8::from(header.opcode) == 1);
        bytes = &bytes[start + payload.len()..];
    }
    (messages, reasons)
}

/// Many frames, 10,000 in a full run, well formed and not, over hundreds of connections.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_frames_make_the_host_panic_grow_or_neglect_another_client() {
    static PANICS: AtomicUsize = AtomicUsize::new(0);
    const CLIENTS: u64 = 8;
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        before(panic);
    }));
    let host = Host::start().await;
    let mut healthy = host.client().await;
    healthy.ask(subscribe(GATE)).await;
    let bomb = packed(&vec![b' '; 16 << 20]);
    let frames = rounds(10_000) / 8;
    let mut warm = 0;
    let (messages, reasons) = (&AtomicUsize::new(0), &AtomicUsize::new(0));
    for round in 0..2 {
        // The first round fills what is kept for later: the allocator's memory, a compressor for
        // each thread.
        let fuzz = async |seed: u64| {
            let mut random = StdRng::seed_from_u64(seed);
            let mut sent = 0;
            while sent < frames / [5, 1][round] {
                let extension = if random.random() {
                    format!("Sec-WebSocket-Extensions: {DEFLATE}\r\n")
                } else {
                    String::new()
                };
                let (stream, _) = host.raw(&extension).await;
                let (mut reader, mut writer) = stream.into_split();
                let mut bytes = Vec::new();
                for _ in 0..random.random_range(1..20) {
                    bytes.extend(anything(&mut random, &bomb));
                    sent += 1;
                }
                let leaves = random.random_bool(0.2);
                let sending = async {
                    // The host may have closed it by now.
                    let _ = writer.write_all(&bytes).await;
                    let _ = writer.shutdown().await;
                };
                let mut told = Vec::new();
                if leaves {
                    within(sending).await;
                } else {
                    let reading = async { drop(reader.read_to_end(&mut told).await) };
                    within(async { tokio::join!(sending, reading) }).await;
                    let (told, closed) = check_answer(&told);
                    messages.fetch_add(told, Ordering::Relaxed);
                    reasons.fetch_add(closed, Ordering::Relaxed);
                }
            }
        };
        within_minutes(futures_util::future::join_all(
            (0..CLIENTS).map(|seed| fuzz(seed + 100 * round as u64)),
        ))
        .await;
        host.hub.publish_detections(GATE, &found(round as u64, 1));
        let served = healthy.next().await.unwrap();
        assert_eq!((&served["type"], &served["frame"]), (&json!("detections"), &json!(round)));
        if round == 0 {
            warm = resident();
        }
    }
    let grown = resident().saturating_sub(warm);
    assert!(grown < 64 << 20, "{grown} bytes");
    assert_eq!(PANICS.load(Ordering::Relaxed), 0);
    let (messages, reasons) = (messages.load(Ordering::Relaxed), reasons.load(Ordering::Relaxed));
    assert!(
        messages > frames * 8 / 20 && reasons > frames * 8 / 100,
        "{messages} messages and {reasons} reasons tell little"
    );
    // It waits for every socket's task.
    let stopping = tokio::spawn(host.server.stop());
    assert_eq!(healthy.next().await.unwrap()["code"], "shutting_down");
    drop(healthy);
    within(stopping).await.unwrap();
    assert_eq!(host.hub.counts().subscribers, 0);
}

async fn within_minutes<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(240), future).await.expect("in time")
}
