//! The pipeline thread of a stream's worker: owns the component's instance and does the queued
//! work.

use std::sync::Arc;

use ocelli_protocol::worker::{
    FrameResult, FromWorker, LogLevel, RequestFault, RequestKind, StoreContents, WorkerStage,
};
use serde_json::{Map, Value};

use super::annotate::Annotator;
use super::failure::WorkerFailure;
use super::intake::Queue;
use super::ring::FrameRing;
use super::shown::Showcase;
use crate::counters::SharedCounters;
use crate::guest::instance::{CallError, Instance, InstanceFactory};
use crate::host_link::HostLink;
use crate::queue::Work;
use crate::video::Frame;

/// The answer of a worker on standby to a request.
const NOT_ACTIVE: &str = "this worker is on standby and not active yet";

/// See the module's documentation.
///
/// The changes that a call into the component makes in the session's store are committed when the
/// call returns, with an error of its own, too; a trap ends the worker before the host gets them.
/// An active worker sends them to the host at once. On standby, the changes of `init` and `restore`
/// wait for the first call after activation, so that a worker that never gave a result has changed
/// nothing.
pub(super) struct PipelineTask {
    factory: InstanceFactory,
    settings: String,
    fields: Map<String, Value>,
    ring: Arc<FrameRing>,
    showcase: Showcase,
    host: HostLink,
    counters: Arc<SharedCounters>,
    active: bool,
    /// All frames up to this one are processed or skipped.
    last_frame: Option<u64>,
    /// Draws each frame's output, where the host asked for it.
    annotator: Option<Annotator>,
}

impl PipelineTask {
    /// With `settings` and their `fields`. A worker on standby finds frames in the ring.
    pub(super) fn new(
        factory: InstanceFactory,
        (settings, fields): (String, Map<String, Value>),
        (ring, showcase): (Arc<FrameRing>, Showcase),
        active: bool,
        host: &HostLink,
        counters: &Arc<SharedCounters>,
    ) -> Self {
        let (host, counters) = (host.clone(), Arc::clone(counters));
        Self {
            factory,
            settings,
            fields,
            ring,
            showcase,
            host,
            counters,
            active,
            last_frame: None,
            annotator: None,
        }
    }

    /// The same that sends each frame with its output drawn in, if it is to.
    pub(super) fn annotating(self, annotates: bool) -> Self {
        let annotator = annotates.then(|| Annotator::new(&self.fields));
        Self { annotator, ..self }
    }

    /// Loads the host's content of the session's store. Gives whether the instance has seen other
    /// content, and has to be made anew.
    pub(super) fn load_store(&self, contents: StoreContents) -> Result<bool, WorkerFailure> {
        let loaded = self.factory.kv_store().lock().load(contents);
        loaded.map_err(|error| {
            WorkerFailure::new(WorkerStage::Setup, format!("the session's store: {error}"))
        })
    }

    /// Gives an instance its settings.
    pub(super) fn init(&self, instance: &mut Instance) -> Result<(), WorkerFailure> {
        instance.init(&self.settings).map_err(WorkerFailure::of_call(WorkerStage::Init))?;
        self.commit_store();
        Ok(())
    }

    /// Does the queued work, until the queue is closed or the pipeline is lost.
    pub(super) fn run(
        mut self,
        queue: &Queue,
        mut instance: Instance,
    ) -> Result<(), WorkerFailure> {
        while let Some(work) = queue.next() {
            match work {
                Work::Frame(frame) => self.process(&mut instance, frame)?,
                Work::Ask { id, kind, request } => {
                    let answer = self.answer(&mut instance, kind, &request)?;
                    self.host.send(&FromWorker::Answer { id, answer });
                }
                Work::DryRun { frame } => self.dry_run(&mut instance, frame)?,
                Work::LoadStore(contents) => {
                    if self.load_store(contents)? {
                        drop(instance);
                        instance = self.reinstantiate()?;
                    }
                }
                Work::Reinstantiate => {
                    // Two instances at a time would need twice the memory.
                    drop(instance);
                    instance = self.reinstantiate()?;
                    self.host.send(&FromWorker::Reinstantiated);
                }
                Work::Activate { after } => {
                    self.active = true;
                    self.factory.redis().activate();
                    self.last_frame = after;
                }
                Work::Snapshot => self.snapshot(&mut instance)?,
                Work::Restore { version, state } => {
                    let restored =
                        refusable(WorkerStage::Restore, instance.restore(&version, &state))?;
                    self.commit_store();
                    self.host.send(&FromWorker::Restored(restored));
                }
                Work::EndOfStream => {
                    let (counters, damage) = (self.counters.snapshot(), self.counters.damage());
                    self.host.send(&FromWorker::Used(self.counters.usage()));
                    self.host.send(&FromWorker::Finished { counters, damage });
                }
            }
        }
        Ok(())
    }

    /// An initialised instance that knows nothing of those before it.
    fn reinstantiate(&self) -> Result<Instance, WorkerFailure> {
        let instance = self.factory.instance(self.fields.clone());
        let mut instance = instance.map_err(WorkerFailure::of_call(WorkerStage::Instantiate))?;
        self.init(&mut instance)?;
        Ok(instance)
    }

    fn process(&mut self, instance: &mut Instance, frame: Arc<Frame>) -> Result<(), WorkerFailure> {
        let number = frame.number;
        let processed = instance.process(Arc::clone(&frame));
        let counters = self.counters.update(|counters| counters.processed += 1);
        let processed = refusable(WorkerStage::Process, processed)?;
        self.last_frame = Some(number);
        self.commit_store();
        self.annotate(&frame, &processed);
        if let Ok(FrameResult { detections: Some(found), .. }) = &processed {
            self.showcase.processed(frame, found);
        }
        self.host.send(&match processed {
            Ok(result) => FromWorker::Result { result, counters },
            Err(message) => FromWorker::FrameFailed { frame: number, message, counters },
        });
        Ok(())
    }

    /// Sends the frame with its outcome drawn in, where the host asked for it.
    fn annotate(&mut self, frame: &Frame, outcome: &Result<FrameResult, String>) {
        let Some(annotator) = &mut self.annotator else { return };
        match annotator.draw(frame, outcome) {
            Ok(jpeg) => {
                let (frame, presentation_ns) = (frame.number, frame.shown_ns);
                let size = (jpeg.width, jpeg.height);
                let drawn = FromWorker::Annotated { frame, presentation_ns, size };
                self.host.send_with(&drawn, &jpeg.bytes);
            }
            Err(error) => {
                self.host.log(LogLevel::Warn, "picture", &error.to_string(), Some(frame.number));
            }
        }
    }

    fn answer(
        &self,
        instance: &mut Instance,
        kind: RequestKind,
        request: &str,
    ) -> Result<Result<String, RequestFault>, WorkerFailure> {
        if !self.active {
            return Ok(Err(RequestFault::Refused(NOT_ACTIVE.to_owned())));
        }
        let called = match kind {
            RequestKind::Query => instance.query(request),
            RequestKind::Command => instance.command(request).map(Some),
        };
        let answer = refusable(WorkerStage::Request, called)?;
        self.commit_store();
        Ok(match answer {
            Ok(answer) => answer.ok_or(RequestFault::NoQueries),
            Err(message) => Err(RequestFault::Refused(message)),
        })
    }

    /// Lets the instance process a kept frame; its changes of the store are undone.
    fn dry_run(&self, instance: &mut Instance, number: Option<u64>) -> Result<(), WorkerFailure> {
        let Some(frame) = self.ring.find(number) else {
            self.host.send(&FromWorker::DryRunResult { frame: number, outcome: None });
            return Ok(());
        };
        let number = frame.number;
        let processed = instance.dry_run(frame);
        self.factory.kv_store().lock().roll_back();
        let mut outcome = refusable(WorkerStage::Process, processed)?;
        if let Ok(result) = &mut outcome {
            result.events.iter_mut().for_each(|event| event.attachments.clear());
        }
        self.host.send(&FromWorker::DryRunResult { frame: Some(number), outcome: Some(outcome) });
        Ok(())
    }

    fn snapshot(&self, instance: &mut Instance) -> Result<(), WorkerFailure> {
        let state = instance.snapshot().map_err(WorkerFailure::of_call(WorkerStage::Snapshot))?;
        self.commit_store();
        let (last_frame, counters) = (self.last_frame, self.counters.snapshot());
        self.host.send_with(&FromWorker::Snapshot { last_frame, counters }, &state);
        Ok(())
    }

    /// Commits the changes of the session's store by the call that has returned. An active worker
    /// sends them to the host.
    fn commit_store(&self) {
        let changes = {
            let mut store = self.factory.kv_store().lock();
            store.commit();
            if self.active { store.take_changes() } else { Vec::new() }
        };
        if !changes.is_empty() {
            self.host.send(&FromWorker::StoreCommit(changes));
        }
    }
}

/// The component's answer or its error text; a trap is a failure.
fn refusable<T>(
    stage: WorkerStage,
    called: Result<T, CallError>,
) -> Result<Result<T, String>, WorkerFailure> {
    match called {
        Ok(answer) => Ok(Ok(answer)),
        Err(CallError::Refused(message)) => Ok(Err(message)),
        Err(trap) => Err(WorkerFailure::of_call(stage)(trap)),
    }
}
