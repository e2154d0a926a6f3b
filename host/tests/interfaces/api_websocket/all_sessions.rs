//! One stream for all sessions, and pages of their events.

use ocelli::event::SessionState;
use ocelli_testkit::http::EventStream;
use serde_json::{Value, json};

use super::*;

const PATH: &str = "/v1/stream";

impl Host {
    /// An event with a kind, a label and a zone.
    async fn seen(&self, session: &str, kind: &str, label: &str, zone: &str) {
        let data = json!({"label": label, "zone": zone});
        let Value::Object(data) = data else { unreachable!() };
        self.hub.publish_event(session, Event { kind: kind.into(), data, ..happened() });
        within(self.hub.events().flush()).await.unwrap();
    }

    async fn follow(&self, query: &str, headers: &str) -> EventStream {
        let path = format!("{PATH}{query}");
        let stream = EventStream::open(self.server.address(), &path, headers).await;
        assert!(stream.head.starts_with("HTTP/1.1 200"), "{}", stream.head);
        stream
    }
}

/// The next event: its `id`, session and number. Passes over `subscribed` and states.
async fn event(stream: &mut EventStream) -> (u64, String, u64) {
    loop {
        let (kind, id, message) = stream.next().await;
        match kind.as_str() {
            "event" => {
                let session = message["session"].as_str().unwrap().to_owned();
                return (id.unwrap(), session, message["seq"].as_u64().unwrap());
            }
            "subscribed" | "session" => {}
            _ => panic!("{message}"),
        }
    }
}

#[tokio::test]
async fn one_number_resumes_all_sessions_whatever_comes_and_goes() {
    let host = Host::start().await;
    host.happens(GATE, 2).await;
    let mut stream = host.follow("", "").await;
    let begin = loop {
        let line = stream.line().await;
        if let Some(id) = line.strip_prefix("id: ") {
            break id.trim().parse::<u64>().unwrap();
        }
    };
    host.happens(YARD, 1).await;
    host.happens(GATE, 1).await;
    assert_eq!(event(&mut stream).await, (begin + 1, YARD.to_owned(), 1));
    drop(stream);

    // Meanwhile events happen, a session comes, and another goes.
    host.hub.publish_state("new", SessionState::Running, None);
    host.happens("new", 1).await;
    host.happens(YARD, 1).await;
    host.hub.remove_session(YARD);
    let last = format!("Last-Event-ID: {}\r\n", begin + 1);
    let mut stream = host.follow("?after=0", &last).await;
    for (offset, session, seq) in [(2, GATE, 3), (3, "new", 1), (4, YARD, 2)] {
        assert_eq!(event(&mut stream).await, (begin + offset, session.to_owned(), seq));
    }
    // And while it is open.
    host.hub.publish_state("newer", SessionState::Starting, None);
    loop {
        let (kind, _, message) = stream.next().await;
        if (kind.as_str(), &message["session"]) == ("subscribed", &json!("newer")) {
            break;
        }
    }
    host.happens("newer", 1).await;
    assert_eq!(event(&mut stream).await, (begin + 5, "newer".to_owned(), 1));
    let newest = begin + 5;
    for (query, headers, code) in [
        (format!("?after={}", newest + 1), "", "after_ahead"),
        ("?after=x".into(), "", "bad_query"),
        ("?before=1".into(), "", "bad_query"),
        ("?kind=".into(), "", "bad_query"),
        ("?kind=left&detections=true".into(), "", "bad_query"),
        (String::new(), "Last-Event-ID: last\r\n", "bad_last_event_id"),
    ] {
        let answer = host.get(&format!("{PATH}{query}"), headers).await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.contains(code), "{answer}");
    }
}

#[tokio::test]
async fn a_stream_of_all_sessions_has_what_its_filters_and_its_token_let_pass() {
    let host = Host::with(
        Timing::default(),
        json!([
            token("some", "some-secret", "viewer", json!([GATE, "later"])),
            token("all", "all-secret", "viewer", Value::Null),
        ]),
    )
    .await;
    let all = "Authorization: Bearer all-secret\r\n";
    let some = "Authorization: Bearer some-secret\r\n";
    let mut zones = host.follow("?label=car&label=bus&zone=road", all).await;
    let mut kinds = host.follow(&format!("?kind=left&session={YARD}"), all).await;
    let mut seen = host.follow("", some).await;
    host.seen(GATE, "entered", "car", "road").await;
    host.seen(GATE, "left", "person", "road").await;
    host.seen(YARD, "left", "bus", "road").await;
    host.seen(YARD, "entered", "bus", "lawn").await;
    host.hub.publish_detections(YARD, &found(1, 1));
    host.hub.publish_detections(GATE, &found(1, 1));
    host.hub.publish_state("later", SessionState::Running, None);
    host.seen("later", "left", "car", "road").await;
    let places = async |stream: &mut EventStream, count| {
        let mut places = Vec::new();
        let mut others = Vec::new();
        while places.len() < count {
            let (kind, _, message) = stream.next().await;
            let session = message["session"].as_str().unwrap().to_owned();
            match kind.as_str() {
                "event" => places.push((session, message["seq"].as_u64().unwrap())),
                _ => others.push((kind, session)),
            }
        }
        (places, others)
    };
    let place = |session: &str, seq| (session.to_owned(), seq);
    let (got, others) = places(&mut zones, 3).await;
    assert_eq!(got, [place(GATE, 1), place(YARD, 1), place("later", 1)]);
    assert!(others.iter().all(|(kind, _)| kind != "detections"), "{others:?}");
    assert_eq!(places(&mut kinds, 1).await.0, [place(YARD, 1)]);
    let (got, mut others) = places(&mut seen, 3).await;
    assert_eq!(got, [place(GATE, 1), place(GATE, 2), place("later", 1)]);
    // Events may overtake what is told of the moment.
    let wanted = [("detections", GATE), ("subscribed", "later")];
    let wanted = wanted.map(|(kind, session)| (kind.to_owned(), session.to_owned()));
    while !wanted.iter().all(|one| others.contains(one)) {
        let (kind, _, message) = seen.next().await;
        others.push((kind, message["session"].as_str().unwrap().to_owned()));
    }
    assert!(others.iter().all(|(_, session)| session != YARD), "{others:?}");
}

#[tokio::test]
async fn events_come_through_a_flood_of_detections_and_it_keeps_no_session_alive() {
    let host = Host::start().await;
    let mut stream = host.follow("", "").await;
    assert_eq!(host.hub.subscriber_count(GATE), 0);
    let mut frame = 0;
    let flood = async {
        loop {
            frame += 1;
            host.hub.publish_detections(GATE, &found(frame, 20));
            tokio::task::yield_now().await;
        }
    };
    let got = async {
        for seq in 1..=20 {
            host.happens(GATE, 1).await;
            loop {
                let (kind, id, message) = stream.next().await;
                if kind == "event" {
                    assert_eq!((id, &message["seq"]), (Some(seq), &json!(seq)));
                    break;
                }
            }
        }
    };
    tokio::select! {
        () = within(got) => {}
        () = flood => {}
    }
}

#[tokio::test]
async fn events_of_all_sessions_come_in_pages_and_a_token_sees_its_own() {
    let host = Host::with(
        Timing::default(),
        json!([
            token("some", "some-secret", "viewer", json!([GATE])),
            token("all", "all-secret", "viewer", Value::Null),
        ]),
    )
    .await;
    for (session, kind, label) in [
        (GATE, "left", "car"),
        (YARD, "left", "car"),
        (GATE, "entered", "bus"),
        (GATE, "left", "car"),
    ] {
        host.seen(session, kind, label, "road").await;
    }
    let get = async |query: &str, who: &str| {
        let authorization = format!("Authorization: Bearer {who}-secret\r\n");
        let answer = host.get(&format!("/v1/events{query}"), &authorization).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().to_owned();
        (status, serde_json::from_str::<Value>(body).unwrap())
    };
    let found = |body: &Value| -> Vec<(String, u64)> {
        let events = body["events"].as_array().unwrap().iter();
        let place = |event: &Value| {
            assert_eq!(event["type"], "event");
            (event["session"].as_str().unwrap().to_owned(), event["seq"].as_u64().unwrap())
        };
        events.map(place).collect()
    };
    let place = |session: &str, seq| (session.to_owned(), seq);
    // All of one time: by session and number.
    let (_, all) = get("?order=oldest", "all").await;
    assert_eq!(all["next"], Value::Null);
    let all = found(&all);
    assert_eq!(all, [place(GATE, 1), place(GATE, 2), place(GATE, 3), place(YARD, 1)]);
    let (mut paged, mut cursor) = (Vec::new(), String::new());
    loop {
        let (status, page) = get(&format!("?limit=1{cursor}"), "all").await;
        assert_eq!(status, "200", "{page}");
        paged.extend(found(&page));
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    paged.reverse();
    assert_eq!(paged, all);
    let (_, cars) = get("?kind=left&label=car&zone=road&order=oldest", "some").await;
    assert_eq!(found(&cars), [place(GATE, 1), place(GATE, 3)]);
    let nothing = async |query: &str, who: &str| found(&get(query, who).await.1).is_empty();
    assert!(nothing(&format!("?session={YARD}"), "some").await);
    assert!(nothing("?session=nobody", "all").await);
    assert!(nothing("?to=2026-01-02T03:04:05.678Z", "all").await);
    assert!(!nothing("?from=2026-01-02T03:04:05.678Z", "all").await);
    for (query, code) in [
        (format!("?order=oldest{cursor}"), "bad_cursor"),
        ("?cursor=x".into(), "bad_cursor"),
        ("?order=last".into(), "bad_query"),
        ("?limit=0".into(), "bad_query"),
        ("?after=0".into(), "bad_query"),
        ("?zone=".into(), "bad_query"),
    ] {
        let (status, problem) = get(&query, "all").await;
        assert_eq!((status.as_str(), &problem["code"]), ("400", &json!(code)), "{query}");
    }
}
