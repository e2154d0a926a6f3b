//! A runner: takes requests out of the queue and answers them, with its own sessions of the models.
//! One at a time, but for those that run as one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::inference::{ErrorCode, InferenceRequest, InferenceResponse};
use ort::session::RunOptions;

use crate::batch::{self, BatchPart, Outcome};
use crate::error::RequestError;
use crate::fair::Turn;
use crate::job::Job;
use crate::model::{ModelSession, ModelVersion};
use crate::private_models;
use crate::queue::QueueTask;
use crate::request::{self, Layout};
use crate::runtime::Runtime;
use crate::shared::EngineShared;
use crate::tensor::Tensor;

/// Minimum time to load a model, in nanoseconds. A device may compile the model first, which takes
/// minutes with TensorRT. A process that needs longer hangs.
const LOAD_NS: u64 = 300_000_000_000;

/// Nanoseconds in a millisecond.
const MS: u64 = 1_000_000;

pub(crate) struct Runner {
    context: RunnerContext,
    models: RunnerModels,
}

/// Where a runner stands in the engine.
struct RunnerContext {
    shared: Arc<EngineShared>,
    /// Its number among the runners.
    index: usize,
    /// Options of its runs, by which the timer terminates them.
    options: Arc<RunOptions>,
}

/// A runner's sessions of the models.
struct RunnerModels {
    runtime: Runtime,
    loaded: Vec<(Arc<ModelVersion>, ModelSession)>,
    /// The value of [`EngineShared::changes`] when unused models were last freed.
    changes: u64,
}

impl Runner {
    pub(crate) fn new(
        shared: Arc<EngineShared>,
        index: usize,
        options: Arc<RunOptions>,
        runtime: Runtime,
    ) -> Self {
        let models = RunnerModels { runtime, loaded: Vec::new(), changes: 0 };
        Self { context: RunnerContext { shared, index, options }, models }
    }

    /// Loads and warms models of catalog version 0.
    pub(crate) fn preload(&mut self, names: &[String]) -> Result<(), RequestError> {
        let shared = Arc::clone(&self.context.shared);
        let Some(catalog) = shared.catalogs.get(0) else { return Ok(()) };
        for name in names {
            let entry = catalog.find(name)?;
            // It may be named twice.
            if self.models.position(entry).is_none() {
                let loaded = self.models.load(entry)?;
                shared.catalogs.note_loaded(entry, &loaded.runs);
            }
        }
        Ok(())
    }

    /// Answers requests until the queue ends.
    pub(crate) fn serve(&mut self) {
        let shared = Arc::clone(&self.context.shared);
        while let Some(next) = shared.queue.take() {
            self.models.forget_unused(&shared);
            match next {
                QueueTask::Run(job, turn) => self.serve_turn(job, turn),
                QueueTask::Late(jobs) => jobs.iter().for_each(Job::answer_late),
            }
        }
    }

    /// Answers a request, with others that can run as one with it.
    fn serve_turn(&mut self, job: Job, turn: Turn) {
        let shared = Arc::clone(&self.context.shared);
        let (mut jobs, mut turns) = (vec![job], vec![turn]);
        if let [first] = jobs.as_slice()
            && let Some(batching) = first.batching()
        {
            let until_ns = first
                .taken_ns
                .saturating_add(u64::from(batching.delay_ms) * MS)
                .min(first.deadline_ns);
            let most = (batching.max - 1) as usize;
            let others = shared.queue.collect(|other| first.joins(other), most, until_ns);
            let (others, their_turns): (Vec<_>, Vec<_>) = others.into_iter().unzip();
            jobs.extend(others);
            turns.extend(their_turns);
        }
        let begun_ns = monotonic_ns();
        let in_flight = shared.timer.in_flight();
        (0..)
            .zip(&jobs)
            .for_each(|(slot, job)| in_flight.begin(self.context.index, slot, job.running()));
        let answers = match jobs.as_slice() {
            [job] => vec![self.work(job)],
            jobs => self.work_as_one(jobs),
        };
        (0..jobs.len()).for_each(|slot| in_flight.end(self.context.index, slot));
        let each_ns = monotonic_ns().saturating_sub(begun_ns) / turns.len().max(1) as u64;
        shared.queue.finish(turns, each_ns);
        {
            let mut budget = shared.budget.lock();
            jobs.iter().for_each(|job| budget.charge(job.client.terms().number, each_ns));
        }
        jobs.iter().zip(answers).for_each(|(job, answer)| job.answer(answer));
    }

    fn work(&mut self, job: &Job) -> Result<InferenceResponse, RequestError> {
        match &job.request {
            InferenceRequest::Open { id, model } => {
                Ok(opened(*id, model.clone(), self.models.of(&self.context, job)?))
            }
            InferenceRequest::Load { id, offset, length } => self.load(job, *id, *offset, *length),
            // The dispatcher answers it.
            InferenceRequest::Ask { .. } => Err(RequestError::argument("this is nothing to run")),
            InferenceRequest::Run { model, .. } => {
                let mut private = job.client.private().lock();
                let loaded = match private.find(model) {
                    Some(loaded) => loaded,
                    None => self.models.of(&self.context, job)?,
                };
                self.context.run(job, loaded)
            }
        }
    }

    /// Loads a pipeline's own model.
    fn load(
        &self,
        job: &Job,
        id: u64,
        offset: u64,
        length: u64,
    ) -> Result<InferenceResponse, RequestError> {
        let session = &job.client;
        if !session.terms().service.may_load {
            let message =
                "this pipeline may not load models of its own; `inference.load` would allow it";
            return Err(RequestError::new(ErrorCode::Security, message));
        }
        let mut private = session.private().lock();
        let name = private.next_name()?;
        let range = request::region("the model", session.memory().len(), offset, length)?;
        let begun = Instant::now();
        let mut loaded =
            private_models::load(&name, session.memory(), range, &self.models.runtime)?;
        self.context.in_time(job, monotonic_ns(), |options| loaded.warm(Some(options)))?;
        let ms = begun.elapsed().as_millis();
        tracing::info!(
            session = session.name(),
            model = name,
            ms,
            "loaded a model of the pipeline's own"
        );
        Ok(opened(id, name, private.add(loaded)))
    }

    /// Runs requests of one model as one; by themselves where that fails.
    fn work_as_one(&mut self, jobs: &[Job]) -> Vec<Result<InferenceResponse, RequestError>> {
        let begun_ns = monotonic_ns();
        let mut answers = self.try_as_one(jobs, begun_ns).unwrap_or_else(|error| {
            tracing::debug!(%error, requests = jobs.len(), "a batch failed; each request is run \
                by itself");
            Vec::new()
        });
        answers.resize_with(jobs.len(), || None);
        let run_ns = monotonic_ns().saturating_sub(begun_ns);
        let answers = jobs.iter().zip(answers).map(|(job, outputs)| match outputs {
            Some(outputs) => {
                let queued_ns = begun_ns.saturating_sub(job.taken_ns);
                Ok(InferenceResponse::Done {
                    id: job.request.id(),
                    outputs: outputs?,
                    queued_ns,
                    run_ns,
                })
            }
            None => self.work(job),
        });
        answers.collect()
    }

    /// The outcome of each request that was part of the batch.
    fn try_as_one(
        &mut self,
        jobs: &[Job],
        begun_ns: u64,
    ) -> Result<Vec<Option<Outcome>>, RequestError> {
        let first =
            jobs.first().ok_or_else(|| RequestError::argument("there is nothing to run"))?;
        let loaded = self.models.of(&self.context, first)?;
        // A wrong request must not cost the others their batch. Run by itself it gets its error.
        let part = |job: &Job| BatchPart::new(Arc::clone(&job.client), job.layout(loaded).ok()?);
        let parts: Vec<_> = jobs.iter().map(part).collect();
        let together: Vec<_> =
            jobs.iter().zip(&parts).filter_map(|(job, part)| Some((job, part.as_ref()?))).collect();
        if together.len() < 2 {
            return Ok(Vec::new());
        }
        let ModelSession { session, signature, .. } = loaded;
        let deadline =
            together.iter().map(|(job, _)| *job).min_by_key(|job| job.deadline_ns).unwrap_or(first);
        let outcomes = self.context.in_time(deadline, begun_ns, |options| {
            together.iter().for_each(|(job, part)| self.context.before_run(job, &part.layout));
            let parts: Vec<_> = together.iter().map(|(_, part)| *part).collect();
            batch::run(&parts, signature, session, options)
        })?;
        let mut outcomes = outcomes.into_iter();
        Ok(parts.iter().map(|part| part.as_ref().and_then(|_| outcomes.next())).collect())
    }
}

/// The answer to a request for a model.
fn opened(id: u64, model: String, loaded: &ModelSession) -> InferenceResponse {
    let declarations =
        |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.declaration.clone()).collect();
    let signature = &loaded.signature;
    InferenceResponse::Opened {
        id,
        model,
        inputs: declarations(&signature.inputs),
        outputs: declarations(&signature.outputs),
    }
}

impl RunnerContext {
    /// Runs one request by itself.
    fn run(&self, job: &Job, loaded: &mut ModelSession) -> Result<InferenceResponse, RequestError> {
        let layout = job.layout(loaded)?;
        let memory = job.client.memory();
        let begun_ns = monotonic_ns();
        let outputs = loaded.for_run(&layout, |session, tensors| {
            tensors.take_inputs(memory, &layout)?;
            let outputs = self.in_time(job, begun_ns, |options| {
                self.before_run(job, &layout);
                tensors.execute(session, Some(options))
            })?;
            tensors.give_outputs(outputs, memory, &layout)
        })?;
        let run_ns = monotonic_ns().saturating_sub(begun_ns);
        let queued_ns = begun_ns.saturating_sub(job.taken_ns);
        Ok(InferenceResponse::Done { id: job.request.id(), outputs, queued_ns, run_ns })
    }

    /// Runs `run`, which is terminated at the request's deadline.
    fn in_time<T>(
        &self,
        job: &Job,
        begun_ns: u64,
        run: impl FnOnce(&RunOptions) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        if begun_ns >= job.deadline_ns {
            return Err(job.timeout(begun_ns, begun_ns));
        }
        self.shared.timer.begin(self.index, job.deadline_ns);
        let done = run(&self.options);
        // A run that succeeded in spite of its termination counts.
        if self.shared.timer.end(self.index) && done.is_err() {
            return Err(job.timeout(begun_ns, monotonic_ns()));
        }
        done
    }

    fn before_run(&self, job: &Job, layout: &Layout) {
        if let (Some(hook), InferenceRequest::Run { id, model, .. }) =
            (self.shared.before_run, &job.request)
        {
            hook(&job.client.about_to_run(*id, model, layout));
        }
    }
}

impl RunnerModels {
    /// This runner's session of the model that a request asks for, made when it is first asked for.
    fn of(
        &mut self,
        context: &RunnerContext,
        job: &Job,
    ) -> Result<&mut ModelSession, RequestError> {
        let entry = job.entry()?;
        // Two look-ups: the borrow checker rejects an early return.
        if self.position(entry).is_none() {
            let mut running = job.running();
            running.deadline_ns = running.deadline_ns.max(monotonic_ns().saturating_add(LOAD_NS));
            let (shared, index) = (&context.shared, context.index);
            shared.timer.in_flight().begin(index, 0, running);
            let runs = self.load(entry)?.runs.clone();
            shared.timer.in_flight().begin(index, 0, job.running());
            if shared.catalogs.note_loaded(entry, &runs) {
                (shared.loaded)(runs);
            }
        }
        let position = self.position(entry);
        let loaded = position.and_then(|index| self.loaded.get_mut(index));
        loaded
            .map(|(_, loaded)| loaded)
            .ok_or_else(|| RequestError::argument("the model is not loaded"))
    }

    fn load(&mut self, entry: &Arc<ModelVersion>) -> Result<&ModelSession, RequestError> {
        let begun = Instant::now();
        let loaded = entry.load(&self.runtime)?;
        tracing::info!(
            model = entry.model.name,
            ms = begun.elapsed().as_millis(),
            "loaded a model"
        );
        Ok(&self.loaded.push_mut((Arc::clone(entry), loaded)).1)
    }

    fn position(&self, entry: &Arc<ModelVersion>) -> Option<usize> {
        self.loaded.iter().position(|(known, _)| Arc::ptr_eq(known, entry))
    }

    /// Frees models that no client can ask for: newer versions have replaced them.
    fn forget_unused(&mut self, shared: &EngineShared) {
        let changes = shared.changes.load(Ordering::Acquire);
        if std::mem::replace(&mut self.changes, changes) != changes {
            self.loaded.retain(|(entry, _)| shared.catalogs.in_use(entry));
        }
    }
}
