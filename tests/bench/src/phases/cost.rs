//! What a result costs in the chain and in the bare loop, with all cores busy in both.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout, Command};

use super::{Environment, SETTLE};
use crate::bare::{FrameTimes, Segment};
use crate::chain::{Camera, Chain, Session};
use crate::child::Running;
use crate::machine::{Role, Ticks, libraries, pss_mb};
use crate::statistics::median;
use crate::subscriber::Subscriber;

/// Bare loops, and sessions of the chain, at once: enough to keep the two cores of a small machine
/// busy.
const AT_ONCE: usize = 2;

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Cost {
    /// Side by side, one after the other.
    pub rounds: Vec<CostRound>,
    /// Median of the rounds' `chain_ms / bare_ms`.
    pub ratio: f64,
    /// Median over the rounds.
    pub bare_ms: f64,
    /// Median over the rounds.
    pub chain_ms: f64,
    /// Medians of results a second: bare loop, chain.
    pub rates: [f64; 2],
    /// Milliseconds of a bare result by station, over all rounds.
    pub bare_stations_ms: BTreeMap<&'static str, f64>,
    /// Milliseconds of a chain's result by process, over all rounds.
    pub chain_roles_ms: BTreeMap<Role, f64>,
    /// Memory of a bare loop, MB of PSS.
    pub bare_pss_mb: f64,
    /// File names of the native libraries in use.
    pub libraries: Vec<String>,
}

/// The bare loop and the chain, one after the other. Times are milliseconds of CPU per result.
#[derive(Debug, Serialize)]
pub struct CostRound {
    /// The bare loop's.
    pub bare_ms: f64,
    /// The chain's.
    pub chain_ms: f64,
    /// `chain_ms / bare_ms`.
    pub ratio: f64,
    /// Results a second: bare loop, chain.
    pub rates: [f64; 2],
    /// Objects found per result: bare loop. The chain finds the same.
    pub detections: f64,
    /// Pictures decoded per result in the chain: 1, since files skip nothing.
    pub decoded: f64,
    /// Cores that others kept busy meanwhile: beside the bare loop, beside the chain.
    pub other_cores: [f64; 2],
}

/// Measures.
pub async fn measure(environment: &Environment) -> Result<Cost> {
    let mut bare = Vec::new();
    for _ in 0..AT_ONCE {
        bare.push(BareInput::start(environment)?);
    }
    for bare in &mut bare {
        bare.until_ready().await?;
    }
    let (mut rounds, mut stations, mut bare_results) = (Vec::new(), FrameTimes::default(), 0);
    let (mut roles, mut chain_results) = (BTreeMap::new(), 0);
    for _ in 0..environment.rounds {
        let bare = run_bare(&mut bare, environment.segment).await?;
        let chain = run_chain(environment).await?;
        let (bare_ms, chain_ms) = (bare.ms(), chain.cpu_s * 1e3 / chain.results as f64);
        rounds.push(CostRound {
            bare_ms,
            chain_ms,
            ratio: chain_ms / bare_ms,
            rates: [bare.sum.results as f64 / bare.sum.wall_s, chain.results as f64 / chain.wall_s],
            detections: bare.sum.detections as f64 / bare.sum.results as f64,
            decoded: chain.decoded as f64 / chain.results as f64,
            other_cores: [bare.other_cores, chain.other_cores],
        });
        add(&mut stations, &bare.sum.stations);
        bare_results += bare.sum.results;
        for (role, cpu_s) in chain.by_role {
            *roles.entry(role).or_insert(0.0) += cpu_s;
        }
        chain_results += chain.results;
    }
    let mut memory = Vec::new();
    for bare in &bare {
        memory.push(pss_mb(bare.process.pid())?);
    }
    let libraries = match bare.first() {
        Some(bare) => libraries(bare.process.pid(), &["libonnxruntime.so", "libavcodec.so"])?,
        None => Vec::new(),
    };
    for bare in bare {
        bare.process.stop().await?;
    }
    let of = |value: fn(&CostRound) -> f64| median(&rounds.iter().map(value).collect::<Vec<_>>());
    let per_bare = |seconds: f64| seconds * 1e3 / bare_results as f64;
    Ok(Cost {
        ratio: of(|round| round.ratio),
        bare_ms: of(|round| round.bare_ms),
        chain_ms: of(|round| round.chain_ms),
        rates: [of(|round| round.rates[0]), of(|round| round.rates[1])],
        bare_stations_ms: BTreeMap::from([
            ("decode", per_bare(stations.decode_s)),
            ("tensor", per_bare(stations.tensor_s)),
            ("model", per_bare(stations.model_s)),
            ("boxes", per_bare(stations.boxes_s)),
        ]),
        chain_roles_ms: roles
            .into_iter()
            .map(|(role, s)| (role, s * 1e3 / chain_results as f64))
            .collect(),
        bare_pss_mb: median(&memory),
        libraries,
        rounds,
    })
}

/// A bare loop in its process.
struct BareInput {
    process: Running,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl BareInput {
    fn start(environment: &Environment) -> Result<Self> {
        let paths = &environment.paths;
        let mut command = Command::new(&paths.bare_loop);
        command
            .arg("--library")
            .arg(&paths.library)
            .arg("--model")
            .arg(&paths.model)
            .arg(&paths.clip);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Running::start("the bare loop", command)?;
        let commands = process.child.stdin.take().context("the bare loop has no input")?;
        let answers = process.child.stdout.take().context("the bare loop has no output")?;
        Ok(Self { process, commands, answers: BufReader::new(answers).lines() })
    }

    async fn until_ready(&mut self) -> Result<()> {
        let line = self.answers.next_line().await?;
        anyhow::ensure!(line.as_deref() == Some("ready"), "the bare loop could not start");
        Ok(())
    }

    async fn command(&mut self, duration: Duration) -> Result<()> {
        Ok(self.commands.write_all(format!("{}\n", duration.as_secs_f64()).as_bytes()).await?)
    }

    async fn answer(&mut self) -> Result<Segment> {
        let line = self.answers.next_line().await?.context("the bare loop has ended")?;
        serde_json::from_str(&line).with_context(|| format!("not understood: {line}"))
    }
}

struct BareRun {
    /// Of all loops; `wall_s` is the longest.
    sum: Segment,
    other_cores: f64,
}

impl BareRun {
    fn ms(&self) -> f64 {
        self.sum.cpu_s * 1e3 / self.sum.results as f64
    }
}

async fn run_bare(loops: &mut [BareInput], duration: Duration) -> Result<BareRun> {
    let before = Ticks::read()?;
    for bare in loops.iter_mut() {
        bare.command(duration).await?;
    }
    let mut sum = Segment::default();
    for bare in loops.iter_mut() {
        let segment = bare.answer().await?;
        sum.results += segment.results;
        sum.detections += segment.detections;
        sum.cpu_s += segment.cpu_s;
        sum.wall_s = sum.wall_s.max(segment.wall_s);
        add(&mut sum.stations, &segment.stations);
    }
    let other = (Ticks::read()?.busy_since(before) - sum.cpu_s).max(0.0);
    anyhow::ensure!(sum.results > 0, "the bare loop brought no result: --seconds is too short");
    Ok(BareRun { other_cores: other / sum.wall_s, sum })
}

struct ChainRun {
    results: u64,
    decoded: u64,
    cpu_s: f64,
    by_role: BTreeMap<Role, f64>,
    wall_s: f64,
    other_cores: f64,
}

/// Sessions on files, which wait for nothing but the pipeline.
async fn run_chain(environment: &Environment) -> Result<ChainRun> {
    let cameras: Vec<Camera> =
        (0..AT_ONCE).map(|index| Camera::file(index, &environment.paths.clip)).collect();
    let chain = Chain::start(&environment.paths, &environment.workplace, &cameras).await?;
    let mut subscriber = chain.subscriber().await?;
    for camera in &cameras {
        subscriber.subscribe(&camera.id).await?;
    }
    for camera in &cameras {
        subscriber.result(&camera.id).await?;
    }
    listen(&mut subscriber, SETTLE).await?;
    let (sessions, before) = (chain.sessions().await?, chain.snapshot()?);
    listen(&mut subscriber, environment.segment).await?;
    let (after, sessions_after) = (chain.snapshot()?, chain.sessions().await?);
    let spent = after.since(&before);
    let sum = |sessions: &[Session]| {
        sessions
            .iter()
            .fold((0, 0), |(r, d), session| (r + session.results, d + session.frames.decoded))
    };
    let ((results, decoded), (results_after, decoded_after)) =
        (sum(&sessions), sum(&sessions_after));
    chain.stop().await?;
    anyhow::ensure!(results_after > results, "the chain brought no result: --seconds is too short");
    Ok(ChainRun {
        results: results_after - results,
        decoded: decoded_after - decoded,
        cpu_s: spent.total(),
        wall_s: spent.wall_s,
        other_cores: spent.other_cores,
        by_role: spent.by_role,
    })
}

/// Takes in what comes, as a subscriber does, for a while.
async fn listen(subscriber: &mut Subscriber, duration: Duration) -> Result<()> {
    subscriber.latencies(tokio::time::Instant::now() + duration).await.map(drop)
}

fn add(sum: &mut FrameTimes, other: &FrameTimes) {
    sum.decode_s += other.decode_s;
    sum.tensor_s += other.tensor_s;
    sum.model_s += other.model_s;
    sum.boxes_s += other.boxes_s;
}
