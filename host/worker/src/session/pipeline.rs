//! The pipeline thread of a stream's worker: owns the component's instance and does the work that is queued.

use std::sync::Arc;

use ocelli_protocol::worker::{FromWorker, Kept, Stage};
use serde_json::{Map, Value};

use super::intake::Queue;
use super::ring::Ring;
use super::{Fatal, told};
use crate::guest::instance::{CallError, Factory, Instance};
use crate::host_link::HostLink;
use crate::queue::Work;
use crate::tally::Tally;
use crate::video::Frame;

/// What a worker that stands by says to a question.
const NOT_YET: &str = "this worker stands by and does not speak yet";

/// See the module's documentation.
///
/// What a call into the component changes in the session's store is kept when the call returns, its own error included; a trap
/// ends the worker before the host is told. The host is told as soon as the worker speaks: what was kept on standby, by `init`
/// and `restore`, goes to it with what the first call changes that is heard, so that a worker that never gave a result has
/// changed nothing.
pub(super) struct Pipeline {
    factory: Factory,
    settings: String,
    fields: Map<String, Value>,
    ring: Arc<Ring>,
    host: HostLink,
    tally: Arc<Tally>,
    speaks: bool,
    /// All frames up to this one are done with.
    through: Option<u64>,
}

impl Pipeline {
    /// With `settings` and their `fields`. One that does not speak finds frames in the ring.
    pub(super) fn new(
        factory: Factory,
        (settings, fields): (String, Map<String, Value>),
        ring: Arc<Ring>,
        speaks: bool,
        host: &HostLink,
        tally: &Arc<Tally>,
    ) -> Self {
        let (host, tally) = (host.clone(), Arc::clone(tally));
        Self { factory, settings, fields, ring, host, tally, speaks, through: None }
    }

    /// Takes over what the host has kept. Gives whether the instance has seen other content, and has to be made anew.
    pub(super) fn adopt(&self, kept: Kept) -> Result<bool, Fatal> {
        let adopted = self.factory.kept().lock().adopt(kept);
        adopted.map_err(|error| Fatal {
            stage: Stage::Setup,
            limit: None,
            message: format!("the session's store: {error}"),
        })
    }

    /// Gives an instance its settings.
    pub(super) fn init(&self, instance: &mut Instance) -> Result<(), Fatal> {
        instance.init(&self.settings).map_err(told(Stage::Init))?;
        self.returned();
        Ok(())
    }

    /// Does what is queued, until the queue is closed or the pipeline is lost.
    pub(super) fn run(mut self, queue: &Queue, mut instance: Instance) -> Result<(), Fatal> {
        while let Some(work) = queue.next() {
            match work {
                Work::Frame(frame) => self.process(&mut instance, frame)?,
                Work::Command { id, request } => self.command(&mut instance, id, &request)?,
                Work::Rehearse { frame } => self.rehearse(&mut instance, frame)?,
                Work::Adopt(kept) => {
                    if self.adopt(kept)? {
                        drop(instance);
                        instance = self.fresh()?;
                    }
                }
                Work::Renew => {
                    // Two instances at a time would need twice the memory.
                    drop(instance);
                    instance = self.fresh()?;
                    self.host.send(&FromWorker::Renewed);
                }
                Work::Speak { after } => {
                    self.speaks = true;
                    self.factory.granted().set_heard();
                    self.through = after;
                }
                Work::Snapshot => {
                    let state = instance.snapshot().map_err(told(Stage::Snapshot))?;
                    self.returned();
                    self.host.send_with(
                        &FromWorker::Snapshot { through: self.through, counters: self.tally.counters() },
                        &state,
                    );
                }
                Work::Restore { version, state } => {
                    let restored = refusable(Stage::Restore, instance.restore(&version, &state))?;
                    self.returned();
                    self.host.send(&FromWorker::Restored(restored));
                }
                Work::End => self.host.send(&FromWorker::Finished { counters: self.tally.counters() }),
            }
        }
        Ok(())
    }

    /// An initialised instance that knows nothing of those before it.
    fn fresh(&self) -> Result<Instance, Fatal> {
        let mut instance = self.factory.instance(self.fields.clone()).map_err(told(Stage::Instantiate))?;
        self.init(&mut instance)?;
        Ok(instance)
    }

    fn process(&mut self, instance: &mut Instance, frame: Arc<Frame>) -> Result<(), Fatal> {
        let number = frame.number;
        let processed = instance.process(frame);
        let counters = self.tally.count(|counters| counters.processed += 1);
        let processed = refusable(Stage::Process, processed)?;
        self.through = Some(number);
        self.returned();
        self.host.send(&match processed {
            Ok(result) => FromWorker::Result { result, counters },
            Err(message) => FromWorker::FrameFailed { frame: number, message, counters },
        });
        Ok(())
    }

    fn command(&self, instance: &mut Instance, id: u64, request: &str) -> Result<(), Fatal> {
        let answer = if self.speaks {
            let answer = refusable(Stage::Command, instance.command(request))?;
            self.returned();
            answer
        } else {
            Err(NOT_YET.to_owned())
        };
        self.host.send(&FromWorker::CommandAnswer { id, answer });
        Ok(())
    }

    /// Lets the instance process a frame that is kept, unheard.
    fn rehearse(&self, instance: &mut Instance, number: Option<u64>) -> Result<(), Fatal> {
        let Some(frame) = self.ring.find(number) else {
            self.host.send(&FromWorker::Rehearsed { frame: number, outcome: None });
            return Ok(());
        };
        let number = frame.number;
        let processed = instance.process(frame);
        self.factory.kept().lock().roll_back();
        let mut outcome = refusable(Stage::Process, processed)?;
        if let Ok(result) = &mut outcome {
            result.events.iter_mut().for_each(|event| event.attachments.clear());
        }
        self.host.send(&FromWorker::Rehearsed { frame: Some(number), outcome: Some(outcome) });
        Ok(())
    }

    /// Keeps what the call that has returned has changed in the session's store, and tells the host.
    fn returned(&self) {
        let changes = {
            let mut kept = self.factory.kept().lock();
            kept.keep();
            if self.speaks { kept.take_changes() } else { Vec::new() }
        };
        if !changes.is_empty() {
            self.host.send(&FromWorker::Stored(changes));
        }
    }
}

/// The component's answer or its own words on why there is none; a trap is an error.
fn refusable<T>(stage: Stage, called: Result<T, CallError>) -> Result<Result<T, String>, Fatal> {
    match called {
        Ok(answer) => Ok(Ok(answer)),
        Err(CallError::Refused(words)) => Ok(Err(words)),
        Err(trap) => Err(told(stage)(trap)),
    }
}
