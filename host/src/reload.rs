//! The config while the host runs: read again when SIGHUP asks for it or the file was edited, and
//! applied if it has no errors; changed where the API asks for it and the operator allows that.

mod editor;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::config::edit::EditError;
use crate::config::{Camera, ConfigError, ConfigFile, ShownProblem};
use crate::deploy::{Applied, Deployer};
use crate::preflight::{self, Finding};
use crate::util::watch::{FileStamp, Watch};
use crate::worker::Programs;

pub(crate) use editor::ConfigEditor;
use editor::EditRequest;

/// Listens for reasons to read the config again.
pub(crate) struct ConfigReloader {
    path: PathBuf,
    hangup: Signal,
    edits: mpsc::Receiver<EditRequest>,
}

impl ConfigReloader {
    /// From here on SIGHUP no longer ends the process: one that comes before
    /// [`run`](Self::run) takes effect then.
    pub(crate) fn new(path: &Path) -> anyhow::Result<(Self, ConfigEditor)> {
        let hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        let (editor, edits) = ConfigEditor::new(path);
        Ok((Self { path: path.to_owned(), hangup, edits }, editor))
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
                Some((edit, reply)) = self.edits.recv() => {
                    let mut done = editor::write(&self.path, &deployer, &edit).await;
                    if done.is_ok() {
                        let cause = format!("{} over the API", edit.by);
                        let applied = reload(&self.path, &deployer, &cause, false).await;
                        done = applied.map_err(EditError::NotApplied);
                    }
                    // The client may have gone away.
                    let _ = reply.send(done);
                    continue;
                }
            };
            let quiet = !asked && std::mem::take(&mut first);
            let cause = if asked { "SIGHUP" } else { "edited" };
            // Whoever asks hears of problems from the log, the metrics and `GET /v1/config`.
            let _ = reload(&self.path, &deployer, cause, quiet).await;
        }
    }
}

/// Said of a config that changes nothing.
const KEPT: &str = "the config is not applied, everything runs on as before";

/// Reads the config, checks what it names, and applies it. `quiet`: does not log that nothing has
/// changed. The error is why it is not applied; it has been logged.
async fn reload(
    path: &Path,
    deployer: &Deployer,
    cause: &str,
    quiet: bool,
) -> Result<(), Vec<ShownProblem>> {
    let owned = path.to_owned();
    // On a thread of its own: a network file system may take its time.
    let looked = tokio::task::spawn_blocking(move || {
        let file = read(&owned)?;
        let findings = preflight::files(&file);
        Ok((Arc::new(file), findings))
    });
    let (file, mut findings) = match looked.await {
        Ok(Ok(looked)) => looked,
        Ok(Err(error)) => {
            log_problems(&error, cause);
            deployer.refuse_config(cause, error.problems());
            return Err(error.problems());
        }
        Err(error) => {
            tracing::error!("reading the config: {error}");
            return Err(Vec::new());
        }
    };
    findings.extend(components(&file, deployer).await);
    let problems: Vec<ShownProblem> = findings.iter().map(|finding| finding.shown(&file)).collect();
    // A camera whose entry does not do goes on as it was; the others follow the config.
    let of_host = |finding: &Finding| finding.camera.is_none() && finding.stops_start;
    if findings.iter().any(of_host) {
        log_all(path, cause, &problems);
        deployer.refuse_config(cause, problems.clone());
        return Err(problems);
    }
    for problem in &problems {
        tracing::error!("{}: {problem}", path.display());
    }
    let running = deployer.config();
    for warning in
        file.config.warnings().into_iter().filter(|warning| !running.warnings().contains(warning))
    {
        tracing::warn!("{warning}");
    }
    let applied = deployer.apply(file.config.clone(), problems).await;
    let touched =
        Applied { untouched: 0, ..applied } != Applied::default() || *running != *deployer.config();
    if touched || !quiet {
        tracing::info!(cause, config = %path.display(), "config applied; {applied}");
    }
    Ok(())
}

/// The faults of components and settings, of cameras whose entries have changed, or that do not run
/// as theirs say.
async fn components(file: &ConfigFile, deployer: &Deployer) -> Vec<Finding> {
    let running = deployer.config();
    let drifts = deployer.drifts();
    let changed =
        |camera: &Camera| !running.cameras.contains(camera) || drifts.contains_key(&camera.id);
    match Programs::find() {
        Ok(programs) => {
            let compiler = deployer.compiler();
            preflight::components(&compiler, &programs.worker, file, changed, None).await
        }
        // The cameras' own start says so.
        Err(_) => Vec::new(),
    }
}

/// Reads a config that is to take the place of another. A file of nothing but blanks is an error: a
/// full disk, a broken tool or a slip of an editor leaves one, and it would end every camera. A
/// config without cameras has at least a comment.
fn read(path: &Path) -> Result<ConfigFile, ConfigError> {
    let blank = |text: String| text.chars().all(|c| c.is_whitespace() || c == '\u{feff}');
    if std::fs::read_to_string(path).is_ok_and(blank) {
        let source =
            std::io::Error::other("the file is empty; a config without cameras has a comment");
        return Err(ConfigError::Unreadable { path: path.to_owned(), source });
    }
    ConfigFile::load(path)
}

/// Logs every problem in a line of its own.
fn log_problems(error: &ConfigError, cause: &str) {
    match error {
        ConfigError::Invalid { path, .. } => log_all(path, cause, &error.problems()),
        // The error's own text says how to make a first config.
        ConfigError::Missing { path } => {
            tracing::error!(cause, "{KEPT}: {}: no such file", path.display());
        }
        error => tracing::error!(cause, "{KEPT}: {error}"),
    }
}

fn log_all(path: &Path, cause: &str, problems: &[ShownProblem]) {
    tracing::error!(cause, config = %path.display(), problems = problems.len(), "{KEPT}");
    for problem in problems {
        tracing::error!("{}: {problem}", path.display());
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
            let error = read(&path).err().unwrap().to_string();
            assert!(error.contains("empty") && error.contains("ocelli.toml"), "{blank:?}: {error}");
        }
        std::fs::write(&path, "# no cameras\n").unwrap();
        assert!(read(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&path), Err(ConfigError::Missing { .. })));
    }
}
