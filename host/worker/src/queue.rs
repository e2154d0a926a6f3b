//! The queue between intake and pipeline: bounded, in order, and the place where a slow pipeline
//! skips frames.

use std::collections::VecDeque;
use std::sync::Arc;

use ocelli_protocol::worker::{Pacing, StoreContents};
use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::counters::SharedCounters;

/// Something for the pipeline thread to do. `F` is a decoded frame.
#[derive(Debug)]
pub enum Work<F> {
    /// Process a frame.
    Frame(F),
    /// Answer a question.
    Command {
        /// The question's number.
        id: u64,
        /// JSON.
        request: String,
    },
    /// Take over what the host has kept of the session's store.
    LoadStore(StoreContents),
    /// Process a frame of those that are kept, unheard.
    DryRun {
        /// Its number; none: the newest.
        frame: Option<u64>,
    },
    /// Make a fresh instance.
    Reinstantiate,
    /// What follows is heard.
    Activate {
        /// The last frame that another worker has processed.
        after: Option<u64>,
    },
    /// Hand over the state.
    Snapshot,
    /// Take over a state.
    Restore {
        /// The version that gave it.
        version: String,
        /// The state.
        state: Vec<u8>,
    },
    /// The source has ended.
    EndOfStream,
}

/// Most frames of a file that wait decoded: one in work, one ready, so that decoding and processing
/// overlap.
const FILE_FRAMES: usize = 1;

/// Most other work that waits. A host that asks faster than the pipeline answers has to wait.
const OTHER_WORK: usize = 64;

struct QueueState<F> {
    work: VecDeque<Work<F>>,
    /// Whoever does the work has done all that was taken out.
    idle: bool,
    closed: bool,
}

/// See the module's documentation.
pub struct WorkQueue<F> {
    pacing: Pacing,
    tally: Arc<SharedCounters>,
    inner: Mutex<QueueState<F>>,
    changed: Condvar,
}

impl<F> WorkQueue<F> {
    /// An empty queue that counts what it skips.
    pub fn new(pacing: Pacing, tally: Arc<SharedCounters>) -> Self {
        let inner = QueueState { work: VecDeque::new(), idle: false, closed: false };
        Self { pacing, tally, inner: Mutex::new(inner), changed: Condvar::new() }
    }

    /// Adds work, in order. Waits where the bound is reached, except for a live source's frame:
    /// that takes the place of the last one if it still waits, and the one that it replaced is
    /// counted as skipped. Work for a closed queue is dropped.
    pub fn push(&self, work: Work<F>) {
        let mut inner = self.inner.lock();
        match (&work, self.pacing) {
            (Work::Frame(_), Pacing::NewestWins) => {
                if let Some(last @ Work::Frame(_)) = inner.work.back_mut() {
                    *last = work;
                    self.tally.update(|counters| counters.skipped_newer += 1);
                    return;
                }
            }
            (Work::Frame(_), Pacing::EveryFrame) => {
                self.wait(&mut inner, |inner| frames(&inner.work) >= FILE_FRAMES);
            }
            _ => {
                self.wait(&mut inner, |inner| inner.work.len() - frames(&inner.work) >= OTHER_WORK)
            }
        }
        if !inner.closed {
            inner.work.push_back(work);
            self.changed.notify_all();
        }
    }

    /// The next work, or none once the queue is closed. Waits while there is none. Whoever asks has
    /// done what came before.
    pub fn next(&self) -> Option<Work<F>> {
        let mut inner = self.inner.lock();
        inner.idle = true;
        if inner.work.is_empty() {
            self.changed.notify_all();
            self.wait(&mut inner, |inner| inner.work.is_empty());
        }
        if inner.closed {
            return None;
        }
        inner.idle = false;
        let work = inner.work.pop_front();
        self.changed.notify_all();
        work
    }

    /// Waits until all work is done, and gives whether the queue is still open.
    pub fn wait_idle(&self) -> bool {
        let mut inner = self.inner.lock();
        self.wait(&mut inner, |inner| !inner.idle || !inner.work.is_empty());
        !inner.closed
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.inner.lock().closed
    }

    /// Wakes both sides and lets nothing more through.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.changed.notify_all();
    }

    fn wait(
        &self,
        inner: &mut MutexGuard<'_, QueueState<F>>,
        full: impl Fn(&QueueState<F>) -> bool,
    ) {
        self.changed.wait_while(inner, |inner| !inner.closed && full(inner));
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
        assert_eq!(queue.tally.snapshot().skipped_newer, 4);
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
        assert_eq!(queue.tally.snapshot().skipped_newer, 0);
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
