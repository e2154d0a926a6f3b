//! The pipeline thread of a stream's worker: owns the component's instance and does the work that
//! is queued.

use std::sync::Arc;

use ocelli_protocol::worker::{FromWorker, StoreContents, WorkerStage};
use serde_json::{Map, Value};

use super::intake::Queue;
use super::ring::FrameRing;
use super::{WorkerFailure, call_failure};
use crate::counters::SharedCounters;
use crate::guest::instance::{CallError, Instance, InstanceFactory};
use crate::host_link::HostLink;
use crate::queue::Work;
use crate::video::Frame;

/// What a worker that stands by says to a question.
const NOT_ACTIVE: &str = "this worker stands by and does not speak yet";

/// See the module's documentation.
///
/// What a call into the component changes in the session's store is kept when the call returns, its
/// own error included; a trap ends the worker before the host is told. The host is told as soon as
/// the worker speaks: what was kept on standby, by `init` and `restore`, goes to it with what the
/// first call changes that is heard, so that a worker that never gave a result has changed nothing.
pub(super) struct PipelineTask {
    factory: InstanceFactory,
    settings: String,
    fields: Map<String, Value>,
    ring: Arc<FrameRing>,
    host: HostLink,
    tally: Arc<SharedCounters>,
    active: bool,
    /// All frames up to this one are done with.
    last_frame: Option<u64>,
}

impl PipelineTask {
    /// With `settings` and their `fields`. One that does not speak finds frames in the ring.
    pub(super) fn new(
        factory: InstanceFactory,
        (settings, fields): (String, Map<String, Value>),
        ring: Arc<FrameRing>,
        speaks: bool,
        host: &HostLink,
        tally: &Arc<SharedCounters>,
    ) -> Self {
        let (host, tally) = (host.clone(), Arc::clone(tally));
        Self { factory, settings, fields, ring, host, tally, active: speaks, last_frame: None }
    }

    /// Takes over what the host has kept. Gives whether the instance has seen other content, and
    /// has to be made anew.
    pub(super) fn load_store(&self, kept: StoreContents) -> Result<bool, WorkerFailure> {
        let adopted = self.factory.kv_store().lock().load(kept);
        adopted.map_err(|error| WorkerFailure {
            stage: WorkerStage::Setup,
            limit: None,
            message: format!("the session's store: {error}"),
        })
    }

    /// Gives an instance its settings.
    pub(super) fn init(&self, instance: &mut Instance) -> Result<(), WorkerFailure> {
        instance.init(&self.settings).map_err(call_failure(WorkerStage::Init))?;
        self.commit_store();
        Ok(())
    }

    /// Does what is queued, until the queue is closed or the pipeline is lost.
    pub(super) fn run(
        mut self,
        queue: &Queue,
        mut instance: Instance,
    ) -> Result<(), WorkerFailure> {
        while let Some(work) = queue.next() {
            match work {
                Work::Frame(frame) => self.process(&mut instance, frame)?,
                Work::Command { id, request } => self.command(&mut instance, id, &request)?,
                Work::DryRun { frame } => self.dry_run(&mut instance, frame)?,
                Work::LoadStore(kept) => {
                    if self.load_store(kept)? {
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
                Work::Snapshot => {
                    let state = instance.snapshot().map_err(call_failure(WorkerStage::Snapshot))?;
                    self.commit_store();
                    self.host.send_with(
                        &FromWorker::Snapshot {
                            last_frame: self.last_frame,
                            counters: self.tally.snapshot(),
                        },
                        &state,
                    );
                }
                Work::Restore { version, state } => {
                    let restored =
                        refusable(WorkerStage::Restore, instance.restore(&version, &state))?;
                    self.commit_store();
                    self.host.send(&FromWorker::Restored(restored));
                }
                Work::EndOfStream => {
                    self.host.send(&FromWorker::Finished { counters: self.tally.snapshot() })
                }
            }
        }
        Ok(())
    }

    /// An initialised instance that knows nothing of those before it.
    fn reinstantiate(&self) -> Result<Instance, WorkerFailure> {
        let mut instance = self
            .factory
            .instance(self.fields.clone())
            .map_err(call_failure(WorkerStage::Instantiate))?;
        self.init(&mut instance)?;
        Ok(instance)
    }

    fn process(&mut self, instance: &mut Instance, frame: Arc<Frame>) -> Result<(), WorkerFailure> {
        let number = frame.number;
        let processed = instance.process(frame);
        let counters = self.tally.update(|counters| counters.processed += 1);
        let processed = refusable(WorkerStage::Process, processed)?;
        self.last_frame = Some(number);
        self.commit_store();
        self.host.send(&match processed {
            Ok(result) => FromWorker::Result { result, counters },
            Err(message) => FromWorker::FrameFailed { frame: number, message, counters },
        });
        Ok(())
    }

    fn command(
        &self,
        instance: &mut Instance,
        id: u64,
        request: &str,
    ) -> Result<(), WorkerFailure> {
        let answer = if self.active {
            let answer = refusable(WorkerStage::Command, instance.command(request))?;
            self.commit_store();
            answer
        } else {
            Err(NOT_ACTIVE.to_owned())
        };
        self.host.send(&FromWorker::CommandAnswer { id, answer });
        Ok(())
    }

    /// Lets the instance process a frame that is kept, unheard.
    fn dry_run(&self, instance: &mut Instance, number: Option<u64>) -> Result<(), WorkerFailure> {
        let Some(frame) = self.ring.find(number) else {
            self.host.send(&FromWorker::DryRunResult { frame: number, outcome: None });
            return Ok(());
        };
        let number = frame.number;
        let processed = instance.process(frame);
        self.factory.kv_store().lock().roll_back();
        let mut outcome = refusable(WorkerStage::Process, processed)?;
        if let Ok(result) = &mut outcome {
            result.events.iter_mut().for_each(|event| event.attachments.clear());
        }
        self.host.send(&FromWorker::DryRunResult { frame: Some(number), outcome: Some(outcome) });
        Ok(())
    }

    /// Keeps what the call that has returned has changed in the session's store, and tells the
    /// host.
    fn commit_store(&self) {
        let changes = {
            let mut kept = self.factory.kv_store().lock();
            kept.commit();
            if self.active { kept.take_changes() } else { Vec::new() }
        };
        if !changes.is_empty() {
            self.host.send(&FromWorker::StoreCommit(changes));
        }
    }
}

/// The component's answer or its own words on why there is none; a trap is an error.
fn refusable<T>(
    stage: WorkerStage,
    called: Result<T, CallError>,
) -> Result<Result<T, String>, WorkerFailure> {
    match called {
        Ok(answer) => Ok(Ok(answer)),
        Err(CallError::Refused(words)) => Ok(Err(words)),
        Err(trap) => Err(call_failure(stage)(trap)),
    }
}
