//! What the messages of a WebSocket do for each kind of caller.

use axum::http::HeaderName;
use futures_util::{SinkExt, StreamExt};
use ocelli_testkit::within;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::Who::{Admin, Operator, Viewer, ViewerOfA};
use super::{Host, OPERATE};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

impl Host {
    pub(super) async fn socket(&self, header: &str, value: &str) -> Socket {
        let mut request =
            format!("ws://{}/v1/ws", self.server.address()).into_client_request().unwrap();
        request.headers_mut().insert(HeaderName::try_from(header).unwrap(), value.parse().unwrap());
        within(tokio_tungstenite::connect_async(request)).await.unwrap().0
    }
}

/// The code of the next error, or none where an answer comes first.
pub(super) async fn refused(socket: &mut Socket) -> Option<(String, String)> {
    loop {
        let message = within(socket.next()).await.unwrap().unwrap();
        let Message::Text(text) = message else { continue };
        let message: Value = serde_json::from_str(&text).unwrap();
        let member = |key: &str| message[key].as_str().unwrap_or_default().to_owned();
        match message["type"].as_str() {
            Some("answer") => return None,
            Some("error") => return Some((member("code"), member("message"))),
            _ => {}
        }
    }
}

#[tokio::test]
async fn commands_are_logged_with_their_caller_and_outcome_and_queries_are_not() {
    let (log, _guard) = crate::support::Log::begin(tracing::Level::INFO);
    let host = Host::start().await;
    for who in [Viewer, Operator] {
        let mut socket = host.socket("authorization", &format!("Bearer {}", who.text())).await;
        for message in [
            json!({"type": "query", "session": "a", "query": "counts"}),
            json!({"type": "command", "session": "a", "command": {"reset": "counts"}}),
            json!({"type": "command", "session": "c", "command": {"reset": "counts"}}),
        ] {
            socket.send(Message::text(message.to_string())).await.unwrap();
            refused(&mut socket).await;
        }
    }
    let text = log.text();
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("ocelli::audit")).collect();
    let detail = r#"detail="{\"reset\":\"counts\"}""#;
    let expected: [&[&str]; 4] = [
        &["denied", "caller=\"Viewer\"", "action=\"command\"", "subject=\"a\""],
        &["denied", "caller=\"Viewer\"", "action=\"command\"", "subject=\"c\""],
        &["done", "caller=\"Operator\"", "subject=\"a\"", detail, "outcome=\"answered\""],
        &["done", "caller=\"Operator\"", "subject=\"c\"", detail, "outcome=\"unknown_session\""],
    ];
    assert_eq!(lines.len(), expected.len(), "{text}");
    for (line, parts) in lines.iter().zip(expected) {
        parts.iter().for_each(|part| assert!(line.contains(part), "{part}: {line}"));
    }
}

#[tokio::test]
async fn every_message_of_a_websocket_does_what_its_caller_may_and_nothing_else() {
    let host = Host::start().await;
    let make =
        json!({"type": "subscribe", "session": "new", "source": "rtsp://cam/", "pipeline": "eye"});
    let subscribe = |session: &str| json!({"type": "subscribe", "session": session});
    let query = |session: &str| json!({"type": "query", "session": session, "query": {}});
    let command = |session: &str| json!({"type": "command", "session": session, "command": {}});
    let watch = |session: &str| json!({"type": "watch", "session": session, "pictures": "all"});
    let unknown = Some("unknown_session");
    let forbidden = Some("forbidden");
    for who in [ViewerOfA, Viewer, Operator, Admin] {
        let (all, operates) = (who != ViewerOfA, OPERATE.contains(&who));
        for (message, expected) in [
            (subscribe("a"), None),
            (subscribe("b"), unknown.filter(|_| !all)),
            (subscribe("c"), unknown),
            (subscribe("*"), forbidden.filter(|_| !all)),
            (make.clone(), forbidden.filter(|_| !operates)),
            (watch("a"), None),
            (watch("b"), unknown.filter(|_| !all)),
            (watch("c"), unknown),
            // No session has this name, and a client watches none of those that it may not see.
            (watch("*"), unknown),
            (query("a"), None),
            (query("b"), unknown.filter(|_| !all)),
            (query("c"), unknown),
            // No session has this name, whatever the caller subscribes to.
            (query("*"), unknown),
            (command("a"), forbidden.filter(|_| !operates)),
            (command("b"), if all { forbidden.filter(|_| !operates) } else { unknown }),
            (command("c"), if operates || !all { unknown } else { forbidden }),
            (command("*"), if operates || !all { unknown } else { forbidden }),
            (json!({"type": "unsubscribe", "session": "b"}), None),
            (json!({"type": "ping"}), None),
        ] {
            // A right is the caller's, not the subscription's.
            for subscribed in [None, Some("a"), Some("*").filter(|_| all)] {
                let mut socket =
                    host.socket("authorization", &format!("Bearer {}", who.text())).await;
                let first = subscribed.map(subscribe);
                // Everyone here may ask a; requests are done in their order.
                for message in first.iter().chain([&message, &query("a")]) {
                    socket.send(Message::text(message.to_string())).await.unwrap();
                }
                let refused = refused(&mut socket).await;
                assert_eq!(
                    refused.as_ref().map(|(code, _)| code.as_str()),
                    expected,
                    "{who:?}, subscribed to {subscribed:?}: {message}"
                );
            }
        }
    }
    // What is not seen is as what is not there.
    for message in [subscribe, watch, query, command] {
        let mut told = Vec::new();
        for session in ["b", "c"] {
            let mut socket =
                host.socket("authorization", &format!("Bearer {}", ViewerOfA.text())).await;
            socket.send(Message::text(message(session).to_string())).await.unwrap();
            told.push(refused(&mut socket).await.unwrap().1.replace(&format!("{session:?}"), "it"));
        }
        assert_eq!(told[0], told[1]);
    }
}

#[tokio::test]
async fn a_browser_offers_its_token_as_a_subprotocol_and_loses_the_socket_with_it() {
    let host = Host::start().await;
    let offered = format!("ocelli.v1, ocelli.bearer.{}", Viewer.text());
    let mut socket = host.socket("sec-websocket-protocol", &offered).await;
    socket
        .send(Message::text(json!({"type": "query", "session": "a", "query": {}}).to_string()))
        .await
        .unwrap();
    assert_eq!(refused(&mut socket).await, None);
    host.edit(|server| server.tokens.retain(|token| token.name != Viewer.name()));
    assert_eq!(refused(&mut socket).await.unwrap().0, "token_revoked");
}
