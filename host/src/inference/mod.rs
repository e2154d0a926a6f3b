//! Inference as the host sees it: where models run, who serves which session, and what becomes of
//! both when something dies.
//!
//! Each worker of a session is [attached](InferenceHandle::attach) once, with a packet socket and
//! shared memory of its own, which outlive any one inference process: the host keeps the inference
//! end of the socket and gives it to the next process, which greets the worker again. The worker
//! sends what was lost with the old process once more, and never learns anything else.
//!
//! | `inference.isolation` | who runs the models | module |
//! | --- | --- | --- |
//! | `process` | one supervised child for all sessions | `supervisor` |
//! | `session` | a child for each session, ended with it | `supervisor` |
//! | `in-process` | the host itself | `in_process` |
//!
//! One task owns the children and the list of sessions; everybody else sends it requests over a
//! bounded channel. What it decides by is kept apart from it, without processes and clocks: whose
//! request ended a process (`blame`), whether a process is well (`pulse`), whether it is too large
//! (`budget`), when the next may be started (`pace`).

mod attribution;
mod budget;
pub mod catalog;
mod in_process;
pub mod library;
mod process;
mod refuse;
mod restart_backoff;
mod socket;
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
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use crate::config::{Config, Isolation};
use budget::Budget;
use catalog::{Catalog, VersionStore};
pub use in_process::forbid_telemetry;
use process::InferenceProgram;
use status::PublishedState;
pub use status::{Duty, InferenceStatus, ProcessStatus, Restarts};
use supervisor::{Policy, Supervisor};

/// Requests to the supervising task that may wait. Each is a session that starts or ends.
const REQUESTS: usize = 32;

/// The way to where models run. Cheap to clone.
#[derive(Clone)]
pub struct InferenceHandle {
    requests: mpsc::Sender<SupervisorRequest>,
    published: Arc<Mutex<PublishedState>>,
}

enum SupervisorRequest {
    Attach { number: u64, name: String, service: ServiceLevel, place: Arc<SessionEndpoint> },
    Detach { number: u64 },
    Offer(Arc<[Model]>),
}

/// The inference end of what a session shares with whoever runs its models.
struct SessionEndpoint {
    socket: OwnedFd,
    memory: OwnedFd,
}

/// A state of the models' folder.
struct CatalogVersion {
    /// Counts up.
    number: u32,
    models: Arc<[Model]>,
}

impl CatalogVersion {
    fn names(&self, name: &str) -> bool {
        self.models.iter().any(|model| model.name == name)
    }

    fn has(&self, loaded: &LoadedModel) -> bool {
        self.models.iter().any(|model| model.name == loaded.name && model.sha256 == loaded.sha256)
    }
}

/// What a session asks of the inference process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceTerms {
    /// With whom it shares the runners' time.
    pub share: Share,
    /// How large the share is.
    pub priority: Priority,
    /// Milliseconds that a request may take, waiting included.
    pub timeout_ms: u32,
    /// Milliseconds after which a request that waits is dropped as stale; none: it waits as long as
    /// it may take.
    pub stale_ms: Option<u32>,
    /// Whether the pipeline may bring models of its own.
    pub may_load: bool,
    /// Bytes of shared memory for its tensors, inputs and outputs together. Allocated as a whole
    /// when the session starts.
    pub tensor_memory: usize,
}

/// With whom a session shares the runners' time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// With nobody.
    Own,
    /// With all that have this number: the pictures of one analysed pipeline, say.
    Group(u32),
}

impl ServiceTerms {
    fn service(self, number: u64) -> ServiceLevel {
        let Self { share, priority, timeout_ms, stale_ms, may_load, tensor_memory: _ } = self;
        let share = match share {
            Share::Own => number,
            // Numbers of attachments count up from 1 and never come near.
            Share::Group(group) => u64::MAX - u64::from(group),
        };
        ServiceLevel { share, priority, timeout_ms, stale_ms, may_load }
    }
}

/// A session's place at the inference process: the descriptors that its worker inherits. Dropping
/// it ends the service.
pub struct InferenceAttachment {
    /// The worker's end of the packet socket.
    pub socket: OwnedFd,
    /// The session's shared memory.
    pub memory: OwnedFd,
    number: u64,
    requests: mpsc::Sender<SupervisorRequest>,
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
        let threads = match settings.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism()
                .map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
        };
        let models: Arc<[Model]> = catalog.models().cloned().collect();
        // It is not there where nothing keeps versions: then only what is offered at the start is
        // read.
        let folder = VersionStore::folder(&config.store.directory).canonicalize().ok();
        let configure = Configure {
            library: library.path,
            library_sha256: library.sha256,
            threads,
            gpu_memory_fraction: config.resource_limits.gpu_memory_fraction as f32,
            memory: None,
            folder: folder.and_then(|folder| folder.to_str().map(str::to_owned)),
            models: models.to_vec(),
            preload: settings.preload.clone(),
        };
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let shown = Arc::<Mutex<PublishedState>>::default();
        let inference = Self { requests, published: Arc::clone(&shown) };
        {
            let mut shown = inference.shown();
            shown.status.isolation = settings.isolation;
            shown.models = Arc::clone(&models);
        }
        if settings.isolation == Isolation::InProcess {
            in_process::start(configure, inbox, shown).await?;
            return Ok(inference);
        }
        let program = InferenceProgram { path: program, sandbox: config.session_processes.sandbox };
        let policy = Policy {
            per_session: settings.isolation == Isolation::Session,
            spare: settings.spare,
            budget: Budget::from_mib(settings.memory_mb),
            configure,
        };
        let generation = Arc::new(CatalogVersion { number: 0, models });
        let supervisor = Supervisor::start(program, policy, generation, inbox, shown)
            .await
            .context("starting the inference process")?;
        tokio::spawn(supervisor.run());
        Ok(inference)
    }

    /// Has sessions that are attached from now on use the models of this catalogue. Those that are
    /// attached keep theirs.
    pub async fn offer(&self, catalog: &Catalog) {
        let models = catalog.models().cloned().collect();
        // It fails where the host ends.
        let _ = self.requests.send(SupervisorRequest::Offer(models)).await;
    }

    /// The models that a session may use that is attached now, sorted by name.
    pub fn models(&self) -> Arc<[Model]> {
        Arc::clone(&self.shown().models)
    }

    /// The models that are loaded where sessions are served, and what really runs each, sorted by
    /// name. Several versions of a name may be in use.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        self.shown().loaded.clone()
    }

    /// How inference is.
    pub fn status(&self) -> InferenceStatus {
        self.shown().status.clone()
    }

    /// Makes the socket and the shared memory of a session and announces it to whoever runs its
    /// models.
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
        // Made first: whatever happens from here on, its end takes the session back.
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

    fn shown(&self) -> MutexGuard<'_, PublishedState> {
        self.published.lock()
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
