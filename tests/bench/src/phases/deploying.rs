//! A new version on a running camera: from the request to the first result of the new version.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::live::Moments;
use super::{Environment, SETTLE};
use crate::cameras::Cameras;
use crate::chain::{Camera, Chain};

/// The figures of this phase, in seconds.
#[derive(Debug, Serialize)]
pub struct Deploying {
    /// Bytes of the component.
    pub bytes: usize,
    /// A component that the host has not seen: it is checked and compiled first.
    pub cold: Deployments,
    /// One that is in the cache of compiled components.
    pub cached: Deployments,
    /// Between two results of the camera when nothing is deployed.
    pub interval: Moments,
    /// How often each was measured.
    pub repeats: usize,
}

/// Deployments of one kind.
#[derive(Debug, Serialize)]
pub struct Deployments {
    /// From the request to the first result of the new version.
    pub first_result: Moments,
    /// From the request to its answer.
    pub answered: Moments,
    /// Compiling, as the host tells it; none where nothing was compiled.
    pub compile: Option<Moments>,
    /// From the session's hearing of it to the first result, as the host tells it.
    pub change: Moments,
    /// From the last result of the old version to the first of the new one.
    pub gap: Moments,
}

/// What one deployment took, in seconds.
struct Sample {
    first_result: f64,
    answered: f64,
    compile: Option<f64>,
    change: f64,
    gap: f64,
}

/// Measures on one camera.
pub async fn measure(environment: &Environment) -> Result<Deploying> {
    let server = Cameras::start(&environment.paths, 1).await?;
    let camera = Camera::live(0, server.url(0));
    let cameras = std::slice::from_ref(&camera);
    // What a machine without much free memory refuses is not what is measured.
    let more = json!({"deploy": {"reserve_mb": 0}});
    let chain =
        Chain::start_with(&environment.paths, &environment.workplace, cameras, more).await?;
    let mut subscriber = chain.subscriber().await?;
    subscriber.subscribe(&camera.id).await?;
    subscriber.result(&camera.id).await?;
    let component = std::fs::read(object_detect(&environment.paths.host)?)?;
    let (mut cold, mut cached, mut interval) = (Vec::new(), Vec::new(), Vec::new());
    for repeat in 0..environment.repeats {
        for (samples, part) in [(&mut cold, repeat), (&mut cached, repeat.wrapping_sub(1))] {
            subscriber.latencies(Instant::now() + SETTLE).await?;
            let before = subscriber.result(&camera.id).await?;
            interval
                .push(subscriber.result(&camera.id).await?.duration_since(before).as_secs_f64());
            let version =
                if part == usize::MAX { component.clone() } else { tagged(&component, part) };
            let asked = Instant::now();
            let deploying = async {
                let record = chain.deploy(&camera.id, version).await?;
                Ok::<_, anyhow::Error>((record, Instant::now()))
            };
            let ((record, answered), (last, first)) =
                tokio::try_join!(deploying, subscriber.another_version(&camera.id))?;
            samples.push(Sample::of(&record, asked, answered, last, first)?);
        }
    }
    chain.stop().await?;
    server.stop().await?;
    ensure!(cold.iter().all(|sample| sample.compile.is_some()), "a new component was not compiled");
    ensure!(cached.iter().all(|sample| sample.compile.is_none()), "a known component was compiled");
    Ok(Deploying {
        bytes: component.len(),
        cold: Deployments::of(&cold),
        cached: Deployments::of(&cached),
        interval: Moments::of(&interval),
        repeats: environment.repeats,
    })
}

impl Sample {
    fn of(
        record: &Value,
        asked: Instant,
        answered: Instant,
        last: Instant,
        first: Instant,
    ) -> Result<Self> {
        let ms = |value: Option<&Value>| value.and_then(Value::as_f64).map(|ms| ms / 1e3);
        let change = ms(record.pointer("/swapped/total_ms"));
        Ok(Self {
            first_result: first.duration_since(asked).as_secs_f64(),
            answered: answered.duration_since(asked).as_secs_f64(),
            compile: ms(record.get("compile_ms")),
            change: change.with_context(|| format!("no figures in {record}"))?,
            gap: first.duration_since(last).as_secs_f64(),
        })
    }
}

impl Deployments {
    fn of(samples: &[Sample]) -> Self {
        let moments = |figure: fn(&Sample) -> f64| {
            Moments::of(&samples.iter().map(figure).collect::<Vec<_>>())
        };
        let compile: Vec<f64> = samples.iter().filter_map(|sample| sample.compile).collect();
        Self {
            first_result: moments(|sample| sample.first_result),
            answered: moments(|sample| sample.answered),
            compile: (!compile.is_empty()).then(|| Moments::of(&compile)),
            change: moments(|sample| sample.change),
            gap: moments(|sample| sample.gap),
        }
    }
}

/// The default pipeline among the built-in ones beside the folder of a host's program.
fn object_detect(host: &Path) -> Result<std::path::PathBuf> {
    let target =
        host.parent().and_then(Path::parent).context("the host's program lies in no folder")?;
    let path = target.join("pipelines/object-detect.wasm");
    ensure!(path.is_file(), "{} is missing: `./x build` makes it", path.display());
    Ok(path)
}

/// The same component with another digest: a custom section that holds a number.
fn tagged(component: &[u8], tag: usize) -> Vec<u8> {
    // Section 0: its length, the length of its name, the name, and the rest.
    let body = [&[3u8][..], b"tag", &(tag as u64).to_le_bytes()].concat();
    [component, &[0, body.len() as u8], &body].concat()
}
