//! A WebSocket of a double of the host.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use ocelli_testkit::within;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) struct Client(pub(crate) WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub(crate) async fn connect(address: SocketAddr, headers: &[(&'static str, &str)]) -> Self {
        let mut request = format!("ws://{address}/v1/ws").into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        Self(within(connect_async(request)).await.unwrap().0)
    }

    pub(crate) async fn say(&mut self, text: impl ToString) {
        within(self.0.send(Message::text(text.to_string()))).await.unwrap();
    }

    /// The next message, or the close code.
    pub(crate) async fn next(&mut self) -> Result<Value, u16> {
        loop {
            match within(self.0.next()).await {
                Some(Ok(Message::Text(text))) => {
                    assert!(text.starts_with(r#"{"type":""#), "type comes first: {text}");
                    return Ok(serde_json::from_str(&text).unwrap());
                }
                Some(Ok(Message::Close(frame))) => {
                    return Err(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                end => panic!("the socket ended without a close frame: {end:?}"),
            }
        }
    }

    pub(crate) async fn ask(&mut self, text: impl ToString) -> Value {
        self.say(text).await;
        self.next().await.unwrap()
    }

    pub(crate) async fn subscribe(&mut self, session: &str) {
        let answer = self.ask(json!({"type": "subscribe", "session": session})).await;
        assert_eq!(
            (&answer["type"], &answer["session"]),
            (&json!("subscribed"), &json!(session)),
            "{answer}"
        );
    }

    /// The next event's session and number.
    pub(crate) async fn event(&mut self) -> (String, u64) {
        loop {
            let message = self.next().await.unwrap();
            if message["type"] == "event" {
                return (
                    message["session"].as_str().unwrap().to_owned(),
                    message["seq"].as_u64().unwrap(),
                );
            }
            assert!(
                ["subscribed", "session"].contains(&message["type"].as_str().unwrap()),
                "{message}"
            );
        }
    }
}
