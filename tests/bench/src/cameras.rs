//! RTSP cameras that play the clip, from the tests' launcher.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ocelli::config::source::Source;
use ocelli::source::SourceEvent;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::child::Running;
use crate::paths::Paths;

/// The system's Python: the launcher's bindings are Debian packages.
const PYTHON: &str = "/usr/bin/python3";

/// Loading a clip takes a second; a busy machine gets a minute.
const START_LIMIT: Duration = Duration::from_secs(60);

/// A server with some cameras. All play the same clip, each in its own time.
pub struct Cameras {
    server: Running,
    port: u16,
}

impl Cameras {
    /// Starts `count` cameras, from 0 on, that play the clip of all parts.
    pub async fn start(paths: &Paths, count: usize) -> Result<Self> {
        Self::play(paths, &paths.clip, count).await
    }

    /// Starts `count` cameras, from 0 on, that play a clip.
    pub async fn play(paths: &Paths, clip: &Path, count: usize) -> Result<Self> {
        Self::play_held(paths, clip, count, Duration::ZERO).await
    }

    /// The same. Before each round of the clip they show its first picture for a time, each time
    /// as a key frame.
    pub async fn play_held(
        paths: &Paths,
        clip: &Path,
        count: usize,
        hold: Duration,
    ) -> Result<Self> {
        Self::play_as(paths, clip, count, &["--hold", &hold.as_secs().to_string()]).await
    }

    /// The same. They show the first picture for ever, encoded as by a camera before which nothing
    /// moves.
    pub async fn show_still(paths: &Paths, clip: &Path, count: usize) -> Result<Self> {
        Self::play_as(paths, clip, count, &["--still"]).await
    }

    async fn play_as(paths: &Paths, clip: &Path, count: usize, options: &[&str]) -> Result<Self> {
        let mut command = Command::new(PYTHON);
        command.arg(&paths.cameras).args(["--port", "0"]).args(options);
        for index in 0..count {
            command.arg(format!("/{index}={}", clip.display()));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut server = Running::start("the cameras' server", command)?;
        let mut lines = BufReader::new(server.child.stdout.take().context("no output")?).lines();
        let first = tokio::time::timeout(START_LIMIT, lines.next_line()).await;
        let first = first.context("the cameras' server does not start")??.unwrap_or_default();
        let Some(port) = first.strip_prefix("READY ").and_then(|port| port.trim().parse().ok())
        else {
            bail!("the cameras' server could not start; `./x setup` installs what it needs")
        };
        Ok(Self { server, port })
    }

    /// The address of a camera.
    pub fn url(&self, index: usize) -> String {
        format!("rtsp://127.0.0.1:{}/{index}", self.port)
    }

    /// Makes a camera play for someone else, as a real one does all the time: without a client the
    /// server would begin its clip, and so a GOP, with the first. Returns when pictures come.
    pub async fn keep_playing(&self, index: usize) -> Result<Playing> {
        let source = Source::parse(&self.url(index), None, None, false)?;
        let mut subscription = crate::paths::sources()?.subscribe(&source);
        loop {
            match subscription.next().await {
                SourceEvent::Unit(_) => break,
                SourceEvent::Down(fault) => bail!("camera {index}: {}", fault.message),
                SourceEvent::Up | SourceEvent::Damaged(_) | SourceEvent::Ended => {}
            }
        }
        let reader = tokio::spawn(async move {
            loop {
                subscription.next().await;
            }
        });
        Ok(Playing(reader))
    }

    /// Ends all cameras.
    pub async fn stop(self) -> Result<()> {
        self.server.stop().await
    }
}

/// Keeps a camera playing until it is dropped.
pub struct Playing(JoinHandle<()>);

impl Drop for Playing {
    fn drop(&mut self) {
        self.0.abort();
    }
}
