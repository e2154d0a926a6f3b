//! A runner: takes requests out of the queue and answers them, one at a time, with its own sessions of the models.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::inference::{ErrorCode, FromWorker, ToWorker};

use crate::error::RequestError;
use crate::hook::Hook;
use crate::model::{Catalogue, Loaded, Tensor};
use crate::queue::Queue;
use crate::request::Layout;
use crate::runtime::Runtime;
use crate::session::Session;

/// A request that waits for a runner.
pub(crate) struct Job {
    pub(crate) session: Arc<Session>,
    pub(crate) request: FromWorker,
    pub(crate) queued: Instant,
}

pub(crate) struct Runner {
    runtime: Runtime,
    catalogue: Arc<Catalogue>,
    loaded: HashMap<String, Loaded>,
    before_run: Hook,
}

impl Runner {
    pub(crate) fn new(runtime: Runtime, catalogue: Arc<Catalogue>, before_run: Hook) -> Self {
        Self { runtime, catalogue, loaded: HashMap::new(), before_run }
    }

    /// Loads and warms models.
    pub(crate) fn preload(&mut self, names: &[String]) -> Result<(), RequestError> {
        names.iter().try_for_each(|name| self.model(name).map(|_| ()))
    }

    /// Answers requests until the queue is closed.
    pub(crate) fn serve(&mut self, queue: &Queue<Job>) {
        while let Some(Job { session, request, queued }) = queue.pop() {
            let answer = self.answer(&session, &request, queued).unwrap_or_else(|error| {
                tracing::debug!(session = session.name(), id = request.id(), %error, "a request failed");
                ToWorker::Failed { id: request.id(), code: error.code, message: error.message }
            });
            session.answer(&answer);
        }
    }

    fn answer(
        &mut self,
        session: &Session,
        request: &FromWorker,
        queued: Instant,
    ) -> Result<ToWorker, RequestError> {
        match request {
            FromWorker::Open { id, model } => {
                let signature = &self.model(model)?.signature;
                let declarations =
                    |tensors: &[Tensor]| tensors.iter().map(|tensor| tensor.declaration.clone()).collect();
                Ok(ToWorker::Opened {
                    id: *id,
                    model: model.clone(),
                    inputs: declarations(&signature.inputs),
                    outputs: declarations(&signature.outputs),
                })
            }
            FromWorker::Load { .. } => Err(RequestError::new(
                ErrorCode::UnsupportedOperation,
                "models of a worker's own are not loaded",
            )),
            FromWorker::Run { id, model, inputs, output_offset, output_length } => {
                let before_run = self.before_run;
                let loaded = self.model(model)?;
                let length = session.memory_length();
                let layout =
                    Layout::check(&loaded.signature, length, inputs, *output_offset, *output_length)?;
                let begun = Instant::now();
                if let Some(hook) = before_run {
                    hook(&session.about_to_run(*id, model, &layout));
                }
                let outputs = session.run(loaded, layout)?;
                let run_ns = nanoseconds(begun.elapsed());
                let queued_ns = nanoseconds(begun.duration_since(queued));
                Ok(ToWorker::Done { id: *id, outputs, queued_ns, run_ns })
            }
        }
    }

    /// This runner's session of a model, made when it is first asked for.
    fn model(&mut self, name: &str) -> Result<&mut Loaded, RequestError> {
        // Two look-ups where one would do: the borrow of an early return would outlive it.
        if !self.loaded.contains_key(name) {
            let begun = Instant::now();
            let loaded = self.catalogue.load(name, &self.runtime)?;
            tracing::info!(model = name, ms = begun.elapsed().as_millis(), "loaded a model");
            self.loaded.insert(name.to_owned(), loaded);
        }
        self.loaded
            .get_mut(name)
            .ok_or_else(|| RequestError::argument(format!("there is no model \"{name}\"")))
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
