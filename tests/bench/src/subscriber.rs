//! A WebSocket client of the host.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// No wait of a measurement takes this long unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the host sends, as far as it is measured.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Heard {
    /// A frame's result.
    Detections {
        /// Whose.
        session: String,
        /// The component that found it.
        deployment: String,
        /// Milliseconds by station.
        latency_ms: BTreeMap<String, f64>,
    },
    /// A change of state.
    Session {
        /// Whose.
        session: String,
        /// The new one.
        state: String,
    },
    /// The session is there.
    Subscribed {
        /// Which.
        session: String,
    },
    /// The subscription has ended.
    Unsubscribed {
        /// Which.
        session: String,
    },
    /// Something was refused.
    Error {
        /// Why.
        message: String,
    },
    /// Anything else.
    #[serde(other)]
    Other,
}

/// One connection.
pub struct Subscriber {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Subscriber {
    /// Connects to a host.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let url = format!("ws://{address}/v1/ws");
        let (socket, _) = tokio_tungstenite::connect_async(&url).await.with_context(|| url.clone())?;
        Ok(Self { socket })
    }

    /// Asks for a configured session.
    pub async fn subscribe(&mut self, session: &str) -> Result<()> {
        self.send(json!({"type": "subscribe", "session": session})).await
    }

    /// Asks for a session of the default pipeline that is made for this purpose.
    pub async fn make(&mut self, session: &str, source: &str) -> Result<()> {
        let pipeline = "object-detect";
        self.send(json!({"type": "subscribe", "session": session, "source": source, "pipeline": pipeline}))
            .await
    }

    /// Ends a subscription and waits until no more of the session can come.
    pub async fn unsubscribe(&mut self, session: &str) -> Result<()> {
        self.send(json!({"type": "unsubscribe", "session": session})).await?;
        self.until(|heard| matches!(heard, Heard::Unsubscribed { session: s } if s == session))
            .await
            .map(drop)
    }

    /// Waits for the next result of a session; the moment when it came.
    pub async fn result(&mut self, session: &str) -> Result<Instant> {
        self.until(|heard| matches!(heard, Heard::Detections { session: s, .. } if s == session)).await
    }

    /// Waits for the first result of another version of a session's pipeline than that of the next result: the moments of
    /// the last result of the one and of the first of the other.
    pub async fn another_version(&mut self, session: &str) -> Result<(Instant, Instant)> {
        let heard = async {
            let mut before: Option<(String, Instant)> = None;
            loop {
                let heard = self.next().await?;
                let Heard::Detections { session: of, deployment, .. } = heard else { continue };
                let now = Instant::now();
                match &before {
                    _ if of != session => {}
                    Some((version, last)) if *version != deployment => return Ok((*last, now)),
                    _ => before = Some((deployment, now)),
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard)
            .await
            .unwrap_or_else(|_| bail!("no other version spoke within {} s", PATIENCE.as_secs()))
    }

    /// Waits until a session is in a state; the moment when that was heard.
    pub async fn state(&mut self, session: &str, state: &str) -> Result<Instant> {
        let wanted = |heard: &Heard| matches!(heard, Heard::Session { session: s, state: t } if s == session && t == state);
        self.until(wanted).await
    }

    /// The latencies of all results that come until `deadline`.
    pub async fn latencies(&mut self, deadline: Instant) -> Result<Vec<BTreeMap<String, f64>>> {
        let mut latencies = Vec::new();
        while let Ok(heard) = tokio::time::timeout_at(deadline, self.next()).await {
            if let Heard::Detections { latency_ms, .. } = heard? {
                latencies.push(latency_ms);
            }
        }
        Ok(latencies)
    }

    async fn until(&mut self, wanted: impl Fn(&Heard) -> bool) -> Result<Instant> {
        let heard = async {
            while !wanted(&self.next().await?) {}
            Ok(Instant::now())
        };
        tokio::time::timeout(PATIENCE, heard)
            .await
            .unwrap_or_else(|_| bail!("nothing that was waited for came within {} s", PATIENCE.as_secs()))
    }

    async fn next(&mut self) -> Result<Heard> {
        loop {
            let message = self.socket.next().await.context("the host has closed the WebSocket")?;
            let Message::Text(text) = message.context("the WebSocket failed")? else { continue };
            match serde_json::from_str(&text).with_context(|| format!("not understood: {text}"))? {
                Heard::Error { message } => bail!("the host answers: {message}"),
                heard => return Ok(heard),
            }
        }
    }

    async fn send(&mut self, message: Value) -> Result<()> {
        self.socket.send(Message::text(message.to_string())).await.context("the WebSocket failed")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_tells_its_session_and_its_latencies() {
        let text = r#"{"type":"detections","session":"a;b","frame":3,"deployment":"0a","detections":[],"latency_ms":{"decode":2.5}}"#;
        let Heard::Detections { session, latency_ms, .. } = serde_json::from_str(text).unwrap() else {
            panic!("not a result")
        };
        assert_eq!((session.as_str(), latency_ms.get("decode")), ("a;b", Some(&2.5)));
        assert!(matches!(serde_json::from_str(r#"{"type":"pong"}"#).unwrap(), Heard::Other));
    }
}
