//! Carries access units from a session's source to its worker, and to a second one that gets ready
//! beside it.
//!
//! ```text
//! source --> pump --> lane --> the worker that speaks          (its room is the back-pressure on the source)
//!              |  `-> lane --> the one that gets ready         (behind by at most [`MAX_BEHIND`])
//!              `--> retained units: what a worker needs that is to go on where this one is
//! ```
//!
//! The pump never waits for a worker: each lane has a task that writes to it. Whoever gets ready
//! gets the retained units first and then each unit that the other gets, so both see the same
//! stream. While the pump is [paused](SubscriptionFeed::pause) no unit leaves the source, and
//! whatever is put into a lane comes behind all units before. A worker that has been [passed
//! over](SubscriptionFeed::promote) keeps its lane until it is certain that it is not needed any
//! more: what it has missed is kept for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ocelli_protocol::worker::{STANDBY_FRAMES, ToWorker};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

use super::worker::WorkerSender;
use crate::source::{AccessUnit, SourceEvent, Subscription};

/// Units in the lane of the worker that speaks, beside the one that is being written: its socket is
/// queue enough.
const AHEAD: usize = 1;

/// Most units and bytes that are retained, withheld from a worker that was passed over, or that a
/// worker which gets ready may be behind: 40 s at 25 frames a second, longer than any usual GOP,
/// and 20 s of a 4K camera at 25 Mbit/s.
const MAX_BEHIND: usize = 1000;
const MAX_BEHIND_BYTES: usize = 64 << 20;

/// Messages that wait for the pump; it takes them at once.
const COMMAND_CAPACITY: usize = 16;

/// Words from the pump that wait to be heard: one is enough to say that the source changed.
const NOTE_CAPACITY: usize = 4;

/// How long the pump may take to end.
const PUMP_GRACE: Duration = Duration::from_millis(500);

/// What the pump says of the source.
pub(super) enum SourceNote {
    Up,
    Down(String),
    Ended,
}

/// Which worker is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// The one that speaks.
    Active,
    /// The one that gets ready.
    Candidate,
}

/// What was written to a worker.
#[derive(Debug, Default)]
pub(super) struct SentCounts {
    /// Access units.
    pub(super) units: AtomicU64,
    /// The end of its file.
    pub(super) end: AtomicBool,
}

/// A message with its payload.
pub(super) type Outgoing = (ToWorker, Vec<u8>);

enum PumpCommand {
    Send(Target, Outgoing),
    Attach(WorkerLane, Vec<Outgoing>),
    Pause,
    Promote,
    Commit,
    Revert,
    Detach,
}

/// The session's end of the pump. Dropping it ends the pump and closes the workers' connections.
pub(super) struct Feed {
    pub(super) notes: mpsc::Receiver<SourceNote>,
    commands: mpsc::Sender<PumpCommand>,
    pump: JoinHandle<Subscription>,
    dropped: Arc<AtomicU64>,
    done: Arc<AtomicU64>,
}

impl Feed {
    /// Starts carrying units from the subscription to a worker.
    pub(super) fn start(
        subscription: Subscription,
        outbox: WorkerSender,
    ) -> (Self, Arc<SentCounts>) {
        let lane = WorkerLane::start(outbox);
        let sent = Arc::clone(&lane.sent);
        (Self::with(subscription, lane), sent)
    }

    fn with(subscription: Subscription, lane: WorkerLane) -> Self {
        let (note_sender, notes) = mpsc::channel(NOTE_CAPACITY);
        let (commands, inbox) = mpsc::channel(COMMAND_CAPACITY);
        let (dropped, done) = (subscription.dropped(), Arc::<AtomicU64>::default());
        let pump = Pump {
            active: lane,
            candidate: None,
            superseded: None,
            retained: RetainedUnits::new(Arc::clone(&done)),
            paused: false,
            ended: false,
            notes: note_sender,
        };
        let pump = tokio::spawn(pump.run(subscription, inbox));
        Self { notes, commands, pump, dropped, done }
    }

    /// Units that the source has left out for this session, because it was too slow for them.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// The worker that speaks has done with all frames up to this one: units that only they need
    /// are not retained any more.
    pub(super) fn mark_done(&self, frame: u64) {
        self.done.store(frame.saturating_add(1), Ordering::Relaxed);
    }

    /// Puts a message into a worker's lane, behind the units that it has been given.
    pub(super) async fn send(&self, whom: Target, message: ToWorker, payload: Vec<u8>) {
        self.command(PumpCommand::Send(whom, (message, payload))).await;
    }

    /// Brings in a second worker: it is told `first`, then gets the retained units, then what the
    /// other gets.
    pub(super) async fn attach(
        &self,
        outbox: WorkerSender,
        first: Vec<Outgoing>,
    ) -> Arc<SentCounts> {
        let lane = WorkerLane::start(outbox);
        let sent = Arc::clone(&lane.sent);
        self.command(PumpCommand::Attach(lane, first)).await;
        sent
    }

    /// Takes no more units from the source until [`promote`](Self::promote) or
    /// [`detach`](Self::detach).
    pub(super) async fn pause(&self) {
        self.command(PumpCommand::Pause).await;
    }

    /// The worker that got ready is the one that speaks from the next unit on. The other gets no
    /// more, and what it misses is kept.
    pub(super) async fn promote(&self) {
        self.command(PumpCommand::Promote).await;
    }

    /// Closes the connection to the worker that was passed over.
    pub(super) async fn commit(&self) {
        self.command(PumpCommand::Commit).await;
    }

    /// The worker that was passed over speaks again, and gets what it has missed; the other one's
    /// connection is closed.
    pub(super) async fn revert(&self) {
        self.command(PumpCommand::Revert).await;
    }

    /// Closes the connection to the worker that was getting ready. The other goes on.
    pub(super) async fn detach(&self) {
        self.command(PumpCommand::Detach).await;
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

    async fn command(&self, command: PumpCommand) {
        // A pump that takes no more has failed, which `stop` tells.
        let _ = self.commands.send(command).await;
    }
}

/// The pump's own state.
struct Pump {
    active: WorkerLane,
    candidate: Option<WorkerLane>,
    /// The lane of a worker that was passed over, and what it has missed.
    superseded: Option<(WorkerLane, Vec<LaneItem>)>,
    retained: RetainedUnits,
    paused: bool,
    ended: bool,
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
            let speaking = Arc::clone(&self.active.queue);
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => return subscription,
                },
                event = subscription.next(), if open && room => self.event(event).await,
                () = speaking.written.notified(), if open && !room => {}
            }
        }
    }

    fn is_withholding_too_much(&self) -> bool {
        self.superseded.as_ref().is_some_and(|(_, missed)| missed.len() >= MAX_BEHIND)
    }

    async fn event(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Unit(unit) => {
                self.retained.push(&unit);
                if let Some((_, missed)) = &mut self.superseded {
                    missed.push(LaneItem::Unit(Arc::clone(&unit)));
                }
                if self.candidate.as_ref().is_some_and(|lane| !lane.offer(&unit)) {
                    // It does not keep up with decoding alone: its end of the connection tells the
                    // session.
                    self.candidate = None;
                }
                self.active.push(LaneItem::Unit(unit));
            }
            SourceEvent::Up => self.note(SourceNote::Up).await,
            SourceEvent::Down(fault) => self.note(SourceNote::Down(fault.message)).await,
            SourceEvent::Ended => {
                self.ended = true;
                // Told before the worker can say that it has finished.
                self.note(SourceNote::Ended).await;
                if let Some((_, missed)) = &mut self.superseded {
                    missed.push(LaneItem::End);
                }
                self.active.push(LaneItem::End);
            }
        }
    }

    async fn note(&self, note: SourceNote) {
        // Without anyone to hear it the session is over.
        let _ = self.notes.send(note).await;
    }

    fn command(&mut self, command: PumpCommand) {
        match command {
            PumpCommand::Send(Target::Active, told) => self.active.push(LaneItem::Message(told)),
            PumpCommand::Send(Target::Candidate, told) => {
                if let Some(ready) = &self.candidate {
                    ready.push(LaneItem::Message(told));
                }
            }
            PumpCommand::Attach(lane, first) => {
                let speaks =
                    first.iter().any(|(message, _)| matches!(message, ToWorker::Activate { .. }));
                first.into_iter().for_each(|told| lane.push(LaneItem::Message(told)));
                let units = self.retained.units.iter().map(|unit| LaneItem::Unit(Arc::clone(unit)));
                units.for_each(|unit| lane.push(unit));
                if self.ended && speaks {
                    lane.push(LaneItem::End);
                }
                self.candidate = Some(lane);
            }
            PumpCommand::Pause => self.paused = true,
            PumpCommand::Promote => {
                self.paused = false;
                if let Some(ready) = self.candidate.take() {
                    let passed = std::mem::replace(&mut self.active, ready);
                    // One at a time is passed over; of two the older is not needed any more.
                    self.superseded = Some((passed, Vec::new()));
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

/// Something to be written to a worker.
enum LaneItem {
    Unit(Arc<AccessUnit>),
    Message(Outgoing),
    End,
}

impl LaneItem {
    /// What it adds to the bound on waiting bytes.
    fn bytes(&self) -> usize {
        match self {
            Self::Unit(unit) => unit.data.len(),
            Self::Message((_, payload)) => payload.len(),
            Self::End => 0,
        }
    }
}

/// What waits to be written to one worker, and the task that writes it. Dropping it closes the
/// connection.
struct WorkerLane {
    queue: Arc<LaneQueue>,
    sent: Arc<SentCounts>,
    writer: JoinHandle<()>,
}

#[derive(Default)]
struct LaneQueue {
    waiting: Mutex<LaneItems>,
    /// Something waits.
    added: Notify,
    /// Something was taken.
    written: Notify,
}

#[derive(Default)]
struct LaneItems {
    items: VecDeque<LaneItem>,
    bytes: usize,
    /// The worker is gone: nothing is taken any more.
    broken: bool,
}

impl LaneItems {
    fn push(&mut self, item: LaneItem) {
        self.bytes = self.bytes.saturating_add(item.bytes());
        self.items.push_back(item);
    }
}

impl LaneQueue {}

impl WorkerLane {
    fn start(outbox: WorkerSender) -> Self {
        let (queue, sent) = (Arc::<LaneQueue>::default(), Arc::<SentCounts>::default());
        let writer = tokio::spawn(write(outbox, Arc::clone(&queue), Arc::clone(&sent)));
        Self { queue, sent, writer }
    }

    /// Queues an item.
    fn push(&self, item: LaneItem) {
        self.queue.waiting.lock().push(item);
        self.queue.added.notify_one();
    }

    /// Queues a unit unless as much waits as a worker may be behind. Whether it did.
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

/// Writes what is queued until the worker is gone.
async fn write(mut outbox: WorkerSender, queue: Arc<LaneQueue>, sent: Arc<SentCounts>) {
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
                let written = outbox.send_unit(&unit).await;
                sent.units.fetch_add(1, Ordering::Relaxed);
                written
            }
            LaneItem::Message((message, payload)) => {
                if matches!(message, ToWorker::Activate { .. }) {
                    // The worker counts from here on, too.
                    sent.units.store(0, Ordering::Relaxed);
                }
                outbox.send(&message, &payload).await
            }
            LaneItem::End => {
                sent.end.store(true, Ordering::Release);
                outbox.send(&ToWorker::EndOfStream, &[]).await
            }
        };
        let mut waiting = queue.waiting.lock();
        waiting.bytes = waiting.bytes.saturating_sub(bytes);
        waiting.broken = written.is_err();
        let broken = waiting.broken;
        drop(waiting);
        if broken {
            // Its end of the connection tells the session; nothing more leaves the source for it.
            return;
        }
        queue.written.notify_one();
    }
}

/// The units from a key unit on that a worker needs to decode every frame that the one which speaks
/// has not done with.
struct RetainedUnits {
    units: VecDeque<Arc<AccessUnit>>,
    bytes: usize,
    /// One more than the last frame that is done with; 0: none is.
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
            // A GOP that is longer than that is given up: who joins waits for the next key unit.
            self.drop_first_gop();
        }
    }

    /// Forgets the GOPs before the last key unit from which all frames can be decoded that are not
    /// done with. Pictures that follow a key unit and are presented before it may refer to what was
    /// before it; there are no more of them than a decoder holds back.
    fn drop_done(&mut self) {
        let done = self.done.load(Ordering::Relaxed);
        let passed =
            |unit: &AccessUnit| unit.header.number.saturating_add(STANDBY_FRAMES as u64) <= done;
        while self.units.iter().skip(1).any(|unit| unit.header.key && passed(unit)) {
            self.drop_first_gop();
        }
    }

    /// Forgets the first GOP.
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
mod tests {
    use super::*;
    use crate::source::tests::unit;
    use ocelli_protocol::wire;
    use proptest::prelude::*;
    use tokio::io::AsyncReadExt;
    use tokio::net::unix::OwnedReadHalf;

    const GOP: u64 = 5;

    /// What a worker was sent, in order.
    #[derive(Debug, Clone, PartialEq)]
    enum Got {
        Unit(u64),
        Told(ToWorker),
        End,
    }

    /// Everything up to the end of the connection.
    async fn all(mut from: OwnedReadHalf) -> Vec<Got> {
        let mut got = Vec::new();
        let mut header = [0; wire::HEADER];
        while from.read_exact(&mut header).await.is_ok() {
            let (message, payload) = wire::decode_header(header).unwrap();
            let mut bytes = vec![0; message + payload];
            from.read_exact(&mut bytes).await.unwrap();
            got.push(match wire::decode(&bytes[..message]).unwrap() {
                ToWorker::Unit(header) => Got::Unit(header.number),
                ToWorker::EndOfStream => Got::End,
                other => Got::Told(other),
            });
        }
        got
    }

    struct Rig {
        pump: Pump,
        notes: mpsc::Receiver<SourceNote>,
        done: Arc<AtomicU64>,
        number: u64,
    }

    /// A pump and the reader of its first worker.
    fn rig() -> (Rig, JoinHandle<Vec<Got>>) {
        let (outbox, from) = WorkerSender::pair();
        let (notes, inbox) = mpsc::channel(NOTE_CAPACITY);
        let done = Arc::<AtomicU64>::default();
        let pump = Pump {
            active: WorkerLane::start(outbox),
            candidate: None,
            superseded: None,
            retained: RetainedUnits::new(Arc::clone(&done)),
            paused: false,
            ended: false,
            notes,
        };
        (Rig { pump, notes: inbox, done, number: 0 }, tokio::spawn(all(from)))
    }

    impl Rig {
        async fn units(&mut self, count: u64) {
            for number in self.number..self.number + count {
                self.pump
                    .event(SourceEvent::Unit(unit(number, number.is_multiple_of(GOP), 1)))
                    .await;
            }
            self.number += count;
        }

        fn join(&mut self, first: Vec<Outgoing>) -> JoinHandle<Vec<Got>> {
            let (outbox, from) = WorkerSender::pair();
            self.pump.command(PumpCommand::Attach(WorkerLane::start(outbox), first));
            tokio::spawn(all(from))
        }

        /// Ends the pump once everything is written.
        async fn end(self) {
            for lane in
                [Some(&self.pump.active), self.pump.candidate.as_ref()].into_iter().flatten()
            {
                written(lane).await;
            }
        }
    }

    /// Waits until everything in a lane is written: the item that is taken last is written before
    /// the one behind it is taken.
    async fn written(lane: &WorkerLane) {
        for _ in 0..2 {
            lane.push(LaneItem::Message((ToWorker::Reinstantiate, Vec::new())));
            while !lane.queue.waiting.lock().items.is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    fn units(got: &[Got]) -> Vec<u64> {
        got.iter()
            .filter_map(|got| if let Got::Unit(number) = got { Some(*number) } else { None })
            .collect()
    }

    #[tokio::test]
    async fn the_new_worker_gets_what_it_needs_to_go_on_and_then_the_same_units() {
        let (mut rig, blue) = rig();
        rig.units(23).await;
        rig.done.store(18, Ordering::Relaxed);
        let green = rig.join(Vec::new());
        rig.units(4).await;
        rig.pump.command(PumpCommand::Pause);
        rig.pump.command(PumpCommand::Send(Target::Active, (ToWorker::Snapshot, Vec::new())));
        rig.pump.command(PumpCommand::Send(
            Target::Candidate,
            (ToWorker::Activate { after: Some(26) }, Vec::new()),
        ));
        rig.pump.command(PumpCommand::Promote);
        rig.units(3).await;
        written(&rig.pump.superseded.as_ref().unwrap().0).await;
        rig.pump.command(PumpCommand::Commit);
        let blue = blue.await.unwrap();
        rig.end().await;
        let green = green.await.unwrap();
        assert_eq!(units(&blue), (0..27).collect::<Vec<_>>());
        assert_eq!(blue[27], Got::Told(ToWorker::Snapshot));
        // Nothing was said to be done with when the key units came, so all of them are kept.
        assert_eq!(units(&green), (0..30).collect::<Vec<_>>());
        assert_eq!(green[27], Got::Told(ToWorker::Activate { after: Some(26) }));
    }

    #[tokio::test]
    async fn a_worker_that_goes_on_for_a_lost_one_is_told_first_and_gets_the_end_too() {
        let (mut rig, blue) = rig();
        rig.units(7).await;
        rig.pump.event(SourceEvent::Ended).await;
        assert!(matches!(rig.notes.recv().await, Some(SourceNote::Ended)));
        let green = rig.join(vec![(ToWorker::Activate { after: Some(3) }, Vec::new())]);
        rig.pump.command(PumpCommand::Promote);
        rig.pump.command(PumpCommand::Commit);
        rig.end().await;
        let green = green.await.unwrap();
        assert_eq!(green[0], Got::Told(ToWorker::Activate { after: Some(3) }));
        assert_eq!((units(&green), &green[8]), ((0..7).collect(), &Got::End));
        drop(blue);
    }

    #[tokio::test]
    async fn a_worker_that_does_not_keep_up_with_decoding_is_let_go() {
        let (mut rig, blue) = rig();
        let (outbox, unread) = WorkerSender::pair();
        rig.pump.command(PumpCommand::Attach(WorkerLane::start(outbox), Vec::new()));
        for number in 0..2 * MAX_BEHIND as u64 {
            rig.pump.event(SourceEvent::Unit(unit(number, number == 0, 10_000))).await;
        }
        assert!(rig.pump.candidate.is_none());
        rig.end().await;
        assert_eq!(
            units(&blue.await.unwrap()).len(),
            2 * MAX_BEHIND,
            "the other one does not notice"
        );
        drop(unread);
    }

    #[test]
    fn what_is_retained_begins_with_a_key_unit_and_covers_what_is_not_done_with() {
        proptest!(|(steps in proptest::collection::vec((1u64..40, 0u64..40), 1..40))| {
            let done = Arc::<AtomicU64>::default();
            let mut retained = RetainedUnits::new(Arc::clone(&done));
            let mut number = 0;
            for (count, behind) in steps {
                for next in number..number + count {
                    retained.push(&unit(next, next.is_multiple_of(GOP), 1));
                }
                number += count;
                let first = retained.units.front().unwrap();
                prop_assert!(first.header.key);
                let so_far = done.load(Ordering::Relaxed);
                prop_assert!(first.header.number <= so_far, "frame {so_far} needs unit \
                    {}", first.header.number);
                prop_assert_eq!(retained.bytes, retained.units.len());
                done.fetch_max(number.saturating_sub(behind), Ordering::Relaxed);
            }
        });
    }

    #[derive(Debug, Clone)]
    enum FeedStep {
        Units(u64),
        Join,
        Dismiss,
        Change { withheld: u64, recall: bool },
    }

    fn step() -> impl Strategy<Value = FeedStep> {
        prop_oneof![
            3 => (1u64..12).prop_map(FeedStep::Units),
            2 => Just(FeedStep::Join),
            1 => Just(FeedStep::Dismiss),
            2 => (0u64..12, any::<bool>()).prop_map(|(withheld, recall)| FeedStep::Change { withheld, recall }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_changes_places_every_unit_reaches_the_one_that_speaks_once(
            steps in proptest::collection::vec(step(), 1..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let (mut rig, first) = rig();
                // Who speaks, and from which unit on; where it stopped.
                let (mut speaks, mut from) = (first, 0);
                let mut spoke: Vec<(JoinHandle<Vec<Got>>, u64, u64)> = Vec::new();
                let mut ready = None;
                for step in steps {
                    match step {
                        FeedStep::Units(count) => rig.units(count).await,
                        FeedStep::Join => ready = Some(rig.join(Vec::new())),
                        FeedStep::Dismiss => {
                            rig.pump.command(PumpCommand::Detach);
                            ready = None;
                        }
                        FeedStep::Change { withheld, recall } => {
                            let Some(green) = ready.take() else { continue };
                            rig.pump.command(PumpCommand::Pause);
                            let at = rig.number;
                            rig.pump.command(PumpCommand::Promote);
                            rig.units(withheld).await;
                            if recall {
                                rig.pump.command(PumpCommand::Revert);
                            } else {
                                written(&rig.pump.superseded.as_ref().unwrap().0).await;
                                rig.pump.command(PumpCommand::Commit);
                                spoke.push((std::mem::replace(&mut speaks, green), from, at));
                                from = at;
                            }
                        }
                    }
                }
                let end = rig.number;
                rig.end().await;
                spoke.push((speaks, from, end));
                let mut heard = Vec::new();
                for (got, from, to) in spoke {
                    let got = units(&got.await.unwrap());
                    assert!(got.is_sorted_by(|one, other| one + 1 == *other), "{got:?}");
                    heard.extend(got.into_iter().filter(|number| (from..to).contains(number)));
                }
                assert_eq!(heard, (0..end).collect::<Vec<_>>());
            });
        }
    }
}
