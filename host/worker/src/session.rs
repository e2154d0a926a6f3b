//! The life of a worker: take over what was inherited, and start the pipeline. What follows stands
//! in `stream`, with the threads `intake` and `pipeline`, and in `analyze`.

mod analyze;
mod intake;
mod pipeline;
mod ring;
mod stream;
#[cfg(test)]
mod stream_tests;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::process::worker as descriptor;
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::wire::{Reader, WireError};
use ocelli_protocol::worker::{FromWorker, Start, ToWorker, WorkerMode, WorkerStage};
use ocelli_sandbox::{limit, seal};
use serde_json::{Map, Value};
use wasmtime::component::Component;

use crate::arena::Arena;
use crate::counters::SharedCounters;
use crate::engine;
use crate::guest::instance::{CallError, Instance, InstanceFactory};
use crate::guest::state::HostServices;
use crate::heartbeat::Heartbeat;
use crate::host_link::HostLink;
use crate::redis_bridge::RedisBucket;
use crate::settings::SettingsFault;
use analyze::ImageWorker;

/// What a worker inherits.
pub struct Inherited {
    /// Stream socket to the host.
    pub host: OwnedFd,
    /// Packet socket to the inference process.
    pub inference: OwnedFd,
    /// Shared memory for tensors.
    pub tensors: OwnedFd,
    /// The compiled component. It is mapped through its entry under `/proc/self/fd`, so it has to
    /// stay open until then.
    pub component: OwnedFd,
    /// Stream socket for the keys of Redis that the session was granted.
    pub granted: OwnedFd,
}

/// A failure that ends the worker, with the part of it that failed.
struct WorkerFailure {
    stage: WorkerStage,
    limit: Option<Limit>,
    message: String,
}

impl WorkerFailure {
    fn report(&self, host: &HostLink, tally: &SharedCounters) {
        host.fail(self.stage, self.limit, tally.snapshot(), &self.message);
    }
}

/// Puts the stage to an error.
fn at<E: std::fmt::Debug>(stage: WorkerStage) -> impl Fn(E) -> WorkerFailure {
    move |error| WorkerFailure { stage, limit: None, message: format!("{error:?}") }
}

/// Serves one session until the host closes the connection. An error has been told to the host
/// before it is returned. `confinement` is what the process has found to be in force.
pub fn run(inherited: Inherited, confinement: Confinement) -> anyhow::Result<()> {
    let Inherited { host, inference, tensors, component, granted } = inherited;
    let mut reader =
        Reader::new(UnixStream::from(host.try_clone().context("cloning the socket to the host")?));
    let host = HostLink::new(host);
    let start = match reader.read::<ToWorker>() {
        Ok((ToWorker::Start(start), _)) => start,
        Ok((other, _)) => anyhow::bail!("the first message was not Start but {other:?}"),
        Err(WireError::Closed) => return Ok(()),
        Err(error) => return Err(error).context("reading the first message"),
    };
    host.send(&FromWorker::SandboxReport(confinement.clone()));
    let tally = Arc::new(SharedCounters::default());
    let interval = Duration::from_millis(u64::from(start.heartbeat_ms));
    let served = Heartbeat::start(host.clone(), Arc::clone(&tally), interval)
        .map_err(at(WorkerStage::Setup))
        .and_then(|_beats_until_the_end| {
            let granted = RedisBucket::new(
                start.redis_granted.then_some(granted),
                &start.limits,
                !start.standby,
            );
            let surroundings = host_services(&host, &tally, inference, tensors, granted, &start)?;
            let described = prepare(&host, surroundings, component, &start, &confinement)?;
            match start.mode {
                WorkerMode::Stream(pacing) => {
                    stream::serve(reader, described, start, pacing, &host, &tally)
                }
                WorkerMode::Analyze => {
                    let analyst = ImageWorker::new(described, &start, &host, &tally)?;
                    host.send(&FromWorker::Ready);
                    analyst.serve(reader)
                }
            }
        });
    served.map_err(|fatal| {
        fatal.report(&host, &tally);
        anyhow::anyhow!("{:?}: {}", fatal.stage, fatal.message)
    })
}

/// A pipeline that has said what it is and is not initialised.
struct Described {
    /// What makes further instances.
    factory: InstanceFactory,
    /// The first.
    instance: Instance,
    /// JSON Schema of its settings.
    schema: String,
    /// The settings of `StartDecision`.
    fields: Map<String, Value>,
}

/// Limits the process, and sets up what instances use.
fn host_services(
    host: &HostLink,
    tally: &Arc<SharedCounters>,
    inference: OwnedFd,
    tensors: OwnedFd,
    granted: RedisBucket,
    start: &Start,
) -> Result<HostServices, WorkerFailure> {
    limit::memory(start.limits.memory).map_err(at(WorkerStage::Setup))?;
    limit::open_files(start.limits.open_files).map_err(at(WorkerStage::Setup))?;
    let arena = Arena::new(SharedMemory::map(tensors).map_err(at(WorkerStage::Setup))?);
    Ok(HostServices::new(host.clone(), arena, inference, granted, start.limits, Arc::clone(tally)))
}

/// Closes the process's last door, and gets the pipeline to where it can be initialised.
fn prepare(
    host: &HostLink,
    surroundings: HostServices,
    component: OwnedFd,
    start: &Start,
    confinement: &Confinement,
) -> Result<Described, WorkerFailure> {
    let fields: Map<String, Value> =
        serde_json::from_str(&start.settings).map_err(at(WorkerStage::Setup))?;
    let engine = engine::engine().map_err(at(WorkerStage::Load))?;
    let component = load(&engine, component).map_err(at(WorkerStage::Load))?;
    seal(confinement).map_err(at(WorkerStage::Setup))?;
    let factory = InstanceFactory::new(&engine, &component, surroundings)
        .map_err(call_failure(WorkerStage::Instantiate))?;
    describe(factory, fields, host)
}

/// Lets the pipeline say what it is, and tells the host.
fn describe(
    factory: InstanceFactory,
    fields: Map<String, Value>,
    host: &HostLink,
) -> Result<Described, WorkerFailure> {
    let mut instance =
        factory.instance(fields.clone()).map_err(call_failure(WorkerStage::Instantiate))?;
    let description = instance.describe().map_err(call_failure(WorkerStage::Describe))?;
    let schema = description.settings_schema.clone();
    host.send(&FromWorker::Described(description));
    Ok(Described { factory, instance, schema, fields })
}

/// Puts the stage to a component's error.
fn call_failure(stage: WorkerStage) -> impl Fn(CallError) -> WorkerFailure {
    move |error| match error {
        CallError::Refused(message) => WorkerFailure { stage, limit: None, message },
        CallError::Trap { limit, message } => WorkerFailure { stage, limit, message },
    }
}

fn settings_fault(fault: SettingsFault) -> WorkerFailure {
    WorkerFailure { stage: WorkerStage::Settings, limit: None, message: fault.to_string() }
}

fn fault(stage: WorkerStage, message: &str) -> WorkerFailure {
    WorkerFailure { stage, limit: None, message: message.to_owned() }
}

#[allow(unsafe_code)]
fn load(engine: &wasmtime::Engine, component: OwnedFd) -> wasmtime::Result<Component> {
    use std::os::fd::AsRawFd;
    // Wasmtime takes open files of modules, but only names of components. This one name is granted
    // until `seal`.
    let path = format!("/proc/self/fd/{}", component.as_raw_fd());
    // SAFETY: the host passes only files that `ocelli-compile` wrote for it and that nothing else
    // can write to; a file of another engine version or configuration is refused by Wasmtime
    // itself.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Takes over the descriptors that the host has passed.
///
/// # Safety
///
/// To be called once, at the start of a process that the host started as a worker.
#[allow(unsafe_code)]
pub unsafe fn inherit() -> Inherited {
    use ocelli_protocol::process::inherited;
    // SAFETY: the host passes exactly these descriptors, and the caller calls this once, first of
    // all.
    unsafe {
        Inherited {
            host: inherited(descriptor::HOST),
            inference: inherited(descriptor::INFERENCE),
            tensors: inherited(descriptor::TENSORS),
            component: inherited(descriptor::COMPONENT),
            granted: inherited(descriptor::REDIS),
        }
    }
}
