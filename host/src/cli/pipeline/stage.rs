//! What `ocelli pipeline run` and `ocelli pipeline test` need to run a pipeline: the player with the
//! limits and models of a config, or of the defaults, and the log.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value};
use tempfile::TempDir;

use crate::config::Config;
use crate::config::source::{FileSource, Pace};
use crate::inference::catalog::Catalog;
use crate::playback::{Footage, Player};
use crate::telemetry::init_console;
use crate::util::folder::{Folder, open_regular};

/// What is logged with `--log` where no variable says otherwise: what pipelines say, and what goes
/// wrong beside them.
const LOGGED: &str = "warn,ocelli::pipeline=debug";

/// Where a pipeline runs.
#[derive(Args)]
pub(super) struct StageArgs {
    /// The folder of the models. Left out: that of the config, or `models`.
    #[arg(long, value_name = "DIR")]
    models: Option<PathBuf>,
    /// Take limits, models and the path of ONNX Runtime from this config. Left out: the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the pipeline's log on standard error.
    #[arg(long)]
    log: bool,
}

/// A player, and the folder of compiled components where it is a temporary one.
pub(super) struct PlayStage {
    pub(super) player: Player,
    /// Bytes of shared memory that a pipeline has for tensors.
    pub(super) tensor_memory: u64,
    _cache: Option<TempDir>,
}

impl StageArgs {
    pub(super) async fn stage(&self) -> anyhow::Result<PlayStage> {
        if self.log {
            init_console(LOGGED)?;
        }
        let mut config = match &self.config {
            Some(path) => Config::load(path)?,
            None => Config::from_text(Path::new("the defaults"), "", &[])?,
        };
        let is_named = self.models.is_some() || self.config.is_some();
        if let Some(models) = &self.models {
            config.models.directory.clone_from(models);
        }
        let directory = &config.models.directory;
        let models = match is_named || directory.is_dir() {
            true => Catalog::load(directory, &config.inference)?,
            // A pipeline that needs one says so.
            false => Catalog::default(),
        };
        let (cache, temporary) = match user_cache() {
            Some(cache) => (cache, None),
            None => {
                let folder = tempfile::tempdir().context("making a folder for compiled code")?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let tensor_memory = u64::from(config.resource_limits.tensor_memory_mb) << 20;
        let player = Player::new(config, &models, &cache).await?;
        Ok(PlayStage { player, tensor_memory, _cache: temporary })
    }
}

/// The user's own folder of compiled components: to compile one in Python takes half a minute.
fn user_cache() -> Option<PathBuf> {
    let variable =
        |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("OCELLI_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("ocelli")))
        .or_else(|| variable("HOME").map(|home| home.join(".cache/ocelli")));
    Some(cache?.join("compiled"))
}

/// The settings of a pipeline: a JSON object, or a file that holds one.
pub(super) fn settings(given: Option<&str>) -> anyhow::Result<Map<String, Value>> {
    let Some(given) = given else { return Ok(Map::new()) };
    if given.trim_start().starts_with('{') {
        return serde_json::from_str(given).context("--settings: not a JSON object");
    }
    let text = std::fs::read_to_string(given).with_context(|| format!("--settings: {given}"))?;
    serde_json::from_str(&text).with_context(|| format!("--settings: {given}: no JSON object"))
}

/// A video file as footage. Fails where there is none.
pub(super) fn video(path: &Path) -> anyhow::Result<Footage> {
    open_regular(path).with_context(|| path.display().to_string())?;
    let source =
        FileSource { path: path.to_owned(), pace: Pace::AsFast, repeat: false, beneath: None };
    Ok(Footage::Video(source))
}

/// The pictures of a folder as footage, so many in a second.
pub(super) fn pictures(path: &Path, rate: f64) -> anyhow::Result<Footage> {
    let folder = path.canonicalize().and_then(|path| Folder::open(&path));
    Footage::pictures(folder.with_context(|| path.display().to_string())?, rate)
}

/// Does the work of a command that starts children. Ctrl-C ends it as an error does: what it has
/// begun to write goes.
pub(super) fn run_to_end(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // Children die with the thread that starts them: one that lasts.
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("starting the runtime")?;
    let done = runtime.block_on(async {
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        }
    });
    // The children end with this process.
    runtime.shutdown_background();
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_an_object_or_in_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.json");
        std::fs::write(&file, r#"{"score": 0.5}"#).unwrap();
        assert!(settings(None).unwrap().is_empty());
        for given in [r#" {"score": 0.5}"#, file.to_str().unwrap()] {
            assert_eq!(settings(Some(given)).unwrap()["score"], 0.5, "{given}");
        }
        std::fs::write(&file, "[1]").unwrap();
        for given in ["{", "none.json", file.to_str().unwrap()] {
            let error = format!("{:#}", settings(Some(given)).unwrap_err());
            assert!(error.starts_with("--settings: "), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
    }
}
