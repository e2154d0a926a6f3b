//! The intake thread of a stream's worker: reads the host's messages, decodes access units, and
//! queues the work.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::wire::{self, Reader, WireError};
use ocelli_protocol::worker::{
    Counters, Decode, FromWorker, LogLevel, Pacing, StoreContents, ToWorker, WorkerStage,
};

use super::failure::WorkerFailure;
use super::ring::FrameRing;
use super::shown::{PictureRequest, Showcase};
use crate::counters::SharedCounters;
use crate::host_link::HostLink;
use crate::queue::{Work, WorkQueue};
use crate::video::{Device, Frame, Stream};

/// The shortest time between two log lines about damaged or undecodable pictures. Each picture is
/// counted.
const FAULT_INTERVAL: Duration = Duration::from_secs(10);

/// The work of the pipeline thread. Frames are shared with the ring while the worker stands by.
pub(super) type Queue = WorkQueue<Arc<Frame>>;

/// See the module's documentation.
pub(super) struct Intake {
    stream: Stream,
    sink: FrameSink,
    pacing: Pacing,
    host: HostLink,
    counters: Arc<SharedCounters>,
    /// On standby: the source has ended, which is answered when all frames are processed.
    ended: bool,
    /// When the log last got a line about a damaged picture.
    last_fault_log: Option<Instant>,
    /// The source has nothing but damaged pictures, and the counters say so.
    is_damaged: bool,
}

impl Intake {
    /// The intake of a worker that is active from the start, or that stands by and keeps frames in
    /// the ring.
    pub(super) fn new(
        queue: Arc<Queue>,
        (ring, showcase): (Arc<FrameRing>, Showcase),
        (decode, device, pacing): (Decode, Option<Device>, Pacing),
        standby: bool,
        host: &HostLink,
        counters: &Arc<SharedCounters>,
    ) -> Self {
        let target =
            if standby { FrameTarget::Ring(ring) } else { FrameTarget::Pipeline { after: None } };
        Self {
            stream: Stream::new(decode).on(device),
            sink: FrameSink {
                queue,
                counters: Arc::clone(counters),
                target,
                showcase,
                first: None,
                newest: None,
            },
            pacing,
            host: host.clone(),
            counters: Arc::clone(counters),
            ended: false,
            last_fault_log: None,
            is_damaged: false,
        }
    }

    /// Serves the host until it closes the connection, then closes the queue. An error has been
    /// reported to the host.
    pub(super) fn run(mut self, mut reader: Reader<UnixStream>) -> Result<(), WorkerFailure> {
        let done = self.serve(&mut reader);
        self.sink.queue.close();
        done.inspect_err(|failure| failure.report(&self.host, &self.counters))
    }

    fn serve(&mut self, reader: &mut Reader<UnixStream>) -> Result<(), WorkerFailure> {
        // The queue is closed when the host has hung up: the rest is of no use.
        while !self.sink.queue.is_closed() {
            match reader.read::<ToWorker>() {
                Ok((message, payload)) => self.take(message, payload)?,
                Err(WireError::Closed) => return Ok(()),
                Err(error) => return Err(WorkerFailure::at(WorkerStage::Setup)(error)),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: ToWorker, payload: &[u8]) -> Result<(), WorkerFailure> {
        let on_standby = matches!(self.sink.target, FrameTarget::Ring(_));
        let work = match message {
            ToWorker::Unit(header) => {
                self.ended = false;
                self.count_unit();
                let decoded =
                    self.stream.push(&header, payload, &mut |frame| self.sink.push(frame));
                self.publish_counts(false);
                decoded.map_err(WorkerFailure::of_decoder)?;
                self.log_fault();
                return Ok(());
            }
            ToWorker::Picture(header) => {
                self.ended = false;
                self.count_unit();
                self.stream.push_still(&header, payload, &mut |frame| self.sink.push(frame));
                self.publish_counts(false);
                self.log_fault();
                return Ok(());
            }
            ToWorker::Barrier { id } => {
                let FrameSink { first, newest, .. } = self.sink;
                self.host.send(&FromWorker::BarrierReached { id, first, newest });
                return Ok(());
            }
            ToWorker::EncodePicture { id, wish, known } => {
                self.sink.showcase.request(PictureRequest { id, wish, known });
                return Ok(());
            }
            ToWorker::EndOfStream => {
                self.stream.drain(&mut |frame| self.sink.push(frame));
                self.publish_counts(true);
                if on_standby {
                    self.ended = true;
                    return Ok(());
                }
                Work::EndOfStream
            }
            ToWorker::Activate { after } if on_standby => {
                self.activate(after);
                return Ok(());
            }
            ToWorker::LoadStore if on_standby => Work::LoadStore(decode_store(payload)?),
            ToWorker::DryRun { frame } if on_standby => Work::DryRun { frame },
            ToWorker::Reinstantiate if on_standby => Work::Reinstantiate,
            ToWorker::Ask { id, kind, request } => Work::Ask { id, kind, request },
            ToWorker::Snapshot => Work::Snapshot,
            ToWorker::Restore { version } => Work::Restore { version, state: payload.to_vec() },
            unexpected => return Err(out_of_turn(&unexpected)),
        };
        self.sink.queue.push(work);
        Ok(())
    }

    /// Frames after this one are processed and their results sent from now on, the kept ones first.
    fn activate(&mut self, after: Option<u64>) {
        // Earlier work is done first, so that the new counters have none of it.
        if !self.sink.queue.wait_idle() {
            return;
        }
        let target = std::mem::replace(&mut self.sink.target, FrameTarget::Pipeline { after });
        let FrameTarget::Ring(ring) = target else { return };
        let mut frames = ring.take_after(after);
        let decoded = frames.len() as u64;
        if self.pacing == Pacing::NewestWins {
            frames.drain(..frames.len().saturating_sub(1));
        }
        let skipped_newer = decoded - frames.len() as u64;
        self.stream.restart_counting();
        self.host.send_atomically(|| {
            self.counters.update(|counters| {
                *counters = Counters { decoded, skipped_newer, ..Counters::default() }
            });
            FromWorker::Active
        });
        let queue = &self.sink.queue;
        queue.push(Work::Activate { after });
        frames.into_iter().for_each(|frame| queue.push(Work::Frame(frame)));
        if std::mem::take(&mut self.ended) {
            queue.push(Work::EndOfStream);
        }
    }

    /// Counts a unit before its pictures are: whoever looks in between sees no more pictures than
    /// units.
    fn count_unit(&self) {
        self.counters.update(|counters| counters.received += 1);
    }

    fn publish_counts(&mut self, ended: bool) {
        self.counters.update(|counters| self.stream.count_into(counters));
        let damage = self.stream.damage(ended);
        if damage.is_some() != self.is_damaged {
            self.is_damaged = damage.is_some();
            self.counters.set_damage(damage);
        }
    }

    fn log_fault(&mut self) {
        let due = |logged: &Instant| logged.elapsed() >= FAULT_INTERVAL;
        let fault =
            self.stream.take_fault().filter(|_| self.last_fault_log.as_ref().is_none_or(due));
        if let Some(fault) = fault {
            self.last_fault_log = Some(Instant::now());
            self.host.log(LogLevel::Warn, "decoder", &fault, None);
        }
    }
}

/// The failure that a message is which this worker cannot take now.
fn out_of_turn(message: &ToWorker) -> WorkerFailure {
    let text = match message {
        ToWorker::Analyze { .. } => "a picture for a stream's worker",
        ToWorker::DryRun { .. } | ToWorker::Reinstantiate | ToWorker::Activate { .. } => {
            "a message for a worker on standby, to an active one"
        }
        _ => "a second start",
    };
    WorkerFailure::new(WorkerStage::Setup, text)
}

/// Decodes the payload of [`ToWorker::LoadStore`].
pub(super) fn decode_store(payload: &[u8]) -> Result<StoreContents, WorkerFailure> {
    let failure =
        |error| WorkerFailure::new(WorkerStage::Setup, format!("the session's store: {error}"));
    wire::decode(payload).map_err(failure)
}

/// Passes decoded frames on.
struct FrameSink {
    queue: Arc<Queue>,
    counters: Arc<SharedCounters>,
    target: FrameTarget,
    showcase: Showcase,
    /// Number of the first frame.
    first: Option<u64>,
    /// Number of the newest frame.
    newest: Option<u64>,
}

enum FrameTarget {
    /// Standby: frames are kept, not counted.
    Ring(Arc<FrameRing>),
    /// Frames are processed, but for those up to `after`, which another worker has processed.
    Pipeline { after: Option<u64> },
}

impl FrameSink {
    fn push(&mut self, frame: Frame) {
        let number = frame.number;
        self.first.get_or_insert(number);
        self.newest = Some(number);
        match &self.target {
            FrameTarget::Ring(ring) => ring.push(Arc::new(frame)),
            FrameTarget::Pipeline { after } => {
                let already_processed = after.is_some_and(|after| number <= after);
                // Counted before anyone can count its outcome.
                self.counters.update(|counters| {
                    counters.decoded += 1;
                    counters.already_processed += u64::from(already_processed);
                });
                let frame = Arc::new(frame);
                self.showcase.decoded(&frame);
                if !already_processed {
                    self.queue.push(Work::Frame(frame));
                }
            }
        }
    }
}
