//! The driver of `./x bench`; see [`ocelli_bench`].

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use ocelli_bench::chain::BenchFolder;
use ocelli_bench::machine::Machine;
use ocelli_bench::paths::Paths;
use ocelli_bench::phases::{
    Environment, cost, deploying, embeddings, fairness, fanout, growth, isolation, joining, live,
    page, peers, readers, recovery, sinks, site, takeover, tracking, twenty,
};
use ocelli_bench::report::Report;

/// Numbers of cameras: one that has the machine to itself, then as many as two cores can serve,
/// then twice as many.
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
    /// Measure these parts alone.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,...")]
    only: Vec<Part>,
    /// For `tracking`: a folder with `clip.mp4` and `gt.txt`, its truth in MOT's format.
    #[arg(long, value_name = "FOLDER")]
    truth: Option<PathBuf>,
    /// For `tracking`: settings of the pipeline, in JSON, that cameras have; once for each.
    #[arg(long, value_name = "JSON", requires = "truth")]
    settings: Vec<String>,
    /// For `tracking`: how many cameras play at once (0 to 40). 0: the settings are a file's, which
    /// has as many runs of the model as they say.
    #[arg(long, value_name = "COUNT", default_value_t = 1, requires = "truth")]
    cameras: usize,
    /// For `tracking`: how many further cameras show a still picture meanwhile (0 to 40). They are
    /// not scored; their runs and their CPU count.
    #[arg(long, value_name = "COUNT", default_value_t = 0, requires = "truth")]
    idle: usize,
    /// Write all figures there, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The checkout: models, clips and cameras.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    root: PathBuf,
    /// The scripts of other programs, to be measured on the same cameras.
    #[arg(long, value_name = "FOLDER")]
    peers: Option<PathBuf>,
    /// Where their Python environments are made, up to 8 GB together. Left out: `target/peers` of
    /// the checkout.
    #[arg(long, value_name = "FOLDER", requires = "peers")]
    peers_cache: Option<PathBuf>,
    /// The folder of `ocelli` and its children; without it, this program's own.
    #[arg(long, value_name = "FOLDER", env = "OCELLI_BIN_DIR")]
    programs: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The chain beside a bare loop.
    Cost,
    /// One, four and eight cameras.
    Live,
    /// Twenty sessions.
    Twenty,
    /// What cameras cost as they become more.
    Growth,
    /// The two readers of cameras.
    Readers,
    /// A model in this process and in another.
    Isolation,
    /// Faces to vectors.
    Embeddings,
    /// Cameras beside one that floods.
    Fairness,
    /// Subscribe to first result.
    Joining,
    /// Killed processes.
    Recovery,
    /// A new version on a running camera.
    Deploy,
    /// A thousand subscribers.
    Fanout,
    /// Events to Redis, MQTT and a webhook.
    Sinks,
    /// A host in a site beside one that stands alone.
    Site,
    /// Hosts of a site that die or freeze, `--repeats` times each: minutes; only where named.
    Takeover,
    /// The dashboard in a browser.
    Page,
    /// Other programs on the same cameras; only with --peers.
    Peers,
    /// Tracks against a ground truth, which `--truth` names.
    Tracking,
}

impl Part {
    /// Whether it is measured where nothing is named.
    fn is_usual(&self) -> bool {
        *self != Self::Takeover
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    ensure!((1.0..=120.0).contains(&arguments.seconds), "--seconds is 1 to 120");
    ensure!((1..=100).contains(&arguments.rounds), "--rounds is 1 to 100");
    ensure!((1..=100).contains(&arguments.repeats), "--repeats is 1 to 100");
    let truth = arguments.truth.is_some();
    ensure!(truth || !arguments.only.contains(&Part::Tracking), "tracking needs --truth FOLDER");
    // Children end with the thread that started them: all is done on this one.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let report = runtime.block_on(measure(&arguments))?;
    print!("{report}");
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text + "\n")
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let machine = Machine::read()?;
    let begun = Instant::now();
    let environment = Environment {
        paths: Paths::find(&arguments.root, arguments.programs.as_deref())?,
        workplace: BenchFolder::new()?,
        segment: Duration::from_secs_f64(arguments.seconds),
        rounds: arguments.rounds,
        repeats: arguments.repeats,
    };
    let mut report = Report::new(machine, arguments.seconds);
    // Bad input is told before anything is measured.
    let judge = |truth: &PathBuf| {
        let Arguments { settings, cameras, idle, .. } = &arguments;
        tracking::Judged::read(truth, settings, *cameras, *idle)
    };
    let judged = arguments.truth.as_ref().map(judge).transpose()?;
    let all: Vec<Part> = Part::value_variants().iter().copied().filter(Part::is_usual).collect();
    for part in if arguments.only.is_empty() { &all } else { &arguments.only } {
        let begun = Instant::now();
        match part {
            Part::Peers => report.peers = peers(&environment, arguments).await?,
            Part::Tracking => report.tracking = tracks(&environment, judged.as_ref()).await?,
            part => measure_part(*part, &environment, &mut report).await?,
        }
        let name = format!("{part:?}").to_lowercase();
        report.parts_s.push((name, begun.elapsed().as_secs_f64()));
    }
    report.took_s = begun.elapsed().as_secs_f64();
    Ok(report)
}

/// A part that needs nothing from the command line.
async fn measure_part(part: Part, environment: &Environment, report: &mut Report) -> Result<()> {
    match part {
        Part::Cost => {
            progress("the bare loop and the chain side by side");
            report.cost = Some(cost::measure(environment).await.context("bare loop and chain")?);
        }
        Part::Live => {
            for count in CAMERAS {
                progress(&format!("{count} RTSP cameras"));
                let live = live::measure(environment, count).await;
                report.live.push(live.with_context(|| format!("{count} cameras"))?);
            }
        }
        Part::Twenty => {
            progress("twenty sessions");
            report.twenty = Some(twenty::measure(environment).await.context("twenty sessions")?);
        }
        Part::Growth => {
            let measured = growth::measure(environment, progress).await;
            report.growth = Some(measured.context("growth")?);
        }
        Part::Readers => {
            progress("the two readers of cameras");
            report.readers = readers::measure(environment).await.context("readers")?;
        }
        Part::Isolation => {
            progress("a model in this process and in another");
            report.isolation = Some(isolation::measure(environment).await.context("isolation")?);
        }
        Part::Embeddings => {
            progress("faces to vectors");
            report.embeddings = Some(embeddings::measure(environment).await.context("embeddings")?);
        }
        Part::Fairness => {
            progress("cameras beside one that floods");
            report.fairness = Some(fairness::measure(environment).await.context("fairness")?);
        }
        Part::Joining => {
            progress("subscribe to first result");
            report.joining = Some(joining::measure(environment).await.context("joining")?);
        }
        Part::Recovery => {
            progress("processes are killed");
            report.recovery = Some(recovery::measure(environment).await.context("recovery")?);
        }
        Part::Deploy => {
            progress("a new version on a running camera");
            report.deploying = Some(deploying::measure(environment).await.context("deploying")?);
        }
        Part::Fanout => {
            progress("a thousand subscribers");
            report.fanout = Some(fanout::measure(environment).await.context("fan-out")?);
        }
        Part::Sinks => {
            report.sinks = Some(sinks::measure(environment, progress).await.context("sinks")?);
        }
        Part::Site => {
            progress("a host in a site");
            report.site = Some(site::measure(environment).await.context("site")?);
        }
        Part::Takeover => {
            progress("hosts of a site die");
            report.takeovers = takeover::measure(environment).await.context("take-overs")?;
        }
        Part::Page => {
            progress("the dashboard in a browser");
            report.page = Some(page::measure(environment).await.context("page")?);
        }
        // Those that the command line says more about.
        Part::Peers | Part::Tracking => {}
    }
    Ok(())
}

/// Other programs, where their folder is given.
async fn peers(
    environment: &Environment,
    arguments: &Arguments,
) -> Result<Option<peers::PeerTurns>> {
    let Some(scripts) = &arguments.peers else {
        ensure!(arguments.only.is_empty(), "--only peers needs --peers FOLDER");
        eprintln!("==> SKIPPED: peers: --peers names no folder");
        return Ok(None);
    };
    let cache = arguments.peers_cache.clone();
    let cache = cache.unwrap_or_else(|| arguments.root.join("target/peers"));
    std::fs::create_dir_all(&cache).with_context(|| cache.display().to_string())?;
    let absolute = |path: &PathBuf| path.canonicalize().with_context(|| path.display().to_string());
    let folders = peers::PeerFolders { scripts: absolute(scripts)?, cache: absolute(&cache)? };
    peers::measure(environment, &folders, progress).await.map(Some).context("peers")
}

/// Tracks, where there is a truth.
async fn tracks(
    environment: &Environment,
    judged: Option<&tracking::Judged>,
) -> Result<Option<tracking::Tracking>> {
    let Some(judged) = judged else { return Ok(None) };
    let measured = tracking::measure(environment, judged, &progress).await;
    Ok(Some(measured.context("tracking")?))
}

fn progress(what: &str) {
    eprintln!("==> measuring: {what} ...");
}
