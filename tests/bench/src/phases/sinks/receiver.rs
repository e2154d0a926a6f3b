//! Receivers of what is written to a sink: they count events, hold them to their order, and note how
//! late they are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use parking_lot::Mutex;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use rumqttc::{AsyncClient, Broker, Event, EventLoop, Incoming, MqttOptions, QoS};
use serde::Deserialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::PATIENCE;

/// Milliseconds for which Redis holds a question whose answer is not there yet.
const BLOCK_MS: u64 = 200;

/// Entries of one answer of Redis.
const PAGE: u64 = 1000;

/// What it answers to a request that it has taken.
const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// A receiver. It stops when dropped.
pub(super) struct Receiver {
    port: u16,
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Default)]
struct Shared {
    heard: Mutex<HeardEvents>,
    more: Notify,
}

/// What has come.
#[derive(Default)]
struct HeardEvents {
    events: u64,
    /// The last number of each session.
    last: BTreeMap<String, u64>,
    /// When the first event came, and the last.
    span: Option<(Instant, Instant)>,
    lags_ms: Vec<f64>,
    fault: Option<String>,
}

/// What of an event is looked at.
#[derive(Deserialize)]
struct EventHead {
    session: String,
    seq: u64,
    #[serde(default)]
    data: EventData,
}

#[derive(Default, Deserialize)]
struct EventData {
    /// Microseconds since 1970.
    stamp: Option<u64>,
}

/// The body of a webhook's request.
#[derive(Deserialize)]
struct HookBody {
    data: HookData,
}

#[derive(Deserialize)]
struct HookData {
    events: Vec<EventHead>,
}

impl HeardEvents {
    fn take(&mut self, event: EventHead, now: Instant, now_us: f64) {
        let EventHead { session, seq, data } = event;
        let last = self.last.entry(session).or_insert(seq.saturating_sub(1));
        if seq <= *last {
            // It was there before.
            return;
        }
        if seq != *last + 1 {
            self.fault = Some(format!("event {seq} follows {last}"));
        }
        *last = seq;
        self.events += 1;
        let first = self.span.map_or(now, |(first, _)| first);
        self.span = Some((first, now));
        self.lags_ms.extend(data.stamp.map(|stamp| (now_us - stamp as f64) / 1e3));
    }
}

impl Shared {
    fn take(&self, events: impl IntoIterator<Item = EventHead>) {
        let (now, now_us) = (Instant::now(), now_us());
        let mut heard = self.heard.lock();
        events.into_iter().for_each(|event| heard.take(event, now, now_us));
        drop(heard);
        self.more.notify_waiters();
    }

    fn fail(&self, fault: &anyhow::Error) {
        self.heard.lock().fault = Some(format!("{fault:#}"));
        self.more.notify_waiters();
    }
}

fn now_us() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_micros() as f64
}

impl Receiver {
    fn new(
        port: u16,
        receiving: impl Future<Output = Result<()>> + 'static + Send,
        shared: Arc<Shared>,
    ) -> Self {
        let failing = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            if let Err(fault) = receiving.await {
                failing.fail(&fault);
            }
        });
        Self { port, shared, task: task.abort_handle() }
    }

    /// Reads the streams of these sessions.
    pub(super) async fn of_redis(url: &str, sessions: &[String]) -> Result<Self> {
        let client = redis::Client::open(url)?;
        let how = AsyncConnectionConfig::new().set_response_timeout(None);
        let connection = client.get_multiplexed_async_connection_with_config(&how).await?;
        let streams: Vec<String> =
            sessions.iter().map(|session| format!("ocelli:events:{session}")).collect();
        let shared = Arc::<Shared>::default();
        let receiving = read_streams(connection, streams, Arc::clone(&shared));
        Ok(Self::new(0, receiving, shared))
    }

    /// Subscribes to the events of every session.
    pub(super) async fn of_mqtt(port: u16) -> Result<Self> {
        let options = MqttOptions::new("bench-receiver", Broker::tcp("127.0.0.1", port));
        let (client, mut events) = AsyncClient::builder(options).capacity(16).try_build()?;
        client.subscribe("ocelli/+/+/events", QoS::AtLeastOnce).await?;
        // What is published from then on comes.
        while !matches!(events.poll().await?, Event::Incoming(Incoming::SubAck(_))) {}
        let shared = Arc::<Shared>::default();
        let receiving = read_messages(client, events, Arc::clone(&shared));
        Ok(Self::new(port, receiving, shared))
    }

    /// Listens on a port of its own.
    pub(super) async fn of_webhook() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::<Shared>::default();
        let taking = Arc::clone(&shared);
        let receiving = async move {
            loop {
                // One client at a time writes.
                let (connection, _) = listener.accept().await?;
                read_requests(connection, &taking).await?;
            }
        };
        Ok(Self::new(port, receiving, shared))
    }

    /// Where a webhook's is.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits until so many events are there: how many came in a second.
    pub(super) async fn backlog(&self, events: u64) -> Result<f64> {
        self.until(|heard| heard.events >= events).await?;
        let heard = self.shared.heard.lock();
        let (first, last) = heard.span.context("no event came")?;
        Ok(heard.events as f64 / last.duration_since(first).as_secs_f64())
    }

    /// Waits for an event.
    pub(super) async fn hears(&self) -> Result<()> {
        self.until(|heard| heard.events > 0).await
    }

    /// How late the events were since this was asked last.
    pub(super) fn take_lags(&self) -> Result<Vec<f64>> {
        let mut heard = self.shared.heard.lock();
        match heard.fault.take() {
            Some(fault) => bail!(fault),
            None => Ok(std::mem::take(&mut heard.lags_ms)),
        }
    }

    async fn until(&self, good: impl Fn(&HeardEvents) -> bool) -> Result<()> {
        let waiting = async {
            loop {
                let more = self.shared.more.notified();
                let now = {
                    let heard = self.shared.heard.lock();
                    heard.fault.clone().map_or(Ok(good(&heard)), Err)
                };
                match now {
                    Ok(true) => return Ok(()),
                    Ok(false) => more.await,
                    Err(fault) => return Err(anyhow!(fault)),
                }
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| bail!("{} events came", self.shared.heard.lock().events))
    }
}

/// The answer of `XREAD`: streams with their entries, each with an id and its fields.
type Streams = Vec<(String, Vec<(String, Vec<String>)>)>;

async fn read_streams(
    mut connection: MultiplexedConnection,
    streams: Vec<String>,
    shared: Arc<Shared>,
) -> Result<()> {
    let mut ids = vec!["0".to_owned(); streams.len()];
    loop {
        let mut read = redis::cmd("XREAD");
        read.arg("BLOCK").arg(BLOCK_MS).arg("COUNT").arg(PAGE).arg("STREAMS");
        read.arg(&streams).arg(&ids);
        let answer: Option<Streams> = read.query_async(&mut connection).await?;
        for (stream, entries) in answer.into_iter().flatten() {
            let mut events = Vec::with_capacity(entries.len());
            for (id, fields) in entries {
                let place = streams.iter().position(|name| *name == stream);
                let newest = place.and_then(|place| ids.get_mut(place));
                *newest.context("a stream that was not asked for")? = id;
                let text = fields.chunks_exact(2).find_map(|field| match field {
                    [name, value] if name == "event" => Some(value),
                    _ => None,
                });
                events.push(serde_json::from_str(text.context("an entry without an event")?)?);
            }
            shared.take(events);
        }
    }
}

/// `_client`: the connection ends with the last of them.
async fn read_messages(
    _client: AsyncClient,
    mut events: EventLoop,
    shared: Arc<Shared>,
) -> Result<()> {
    loop {
        if let Event::Incoming(Incoming::Publish(message)) = events.poll().await? {
            shared.take([serde_json::from_slice(&message.payload)?]);
        }
    }
}

/// Takes requests until the connection ends.
async fn read_requests(mut connection: TcpStream, shared: &Shared) -> Result<()> {
    connection.set_nodelay(true)?;
    let mut bytes = Vec::new();
    loop {
        let (mut head, mut whole) = (0, usize::MAX);
        while bytes.len() < whole {
            if let (usize::MAX, Some(end)) =
                (whole, bytes.windows(4).position(|four| four == b"\r\n\r\n"))
            {
                head = end + 4;
                let text = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default());
                let mut lines = text.lines().filter_map(|line| line.split_once(':'));
                let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
                let (_, length) = length.context("a request without a length")?;
                whole = head + length.trim().parse::<usize>()?;
                continue;
            }
            if connection.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        }
        let body: HookBody = serde_json::from_slice(bytes.get(head..whole).unwrap_or_default())?;
        shared.take(body.data.events);
        bytes.drain(..whole);
        connection.write_all(TAKEN).await?;
    }
}
