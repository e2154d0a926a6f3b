//! The whole chain under measurement: a host with its children.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use ocelli_client::{Client, Component, Deploy, Request};
use rustix::process::Signal;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::Instant;

use crate::child::{Running, quiet, terminate};
use crate::machine::Snapshot;
use crate::paths::Paths;
use crate::subscriber::Subscriber;

/// From its start to a host's readiness: the first of a run compiles the pipeline, on a busy
/// machine.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Lines of the host's log that are shown when it fails.
const LOG_TAIL: usize = 15;

/// Sessions besides those of the config that a measurement makes, at most.
const MADE_SESSIONS: usize = 20;

/// A session that the config names.
pub struct Camera {
    /// The session.
    pub id: String,
    /// A live stream, or a file.
    pub source: String,
    /// A name, or a component's file.
    pipeline: String,
    /// For the pipeline.
    settings: Value,
    /// Whether a file comes as fast as it was recorded.
    realtime: bool,
    /// Further keys of the camera's config.
    keys: Value,
}

impl Camera {
    /// A camera that a server plays.
    pub fn live(index: usize, url: String) -> Self {
        Self::new(format!("cam-{index}"), url)
    }

    /// A file that is read over and over, as fast as it can be processed.
    pub fn file(index: usize, path: &Path) -> Self {
        Self::new(format!("file-{index}"), format!("file:{}", path.display()))
    }

    /// A file that is read over and over, as fast as it was recorded, by another pipeline than the
    /// default one.
    pub fn recorded(id: &str, path: &Path, pipeline: &Path) -> Self {
        let camera = Self::new(id.to_owned(), format!("file:{}", path.display()));
        Self { pipeline: pipeline.display().to_string(), realtime: true, ..camera }
    }

    fn new(id: String, source: String) -> Self {
        Self {
            id,
            source,
            pipeline: "object-detect".into(),
            settings: json!({}),
            realtime: false,
            keys: json!({}),
        }
    }

    /// The same with settings for its pipeline.
    pub fn with(self, settings: Value) -> Self {
        Self { settings, ..self }
    }

    /// The same with further keys in its config.
    pub fn keyed(self, keys: Value) -> Self {
        Self { keys, ..self }
    }

    /// Its entry in a config.
    pub fn config(&self) -> Value {
        let Self { id, source, pipeline, settings, realtime, keys } = self;
        let mut camera =
            json!({"id": id, "source": source, "pipeline": pipeline, "settings": settings});
        if let (true, Some(table)) = (self.source.starts_with("file:"), camera.as_object_mut()) {
            table.insert("repeat".into(), true.into());
            table.insert("pace".into(), if *realtime { "realtime" } else { "as-fast" }.into());
        }
        add(&mut camera, keys.clone());
        camera
    }
}

/// A session as the host tells it.
#[derive(Debug, Deserialize)]
pub struct Session {
    /// Its name.
    pub id: String,
    /// Where it stands, in one word.
    pub state: String,
    /// Its worker.
    pub pid: Option<u32>,
    /// Results so far.
    pub results: u64,
    /// Frames so far.
    pub frames: Frames,
}

/// Counts of frames.
#[derive(Debug, Deserialize)]
pub struct Frames {
    /// Access units that the worker got.
    pub received: u64,
    /// Pictures decoded.
    pub decoded: u64,
    /// Runs of models.
    pub inferred: u64,
}

/// A folder that the hosts of a run share, so that the pipeline is compiled once.
pub struct BenchFolder {
    folder: TempDir,
}

impl BenchFolder {
    /// An empty one.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir().context("making a folder for the hosts")? })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A running host.
pub struct Chain {
    host: Running,
    /// What it was started with, and where that is.
    config: Value,
    file: PathBuf,
    address: SocketAddr,
    client: Client,
    started: Instant,
}

impl Chain {
    /// Starts a host, and returns when it says that it is ready.
    pub async fn start(paths: &Paths, workplace: &BenchFolder, cameras: &[Camera]) -> Result<Self> {
        Self::start_with(paths, workplace, cameras, json!({})).await
    }

    /// Starts a host with more in its config: sections with the keys that are set there besides.
    pub async fn start_with(
        paths: &Paths,
        workplace: &BenchFolder,
        cameras: &[Camera],
        more: Value,
    ) -> Result<Self> {
        // Free a moment ago; nothing on this machine is likely to take it before the host does.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let folder = workplace.folder.path();
        let mut config = json!({
            "server": {"listen": address.to_string()},
            "inference": {"library": paths.library, "preload": [ocelli_sdk::nanodet::DEFAULT.name]},
            "models": {"directory": paths.models},
            "logs": {"directory": folder.join("logs")},
            "store": {"directory": folder.join("data")},
            // Sessions that a measurement makes are over soon after it.
            "subscriptions": {"grace_s": 1, "sources": ["rtsp://127.0.0.1:*", "file:/"]},
            "session_processes": {"max_concurrent_sessions": cameras.len() + MADE_SESSIONS},
            "cameras": cameras.iter().map(Camera::config).collect::<Vec<_>>(),
        });
        add(&mut config, more);
        let file = folder.join("config.json");
        std::fs::write(&file, config.to_string())?;
        let log = folder.join("host.log");
        let mut command = Command::new(&paths.host);
        command.args(["serve", "--config"]).arg(&file).env("OCELLI_LOG", "warn");
        quiet(&mut command);
        command.stderr(File::create(&log).with_context(|| log.display().to_string())?);
        let client = Client::new(&format!("http://{address}"))?;
        let started = Instant::now();
        let mut chain = Self {
            host: Running::start("the host", command)?,
            config,
            file,
            address,
            client,
            started,
        };
        chain.until_ready().await.map_err(|error| {
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let tail = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
            anyhow!("{error:#}; the host's last words:\n{}", tail.join("\n"))
        })?;
        Ok(chain)
    }

    /// Has the host read its config again: what it was started with, and these keys besides.
    pub fn reload(&mut self, more: Value) -> Result<()> {
        let mut config = self.config.clone();
        add(&mut config, more);
        // In one step: the host reads the file when it has changed, too.
        let next = self.file.with_extension("next");
        std::fs::write(&next, config.to_string())?;
        std::fs::rename(&next, &self.file)?;
        terminate(self.host.pid(), Signal::HUP)
    }

    /// Where the API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What asks it.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// When the host was started.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// A new subscriber.
    pub async fn subscriber(&self) -> Result<Subscriber> {
        Subscriber::connect(&self.client).await
    }

    /// All its processes.
    pub fn snapshot(&self) -> Result<Snapshot> {
        Snapshot::take(self.host.pid())
    }

    /// All its sessions.
    pub async fn sessions(&self) -> Result<Vec<Session>> {
        #[derive(Deserialize)]
        struct Answer {
            sessions: Vec<Session>,
        }
        let answer = self.client.ask(&Request::get(&["sessions"])).await?;
        Ok(Answer::deserialize(answer)?.sessions)
    }

    /// Has a session started anew, as a person would. Its losses so far are forgotten.
    pub async fn restart(&self, session: &str) -> Result<()> {
        self.client.restart(session).await.with_context(|| format!("restarting {session:?}"))?;
        Ok(())
    }

    /// Gives a session another version of its pipeline; the deployment's record once it speaks.
    pub async fn deploy(&self, session: &str, component: Vec<u8>) -> Result<Value> {
        let component = Component::File { name: None, bytes: component.into() };
        let deploy = Deploy {
            component,
            shadow: 0,
            shadow_only: false,
            threshold: None,
            state: None,
            settings: None,
        };
        let request = Request::deploy(session, &deploy);
        let answer = tokio::time::timeout(START_LIMIT, self.client.ask(&request)).await;
        let answer = answer.map_err(|_| anyhow!("no answer within {} s", START_LIMIT.as_secs()));
        answer.and_then(|answer| Ok(answer?)).with_context(|| format!("deploying to {session:?}"))
    }

    /// Ends the host and its children.
    pub async fn stop(self) -> Result<()> {
        self.host.stop().await
    }

    async fn until_ready(&mut self) -> Result<()> {
        let client = self.client.clone();
        let ready = async {
            // The host says that it is ready by answering; each try is answered or refused at once.
            let mut tries = tokio::time::interval(Duration::from_millis(20));
            loop {
                tries.tick().await;
                if client.is_ready().await.unwrap_or(false) {
                    return;
                }
            }
        };
        tokio::select! {
            ready = tokio::time::timeout(START_LIMIT, ready) => match ready {
                Ok(()) => Ok(()),
                Err(_) => bail!("the host was not ready within {} s", START_LIMIT.as_secs()),
            },
            ended = self.host.ended() => Err(ended),
        }
    }
}

/// Adds the keys of `more` to an object, those of objects within it one by one.
fn add(to: &mut Value, more: Value) {
    match (to, more) {
        (Value::Object(to), Value::Object(more)) => {
            for (key, value) in more {
                add(to.entry(key).or_insert(Value::Null), value);
            }
        }
        (to, more) => *to = more,
    }
}
