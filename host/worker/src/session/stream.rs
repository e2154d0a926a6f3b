//! A stream's worker: it initialises the pipeline, then starts the two threads that turn access
//! units into results, and the one that ends them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::wire::{Reader, WireError};
use ocelli_protocol::worker::{FromWorker, Pacing, Start, ToWorker, WorkerStage};
use ocelli_sandbox::seal_threads;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::described::DescribedPipeline;
use super::failure::WorkerFailure;
use super::intake::{self, Intake, Queue};
use super::pipeline::PipelineTask;
use super::ring::FrameRing;
use super::shown::Showcase;
use crate::counters::SharedCounters;
use crate::host_link::HostLink;
use crate::video::Device;

/// Stack of the thread that waits for the host to hang up, in bytes: it makes one system call. The
/// 2 MiB that threads have by default would count against the process's private memory.
const STACK: usize = 64 << 10;

/// Serves the stream until the host closes the connection.
pub(super) fn serve(
    mut reader: Reader<UnixStream>,
    described: DescribedPipeline,
    start: Start,
    pacing: Pacing,
    host: &HostLink,
    counters: &Arc<SharedCounters>,
    (device, confinement): (Option<Device>, &Confinement),
) -> Result<(), WorkerFailure> {
    described.check_settings()?;
    let DescribedPipeline { factory, mut instance, fields, .. } = described;
    let ring = Arc::new(FrameRing::default());
    let settings = (start.settings, fields);
    let showcase = Showcase::start(host).map_err(WorkerFailure::at(WorkerStage::Setup))?;
    let kept = (Arc::clone(&ring), showcase.clone());
    let pipeline = PipelineTask::new(factory, settings, kept, !start.standby, host, counters)
        .annotating(start.annotate);
    match reader.read::<ToWorker>() {
        Ok((ToWorker::LoadStore, payload)) => {
            pipeline.load_store(intake::decode_store(payload)?)?
        }
        Ok((other, _)) => {
            let message = format!("the second message was not LoadStore but {other:?}");
            return Err(WorkerFailure::new(WorkerStage::Setup, message));
        }
        Err(WireError::Closed) => return Ok(()),
        Err(error) => return Err(WorkerFailure::at(WorkerStage::Setup)(error)),
    };
    pipeline.init(&mut instance)?;
    host.send(&FromWorker::Ready);

    let queue = Arc::new(Queue::new(pacing, Arc::clone(counters)));
    let host_socket =
        reader.get_ref().try_clone().map_err(WorkerFailure::at(WorkerStage::Setup))?;
    stop_at_hang_up(host_socket, Arc::clone(&queue))
        .map_err(WorkerFailure::at(WorkerStage::Setup))?;
    // Its driver has threads of its own, and starts some with the first picture.
    let has_driver = device.is_some();
    let rate = (start.decode, device, pacing);
    let kept = (ring, showcase);
    let intake = Intake::new(Arc::clone(&queue), kept, rate, start.standby, host, counters);
    let intake = std::thread::Builder::new()
        .name("intake".into())
        .spawn(move || intake.run(reader))
        .map_err(WorkerFailure::at(WorkerStage::Setup))?;
    if !has_driver {
        seal_threads(confinement).map_err(WorkerFailure::at(WorkerStage::Setup))?;
    }
    pipeline.run(&queue, instance).inspect_err(|_| queue.close())?;
    // The intake has closed the queue, and has reported its own error to the host.
    intake
        .join()
        .unwrap_or_else(|_| Err(WorkerFailure::new(WorkerStage::Decode, "the intake panicked")))
}

/// Closes the queue as soon as the host hangs up, so that the frame in process is the last: the
/// rest in the socket is of no use. The end of a file is different: a message behind all of its
/// frames.
fn stop_at_hang_up(host: UnixStream, queue: Arc<Queue>) -> std::io::Result<()> {
    let wait = move || {
        // Not for readable bytes, which would come first.
        let mut end = [PollFd::new(&host, PollFlags::RDHUP)];
        while poll(&mut end, None) == Err(Errno::INTR) {}
        queue.close();
    };
    std::thread::Builder::new().name("hang-up".into()).stack_size(STACK).spawn(wait).map(drop)
}
