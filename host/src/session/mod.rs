//! Sessions: one pipeline on one source, in a worker process of its own.
//!
//! # Theory of operation
//!
//! [`Sessions`] is the registry. Each session has one task ([`run`]) that owns everything of it: the place at the
//! inference process, the subscription to the source, the worker, and the session's life as one value
//! ([`phase::Life`]). Others see it through its status, and reach it by a bounded channel of requests.
//!
//! While a worker serves, a second task, the pump, carries access units from the source to it. The worker's socket is the
//! back-pressure: when a worker does not keep up, the pump waits, the subscription's bounded queue fills, and the source
//! leaves out units for this session alone, up to the next key frame. A file's reader waits instead.
//!
//! Results go to the event hub as they come. Each loss of the worker is followed by a new one after a wait that grows;
//! the source's reader is kept meanwhile. Losses in a row, none of them after ten seconds of results, are a crash loop, which
//! ends in `failed` and waits for a person.

mod health;
mod phase;
mod run;
mod worker;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::limit::LimitCounts;
use ocelli_protocol::worker::{Counters, Decode, Description, WorkerLimits};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::{Config, Sandbox};
use crate::config::source::Source;
use crate::event::{Hub, State};
use crate::inference::Inference;
use crate::source::Sources;

/// Requests to a session's task that may wait.
const REQUESTS: usize = 32;

/// How long the answer to a command may take: longer than the pipeline's own time limit for a call.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(70);

/// The programs of the child processes: beside the host's own.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `ocelli-worker`.
    pub worker: PathBuf,
    /// `ocelli-inference`.
    pub inference: PathBuf,
    /// `ocelli-compile`.
    pub compile: PathBuf,
}

impl Programs {
    /// Looks for the programs in the folder of the running one.
    pub fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("asking for this program's path")?;
        let find = |name: &str| {
            let path = own.with_file_name(name);
            anyhow::ensure!(path.is_file(), "{} is missing: `./x build` makes it", path.display());
            Ok(path)
        };
        Ok(Self {
            worker: find("ocelli-worker")?,
            inference: find("ocelli-inference")?,
            compile: find("ocelli-compile")?,
        })
    }
}

/// A compiled pipeline, ready to be run by any number of workers.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// The pipeline's name or path, as the config or the subscriber gave it.
    pub pipeline: String,
    /// The first 12 hexadecimal digits of the component's SHA-256: what results carry as `deployment`.
    pub id: String,
    /// The compiled component, open for reading.
    pub compiled: Arc<OwnedFd>,
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Unique; anything printable.
    pub id: String,
    /// Where its frames come from.
    pub source: Source,
    /// What processes them.
    pub deployment: Deployment,
    /// The pipeline's settings.
    pub settings: Map<String, Value>,
    /// Which frames are decoded.
    pub decode: Decode,
}

/// A session as `GET /v1/sessions` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct SessionStatus {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// Why, where that says something.
    pub reason: Option<String>,
    /// The worker's process.
    pub pid: Option<u32>,
    /// Its source, without credentials.
    pub source: String,
    /// Its pipeline, as configured.
    pub pipeline: String,
    /// What the pipeline says of itself: name and version.
    pub pipeline_version: Option<String>,
    /// Which component runs.
    pub deployment: String,
    /// Seconds since the session was made or restarted by a person.
    pub uptime_s: f64,
    /// Workers started after the first.
    pub restarts: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Results since the session was made.
    pub results: u64,
    /// Events since the session was made.
    pub events: u64,
    /// What became of the frames since the worker started.
    pub frames: Frames,
    /// Bytes of the component's linear memories together.
    pub guest_memory: u64,
    /// How often the pipeline ran into each limit since the session was made; those that it never met are left out.
    #[serde(serialize_with = "by_name")]
    pub limits: LimitCounts,
    /// What the kernel enforces on the worker; none before it has said so.
    pub sandbox: Option<Confinement>,
}

fn by_name<S: Serializer>(counts: &LimitCounts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.hit().map(|(limit, count)| (limit.name(), count)))
}

/// Counts of frames.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Frames {
    /// Access units that the worker got.
    pub received: u64,
    /// Pictures decoded.
    pub decoded: u64,
    /// Frames that the pipeline processed.
    pub processed: u64,
    /// Inferences run.
    pub inferred: u64,
    /// Skipped frames by reason.
    pub skipped: Skipped,
}

/// Skipped frames by reason.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Skipped {
    /// A newer frame had come.
    pub newer: u64,
    /// The decode setting leaves them out.
    pub setting: u64,
    /// They came before the first key frame.
    pub no_key: u64,
    /// Damaged.
    pub corrupt: u64,
    /// The worker's queue was full.
    pub queue: u64,
}

impl From<Counters> for Frames {
    fn from(counters: Counters) -> Self {
        Self {
            received: counters.received,
            decoded: counters.decoded,
            processed: counters.processed,
            inferred: counters.inferred,
            skipped: Skipped {
                newer: counters.skipped_newer,
                setting: counters.skipped_setting,
                no_key: counters.skipped_no_key,
                corrupt: counters.skipped_corrupt,
                queue: 0,
            },
        }
    }
}

/// Why a request to a session failed.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// There is no such session.
    #[error("there is no session {0:?}")]
    Unknown(String),
    /// There is one already.
    #[error("session {0:?} exists already")]
    Exists(String),
    /// As many sessions as are allowed.
    #[error(
        "{limit} sessions run, as many as session_processes.max_concurrent_sessions allows: {}",
        holders.join(", ")
    )]
    Limit {
        /// The setting.
        limit: usize,
        /// The sessions' names.
        holders: Vec<String>,
    },
    /// No worker runs that could answer.
    #[error("session {0:?} has no running pipeline")]
    NotRunning(String),
    /// The pipeline's own words.
    #[error("{0}")]
    Refused(String),
    /// No answer in time.
    #[error("session {0:?} gave no answer within {limit} s", limit = COMMAND_TIMEOUT.as_secs())]
    Timeout(String),
}

impl SessionError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown_session",
            Self::Exists(_) => "session_exists",
            Self::Limit { .. } => "session_limit",
            Self::NotRunning(_) => "not_running",
            Self::Refused(_) => "refused",
            Self::Timeout(_) => "timeout",
        }
    }
}

/// What every session needs.
pub(crate) struct Environment {
    pub(crate) programs: Programs,
    pub(crate) sources: Sources,
    pub(crate) inference: Inference,
    pub(crate) hub: Hub,
    pub(crate) limits: Limits,
}

/// Bounds from the config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    worker: WorkerLimits,
    /// Within which a worker that hangs is noticed.
    health: Duration,
    /// Whether a worker that is not confined as it should be may run.
    sandbox: Sandbox,
    cleanup: Duration,
    sessions: usize,
}

impl Limits {
    fn new(config: &Config) -> Self {
        let resources = &config.resource_limits;
        Self {
            worker: WorkerLimits {
                memory: resources.memory_per_process_mb << 20,
                open_files: resources.open_files,
                guest_memory: resources.guest_memory_mb << 20,
                call_cpu_ms: resources.call_cpu_ms,
                call_timeout_ms: resources.call_timeout_ms,
                host_call_ms: resources.host_call_ms,
                inference_timeout_ms: config.inference.timeout_ms,
                events_per_frame: resources.events_per_frame,
                event_bytes: resources.event_kb << 10,
                attachments_per_frame: resources.attachments_per_frame,
                log_lines_per_second: resources.log_lines_per_second,
            },
            health: Duration::from_secs(config.session_processes.health_check_interval),
            sandbox: config.session_processes.sandbox,
            cleanup: Duration::from_secs(config.session_processes.process_cleanup_timeout),
            sessions: config.session_processes.max_concurrent_sessions,
        }
    }
}

/// What a session's task shows of itself.
struct Shared {
    spec: Spec,
    shown: Mutex<Shown>,
}

struct Shown {
    state: State,
    reason: Option<String>,
    pid: Option<u32>,
    description: Option<Description>,
    since: Instant,
    restarts: u64,
    last_error: Option<String>,
    results: u64,
    events: u64,
    frames: Frames,
    guest_memory: u64,
    /// Of the worker that runs; those before it are in `past_limits`.
    limits: LimitCounts,
    past_limits: LimitCounts,
    confinement: Option<Confinement>,
    /// When the pipeline last gave a result, or was ready to.
    last_result: Option<Instant>,
    /// Since when the source delivers nothing.
    source_down: Option<Instant>,
}

impl Shown {
    /// Takes in a worker's totals.
    fn count(&mut self, frames: Frames, limits: LimitCounts) {
        self.frames = frames;
        self.limits = limits;
    }
}

impl Shared {
    fn update<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn status(&self) -> SessionStatus {
        self.update(|shown| SessionStatus {
            id: self.spec.id.clone(),
            state: shown.state,
            reason: shown.reason.clone(),
            pid: shown.pid,
            source: self.spec.source.to_string(),
            pipeline: self.spec.deployment.pipeline.clone(),
            pipeline_version: shown.description.as_ref().map(|d| format!("{} {}", d.name, d.version)),
            deployment: self.spec.deployment.id.clone(),
            uptime_s: (shown.since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            restarts: shown.restarts,
            last_error: shown.last_error.clone(),
            results: shown.results,
            events: shown.events,
            frames: shown.frames.clone(),
            guest_memory: shown.guest_memory,
            limits: shown.past_limits.plus(shown.limits),
            sandbox: shown.confinement.clone(),
        })
    }
}

/// A request to a session's task.
enum Request {
    Command { request: String, answer: oneshot::Sender<Result<String, SessionError>> },
    Restart,
    Stop { reason: String },
}

struct Entry {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    /// Whether it was told to stop.
    ending: bool,
    /// Closed when its task is over, and its worker gone with it.
    over: watch::Receiver<()>,
}

impl Entry {
    /// What tells this session from another of its name, and what tells its end.
    fn end(&self) -> (Arc<Shared>, watch::Receiver<()>) {
        (Arc::clone(&self.shared), self.over.clone())
    }
}

/// All sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    environment: Arc<Environment>,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

impl Sessions {
    /// An empty registry.
    pub fn new(
        programs: Programs,
        sources: Sources,
        inference: Inference,
        hub: Hub,
        config: &Config,
    ) -> Self {
        let environment = Environment { programs, sources, inference, hub, limits: Limits::new(config) };
        Self { environment: Arc::new(environment), entries: Arc::default() }
    }

    /// Makes a session and starts it.
    pub fn start(&self, spec: Spec) -> Result<(), SessionError> {
        let mut entries = self.entries();
        if entries.contains_key(&spec.id) {
            return Err(SessionError::Exists(spec.id));
        }
        let limit = self.environment.limits.sessions;
        if entries.len() >= limit {
            return Err(SessionError::Limit { limit, holders: entries.keys().cloned().collect() });
        }
        let id = spec.id.clone();
        let shown = Shown {
            state: State::Starting,
            reason: None,
            pid: None,
            description: None,
            since: Instant::now(),
            restarts: 0,
            last_error: None,
            results: 0,
            events: 0,
            frames: Frames::default(),
            guest_memory: 0,
            limits: LimitCounts::default(),
            past_limits: LimitCounts::default(),
            confinement: None,
            last_result: None,
            source_down: None,
        };
        let shared = Arc::new(Shared { spec, shown: Mutex::new(shown) });
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let task = run::Task::new(Arc::clone(&self.environment), Arc::clone(&shared), inbox);
        let (running, over) = watch::channel(());
        tokio::spawn(async move {
            task.run().await;
            drop(running);
        });
        entries.insert(id, Entry { shared, requests, ending: false, over });
        Ok(())
    }

    /// All sessions, sorted by name.
    pub fn list(&self) -> Vec<SessionStatus> {
        self.entries().values().map(|entry| entry.shared.status()).collect()
    }

    /// One session.
    pub fn status(&self, id: &str) -> Option<SessionStatus> {
        self.entries().get(id).map(|entry| entry.shared.status())
    }

    /// What a session is made of.
    pub fn spec(&self, id: &str) -> Option<Spec> {
        self.entries().get(id).map(|entry| entry.shared.spec.clone())
    }

    /// Asks a session's pipeline a question.
    pub async fn command(&self, id: &str, request: Value) -> Result<Value, SessionError> {
        let (answer, answered) = oneshot::channel();
        self.request(id, Request::Command { request: request.to_string(), answer }).await?;
        let text = match tokio::time::timeout(COMMAND_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(SessionError::NotRunning(id.to_owned())),
            Err(_) => return Err(SessionError::Timeout(id.to_owned())),
        };
        serde_json::from_str(&text)
            .map_err(|error| SessionError::Refused(format!("the pipeline's answer is not JSON: {error}")))
    }

    /// Starts a session anew: a fresh worker at once, whatever state it is in.
    pub async fn restart(&self, id: &str) -> Result<(), SessionError> {
        self.request(id, Request::Restart).await
    }

    /// Ends a session and forgets it. Returns when its worker is gone.
    pub async fn stop(&self, id: &str, reason: &str) -> Result<(), SessionError> {
        let unknown = || SessionError::Unknown(id.to_owned());
        let (requests, ending) = {
            let mut entries = self.entries();
            let entry = entries.get_mut(id).ok_or_else(unknown)?;
            entry.ending = true;
            (entry.requests.clone(), entry.end())
        };
        // A task that takes no more requests is over already.
        let _ = requests.send(Request::Stop { reason: reason.to_owned() }).await;
        self.forget_after(id, ending).await;
        Ok(())
    }

    /// Waits until a session that was told to stop is gone; returns at once where there is none, or one that goes on.
    pub async fn settled(&self, id: &str) {
        let ending = self.entries().get(id).filter(|entry| entry.ending).map(Entry::end);
        if let Some(ending) = ending {
            self.forget_after(id, ending).await;
        }
    }

    /// Waits for a session's end and frees its name: not before, so that no name ever has two workers.
    async fn forget_after(&self, id: &str, (shared, mut over): (Arc<Shared>, watch::Receiver<()>)) {
        while over.changed().await.is_ok() {}
        let mut entries = self.entries();
        // Whoever else waited for this end may have come first, and the name have been given anew.
        if entries.get(id).is_some_and(|entry| Arc::ptr_eq(&entry.shared, &shared)) {
            entries.remove(id);
            self.environment.hub.forget(id);
        }
    }

    /// Ends all sessions at the same time.
    pub async fn stop_all(&self, reason: &str) {
        let ids: Vec<String> = self.entries().keys().cloned().collect();
        // A session that ended meanwhile is none the less ended.
        futures_util::future::join_all(ids.iter().map(|id| self.stop(id, reason))).await;
    }

    async fn request(&self, id: &str, request: Request) -> Result<(), SessionError> {
        let unknown = || SessionError::Unknown(id.to_owned());
        let requests = self.entries().get(id).map(|entry| entry.requests.clone()).ok_or_else(unknown)?;
        requests.send(request).await.map_err(|_| unknown())
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
