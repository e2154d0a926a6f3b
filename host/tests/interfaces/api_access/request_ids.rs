//! Ids: of a request in its answer, its error and the log, and of a message in the error that
//! answers it.

use std::net::Ipv4Addr;

use futures_util::{SinkExt, StreamExt};
use ocelli_testkit::within;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::Who::{Admin, Nobody, Viewer};
use super::{Answer, Host, Who};

impl Host {
    async fn identified(&self, who: Who, request: &str, header: &str) -> (Answer, String) {
        let answer = self.send(Ipv4Addr::LOCALHOST, request, &(who.header() + header)).await;
        let id = answer.header("x-request-id").expect("an id in every answer").to_owned();
        (answer, id)
    }
}

fn problem(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap()
}

#[tokio::test]
async fn every_answer_has_an_id_and_an_error_repeats_it() {
    let host = Host::start().await;
    let given = "X-Request-Id: shop-7f3a:12\r\n";
    for (who, request, status) in [
        (Nobody, "GET /healthz", 200),
        (Viewer, "GET /v1/sessions/a", 200),
        (Viewer, "GET /v1/sessions/a/stream", 200),
        (Viewer, "GET /v1/sessions/c", 404),
        (Viewer, "GET /v1/nothing", 404),
        (Viewer, "PATCH /v1/sessions", 405),
        (Viewer, "DELETE /v1/sessions/a", 403),
        (Viewer, "GET /v1/ws", 426),
        (Viewer, "GET /v1/sessions/%FF", 400),
        (Nobody, "GET /v1/sessions", 401),
    ] {
        let (answer, id) = host.identified(who, request, given).await;
        assert_eq!((answer.status, id.as_str()), (status, "shop-7f3a:12"), "{request}");
        let (other, own) = host.identified(who, request, "").await;
        assert!(own.len() == 32 && own != host.identified(who, request, "").await.1, "{own}");
        if status >= 400 {
            assert_eq!(problem(&answer)["request_id"], "shop-7f3a:12", "{request}");
            assert_eq!(problem(&other)["request_id"], own, "{request}");
        }
    }
    let evil = "Origin: https://evil.example\r\n";
    let (answer, id) = host.identified(Admin, "GET /v1/sessions", evil).await;
    assert_eq!((answer.status, &problem(&answer)["request_id"]), (403, &json!(id)));
}

#[tokio::test]
async fn an_id_that_no_log_line_should_hold_is_replaced_and_not_repeated() {
    let host = Host::start().await;
    let long = "a".repeat(10 << 10);
    for given in [
        format!("X-Request-Id: {long}\r\n"),
        "X-Request-Id: a\r\nX-Request-Id: b\r\n".to_owned(),
        "X-Request-Id: \r\n".to_owned(),
        "X-Request-Id: a b\r\n".to_owned(),
        "X-Request-Id: a\tb\r\n".to_owned(),
        "X-Request-Id: \"<script>\"\r\n".to_owned(),
        "X-Request-Id: \u{fc}\r\n".to_owned(),
    ] {
        let (answer, id) = host.identified(Viewer, "GET /v1/nothing", &given).await;
        assert!(answer.status == 404 && id.len() == 32, "{given}: {id}");
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert_eq!(problem(&answer)["request_id"], id);
    }
    // HTTP has no such header: no request, and so no id.
    let control = "X-Request-Id: a\u{1}b\r\n".to_owned() + &Viewer.header();
    let answer = host.send(Ipv4Addr::LOCALHOST, "GET /v1/nothing", &control).await;
    assert!(answer.status == 400 && answer.body.is_empty(), "{}", answer.head);
}

#[tokio::test]
async fn the_log_has_the_id_of_each_request() {
    let (log, _guard) = crate::support::Log::begin(tracing::Level::DEBUG);
    let host = Host::start().await;
    let of = |id: &str| format!("X-Request-Id: {id}\r\n");
    host.identified(Admin, "POST /v1/sessions/a/restart", &of("restarting")).await;
    host.identified(Viewer, "POST /v1/sessions/a/restart", &of("refused")).await;
    host.identified(Nobody, "GET /v1/sessions?secret=1", &of("unknown")).await;
    let text = log.text();
    for (target, id, words) in [
        ("ocelli::audit", "restarting", "done"),
        ("ocelli::audit", "refused", "denied"),
        ("ocelli::audit", "unknown", "not authenticated"),
        ("ocelli::requests", "restarting", "/v1/sessions/a/restart"),
        ("ocelli::requests", "unknown", "status=401"),
    ] {
        let shown = format!("request_id=\"{id}\"");
        let found = |line: &&str| line.contains(target) && line.contains(&shown);
        let line = text.lines().find(found).unwrap_or_else(|| panic!("{id}: {text}"));
        assert!(line.contains(words), "{line}");
    }
    assert!(!text.contains("secret"), "a query may hold what no log should");
    let audit = host.ask(Admin, "GET /v1/audit").await;
    let ids: Vec<Value> = problem(&audit)["lines"]
        .as_array()
        .unwrap()
        .iter()
        .map(|line| line["request_id"].clone())
        .collect();
    assert_eq!(ids, ["restarting", "refused", "unknown"]);
}

#[tokio::test]
async fn an_error_of_a_websocket_has_the_id_of_the_message_that_it_answers() {
    let host = Host::start().await;
    let mut socket = host.socket("authorization", &format!("Bearer {}", Viewer.text())).await;
    for (message, code) in [
        (json!({"type": "subscribe", "session": "c"}), "unknown_session"),
        (json!({"type": "subscribe", "session": "a", "after": 7}), "after_ahead"),
        (json!({"type": "subscribe", "session": "a", "after": -7}), "bad_message"),
        (
            json!({"type": "subscribe", "session": "d", "source": "rtsp://a/", "pipeline": "p"}),
            "forbidden",
        ),
        (json!({"type": "watch", "session": "c", "pictures": "all"}), "unknown_session"),
        (json!({"type": "query", "session": "c", "query": 1}), "unknown_session"),
        (json!({"type": "command", "session": "a", "command": 1}), "forbidden"),
        (json!({"type": "unsubscribe"}), "bad_message"),
        (json!({"type": "weather"}), "unknown_type"),
        (json!({}), "bad_message"),
    ] {
        let id = json!({"of": [code, "\n\u{1}"]});
        for given in [Some(&id), None] {
            let mut message = message.clone();
            if let Some(id) = given {
                message["id"] = id.clone();
            }
            let error = say(&mut socket, &message.to_string()).await;
            assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!(code)));
            assert_eq!(error.get("id"), given, "{message}");
        }
    }
    let pong = say(&mut socket, r#"{"type":"ping","id":"p"}"#).await;
    assert_eq!(pong, json!({"type": "pong", "id": "p"}));
    let long = json!({"type": "ping", "id": "a".repeat(10 << 10)});
    let error = say(&mut socket, &long.to_string()).await;
    assert_eq!((&error["code"], error.get("id")), (&json!("bad_message"), None));
    assert!(error.to_string().len() < 200, "{error}");
}

async fn say(
    socket: &mut (
             impl SinkExt<Message, Error: std::fmt::Debug>
             + StreamExt<Item = Result<Message, tokio_tungstenite::tungstenite::Error>>
             + Unpin
         ),
    text: &str,
) -> Value {
    socket.send(Message::text(text)).await.unwrap();
    loop {
        if let Message::Text(text) = within(socket.next()).await.unwrap().unwrap() {
            return serde_json::from_str(&text).unwrap();
        }
    }
}
