//! What cameras cost as they become more: CPU, memory, latency, threads and descriptors of 1, 2, 5,
//! 10, 20 and 40 of them, the cost of one more, and where that bends.
//!
//! Each number is measured in parts of a few seconds. How far the parts of one measurement lie
//! apart is its noise. A *step* leads from one number of cameras to the next; what it costs for
//! each camera that it adds is the marginal cost. The slope is the median of the steps' marginal
//! costs, and the curve bends at the first step whose marginal cost differs from the slope by more
//! than the noise of both.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;
use tokio::time::Instant;

use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain};
use crate::machine::{self, Role, Snapshot, descriptors, threads};
use crate::statistics::{largest, median, percentile, smallest};
use crate::table::Table;

/// From one camera to twice as many as `session_processes.max_concurrent_sessions` allows by
/// default.
pub const CAMERAS: [usize; 6] = [1, 2, 5, 10, 20, 40];

/// Results of a camera in a second. Each picture is decoded; with more results, forty cameras would
/// want more than two cores, and what grew then would be the queue.
const RATE: f64 = 0.5;

/// Parts of one measurement: their spread is its noise.
const PARTS: usize = 4;

/// The shortest part. The host's share of one camera is some thousandths of a core, which the
/// kernel counts in hundredths of a second.
const SHORTEST: Duration = Duration::from_secs(4);

/// How long all cameras may take until each has had a result.
const START_LIMIT: Duration = Duration::from_secs(90);

/// The kinds of process, as the tables order them.
const ROLES: [(Role, &str); 4] = [
    (Role::Host, "host"),
    (Role::Worker, "workers"),
    (Role::Ingest, "readers"),
    (Role::Inference, "inference"),
];

/// The figures of this phase.
#[derive(Debug, Serialize)]
pub struct Growth {
    /// Results of a camera in a second.
    pub rate: f64,
    /// By number of cameras.
    pub points: Vec<GrowthPoint>,
    /// What one more camera costs, by quantity.
    pub slopes: Vec<Slope>,
    /// Seconds that all of it took.
    pub took_s: f64,
}

/// One number of cameras.
#[derive(Debug, Serialize)]
pub struct GrowthPoint {
    /// How many.
    pub cameras: usize,
    /// Percent of a core, by kind of process.
    pub cpu_percent: BTreeMap<Role, Value>,
    /// MB of PSS of all processes of a kind.
    pub pss_mb: BTreeMap<Role, Value>,
    /// Milliseconds from a picture's arrival to its result: the median.
    pub latency_p50_ms: Value,
    /// One in twenty is larger.
    pub latency_p95_ms: Value,
    /// Of the host.
    pub host_threads: Value,
    /// Of all processes.
    pub threads: Value,
    /// Open descriptors of the host.
    pub host_descriptors: Value,
    /// Of all processes.
    pub descriptors: Value,
    /// Results in a second, all cameras together.
    pub results_per_second: f64,
    /// Cores that others kept busy meanwhile; the cameras' server is among them.
    pub other_cores: f64,
}

/// A quantity as it was measured in parts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Value {
    /// The median of the parts.
    pub value: f64,
    /// Half the range of the parts.
    pub noise: f64,
}

impl Value {
    fn of(parts: &[f64]) -> Self {
        let noise = (largest(parts) - smallest(parts)) / 2.0;
        Self { value: median(parts), noise }
    }
}

/// What one more camera costs.
#[derive(Debug, Serialize)]
pub struct Slope {
    /// Of what.
    pub quantity: String,
    /// The unit of the slope.
    pub unit: &'static str,
    /// Median of the steps' marginal costs.
    pub per_camera: f64,
    /// How far the noise of the parts alone could move it.
    pub noise: f64,
    /// Where it bends; none where no step differs by more than the noise.
    pub bend: Option<Bend>,
}

/// The first step whose marginal cost differs from the slope.
#[derive(Debug, PartialEq, Serialize)]
pub struct Bend {
    /// Cameras before the step, and after it.
    pub step: [usize; 2],
    /// What each camera of the step costs.
    pub per_camera: f64,
    /// The noise of that.
    pub noise: f64,
}

/// The slope through measured numbers of cameras, the smallest first.
fn slope(quantity: String, unit: &'static str, points: &[(usize, Value)]) -> Slope {
    let steps = points.iter().zip(points.iter().skip(1));
    let steps: Vec<Bend> = steps
        .map(|((few, before), (many, after))| {
            let added = many.saturating_sub(*few).max(1) as f64;
            Bend {
                step: [*few, *many],
                per_camera: (after.value - before.value) / added,
                noise: (after.noise + before.noise) / added,
            }
        })
        .collect();
    let per_camera = median(&steps.iter().map(|step| step.per_camera).collect::<Vec<_>>());
    let noise = median(&steps.iter().map(|step| step.noise).collect::<Vec<_>>());
    let differs = |step: &Bend| (step.per_camera - per_camera).abs() > step.noise + noise;
    Slope { quantity, unit, per_camera, noise, bend: steps.into_iter().find(differs) }
}

/// Measures. `progress` is told what is measured next.
pub async fn measure(environment: &Environment, progress: impl Fn(&str)) -> Result<Growth> {
    let begun = Instant::now();
    let mut points = Vec::new();
    for cameras in CAMERAS {
        progress(&format!("growth: {cameras} cameras"));
        let point = point(environment, cameras).await;
        points.push(point.with_context(|| format!("{cameras} cameras"))?);
    }
    let slopes = slopes(&points);
    Ok(Growth { rate: RATE, points, slopes, took_s: begun.elapsed().as_secs_f64() })
}

fn slopes(points: &[GrowthPoint]) -> Vec<Slope> {
    let along = |quantity: &str, unit, value: &dyn Fn(&GrowthPoint) -> Value| {
        let values: Vec<_> = points.iter().map(|point| (point.cameras, value(point))).collect();
        slope(quantity.to_owned(), unit, &values)
    };
    let mut slopes = Vec::new();
    for (role, name) in ROLES {
        let cpu = |point: &GrowthPoint| of_role(&point.cpu_percent, role);
        slopes.push(along(&format!("CPU, {name}"), "% of a core", &cpu));
    }
    for (role, name) in ROLES {
        let pss = |point: &GrowthPoint| of_role(&point.pss_mb, role);
        slopes.push(along(&format!("PSS, {name}"), "MB", &pss));
    }
    slopes.push(along("latency p50", "ms", &|p| p.latency_p50_ms));
    slopes.push(along("latency p95", "ms", &|p| p.latency_p95_ms));
    slopes.push(along("threads of the host", "", &|p| p.host_threads));
    slopes.push(along("threads of all processes", "", &|p| p.threads));
    slopes.push(along("descriptors of the host", "", &|p| p.host_descriptors));
    slopes.push(along("descriptors of all processes", "", &|p| p.descriptors));
    slopes
}

fn of_role<T: Copy + Default>(values: &BTreeMap<Role, T>, role: Role) -> T {
    values.get(&role).copied().unwrap_or_default()
}

/// What one part saw.
struct Part {
    cpu_percent: BTreeMap<Role, f64>,
    pss_mb: BTreeMap<Role, f64>,
    latencies_ms: Vec<f64>,
    host_threads: f64,
    threads: f64,
    host_descriptors: f64,
    descriptors: f64,
    results: usize,
    wall_s: f64,
    other_cores: f64,
}

async fn point(environment: &Environment, count: usize) -> Result<GrowthPoint> {
    let Environment { paths, workplace, .. } = environment;
    let server = Cameras::start(paths, count).await?;
    let camera = |index| {
        Camera::live(index, server.url(index)).with(json!({"max_results_per_second": RATE}))
    };
    let cameras: Vec<Camera> = (0..count).map(camera).collect();
    let chain = Chain::start(paths, workplace, &cameras).await?;
    until_all_speak(&chain, count).await?;
    // One subscriber gets everything, as a backend does.
    let mut subscriber = chain.subscriber().await?;
    for camera in &cameras {
        subscriber.subscribe(&camera.id).await?;
    }
    subscriber.latencies(Instant::now() + SETTLE).await?;
    let length = (environment.segment / 2).max(SHORTEST);
    let mut parts = Vec::new();
    let mut before = chain.snapshot()?;
    for _ in 0..PARTS {
        let heard = subscriber.latencies(Instant::now() + length).await?;
        let after = chain.snapshot()?;
        parts.push(Part::of(&before, &after, &heard)?);
        before = after;
    }
    chain.stop().await?;
    server.stop().await?;
    Ok(joined(count, &parts))
}

impl Part {
    fn of(before: &Snapshot, after: &Snapshot, heard: &[BTreeMap<String, f64>]) -> Result<Self> {
        let spent = after.since(before);
        let (mut pss_mb, mut all_threads, mut all_descriptors) = (BTreeMap::new(), 0, 0);
        let (mut host_threads, mut host_descriptors) = (0, 0);
        for process in &after.processes {
            let (own_threads, own_descriptors) = (threads(process.pid)?, descriptors(process.pid)?);
            *pss_mb.entry(process.role).or_default() += machine::pss_mb(process.pid)?;
            if process.role == Role::Host {
                (host_threads, host_descriptors) = (own_threads, own_descriptors);
            }
            all_threads += own_threads;
            all_descriptors += own_descriptors;
        }
        let percent = |(role, seconds): (&Role, &f64)| (*role, 100.0 * seconds / spent.wall_s);
        Ok(Self {
            cpu_percent: spent.by_role.iter().map(percent).collect(),
            pss_mb,
            latencies_ms: heard.iter().filter_map(|one| one.get("total").copied()).collect(),
            host_threads: host_threads as f64,
            threads: all_threads as f64,
            host_descriptors: host_descriptors as f64,
            descriptors: all_descriptors as f64,
            results: heard.len(),
            wall_s: spent.wall_s,
            other_cores: spent.other_cores,
        })
    }
}

/// The parts of one number of cameras together. Few results come in a part, so that percentiles
/// are those of all parts; their noise is the spread of the parts'.
fn joined(cameras: usize, parts: &[Part]) -> GrowthPoint {
    let value = |of: &dyn Fn(&Part) -> f64| Value::of(&parts.iter().map(of).collect::<Vec<_>>());
    let all: Vec<f64> = parts.iter().flat_map(|part| part.latencies_ms.clone()).collect();
    let latency = |share| {
        let of_parts: Vec<f64> = parts
            .iter()
            .map(|part| percentile(&part.latencies_ms, share))
            .filter(|ms| ms.is_finite())
            .collect();
        Value { value: percentile(&all, share), noise: Value::of(&of_parts).noise }
    };
    let wall_s: f64 = parts.iter().map(|part| part.wall_s).sum();
    let results: usize = parts.iter().map(|part| part.results).sum();
    GrowthPoint {
        cameras,
        cpu_percent: ROLES
            .map(|(role, _)| (role, value(&|part| of_role(&part.cpu_percent, role))))
            .into(),
        pss_mb: ROLES.map(|(role, _)| (role, value(&|part| of_role(&part.pss_mb, role)))).into(),
        latency_p50_ms: latency(0.5),
        latency_p95_ms: latency(0.95),
        host_threads: value(&|part| part.host_threads),
        threads: value(&|part| part.threads),
        host_descriptors: value(&|part| part.host_descriptors),
        descriptors: value(&|part| part.descriptors),
        results_per_second: results as f64 / wall_s,
        other_cores: parts.iter().map(|part| part.other_cores * part.wall_s).sum::<f64>() / wall_s,
    }
}

async fn until_all_speak(chain: &Chain, cameras: usize) -> Result<()> {
    let end = Instant::now() + START_LIMIT;
    let mut looks = tokio::time::interval(Duration::from_millis(200));
    while Instant::now() < end {
        looks.tick().await;
        let sessions = chain.sessions().await?;
        if sessions.iter().filter(|session| session.results > 0).count() == cameras {
            return Ok(());
        }
    }
    bail!("not all of {cameras} cameras have a result within {} s", START_LIMIT.as_secs())
}

impl Display for Growth {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { rate, points, slopes, took_s } = self;
        writeln!(f, "\n## Cost of one more camera\n")?;
        writeln!(
            f,
            "Each camera has 10 pictures and {rate} results a second; all in {took_s:.0} s. CPU in\n\
             percent of a core, PSS in MB, of all processes of a kind; latency in ms."
        )?;
        let kinds = ROLES.map(|(_, name)| name);
        let headings = ["cameras", "results/s"].into_iter().chain(kinds);
        let mut cpu = Table::new(headings.chain(["p50", "p95", "others"]));
        let headings = ["cameras"].into_iter().chain(kinds);
        let mut memory = Table::new(headings.chain(["threads", "descriptors"]));
        for point in points {
            let percent = |(role, _)| format!("{:.1} %", of_role(&point.cpu_percent, role).value);
            let first = [point.cameras.to_string(), format!("{:.1}", point.results_per_second)];
            cpu.row(first.into_iter().chain(ROLES.map(percent)).chain([
                format!("{:.1}", point.latency_p50_ms.value),
                format!("{:.1}", point.latency_p95_ms.value),
                format!("{:.2} cores", point.other_cores),
            ]));
            let mb = |(role, _)| format!("{:.1}", of_role(&point.pss_mb, role).value);
            let both = |host: Value, all: Value| format!("{:.0} of {:.0}", host.value, all.value);
            memory.row([point.cameras.to_string()].into_iter().chain(ROLES.map(mb)).chain([
                both(point.host_threads, point.threads),
                both(point.host_descriptors, point.descriptors),
            ]));
        }
        write!(f, "{cpu}")?;
        writeln!(f, "\nThreads and descriptors: those of the host of all.")?;
        write!(f, "{memory}")?;
        let mut each = Table::new(["quantity", "one more camera", "noise", "bends"]);
        for Slope { quantity, unit, per_camera, noise, bend } in slopes {
            let bend = bend.as_ref().map_or_else(
                || "no step".to_owned(),
                |Bend { step: [few, many], per_camera, noise }| {
                    format!("{few} to {many}: {per_camera:.2} (noise {noise:.2})")
                },
            );
            let cost = format!("{per_camera:.2} {unit}");
            each.row([quantity.clone(), cost.trim_end().to_owned(), format!("{noise:.2}"), bend]);
        }
        write!(f, "{each}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn along(values: [f64; 6], noise: f64) -> Slope {
        let points: Vec<_> = CAMERAS
            .into_iter()
            .zip(values)
            .map(|(cameras, value)| (cameras, Value { value, noise }))
            .collect();
        slope("x".into(), "", &points)
    }

    #[test]
    fn a_straight_line_does_not_bend() {
        let straight = along([12.0, 14.0, 20.0, 30.0, 50.0, 90.0], 0.0);
        assert_eq!((straight.per_camera, straight.bend), (2.0, None));
    }

    #[test]
    fn noise_is_no_bend() {
        // The first step costs 3 and the others 2; a unit is within the noise of its two ends.
        let noisy = along([11.0, 14.0, 20.0, 30.0, 50.0, 90.0], 0.5);
        assert_eq!((noisy.per_camera, noisy.bend), (2.0, None));
    }

    #[test]
    fn a_bend_is_the_first_step_beyond_the_noise() {
        let saturated = along([12.0, 14.0, 20.0, 30.0, 50.0, 190.0], 0.5);
        assert_eq!(saturated.per_camera, 2.0);
        let bend = saturated.bend.unwrap();
        assert_eq!((bend.step, bend.per_camera), ([20, 40], 7.0));
    }

    #[test]
    fn the_noise_is_half_the_range_of_the_parts() {
        assert_eq!(Value::of(&[1.0, 2.0, 4.0]), Value { value: 2.0, noise: 1.5 });
    }
}
