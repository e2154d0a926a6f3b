//! What sessions run: deployments, whatever asks for them, and the sessions that the config and
//! subscribers make.
//!
//! Every change of what a session runs is a deployment ([`Record`]) and goes one way. Its origin,
//! the API, the config ([`cameras`]), a file in the watched folder ([`folder`]) or a subscriber
//! ([`subscriber`]), makes a plan ([`plan`]); one function takes the plan's steps ([`execute`]).
//! The history is in the journal, and the components that a session may need again are on disk
//! ([`components`]).

mod admission;
mod backend;
mod cameras;
mod compile;
mod components;
mod describe;
mod desired;
mod execute;
mod folder;
mod history;
mod pipelines;
mod plan;
mod queue;
mod record;
mod report;
mod request;
mod session_index;
mod site;
mod state;
mod subscriber;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Map, Value};
use tokio::sync::{Mutex, watch};

use crate::config::diff::{self, Effect};
use crate::config::{Camera, Config, OciReference, ShownProblem};
use crate::event::Hub;
use crate::journal::Journal;
use crate::session::{CompiledPipeline, Drift, SessionError, SessionHandle, Sessions};
use crate::util::backoff::{Backoff, BackoffPolicy};
use crate::worker::ControlGroups;
use backend::HostBackend;
use cameras::Cameras;
use components::ComponentStore;
use desired::{ActualVersion, ReloadState, drift};
use execute::Executor;
use history::History;
use plan::Origin;
use state::DeployState;

pub(crate) use compile::Compiler;
pub use compile::{CompileError, ComponentSource, PreparedComponent, check_component};
pub use describe::DescribedPipeline;
pub use desired::{CameraStatus, ConfigStatus, RefusedConfig, ReloadFigures, ReloadReport};
use pipelines::PipelineFolders;
pub use pipelines::{PipelineError, find_named, find_pipeline};
pub use record::{Cause, DeploymentState, Outcome, Record};
pub use report::{DEPLOYMENT, DeploymentFigures};
pub use request::{Component, DeployError, DeployRequest, MAX_WAITING, NamedPipeline};

/// How often registries are asked that did not give the component of a camera.
const REGISTRY_WAITS: BackoffPolicy = BackoffPolicy {
    free: 0,
    first: Duration::from_secs(5),
    longest: Duration::from_secs(600),
    jitter: -0.5,
};

/// Makes sessions, and owns the config that is in force. Cheap to clone.
#[derive(Clone)]
pub struct Deployer {
    inner: Arc<DeployerInner>,
}

struct DeployerInner {
    executor: Arc<Executor<HostBackend>>,
    journal: Journal,
    config: watch::Sender<Arc<Config>>,
    /// Locked while a config is applied.
    cameras: Mutex<Cameras>,
    reloads: parking_lot::Mutex<ReloadState>,
}

impl Deployer {
    /// A deployer; `groups`: where the compiler gets a control group. Deployments that were under
    /// way when the host before it ended are closed.
    pub async fn new(
        sessions: Sessions,
        hub: Hub,
        journal: Journal,
        program: &Path,
        groups: Option<ControlGroups>,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let store = &config.store;
        let sandbox = config.session_processes.sandbox;
        let compiler =
            Compiler::new(program.to_owned(), &store.compiled(), sandbox, groups, &config.deploy)
                .await?;
        let components = ComponentStore::open(&store.directory.join("components"))?;
        let pipelines = PipelineFolders::new(config);
        journal.events().set_retention(config.into());
        let history = History::new(journal.clone());
        for record in history.close_interrupted().await? {
            report::log(&record);
        }
        let config = watch::Sender::new(Arc::new(config.clone()));
        let compiler = Arc::new(compiler);
        let (memory, describer) = Default::default();
        let backend = HostBackend { sessions, hub, compiler, memory, describer };
        let state = DeployState::new(history, components, pipelines, config.subscribe());
        let executor = Arc::new(Executor::new(backend, state));
        let cameras = Mutex::new(Cameras::new(Arc::clone(&executor)));
        let reloads = ReloadState { applied: record::now(), ..ReloadState::default() };
        let reloads = parking_lot::Mutex::new(reloads);
        let inner = DeployerInner { executor, journal, config, cameras, reloads };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What checks and compiles components.
    pub(crate) fn compiler(&self) -> Arc<Compiler> {
        Arc::clone(&self.inner.executor.backend.compiler)
    }

    /// The host stops: no deployment begins any more, and those under way are interrupted.
    pub fn stop(&self) {
        self.inner.executor.stop();
    }

    /// Figures of the deployments since the host was started.
    pub fn figures(&self) -> DeploymentFigures {
        self.inner.executor.figures.lock().clone()
    }

    /// The config that is in force. A setting that a running host cannot take over is as it was at
    /// the host's start.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.config.borrow())
    }

    /// The config that is in force, as it changes.
    pub fn watch_config(&self) -> watch::Receiver<Arc<Config>> {
        self.inner.config.subscribe()
    }

    /// Starts the cameras of the config at the same time. One that fails stops no other.
    pub async fn start_configured(&self) {
        let mut cameras = self.inner.cameras.lock().await;
        cameras.start(&self.config()).await;
    }

    /// Makes the running host follow another config, as far as a running host can, and logs what it
    /// does and why. `problems` are faults of single cameras, to be shown. Calls wait for each
    /// other.
    ///
    /// `refused`: what has become of the config's file, where it is not what is applied.
    pub async fn apply(
        &self,
        wanted: Config,
        problems: Vec<ShownProblem>,
        refused: Option<RefusedConfig>,
    ) -> ReloadReport {
        let mut cameras = self.inner.cameras.lock().await;
        let running = self.config();
        let mut keys = diff::sections(&running, &wanted);
        log_sections(&keys);
        let mut taken = |effect| keys.remove(&effect).unwrap_or_default();
        let (now, next_worker) = (taken(Effect::Now), taken(Effect::NextWorker));
        let waiting = taken(Effect::NextHost);
        let config = Arc::new(diff::effective(&running, wanted));
        // First, so that workers that start below get the new limits.
        let HostBackend { sessions, compiler, .. } = &self.inner.executor.backend;
        sessions.apply_config(&config);
        compiler.configure(&config.deploy);
        self.inner.journal.events().set_retention((&*config).into());
        self.inner.config.send_replace(Arc::clone(&config));
        self.note_applied(*running != *config, problems.clone(), waiting.clone(), refused);
        let cameras = cameras.apply(&config).await;
        ReloadReport { cameras, now, next_worker, waiting, problems }
    }

    /// Notes that a config is in force. `is_other`: it was not before.
    fn note_applied(
        &self,
        is_other: bool,
        problems: Vec<ShownProblem>,
        waiting: Vec<String>,
        refused: Option<RefusedConfig>,
    ) {
        let mut reloads = self.inner.reloads.lock();
        if is_other {
            reloads.applied = record::now();
            reloads.times_applied += 1;
        }
        (reloads.problems, reloads.waiting, reloads.refused) = (problems, waiting, refused);
    }

    /// Notes that a config was read and not applied.
    pub fn refuse_config(&self, cause: &str, problems: Vec<ShownProblem>) {
        let mut reloads = self.inner.reloads.lock();
        reloads.times_refused += 1;
        let (time, cause) = (record::now(), cause.to_owned());
        reloads.refused = Some(RefusedConfig { time, cause, problems });
    }

    /// Counts of reloads since the host was started.
    pub fn reload_figures(&self) -> ReloadFigures {
        self.inner.reloads.lock().figures()
    }

    /// The config in force, and how each camera differs from its entry.
    pub fn config_status(&self) -> ConfigStatus {
        let ReloadState { applied, problems, waiting, refused, .. } =
            self.inner.reloads.lock().clone();
        let drifts = self.drifts();
        let config = self.config();
        let cameras = config.cameras.iter().map(|camera| CameraStatus {
            id: camera.id.clone(),
            drift: drifts.get(&camera.id).cloned(),
        });
        ConfigStatus { applied, problems, waiting, refused, cameras: cameras.collect() }
    }

    /// The cameras that do not run as the config says, by name.
    pub fn drifts(&self) -> BTreeMap<String, Drift> {
        let config = self.config();
        let started = self.inner.reloads.lock().applied.clone();
        let drifts = config.cameras.iter().filter_map(|camera| {
            let drift = self.drift_of(camera, &started)?;
            Some((camera.id.clone(), drift))
        });
        drifts.collect()
    }

    /// How a camera does not run as the config says; `None` also for other sessions.
    pub fn drift(&self, session: &str) -> Option<Drift> {
        let config = self.config();
        let camera = config.cameras.iter().find(|camera| camera.id == session)?;
        let started = self.inner.reloads.lock().applied.clone();
        self.drift_of(camera, &started)
    }

    fn drift_of(&self, camera: &Camera, started: &str) -> Option<Drift> {
        let state = &self.inner.executor.state;
        let session = state.sessions.camera(&camera.id);
        let spec = session.as_ref().map(SessionHandle::spec);
        let actual = session.as_ref().zip(spec.as_ref()).map(|(session, spec)| ActualVersion {
            version: session.running(),
            settings: &spec.settings,
        });
        let applied = state.history.applied(&camera.id);
        drift(camera, actual, applied.as_ref(), &state.notes, started)
    }

    /// Ends a session. Returns when it has ended. A configured camera stays ended until its entry
    /// changes or the host is started again.
    pub async fn end(&self, id: &str) -> Result<(), SessionError> {
        let Executor { backend, state, .. } = &*self.inner.executor;
        backend.sessions.find(id)?;
        if state.sessions.configured(id) {
            state.notes.ended(id);
        }
        backend.sessions.stop(id, "stopped by an operator").await
    }

    /// Deploys the pipelines whose files change in the watched folder. Never returns; may be
    /// dropped at any time. Files that lie there when it is called have not changed.
    pub async fn watch_pipelines(self) {
        folder::watch(&self.inner.executor).await;
    }

    /// Asks registries again for the components that they did not give when cameras were started:
    /// the network may come after the host. Never returns; may be dropped at any time.
    pub async fn fetch_missing(self) {
        let mut waits: BTreeMap<String, (Backoff, Instant)> = BTreeMap::new();
        loop {
            tokio::time::sleep(REGISTRY_WAITS.first).await;
            let mut missing = self.inner.cameras.lock().await.missing();
            waits.retain(|registry, _| missing.contains_key(registry));
            let now = Instant::now();
            missing.retain(|registry, _| waits.get(registry).is_none_or(|(_, at)| *at <= now));
            // Without the lock: a registry may take minutes to answer. One camera of each asks.
            let asked = missing.into_iter().filter_map(|(registry, cameras)| {
                let reference: OciReference = cameras.first()?.pipeline.parse().ok()?;
                let state = &self.inner.executor.state;
                Some(async move { (registry, state.pull(&reference).await) })
            });
            // The leases keep what was fetched until the cameras have it.
            let (mut there, mut leases) = (BTreeSet::new(), Vec::new());
            for (registry, pulled) in join_all(asked).await {
                match pulled {
                    Err(DeployError::Registry(error)) if error.is_of_registry() => {
                        let first = || (Backoff::new(REGISTRY_WAITS), now);
                        let (backoff, at) = waits.entry(registry).or_insert_with(first);
                        *at = Instant::now() + backoff.fail(rand::random());
                    }
                    pulled => {
                        there.insert(registry);
                        leases.extend(pulled.ok());
                    }
                }
            }
            if !there.is_empty() {
                self.inner.cameras.lock().await.fetch_missing(&there).await;
            }
        }
    }

    /// Has a session run another version. Returns once the new version is active, with a record in
    /// [`DeploymentState::Probation`], or once it has failed, with one that has ended; the
    /// probation goes on without the caller. One at a time for each session; others wait in their
    /// order. It runs to its end even if the caller stops waiting.
    pub async fn deploy(&self, request: DeployRequest) -> Result<Record, DeployError> {
        let session = request.session.clone();
        self.inner.executor.deploy(&session, Origin::Request(request)).await
    }

    /// Has a session run the version before: the last other one that served, with its settings.
    pub async fn rollback(&self, session: &str, by: &str) -> Result<Record, DeployError> {
        self.inner.executor.deploy(session, Origin::Rollback { by: by.to_owned() }).await
    }

    /// The deployments of a session, newest first, at most `limit`. Empty if nothing is known of
    /// the session.
    pub async fn deployments(
        &self,
        session: &str,
        limit: usize,
    ) -> Result<Vec<Record>, DeployError> {
        let listed = self.inner.executor.state.history.list(session, limit).await;
        listed.map_err(|error| DeployError::Internal(format!("{error:#}")))
    }

    /// The pipelines in the data directory and the built-in ones, sorted by name. Reads every file.
    pub async fn pipelines(&self) -> Result<Vec<NamedPipeline>, DeployError> {
        let deployer = self.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let named = deployer.inner.executor.state.pipelines.all().into_iter();
            // A file may be deleted meanwhile.
            named.filter_map(|(name, source)| deployer.describe(name, &source).ok()).collect()
        });
        listed.await.map_err(|error| DeployError::Internal(error.to_string()))
    }

    /// What a pipeline with a name says of itself, whether a session runs it or not. A component
    /// that is new is compiled first.
    pub async fn described(&self, name: &str) -> Result<DescribedPipeline, DeployError> {
        let (deployer, name) = (self.clone(), name.to_owned());
        // Who leaves while waiting for a turn costs nothing.
        let requests = Arc::clone(&self.inner.executor.backend.describer.requests);
        let turn = requests.acquire_owned().await;
        let turn = turn.map_err(|error| DeployError::Internal(error.to_string()))?;
        // It goes on if the caller stops waiting: the compiled code is kept.
        let described = tokio::spawn(async move {
            let _turn = turn;
            let source = deployer.inner.executor.state.pipelines.named(&name)?;
            let backend = &deployer.inner.executor.backend;
            let caller = format!("description of {name}");
            let prepared = backend.compiler.prepare(&caller, &name, source).await?;
            let config = deployer.config();
            let described = backend.describer.describe(&name, &prepared, &config).await;
            let undescribed = |error: anyhow::Error| DeployError::Undescribed {
                pipeline: name.clone(),
                reason: format!("{error:#}"),
            };
            let description = described.map_err(undescribed)?;
            Ok(DescribedPipeline::new(name, prepared.digest, &description))
        });
        described.await.unwrap_or_else(|error| Err(DeployError::Internal(error.to_string())))
    }

    /// A pipeline as its file is now. Reads the file.
    fn describe(&self, name: String, source: &ComponentSource) -> std::io::Result<NamedPipeline> {
        let (digest, size) = components::digest(source.open()?)?;
        let users = self.inner.executor.state.sessions.users(&name).into_iter();
        let sessions = users.map(|(session, _)| session).collect();
        Ok(NamedPipeline { name, file: source.place(), size, digest, sessions })
    }

    /// Checks a component and puts it into the data directory under this name, as a whole. If the
    /// folder of pipelines is watched, it is then deployed to the sessions that use it.
    pub async fn put_pipeline(
        &self,
        name: &str,
        bytes: bytes::Bytes,
        by: &str,
    ) -> Result<NamedPipeline, DeployError> {
        pipelines::check_name(name).map_err(DeployError::InvalidName)?;
        let source = ComponentSource::Bytes(bytes.clone());
        self.inner.executor.backend.compiler.prepare(&format!("client {by}"), name, source).await?;
        let (deployer, name) = (self.clone(), name.to_owned());
        let put = tokio::task::spawn_blocking(move || {
            let put = deployer.inner.executor.state.pipelines.put(&name, &bytes);
            let put = put.and_then(|source| deployer.describe(name, &source));
            put.map_err(|error| DeployError::storing("the pipeline", &error))
        });
        put.await.unwrap_or_else(|error| Err(DeployError::Internal(error.to_string())))
    }

    /// Starts a session anew: a fresh worker at once, whatever state it is in. The component that a
    /// failed camera lacks is looked for and compiled again.
    pub async fn restart(&self, id: &str) -> Result<(), SessionError> {
        let session = self.inner.executor.backend.sessions.find(id)?;
        if !cameras::has_nothing_to_run(&session) {
            return session.restart().await;
        }
        let (deployer, id) = (self.clone(), id.to_owned());
        // The caller does not wait for the compiler, which may take minutes.
        tokio::spawn(async move { deployer.inner.cameras.lock().await.retry(&id).await });
        Ok(())
    }

    /// Whether there is a pipeline of this name; if not, why.
    pub fn knows(&self, pipeline: &str) -> Result<(), DeployError> {
        Ok(self.inner.executor.state.pipelines.named(pipeline).map(drop)?)
    }

    /// A pipeline's component as it is now, compiled if it is new. Compiling may take minutes, and
    /// goes on if the caller stops waiting.
    pub async fn component(&self, pipeline: &str) -> Result<CompiledPipeline, DeployError> {
        let (deployer, pipeline) = (self.clone(), pipeline.to_owned());
        let compiled = tokio::spawn(async move {
            let source = deployer.inner.executor.state.pipelines.named(&pipeline)?;
            let compiler = &deployer.inner.executor.backend.compiler;
            let caller = format!("pictures of {pipeline}");
            Ok(compiler.prepare(&caller, &pipeline, source).await?.compiled_pipeline(&pipeline))
        });
        compiled.await.unwrap_or_else(|error| Err(DeployError::Internal(error.to_string())))
    }

    /// Makes sure that a session runs this pipeline on this source: a subscriber's, which ends when
    /// its last subscriber has been gone for the grace period. One that exists already is left as
    /// it is.
    pub async fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
    ) -> Result<(), DeployError> {
        subscriber::ensure(&self.inner.executor, id, source, pipeline, settings).await
    }
}

/// Logs what changed outside the cameras, and when it takes effect.
fn log_sections(sections: &BTreeMap<Effect, Vec<String>>) {
    for (effect, keys) in sections {
        let keys = keys.join(", ");
        match effect {
            Effect::Now => tracing::info!(target: "ocelli::deploy", "in force from now on: {keys}"),
            Effect::NextWorker => tracing::info!(
                target: "ocelli::deploy",
                "in force for workers that start from now on, others keep what they have: {keys}"
            ),
            Effect::NextHost => {
                tracing::warn!(target: "ocelli::deploy", "takes effect when the host is \
                    restarted: {keys}");
            }
        }
    }
}
