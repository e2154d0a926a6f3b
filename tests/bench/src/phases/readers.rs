//! The two readers of cameras side by side: what `ocelli-rtsp` and `ocelli-ingest` take for the same
//! streams, a process for each camera.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::live::Moments;
use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain};
use crate::machine::{Role, pss_mb};
use crate::paths::{CLIP, CLIP_1080};

/// Clip, reader and number of cameras of each row. Four share the noise of one measurement; twenty
/// are as many as a host runs by default.
const ROWS: [(&str, &str, usize); 6] = [
    (CLIP, "strict", 4),
    (CLIP, "compatible", 4),
    (CLIP_1080, "strict", 4),
    (CLIP_1080, "compatible", 4),
    (CLIP, "strict", 20),
    (CLIP, "compatible", 20),
];

/// The readers take a few thousandths of a core, which the kernel counts in hundredths of a second.
const SHORTEST: Duration = Duration::from_secs(20);

/// How long all cameras may take until they play.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Some cameras with one reader.
#[derive(Debug, Serialize)]
pub struct ReaderCost {
    /// What they play.
    pub clip: &'static str,
    /// `strict` or `compatible`.
    pub reader: &'static str,
    /// How many.
    pub cameras: usize,
    /// CPU of the host for each camera, in percent of a core: judging, handing on, supervision.
    pub host_percent: f64,
    /// CPU of the reader process for each camera, in percent of a core.
    pub ingest_percent: f64,
    /// MB of PSS of each reader process.
    pub ingest_mb: Moments,
    /// MB of PSS of the host.
    pub host_mb: f64,
    /// Access units of one camera in a second.
    pub units_per_second: f64,
    /// Cores that others kept busy meanwhile; the cameras' server is among them.
    pub other_cores: f64,
}

/// Measures each row for one segment.
pub async fn measure(environment: &Environment) -> Result<Vec<ReaderCost>> {
    let mut rows = Vec::new();
    for (clip, reader, cameras) in ROWS {
        let row = row(environment, clip, reader, cameras).await;
        rows.push(row.with_context(|| format!("{cameras} cameras of {clip}, reader {reader}"))?);
    }
    Ok(rows)
}

async fn row(
    environment: &Environment,
    clip: &'static str,
    reader: &'static str,
    cameras: usize,
) -> Result<ReaderCost> {
    let Environment { paths, workplace, .. } = environment;
    let server = Cameras::play(paths, &paths.clips.join(clip), cameras).await?;
    // The readers are measured: workers decode little and infer hardly ever.
    let camera = |index| {
        Camera::live(index, server.url(index))
            .with(json!({"max_results_per_second": 0.1}))
            .keyed(json!({"reader": reader, "decode": "key"}))
    };
    let all: Vec<Camera> = (0..cameras).map(camera).collect();
    let chain = Chain::start(paths, workplace, &all).await?;
    until_all_play(&chain, cameras).await?;
    tokio::time::sleep(SETTLE).await;
    let (sessions, before) = (chain.sessions().await?, chain.snapshot()?);
    tokio::time::sleep(environment.segment.max(SHORTEST)).await;
    let (after, sessions_after) = (chain.snapshot()?, chain.sessions().await?);
    let ingest_mb = after.pids(Role::Ingest).map(pss_mb).collect::<Result<Vec<_>>>()?;
    anyhow::ensure!(ingest_mb.len() == cameras, "{} reader processes", ingest_mb.len());
    let host_mb = pss_mb(after.pids(Role::Host).next().context("no host")?)?;
    chain.stop().await?;
    server.stop().await?;
    let spent = after.since(&before);
    let percent = |role| {
        let seconds = spent.by_role.get(&role).copied().unwrap_or_default();
        100.0 * seconds / spent.wall_s / cameras as f64
    };
    let units = |sessions: &[crate::chain::Session]| {
        sessions.iter().map(|session| session.frames.received).sum::<u64>()
    };
    let came = units(&sessions_after).saturating_sub(units(&sessions)) as f64;
    Ok(ReaderCost {
        clip,
        reader,
        cameras,
        host_percent: percent(Role::Host),
        ingest_percent: percent(Role::Ingest),
        ingest_mb: Moments::of(&ingest_mb),
        host_mb,
        units_per_second: came / spent.wall_s / cameras as f64,
        other_cores: spent.other_cores,
    })
}

async fn until_all_play(chain: &Chain, cameras: usize) -> Result<()> {
    let end = Instant::now() + START_LIMIT;
    let mut looks = tokio::time::interval(Duration::from_millis(200));
    while Instant::now() < end {
        looks.tick().await;
        let sessions = chain.sessions().await?;
        if sessions.iter().filter(|session| session.frames.decoded > 0).count() == cameras {
            return Ok(());
        }
    }
    bail!("not all of {cameras} cameras play within {} s", START_LIMIT.as_secs())
}
