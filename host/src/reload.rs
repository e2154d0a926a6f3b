//! The config while the host runs: read again when SIGHUP or the API asks for it or one of its
//! files was edited, and applied if it has no errors; changed where the API asks for it and the
//! operator allows that.

mod editor;
mod fitting;
mod made;
mod site_cameras;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use crate::cluster::{OwnedCameras, OwnedFeed};
use crate::config::edit::EditError;
use crate::config::{Camera, CamerasPlace, ConfigError, ConfigFile, ShownProblem};
use crate::deploy::{Deployer, ReloadReport};
use crate::preflight::{self, Finding};
use crate::util::watch::{FileStamp, Watch};
use crate::worker::Programs;

pub(crate) use editor::ConfigEditor;
use editor::ConfigRequest;
use fitting::{Fitting, Unfit};
pub(crate) use made::MakeError;
pub(crate) use site_cameras::SiteCameras;

/// Listens for reasons to read the config again.
pub(crate) struct ConfigReloader {
    files: ConfigFiles,
    hangup: Signal,
    asked: mpsc::Receiver<ConfigRequest>,
    /// The site's cameras that this host has to run.
    owned: OwnedFeed,
}

/// The files of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
struct ConfigFiles {
    config: PathBuf,
    /// The file of cameras, if the config in force names one.
    cameras: Option<PathBuf>,
    /// Whether it was there when the config was applied.
    has_cameras: bool,
    /// A file of cameras for which a config was refused that names it.
    faulty: Option<PathBuf>,
    /// The text of the config that is in force.
    text: Arc<str>,
    /// The cameras of the site that are this host's.
    site: OwnedCameras,
    /// Those of them that this host cannot run with its config.
    unfit: Unfit,
}

impl ConfigFiles {
    fn of(file: &ConfigFile) -> Self {
        Self {
            config: file.path.clone(),
            cameras: file.config.server.cameras_file.clone(),
            has_cameras: file.has_cameras_file,
            faulty: None,
            text: Arc::clone(&file.text),
            site: OwnedCameras::default(),
            unfit: BTreeMap::new(),
        }
    }

    /// Notices edits of each.
    fn watch(&self) -> Watch<Vec<FileStamp>> {
        let all = self.all();
        Watch::new(move || all.iter().map(|path| FileStamp::of(path)).collect())
    }

    fn all(&self) -> Vec<PathBuf> {
        let others = self.cameras.iter().chain(&self.faulty);
        std::iter::once(&self.config).chain(others).cloned().collect()
    }

    /// Takes down what a config was refused for.
    fn note_faulty(&mut self, problems: &[ShownProblem]) {
        let known = self.all();
        let files = problems.iter().map(|problem| PathBuf::from(&problem.file));
        self.faulty = files.into_iter().find(|file| !known.contains(file)).or(self.faulty.take());
    }
}

impl ConfigReloader {
    /// From here on SIGHUP no longer ends the process: one that comes before
    /// [`run`](Self::run) takes effect then.
    pub(crate) fn new(file: &ConfigFile) -> anyhow::Result<(Self, ConfigEditor)> {
        let hangup = signal(SignalKind::hangup()).context("listening for SIGHUP")?;
        let (editor, asked) = ConfigEditor::new(&file.path);
        Ok((Self { files: ConfigFiles::of(file), hangup, asked, owned: OwnedFeed::none() }, editor))
    }

    /// Has the config follow the cameras of a site.
    pub(crate) fn follow(&mut self, owned: OwnedFeed) {
        self.owned = owned;
    }

    /// Applies the config whenever there is a reason to. Never returns; may be dropped at any time.
    pub(crate) async fn run(mut self, deployer: Deployer) {
        let mut watch = self.files.watch();
        let mut watched = self.files.all();
        // The first report is of the files as they were when they were read, unless they were
        // edited since.
        let mut first = true;
        loop {
            if watched != self.files.all() {
                watch = self.files.watch();
                watched = self.files.all();
                first = true;
            }
            let cause = tokio::select! {
                _ = self.hangup.recv() => "SIGHUP",
                () = watch.changed() => "edited",
                cameras = self.owned.changed() => {
                    self.files.site = cameras;
                    SITE
                }
                Some(asked) = self.asked.recv() => {
                    self.answer(asked, &deployer).await;
                    continue;
                }
            };
            let quiet = cause == "edited" && std::mem::take(&mut first);
            // Whoever asks hears of problems from the log, the metrics and `GET /v1/config`.
            if reload(&mut self.files, &deployer, cause, quiet).await.is_ok() {
                self.owned.note_applied(&self.files.site, fitting::words(&self.files.unfit));
            }
        }
    }

    /// Does what the API asks for. The client may go away meanwhile.
    async fn answer(&mut self, asked: ConfigRequest, deployer: &Deployer) {
        match asked {
            ConfigRequest::Edit(edit, reply) => {
                let mut done = editor::write(&self.files.config, deployer, &edit).await;
                if done.is_ok() {
                    let cause = format!("{} over the API", edit.by);
                    let applied = reload(&mut self.files, deployer, &cause, false).await;
                    done = applied.map(drop).map_err(EditError::NotApplied);
                }
                let _ = reply.send(done);
            }
            ConfigRequest::Reload(by, reply) => {
                let cause = format!("{by} over the API");
                let applied = reload(&mut self.files, deployer, &cause, false).await;
                let _ = reply.send(applied.map_err(EditError::Refused));
            }
        }
    }
}

/// Why a config is read again whose host has got other cameras of the site.
const SITE: &str = "the site";

/// Said of a config that changes nothing.
const KEPT: &str = "the config is not applied, everything runs on as before";

/// Reads the config, checks what it names, and applies it. `quiet`: does not log that nothing has
/// changed. The error is why it is not applied; it has been logged. The site's cameras come to the
/// config that is in force, whatever has become of its file.
async fn reload(
    files: &mut ConfigFiles,
    deployer: &Deployer,
    cause: &str,
    quiet: bool,
) -> Result<ReloadReport, Vec<ShownProblem>> {
    let (known, of_site) = (files.clone(), cause == SITE);
    // On a thread of its own: a network file system may take its time.
    let looked = tokio::task::spawn_blocking(move || {
        let (mut file, mut unfit) =
            if of_site { fitting::in_force(&known)? } else { read(&known)? };
        unfit.append(&mut made::admit(&mut file, &known.site));
        let findings = preflight::files(&file);
        Ok((Arc::new(file), unfit, findings))
    });
    let (file, unfit, mut findings) = match looked.await {
        Ok(Ok(looked)) => looked,
        Ok(Err(error)) => {
            log_problems(&error, cause);
            let problems = error.problems();
            files.note_faulty(&problems);
            deployer.refuse_config(cause, problems.clone());
            return Err(problems);
        }
        Err(error) => {
            tracing::error!("reading the config: {error}");
            return Err(Vec::new());
        }
    };
    findings.extend(components(&file, deployer).await);
    let shown = findings.iter().map(|finding| finding.shown(&file));
    let problems: Vec<ShownProblem> = shown.chain(fitting::shown(&unfit)).collect();
    // A camera whose entry does not do goes on as it was; the others follow the config.
    let of_host = |finding: &Finding| finding.camera.is_none() && finding.stops_start;
    if !of_site && findings.iter().any(of_host) {
        log_all(&files.config, cause, &problems);
        deployer.refuse_config(cause, problems.clone());
        return Err(problems);
    }
    for problem in &problems {
        tracing::error!("{}: {problem}", problem.file);
    }
    let running = deployer.config();
    for warning in
        file.config.warnings().into_iter().filter(|warning| !running.warnings().contains(warning))
    {
        tracing::warn!("{warning}");
    }
    let faulty = if of_site { files.faulty.take() } else { None };
    *files = ConfigFiles { faulty, site: files.site.clone(), unfit, ..ConfigFiles::of(&file) };
    let stands = if of_site { deployer.config_status().refused } else { None };
    let report = deployer.apply(file.config.clone(), problems, stands).await;
    let touched = report.cameras.has_touched() || *running != *deployer.config();
    if touched || !quiet {
        let cameras = &report.cameras;
        tracing::info!(cause, config = %files.config.display(), "config applied; {cameras}");
    }
    Ok(report)
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
/// config without cameras has at least a comment. So is a file of cameras that was there before.
fn read(known: &ConfigFiles) -> Result<(ConfigFile, Unfit), ConfigError> {
    let text = ConfigFile::read(&known.config)?;
    if is_blank(&text) {
        return Err(blank(&known.config));
    }
    // A change of the config ends no camera that goes with the one in force.
    let may_go = |camera: &str| known.unfit.contains_key(camera);
    let (file, unfit) = Fitting { known, text: &text, may_go: &may_go }.read(|place| {
        let text = ConfigFile::read_cameras(place)?;
        match place {
            CamerasPlace::File(path) if text.as_deref().is_some_and(is_blank) => Err(blank(path)),
            _ => Ok(text),
        }
    })?;
    let cameras = &file.config.server.cameras_file;
    if let Some(path) = cameras
        && known.has_cameras
        && *cameras == known.cameras
        && !file.has_cameras_file
    {
        let source =
            std::io::Error::other("the file of cameras is gone; one without cameras has a comment");
        return Err(ConfigError::Unreadable { path: path.clone(), source });
    }
    Ok((file, unfit))
}

fn is_blank(text: &str) -> bool {
    text.chars().all(|c| c.is_whitespace() || c == '\u{feff}')
}

fn blank(path: &Path) -> ConfigError {
    let source = std::io::Error::other("the file is empty; a config without cameras has a comment");
    ConfigError::Unreadable { path: path.to_owned(), source }
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
        tracing::error!("{}: {problem}", problem.file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_no_config_to_go_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ocelli.toml");
        let known = ConfigFiles {
            config: path.clone(),
            cameras: None,
            has_cameras: false,
            faulty: None,
            text: "".into(),
            site: OwnedCameras::default(),
            unfit: BTreeMap::new(),
        };
        for blank in ["", "\n", " \t\r\n\n", "\u{feff}", "\u{feff}\n  "] {
            std::fs::write(&path, blank).unwrap();
            let error = read(&known).err().unwrap().to_string();
            assert!(error.contains("empty") && error.contains("ocelli.toml"), "{blank:?}: {error}");
        }
        std::fs::write(&path, "# no cameras\n").unwrap();
        assert!(read(&known).is_ok());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(read(&known), Err(ConfigError::Missing { .. })));
    }

    #[test]
    fn a_file_of_cameras_that_was_there_neither_goes_nor_becomes_empty() {
        let folder = tempfile::tempdir().unwrap();
        let (path, cameras) = (folder.path().join("o.toml"), folder.path().join("cameras.toml"));
        let text = "[server]\ncameras_file = \"cameras.toml\"\n";
        std::fs::write(&path, text).unwrap();
        let known = |has_cameras| ConfigFiles {
            config: path.clone(),
            cameras: Some(cameras.clone()),
            has_cameras,
            faulty: None,
            text: text.into(),
            site: OwnedCameras::default(),
            unfit: BTreeMap::new(),
        };
        std::fs::write(&cameras, "[[cameras]\n").unwrap();
        let error = read(&known(false)).err().unwrap();
        let mut first = ConfigFiles { cameras: None, ..known(false) };
        first.note_faulty(&error.problems());
        assert_eq!(
            first.all(),
            [path.clone(), cameras.clone()],
            "it is watched until it is mended"
        );
        std::fs::remove_file(&cameras).unwrap();
        assert_eq!(ConfigFiles::of(&read(&known(false)).ok().unwrap().0), known(false));
        let gone = read(&known(true)).err().unwrap().to_string();
        assert!(gone.contains("cameras.toml") && gone.contains("gone"), "{gone}");
        std::fs::write(&cameras, "\n").unwrap();
        for has_cameras in [false, true] {
            let empty = read(&known(has_cameras)).err().unwrap().to_string();
            assert!(empty.contains("cameras.toml") && empty.contains("empty"), "{empty}");
        }
        std::fs::write(&cameras, "# none\n").unwrap();
        assert_eq!(ConfigFiles::of(&read(&known(false)).ok().unwrap().0), known(true));
    }
}
