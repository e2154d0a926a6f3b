//! The engine: its threads, and what the host may ask of it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;

use ocelli_protocol::in_flight::InFlightTable;
use ocelli_protocol::inference::{Attach, Configure, LoadedModel, Model};
use ort::session::RunOptions;
use parking_lot::Mutex;

use crate::budget::Budget;
use crate::catalog_versions::CatalogVersions;
use crate::client::Client;
use crate::deadline_timer::DeadlineTimer;
use crate::dispatch::Dispatcher;
use crate::error::{AttachError, EngineError};
use crate::hook::Hook;
use crate::job::Job;
use crate::queue::Queue;
use crate::runner::Runner;
use crate::runtime::Runtime;
use crate::shared::{EngineShared, MAX_SESSIONS};

/// Most runners. More threads than this on one device are a mistake in the configuration.
const MAX_THREADS: u32 = 256;

/// ONNX Runtime, loaded, with its threads. Dropping it terminates the runs under way, waits for
/// them, and ends the threads; waiting requests get no answer.
///
/// The host calls it with the content of the messages to a process: [`attach`](Self::attach),
/// [`offer`](Self::offer), [`drain`](Self::drain). [`Prepared::start`] takes its callback for
/// loaded models.
pub struct Engine {
    shared: Arc<EngineShared>,
    dispatcher: Arc<Dispatcher>,
    version: String,
    dispatching: Option<JoinHandle<()>>,
    running: Vec<JoinHandle<()>>,
    watching: Option<JoinHandle<()>>,
}

/// ONNX Runtime, loaded, before any thread runs: the state in which a process confines itself.
pub struct Prepared {
    runtime: Runtime,
    offers: CatalogVersions,
    in_flight: InFlightTable,
    /// Where models that are offered later lie.
    folder: Option<PathBuf>,
    threads: u32,
    budget_millicores: u32,
    preload: Arc<[String]>,
}

impl Engine {
    /// Loads the library. That reads the files which describe the processor and its devices, and
    /// starts no thread. The in-flight table has room for [`Configure::threads`] runners.
    ///
    /// `ORT_DISABLE_TELEMETRY=1` must be in the environment.
    pub fn prepare(
        configure: Configure,
        in_flight: InFlightTable,
    ) -> Result<Prepared, EngineError> {
        let threads = configure.threads;
        if !(1..=MAX_THREADS).contains(&threads) {
            let message =
                format!("`inference.threads` is {threads}; 1 to {MAX_THREADS} are possible");
            return Err(EngineError::Configuration(message));
        }
        if in_flight.runners() < threads as usize {
            let message = format!(
                "the in-flight table has room for {} runners, not for {threads}",
                in_flight.runners()
            );
            return Err(EngineError::Configuration(message));
        }
        let (library, digest) = (Path::new(&configure.library), &configure.library_sha256);
        let runtime = Runtime::load(library, digest.as_deref())?
            .with_devices(&configure.models, configure.gpu_memory_fraction)?;
        Ok(Prepared {
            runtime,
            offers: CatalogVersions::new(configure.models)?,
            in_flight,
            folder: configure.folder.map(PathBuf::from),
            threads,
            budget_millicores: configure.budget_millicores,
            preload: configure.preload.into(),
        })
    }

    /// ONNX Runtime's version, like `1.28.0`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The models that have been loaded so far, in no order.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        self.shared.catalogs.loaded()
    }

    /// Adds another generation of the models, for sessions that are attached with it.
    pub fn offer(&self, version: u32, models: Vec<Model>) -> Result<(), EngineError> {
        self.shared.catalogs.add(version, models)?;
        self.shared.changed();
        Ok(())
    }

    /// Maps a session's memory, greets its worker, and serves it until the worker closes its
    /// socket.
    pub fn attach(
        &self,
        attach: Attach,
        socket: OwnedFd,
        memory: OwnedFd,
    ) -> Result<(), AttachError> {
        let version = attach.catalog_version;
        let catalog = self.shared.catalogs.attach(version);
        let catalog = catalog.ok_or(AttachError::UnknownVersion(version))?;
        self.dispatcher.attach(Client::new(attach, catalog, socket, memory)?)
    }

    /// Stops taking requests and waits until those taken are answered. Requests still in the
    /// sockets are for the next engine.
    pub fn drain(mut self) {
        self.end(Queue::drain);
    }

    /// Ends the threads, one kind after the other.
    fn end(&mut self, end: fn(&Queue<Job>)) {
        if let Err(error) = self.dispatcher.stop() {
            tracing::error!(%error, "cannot stop the inference engine's dispatcher");
            return;
        }
        join(self.dispatching.take());
        end(&self.shared.queue);
        join(self.running.drain(..));
        self.shared.timer.stop();
        join(self.watching.take());
    }
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the inference engine had panicked");
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.timer.terminate_all();
        self.end(Queue::close);
    }
}

impl Prepared {
    /// The folders of the models, which are read when they are first asked for: of the files
    /// themselves, where a name is a link.
    pub fn folders(&self) -> Vec<PathBuf> {
        let models = self.offers.get(0);
        let entries = models.iter().flat_map(|models| models.entries());
        let files = entries.map(|entry| PathBuf::from(&entry.model.path));
        let files = files.map(|path| path.canonicalize().unwrap_or(path));
        let folders = files.filter_map(|path| path.parent().map(Path::to_owned));
        folders.chain(self.folder.clone()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Whether a device is in use, whose driver opens files and starts threads of its own.
    pub fn uses_devices(&self) -> bool {
        self.runtime.uses_devices()
    }

    /// Starts the runners, and has each of them load and warm the models to preload. `loaded` is
    /// called for each model loaded later, on the thread that loaded it: it must not block.
    /// `before_run` is `None` outside of tests.
    pub fn start(
        self,
        loaded: impl Fn(LoadedModel) + Send + Sync + 'static,
        before_run: Hook,
    ) -> Result<Engine, EngineError> {
        let Self { runtime, offers, in_flight, threads, budget_millicores, preload, folder: _ } =
            self;
        let options = (0..threads).map(|_| RunOptions::new().map(Arc::new));
        let options: Vec<_> = options.collect::<Result<_, _>>()?;
        let shared = Arc::new(EngineShared {
            catalogs: offers,
            queue: Queue::new(MAX_SESSIONS),
            budget: Mutex::new(Budget::new(budget_millicores)),
            timer: DeadlineTimer::new(in_flight, options.iter().cloned()),
            before_run,
            loaded: Box::new(loaded),
            changes: AtomicU64::new(0),
        });
        // From here on dropping the engine ends the threads that have been started.
        let mut engine = Engine {
            dispatcher: Arc::new(Dispatcher::new(Arc::clone(&shared))?),
            shared: Arc::clone(&shared),
            version: runtime.version().to_owned(),
            dispatching: None,
            running: Vec::new(),
            watching: None,
        };
        engine.watching = Some(thread("watch", move || {
            shared.timer.run(|now_ns| {
                let (late, next_ns) = shared.queue.late(now_ns);
                late.iter().for_each(Job::answer_late);
                next_ns
            });
        })?);
        let (warm, warmed) = sync_channel(options.len());
        for (index, options) in options.into_iter().enumerate() {
            let mut runner =
                Runner::new(Arc::clone(&engine.shared), index, options, runtime.clone());
            let (preload, warm) = (Arc::clone(&preload), warm.clone());
            engine.running.push(thread(&format!("run-{index}"), move || {
                let ready = runner.preload(&preload);
                let usable = ready.is_ok();
                // The receiver may be gone: another runner failed.
                if warm.send(ready).is_ok() && usable {
                    drop(warm);
                    runner.serve();
                }
            })?);
        }
        drop(warm);
        warmed.iter().try_for_each(|ready| ready)?;
        let dispatcher = Arc::clone(&engine.dispatcher);
        engine.dispatching = Some(thread("dispatch", move || dispatcher.dispatch())?);
        Ok(engine)
    }
}

fn thread(name: &str, body: impl FnOnce() + Send + 'static) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(name.to_owned()).spawn(body)
}
