//! What a host tells, over lost connections, until somebody has seen enough.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use ocelli_client::{Client, Message, Refusal, Subscribe, Subscriber};
use tokio::signal::unix::{SignalKind, signal};

use super::host::{Asked, HostArgs};
use super::table::printable;

/// All sessions, later ones included.
pub(super) const ALL: &str = "*";

/// Does something until it ends, the time is over, or a signal comes.
pub(super) async fn until_stopped(
    work: impl Future<Output = anyhow::Result<()>>,
    seconds: Option<u64>,
) -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let over = async {
        match seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = work => ended,
        () = over => Ok(()),
        _ = interrupt.recv() => Ok(()),
        _ = terminate.recv() => Ok(()),
        _ = hangup.recv() => Ok(()),
    }
}

/// What is subscribed to: sessions, or [`ALL`], each after an event's number where there is one.
pub(super) struct Wish {
    pub(super) session: String,
    pub(super) after: Option<u64>,
}

/// What came next.
pub(super) enum Followed {
    /// A message, with its JSON.
    Message(Box<Message>, String),
    /// The connection was lost, with the reason; the next one is made by itself.
    Lost(String),
}

/// Subscriptions to a host that come back after a lost connection.
pub(super) struct Follower<'a> {
    host: &'a HostArgs,
    client: Client,
    subscriber: Subscriber,
    detections: bool,
    /// The last events that are known of sessions.
    numbers: BTreeMap<String, u64>,
    /// Subscriptions that are not answered yet.
    pending: Vec<String>,
    /// One that was refused.
    refused: Option<Refusal>,
    been_there: bool,
}

impl<'a> Follower<'a> {
    /// Subscribes to each of these; `numbers` are the last events that are known of sessions of
    /// [`ALL`].
    pub(super) async fn new(
        host: &'a HostArgs,
        wishes: Vec<Wish>,
        numbers: BTreeMap<String, u64>,
        detections: bool,
    ) -> anyhow::Result<Self> {
        let client = host.client()?;
        let subscriber = client.subscriber();
        let (pending, refused, been_there) = (Vec::new(), None, false);
        let mut own = Self {
            host,
            client,
            subscriber,
            detections,
            numbers: numbers.clone(),
            pending,
            refused,
            been_there,
        };
        for Wish { session, after } in wishes {
            let wish = match after {
                _ if session == ALL && !numbers.is_empty() => {
                    Subscribe::to_all().after_each(numbers.clone())
                }
                Some(after) => Subscribe::to(&session).after(after),
                None => Subscribe::to(&session),
            };
            own.subscribe(session, wish).await;
        }
        Ok(own)
    }

    async fn subscribe(&mut self, session: String, wish: Subscribe) {
        self.pending.push(session);
        self.subscriber.subscribe(wish.detections(self.detections)).await;
    }

    /// The next message. An error for a subscription that was refused, and for a host that was
    /// never reached. Cancel-safe.
    pub(super) async fn next(&mut self) -> anyhow::Result<Followed> {
        loop {
            if let Some(refusal) = &self.refused {
                let session = refusal.session.as_deref().unwrap_or_default();
                if session != ALL || refusal.code != "forbidden" {
                    let more =
                        Asked::session(session).suggestion(&self.client, &refusal.code).await;
                    if self.host.json {
                        println!("{}", serde_json::to_string(refusal)?);
                    }
                    let why = printable(&refusal.message);
                    bail!("{}: {why}{more}", printable(session));
                }
                self.subscribe_to_each().await?;
                self.refused = None;
            }
            let (message, text) = match self.subscriber.next_with_text().await {
                Ok(told) => told,
                Err(error) if self.been_there && error.is_transient() => {
                    return Ok(Followed::Lost(printable(&error.to_string())));
                }
                Err(error) => {
                    let problem = self.host.refused(error)?;
                    bail!("{}: {}", self.host.url, printable(&problem.to_string()));
                }
            };
            self.been_there = true;
            match &message {
                Message::Subscribed { session, .. } => {
                    self.pending.retain(|pending| pending != session);
                }
                Message::Error(refusal) if self.is_pending(refusal) => {
                    self.refused = Some(refusal.clone());
                    continue;
                }
                _ => {}
            }
            return Ok(Followed::Message(Box::new(message), text));
        }
    }

    /// Whether it refuses a subscription. `events_gone` precedes one.
    fn is_pending(&self, refusal: &Refusal) -> bool {
        let session = refusal.session.as_deref();
        refusal.code != "events_gone"
            && session.is_some_and(|session| self.pending.iter().any(|name| name == session))
    }

    /// In place of all: those that a token sees which does not see all.
    async fn subscribe_to_each(&mut self) -> anyhow::Result<()> {
        let sessions = match self.client.sessions().await {
            Ok(sessions) => sessions,
            Err(error) => bail!(self.host.refused(error)?),
        };
        self.pending.clear();
        for session in sessions {
            let wish = match self.numbers.get(&session.id) {
                Some(after) => Subscribe::to(&session.id).after(*after),
                None => Subscribe::to(&session.id),
            };
            self.subscribe(session.id, wish).await;
        }
        Ok(())
    }
}
