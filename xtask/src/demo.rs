//! `./x demo`: a looping clip as an RTSP camera, the host on `config/demo.toml`, and
//! `ocelli watch`, which prints what the host detects.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::Deserialize;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::process::{Service, wait_for};
use crate::workspace::Workspace;
use crate::{checks, programs, setup};

const CONFIG: &str = "config/demo.toml";
const LAUNCHER: &str = "tests/cameras/rtsp_cameras.py";
const CLIP: &str = "tests/clips/people-576-high.mp4";

/// The camera loads its clip and the host its models in a second or two; a busy machine gets a
/// minute.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a host that has no way to say when it listens but listening; each is
/// answered or refused at once.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long a child may take to end in order before it is killed.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// Lines of a child's log that are shown when it fails.
const LOG_TAIL: usize = 15;

/// Runs until `seconds` of results have passed or a signal comes. Success means that there was a
/// result.
pub(crate) fn run(workspace: &Workspace, seconds: Option<u64>) -> Result<ExitCode> {
    setup::everything()?;
    programs::build(workspace)?;
    let demo = Demo::new(workspace)?;
    // On this thread, because the children end with the thread that started them.
    if demo.run(seconds)? {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("x: the demo ended without a result; the host's log is {}", demo.host_log.display());
    Ok(ExitCode::FAILURE)
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
        let (address, mount) = camera
            .place()
            .with_context(|| format!("{CONFIG}: source is not rtsp://ADDRESS:PORT/PATH"))?;
        for (taken, key) in
            [(config.server.listen, "[server] listen"), (address, "[[cameras]] source")]
        {
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

    /// Whether there was a result. The children have ended when it returns.
    fn run(&self, seconds: Option<u64>) -> Result<bool> {
        let signals = Signals::catch()?;
        eprintln!(
            "==> starting the camera {}{}, the clip {CLIP} in a loop ...",
            self.camera, self.mount
        );
        let mut camera = self.start_camera()?;
        let serves = until_serving(&mut camera, &signals);
        if !serves.map_err(|error| with_last_lines(&error, &self.camera_log))? {
            return Ok(false);
        }
        eprintln!(
            "==> starting the host at http://{} (its log: {}) ...",
            self.listen,
            self.host_log.display()
        );
        let mut host = self.start_host()?;
        let shown = self.show(&mut host, &signals, seconds);
        eprintln!("==> stopping ...");
        // The host first: it need not see its camera go.
        host.stop(STOP_GRACE)?;
        camera.stop(STOP_GRACE)?;
        shown.map_err(|error| with_last_lines(&error, &self.host_log))
    }

    /// Prints what the host tells until the time is over or a signal comes.
    fn show(&self, host: &mut Service, signals: &Signals, seconds: Option<u64>) -> Result<bool> {
        if !self.until_ready(host, signals)? {
            return Ok(false);
        }
        eprintln!("==> the dashboard: http://{}/", self.listen);
        let mut command = Command::new(self.workspace.programs().join("ocelli"));
        command.arg("watch").arg(&self.session).arg(format!("--url=http://{}", self.listen));
        command.args(seconds.map(|seconds| format!("--seconds={seconds}")));
        // This host is none of those that these are for.
        command.env_remove("OCELLI_TOKEN").env_remove("OCELLI_CA");
        let watch = Service::start("ocelli watch", command)?;
        let [_, ended, stop] = wait_for([&watch, &*host, signals], None)?;
        let results = watch.stop(STOP_GRACE)?.success();
        // A signal of the terminal ends the host, too.
        if ended && !stop { Err(host.has_ended()) } else { Ok(results) }
    }

    fn start_camera(&self) -> Result<Service> {
        let root = self.workspace.root();
        let mut command = Command::new(setup::SYSTEM_PYTHON);
        command.arg(root.join(LAUNCHER)).arg(format!("--address={}", self.camera.ip()));
        command.arg(format!("--port={}", self.camera.port()));
        command.arg(format!("{}={}", self.mount, root.join(CLIP).display()));
        command.stdout(Stdio::piped()).stderr(log(&self.camera_log)?);
        Service::start("the camera", command)
    }

    fn start_host(&self) -> Result<Service> {
        let mut command = Command::new(self.workspace.programs().join("ocelli"));
        command.args(["serve", "--config", CONFIG]).current_dir(self.workspace.root());
        let log = log(&self.host_log)?;
        command.stdout(log.try_clone()?).stderr(log);
        checks::system_environment(&mut command, self.workspace);
        Service::start("the host", command)
    }

    /// False where a signal came first.
    fn until_ready(&self, host: &mut Service, signals: &Signals) -> Result<bool> {
        let begun = Instant::now();
        while !self.is_ready().unwrap_or(false) {
            let late =
                || format!("the host did not answer /readyz within {} s", START_LIMIT.as_secs());
            ensure!(begun.elapsed() < START_LIMIT, late());
            match wait_for([&*host, signals], Some(LOOK_AGAIN))? {
                [_, true] => return Ok(false),
                [true, _] => return Err(host.has_ended()),
                _ => {}
            }
        }
        Ok(true)
    }

    fn is_ready(&self) -> io::Result<bool> {
        let expected = b"HTTP/1.1 200";
        let mut stream = TcpStream::connect_timeout(&self.listen, LOOK_AGAIN)?;
        stream.set_read_timeout(Some(START_LIMIT))?;
        let request =
            format!("GET /readyz HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.listen);
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.take(expected.len() as u64).read_to_end(&mut answer)?;
        Ok(answer == expected)
    }
}

/// Waits for the camera's own word that it can be connected to. False where a signal came first.
fn until_serving(camera: &mut Service, signals: &Signals) -> Result<bool> {
    let output = camera.stdout().context("no output")?;
    match wait_for([&output, signals], Some(START_LIMIT))? {
        [_, true] => Ok(false),
        [true, false] => {
            let mut line = String::new();
            // It writes a line at once, or ends.
            BufReader::new(output).read_line(&mut line)?;
            ensure!(line.starts_with("READY"), "the camera could not start");
            Ok(true)
        }
        [false, false] => bail!("the camera was not ready within {} s", START_LIMIT.as_secs()),
    }
}

/// The signals that end the demo; to be read once one has come.
struct Signals(UnixStream);

impl Signals {
    /// From now on they end nothing by themselves.
    fn catch() -> Result<Self> {
        let (read, write) = UnixStream::pair()?;
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_camera_of_the_config_says_where_to_serve_it() {
        let camera = |source: &str| Camera { id: "people".into(), source: source.into() }.place();
        let place = ("127.0.0.1:8554".parse().unwrap(), "/people".to_string());
        assert_eq!(camera("rtsp://127.0.0.1:8554/people"), Some(place));
        assert_eq!(camera("file:clip.mp4"), None);
    }
}
