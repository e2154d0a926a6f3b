//! A thousand subscribers, each of which gets ten messages a second: what the host spends on them,
//! and how late they are.
//!
//! A cheap pipeline of the tests writes into each result the moment at which its call ends, by the
//! machine's real-time clock; the subscribers, in this process and on the same machine, look at the
//! same clock when they have read. In between lie the worker's pipe, the host, for events the
//! journal with its write to the disk, the queues, and the kernel.

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;
use serde_json::json;

use super::live::Percentiles;
use super::{Environment, SETTLE};
use crate::chain::{Camera, Chain};
use crate::listeners::{ListenerKind, Listeners};
use crate::machine::{Role, cpu_s, pss_mb};
use crate::statistics::{largest, percentile};

/// How many.
const SUBSCRIBERS: usize = 1000;

/// Those that never read.
const DEAF: usize = 10;

/// Descriptors that this process and the host take besides the subscribers'.
const OTHER_FILES: u64 = 200;

/// A session whose pipeline makes results alone, and one whose pipeline makes an event with each.
const SESSIONS: [(&str, u64); 2] = [("results", 1 << 40), ("events", 1)];

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Fanout {
    /// How many.
    pub subscribers: usize,
    /// CPU of the host in percent of a core before there was one: two sessions, one of which writes
    /// 10 events a second.
    pub idle_host_percent: f64,
    /// MB of PSS before.
    pub idle_host_mb: f64,
    /// What they listened to.
    pub loads: Vec<Load>,
}

/// One kind of message to all of them.
#[derive(Debug, Serialize)]
pub struct Load {
    /// Which.
    pub what: &'static str,
    /// That came, of all subscribers together.
    pub messages_per_second: f64,
    /// CPU of the host in percent of a core; see `idle_host_percent`.
    pub host_percent: f64,
    /// CPU of this process in percent of a core: the subscribers.
    pub bench_percent: f64,
    /// From the pipeline's result to the subscriber's read. None where messages were not looked
    /// into.
    pub delivery_ms: Option<Percentiles>,
    /// The latest of all.
    pub delivery_max_ms: f64,
    /// KB of PSS that the host has grown by, for each subscriber.
    pub kb_per_subscriber: f64,
    /// Messages that say that others were left out for a subscriber that read too slowly.
    pub missed: u64,
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<Fanout> {
    raise_limit()?;
    let paths = &environment.paths;
    let pipeline = paths.test_pipeline("changeling")?;
    let camera = |(name, every)| {
        Camera::recorded(name, &paths.clip, &pipeline).with(json!({"every": every, "stamp": true}))
    };
    let cameras = SESSIONS.map(camera);
    // A thousand connections within a second, from one address: no client does that by itself.
    let more = json!({"server": {"requests_per_second": 0}});
    let chain = Chain::start_with(paths, &environment.workplace, &cameras, more).await?;
    for (session, _) in SESSIONS {
        let mut subscriber = chain.subscriber().await?;
        subscriber.subscribe(session).await?;
        subscriber.result(session).await?;
    }
    let host = chain.snapshot()?.pids(Role::Host).next().context("no host")?;
    let idle = cpu_s(host)?;
    tokio::time::sleep(environment.segment).await;
    let idle_host_percent = (cpu_s(host)? - idle) / environment.segment.as_secs_f64() * 100.0;
    let idle_host_mb = pss_mb(host)?;
    let place = Place { environment, chain: &chain, host, idle_host_mb };
    let loads = vec![
        place.load("results", "results", true, &[(SUBSCRIBERS, ListenerKind::Reading)]).await?,
        place
            .load(
                "and 10 that never read",
                "results",
                true,
                &[(SUBSCRIBERS, ListenerKind::Reading), (DEAF, ListenerKind::Deaf)],
            )
            .await?,
        place
            .load(
                "results, compressed",
                "results",
                true,
                &[(SUBSCRIBERS, ListenerKind::Compressed)],
            )
            .await?,
        place
            .load(
                "events, on the disk first",
                "events",
                false,
                &[(SUBSCRIBERS, ListenerKind::Reading)],
            )
            .await?,
    ];
    chain.stop().await?;
    Ok(Fanout { subscribers: SUBSCRIBERS, idle_host_percent, idle_host_mb, loads })
}

/// Where subscribers come to.
struct Place<'a> {
    environment: &'a Environment,
    chain: &'a Chain,
    host: u32,
    idle_host_mb: f64,
}

impl Place<'_> {
    async fn load(
        &self,
        what: &'static str,
        session: &str,
        detections: bool,
        clients: &[(usize, ListenerKind)],
    ) -> Result<Load> {
        let mut listeners = Listeners::new();
        for (count, manner) in clients {
            let adding =
                listeners.add(*count, *manner, self.chain.address(), session, detections).await;
            adding.with_context(|| format!("subscribers of {what}"))?;
        }
        tokio::time::sleep(SETTLE).await;
        listeners.take()?;
        let own = std::process::id();
        let (before, own_before, begun) =
            (cpu_s(self.host)?, cpu_s(own)?, std::time::Instant::now());
        tokio::time::sleep(self.environment.segment).await;
        let seconds = begun.elapsed().as_secs_f64();
        let (after, own_after) = (cpu_s(self.host)?, cpu_s(own)?);
        let heard = listeners.take().with_context(|| what.to_owned())?;
        let grown = pss_mb(self.host)? - self.idle_host_mb;
        drop(listeners);
        // The host has heard of their end before others come.
        tokio::time::sleep(SETTLE).await;
        let delivery = &heard.delivery_ms;
        let delivery_ms = (!delivery.is_empty()).then(|| Percentiles {
            p50: percentile(delivery, 0.5),
            p99: percentile(delivery, 0.99),
        });
        Ok(Load {
            what,
            messages_per_second: heard.messages as f64 / seconds,
            host_percent: (after - before) / seconds * 100.0,
            bench_percent: (own_after - own_before) / seconds * 100.0,
            delivery_ms,
            delivery_max_ms: largest(delivery),
            kb_per_subscriber: grown * 1e3 / SUBSCRIBERS as f64,
            missed: heard.lagged,
        })
    }
}

/// Each subscriber is a descriptor here and one in the host, which inherits the limit.
fn raise_limit() -> Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let needed = (SUBSCRIBERS + DEAF) as u64 + OTHER_FILES;
    let most = limit.maximum.unwrap_or(u64::MAX);
    ensure!(most >= needed, "{needed} open files are needed, and `ulimit -Hn` allows {most}");
    if limit.current.is_some_and(|current| current < needed) {
        limit.current = Some(most.min(needed.max(4096)));
        setrlimit(Resource::Nofile, limit).context("raising the limit of open files")?;
    }
    Ok(())
}
