//! Subscribers miss nothing: events come in order, without a gap, whatever ends in between; and
//! whoever misbehaves harms nobody but itself.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use ocelli_testkit::depth::rounds;
use ocelli_testkit::{Client, DEADLINE, Ocelli, PipelineFolder, Random, Recording, clip};
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// A camera that makes an event, with a picture, of each frame: 25 a second in real time.
pub(crate) fn eventful(session: &str, pace: &str) -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    let (pipeline, settings) = ("changeling", "{ every = 1, attach = true }");
    format!(
        "[[cameras]]\nid = {session:?}\nsource = {source:?}\npace = {pace:?}\nrepeat = true\n\
         pipeline = {pipeline:?}\nsettings = {settings}\n"
    )
}

/// A host whose store is its own, with such cameras. The folder of the pipeline's name must outlive
/// it.
async fn host(cameras: &[&str]) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let cameras: String = cameras.iter().map(|session| eventful(session, "realtime")).collect();
    let host = Ocelli::start(&(store.section() + &cameras)).await;
    (store, host)
}

async fn subscribe(client: &mut Client, session: &str, after: impl Into<Value>) {
    client
        .send(&json!({"type": "subscribe", "session": session, "after": after.into(), "detections": false}))
        .await;
}

/// The next event of any session. An error fails the test.
async fn event(client: &mut Client) -> Value {
    client.find(|message| (message["type"] == "event").then(|| message.clone())).await
}

/// What a subscriber has of each session: every event once, in order.
#[derive(Debug, Default)]
struct Received {
    events: BTreeMap<String, Vec<Value>>,
}

impl Received {
    /// The number of the last event.
    fn last(&self, session: &str) -> u64 {
        self.events.get(session).and_then(|events| events.last()).map_or(0, seq)
    }

    /// Takes an event, which has to be the one after the last.
    fn take(&mut self, event: Value) {
        let session = event["session"].as_str().expect("an event tells its session").to_owned();
        assert_eq!(seq(&event), self.last(&session) + 1, "{event}");
        self.events.entry(session).or_default().push(event);
    }

    /// The numbers to go on after, as a subscription to all sessions gives them.
    fn after(&self, sessions: &[&str]) -> Value {
        let last =
            sessions.iter().map(|session| ((*session).to_owned(), self.last(session).into()));
        last.collect::<Map<_, _>>().into()
    }

    /// Each event is kept as it was delivered, and those that were not delivered have greater
    /// numbers.
    async fn is_kept_by(&self, host: &Ocelli) {
        for (session, delivered) in &self.events {
            let kept = host.events(session).await;
            assert!(
                kept.len() >= delivered.len(),
                "{session}: {} of {}",
                kept.len(),
                delivered.len()
            );
            for (kept, delivered) in kept.iter().zip(delivered) {
                assert_eq!(told(kept), told(delivered));
            }
            let numbers: Vec<u64> = kept.iter().map(seq).collect();
            assert_eq!(numbers, (1..=kept.len() as u64).collect::<Vec<_>>(), "{session}");
        }
    }
}

fn seq(event: &Value) -> u64 {
    event["seq"].as_u64().unwrap_or_else(|| panic!("an event without a number: {event}"))
}

/// What an event says, wherever it says it.
fn told(event: &Value) -> Vec<&Value> {
    ["seq", "time", "kind", "frame", "deployment", "detections", "data", "attachments"]
        .iter()
        .map(|key| &event[*key])
        .collect()
}

/// The pipeline counts its frames: of none was the event lost before it had a number.
fn nothing_is_missing_between_frames(events: &[Value]) {
    let frames: Vec<u64> =
        events.iter().filter_map(|event| event["data"]["frames"].as_u64()).collect();
    assert!(frames.len() > 1 && frames.windows(2).all(|pair| pair[1] == pair[0] + 1), "{frames:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_cut_off_again_and_again_gets_every_event_once_and_in_order() {
    let (_store, host) = host(&["gate"]).await;
    let mut random = Random::with_seed(6);
    let mut received = Received::default();
    for _ in 0..rounds(200) {
        let mut client = host.client().await;
        subscribe(&mut client, "gate", received.last("gate")).await;
        // None, some that waited in the journal, or so many that some of them are live.
        for _ in 0..random.u32(0..12) {
            received.take(event(&mut client).await);
        }
        // Dropped: the connection ends without a word, with whatever is on its way.
    }
    let events = &received.events["gate"];
    nothing_is_missing_between_frames(events);
    for event in events.iter().filter(|event| event["kind"] == "counted") {
        assert_eq!(event["attachments"][0]["type"], "image/jpeg", "{event}");
    }
    received.is_kept_by(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_of_all_sessions_that_is_cut_off_again_and_again_gets_every_event_once_and_in_order()
 {
    let sessions = ["gate", "yard"];
    let (_store, host) = host(&sessions).await;
    let mut random = Random::with_seed(7);
    let mut received = Received::default();
    for _ in 0..rounds(200) {
        let mut client = host.client().await;
        subscribe(&mut client, "*", received.after(&sessions)).await;
        for _ in 0..random.u32(0..24) {
            received.take(event(&mut client).await);
        }
    }
    for session in sessions {
        nothing_is_missing_between_frames(&received.events[session]);
    }
    received.is_kept_by(&host).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_that_was_delivered_is_kept_when_the_host_is_killed_in_the_middle_of_writing() {
    let sessions = ["gate", "yard"];
    let (_store, mut host) = host(&sessions).await;
    let mut random = Random::with_seed(8);
    let mut received = Received::default();
    for _ in 0..rounds(6) {
        let mut client = host.client().await;
        subscribe(&mut client, "*", received.after(&sessions)).await;
        for _ in 0..random.u32(20..80) {
            received.take(event(&mut client).await);
        }
        host.cut_and_start_again().await;
        // What had been sent before the cut was on the disk before it was sent.
        while let Some(message) = client.next_or_end().await {
            if message["type"] == "event" {
                received.take(message);
            }
        }
        received.is_kept_by(&host).await;
    }
    // Numbers go on where they were, and so do events.
    let mut client = host.client().await;
    subscribe(&mut client, "*", received.after(&sessions)).await;
    for _ in 0..20 {
        received.take(event(&mut client).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscriber_that_hardly_reads_gets_every_event_from_the_journal() {
    /// More than wait for a subscriber in memory.
    const BEHIND: u64 = 3000;
    let store = PipelineFolder::with(&["changeling"]);
    let camera = eventful("fast", "as-fast").replace("attach = true", "attach = false");
    let host = Ocelli::start(&(store.section() + &camera)).await;
    let mut client = host.slow_client().await;
    subscribe(&mut client, "fast", 0).await;
    let mut received = Received::default();
    // It takes a message with each look, so that the host does not take it for dead; dozens come
    // meanwhile.
    let mut looks = tokio::time::interval(Duration::from_millis(50));
    loop {
        looks.tick().await;
        received.take(event(&mut client).await);
        let made = host.session("fast").await["events"].as_u64().unwrap();
        if made > received.last("fast") + BEHIND {
            break;
        }
    }
    let far = received.last("fast") + BEHIND;
    while received.last("fast") < far {
        received.take(event(&mut client).await);
    }
    nothing_is_missing_between_frames(&received.events["fast"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_events_that_are_not_there_yet_is_told_and_not_subscribed() {
    let (_store, host) = host(&["gate"]).await;
    let mut client = host.client().await;
    subscribe(&mut client, "gate", 1_000_000).await;
    let error = client.next().await;
    assert_eq!(
        (&error["type"], &error["code"]),
        (&"error".into(), &"after_ahead".into()),
        "{error}"
    );
    assert_eq!((&error["session"], &error["oldest"]), (&"gate".into(), &1.into()), "{error}");
    let newest = error["newest"].as_u64().unwrap_or_else(|| panic!("no newest: {error}"));
    assert!(newest < 1_000_000, "{error}");
    subscribe(&mut client, "gate", newest).await;
    // An event of a subscription that was refused would come first, and have another number.
    let subscribed = client.next().await;
    assert_eq!(subscribed["type"], "subscribed", "{subscribed}");
    assert_eq!(seq(&event(&mut client).await), newest + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_for_events_that_are_kept_no_more_is_told_and_gets_the_oldest_that_are() {
    let store = PipelineFolder::with(&["changeling"]);
    let camera = eventful("fast", "as-fast").replace("attach = true", "attach = false");
    let host = Ocelli::start(&(store.section() + "[events]\nkeep_mb = 1\n" + &camera)).await;
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    let begun = std::time::Instant::now();
    loop {
        looks.tick().await;
        let page: Value =
            serde_json::from_str(&host.get("/v1/sessions/fast/events?limit=1").await).unwrap();
        if page["oldest"].as_u64() > Some(1) {
            // Asked for from the first on: it says which are missing.
            assert_eq!(page["gone"]["from"], 1, "{page}");
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "everything is kept: {page}");
    }
    let mut client = host.client().await;
    subscribe(&mut client, "fast", 0).await;
    let error = client.next_of("error").await;
    assert_eq!(
        (&error["code"], &error["session"]),
        (&"events_gone".into(), &"fast".into()),
        "{error}"
    );
    assert_eq!(error["after"], 0, "{error}");
    let first = event(&mut client).await;
    assert_eq!(first["seq"], error["oldest"], "{error}");
    assert!(error["newest"].as_u64() >= error["oldest"].as_u64(), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pictures_of_events_are_there_under_their_digests_and_nothing_else_is() {
    let (_store, host) = host(&["gate"]).await;
    let mut client = host.client().await;
    subscribe(&mut client, "gate", 0).await;
    let event =
        client.find(|message| message["attachments"].is_array().then(|| message.clone())).await;
    let picture = &event["attachments"][0];
    let digest = picture["digest"].as_str().unwrap();
    let answer = bytes_of(&host, &format!("/v1/attachments/{digest}")).await;
    let (head, body) = answer;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(head.to_lowercase().contains("content-type: image/jpeg"), "{head}");
    assert_eq!(body.len() as u64, picture["bytes"].as_u64().unwrap());
    assert_eq!(body.get(..2), Some([0xff, 0xd8].as_slice()), "a JPEG begins so");
    let other = "0".repeat(64);
    let (status, body) = host.request("GET", &format!("/v1/attachments/{other}")).await;
    assert_eq!(status, 404, "{body}");
    let (status, body) = host.request("GET", "/v1/attachments/..%2Fevents.db").await;
    assert!(status == 400 || status == 404, "{status}: {body}");
}

/// Head and body of an answer that need not be text.
pub(crate) async fn bytes_of(host: &Ocelli, path: &str) -> (String, Vec<u8>) {
    let mut connection = TcpStream::connect(host.address()).await.unwrap();
    let request =
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", host.address());
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(DEADLINE, connection.read_to_end(&mut answer))
        .await
        .expect("an answer in time")
        .unwrap();
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("an HTTP answer");
    (String::from_utf8(answer[..end].to_vec()).unwrap(), answer[end + 4..].to_vec())
}

/// Somebody who does nothing wrong, beside those who do.
struct Bystander {
    recording: Recording,
}

impl Bystander {
    async fn of(host: &Ocelli, session: &str) -> Self {
        let mut client = host.client().await;
        subscribe(&mut client, session, 0).await;
        Self { recording: Recording::of(client) }
    }

    /// Gets ten more events, and has every one that there was.
    async fn is_unharmed(&self) {
        let mut more = 0;
        let ten = |message: &Value| {
            more += u32::from(message["type"] == "event");
            (more == 10).then_some(())
        };
        self.recording.find(self.recording.len(), ten).await;
        let mut received = Received::default();
        for message in self.recording.messages() {
            if message.message["type"] == "event" {
                received.take(message.message);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_megabyte_is_told_before_the_connection_ends_and_harms_nobody() {
    let (_store, host) = host(&["gate"]).await;
    let bystander = Bystander::of(&host, "gate").await;
    let mut client = host.client().await;
    let long =
        json!({"type": "command", "session": "gate", "command": "x".repeat(1 << 20)}).to_string();
    client.send_raw(Message::text(long)).await;
    let error = client.next().await;
    assert_eq!((&error["type"], &error["code"]), (&"error".into(), &"too_large".into()), "{error}");
    assert!(client.next_or_end().await.is_none(), "the connection ends");
    bystander.is_unharmed().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_subscribes_at_once_are_answered_or_refused_and_harm_nobody() {
    let (_store, host) = host(&["gate"]).await;
    let bystander = Bystander::of(&host, "gate").await;
    let before = memory_kb(host.process().pid);
    let url = format!("ws://{}/v1/ws", host.address());
    let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
    let (mut requests, mut messages) = socket.split();
    let sending = async {
        for number in 0..10_000 {
            let session =
                if number % 2 == 0 { format!("nobody-{number}") } else { "gate".to_owned() };
            let request = json!({"type": "subscribe", "session": session, "detections": false});
            // It may have had enough of this client, and closes the connection.
            if requests.send(Message::text(request.to_string())).await.is_err() {
                break;
            }
        }
        let _ = requests.close().await;
    };
    let reading = async {
        let mut answers = BTreeMap::<String, usize>::new();
        while let Some(Ok(message)) = messages.next().await {
            let Message::Text(text) = message else { continue };
            let message: Value = serde_json::from_str(&text).unwrap();
            if message["type"] == "error" || message["type"] == "subscribed" {
                let kind = message["code"].as_str().or(message["type"].as_str()).unwrap();
                *answers.entry(kind.to_owned()).or_default() += 1;
            }
        }
        answers
    };
    let both = async { tokio::join!(sending, reading).1 };
    let mut answers = timeout(DEADLINE, both).await.expect("an end in time");
    for kind in ["subscribed", "unknown_session", "rate_limited"] {
        assert!(answers.remove(kind).is_some(), "no {kind}: {answers:?}");
    }
    answers.remove("too_many_requests");
    assert!(answers.is_empty(), "{answers:?}");
    bystander.is_unharmed().await;
    let grown = memory_kb(host.process().pid).saturating_sub(before);
    // 10,000 names that were kept, with their queues, would be more than this.
    assert!(grown < 64 << 10, "the host grew by {grown} KiB");
}

/// Private memory of a process in KiB.
fn memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_never_read_harm_nobody() {
    let store = PipelineFolder::with(&["changeling"]);
    let cameras = eventful("gate", "realtime")
        + &eventful("fast", "as-fast").replace("attach = true", "attach = false");
    let host = Ocelli::start(&(store.section() + &cameras)).await;
    let bystander = Bystander::of(&host, "gate").await;
    let mut deaf = Vec::new();
    for _ in 0..20 {
        let mut client = host.slow_client().await;
        client.subscribe("fast").await;
        deaf.push(client);
    }
    // Enough for the queues of all of them to be full: thousands of results, of some hundred bytes
    // each.
    let enough = |session: &Value| session["results"].as_u64() > Some(5000);
    host.wait_for_session("fast", enough).await;
    bystander.is_unharmed().await;
    let held = memory_kb(host.process().pid);
    // 20 x 16 MiB of messages may wait, and no more.
    assert!(held < 512 << 10, "the host holds {held} KiB");
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_send_a_byte_a_second_harm_nobody_and_are_not_waited_for_without_end() {
    let (_store, host) = host(&["gate"]).await;
    let bystander = Bystander::of(&host, "gate").await;
    let mut slow = Vec::new();
    for _ in 0..50 {
        slow.push(TcpStream::connect(host.address()).await.unwrap());
    }
    // One that has a WebSocket, and begins a text frame of 100 bytes.
    let mut socket = host.client().await;
    assert!(socket.send_bytes(&[0x81, 0x80 | 100, 0, 0, 0, 0]).await);
    let request =
        format!("GET /healthz HTTP/1.1\r\nHost: {}\r\nX-Long: {}", host.address(), "x".repeat(200));
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    let mut bytes = request.bytes().enumerate();
    let last = loop {
        seconds.tick().await;
        let (at, byte) = bytes.next().expect("the host waits for a request without end");
        // Not for so long that it still sends when the host has closed.
        if at < 20 {
            socket.send_bytes(b" ").await;
        }
        let mut open = false;
        for connection in &mut slow {
            open |= connection.write_all(&[byte]).await.is_ok() && !has_ended(connection);
        }
        if !open {
            break at;
        }
    };
    assert!(last > 0, "they had a chance");
    let error = socket.next_of("error").await;
    assert_eq!(error["code"], "message_timeout", "{error}");
    bystander.is_unharmed().await;
    assert_eq!(host.get("/healthz").await, r#"{"status":"ok"}"#);
}

/// Whether the host has closed its side. What it says before that is read.
fn has_ended(connection: &TcpStream) -> bool {
    let mut answer = [0; 1024];
    loop {
        match connection.try_read(&mut answer) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}
