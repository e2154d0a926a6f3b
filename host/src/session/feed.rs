//! Carries access units from a session's source to its active worker, and to a candidate beside it.
//!
//! ```text
//! source --> pump --> lane --> active worker     (a full lane is the back-pressure on the source)
//!              |  `-> lane --> candidate         (behind by at most `MAX_BEHIND`)
//!              `--> retained units               (for a candidate, to go on where the active is)
//! ```
//!
//! The pump never waits for a worker: each lane has a task that writes to it. A candidate gets the
//! retained units first and then each unit that the active worker gets, so both see the same
//! stream. While the pump is [paused](PumpCommand::Pause) no unit leaves the source, and a message in a
//! lane follows all units before it. A worker that a candidate has [superseded](PumpCommand::Promote)
//! keeps its lane until the change is [committed](PumpCommand::Commit): the units that it misses wait for
//! it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ocelli_protocol::worker::{Codec, STANDBY_FRAMES, ToWorker};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use crate::source::{AccessUnit, SourceEvent, Subscription};
use crate::worker::WorkerSender;

/// Units in the active worker's lane, beside the one that is being written: its socket is queue
/// enough.
const AHEAD: usize = 1;

/// Most units and bytes that are retained, that wait for a superseded worker, or that a candidate
/// may be behind: 40 s at 25 frames a second, longer than any usual GOP,
/// and 20 s of a 4K camera at 25 Mbit/s.
const MAX_BEHIND: usize = 1000;
const MAX_BEHIND_BYTES: usize = 64 << 20;

/// Messages that wait for the pump; it takes them at once.
const COMMAND_CAPACITY: usize = 16;

/// Notes of the pump that may wait: the source seldom changes.
const NOTE_CAPACITY: usize = 4;

/// How long the pump may take to end.
const PUMP_GRACE: Duration = Duration::from_millis(500);

/// A change of the source.
pub(super) enum SourceNote {
    Up,
    Down(String),
    /// A part of it cannot be read.
    Damaged(String),
    Ended,
}

/// A worker of the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    Active,
    Candidate,
}

/// A message with its payload.
pub(super) type Outgoing = (ToWorker, Vec<u8>);

/// What the pump is to do next.
pub(super) enum PumpCommand {
    /// Put a message into a worker's lane, behind the units in it.
    Send(Target, Outgoing),
    /// Attach a candidate: it gets these messages, then the retained units, then each unit that
    /// the active worker gets.
    Attach(WorkerLane, Vec<Outgoing>),
    /// Take no more units from the source until [`Promote`](Self::Promote) or
    /// [`Detach`](Self::Detach).
    Pause,
    /// Make the candidate the active worker from the next unit on. The units that the superseded
    /// worker misses wait for it.
    Promote,
    /// Close the connection to the superseded worker.
    Commit,
    /// Make the superseded worker active again, with the units that it has missed, and close the
    /// other one's connection.
    Revert,
    /// Close the connection to the candidate.
    Detach,
}

/// The session's end of the pump. Dropping it ends the pump and closes the workers' connections.
pub(super) struct Feed {
    pub(super) notes: mpsc::Receiver<SourceNote>,
    commands: mpsc::Sender<PumpCommand>,
    pump: JoinHandle<Subscription>,
    dropped: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
    codec: Arc<Mutex<Option<Codec>>>,
}

/// Access units that a session did not get, so far.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MissedUnits {
    /// It was too slow for them.
    pub(super) dropped: u64,
    /// The source could not read them.
    pub(super) lost: u64,
}

impl Feed {
    /// Starts carrying units from the subscription to a worker.
    pub(super) fn start(subscription: Subscription, sender: WorkerSender) -> Self {
        let (note_sender, notes) = mpsc::channel(NOTE_CAPACITY);
        let (commands, inbox) = mpsc::channel(COMMAND_CAPACITY);
        let (dropped, lost) = (subscription.dropped(), subscription.lost());
        let done = Arc::<AtomicU64>::default();
        let codec = Arc::<Mutex<Option<Codec>>>::default();
        let pump = Pump {
            active: WorkerLane::start(sender),
            candidate: None,
            superseded: None,
            retained: RetainedUnits::new(Arc::clone(&done)),
            paused: false,
            ended: false,
            codec: None,
            shown_codec: Arc::clone(&codec),
            notes: note_sender,
        };
        let pump = tokio::spawn(pump.run(subscription, inbox));
        Self { notes, commands, pump, dropped, lost, done, codec }
    }

    /// Units that no worker got.
    pub(super) fn missed(&self) -> MissedUnits {
        MissedUnits {
            dropped: self.dropped.load(Ordering::Relaxed),
            lost: self.lost.load(Ordering::Relaxed),
        }
    }

    /// The codec of the last unit; `None` before the first.
    pub(super) fn codec(&self) -> Option<Codec> {
        *self.codec.lock()
    }

    /// The active worker is done with all frames up to this one: units that only they need are no
    /// longer retained.
    pub(super) fn mark_done(&self, frame: u64) {
        self.done.store(frame.saturating_add(1), Ordering::Relaxed);
    }

    /// Sends a message without a payload: see [`PumpCommand::Send`].
    pub(super) async fn send(&self, target: Target, message: ToWorker) {
        self.command(PumpCommand::Send(target, (message, Vec::new()))).await;
    }

    /// Attaches a candidate: see [`PumpCommand::Attach`].
    pub(super) async fn attach(&self, sender: WorkerSender, first: Vec<Outgoing>) {
        self.command(PumpCommand::Attach(WorkerLane::start(sender), first)).await;
    }

    /// Ends the pump, which closes the workers' connections, and gives the subscription back.
    pub(super) async fn stop(self, session: &str) -> Option<Subscription> {
        drop(self.commands);
        drop(self.notes);
        let mut pump = self.pump;
        match tokio::time::timeout(PUMP_GRACE, &mut pump).await {
            Ok(Ok(subscription)) => Some(subscription),
            Ok(Err(error)) => {
                tracing::error!(target: "ocelli::session", session, "the pump failed: {error}");
                None
            }
            Err(_) => {
                pump.abort();
                let _ = pump.await;
                None
            }
        }
    }

    pub(super) async fn command(&self, command: PumpCommand) {
        // A pump that takes no more has failed; `stop` logs it.
        let _ = self.commands.send(command).await;
    }
}

/// The pump's own state.
struct Pump {
    active: WorkerLane,
    candidate: Option<WorkerLane>,
    /// The superseded worker's lane, and the items that it has missed.
    superseded: Option<(WorkerLane, Vec<LaneItem>)>,
    retained: RetainedUnits,
    paused: bool,
    ended: bool,
    /// The codec of the last unit, and where the session sees it.
    codec: Option<Codec>,
    shown_codec: Arc<Mutex<Option<Codec>>>,
    notes: mpsc::Sender<SourceNote>,
}

impl Pump {
    async fn run(
        mut self,
        mut subscription: Subscription,
        mut commands: mpsc::Receiver<PumpCommand>,
    ) -> Subscription {
        loop {
            let open = !self.paused && !self.ended && !self.is_withholding_too_much();
            let room = self.active.has_room();
            let queue = Arc::clone(&self.active.queue);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return subscription,
                },
                event = subscription.next(), if open && room => self.event(event).await,
                () = queue.written.notified(), if open && !room => {}
            }
        }
    }

    fn is_withholding_too_much(&self) -> bool {
        self.superseded.as_ref().is_some_and(|(_, missed)| missed.len() >= MAX_BEHIND)
    }

    async fn event(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Unit(unit) => {
                let codec = Some(unit.header.codec);
                if self.codec != codec {
                    self.codec = codec;
                    *self.shown_codec.lock() = codec;
                }
                self.retained.push(&unit);
                if let Some((_, missed)) = &mut self.superseded {
                    missed.push(LaneItem::Unit(Arc::clone(&unit)));
                }
                if self.candidate.as_ref().is_some_and(|lane| !lane.offer(&unit)) {
                    // It does not keep up even with decoding. The session sees the connection end.
                    self.candidate = None;
                }
                self.active.push(LaneItem::Unit(unit));
            }
            SourceEvent::Up => self.note(SourceNote::Up).await,
            SourceEvent::Down(fault) => self.note(SourceNote::Down(fault.message)).await,
            SourceEvent::Damaged(reason) => self.note(SourceNote::Damaged(reason)).await,
            SourceEvent::Ended => {
                self.ended = true;
                // Before the worker can report that it has finished.
                self.note(SourceNote::Ended).await;
                if let Some((_, missed)) = &mut self.superseded {
                    missed.push(LaneItem::End);
                }
                self.active.push(LaneItem::End);
            }
        }
    }

    async fn note(&self, note: SourceNote) {
        // Without a receiver the session is over.
        let _ = self.notes.send(note).await;
    }

    fn command(&mut self, command: PumpCommand) {
        match command {
            PumpCommand::Send(Target::Active, message) => {
                self.active.push(LaneItem::Message(message))
            }
            PumpCommand::Send(Target::Candidate, message) => {
                if let Some(candidate) = &self.candidate {
                    candidate.push(LaneItem::Message(message));
                }
            }
            PumpCommand::Attach(lane, first) => {
                let activates =
                    first.iter().any(|(message, _)| matches!(message, ToWorker::Activate { .. }));
                first.into_iter().for_each(|message| lane.push(LaneItem::Message(message)));
                let units = self.retained.units.iter().map(|unit| LaneItem::Unit(Arc::clone(unit)));
                units.for_each(|unit| lane.push(unit));
                if self.ended && activates {
                    lane.push(LaneItem::End);
                }
                self.candidate = Some(lane);
            }
            PumpCommand::Pause => self.paused = true,
            PumpCommand::Promote => {
                self.paused = false;
                if let Some(candidate) = self.candidate.take() {
                    let superseded = std::mem::replace(&mut self.active, candidate);
                    // Of two superseded workers only the later may be needed again.
                    self.superseded = Some((superseded, Vec::new()));
                }
            }
            PumpCommand::Commit => self.superseded = None,
            PumpCommand::Revert => {
                if let Some((lane, missed)) = self.superseded.take() {
                    missed.into_iter().for_each(|item| lane.push(item));
                    self.active = lane;
                }
            }
            PumpCommand::Detach => {
                self.paused = false;
                self.candidate = None;
            }
        }
    }
}

/// An item to be written to a worker.
enum LaneItem {
    Unit(Arc<AccessUnit>),
    Message(Outgoing),
    End,
}

impl LaneItem {
    /// Bytes that count towards `MAX_BEHIND_BYTES`.
    fn bytes(&self) -> usize {
        match self {
            Self::Unit(unit) => unit.data.len(),
            Self::Message((_, payload)) => payload.len(),
            Self::End => 0,
        }
    }
}

/// The queue of one worker, and the task that writes it. Dropping it closes the connection.
pub(super) struct WorkerLane {
    queue: Arc<LaneQueue>,
    writer: JoinHandle<()>,
}

#[derive(Default)]
struct LaneQueue {
    waiting: Mutex<LaneItems>,
    /// Notified when an item is added.
    added: Notify,
    /// Notified when an item was written.
    written: Notify,
}

#[derive(Default)]
struct LaneItems {
    items: VecDeque<LaneItem>,
    bytes: usize,
    /// The worker is gone: nothing is written any more.
    broken: bool,
}

impl LaneItems {
    fn push(&mut self, item: LaneItem) {
        self.bytes = self.bytes.saturating_add(item.bytes());
        self.items.push_back(item);
    }
}

impl WorkerLane {
    fn start(sender: WorkerSender) -> Self {
        let queue = Arc::<LaneQueue>::default();
        let writer = tokio::spawn(write(sender, Arc::clone(&queue)));
        Self { queue, writer }
    }

    fn push(&self, item: LaneItem) {
        self.queue.waiting.lock().push(item);
        self.queue.added.notify_one();
    }

    /// Queues a unit. False if the worker is as far behind as it may be.
    fn offer(&self, unit: &Arc<AccessUnit>) -> bool {
        let mut waiting = self.queue.waiting.lock();
        if waiting.items.len() >= MAX_BEHIND || waiting.bytes > MAX_BEHIND_BYTES {
            return false;
        }
        waiting.push(LaneItem::Unit(Arc::clone(unit)));
        drop(waiting);
        self.queue.added.notify_one();
        true
    }

    /// Whether the worker takes another unit now.
    fn has_room(&self) -> bool {
        let waiting = self.queue.waiting.lock();
        waiting.items.len() <= AHEAD && !waiting.broken
    }
}

impl Drop for WorkerLane {
    fn drop(&mut self) {
        self.writer.abort();
    }
}

/// Writes the queue until the worker is gone.
async fn write(mut sender: WorkerSender, queue: Arc<LaneQueue>) {
    loop {
        let item = loop {
            let item = queue.waiting.lock().items.pop_front();
            match item {
                Some(item) => break item,
                // A push between the two lines leaves a permit, so it is not missed.
                None => queue.added.notified().await,
            }
        };
        let bytes = item.bytes();
        let written = match item {
            LaneItem::Unit(unit) => {
                sender.send(&ToWorker::Unit(unit.header.clone()), &unit.data).await
            }
            LaneItem::Message((message, payload)) => sender.send(&message, &payload).await,
            LaneItem::End => sender.send(&ToWorker::EndOfStream, &[]).await,
        };
        let mut waiting = queue.waiting.lock();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        waiting.broken = written.is_err();
        let broken = waiting.broken;
        drop(waiting);
        if broken {
            // The session sees the connection end; nothing more leaves the source for it.
            return;
        }
        queue.written.notify_one();
    }
}

/// The units that a candidate needs to decode every frame that the active worker is not done with,
/// from a key unit on.
struct RetainedUnits {
    units: VecDeque<Arc<AccessUnit>>,
    bytes: usize,
    /// One more than the last frame that the active worker is done with; 0 before the first.
    done: Arc<AtomicU64>,
}

impl RetainedUnits {
    fn new(done: Arc<AtomicU64>) -> Self {
        Self { units: VecDeque::new(), bytes: 0, done }
    }

    fn push(&mut self, unit: &Arc<AccessUnit>) {
        if unit.header.key {
            self.drop_done();
        } else if self.units.is_empty() {
            return;
        }
        self.bytes = self.bytes.saturating_add(unit.data.len());
        self.units.push_back(Arc::clone(unit));
        while self.units.len() > MAX_BEHIND || self.bytes > MAX_BEHIND_BYTES {
            // A longer GOP is dropped: a candidate then waits for the next key unit.
            self.drop_first_gop();
        }
    }

    /// Drops the GOPs before the last key unit from which every frame that is not done can be
    /// decoded. Pictures that follow a key unit and are presented before it may refer to pictures
    /// before it; there are no more of them than a decoder holds back.
    fn drop_done(&mut self) {
        let done = self.done.load(Ordering::Relaxed);
        let passed =
            |unit: &AccessUnit| unit.header.number.saturating_add(STANDBY_FRAMES as u64) <= done;
        while self.units.iter().skip(1).any(|unit| unit.header.key && passed(unit)) {
            self.drop_first_gop();
        }
    }

    /// Drops the first GOP.
    fn drop_first_gop(&mut self) {
        while let Some(unit) = self.units.pop_front() {
            self.bytes = self.bytes.saturating_sub(unit.data.len());
            if self.units.front().is_some_and(|next| next.header.key) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
