//! A runner: takes requests out of the queue and answers them, one at a time, with its own sessions of the models.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::inference::{FromWorker, ToWorker};
use ort::session::RunOptions;

use crate::engine::Shared;
use crate::error::RequestError;
use crate::job::Job;
use crate::model::{Entry, Loaded, Tensor};
use crate::queue::Next;
use crate::request::Layout;
use crate::runtime::Runtime;

/// Time to load a model, in nanoseconds, where its request leaves less: a device may compile what it is to run first, which
/// takes minutes with TensorRT. A process that needs longer hangs.
const LOAD_NS: u64 = 300_000_000_000;

pub(crate) struct Runner {
    place: Place,
    models: Models,
}

/// Where a runner stands in the engine.
struct Place {
    shared: Arc<Shared>,
    /// Its number among the runners.
    index: usize,
    /// By which its runs are told to end.
    options: Arc<RunOptions>,
}

/// A runner's sessions of the models.
struct Models {
    runtime: Runtime,
    loaded: Vec<(Arc<Entry>, Loaded)>,
    /// Sessions and offers that had come and gone when it was last seen to that nothing is kept for nobody.
    changes: u64,
}

impl Runner {
    pub(crate) fn new(shared: Arc<Shared>, index: usize, options: Arc<RunOptions>, runtime: Runtime) -> Self {
        let models = Models { runtime, loaded: Vec::new(), changes: 0 };
        Self { place: Place { shared, index, options }, models }
    }

    /// Loads and warms models of generation 0.
    pub(crate) fn preload(&mut self, names: &[String]) -> Result<(), RequestError> {
        let shared = Arc::clone(&self.place.shared);
        let Some(catalogue) = shared.offers.get(0) else { return Ok(()) };
        for name in names {
            let entry = catalogue.find(name)?;
            let loaded = self.models.load(entry)?;
            shared.offers.note_loaded(entry, &loaded.runs);
        }
        Ok(())
    }

    /// Answers requests until the queue ends.
    pub(crate) fn serve(&mut self) {
        let shared = Arc::clone(&self.place.shared);
        while let Some(next) = shared.queue.take() {
            self.models.forget_unused(&shared);
            let (job, turn) = match next {
                Next::Run(job, turn) => (job, turn),
                Next::Late(jobs) => {
                    jobs.iter().for_each(Job::answer_late);
                    continue;
                }
            };
            let begun_ns = monotonic_ns();
            shared.watch.ledger().begin(self.place.index, 0, job.running());
            let answer = self.work(&job);
            shared.watch.ledger().end(self.place.index, 0);
            shared.queue.finish([turn], monotonic_ns().saturating_sub(begun_ns));
            job.answer(answer);
        }
    }

    fn work(&mut self, job: &Job) -> Result<ToWorker, RequestError> {
        match &job.request {
            FromWorker::Open { id, model } => {
                let loaded = self.models.of(&self.place, job, model)?;
                Ok(opened(*id, model.clone(), loaded))
            }
            FromWorker::Load { .. } => {
                Err(RequestError::argument("models of a pipeline's own are not loaded"))
            }
            FromWorker::Run { model, .. } => {
                let loaded = self.models.of(&self.place, job, model)?;
                self.place.run(job, loaded)
            }
        }
    }
}

/// The answer to a request for a model.
fn opened(id: u64, model: String, loaded: &Loaded) -> ToWorker {
    let declarations = |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.declaration.clone()).collect();
    let signature = &loaded.signature;
    ToWorker::Opened {
        id,
        model,
        inputs: declarations(&signature.inputs),
        outputs: declarations(&signature.outputs),
    }
}

impl Place {
    /// Runs one request by itself.
    fn run(&self, job: &Job, loaded: &mut Loaded) -> Result<ToWorker, RequestError> {
        let FromWorker::Run { id, model, inputs, output_offset, output_length } = &job.request else {
            return Err(RequestError::argument("this is no request to run a model"));
        };
        let length = job.session.memory().len();
        let layout = Layout::check(&loaded.signature, length, inputs, *output_offset, *output_length)?;
        let Loaded { session, signature, .. } = loaded;
        let begun_ns = monotonic_ns();
        if begun_ns >= job.deadline_ns {
            return Err(job.timeout(begun_ns, begun_ns));
        }
        let outputs = job.session.with_plan(signature, layout, |plan| {
            self.shared.watch.begin(self.index, job.deadline_ns);
            if let Some(hook) = self.shared.before_run {
                hook(&job.session.about_to_run(*id, model, plan.layout()));
            }
            let done = plan.execute(session, Some(&self.options));
            if self.shared.watch.end(self.index) && done.is_err() {
                return Err(job.timeout(begun_ns, monotonic_ns()));
            }
            done.map(|()| plan.results())
        })?;
        let run_ns = monotonic_ns().saturating_sub(begun_ns);
        Ok(ToWorker::Done { id: *id, outputs, queued_ns: begun_ns.saturating_sub(job.taken_ns), run_ns })
    }
}

impl Models {
    /// This runner's session of the model that a request asks for, made when it is first asked for.
    fn of(&mut self, place: &Place, job: &Job, name: &str) -> Result<&mut Loaded, RequestError> {
        let entry = match &job.entry {
            Some(entry) => entry,
            None => job.session.catalogue().find(name)?,
        };
        // Two look-ups where one would do: the borrow of an early return would outlive it.
        if self.position(entry).is_none() {
            let mut running = job.running();
            running.deadline_ns = running.deadline_ns.max(monotonic_ns().saturating_add(LOAD_NS));
            let (shared, index) = (&place.shared, place.index);
            shared.watch.ledger().begin(index, 0, running);
            let runs = self.load(entry)?.runs.clone();
            shared.watch.ledger().begin(index, 0, job.running());
            if shared.offers.note_loaded(entry, &runs) {
                (shared.loaded)(runs);
            }
        }
        let position = self.position(entry);
        let loaded = position.and_then(|index| self.loaded.get_mut(index));
        loaded
            .map(|(_, loaded)| loaded)
            .ok_or_else(|| RequestError::argument(format!("there is no model \"{name}\"")))
    }

    /// Loads a model where it is not loaded yet.
    fn load(&mut self, entry: &Arc<Entry>) -> Result<&Loaded, RequestError> {
        let begun = Instant::now();
        let loaded = entry.load(&self.runtime)?;
        tracing::info!(model = entry.model.name, ms = begun.elapsed().as_millis(), "loaded a model");
        self.loaded.retain(|(known, _)| !Arc::ptr_eq(known, entry));
        Ok(&self.loaded.push_mut((Arc::clone(entry), loaded)).1)
    }

    fn position(&self, entry: &Arc<Entry>) -> Option<usize> {
        self.loaded.iter().position(|(known, _)| Arc::ptr_eq(known, entry))
    }

    /// Frees what no session asks for any more: versions that newer ones have replaced.
    fn forget_unused(&mut self, shared: &Shared) {
        let changes = shared.changes.load(Ordering::Acquire);
        if std::mem::replace(&mut self.changes, changes) != changes {
            self.loaded.retain(|(entry, _)| shared.offers.in_use(entry));
        }
    }
}
