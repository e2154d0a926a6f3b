//! The queue between the dispatcher and the runners: [`FairQueue`] for many threads.

use std::time::Duration;

use ocelli_protocol::clock::monotonic_ns;
use parking_lot::{Condvar, Mutex};

use crate::fair::{FairQueue, QueuedRequest, Turn};

/// Requests that wait. Times are nanoseconds on the monotonic clock.
pub(crate) struct Queue<T> {
    state: Mutex<QueueState<T>>,
    /// Wakes a runner that has nothing to do.
    work: Condvar,
    /// Wakes those that collect a batch.
    more: Condvar,
}

struct QueueState<T> {
    fair: FairQueue<T>,
    /// Runners that collect a batch.
    collecting: usize,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// The runners end after the last waiting request.
    Drained,
    /// The runners end at once.
    Closed,
}

/// The next task of a runner.
pub(crate) enum QueueTask<T> {
    Run(T, Turn),
    /// Answer these, which have waited too long.
    Late(Vec<T>),
}

impl<T> Queue<T> {
    pub(crate) fn new(bound: usize) -> Self {
        let state =
            Mutex::new(QueueState { fair: FairQueue::new(bound), collecting: 0, end: None });
        Self { state, work: Condvar::new(), more: Condvar::new() }
    }

    /// Adds a request, or gives it back where the queue is full or ends.
    pub(crate) fn push(&self, request: QueuedRequest<T>) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.end.is_some() {
            return Err(request.item);
        }
        state.fair.push(request)?;
        let collecting = state.collecting > 0;
        drop(state);
        self.work.notify_one();
        if collecting {
            self.more.notify_all();
        }
        Ok(())
    }

    /// Waits for something to do; none once the queue has ended.
    pub(crate) fn take(&self) -> Option<QueueTask<T>> {
        let mut state = self.state.lock();
        loop {
            if state.end == Some(End::Closed) {
                return None;
            }
            let late = state.fair.take_late(monotonic_ns());
            if !late.is_empty() {
                return Some(QueueTask::Late(late));
            }
            if let Some((item, turn)) = state.fair.pop() {
                return Some(QueueTask::Run(item, turn));
            }
            if state.end.is_some() && state.fair.is_empty() {
                return None;
            }
            self.work.wait(&mut state);
        }
    }

    /// Waits until `until_ns` for at most `most` matching requests, out of turn.
    pub(crate) fn collect(
        &self,
        matches: impl Fn(&T) -> bool,
        most: usize,
        until_ns: u64,
    ) -> Vec<(T, Turn)> {
        let mut collected = Vec::new();
        let mut state = self.state.lock();
        loop {
            while collected.len() < most {
                let now_ns = monotonic_ns();
                let in_time =
                    |waiting: &QueuedRequest<T>| waiting.late_ns > now_ns && matches(&waiting.item);
                let Some(next) = state.fair.pop_like(in_time) else { break };
                collected.push(next);
            }
            let left = until_ns.saturating_sub(monotonic_ns());
            // A queue that ends takes no more requests.
            if collected.len() >= most || left == 0 || state.end.is_some() {
                return collected;
            }
            state.collecting += 1;
            self.more.wait_for(&mut state, Duration::from_nanos(left));
            state.collecting -= 1;
        }
    }

    /// Ends turns and charges each with its time.
    pub(crate) fn finish(&self, turns: impl IntoIterator<Item = Turn>, each_ns: u64) {
        let mut state = self.state.lock();
        for turn in turns {
            state.fair.finish(turn, each_ns);
        }
        // Requests may wait for an exclusive run, or it for them.
        let held_up = state.fair.is_idle() && !state.fair.is_empty();
        drop(state);
        if held_up {
            self.work.notify_all();
        }
    }

    /// The requests that have waited too long, and when the next will have.
    pub(crate) fn late(&self, now_ns: u64) -> (Vec<T>, Option<u64>) {
        let mut state = self.state.lock();
        (state.fair.take_late(now_ns), state.fair.next_late_ns())
    }

    /// Drops requests of clients that are gone.
    pub(crate) fn forget(&self, unwanted: impl Fn(&T) -> bool) {
        let forgotten = self.state.lock().fair.take_out(|request| unwanted(&request.item));
        drop(forgotten);
    }

    /// Lets the runners go once nothing waits any more.
    pub(crate) fn drain(&self) {
        self.end(End::Drained);
    }

    /// Releases the runners and drops waiting requests.
    pub(crate) fn close(&self) {
        self.end(End::Closed);
        self.forget(|_| true);
    }

    fn end(&self, end: End) {
        self.state.lock().end = Some(end);
        self.work.notify_all();
        self.more.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(item: u64, alone: bool) -> QueuedRequest<u64> {
        QueuedRequest { item, share: item, weight: 4, alone, late_ns: u64::MAX }
    }

    fn run(queue: &Queue<u64>) -> Option<(u64, Turn)> {
        match queue.take()? {
            QueueTask::Run(item, turn) => Some((item, turn)),
            QueueTask::Late(late) => panic!("late: {late:?}"),
        }
    }

    #[test]
    fn a_closed_queue_lets_waiting_runners_go_and_drops_what_waits() {
        let queue = Queue::new(8);
        std::thread::scope(|scope| {
            let runners: Vec<_> = (0..3).map(|_| scope.spawn(|| run(&queue).is_none())).collect();
            queue.close();
            assert!(runners.into_iter().all(|runner| runner.join().unwrap()));
        });
        assert_eq!(queue.push(request(1, false)), Err(1));
    }

    #[test]
    fn a_drained_queue_gives_out_what_waits_and_takes_no_more() {
        let queue = Queue::new(8);
        queue.push(request(1, false)).unwrap();
        queue.push(request(2, true)).unwrap();
        queue.drain();
        assert_eq!(queue.push(request(3, false)), Err(3));
        let (first, turn) = run(&queue).unwrap();
        std::thread::scope(|scope| {
            // Waits for the first run's end, since the second runs alone.
            let second = scope.spawn(|| run(&queue).map(|(item, _)| item));
            queue.finish([turn], 1);
            assert_eq!((first, second.join().unwrap()), (1, Some(2)));
        });
        assert!(queue.take().is_none());
    }

    #[test]
    fn what_has_waited_too_long_is_given_out_as_late() {
        let queue = Queue::new(8);
        queue.push(QueuedRequest { late_ns: 1, ..request(1, false) }).unwrap();
        queue.push(request(2, false)).unwrap();
        assert!(matches!(queue.take(), Some(QueueTask::Late(late)) if late == [1]));
        assert_eq!(run(&queue).unwrap().0, 2);
        queue.push(QueuedRequest { late_ns: 5, ..request(3, false) }).unwrap();
        assert_eq!(queue.late(4), (vec![], Some(5)));
        assert_eq!(queue.late(5), (vec![3], None));
    }

    #[test]
    fn a_batch_takes_what_comes_while_it_waits() {
        let queue = Queue::new(8);
        queue.push(request(2, false)).unwrap();
        queue.push(request(3, false)).unwrap();
        std::thread::scope(|scope| {
            let even = scope.spawn(|| queue.collect(|item| item % 2 == 0, 2, u64::MAX));
            queue.push(request(5, false)).unwrap();
            queue.push(request(4, false)).unwrap();
            let items: Vec<_> = even.join().unwrap().into_iter().map(|(item, _)| item).collect();
            assert_eq!(items, [2, 4]);
        });
        assert_eq!(queue.collect(|_| true, 8, 0).len(), 2, "3 and 5 are left");
    }

    #[test]
    fn a_batch_waits_no_longer_than_it_may() {
        let queue = Queue::<u64>::new(8);
        assert!(queue.collect(|_| true, 8, monotonic_ns() + 1_000_000).is_empty());
        queue.drain();
        assert!(queue.collect(|_| true, 8, u64::MAX).is_empty());
    }
}
