//! Which messages a worker may send, when, how often, and how large.
//!
//! A worker that its stream or its pipeline controls may send anything. The host asks the [`Gate`]
//! before it reads a message: its lengths and its first byte, which says what it is, are known by
//! then. A message that the table does not admit ends its worker.
//!
//! How fast log lines and heartbeats may come is a matter of time, so the host counts those itself.

use strum::VariantArray;

use crate::limit::{MAX_CAUSE, MAX_DESCRIPTION, MAX_LINE, MAX_OUTPUT_BYTES};
use crate::wire::{MAX_MESSAGE, MAX_PAYLOAD};
use crate::worker::{FromWorkerKind, ToWorker, WorkerMode};

/// Bytes of a message without texts and lists: names, numbers, all counters, each limit's count.
const NUMBERS: usize = 1 << 10;

/// Bytes of a report of what confines the process: a reason for each measure that is missing.
const MAX_REPORT: usize = 16 << 10;

/// Outcomes of frames that a worker may send beyond one for each access unit: a unit that holds
/// more than one picture is a fault of the camera's.
const SPARE_FRAMES: u64 = 64;

/// How far a worker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[strum(serialize_all = "lowercase")]
pub enum Phase {
    /// It has not said yet how it is confined.
    Started,
    /// It has not described its pipeline yet.
    Confined,
    /// Its pipeline is not initialised yet.
    Described,
    /// It is ready, and its results are not wanted yet.
    Standby,
    /// Its results count.
    Active,
    /// It is ready for single pictures.
    Images,
}

/// What the host sends to a worker and what a worker may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, VariantArray)]
pub enum Request {
    /// [`ToWorker::Unit`] or [`ToWorker::Picture`], answered by the outcome of a frame.
    Unit,
    /// [`ToWorker::EndOfStream`].
    EndOfStream,
    /// [`ToWorker::Ask`].
    Ask,
    /// [`ToWorker::Barrier`].
    Barrier,
    /// [`ToWorker::DryRun`].
    DryRun,
    /// [`ToWorker::Reinstantiate`].
    Reinstantiate,
    /// [`ToWorker::Snapshot`].
    Snapshot,
    /// [`ToWorker::Restore`].
    Restore,
    /// [`ToWorker::Activate`].
    Activate,
    /// [`ToWorker::Analyze`].
    Analyze,
    /// [`ToWorker::EncodePicture`].
    EncodePicture,
}

impl Request {
    /// How many there are.
    pub const COUNT: usize = Self::VARIANTS.len();

    /// What a message asks for; `None` if nothing answers it.
    pub fn of(message: &ToWorker) -> Option<Self> {
        Some(match message {
            ToWorker::Start(_) | ToWorker::LoadStore => return None,
            ToWorker::Unit(_) | ToWorker::Picture(_) => Self::Unit,
            ToWorker::EndOfStream => Self::EndOfStream,
            ToWorker::Ask { .. } => Self::Ask,
            ToWorker::Barrier { .. } => Self::Barrier,
            ToWorker::DryRun { .. } => Self::DryRun,
            ToWorker::Reinstantiate => Self::Reinstantiate,
            ToWorker::Snapshot => Self::Snapshot,
            ToWorker::Restore { .. } => Self::Restore,
            ToWorker::Activate { .. } => Self::Activate,
            ToWorker::Analyze { .. } => Self::Analyze,
            ToWorker::EncodePicture { .. } => Self::EncodePicture,
        })
    }
}

/// How often a message may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Often {
    /// Once in a worker's life.
    Once,
    /// Once for each such request.
    Answer(Request),
    /// Once before each outcome of a call into the component.
    Call,
    /// Once for each access unit, beside the outcome of its frame.
    Frame,
    /// At any time.
    Always,
}

/// A line of the table.
struct Rule {
    phases: &'static [Phase],
    often: Often,
    /// Longest message, in bytes.
    message: usize,
    /// Bytes of its lists and texts once it is decoded, as a factor of `message`.
    memory: usize,
    /// Longest payload, in bytes.
    payload: usize,
}

const ANY: &[Phase] = &[
    Phase::Started,
    Phase::Confined,
    Phase::Described,
    Phase::Standby,
    Phase::Active,
    Phase::Images,
];
const STREAM: &[Phase] = &[Phase::Standby, Phase::Active];

/// The table. An output's detections, events and attributes take less than twice the bytes of the
/// message in memory; a change of the store with a short key takes four times its bytes.
fn rule(kind: FromWorkerKind) -> Rule {
    use FromWorkerKind as Kind;
    use Often::{Always, Answer, Call, Frame, Once};
    let rule = |phases, often, message| Rule { phases, often, message, memory: 2, payload: 0 };
    let text = MAX_CAUSE + NUMBERS;
    match kind {
        Kind::SandboxReport => rule(&[Phase::Started], Once, MAX_REPORT),
        Kind::Described => rule(&[Phase::Confined], Once, MAX_DESCRIPTION),
        Kind::Ready => rule(&[Phase::Described], Once, NUMBERS),
        Kind::Result => rule(&[Phase::Active], Answer(Request::Unit), MAX_MESSAGE),
        Kind::FrameFailed => rule(&[Phase::Active], Answer(Request::Unit), text),
        Kind::Log => rule(ANY, Always, 2 * MAX_LINE + NUMBERS),
        Kind::Answer => rule(STREAM, Answer(Request::Ask), MAX_OUTPUT_BYTES + NUMBERS),
        Kind::StoreCommit => {
            Rule { memory: 4, ..rule(&[Phase::Described, Phase::Active], Call, MAX_MESSAGE) }
        }
        Kind::BarrierReached => rule(STREAM, Answer(Request::Barrier), NUMBERS),
        Kind::DryRunResult => rule(STREAM, Answer(Request::DryRun), MAX_MESSAGE),
        Kind::Reinstantiated => rule(STREAM, Answer(Request::Reinstantiate), NUMBERS),
        Kind::Snapshot => Rule {
            payload: MAX_PAYLOAD,
            ..rule(&[Phase::Active], Answer(Request::Snapshot), NUMBERS)
        },
        Kind::Restored => rule(STREAM, Answer(Request::Restore), text),
        Kind::Active => rule(&[Phase::Active], Answer(Request::Activate), NUMBERS),
        Kind::Analyzed => rule(&[Phase::Images], Answer(Request::Analyze), MAX_MESSAGE),
        Kind::Finished => rule(STREAM, Answer(Request::EndOfStream), text),
        Kind::Heartbeat => rule(ANY, Always, text),
        Kind::Failed => rule(ANY, Once, text),
        Kind::PictureEncoded => Rule {
            payload: MAX_PAYLOAD,
            ..rule(&[Phase::Active], Answer(Request::EncodePicture), NUMBERS)
        },
        Kind::Used => rule(ANY, Always, NUMBERS),
        Kind::Annotated => Rule { payload: MAX_PAYLOAD, ..rule(&[Phase::Active], Frame, NUMBERS) },
    }
}

/// Whether a message is the outcome of a call into the component.
fn ends_call(kind: FromWorkerKind) -> bool {
    use FromWorkerKind as Kind;
    matches!(
        kind,
        Kind::Ready
            | Kind::Result
            | Kind::FrameFailed
            | Kind::Answer
            | Kind::Snapshot
            | Kind::Restored
    )
}

/// Why a message is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// It has not even a number.
    #[error("an empty message")]
    Empty,
    /// No message has this number.
    #[error("no message has the number {0}")]
    Unknown(u8),
    /// Not in this phase.
    #[error("out of turn: {kind} of a worker that is {phase}")]
    OutOfTurn {
        /// The message.
        kind: FromWorkerKind,
        /// How far the worker is.
        phase: Phase,
    },
    /// It may come once, or has to be asked for.
    #[error("out of turn: {0} once more than it may come")]
    TooOften(FromWorkerKind),
    /// A length exceeds its bound.
    #[error("{kind} with a {what} of {length} bytes exceeds the bound of {bound}")]
    TooLong {
        /// The message.
        kind: FromWorkerKind,
        /// "message" or "payload".
        what: &'static str,
        /// Bytes announced.
        length: usize,
        /// Bytes allowed.
        bound: usize,
    },
}

/// What one worker has sent so far, and what it may send next.
#[derive(Debug)]
pub struct Gate {
    phase: Phase,
    /// The phase once the pipeline is initialised.
    ready: Phase,
    /// Messages of each kind.
    seen: [u64; FromWorkerKind::VARIANTS.len()],
    /// Answers to each kind of request.
    answered: [u64; Request::COUNT],
    /// It has changed its store by a call whose outcome has not come yet.
    in_call: bool,
    /// It was asked for pictures of its frames.
    annotates: bool,
}

impl Gate {
    /// The gate of a worker that is started now.
    pub fn new(mode: WorkerMode, standby: bool) -> Self {
        let ready = match mode {
            // It is asked for nothing more, so nothing more may come.
            WorkerMode::Describe | WorkerMode::Analyze => Phase::Images,
            WorkerMode::Stream(_) if standby => Phase::Standby,
            WorkerMode::Stream(_) => Phase::Active,
        };
        Self {
            phase: Phase::Started,
            ready,
            seen: Default::default(),
            answered: Default::default(),
            in_call: false,
            annotates: false,
        }
    }

    /// The same of a worker that sends each frame with its output drawn in, if it was asked to.
    #[must_use]
    pub fn with_annotations(self, annotates: bool) -> Self {
        Self { annotates, ..self }
    }

    /// Whether a message that begins with this byte may come now, with these lengths in bytes.
    /// `sent` says how often the worker was sent a request. Gives the bytes of memory that the
    /// message's lists and texts may take once it is decoded.
    pub fn admit(
        &mut self,
        first: u8,
        message: usize,
        payload: usize,
        sent: impl Fn(Request) -> u64,
    ) -> Result<usize, Violation> {
        let kind = FromWorkerKind::from_repr(first.into()).ok_or(Violation::Unknown(first))?;
        let rule = rule(kind);
        for (what, length, bound) in
            [("message", message, rule.message), ("payload", payload, rule.payload)]
        {
            if length > bound {
                return Err(Violation::TooLong { kind, what, length, bound });
            }
        }
        if self.phase == Phase::Standby && sent(Request::Activate) > 0 {
            self.phase = Phase::Active;
        }
        // Only a stream has a store, and a worker on standby leaves the host's as it is.
        let phase = self.phase;
        let has_store = phase == Phase::Active || self.ready == Phase::Active;
        let is_unwanted = match kind {
            FromWorkerKind::StoreCommit => !has_store,
            FromWorkerKind::Annotated => !self.annotates,
            _ => false,
        };
        if is_unwanted || !rule.phases.contains(&phase) {
            return Err(Violation::OutOfTurn { kind, phase });
        }
        if !self.count(kind, rule.often, sent) {
            return Err(Violation::TooOften(kind));
        }
        self.in_call &= !ends_call(kind);
        self.phase = match kind {
            FromWorkerKind::SandboxReport => Phase::Confined,
            FromWorkerKind::Described => Phase::Described,
            FromWorkerKind::Ready => self.ready,
            _ => phase,
        };
        Ok(rule.message.saturating_mul(rule.memory))
    }

    /// Counts a message. False if it has come too often.
    fn count(&mut self, kind: FromWorkerKind, often: Often, sent: impl Fn(Request) -> u64) -> bool {
        let Some(seen) = self.seen.get_mut(kind as usize) else { return false };
        let before = std::mem::replace(seen, seen.saturating_add(1));
        match often {
            Often::Always => return true,
            Often::Once => {}
            Often::Frame => return before < sent(Request::Unit).saturating_add(SPARE_FRAMES),
            Often::Call => return !std::mem::replace(&mut self.in_call, true),
            Often::Answer(request) => {
                let Some(answered) = self.answered.get_mut(request as usize) else { return false };
                let before = std::mem::replace(answered, answered.saturating_add(1));
                let spare = if request == Request::Unit { SPARE_FRAMES } else { 0 };
                return before < sent(request).saturating_add(spare);
            }
        }
        before == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::Pacing;
    use proptest::prelude::*;

    const STREAM_MODE: WorkerMode = WorkerMode::Stream(Pacing::NewestWins);

    /// A worker, and what it was sent.
    struct Worker {
        gate: Gate,
        sent: [u64; Request::COUNT],
    }

    impl Worker {
        fn new(mode: WorkerMode, standby: bool) -> Self {
            Self { gate: Gate::new(mode, standby), sent: Default::default() }
        }

        fn ready(mode: WorkerMode, standby: bool) -> Self {
            let mut worker = Self::new(mode, standby);
            for kind in
                [FromWorkerKind::SandboxReport, FromWorkerKind::Described, FromWorkerKind::Ready]
            {
                worker.says(kind).unwrap();
            }
            worker
        }

        fn is_sent(&mut self, request: Request) {
            self.sent[request as usize] += 1;
        }

        fn says(&mut self, kind: FromWorkerKind) -> Result<usize, Violation> {
            self.says_long(kind, 1, 0)
        }

        fn says_long(
            &mut self,
            kind: FromWorkerKind,
            message: usize,
            payload: usize,
        ) -> Result<usize, Violation> {
            let sent = self.sent;
            self.gate.admit(kind as u8, message, payload, |request| sent[request as usize])
        }
    }

    fn out_of_turn(said: Result<usize, Violation>) -> bool {
        matches!(said, Err(Violation::OutOfTurn { .. }))
    }

    fn too_often(said: Result<usize, Violation>) -> bool {
        matches!(said, Err(Violation::TooOften(_)))
    }

    #[test]
    fn what_opens_a_worker_comes_once_and_in_its_order() {
        use FromWorkerKind as Kind;
        let opening = [Kind::SandboxReport, Kind::Described, Kind::Ready];
        for (place, &kind) in opening.iter().enumerate() {
            let mut worker = Worker::new(STREAM_MODE, false);
            for &other in opening.iter().filter(|&&other| other != kind) {
                let said = worker.says(other);
                assert_eq!(said.is_ok(), (other as usize) < place, "{other} without {kind}");
            }
        }
        let mut worker = Worker::ready(STREAM_MODE, false);
        assert!(opening.into_iter().all(|kind| out_of_turn(worker.says(kind))));
    }

    #[test]
    fn a_store_is_changed_once_by_each_call() {
        use FromWorkerKind as Kind;
        let mut worker = Worker::new(STREAM_MODE, false);
        assert!(out_of_turn(worker.says(Kind::StoreCommit)));
        worker.says(Kind::SandboxReport).unwrap();
        worker.says(Kind::Described).unwrap();
        worker.says(Kind::StoreCommit).unwrap();
        assert!(too_often(worker.says(Kind::StoreCommit)), "init is one call");
        let mut worker = Worker::ready(STREAM_MODE, false);
        for answer in [
            (Request::Unit, Kind::Result),
            (Request::Ask, Kind::Answer),
            (Request::Snapshot, Kind::Snapshot),
        ] {
            worker.is_sent(answer.0);
            worker.says(Kind::StoreCommit).unwrap();
            worker.says(Kind::Heartbeat).unwrap();
            assert!(too_often(worker.says(Kind::StoreCommit)));
            worker.says(answer.1).unwrap();
        }
    }

    #[test]
    fn only_an_active_workers_store_and_results_count() {
        use FromWorkerKind as Kind;
        let mut candidate = Worker::new(STREAM_MODE, true);
        candidate.says(Kind::SandboxReport).unwrap();
        candidate.says(Kind::Described).unwrap();
        assert!(out_of_turn(candidate.says(Kind::StoreCommit)));
        candidate.says(Kind::Ready).unwrap();
        candidate.is_sent(Request::Unit);
        for kind in [Kind::StoreCommit, Kind::Result, Kind::FrameFailed, Kind::Active] {
            assert!(out_of_turn(candidate.says(kind)), "{kind}");
        }
        candidate.is_sent(Request::Activate);
        for kind in [Kind::Active, Kind::StoreCommit, Kind::Result] {
            candidate.says(kind).unwrap();
        }
        let mut images = Worker::ready(WorkerMode::Analyze, false);
        for kind in [Kind::StoreCommit, Kind::Result, Kind::Snapshot, Kind::Finished] {
            assert!(out_of_turn(images.says(kind)), "{kind}");
        }
    }

    #[test]
    fn an_answer_comes_once_for_each_request() {
        use FromWorkerKind as Kind;
        for (request, kind, mode) in [
            (Request::Ask, Kind::Answer, STREAM_MODE),
            (Request::Barrier, Kind::BarrierReached, STREAM_MODE),
            (Request::DryRun, Kind::DryRunResult, STREAM_MODE),
            (Request::Reinstantiate, Kind::Reinstantiated, STREAM_MODE),
            (Request::Snapshot, Kind::Snapshot, STREAM_MODE),
            (Request::Restore, Kind::Restored, STREAM_MODE),
            (Request::EndOfStream, Kind::Finished, STREAM_MODE),
            (Request::EncodePicture, Kind::PictureEncoded, STREAM_MODE),
            (Request::Analyze, Kind::Analyzed, WorkerMode::Analyze),
        ] {
            let mut worker = Worker::ready(mode, false);
            assert!(too_often(worker.says(kind)), "{kind} was not asked for");
            let mut worker = Worker::ready(mode, false);
            (0..3).for_each(|_| worker.is_sent(request));
            (0..3).for_each(|_| assert!(worker.says(kind).is_ok(), "{kind}"));
            assert!(too_often(worker.says(kind)), "{kind}");
        }
    }

    #[test]
    fn frames_have_no_more_outcomes_than_units_allow() {
        use FromWorkerKind as Kind;
        let mut worker = Worker::ready(STREAM_MODE, false);
        (0..100).for_each(|_| worker.is_sent(Request::Unit));
        for frame in 0..100 + SPARE_FRAMES {
            worker.says(if frame % 2 == 0 { Kind::Result } else { Kind::FrameFailed }).unwrap();
        }
        assert!(too_often(worker.says(Kind::Result)));
    }

    #[test]
    fn pictures_of_frames_come_only_where_they_were_asked_for_and_once_for_each_unit() {
        use FromWorkerKind as Kind;
        let mut worker = Worker::ready(STREAM_MODE, false);
        worker.is_sent(Request::Unit);
        assert!(out_of_turn(worker.says(Kind::Annotated)));
        let mut worker = Worker::new(STREAM_MODE, false);
        worker.gate = worker.gate.with_annotations(true);
        for kind in [Kind::SandboxReport, Kind::Described, Kind::Ready] {
            assert!(out_of_turn(worker.says(Kind::Annotated)), "before {kind}");
            worker.says(kind).unwrap();
        }
        for _ in 0..=SPARE_FRAMES {
            worker.is_sent(Request::Unit);
            worker.says_long(Kind::Annotated, 9, MAX_PAYLOAD).unwrap();
            worker.says(Kind::Result).unwrap();
        }
        (0..SPARE_FRAMES).for_each(|_| worker.says(Kind::Annotated).map(drop).unwrap());
        assert!(too_often(worker.says(Kind::Annotated)));
    }

    #[test]
    fn a_length_is_held_to_its_kind() {
        use FromWorkerKind as Kind;
        let mut worker = Worker::ready(STREAM_MODE, false);
        let too_long = |said| matches!(said, Err(Violation::TooLong { .. }));
        assert!(too_long(worker.says_long(Kind::Heartbeat, MAX_MESSAGE, 0)));
        assert!(too_long(worker.says_long(Kind::Log, 32 << 10, 0)));
        assert!(too_long(worker.says_long(Kind::Result, 1, 1)), "a payload where none belongs");
        worker.is_sent(Request::Snapshot);
        assert_eq!(worker.says_long(Kind::Snapshot, 9, MAX_PAYLOAD), Ok(2 * NUMBERS));
        assert_eq!(worker.gate.admit(99, 1, 0, |_| 0), Err(Violation::Unknown(99)));
    }

    proptest! {
        #[test]
        fn whatever_comes_the_memory_of_a_message_is_bounded(
            said in proptest::collection::vec((0u8..24, 0usize..(5 << 20), 0usize..(17 << 20)), 0..60),
            standby: bool,
        ) {
            let mut worker = Worker::new(STREAM_MODE, standby);
            worker.sent = [3; Request::COUNT];
            for (first, message, payload) in said {
                if let Ok(memory) = worker.gate.admit(first, message, payload, |_| 3) {
                    prop_assert!(message <= MAX_MESSAGE && memory <= 4 * MAX_MESSAGE);
                    let with_payload = [FromWorkerKind::Snapshot, FromWorkerKind::PictureEncoded];
                    let kind = FromWorkerKind::from_repr(first.into());
                    prop_assert!(payload == 0 || kind.is_some_and(|k| with_payload.contains(&k)));
                }
            }
        }
    }
}
