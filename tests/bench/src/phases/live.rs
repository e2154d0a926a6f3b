//! RTSP cameras: how many results a second come out, what they cost, what the sessions take, and
//! where the time goes.

use std::collections::BTreeMap;

use anyhow::Result;
use ocelli_sdk::nanodet::DEFAULT;
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain, Session};
use crate::machine::{Role, pss_mb};
use crate::statistics::{largest, median, percentile, smallest};

/// Stations of `latency_ms`, in the order of a frame's way.
pub const STATIONS: [&str; 5] = ["decode", "wait", "inference", "pipeline", "total"];

/// The figures for one number of cameras.
#[derive(Debug, Serialize)]
pub struct Live {
    /// How many, of 10 pictures a second each.
    pub cameras: usize,
    /// Of all cameras together.
    pub results_per_second: f64,
    /// Milliseconds of CPU of all processes.
    pub cpu_ms_per_result: f64,
    /// The same by process.
    pub roles_ms: BTreeMap<Role, f64>,
    /// Pictures decoded per result: more than 1 where frames were skipped for newer ones.
    pub decoded_per_result: f64,
    /// MB of PSS.
    pub memory: LiveMemory,
    /// Milliseconds by station, for results that reached the subscriber.
    pub latency_ms: BTreeMap<&'static str, Percentiles>,
    /// From the start of the host to the first result of each session, in seconds; the pipeline was
    /// compiled before.
    pub start_to_first_result_s: Moments,
    /// The same of the session that had one first.
    pub first_result_s: f64,
    /// Cores that others kept busy meanwhile; the cameras' server is among them.
    pub other_cores: f64,
}

/// MB of PSS.
#[derive(Debug, Serialize)]
pub struct LiveMemory {
    /// The workers' median.
    pub worker: f64,
    /// The largest worker.
    pub worker_largest: f64,
    /// The host.
    pub host: f64,
    /// The inference process.
    pub inference: f64,
    /// All processes together, divided by the number of cameras.
    pub all_per_camera: f64,
}

/// Two percentiles.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// One in a hundred is larger.
    pub p99: f64,
}

/// Repeated measurements of one moment.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Moments {
    /// The middle.
    pub median: f64,
    /// The slowest.
    pub max: f64,
}

impl Moments {
    /// Of some seconds.
    pub fn of(seconds: &[f64]) -> Self {
        Self { median: median(seconds), max: largest(seconds) }
    }
}

/// Measures with `count` cameras.
pub async fn measure(environment: &Environment, count: usize) -> Result<Live> {
    measure_model(environment, count, DEFAULT.name).await
}

/// The same with a NanoDet of that name.
pub async fn measure_model(environment: &Environment, count: usize, model: &str) -> Result<Live> {
    let server = Cameras::start(&environment.paths, count).await?;
    let cameras: Vec<Camera> = (0..count)
        .map(|index| Camera::live(index, server.url(index)).with(json!({"model": model})))
        .collect();
    let preload = json!({"inference": {"preload": [model]}});
    let Environment { paths, workplace, .. } = environment;
    let chain = Chain::start_with(paths, workplace, &cameras, preload).await?;
    let mut first = Vec::new();
    // A connection each: a result is taken from the connection that it came on, and none must wait
    // behind another's.
    let waits = cameras.iter().map(|camera| async {
        let mut subscriber = chain.subscriber().await?;
        subscriber.subscribe(&camera.id).await?;
        let came = subscriber.result(&camera.id).await?;
        subscriber.unsubscribe(&camera.id).await?;
        anyhow::Ok(came.duration_since(chain.started()).as_secs_f64())
    });
    for seconds in futures_util::future::join_all(waits).await {
        first.push(seconds?);
    }
    let mut subscriber = chain.subscriber().await?;
    for camera in &cameras {
        subscriber.subscribe(&camera.id).await?;
    }
    subscriber.latencies(Instant::now() + SETTLE).await?;
    let (sessions, before) = (chain.sessions().await?, chain.snapshot()?);
    let latencies = subscriber.latencies(Instant::now() + environment.segment).await?;
    let (after, sessions_after) = (chain.snapshot()?, chain.sessions().await?);
    let mut memory = BTreeMap::<Role, Vec<f64>>::new();
    for process in &after.processes {
        memory.entry(process.role).or_default().push(pss_mb(process.pid)?);
    }
    chain.stop().await?;
    server.stop().await?;

    let spent = after.since(&before);
    let results = |sessions: &[Session]| sessions.iter().map(|s| s.results).sum::<u64>();
    let decoded = |sessions: &[Session]| sessions.iter().map(|s| s.frames.decoded).sum::<u64>();
    let new = results(&sessions_after).saturating_sub(results(&sessions)) as f64;
    anyhow::ensure!(new > 0.0, "{count} cameras brought no result: --seconds is too short");
    let of = |role| memory.get(&role).map(Vec::as_slice).unwrap_or_default();
    let station = |name: &'static str| {
        let values: Vec<f64> =
            latencies.iter().filter_map(|latency| latency.get(name)).copied().collect();
        (name, Percentiles { p50: percentile(&values, 0.5), p99: percentile(&values, 0.99) })
    };
    Ok(Live {
        cameras: count,
        results_per_second: new / spent.wall_s,
        cpu_ms_per_result: spent.total() * 1e3 / new,
        roles_ms: spent
            .by_role
            .iter()
            .map(|(role, seconds)| (*role, seconds * 1e3 / new))
            .collect(),
        decoded_per_result: decoded(&sessions_after).saturating_sub(decoded(&sessions)) as f64
            / new,
        memory: LiveMemory {
            worker: median(of(Role::Worker)),
            worker_largest: largest(of(Role::Worker)),
            host: median(of(Role::Host)),
            inference: of(Role::Inference).iter().sum(),
            all_per_camera: memory.values().flatten().sum::<f64>() / count as f64,
        },
        latency_ms: STATIONS.into_iter().map(station).collect(),
        start_to_first_result_s: Moments::of(&first),
        first_result_s: smallest(&first),
        other_cores: spent.other_cores,
    })
}
