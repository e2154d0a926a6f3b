//! The engine: its threads, and the dispatcher that hands requests from sessions to runners.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use ocelli_protocol::inference::{
    Configure, FromWorker, MAX_PACKET, MAX_TENSORS, Model, PacketError, ToWorker, receive,
};
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::io::Errno;

use crate::error::{AttachError, EngineError};
use crate::model::Catalogue;
use crate::queue::Queue;
use crate::runner::{Job, Runner};
use crate::runtime::Runtime;
use crate::session::Session;

/// Most sessions at once, and so most requests that wait. Far above what one machine decodes; each costs a few
/// descriptors, of which a process commonly has 1024 before its limit is raised.
pub const MAX_SESSIONS: usize = 256;

/// Most runners. More threads than this on one device are a mistake in the configuration.
const MAX_THREADS: u32 = 256;

/// The key of the descriptor that stops the dispatcher. Sessions count from 1.
const STOP: u64 = 0;

/// Events that are taken from the system at once.
const EVENTS: usize = 64;

/// ONNX Runtime, loaded, with its threads. Dropping it waits for runs that are under way and ends the threads.
pub struct Engine {
    shared: Arc<Shared>,
    version: String,
    threads: Vec<JoinHandle<()>>,
}

/// ONNX Runtime, loaded, before any thread runs: the state in which a process confines itself.
pub struct Prepared {
    runtime: Runtime,
    catalogue: Arc<Catalogue>,
    threads: u32,
    preload: Arc<[String]>,
}

struct Shared {
    catalogue: Arc<Catalogue>,
    queue: Queue<Job>,
    epoll: OwnedFd,
    stop: OwnedFd,
    sessions: Mutex<HashMap<u64, Connection>>,
    next_key: AtomicU64,
}

/// A session, and the dispatcher's notes on it.
struct Connection {
    session: Arc<Session>,
    /// The largest request number that was taken.
    last_id: Option<u64>,
}

impl Engine {
    /// [Prepares](Self::prepare) the engine and [starts](Prepared::start) it.
    pub fn new(configure: Configure) -> Result<Self, EngineError> {
        Self::prepare(configure)?.start()
    }

    /// Loads the library. That reads the files which describe the processor and its devices, and starts no thread.
    ///
    /// `ORT_DISABLE_TELEMETRY=1` must be in the environment.
    pub fn prepare(configure: Configure) -> Result<Prepared, EngineError> {
        let Configure { library, library_sha256, threads, gpu_memory_fraction, models, preload, .. } =
            configure;
        if !(1..=MAX_THREADS).contains(&threads) {
            let message = format!("`inference.threads` is {threads}; 1 to {MAX_THREADS} are possible");
            return Err(EngineError::Configuration(message));
        }
        let runtime = Runtime::load(Path::new(&library), library_sha256.as_deref())?;
        let runtime = runtime.with_devices(&models, gpu_memory_fraction)?;
        let catalogue = Arc::new(Catalogue::new(models)?);
        Ok(Prepared { runtime, catalogue, threads, preload: preload.into() })
    }

    /// ONNX Runtime's version, like `1.28.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All models that may be asked for, in no order.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.shared.catalogue.models()
    }

    /// Takes on a session: maps its memory, greets its worker, and serves it until the worker's end of the socket
    /// closes.
    pub fn attach(&self, session: String, socket: OwnedFd, memory: OwnedFd) -> Result<(), AttachError> {
        self.shared.attach(Arc::new(Session::new(session, socket, memory)?))
    }

    fn start(&mut self, name: String, body: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        self.threads.push(std::thread::Builder::new().name(name).spawn(body)?);
        Ok(())
    }
}

impl Prepared {
    /// The folders of the models, which are read when they are first asked for: of the files themselves, where a name is
    /// a link.
    pub fn folders(&self) -> Vec<PathBuf> {
        let files = self.catalogue.models().map(|model| PathBuf::from(&model.path));
        let files = files.map(|path| path.canonicalize().unwrap_or(path));
        let folders = files.filter_map(|path| path.parent().map(Path::to_owned));
        folders.collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether a device other than the processor is in use, whose driver opens files and starts threads of its own.
    pub fn uses_devices(&self) -> bool {
        self.runtime.uses_devices()
    }

    /// Starts the runners, and has each of them load and warm the models to preload.
    pub fn start(self) -> Result<Engine, EngineError> {
        let Self { runtime, catalogue, threads, preload } = self;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(std::io::Error::from)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(std::io::Error::from)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)
            .map_err(std::io::Error::from)?;
        let shared = Arc::new(Shared {
            catalogue: Arc::clone(&catalogue),
            queue: Queue::new(MAX_SESSIONS),
            epoll,
            stop,
            sessions: Mutex::default(),
            next_key: AtomicU64::new(STOP + 1),
        });
        // From here on dropping the engine ends the threads that have been started.
        let mut engine = Engine { shared, version: runtime.version().to_owned(), threads: Vec::new() };
        let (warm, warmed) = sync_channel(threads as usize);
        for index in 0..threads {
            let mut runner = Runner::new(runtime.clone(), Arc::clone(&catalogue));
            let (shared, preload, warm) = (Arc::clone(&engine.shared), Arc::clone(&preload), warm.clone());
            engine.start(format!("run-{index}"), move || {
                let ready = runner.preload(&preload);
                let usable = ready.is_ok();
                // The receiver may be gone: another runner failed.
                if warm.send(ready).is_ok() && usable {
                    drop(warm);
                    runner.serve(&shared.queue);
                }
            })?;
        }
        drop(warm);
        warmed.iter().try_for_each(|ready| ready)?;
        let shared = Arc::clone(&engine.shared);
        engine.start("dispatch".to_owned(), move || shared.dispatch())?;
        Ok(engine)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.queue.close();
        if let Err(error) = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes()) {
            tracing::error!(%error, "cannot stop the inference engine's dispatcher");
            return;
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the inference engine had panicked");
            }
        }
    }
}

impl Shared {
    fn attach(&self, session: Arc<Session>) -> Result<(), AttachError> {
        let mut sessions = self.sessions();
        if sessions.len() >= MAX_SESSIONS {
            return Err(AttachError::TooMany);
        }
        session.send(&ToWorker::Hello)?;
        let key = self.next_key.fetch_add(1, Ordering::Relaxed);
        let data = epoll::EventData::new_u64(key);
        epoll::add(&self.epoll, session.socket(), data, epoll::EventFlags::IN)
            .map_err(std::io::Error::from)?;
        sessions.insert(key, Connection { session, last_id: None });
        Ok(())
    }

    /// Waits for requests until the engine stops.
    fn dispatch(&self) {
        let mut buffer = vec![0; MAX_PACKET];
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot wait for requests");
                    return;
                }
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    STOP => return,
                    key => self.take(key, &mut buffer),
                }
            }
        }
    }

    /// Takes one packet from a session's socket.
    fn take(&self, key: u64, buffer: &mut [u8]) {
        let mut sessions = self.sessions();
        let Some(connection) = sessions.get_mut(&key) else { return };
        let session = Arc::clone(&connection.session);
        let fault = match receive::<FromWorker>(session.socket(), buffer) {
            Ok(request) => match connection.admit(&request) {
                Ok(true) => {
                    let job = Job { session: Arc::clone(&session), request, queued: Instant::now() };
                    match self.queue.push(job) {
                        Ok(()) => return,
                        Err(_) => "the queue is full or closed".to_owned(),
                    }
                }
                Ok(false) => return,
                Err(fault) => fault,
            },
            Err(PacketError::Io(Errno::AGAIN | Errno::INTR)) => return,
            Err(PacketError::Closed) => {
                tracing::debug!(session = session.name(), "a worker is gone");
                self.forget(&mut sessions, key);
                return;
            }
            Err(error) => error.to_string(),
        };
        tracing::warn!(session = session.name(), fault, "dropped a worker that broke the protocol");
        session.disconnect();
        self.forget(&mut sessions, key);
    }

    fn forget(&self, sessions: &mut HashMap<u64, Connection>, key: u64) {
        if let Some(Connection { session, .. }) = sessions.remove(&key)
            && let Err(error) = epoll::delete(&self.epoll, session.socket())
        {
            tracing::warn!(session = session.name(), %error, "cannot stop waiting for a session");
        }
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<u64, Connection>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// Whether to run a request: not where its number was taken before, which is how a worker asks again when it does
    /// not know whether the last process took it. An error breaks the protocol.
    fn admit(&mut self, request: &FromWorker) -> Result<bool, String> {
        let id = request.id();
        if self.last_id.is_some_and(|last| id <= last) {
            return Ok(false);
        }
        if let FromWorker::Run { inputs, .. } = request
            && inputs.len() > MAX_TENSORS
        {
            return Err(format!("request {id} has {} inputs, over the bound of {MAX_TENSORS}", inputs.len()));
        }
        if !self.session.begin() {
            return Err(format!("request {id} came while another one was under way"));
        }
        self.last_id = Some(id);
        Ok(true)
    }
}
