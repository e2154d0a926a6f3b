//! Faces to vectors over HTTP, beside bare runs of the two models that it takes.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use ocelli_client::{Client, Request};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::process::Command;

use super::Environment;
use super::live::Percentiles;
use crate::chain::Chain;
use crate::child::Running;
use crate::machine::{Role, Snapshot, pss_mb};
use crate::statistics::{median, percentile};

/// The pipeline, and its models with the shapes that it runs them in.
const PIPELINE: &str = "face-embed";
const MODELS: [(&str, &str); 2] = [("centerface", "1x3x416x416"), ("faceres-224", "1x3x224x224")];

/// Pictures one after the other, and how many of them come between two looks at the bare models.
const IN_A_ROW: usize = 1000;
const STRETCH: usize = 250;

/// Pictures of the second part, and how many are under way at once.
const AT_ONCE: (usize, usize) = (200, 16);

/// Rounds of the bare models between two stretches.
const BARE_RUNS: usize = 40;

/// No picture takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Embeddings {
    /// Side by side, one after the other. Milliseconds.
    pub rounds: Vec<EmbeddingsRound>,
    /// Median of the rounds' `http.p50 / bare.p50`.
    pub ratio: f64,
    /// Milliseconds of a picture while 16 are under way.
    pub at_once: Percentiles,
    /// Pictures a second meanwhile.
    pub at_once_rate: f64,
    /// `1000 / at_once_rate`, times the cores, over `bare.p50`: what a picture takes of the
    /// machine.
    pub at_once_ratio: f64,
    /// MB of PSS of all processes, and their number: before, after the first part, after the
    /// second.
    pub memory: [EmbeddingsMemory; 3],
    /// Whether all vectors of the picture were the same, bit by bit.
    pub identical: bool,
    /// Numbers of a vector.
    pub dimension: usize,
}

/// A stretch of pictures, and the bare models beside it.
#[derive(Debug, Serialize)]
pub struct EmbeddingsRound {
    /// Both models, one after the other.
    pub bare: Percentiles,
    /// From the request to the answer.
    pub http: Percentiles,
}

/// Of the host and its children.
#[derive(Debug, Serialize)]
pub struct EmbeddingsMemory {
    /// All together.
    pub mb: f64,
    /// How many.
    pub processes: usize,
    /// The inference processes.
    pub inference_mb: f64,
}

impl EmbeddingsMemory {
    fn of(snapshot: &Snapshot) -> Result<Self> {
        let mut memory = Self { mb: 0.0, processes: snapshot.processes.len(), inference_mb: 0.0 };
        for process in &snapshot.processes {
            let mb = pss_mb(process.pid)?;
            memory.mb += mb;
            if process.role == Role::Inference {
                memory.inference_mb += mb;
            }
        }
        Ok(memory)
    }
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<Embeddings> {
    let paths = &environment.paths;
    let picture: Bytes = std::fs::read(&paths.face).context("the picture of a face")?.into();
    let more = json!({
        "inference": {"preload": MODELS.map(|(name, _)| name)},
        "analyze": {"pipelines": [{"name": PIPELINE, "workers": 2}]},
    });
    let chain = Chain::start_with(paths, &environment.workplace, &[], more).await?;
    let client = chain.client();
    // What is warm after this is warm for good.
    let first = embedding(client, &picture).await?;
    for _ in 0..20 {
        embedding(client, &picture).await?;
    }
    let before = EmbeddingsMemory::of(&chain.snapshot()?)?;
    let (mut rounds, mut identical) = (Vec::new(), true);
    for _ in 0..IN_A_ROW / STRETCH {
        let bare = bare(environment).await?;
        let mut times = Vec::with_capacity(STRETCH);
        for _ in 0..STRETCH {
            let begun = Instant::now();
            let found = embedding(client, &picture).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
            identical &= found == first;
        }
        rounds.push(EmbeddingsRound { bare: percentiles(&bare), http: percentiles(&times) });
    }
    let after_row = EmbeddingsMemory::of(&chain.snapshot()?)?;
    let (count, width) = AT_ONCE;
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let clients = (0..width).map(|_| {
        let (next, picture, first) = (Arc::clone(&next), picture.clone(), first.clone());
        async move {
            let mut times = Vec::new();
            while next.fetch_add(1, Ordering::Relaxed) < count {
                let begun = Instant::now();
                let found = embedding(client, &picture).await?;
                times.push(begun.elapsed().as_secs_f64() * 1e3);
                ensure!(found == first, "a picture under way with others has another vector");
            }
            anyhow::Ok(times)
        }
    });
    let mut times = Vec::new();
    for client in futures_util::future::join_all(clients).await {
        times.extend(client?);
    }
    let at_once_rate = count as f64 / begun.elapsed().as_secs_f64();
    let after_at_once = EmbeddingsMemory::of(&chain.snapshot()?)?;
    chain.stop().await?;
    let ratio =
        median(&rounds.iter().map(|round| round.http.p50 / round.bare.p50).collect::<Vec<_>>());
    let bare_ms = median(&rounds.iter().map(|round| round.bare.p50).collect::<Vec<_>>());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(Embeddings {
        rounds,
        ratio,
        at_once: percentiles(&times),
        at_once_rate,
        at_once_ratio: 1e3 / at_once_rate * cores as f64 / bare_ms,
        memory: [before, after_row, after_at_once],
        identical,
        dimension: first.len(),
    })
}

fn percentiles(times: &[f64]) -> Percentiles {
    Percentiles { p50: percentile(times, 0.5), p99: percentile(times, 0.99) }
}

/// The vector of the one face in a picture.
async fn embedding(client: &Client, picture: &Bytes) -> Result<Vec<f64>> {
    let request =
        Request::post(&["analyze", PIPELINE]).content("image/jpeg", picture.clone()).patient();
    let answer = tokio::time::timeout(PATIENCE, client.ask(&request)).await;
    let answer = answer.with_context(|| format!("no answer within {} s", PATIENCE.as_secs()))??;
    let found = answer.get("detections").and_then(Value::as_array).context("no detections")?;
    ensure!(found.len() == 1, "{} faces instead of one: {answer}", found.len());
    let vector =
        found.first().and_then(|face| face.get("embedding")?.as_array()).context("no embedding")?;
    vector.iter().map(|number| number.as_f64().context("no number")).collect()
}

/// Milliseconds of the bare models, in a process of their own.
async fn bare(environment: &Environment) -> Result<Vec<f64>> {
    let paths = &environment.paths;
    let mut command = Command::new(&paths.bare_models);
    command.arg("--library").arg(&paths.library).args(["--runs", &BARE_RUNS.to_string()]);
    for (name, shape) in MODELS {
        let file = paths.models.join(name).join("model.onnx");
        command.arg(format!("{}={shape}", file.display()));
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let bare = Running::start("the bare models", command)?;
    let output = bare.child.wait_with_output().await?;
    ensure!(output.status.success(), "the bare models: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}
