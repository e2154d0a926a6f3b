//! `ocelli check`: everything that is wrong with a config and with what it names.

use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use futures_util::{StreamExt, stream};
use serde::Serialize;
use tempfile::TempDir;

use super::models;
use super::probe;
use super::table::printable;
use crate::config::{Config, ConfigFile, ConfigProblem, DEFAULT_PATH, ShownProblem, listing};
use crate::deploy::Compiler;
use crate::preflight;
use crate::probe::ProbeReport;
use crate::worker::Programs;

/// Cameras that are probed at the same time.
const PROBES: usize = 8;

/// Seconds for which a camera is measured.
const PROBE_SECONDS: u64 = 2;

/// See the module's documentation.
#[derive(Args)]
pub(super) struct CheckCommand {
    /// The config: TOML, or JSON with the same keys.
    #[arg(long, value_name = "FILE", default_value = DEFAULT_PATH)]
    config: PathBuf,
    /// Also connect to the cameras and read the files, as `ocelli probe` does.
    #[arg(long)]
    probe: bool,
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct CheckSummary {
    config: String,
    good: bool,
    problems: Vec<ShownProblem>,
    warnings: Vec<String>,
    /// Numbers of them; null if the config cannot be read.
    cameras: Option<usize>,
    models: Option<usize>,
    /// With `--probe`: what each camera is.
    #[serde(skip_serializing_if = "Option::is_none")]
    probes: Option<Vec<CameraProbe>>,
}

#[derive(Serialize)]
struct CameraProbe {
    camera: String,
    #[serde(flatten)]
    report: ProbeReport,
}

impl CheckCommand {
    /// A config that cannot be read is an error of its own, with exit status 2; faults of what it
    /// names give 1.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let file = match ConfigFile::load(&self.config) {
            Ok(file) => file,
            Err(error) => {
                if self.json {
                    self.print(&CheckSummary {
                        config: self.config.display().to_string(),
                        good: false,
                        problems: error.problems(),
                        warnings: Vec::new(),
                        cameras: None,
                        models: None,
                        probes: None,
                    })?;
                }
                return Err(error.into());
            }
        };
        // Children die with the thread that starts them: one that lasts.
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.context("starting the runtime")?;
        let summary = runtime.block_on(self.look(&file))?;
        runtime.shutdown_background();
        if self.json {
            self.print(&summary)?;
        } else {
            self.tell(&summary)?;
        }
        match summary.problems.len() {
            0 => Ok(()),
            1 if self.json => bail!("{}: 1 problem", summary.config),
            many if self.json => bail!("{}: {many} problems", summary.config),
            _ => {
                let lines: Vec<String> = summary
                    .problems
                    .iter()
                    .map(|problem| printable(&problem.beside(&self.config)))
                    .collect();
                bail!("{}: {}", summary.config, listing(&lines))
            }
        }
    }

    async fn look(&self, file: &ConfigFile) -> anyhow::Result<CheckSummary> {
        let config = &file.config;
        let mut findings = preflight::files(file);
        let (faults, offered) = models::check(config);
        let mut problems = Vec::new();
        if !config.cameras.is_empty() || !config.analyze.pipelines.is_empty() {
            match Programs::find() {
                Ok(programs) => {
                    let (compiler, _folder) = compiler(&programs, config).await?;
                    let (worker, models) = (&programs.worker, Some(offered.as_slice()));
                    let compiled = preflight::components(&compiler, worker, file, |_| true, models);
                    findings.extend(compiled.await);
                }
                Err(error) => {
                    problems.push(file.problem("", error.to_string()).shown(&file.path, None));
                }
            }
        }
        problems.extend(findings.iter().map(|finding| finding.shown(file)));
        let of_models =
            |fault: String| file.problem("models.directory", fault).shown(&file.path, None);
        problems.extend(faults.into_iter().map(of_models));
        let (mut probes, mut warnings) = (None, config.warnings());
        if self.probe {
            let probed = probe_cameras(file).await?;
            probes = Some(probed.probes);
            warnings.extend(probed.warnings);
            let faults = probed.faults.into_iter();
            problems.extend(faults.map(|(camera, fault)| fault.shown(&file.path, Some(&camera))));
        }
        let main = file.path.display().to_string();
        problems.sort_by_key(|problem| (problem.file != main, problem.line));
        Ok(CheckSummary {
            config: file.path.display().to_string(),
            good: problems.is_empty(),
            problems,
            warnings,
            cameras: Some(config.cameras.len()),
            models: Some(offered.len()),
            probes,
        })
    }

    fn print(&self, summary: &CheckSummary) -> anyhow::Result<()> {
        Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string(summary)?)?)
    }

    fn tell(&self, summary: &CheckSummary) -> anyhow::Result<()> {
        let config = &summary.config;
        for warning in &summary.warnings {
            eprintln!("ocelli: {config}: warning: {warning}");
        }
        for CameraProbe { camera, report } in summary.probes.iter().flatten() {
            writeln!(
                std::io::stdout(),
                "{}",
                printable(&format!("{camera}: {}", report.summary()))
            )?;
        }
        if let (true, Some(cameras), Some(models)) = (summary.good, summary.cameras, summary.models)
        {
            writeln!(std::io::stdout(), "{config}: good; cameras: {cameras}, models: {models}")?;
        }
        Ok(())
    }
}

/// A compiler with the host's own cache, if this user is the host's, else with one that goes when
/// it is dropped: what another user writes there, the host could not use.
async fn compiler(
    programs: &Programs,
    config: &Config,
) -> anyhow::Result<(Compiler, Option<TempDir>)> {
    let own = config.store.compiled();
    let mine = |about: std::fs::Metadata| about.uid() == rustix::process::geteuid().as_raw();
    let (folder, temporary) = match own.metadata().is_ok_and(mine) {
        true => (own, None),
        false => {
            let folder = tempfile::tempdir().context("making a folder for compiled components")?;
            (folder.path().to_owned(), Some(folder))
        }
    };
    let sandbox = config.session_processes.sandbox;
    let compiler =
        Compiler::new(programs.compile.clone(), &folder, sandbox, None, &config.deploy).await?;
    Ok((compiler, temporary))
}

/// What probes of all cameras say.
#[derive(Default)]
struct Probed {
    probes: Vec<CameraProbe>,
    /// Of streams that do not play, with the camera's name.
    faults: Vec<(String, ConfigProblem)>,
    warnings: Vec<String>,
}

/// Probes every stream of every camera.
async fn probe_cameras(file: &ConfigFile) -> anyhow::Result<Probed> {
    let streams = file.config.cameras.iter().enumerate().flat_map(|(index, camera)| {
        let source = Some((index, camera, "source", &camera.source));
        let substream = camera.substream.as_ref();
        source.into_iter().chain(substream.map(|stream| (index, camera, "substream", stream)))
    });
    let probed = stream::iter(streams)
        .map(|(index, camera, key, stream)| async move {
            let name = match key {
                "source" => camera.id.clone(),
                _ => format!("{} ({key})", camera.id),
            };
            eprintln!("ocelli: probing {}", printable(&name));
            let (report, _) = probe::probe(stream, PROBE_SECONDS).await?;
            anyhow::Ok((index, key, CameraProbe { camera: name, report }))
        })
        .buffered(PROBES)
        .collect::<Vec<_>>()
        .await;
    let mut all = Probed::default();
    // A substream comes behind its camera's source.
    let mut source_size = None;
    for one in probed {
        let (index, key, probe) = one?;
        if !probe.report.plays {
            let fault = file.problem(format!("cameras[{index}].{key}"), probe.report.summary());
            all.faults.push((probe.camera.clone(), fault));
        }
        let size = probe.report.size;
        let sizes = source_size.filter(|_| key == "substream").zip(size);
        let odd = sizes.and_then(|(source, size)| odd_sizes(source, size));
        all.warnings.extend(odd.map(|odd| format!("camera {}: {odd}", printable(&probe.camera))));
        source_size = size;
        all.probes.push(probe);
    }
    Ok(all)
}

/// Width and height in pixels.
type Size = (u32, u32);

/// By how much the shapes of two streams of a camera may differ, in percent: 640 x 368 is 16:9 for
/// an encoder.
const SHAPES_APART: f64 = 5.0;

/// What is odd about a substream beside a source of this size.
fn odd_sizes(main: Size, sub: Size) -> Option<String> {
    let pixels = |(width, height): Size| u64::from(width) * u64::from(height);
    let shape = |(width, height): Size| f64::from(width) / f64::from(height.max(1));
    let ((width, height), (main_width, main_height)) = (sub, main);
    let sizes = format!("{width} x {height} beside {main_width} x {main_height} of the source");
    if pixels(sub) >= pixels(main) {
        return Some(format!("{sizes}: it is not smaller, so it costs more and shows no more"));
    }
    let apart = (shape(sub) / shape(main).max(f64::MIN_POSITIVE) - 1.0).abs() * 100.0;
    (apart > SHAPES_APART).then(|| {
        format!(
            "{sizes}: another shape; boxes are stretched over the source's picture, which is right \
             only if both show the same scene: compare them"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_substream_is_smaller_and_of_the_same_shape() {
        assert_eq!(odd_sizes((1920, 1080), (640, 360)), None);
        assert_eq!(odd_sizes((1920, 1080), (640, 368)), None, "rounded up by its encoder");
        let odd = |sub| odd_sizes((1920, 1080), sub).unwrap_or_default();
        assert!(odd((704, 576)).contains("another shape"), "{}", odd((704, 576)));
        assert!(odd((1920, 1080)).contains("not smaller"));
        assert!(odd((2560, 1440)).contains("2560 x 1440 beside 1920 x 1080"));
        assert!(odd_sizes((0, 0), (1, 0)).is_some());
    }
}
