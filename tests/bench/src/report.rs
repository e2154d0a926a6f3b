//! The figures as a person reads them.

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
use crate::phases::isolation::{self as isolation_cost, IsolationCost};
use crate::phases::joining::Joining;
use crate::phases::live::{Live, Moments, STATIONS};
use crate::phases::page::PageCost;
use crate::phases::peers::PeerTurns;
use crate::phases::readers::ReaderCost;
use crate::phases::recovery::Recovery;
use crate::phases::tracking::Tracking;
use crate::phases::twenty::{Idle, Streaming, Twenty};

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
    /// The chain beside the bare loop.
    pub cost: Option<Cost>,
    /// By number of cameras.
    pub live: Vec<Live>,
    /// Twenty sessions.
    pub twenty: Option<Twenty>,
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
            cost: None,
            live: Vec::new(),
            twenty: None,
            readers: Vec::new(),
            isolation: None,
            embeddings: None,
            fairness: None,
            joining: None,
            recovery: None,
            deploying: None,
            fanout: None,
            page: None,
            peers: None,
            tracking: None,
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Machine { cpu, cores, memory_gb, kernel, load_before } = &self.machine;
        writeln!(
            f,
            "Ocelli {} on {cpu}, {cores} cores, {memory_gb:.0} GB, Linux {kernel}",
            self.version
        )?;
        writeln!(f, "model: {}; clip: {}", ocelli_sdk::nanodet::DEFAULT.name, self.clip)?;
        writeln!(
            f,
            "all figures are from this one run of {:.0} s, {:.0} s each; load before it: \
                {load_before:.2}",
            self.took_s, self.segment_s
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
        if let Some(measured) = &self.page {
            write!(f, "{measured}")?;
        }
        if let Some(measured) = &self.peers {
            write!(f, "{measured}")?;
        }
        self.tracking.as_ref().map_or(Ok(()), |measured| write!(f, "{measured}"))
    }
}

fn readers(rows: &[ReaderCost], f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    writeln!(f, "readers of cameras; CPU for each camera, in percent of a core")?;
    writeln!(
        f,
        "  cameras  reader        host  ingest   PSS of an ingest, median (largest)   host   \
            units/s   busy with others"
    )?;
    for row in rows {
        let pss = format!("{:.1} MB ({:.1})", row.ingest_mb.median, row.ingest_mb.max);
        writeln!(
            f,
            "  {:>7}  {:<10} {:>5.2} % {:>5.2} %   {pss:>34}   {:.0} MB   {:>5.1}   {:.2} cores   \
                {}",
            row.cameras,
            row.reader,
            row.host_percent,
            row.ingest_percent,
            row.host_mb,
            row.units_per_second,
            row.other_cores,
            row.clip
        )?;
    }
    Ok(())
}

fn cost(cost: &Cost, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    writeln!(f, "libraries: {}", cost.libraries.join(", "))?;
    writeln!(f, "CPU per result, two at once on files; chain = host + 2 workers + inference")?;
    writeln!(
        f,
        "  round   bare loop      chain   ratio   results/s bare, chain   busy with others"
    )?;
    for (index, round) in cost.rounds.iter().enumerate() {
        let ([bare, chain], [beside_bare, beside_chain]) = (round.rates, round.other_cores);
        writeln!(
            f,
            "  {:>5}  {:>7.2} ms {:>7.2} ms  {:>6.3}   {bare:>9.1} {chain:>11.1}   \
                {beside_bare:.2}, \
             {beside_chain:.2} cores",
            index + 1,
            round.bare_ms,
            round.chain_ms,
            round.ratio
        )?;
    }
    let [bare, chain] = cost.rates;
    writeln!(
        f,
        "  median {:>7.2} ms {:>7.2} ms  {:>6.3}   {bare:>9.1} {chain:>11.1}",
        cost.bare_ms, cost.chain_ms, cost.ratio
    )?;
    let stations = ["decode", "tensor", "model", "boxes"];
    let stations =
        stations.iter().filter_map(|name| Some((name, cost.bare_stations_ms.get(name)?)));
    let stations: Vec<String> = stations.map(|(name, ms)| format!("{name} {ms:.2}")).collect();
    writeln!(
        f,
        "  bare loop by station: {} ms; its memory: {:.0} MB",
        stations.join(", "),
        cost.bare_pss_mb
    )?;
    writeln!(f, "  chain by process: {} ms", roles(&cost.chain_roles_ms))
}

fn live(by_cameras: &[Live], f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    writeln!(f, "RTSP cameras of 10 pictures a second")?;
    writeln!(
        f,
        "  cameras  results/s  CPU/result  decoded/result   PSS per session (largest)  host  \
            inference  all/camera"
    )?;
    for live in by_cameras {
        let memory = &live.memory;
        writeln!(
            f,
            "  {:>7}  {:>9.1}  {:>7.2} ms  {:>14.2}   {:>12.1} MB ({:.1})  {:>8.1}  {:>9.1}  \
                {:>7.1} MB",
            live.cameras,
            live.results_per_second,
            live.cpu_ms_per_result,
            live.decoded_per_result,
            memory.worker,
            memory.worker_largest,
            memory.host,
            memory.inference,
            memory.all_per_camera
        )?;
    }
    for live in by_cameras {
        let others = live.other_cores;
        let by_role = roles(&live.roles_ms);
        writeln!(
            f,
            "  {:>7}: CPU per result: {by_role} ms; busy with others: {others:.2} cores",
            live.cameras
        )?;
    }
    writeln!(f)?;
    writeln!(
        f,
        "latency by station, ms: p50 / p99; start of the host to first result: median, max"
    )?;
    writeln!(f, "  cameras  {}", STATIONS.map(|station| format!("{station:>15}")).concat())?;
    for live in by_cameras {
        let each = STATIONS.iter().filter_map(|station| live.latency_ms.get(station));
        let each: String =
            each.map(|p| format!("{:>15}", format!("{:.1} / {:.1}", p.p50, p.p99))).collect();
        let Moments { median, max } = live.start_to_first_result_s;
        writeln!(f, "  {:>7}  {each}    {median:.2} s, {max:.2} s", live.cameras)?;
    }
    Ok(())
}

fn twenty(twenty: &Twenty, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    let Twenty { sessions, live, idle } = twenty;
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
    writeln!(f, "{sessions} sessions, a camera each: CPU in percent of one core")?;
    writeln!(
        f,
        "  host {host_percent:.1} %, workers {workers_percent:.0} %, inference \
            {inference_percent:.0} %; \
         {units_per_second:.0} pictures/s in, {results_per_second:.1} results/s out; others kept \
         {other_cores:.2} cores busy"
    )?;
    writeln!(
        f,
        "  PSS: worker {:.1} MB ({:.1}), host {host_mb:.1} MB",
        worker_mb.median, worker_mb.max
    )?;
    let Idle { host_percent, workers_percent, worker_mb, workers_mb, mappings, libraries } = idle;
    writeln!(f, "{sessions} sessions whose cameras do not answer: no worker has a decoder")?;
    writeln!(f, "  host {host_percent:.1} %, workers {workers_percent:.1} %")?;
    writeln!(
        f,
        "  PSS: worker {:.2} MB ({:.2}), all workers {workers_mb:.0} MB; {libraries} libraries; \
            the largest \
         (own and written to):",
        worker_mb.median, worker_mb.max
    )?;
    let named = mappings.iter().map(|mapping| {
        format!("{} {:.2} ({:.2})", mapping.name, mapping.pss_mb, mapping.private_dirty_mb)
    });
    writeln!(f, "  {}", named.collect::<Vec<_>>().join(", "))
}

fn isolation(cost: &IsolationCost, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    let IsolationCost { model, rounds, added_ms } = cost;
    writeln!(f, "one run of {model} as a worker sees it: p50 / p99")?;
    for isolation_cost::IsolationRound { in_process, process } in rounds {
        writeln!(
            f,
            "  in-process {:.3} / {:.3} ms, in a child process {:.3} / {:.3} ms",
            in_process.p50, in_process.p99, process.p50, process.p99
        )?;
    }
    writeln!(f, "  added by the process, median of the differences of the p50: {added_ms:.3} ms")
}

fn embeddings(embeddings: &Embeddings, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
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
    writeln!(
        f,
        "a face to its vector of {dimension} numbers by POST /v1/analyze/face-embed: p50 / p99"
    )?;
    for embed::EmbeddingsRound { bare, http } in rounds {
        writeln!(
            f,
            "  bare models {:.1} / {:.1} ms, over HTTP {:.1} / {:.1} ms",
            bare.p50, bare.p99, http.p50, http.p99
        )?;
    }
    writeln!(f, "  median of the p50 ratios: {ratio:.2}")?;
    writeln!(
        f,
        "  16 at once: {:.1} / {:.1} ms, {at_once_rate:.1} a second: a picture takes \
            {at_once_ratio:.2} times the \
         bare models' time of the machine",
        at_once.p50, at_once.p99
    )?;
    let [before, row, at_once] = memory.each_ref().map(|memory| {
        format!(
            "{:.0} MB in {} processes (inference {:.0})",
            memory.mb, memory.processes, memory.inference_mb
        )
    });
    writeln!(f, "  PSS before {before}, after 1000 {row}, after 200 more {at_once}")?;
    writeln!(f, "  all vectors identical: {}", if *identical { "yes" } else { "NO" })
}

fn fairness(fairness: &Fairness, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    let Fairness { cameras, rate, rounds, ratio } = fairness;
    writeln!(
        f,
        "{cameras} cameras at {rate} results/s, beside one on a file as fast as it goes: latency \
            p50 / p99"
    )?;
    for (index, FairnessRound { alone, beside, flood_rate, ratio }) in rounds.iter().enumerate() {
        writeln!(
            f,
            "  {:>5}  alone {:.1} / {:.1} ms, beside it {:.1} / {:.1} ms; it got {flood_rate:.1} \
                results/s; \
             p99 ratio {ratio:.2}",
            index + 1,
            alone.p50,
            alone.p99,
            beside.p50,
            beside.p99
        )?;
    }
    writeln!(f, "  median of the p99 ratios: {ratio:.2}")
}

fn joining(joining: &Joining, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    let Joining { running, cold, gop_s, file, repeats } = joining;
    writeln!(f, "subscribe to first result, {repeats} times each: median, max")?;
    writeln!(f, "  running camera  {}", milliseconds(running))?;
    writeln!(f, "  cold camera     {}   (one GOP is {gop_s:.1} s)", milliseconds(cold))?;
    writeln!(f, "  file            {}   (start of a worker and one frame)", milliseconds(file))
}

fn recovery(recovery: &Recovery, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    let Recovery { noticed, ready, result, restarted, inference, interval, repeats } = recovery;
    writeln!(f, "worker killed, {repeats} times: median, max")?;
    writeln!(f, "  noticed         {}", milliseconds(noticed))?;
    writeln!(
        f,
        "  new worker      {}   (100 to 125 ms of it are a pause on purpose)",
        milliseconds(ready)
    )?;
    writeln!(f, "  first result    {}", milliseconds(result))?;
    writeln!(f, "worker restarted by the API, {repeats} times: median, max")?;
    writeln!(f, "  first result    {}", milliseconds(restarted))?;
    writeln!(f, "inference process killed, {repeats} times: median, max")?;
    writeln!(f, "  next result     {}", milliseconds(inference))?;
    writeln!(f, "  without a kill  {}   (between two results)", milliseconds(interval))
}

fn deploying(deploying: &Deploying, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    let Deploying { bytes, cold, cached, interval, repeats } = deploying;
    writeln!(
        f,
        "a component of {} KB deployed to a running camera, {repeats} times each: median, max",
        bytes / 1000
    )?;
    for (heading, bound, kind) in
        [("not seen before", "1.5", cold), ("compiled before", "0.5", cached)]
    {
        let Deployments { first_result, answered, compile, change, gap } = kind;
        writeln!(f, "  {heading}")?;
        writeln!(f, "    first result  {}   (bound: {bound} s)", milliseconds(first_result))?;
        writeln!(f, "    answered      {}", milliseconds(answered))?;
        if let Some(compile) = compile {
            writeln!(f, "    compiling     {}", milliseconds(compile))?;
        }
        writeln!(
            f,
            "    change        {}   (in the session, start of a worker included)",
            milliseconds(change)
        )?;
        writeln!(
            f,
            "    gap           {}   (old version's last result to new one's first)",
            milliseconds(gap)
        )?;
    }
    writeln!(f, "  no deployment   {}   (between two results)", milliseconds(interval))
}

fn fanout(fanout: &Fanout, f: &mut Formatter<'_>) -> fmt::Result {
    writeln!(f)?;
    let Fanout { subscribers, idle_host_percent, idle_host_mb, loads } = fanout;
    writeln!(
        f,
        "{subscribers} subscribers of a session with 10 frames a second; without them the host \
            takes {idle_host_percent:.1} % of a \
         core and {idle_host_mb:.0} MB"
    )?;
    writeln!(
        f,
        "  delivery: from the end of the pipeline's call to the subscriber's read; bound of the \
            99th percentile: 50 ms"
    )?;
    writeln!(
        f,
        "  what                        messages/s   host       bench      delivery p50, p99, max       KB/subscriber  lost"
    )?;
    for load in loads {
        let delivery = load.delivery_ms.as_ref().map_or_else(
            || "-".to_owned(),
            |delivery| {
                format!("{:.2}, {:.2}, {:.1} ms", delivery.p50, delivery.p99, load.delivery_max_ms)
            },
        );
        writeln!(
            f,
            "  {:<27} {:>10.0}   {:>5.1} %   {:>5.1} %    {delivery:<28}  {:>8.1}       {}",
            load.what,
            load.messages_per_second,
            load.host_percent,
            load.bench_percent,
            load.kb_per_subscriber,
            load.missed
        )?;
    }
    Ok(())
}

fn milliseconds(moments: &Moments) -> String {
    format!("{:>6.0} ms, {:>6.0} ms", moments.median * 1e3, moments.max * 1e3)
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
