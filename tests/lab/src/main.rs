//! `./x lab`: a site of simulated hosts on machines that are network namespaces, with real etcd and
//! nats-servers, that loses what a site may lose. A checker reads every event and every live message
//! and says whether chains are whole, acknowledged events are there, and nobody was spoken for
//! twice; the figures say how long cameras were silent.
//!
//! Needs root: namespaces, cables between them, rules that lose packets, small disks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the lab"
)]

mod checker;
mod figures;
mod history;
mod host;
mod network;
mod reader;
mod report;
mod scenario;
mod wire;
mod world;

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fastrand::Rng;

use crate::report::Outcome;
use crate::scenario::Scenario;
use crate::world::{Size, World};

/// How long the site may take to be whole at first, and between runs.
const SETTLES: Duration = Duration::from_secs(180);

/// How long no owner may have changed before a run begins.
const CALM: Duration = Duration::from_secs(5);

/// How long nothing happens at the beginning of a run: what is heard then is compared with.
const BASELINE: Duration = Duration::from_secs(3);

/// Loses hosts, links and engines of a site, and says what that cost
#[derive(Parser)]
#[command(name = "ocelli-lab", version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    lab: Lab,
}

#[derive(Subcommand)]
enum Role {
    /// Is a simulated host
    #[command(hide = true)]
    Host { settings: PathBuf },
}

#[derive(clap::Args)]
struct Lab {
    /// These alone; all by default
    #[arg(long, value_name = "NAME")]
    scenario: Vec<Scenario>,
    /// Chooses who is hit; another one each time by default
    #[arg(long)]
    seed: Option<u64>,
    /// How often each scenario is run
    #[arg(long, default_value_t = 1, value_name = "N")]
    repeat: u64,
    /// Begins no run after so many minutes
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// Simulated hosts
    #[arg(long, default_value_t = 50)]
    hosts: u16,
    /// Simulated cameras
    #[arg(long, default_value_t = 1000)]
    cameras: u16,
    /// Machines, three of them with engines
    #[arg(long, default_value_t = 10)]
    machines: usize,
    /// Milliseconds between two events of a camera
    #[arg(long, default_value_t = 10_000, value_name = "MS")]
    event_ms: u64,
    /// Milliseconds between two live messages of a camera; one in ten sends five times as many
    #[arg(long, default_value_t = 1000, value_name = "MS")]
    live_ms: u64,
    /// Streams over which events are spread
    #[arg(long, default_value_t = 1)]
    streams: u8,
    /// Appends a line of JSON for each run to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        Some(Role::Host { settings }) => host::run(&settings).map(|()| true),
        None => lab(&arguments.lab),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ocelli-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// False where a site did not do what it is to do.
fn lab(lab: &Lab) -> Result<bool> {
    if let Err(error) = network::possible() {
        ocelli_testkit::skip::skip(&format!("namespaces cannot be made: {error:#}"));
        return Ok(true);
    }
    let mut outcomes = Vec::new();
    let mut wanted: Vec<Scenario> =
        if lab.scenario.is_empty() { Scenario::all().collect() } else { lab.scenario.clone() };
    if wanted.contains(&Scenario::Clock) && !world::own_clocks() {
        ocelli_testkit::skip::skip("clocks cannot be set: there is no libfaketime");
        wanted.retain(|scenario| *scenario != Scenario::Clock);
    }
    let seed = lab.seed.unwrap_or_else(|| fastrand::u64(..1 << 32));
    eprintln!("==> seed {seed}, {} hosts, {} cameras", lab.hosts, lab.cameras);
    for small_disks in [false, true] {
        let scenarios: Vec<Scenario> =
            wanted.iter().copied().filter(|one| one.fills_disks() == small_disks).collect();
        if scenarios.is_empty() {
            continue;
        }
        // On a thread of its own, which is moved to the network's hub, as are those that it starts.
        let runs = std::thread::scope(|scope| {
            let site = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_multi_thread();
                on_a_site(lab, small_disks, &scenarios, seed, runtime)
            });
            site.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        outcomes.extend(runs?);
    }
    println!("{}", report::table(&outcomes));
    Ok(outcomes.iter().all(Outcome::passes))
}

/// Runs that were carried out.
type Runs = Vec<Outcome>;

fn on_a_site(
    lab: &Lab,
    small_disks: bool,
    scenarios: &[Scenario],
    seed: u64,
    mut runtime: tokio::runtime::Builder,
) -> Result<Runs> {
    let size = Size {
        machines: lab.machines,
        hosts: lab.hosts,
        cameras: lab.cameras,
        event_ms: lab.event_ms,
        live_ms: lab.live_ms,
        streams: lab.streams,
        small_disks,
    };
    let network = network::Network::new(size.machines)?;
    let runtime = runtime.worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let interrupted = async {
            let _ = tokio::signal::ctrl_c().await;
            anyhow::bail!("interrupted")
        };
        let work = async {
            match World::start(size, network).await? {
                Some(mut world) => run_all(&mut world, lab, scenarios, seed).await,
                None => Ok(Runs::default()),
            }
        };
        tokio::select! { done = work => done, stopped = interrupted => stopped }
    })
}

async fn run_all(world: &mut World, lab: &Lab, scenarios: &[Scenario], seed: u64) -> Result<Runs> {
    let mut runs = Vec::new();
    let enough = lab.minutes.map(|minutes| Duration::from_secs(60 * minutes));
    let begun = Instant::now();
    // Each scenario once before any twice: they meet the same conditions, and time may run out.
    for repeat in 0..lab.repeat {
        for scenario in scenarios {
            if enough.is_some_and(|enough| begun.elapsed() > enough) {
                return Ok(runs);
            }
            let seed = seed + repeat;
            let run = run_one(world, *scenario, seed).await;
            let outcome = run.with_context(|| format!("{}, seed {seed}", scenario.name()))?;
            let line = outcome.json();
            eprintln!("{line}");
            if let Some(file) = &lab.json {
                let mut file = File::options().create(true).append(true).open(file)?;
                writeln!(file, "{line}")?;
            }
            if !outcome.passes() {
                world.keep_logs();
            }
            runs.push(outcome);
        }
    }
    Ok(runs)
}

async fn run_one(world: &mut World, scenario: Scenario, seed: u64) -> Result<Outcome> {
    world.repair().await?;
    world.settle(CALM, SETTLES).await.context("before the run")?;
    world.begin().await?;
    let begun = history::now();
    tokio::time::sleep(BASELINE).await;
    let (window, played) = scenario.run(world, &mut Rng::with_seed(seed)).await;
    let (history, heads, refused) = world.end(begun).await?;
    let breaches = checker::check(&history, &heads);
    let figures = figures::of(&history, &window);
    let mut outcome = Outcome::new((scenario, seed), figures, breaches, &history, refused);
    // What a site did that does not settle is checked all the same.
    outcome.error = played.err().map(|error| format!("{error:#}"));
    if scenario == Scenario::Disobey {
        outcome.provoked_by(|host| window.touched.contains(&host));
    }
    Ok(outcome)
}
