//! What it costs to belong to a site: the same cameras on a host that stands alone and on one in a
//! site of its own, with one server of each engine and with three.

use std::collections::BTreeSet;
use std::fmt::{self, Display, Formatter};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use hyper::Method;
use ocelli_client::{Message, Request, Subscribe};
use ocelli_testkit::Site;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::live::Percentiles;
use super::{Environment, SETTLE};
use crate::chain::{Camera, Chain};
use crate::machine::{Role, cpu_s, pss_mb};
use crate::statistics::percentile;
use crate::table::Table;

/// Cameras: few enough to leave half of two cores to the engines.
const CAMERAS: usize = 8;

/// Frames from one event of a camera to the next: with the clip's ten frames a second two events a
/// second, four times what a busy entrance has.
const EVERY: u64 = 5;

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct SiteCosts {
    /// Alone, in a site of one server of each engine, and of three.
    pub rows: Vec<SiteCost>,
}

/// One host.
#[derive(Debug, Serialize)]
pub struct SiteCost {
    /// What it belongs to.
    pub site: &'static str,
    /// Events a second of all cameras.
    pub events_per_second: f64,
    /// From the pipeline's call to the subscriber, in milliseconds.
    pub event_ms: Percentiles,
    /// Percent of a core for each camera: the host's own process.
    pub host_percent: f64,
    /// The workers'.
    pub worker_percent: f64,
    /// The engines', all servers together.
    pub engine_percent: f64,
    /// MB of PSS of the host's process.
    pub host_mb: f64,
    /// Of the engines, all servers together.
    pub engine_mb: f64,
}

/// Measures. Loud, and without the rows of sites, where an engine is missing.
pub async fn measure(environment: &Environment) -> Result<SiteCosts> {
    let mut rows = vec![alone_or_in(environment, "alone", None).await?];
    for (name, site) in [("one server of each", Site::single()), ("three of each", Site::cluster())]
    {
        let Some(site) = site else { continue };
        rows.push(alone_or_in(environment, name, Some(&site)).await?);
    }
    Ok(SiteCosts { rows })
}

async fn alone_or_in(
    environment: &Environment,
    name: &'static str,
    site: Option<&Site>,
) -> Result<SiteCost> {
    let Environment { paths, workplace, segment, .. } = environment;
    let pipeline = paths.test_pipeline("changeling")?;
    let camera = |index: usize| {
        Camera::recorded(&format!("site-{index}"), &paths.clip, &pipeline)
            .with(json!({"every": EVERY, "stamp": true}))
    };
    let cameras: Vec<Camera> = (0..CAMERAS).map(camera).collect();
    let (configured, more) = match site {
        None => (&cameras[..], json!({})),
        Some(site) => (&[][..], section(site)),
    };
    let chain = Chain::start_with(paths, workplace, configured, more).await?;
    if site.is_some() {
        for camera in &cameras {
            put(&chain, camera).await?;
        }
    }
    let mut subscriber = chain.client().subscriber();
    for camera in &cameras {
        subscriber.subscribe(Subscribe::to(&camera.id)).await;
    }
    // Each has told something.
    let mut quiet: BTreeSet<String> = cameras.iter().map(|camera| camera.id.clone()).collect();
    while !quiet.is_empty() {
        let event = event(&mut subscriber).await?;
        quiet.remove(event.get("session").and_then(Value::as_str).unwrap_or_default());
    }
    latencies(&mut subscriber, Instant::now() + SETTLE).await?;

    let engines = engines(site);
    let cpu = |pids: &[u32]| -> Result<f64> { pids.iter().map(|pid| cpu_s(*pid)).sum() };
    let (before, engines_before) = (chain.snapshot()?, cpu(&engines)?);
    let waits = latencies(&mut subscriber, Instant::now() + *segment).await?;
    let (after, engines_after) = (chain.snapshot()?, cpu(&engines)?);
    let spent = after.since(&before);
    let host = after.pids(Role::Host).next().context("the host is gone")?;
    let (host_mb, engine_mb) =
        (pss_mb(host)?, engines.iter().try_fold(0.0, |sum, pid| anyhow::Ok(sum + pss_mb(*pid)?))?);
    chain.stop().await?;
    anyhow::ensure!(!waits.is_empty(), "no event came: --seconds is too short");
    let percent = |seconds: f64| seconds * 100.0 / spent.wall_s / CAMERAS as f64;
    let of = |role| percent(spent.by_role.get(&role).copied().unwrap_or_default());
    Ok(SiteCost {
        site: name,
        events_per_second: waits.len() as f64 / spent.wall_s,
        event_ms: Percentiles { p50: percentile(&waits, 0.5), p99: percentile(&waits, 0.99) },
        host_percent: of(Role::Host),
        worker_percent: of(Role::Worker),
        engine_percent: percent(engines_after - engines_before),
        host_mb,
        engine_mb,
    })
}

/// The host's part of a config.
fn section(site: &Site) -> Value {
    // The other hosts' way to it, of which there are none.
    let (servers, address) = (site.etcd.count(), "http://127.0.0.1:1");
    json!({
        "server": {"edit_config": true},
        "cluster": {
            "site": "bench", "host": "a", "address": address,
            "etcd": site.etcd.urls(), "nats": site.nats.urls(), "replicas": servers,
        },
    })
}

/// Adds a camera to the site.
async fn put(chain: &Chain, camera: &Camera) -> Result<()> {
    let mut table = camera.config();
    table.as_object_mut().map(|table| table.remove("id"));
    let request = Request::new(Method::PUT, &["config", "cameras", &camera.id]).patient();
    let request = request.content("application/json", table.to_string().into());
    chain.client().ask(&request).await.with_context(|| format!("adding {:?}", camera.id))?;
    Ok(())
}

fn engines(site: Option<&Site>) -> Vec<u32> {
    let Some(site) = site else { return Vec::new() };
    let etcd = (0..site.etcd.count()).filter_map(|number| site.etcd.pid(number));
    etcd.chain((0..site.nats.count()).filter_map(|number| site.nats.pid(number))).collect()
}

/// The next event of a pipeline.
async fn event(subscriber: &mut ocelli_client::Subscriber) -> Result<Value> {
    loop {
        let (message, text) = subscriber.next_with_text().await?;
        if matches!(message, Message::Event(_)) {
            let event: Value = serde_json::from_str(&text)?;
            if event.get("kind").is_some_and(|kind| kind == "counted") {
                return Ok(event);
            }
        }
    }
}

/// The events' times on their way, in milliseconds, until then.
async fn latencies(
    subscriber: &mut ocelli_client::Subscriber,
    deadline: Instant,
) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    while let Ok(event) = tokio::time::timeout_at(deadline, event(subscriber)).await {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let event = event?;
        let stamp = event.pointer("/data/stamp").and_then(Value::as_f64);
        let stamp = stamp.context("an event without a stamp")?;
        waits.push(now * 1e3 - stamp / 1e3);
    }
    Ok(waits)
}

impl Display for SiteCosts {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n## A site\n")?;
        writeln!(
            f,
            "{CAMERAS} cameras on one host; CPU is for each camera, in percent of a core; the \
             engines' is that of all servers."
        )?;
        let mut table = Table::new([
            "host",
            "events/s",
            "event p50, p99",
            "CPU of the host",
            "of its worker",
            "of the engines",
            "PSS of the host",
            "of the engines",
        ]);
        for row in &self.rows {
            let Percentiles { p50, p99 } = row.event_ms;
            table.row([
                row.site.to_owned(),
                format!("{:.1}", row.events_per_second),
                format!("{p50:.1}, {p99:.1} ms"),
                format!("{:.2} %", row.host_percent),
                format!("{:.2} %", row.worker_percent),
                format!("{:.2} %", row.engine_percent),
                format!("{:.0} MB", row.host_mb),
                format!("{:.0} MB", row.engine_mb),
            ]);
        }
        table.fmt(f)
    }
}
