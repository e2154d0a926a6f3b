//! An MQTT broker gets every event, in order, whatever becomes of it meanwhile; it knows what is
//! now, and Home Assistant the cameras.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ocelli_testkit::{
    DEADLINE, FakeServer, Mosquitto, MqttMessage, MqttSubscriber, Ocelli, PipelineFolder,
    ProcessResources, clip,
};
use serde_json::{Value, json};

/// Between two looks at what tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A camera that makes an event of each frame: 25 a second.
fn eventful(session: &str, settings: &str) -> String {
    let source = format!("file:{}", clip("bikes.mp4").display());
    format!(
        "[[cameras]]\nid = {session:?}\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\nsettings = {{ every = 1, {settings} }}\n"
    )
}

/// A host with two such cameras, of which the second's name is no level of a topic.
async fn host(section: &str) -> (PipelineFolder, Ocelli) {
    let store = PipelineFolder::with(&["changeling"]);
    let cameras = eventful("gate", "") + &eventful("a/b+c#", "");
    let host = Ocelli::start(&(store.section() + section + &cameras)).await;
    (store, host)
}

const STRANGE: &str = "ocelli/box/a%2Fb%2Bc%23/events";
const EVENTS: [&str; 2] = ["ocelli/box/gate/events", STRANGE];

/// What a subscriber has got of each topic: events in order, from the first on.
#[derive(Default)]
struct Heard(BTreeMap<String, u64>);

impl Heard {
    fn take(&mut self, message: &MqttMessage) {
        let event: Value = serde_json::from_str(&message.payload).unwrap();
        let seq = event["seq"].as_u64().unwrap();
        let last = self.0.entry(message.topic.clone()).or_insert(seq - 1);
        assert!(seq <= *last + 1, "{}: {seq} after {last}", message.topic);
        *last = seq.max(*last);
    }

    fn reach(&mut self, subscriber: &mut MqttSubscriber, seq: u64) {
        while EVENTS.iter().any(|topic| self.0.get(*topic).is_none_or(|last| *last < seq)) {
            self.take(&subscriber.received());
        }
    }
}

/// The last event of a session that the journal has.
async fn newest(host: &Ocelli) -> u64 {
    host.events("gate").await.last().map_or(0, |event| event["seq"].as_u64().unwrap())
}

async fn metric_becomes(host: &Ocelli, name: &str, good: impl Fn(f64) -> bool) {
    host.metric_becomes(&format!("{name}{{sink=\"mqtt\"}}"), good).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_event_comes_as_subscribers_get_it_and_what_is_now_is_retained() {
    let broker = Mosquitto::start();
    let mut subscriber = broker.subscribe(&["ocelli/#"]);
    let detections = "detections = [\"gate\"]\ndetections_per_second = 5";
    let (_store, mut host) = host(&broker.section(detections)).await;
    let mut events = Vec::new();
    let mut found = Vec::new();
    while events.len() < 10 || found.len() < 2 {
        let message = subscriber.received();
        match message.topic.as_str() {
            "ocelli/box/gate/events" => events.push(message.payload),
            "ocelli/box/gate/detections" => found.push(message.payload),
            topic => assert_ne!(topic, "ocelli/box/a%2Fb%2Bc%23/detections", "not asked for"),
        }
    }
    let kept = host.events("gate").await;
    for (event, kept) in events.iter().zip(&kept) {
        let event: Value = serde_json::from_str(event).unwrap();
        assert_eq!((&event["type"], &event["session"]), (&json!("event"), &json!("gate")));
        for name in ["seq", "time", "kind", "deployment", "frame", "detections", "data"] {
            assert_eq!(event[name], kept[name], "{name}");
        }
    }
    assert_eq!(serde_json::from_str::<Value>(&found[0]).unwrap()["type"], "detections");
    metric_becomes(&host, "ocelli_sink_up", |up| up == 1.0).await;

    let mut later = broker.subscribe(&["ocelli/box/status", "ocelli/box/+/state"]);
    let mut retained = BTreeMap::new();
    // What is retained may be a second old.
    let runs = |retained: &BTreeMap<String, String>| {
        let state = retained.get("ocelli/box/a%2Fb%2Bc%23/state");
        state.is_some_and(|state| state.contains("\"running\""))
    };
    while retained.len() < 3 || !runs(&retained) {
        let message = later.received();
        retained.insert(message.topic, message.payload);
    }
    assert_eq!(retained["ocelli/box/status"], "online");
    let state: Value = serde_json::from_str(&retained["ocelli/box/a%2Fb%2Bc%23/state"]).unwrap();
    assert_eq!((&state["session"], &state["state"]), (&json!("a/b+c#"), &json!("running")));
    host.stop().await;
    later.find(|message| {
        (message.topic == "ocelli/box/status" && message.payload == "offline").then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_paused_and_restarted_gets_every_event() {
    let mut broker = Mosquitto::start();
    let mut subscriber = broker.subscribe(&EVENTS);
    let (_store, host) = host(&broker.section("timeout_ms = 500")).await;
    let mut heard = Heard::default();
    heard.reach(&mut subscriber, 20);
    assert!(heard.0.values().all(|last| *last >= 20));

    broker.pause(true);
    metric_becomes(&host, "ocelli_sink_up", |up| up == 0.0).await;
    metric_becomes(&host, "ocelli_sink_behind_events", |behind| behind > 50.0).await;
    broker.pause(false);
    heard.reach(&mut subscriber, newest(&host).await);

    broker.stop();
    metric_becomes(&host, "ocelli_sink_behind_events", |behind| behind > 50.0).await;
    broker.run("allow_anonymous true\n");
    heard.reach(&mut subscriber, newest(&host).await);
    assert!(host.log().text().contains("MQTT takes events again"));
    let begun = Instant::now();
    loop {
        let ready: Value = serde_json::from_str(&host.get("/readyz").await).unwrap();
        if ready["host"]["sinks"]["mqtt"]["state"] == "ok" {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "{ready}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_killed_goes_on_where_it_was() {
    let broker = Mosquitto::start();
    let mut subscriber = broker.subscribe(&EVENTS);
    let (_store, mut host) = host(&broker.section("")).await;
    let mut heard = Heard::default();
    for round in 1..=2 {
        heard.reach(&mut subscriber, round * 30);
        host.cut_and_start_again().await;
    }
    // The newest may be one of before, where no frame has come yet.
    heard.reach(&mut subscriber, newest(&host).await.max(61));
    assert!(EVENTS.iter().all(|topic| heard.0[*topic] > 60));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_password_is_told_and_nothing_is_lost() {
    let mut broker = Mosquitto::nowhere();
    let settings = broker.user("ann", "hunter2");
    broker.run(&settings);
    let mut subscriber = broker.subscribe_as(&EVENTS, &["-u", "ann", "-P", "hunter2"]);
    let url = |password: &str| {
        format!(
            "[mqtt]\nurl = \"mqtt://ann:{password}@127.0.0.1:{}\"\nname = \"box\"\n",
            broker.port()
        )
    };
    let (store, host) = host(&url("wrong")).await;
    metric_becomes(&host, "ocelli_sink_behind_events", |behind| behind > 20.0).await;
    let said = host.log().text();
    assert!(said.contains("NotAuthorized") || said.contains("BadUserNamePassword"), "{said}");
    assert!(!said.contains("wrong"), "no password is in the log");
    let cameras = eventful("gate", "") + &eventful("a/b+c#", "");
    host.edit_config(&(store.section() + &url("hunter2") + &cameras));
    let mut heard = Heard::default();
    let newest = newest(&host).await;
    heard.reach(&mut subscriber, newest);
    assert!(!host.get("/v1/config").await.contains("hunter2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_trusts_the_authority_of_the_config_and_no_other() {
    let mut broker = Mosquitto::nowhere();
    let (certificates, settings) = broker.certificates();
    broker.run(&settings);
    let elsewhere = Mosquitto::nowhere();
    let (stranger, _) = elsewhere.certificates();
    let files = |name: &str, file: &std::path::Path| format!("{name} = {:?}\n", file);
    let section = |ca: &std::path::Path| {
        format!("[mqtt]\nurl = \"mqtts://127.0.0.1:{}\"\nname = \"box\"\n", broker.port())
            + &files("ca", ca)
            + &files("certificate", &certificates.client.0)
            + &files("key", &certificates.client.1)
    };
    let (store, host) = host(&section(&stranger.ca)).await;
    metric_becomes(&host, "ocelli_sink_errors_total", |errors| errors > 1.0).await;
    assert!(host.log().text().contains("UnknownIssuer"), "{}", host.log().text());
    let cameras = eventful("gate", "") + &eventful("a/b+c#", "");
    host.edit_config(&(store.section() + &section(&certificates.ca) + &cameras));
    metric_becomes(&host, "ocelli_sink_up", |up| up == 1.0).await;
    metric_becomes(&host, "ocelli_sink_behind_events", |behind| behind < 5.0).await;
    metric_becomes(&host, "ocelli_sink_events_total", |events| events > 20.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_acknowledges_nothing_or_floods_costs_no_memory_and_no_event() {
    for flood in [false, true] {
        let broker = FakeServer::mqtt(flood).await;
        let section = format!(
            "[mqtt]\nurl = \"mqtt://{}\"\nname = \"box\"\ntimeout_ms = 500\n",
            broker.address
        );
        let (_store, host) = host(&section).await;
        metric_becomes(&host, "ocelli_sink_errors_total", |errors| errors >= 3.0).await;
        let before = ProcessResources::of(host.process().pid).resident_kib;
        metric_becomes(&host, "ocelli_sink_errors_total", |errors| errors >= 6.0).await;
        let after = ProcessResources::of(host.process().pid).resident_kib;
        assert!(after < before + (64 << 10), "{before} KiB, then {after}");
        let events = host.metric("ocelli_sink_events_total{sink=\"mqtt\"}").await;
        assert_eq!(events, Some(0.0));
        assert_eq!(host.session("gate").await["state"], "running");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn home_assistant_learns_of_a_camera_and_that_it_was_removed() {
    let broker = Mosquitto::start();
    let section = broker.section(
        "discovery = \"homeassistant\"\npictures = \"interval\"\npictures_s = 1\n\
         pictures_width = 64",
    );
    let mut subscriber = broker.subscribe(&["homeassistant/#"]);
    let (store, host) = host(&section).await;
    let (gate, strange) = ("ocelli_box__gate", "ocelli_box__a_2fb_2bc_23");
    let topic = |id: &str| format!("homeassistant/device/{id}/config");
    let announced = subscriber
        .find(|message| (message.topic == topic(strange)).then(|| message.payload.clone()));
    let device: Value = serde_json::from_str(&announced).unwrap();
    assert_eq!(device["device"]["name"], "a/b+c#");
    assert_eq!(device["availability"][0]["topic"], "ocelli/box/status");
    let components = &device["components"];
    assert_eq!(components["running"]["state_topic"], "ocelli/box/a%2Fb%2Bc%23/state");
    assert_eq!(components["picture"]["topic"], "ocelli/box/a%2Fb%2Bc%23/picture");
    let mut pictures = broker.subscribe_as(&["ocelli/box/gate/picture"], &["-N"]);
    assert!(pictures.received().payload.contains("JFIF"), "a JPEG");

    host.edit_config(&(store.section() + &section + &eventful("gate", "")));
    subscriber.find(|message| {
        (message.topic == topic(strange) && message.payload.is_empty()).then_some(())
    });
    let mut later = broker.subscribe(&["homeassistant/#", "ocelli/box/+/state"]);
    let kept = [later.received().topic, later.received().topic];
    assert!(
        kept.contains(&topic(gate)) && kept.contains(&"ocelli/box/gate/state".into()),
        "{kept:?}"
    );
}
