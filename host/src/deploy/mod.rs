//! What sessions run: deployments, whoever asks for them, and the sessions that the config and
//! subscribers make.
//!
//! Every change of what a session runs is a deployment ([`LogRecord`]) and goes one way
//! ([`execute`]), whether it comes over the API, from an edit of the config ([`configured`]), from
//! a file in the store's folder ([`folder`]), or is a way back. Its history is in the journal, and
//! the components that it may need again are kept ([`components`]). What a camera runs when the
//! host starts is decided by both ([`start`]).

mod admission;
mod backend;
mod bring_up;
mod compile;
mod components;
mod configured;
mod execute;
mod folder;
mod history;
mod pipelines;
mod queue;
mod record;
mod report;
mod request;
mod session_index;
mod start;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::sync::{Mutex, mpsc, watch};

use crate::config::Config;
use crate::config::source::Source;
use crate::event::Hub;
use crate::journal::Journal;
use crate::session::change::{ProbationRequest, REPORT_CAPACITY, Step};
use crate::session::{
    CompiledPipeline, RunningVersion, SessionError, SessionHandle, Sessions, Spec,
};
use admission::MemoryBudget;
use backend::HostBackend;
use compile::Compiler;
use components::ComponentStore;
use execute::{Change, Deployments, Ordered};
use history::History;

pub use compile::{CompileError, ComponentSource, PreparedComponent, check_component};
pub use configured::Applied;
pub use pipelines::{PipelineError, find_named, find_pipeline};
pub use record::{Cause, DeploymentState, Outcome, Record};
pub use report::{DEPLOYMENT, DeploymentFigures};
pub use request::{Component, DeployError, DeployRequest, MAX_WAITING, NamedPipeline};

/// Makes sessions, and owns the config that is in force. Cheap to clone.
#[derive(Clone)]
pub struct Deployer {
    inner: Arc<DeployerInner>,
}

struct DeployerInner {
    sessions: Sessions,
    hub: Hub,
    journal: Journal,
    deployments: Arc<Deployments<HostBackend>>,
    config: watch::Sender<Arc<Config>>,
    /// The configured cameras that have a session, by name. Locked while a config is applied.
    cameras: Mutex<BTreeMap<String, configured::ConfiguredCamera>>,
}

impl Deployer {
    /// A deployer. Deployments that were under way when the host before it ended are closed.
    pub async fn new(
        sessions: Sessions,
        hub: Hub,
        journal: Journal,
        program: &std::path::Path,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let store = &config.store.directory;
        let sandbox = config.session_processes.sandbox;
        let compiler =
            Compiler::new(program.to_owned(), &config.store.compiled(), sandbox, &config.deploy)
                .await?;
        let components = ComponentStore::open(store.join("components"))?;
        journal.events().set_retention((&config.events).into());
        let history = History::new(journal.clone());
        for record in history.close_interrupted().await? {
            report::log(&record);
        }
        let config = watch::Sender::new(Arc::new(config.clone()));
        let ground = HostBackend {
            sessions: sessions.clone(),
            hub: hub.clone(),
            compiler,
            memory: MemoryBudget::default(),
        };
        let deployments = Deployments::new(ground, history, components, config.subscribe());
        let deployments = Arc::new(deployments);
        let cameras = Mutex::default();
        Ok(Self {
            inner: Arc::new(DeployerInner { sessions, hub, journal, deployments, config, cameras }),
        })
    }

    /// The host stops: no deployment begins any more, and those under way are interrupted.
    pub fn stop(&self) {
        self.inner.deployments.stop();
    }

    /// Figures of the deployments since the host was started.
    pub fn figures(&self) -> DeploymentFigures {
        self.inner.deployments.tally.figures()
    }

    /// The config that is in force: what a running host cannot take over is as it was at its start.
    pub fn config(&self) -> Arc<Config> {
        Arc::clone(&self.inner.config.borrow())
    }

    /// The config that is in force, as it changes.
    pub fn watch_config(&self) -> watch::Receiver<Arc<Config>> {
        self.inner.config.subscribe()
    }

    /// Has a session run another version. Returns when the new version speaks, with a record in
    /// [`DeploymentState::Probation`], or when it has failed, with one that has ended; the
    /// probation goes on without the caller. One at a time for each session; others wait in their
    /// order. It runs to its end whether its caller waits or not.
    pub async fn deploy(&self, order: DeployRequest) -> Result<Record, DeployError> {
        self.inner.deployments.deploy(order.into()).await
    }

    /// Has a session run the version before: the last other one that served, with its settings.
    pub async fn rollback(&self, session: &str, by: &str) -> Result<Record, DeployError> {
        let order = DeployRequest {
            session: session.to_owned(),
            component: Component::Digest { digest: String::new(), pipeline: String::new() },
            settings: None,
            shadow: 0,
            refused_state: None,
            cause: Cause::Rollback,
            by: by.to_owned(),
        };
        self.inner.deployments.deploy(Ordered { order, rollback: true, entry: None }).await
    }

    /// The deployments of a session, newest first, at most `limit`. Empty where nothing is known of
    /// the session.
    pub async fn deployments(
        &self,
        session: &str,
        limit: usize,
    ) -> Result<Vec<Record>, DeployError> {
        let listed = self.inner.deployments.history.list(session, limit).await;
        listed.map_err(|error| DeployError::Internal(format!("{error:#}")))
    }

    /// The pipelines in the store and the gallery, sorted by name. Reads every file.
    pub async fn pipelines(&self) -> Result<Vec<NamedPipeline>, DeployError> {
        let deployer = self.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let named = pipelines::all_named(&deployer.config()).into_iter();
            // A file that is gone meanwhile is none.
            named.filter_map(|(name, file)| deployer.describe(name, file).ok()).collect()
        });
        listed.await.map_err(|error| DeployError::Internal(error.to_string()))
    }

    /// A pipeline as its file is now. Reads the file.
    fn describe(&self, name: String, file: std::path::PathBuf) -> std::io::Result<NamedPipeline> {
        let (digest, size) = components::digest(std::fs::File::open(&file)?)?;
        let sessions = self
            .inner
            .deployments
            .lives
            .users(&name)
            .into_iter()
            .map(|(session, _)| session)
            .collect();
        Ok(NamedPipeline { name, file, size, digest, sessions })
    }

    /// Checks a component and puts it into the store under this name, as a whole. Where the store's
    /// folder is watched, it is then deployed to the sessions that use it.
    pub async fn put_pipeline(
        &self,
        name: &str,
        bytes: bytes::Bytes,
    ) -> Result<NamedPipeline, DeployError> {
        pipelines::check_name(name).map_err(DeployError::InvalidName)?;
        let source = ComponentSource::Bytes(bytes.clone());
        self.inner.deployments.ground.compiler.prepare(name, source).await?;
        let (deployer, name) = (self.clone(), name.to_owned());
        let put = tokio::task::spawn_blocking(move || {
            let file = pipelines::stored(&deployer.config()).join(format!("{name}.wasm"));
            let put = components::write_whole(&file, &bytes)
                .and_then(|()| deployer.describe(name, file.clone()));
            put.map_err(|error| DeployError::Internal(format!("{}: {error}", file.display())))
        });
        put.await.unwrap_or_else(|error| Err(DeployError::Internal(error.to_string())))
    }

    /// Starts a session anew: a fresh worker at once, whatever state it is in. What a failed camera
    /// lacks is looked for and compiled again.
    pub async fn restart(&self, id: &str) -> Result<(), SessionError> {
        if self.retry(id).await { Ok(()) } else { self.inner.sessions.find(id)?.restart().await }
    }

    /// Whether there is a pipeline of this name; if not, why.
    pub fn knows(&self, pipeline: &str) -> Result<(), DeployError> {
        Ok(pipelines::find_named(pipeline, &self.config()).map(drop)?)
    }

    /// A pipeline's component as it is now, compiled if it is new. Compiling may take minutes, and
    /// goes on if nobody waits for it any more.
    pub async fn component(&self, pipeline: &str) -> Result<CompiledPipeline, DeployError> {
        let (deployer, pipeline) = (self.clone(), pipeline.to_owned());
        let compiled = tokio::spawn(async move {
            let path = pipelines::find_named(&pipeline, &deployer.config())?;
            Ok(deployer.inner.deployments.ground.compiler.deployment(&pipeline, &path).await?)
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
        let DeployerInner { sessions, hub, deployments, .. } = &*self.inner;
        let config = self.config();
        let parsed = Source::parse(source, None, None, false)?;
        sessions.wait_until_gone(id).await;
        if let Some(spec) = sessions.get(id).map(|session| session.spec()) {
            // Whatever it runs by now.
            let asked =
                deployments.lives.requested(id).unwrap_or_else(|| spec.pipeline.name.clone());
            let same = spec.source == parsed && asked == pipeline;
            return if same { Ok(()) } else { Err(DeployError::SessionDiffers(id.to_owned())) };
        }
        if !config.subscriptions.sources.iter().any(|pattern| pattern.admits(&parsed)) {
            return Err(DeployError::SourceNotAllowed);
        }
        let path = pipelines::find_named(pipeline, &config)?;
        let held = deployments.keep(&ComponentSource::Path(path.clone())).await?;
        let component = ComponentSource::Path(held.as_ref().map_or(path, |held| held.path.clone()));
        let prepared = deployments.ground.compiler.prepare(pipeline, component).await?;
        let spec = Spec {
            id: id.to_owned(),
            source: parsed,
            pipeline: prepared.deployment(pipeline),
            settings: settings.clone(),
            decode: Default::default(),
            priority: Default::default(),
            redis_prefix: None,
        };
        let (reports, told) = mpsc::channel(REPORT_CAPACITY);
        let session = sessions.start(spec, Some(ProbationRequest { fallback: None, reports }))?;
        deployments.lives.insert(&session, pipeline, false, None);
        let mut record = execute::draft(
            id,
            held.as_ref(),
            pipeline,
            settings,
            Cause::Subscription,
            "subscriber",
        );
        (record.compile_ms, record.cached) = (prepared.report.compile_ms, prepared.cached);
        (record.step, record.check) = (Step::Start, Some(prepared.report));
        let deployments = Arc::clone(deployments);
        // Its subscribers do not wait for the disk.
        tokio::spawn(async move {
            match deployments.history.begin(record, false).await {
                Ok(record) => {
                    deployments.lives.set_running(&record.session, RunningVersion::from(&record));
                    let change = Change {
                        record,
                        entry: None,
                        prior: None,
                        answer: None,
                        place: None,
                        admission: None,
                        held,
                    };
                    deployments.follow(change, told).await;
                }
                Err(error) => {
                    tracing::error!(target: "ocelli::deploy", "the history is not written: \
                        {error:#}")
                }
            }
        });
        tokio::spawn(end_when_deserted(
            session,
            sessions.clone(),
            hub.clone(),
            Duration::from_secs(config.subscriptions.grace_s),
        ));
        Ok(())
    }
}

/// Waits until nobody has subscribed to a session for the grace period, then ends it, unless it has
/// ended by then: the next one of its name is another's.
async fn end_when_deserted(session: SessionHandle, sessions: Sessions, hub: Hub, grace: Duration) {
    let mut subscribers = hub.watch_subscribers(session.id());
    let deserted = async {
        loop {
            // Its first subscriber counts from the moment when the session was asked for.
            let returned =
                tokio::time::timeout(grace, subscribers.wait_for(|count| *count > 0)).await;
            if !matches!(returned, Ok(Ok(_))) {
                return;
            }
            drop(returned);
            if subscribers.wait_for(|count| *count == 0).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        biased;
        () = session.ended() => return,
        () = deserted => {}
    }
    // An operator may have ended it before.
    let _ = sessions.stop(session.id(), "its last subscriber is gone").await;
}
