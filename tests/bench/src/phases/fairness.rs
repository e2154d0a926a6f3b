//! What a session that asks for as much inference as it can get costs the others.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::live::Percentiles;
use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain};
use crate::statistics::{median, percentile};
use crate::subscriber::Subscriber;

/// Cameras beside the one that floods.
const CAMERAS: usize = 9;

/// Their results a second: with decoding, somewhat more than one core for all of them.
const RATE: f64 = 2.0;

/// Segments that make one measurement: 18 results a second give some hundred, of which the 99th
/// percentile is not one value alone.
const SEGMENTS: u32 = 3;

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Fairness {
    /// Cameras whose latency is measured.
    pub cameras: usize,
    /// Results a second of each.
    pub rate: f64,
    /// Side by side, one after the other.
    pub rounds: Vec<FairnessRound>,
    /// Median of the rounds' `beside.p99 / alone.p99`.
    pub ratio: f64,
}

/// Milliseconds from the arrival of a picture to its result.
#[derive(Debug, Serialize)]
pub struct FairnessRound {
    /// The cameras alone.
    pub alone: Percentiles,
    /// Beside a session on a file, which is read as fast as it is processed.
    pub beside: Percentiles,
    /// Results a second of that session.
    pub flood_rate: f64,
    /// `beside.p99 / alone.p99`.
    pub ratio: f64,
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<Fairness> {
    let server = Cameras::start(&environment.paths, CAMERAS).await?;
    let calm = |index| {
        Camera::live(index, server.url(index)).with(json!({"max_results_per_second": RATE}))
    };
    let mut rounds = Vec::new();
    // Each round starts two hosts and measures long: half as many as of the short ones.
    for _ in 0..environment.rounds.div_ceil(2) {
        let cameras: Vec<Camera> = (0..CAMERAS).map(calm).collect();
        let (alone, _) = latencies(environment, &cameras).await.context("alone")?;
        let flood = Camera::file(CAMERAS, &environment.paths.clip);
        let cameras: Vec<Camera> = cameras.into_iter().chain([flood]).collect();
        let (beside, flood_rate) =
            latencies(environment, &cameras).await.context("beside the flood")?;
        rounds.push(FairnessRound { ratio: beside.p99 / alone.p99, alone, beside, flood_rate });
    }
    server.stop().await?;
    let ratio = median(&rounds.iter().map(|round| round.ratio).collect::<Vec<_>>());
    Ok(Fairness { cameras: CAMERAS, rate: RATE, rounds, ratio })
}

/// The latency of the first [`CAMERAS`] sessions, and the results a second of the others together.
async fn latencies(environment: &Environment, cameras: &[Camera]) -> Result<(Percentiles, f64)> {
    let chain = Chain::start(&environment.paths, &environment.workplace, cameras).await?;
    let mut subscriber: Subscriber = chain.subscriber().await?;
    for camera in cameras.iter().take(CAMERAS) {
        subscriber.subscribe(&camera.id).await?;
    }
    for camera in cameras.iter().take(CAMERAS) {
        subscriber.result(&camera.id).await?;
    }
    subscriber.latencies(Instant::now() + SETTLE).await?;
    let before = chain.sessions().await?;
    let begun = Instant::now();
    let heard = subscriber.latencies(begun + environment.segment * SEGMENTS).await?;
    let seconds = begun.elapsed().as_secs_f64();
    let after = chain.sessions().await?;
    chain.stop().await?;
    let flood = |sessions: &[crate::chain::Session]| -> u64 {
        let others = sessions.iter().filter(|session| session.id.starts_with("file-"));
        others.map(|session| session.results).sum()
    };
    let totals: Vec<f64> =
        heard.iter().filter_map(|latency| latency.get("total").copied()).collect();
    let percentiles = Percentiles { p50: percentile(&totals, 0.5), p99: percentile(&totals, 0.99) };
    Ok((percentiles, flood(&after).saturating_sub(flood(&before)) as f64 / seconds))
}
