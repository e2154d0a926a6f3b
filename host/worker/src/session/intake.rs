//! The intake thread of a stream's worker: reads the host's messages, decodes access units, and queues what there is to do.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::wire::{self, Reader, WireError};
use ocelli_protocol::worker::{Counters, Decode, FromWorker, Kept, Level, Pacing, Stage, ToWorker};

use super::ring::Ring;
use super::{Fatal, at, fault};
use crate::host_link::HostLink;
use crate::queue::{Work, WorkQueue};
use crate::tally::Tally;
use crate::video::{Frame, Stream};

/// How often at the most the log tells of damaged or undecodable pictures. Each is counted.
const FAULT_INTERVAL: Duration = Duration::from_secs(10);

/// Work on frames that are kept, too, while the worker stands by.
pub(super) type Queue = WorkQueue<Arc<Frame>>;

/// See the module's documentation.
pub(super) struct Intake {
    stream: Stream,
    outlet: Outlet,
    pacing: Pacing,
    host: HostLink,
    tally: Arc<Tally>,
    /// On standby: the source has ended, which is answered when all frames are processed.
    ended: bool,
    /// When the log was last told of a damaged picture.
    told: Option<Instant>,
}

impl Intake {
    /// Of a worker that stands by, and keeps frames in the ring, or one that speaks from the start.
    pub(super) fn new(
        queue: Arc<Queue>,
        ring: Arc<Ring>,
        (decode, pacing): (Decode, Pacing),
        standby: bool,
        host: &HostLink,
        tally: &Arc<Tally>,
    ) -> Self {
        let to = if standby { To::Ring(ring) } else { To::Pipeline { after: None } };
        Self {
            stream: Stream::new(decode),
            outlet: Outlet { queue, tally: Arc::clone(tally), to, first: None, newest: None },
            pacing,
            host: host.clone(),
            tally: Arc::clone(tally),
            ended: false,
            told: None,
        }
    }

    /// Serves the host until it closes the connection. Closes the queue then; an error has been told.
    pub(super) fn run(mut self, mut reader: Reader<UnixStream>) -> Result<(), Fatal> {
        let done = self.serve(&mut reader);
        self.outlet.queue.close();
        done.inspect_err(|fatal| fatal.tell(&self.host, &self.tally))
    }

    fn serve(&mut self, reader: &mut Reader<UnixStream>) -> Result<(), Fatal> {
        // Closed by whoever noticed that the host has hung up: the rest is not decoded for nobody.
        while !self.outlet.queue.is_closed() {
            match reader.read::<ToWorker>() {
                Ok((message, payload)) => self.take(message, payload)?,
                Err(WireError::Closed) => return Ok(()),
                Err(error) => return Err(at(Stage::Setup)(error)),
            }
        }
        Ok(())
    }

    fn take(&mut self, message: ToWorker, payload: &[u8]) -> Result<(), Fatal> {
        let on_standby = matches!(self.outlet.to, To::Ring(_));
        let work = match message {
            ToWorker::Unit(header) => {
                self.ended = false;
                let decoded = self.stream.push(&header, payload, &mut |frame| self.outlet.give(frame));
                self.tally.count(|counters| self.stream.count_into(counters));
                decoded.map_err(at(Stage::Decode))?;
                self.tell_fault();
                return Ok(());
            }
            ToWorker::Mark { id } => {
                let Outlet { first, newest, .. } = self.outlet;
                self.host.send(&FromWorker::Decoded { id, first, newest });
                return Ok(());
            }
            ToWorker::End => {
                self.stream.drain(&mut |frame| self.outlet.give(frame));
                self.tally.count(|counters| self.stream.count_into(counters));
                if on_standby {
                    self.ended = true;
                    return Ok(());
                }
                Work::End
            }
            ToWorker::Speak { after } if on_standby => {
                self.speak(after);
                return Ok(());
            }
            ToWorker::Adopt if on_standby => Work::Adopt(kept(payload)?),
            ToWorker::Rehearse { frame } if on_standby => Work::Rehearse { frame },
            ToWorker::Renew if on_standby => Work::Renew,
            ToWorker::Command { id, request } => Work::Command { id, request },
            ToWorker::Snapshot => Work::Snapshot,
            ToWorker::Restore { version } => Work::Restore { version, state: payload.to_vec() },
            ToWorker::Analyze { .. } => {
                return Err(fault(Stage::Setup, "a picture for a stream's worker"));
            }
            ToWorker::Start(_) | ToWorker::Adopt => {
                return Err(fault(Stage::Setup, "a second start"));
            }
            ToWorker::Rehearse { .. } | ToWorker::Renew | ToWorker::Speak { .. } => {
                return Err(fault(Stage::Setup, "a message for a worker on standby, to one that speaks"));
            }
        };
        self.outlet.queue.push(work);
        Ok(())
    }

    /// From now on frames after this one are heard, those first that are kept.
    fn speak(&mut self, after: Option<u64>) {
        // What was asked before is answered, so that nothing counts any more for what was on standby.
        if !self.outlet.queue.wait_done() {
            return;
        }
        let To::Ring(ring) = std::mem::replace(&mut self.outlet.to, To::Pipeline { after }) else { return };
        let mut frames = ring.take_after(after);
        let decoded = frames.len() as u64;
        if self.pacing == Pacing::NewestWins {
            frames.drain(..frames.len().saturating_sub(1));
        }
        let skipped_newer = decoded - frames.len() as u64;
        self.stream.restart_counting();
        self.host.send_as_made(|| {
            self.tally
                .count(|counters| *counters = Counters { decoded, skipped_newer, ..Counters::default() });
            FromWorker::Speaking
        });
        let queue = &self.outlet.queue;
        queue.push(Work::Speak { after });
        frames.into_iter().for_each(|frame| queue.push(Work::Frame(frame)));
        if std::mem::take(&mut self.ended) {
            queue.push(Work::End);
        }
    }

    fn tell_fault(&mut self) {
        let due = |told: &Instant| told.elapsed() >= FAULT_INTERVAL;
        if let Some(fault) = self.stream.take_fault().filter(|_| self.told.as_ref().is_none_or(due)) {
            self.told = Some(Instant::now());
            self.host.log(Level::Warn, "decoder", &fault, None);
        }
    }
}

/// What the payload of [`ToWorker::Adopt`] holds.
pub(super) fn kept(payload: &[u8]) -> Result<Kept, Fatal> {
    wire::decode(payload).map_err(|error| fault(Stage::Setup, &format!("the session's store: {error}")))
}

/// Where decoded frames go.
struct Outlet {
    queue: Arc<Queue>,
    tally: Arc<Tally>,
    to: To,
    /// Number of the first frame that came.
    first: Option<u64>,
    /// Number of the newest.
    newest: Option<u64>,
}

enum To {
    /// Standby: nothing waits, nothing counts.
    Ring(Arc<Ring>),
    /// To be processed, but for those up to `after`, which another worker has processed.
    Pipeline { after: Option<u64> },
}

impl Outlet {
    fn give(&mut self, frame: Frame) {
        let number = frame.number;
        self.first.get_or_insert(number);
        self.newest = Some(number);
        match &self.to {
            To::Ring(ring) => ring.push(Arc::new(frame)),
            To::Pipeline { after } => {
                let passed = after.is_some_and(|after| number <= after);
                // Counted before anyone can count what becomes of it.
                self.tally.count(|counters| {
                    counters.decoded += 1;
                    counters.passed_over += u64::from(passed);
                });
                if !passed {
                    self.queue.push(Work::Frame(Arc::new(frame)));
                }
            }
        }
    }
}
