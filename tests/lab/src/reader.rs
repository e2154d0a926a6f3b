//! Reads what hosts say, as none of them: one plain connection to each NATS server, whichever of
//! them is lost, and events straight from their streams.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use async_nats::{Client, ConnectOptions, jetstream};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde::Deserialize;

use crate::history::{Camera, Heard, Stored, TAKEOVER, now};
use crate::{host, wire};

/// Messages that a connection holds for a reader that is behind: seconds of a whole site.
const CAPACITY: usize = 1 << 16;

/// Between two tries to connect to a server that is away.
const RECONNECT: Duration = Duration::from_millis(250);

/// Events of one request.
const PAGE: usize = 2000;

/// How long a page of events may take.
const PAGE_LIMIT: Duration = Duration::from_secs(20);

/// Reads a site until it is dropped.
#[derive(Debug)]
pub(crate) struct Reader {
    site: String,
    shared: Arc<Mutex<Shared>>,
    clients: Vec<Client>,
    /// How far each stream of events has been read.
    read: Vec<u64>,
}

#[derive(Debug, Default)]
struct Shared {
    heard: Vec<Heard>,
    /// The last one of each epoch of each camera, by its time of sending: several servers give the
    /// same ones.
    known: HashMap<(Camera, u64), u64>,
    /// The last one of the highest epoch.
    latest: HashMap<Camera, Heard>,
}

impl Reader {
    /// Begins to read. Servers that are away are waited for.
    pub(crate) async fn start(site: &str, urls: &[String], streams: u8) -> Result<Self> {
        let shared = Arc::<Mutex<Shared>>::default();
        let mut clients = Vec::new();
        for url in urls {
            let client = ConnectOptions::new()
                .retry_on_initial_connect()
                .ignore_discovered_servers()
                .max_reconnects(None)
                .reconnect_delay_callback(|_| RECONNECT)
                .subscription_capacity(CAPACITY)
                .connect(url)
                .await?;
            let mut messages = client.subscribe(format!("{site}.live.>")).await?;
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                while let Some(message) = messages.next().await {
                    if let Some(heard) = wire::heard(&message.payload, now()) {
                        shared.lock().hear(heard);
                    }
                }
            });
            clients.push(client);
        }
        Ok(Self { site: site.to_owned(), shared, clients, read: vec![0; streams.into()] })
    }

    /// Forgets what was heard, and returns it.
    pub(crate) fn take(&self) -> Vec<Heard> {
        let mut shared = self.shared.lock();
        std::mem::take(&mut shared.heard)
    }

    /// The last message of each camera's highest epoch.
    pub(crate) fn latest(&self) -> HashMap<Camera, Heard> {
        self.shared.lock().latest.clone()
    }

    /// All events that were stored since it was asked last.
    pub(crate) async fn stored(&mut self) -> Result<Vec<Stored>> {
        let mut events = Vec::new();
        for stream in 0..self.read.len() {
            let name = format!("OCELLI_{}_EV_{stream}", self.site);
            let mut tries = 0;
            // An answer may come from a server that has just lost its leader.
            loop {
                match self.stream(&name, stream, &mut events).await {
                    Ok(()) => break,
                    Err(error) if tries < 20 => {
                        tries += 1;
                        eprintln!("    reading {name} again: {error:#}");
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(events)
    }

    async fn stream(&mut self, name: &str, number: usize, events: &mut Vec<Stored>) -> Result<()> {
        let connected = |client: &&Client| {
            client.connection_state() == async_nats::connection::State::Connected
        };
        let client = self.clients.iter().find(connected).context("no server is there")?;
        let context = jetstream::new(client.clone());
        let stream = context.get_stream(name).await?;
        let last = stream.get_info().await?.state.last_sequence;
        let start_sequence = self.read[number] + 1;
        if last < start_sequence {
            return Ok(());
        }
        let config = pull::Config {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            ack_policy: AckPolicy::None,
            memory_storage: true,
            num_replicas: 1,
            inactive_threshold: Duration::from_secs(30),
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await?;
        while self.read[number] < last {
            let before = self.read[number];
            let page = consumer.fetch().max_messages(PAGE).expires(PAGE_LIMIT).messages();
            let mut page = page.await?;
            while let Some(message) = page.next().await {
                let message = message.map_err(|error| anyhow::anyhow!("{error}"))?;
                let about = message.info().map_err(|error| anyhow::anyhow!("{error}"))?;
                let place = about.stream_sequence;
                let event = event(&message).with_context(|| format!("{name} {place}"))?;
                events.push(event);
                self.read[number] = place;
                if place >= last {
                    break;
                }
            }
            ensure!(self.read[number] > before, "{name} gives nothing behind {before}");
        }
        Ok(())
    }
}

impl Shared {
    fn hear(&mut self, heard: Heard) {
        let known = self.known.entry((heard.camera, heard.epoch)).or_default();
        if heard.sent <= *known {
            return;
        }
        *known = heard.sent;
        self.heard.push(heard);
        let latest = self.latest.entry(heard.camera).or_insert(heard);
        if heard.epoch >= latest.epoch {
            *latest = heard;
        }
    }
}

/// The header that has all of an event but its body.
const HEAD: &str = "Ocelli-Event";

/// What it says.
#[derive(Deserialize)]
struct Head {
    seq: u64,
    epoch: u64,
    host: String,
    kind: String,
}

fn event(message: &async_nats::Message) -> Result<Stored> {
    let head = message.headers.as_ref().and_then(|headers| headers.get(HEAD));
    let head: Head = serde_json::from_str(head.context("an event without a head")?.as_str())?;
    let body: serde_json::Value = serde_json::from_slice(&message.payload)?;
    let id = match &*head.kind {
        TAKEOVER => TAKEOVER,
        _ => body["id"].as_str().context("an event without an id")?,
    };
    let token = message.subject.rsplit('.').next().unwrap_or_default();
    let camera = ocelli_cluster::streams::names::text(token);
    let camera = camera.and_then(|id| host::camera_number(&id)).context("no camera of the lab")?;
    Ok(Stored {
        camera,
        seq: head.seq,
        epoch: head.epoch,
        host: host::number(&head.host).context("no host of the lab")?,
        id: id.into(),
    })
}
