//! A stream's worker: what it needs to be ready, the two threads that turn access units into
//! results, and the one that ends them.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use ocelli_protocol::wire::{Reader, WireError};
use ocelli_protocol::worker::{FromWorker, Pacing, Start, ToWorker, WorkerStage};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::intake::{self, Intake, Queue};
use super::pipeline::PipelineTask;
use super::ring::FrameRing;
use super::{Described, WorkerFailure, at, fault, settings_fault};
use crate::counters::SharedCounters;
use crate::host_link::HostLink;

/// Stack of the thread that waits for the host to hang up, in bytes: it makes one system call. The
/// 2 MiB that threads have by default would count against the process's private memory.
const STACK: usize = 64 << 10;

/// Serves the stream until the host closes the connection.
pub(super) fn serve(
    mut reader: Reader<UnixStream>,
    described: Described,
    start: Start,
    pacing: Pacing,
    host: &HostLink,
    tally: &Arc<SharedCounters>,
) -> Result<(), WorkerFailure> {
    let Described { factory, mut instance, schema, fields } = described;
    crate::settings::check(&schema, &fields).map_err(settings_fault)?;
    let ring = Arc::new(FrameRing::default());
    let settings = (start.settings, fields);
    let pipeline =
        PipelineTask::new(factory, settings, Arc::clone(&ring), !start.standby, host, tally);
    match reader.read::<ToWorker>() {
        Ok((ToWorker::LoadStore, payload)) => {
            pipeline.load_store(intake::decode_store(payload)?)?
        }
        Ok((other, _)) => {
            return Err(fault(
                WorkerStage::Setup,
                &format!("the second message was not Adopt but {other:?}"),
            ));
        }
        Err(WireError::Closed) => return Ok(()),
        Err(error) => return Err(at(WorkerStage::Setup)(error)),
    };
    pipeline.init(&mut instance)?;
    host.send(&FromWorker::Ready);

    let queue = Arc::new(Queue::new(pacing, Arc::clone(tally)));
    let host_socket = reader.get_ref().try_clone().map_err(at(WorkerStage::Setup))?;
    stop_at_hang_up(host_socket, Arc::clone(&queue)).map_err(at(WorkerStage::Setup))?;
    let intake =
        Intake::new(Arc::clone(&queue), ring, (start.decode, pacing), start.standby, host, tally);
    let taking_in = std::thread::Builder::new()
        .name("intake".into())
        .spawn(move || intake.run(reader))
        .map_err(at(WorkerStage::Setup))?;
    pipeline.run(&queue, instance).inspect_err(|_| queue.close())?;
    // The queue was closed by the intake, which has told the host of its own error.
    taking_in.join().unwrap_or_else(|_| Err(fault(WorkerStage::Decode, "the intake panicked")))
}

/// Closes the queue as soon as the host hangs up, so that the frame in hand is the last: what still
/// lies in the socket is for nobody. The end of a file is another thing, a message behind all of
/// its frames.
fn stop_at_hang_up(host: UnixStream, queue: Arc<Queue>) -> std::io::Result<()> {
    let wait = move || {
        // Not what there is to read, which would come first.
        let mut end = [PollFd::new(&host, PollFlags::RDHUP)];
        while poll(&mut end, None) == Err(Errno::INTR) {}
        queue.close();
    };
    std::thread::Builder::new().name("hang-up".into()).stack_size(STACK).spawn(wait).map(drop)
}
