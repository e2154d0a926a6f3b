//! A WebSocket client of the host.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use ocelli_client::{Client, Detections, Message, SessionState, Subscribe};
use serde_json::{Map, Value};
use tokio::time::Instant;

/// No wait of a measurement takes this long unless something is wrong.
const PATIENCE: Duration = Duration::from_secs(60);

/// One connection.
pub struct Subscriber(ocelli_client::Subscriber);

impl Subscriber {
    /// Connects to a host.
    pub async fn connect(client: &Client) -> Result<Self> {
        let mut subscriber = client.subscriber();
        // The connection is there from now on, and no part of what is measured.
        subscriber.ping().await?;
        Ok(Self(subscriber))
    }

    /// Asks for a configured session.
    pub async fn subscribe(&mut self, session: &str) -> Result<()> {
        self.0.subscribe(Subscribe::to(session)).await;
        Ok(())
    }

    /// Asks for a session of the default pipeline that is made for this purpose.
    pub async fn make(&mut self, session: &str, source: &str) -> Result<()> {
        self.make_with(session, source, Map::new()).await
    }

    /// The same with settings.
    pub async fn make_with(
        &mut self,
        session: &str,
        source: &str,
        settings: Map<String, Value>,
    ) -> Result<()> {
        self.0.subscribe(Subscribe::to(session).make(source, "object-detect", settings)).await;
        Ok(())
    }

    /// The next result of any session. That some were lost is an error. None where a session has
    /// stopped, as that of a file does at its end.
    pub async fn detections(&mut self) -> Result<Option<Detections>> {
        let heard = async {
            loop {
                match self.next().await? {
                    Message::Detections(found) => return Ok(Some(found)),
                    Message::Session { state: SessionState::Stopped, .. } => return Ok(None),
                    Message::Lagged { session, missed } => {
                        bail!("{missed} results of {session:?} did not come")
                    }
                    _ => {}
                }
            }
        };
        tokio::time::timeout(PATIENCE, heard)
            .await
            .unwrap_or_else(|_| bail!("no result came within {} s", PATIENCE.as_secs()))
    }

    /// Ends a subscription and waits until no more of the session can come.
    pub async fn unsubscribe(&mut self, session: &str) -> Result<()> {
        self.0.unsubscribe(session).await;
        self.until(|heard| matches!(heard, Message::Unsubscribed { session: s } if s == session))
            .await
            .map(drop)
    }

    /// Waits for the next result of a session; the moment when it came.
    pub async fn result(&mut self, session: &str) -> Result<Instant> {
        self.until(|heard| matches!(heard, Message::Detections(found) if found.session == session))
            .await
    }

    /// Waits for the first result of another version of a session's pipeline than that of the next
    /// result: the moments of the last result of the one and of the first of the other.
    pub async fn another_version(&mut self, session: &str) -> Result<(Instant, Instant)> {
        let heard = async {
            let mut before: Option<(String, Instant)> = None;
            loop {
                let heard = self.next().await?;
                let Message::Detections(Detections { session: of, deployment, .. }) = heard else {
                    continue;
                };
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
    pub async fn state(&mut self, session: &str, state: SessionState) -> Result<Instant> {
        let wanted = |heard: &Message| matches!(heard, Message::Session { session: s, state: t, .. } if s == session && *t == state);
        self.until(wanted).await
    }

    /// The latencies of all results that come until `deadline`.
    pub async fn latencies(&mut self, deadline: Instant) -> Result<Vec<BTreeMap<String, f64>>> {
        let mut latencies = Vec::new();
        while let Ok(heard) = tokio::time::timeout_at(deadline, self.next()).await {
            if let Message::Detections(found) = heard? {
                latencies.push(found.latency_ms);
            }
        }
        Ok(latencies)
    }

    async fn until(&mut self, wanted: impl Fn(&Message) -> bool) -> Result<Instant> {
        let heard = async {
            while !wanted(&self.next().await?) {}
            Ok(Instant::now())
        };
        tokio::time::timeout(PATIENCE, heard).await.unwrap_or_else(|_| {
            bail!("nothing that was waited for came within {} s", PATIENCE.as_secs())
        })
    }

    /// A connection that is lost is an error: something is wrong with what is measured.
    async fn next(&mut self) -> Result<Message> {
        match self.0.next().await? {
            Message::Error(refusal) => bail!("the host answers: {}", refusal.message),
            message => Ok(message),
        }
    }
}
