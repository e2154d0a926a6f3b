//! Sinks over real servers on this machine: how fast a backlog goes to each, what that costs the
//! host, and how late an event comes at a steady rate.
//!
//! A backlog: a host without cameras has a journal of [`BACKLOG`] events, and its config is given a
//! sink that begins with the oldest. In turn with it a bare client ([`bare`]) writes the same bytes
//! to the same server in the same way, from memory: what the host takes more is the journal, the
//! cursor and the seam. The same receiver ([`receiver`]) counts both, and holds them to the order of
//! the numbers.
//!
//! A steady rate: [`CAMERAS`] sessions make an event of each frame and write into it the moment at
//! which their call ended; the receiver looks at the same clock. In between lie the worker's pipe,
//! the host, the write to the disk, and the sink. A subscriber over WebSocket is measured beside
//! them: what a sink is later than that is its own.

mod bare;
mod receiver;

use std::fmt::{self, Display, Formatter};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use ocelli::journal::Journal;
use ocelli::journal::events::EventDraft;
use ocelli_testkit::{HookReceiver, Mosquitto, Redis};
use serde::Serialize;
use serde_json::{Value, json};

use super::live::Percentiles;
use super::{Environment, SETTLE};
use crate::chain::{BenchFolder, Camera, Chain};
use crate::listeners::{ListenerKind, Listeners};
use crate::machine::{Role, cpu_s, threads};
use crate::statistics::{median, percentile};
use crate::table::Table;
use receiver::Receiver;

/// Events of the backlog: two seconds of writing to the slowest sink.
const BACKLOG: u64 = 10_000;

/// Events that wait for the disk at once at most.
const TURN: u64 = 1000;

/// The session of the backlog.
const SESSION: &str = "backlog";

/// Sessions that make events at a steady rate.
const CAMERAS: usize = 5;

/// Events of each in a second: the clip's pictures.
const RATE: usize = 10;

/// Longest measurement at a steady rate; all of this part is to take less than a minute.
const LONGEST: Duration = Duration::from_secs(4);

/// How long events may take until something is wrong.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events that a stream of Redis keeps: all.
const STREAM_LENGTH: u64 = 1_000_000;

/// The name of the host in topics.
const HOST: &str = "bench";

/// Which sink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SinkKind {
    /// One stream for each session.
    Redis,
    /// QoS 1.
    Mqtt,
    /// Requests of at most 64 events.
    Webhook,
}

impl SinkKind {
    const ALL: [Self; 3] = [Self::Redis, Self::Mqtt, Self::Webhook];

    fn name(self) -> &'static str {
        match self {
            Self::Redis => "Redis",
            Self::Mqtt => "MQTT",
            Self::Webhook => "webhook",
        }
    }
}

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct SinkCosts {
    /// Events of the backlog.
    pub backlog: u64,
    /// A backlog to each sink.
    pub backlogs: Vec<Backlog>,
    /// Events in a second, of all sessions together.
    pub rate: usize,
    /// A subscriber and each sink at that rate.
    pub lags: Vec<Lag>,
    /// Seconds of all together.
    pub took_s: f64,
}

/// A backlog that went to a sink, and the same from a bare client.
#[derive(Debug, Serialize)]
pub struct Backlog {
    /// Which.
    pub sink: SinkKind,
    /// Of the host.
    pub events_per_second: f64,
    /// Of the bare client: median of a turn before the host's and one after it.
    pub bare_events_per_second: f64,
    /// CPU of the host for 1,000 events, in ms.
    pub cpu_ms: f64,
    /// CPU of the bare client for them.
    pub bare_cpu_ms: f64,
}

/// How late events are.
#[derive(Debug, Serialize)]
pub struct Lag {
    /// To whom.
    pub to: &'static str,
    /// Events that came.
    pub events: usize,
    /// From the end of the pipeline's call.
    pub lag_ms: Percentiles,
    /// CPU of the host in percent of a core, sessions and journal included.
    pub host_percent: f64,
}

/// The servers.
struct Targets {
    redis: Redis,
    mqtt: Mosquitto,
}

impl Targets {
    /// The keys of a host's config by which it writes to a sink.
    fn keys(&self, sink: SinkKind, receiver: &Receiver, from: &str) -> Value {
        match sink {
            SinkKind::Redis => json!({"redis": {
                "url": self.redis.url(), "from": from, "stream_length": STREAM_LENGTH,
            }}),
            SinkKind::Mqtt => json!({"mqtt": {
                "url": format!("mqtt://127.0.0.1:{}", self.mqtt.port()), "from": from, "name": HOST,
            }}),
            SinkKind::Webhook => json!({"webhooks": [{
                "name": HOST, "url": format!("http://127.0.0.1:{}/", receiver.port()),
                "secret": HookReceiver::SECRET, "allow_private": true, "from": from,
            }]}),
        }
    }

    /// What is written to a sink from now on of these sessions.
    async fn receiver(&self, sink: SinkKind, sessions: &[String]) -> Result<Receiver> {
        match sink {
            SinkKind::Redis => {
                self.redis.cli(&["FLUSHALL"]);
                Receiver::of_redis(&self.redis.url(), sessions).await
            }
            SinkKind::Mqtt => Receiver::of_mqtt(self.mqtt.port()).await,
            SinkKind::Webhook => Receiver::of_webhook().await,
        }
    }
}

/// Measures.
pub async fn measure(environment: &Environment, progress: impl Fn(&str)) -> Result<SinkCosts> {
    let begun = Instant::now();
    let targets = Targets { redis: Redis::start(), mqtt: Mosquitto::start() };
    let backlogs = backlogs(environment, &targets, &progress).await?;
    let lags = lags(environment, &targets, &progress).await?;
    let (rate, took_s) = (CAMERAS * RATE, begun.elapsed().as_secs_f64());
    Ok(SinkCosts { backlog: BACKLOG, backlogs, rate, lags, took_s })
}

async fn backlogs(
    environment: &Environment,
    targets: &Targets,
    progress: &impl Fn(&str),
) -> Result<Vec<Backlog>> {
    let workplace = BenchFolder::new()?;
    write_backlog(&workplace).await.context("writing a journal")?;
    let mut chain = Chain::start(&environment.paths, &workplace, &[]).await?;
    let mut backlogs = Vec::new();
    for sink in SinkKind::ALL {
        progress(&format!("sinks: a backlog to {}", sink.name()));
        let measured = backlog(&mut chain, targets, sink).await;
        backlogs.push(measured.with_context(|| format!("a backlog to {}", sink.name()))?);
    }
    chain.stop().await?;
    Ok(backlogs)
}

/// The text of the backlog's events without session and number: of a usual size.
fn body() -> String {
    json!({
        "time": "2026-11-30T05:00:00.000Z", "clock": "camera", "kind": "zone_entered",
        "deployment": "0123456789ab", "frame": 1234,
        "detections": [{"label": "person", "score": 0.87, "box": [0.1, 0.2, 0.3, 0.4]}],
        "data": {"track": 3, "label": "person", "zone": "door"},
    })
    .to_string()
}

/// Fills the journal that a host of this folder finds, and returns when it is closed.
async fn write_backlog(workplace: &BenchFolder) -> Result<()> {
    let own = std::process::id();
    let threads_before = threads(own)?;
    let folder = workplace.folder().join("data");
    std::fs::create_dir_all(&folder)?;
    let journal = Journal::open(&folder)?;
    let body = body();
    for number in 1..=BACKLOG {
        let draft = EventDraft {
            kind: "zone_entered".into(),
            time_ms: 0,
            body: body.as_str().into(),
            attachments: Vec::new(),
            clip: None,
        };
        ensure!(journal.events().append(SESSION, draft), "the journal has no room");
        if number % TURN == 0 {
            journal.events().flush().await?;
        }
    }
    journal.events().flush().await?;
    drop(journal);
    // Its threads close the files when they end.
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    let begun = Instant::now();
    while threads(own)? > threads_before {
        ensure!(begun.elapsed() < PATIENCE, "the journal is not closed");
        looks.tick().await;
    }
    Ok(())
}

async fn backlog(chain: &mut Chain, targets: &Targets, sink: SinkKind) -> Result<Backlog> {
    let events = bare::events(&body(), SESSION, BACKLOG);
    let mut bare = vec![bare_turn(targets, sink, &events).await?];
    let receiver = targets.receiver(sink, &[SESSION.to_owned()]).await?;
    let host = chain.snapshot()?.pids(Role::Host).next().context("no host")?;
    let before = cpu_s(host)?;
    chain.reload(targets.keys(sink, &receiver, "beginning"))?;
    let events_per_second = receiver.backlog(BACKLOG).await?;
    let cpu = cpu_s(host)? - before;
    // Without the sink, so that nothing else is written in the next turn.
    chain.reload(json!({}))?;
    bare.push(bare_turn(targets, sink, &events).await?);
    let of_bare =
        |figure: fn(&BareTurn) -> f64| median(&bare.iter().map(figure).collect::<Vec<_>>());
    let per_thousand = |cpu_s: f64| cpu_s * 1e6 / BACKLOG as f64;
    Ok(Backlog {
        sink,
        events_per_second,
        bare_events_per_second: of_bare(|turn| turn.events_per_second),
        cpu_ms: per_thousand(cpu),
        bare_cpu_ms: per_thousand(of_bare(|turn| turn.cpu_s)),
    })
}

/// What a bare client took.
struct BareTurn {
    events_per_second: f64,
    cpu_s: f64,
}

async fn bare_turn(
    targets: &Targets,
    sink: SinkKind,
    events: &[bare::BareEvent],
) -> Result<BareTurn> {
    let receiver = targets.receiver(sink, &[SESSION.to_owned()]).await?;
    let port = match sink {
        SinkKind::Redis => targets.redis.port(),
        SinkKind::Mqtt => targets.mqtt.port(),
        SinkKind::Webhook => receiver.port(),
    };
    let client = bare::start(sink, port, events.to_vec());
    let events_per_second = receiver.backlog(BACKLOG).await?;
    let cpu_s = client.await.context("the bare client is gone")??;
    Ok(BareTurn { events_per_second, cpu_s })
}

async fn lags(
    environment: &Environment,
    targets: &Targets,
    progress: &impl Fn(&str),
) -> Result<Vec<Lag>> {
    let paths = &environment.paths;
    let pipeline = paths.test_pipeline("changeling")?;
    let names: Vec<String> = (0..CAMERAS).map(|index| format!("eventful-{index}")).collect();
    let camera = |name: &String| {
        let settings = json!({"every": 1, "stamp": true});
        Camera::recorded(name, &paths.clip, &pipeline).with(settings)
    };
    let cameras: Vec<Camera> = names.iter().map(camera).collect();
    let mut chain = Chain::start(paths, &environment.workplace, &cameras).await?;
    for name in &names {
        let mut subscriber = chain.subscriber().await?;
        subscriber.subscribe(name).await?;
        subscriber.result(name).await?;
    }
    let host = chain.snapshot()?.pids(Role::Host).next().context("no host")?;
    let length = environment.segment.min(LONGEST);

    progress("sinks: a subscriber at a steady rate");
    let mut listeners = Listeners::new();
    for name in &names {
        listeners.add(1, ListenerKind::Reading, chain.address(), name, false).await?;
    }
    tokio::time::sleep(SETTLE).await;
    listeners.take()?;
    let host_percent = percent_while(host, length).await?;
    let mut lags = vec![Lag::of("WebSocket", &listeners.take()?.delivery_ms, host_percent)?];
    drop(listeners);
    for sink in SinkKind::ALL {
        progress(&format!("sinks: {} at a steady rate", sink.name()));
        let receiver = targets.receiver(sink, &names).await?;
        chain.reload(targets.keys(sink, &receiver, "now"))?;
        receiver.hears().await?;
        tokio::time::sleep(SETTLE).await;
        receiver.take_lags()?;
        let host_percent = percent_while(host, length).await?;
        lags.push(Lag::of(sink.name(), &receiver.take_lags()?, host_percent)?);
        chain.reload(json!({}))?;
    }
    chain.stop().await?;
    Ok(lags)
}

/// CPU of a process in percent of a core for so long.
async fn percent_while(pid: u32, length: Duration) -> Result<f64> {
    let (before, begun) = (cpu_s(pid)?, Instant::now());
    tokio::time::sleep(length).await;
    Ok((cpu_s(pid)? - before) / begun.elapsed().as_secs_f64() * 100.0)
}

impl Lag {
    fn of(to: &'static str, lags_ms: &[f64], host_percent: f64) -> Result<Self> {
        ensure!(!lags_ms.is_empty(), "no event came to {to}");
        let lag_ms = Percentiles { p50: percentile(lags_ms, 0.5), p99: percentile(lags_ms, 0.99) };
        Ok(Self { to, events: lags_ms.len(), lag_ms, host_percent })
    }
}

impl Display for SinkCosts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { backlog, backlogs, rate, lags, took_s } = self;
        writeln!(f, "\n## Sinks\n")?;
        writeln!(
            f,
            "A backlog of {backlog} events of one session; CPU is for 1,000 of them. All in \
                {took_s:.0} s."
        )?;
        let headings =
            ["sink", "events/s", "bare client", "ratio", "CPU of the host", "of the bare client"];
        let mut table = Table::new(headings);
        for one in backlogs {
            table.row([
                one.sink.name().to_owned(),
                format!("{:.0}", one.events_per_second),
                format!("{:.0}", one.bare_events_per_second),
                format!("{:.2}", one.events_per_second / one.bare_events_per_second),
                format!("{:.0} ms", one.cpu_ms),
                format!("{:.0} ms", one.bare_cpu_ms),
            ]);
        }
        write!(f, "{table}")?;
        writeln!(
            f,
            "\n{rate} events a second of {CAMERAS} sessions, from the pipeline's result on."
        )?;
        let mut table = Table::new(["to", "lag p50", "p99", "events", "CPU of the host"]);
        for Lag { to, events, lag_ms, host_percent } in lags {
            table.row([
                (*to).to_owned(),
                format!("{:.1} ms", lag_ms.p50),
                format!("{:.1} ms", lag_ms.p99),
                events.to_string(),
                format!("{host_percent:.1} % of a core"),
            ]);
        }
        write!(f, "{table}")
    }
}
