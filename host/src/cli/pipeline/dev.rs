//! `ocelli pipeline dev`: each change of a project is built and deployed to a session of a running
//! host, whose log and results are shown meanwhile.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use clap::Args;
use ocelli_client::{Client, Component, Deploy, Error, Message, Request, Session, Subscribe};
use ocelli_protocol::digest::Digest;
use serde_json::{Map, Value};

use super::super::deployments::{handover, lasts, print_answer, settings};
use super::super::host::{HostArgs, block_on, followed_deployment};
use super::super::logs::{LogReader, shown};
use super::super::table::printable;
use super::super::watch::Rate;
use super::super::words::line;
use super::build::{build, in_units};
use super::project::Project;
use crate::util::watch::{FileStamp, Watch};

/// Between two detections that are shown: somebody reads along, and the log stands between them.
const SHOW_DETECTIONS: Duration = Duration::from_secs(1);

/// Before a host that did not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Files of a project that are looked at. A poll of so many takes some ten milliseconds; what lies
/// beyond is built with the next change.
const MAX_FILES: usize = 10_000;

/// Folders and files that builds write.
const BUILT: &[&str] = &[
    "Cargo.lock",
    "__pycache__",
    "build",
    "dist",
    "node_modules",
    "package-lock.json",
    "target",
    "venv",
];

/// See the module's documentation.
#[derive(Args)]
pub(in crate::cli) struct PipelineDevCommand {
    /// The project's folder.
    #[arg(value_name = "DIR", default_value = ".")]
    folder: PathBuf,
    /// The session of the running host that gets the pipeline.
    #[arg(long)]
    session: String,
    /// End when the pipeline has passed its probation; status 1 if it has not.
    #[arg(long)]
    once: bool,
    /// The running version's state: "keep" it, or start "fresh". Left out: as the host's config
    /// says.
    #[arg(long, value_parser = ["keep", "fresh"])]
    state: Option<String>,
    /// The pipeline's settings. Left out: those that the session has, or over another pipeline the
    /// defaults.
    #[arg(long, value_name = "JSON", value_parser = settings)]
    settings: Option<Map<String, Value>>,
    #[command(flatten)]
    host: HostArgs,
}

impl PipelineDevCommand {
    /// Goes on until Ctrl-C, or what `--once` says.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let project = Arc::new(Project::open(&self.folder)?);
        let client = self.host.client()?;
        block_on(async {
            // Before a build, which may take a minute.
            client.session(&self.session).await.map_err(|error| self.failed(error))?;
            let failed = tokio::select! {
                ended = self.rounds(&project, &client) => return ended,
                error = self.show_log(&client) => error,
                error = self.show_results(&client) => error,
            };
            Err(self.failed(failed))
        })?
    }

    async fn rounds(&self, project: &Arc<Project>, client: &Client) -> anyhow::Result<()> {
        let folder = project.folder.clone();
        let mut watch = Watch::new(move || stamps(&folder));
        let mut deployed = None;
        loop {
            watch.changed().await;
            let done = self.round(project, client, &mut deployed).await;
            if self.once {
                return done;
            }
            if let Err(error) = done {
                eprintln!("ocelli: {error:#}");
            }
            eprintln!("ocelli: waiting for a change in {}", project.folder.display());
        }
    }

    /// Builds and deploys. `deployed` is the component that runs, if it is one of this project.
    async fn round(
        &self,
        project: &Arc<Project>,
        client: &Client,
        deployed: &mut Option<Digest>,
    ) -> anyhow::Result<()> {
        eprintln!("ocelli: building {}", project.name);
        let building = Arc::clone(project);
        let built = tokio::task::spawn_blocking(move || build(&building)).await;
        let component = built.context("the build")??;
        let bytes = std::fs::read(&component).with_context(|| component.display().to_string())?;
        let (digest, size) = (Digest::of(&bytes), in_units(bytes.len() as u64));
        if *deployed == Some(digest) {
            eprintln!("ocelli: the component is as it was, and is not deployed again");
            return Ok(());
        }
        eprintln!("ocelli: built {size}; deploying to {}", printable(&self.session));
        let deploy = Deploy {
            component: Component::File { name: Some(project.name.clone()), bytes: bytes.into() },
            shadow: 0,
            shadow_only: false,
            threshold: None,
            state: self.state.as_deref().map(handover),
            settings: self.settings_for(project, client).await?,
        };
        let request = Request::deploy(&self.session, &deploy);
        let answer = match followed_deployment(client, &self.session, &request, true).await {
            Ok(record) => Ok(record),
            Err(error) => Err(self.host.refused(error)?),
        };
        *deployed = answer.as_ref().is_ok_and(lasts).then_some(digest);
        print_answer(&self.session, &self.host, answer, "")
    }

    /// The settings that are sent: those that were given; else none over a version of this project,
    /// so that the session's stay, and `{}` over another pipeline: its settings mean nothing here.
    async fn settings_for(
        &self,
        project: &Project,
        client: &Client,
    ) -> anyhow::Result<Option<Map<String, Value>>> {
        if self.settings.is_some() {
            return Ok(self.settings.clone());
        }
        let session = client.session(&self.session).await.map_err(|error| self.failed(error))?;
        Ok((!runs(&session, &project.name)).then(Map::new))
    }

    /// Prints what the session logs from now on, until it cannot be read.
    async fn show_log(&self, client: &Client) -> Error {
        let mut log = LogReader::new(client, &self.session, 1);
        let mut past = true;
        loop {
            let part = if past { log.next().await } else { log.following().await };
            match part {
                Ok(_) if past => past = false,
                Ok(part) => {
                    if part.missed {
                        eprintln!("ocelli: lines of the log are missing here");
                    }
                    for line in &part.lines {
                        // Where nobody reads along, the project is still built and deployed.
                        let _ = writeln!(io::stdout(), "{}", shown(line));
                    }
                }
                Err(error) if error.is_transient() => tokio::time::sleep(ASK_AGAIN).await,
                Err(error) => return error,
            }
        }
    }

    /// Prints events and changes of state, and of the detections one in a second, until the host
    /// refuses them.
    async fn show_results(&self, client: &Client) -> Error {
        let mut subscriber = client.subscriber();
        subscriber.subscribe(Subscribe::to(&self.session)).await;
        let (mut rate, mut last) = (Rate::default(), None::<Instant>);
        loop {
            let message = match subscriber.next().await {
                Ok(message) => message,
                // The next call connects again, after a pause.
                Err(error) if error.is_transient() => continue,
                Err(error) => return error,
            };
            let mut per_second = None;
            if matches!(message, Message::Detections(_)) {
                let now = Instant::now();
                per_second = Some(rate.count(now));
                if last.is_some_and(|last| now.duration_since(last) < SHOW_DETECTIONS) {
                    continue;
                }
                last = Some(now);
            }
            if let Some(line) = line(&message, per_second) {
                let _ = writeln!(io::stdout(), "{}", printable(&line));
            }
        }
    }

    fn failed(&self, error: Error) -> anyhow::Error {
        let problem = match self.host.refused(error) {
            Ok(problem) => problem,
            Err(error) => return error,
        };
        let (session, detail) = (printable(&self.session), printable(&problem.detail));
        if problem.status == 404 {
            return anyhow!("{session}: {detail}; `ocelli sessions` lists those that there are");
        }
        anyhow!("{session}: {detail}")
    }
}

/// Whether a session runs a version of the pipeline of this name.
fn runs(session: &Session, name: &str) -> bool {
    let version = session.more.get("pipeline_version").and_then(Value::as_str);
    version.and_then(|version| version.rsplit_once(' ')).is_some_and(|(runs, _)| runs == name)
}

/// The files of a project as they are now, but what builds write and what is hidden.
fn stamps(folder: &Path) -> BTreeMap<PathBuf, FileStamp> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // A folder that goes meanwhile has no files.
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            // `.cargo` has flags of the compiler.
            let hidden = name.starts_with('.') && name != ".cargo";
            if hidden || BUILT.contains(&name.as_ref()) || found.len() >= MAX_FILES {
                continue;
            }
            // A link to a folder is not followed: it may lead back.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            } else {
                found.insert(entry.path(), FileStamp::of(&entry.path()));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_looked_at_and_what_builds_write_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "x").unwrap();
        };
        write("src/lib.rs");
        let before = stamps(folder.path());
        assert_eq!(before.len(), 1);
        for built in ["target/release/x.wasm", "Cargo.lock", "build/x.wasm", ".venv/bin/python"] {
            write(built);
        }
        write("src/.lib.rs.swp");
        std::os::unix::fs::symlink(folder.path(), folder.path().join("around")).unwrap();
        let files: Vec<_> = stamps(folder.path()).into_keys().collect();
        assert_eq!(files, [folder.path().join("around"), folder.path().join("src/lib.rs")]);
        for (count, path) in [(3, ".cargo/config.toml"), (4, "src/a/b.rs")] {
            write(path);
            assert_eq!(stamps(folder.path()).len(), count);
        }
        std::fs::remove_file(folder.path().join("around")).unwrap();
        std::fs::remove_file(folder.path().join("src/lib.rs")).unwrap();
        assert_ne!(stamps(folder.path()), before);
    }

    #[test]
    fn another_pipelines_settings_are_not_kept() {
        let session = |version: Value| {
            let session = serde_json::json!({"id": "gate", "state": "running", "reason": null,
                "pid": null, "source": "file:a", "pipeline": "a", "deployment": "0a", "restarts": 0,
                "last_error": null, "results": 0, "events": 0, "pipeline_version": version});
            serde_json::from_value::<Session>(session).unwrap()
        };
        assert!(runs(&session("gate-watch 0.1.0".into()), "gate-watch"));
        assert!(!runs(&session("gate 0.1.0".into()), "gate-watch"));
        assert!(!runs(&session(Value::Null), "gate-watch"), "it has not described itself yet");
    }

    #[test]
    fn a_session_that_is_not_there_is_told_before_anything_is_built() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("Cargo.toml"), "[package]\nname = \"a\"\n").unwrap();
        let dev = PipelineDevCommand {
            folder: folder.path().to_owned(),
            session: "gate".into(),
            once: true,
            state: None,
            settings: None,
            host: HostArgs::for_url("http://127.0.0.1:1"),
        };
        let error = format!("{:#}", dev.run().unwrap_err());
        assert!(error.contains("http://127.0.0.1:1"), "{error}");
        assert!(!folder.path().join("target").exists());
    }
}
