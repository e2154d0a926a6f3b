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
                    .map(|problem| printable(&problem.to_string()))
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
        let mut probes = None;
        if self.probe {
            let (seen, faults) = probe_cameras(file).await?;
            probes = Some(seen);
            problems.extend(
                faults.into_iter().map(|(camera, fault)| fault.shown(&file.path, Some(&camera))),
            );
        }
        problems.sort_by_key(|problem| problem.line);
        Ok(CheckSummary {
            config: file.path.display().to_string(),
            good: problems.is_empty(),
            problems,
            warnings: config.warnings(),
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

/// Probes every camera. Also gives the faults of those that do not play.
async fn probe_cameras(
    file: &ConfigFile,
) -> anyhow::Result<(Vec<CameraProbe>, Vec<(String, ConfigProblem)>)> {
    let probed = stream::iter(file.config.cameras.iter().enumerate())
        .map(|(index, camera)| async move {
            eprintln!("ocelli: probing {}", printable(&camera.id));
            let (report, _) = probe::probe(&camera.source, PROBE_SECONDS).await?;
            anyhow::Ok((index, CameraProbe { camera: camera.id.clone(), report }))
        })
        .buffered(PROBES)
        .collect::<Vec<_>>()
        .await;
    let (mut probes, mut faults) = (Vec::new(), Vec::new());
    for one in probed {
        let (index, probe) = one?;
        if !probe.report.plays {
            let fault = file.problem(format!("cameras[{index}].source"), probe.report.summary());
            faults.push((probe.camera.clone(), fault));
        }
        probes.push(probe);
    }
    Ok((probes, faults))
}
