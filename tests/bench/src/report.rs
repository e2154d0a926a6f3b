//! The figures as a person reads them: tables in Markdown, with the columns that
//! `docs/benchmarks.md` has.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use crate::machine::{Machine, Role};
use crate::paths::CLIP;
use crate::phases::cost::Cost;
use crate::phases::deploying::{Deploying, Deployments};
use crate::phases::embeddings::{self as embed, Embeddings};
use crate::phases::fairness::{Fairness, FairnessRound};
use crate::phases::fanout::Fanout;
use crate::phases::growth::Growth;
use crate::phases::isolation::{self as isolation_cost, IsolationCost};
use crate::phases::joining::Joining;
use crate::phases::live::{Live, Moments, Percentiles, STATIONS};
use crate::phases::page::PageCost;
use crate::phases::peers::PeerTurns;
use crate::phases::readers::ReaderCost;
use crate::phases::recovery::Recovery;
use crate::phases::sinks::SinkCosts;
use crate::phases::site::SiteCosts;
use crate::phases::takeover::Takeovers;
use crate::phases::tracking::Tracking;
use crate::phases::twenty::{Idle, Streaming, Twenty};
use crate::table::Table;

/// One run. All figures in it were measured in this run, on this machine. What was not asked for is
/// none, or empty.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Of the crates.
    pub version: &'static str,
    /// Where.
    pub machine: Machine,
    /// The clip that all cameras and files play.
    pub clip: &'static str,
    /// Seconds of one measurement.
    pub segment_s: f64,
    /// Seconds of all together.
    pub took_s: f64,
    /// Seconds of each part, in the order in which they were measured.
    pub parts_s: Vec<(String, f64)>,
    /// The chain beside the bare loop.
    pub cost: Option<Cost>,
    /// By number of cameras.
    pub live: Vec<Live>,
    /// Twenty sessions.
    pub twenty: Option<Twenty>,
    /// What cameras cost as they become more.
    pub growth: Option<Growth>,
    /// Cameras with each reader.
    pub readers: Vec<ReaderCost>,
    /// A model in another process.
    pub isolation: Option<IsolationCost>,
    /// Faces to vectors.
    pub embeddings: Option<Embeddings>,
    /// Cameras beside one that floods.
    pub fairness: Option<Fairness>,
    /// Subscribe to first result.
    pub joining: Option<Joining>,
    /// A worker is killed.
    pub recovery: Option<Recovery>,
    /// A new version on a running camera.
    pub deploying: Option<Deploying>,
    /// A thousand subscribers.
    pub fanout: Option<Fanout>,
    /// Events to other programs.
    pub sinks: Option<SinkCosts>,
    /// A host in a site beside one that stands alone.
    pub site: Option<SiteCosts>,
    /// Hosts of a site that die or freeze.
    pub takeovers: Option<Takeovers>,
    /// The dashboard.
    pub page: Option<PageCost>,
    /// Other programs on the same cameras.
    pub peers: Option<PeerTurns>,
    /// Tracks against a ground truth.
    pub tracking: Option<Tracking>,
}

impl Report {
    /// Of nothing yet.
    pub fn new(machine: Machine, segment_s: f64) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            clip: CLIP,
            segment_s,
            took_s: 0.0,
            parts_s: Vec::new(),
            cost: None,
            live: Vec::new(),
            twenty: None,
            growth: None,
            readers: Vec::new(),
            isolation: None,
            embeddings: None,
            fairness: None,
            joining: None,
            recovery: None,
            deploying: None,
            fanout: None,
            sinks: None,
            site: None,
            takeovers: None,
            page: None,
            peers: None,
            tracking: None,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, memory_gb, kernel, load_before } = &self.machine;
        writeln!(f, "# Ocelli {}\n", self.version)?;
        writeln!(
            f,
            "{cpu}, {cores} cores, {memory_gb:.0} GB, Linux {kernel}; load before it: {load_before:.2}."
        )?;
        writeln!(
            f,
            "Model `{}`, clip `{}`. All figures are from this one run of {:.0} s, measurements of \
                {:.0} s.\n\
             \"Others\" are the cores that other programs kept busy meanwhile, the cameras' server \
                among them.",
            ocelli_sdk::nanodet::DEFAULT.name,
            self.clip,
            self.took_s,
            self.segment_s
        )?;
        if let Some(measured) = &self.cost {
            cost(measured, f)?;
        }
        if !self.live.is_empty() {
            live(&self.live, f)?;
        }
        if let Some(measured) = &self.twenty {
            twenty(measured, f)?;
        }
        if let Some(measured) = &self.growth {
            write!(f, "{measured}")?;
        }
        if !self.readers.is_empty() {
            readers(&self.readers, f)?;
        }
        if let Some(measured) = &self.isolation {
            isolation(measured, f)?;
        }
        if let Some(measured) = &self.embeddings {
            embeddings(measured, f)?;
        }
        if let Some(measured) = &self.fairness {
            fairness(measured, f)?;
        }
        if let Some(measured) = &self.joining {
            joining(measured, f)?;
        }
        if let Some(measured) = &self.recovery {
            recovery(measured, f)?;
        }
        if let Some(measured) = &self.deploying {
            deploying(measured, f)?;
        }
        if let Some(measured) = &self.fanout {
            fanout(measured, f)?;
        }
        if let Some(measured) = &self.sinks {
            write!(f, "{measured}")?;
        }
        if let Some(measured) = &self.site {
            write!(f, "{measured}")?;
        }
        if let Some(measured) = &self.takeovers {
            write!(f, "{measured}")?;
        }
        if let Some(measured) = &self.page {
            write!(f, "{measured}")?;
        }
        if let Some(measured) = &self.peers {
            write!(f, "{measured}")?;
        }
        if let Some(measured) = &self.tracking {
            write!(f, "{measured}")?;
        }
        let mut parts = Table::new(["part", "seconds"]);
        for (part, seconds) in &self.parts_s {
            parts.row([part.clone(), format!("{seconds:.0}")]);
        }
        write!(f, "\n## Time of the measurement\n{parts}")
    }
}

fn readers(rows: &[ReaderCost], f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "\n## Readers of cameras\n")?;
    writeln!(f, "CPU is for each camera, in percent of a core; PSS is that of one process.")?;
    let mut table = Table::new([
        "cameras",
        "reader",
        "CPU of the host",
        "CPU of the reader",
        "PSS, median, largest",
        "others",
    ]);
    for row in rows {
        table.row([
            format!("{} of {}", row.cameras, row.clip),
            row.reader.to_owned(),
            format!("{:.2} %", row.host_percent),
            format!("{:.2} %", row.ingest_percent),
            format!("{:.1}, {:.1} MB", row.ingest_mb.median, row.ingest_mb.max),
            cores(row.other_cores),
        ]);
    }
    write!(f, "{table}")
}

fn cost(cost: &Cost, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "\n## Cost of isolation\n")?;
    writeln!(f, "Two at once on files. Libraries: {}.", cost.libraries.join(", "))?;
    let [bare, chain] = cost.rates;
    let mut table = Table::new(["", "CPU per result", "results/s"]);
    table.row([
        format!("Ocelli: {}", roles(&cost.chain_roles_ms)),
        format!("{:.1} ms", cost.chain_ms),
        format!("{chain:.1}"),
    ]);
    let stations = ["decode", "tensor", "model", "boxes"].into_iter();
    let stations = stations.filter_map(|name| Some((name, cost.bare_stations_ms.get(name)?)));
    let stations: Vec<String> = stations.map(|(name, ms)| format!("{name} {ms:.2}")).collect();
    table.row([
        format!("bare loop of {:.0} MB: {}", cost.bare_pss_mb, stations.join(", ")),
        format!("{:.1} ms", cost.bare_ms),
        format!("{bare:.1}"),
    ]);
    table.row(["ratio, median of the rounds".into(), format!("{:.3}", cost.ratio), String::new()]);
    write!(f, "{table}")?;
    let mut rounds = Table::new(["round", "bare loop", "chain", "ratio", "results/s", "others"]);
    for (index, round) in cost.rounds.iter().enumerate() {
        let ([bare, chain], [beside_bare, beside_chain]) = (round.rates, round.other_cores);
        rounds.row([
            (index + 1).to_string(),
            format!("{:.2} ms", round.bare_ms),
            format!("{:.2} ms", round.chain_ms),
            format!("{:.3}", round.ratio),
            format!("{bare:.1}, {chain:.1}"),
            format!("{beside_bare:.2}, {beside_chain:.2} cores"),
        ]);
    }
    write!(f, "{rounds}")
}

fn live(by_cameras: &[Live], f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f, "\n## RTSP cameras")?;
    let mut table = Table::new([
        "cameras",
        "results/s",
        "CPU per result",
        "PSS per worker",
        "all processes",
        "start",
        "decoded per result",
        "others",
    ]);
    for live in by_cameras {
        table.row([
            live.cameras.to_string(),
            format!("{:.1}", live.results_per_second),
            format!("{:.1} ms", live.cpu_ms_per_result),
            format!("{:.1} MB", live.memory.worker),
            format!("{:.1} MB", live.memory.all_per_camera),
            format!("{:.2} s", live.first_result_s),
            format!("{:.2}", live.decoded_per_result),
            cores(live.other_cores),
        ]);
    }
    write!(f, "{table}")?;
    let mut more =
        Table::new(["cameras", "CPU per result by process, ms", "PSS of the host", "of inference"]);
    for live in by_cameras {
        more.row([
            live.cameras.to_string(),
            roles(&live.roles_ms),
            format!("{:.1} MB", live.memory.host),
            format!("{:.1} MB", live.memory.inference),
        ]);
    }
    write!(f, "{more}")?;
    let counts = by_cameras.iter().map(|live| format!("{} cameras", live.cameras));
    let mut latency = Table::new(["latency, ms, p50 / p99".to_owned()].into_iter().chain(counts));
    for station in STATIONS {
        let of = |live: &Live| {
            let both = live.latency_ms.get(station);
            both.map_or_else(String::new, |p| format!("{:.1} / {:.1}", p.p50, p.p99))
        };
        latency.row([station.to_owned()].into_iter().chain(by_cameras.iter().map(of)));
    }
    write!(f, "{latency}")
}

fn twenty(twenty: &Twenty, f: &mut Formatter<'_>) -> fmt::Result {
    let Twenty { sessions, live, idle } = twenty;
    writeln!(f, "\n## {sessions} sessions")?;
    let Streaming {
        host_percent,
        workers_percent,
        inference_percent,
        units_per_second,
        results_per_second,
        other_cores,
        worker_mb,
        host_mb,
    } = live;
    let mut table = Table::new(["sessions", "CPU of the host", "of workers", "PSS per worker"]);
    table.row([
        format!("RTSP cameras, {:.2} results a second each", results_per_second / *sessions as f64),
        format!("{host_percent:.1} % of a core"),
        format!("{workers_percent:.0} %"),
        format!("{:.1} MB, the largest {:.1}", worker_mb.median, worker_mb.max),
    ]);
    let Idle { host_percent, workers_percent, worker_mb, workers_mb, mappings, libraries } = idle;
    table.row([
        "cameras that do not answer: no decoder".to_owned(),
        format!("{host_percent:.1} % of a core"),
        format!("{workers_percent:.1} %"),
        format!("{:.2} MB, the largest {:.2}", worker_mb.median, worker_mb.max),
    ]);
    write!(f, "{table}")?;
    writeln!(
        f,
        "\nWith cameras: inference {inference_percent:.0} % of a core, host {host_mb:.1} MB, \
            {units_per_second:.0} pictures a second; others {}.\n\
         Without: all workers {workers_mb:.0} MB; {libraries} libraries; the largest mappings of \
            one:",
        cores(*other_cores)
    )?;
    let mut table = Table::new(["mapping", "PSS", "written to by it alone"]);
    for mapping in mappings {
        table.row([
            mapping.name.clone(),
            format!("{:.2} MB", mapping.pss_mb),
            format!("{:.2} MB", mapping.private_dirty_mb),
        ]);
    }
    write!(f, "{table}")
}

fn isolation(cost: &IsolationCost, f: &mut Formatter<'_>) -> fmt::Result {
    let IsolationCost { model, rounds, added_ms } = cost;
    writeln!(f, "\n## A model in another process\n")?;
    writeln!(f, "One run of {model} as a worker sees it, ms, p50 / p99.")?;
    let mut table = Table::new(["round", "in the host", "in a child process"]);
    for (index, round) in rounds.iter().enumerate() {
        let isolation_cost::IsolationRound { in_process, process } = round;
        table.row([(index + 1).to_string(), precise(in_process), precise(process)]);
    }
    table.row(["added at p50, median".into(), String::new(), format!("{added_ms:.3}")]);
    write!(f, "{table}")
}

fn precise(times: &Percentiles) -> String {
    format!("{:.3} / {:.3}", times.p50, times.p99)
}

fn both(times: &Percentiles) -> String {
    format!("{:.1} / {:.1} ms", times.p50, times.p99)
}

fn embeddings(embeddings: &Embeddings, f: &mut Formatter<'_>) -> fmt::Result {
    let Embeddings {
        rounds,
        ratio,
        at_once,
        at_once_rate,
        at_once_ratio,
        memory,
        identical,
        dimension,
    } = embeddings;
    writeln!(f, "\n## Faces to vectors\n")?;
    writeln!(
        f,
        "A face to its vector of {dimension} numbers by `POST /v1/analyze/face-embed`, p50 / p99."
    )?;
    let mut table = Table::new(["round", "bare models", "over HTTP", "ratio of the p50"]);
    for (index, embed::EmbeddingsRound { bare, http }) in rounds.iter().enumerate() {
        let ratio = format!("{:.2}", http.p50 / bare.p50);
        table.row([(index + 1).to_string(), both(bare), both(http), ratio]);
    }
    table.row(["median".into(), String::new(), String::new(), format!("{ratio:.2}")]);
    table.row([
        "16 at once".into(),
        String::new(),
        format!("{}, {at_once_rate:.1} a second", both(at_once)),
        format!("{at_once_ratio:.2}, of the machine's time"),
    ]);
    write!(f, "{table}")?;
    let mut table = Table::new(["PSS", "all processes", "inference"]);
    for (when, memory) in ["before", "after 1000", "after 200 more, 16 at once"].iter().zip(memory)
    {
        table.row([
            (*when).to_owned(),
            format!("{:.0} MB in {}", memory.mb, memory.processes),
            format!("{:.0} MB", memory.inference_mb),
        ]);
    }
    write!(f, "{table}")?;
    writeln!(f, "\nAll vectors are identical: {}.", if *identical { "yes" } else { "NO" })
}

fn fairness(fairness: &Fairness, f: &mut Formatter<'_>) -> fmt::Result {
    let Fairness { cameras, rate, rounds, ratio } = fairness;
    writeln!(f, "\n## Beside a session that floods\n")?;
    writeln!(
        f,
        "Latency of {cameras} cameras at {rate} results a second, alone and beside a file as fast \
            as it goes."
    )?;
    let mut table =
        Table::new(["round", "alone, p50 / p99", "beside it", "its results/s", "p99 ratio"]);
    for (index, FairnessRound { alone, beside, flood_rate, ratio }) in rounds.iter().enumerate() {
        table.row([
            (index + 1).to_string(),
            both(alone),
            both(beside),
            format!("{flood_rate:.1}"),
            format!("{ratio:.2}"),
        ]);
    }
    let empty = String::new;
    table.row(["median".into(), empty(), empty(), empty(), format!("{ratio:.2}")]);
    write!(f, "{table}")
}

fn joining(joining: &Joining, f: &mut Formatter<'_>) -> fmt::Result {
    let Joining { running, cold, gop_s, file, repeats } = joining;
    writeln!(f, "\n## Joining")?;
    let mut table = Table::new(largest_of(*repeats));
    for (what, moments) in [
        ("subscribe to first result, running camera".to_owned(), running),
        (format!("subscribe to first result, cold camera, key frame every {gop_s:.1} s"), cold),
        ("subscribe to first result, file".to_owned(), file),
    ] {
        moments_row(&mut table, what, moments);
    }
    write!(f, "{table}")
}

fn recovery(recovery: &Recovery, f: &mut Formatter<'_>) -> fmt::Result {
    let Recovery { noticed, ready, result, restarted, inference, interval, repeats } = recovery;
    writeln!(f, "\n## Recovery")?;
    let mut table = Table::new(largest_of(*repeats));
    for (what, moments) in [
        ("worker killed with SIGKILL, until it is noticed", noticed),
        ("until the next worker, after a pause of 100 to 125 ms", ready),
        ("until the first result of the next", result),
        ("worker restarted by the API, until its first result", restarted),
        ("inference process killed, until the next result", inference),
        ("between two results without a kill", interval),
    ] {
        moments_row(&mut table, what.to_owned(), moments);
    }
    write!(f, "{table}")
}

fn deploying(deploying: &Deploying, f: &mut Formatter<'_>) -> fmt::Result {
    let Deploying { bytes, cold, cached, interval, repeats } = deploying;
    writeln!(f, "\n## Deployments\n")?;
    writeln!(f, "A component of {} KB to a running camera.", bytes / 1000)?;
    let mut table = Table::new(largest_of(*repeats));
    for (kind, bound, times) in
        [("not compiled before", "1.5", cold), ("compiled before", "0.5", cached)]
    {
        let Deployments { first_result, answered, compile, change, gap } = times;
        let first = format!("request to first result, {kind} (bound: {bound} s)");
        moments_row(&mut table, first, first_result);
        moments_row(&mut table, "its answer".into(), answered);
        if let Some(compile) = compile {
            moments_row(&mut table, "compiling".into(), compile);
        }
        moments_row(&mut table, "change in the session, start of a worker included".into(), change);
        moments_row(
            &mut table,
            "last result of the old version to the first of the new".into(),
            gap,
        );
    }
    moments_row(&mut table, "between two results without a deployment".into(), interval);
    write!(f, "{table}")
}

fn fanout(fanout: &Fanout, f: &mut Formatter<'_>) -> fmt::Result {
    let Fanout { subscribers, idle_host_percent, idle_host_mb, loads } = fanout;
    writeln!(f, "\n## {subscribers} subscribers\n")?;
    writeln!(
        f,
        "Ten messages a second to each. Without them the host takes {idle_host_percent:.1} % of a \
            core and {idle_host_mb:.0} MB.\n\
         Bound of the 99th percentile: 50 ms."
    )?;
    let mut table = Table::new([
        "",
        "host",
        "delivery p50, p99, largest",
        "memory per subscriber",
        "messages/s",
        "lost",
        "CPU of the bench",
    ]);
    for load in loads {
        let delivery = load.delivery_ms.as_ref().map_or_else(
            || "not measured".to_owned(),
            |ms| format!("{:.1}, {:.1}, {:.1} ms", ms.p50, ms.p99, load.delivery_max_ms),
        );
        table.row([
            load.what.to_owned(),
            format!("{:.1} % of a core", load.host_percent),
            delivery,
            format!("{:.1} KB", load.kb_per_subscriber),
            format!("{:.0}", load.messages_per_second),
            load.missed.to_string(),
            format!("{:.1} %", load.bench_percent),
        ]);
    }
    write!(f, "{table}")
}

fn largest_of(repeats: usize) -> [String; 3] {
    [String::new(), "median".into(), format!("largest of {repeats}")]
}

/// A row with two times: below a second in ms.
fn moments_row(table: &mut Table, what: String, moments: &Moments) {
    let time = |seconds: f64| {
        if seconds < 1.0 { format!("{:.0} ms", seconds * 1e3) } else { format!("{seconds:.2} s") }
    };
    table.row([what, time(moments.median), time(moments.max)]);
}

fn cores(busy: f64) -> String {
    format!("{busy:.2} cores")
}

fn roles(by_role: &BTreeMap<Role, f64>) -> String {
    let name = |role: &Role| match role {
        Role::Host => "host",
        Role::Worker => "workers",
        Role::Inference => "inference",
        Role::Ingest => "readers",
        Role::Other => "other",
    };
    by_role
        .iter()
        .map(|(role, ms)| format!("{} {ms:.2}", name(role)))
        .collect::<Vec<_>>()
        .join(", ")
}
