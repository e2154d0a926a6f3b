//! Redis gets every event, in order and without a gap, whatever becomes of it meanwhile; and nobody
//! else notices.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use ocelli_testkit::{Client, DEADLINE, Entry, Ocelli, PipelineFolder, Redis, clip};
use serde_json::{Value, json};

/// How long Redis is away, in events of the neighbour: 25 a second. More are no different:
/// `OCELLI_REDIS_AWAY_EVENTS=1500` tries it.
const AWAY: u64 = 100;

/// Between two looks at what tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

fn away() -> u64 {
    let events = std::env::var("OCELLI_REDIS_AWAY_EVENTS").ok();
    events.and_then(|events| events.parse().ok()).unwrap_or(AWAY)
}

/// A camera that makes an event of each frame: 25 a second.
fn eventful(session: &str, settings: &str, more: &str) -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = {session:?}\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\nsettings = {{ every = 1, {settings} }}\n{more}\n"
    )
}

/// A host with two such cameras, of which the second is the neighbour.
async fn host(redis: &Redis, more: &str) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let cameras = eventful("gate", "attach = true", "") + &eventful("yard", "", "");
    let host = Ocelli::start(&(store.section() + &redis.section(more) + &cameras)).await;
    (store, host)
}

const GATE: &str = "ocelli:events:gate";

/// The numbers in a stream, whose ids have to be those numbers.
fn numbers(entries: &[Entry]) -> Vec<u64> {
    let number = |entry: &Entry| {
        assert_eq!(entry.id, format!("{}-0", entry.get("seq")));
        entry.number("seq")
    };
    entries.iter().map(number).collect()
}

/// Every event from the first of them on, in order. Gives the last.
fn without_gap(entries: &[Entry]) -> u64 {
    let numbers = numbers(entries);
    let (first, last) = (numbers[0], *numbers.last().expect("an entry"));
    assert_eq!(numbers, (first..=last).collect::<Vec<_>>());
    last
}

/// The entries of a stream once it has come as far as this event.
async fn reaches(redis: &Redis, stream: &str, seq: u64) -> Vec<Entry> {
    let begun = Instant::now();
    loop {
        let entries = redis.entries(stream);
        if entries.last().is_some_and(|entry| entry.number("seq") >= seq) {
            return entries;
        }
        let last = entries.last().map(|entry| entry.id.clone());
        assert!(begun.elapsed() < DEADLINE, "{stream} stays at {last:?} and does not reach {seq}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// A subscriber of the neighbour: gets each event as it happens.
struct Neighbour {
    client: Client,
    last: u64,
}

impl Neighbour {
    async fn of(host: &Ocelli) -> Self {
        let mut client = host.client().await;
        client
            .send(&json!({"type": "subscribe", "session": "yard", "after": 0, "detections": false}))
            .await;
        Self { client, last: 0 }
    }

    /// Takes so many events, none of which may be missing, and gives the last one's number.
    async fn takes(&mut self, events: u64) -> u64 {
        for _ in 0..events {
            let event = self.client.next_of("event").await;
            self.last += 1;
            assert_eq!(event["seq"], self.last);
        }
        self.last
    }
}

/// The last event of a session that the journal has.
async fn newest(host: &Ocelli, session: &str) -> u64 {
    host.events(session).await.last().map_or(0, |event| event["seq"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_is_in_the_stream_as_subscribers_get_it_with_its_picture() {
    let redis = Redis::start();
    let (_store, host) = host(&redis, "publish = true\ncrops_expire_s = 1000").await;
    let entries = reaches(&redis, GATE, 10).await;
    without_gap(&entries);
    let kept = host.events("gate").await;
    for (entry, kept) in entries.iter().zip(&kept) {
        let event: Value = serde_json::from_str(entry.get("event")).unwrap();
        assert_eq!((&event["type"], &event["session"]), (&json!("event"), &json!("gate")));
        for name in
            ["seq", "time", "kind", "deployment", "frame", "detections", "data", "attachments"]
        {
            assert_eq!(event[name], kept[name], "{name}");
        }
        assert_eq!(
            (entry.get("kind"), entry.get("time")),
            ("counted", kept["time"].as_str().unwrap())
        );
        assert_eq!(entry.get("deployment"), kept["deployment"]);
        let picture = &event["attachments"][0];
        let key = format!("ocelli:attachment:{}", picture["digest"].as_str().unwrap());
        assert_eq!(redis.cli(&["STRLEN", &key]), picture["bytes"].to_string());
        let expires: i64 = redis.cli(&["TTL", &key]).parse().unwrap();
        assert!((900..=1000).contains(&expires), "{expires}");
    }
    // As the documentation says: from the last id that one has.
    let text = redis.cli(&["XREAD", "COUNT", "2", "STREAMS", GATE, "7-0"]);
    assert!(text.contains("8-0") && text.contains("9-0") && !text.contains("\n7-0"), "{text}");

    let mut heard = Lines::of(redis.follow(&["SUBSCRIBE", GATE]));
    let message = heard.find(|line| line.starts_with('{').then(|| line.to_owned()));
    let event: Value = serde_json::from_str(&message).unwrap();
    let entry = reaches(&redis, GATE, event["seq"].as_u64().unwrap()).await;
    assert!(entry.iter().any(|entry| entry.get("event") == message), "{message}");
    assert_eq!(host.metric("ocelli_redis_up").await.unwrap(), 1.0);
}

/// What a program says, line by line. It is killed when this is dropped.
struct Lines {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Lines {
    fn of(mut child: Child) -> Self {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    fn find(&mut self, wanted: impl Fn(&str) -> Option<String>) -> String {
        self.lines.find_map(|line| wanted(&line.unwrap())).expect("it goes on")
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_started_late_gets_everything() {
    let mut redis = Redis::nowhere();
    let (_store, host) = host(&redis, "").await;
    let last = Neighbour::of(&host).await.takes(AWAY).await;
    host.metric_becomes("ocelli_redis_behind_events", |behind| behind > 0.0).await;
    assert_eq!(host.metric("ocelli_redis_up").await.unwrap(), 0.0);
    redis.run(&[]);
    let entries = reaches(&redis, "ocelli:events:yard", last).await;
    without_gap(&entries);
    assert_eq!(entries[0].id, "1-0");
    assert_eq!(reaches(&redis, GATE, 1).await[0].id, "1-0");
    host.metric_becomes("ocelli_redis_up", |up| up == 1.0).await;
    assert!(host.log().text().contains("Redis takes events again"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_away_for_a_while_has_everything_afterwards() {
    let mut redis = Redis::nowhere();
    let kept = ["--appendonly", "yes", "--appendfsync", "always"];
    redis.run(&kept);
    let (_store, host) = host(&redis, "").await;
    let mut neighbour = Neighbour::of(&host).await;
    reaches(&redis, GATE, 20).await;
    redis.kill();
    neighbour.takes(away()).await;
    redis.run(&kept);
    let last = newest(&host, "gate").await;
    let entries = reaches(&redis, GATE, last).await;
    without_gap(&entries);
    assert_eq!(entries[0].id, "1-0");
    neighbour.takes(25).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_restarted_empty_gets_again_what_its_streams_would_keep() {
    let mut redis = Redis::start();
    let (_store, host) = host(&redis, "").await;
    let mut neighbour = Neighbour::of(&host).await;
    reaches(&redis, GATE, 80).await;
    redis.kill();
    neighbour.takes(25).await;
    redis.run(&[]);
    let last = newest(&host, "gate").await;
    let entries = reaches(&redis, GATE, last).await;
    without_gap(&entries);
    assert_eq!(entries[0].id, "1-0");
    assert!(host.log().text().contains("Redis has lost events"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_paused_or_slow_blocks_nobody_and_has_everything_afterwards() {
    let redis = Redis::start();
    let (_store, host) = host(&redis, "timeout_ms = 500").await;
    let mut neighbour = Neighbour::of(&host).await;
    reaches(&redis, GATE, 20).await;
    redis.pause(true);
    neighbour.takes(AWAY).await;
    host.metric_becomes("ocelli_redis_up", |up| up == 0.0).await;
    let last = newest(&host, "gate").await;
    redis.pause(false);
    without_gap(&reaches(&redis, GATE, last).await);

    // Each answer takes longer than the host waits for: what was done in spite of that is not done
    // twice.
    for _ in 0..3 {
        redis.cli(&["CLIENT", "PAUSE", "900", "ALL"]);
        neighbour.takes(25).await;
    }
    let last = newest(&host, "gate").await;
    let entries = reaches(&redis, GATE, last).await;
    without_gap(&entries);
    assert_eq!(entries[0].id, "1-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_full_has_everything_once_it_has_room() {
    let redis = Redis::start();
    let (_store, host) = host(&redis, "").await;
    let mut neighbour = Neighbour::of(&host).await;
    reaches(&redis, GATE, 20).await;
    redis.cli(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    // Less than the server has in use: nothing more is taken.
    redis.cli(&["CONFIG", "SET", "maxmemory", "500kb"]);
    neighbour.takes(AWAY).await;
    let full = redis.entries(GATE).last().unwrap().number("seq");
    host.metric_becomes("ocelli_redis_behind_events", |behind| behind > 20.0).await;
    assert!(host.log().text().contains("OOM"), "the log says why");
    // Now and then there is room for a few: the order has to hold all the same.
    for _ in 0..20 {
        redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
        redis.cli(&["CONFIG", "SET", "maxmemory", "500kb"]);
    }
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    let last = newest(&host, "gate").await;
    assert!(last > full);
    let entries = reaches(&redis, GATE, last).await;
    without_gap(&entries);
    assert_eq!(entries[0].id, "1-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_goes_on_where_it_was() {
    let redis = Redis::start();
    let (_store, mut host) = host(&redis, "").await;
    for round in 1..=3 {
        reaches(&redis, GATE, round * 30).await;
        host.cut_and_start_again().await;
    }
    let last = newest(&host, "gate").await;
    let entries = reaches(&redis, GATE, last).await;
    without_gap(&entries);
    assert_eq!(entries[0].id, "1-0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_something_else_keeps_one_session_out_and_no_other() {
    let redis = Redis::start();
    redis.cli(&["SET", GATE, "mine"]);
    let (_store, host) = host(&redis, "").await;
    without_gap(&reaches(&redis, "ocelli:events:yard", 30).await);
    assert_eq!(redis.cli(&["GET", GATE]), "mine");
    assert!(host.log().text().contains("cannot be written"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_a_journal_that_is_gone_is_gone_on_with_under_other_ids() {
    let redis = Redis::start();
    redis.cli(&["XADD", GATE, "1000000-0", "seq", "1000000"]);
    let (_store, host) = host(&redis, "").await;
    let entries = reaches(&redis, GATE, 1).await;
    let begun = Instant::now();
    let mut own: Vec<u64> = Vec::new();
    while own.len() < 30 {
        assert!(begun.elapsed() < DEADLINE, "{entries:?}");
        own = redis.entries(GATE)[1..].iter().map(|entry| entry.number("seq")).collect();
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    assert_eq!(own, (1..=own.len() as u64).collect::<Vec<_>>());
    assert!(host.log().text().contains("beyond the newest event"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_turned_on_begins_with_the_events_from_then_on() {
    let redis = Redis::start();
    let store = PipelineFolder::with(&["changeling"]);
    let camera = eventful("gate", "", "");
    let host = Ocelli::start(&(store.section() + &camera)).await;
    let mut before = 0;
    while before < 20 {
        before = newest(&host, "gate").await;
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    host.edit_config(&(store.section() + &redis.section("") + &camera));
    let entries = reaches(&redis, GATE, before + 30).await;
    without_gap(&entries);
    assert!(entries[0].number("seq") > before, "{:?} after {before}", entries[0].id);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_address_in_the_config_is_taken_over_while_the_host_runs() {
    let (first, second) = (Redis::start(), Redis::start());
    let store = PipelineFolder::with(&["changeling"]);
    let camera = eventful("gate", "", "");
    let config = |redis: &Redis| store.section() + &redis.section("") + &camera;
    let host = Ocelli::start(&config(&first)).await;
    reaches(&first, GATE, 10).await;
    host.edit_config(&config(&second));
    let begun = reaches(&second, GATE, 20).await;
    without_gap(&begun);
    assert_eq!(begun[0].id, "1-0", "it gets what a stream keeps");
}

/// What came of the pipeline's own command in the session's last event.
async fn counted(host: &Ocelli, good: impl Fn(&Value) -> bool) -> Value {
    let mut client = host.client().await;
    client.send(&json!({"type": "subscribe", "session": "gate", "detections": false})).await;
    client.find(|message| Some(&message["data"]["redis"]).filter(|told| good(told)).cloned()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pipeline_uses_the_keys_that_it_was_granted_and_goes_on_without_a_redis() {
    let mut redis = Redis::start();
    let store = PipelineFolder::with(&["changeling"]);
    let granted = eventful("gate", "redis = true", "redis_prefix = \"app:gate:\"");
    let host = Ocelli::start(&(store.section() + &redis.section("") + &granted)).await;
    counted(&host, |told| told.as_u64() > Some(5)).await;
    let key = "app:gate:counted";
    assert!(redis.cli(&["GET", key]).parse::<u64>().unwrap() > 5);
    redis.pause(true);
    let told = counted(&host, Value::is_string).await;
    assert!(told.as_str().unwrap().contains("redis is not reachable"), "{told}");
    redis.pause(false);
    counted(&host, Value::is_u64).await;
    redis.kill();
    counted(&host, Value::is_string).await;
    redis.run(&[]);
    let told = counted(&host, Value::is_u64).await;
    assert!(told.as_u64().unwrap() >= 1, "{told}");
    redis.cli(&["SET", key, "no number"]);
    let told = counted(&host, Value::is_string).await;
    assert!(told.as_str().unwrap().contains("not an integer"), "{told}");
    assert_eq!(redis.cli(&["KEYS", "app:*"]), key);
    assert_eq!(host.session("gate").await["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_grant_there_is_no_redis_for_a_pipeline() {
    let redis = Redis::start();
    let store = PipelineFolder::with(&["changeling"]);
    let camera = eventful("gate", "redis = true", "");
    let host = Ocelli::start(&(store.section() + &redis.section("") + &camera)).await;
    counted(&host, Value::is_string).await;
    assert_eq!(redis.cli(&["KEYS", "*counted*"]), "");
}
