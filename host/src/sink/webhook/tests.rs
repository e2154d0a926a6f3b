use std::time::Instant;

use ocelli_testkit::{HookReceiver, Reception};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::journal::Journal;
use crate::journal::events::{EventDraft, EventJournal};
use crate::sink::{SinkName, SinkTask, Sinks};

/// Events of a backlog: more than a session may have waiting for the disk are written in turns.
const BACKLOG: u64 = 4000;

/// Events that wait for the disk at once at most.
const TURN: u64 = 1000;

fn config(receiver: &HookReceiver, more: Value) -> WebhookConfig {
    let mut config = json!({
        "name": "hook", "url": format!("http://{}/hook", receiver.address),
        "secret": HookReceiver::SECRET, "allow_private": true, "from": "beginning",
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

/// Writes events that are as large as those of a pipeline with a few detections.
async fn write(journal: &EventJournal, kinds: &[&str], events: u64) {
    for number in 0..events {
        let kind = kinds[number as usize % kinds.len()];
        let body = json!({
            "time": "2026-01-01T00:00:00.000Z", "clock": "camera", "kind": kind,
            "deployment": "0a1b2c3d4e5f", "data": {"zone": "entrance", "note": "x".repeat(400)},
        });
        let body = body.to_string().into();
        assert!(journal.append(
            "gate",
            EventDraft { kind: kind.into(), time_ms: 0, body, attachments: Vec::new(), clip: None }
        ));
        if number % TURN == TURN - 1 {
            journal.flush().await.unwrap();
        }
    }
    journal.flush().await.unwrap();
}

fn start(sinks: &Sinks, config: WebhookConfig) -> (watch::Sender<Option<WebhookConfig>>, SinkTask) {
    let (settings, watched) = watch::channel(Some(config));
    let name = SinkName::new("webhook:hook", "the webhook hook");
    (settings, sinks.start(name, WebhookSink, watched))
}

#[test]
fn what_a_receiver_repeats_of_its_address_is_left_out() {
    let url = url::Url::parse("https://hooks.example/services/T0/hush?key=hush").unwrap();
    let said = "Cannot POST /services/T0/hush?key=hush".to_owned();
    assert_eq!(without_target(said, &url), "Cannot POST ...?...");
    let root = url::Url::parse("https://hooks.example").unwrap();
    assert_eq!(without_target("a/b".to_owned(), &root), "a/b");
}

#[test]
fn addresses_are_admitted_by_what_they_are() {
    let admits = |address: &str, private, plain| {
        super::admits(address.parse().unwrap(), private, plain).is_ok()
    };
    for address in ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "0.0.0.0", "224.0.0.1"]
    {
        assert!(!admits(address, true, false) && !admits(address, true, true), "{address}");
    }
    for address in ["127.0.0.1", "10.0.0.1", "::1", "fd00::1", "::ffff:192.168.0.1"] {
        assert!(!admits(address, false, false), "{address}");
        assert!(admits(address, true, false) && admits(address, true, true), "{address}");
    }
    assert!(admits("192.0.2.1", false, false) && admits("2001:db8::1", true, false));
    assert!(!admits("192.0.2.1", true, true), "what leaves the network is encrypted");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_comes_whole_in_order_and_as_the_schema_says() {
    let journal = Journal::temporary().unwrap();
    write(journal.events(), &["entered", "left"], BACKLOG).await;
    let receiver = HookReceiver::start().await;
    let sinks = Sinks::new(journal.events().clone());
    let begun = Instant::now();
    let (_settings, _task) = start(&sinks, config(&receiver, json!({})));
    receiver.until("all", |receiver| receiver.numbers("gate").len() as u64 >= BACKLOG).await;
    let rate = BACKLOG as f64 / begun.elapsed().as_secs_f64();
    assert_eq!(receiver.numbers("gate"), (1..=BACKLOG).collect::<Vec<_>>());
    let mut lags = Vec::new();
    for number in 1..=100 {
        let begun = Instant::now();
        write(journal.events(), &["entered"], 1).await;
        let last = BACKLOG + number;
        receiver.until("one more", |receiver| receiver.numbers("gate").last() == Some(&last)).await;
        lags.push(begun.elapsed());
    }
    lags.sort_unstable();
    eprintln!("{rate:.0} events/s; from append to receiver p50 {:?}, p99 {:?}", lags[49], lags[98]);

    let mut schemas = boon::Schemas::new();
    let mut compiler = boon::Compiler::new();
    let schema = include_str!("../../../../config/webhook.schema.json");
    compiler.add_resource("schema.json", serde_json::from_str(schema).unwrap()).unwrap();
    let schema = compiler.compile("schema.json", &mut schemas).unwrap();
    for request in receiver.taken() {
        schemas.validate(&request.body, schema).unwrap();
    }
    let ping = WebhookMessage::ping(SystemTime::now());
    schemas.validate(&serde_json::from_slice(&ping.body).unwrap(), schema).unwrap();
    let odd = json!({"type": "ocelli.events", "timestamp": "2026-01-01T00:00:00Z", "data": {}});
    assert!(schemas.validate(&odd, schema).is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_gets_the_kinds_that_it_wants_and_counts_as_up_to_date() {
    let journal = Journal::temporary().unwrap();
    write(journal.events(), &["entered", "left", "left"], 30).await;
    let receiver = HookReceiver::start().await;
    let sinks = Sinks::new(journal.events().clone());
    let (settings, task) = start(&sinks, config(&receiver, json!({"kinds": ["entered"]})));
    receiver.until("the wanted", |receiver| receiver.numbers("gate").len() >= 10).await;
    assert_eq!(receiver.numbers("gate"), (0..10).map(|n| 3 * n + 1).collect::<Vec<_>>());
    // Of others too, from where it is.
    settings.send_replace(Some(config(&receiver, json!({}))));
    write(journal.events(), &["left"], 1).await;
    receiver.until("the last", |receiver| receiver.numbers("gate").last() == Some(&31)).await;
    drop(task);
    assert!(sinks.metrics().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_event_that_is_too_much_is_left_out_and_its_neighbours_are_not() {
    let journal = Journal::temporary().unwrap();
    write(journal.events(), &["entered"], 7).await;
    let poison = 4;
    let receiver = HookReceiver::start().await;
    receiver.refuse_events_of("gate", poison, 422);
    let sinks = Sinks::new(journal.events().clone());
    let (_settings, _task) = start(&sinks, config(&receiver, json!({})));
    receiver.until("the last", |receiver| receiver.numbers("gate").last() == Some(&7)).await;
    assert_eq!(receiver.numbers("gate"), [1, 2, 3, 5, 6, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_receiver_has_asked_for_ends_with_its_settings() {
    for (status, headers) in [(410, ""), (503, "Retry-After: 3600\r\n")] {
        let journal = Journal::temporary().unwrap();
        write(journal.events(), &["entered"], 1).await;
        let receiver = HookReceiver::with(Reception::Answer(status, headers.into())).await;
        let sinks = Sinks::new(journal.events().clone());
        let (settings, _task) = start(&sinks, config(&receiver, json!({})));
        receiver.until("a request", |receiver| receiver.asked() == 1).await;
        let answered = async {
            while sinks.metrics().get("webhook:hook").is_none_or(|metrics| metrics.errors == 0) {
                tokio::task::yield_now().await;
            }
        };
        timeout(ocelli_testkit::DEADLINE, answered).await.expect("the answer is heard");
        receiver.set(Reception::Take);
        settings.send_replace(Some(config(&receiver, json!({"batch_size": 2}))));
        receiver.until("the event", |receiver| receiver.numbers("gate") == [1]).await;
        assert_eq!(receiver.asked(), 2, "{status}");
    }
}
