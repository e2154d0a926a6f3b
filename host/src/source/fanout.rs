//! One live source, many subscribers: each has a queue of its own, so that none waits for another.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::gop::GopCache;
use super::viewers::PictureTap;
use super::{AccessUnit, SourceEvent, SourceFault};

/// Units that may wait for one subscriber, not counting the GOP that it got when it joined: 10 s at
/// 25 frames a second. A worker that restarts is back within that time and loses nothing; one that
/// hangs longer is given up by its session in any case. Units are shared.
const MAX_WAITING_UNITS: usize = 250;
/// Bytes that may wait for one subscriber, likewise: 10 s of 25 Mbit/s, the rate of a 4K camera.
const MAX_WAITING_BYTES: usize = 32 << 20;

/// The last known state of the source.
#[derive(Clone, Debug, Default)]
enum SourceState {
    /// No attempt has ended yet.
    #[default]
    Unknown,
    Up,
    Down(SourceFault),
}

/// The hub of one live source.
#[derive(Debug, Default)]
pub(super) struct Fanout {
    state: Mutex<FanoutState>,
    pictures: PictureTap,
}

#[derive(Debug, Default)]
struct FanoutState {
    status: SourceState,
    gop: GopCache,
    queues: HashMap<u64, SubscriberQueue>,
    next_queue: u64,
    other_streams: Vec<String>,
}

/// The queue of one subscriber.
#[derive(Debug)]
struct SubscriberQueue {
    events: VecDeque<SourceEvent>,
    units: usize,
    bytes: usize,
    /// Units and bytes that the first GOP adds to the bounds: a long one must not cause drops.
    head_start: (usize, usize),
    /// Units are dropped up to the next key unit.
    skipping: bool,
    shared: Arc<QueueSignals>,
}

/// State shared by a subscriber and its queue.
#[derive(Debug, Default)]
struct QueueSignals {
    wake: Notify,
    dropped: Arc<AtomicU64>,
}

impl Fanout {
    /// Adds a subscriber: it gets the source's state, the current GOP and then all further units.
    pub(super) fn join(self: &Arc<Self>) -> FanoutSubscriber {
        let mut state = self.state.lock();
        let shared = Arc::new(QueueSignals::default());
        let mut queue = SubscriberQueue::new(Arc::clone(&shared));
        match &state.status {
            SourceState::Unknown => {}
            SourceState::Up => queue.push_state(SourceEvent::Up),
            SourceState::Down(fault) => queue.push_state(SourceEvent::Down(fault.clone())),
        }
        for unit in state.gop.units() {
            queue.append(Arc::clone(unit));
        }
        queue.head_start = (queue.units, queue.bytes);
        let id = state.next_queue;
        state.next_queue += 1;
        state.queues.insert(id, queue);
        FanoutSubscriber { fanout: Arc::clone(self), id, shared }
    }

    /// Hands a unit to every viewer, and then to every subscriber.
    pub(super) fn unit(&self, unit: AccessUnit) {
        let unit = Arc::new(unit);
        // First: who is woken with a unit asks where the times of its stream lie.
        self.pictures.unit(&unit);
        let mut state = self.state.lock();
        state.gop.push(&unit);
        for queue in state.queues.values_mut() {
            queue.push_unit(&unit);
        }
    }

    /// Notes which streams the source offers beside the one that is read: "audio aac".
    pub(super) fn set_other_streams(&self, streams: Vec<String>) {
        self.state.lock().other_streams = streams;
    }

    /// Reports that the source delivers.
    pub(super) fn up(&self) {
        let mut state = self.state.lock();
        state.status = SourceState::Up;
        state.broadcast(&SourceEvent::Up);
    }

    /// Reports that the source is down until the next [`Fanout::up`]. A known fault is not
    /// repeated, whatever numbers its text has.
    pub(super) fn down(&self, fault: SourceFault) {
        let mut state = self.state.lock();
        // Units after the break do not continue the GOP, and old pictures are of no use.
        state.gop.clear();
        self.pictures.clear();
        if matches!(&state.status, SourceState::Down(known) if known.key() == fault.key()) {
            return;
        }
        state.status = SourceState::Down(fault.clone());
        state.broadcast(&SourceEvent::Down(fault));
    }
}

impl FanoutState {
    fn broadcast(&mut self, event: &SourceEvent) {
        for queue in self.queues.values_mut() {
            queue.push_state(event.clone());
        }
    }
}

impl SubscriberQueue {
    fn new(shared: Arc<QueueSignals>) -> Self {
        Self {
            events: VecDeque::new(),
            units: 0,
            bytes: 0,
            head_start: (0, 0),
            skipping: false,
            shared,
        }
    }

    fn push_unit(&mut self, unit: &Arc<AccessUnit>) {
        let full = self.units >= MAX_WAITING_UNITS + self.head_start.0
            || self.bytes.saturating_add(unit.data.len()) > MAX_WAITING_BYTES + self.head_start.1;
        // A unit larger than the whole bound goes to an empty queue all the same.
        if (full && self.units > 0) || (self.skipping && !unit.header.key) {
            self.skipping = true;
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let unit = if std::mem::take(&mut self.skipping) {
            let mut unit = AccessUnit::clone(unit);
            unit.header.discontinuity = true;
            Arc::new(unit)
        } else {
            Arc::clone(unit)
        };
        self.append(unit);
    }

    fn append(&mut self, unit: Arc<AccessUnit>) {
        self.units += 1;
        self.bytes += unit.data.len();
        self.events.push_back(SourceEvent::Unit(unit));
        self.shared.wake.notify_one();
    }

    /// The newest of adjacent states replaces the others: so there are at most as many as units,
    /// however often a camera reconnects while the subscriber does not read.
    fn push_state(&mut self, event: SourceEvent) {
        if matches!(self.events.back(), Some(SourceEvent::Up | SourceEvent::Down(_))) {
            self.events.pop_back();
        }
        self.events.push_back(event);
        self.shared.wake.notify_one();
    }

    fn pop(&mut self) -> Option<SourceEvent> {
        let event = self.events.pop_front()?;
        if let SourceEvent::Unit(unit) = &event {
            self.units = self.units.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(unit.data.len());
            // The allowance for the first GOP shrinks as it is read.
            self.head_start.0 = self.head_start.0.saturating_sub(1);
            self.head_start.1 = self.head_start.1.saturating_sub(unit.data.len());
        }
        Some(event)
    }
}

/// A subscriber's end of its queue; leaves when dropped.
#[derive(Debug)]
pub(super) struct FanoutSubscriber {
    fanout: Arc<Fanout>,
    id: u64,
    shared: Arc<QueueSignals>,
}

impl FanoutSubscriber {
    /// Where viewers join.
    pub(super) fn pictures(&self) -> PictureTap {
        self.fanout.pictures.clone()
    }

    /// The streams beside the one that is read.
    pub(super) fn other_streams(&self) -> Vec<String> {
        self.fanout.state.lock().other_streams.clone()
    }

    /// The next event. Cancel-safe: what is not returned stays queued.
    pub(super) async fn next(&self) -> SourceEvent {
        loop {
            if let Some(event) = self.pop() {
                return event;
            }
            // A push between the two lines leaves a permit, so it is not missed.
            self.shared.wake.notified().await;
        }
    }

    /// Units that this subscriber was too slow for, counted on.
    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.shared.dropped)
    }

    fn pop(&self) -> Option<SourceEvent> {
        self.fanout.state.lock().queues.get_mut(&self.id)?.pop()
    }
}

impl Drop for FanoutSubscriber {
    fn drop(&mut self) {
        self.fanout.state.lock().queues.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::unit;
    use super::super::{SourceFaultKind, SourceStep};
    use super::*;

    fn publish(fanout: &Fanout, numbers: std::ops::Range<u64>, gop: u64) {
        for number in numbers {
            fanout.unit(AccessUnit::clone(&unit(number, number.is_multiple_of(gop), 1)));
        }
    }

    fn drain(member: &FanoutSubscriber) -> Vec<SourceEvent> {
        std::iter::from_fn(|| member.pop()).collect()
    }

    fn units(events: &[SourceEvent]) -> Vec<(u64, bool)> {
        let unit = |event: &SourceEvent| match event {
            SourceEvent::Unit(unit) => Some((unit.header.number, unit.header.discontinuity)),
            _ => None,
        };
        events.iter().filter_map(unit).collect()
    }

    fn fault(message: &str) -> SourceFault {
        SourceFault::new(SourceFaultKind::Closed, SourceStep::Stream, message.to_owned())
    }

    #[test]
    fn a_slow_subscriber_goes_on_at_a_key_unit_and_the_others_lose_nothing() {
        let fanout = Arc::new(Fanout::default());
        let (slow, quick) = (fanout.join(), fanout.join());
        let mut got = Vec::new();
        for number in 0..400 {
            publish(&fanout, number..number + 1, 40);
            got.extend(units(&drain(&quick)));
        }
        assert_eq!(got, (0..400).map(|number| (number, false)).collect::<Vec<_>>());
        assert_eq!(quick.dropped().load(Ordering::Relaxed), 0);

        assert_eq!(
            units(&drain(&slow)),
            (0..250).map(|number| (number, false)).collect::<Vec<_>>()
        );
        assert_eq!(slow.dropped().load(Ordering::Relaxed), 150);
        publish(&fanout, 401..440, 40);
        assert!(drain(&slow).is_empty(), "still within a GOP whose start it missed");
        publish(&fanout, 440..443, 40);
        assert_eq!(units(&drain(&slow)), [(440, true), (441, false), (442, false)]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let fanout = Arc::new(Fanout::default());
        let slow = fanout.join();
        for number in 0..4 {
            fanout.unit(AccessUnit::clone(&unit(number, true, MAX_WAITING_BYTES / 2)));
        }
        assert_eq!(units(&drain(&slow)).len(), 2);
        assert_eq!(slow.dropped().load(Ordering::Relaxed), 2);
        fanout.unit(AccessUnit::clone(&unit(4, true, MAX_WAITING_BYTES + 1)));
        assert_eq!(units(&drain(&slow)), [(4, true)], "one unit always has room");
    }

    #[test]
    fn a_late_joiner_gets_the_current_gop_and_then_every_unit_once() {
        let fanout = Arc::new(Fanout::default());
        fanout.up();
        publish(&fanout, 0..57, 25);
        let late = fanout.join();
        publish(&fanout, 57..60, 25);
        let events = drain(&late);
        assert_eq!(events.first(), Some(&SourceEvent::Up));
        assert_eq!(units(&events), (50..60).map(|number| (number, false)).collect::<Vec<_>>());
    }

    #[test]
    fn a_joiner_of_a_long_gop_still_has_the_whole_bound_for_live_units() {
        let fanout = Arc::new(Fanout::default());
        publish(&fanout, 0..900, 1000);
        let late = fanout.join();
        publish(&fanout, 900..1000, 1000);
        assert_eq!(units(&drain(&late)).len(), 1000);
        assert_eq!(late.dropped().load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_joiner_while_the_source_is_down_is_told_and_gets_no_old_pictures() {
        let fanout = Arc::new(Fanout::default());
        fanout.up();
        publish(&fanout, 0..5, 25);
        fanout.down(fault("gone"));
        let late = fanout.join();
        assert_eq!(drain(&late), [SourceEvent::Down(fault("gone"))]);
    }

    #[test]
    fn a_camera_that_comes_and_goes_does_not_fill_the_queue_of_one_who_does_not_read() {
        let fanout = Arc::new(Fanout::default());
        let slow = fanout.join();
        for attempt in 0..10_000 {
            fanout.down(fault(&format!("attempt {attempt}")));
            fanout.up();
        }
        assert_eq!(drain(&slow), [SourceEvent::Up]);
    }

    #[test]
    fn a_fault_is_told_once_by_its_kind_and_step() {
        let fanout = Arc::new(Fanout::default());
        let member = fanout.join();
        fanout.down(fault("gone"));
        assert_eq!(drain(&member).len(), 1);
        fanout.down(fault("gone after 17 packets"));
        assert!(drain(&member).is_empty());
        let refused = SourceFault::new(
            SourceFaultKind::Protocol,
            SourceStep::Describe,
            "answers, and not in order".to_owned(),
        );
        fanout.down(refused.clone());
        assert_eq!(drain(&member), [SourceEvent::Down(refused)]);
    }

    #[tokio::test]
    async fn next_is_cancel_safe() {
        let fanout = Arc::new(Fanout::default());
        let member = fanout.join();
        for number in 0..100 {
            let waiting = tokio::time::timeout(std::time::Duration::ZERO, member.next());
            assert!(waiting.await.is_err());
            publish(&fanout, number..number + 1, 1);
            assert_eq!(units(&[member.next().await]), [(number, false)]);
        }
    }
}
