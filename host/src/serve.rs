//! `ocelli serve`: puts the host together, runs it, and takes it apart again.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::api::{Control, Refusal, Server, Timing};
use crate::config::Config;
use crate::deploy::{DeployError, Deployer, find_pipeline};
use crate::event::Hub;
use crate::inference::Inference;
use crate::inference::catalogue::Catalogue;
use crate::session::{Programs, SessionError, SessionStatus, Sessions};
use crate::source::{Settings, Sources};

/// Descriptors that the host asks for: a socket for each of the API's 4096 subscribers, a handful for each session.
/// The usual soft limit is 1024.
const DESCRIPTORS: u64 = 16_384;

/// Runs the host until SIGTERM or SIGINT, then stops it within `process_cleanup_timeout`. A second signal ends the
/// process at once. Fails where something that every camera needs is missing: the address, a program, a model that
/// differs from its description, a configured pipeline, ONNX Runtime.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
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
    let name = signals.next().await;
    tracing::info!("{name}: stopping");
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::warn!("{name} again: ending at once");
        // Child processes die with this one.
        std::process::exit(1);
    });
    host.stop(Duration::from_secs(config.session_processes.process_cleanup_timeout)).await;
    Ok(())
}

/// What runs.
struct Host {
    sessions: Sessions,
    server: Server,
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
        let programs = Programs::find()?;
        let catalogue = Catalogue::load(&config.models.directory)?;
        let hub = Hub::new();
        let inference = Inference::start(programs.inference.clone(), &catalogue, config).await?;
        let sources = Sources::new(Settings::default());
        let compiler = programs.compile.clone();
        let sessions = Sessions::new(programs, sources, inference, hub.clone(), config);
        let deployer = Deployer::new(sessions.clone(), hub.clone(), &compiler, config).await?;
        start_cameras(&deployer, config).await;
        // Whoever connected before waits until here: a client that is answered finds every configured session.
        let control = Operator { sessions: sessions.clone(), deployer };
        let server = Server::start(listener, hub, control, Timing::default())?;
        server.set_ready();
        tracing::info!("listening on http://{}", server.address());
        Ok(Self { sessions, server })
    }

    async fn stop(self, within: Duration) {
        let sessions = tokio::time::timeout(within, self.sessions.stop_all("the host stops"));
        if tokio::join!(sessions, self.server.stop()).0.is_err() {
            tracing::warn!("some sessions did not end within {} s and are killed", within.as_secs());
        }
        tracing::info!("stopped");
    }
}

/// Starts the configured cameras at the same time. One that cannot be started keeps no other from it.
async fn start_cameras(deployer: &Deployer, config: &Config) {
    let start = |camera| async move {
        if let Err(error) = deployer.start_configured(camera).await {
            tracing::error!(
                session = camera.id,
                "the camera is not started: {error:#}",
                error = anyhow::Error::from(error)
            );
        }
    };
    futures_util::future::join_all(config.cameras.iter().map(start)).await;
}

/// Sessions as the API may use them.
#[derive(Clone)]
struct Operator {
    sessions: Sessions,
    deployer: Deployer,
}

impl Control for Operator {
    type Status = SessionStatus;

    fn sessions(&self) -> Vec<SessionStatus> {
        self.sessions.list()
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
        Ok(self.sessions.restart(id).await?)
    }

    async fn stop(&self, id: &str) -> Result<(), Refusal> {
        Ok(self.sessions.stop(id, "stopped by an operator").await?)
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
