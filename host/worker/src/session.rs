//! The life of a worker: take over what was inherited, start the pipeline, then turn access units into results until the
//! host closes the connection. What single pictures have of their own stands in `analyze`.

mod analyze;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::process::worker as descriptor;
use ocelli_protocol::shm::SharedMemory;
use ocelli_protocol::wire::{Reader, WireError};
use ocelli_protocol::worker::{Decode, FromWorker, Level, Mode, Pacing, Stage, Start, ToWorker};
use ocelli_sandbox::{limit, seal};
use wasmtime::component::Component;

use crate::arena::Arena;
use crate::engine;
use crate::guest::instance::{CallError, Factory, Instance};
use crate::guest::state::Surroundings;
use crate::heartbeat::Heartbeat;
use crate::host_link::HostLink;
use crate::queue::{Work, WorkQueue};
use crate::tally::Tally;
use crate::video::{Frame, Stream};
use analyze::Analyst;

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
    limit: Option<Limit>,
    message: String,
}

impl Fatal {
    fn tell(&self, host: &HostLink, tally: &Tally) {
        host.fail(self.stage, self.limit, tally.counters(), &self.message);
    }
}

/// Puts the stage to an error.
fn at<E: std::fmt::Debug>(stage: Stage) -> impl Fn(E) -> Fatal {
    move |error| Fatal { stage, limit: None, message: format!("{error:?}") }
}

/// Serves one session until the host closes the connection. An error has been told to the host before it is returned.
/// `confinement` is what the process has found to be in force.
pub fn run(inherited: Inherited, confinement: Confinement) -> anyhow::Result<()> {
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
    host.send(&FromWorker::Confined(confinement.clone()));
    let tally = Arc::new(Tally::default());
    let interval = Duration::from_millis(u64::from(start.heartbeat_ms));
    let served = Heartbeat::start(host.clone(), Arc::clone(&tally), interval)
        .map_err(at(Stage::Setup))
        .and_then(|_beats_until_the_end| {
            let (factory, mut instance) =
                prepare(&host, &tally, inference, tensors, component, &start, &confinement)?;
            match start.mode {
                Mode::Stream(pacing) => {
                    instance.init(&start.settings).map_err(told(Stage::Init))?;
                    host.send(&FromWorker::Ready);
                    serve(reader, &host, &tally, start.decode, pacing, instance)
                }
                Mode::Analyze => {
                    let analyst = Analyst::new(factory, instance, &start, &host, &tally)?;
                    host.send(&FromWorker::Ready);
                    analyst.serve(reader)
                }
            }
        });
    served.map_err(|fatal| {
        fatal.tell(&host, &tally);
        anyhow::anyhow!("{:?}: {}", fatal.stage, fatal.message)
    })
}

/// Limits the process, closes its last door, and gets the pipeline to where it can be initialised. Gives the first instance, and
/// what makes others.
fn prepare(
    host: &HostLink,
    tally: &Arc<Tally>,
    inference: OwnedFd,
    tensors: OwnedFd,
    component: OwnedFd,
    start: &Start,
    confinement: &Confinement,
) -> Result<(Factory, Instance), Fatal> {
    limit::memory(start.limits.memory).map_err(at(Stage::Setup))?;
    limit::open_files(start.limits.open_files).map_err(at(Stage::Setup))?;
    let arena = Arena::new(SharedMemory::map(tensors).map_err(at(Stage::Setup))?);
    let settings = serde_json::from_str(&start.settings).map_err(at(Stage::Setup))?;
    let surroundings = Surroundings::new(host.clone(), arena, inference, start.limits, Arc::clone(tally));

    let engine = engine::engine().map_err(at(Stage::Load))?;
    let component = load(&engine, component).map_err(at(Stage::Load))?;
    seal(confinement).map_err(at(Stage::Setup))?;
    let factory = Factory::new(&engine, &component, surroundings).map_err(told(Stage::Instantiate))?;
    let mut instance = factory.instance(settings).map_err(told(Stage::Instantiate))?;
    let description = instance.describe().map_err(told(Stage::Init))?;
    host.send(&FromWorker::Described(description));
    Ok((factory, instance))
}

/// Turns access units into results until the host closes the connection.
fn serve(
    reader: Reader<UnixStream>,
    host: &HostLink,
    tally: &Arc<Tally>,
    decode: Decode,
    pacing: Pacing,
    mut instance: Instance,
) -> Result<(), Fatal> {
    let queue = Arc::new(WorkQueue::new(pacing, Arc::clone(tally)));
    let intake = std::thread::Builder::new().name("intake".into()).spawn({
        let (queue, host, tally) = (Arc::clone(&queue), host.clone(), Arc::clone(tally));
        let stream = Stream::new(decode);
        move || {
            let taken = take_in(reader, &queue, stream, &host, &tally);
            queue.close();
            taken.inspect_err(|fatal| fatal.tell(&host, &tally))
        }
    });
    let intake = intake.map_err(at(Stage::Setup))?;
    process(&queue, &mut instance, host, tally).inspect_err(|_| queue.close())?;
    // The queue was closed by the intake, which has told the host of its own error.
    intake.join().unwrap_or_else(|_| Err(fault(Stage::Decode, "the intake panicked")))
}

/// Puts the stage to a component's error.
fn told(stage: Stage) -> impl Fn(CallError) -> Fatal {
    move |error| match error {
        CallError::Refused(message) => Fatal { stage, limit: None, message },
        CallError::Trap { limit, message } => Fatal { stage, limit, message },
    }
}

fn fault(stage: Stage, message: &str) -> Fatal {
    Fatal { stage, limit: None, message: message.to_owned() }
}

#[allow(unsafe_code)]
fn load(engine: &wasmtime::Engine, component: OwnedFd) -> wasmtime::Result<Component> {
    use std::os::fd::AsRawFd;
    // Wasmtime takes open files of modules, but only names of components. This one name is granted until `seal`.
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
    tally: &Tally,
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
                tally.count(|counters| stream.count_into(counters));
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
                tally.count(|counters| stream.count_into(counters));
                queue.push(Work::End);
            }
            ToWorker::Command { id, request } => queue.push(Work::Command { id, request }),
            ToWorker::Snapshot => queue.push(Work::Snapshot),
            ToWorker::Restore { version } => queue.push(Work::Restore { version, state: payload.to_vec() }),
            ToWorker::Start(_)
            | ToWorker::Adopt
            | ToWorker::Mark { .. }
            | ToWorker::Rehearse { .. }
            | ToWorker::Renew
            | ToWorker::Speak { .. } => return Err(fault(Stage::Setup, "out of turn")),
            ToWorker::Analyze { .. } => return Err(fault(Stage::Setup, "a picture for a stream's worker")),
        }
    }
}

/// Does what is queued, until the queue is closed or the pipeline is lost.
fn process(
    queue: &WorkQueue<Frame>,
    instance: &mut Instance,
    host: &HostLink,
    tally: &Tally,
) -> Result<(), Fatal> {
    while let Some(work) = queue.next() {
        match work {
            Work::Frame(frame) => {
                let number = frame.number;
                let processed = instance.process(frame);
                let counters = tally.count(|counters| counters.processed += 1);
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
                host.send_with(&FromWorker::Snapshot { through: None }, &state);
            }
            Work::Restore { version, state } => {
                let restored = match instance.restore(&version, &state) {
                    Ok(()) => Ok(()),
                    Err(CallError::Refused(message)) => Err(message),
                    Err(trap) => return Err(told(Stage::Restore)(trap)),
                };
                host.send(&FromWorker::Restored(restored));
            }
            Work::End => host.send(&FromWorker::Finished { counters: tally.counters() }),
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
