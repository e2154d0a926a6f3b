//! The host as an operator runs it: a config, a process, its log, its API.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::http::{self, HttpResponse};
use crate::{Client, DEADLINE, Log, Process, Programs, root};

/// How long a host may take to end after SIGTERM before it is killed: above the 30 s that it gives
/// its workers by default.
const STOP_LIMIT: Duration = Duration::from_secs(45);

/// How long a deployment may take to be answered: its steps have bounds of their own, and machines
/// are busy.
const DEPLOYMENT: Duration = Duration::from_secs(150);

/// Between two looks at something that tells nobody when it changes.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A running host; stopped when dropped. Its store and logs lie in a folder of its own.
#[derive(Debug)]
pub struct Ocelli {
    child: Child,
    process: Process,
    address: SocketAddr,
    log: Log,
    folder: TempDir,
}

/// How a program ended.
#[derive(Debug)]
pub struct Exit {
    /// Its exit status; none where a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to standard error.
    pub stderr: String,
}

/// A config file and what else a host needs for itself.
struct Setup {
    folder: TempDir,
}

/// A config as a test's host needs it. `config` is TOML. Its sections server, models, logs, store
/// and subscriptions, where it has none, are for tests: a free port, the repository's models, a
/// folder that goes with the test, and sources of this machine.
fn complete(config: &str, folder: &Path) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    let sections = [
        ("[server]", "listen", json!("127.0.0.1:0")),
        ("[models]", "directory", json!(root().join("models"))),
        ("[logs]", "directory", json!(path("logs"))),
        ("[store]", "directory", json!(path("data"))),
        ("[subscriptions]", "sources", json!(["rtsp://127.0.0.1:*", "file:/"])),
    ];
    let missing = sections.iter().filter(|(section, ..)| !config.contains(section));
    let missing: String =
        missing.map(|(section, key, value)| format!("{section}\n{key} = {value}\n")).collect();
    // The test's own text first: its line numbers stay what they are.
    format!("{config}\n{missing}")
}

impl Setup {
    /// For what `config` may be, see [`complete`].
    fn new(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("ocelli.toml"), complete(config, folder.path())).unwrap();
        Self { folder }
    }

    fn spawn(&self, program: &Path, environment: &[(&str, &str)]) -> (Child, Log) {
        spawn(self.folder.path(), program, environment)
    }
}

/// A file or folder of what was built beside the folder of the programs.
pub fn built(name: &str) -> PathBuf {
    program("ocelli").parent().and_then(Path::parent).unwrap().join(name)
}

/// Where the tests' hosts keep compiled pipelines. One folder for all of them: compiling is most of
/// what a host's start takes. Another compiler has another, and those of compilers before it go.
fn cache() -> &'static Path {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    CACHE.get_or_init(|| {
        let compiler = std::fs::metadata(program("ocelli-compile")).unwrap();
        let own =
            format!("{:x}-{:x}-{:x}", compiler.len(), compiler.mtime(), compiler.mtime_nsec());
        let all = built("test-cache");
        let others = std::fs::read_dir(&all).into_iter().flatten().filter_map(Result::ok);
        for other in others.filter(|other| other.file_name() != *own) {
            // Another test may be faster.
            let _ = std::fs::remove_dir_all(other.path());
        }
        all.join(own)
    })
}

/// Starts a host with the config of a folder.
fn spawn(folder: &Path, program: &Path, environment: &[(&str, &str)]) -> (Child, Log) {
    let mut child = Command::new(program)
        .arg("serve")
        .arg("--config")
        .arg(folder.join("ocelli.toml"))
        .env("ORT_DISABLE_TELEMETRY", "1")
        .env_remove("RUST_LOG")
        .env_remove("OCELLI_LOG")
        .env("OCELLI__STORE__CACHE", cache())
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = Log::read(child.stderr.take().unwrap());
    (child, log)
}

/// Waits until a host listens.
async fn listening(child: &mut Child, log: &Log) -> SocketAddr {
    let listening = log.find(|line| {
        let (_, url) = line.split_once("listening on http://")?;
        url.trim().split('/').next()?.parse().ok()
    });
    match timeout(DEADLINE, listening).await {
        Ok(Some(address)) => address,
        _ => {
            let _ = child.kill();
            panic!("the host did not start ({:?}); its log:\n{}", child.wait(), log.tail());
        }
    }
}

/// A program of the product.
pub fn program(name: &str) -> PathBuf {
    let folder = std::env::var_os("OCELLI_BIN_DIR")
        .map_or_else(|| root().join("target/release"), PathBuf::from);
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: `./x test` builds it", path.display());
    path
}

/// The component of a built-in pipeline.
pub fn built_in_pipeline(name: &str) -> PathBuf {
    let path = built("pipelines").join(format!("{name}.wasm"));
    assert!(path.is_file(), "{} is missing: `./x test` builds it", path.display());
    path
}

impl Ocelli {
    /// Starts a host. Returns when it listens: its configured cameras have sessions by then.
    pub async fn start(config: &str) -> Self {
        Self::start_with(config, &[]).await
    }

    /// As [`start`](Self::start), with further variables in its environment, or others in the place
    /// of the harness's own.
    pub async fn start_with(config: &str, environment: &[(&str, &str)]) -> Self {
        Self::launch(&program("ocelli"), config, environment).await
    }

    /// As [`start`](Self::start), with the programs of a folder.
    pub async fn start_from(programs: &Programs, config: &str) -> Self {
        Self::launch(&programs.host(), config, &[]).await
    }

    async fn launch(program: &Path, config: &str, environment: &[(&str, &str)]) -> Self {
        let setup = Setup::new(config);
        let (mut child, log) = setup.spawn(program, environment);
        let address = listening(&mut child, &log).await;
        let process = Process::open(child.id()).expect("the host lives");
        Self { child, process, address, log, folder: setup.folder }
    }

    /// Ends the host as a power cut would, and starts it again with the same config, store and
    /// logs.
    pub async fn cut_and_start_again(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let (child, log) = spawn(self.folder(), &program("ocelli"), &[]);
        (self.child, self.log) = (child, log);
        self.address = listening(&mut self.child, &self.log).await;
        self.process = Process::open(self.child.id()).expect("the host lives");
    }

    /// The host's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// What it logs.
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The folder of its config, its store (`data`) and its logs (`logs`).
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its config file.
    pub fn config_path(&self) -> PathBuf {
        self.folder().join("ocelli.toml")
    }

    /// Puts another config in the place of its own, at once, as an editor does that renames. It
    /// gets the sections that the first one got.
    pub fn edit_config(&self, config: &str) {
        let new = self.folder().join("ocelli.toml.new");
        std::fs::write(&new, complete(config, self.folder())).unwrap();
        std::fs::rename(new, self.config_path()).unwrap();
    }

    /// As [`edit_config`](Self::edit_config), into the same file.
    pub fn edit_config_in_place(&self, config: &str) {
        std::fs::write(self.config_path(), complete(config, self.folder())).unwrap();
    }

    /// A new WebSocket.
    pub async fn client(&self) -> Client {
        Client::connect(self.address).await
    }

    /// A new WebSocket of a client with a token.
    pub async fn client_as(&self, token: &str) -> Client {
        Client::connect_as(self.address, token).await
    }

    /// A new WebSocket of a client that is slow: what it does not read soon waits at the host.
    pub async fn slow_client(&self) -> Client {
        Client::connect_unbuffered(self.address).await
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The events that are kept of a session, oldest first. Its name has to be fit for a URL.
    pub async fn events(&self, session: &str) -> Vec<Value> {
        self.journal(session).await.1
    }

    /// The number from which on events of a session are kept, and those events.
    pub async fn journal(&self, session: &str) -> (u64, Vec<Value>) {
        let mut events = Vec::new();
        let mut after = 0;
        loop {
            let page =
                self.get(&format!("/v1/sessions/{session}/events?after={after}&limit=500")).await;
            let page: Value = serde_json::from_str(&page).unwrap();
            events.extend(page["events"].as_array().expect("a list of events").iter().cloned());
            match page["next"].as_u64() {
                Some(next) => after = next,
                None => return (page["oldest"].as_u64().expect("a number"), events),
            }
        }
    }

    /// The body that `GET path` answers with.
    pub async fn get(&self, path: &str) -> String {
        let (status, body) = self.request("GET", path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// A sample of `/metrics`, named with its labels. `None`: there is none.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let metrics = self.get("/metrics").await;
        metrics.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// Waits until a sample of `/metrics` is there and good.
    pub async fn metric_becomes(&self, series: &str, good: impl Fn(f64) -> bool) {
        let begun = Instant::now();
        loop {
            let value = self.metric(series).await;
            if value.is_some_and(&good) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "{series} stays {value:?}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The status and the body that a request without a body is answered with. `path` is
    /// percent-encoded.
    pub async fn request(&self, method: &str, path: &str) -> (u16, String) {
        self.send(method, path, "Content-Length: 0", &[]).await
    }

    /// The status and the body that a body of this media type is answered with. `path` is
    /// percent-encoded.
    pub async fn post(&self, path: &str, media_type: &str, body: &[u8]) -> (u16, String) {
        let headers = format!("Content-Type: {media_type}\r\nContent-Length: {}", body.len());
        self.send("POST", path, &headers, body).await
    }

    /// `PUT /v1/sessions/{session}/pipeline`, and what it is answered with. `query` begins with `?`
    /// or is empty; the session's name has to be fit for a URL.
    pub async fn deploy(&self, session: &str, query: &str, component: &[u8]) -> (u16, Value) {
        self.put(&format!("/v1/sessions/{session}/pipeline{query}"), component).await
    }

    /// As [`deploy`](Self::deploy), of a host that may be killed meanwhile: none where it gives no
    /// answer.
    pub async fn try_deploy(
        &self,
        session: &str,
        query: &str,
        component: &[u8],
    ) -> Option<(u16, Value)> {
        let path = format!("/v1/sessions/{session}/pipeline{query}");
        let headers = format!("Content-Length: {}", component.len());
        let (status, body) =
            self.exchange(DEPLOYMENT, "PUT", &path, &headers, component).await.ok()?;
        Some((status, serde_json::from_str(&body).ok()?))
    }

    /// The status and the JSON that a file is answered with.
    pub async fn put(&self, path: &str, file: &[u8]) -> (u16, Value) {
        let headers = format!("Content-Length: {}", file.len());
        let (status, body) = self.send_within(DEPLOYMENT, "PUT", path, &headers, file).await;
        (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("{path}: {status}: {body}")))
    }

    /// A session's deployments, the newest first.
    pub async fn deployments(&self, session: &str) -> Vec<Value> {
        let answer = self.get(&format!("/v1/sessions/{session}/deployments?limit=1000")).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        answer["deployments"].as_array().expect("a list of deployments").clone()
    }

    /// Asks for a session's newest deployment until it is as it should be.
    pub async fn wait_for_deployment(&self, session: &str, good: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let newest = self.deployments(session).await.into_iter().next().unwrap_or_default();
            if good(&newest) {
                return newest;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "the newest deployment of {session} stays {newest}"
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The status and the body that a request with these lines of headers is answered with.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        self.send_within(DEADLINE, method, path, headers, body).await
    }

    async fn send_within(
        &self,
        limit: Duration,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        let answer = self.exchange(limit, method, path, headers, body).await;
        answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    async fn exchange(
        &self,
        limit: Duration,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> Result<(u16, String), String> {
        let exchange = async {
            let request = format!("{method} {path}");
            // An empty line would end the head.
            let headers = match headers {
                "" => String::new(),
                headers => format!("{headers}\r\n"),
            };
            let mut connection = http::request(self.address, &request, &headers, body).await?;
            HttpResponse::try_read(&mut connection).await
        };
        let answer = timeout(limit, exchange).await.map_err(|_| "no answer in time")?;
        let HttpResponse { status, text, .. } = answer.map_err(|error| error.to_string())?;
        Ok((status, text))
    }

    /// Has a session started anew, as a person would: its losses so far are forgotten. Its name has
    /// to be fit for a URL.
    pub async fn restart(&self, id: &str) {
        let (status, body) = self.request("POST", &format!("/v1/sessions/{id}/restart")).await;
        assert!((200..300).contains(&status), "{id}: {status}: {body}");
    }

    /// One entry of `GET /v1/sessions`; null where there is no such session.
    pub async fn session(&self, id: &str) -> Value {
        let answer: Value = serde_json::from_str(&self.get("/v1/sessions").await).unwrap();
        let sessions = answer["sessions"].as_array().expect("a list of sessions");
        sessions.iter().find(|session| session["id"] == id).cloned().unwrap_or_default()
    }

    /// A session's worker process, once it has one.
    pub async fn worker(&self, id: &str) -> Process {
        let begun = Instant::now();
        loop {
            let session = self.wait_for_session(id, |session| session["pid"].is_u64()).await;
            let pid = session["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
            // One that has just ended is named for a moment more.
            if let Some(worker) = pid.and_then(Process::open) {
                return worker;
            }
            assert!(begun.elapsed() < DEADLINE, "no worker: {session}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// The inference processes that serve sessions now, once there is one. Others may stand by.
    pub async fn inference(&self) -> Vec<Process> {
        let begun = Instant::now();
        loop {
            let metrics = self.get("/metrics").await;
            let serving = |line: &str| {
                let line = line.strip_prefix("ocelli_inference_private_memory_bytes{pid=\"")?;
                let (pid, rest) = line.split_once('"')?;
                if rest.contains("duty=\"serving\"") {
                    Process::open(pid.parse().ok()?)
                } else {
                    None
                }
            };
            let found: Vec<Process> = metrics.lines().filter_map(serving).collect();
            if !found.is_empty() {
                return found;
            }
            assert!(begun.elapsed() < DEADLINE, "no inference process serves: {metrics}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks for a session's entry until it is as it should be.
    pub async fn wait_for_session(&self, id: &str, good: impl Fn(&Value) -> bool) -> Value {
        let begun = Instant::now();
        loop {
            let session = self.session(id).await;
            if good(&session) {
                return session;
            }
            assert!(begun.elapsed() < DEADLINE, "session {id} stays {session}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Reads a session's log file until it holds a text; all of it then. The session's name has to
    /// be fit for a file's.
    pub async fn wait_for_session_log(&self, id: &str, text: &str) -> String {
        let path = self.folder().join(format!("logs/detector_worker_camera_{id}.log"));
        let begun = Instant::now();
        loop {
            let log = std::fs::read_to_string(&path).unwrap_or_default();
            if log.contains(text) {
                return log;
            }
            assert!(
                begun.elapsed() < DEADLINE,
                "{} does not say {text:?} but:\n{log}",
                path.display()
            );
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn stop(&mut self) -> Exit {
        self.process.signal(Signal::TERM);
        assert!(self.process.ends_within(STOP_LIMIT), "the host does not stop");
        let status = self.child.wait().unwrap().code();
        self.log.end().await;
        Exit { status, stderr: self.log.text() }
    }
}

impl Drop for Ocelli {
    fn drop(&mut self) {
        self.process.signal(Signal::TERM);
        if !self.process.ends_within(STOP_LIMIT) {
            eprintln!("the host does not stop and is killed");
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the host's log ends:\n{}", self.log.tail());
        }
    }
}

/// Runs a host that is expected to end by itself.
pub async fn run_to_end(config: &str) -> Exit {
    let setup = Setup::new(config);
    let (mut child, log) = setup.spawn(&program("ocelli"), &[]);
    let ended = timeout(DEADLINE, log.end()).await;
    if ended.is_err() {
        let _ = child.kill();
    }
    let status = child.wait().unwrap();
    assert!(ended.is_ok(), "the host runs instead of ending; its log:\n{}", log.tail());
    Exit { status: status.code(), stderr: log.text() }
}
