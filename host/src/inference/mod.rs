//! Inference in the host: where models run, which process serves a session, and recovery.
//!
//! Each worker of a session is [attached](InferenceHandle::attach) once, with a packet socket and
//! shared memory of its own, which outlive any one inference process: the host keeps the inference
//! end of the socket and gives it to the next process, which greets the worker again. The worker
//! sends its unanswered requests again, and notices nothing else.
//!
//! | `inference.isolation` | who runs the models | module |
//! | --- | --- | --- |
//! | `process` | one supervised child for all sessions | `supervisor` |
//! | `session` | a child for each session, ended with it | `supervisor` |
//! | `in-process` | the host itself | `in_process` |
//!
//! One task owns the processes and the list of sessions; others send it requests over a bounded
//! channel. Its decisions are pure modules without processes and clocks: whose request ended a
//! process (`attribution`), whether a process is healthy (`watchdog`), whether it is too large
//! (`budget`), and when the next may start (`restart_backoff`).

mod attribution;
mod budget;
pub mod catalog;
mod in_process;
pub mod library;
mod process;
mod refuse;
mod restart_backoff;
mod status;
mod supervisor;
mod watchdog;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use ocelli_protocol::inference::{
    Configure, LoadedModel, Model, Priority, ServiceLevel, packet_pair,
};
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::wire::MAX_PAYLOAD;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::config::{Config, Isolation, Sandbox};
use budget::Budget;
use catalog::{Catalog, VersionStore};
pub use in_process::forbid_telemetry;
pub use status::{Duty, InferenceStatus, ProcessStatus, Restarts};
use supervisor::Supervisor;

/// Requests to the supervising task that may wait. Each is a session that starts or ends.
const REQUESTS: usize = 32;

/// The entry to inference. Cheap to clone.
#[derive(Clone)]
pub struct InferenceHandle {
    requests: mpsc::Sender<SupervisorRequest>,
    published: Arc<Mutex<PublishedState>>,
}

enum SupervisorRequest {
    Attach { number: u64, name: String, service: ServiceLevel, place: Arc<SessionEndpoint> },
    Detach { number: u64 },
    Offer(OfferedModels),
}

/// The inference end of a session's socket and shared memory.
struct SessionEndpoint {
    socket: OwnedFd,
    memory: OwnedFd,
}

/// How processes are started.
struct InferenceProgram {
    path: PathBuf,
    sandbox: Sandbox,
}

/// How the supervisor works.
struct Policy {
    /// Whether each session has a process of its own.
    per_session: bool,
    /// Whether a process stands by.
    spare: bool,
    budget: Option<Budget>,
    /// The first message to every process, with the names of the models to preload. Its models are
    /// replaced by those of the newest catalog version.
    configure: Configure,
}

/// What the task that runs the models publishes to readers.
#[derive(Debug, Default)]
struct PublishedState {
    status: InferenceStatus,
    offered: OfferedModels,
    loaded: Vec<LoadedModel>,
}

/// What one reading of the models' folder offers. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq)]
struct OfferedModels {
    /// For the inference processes.
    models: Arc<[Model]>,
    /// What workers are told of them: the payload of their first message.
    descriptions: Arc<[u8]>,
}

impl OfferedModels {
    fn of(catalog: &Catalog) -> anyhow::Result<Self> {
        let descriptions = catalog.descriptions().context("describing the models")?;
        anyhow::ensure!(
            descriptions.len() <= MAX_PAYLOAD,
            "the labels of the models take {} bytes: workers are told {MAX_PAYLOAD} of them",
            descriptions.len()
        );
        Ok(Self { models: catalog.models().cloned().collect(), descriptions })
    }
}

/// One reading of the models' folder.
struct CatalogVersion {
    /// Counted from 0.
    number: u32,
    offered: OfferedModels,
}

impl CatalogVersion {
    fn names(&self, name: &str) -> bool {
        self.offered.models.iter().any(|model| model.name == name)
    }

    fn has(&self, loaded: &LoadedModel) -> bool {
        let models = &self.offered.models;
        models.iter().any(|model| model.name == loaded.name && model.sha256 == loaded.sha256)
    }
}

/// Thousandths of a core for the models of pipelines that ask, where the config does not say: half
/// of the machine. On two cores twenty cameras of 576p with 10 frames a second take 0.7 cores to
/// decode, to look for motion and to follow objects; the rest is for the host, for pipelines that
/// do not ask, and for moments when more comes at once.
fn default_budget(cores: u32) -> u32 {
    cores.saturating_mul(500)
}

/// The terms of a session at the inference process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceTerms {
    /// Which share of the runners' time it draws from.
    pub share: Share,
    /// The weight of the share.
    pub priority: Priority,
    /// Milliseconds that a request may take, waiting included.
    pub timeout_ms: u32,
    /// Milliseconds after which a waiting request is dropped as stale. `None`: never.
    pub stale_ms: Option<u32>,
    /// Whether the pipeline may load its own models.
    pub may_load: bool,
    /// Whether what the pipeline asks of the budget is weighed; otherwise its models may always run.
    pub budgeted: bool,
    /// Bytes of shared memory for its tensors, inputs and outputs together. Allocated as a whole
    /// when the session starts.
    pub tensor_memory: usize,
}

/// The share of the runners' time that a session draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// A share of its own.
    Own,
    /// The share of all sessions with this number, such as the images of one analysed pipeline.
    Group(u32),
}

impl ServiceTerms {
    fn service(self, number: u64) -> ServiceLevel {
        let Self { share, priority, timeout_ms, stale_ms, may_load, budgeted, .. } = self;
        let share = match share {
            Share::Own => number,
            // Numbers of attachments count up from 1 and never get that far.
            Share::Group(group) => u64::MAX - u64::from(group),
        };
        ServiceLevel { share, priority, timeout_ms, stale_ms, may_load, budgeted }
    }
}

/// A session's attachment: the descriptors that its worker inherits. Dropping it detaches.
pub struct InferenceAttachment {
    /// The worker's end of the packet socket.
    pub socket: OwnedFd,
    /// The session's shared memory.
    pub memory: OwnedFd,
    number: u64,
    requests: mpsc::Sender<SupervisorRequest>,
}

impl InferenceAttachment {
    /// One that no inference process serves, with so many bytes of shared memory.
    pub(crate) fn unserved(tensor_memory: usize) -> anyhow::Result<Self> {
        let (socket, _) = packet_pair().context("making a socket")?;
        let memory = SharedMemory::create(tensor_memory).context("making shared memory")?;
        let memory = memory.fd().try_clone_to_owned().context("cloning a descriptor")?;
        Ok(Self { socket, memory, number: 0, requests: mpsc::channel(1).0 })
    }
}

impl Drop for InferenceAttachment {
    fn drop(&mut self) {
        let request = SupervisorRequest::Detach { number: self.number };
        if let Err(mpsc::error::TrySendError::Full(request)) = self.requests.try_send(request) {
            let requests = self.requests.clone();
            tokio::spawn(async move { requests.send(request).await });
        }
    }
}

impl InferenceHandle {
    /// Starts the first process, or loads ONNX Runtime where the host runs models itself, and waits
    /// until it is ready: the library loaded, the models to preload warm.
    pub async fn start(
        program: PathBuf,
        catalog: &Catalog,
        config: &Config,
    ) -> anyhow::Result<Self> {
        let settings = &config.inference;
        for name in &settings.preload {
            anyhow::ensure!(
                catalog.contains(name),
                "inference.preload names the model {name:?}, which is not in {}",
                config.models.directory.display()
            );
        }
        let library = library::find(settings.library.as_deref())?;
        let cores = std::thread::available_parallelism()
            .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        let threads = settings.threads.unwrap_or(cores);
        // The schema admits no more than 256.
        let budget_millicores = settings
            .budget_cores
            .map_or(default_budget(cores), |cores| (cores * 1000.0).round() as u32);
        let offered = OfferedModels::of(catalog)?;
        // Missing if no versions are stored: then only the models offered at the start are read.
        let folder = VersionStore::folder(&config.store.directory).canonicalize().ok();
        let configure = Configure {
            library: library.path,
            library_sha256: library.sha256,
            threads,
            budget_millicores,
            gpu_memory_fraction: config.resource_limits.gpu_memory_fraction as f32,
            memory: None,
            folder: folder.and_then(|folder| folder.to_str().map(str::to_owned)),
            models: offered.models.to_vec(),
            preload: settings.preload.clone(),
        };
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let published = Arc::<Mutex<PublishedState>>::default();
        let inference = Self { requests, published: Arc::clone(&published) };
        {
            let mut published = inference.published.lock();
            published.status.isolation = settings.isolation;
            published.offered = offered.clone();
        }
        if settings.isolation == Isolation::InProcess {
            in_process::start(configure, inbox, published).await?;
            return Ok(inference);
        }
        let program = InferenceProgram { path: program, sandbox: config.session_processes.sandbox };
        let policy = Policy {
            per_session: settings.isolation == Isolation::Session,
            spare: settings.spare,
            budget: Budget::from_mib(settings.memory_mb),
            configure,
        };
        let catalog_version = Arc::new(CatalogVersion { number: 0, offered });
        let supervisor = Supervisor::start(program, policy, catalog_version, inbox, published)
            .await
            .context("starting the inference process")?;
        tokio::spawn(supervisor.run());
        Ok(inference)
    }

    /// One without models and without a process: what its sessions ask for fails. To be called
    /// within a runtime.
    pub(crate) fn without_models() -> Self {
        let (requests, mut inbox) = mpsc::channel(REQUESTS);
        // A session's end of the socket is closed with the request that brings it.
        tokio::spawn(async move { while inbox.recv().await.is_some() {} });
        Self { requests, published: Arc::default() }
    }

    /// Offers these models to sessions attached from now on. Attached ones keep theirs.
    /// Fails where their descriptions are too long.
    pub async fn offer(&self, catalog: &Catalog) -> anyhow::Result<()> {
        let offered = OfferedModels::of(catalog)?;
        // It fails where the host ends.
        let _ = self.requests.send(SupervisorRequest::Offer(offered)).await;
        Ok(())
    }

    /// The models that a session may use that is attached now, sorted by name.
    pub fn models(&self) -> Arc<[Model]> {
        Arc::clone(&self.published.lock().offered.models)
    }

    /// What a worker that is started now is told of them.
    pub fn descriptions(&self) -> Arc<[u8]> {
        Arc::clone(&self.published.lock().offered.descriptions)
    }

    /// The models loaded by the processes that serve sessions, sorted by name. A name may have
    /// several versions.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        self.published.lock().loaded.clone()
    }

    /// The state of inference.
    pub fn status(&self) -> InferenceStatus {
        self.published.lock().status.clone()
    }

    /// Makes the socket and the shared memory of a session and announces it to the supervisor.
    pub async fn attach(
        &self,
        session: &str,
        terms: ServiceTerms,
    ) -> anyhow::Result<InferenceAttachment> {
        let (ours, theirs) = packet_pair().context("making the socket to the inference process")?;
        // A worker that does not take its answers holds up neither the host nor a runner.
        rustix::io::ioctl_fionbio(&theirs, true)?;
        let memory = SharedMemory::create(terms.tensor_memory)
            .context("making shared memory for tensors")?;
        let copy =
            || memory.fd().try_clone_to_owned().context("cloning the shared memory's descriptor");
        let number = next_number();
        let place = Arc::new(SessionEndpoint { socket: theirs, memory: copy()? });
        // Made first: dropping it withdraws the session, also after an error below.
        let attachment = InferenceAttachment {
            socket: ours,
            memory: copy()?,
            number,
            requests: self.requests.clone(),
        };
        let name = session.to_owned();
        self.requests
            .send(SupervisorRequest::Attach { number, name, service: terms.service(number), place })
            .await
            .map_err(|_| anyhow::anyhow!("the inference supervisor has stopped"))?;
        Ok(attachment)
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
