//! A WebSocket that is opened again when it is lost.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hyper::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use hyper::{StatusCode, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Utf8Bytes};

use crate::error::Error;
use crate::http::{Endpoint, PATIENCE, read_problem};
use crate::message::{ClientMessage, Message, Subscribe, text};
use crate::request::Request;
use crate::resume::Resume;

/// A host pings every 15 s: after four times that without a frame the connection is lost.
const SILENCE: Duration = Duration::from_secs(60);

/// Longest message in bytes: four times the host's limit for one subscriber's queue.
const MAX_MESSAGE: usize = 64 << 20;

/// Bytes of one read: a dozen messages.
const READ: usize = 16 << 10;

/// The first and the longest pause before the next connection: a host restarts within a second, and
/// after a long failure it is found soon enough.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A subscriber. When it is dropped, its connection and its subscriptions end.
#[derive(Debug)]
pub struct Subscriber {
    host: Endpoint,
    socket: Option<Socket>,
    resume: Resume,
    /// Failed connections in a row, and the earliest time of the next.
    failures: u32,
    not_before: Option<Instant>,
}

#[derive(Debug)]
struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    /// When the last frame came.
    last_frame: Instant,
}

impl Subscriber {
    pub(crate) fn new(host: Endpoint) -> Self {
        Self { host, socket: None, resume: Resume::default(), failures: 0, not_before: None }
    }

    /// Subscribes to a session. The answer is a [`Message::Subscribed`] or a [`Message::Error`].
    /// Without a connection, the request is sent once [`next`](Self::next) has opened one.
    ///
    /// Without [`Subscribe::after`], events are resumed from the first that comes; an event before
    /// that is missed if the connection is lost. [`EventPage::newest`](crate::EventPage::newest) is
    /// a number to begin with.
    pub async fn subscribe(&mut self, request: Subscribe) {
        let text = text(&request);
        self.resume.subscribe(request);
        if self.socket.is_some() {
            // An error means that it is sent over the next connection.
            let _ = self.send(text).await;
        }
    }

    /// Ends a subscription to a session, or to `*`. [`Message::Unsubscribed`] is its last message.
    pub async fn unsubscribe(&mut self, session: &str) {
        self.resume.unsubscribe(session);
        if self.socket.is_some() {
            // Without a connection there is no subscription.
            let _ = self.send(text(&ClientMessage::Unsubscribe { session })).await;
        }
    }

    /// Asks a session's pipeline a question, which changes nothing. Its answer is a
    /// [`Message::Answer`] with this `id`, unless the connection is lost before.
    pub async fn query(
        &mut self,
        session: &str,
        id: Option<&Value>,
        query: &Value,
    ) -> Result<(), Error> {
        self.connected().await?;
        self.send(text(&ClientMessage::Query { session, id, query })).await
    }

    /// Sends a command to a session's pipeline, which may change its state: the token has to be an
    /// operator's. The answer comes as that to a [`query`](Self::query).
    pub async fn command(
        &mut self,
        session: &str,
        id: Option<&Value>,
        command: &Value,
    ) -> Result<(), Error> {
        self.connected().await?;
        self.send(text(&ClientMessage::Command { session, id, command })).await
    }

    /// Asks for a [`Message::Pong`].
    pub async fn ping(&mut self) -> Result<(), Error> {
        self.connected().await?;
        self.send(text(&ClientMessage::Ping {})).await
    }

    /// The next message. [`Error::Disconnected`] comes once when the connection is lost; the next
    /// call pauses (0.1 to 10 s, longer after each failure), connects, and resumes. After any other
    /// error there is no connection, and the next call tries again. Dropping the future loses
    /// nothing.
    pub async fn next(&mut self) -> Result<Message, Error> {
        Ok(self.next_with_text().await?.0)
    }

    /// As [`next`](Self::next), with the message's JSON text.
    pub async fn next_with_text(&mut self) -> Result<(Message, String), Error> {
        loop {
            let socket = self.connected().await?;
            let text = match socket.receive().await {
                Ok(text) => text,
                Err(reason) => return Err(self.lose(reason)),
            };
            self.failures = 0;
            let message = serde_json::from_str(&text);
            let message =
                message.map_err(|_| Error::InvalidAnswer("a message is not JSON".into()))?;
            if self.resume.accept(&message) {
                return Ok((message, text.as_str().to_owned()));
            }
        }
    }

    /// Closes the connection.
    pub async fn close(mut self) {
        if let Some(socket) = &mut self.socket {
            // A host that does not answer is not waited for.
            let _ = timeout(PATIENCE, async {
                socket.stream.close(None).await?;
                while socket.stream.next().await.transpose()?.is_some() {}
                Ok::<(), tungstenite::Error>(())
            })
            .await;
        }
    }

    async fn connected(&mut self) -> Result<&mut Socket, Error> {
        if self.socket.is_none() {
            if let Some(moment) = self.not_before {
                sleep_until(moment).await;
            }
            let mut socket = match Socket::open(&self.host).await {
                Ok(socket) => socket,
                Err(error) => {
                    self.pause();
                    return Err(error);
                }
            };
            for request in self.resume.resubscriptions() {
                if let Err(error) = socket.send(text(&request)).await {
                    return Err(self.lose(error.to_string()));
                }
            }
            self.socket = Some(socket);
        }
        self.socket.as_mut().ok_or_else(|| Error::Disconnected("it is not there".into()))
    }

    async fn send(&mut self, text: String) -> Result<(), Error> {
        let sent = match &mut self.socket {
            Some(socket) => socket.send(text).await,
            None => Ok(()),
        };
        sent.map_err(|error| self.lose(error.to_string()))
    }

    fn lose(&mut self, reason: String) -> Error {
        self.socket = None;
        self.pause();
        Error::Disconnected(reason)
    }

    fn pause(&mut self) {
        self.not_before = Some(Instant::now() + pause(self.failures, fastrand::f64()));
        self.failures = self.failures.saturating_add(1);
    }
}

/// The pause after so many failures in a row. `random`, from 0 to 1, spreads the subscribers of a
/// host that was restarted.
fn pause(failures: u32, random: f64) -> Duration {
    // 2^16 times the first pause is far above the longest.
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + random / 2.0)
}

impl Socket {
    /// Opens a WebSocket (RFC 6455, 4.1).
    async fn open(host: &Endpoint) -> Result<Self, Error> {
        timeout(PATIENCE, Self::handshake(host)).await.unwrap_or(Err(Error::TimedOut(PATIENCE)))
    }

    async fn handshake(host: &Endpoint) -> Result<Self, Error> {
        let key = generate_key();
        let value =
            HeaderValue::from_str(&key).map_err(|_| Error::Header("the WebSocket's key"))?;
        let headers = HeaderMap::from_iter([
            (CONNECTION, HeaderValue::from_static("Upgrade")),
            (UPGRADE, HeaderValue::from_static("websocket")),
            (SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")),
            (SEC_WEBSOCKET_KEY, value),
        ]);
        let answer = Request::get(&["ws"]).send(host, headers).await?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(read_problem(answer).await);
        }
        let accepted = answer.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accepted.is_none_or(|accepted| accepted != derive_accept_key(key.as_bytes()).as_str()) {
            return Err(Error::InvalidAnswer("it accepts another WebSocket".into()));
        }
        let connection = TokioIo::new(hyper::upgrade::on(answer).await?);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ)
            .max_message_size(Some(MAX_MESSAGE))
            .max_frame_size(Some(MAX_MESSAGE));
        let stream = WebSocketStream::from_raw_socket(connection, Role::Client, Some(config)).await;
        Ok(Self { stream, last_frame: Instant::now() })
    }

    async fn send(&mut self, text: String) -> Result<(), tungstenite::Error> {
        self.stream.send(tungstenite::Message::text(text)).await
    }

    /// The next text, or the reason of the connection's end.
    async fn receive(&mut self) -> Result<Utf8Bytes, String> {
        loop {
            // Data that has come already is read, however long ago the last call was.
            let frame = timeout_at(self.last_frame + SILENCE, self.stream.next()).await;
            let frame = frame.map_err(|_| format!("nothing came for {} s", SILENCE.as_secs()))?;
            self.last_frame = Instant::now();
            match frame {
                Some(Ok(tungstenite::Message::Text(text))) => return Ok(text),
                Some(Ok(tungstenite::Message::Close(Some(frame)))) if !frame.reason.is_empty() => {
                    return Err(frame.reason.as_str().to_owned());
                }
                None | Some(Ok(tungstenite::Message::Close(_))) => {
                    return Err("the host closed it".into());
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.to_string()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ() {
        let milliseconds = |failures, random| pause(failures, random).as_millis();
        assert_eq!([0, 1, 2, 3].map(|failures| milliseconds(failures, 1.0)), [100, 200, 400, 800]);
        assert_eq!(milliseconds(0, 0.0), 50);
        assert_eq!(milliseconds(u32::MAX, 1.0), LONGEST_PAUSE.as_millis());
    }
}
