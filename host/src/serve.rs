//! `ocelli serve`: puts the host together, runs it, and takes it apart again.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use ocelli_protocol::worker::{PictureWish, RequestKind};
use rustix::process::{Resource, Rlimit};
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::task::AbortOnDropHandle;

use crate::analyze::{Analyses, ProcessFactory};
use crate::api::{
    ClusterSite, ConfigControl, Control, DeploymentControl, InsightControl, Refusal, Server, Site,
    Timing,
};
use crate::cluster::{Cluster, OwnedFeed, Speaker};
use crate::config::edit::{ConfigEdit, ConfigEntry, EditError};
use crate::config::source::Source;
use crate::config::{ConfigFile, Sandbox, listing};
use crate::deploy::{
    ConfigStatus, DeployError, DeployRequest, Deployer, DescribedPipeline, NamedPipeline, Record,
    ReloadReport,
};
use crate::event::Hub;
use crate::fleet::Fleet;
use crate::inference::InferenceHandle;
use crate::inference::catalog::{CatalogWatcher, ModelCatalog, ModelList};
use crate::journal::{Backup, Journal, JournalError};
use crate::monitor::{Monitor, Monitored, SessionStats, SystemStatus};
use crate::preflight::{self, Finding};
use crate::probe::{self, ProbeError, ProbeReport, Prober};

use crate::redis::Redis;
use crate::reload::{ConfigEditor, ConfigReloader, MakeError, SiteCameras};
use crate::session::{
    EncodedPicture, PictureError, SessionError, SessionSettings, SessionStatus, Sessions,
};
use crate::sink::{ConfiguredSinks, Owners, SessionOwner, Sinks};
use crate::source::{PictureFeed, Sources};
use crate::telemetry::{self, LogPart, LogPosition, session_log_after, session_tail};
use crate::worker::{
    CONTROL_GROUPS_REMEDY, ControlGroups, Programs, WorkerLauncher, check_sandbox,
};

/// Descriptors that the host asks for: a socket for each of the API's 4096 subscribers, a handful
/// for each session. The usual soft limit is 1024.
const DESCRIPTORS: u64 = 16_384;

/// How long who ends a session that subscribers had made in a site waits for its end: the session
/// goes on where others have it made anew meanwhile.
const ENDING: Duration = Duration::from_secs(10);

/// Runs the host until SIGTERM or SIGINT, then stops it within `process_cleanup_timeout`. A second
/// signal ends the process at once. The file is read again when it was edited and at SIGHUP. Fails
/// if something that every camera needs is missing: the address, a program, a file or folder, a
/// model that differs from its description, a configured pipeline, ONNX Runtime.
pub async fn serve(file: ConfigFile) -> anyhow::Result<()> {
    let mut signals = Signals::new()?;
    let (mut reloads, editor) = ConfigReloader::new(&file)?;
    let config = &file.config;
    raise_descriptor_limit();
    if let (Some(path), false) = (&config.server.cameras_file, file.has_cameras_file) {
        tracing::info!("{}: not there yet, so there are no cameras of the API", path.display());
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let mut host = tokio::select! {
        host = RunningHost::start(&file, editor) => host?,
        name = signals.next() => {
            tracing::info!("{name}: stopped while starting");
            return Ok(());
        }
    };
    tracing::info!(cameras = config.cameras.len(), "ready");
    let deployer = host.deployer.clone();
    if let Some(owned) = host.owned.take() {
        reloads.follow(owned);
    }
    let reloading = tokio::spawn(reloads.run(deployer.clone()));
    let name = signals.next().await;
    tracing::info!("{name}: stopping");
    let within = Duration::from_secs(deployer.config().session_processes.process_cleanup_timeout);
    if let Some(cluster) = &host.cluster {
        tokio::select! {
            () = cluster.leave(within) => {}
            name = signals.next() => {
                tracing::warn!("{name} again: ending at once");
                std::process::exit(1);
            }
        }
    }
    // A config that is being applied starts no more sessions.
    reloading.abort();
    let _ = reloading.await;
    tokio::spawn(async move {
        let name = signals.next().await;
        tracing::warn!("{name} again: ending at once");
        // Child processes die with this one.
        std::process::exit(1);
    });
    host.stop(within).await;
    Ok(())
}

struct RunningHost {
    cluster: Option<Cluster>,
    /// The cameras that the site gives this host.
    owned: Option<OwnedFeed>,
    /// Says of which of the site's cameras this host has subscribers.
    _listening: Option<AbortOnDropHandle<()>>,
    sessions: Sessions,
    deployer: Deployer,
    journal: Journal,
    analyses: Analyses,
    server: Server,
    /// Publishes a new version of the model catalog when models have changed.
    model_watch: JoinHandle<()>,
    /// Deploys pipelines whose files have changed.
    pipeline_watch: JoinHandle<()>,
    /// Write events to sinks.
    sinks: ConfiguredSinks,
    /// Sends traces.
    traces: AbortOnDropHandle<()>,
}

impl RunningHost {
    async fn start(file: &ConfigFile, editor: ConfigEditor) -> anyhow::Result<Self> {
        let config = &file.config;
        // First what can fail without having started a process.
        let listen = config.server.listen;
        let listener = TcpListener::bind(listen).await.with_context(|| {
            format!("cannot listen on {listen} (`[server] listen` in the config)")
        })?;
        check_files(file)?;
        let programs = Programs::find()?;
        check_sandbox(&programs, config.session_processes.sandbox).await?;
        let offer = ModelCatalog::new(config)?;
        let journal = Journal::open(&config.store.directory)?;
        let hub = Hub::new(journal.events().clone());
        let (cluster, owned) = match &config.cluster {
            None => (None, None),
            Some(section) => {
                let started = Cluster::start(config, section, &journal, &hub).await;
                let (cluster, owned) = started.context("[cluster]")?;
                (Some(cluster), Some(owned))
            }
        };
        let groups = control_groups(config.session_processes.sandbox)?;
        let inference =
            InferenceHandle::start(programs.inference.clone(), &offer.newest().1, config).await?;
        let sources = Sources::new(programs.readers.clone(), journal.clone(), config);
        let prober = Prober::new(sources.clone(), programs.worker.clone());
        let compiler = programs.compile.clone();
        let redis = Redis::new(config.redis.clone());
        let workers = Arc::new(WorkerLauncher::new(
            &programs,
            inference.clone(),
            redis.clone(),
            groups.clone(),
            config,
        ));
        let sessions = Sessions::new(
            Arc::clone(&workers),
            sources,
            hub.clone(),
            journal.clone(),
            cluster.as_ref().map(Cluster::snapshots),
            config,
        );
        let deployer = Deployer::new(
            sessions.clone(),
            hub.clone(),
            journal.clone(),
            &compiler,
            groups,
            config,
        )
        .await?;
        if let Some(cluster) = &cluster {
            deployer.join(cluster);
        }
        let factory = ProcessFactory::new(workers, deployer.clone(), config.analyze.timeout_ms);
        let analyses = Analyses::start(&config.analyze, Box::new(factory));
        let offering = tokio::spawn(CatalogWatcher::new(offer.clone())?.run(inference.clone()));
        let sinks = match &cluster {
            None => Sinks::new(journal.events().clone()),
            Some(cluster) => Sinks::of_site(journal.events().clone(), owners(cluster.clone())),
        };
        let monitored = Monitored {
            sessions: sessions.clone(),
            analyses: analyses.clone(),
            deployer: deployer.clone(),
            inference: inference.clone(),
            hub: hub.clone(),
            journal: journal.clone(),
            sinks: sinks.clone(),
            cluster: cluster.clone(),
            raised: journal.events().raised_alerts().await?,
        };
        let traces = telemetry::otlp::start(deployer.watch_config());
        let monitor = Monitor::start(monitored, telemetry::lost_lines);
        let configured_sinks = ConfiguredSinks::start(
            &sinks,
            &redis,
            hub.clone(),
            sessions.clone(),
            deployer.watch_config(),
        );
        deployer.start_configured().await;
        monitor.set_complete();
        let fetching = deployer.clone().fetch_missing();
        let deploying = deployer.clone().watch_pipelines();
        let deploying = tokio::spawn(async {
            tokio::join!(deploying, fetching);
        });
        // Earlier connections wait until here: a client that gets an answer finds every configured
        // session.
        let config_in_force = deployer.watch_config();
        let site = cluster.clone().zip(config.cluster.as_ref());
        let site_cameras = cluster.clone().map(|cluster| editor.of_site(cluster));
        let fleet = cluster.clone().map(|cluster| {
            Fleet::start(cluster, deployer.clone(), journal.clone()).context("rollouts")
        });
        let control = HostControl {
            fleet: fleet.transpose()?,
            site: site.map(|(cluster, section)| Arc::new(ClusterSite::new(cluster, section))),
            sessions: sessions.clone(),
            deployer: deployer.clone(),
            analyses: analyses.clone(),
            monitor,
            models: ModelSources { offer, inference },
            prober,
            editor,
            site_cameras,
            journal: journal.clone(),
            logs: config.logs.directory.clone(),
        };
        let listening = cluster.as_ref();
        let listening =
            listening.map(|cluster| cluster.tend_made(hub.clone(), deployer.watch_config()));
        let server = Server::start(listener, hub, control, Timing::default(), config_in_force)?;
        server.set_ready();
        tracing::info!("listening on {}", server.url());
        Ok(Self {
            cluster,
            owned,
            _listening: listening,
            sessions,
            deployer,
            journal,
            analyses,
            server,
            model_watch: offering,
            pipeline_watch: deploying,
            sinks: configured_sinks,
            traces,
        })
    }

    async fn stop(self, within: Duration) {
        self.model_watch.abort();
        self.pipeline_watch.abort();
        self.deployer.stop();
        let sessions = self.sessions.stop_all("the host stops");
        let workers = async { tokio::join!(sessions, self.analyses.stop()) };
        if tokio::join!(tokio::time::timeout(within, workers), self.server.stop()).0.is_err() {
            tracing::warn!("some workers did not end within {} s and are killed", within.as_secs());
        }
        // Events that are not written yet follow after the next start.
        drop((self.sinks, self.traces));
        for flushed in [self.journal.flush().await, self.journal.events().flush().await] {
            if let Err(error) = flushed {
                tracing::error!("{error:#}");
            }
        }
        tracing::info!("stopped");
    }
}

/// Each host of a site hands the events of its own sessions to sinks.
fn owners(cluster: Cluster) -> Owners {
    Arc::new(move |session| match cluster.speaks_for(session) {
        Speaker::ThisHost => SessionOwner::ThisHost,
        Speaker::OtherHost => SessionOwner::OtherHost,
        Speaker::Changing => SessionOwner::Changing,
    })
}

/// Fails with all that keeps the host from starting, and logs what is wrong with single cameras.
fn check_files(file: &ConfigFile) -> anyhow::Result<()> {
    let path = file.path.display();
    let (fatal, others): (Vec<Finding>, Vec<Finding>) =
        preflight::files(file).into_iter().partition(|finding| finding.stops_start);
    for finding in others {
        let shown = finding.shown(file);
        tracing::error!("{}: {shown}", shown.file);
    }
    let fatal: Vec<_> =
        fatal.iter().map(|finding| finding.shown(file).beside(&file.path)).collect();
    anyhow::ensure!(fatal.is_empty(), "{path}: {}", listing(&fatal));
    Ok(())
}

/// The control groups of children, if the host may make some. To be called before any child is
/// started. Fails where a required sandbox lacks the bound on memory.
fn control_groups(sandbox: Sandbox) -> anyhow::Result<Option<ControlGroups>> {
    let required = sandbox == Sandbox::Required;
    match ControlGroups::set_up() {
        Ok(groups) => {
            let folder = groups.folder().display();
            tracing::info!("workers run in control groups of their own below {folder}");
            let lacks = groups.missing_controllers().join(", ");
            if !lacks.is_empty() {
                tracing::warn!(
                    "the control group {folder} has not all controllers: it does not bound \
                        workers' {lacks}"
                );
            }
            ensure!(
                !required || groups.bound_memory(),
                "session_processes.sandbox = \"required\", but the control group {folder} has no \
                    memory controller; to have it, {CONTROL_GROUPS_REMEDY}"
            );
            Ok(Some(groups))
        }
        Err(reason) if required => bail!(
            "session_processes.sandbox = \"required\", but workers' memory is not bounded by \
                control groups: {reason}; to have them, {CONTROL_GROUPS_REMEDY}"
        ),
        Err(reason) => {
            tracing::warn!(
                "workers run without control groups: {reason}. To have them, \
                    {CONTROL_GROUPS_REMEDY}"
            );
            Ok(None)
        }
    }
}

/// The host as the API controls it.
#[derive(Clone)]
struct HostControl {
    /// The site that it belongs to.
    site: Option<Arc<ClusterSite>>,
    fleet: Option<Fleet>,
    sessions: Sessions,
    deployer: Deployer,
    analyses: Analyses,
    monitor: Monitor,
    models: ModelSources,
    prober: Prober,
    editor: ConfigEditor,
    /// The site's cameras, in the place of those of the config.
    site_cameras: Option<SiteCameras>,
    journal: Journal,
    /// The folder of the logs.
    logs: PathBuf,
}

impl HostControl {
    /// Its name in its site.
    fn host_name(&self) -> Option<String> {
        self.site.as_ref().map(|site| site.host().to_owned())
    }
}

/// The sources of the model list.
#[derive(Clone)]
struct ModelSources {
    offer: ModelCatalog,
    inference: InferenceHandle,
}

impl Control for HostControl {
    type Status = SessionStatus;
    type Models = ModelList;

    fn site(&self) -> Option<Arc<dyn Site>> {
        let site = self.site.clone()?;
        Some(site)
    }

    fn fleet(&self) -> Option<Fleet> {
        self.fleet.clone()
    }

    fn sessions(&self) -> Vec<SessionStatus> {
        let mut drifts = self.deployer.drifts();
        let with_drift = |status: SessionStatus| SessionStatus {
            drift: drifts.remove(&status.id),
            host: self.host_name(),
            ..status
        };
        self.sessions.list().into_iter().map(with_drift).collect()
    }

    fn id(status: &SessionStatus) -> &str {
        &status.id
    }

    fn session(&self, id: &str) -> Option<SessionStatus> {
        let status = self.sessions.get(id)?.status();
        Some(SessionStatus { drift: self.deployer.drift(id), host: self.host_name(), ..status })
    }

    fn pictures(&self, id: &str) -> Option<PictureFeed> {
        Some(self.sessions.get(id)?.pictures().clone())
    }

    async fn picture(
        &self,
        id: &str,
        wish: PictureWish,
    ) -> Option<Result<EncodedPicture, PictureError>> {
        Some(self.sessions.get(id)?.picture(wish).await)
    }

    async fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
    ) -> Result<(), Refusal> {
        match &self.site_cameras {
            None => Ok(self.deployer.ensure(id, source, pipeline, settings).await?),
            // The plan gives it a host.
            Some(cameras) => {
                Ok(cameras.ensure(id, source, pipeline, settings, &self.deployer).await?)
            }
        }
    }

    async fn ask(&self, id: &str, kind: RequestKind, request: Value) -> Result<Value, Refusal> {
        Ok(self.sessions.find(id)?.ask(kind, &request).await?)
    }

    async fn restart(&self, id: &str) -> Result<(), Refusal> {
        Ok(self.deployer.restart(id).await?)
    }

    async fn stop(&self, id: &str) -> Result<(), Refusal> {
        let session = self.sessions.find(id)?;
        if let Some(site) = &self.site
            && site.remove_made(id).await?
        {
            // As each camera that the site takes from this host; unless somebody has it made anew.
            let _ = tokio::time::timeout(ENDING, session.ended()).await;
            return Ok(());
        }
        Ok(self.deployer.end(id).await?)
    }

    fn models(&self) -> ModelList {
        let ModelSources { offer, inference } = &self.models;
        let (generation, catalog) = offer.newest();
        ModelList::new(generation, &catalog, &inference.loaded(), inference.status())
    }

    fn analyses(&self) -> &Analyses {
        &self.analyses
    }

    async fn metrics(&self) -> String {
        self.monitor.metrics().await
    }
}

impl InsightControl for HostControl {
    type Stats = SessionStats;

    async fn stats(&self, session: &str) -> Option<SessionStats> {
        self.monitor.session_stats(session.to_owned()).await
    }

    async fn system(&self) -> Option<SystemStatus> {
        self.monitor.system().await
    }

    async fn backup(&self) -> Result<Backup, JournalError> {
        let journal = self.journal.clone();
        let made = tokio::spawn(async move { journal.backup().await }).await;
        made.map_err(|_| JournalError::Ended)?
    }

    fn source(&self, session: &str) -> Option<Source> {
        self.sessions.get(session).map(|session| session.spec().analysed().clone())
    }

    fn admitted(&self, source: Source) -> Result<Source, ProbeError> {
        probe::admitted(source, &self.deployer.config())
    }

    async fn probe(&self, source: &Source) -> Result<(ProbeReport, Option<Vec<u8>>), ProbeError> {
        self.prober.probe(source).await
    }

    async fn suggested_rate(&self, rate: Option<f64>) -> Option<f64> {
        self.monitor.suggested_rate(rate).await
    }

    async fn log(
        &self,
        session: &str,
        after: Option<LogPosition>,
        lines: usize,
    ) -> std::io::Result<LogPart> {
        let (directory, session) = (self.logs.clone(), session.to_owned());
        let read = tokio::task::spawn_blocking(move || match after {
            None => session_tail(&directory, &session, lines),
            Some(after) => session_log_after(&directory, &session, after, lines),
        });
        read.await.map_err(std::io::Error::other)?
    }
}

impl ConfigControl for HostControl {
    async fn camera_entry(&self, id: &str) -> Result<ConfigEntry, EditError> {
        match &self.site_cameras {
            Some(cameras) => cameras.entry(id),
            None => self.editor.camera(id, &self.deployer.config()).await,
        }
    }

    async fn edit_config(&self, edit: ConfigEdit) -> Result<(), EditError> {
        match &self.site_cameras {
            Some(cameras) if edit.change.camera().is_some() => {
                let (cameras, deployer) = (cameras.clone(), self.deployer.clone());
                // It runs to its end even if the client goes away.
                let edited = tokio::spawn(async move { cameras.edit(edit, &deployer).await });
                edited.await.map_err(|_| EditError::Stopping)?
            }
            _ => self.editor.edit(edit).await,
        }
    }

    async fn reload_config(&self, by: &str) -> Result<ReloadReport, EditError> {
        self.editor.reload(by.to_owned()).await
    }
}

impl DeploymentControl for HostControl {
    fn component_bytes(&self) -> usize {
        usize::try_from(self.deployer.config().deploy.max_component_mb).unwrap_or(usize::MAX) << 20
    }

    fn deploy(
        &self,
        request: DeployRequest,
    ) -> impl Future<Output = Result<Record, DeployError>> + Send {
        self.deployer.deploy(request)
    }

    fn rollback(
        &self,
        session: &str,
        by: &str,
    ) -> impl Future<Output = Result<Record, DeployError>> + Send {
        self.deployer.rollback(session, by)
    }

    fn deployments(
        &self,
        session: &str,
        limit: usize,
    ) -> impl Future<Output = Result<Vec<Record>, DeployError>> + Send {
        self.deployer.deployments(session, limit)
    }

    fn settings(&self, session: &str) -> Option<SessionSettings> {
        Some(self.sessions.get(session)?.settings())
    }

    fn config(&self) -> ConfigStatus {
        self.deployer.config_status()
    }

    fn pipelines(&self) -> impl Future<Output = Result<Vec<NamedPipeline>, DeployError>> + Send {
        self.deployer.pipelines()
    }

    fn described(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<DescribedPipeline, DeployError>> + Send {
        self.deployer.described(name)
    }

    fn put_pipeline(
        &self,
        name: &str,
        component: Bytes,
        by: &str,
    ) -> impl Future<Output = Result<NamedPipeline, DeployError>> + Send {
        self.deployer.put_pipeline(name, component, by)
    }
}

impl From<SessionError> for Refusal {
    fn from(error: SessionError) -> Self {
        Self { code: error.code(), message: error.to_string() }
    }
}

impl From<MakeError> for Refusal {
    fn from(error: MakeError) -> Self {
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
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next signal and returns its name.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Raises the soft limit on descriptors as far as the hard limit allows.
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
