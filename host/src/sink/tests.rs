//! Real targets, whose connections are cut, and how fast they are.

use std::collections::{BTreeMap, HashSet};
use std::io::{BufRead, BufReader};
use std::time::Instant;

use ocelli_testkit::depth::is_full;
use ocelli_testkit::small_disk::SmallDisk;
use ocelli_testkit::{DEADLINE, Mosquitto, Redis as RedisServer, Relay};
use rand::RngExt;
use serde_json::Value;

use super::mqtt::MqttSink;
use super::*;
use crate::journal::Journal;
use crate::journal::events::{EventDraft, RetentionLimits};

/// Sessions of these tests: one has a name that a topic's level cannot hold.
const SESSIONS: [&str; 2] = ["gate", "yard/+#%"];

/// Between two looks at what tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A host's journal, and a sink of it.
struct SinkBench<S: EventSink> {
    journal: Journal,
    sinks: Sinks,
    _settings: watch::Sender<Option<S::Settings>>,
    _task: SinkTask,
}

impl<S: EventSink> SinkBench<S> {
    fn start(journal: Journal, sink: S, settings: Value) -> Self
    where
        S::Settings: serde::de::DeserializeOwned,
    {
        let sinks = Sinks::new(journal.events().clone());
        let (sending, settings) = watch::channel(Some(serde_json::from_value(settings).unwrap()));
        let task = sinks.start(SinkName::new("sink", "The sink"), sink, settings);
        Self { journal, sinks, _settings: sending, _task: task }
    }

    fn metrics(&self) -> SinkMetrics {
        self.sinks.metrics()["sink"]
    }

    async fn until(&self, good: impl Fn(SinkMetrics) -> bool) {
        wait_until(|| good(self.metrics()), || format!("{:?}", self.metrics())).await;
    }
}

async fn wait_until(good: impl Fn() -> bool, now: impl Fn() -> String) {
    let begun = Instant::now();
    while !good() {
        assert!(begun.elapsed() < DEADLINE, "{}", now());
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Appends events of a usual size, and returns when they are on the disk.
async fn append(journal: &Journal, session: &str, events: usize) {
    let body = serde_json::json!({
        "time": "2026-11-30T05:00:00.000Z", "clock": "camera", "kind": "zone_entered",
        "deployment": "0123456789ab", "frame": 1234,
        "detections": [{"label": "person", "score": 0.87, "box": [0.1, 0.2, 0.3, 0.4]}],
        "data": {"track": 3, "label": "person", "zone": "door"},
    });
    let body = body.to_string();
    for sent in 1..=events {
        assert!(journal.events().append(session, draft(&body)));
        // So many have room.
        if sent % 1000 == 0 {
            journal.events().flush().await.unwrap();
        }
    }
    journal.events().flush().await.unwrap();
}

fn draft(body: &str) -> EventDraft {
    EventDraft {
        kind: "zone_entered".into(),
        time_ms: 0,
        body: body.into(),
        attachments: Vec::new(),
        clip: None,
    }
}

fn redis_settings(address: std::net::SocketAddr) -> Value {
    serde_json::json!({
        "url": format!("redis://{address}/0"), "from": "beginning", "stream_length": 1_000_000,
        "publish": true, "timeout_ms": 5000,
    })
}

fn mqtt_settings(address: std::net::SocketAddr) -> Value {
    serde_json::json!({"url": format!("mqtt://{address}"), "name": "box", "from": "beginning"})
}

/// Cuts the connection again and again while events come, and gives how many each session has.
async fn cut<S: EventSink>(bench: &SinkBench<S>, relay: &Relay) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::<String, u64>::new();
    for _ in 0..if is_full() { 100 } else { 10 } {
        for session in SESSIONS {
            let events = rand::rng().random_range(1..400);
            append(&bench.journal, session, events).await;
            *counts.entry(session.to_owned()).or_default() += events as u64;
        }
        let before = relay.connections();
        tokio::time::sleep(Duration::from_micros(rand::rng().random_range(0..40_000))).await;
        relay.cut();
        let again = || relay.connections() > before;
        wait_until(again, || "it does not connect again".to_owned()).await;
    }
    bench.until(|metrics| metrics.behind == 0 && metrics.up).await;
    counts
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_has_every_event_once_and_in_order_however_often_it_is_cut() {
    let server = RedisServer::start();
    let relay = Relay::to(server.port()).await;
    let journal = Journal::temporary().unwrap();
    let sink = RedisSink::new(journal.events().clone());
    let bench = SinkBench::start(journal, sink, redis_settings(relay.address()));
    for (session, count) in cut(&bench, &relay).await {
        let entries = server.entries(&format!("ocelli:events:{session}"));
        let numbers: Vec<u64> = entries.iter().map(|entry| entry.number("seq")).collect();
        assert_eq!(numbers, (1..=count).collect::<Vec<_>>());
    }
    assert!(bench.metrics().errors > 0, "no cut was felt");
}

#[tokio::test(flavor = "multi_thread")]
async fn mqtt_brings_every_event_in_order_however_often_it_is_cut() {
    let broker = Mosquitto::start();
    let mut subscriber = broker.subscribe(&["ocelli/box/+/events"]);
    let relay = Relay::to(broker.port()).await;
    let journal = Journal::temporary().unwrap();
    let bench = SinkBench::start(journal, MqttSink::new(None), mqtt_settings(relay.address()));
    let counts = cut(&bench, &relay).await;
    let mut heard = BTreeMap::<String, u64>::new();
    while heard != counts {
        let message = subscriber.received();
        let event: Value = serde_json::from_str(&message.payload).unwrap();
        let session = event["session"].as_str().unwrap().to_owned();
        let last = heard.entry(session).or_default();
        let seq = event["seq"].as_u64().unwrap();
        // What comes again was there before; what is new is the next.
        assert!(seq <= *last + 1, "{seq} after {last}");
        *last = seq.max(*last);
    }
    assert!(bench.metrics().errors > 0, "no cut was felt");
}

/// Nothing goes but for want of room, and nothing that the sink does not have.
fn for_want_of_room() -> RetentionLimits {
    RetentionLimits { reserve_bytes: 1 << 20, sinks: vec!["sink".into()], ..Default::default() }
}

/// The oldest event that is kept of a session.
async fn oldest(journal: &Journal, session: &str) -> u64 {
    let sessions = journal.events().sessions().await.unwrap();
    sessions.into_iter().find(|(name, _)| **name == *session).unwrap().1.oldest
}

async fn goes(journal: &Journal, session: &str) {
    let begun = Instant::now();
    while oldest(journal, session).await == 1 {
        assert!(begun.elapsed() < DEADLINE, "its events stay");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Events of a session that take some megabytes.
const SOME: usize = 5000;

#[tokio::test(flavor = "multi_thread")]
async fn old_events_of_an_idle_session_make_way_where_the_sink_begins_with_what_follows() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 32 << 10) else { return };
    let server = RedisServer::start();
    let mut settings = redis_settings(([127, 0, 0, 1], server.port()).into());
    settings["from"] = "now".into();
    let start = |journal: Journal| {
        let sink = RedisSink::new(journal.events().clone());
        SinkBench::start(journal, sink, settings.clone())
    };
    let journal = Journal::open(folder.path()).unwrap();
    append(&journal, "idle", SOME).await;
    let bench = start(journal);
    bench.until(|metrics| metrics.up && metrics.behind == 0).await;
    append(&bench.journal, "gate", 10).await;
    bench.until(|metrics| metrics.written == 10).await;
    bench.journal.events().flush().await.unwrap();
    drop(bench);

    // A host that is started anew knows it from the file.
    let bench = start(reopened(folder.path()).await);
    // The log of the journal's file has grown then: what is deleted is written there first.
    append(&bench.journal, "gate", 2000).await;
    bench.until(|metrics| metrics.written == 2000 && metrics.behind == 0).await;
    bench.journal.events().flush().await.unwrap();
    assert_eq!(oldest(&bench.journal, "idle").await, 1, "there was room");
    disk.fill_but(40 << 10);
    bench.journal.events().set_retention(for_want_of_room());
    goes(&bench.journal, "idle").await;
    append(&bench.journal, "gate", 10).await;
    bench.until(|metrics| metrics.written == 2010 && metrics.behind == 0).await;
    let entries = server.entries("ocelli:events:gate");
    let numbers: Vec<u64> = entries.iter().map(|entry| entry.number("seq")).collect();
    assert_eq!(numbers, (1..=2020).collect::<Vec<_>>());
    assert_eq!(server.cli(&["EXISTS", "ocelli:events:idle"]), "0");
}

/// The journal in this folder, once nobody else has it.
async fn reopened(folder: &std::path::Path) -> Journal {
    let begun = Instant::now();
    loop {
        match Journal::open(folder) {
            Ok(journal) => return journal,
            Err(error) => assert!(begun.elapsed() < DEADLINE, "{error:#}"),
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// Events of a backlog.
const BACKLOG: usize = 10_000;

/// Events one by one, whose way to a subscriber is timed.
const TIMED: usize = 300;

/// Prints how fast a backlog goes to a target, and how long after its commit an event is there.
/// `received` gives the number of the next event that a subscriber of the target gets.
async fn measure<S: EventSink>(
    what: &str,
    sink: impl Fn(&Journal) -> S,
    settings: Value,
    mut received: impl FnMut() -> u64 + Send + 'static,
) where
    S::Settings: serde::de::DeserializeOwned,
{
    let journal = Journal::temporary().unwrap();
    let (telling, committed) = std::sync::mpsc::channel();
    journal.events().set_delivery_handler(Box::new(move |_, event| {
        let _ = telling.send((event.seq, Instant::now()));
    }));
    append(&journal, "gate", BACKLOG).await;
    let sink = sink(&journal);
    let begun = Instant::now();
    let bench = SinkBench::start(journal, sink, settings);
    bench.until(|metrics| metrics.written >= BACKLOG as u64).await;
    let drained = begun.elapsed();
    let (asking, mut asked) = tokio::sync::mpsc::channel(1);
    let reader = std::thread::spawn(move || {
        let mut seen = HashSet::new();
        let mut lags = Vec::new();
        while seen.len() < BACKLOG + TIMED {
            let seq = received();
            let now = Instant::now();
            seen.insert(seq);
            if seq as usize > BACKLOG {
                let found = committed.iter().find(|(committed, _)| *committed == seq);
                lags.push(now.saturating_duration_since(found.unwrap().1));
            }
            if seen.len() >= BACKLOG {
                let _ = asking.blocking_send(());
            }
        }
        lags
    });
    for _ in 0..TIMED {
        asked.recv().await.unwrap();
        append(&bench.journal, "gate", 1).await;
    }
    let mut lags = tokio::task::spawn_blocking(|| reader.join().unwrap()).await.unwrap();
    lags.sort();
    let (rate, p50, p99) =
        (BACKLOG as f64 / drained.as_secs_f64(), lags[TIMED / 2], lags[TIMED * 99 / 100]);
    println!("{what}: {rate:.0} events/s of a backlog of {BACKLOG}, lag p50 {p50:?}, p99 {p99:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_to_redis_and_an_event_is_there_at_once() {
    let server = RedisServer::start();
    let mut follow = server.follow(&["SUBSCRIBE", "ocelli:events:gate"]);
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    // It says so once it is subscribed.
    lines.find(|line| line.as_ref().unwrap() == "subscribe").unwrap().unwrap();
    let settings = redis_settings(([127, 0, 0, 1], server.port()).into());
    let sink = |journal: &Journal| RedisSink::new(journal.events().clone());
    let received = move || {
        let line = lines.find(|line| line.as_ref().unwrap().starts_with('{')).unwrap().unwrap();
        serde_json::from_str::<Value>(&line).unwrap()["seq"].as_u64().unwrap()
    };
    measure("Redis", sink, settings, received).await;
    follow.kill().unwrap();
    follow.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_goes_to_mqtt_and_an_event_is_there_at_once() {
    let broker = Mosquitto::start();
    let mut subscriber = broker.subscribe(&["ocelli/box/+/events"]);
    let settings = mqtt_settings(([127, 0, 0, 1], broker.port()).into());
    let received = move || {
        let message = subscriber.received();
        serde_json::from_str::<Value>(&message.payload).unwrap()["seq"].as_u64().unwrap()
    };
    measure("MQTT", |_| MqttSink::new(None), settings, received).await;
}
