//! Twenty sessions: what the host itself spends on their streams, and what an idle worker takes.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;
use tokio::net::TcpSocket;
use tokio::time::Instant;

use super::live::Moments;
use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain, Session};
use crate::machine::{Mapping, Role, Spent, mappings, pss_mb};

/// As many as `session_processes.max_concurrent_sessions` allows by default.
const SESSIONS: usize = 20;

/// Results of a session in a second: with decoding, a little more than one core for all, so that
/// two cores suffice.
const RATE: f64 = 0.5;

/// The host's share is a few hundredths of a core, which the kernel counts in hundredths of a
/// second.
const SHORTEST: Duration = Duration::from_secs(20);

/// How long all sessions may take to be where the measurement wants them.
const START_LIMIT: Duration = Duration::from_secs(90);

/// Mappings that are told by name.
const LARGEST: usize = 8;

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Twenty {
    /// How many.
    pub sessions: usize,
    /// With a camera each.
    pub live: Streaming,
    /// With cameras that do not answer, so that no worker has a decoder.
    pub idle: Idle,
}

/// Twenty cameras of 768x576 and 10 pictures a second, over an RTSP connection each.
#[derive(Debug, Serialize)]
pub struct Streaming {
    /// CPU of the host in percent of a core: RTSP, handing units on, supervision, and telling one
    /// subscriber.
    pub host_percent: f64,
    /// CPU of all workers in percent of a core.
    pub workers_percent: f64,
    /// CPU of the inference process in percent of a core.
    pub inference_percent: f64,
    /// Access units that came to workers in a second, all sessions together.
    pub units_per_second: f64,
    /// Results in a second, all sessions together.
    pub results_per_second: f64,
    /// Cores that others kept busy meanwhile; the cameras' server is among them.
    pub other_cores: f64,
    /// MB of PSS of a worker.
    pub worker_mb: Moments,
    /// MB of PSS.
    pub host_mb: f64,
}

/// Twenty workers that wait for their first picture.
#[derive(Debug, Serialize)]
pub struct Idle {
    /// CPU of the host in percent of a core: trying to reach cameras, and supervision.
    pub host_percent: f64,
    /// CPU of all workers in percent of a core.
    pub workers_percent: f64,
    /// MB of PSS of a worker.
    pub worker_mb: Moments,
    /// MB of PSS of all workers together.
    pub workers_mb: f64,
    /// The largest mappings of one worker.
    pub mappings: Vec<Mapping>,
    /// Shared libraries of a worker.
    pub libraries: usize,
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<Twenty> {
    let live = live(environment).await.context("with cameras")?;
    let idle = idle(environment).await.context("without cameras")?;
    Ok(Twenty { sessions: SESSIONS, live, idle })
}

async fn live(environment: &Environment) -> Result<Streaming> {
    let server = Cameras::start(&environment.paths, SESSIONS).await?;
    let chain = start(environment, |index| server.url(index)).await?;
    all(&chain, |session| session.results > 0).await?;
    // One subscriber gets everything, as a backend does.
    let mut subscriber = chain.subscriber().await?;
    for index in 0..SESSIONS {
        subscriber.subscribe(&Camera::live(index, String::new()).id).await?;
    }
    subscriber.latencies(Instant::now() + SETTLE).await?;
    let (sessions, before) = (chain.sessions().await?, chain.snapshot()?);
    subscriber.latencies(Instant::now() + environment.segment.max(SHORTEST)).await?;
    let (after, sessions_after) = (chain.snapshot()?, chain.sessions().await?);
    let worker_mb = workers(after.pids(Role::Worker))?;
    let host_mb = pss_mb(after.pids(Role::Host).next().context("no host")?)?;
    chain.stop().await?;
    server.stop().await?;
    let spent = after.since(&before);
    let per_second = |value: fn(&Session) -> u64| {
        let sum = |sessions: &[Session]| sessions.iter().map(value).sum::<u64>();
        sum(&sessions_after).saturating_sub(sum(&sessions)) as f64 / spent.wall_s
    };
    Ok(Streaming {
        host_percent: percent(&spent, Role::Host),
        workers_percent: percent(&spent, Role::Worker),
        inference_percent: percent(&spent, Role::Inference),
        units_per_second: per_second(|session| session.frames.received),
        results_per_second: per_second(|session| session.results),
        other_cores: spent.other_cores,
        worker_mb: Moments::of(&worker_mb),
        host_mb,
    })
}

async fn idle(environment: &Environment) -> Result<Idle> {
    // Bound, and not listening: connections are refused, and nobody else gets the port.
    let nobody = TcpSocket::new_v4()?;
    nobody.bind("127.0.0.1:0".parse()?)?;
    let address = nobody.local_addr()?;
    let chain = start(environment, |index| format!("rtsp://{address}/{index}")).await?;
    // The pipeline is initialised by then: the state tells of the source.
    all(&chain, |session| session.state == "degraded").await?;
    tokio::time::sleep(SETTLE).await;
    let before = chain.snapshot()?;
    tokio::time::sleep(environment.segment.max(SHORTEST)).await;
    let after = chain.snapshot()?;
    let worker_mb = workers(after.pids(Role::Worker))?;
    let mut mappings = mappings(after.pids(Role::Worker).next().context("no worker")?)?;
    chain.stop().await?;
    let spent = after.since(&before);
    let libraries = mappings.iter().filter(|mapping| mapping.name.contains(".so")).count();
    mappings.truncate(LARGEST);
    Ok(Idle {
        host_percent: percent(&spent, Role::Host),
        workers_percent: percent(&spent, Role::Worker),
        worker_mb: Moments::of(&worker_mb),
        workers_mb: worker_mb.iter().sum(),
        mappings,
        libraries,
    })
}

/// A host with twenty cameras at these addresses.
async fn start(environment: &Environment, url: impl Fn(usize) -> String) -> Result<Chain> {
    let Environment { paths, workplace, .. } = environment;
    let camera =
        |index| Camera::live(index, url(index)).with(json!({"max_results_per_second": RATE}));
    let cameras: Vec<Camera> = (0..SESSIONS).map(camera).collect();
    Chain::start(paths, workplace, &cameras).await
}

/// Waits until all sessions are as they should be.
async fn all(chain: &Chain, good: impl Fn(&Session) -> bool) -> Result<()> {
    let ready = async {
        let mut looks = tokio::time::interval(Duration::from_millis(200));
        loop {
            looks.tick().await;
            if chain.sessions().await?.iter().filter(|session| good(session)).count() == SESSIONS {
                return Ok(());
            }
        }
    };
    tokio::time::timeout(START_LIMIT, ready).await.unwrap_or_else(|_| {
        bail!("not all of {SESSIONS} sessions have come to work within {} s", START_LIMIT.as_secs())
    })
}

/// MB of PSS of each.
fn workers(pids: impl Iterator<Item = u32>) -> Result<Vec<f64>> {
    let sizes = pids.map(pss_mb).collect::<Result<Vec<_>>>()?;
    anyhow::ensure!(sizes.len() == SESSIONS, "{} workers instead of {SESSIONS}", sizes.len());
    Ok(sizes)
}

fn percent(spent: &Spent, role: Role) -> f64 {
    100.0 * spent.by_role.get(&role).copied().unwrap_or_default() / spent.wall_s
}
