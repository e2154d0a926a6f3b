//! The intake thread of a stream's worker: reads the host's messages, decodes access units, and
//! queues what there is to do.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::wire::{self, Reader, WireError};
use ocelli_protocol::worker::{
    Counters, Decode, FromWorker, LogLevel, Pacing, StoreContents, ToWorker, WorkerStage,
};

use super::ring::FrameRing;
use super::{WorkerFailure, at, fault};
use crate::counters::SharedCounters;
use crate::host_link::HostLink;
use crate::queue::{Work, WorkQueue};
use crate::video::{Frame, Stream};

/// How often at the most the log tells of damaged or undecodable pictures. Each is counted.
const FAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Work on frames that are kept, too, while the worker stands by.
pub(super) type Queue = WorkQueue<Arc<Frame>>;

/// See the module's documentation.
pub(super) struct Intake {
    stream: Stream,
    outlet: FrameSink,
    pacing: Pacing,
    host: HostLink,
    tally: Arc<SharedCounters>,
    /// On standby: the source has ended, which is answered when all frames are processed.
    ended: bool,
    /// When the log was last told of a damaged picture.
    last_fault_log: Option<Instant>,
}

impl Intake {
    /// Of a worker that stands by, and keeps frames in the ring, or one that speaks from the start.
    pub(super) fn new(
        queue: Arc<Queue>,
        ring: Arc<FrameRing>,
        (decode, pacing): (Decode, Pacing),
        standby: bool,
        host: &HostLink,
        tally: &Arc<SharedCounters>,
    ) -> Self {
        let to =
            if standby { FrameTarget::Ring(ring) } else { FrameTarget::Pipeline { after: None } };
        Self {
            stream: Stream::new(decode),
            outlet: FrameSink { queue, tally: Arc::clone(tally), to, first: None, newest: None },
            pacing,
            host: host.clone(),
            tally: Arc::clone(tally),
            ended: false,
            last_fault_log: None,
        }
    }

    /// Serves the host until it closes the connection. Closes the queue then; an error has been
    /// told.
    pub(super) fn run(mut self, mut reader: Reader<UnixStream>) -> Result<(), WorkerFailure> {
        let done = self.serve(&mut reader);
        self.outlet.queue.close();
        done.inspect_err(|fatal| fatal.report(&self.host, &self.tally))
    }

    fn serve(&mut self, reader: &mut Reader<UnixStream>) -> Result<(), WorkerFailure> {
        // Closed by whoever noticed that the host has hung up: the rest is not decoded for nobody.
        while !self.outlet.queue.is_closed() {
            match reader.read::<ToWorker>() {
                Ok((message, payload)) => self.take(message, payload)?,
                Err(WireError::Closed) => return Ok(()),
                Err(error) => return Err(at(WorkerStage::Setup)(error)),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: ToWorker, payload: &[u8]) -> Result<(), WorkerFailure> {
        let on_standby = matches!(self.outlet.to, FrameTarget::Ring(_));
        let work = match message {
            ToWorker::Unit(header) => {
                self.ended = false;
                let decoded =
                    self.stream.push(&header, payload, &mut |frame| self.outlet.give(frame));
                self.tally.update(|counters| self.stream.count_into(counters));
                decoded.map_err(at(WorkerStage::Decode))?;
                self.log_fault();
                return Ok(());
            }
            ToWorker::Barrier { id } => {
                let FrameSink { first, newest, .. } = self.outlet;
                self.host.send(&FromWorker::BarrierReached { id, first, newest });
                return Ok(());
            }
            ToWorker::EndOfStream => {
                self.stream.drain(&mut |frame| self.outlet.give(frame));
                self.tally.update(|counters| self.stream.count_into(counters));
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
            ToWorker::Command { id, request } => Work::Command { id, request },
            ToWorker::Snapshot => Work::Snapshot,
            ToWorker::Restore { version } => Work::Restore { version, state: payload.to_vec() },
            ToWorker::Analyze { .. } => {
                return Err(fault(WorkerStage::Setup, "a picture for a stream's worker"));
            }
            ToWorker::Start(_) | ToWorker::LoadStore => {
                return Err(fault(WorkerStage::Setup, "a second start"));
            }
            ToWorker::DryRun { .. } | ToWorker::Reinstantiate | ToWorker::Activate { .. } => {
                return Err(fault(
                    WorkerStage::Setup,
                    "a message for a worker on standby, to one that speaks",
                ));
            }
        };
        self.outlet.queue.push(work);
        Ok(())
    }

    /// From now on frames after this one are heard, those first that are kept.
    fn activate(&mut self, after: Option<u64>) {
        // What was asked before is answered, so that nothing counts any more for what was on
        // standby.
        if !self.outlet.queue.wait_idle() {
            return;
        }
        let FrameTarget::Ring(ring) =
            std::mem::replace(&mut self.outlet.to, FrameTarget::Pipeline { after })
        else {
            return;
        };
        let mut frames = ring.take_after(after);
        let decoded = frames.len() as u64;
        if self.pacing == Pacing::NewestWins {
            frames.drain(..frames.len().saturating_sub(1));
        }
        let skipped_newer = decoded - frames.len() as u64;
        self.stream.restart_counting();
        self.host.send_atomically(|| {
            self.tally.update(|counters| {
                *counters = Counters { decoded, skipped_newer, ..Counters::default() }
            });
            FromWorker::Active
        });
        let queue = &self.outlet.queue;
        queue.push(Work::Activate { after });
        frames.into_iter().for_each(|frame| queue.push(Work::Frame(frame)));
        if std::mem::take(&mut self.ended) {
            queue.push(Work::EndOfStream);
        }
    }

    fn log_fault(&mut self) {
        let due = |told: &Instant| told.elapsed() >= FAULT_INTERVAL;
        if let Some(fault) =
            self.stream.take_fault().filter(|_| self.last_fault_log.as_ref().is_none_or(due))
        {
            self.last_fault_log = Some(Instant::now());
            self.host.log(LogLevel::Warn, "decoder", &fault, None);
        }
    }
}

/// What the payload of [`InferenceResponse::LoadStore`] holds.
pub(super) fn decode_store(payload: &[u8]) -> Result<StoreContents, WorkerFailure> {
    wire::decode(payload)
        .map_err(|error| fault(WorkerStage::Setup, &format!("the session's store: {error}")))
}

/// Where decoded frames go.
struct FrameSink {
    queue: Arc<Queue>,
    tally: Arc<SharedCounters>,
    to: FrameTarget,
    /// Number of the first frame that came.
    first: Option<u64>,
    /// Number of the newest.
    newest: Option<u64>,
}

enum FrameTarget {
    /// Standby: nothing waits, nothing counts.
    Ring(Arc<FrameRing>),
    /// To be processed, but for those up to `after`, which another worker has processed.
    Pipeline { after: Option<u64> },
}

impl FrameSink {
    fn give(&mut self, frame: Frame) {
        let number = frame.number;
        self.first.get_or_insert(number);
        self.newest = Some(number);
        match &self.to {
            FrameTarget::Ring(ring) => ring.push(Arc::new(frame)),
            FrameTarget::Pipeline { after } => {
                let passed = after.is_some_and(|after| number <= after);
                // Counted before anyone can count what becomes of it.
                self.tally.update(|counters| {
                    counters.decoded += 1;
                    counters.already_processed += u64::from(passed);
                });
                if !passed {
                    self.queue.push(Work::Frame(Arc::new(frame)));
                }
            }
        }
    }
}
