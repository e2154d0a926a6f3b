//! `ocelli serve`: puts the host together, runs it, and takes it apart again.

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use rustix::process::{Resource, Rlimit};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::analyze::{Analyses, Workers};
use crate::api::{Control, Deployments, Refusal, Server, Timing};
use crate::config::Config;
use crate::deploy::{DeployError, Deployer, NamedPipeline, Order, Record, find_named, find_pipeline};
use crate::event::Hub;
use crate::inference::Inference;
use crate::inference::catalogue::ShownModels;
use crate::journal::Journal;
use crate::monitor::Monitor;
use crate::offer::{Changes, Offer};
use crate::redis::Redis;
use crate::reload::Reloads;
use crate::session::{
    CONTROL_GROUPS_REMEDY, ControlGroups, Outlets, Programs, SessionError, SessionStatus, Sessions,
    check_sandbox,
};
use crate::source::{Settings, Sources};
use crate::telemetry;

/// Descriptors that the host asks for: a socket for each of the API's 4096 subscribers, a handful for each session.
/// The usual soft limit is 1024.
const DESCRIPTORS: u64 = 16_384;

/// Runs the host until SIGTERM or SIGINT, then stops it within `process_cleanup_timeout`. A second signal ends the
/// process at once. `config` was read from `path`, which is read again when it was edited and at SIGHUP. Fails where
/// something that every camera needs is missing: the address, a program, a model that differs from its description, a
/// configured pipeline, ONNX Runtime.
pub async fn serve(path: &Path, config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let reloads = Reloads::new(path)?;
    raise_descriptor_limit();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let host = tokio::select! {
        host = Host::start(&config) => host?,
        name = signals.next() => {
            tracing::info!("{name}: stopped while starting");
            return Ok(());
        }
    };
    tracing::info!(cameras = config.cameras.len(), "ready");
    let deployer = host.deployer.clone();
    let reloading = tokio::spawn(reloads.run(deployer.clone()));
    let name = signals.next().await;
    tracing::info!("{name}: stopping");
    // A config that is being applied starts no more sessions.
    reloading.abort();
    let _ = reloading.await;
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::warn!("{name} again: ending at once");
        // Child processes die with this one.
        std::process::exit(1);
    });
    host.stop(Duration::from_secs(deployer.config().session_processes.process_cleanup_timeout)).await;
    Ok(())
}

/// What runs.
struct Host {
    sessions: Sessions,
    deployer: Deployer,
    journal: Journal,
    analyses: Analyses,
    server: Server,
    /// Offers the models again when they have changed.
    offering: JoinHandle<()>,
    /// Deploys pipelines whose files have changed.
    deploying: JoinHandle<()>,
    /// Writes events to Redis.
    writing: JoinHandle<()>,
}

impl Host {
    async fn start(config: &Config) -> anyhow::Result<Self> {
        // First what can fail without having started a process.
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen} (`[server] listen` in the config)"))?;
        for camera in &config.cameras {
            find_pipeline(&camera.pipeline, config).with_context(|| format!("camera {:?}", camera.id))?;
        }
        for kept in &config.analyze.pipelines {
            find_named(&kept.name, config).context("analyze.pipelines")?;
        }
        let programs = Programs::find()?;
        check_sandbox(&programs, config.session_processes.sandbox).await?;
        let offer = Offer::new(config)?;
        let journal = Journal::open(&config.store.directory)?;
        let hub = Hub::new(journal.events().clone());
        let groups = control_groups();
        let inference = Inference::start(programs.inference.clone(), &offer.newest().1, config).await?;
        let sources = Sources::new(Settings::default());
        let compiler = programs.compile.clone();
        let redis = Redis::new(config.redis.clone());
        let outlets = Outlets { hub: hub.clone(), journal: journal.clone(), redis: redis.clone() };
        let sessions = Sessions::new(programs, sources, inference.clone(), outlets, groups, config);
        let deployer =
            Deployer::new(sessions.clone(), hub.clone(), journal.clone(), &compiler, config).await?;
        let workers = Workers::new(&sessions, deployer.clone(), config.analyze.timeout_ms);
        let analyses = Analyses::start(&config.analyze, Box::new(workers));
        let offering = tokio::spawn(Changes::new(offer.clone())?.run(inference.clone()));
        let monitor = Monitor::start(
            sessions.clone(),
            analyses.clone(),
            deployer.clone(),
            inference.clone(),
            hub.clone(),
            redis.clone(),
            telemetry::lost_lines,
        );
        let writing = redis.write(journal.events().clone());
        deployer.start_configured().await;
        let deploying = tokio::spawn(deployer.clone().watch_pipelines());
        // Whoever connected before waits until here: a client that is answered finds every configured session.
        let config_in_force = deployer.watch_config();
        let control = Operator {
            sessions: sessions.clone(),
            deployer: deployer.clone(),
            analyses: analyses.clone(),
            monitor,
            models: Models { offer, inference },
        };
        let server = Server::start(listener, hub, control, Timing::default(), config_in_force)?;
        server.set_ready();
        tracing::info!("listening on {}://{}", server.scheme(), server.address());
        Ok(Self { sessions, deployer, journal, analyses, server, offering, deploying, writing })
    }

    async fn stop(self, within: Duration) {
        self.offering.abort();
        self.deploying.abort();
        self.deployer.stop();
        let sessions = self.sessions.stop_all("the host stops");
        let workers = async { tokio::join!(sessions, self.analyses.stop()) };
        if tokio::join!(tokio::time::timeout(within, workers), self.server.stop()).0.is_err() {
            tracing::warn!("some workers did not end within {} s and are killed", within.as_secs());
        }
        // What it has not written it writes after the next start.
        self.writing.abort();
        for flushed in [self.journal.flush().await, self.journal.events().flush().await] {
            if let Err(error) = flushed {
                tracing::error!("{error:#}");
            }
        }
        tracing::info!("stopped");
    }
}

/// The control groups of workers, where the host may make some. To be called before any child is started.
fn control_groups() -> Option<ControlGroups> {
    match ControlGroups::set_up() {
        Ok(groups) => {
            let folder = groups.folder().display();
            tracing::info!("workers run in control groups of their own below {folder}");
            if let Some(lacks) = groups.lacks() {
                tracing::warn!(
                    "the control group {folder} has no {lacks} controller: workers' {lacks} is not bounded by it"
                );
            }
            Some(groups)
        }
        Err(reason) => {
            tracing::warn!(
                "workers run without control groups: {reason}. To have them, {CONTROL_GROUPS_REMEDY}"
            );
            None
        }
    }
}

/// Sessions as the API may use them.
#[derive(Clone)]
struct Operator {
    sessions: Sessions,
    deployer: Deployer,
    analyses: Analyses,
    monitor: Monitor,
    models: Models,
}

/// What there is to say of the models.
#[derive(Clone)]
struct Models {
    offer: Offer,
    inference: Inference,
}

impl Control for Operator {
    type Status = SessionStatus;
    type Models = ShownModels;

    fn sessions(&self) -> Vec<SessionStatus> {
        self.sessions.list()
    }

    fn id(status: &SessionStatus) -> &str {
        &status.id
    }

    fn session(&self, id: &str) -> Option<SessionStatus> {
        self.sessions.status(id)
    }

    fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send {
        let made = self.deployer.ensure(id, source, pipeline, settings);
        async { made.await.map_err(Refusal::from) }
    }

    async fn command(&self, id: &str, command: Value) -> Result<Value, Refusal> {
        Ok(self.sessions.command(id, command).await?)
    }

    async fn restart(&self, id: &str) -> Result<(), Refusal> {
        Ok(self.deployer.restart(id).await?)
    }

    async fn stop(&self, id: &str) -> Result<(), Refusal> {
        Ok(self.sessions.stop(id, "stopped by an operator").await?)
    }

    fn models(&self) -> ShownModels {
        let Models { offer, inference } = &self.models;
        let (generation, catalogue) = offer.newest();
        ShownModels::new(generation, &catalogue, &inference.loaded(), inference.status())
    }

    fn analyses(&self) -> &Analyses {
        &self.analyses
    }

    async fn metrics(&self) -> String {
        self.monitor.metrics().await
    }
}

impl Deployments for Operator {
    fn component_bytes(&self) -> usize {
        usize::try_from(self.deployer.config().deploy.max_component_mb).unwrap_or(usize::MAX) << 20
    }

    fn deploy(&self, order: Order) -> impl Future<Output = Result<Record, DeployError>> + Send {
        self.deployer.deploy(order)
    }

    fn rollback(&self, session: &str, by: &str) -> impl Future<Output = Result<Record, DeployError>> + Send {
        self.deployer.rollback(session, by)
    }

    fn deployments(
        &self,
        session: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Record>, DeployError>> + Send {
        self.deployer.deployments(session, limit)
    }

    fn pipelines(&self) -> impl Future<Output = Result<Vec<NamedPipeline>, DeployError>> + Send {
        self.deployer.pipelines()
    }

    fn keep(
        &self,
        name: &str,
        component: Bytes,
    ) -> impl Future<Output = Result<NamedPipeline, DeployError>> + Send {
        self.deployer.put_pipeline(name, component)
    }
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl From<DeployError> for Refusal {
    fn from(error: DeployError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

/// The signals that stop the host.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("listening for signals");
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The name of the next.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Goes on with what there is where it cannot have more.
fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(DESCRIPTORS, |maximum| maximum.min(DESCRIPTORS));
    if limit.current.is_some_and(|current| current < wanted) {
        let raised = Rlimit { current: Some(wanted), ..limit };
        if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
            tracing::warn!("the limit on open files stays as it is: {error}");
        }
    }
}
