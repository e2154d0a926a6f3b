use std::collections::BTreeMap;

use ocelli_protocol::worker as protocol;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::{
    InvalidResult, MAX_ANSWERS, MAX_BYTES, MAX_DETECTIONS, MAX_EVENTS, SlowSubscriber,
    SubscribeOptions, convert,
};
use super::*;
use crate::journal::Journal;

fn result(frame: u64) -> protocol::FrameResult {
    let detection = protocol::Detection {
        label: "car".into(),
        score: 0.873_26,
        area: protocol::Rect { x: 12.346, y: -0.001, width: 100.0, height: 50.5 },
        track: Some(7),
        attributes: vec![
            protocol::Attribute { name: "brand".into(), value: "b".into(), score: 0.912_345 },
            protocol::Attribute { name: "body".into(), value: "van".into(), score: 1.0 },
            protocol::Attribute { name: "brand".into(), value: "c".into(), score: 0.1 },
        ],
        embedding: None,
    };
    protocol::FrameResult {
        frame,
        presentation_ns: -80_000_000,
        capture_ns: 1_700_000_000_123_999_999,
        capture_clock: protocol::CaptureClock::Camera,
        width: 768,
        height: 576,
        detections: Some(vec![detection.clone()]),
        events: vec![protocol::Event {
            kind: "entered".into(),
            detections: vec![protocol::Detection { track: None, attributes: vec![], ..detection }],
            data: r#"{"zone":"gate"}"#.into(),
            attachments: vec![],
        }],
        basis: None,
        timestamps: protocol::Timestamps {
            received: 1_000_000_000,
            decoded: 1_002_504_999,
            submitted: 1_002_600_000,
            inferred: 1_050_000_000,
            emitted: 1_051_000_000,
        },
    }
}

/// Everything of a session from now on.
const ALL: SubscribeOptions = SubscribeOptions { detections: true, after: None };

/// Without detections.
const EVENTS: SubscribeOptions = SubscribeOptions { detections: false, after: None };

fn hub() -> Hub {
    Hub::new(Journal::temporary().unwrap().events().clone())
}

fn found(frame: u64) -> Detections {
    convert::detections(&result(frame), "0a1b2c3d4e5f").unwrap().unwrap()
}

fn happened() -> Event {
    convert::event(&result(1).events[0], &result(1), "0a1b2c3d4e5f").unwrap()
}

/// All that waits, and whether the subscriber was closed.
async fn drain(hub: &Hub, subscriber: &Subscriber) -> (Vec<Value>, bool) {
    hub.events().flush().await.unwrap();
    let mut messages = Vec::new();
    while let Some(next) = subscriber.try_next() {
        match next {
            Ok(text) => messages.push(serde_json::from_str(&text.text).unwrap()),
            Err(SlowSubscriber) => return (messages, true),
        }
    }
    (messages, false)
}

fn texts(subscriber: &Subscriber) -> Vec<String> {
    std::iter::from_fn(|| subscriber.try_next())
        .map(|next| next.unwrap().text.to_string())
        .collect()
}

fn kind(message: &Value) -> &str {
    message["type"].as_str().unwrap()
}

#[tokio::test]
async fn messages_are_on_the_wire_as_the_contract_has_them() {
    let hub = hub();
    let subscriber = hub.subscriber();
    let session = "display-001;cam-001";
    subscriber.subscribe(session, ALL);
    hub.publish_state(session, SessionState::Degraded, Some("the camera is \"down\"".into()));
    hub.publish_state(session, SessionState::Running, None);
    hub.publish_result(session, "0a1b2c3d4e5f", result(12), None).await.unwrap();
    hub.events().flush().await.unwrap();
    subscriber.send(&ServerMessage::Pong { id: None });
    subscriber.send(&ServerMessage::Answer {
        session,
        id: Some(&json!(3)),
        answer: &json!({"count": 1}),
    });
    subscriber.send(&ServerMessage::error("bad_json", "no", None));
    let refused = ServerMessage::Error {
        code: "session_refused",
        message: "full",
        session: Some(session),
        id: None,
        cause: Some("session_limit"),
        after: None,
        oldest: None,
        newest: None,
    };
    subscriber.send(&refused);
    let mut told = texts(&subscriber);
    subscriber.unsubscribe(session);
    told.extend(texts(&subscriber));
    let expected = [
        r#"{"type":"subscribed","session":"display-001;cam-001","state":"starting"}"#,
        r#"{"type":"session","session":"display-001;cam-001","state":"degraded","reason":"the camera is \"down\""}"#,
        r#"{"type":"session","session":"display-001;cam-001","state":"running","reason":null}"#,
        concat!(
            r#"{"type":"detections","session":"display-001;cam-001","frame":12,"presentation_ns":-80000000,"time":"2023-11-14T22:13:20.123Z","#,
            r#""clock":"camera","deployment":"0a1b2c3d4e5f","width":768,"height":576,"detections":[{"label":"car","score":0.8733,"#,
            r#""box":[12.35,0.0,100.0,50.5],"track":7,"attributes":{"brand":{"value":"b","score":0.9123},"#,
            r#""body":{"value":"van","score":1.0}}}],"#,
            r#""latency_ms":{"decode":2.5,"wait":0.1,"inference":47.4,"pipeline":1.0,"total":51.0}}"#
        ),
        concat!(
            r#"{"type":"event","session":"display-001;cam-001","seq":1,"time":"2023-11-14T22:13:20.123Z","#,
            r#""clock":"camera","kind":"entered","deployment":"0a1b2c3d4e5f","frame":12,"detections":[{"label":"car","score":0.8733,"#,
            r#""box":[12.35,0.0,100.0,50.5],"attributes":{}}],"data":{"zone":"gate"}}"#
        ),
        r#"{"type":"pong"}"#,
        r#"{"type":"answer","session":"display-001;cam-001","id":3,"answer":{"count":1}}"#,
        r#"{"type":"error","code":"bad_json","message":"no"}"#,
        r#"{"type":"error","code":"session_refused","message":"full","session":"display-001;cam-001","cause":"session_limit"}"#,
        r#"{"type":"unsubscribed","session":"display-001;cam-001"}"#,
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn numbers_that_json_does_not_have_are_refused_and_the_frame_with_them() {
    let hub = hub();
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", ALL);
    let mut bad = result(1);
    bad.detections.as_mut().unwrap()[0].area.width = f32::NAN;
    assert!(matches!(
        hub.publish_result("cam", "d", bad, None).await,
        Err(InvalidResult::NotFinite { what: "box", .. })
    ));
    let mut bad = result(1);
    bad.detections.as_mut().unwrap()[0].embedding = Some(vec![1.0, f32::INFINITY]);
    assert!(matches!(
        hub.publish_result("cam", "d", bad, None).await,
        Err(InvalidResult::NotFinite { what: "embedding", .. })
    ));
    for data in ["[1]", "{", "7", "{\"a\":NaN}"] {
        let mut bad = result(1);
        bad.events[0].data = data.into();
        assert!(
            matches!(
                hub.publish_result("cam", "d", bad, None).await,
                Err(InvalidResult::Data { .. })
            ),
            "{data}"
        );
    }
    assert_eq!(
        drain(&hub, &subscriber).await.0.len(),
        1,
        "subscribed, and nothing of a frame that was refused"
    );
}

#[tokio::test]
async fn a_frame_that_was_not_looked_at_has_events_alone() {
    let hub = hub();
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", ALL);
    let unseen = protocol::FrameResult { detections: None, ..result(1) };
    hub.publish_result("cam", "d", unseen, None).await.unwrap();
    assert_eq!(
        drain(&hub, &subscriber).await.0.iter().map(kind).collect::<Vec<_>>(),
        ["subscribed", "event"]
    );
}

#[tokio::test]
async fn a_slow_subscriber_gets_the_newest_detections_the_count_of_the_others_and_every_event() {
    let hub = hub();
    let slow = hub.subscriber();
    slow.subscribe("cam", ALL);
    let published = MAX_DETECTIONS as u64 + 44;
    for frame in 0..published {
        hub.publish_detections("cam", &found(frame));
        if frame % 10 == 0 {
            hub.publish_event("cam", happened());
        }
    }
    let (messages, closed) = drain(&hub, &slow).await;
    assert!(!closed);
    let frames: Vec<u64> = messages
        .iter()
        .filter(|m| kind(m) == "detections")
        .map(|m| m["frame"].as_u64().unwrap())
        .collect();
    assert_eq!(frames, (44..published).collect::<Vec<_>>());
    let lagged: Vec<usize> =
        (0..messages.len()).filter(|&at| kind(&messages[at]) == "lagged").collect();
    assert_eq!(lagged.len(), 1);
    assert_eq!(messages[lagged[0]]["missed"], 44);
    assert_eq!(
        messages[lagged[0] + 1]["frame"],
        44,
        "what was missed is said before the next detections"
    );
    let events: Vec<u64> = messages
        .iter()
        .filter(|m| kind(m) == "event")
        .map(|m| m["seq"].as_u64().unwrap())
        .collect();
    assert_eq!(events, (1..=published.div_ceil(10)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_subscriber_that_never_reads_costs_a_bounded_amount_and_is_closed_by_events() {
    let hub = hub();
    let never = hub.subscriber();
    never.subscribe("cam", ALL);
    for frame in 0..2_000 {
        hub.publish_detections("cam", &found(frame));
    }
    let (messages, bytes) = never.waiting();
    assert_eq!(messages, MAX_DETECTIONS + 1);
    assert!(bytes < MAX_BYTES);
    for _ in 0..2 * MAX_EVENTS {
        hub.publish_event("cam", happened());
    }
    hub.events().flush().await.unwrap();
    assert_eq!(never.waiting().0, MAX_DETECTIONS + 1 + MAX_EVENTS, "the others are in the journal");
    assert_eq!(hub.counts().fell_behind, 1);
    assert_eq!(hub.subscriber_count("cam"), 1);
    // `subscribed` waits already.
    for _ in 0..MAX_ANSWERS - 1 {
        hub.publish_state("cam", SessionState::Running, None);
    }
    assert_eq!(hub.subscriber_count("cam"), 1);
    hub.publish_state("cam", SessionState::Running, None);
    assert_eq!(hub.subscriber_count("cam"), 0);
    assert_eq!(never.waiting(), (0, 0));
    assert_eq!(drain(&hub, &never).await, (vec![], true));
    hub.publish_detections("cam", &found(1));
    hub.publish_event("cam", happened());
    never.send(&ServerMessage::Pong { id: None });
    never.subscribe("cam", ALL);
    assert_eq!(drain(&hub, &never).await, (vec![], true), "closed is closed");
    assert_eq!(hub.subscriber_count("cam"), 0);
}

/// The next messages of a subscriber, up to the event with this number.
async fn up_to(subscriber: &Subscriber, seq: u64) -> Vec<Value> {
    let mut messages = Vec::new();
    loop {
        let told = subscriber.next().await.unwrap();
        messages.push(serde_json::from_str(&told.text).unwrap());
        if told.seq == Some(seq) {
            return messages;
        }
    }
}

fn numbers(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter_map(|message| message["seq"].as_u64()).collect()
}

#[tokio::test]
async fn a_subscriber_that_was_too_slow_gets_every_event_from_the_journal_and_is_live_again() {
    let hub = hub();
    let slow = hub.subscriber();
    slow.subscribe("cam", EVENTS);
    let many = 3 * MAX_EVENTS as u64;
    for round in 1..=3 {
        for _ in 0..many {
            hub.events().wait_for_capacity("cam").await;
            hub.publish_event("cam", happened());
        }
        hub.events().flush().await.unwrap();
        let told = up_to(&slow, round * many).await;
        assert_eq!(numbers(&told), ((round - 1) * many + 1..=round * many).collect::<Vec<_>>());
        assert_eq!(hub.counts().fell_behind, round);
    }
}

#[tokio::test]
async fn after_a_number_come_the_events_of_the_journal_and_then_the_live_ones_without_a_gap() {
    let hub = hub();
    (0..600).for_each(|_| hub.publish_event("cam", happened()));
    (0..5).for_each(|_| hub.publish_event("other", happened()));
    hub.events().flush().await.unwrap();
    for after in [0, 1, 299, 599, 600] {
        let subscriber = hub.subscriber();
        subscriber.subscribe("cam", SubscribeOptions { after: Some(after), ..EVENTS });
        let last = hub
            .events()
            .page("cam", crate::journal::events::EventQuery::default())
            .await
            .unwrap()
            .span
            .newest;
        hub.publish_event("cam", happened());
        let told = up_to(&subscriber, last + 1).await;
        assert_eq!(kind(&told[0]), "subscribed");
        assert_eq!(numbers(&told), (after + 1..=last + 1).collect::<Vec<_>>());
    }
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", SubscribeOptions { after: Some(601), ..EVENTS });
    subscriber.subscribe("cam", SubscribeOptions { after: Some(599), ..EVENTS });
    let told = up_to(&subscriber, 605).await;
    assert_eq!(numbers(&told), (600..=605).collect::<Vec<_>>(), "what was said last counts");
}

#[tokio::test]
async fn every_session_is_that_which_is_there_and_that_which_comes() {
    let hub = hub();
    hub.publish_state("a", SessionState::Running, None);
    (0..3).for_each(|_| hub.publish_event("a", happened()));
    // Somebody asks for a session that does not exist.
    let hold = hub.hold("nobody");
    let all = hub.subscriber();
    all.subscribe_all(false, HashMap::from([("a".to_owned(), 1), ("b".to_owned(), 0)]));
    hub.publish_state("b", SessionState::Starting, None);
    hub.publish_event("b", happened());
    hub.events().flush().await.unwrap();
    let mut told = Vec::new();
    while numbers(&told).len() < 3 {
        told.push(serde_json::from_str(&all.next().await.unwrap().text).unwrap());
    }
    let of = |session: &str| -> Vec<Value> {
        told.iter().filter(|message| message["session"] == session).cloned().collect()
    };
    assert_eq!((kind(&told[0]), &told[0]["session"]), ("subscribed", &json!("*")));
    assert_eq!((kind(&of("a")[0]), numbers(&of("a"))), ("subscribed", vec![2, 3]));
    assert_eq!((kind(&of("b")[0]), numbers(&of("b"))), ("subscribed", vec![1]));
    assert!(of("nobody").is_empty());
    drop(hold);
    assert_eq!(hub.subscriber_count("a"), 0, "it keeps no session alive");
    // It hears the last of a session that ends, and leaves nothing behind.
    hub.publish_event("b", happened());
    hub.publish_state("b", SessionState::Stopped, None);
    hub.remove_session("b");
    hub.events().flush().await.unwrap();
    let (last, _) = drain(&hub, &all).await;
    assert_eq!(last.iter().map(kind).collect::<Vec<_>>(), ["event", "session"]);
    assert_eq!(hub.topics().sessions.len(), 1);
    // The name is used again.
    hub.publish_event("b", happened());
    let again = drain(&hub, &all).await.0;
    assert_eq!(again.iter().map(kind).collect::<Vec<_>>(), ["subscribed", "event"]);
    // By name as well: one copy.
    all.subscribe("b", EVENTS);
    hub.publish_event("b", happened());
    assert_eq!(
        drain(&hub, &all).await.0.iter().map(kind).collect::<Vec<_>>(),
        ["subscribed", "event"]
    );
    all.unsubscribe("*");
    hub.publish_event("a", happened());
    hub.publish_event("b", happened());
    assert_eq!(
        drain(&hub, &all).await.0.iter().map(kind).collect::<Vec<_>>(),
        ["unsubscribed", "event"]
    );
}

#[tokio::test]
async fn a_change_of_state_comes_behind_the_events_before_it() {
    let hub = hub();
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", EVENTS);
    for _ in 0..200 {
        hub.publish_event("cam", happened());
        hub.publish_state("cam", SessionState::Running, None);
    }
    let told = drain(&hub, &subscriber).await.0;
    let kinds: Vec<_> = told.iter().skip(1).map(kind).collect();
    assert_eq!(kinds, ["event", "session"].repeat(200));
}

#[tokio::test]
async fn large_detections_are_bounded_by_bytes_over_all_sessions_and_counted_for_each() {
    let hub = hub();
    let slow = hub.subscriber();
    let mut large = found(0);
    large.detections[0].label = "x".repeat(1 << 20);
    for session in ["one", "two"] {
        slow.subscribe(session, ALL);
        (0..20).for_each(|_| hub.publish_detections(session, &large));
    }
    assert!(slow.waiting().1 <= MAX_BYTES + 1024);
    let mut got = BTreeMap::new();
    for message in drain(&hub, &slow).await.0 {
        let (delivered, missed) =
            got.entry(message["session"].as_str().unwrap().to_owned()).or_insert((0, 0));
        match kind(&message) {
            "detections" => *delivered += 1,
            "lagged" => *missed += message["missed"].as_u64().unwrap(),
            _ => {}
        }
    }
    assert_eq!(got["two"].0 + got["two"].1, 20);
    // All of the first session's went for the second's; a count is told before the next detections,
    // and none came.
    assert_eq!(got["one"], (0, 0));
    hub.publish_detections("one", &found(1));
    let told: Vec<Value> = drain(&hub, &slow).await.0;
    assert_eq!((kind(&told[0]), told[0]["missed"].as_u64()), ("lagged", Some(20)));
}

#[tokio::test]
async fn a_slow_subscriber_takes_nothing_from_another() {
    let hub = hub();
    let (slow, quick) = (hub.subscriber(), hub.subscriber());
    slow.subscribe("cam", ALL);
    quick.subscribe("cam", ALL);
    assert_eq!(drain(&hub, &quick).await.0.len(), 1);
    for frame in 0..2_000 {
        hub.publish_detections("cam", &found(frame));
        hub.publish_event("cam", happened());
        let (messages, closed) = drain(&hub, &quick).await;
        assert!(!closed);
        assert_eq!(
            (messages[0]["frame"].as_u64(), messages[1]["seq"].as_u64()),
            (Some(frame), Some(frame + 1))
        );
        assert_eq!(messages.len(), 2);
    }
    hub.publish_state("cam", SessionState::Running, None);
    assert!(!drain(&hub, &slow).await.1);
}

#[tokio::test]
async fn nothing_of_a_session_follows_its_unsubscribed() {
    let hub = hub();
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", ALL);
    hub.publish_detections("cam", &found(1));
    hub.publish_event("cam", happened());
    subscriber.unsubscribe("cam");
    hub.publish_detections("cam", &found(2));
    hub.publish_event("cam", happened());
    let kinds: Vec<String> =
        drain(&hub, &subscriber).await.0.iter().map(|message| kind(message).to_owned()).collect();
    assert_eq!(kinds, ["subscribed", "unsubscribed"]);
}

#[tokio::test]
async fn who_wants_events_alone_gets_no_detections() {
    let hub = hub();
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", EVENTS);
    assert!(!hub.wants_detections("cam"));
    hub.publish_result("cam", "d", result(1), None).await.unwrap();
    hub.events().flush().await.unwrap();
    subscriber.subscribe("cam", ALL);
    assert!(hub.wants_detections("cam"));
    hub.publish_result("cam", "d", result(2), None).await.unwrap();
    let kinds: Vec<String> =
        drain(&hub, &subscriber).await.0.iter().map(|message| kind(message).to_owned()).collect();
    assert_eq!(kinds, ["subscribed", "event", "subscribed", "detections", "event"]);
    assert_eq!(hub.subscriber_count("cam"), 1);
}

#[tokio::test]
async fn subscribed_tells_the_present_state() {
    let hub = hub();
    hub.publish_state("cam", SessionState::Failed, Some("crash loop".into()));
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", ALL);
    assert_eq!(drain(&hub, &subscriber).await.0[0]["state"], "failed");
}

#[tokio::test]
async fn the_count_of_subscribers_can_be_awaited_and_holds_count() {
    let hub = hub();
    hub.publish_state("cam", SessionState::Running, None);
    let mut count = hub.watch_subscribers("cam");
    assert_eq!(*count.borrow(), 0);
    let hold = hub.hold("cam");
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", ALL);
    drop(hold);
    count.wait_for(|count| *count == 1).await.unwrap();
    drop(subscriber);
    count.wait_for(|count| *count == 0).await.unwrap();
}

#[tokio::test]
async fn a_waiting_subscriber_is_woken_by_a_message_and_by_its_closing() {
    let hub = hub();
    let subscriber = Arc::new(hub.subscriber());
    subscriber.subscribe("cam", ALL);
    subscriber.next().await.unwrap();
    let waiting = tokio::spawn({
        let subscriber = Arc::clone(&subscriber);
        async move { subscriber.next().await }
    });
    tokio::task::yield_now().await;
    hub.publish_state("cam", SessionState::Running, None);
    assert!(waiting.await.unwrap().unwrap().text.contains("running"));
    (0..=MAX_ANSWERS).for_each(|_| hub.publish_state("cam", SessionState::Running, None));
    assert_eq!(subscriber.next().await, Err(SlowSubscriber));
}

#[tokio::test]
async fn topics_of_sessions_that_never_were_go_with_their_last_subscriber() {
    let hub = hub();
    let subscriber = hub.subscriber();
    for number in 0..100 {
        subscriber.subscribe(&format!("session {number}"), ALL);
    }
    assert_eq!(hub.topics().sessions.len(), 100);
    drop(subscriber);
    drop(hub.hold("another"));
    assert_eq!(hub.topics().sessions.len(), 0);
    hub.publish_event("cam", happened());
    hub.remove_session("cam");
    assert_eq!(hub.topics().sessions.len(), 0);
}

#[tokio::test]
async fn an_event_of_a_session_that_is_gone_is_told_to_nobody_and_leaves_nothing() {
    let hub = hub();
    assert!(!hub.publish_event_if_exists("cam", happened()));
    assert_eq!(hub.topics().sessions.len(), 0);
    hub.publish_state("cam", SessionState::Running, None);
    assert!(hub.publish_event_if_exists("cam", happened()));
    hub.events().flush().await.unwrap();
    let subscriber = hub.subscriber();
    subscriber.subscribe("cam", ALL);
    hub.remove_session("cam");
    assert!(!hub.publish_event_if_exists("cam", happened()));
    assert_eq!(drain(&hub, &subscriber).await.0.len(), 1, "subscribed alone");
}

#[tokio::test]
async fn the_hub_counts_who_listens_and_what_was_lost() {
    let hub = hub();
    assert_eq!(hub.counts(), HubCounts::default());
    let (slow, other) = (hub.subscriber(), hub.subscriber());
    slow.subscribe("cam", ALL);
    (0..MAX_DETECTIONS as u64 + 44).for_each(|frame| hub.publish_detections("cam", &found(frame)));
    assert_eq!(hub.counts(), HubCounts { subscribers: 2, missed: 44, fell_behind: 0, closed: 0 });
    (0..=MAX_ANSWERS).for_each(|_| hub.publish_state("cam", SessionState::Running, None));
    drop(other);
    assert_eq!(hub.counts(), HubCounts { subscribers: 1, missed: 44, fell_behind: 0, closed: 1 });
    hub.note_untaken();
    assert_eq!(hub.counts().closed, 2);
    drop(slow);
    assert_eq!(hub.counts().subscribers, 0);
}

#[derive(Debug, Clone)]
enum Step {
    Detections(usize),
    Event(usize),
    State(usize),
    Read(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2usize).prop_map(Step::Detections),
        2 => (0..2usize).prop_map(Step::Event),
        1 => (0..2usize).prop_map(Step::State),
        2 => (0..12usize).prop_map(Step::Read),
    ];
    proptest::collection::vec(step, 0..1500)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn whatever_is_read_when_order_holds_and_every_loss_is_counted(steps in steps()) {
        let sessions = ["cam-a", "cam-b"];
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _within = runtime.enter();
        let hub = hub();
        let subscriber = hub.subscriber();
        sessions.iter().for_each(|session| subscriber.subscribe(session, ALL));
        let mut frames = [0u64; 2];
        let mut told: Vec<Value> = Vec::new();
        let read = |told: &mut Vec<Value>| match subscriber.try_next() {
            Some(next) => {
                told.push(serde_json::from_str(&next.unwrap().text).unwrap());
                true
            }
            None => false,
        };
        for step in &steps {
            match step {
                Step::Detections(at) => {
                    hub.publish_detections(sessions[*at], &found(frames[*at]));
                    frames[*at] += 1;
                }
                Step::Event(at) => {
                    hub.publish_event(sessions[*at], happened());
                }
                Step::State(at) => hub.publish_state(sessions[*at], SessionState::Running, None),
                Step::Read(count) => (0..*count).for_each(|_| { read(&mut told); }),
            }
            prop_assert!(subscriber.waiting().0 <= 2 * MAX_DETECTIONS + MAX_EVENTS);
        }
        runtime.block_on(hub.events().flush()).unwrap();
        while read(&mut told) {}
        for (at, session) in sessions.iter().enumerate() {
            let (mut next_frame, mut next_seq) = (0, 1);
            for message in told.iter().filter(|message| message["session"] == *session) {
                match kind(message) {
                    "detections" => {
                        prop_assert_eq!(message["frame"].as_u64().unwrap(), next_frame);
                        next_frame += 1;
                    }
                    "lagged" => next_frame += message["missed"].as_u64().unwrap(),
                    "event" => {
                        prop_assert_eq!(message["seq"].as_u64().unwrap(), next_seq);
                        next_seq += 1;
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(next_frame, frames[at]);
            let events = steps.iter().filter(|step| matches!(step, Step::Event(of) if *of == at)).count();
            prop_assert_eq!(next_seq, events as u64 + 1);
        }
    }
}

/// The messages that wait, by their kinds.
fn kinds(subscriber: &Subscriber) -> Vec<&'static str> {
    std::iter::from_fn(|| subscriber.try_next()).map(|told| told.unwrap().kind).collect()
}

#[tokio::test]
async fn how_the_host_is_comes_to_every_subscriber_once_and_first_where_it_is_not_well() {
    let hub = hub();
    let fail = |waiting: u64| {
        hub.update_host(|host| {
            let why = Some("full".to_owned());
            host.storage.set(super::super::PartState::Failed, why, SystemTime::UNIX_EPOCH);
            host.events_waiting = waiting;
        });
    };
    let (idle, gone) = (hub.subscriber(), hub.subscriber());
    assert!(kinds(&idle).is_empty(), "all is well");
    drop(gone);
    fail(1);
    fail(1);
    fail(2);
    let told = idle.try_next().unwrap().unwrap();
    let told: Value = serde_json::from_str(&told.text).unwrap();
    let expected =
        json!({"state": "failed", "reason": "full", "since": "1970-01-01T00:00:00.000Z"});
    assert_eq!((&told["type"], &told["storage"]), (&json!("host"), &expected));
    assert_eq!(told["events_waiting"], 2, "of those that wait the newest is told");
    assert!(kinds(&idle).is_empty());
    let late = hub.subscriber();
    late.subscribe("cam", ALL);
    assert_eq!(kinds(&late), ["host", "subscribed"]);
    hub.update_host(|host| *host = HostStatus::new(SystemTime::UNIX_EPOCH));
    assert_eq!((kinds(&idle), kinds(&late)), (vec!["host"], vec!["host"]));
    assert_eq!(hub.shared.host.lock().subscribers.len(), 2, "who is gone is forgotten");
}
