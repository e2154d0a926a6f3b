//! The queue between intake and pipeline: bounded, in order, and the place where a slow pipeline
//! skips frames.

use std::collections::VecDeque;
use std::sync::Arc;

use ocelli_protocol::worker::{Pacing, RequestKind, StoreContents};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::counters::SharedCounters;

/// Work for the pipeline thread. `F` is a decoded frame.
#[derive(Debug)]
pub enum Work<F> {
    Frame(F),
    Ask {
        /// Number of the request.
        id: u64,
        kind: RequestKind,
        /// JSON.
        request: String,
    },
    /// Load the host's content of the session's store.
    LoadStore(StoreContents),
    /// Process a kept frame and discard its output.
    DryRun {
        /// Number of the frame; `None` for the newest.
        frame: Option<u64>,
    },
    /// Replace the instance by a fresh one.
    Reinstantiate,
    /// Send the results of the following work.
    Activate {
        /// The last frame that another worker has processed.
        after: Option<u64>,
    },
    /// Send the pipeline's state.
    Snapshot,
    /// Take over a state.
    Restore {
        /// The version that wrote it.
        version: String,
        /// The bytes of the state.
        state: Vec<u8>,
    },
    /// The source has ended.
    EndOfStream,
}

/// Most decoded frames of a file that wait: one in process, one ready, so that decoding and
/// processing overlap.
const FILE_FRAMES: usize = 1;

/// Most other work that waits. A host that asks faster than the pipeline answers has to wait.
const OTHER_WORK: usize = 64;

struct QueueState<F> {
    work: VecDeque<Work<F>>,
    /// The pipeline thread has done all work that it has taken.
    idle: bool,
    closed: bool,
}

/// See the module's documentation.
pub struct WorkQueue<F> {
    pacing: Pacing,
    counters: Arc<SharedCounters>,
    state: Mutex<QueueState<F>>,
    changed: Condvar,
}

impl<F> WorkQueue<F> {
    /// An empty queue that counts what it skips.
    pub fn new(pacing: Pacing, counters: Arc<SharedCounters>) -> Self {
        let state = QueueState { work: VecDeque::new(), idle: false, closed: false };
        Self { pacing, counters, state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Adds work, in order. Waits where the bound is reached, except for a live source's frame:
    /// that takes the place of the last one if it still waits, and the one that it replaced is
    /// counted as skipped. Work for a closed queue is dropped.
    pub fn push(&self, work: Work<F>) {
        let mut state = self.state.lock();
        match (&work, self.pacing) {
            (Work::Frame(_), Pacing::NewestWins) => {
                if let Some(last @ Work::Frame(_)) = state.work.back_mut() {
                    *last = work;
                    self.counters.update(|counters| counters.skipped_newer += 1);
                    return;
                }
            }
            (Work::Frame(_), Pacing::EveryFrame) => {
                self.wait(&mut state, |state| frames(&state.work) >= FILE_FRAMES);
            }
            _ => {
                self.wait(&mut state, |state| state.work.len() - frames(&state.work) >= OTHER_WORK)
            }
        }
        if !state.closed {
            state.work.push_back(work);
            self.changed.notify_all();
        }
    }

    /// The next work; `None` once the queue is closed. Waits while the queue is empty. The caller
    /// has done the work that it took before.
    pub fn next(&self) -> Option<Work<F>> {
        let mut state = self.state.lock();
        state.idle = true;
        if state.work.is_empty() {
            self.changed.notify_all();
            self.wait(&mut state, |state| state.work.is_empty());
        }
        if state.closed {
            return None;
        }
        state.idle = false;
        let work = state.work.pop_front();
        self.changed.notify_all();
        work
    }

    /// Waits until all work is done. Gives whether the queue is still open.
    pub fn wait_idle(&self) -> bool {
        let mut state = self.state.lock();
        self.wait(&mut state, |state| !state.idle || !state.work.is_empty());
        !state.closed
    }

    /// Whether the queue is closed.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Wakes both sides and lets nothing more through.
    pub fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait(
        &self,
        state: &mut MutexGuard<'_, QueueState<F>>,
        blocked: impl Fn(&QueueState<F>) -> bool,
    ) {
        self.changed.wait_while(state, |state| !state.closed && blocked(state));
    }
}

fn frames<F>(work: &VecDeque<Work<F>>) -> usize {
    work.iter().filter(|work| matches!(work, Work::Frame(_))).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn new(pacing: Pacing) -> WorkQueue<u32> {
        WorkQueue::new(pacing, Arc::default())
    }

    fn frame(queue: &WorkQueue<u32>) -> Option<u32> {
        match queue.next()? {
            Work::Frame(frame) => Some(frame),
            other => panic!("not a frame: {other:?}"),
        }
    }

    #[test]
    fn the_newest_frame_wins_and_the_skipped_are_counted() {
        let queue = new(Pacing::NewestWins);
        (0..5).for_each(|number| queue.push(Work::Frame(number)));
        assert_eq!(frame(&queue), Some(4));
        assert_eq!(queue.counters.snapshot().skipped_newer, 4);
    }

    #[test]
    fn a_frame_does_not_overtake_what_was_asked_before_it() {
        let queue = new(Pacing::NewestWins);
        queue.push(Work::Frame(1));
        queue.push(Work::Snapshot);
        queue.push(Work::Frame(2));
        queue.push(Work::Frame(3));
        assert_eq!(frame(&queue), Some(1));
        assert!(matches!(queue.next(), Some(Work::Snapshot)));
        assert_eq!(frame(&queue), Some(3));
    }

    #[test]
    fn every_frame_of_a_file_comes_through_in_order() {
        let queue = Arc::new(new(Pacing::EveryFrame));
        let intake = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                (0..500).for_each(|number| queue.push(Work::Frame(number)));
                queue.push(Work::EndOfStream);
            }
        });
        for expected in 0..500 {
            assert_eq!(frame(&queue), Some(expected));
        }
        assert!(matches!(queue.next(), Some(Work::EndOfStream)));
        intake.join().unwrap();
        assert_eq!(queue.counters.snapshot().skipped_newer, 0);
    }

    #[test]
    fn work_is_done_when_more_is_asked_for() {
        let queue = Arc::new(new(Pacing::EveryFrame));
        let done = Arc::new(AtomicBool::new(false));
        queue.push(Work::Frame(1));
        let worker = std::thread::spawn({
            let (queue, done) = (Arc::clone(&queue), Arc::clone(&done));
            move || {
                assert_eq!(frame(&queue), Some(1));
                std::thread::yield_now();
                done.store(true, Ordering::Release);
                assert!(queue.next().is_none());
            }
        });
        assert!(queue.wait_idle());
        assert!(done.load(Ordering::Acquire));
        queue.close();
        worker.join().unwrap();
        assert!(!queue.wait_idle());
    }

    #[test]
    fn closing_frees_whoever_waits() {
        let queue = Arc::new(new(Pacing::EveryFrame));
        queue.push(Work::Frame(1));
        let waiting = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(Work::Frame(2))
        });
        queue.close();
        waiting.join().unwrap();
        assert!(queue.next().is_none());
    }
}
