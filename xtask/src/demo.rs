//! `./x demo`: a looping clip as an RTSP camera, the host on `config/demo.toml`, and what it detects on the terminal.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio_tungstenite::tungstenite::Message;

use crate::process::Service;
use crate::workspace::Workspace;
use crate::{checks, programs, setup};

const CONFIG: &str = "config/demo.toml";
const LAUNCHER: &str = "tests/cameras/rtsp_cameras.py";
const CLIP: &str = "tests/clips/people-576-high.mp4";

/// The camera loads its clip and the host its models in a second or two; a busy machine gets a minute.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long a child may take to end in order before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// The rate shown is that of the last so many seconds: long enough to be steady, short enough to follow a change.
const RATE_WINDOW: Duration = Duration::from_secs(5);
/// Lines of a child's log that are shown when it fails.
const LOG_TAIL: usize = 15;

/// Runs until `seconds` of results have passed or a signal comes. Success means that there was a result.
pub(crate) fn run(workspace: &Workspace, seconds: Option<u64>) -> Result<ExitCode> {
    setup::everything()?;
    programs::build(workspace)?;
    let demo = Demo::new(workspace)?;
    // On this thread, because the children end with the thread that started them.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let results = runtime.block_on(demo.run(seconds.map(Duration::from_secs)))?;
    if results == 0 {
        eprintln!("x: the demo ended without a result; the host's log is {}", demo.host_log.display());
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The keys of `config/demo.toml` that the demo itself needs.
#[derive(Debug, Deserialize)]
struct Config {
    server: Server,
    cameras: Vec<Camera>,
}

#[derive(Debug, Deserialize)]
struct Server {
    listen: SocketAddr,
}

#[derive(Debug, Deserialize)]
struct Camera {
    id: String,
    source: String,
}

impl Camera {
    /// The address and the path of `rtsp://ADDRESS:PORT/PATH`.
    fn place(&self) -> Option<(SocketAddr, String)> {
        let (address, path) = self.source.strip_prefix("rtsp://")?.split_once('/')?;
        Some((address.parse().ok()?, format!("/{path}")))
    }
}

struct Demo<'a> {
    workspace: &'a Workspace,
    listen: SocketAddr,
    session: String,
    camera: SocketAddr,
    mount: String,
    host_log: PathBuf,
    camera_log: PathBuf,
}

impl<'a> Demo<'a> {
    fn new(workspace: &'a Workspace) -> Result<Self> {
        let text = fs::read_to_string(workspace.root().join(CONFIG)).context(CONFIG)?;
        let config: Config = toml::from_str(&text).context(CONFIG)?;
        let camera = config.cameras.first().with_context(|| format!("{CONFIG} has no camera"))?;
        let (address, mount) =
            camera.place().with_context(|| format!("{CONFIG}: source is not rtsp://ADDRESS:PORT/PATH"))?;
        for (taken, key) in [(config.server.listen, "[server] listen"), (address, "[[cameras]] source")] {
            TcpListener::bind(taken).with_context(|| {
                format!("cannot listen on {taken}; stop what uses it, or change {key} in {CONFIG}")
            })?;
        }
        let logs = workspace.target().join("demo");
        fs::create_dir_all(&logs).with_context(|| format!("cannot make {}", logs.display()))?;
        Ok(Self {
            workspace,
            listen: config.server.listen,
            session: camera.id.clone(),
            camera: address,
            mount,
            host_log: logs.join("host.log"),
            camera_log: logs.join("camera.log"),
        })
    }

    /// Returns the number of results. The children have ended when it returns.
    async fn run(&self, limit: Option<Duration>) -> Result<u64> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let mut children = Vec::new();
        let mut rate = Rate::default();
        let ended = tokio::select! {
            ended = self.watch(&mut children, &mut rate, limit) => ended,
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
            _ = hangup.recv() => Ok(()),
        };
        eprintln!("==> stopping after {} results ...", rate.total);
        // The host first: it need not see its camera go.
        for child in children.into_iter().rev() {
            child.stop(STOP_GRACE).await;
        }
        ended.map(|()| rate.total)
    }

    async fn watch(
        &self,
        children: &mut Vec<Service>,
        rate: &mut Rate,
        limit: Option<Duration>,
    ) -> Result<()> {
        eprintln!("==> starting the camera {}{}, the clip {CLIP} in a loop ...", self.camera, self.mount);
        children.push(self.start_camera().await?);
        eprintln!(
            "==> starting the host at http://{} (its log: {}) ...",
            self.listen,
            self.host_log.display()
        );
        children.push(self.start_host()?);
        let host = children.last_mut().context("no host")?;
        let watched = async {
            tokio::time::timeout(START_LIMIT, self.until_healthy())
                .await
                .map_err(|_| anyhow!("the host did not answer /readyz within {} s", START_LIMIT.as_secs()))?;
            match limit {
                Some(limit) => tokio::time::timeout(limit, self.print_messages(rate)).await.unwrap_or(Ok(())),
                None => self.print_messages(rate).await,
            }
        };
        tokio::select! {
            watched = watched => watched,
            ended = host.ended() => Err(ended),
        }
        .map_err(|error| with_last_lines(&error, &self.host_log))
    }

    async fn start_camera(&self) -> Result<Service> {
        let root = self.workspace.root();
        let mut command = Command::new(setup::SYSTEM_PYTHON);
        command.arg(root.join(LAUNCHER)).arg(format!("--address={}", self.camera.ip()));
        command.arg(format!("--port={}", self.camera.port()));
        command.arg(format!("{}={}", self.mount, root.join(CLIP).display()));
        command.stdout(Stdio::piped()).stderr(log(&self.camera_log)?);
        let mut camera = Service::start("the camera", command)?;
        let mut lines = BufReader::new(camera.stdout().context("no output")?).lines();
        let ready = async {
            let first = lines.next_line().await?;
            ensure!(first.is_some_and(|line| line.starts_with("READY")), "the camera could not start");
            Ok(())
        };
        tokio::time::timeout(START_LIMIT, ready)
            .await
            .unwrap_or_else(|_| bail!("the camera was not ready within {} s", START_LIMIT.as_secs()))
            .map_err(|error| with_last_lines(&error, &self.camera_log))?;
        Ok(camera)
    }

    fn start_host(&self) -> Result<Service> {
        let mut command = Command::new(self.workspace.programs().join("ocelli"));
        command.args(["serve", "--config", CONFIG]).current_dir(self.workspace.root());
        let log = log(&self.host_log)?;
        command.stdout(log.try_clone()?).stderr(log);
        checks::system_environment(&mut command, self.workspace);
        Service::start("the host", command)
    }

    async fn until_healthy(&self) {
        // The host has no way to say when it listens but listening; each try is answered or refused at once.
        let mut tries = tokio::time::interval(Duration::from_millis(100));
        loop {
            tries.tick().await;
            if self.is_healthy().await.unwrap_or(false) {
                return;
            }
        }
    }

    async fn is_healthy(&self) -> io::Result<bool> {
        let expected = b"HTTP/1.1 200";
        let mut stream = TcpStream::connect(self.listen).await?;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.listen);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.take(expected.len() as u64).read_to_end(&mut answer).await?;
        Ok(answer == expected)
    }

    /// Subscribes, and prints what comes until the connection ends.
    async fn print_messages(&self, rate: &mut Rate) -> Result<()> {
        let url = format!("ws://{}/v1/ws", self.listen);
        let (mut socket, _) = tokio_tungstenite::connect_async(&url).await.with_context(|| url.clone())?;
        let subscribe = serde_json::json!({"type": "subscribe", "session": self.session});
        socket.send(Message::text(subscribe.to_string())).await?;
        while let Some(message) = socket.next().await {
            let Message::Text(text) = message.context("the WebSocket failed")? else { continue };
            let message: FromServer =
                serde_json::from_str(&text).with_context(|| format!("not understood: {text}"))?;
            let per_second =
                matches!(message, FromServer::Detections { .. }).then(|| rate.count(Instant::now()));
            if let Some(line) = message.line(per_second) {
                writeln!(io::stdout(), "{line}").context("cannot print")?;
            }
        }
        bail!("the host closed the WebSocket")
    }
}

fn log(path: &Path) -> Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// The error of a child, with what it said last.
fn with_last_lines(error: &anyhow::Error, log: &Path) -> anyhow::Error {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let tail = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
    anyhow!("{error:#}; the last lines of {}:\n{}", log.display(), tail.join("\n"))
}

/// Results counted as they come.
#[derive(Default)]
struct Rate {
    total: u64,
    first: Option<Instant>,
    recent: VecDeque<Instant>,
}

impl Rate {
    /// Counts a result and returns results per second over the last [`RATE_WINDOW`], or since the first.
    fn count(&mut self, now: Instant) -> f64 {
        self.total += 1;
        let first = *self.first.get_or_insert(now);
        self.recent.push_back(now);
        while self.recent.front().is_some_and(|then| now.duration_since(*then) >= RATE_WINDOW) {
            self.recent.pop_front();
        }
        let window = now.duration_since(first).min(RATE_WINDOW).as_secs_f64();
        // The first result ends no interval yet.
        let intervals =
            if window < RATE_WINDOW.as_secs_f64() { self.recent.len() - 1 } else { self.recent.len() };
        if window > 0.0 { intervals as f64 / window } else { 0.0 }
    }
}

/// The host's messages, as far as the demo shows them.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FromServer {
    Detections {
        frame: u64,
        time: String,
        detections: Vec<Detection>,
    },
    Event {
        seq: u64,
        time: String,
        kind: String,
        #[serde(default)]
        detections: Vec<Detection>,
    },
    Session {
        state: String,
        reason: Option<String>,
    },
    Subscribed {
        session: String,
        state: String,
    },
    Lagged {
        missed: u64,
    },
    Error {
        code: String,
        message: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
struct Detection {
    label: String,
    score: f32,
    #[serde(rename = "box")]
    area: [f32; 4],
    track: Option<u64>,
}

impl FromServer {
    /// The message for a person to read; `per_second` is the rate of results.
    fn line(&self, per_second: Option<f64>) -> Option<String> {
        let rate = per_second.map_or(String::new(), |rate| format!("  {rate:4.1} results/s"));
        Some(match self {
            Self::Detections { frame, time, detections } => {
                format!("{}  frame {frame:6}{rate}  {}", clock(time), listed(detections))
            }
            Self::Event { seq, time, kind, detections } => {
                format!("{}  event {seq:6}  {kind} {}", clock(time), listed(detections))
            }
            Self::Session { state, reason } => {
                format!(
                    "session is {state}{}",
                    reason.as_ref().map_or(String::new(), |why| format!(": {why}"))
                )
            }
            Self::Subscribed { session, state } => {
                format!("subscribed to session {session}, which is {state}")
            }
            Self::Lagged { missed } => format!("{missed} messages missed: this terminal was too slow"),
            Self::Error { code, message } => format!("error {code}: {message}"),
            Self::Other => return None,
        })
    }
}

/// `person 0.87 #7 [12 34 56 78]`, one after the other; the box is left, top, width, height in frame pixels.
fn listed(detections: &[Detection]) -> String {
    let each = detections.iter().map(|Detection { label, score, area: [x, y, w, h], track }| {
        let track = track.map_or(String::new(), |track| format!(" #{track}"));
        format!("{label} {score:.2}{track} [{x:.0} {y:.0} {w:.0} {h:.0}]")
    });
    each.collect::<Vec<_>>().join(", ")
}

/// `12:34:56.789` of an RFC 3339 time, or all of it where it is something else.
fn clock(time: &str) -> &str {
    const TO_MILLISECONDS: usize = "12:34:56.789".len();
    let of_day = time.split_once('T').map_or(time, |(_, of_day)| of_day);
    of_day.get(..TO_MILLISECONDS).unwrap_or(of_day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(message: &str, per_second: Option<f64>) -> Option<String> {
        serde_json::from_str::<FromServer>(message).unwrap().line(per_second)
    }

    #[test]
    fn detections_are_one_readable_line() {
        let message = r#"{"type":"detections","session":"people","frame":12,"time":"2026-01-02T03:04:05.678901Z",
            "deployment":1,"width":768,"height":576,"latency_ms":{"total":71.5},"detections":[
            {"label":"person","score":0.871,"box":[10.4,20,30,40.6],"track":7,"attributes":{}},
            {"label":"dog","score":0.5,"box":[1,2,3,4]}]}"#;
        let expected =
            "03:04:05.678  frame     12   9.9 results/s  person 0.87 #7 [10 20 30 41], dog 0.50 [1 2 3 4]";
        assert_eq!(line(message, Some(9.94)).unwrap(), expected);
    }

    #[test]
    fn a_change_of_state_tells_its_reason() {
        let message =
            r#"{"type":"session","session":"people","state":"degraded","reason":"camera is silent"}"#;
        assert_eq!(line(message, None).unwrap(), "session is degraded: camera is silent");
    }

    #[test]
    fn messages_that_the_demo_does_not_know_are_passed_over() {
        assert_eq!(line(r#"{"type":"pong"}"#, None), None);
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let started = Instant::now();
        let mut rate = Rate::default();
        let at = |rate: &mut Rate, milliseconds| rate.count(started + Duration::from_millis(milliseconds));
        assert_eq!(at(&mut rate, 0), 0.0);
        let ten_a_second = (1..=100).map(|n| at(&mut rate, n * 100)).last().unwrap();
        assert!((ten_a_second - 10.0).abs() < 0.01, "{ten_a_second}");
        let after_a_pause = at(&mut rate, 60_000);
        assert!(after_a_pause < 0.5, "{after_a_pause}");
        assert_eq!(rate.total, 102);
    }

    #[test]
    fn the_camera_of_the_config_says_where_to_serve_it() {
        let camera = |source: &str| Camera { id: "people".into(), source: source.into() }.place();
        let place = ("127.0.0.1:8554".parse().unwrap(), "/people".to_string());
        assert_eq!(camera("rtsp://127.0.0.1:8554/people"), Some(place));
        assert_eq!(camera("file:clip.mp4"), None);
    }
}
