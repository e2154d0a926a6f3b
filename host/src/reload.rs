//! The config while the host runs: read again when SIGHUP asks for it or the file was edited, and
//! applied if it has no errors.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{Config, ConfigError};
use crate::deploy::{Applied, Deployer};
use crate::util::watch::{FileStamp, Watch};

/// Listens for reasons to read the config again.
pub(crate) struct ConfigReloader {
    path: PathBuf,
    hangup: Signal,
}

impl ConfigReloader {
    /// From here on SIGHUP no longer ends the process: one that comes before
    /// [`run`](Self::run) takes effect then.
    pub(crate) fn new(path: &Path) -> anyhow::Result<Self> {
        let hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        Ok(Self { path: path.to_owned(), hangup })
    }

    /// Applies the config whenever there is a reason to. Never returns; may be dropped at any time.
    pub(crate) async fn run(mut self, deployer: Deployer) {
        let mut watch = Watch::new({
            let path = self.path.clone();
            move || FileStamp::of(&path)
        });
        // The first report is of the file that the host was started with, unless it was edited
        // since.
        let mut first = true;
        loop {
            let asked = tokio::select! {
                _ = self.hangup.recv() => true,
                () = watch.changed() => false,
            };
            let quiet = !asked && std::mem::take(&mut first);
            reload(&self.path, &deployer, if asked { "SIGHUP" } else { "edited" }, quiet).await;
        }
    }
}

/// Reads the config and applies it. `quiet`: does not log that nothing has changed.
async fn reload(path: &Path, deployer: &Deployer, cause: &str, quiet: bool) {
    let owned = path.to_owned();
    // On a thread of its own: a network file system may take its time.
    let read = tokio::task::spawn_blocking(move || read(&owned)).await;
    let wanted = match read {
        Ok(Ok(wanted)) => wanted,
        Ok(Err(error)) => return log_problems(&error, cause),
        Err(error) => {
            tracing::error!("reading the config: {error}");
            return;
        }
    };
    let running = deployer.config();
    for warning in
        wanted.warnings().into_iter().filter(|warning| !running.warnings().contains(warning))
    {
        tracing::warn!("{warning}");
    }
    let applied = deployer.apply(wanted).await;
    let touched =
        Applied { untouched: 0, ..applied } != Applied::default() || *running != *deployer.config();
    if touched || !quiet {
        tracing::info!(cause, config = %path.display(), "config applied; {applied}");
    }
}

/// Reads a config that is to take the place of another. A file of nothing but blanks is an error: a
/// full disk, a broken tool or a slip of an editor leaves one, and it would end every camera. A
/// config without cameras has at least a comment.
fn read(path: &Path) -> Result<Config, ConfigError> {
    let blank = |text: String| text.chars().all(|c| c.is_whitespace() || c == '\u{feff}');
    if std::fs::read_to_string(path).is_ok_and(blank) {
        let source =
            std::io::Error::other("the file is empty; a config without cameras has a comment");
        return Err(ConfigError::Unreadable { path: path.to_owned(), source });
    }
    Config::load(path)
}

/// Logs every problem in a line of its own.
fn log_problems(error: &ConfigError, cause: &str) {
    const KEPT: &str = "the config is not applied, everything runs on as before";
    match error {
        ConfigError::Invalid { path, problems } => {
            tracing::error!(cause, config = %path.display(), problems = problems.len(), "{KEPT}");
            for problem in problems {
                tracing::error!("{}: {problem}", path.display());
            }
        }
        // The error's own text says how to make a first config.
        ConfigError::Missing { path } => {
            tracing::error!(cause, "{KEPT}: {}: no such file", path.display());
        }
        error => tracing::error!(cause, "{KEPT}: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_no_config_to_go_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ocelli.toml");
        for blank in ["", "\n", " \t\r\n\n", "\u{feff}", "\u{feff}\n  "] {
            std::fs::write(&path, blank).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("empty") && error.contains("ocelli.toml"), "{blank:?}: {error}");
        }
        std::fs::write(&path, "# no cameras\n").unwrap();
        assert_eq!(read(&path).unwrap(), Config::load(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(ConfigError::Missing { .. })));
    }
}
