//! The inference process as the host sees it: started and warmed before the first session, watched, and replaced when it
//! dies.
//!
//! Each worker of a session is [attached](Inference::attach) once, with a packet socket and shared memory of its own, which
//! outlive any one inference process: the host keeps the inference end of the socket and gives it to the next process,
//! which greets the worker again. The worker sends what was lost with the old process once more, and never learns
//! anything else.
//!
//! One task owns the child and the list of sessions; everybody else sends it requests over a bounded channel.

pub mod catalogue;
mod child;
pub mod library;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use ocelli_protocol::inference::{Configure, MAX_PACKET, Model, Priority, Service, packet_pair};
use ocelli_protocol::shm::SharedMemory;
use rustix::net::RecvFlags;
use tokio::sync::{mpsc, watch};

use crate::config::{Config, Sandbox};
use catalogue::Catalogue;
use child::Child;

/// Shared memory of a session in bytes: input and outputs of nanodet at 416 are 3.9 MB, those of a model with 640 x 640
/// pixels and 8400 boxes 7.7 MB. The region is allocated as a whole when the session starts.
const TENSOR_MEMORY: usize = 8 << 20;

/// Requests to the supervising task that may wait. Each is a session that starts or ends.
const REQUESTS: usize = 32;

/// A process that dies sooner than this after it was ready is not started again at once.
const STABLE: Duration = Duration::from_secs(10);

/// Wait before the next start after a quick death: doubled each time, up to the second figure.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The way to the inference process. Cheap to clone.
#[derive(Clone)]
pub struct Inference {
    requests: mpsc::Sender<Request>,
    pid: watch::Receiver<Option<u32>>,
    restarts: Arc<AtomicU64>,
    models: Arc<[Model]>,
}

enum Request {
    Attach { number: u64, session: Attached },
    Detach { number: u64 },
}

/// What the next inference process needs to serve a session.
struct Attached {
    name: String,
    number: u64,
    service: Service,
    socket: OwnedFd,
    memory: OwnedFd,
}

/// What a session asks of the inference process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// With whom it shares the runners' time.
    pub share: Share,
    /// How large the share is.
    pub priority: Priority,
    /// Milliseconds that a request may take, waiting included.
    pub timeout_ms: u32,
    /// Milliseconds after which a request that waits is dropped as stale; none: it waits as long as it may take.
    pub stale_ms: Option<u32>,
    /// Whether the pipeline may bring models of its own.
    pub may_load: bool,
}

/// With whom a session shares the runners' time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// With nobody.
    Own,
    /// With all that have this number: the pictures of one analysed pipeline, say.
    Group(u32),
}

impl Terms {
    fn service(self, number: u64) -> Service {
        let Self { share, priority, timeout_ms, stale_ms, may_load } = self;
        let share = match share {
            Share::Own => number,
            // Numbers of attachments count up from 1 and never come near.
            Share::Group(group) => u64::MAX - u64::from(group),
        };
        Service { share, priority, timeout_ms, stale_ms, may_load }
    }
}

/// A session's place at the inference process: the descriptors that its worker inherits. Dropping it ends the service.
pub struct Attachment {
    /// The worker's end of the packet socket.
    pub socket: OwnedFd,
    /// The session's shared memory.
    pub memory: OwnedFd,
    number: u64,
    requests: mpsc::Sender<Request>,
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let request = Request::Detach { number: self.number };
        if let Err(mpsc::error::TrySendError::Full(request)) = self.requests.try_send(request) {
            let requests = self.requests.clone();
            tokio::spawn(async move { requests.send(request).await });
        }
    }
}

impl Inference {
    /// Starts the process and waits until it is ready: ONNX Runtime loaded, the models to preload warm.
    pub async fn start(program: PathBuf, catalogue: &Catalogue, config: &Config) -> anyhow::Result<Self> {
        let settings = &config.inference;
        for name in &settings.preload {
            anyhow::ensure!(
                catalogue.contains(name),
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
        let configure = Configure {
            library: library.path,
            library_sha256: library.sha256,
            threads,
            gpu_memory_fraction: config.resource_limits.gpu_memory_fraction as f32,
            memory: None,
            models: catalogue.models().cloned().collect(),
            preload: settings.preload.clone(),
        };
        let sandbox = config.session_processes.sandbox;
        let child =
            Child::start(&program, &configure, sandbox).await.context("starting the inference process")?;
        let (requests, inbox) = mpsc::channel(REQUESTS);
        let (pid_sender, pid) = watch::channel(child.pid());
        let restarts = Arc::<AtomicU64>::default();
        let supervisor = Supervisor {
            program,
            configure,
            sandbox,
            inbox,
            sessions: BTreeMap::new(),
            pid: pid_sender,
            restarts: Arc::clone(&restarts),
        };
        tokio::spawn(supervisor.run(child));
        Ok(Self { requests, pid, restarts, models: catalogue.models().cloned().collect() })
    }

    /// The models that sessions may use, sorted by name.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// The process that serves now; none while it is being replaced.
    pub fn pid(&self) -> Option<u32> {
        *self.pid.borrow()
    }

    /// How often the process was replaced.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Makes the socket and the shared memory of a session and announces it to the inference process.
    pub async fn attach(&self, session: &str, terms: Terms) -> anyhow::Result<Attachment> {
        let (ours, theirs) = packet_pair().context("making the socket to the inference process")?;
        let memory = SharedMemory::create(TENSOR_MEMORY).context("making shared memory for tensors")?;
        let copy = memory.fd().try_clone_to_owned().context("cloning the shared memory's descriptor")?;
        let number = next_number();
        let service = terms.service(number);
        let attached = Attached { name: session.to_owned(), number, service, socket: theirs, memory: copy };
        self.requests
            .send(Request::Attach { number, session: attached })
            .await
            .map_err(|_| anyhow::anyhow!("the inference supervisor has stopped"))?;
        let memory = memory.fd().try_clone_to_owned().context("cloning the shared memory's descriptor")?;
        Ok(Attachment { socket: ours, memory, number, requests: self.requests.clone() })
    }
}

fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

struct Supervisor {
    program: PathBuf,
    configure: Configure,
    sandbox: Sandbox,
    inbox: mpsc::Receiver<Request>,
    sessions: BTreeMap<u64, Attached>,
    pid: watch::Sender<Option<u32>>,
    restarts: Arc<AtomicU64>,
}

impl Supervisor {
    /// Serves until the last [`Inference`] and [`Attachment`] are gone; then the child ends with its socket.
    async fn run(mut self, mut child: Child) {
        let mut wait = FIRST_WAIT;
        loop {
            let ready = Instant::now();
            let Some(death) = self.serve(&mut child).await else { return };
            tracing::error!(target: "ocelli::inference", "the inference process died: {death}");
            self.pid.send_replace(None);
            if ready.elapsed() >= STABLE {
                wait = FIRST_WAIT;
            }
            child = loop {
                match Child::start(&self.program, &self.configure, self.sandbox).await {
                    Ok(child) => break child,
                    Err(error) => {
                        tracing::error!(target: "ocelli::inference", "the inference process does not start: {error:#}");
                    }
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            };
            self.restarts.fetch_add(1, Ordering::Relaxed);
            self.pid.send_replace(child.pid());
            tracing::info!(target: "ocelli::inference", sessions = self.sessions.len(), "inference process replaced");
        }
    }

    /// Announces every session to the child, then serves requests until the child dies. None where nobody needs the
    /// process any more.
    async fn serve(&mut self, child: &mut Child) -> Option<String> {
        for session in self.sessions.values() {
            discard_pending(&session.socket);
            if let Err(error) = child.attach(session).await {
                return Some(error.to_string());
            }
        }
        loop {
            tokio::select! {
                death = child.death() => return Some(death),
                request = self.inbox.recv() => match request? {
                    Request::Attach { number, session } => {
                        let attached = child.attach(&session).await;
                        self.sessions.insert(number, session);
                        if let Err(error) = attached {
                            return Some(error.to_string());
                        }
                    }
                    // The inference process sees the end of the worker's socket by itself.
                    Request::Detach { number } => drop(self.sessions.remove(&number)),
                },
            }
        }
    }
}

/// Empties a socket of what no process will answer: the worker sends its request again when it is greeted.
fn discard_pending(socket: &OwnedFd) {
    let mut buffer = vec![0; MAX_PACKET];
    while let Ok((1.., _)) = rustix::net::recv(socket, buffer.as_mut_slice(), RecvFlags::DONTWAIT) {}
}
