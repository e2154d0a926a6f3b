//! What subscribers ask, and what they are told.

use std::time::Duration;

use ocelli_testkit::{Cameras, Ocelli, Relay, clip};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use crate::{SLOW, camera};

#[tokio::test(flavor = "multi_thread")]
async fn two_sessions_on_a_camera_share_its_connection_and_both_get_results() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let relay = Relay::to(cameras.port()).await;
    let url = format!("rtsp://{}/cam", relay.address());
    let host = Ocelli::start(&(camera("one", &url, SLOW) + &camera("two", &url, SLOW))).await;
    let mut client = host.client().await;
    for session in ["one", "two"] {
        client.subscribe(session).await;
    }
    for _ in 0..3 {
        client.detections("one").await;
        client.detections("two").await;
    }
    assert_ne!(
        host.worker("one").await.pid,
        host.worker("two").await.pid,
        "a process for each session"
    );
    assert_eq!(relay.connections(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_subscribers_session_ends_with_its_last_subscriber_after_the_grace_period() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let host =
        Ocelli::start("[subscriptions]\ngrace_s = 1\nsources = [\"rtsp://127.0.0.1:*\"]\n").await;
    let session = "display-001;cam-001";
    let (mut first, mut second) = (host.client().await, host.client().await);
    for client in [&mut first, &mut second] {
        client.subscribe_to(session, &cameras.url("/cam")).await;
        client.detections(session).await;
    }
    let worker = host.worker(session).await;

    first.close().await;
    let left = Instant::now();
    while left.elapsed() < Duration::from_secs(2) {
        second.detections(session).await;
    }
    let status = host.session(session).await;
    assert_eq!(
        (&status["pid"], &status["restarts"]),
        (&worker.pid.into(), &0.into()),
        "it lives for the other one"
    );

    second.close().await;
    let left = Instant::now();
    assert!(worker.ends_within(ocelli_testkit::DEADLINE), "the worker lives on");
    let took = left.elapsed();
    // Closing is heard of at the other end a little later than here.
    assert!(took > Duration::from_millis(900), "it ended after {took:?}, within the grace period");
    host.wait_for_session(session, Value::is_null).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_subscribers_may_not_name_is_refused() {
    let host = Ocelli::start("[subscriptions]\nsources = [\"rtsp://127.0.0.1:*\"]\n").await;
    let mut client = host.client().await;
    for source in ["file:/etc/passwd", "rtsp://10.0.0.1/cam"] {
        client.subscribe_to("mine", source).await;
        let error = client.next_of("error").await;
        assert_eq!(
            (&error["code"], &error["session"]),
            (&"session_refused".into(), &"mine".into()),
            "{error}"
        );
        assert_eq!(error["cause"], "source_not_allowed", "{error}");
    }
    assert!(host.session("mine").await.is_null());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_client_does_wrong_is_answered_and_the_connection_lives_on() {
    let host = Ocelli::start("").await;
    let mut client = host.client().await;
    let cases = [
        (Message::text("{"), "bad_json"),
        (Message::text("[]"), "bad_message"),
        (Message::text(r#"{"type":"dance"}"#), "unknown_type"),
        (Message::text(r#"{"type":"subscribe","session":"nobody"}"#), "unknown_session"),
        (Message::text(r#"{"type":"command","session":"nobody","command":{}}"#), "unknown_session"),
        (Message::binary(vec![1, 2, 3]), "unsupported_binary"),
    ];
    for (message, code) in cases {
        client.send_raw(message.clone()).await;
        let error = client.next().await;
        assert_eq!(
            (&error["type"], &error["code"]),
            (&"error".into(), &code.into()),
            "{message:?}: {error}"
        );
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
    }
    for text in client.received() {
        assert!(text.starts_with(r#"{"type":"#), "type comes first: {text}");
    }
    client.send(&json!({"type": "ping"})).await;
    assert_eq!(client.next().await["type"], "pong");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_are_numbered_from_1_on_and_tell_who_entered_and_left() {
    let host = Ocelli::start("[subscriptions]\nsources = [\"file:/\"]\n").await;
    let mut client = host.client().await;
    let source = format!("file:{}", clip("people-576-high.mp4").display());
    client
        .send(
            &json!({"type": "subscribe", "session": "events", "source": source, "pipeline": "object-detect",
            "detections": false}),
        )
        .await;
    let mut events: Vec<Value> = Vec::new();
    loop {
        let message = client.next().await;
        match message["type"].as_str().unwrap() {
            "event" => events.push(message),
            "detections" => panic!("not asked for: {message}"),
            "session" if message["state"] == "stopped" => break,
            _ => {}
        }
    }
    let numbers: Vec<u64> = events.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=events.len() as u64).collect::<Vec<_>>());
    let mut inside = Vec::new();
    for event in &events {
        let track = event["data"]["track"].as_u64().unwrap_or_else(|| panic!("no track: {event}"));
        assert_eq!(event["detections"][0]["track"], track, "{event}");
        assert_eq!(event["detections"][0]["label"], event["data"]["label"], "{event}");
        match event["kind"].as_str().unwrap() {
            "entered" => inside.push(track),
            "left" => {
                let place = inside.iter().position(|entered| *entered == track);
                inside.swap_remove(
                    place.unwrap_or_else(|| panic!("left without having entered: {event}")),
                );
            }
            _ => panic!("{event}"),
        }
    }
    assert!(
        events.iter().any(|event| event["kind"] == "entered" && event["data"]["label"] == "person")
    );
    assert!(events.iter().any(|event| event["kind"] == "left"), "nobody left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_pipeline_answers_questions() {
    let cameras = Cameras::start(&[], &[("/cam", "people-576-high.mp4")]);
    let host = Ocelli::start(&camera("cam", &cameras.url("/cam"), SLOW)).await;
    let mut client = host.client().await;
    client.subscribe("cam").await;
    let entered =
        |message: &Value| (message["kind"] == "entered").then(|| message["data"]["track"].clone());
    let track = client.find(entered).await;
    client.send(&json!({"type": "query", "session": "cam", "id": 7, "query": "tracks"})).await;
    let answer = client.next_of("answer").await;
    assert_eq!((&answer["session"], &answer["id"]), (&"cam".into(), &7.into()), "{answer}");
    let tracks =
        answer["answer"]["tracks"].as_array().unwrap_or_else(|| panic!("no tracks: {answer}"));
    assert!(tracks.iter().any(|known| known["track"] == track), "no track {track}: {answer}");
    let counted: u64 =
        answer["answer"]["counts"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(counted, tracks.len() as u64, "{answer}");

    client.send(&json!({"type": "query", "session": "cam", "query": "weather"})).await;
    let error = client.next_of("error").await;
    assert_eq!((&error["code"], &error["session"]), (&"refused".into(), &"cam".into()), "{error}");
    assert!(error["message"].as_str().unwrap().contains("tracks"), "{error}");
}
