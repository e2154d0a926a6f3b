//! Sessions: one pipeline on one source, in a worker process of its own.
//!
//! # Theory of operation
//!
//! [`Sessions`] is the registry. Each session has one task ([`task`]) that owns everything of it:
//! the place at the inference process, the subscription to the source, the worker, and the
//! session's life as one value ([`lifecycle::Lifecycle`]). Others see it through its status, and
//! reach it by a bounded channel of requests.
//!
//! While a worker serves, a second task, the pump, carries access units from the source to it. The
//! worker's socket is the back-pressure: when a worker does not keep up, the pump waits, the
//! subscription's bounded queue fills, and the source leaves out units for this session alone, up
//! to the next key frame. A file's reader waits instead.
//!
//! Results go to the event hub as they come. Each loss of the worker is followed by a new one after
//! a wait that grows; the source's reader is kept meanwhile. Losses in a row, none of them after
//! ten seconds of results, are a crash loop, which ends in `failed` and waits for a person.

pub(crate) mod bounds;
mod cgroup;
pub mod change;
mod changeover;
mod compare;
mod feed;
mod green;
mod health;
mod kv_replica;
pub mod latency;
mod launch;
mod lifecycle;
mod member;
mod sandbox;
mod serve;
mod swap;
mod task;
mod totals;
pub(crate) mod watched;
mod worker;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::limit::{Limit, LimitCounts};
use ocelli_protocol::worker::{Decode, Description, WorkerLimits};
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot, watch};

use crate::config::source::Source;
use crate::config::{Config, Sandbox};
use crate::event::{Hub, SessionState};
use crate::inference::{InferenceHandle, ServiceTerms, Share};
use crate::journal::Journal;
use crate::redis::Redis;
use crate::source::Sources;
use change::{ProbationRequest, SwapRequest};
use latency::Latencies;
pub(crate) use launch::WorkerLaunch;
pub use sandbox::check_sandbox;
use totals::Totals;
pub use totals::{Frames, Skipped};
use watched::WorkerMonitor;
pub(crate) use worker::{WorkerProcess, WorkerSender};

pub use cgroup::{ControlGroups, ControlGroupsUnavailable, REMEDY as CONTROL_GROUPS_REMEDY};

/// How long loading a component, its `init` and opening its models may take. A model of hundreds of
/// megabytes that is not preloaded takes tens of seconds.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(90);

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

/// A compiled pipeline, ready to be run by any number of workers, or why there is none.
#[derive(Debug, Clone)]
pub struct CompiledPipeline {
    /// The pipeline's name or path, as the config or the subscriber gave it.
    pub name: String,
    /// The first 12 hexadecimal digits of the component's SHA-256: what results carry as
    /// `deployment`. Empty where there is no component.
    pub id: String,
    /// The whole of that SHA-256, hexadecimal.
    pub digest: String,
    /// The compiled component, open for reading; or why there is none, with which the session
    /// fails.
    pub compiled: Result<Arc<OwnedFd>, String>,
}

impl CompiledPipeline {
    /// Stands for a pipeline that cannot be run.
    pub fn missing(pipeline: &str, reason: String) -> Self {
        Self {
            name: pipeline.to_owned(),
            id: String::new(),
            digest: String::new(),
            compiled: Err(reason),
        }
    }
}

/// What a session is made of.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Unique; anything printable.
    pub id: String,
    /// Where its frames come from.
    pub source: Source,
    /// What processes them.
    pub pipeline: CompiledPipeline,
    /// The pipeline's settings.
    pub settings: Map<String, Value>,
    /// Which frames are decoded.
    pub decode: Decode,
    /// Its share of the inference process.
    pub priority: Priority,
    /// What the keys of Redis begin with that its pipeline may use; none: it may use none.
    pub redis_prefix: Option<String>,
}

/// A session as `GET /v1/sessions` shows it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub struct SessionStatus {
    /// Its name.
    pub id: String,
    /// Where it stands.
    pub state: SessionState,
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
    #[schemars(range(min = 0))]
    pub uptime_s: f64,
    /// Workers started after the first.
    pub restarts: u64,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// Results since the session was made.
    pub results: u64,
    /// Events since the session was made.
    pub events: u64,
    /// What became of the frames since the session was made.
    pub frames: Frames,
    /// Bytes of the component's linear memories together.
    pub guest_memory: u64,
    /// How often the pipeline ran into each limit since the session was made; those that it never
    /// met are left out.
    #[serde(serialize_with = "serialize_limits")]
    #[schemars(with = "BTreeMap<String, u64>", extend("propertyNames" = {"enum": limit_names()}))]
    pub limits: LimitCounts,
    /// The alerts that are raised now.
    // Their names belong to the monitor, which is above the sessions; its tests hold them to these.
    #[schemars(extend("items" = {"type": "string", "enum": ["memory", "no_results", "restarts", "source_down", "disk"]}))]
    pub alerts: Vec<&'static str>,
    /// What the kernel enforces on the worker; none before it has said so.
    pub sandbox: Option<Confinement>,
    /// Whether the worker runs in a control group of its own, which bounds its memory and CPU time.
    pub control_group: bool,
}

fn serialize_limits<S: Serializer>(counts: &LimitCounts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.hit().map(|(limit, count)| (limit.name(), count)))
}

fn limit_names() -> Vec<&'static str> {
    Limit::ALL.iter().map(|limit| limit.name()).collect()
}

/// A session as metrics and alerts see it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// As the API shows it.
    pub status: SessionStatus,
    /// How long its frames took, since the session was made.
    pub latencies: Latencies,
    /// When its pipeline last gave a result, or was ready to.
    pub last_result: Option<Instant>,
    /// Since when its source delivers nothing.
    pub source_down: Option<Instant>,
    /// Bytes of private memory that its worker may have.
    pub memory_limit: u64,
    /// Bytes that the component's linear memories may have together.
    pub guest_memory_limit: u64,
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
    pub(crate) inference: InferenceHandle,
    pub(crate) hub: Hub,
    pub(crate) journal: Journal,
    pub(crate) redis: Redis,
    pub(crate) groups: Option<ControlGroups>,
    /// Those of the config in force.
    limits: Mutex<Limits>,
}

impl Environment {
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.lock()
    }
}

/// Bounds from the config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    worker: WorkerLimits,
    /// Milliseconds that an inference of a live source may wait; 0: as long as it may take.
    stale_ms: u32,
    /// Whether pipelines may bring models of their own.
    may_load: bool,
    /// Bytes of shared memory for a session's tensors.
    tensor_memory: usize,
    /// CPU time of a worker in percent of one core.
    cpu_percent: u32,
    /// Within which a worker that hangs is noticed.
    health: Duration,
    /// Whether a worker that is not confined as it should be may run.
    sandbox: Sandbox,
    cleanup: Duration,
    /// Those of a change beside a running worker.
    swap: swap::RolloutTerms,
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
                image_pixels: config.analyze.max_megapixels.saturating_mul(1_000_000),
                store_bytes: resources.keyvalue_kb << 10,
                store_keys: resources.keyvalue_keys,
            },
            stale_ms: config.inference.stale_ms,
            may_load: config.inference.load,
            // The schema admits no more than `MAX_LENGTH` of the shared memory, 1 GiB.
            tensor_memory: usize::try_from(resources.tensor_memory_mb).unwrap_or(1) << 20,
            cpu_percent: resources.cpu_percent,
            health: Duration::from_secs(config.session_processes.health_check_interval),
            sandbox: config.session_processes.sandbox,
            cleanup: Duration::from_secs(config.session_processes.process_cleanup_timeout),
            swap: swap::RolloutTerms {
                start: Duration::from_secs(config.deploy.start_timeout_s),
                first_frame: Duration::from_millis(config.deploy.first_frame_ms),
                swap: Duration::from_millis(config.deploy.swap_timeout_ms),
                probation: Duration::from_secs(config.deploy.probation_s),
            },
            sessions: config.session_processes.max_concurrent_sessions,
        }
    }

    /// As these, for a worker of single pictures: a picture may take `timeout_ms`, and so may all
    /// that is done for it.
    #[must_use]
    pub(crate) fn for_pictures(self, timeout_ms: u32) -> Self {
        let worker = WorkerLimits {
            call_timeout_ms: timeout_ms,
            inference_timeout_ms: timeout_ms,
            ..self.worker
        };
        Self { worker, ..self }
    }

    /// What a worker's single pictures get of the inference process. `share` is that of all workers
    /// of its pipeline.
    pub(crate) fn service_for_pictures(&self, share: Share) -> ServiceTerms {
        ServiceTerms {
            share,
            priority: Priority::default(),
            timeout_ms: self.worker.inference_timeout_ms,
            stale_ms: None,
            may_load: self.may_load,
            tensor_memory: self.tensor_memory,
        }
    }

    /// Looks after a worker that is started with these.
    pub(crate) fn watch(&self) -> WorkerMonitor {
        WorkerMonitor::new(self.health, self.worker)
    }

    /// Whether a worker that is confined like this may run; if not, why.
    pub(crate) fn admit(&self, confinement: &Confinement) -> Result<(), String> {
        if confinement.is_complete() || self.sandbox != Sandbox::Required {
            return Ok(());
        }
        let lacks = confinement.missing_text();
        Err(format!(
            "the worker is not confined as session_processes.sandbox = \"required\" wants: {lacks}"
        ))
    }

    /// What a session gets of the inference process. A file's frames all count, so none of them is
    /// stale.
    fn service(&self, priority: Priority, live: bool) -> ServiceTerms {
        ServiceTerms {
            share: Share::Own,
            priority,
            timeout_ms: self.worker.inference_timeout_ms,
            stale_ms: (live && self.stale_ms > 0).then_some(self.stale_ms),
            may_load: self.may_load,
            tensor_memory: self.tensor_memory,
        }
    }
}

/// What a session's task shows of itself.
struct SessionShared {
    spec: Mutex<Arc<Spec>>,
    shown: Mutex<StatusInner>,
}

struct StatusInner {
    state: SessionState,
    reason: Option<String>,
    pid: Option<u32>,
    description: Option<Description>,
    since: Instant,
    restarts: u64,
    last_error: Option<String>,
    results: u64,
    events: u64,
    totals: Totals,
    latencies: Latencies,
    guest_memory: u64,
    alerts: Vec<&'static str>,
    confinement: Option<Confinement>,
    control_group: bool,
    /// What the worker that runs may use, or the next one if none runs.
    allowed: WorkerLimits,
    /// When the pipeline last gave a result, or was ready to.
    last_result: Option<Instant>,
    /// Since when the source delivers nothing.
    source_down: Option<Instant>,
}

impl StatusInner {
    /// The worker is gone.
    fn end_worker(&mut self) {
        self.pid = None;
        self.guest_memory = 0;
        self.totals.end_worker();
    }
}

impl SessionShared {
    fn update<T>(&self, change: impl FnOnce(&mut StatusInner) -> T) -> T {
        change(&mut self.shown.lock())
    }

    fn spec(&self) -> Arc<Spec> {
        Arc::clone(&self.spec.lock())
    }

    fn set_spec(&self, spec: Arc<Spec>) {
        *self.spec.lock() = spec;
    }

    fn status(&self) -> SessionStatus {
        let spec = self.spec();
        self.update(|shown| SessionStatus {
            id: spec.id.clone(),
            state: shown.state,
            reason: shown.reason.clone(),
            pid: shown.pid,
            source: spec.source.to_string(),
            pipeline: spec.pipeline.name.clone(),
            pipeline_version: shown
                .description
                .as_ref()
                .map(|d| format!("{} {}", d.name, d.version)),
            deployment: spec.pipeline.id.clone(),
            uptime_s: (shown.since.elapsed().as_secs_f64() * 1000.0).round() / 1000.0,
            restarts: shown.restarts,
            last_error: shown.last_error.clone(),
            results: shown.results,
            events: shown.events,
            frames: shown.totals.frames(),
            guest_memory: shown.guest_memory,
            limits: shown.totals.limits(),
            alerts: shown.alerts.clone(),
            sandbox: shown.confinement.clone(),
            control_group: shown.control_group,
        })
    }
}

/// A request to a session's task.
enum SessionRequest {
    Command {
        request: String,
        answer: oneshot::Sender<Result<String, SessionError>>,
    },
    Restart,
    /// A new start with another spec of the same name.
    Replace {
        spec: Arc<Spec>,
        trial: Option<Box<ProbationRequest>>,
    },
    /// Another version of the pipeline, beside the running one.
    Swap(Box<SwapRequest>),
    Stop {
        reason: String,
    },
}

struct SessionEntry {
    shared: Arc<SessionShared>,
    requests: mpsc::Sender<SessionRequest>,
    /// Whether it was told to stop.
    ending: bool,
    /// Closed when its task is over, and its worker gone with it.
    over: watch::Receiver<()>,
}

impl SessionEntry {
    /// What tells this session from another of its name, and what tells its end.
    fn end(&self) -> (Arc<SessionShared>, watch::Receiver<()>) {
        (Arc::clone(&self.shared), self.over.clone())
    }
}

/// Where what sessions say and keep goes.
pub struct Sinks {
    /// To subscribers, and to the journal of events.
    pub hub: Hub,
    /// Their stores.
    pub journal: Journal,
    /// Keys that an operator grants.
    pub redis: Redis,
}

/// All sessions. Cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    environment: Arc<Environment>,
    entries: Arc<Mutex<BTreeMap<String, SessionEntry>>>,
}

impl Sessions {
    /// An empty registry.
    pub fn new(
        programs: Programs,
        sources: Sources,
        inference: InferenceHandle,
        outlets: Sinks,
        groups: Option<ControlGroups>,
        config: &Config,
    ) -> Self {
        let Sinks { hub, journal, redis } = outlets;
        let limits = Mutex::new(Limits::new(config));
        let environment =
            Environment { programs, sources, inference, hub, journal, redis, groups, limits };
        Self { environment: Arc::new(environment), entries: Arc::default() }
    }

    /// What every worker needs.
    pub(crate) fn environment(&self) -> Arc<Environment> {
        Arc::clone(&self.environment)
    }

    /// Takes limits and Redis over from another config: limits on workers for workers that start
    /// from now on, all else at once.
    pub fn apply_config(&self, config: &Config) {
        *self.environment.limits.lock() = Limits::new(config);
        self.environment.redis.set_settings(config.redis.as_ref());
    }

    /// Makes a session and starts it. What it returns closes when the session is over. `trial`:
    /// whether what it runs lasts is to be told.
    pub fn start(
        &self,
        spec: Spec,
        trial: Option<ProbationRequest>,
    ) -> Result<watch::Receiver<()>, SessionError> {
        let mut entries = self.entries.lock();
        if entries.contains_key(&spec.id) {
            return Err(SessionError::Exists(spec.id));
        }
        let limits = self.environment.limits();
        let limit = limits.sessions;
        if entries.len() >= limit {
            return Err(SessionError::Limit { limit, holders: entries.keys().cloned().collect() });
        }
        let id = spec.id.clone();
        let shown = StatusInner {
            state: SessionState::Starting,
            reason: None,
            pid: None,
            description: None,
            since: Instant::now(),
            restarts: 0,
            last_error: None,
            results: 0,
            events: 0,
            totals: Totals::default(),
            latencies: Latencies::default(),
            guest_memory: 0,
            alerts: Vec::new(),
            confinement: None,
            control_group: false,
            allowed: limits.worker,
            last_result: None,
            source_down: None,
        };
        let shared =
            Arc::new(SessionShared { spec: Mutex::new(Arc::new(spec)), shown: Mutex::new(shown) });
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let task = task::SessionTask::new(
            Arc::clone(&self.environment),
            Arc::clone(&shared),
            inbox,
            trial,
        );
        let (running, over) = watch::channel(());
        tokio::spawn(async move {
            task.run().await;
            drop(running);
        });
        entries.insert(id, SessionEntry { shared, requests, ending: false, over: over.clone() });
        Ok(over)
    }

    /// All sessions, sorted by name.
    pub fn list(&self) -> Vec<SessionStatus> {
        self.entries.lock().values().map(|entry| entry.shared.status()).collect()
    }

    /// All sessions with what metrics and alerts need, sorted by name. Holds up no session for
    /// longer than its numbers take to copy.
    pub fn observe(&self) -> Vec<Observation> {
        let shared: Vec<Arc<SessionShared>> =
            self.entries.lock().values().map(|entry| Arc::clone(&entry.shared)).collect();
        let observe = |shared: &Arc<SessionShared>| {
            let status = shared.status();
            shared.update(|shown| Observation {
                status,
                latencies: shown.latencies,
                last_result: shown.last_result,
                source_down: shown.source_down,
                memory_limit: shown.allowed.memory,
                guest_memory_limit: shown.allowed.guest_memory,
            })
        };
        shared.iter().map(observe).collect()
    }

    /// Shows the alerts that are raised of a session, by their names.
    pub fn show_alerts(&self, id: &str, alerts: Vec<&'static str>) {
        if let Some(entry) = self.entries.lock().get(id) {
            entry.shared.update(|shown| shown.alerts = alerts);
        }
    }

    /// One session.
    pub fn status(&self, id: &str) -> Option<SessionStatus> {
        self.entries.lock().get(id).map(|entry| entry.shared.status())
    }

    /// What a session is made of.
    pub fn spec(&self, id: &str) -> Option<Arc<Spec>> {
        self.entries.lock().get(id).map(|entry| entry.shared.spec())
    }

    /// Asks a session's pipeline a question.
    pub async fn command(&self, id: &str, request: Value) -> Result<Value, SessionError> {
        let (answer, answered) = oneshot::channel();
        self.request(id, SessionRequest::Command { request: request.to_string(), answer }).await?;
        let text = match tokio::time::timeout(COMMAND_TIMEOUT, answered).await {
            Ok(Ok(answer)) => answer?,
            Ok(Err(_)) => return Err(SessionError::NotRunning(id.to_owned())),
            Err(_) => return Err(SessionError::Timeout(id.to_owned())),
        };
        serde_json::from_str(&text).map_err(|error| {
            SessionError::Refused(format!("the pipeline's answer is not JSON: {error}"))
        })
    }

    /// Starts a session anew: a fresh worker at once, whatever state it is in.
    pub async fn restart(&self, id: &str) -> Result<(), SessionError> {
        self.request(id, SessionRequest::Restart).await
    }

    /// Gives the session of this name another spec: a fresh worker at once, whatever state it is
    /// in. Its subscribers stay, its events are numbered on, and a source that is the same stays
    /// connected.
    pub async fn replace(
        &self,
        spec: Spec,
        trial: Option<ProbationRequest>,
    ) -> Result<(), SessionError> {
        let spec = Arc::new(spec);
        if self.entries.lock().get(&spec.id).is_some_and(|entry| entry.ending) {
            return Err(SessionError::Unknown(spec.id.clone()));
        }
        self.request(
            &spec.id,
            SessionRequest::Replace { spec: Arc::clone(&spec), trial: trial.map(Box::new) },
        )
        .await
    }

    /// Changes the pipeline of the session of this name while it runs: see [`apply_event`].
    pub async fn swap(&self, swap: SwapRequest) -> Result<(), SessionError> {
        let id = swap.spec.id.clone();
        if self.entries.lock().get(&id).is_some_and(|entry| entry.ending) {
            return Err(SessionError::Unknown(id));
        }
        self.request(&id, SessionRequest::Swap(Box::new(swap))).await
    }

    /// Ends a session and forgets it. Returns when its worker is gone.
    pub async fn stop(&self, id: &str, reason: &str) -> Result<(), SessionError> {
        let unknown = || SessionError::Unknown(id.to_owned());
        let (requests, ending) = {
            let mut entries = self.entries.lock();
            let entry = entries.get_mut(id).ok_or_else(unknown)?;
            entry.ending = true;
            (entry.requests.clone(), entry.end())
        };
        // A task that takes no more requests is over already.
        let _ = requests.send(SessionRequest::Stop { reason: reason.to_owned() }).await;
        self.forget_after(id, ending).await;
        Ok(())
    }

    /// Waits until a session that was told to stop is gone; returns at once where there is none, or
    /// one that goes on.
    pub async fn wait_until_gone(&self, id: &str) {
        let ending =
            self.entries.lock().get(id).filter(|entry| entry.ending).map(SessionEntry::end);
        if let Some(ending) = ending {
            self.forget_after(id, ending).await;
        }
    }

    /// Waits for a session's end and frees its name: not before, so that no name ever has two
    /// workers.
    async fn forget_after(
        &self,
        id: &str,
        (shared, mut over): (Arc<SessionShared>, watch::Receiver<()>),
    ) {
        while over.changed().await.is_ok() {}
        let mut entries = self.entries.lock();
        // Whoever else waited for this end may have come first, and the name have been given anew.
        if entries.get(id).is_some_and(|entry| Arc::ptr_eq(&entry.shared, &shared)) {
            entries.remove(id);
            self.environment.hub.remove_session(id);
        }
    }

    /// Ends all sessions at the same time.
    pub async fn stop_all(&self, reason: &str) {
        let ids: Vec<String> = self.entries.lock().keys().cloned().collect();
        // A session that ended meanwhile is none the less ended.
        futures_util::future::join_all(ids.iter().map(|id| self.stop(id, reason))).await;
    }

    async fn request(&self, id: &str, request: SessionRequest) -> Result<(), SessionError> {
        let unknown = || SessionError::Unknown(id.to_owned());
        let requests =
            self.entries.lock().get(id).map(|entry| entry.requests.clone()).ok_or_else(unknown)?;
        requests.send(request).await.map_err(|_| unknown())
    }
}
