//! The life of a worker: take over what was inherited, start the pipeline, then turn access units into results until the
//! host closes the connection.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ocelli_protocol::process::worker as descriptor;
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::wire::{Reader, WireError};
use ocelli_protocol::worker::{FromWorker, Level, Stage, Start, ToWorker};
use rustix::process::{Resource, Rlimit, setrlimit};
use wasmtime::component::Component;

use crate::arena::Arena;
use crate::engine;
use crate::guest::instance::{CallError, Instance};
use crate::guest::state::State;
use crate::host_link::HostLink;
use crate::inference::Client;
use crate::queue::{Work, WorkQueue};
use crate::video::{Frame, Stream};

/// How often at the most the log tells of damaged or undecodable pictures. Each is counted.
const FAULT_INTERVAL: Duration = Duration::from_secs(10);

/// What a worker inherits.
pub struct Inherited {
    /// Stream socket to the host.
    pub host: OwnedFd,
    /// Packet socket to the inference process.
    pub inference: OwnedFd,
    /// Shared memory for tensors.
    pub tensors: OwnedFd,
    /// The compiled component. It is mapped through its entry under `/proc/self/fd`, so it has to stay open until then.
    pub component: OwnedFd,
}

/// A failure that ends the worker, with the part of it that failed.
struct Fatal {
    stage: Stage,
    message: String,
}

/// Puts the stage to an error.
fn at<E: std::fmt::Debug>(stage: Stage) -> impl Fn(E) -> Fatal {
    move |error| Fatal { stage, message: format!("{error:?}") }
}

/// Serves one session until the host closes the connection. An error has been told to the host before it is returned.
pub fn run(inherited: Inherited) -> anyhow::Result<()> {
    let Inherited { host, inference, tensors, component } = inherited;
    let mut reader =
        Reader::new(UnixStream::from(host.try_clone().context("cloning the socket to the host")?));
    let host = HostLink::new(host);
    let start = match reader.read::<ToWorker>() {
        Ok((ToWorker::Start(start), _)) => start,
        Ok((other, _)) => anyhow::bail!("the first message was not Start but {other:?}"),
        Err(WireError::Closed) => return Ok(()),
        Err(error) => return Err(error).context("reading the first message"),
    };
    serve(reader, &host, inference, tensors, component, &start).map_err(|Fatal { stage, message }| {
        host.fail(stage, message.clone());
        anyhow::anyhow!("{stage:?}: {message}")
    })
}

fn serve(
    reader: Reader<UnixStream>,
    host: &HostLink,
    inference: OwnedFd,
    tensors: OwnedFd,
    component: OwnedFd,
    start: &Start,
) -> Result<(), Fatal> {
    // RLIMIT_AS would count the gigabytes of address space that Wasmtime reserves without using them.
    let limit = Some(start.memory_limit);
    setrlimit(Resource::Data, Rlimit { current: limit, maximum: limit }).map_err(at(Stage::Setup))?;
    let arena = Arena::new(SharedMemory::map(tensors).map_err(at(Stage::Setup))?);
    let client = Client::new(inference, Duration::from_millis(u64::from(start.inference_timeout_ms)));
    let settings = serde_json::from_str(&start.settings).map_err(at(Stage::Setup))?;
    let guest_memory = usize::try_from(start.guest_memory_limit).unwrap_or(usize::MAX);
    let state = State::new(host.clone(), arena, client, settings, guest_memory);

    let engine = engine::engine().map_err(at(Stage::Load))?;
    let component = load(&engine, component).map_err(at(Stage::Load))?;
    let cpu_limit = Duration::from_millis(u64::from(start.call_cpu_limit_ms));
    let mut instance =
        Instance::new(&engine, &component, state, cpu_limit).map_err(at(Stage::Instantiate))?;
    let description = instance.describe().map_err(told(Stage::Init))?;
    host.send(&FromWorker::Described(description));
    instance.init(&start.settings).map_err(told(Stage::Init))?;
    host.send(&FromWorker::Ready);

    let queue = Arc::new(WorkQueue::new(start.pacing));
    let intake = std::thread::Builder::new().name("intake".into()).spawn({
        let (queue, host, stream) = (Arc::clone(&queue), host.clone(), Stream::new(start.decode));
        move || {
            let taken = take_in(reader, &queue, stream, &host);
            queue.close();
            taken.inspect_err(|error| host.fail(error.stage, error.message.clone()))
        }
    });
    let intake = intake.map_err(at(Stage::Setup))?;
    process(&queue, &mut instance, host).inspect_err(|_| queue.close())?;
    // The queue was closed by the intake, which has told the host of its own error.
    intake
        .join()
        .unwrap_or_else(|_| Err(Fatal { stage: Stage::Decode, message: "the intake panicked".into() }))
}

/// Puts the stage to a component's error.
fn told(stage: Stage) -> impl Fn(CallError) -> Fatal {
    move |error| Fatal { stage, message: error.to_string() }
}

#[allow(unsafe_code)]
fn load(engine: &wasmtime::Engine, component: OwnedFd) -> wasmtime::Result<Component> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", component.as_raw_fd());
    // SAFETY: the host passes only files that `ocelli-compile` wrote for it and that nothing else can write to; a file of
    // another engine version or configuration is refused by Wasmtime itself.
    unsafe { Component::deserialize_file(engine, path) }
}

/// Reads the host's messages, decodes access units, and queues what there is to do until the host closes.
fn take_in(
    mut reader: Reader<UnixStream>,
    queue: &WorkQueue<Frame>,
    mut stream: Stream,
    host: &HostLink,
) -> Result<(), Fatal> {
    let mut told: Option<Instant> = None;
    loop {
        let (message, payload) = match reader.read::<ToWorker>() {
            Ok(read) => read,
            Err(WireError::Closed) => return Ok(()),
            Err(error) => return Err(at(Stage::Setup)(error)),
        };
        match message {
            ToWorker::Unit(header) => {
                let decoded = stream.push(&header, payload, &mut |frame| queue.push(Work::Frame(frame)));
                queue.count(|counters| stream.count_into(counters));
                decoded.map_err(at(Stage::Decode))?;
                if let Some(fault) =
                    stream.take_fault().filter(|_| told.is_none_or(|told| told.elapsed() >= FAULT_INTERVAL))
                {
                    told = Some(Instant::now());
                    host.log(Level::Warn, "decoder", &fault, None);
                }
            }
            ToWorker::End => {
                stream.drain(&mut |frame| queue.push(Work::Frame(frame)));
                queue.count(|counters| stream.count_into(counters));
                queue.push(Work::End);
            }
            ToWorker::Command { id, request } => queue.push(Work::Command { id, request }),
            ToWorker::Snapshot => queue.push(Work::Snapshot),
            ToWorker::Restore { version } => queue.push(Work::Restore { version, state: payload.to_vec() }),
            ToWorker::Start(_) => {
                return Err(Fatal { stage: Stage::Setup, message: "a second Start".into() });
            }
        }
    }
}

/// Does what is queued, until the queue is closed or the pipeline is lost.
fn process(queue: &WorkQueue<Frame>, instance: &mut Instance, host: &HostLink) -> Result<(), Fatal> {
    while let Some(work) = queue.next() {
        match work {
            Work::Frame(frame) => {
                let number = frame.number;
                let processed = instance.process(frame);
                let counters = queue.count(|counters| {
                    counters.processed += 1;
                    counters.inferred = instance.inferences();
                });
                match processed {
                    Ok(result) => host.send(&FromWorker::Result { result, counters }),
                    Err(CallError::Refused(message)) => {
                        host.send(&FromWorker::FrameFailed { frame: number, message, counters });
                    }
                    Err(trap) => return Err(told(Stage::Process)(trap)),
                }
            }
            Work::Command { id, request } => {
                let answer = match instance.command(&request) {
                    Ok(answer) => Ok(answer),
                    Err(CallError::Refused(message)) => Err(message),
                    Err(trap) => return Err(told(Stage::Command)(trap)),
                };
                host.send(&FromWorker::CommandAnswer { id, answer });
            }
            Work::Snapshot => {
                let state = instance.snapshot().map_err(told(Stage::Snapshot))?;
                host.send_with(&FromWorker::Snapshot, &state);
            }
            Work::Restore { version, state } => {
                let restored = match instance.restore(&version, &state) {
                    Ok(()) => Ok(()),
                    Err(CallError::Refused(message)) => Err(message),
                    Err(trap) => return Err(told(Stage::Restore)(trap)),
                };
                host.send(&FromWorker::Restored(restored));
            }
            Work::End => host.send(&FromWorker::Finished { counters: queue.count(|_| ()) }),
        }
    }
    Ok(())
}

/// Takes over the descriptors that the host has passed.
///
/// # Safety
///
/// To be called once, at the start of a process that the host started as a worker.
#[allow(unsafe_code)]
pub unsafe fn inherit() -> Inherited {
    use ocelli_protocol::process::inherited;
    // SAFETY: the host passes exactly these descriptors, and the caller calls this once, first of all.
    unsafe {
        Inherited {
            host: inherited(descriptor::HOST),
            inference: inherited(descriptor::INFERENCE),
            tensors: inherited(descriptor::TENSORS),
            component: inherited(descriptor::COMPONENT),
        }
    }
}
