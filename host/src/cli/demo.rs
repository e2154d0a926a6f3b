//! `ocelli demo`: a host of its own on the bundled clip, and `ocelli watch` on its results.
//!
//! Both are this program again. The host's config, data and logs lie in a temporary folder, which
//! goes when the demo ends.

use std::ffi::OsStr;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Args;
use ocelli_client::{Client, Request};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::host::block_on;
use crate::util::installed::Installation;

/// Where the host listens, unless something else does.
const ADDRESS: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 8001);

/// The camera's name.
const CAMERA: &str = "demo";

/// What is looked for in the bundled clip: a street with bicycles.
const LABELS: [&str; 6] = ["person", "bicycle", "motorcycle", "car", "bus", "truck"];

/// The host loads its models and compiles its pipeline in a second or two; a busy machine gets a
/// minute.
const START_LIMIT: Duration = Duration::from_secs(60);

/// Between two looks at a host that starts.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// How long the host may take to end in order before it is killed. It gives its workers less.
const STOP_GRACE: Duration = Duration::from_secs(40);

/// Lines of the host's log that are shown when it fails.
const LOG_TAIL: usize = 15;

#[derive(Args)]
pub(super) struct DemoCommand {
    /// A camera or a file of yours: rtsp://..., or the path of a recording. Left out: the bundled
    /// clip.
    source: Option<String>,
    /// End after so many seconds of results. Left out: with Ctrl-C.
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// Where the host and its dashboard listen, on this machine. Left out: 127.0.0.1:8001, or
    /// another port where that one is taken.
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<SocketAddr>,
}

impl DemoCommand {
    /// Runs until the time is over or a signal comes. That there was no result is an error.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let demo = Demo::new(self)?;
        // On this thread: the children end with the thread that started them.
        block_on(demo.run(began, self.seconds))?
    }

    /// The camera's source, as a config has it.
    fn source(&self, installation: &Installation) -> anyhow::Result<String> {
        let file = match &self.source {
            Some(camera) if camera.contains("://") => return Ok(camera.clone()),
            Some(file) => {
                let path = Path::new(file.strip_prefix("file:").unwrap_or(file));
                path.canonicalize()
                    .with_context(|| format!("there is no file {}", path.display()))?
            }
            None => installation.clip().context("the clip of the demo is not installed")?,
        };
        let file = file.to_str().context("the path of the file is not UTF-8")?;
        Ok(format!("file:{file}"))
    }
}

/// What runs, and where.
struct Demo {
    program: PathBuf,
    folder: TempDir,
    url: String,
    shown_source: String,
}

impl Demo {
    fn new(command: &DemoCommand) -> anyhow::Result<Self> {
        let installation = Installation::find().context("finding what was installed")?;
        let source = command.source(&installation)?;
        let listen = free_address(command.listen)?;
        let models = installation.models().context("the models are not installed")?;
        let folder = tempfile::Builder::new().prefix("ocelli-demo-").tempdir();
        let folder = folder.context("making a temporary folder (TMPDIR says where)")?;
        let bundled = command.source.is_none();
        let config = config(&source, bundled, listen, &models, folder.path())?;
        let path = folder.path().join("demo.json");
        // The source may hold a password.
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        serde_json::to_writer_pretty(file.context("writing the config of the demo")?, &config)?;
        let shown_source = if bundled { "the bundled clip" } else { "your source" };
        let program = std::env::current_exe().context("asking for this program's path")?;
        let url = format!("http://{listen}");
        Ok(Self { program, folder, url, shown_source: shown_source.to_owned() })
    }

    async fn run(&self, began: Instant, seconds: Option<u64>) -> anyhow::Result<()> {
        // From now on they end nothing by themselves: the folder is to go.
        let mut signals =
            [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
        let mut stopped = std::pin::pin!(async {
            let [Ok(interrupt), Ok(terminate), Ok(hangup)] = &mut signals else {
                return std::future::pending().await;
            };
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        eprintln!("ocelli: starting a host on {} ...", self.shown_source);
        let mut host = self.start_host()?;
        let mut watch = None;
        let shown = tokio::select! {
            shown = self.show(&mut host, &mut watch, began, seconds) => Some(shown),
            () = &mut stopped => None,
        };
        if let Some(watch) = &mut watch {
            // In order, too: it gives the terminal its cursor back.
            stop(watch).await?;
        }
        eprintln!("ocelli: stopping the host ...");
        stop(&mut host).await?;
        match shown {
            // It has printed why, where it is no success.
            Some(Ok(watched)) => ensure!(watched.success(), "the demo ended without a result"),
            Some(Err(error)) => return Err(self.with_last_lines(&error)),
            None => {}
        }
        Ok(())
    }

    /// Prints what the host tells until the time is over.
    async fn show(
        &self,
        host: &mut Child,
        watch: &mut Option<Child>,
        began: Instant,
        seconds: Option<u64>,
    ) -> anyhow::Result<ExitStatus> {
        self.until_running(host).await?;
        eprintln!(
            "ocelli: it runs after {:.1} s; the dashboard: {}/",
            began.elapsed().as_secs_f64(),
            self.url
        );
        let mut command = self.command(["watch", CAMERA, "--url", &self.url]);
        if let Some(seconds) = seconds {
            command.args(["--seconds".to_owned(), seconds.to_string()]);
        }
        let watch = watch.insert(command.spawn().context("starting `ocelli watch`")?);
        tokio::select! {
            watched = watch.wait() => Ok(watched?),
            ended = host.wait() => bail!("the host ended: {}", ended?),
        }
    }

    fn start_host(&self) -> anyhow::Result<Child> {
        let log = std::fs::File::create(self.log()).context("writing the host's log")?;
        let config = self.folder.path().join("demo.json");
        let mut host =
            self.command([OsStr::new("serve"), OsStr::new("--config"), config.as_os_str()]);
        host.stdout(log.try_clone()?).stderr(log);
        // A Ctrl-C of the terminal is for the demo, which then ends its host.
        host.process_group(0);
        host.spawn().context("starting the host")
    }

    /// This program again, with a command. It knows no other host and no config of the environment.
    fn command<I: AsRef<OsStr>, const N: usize>(&self, arguments: [I; N]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        for (name, _) in std::env::vars_os() {
            let name_text = name.to_string_lossy();
            if name_text.starts_with("OCELLI__") || name_text == "OCELLI_TOKEN" {
                command.env_remove(name);
            }
        }
        end_with_parent(&mut command);
        command
    }

    async fn until_running(&self, host: &mut Child) -> anyhow::Result<()> {
        let client = Client::new(&self.url)?;
        let begun = Instant::now();
        while !self.runs(&client).await? {
            ensure!(
                begun.elapsed() < START_LIMIT,
                "the host did not start within {} s",
                START_LIMIT.as_secs()
            );
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                ended = host.wait() => bail!("the host ended: {}", ended?),
            }
        }
        Ok(())
    }

    /// Whether the host answers, and its camera runs or says why it does not.
    async fn runs(&self, client: &Client) -> anyhow::Result<bool> {
        match client.ask(&Request::get(&["sessions"])).await {
            Ok(answer) => {
                let sessions = answer.get("sessions").and_then(Value::as_array);
                let begun = |one: &Value| one.get("state").is_some_and(|it| it != "starting");
                Ok(sessions.is_some_and(|sessions| sessions.iter().any(begun)))
            }
            Err(error) if error.is_transient() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("host.log")
    }

    /// The error with what the host said last: its log goes with the folder.
    fn with_last_lines(&self, error: &anyhow::Error) -> anyhow::Error {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL)..).unwrap_or_default();
        anyhow::anyhow!("{error:#}; the last lines of its log:\n{}", tail.join("\n"))
    }
}

/// The host's config. Paths are absolute: it does not depend on where the demo is called.
fn config(
    source: &str,
    bundled: bool,
    listen: SocketAddr,
    models: &Path,
    folder: &Path,
) -> anyhow::Result<Value> {
    let text = |path: &Path| path.to_str().map(str::to_owned).context("a path is not UTF-8");
    let mut settings = Map::new();
    settings.insert("score".into(), 0.4.into());
    settings.insert("max_results_per_second".into(), 10.into());
    if bundled {
        settings.insert("labels".into(), json!(LABELS));
    }
    let mut camera = Map::new();
    camera.insert("id".into(), CAMERA.into());
    camera.insert("source".into(), source.into());
    camera.insert("pipeline".into(), "object-detect".into());
    camera.insert("settings".into(), settings.into());
    if source.starts_with("file:") {
        camera.insert("pace".into(), "realtime".into());
        camera.insert("repeat".into(), true.into());
    }
    Ok(json!({
        "server": { "listen": listen },
        "inference": { "preload": ["nanodet-g-320-int8"] },
        "models": { "directory": text(models)? },
        "logs": { "directory": text(&folder.join("logs"))? },
        "store": { "directory": text(&folder.join("data"))? },
        "cameras": [camera],
    }))
}

/// The address that was asked for, which has to be free; else the usual one, or one with another
/// port.
fn free_address(asked: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    if let Some(address) = asked {
        let listener = TcpListener::bind(address);
        return Ok(listener
            .with_context(|| format!("cannot listen on {address}"))?
            .local_addr()?);
    }
    let any_port = SocketAddr::new(ADDRESS.ip(), 0);
    let listener = TcpListener::bind(ADDRESS).or_else(|_| TcpListener::bind(any_port));
    Ok(listener.with_context(|| format!("cannot listen on {}", ADDRESS.ip()))?.local_addr()?)
}

/// Asks a child to end, and kills it when it has not in time.
async fn stop(child: &mut Child) -> anyhow::Result<()> {
    if let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
        // It can only fail if the child has just ended, which is what it asks for.
        let _ = kill_process(pid, Signal::TERM);
    }
    if tokio::time::timeout(STOP_GRACE, child.wait()).await.is_err() {
        child.kill().await.context("killing a child")?;
    }
    Ok(())
}

#[allow(unsafe_code)]
fn end_with_parent(command: &mut Command) {
    // SAFETY: the closure runs in the forked child before exec and makes one system call; it
    // neither allocates nor locks.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::TERM))?));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::ConfigFile;

    fn demo(source: Option<&str>) -> DemoCommand {
        DemoCommand { source: source.map(str::to_owned), seconds: None, listen: None }
    }

    #[test]
    fn the_config_is_one_that_a_host_takes() {
        let (models, folder) = (Path::new("/opt/models"), Path::new("/tmp/demo"));
        for (source, bundled) in
            [("file:/opt/demo/a \"b\".mp4", true), ("rtsp://192.0.2.1/a", false)]
        {
            let config = config(source, bundled, ADDRESS, models, folder).unwrap();
            let text = config.to_string();
            let file = ConfigFile::from_text(Path::new("demo.json"), &text, &[]);
            let config = file.map_err(|error| format!("{error}: {text}")).unwrap().config;
            assert_eq!(config.server.listen, ADDRESS);
            assert_eq!(config.models.directory, models);
            assert_eq!(config.cameras.len(), 1);
        }
    }

    #[test]
    fn a_source_is_a_camera_or_a_file_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let installation = Installation::at(folder.path());
        let source = |of: Option<&str>| demo(of).source(&installation);
        assert_eq!(source(Some("rtsp://192.0.2.1/a")).unwrap(), "rtsp://192.0.2.1/a");
        let missing = folder.path().join("clip.mp4");
        let path = missing.to_str().unwrap();
        assert!(source(Some(path)).unwrap_err().to_string().contains("clip.mp4"));
        std::fs::write(&missing, "").unwrap();
        let expected = format!("file:{}", missing.canonicalize().unwrap().display());
        for named in [path, &format!("file:{path}")] {
            assert_eq!(source(Some(named)).unwrap(), expected);
        }
        assert!(source(None).unwrap_err().to_string().contains("not installed"));
    }

    #[test]
    fn a_taken_port_is_an_error_where_it_was_asked_for_and_else_another_is_taken() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = free_address(Some(address)).unwrap_err().to_string();
        assert!(error.contains(&address.to_string()), "{error}");
        assert!(free_address(None).unwrap().ip().is_loopback());
    }
}
