//! The life of a worker: it takes over what the host has passed and starts the pipeline. Then
//! `stream` serves, with the threads `intake` and `pipeline`, or `analyze`.

mod analyze;
mod annotate;
mod described;
mod failure;
mod intake;
mod pipeline;
mod ring;
mod shown;
mod still;
mod stream;
#[cfg(test)]
mod stream_tests;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::decode_device::DeviceFault;
use ocelli_protocol::model::ModelDescriptions;
use ocelli_protocol::process::{GrantedDirectory, worker as descriptor};
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::wire::{self, Reader, WireError};
use ocelli_protocol::worker::{FromWorker, Start, ToWorker, WorkerMode, WorkerStage};
use ocelli_sandbox::{limit, seal, seal_threads};
use serde_json::{Map, Value};
use wasmtime::component::Component;

use crate::arena::Arena;
use crate::counters::SharedCounters;
use crate::directories::Directories;
use crate::engine;
use crate::guest::instance::InstanceFactory;
use crate::guest::limits::MAX_MEMORIES;
use crate::guest::state::HostServices;
use crate::heartbeat::Heartbeat;
use crate::host_link::HostLink;
use crate::redis_bridge::RedisBucket;
use crate::video::Device;
use analyze::ImageWorker;
use described::DescribedPipeline;
use failure::WorkerFailure;
pub use still::write_still;

/// The descriptors that a worker inherits.
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
    pub redis: OwnedFd,
    /// The folders that the session was granted.
    pub directories: Directories,
    /// What decodes in the processor's place, if the session was given it.
    pub device: Result<Option<Device>, DeviceFault>,
}

/// Serves one session until the host closes the connection. An error has been sent to the host
/// before it is returned. `confinement` is what the process has found to be in force.
pub fn run(inherited: Inherited, confinement: Confinement) -> anyhow::Result<()> {
    let Inherited { host, inference, tensors, component, redis, directories, device } = inherited;
    let mut reader =
        Reader::new(UnixStream::from(host.try_clone().context("cloning the socket to the host")?));
    let host = HostLink::new(host);
    let (start, models) = match reader.read::<ToWorker>() {
        Ok((ToWorker::Start(start), models)) => (start, described_models(models)?),
        Ok((other, _)) => anyhow::bail!("the first message was not Start but {other:?}"),
        Err(WireError::Closed) => return Ok(()),
        Err(error) => return Err(error).context("reading the first message"),
    };
    host.send(&FromWorker::SandboxReport(confinement.clone()));
    let counters = Arc::new(SharedCounters::default());
    let interval = Duration::from_millis(u64::from(start.heartbeat_ms));
    let served = Heartbeat::start(host.clone(), Arc::clone(&counters), interval)
        .map_err(WorkerFailure::at(WorkerStage::Setup))
        .and_then(|_beats_until_the_end| {
            let redis = RedisBucket::new(
                start.redis_granted.then_some(redis),
                &start.limits,
                !start.standby,
            );
            let device = device.map_err(WorkerFailure::of_device)?;
            // Beside a device's driver files are not confined, and not at the next start either.
            let stage = if device.is_some() { WorkerStage::Device } else { WorkerStage::Setup };
            let unsafe_here = |error: std::io::Error| WorkerFailure::new(stage, error.to_string());
            directories.secure(&confinement).map_err(unsafe_here)?;
            let maps_freely = device.as_ref().is_some_and(Device::maps_freely);
            let shared = (inference, tensors, redis);
            let services = host_services(&host, &counters, shared, &start, maps_freely)?
                .with_directories(directories)
                .with_models(models);
            let described = prepare(&host, services, component, &start, &confinement)?;
            match start.mode {
                WorkerMode::Stream(pacing) => {
                    let decoding = (device, &confinement);
                    stream::serve(reader, described, start, pacing, &host, &counters, decoding)
                }
                WorkerMode::Describe => {
                    described.check_settings()?;
                    host.send(&FromWorker::Ready);
                    Ok(())
                }
                WorkerMode::Analyze => {
                    let worker = ImageWorker::new(described, &start, &host, &counters)?;
                    seal_threads(&confinement).map_err(WorkerFailure::at(WorkerStage::Setup))?;
                    host.send(&FromWorker::Ready);
                    worker.serve(reader)
                }
            }
        });
    served.map_err(|failure| {
        failure.report(&host, &counters);
        anyhow::anyhow!("{:?}: {}", failure.stage, failure.message)
    })
}

/// What the payload of [`ToWorker::Start`] tells of the host's models. Without one there are none.
fn described_models(payload: &[u8]) -> anyhow::Result<ModelDescriptions> {
    if payload.is_empty() {
        return Ok(ModelDescriptions::new());
    }
    wire::decode(payload).context("reading the models' descriptions")
}

/// Addresses that Wasmtime reserves for a linear memory: 4 GiB, and guards around them.
const MEMORY_ADDRESSES: u64 = (4 << 30) + (128 << 20);

/// Addresses of everything else, in bytes: the program and its libraries, a component's code,
/// tensors, stacks, and what an allocator reserves for each thread.
const OTHER_ADDRESSES: u64 = 3 << 30;

/// The addresses of a worker with so much private memory, in bytes. Growth of a linear memory is
/// tried out beside it. Their page tables take a 512th: 77 MiB with 2 GiB of private memory.
fn addresses(memory: u64) -> u64 {
    (MAX_MEMORIES as u64 * MEMORY_ADDRESSES + OTHER_ADDRESSES)
        .saturating_add(memory.saturating_mul(2))
}

/// Limits the process, and sets up the services of its instances.
fn host_services(
    host: &HostLink,
    counters: &Arc<SharedCounters>,
    (inference, tensors, redis): (OwnedFd, OwnedFd, RedisBucket),
    start: &Start,
    maps_freely: bool,
) -> Result<HostServices, WorkerFailure> {
    limit::memory(start.limits.memory).map_err(WorkerFailure::at(WorkerStage::Setup))?;
    if !maps_freely {
        limit::address_space(addresses(start.limits.memory))
            .map_err(WorkerFailure::at(WorkerStage::Setup))?;
    }
    limit::open_files(start.limits.open_files).map_err(WorkerFailure::at(WorkerStage::Setup))?;
    let tensors = SharedMemory::map(tensors).map_err(WorkerFailure::at(WorkerStage::Setup))?;
    let arena = Arena::new(tensors);
    Ok(HostServices::new(host.clone(), arena, inference, redis, start.limits, Arc::clone(counters)))
}

/// Loads the component, completes the confinement, and gets the pipeline to where it can be
/// initialised.
fn prepare(
    host: &HostLink,
    services: HostServices,
    component: OwnedFd,
    start: &Start,
    confinement: &Confinement,
) -> Result<DescribedPipeline, WorkerFailure> {
    let fields: Map<String, Value> =
        serde_json::from_str(&start.settings).map_err(WorkerFailure::at(WorkerStage::Setup))?;
    let engine = engine::engine().map_err(WorkerFailure::at(WorkerStage::Load))?;
    let component = load(&engine, component).map_err(WorkerFailure::at(WorkerStage::Load))?;
    seal(confinement, !services.directories().is_empty())
        .map_err(WorkerFailure::at(WorkerStage::Setup))?;
    let factory = InstanceFactory::new(&engine, &component, services)
        .map_err(WorkerFailure::of_call(WorkerStage::Instantiate))?;
    DescribedPipeline::new(factory, fields, host)
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

/// Takes over the descriptors that the host has passed, those of `folders` last.
///
/// # Safety
///
/// To be called once, at the start of a process that the host started as a worker.
#[allow(unsafe_code)]
pub unsafe fn inherit(folders: Vec<GrantedDirectory>) -> Inherited {
    use ocelli_protocol::process::inherited;
    // SAFETY: the host passes exactly these descriptors, and the caller calls this once, first of
    // all.
    unsafe {
        Inherited {
            host: inherited(descriptor::HOST),
            inference: inherited(descriptor::INFERENCE),
            tensors: inherited(descriptor::TENSORS),
            component: inherited(descriptor::COMPONENT),
            redis: inherited(descriptor::REDIS),
            directories: Directories::new(
                (descriptor::DIRECTORIES..)
                    .zip(folders)
                    .map(|(number, folder)| (folder, inherited(number))),
            ),
            device: Ok(None),
        }
    }
}
