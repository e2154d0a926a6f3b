//! A subscriber: one WebSocket, and every message that came over it.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

use crate::DEADLINE;

/// What the kernel keeps for a client that hardly reads: little, so that the host notices soon. (It
/// takes twice as much.)
const SMALL_BUFFER: u32 = 4096;

/// A connected client.
#[derive(Debug)]
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    received: Vec<String>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let connecting = connect_async(format!("ws://{address}/v1/ws"));
        let (socket, _) =
            timeout(DEADLINE, connecting).await.expect("a WebSocket in time").unwrap();
        Self { socket, received: Vec::new() }
    }

    /// One with a token.
    pub(crate) async fn connect_as(address: SocketAddr, token: &str) -> Self {
        let mut request = format!("ws://{address}/v1/ws").into_client_request().unwrap();
        let header = format!("Bearer {token}").parse().unwrap();
        request.headers_mut().insert("authorization", header);
        let (socket, _) =
            timeout(DEADLINE, connect_async(request)).await.expect("a WebSocket in time").unwrap();
        Self { socket, received: Vec::new() }
    }

    /// One for which the kernel keeps little of what it does not read.
    pub(crate) async fn connect_unbuffered(address: SocketAddr) -> Self {
        let connecting = async {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(SMALL_BUFFER).unwrap();
            let stream = MaybeTlsStream::Plain(socket.connect(address).await.unwrap());
            client_async(format!("ws://{address}/v1/ws"), stream).await.unwrap()
        };
        let (socket, _) = timeout(DEADLINE, connecting).await.expect("a WebSocket in time");
        Self { socket, received: Vec::new() }
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Value) {
        self.send_raw(Message::text(message.to_string())).await;
    }

    /// Sends anything.
    pub async fn send_raw(&mut self, message: Message) {
        timeout(DEADLINE, self.socket.send(message)).await.expect("sent in time").unwrap();
    }

    /// Sends bytes that need not be a frame; false where the host has closed the connection.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> bool {
        timeout(DEADLINE, self.socket.get_mut().write_all(bytes))
            .await
            .expect("sent in time")
            .is_ok()
    }

    /// Subscribes to a session that is there.
    pub async fn subscribe(&mut self, session: &str) {
        self.send(&json!({"type": "subscribe", "session": session})).await;
    }

    /// Subscribes to a session and makes it where it is not there, with the default pipeline.
    pub async fn subscribe_to(&mut self, session: &str, source: &str) {
        let pipeline = "object-detect";
        self.send(&json!({"type": "subscribe", "session": session, "source": source, "pipeline": pipeline}))
            .await;
    }

    /// The next message; None where the host has closed the connection.
    pub async fn next_or_end(&mut self) -> Option<Value> {
        // The host's pings are no messages: they must not put the deadline off.
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Text(text))) => return Some(text),
                    None | Some(Ok(Message::Close(_)) | Err(_)) => return None,
                    Some(Ok(_)) => {}
                }
            }
        };
        let text = timeout(DEADLINE, next).await;
        let text = text.unwrap_or_else(|_| panic!("no message; the last were {}", self.last()))?;
        self.received.push(text.to_string());
        Some(serde_json::from_str(&text).unwrap())
    }

    /// The next message.
    pub async fn next(&mut self) -> Value {
        let next = self.next_or_end().await;
        next.unwrap_or_else(|| {
            panic!("the host closed the connection; the last were {}", self.last())
        })
    }

    /// The next picture of a session that is watched; messages that come before it are left out.
    pub async fn picture(&mut self) -> Vec<u8> {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Binary(picture))) => return picture.to_vec(),
                    Some(Ok(Message::Text(text))) => self.received.push(text.to_string()),
                    None | Some(Err(_)) => panic!("the connection is closed"),
                    Some(Ok(_)) => {}
                }
            }
        };
        timeout(DEADLINE, next).await.expect("a picture in time")
    }

    /// The first message from now on for which `wanted` has an answer. An error that is not wanted
    /// fails the test.
    pub async fn find<T>(&mut self, mut wanted: impl FnMut(&Value) -> Option<T>) -> T {
        let search = async {
            loop {
                let message = self.next().await;
                if let Some(found) = wanted(&message) {
                    return found;
                }
                assert_ne!(message["type"], "error", "{message}");
            }
        };
        let found = timeout(DEADLINE, search).await;
        found.unwrap_or_else(|_| {
            panic!("not what was waited for; the last messages were {}", self.last())
        })
    }

    /// The next message of a type.
    pub async fn next_of(&mut self, kind: &str) -> Value {
        self.find(|message| (message["type"] == kind).then(|| message.clone())).await
    }

    /// The next detections of a session.
    pub async fn detections(&mut self, session: &str) -> Value {
        let wanted =
            |message: &Value| message["type"] == "detections" && message["session"] == session;
        self.find(|message| wanted(message).then(|| message.clone())).await
    }

    /// Waits until a session says that it is in a state; the message that said it.
    pub async fn state(&mut self, session: &str, state: &str) -> Value {
        let says = |message: &Value| {
            let about = message["type"] == "session" || message["type"] == "subscribed";
            about && message["session"] == session && message["state"] == state
        };
        self.find(|message| says(message).then(|| message.clone())).await
    }

    /// Everything that came, as it came.
    pub fn received(&self) -> &[String] {
        &self.received
    }

    /// Closes the connection and waits until the host has closed it too.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
        while self.next_or_end().await.is_some() {}
    }

    fn last(&self) -> String {
        let last = self.received.iter().rev().take(5).rev();
        last.map(|text| format!("\n  {:.300}", text)).collect()
    }
}
