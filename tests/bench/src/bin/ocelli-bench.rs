//! The driver of `./x bench`; see [`ocelli_bench`].

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use ocelli_bench::chain::Workplace;
use ocelli_bench::machine::Machine;
use ocelli_bench::paths::{CLIP, Paths};
use ocelli_bench::phases::{Environment, cost, fairness, joining, live, recovery, twenty};
use ocelli_bench::report::Report;

/// Numbers of cameras: one that has the machine to itself, then as many as two cores can serve, then twice as many.
const CAMERAS: [usize; 3] = [1, 4, 8];

/// Measures the whole chain beside a bare loop, and prints a table. Nothing is judged.
#[derive(Parser)]
#[command(name = "ocelli-bench", version)]
struct Arguments {
    /// Seconds of each measurement (1 to 120).
    #[arg(long, default_value_t = 8.0)]
    seconds: f64,
    /// How often bare loop and chain are measured side by side.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// How often each first result is measured.
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    /// Write all figures there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The checkout: models, clips and cameras.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
    /// The folder of `ocelli` and its children; without it, this program's own.
    #[arg(long, value_name = "FOLDER", env = "OCELLI_BIN_DIR")]
    programs: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((1.0..=120.0).contains(&arguments.seconds), "--seconds is 1 to 120");
    ensure!((1..=100).contains(&arguments.rounds), "--rounds is 1 to 100");
    ensure!((1..=100).contains(&arguments.repeats), "--repeats is 1 to 100");
    // Children end with the thread that started them: all is done on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&arguments))?;
    print!("{report}");
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let machine = Machine::read()?;
    let begun = Instant::now();
    let environment = Environment {
        paths: Paths::find(&arguments.root, arguments.programs.as_deref())?,
        workplace: Workplace::new()?,
        segment: Duration::from_secs_f64(arguments.seconds),
        rounds: arguments.rounds,
        repeats: arguments.repeats,
    };
    progress("the bare loop and the chain side by side");
    let cost = cost::measure(&environment).await.context("bare loop and chain")?;
    let mut by_cameras = Vec::new();
    for count in CAMERAS {
        progress(&format!("{count} RTSP cameras"));
        by_cameras
            .push(live::measure(&environment, count).await.with_context(|| format!("{count} cameras"))?);
    }
    progress("twenty sessions");
    let twenty = twenty::measure(&environment).await.context("twenty sessions")?;
    progress("cameras beside one that floods");
    let fairness = fairness::measure(&environment).await.context("fairness")?;
    progress("subscribe to first result");
    let joining = joining::measure(&environment).await.context("joining")?;
    progress("a worker is killed");
    let recovery = recovery::measure(&environment).await.context("recovery")?;
    Ok(Report {
        version: env!("CARGO_PKG_VERSION"),
        machine,
        clip: CLIP,
        segment_s: arguments.seconds,
        took_s: begun.elapsed().as_secs_f64(),
        cost,
        live: by_cameras,
        twenty,
        fairness,
        joining,
        recovery,
    })
}

fn progress(what: &str) {
    eprintln!("==> measuring: {what} ...");
}
