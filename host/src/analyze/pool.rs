//! Decides which worker analyses which image, and which workers there are. The [`Pool`] starts
//! nothing itself: it is called with each event and its time, and returns the [actions](PoolAction)
//! to take.
//!
//! A worker belongs to one pipeline. The pool decides in this order:
//!
//! 1. A pipeline without a worker gets one for its waiting images. At the limit of workers, the
//!    worker that has been idle for longest ends for it; one whose own images wait ends only after
//!    it has had its turn.
//! 2. An idle worker gets the next image of its pipeline.
//! 3. A pipeline whose images wait behind others gets more workers, up to the limit.
//! 4. A pipeline with reserved workers gets back those that it lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::AnalysisError;
use super::queue::{ImageQueue, WaitingImage};
use crate::util::backoff::BackoffPolicy;

/// Images that a worker analyses at least before it ends for another pipeline while images of its
/// own wait. A start costs as much as about ten images.
const MIN_SERVED_BEFORE_EVICTION: u32 = 8;

/// An image that has waited this long gets another worker, however few images wait. About as long
/// as a start takes.
const LATE_AFTER: Duration = Duration::from_millis(300);

/// Starts in a row that may fail for a temporary reason before the waiting images are refused.
const ATTEMPTS: u32 = 2;

/// Delays of the next start after losses of a pipeline's workers in a row.
const WAITS: BackoffPolicy = BackoffPolicy {
    // The first loss is made up for at once.
    free: 1,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
    jitter: 0.0,
};

/// Identifies a worker; never used again.
pub(super) type WorkerNumber = u64;

/// An action for the owner of the pool.
#[derive(Debug)]
pub(super) enum PoolAction<P> {
    /// Start a worker for a pipeline.
    Start(WorkerNumber, Arc<str>),
    /// Give an image to an idle worker.
    Assign(WorkerNumber, WaitingImage<P>),
    /// End an idle worker.
    End(WorkerNumber),
    /// Answer an image that no worker will take.
    Refuse(WaitingImage<P>, AnalysisError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PooledWorkerState {
    Starting,
    Idle(Instant),
    Busy,
    Ending,
}

#[derive(Debug)]
struct PooledWorker {
    pipeline: Arc<str>,
    state: PooledWorkerState,
    /// Images that it has analysed.
    served: u32,
}

/// A pipeline's waiting images, and what its workers have shown.
#[derive(Debug)]
struct PipelineWorkers<P> {
    queue: ImageQueue<P>,
    /// Workers that never end for being idle, nor for another pipeline.
    reserved: usize,
    /// Workers lost in a row that had no image.
    losses: u32,
    /// The number of the first worker started after the last loss. An image analysed by it or a
    /// later one resets `losses`.
    first_after_loss: WorkerNumber,
    /// Before this, a worker is started only for a pipeline that has none and whose images wait.
    not_before: Option<Instant>,
}

impl<P> PipelineWorkers<P> {
    fn new() -> Self {
        let queue = ImageQueue::default();
        Self { queue, reserved: 0, losses: 0, first_after_loss: 0, not_before: None }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }

    /// `next`: the number of the next worker.
    fn record_loss(&mut self, next: WorkerNumber, now: Instant) {
        self.first_after_loss = next;
        self.losses = self.losses.saturating_add(1);
        self.not_before = Some(now + WAITS.delay(self.losses, 0.0));
    }
}

/// A pipeline's workers by state.
#[derive(Debug, Clone, Copy, Default)]
struct WorkerCounts {
    starting: usize,
    idle: usize,
    busy: usize,
}

impl WorkerCounts {
    /// Workers that may still take an image: ending ones do not count.
    fn live(self) -> usize {
        self.starting + self.ready()
    }

    fn ready(self) -> usize {
        self.idle + self.busy
    }
}

/// Images and workers by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolLoad {
    /// Images that wait for a worker.
    pub waiting: usize,
    /// Workers that are not ready yet.
    pub starting: usize,
    /// Workers without an image.
    pub idle: usize,
    /// Workers with an image.
    pub busy: usize,
}

/// All workers and all waiting images. `P` is an image with all that its owner needs to answer it.
#[derive(Debug)]
pub(super) struct Pool<P> {
    limit: usize,
    idle: Duration,
    pipelines: BTreeMap<Arc<str>, PipelineWorkers<P>>,
    workers: BTreeMap<WorkerNumber, PooledWorker>,
    next: WorkerNumber,
    stopping: bool,
}

impl<P> Pool<P> {
    /// A pool of at most `limit` workers. A worker that was idle for `idle` ends, unless it is one
    /// of the `reserved` ones of its pipeline.
    pub(super) fn new<'a>(
        limit: usize,
        idle: Duration,
        reserved: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> Self {
        let mut pipelines = BTreeMap::new();
        for (pipeline, count) in reserved {
            let line = pipelines.entry(Arc::from(pipeline)).or_insert_with(PipelineWorkers::new);
            line.reserved += count;
        }
        Self { limit, idle, pipelines, workers: BTreeMap::new(), next: 0, stopping: false }
    }

    /// Whether this pipeline can ever have a worker: places reserved for others are never given
    /// away.
    pub(super) fn can_serve(&self, pipeline: &str) -> bool {
        let others = self.pipelines.iter().filter(|(name, _)| ***name != *pipeline);
        others.map(|(_, line)| line.reserved).sum::<usize>() < self.limit
    }

    pub(super) fn load(&self) -> PoolLoad {
        let count = |wanted: fn(PooledWorkerState) -> bool| {
            self.workers.values().filter(|worker| wanted(worker.state)).count()
        };
        PoolLoad {
            waiting: self.pipelines.values().map(|line| line.queue.len()).sum(),
            starting: count(|state| state == PooledWorkerState::Starting),
            idle: count(|state| matches!(state, PooledWorkerState::Idle(_))),
            busy: count(|state| state == PooledWorkerState::Busy),
        }
    }

    /// An image has come.
    pub(super) fn submit(
        &mut self,
        pipeline: &str,
        waiting: WaitingImage<P>,
        now: Instant,
    ) -> Vec<PoolAction<P>> {
        if self.stopping {
            return vec![PoolAction::Refuse(waiting, AnalysisError::shutting_down())];
        }
        self.pipeline(pipeline).queue.push(waiting);
        self.plan(now)
    }

    /// Takes a waiting image out. `None` if no such image waits.
    pub(super) fn cancel(&mut self, number: u64) -> Option<WaitingImage<P>> {
        self.pipelines.values_mut().find_map(|line| line.queue.remove(number))
    }

    /// A worker is ready for its first image.
    pub(super) fn ready(&mut self, worker: WorkerNumber, now: Instant) -> Vec<PoolAction<P>> {
        if let Some(worker) = self.workers.get_mut(&worker)
            && worker.state == PooledWorkerState::Starting
        {
            worker.state = PooledWorkerState::Idle(now);
        }
        self.plan(now)
    }

    /// A worker has answered and is ready for the next image.
    pub(super) fn served(&mut self, number: WorkerNumber, now: Instant) -> Vec<PoolAction<P>> {
        if let Some(worker) = self.workers.get_mut(&number)
            && worker.state == PooledWorkerState::Busy
        {
            worker.state = PooledWorkerState::Idle(now);
            worker.served = worker.served.saturating_add(1);
            if let Some(line) = self.pipelines.get_mut(&worker.pipeline)
                && number >= line.first_after_loss
            {
                (line.losses, line.not_before) = (0, None);
            }
        }
        self.plan(now)
    }

    /// A worker that was told to end is gone, or one that ended over an image that it had received.
    pub(super) fn ended(&mut self, worker: WorkerNumber, now: Instant) -> Vec<PoolAction<P>> {
        self.workers.remove(&worker);
        self.plan(now)
    }

    /// A worker that was ready is gone. `not_received`: an image that it was given and did not
    /// receive.
    pub(super) fn lost(
        &mut self,
        worker: WorkerNumber,
        not_received: Option<WaitingImage<P>>,
        now: Instant,
    ) -> Vec<PoolAction<P>> {
        let next = self.next;
        if let Some(worker) = self.workers.remove(&worker) {
            let line = self.pipeline(&worker.pipeline);
            not_received.into_iter().for_each(|waiting| line.queue.push_first(waiting));
            line.record_loss(next, now);
        }
        self.plan(now)
    }

    /// A worker did not start. `permanent`: the next one would not start either.
    pub(super) fn start_failed(
        &mut self,
        worker: WorkerNumber,
        fault: &AnalysisError,
        permanent: bool,
        now: Instant,
    ) -> Vec<PoolAction<P>> {
        let Some(PooledWorker { pipeline, .. }) = self.workers.remove(&worker) else {
            return self.plan(now);
        };
        let (next, others) = (self.next, self.count(&pipeline).ready() > 0);
        let line = self.pipeline(&pipeline);
        line.record_loss(next, now);
        let mut actions = Vec::new();
        if !others && (permanent || line.losses >= ATTEMPTS) {
            let refused = line.queue.drain();
            actions.extend(refused.map(|waiting| PoolAction::Refuse(waiting, fault.clone())));
        }
        actions.extend(self.plan(now));
        actions
    }

    /// To be called about once a second.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<PoolAction<P>> {
        let mut actions = Vec::new();
        for (number, pipeline) in
            self.idle_since(|since| now.saturating_duration_since(since) >= self.idle)
        {
            if self.has_surplus(&pipeline) {
                actions.push(self.end(number));
            }
        }
        actions.extend(self.plan(now));
        actions
    }

    /// Refuses all images and ends all workers, from now on.
    pub(super) fn stop(&mut self) -> Vec<PoolAction<P>> {
        self.stopping = true;
        let waiting = self.pipelines.values_mut().flat_map(|line| line.queue.drain());
        let mut actions: Vec<_> = waiting
            .map(|waiting| PoolAction::Refuse(waiting, AnalysisError::shutting_down()))
            .collect();
        let numbers: Vec<WorkerNumber> = self.workers.keys().copied().collect();
        actions.extend(numbers.into_iter().map(|number| self.end(number)));
        actions
    }

    fn plan(&mut self, now: Instant) -> Vec<PoolAction<P>> {
        if self.stopping {
            return Vec::new();
        }
        let mut actions = Vec::new();
        self.start_missing(&mut actions);
        self.assign(&mut actions);
        self.add_workers(&mut actions, now);
        self.restore_reserved(&mut actions, now);
        self.pipelines.retain(|pipeline, line| {
            line.reserved > 0
                || line.queue.len() > 0
                || self.workers.values().any(|worker| worker.pipeline == *pipeline)
        });
        actions
    }

    /// Starts a worker for each pipeline that needs its first, or ends another pipeline's to free
    /// its place.
    fn start_missing(&mut self, actions: &mut Vec<PoolAction<P>>) {
        let mut coming = self.ending();
        for (pipeline, oldest) in self.waiting() {
            if self.count(&pipeline).live() > 0 {
                continue;
            }
            if self.is_below_limit() {
                actions.push(self.start(&pipeline));
            } else if coming > 0 {
                coming -= 1;
            } else if let Some(number) = self.worker_to_evict(Some(oldest)) {
                actions.push(self.end(number));
            }
        }
    }

    /// Gives images to idle workers. Those that were busy last come first, so that the others may
    /// end.
    fn assign(&mut self, actions: &mut Vec<PoolAction<P>>) {
        let mut idle = self.idle_since(|_| true);
        idle.reverse();
        for (number, pipeline) in idle {
            let Some(waiting) = self.pipelines.get_mut(&pipeline).and_then(|line| line.queue.pop())
            else {
                continue;
            };
            if let Some(worker) = self.workers.get_mut(&number) {
                worker.state = PooledWorkerState::Busy;
            }
            actions.push(PoolAction::Assign(number, waiting));
        }
    }

    fn add_workers(&mut self, actions: &mut Vec<PoolAction<P>>, now: Instant) {
        for (pipeline, oldest) in self.waiting() {
            let line = self.pipelines.get(&pipeline).filter(|line| line.is_due(now));
            let waiting = line.map_or(0, |line| line.queue.len());
            let late = now.saturating_duration_since(oldest) >= LATE_AFTER;
            while self.is_below_limit() {
                let count = self.count(&pipeline);
                let enough = if late { count.starting } else { count.starting + count.busy };
                // `start_missing` has seen to a pipeline without any.
                if waiting <= enough || count.live() == 0 {
                    break;
                }
                actions.push(self.start(&pipeline));
            }
        }
    }

    fn restore_reserved(&mut self, actions: &mut Vec<PoolAction<P>>, now: Instant) {
        let reserved = self.pipelines.iter().filter(|(_, line)| line.is_due(now));
        let reserved: Vec<_> =
            reserved.map(|(pipeline, line)| (Arc::clone(pipeline), line.reserved)).collect();
        for (pipeline, reserved) in reserved {
            for _ in self.count(&pipeline).live()..reserved {
                if self.is_below_limit() {
                    actions.push(self.start(&pipeline));
                } else if self.ending() == 0
                    && let Some(number) = self.worker_to_evict(None)
                {
                    actions.push(self.end(number));
                }
            }
        }
    }

    fn start(&mut self, pipeline: &Arc<str>) -> PoolAction<P> {
        let number = self.next;
        self.next += 1;
        let worker = PooledWorker {
            pipeline: Arc::clone(pipeline),
            state: PooledWorkerState::Starting,
            served: 0,
        };
        self.workers.insert(number, worker);
        PoolAction::Start(number, Arc::clone(pipeline))
    }

    fn end(&mut self, number: WorkerNumber) -> PoolAction<P> {
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.state = PooledWorkerState::Ending;
        }
        PoolAction::End(number)
    }

    fn pipeline(&mut self, pipeline: &str) -> &mut PipelineWorkers<P> {
        self.pipelines.entry(Arc::from(pipeline)).or_insert_with(PipelineWorkers::new)
    }

    fn ending(&self) -> usize {
        let ending = |worker: &&PooledWorker| worker.state == PooledWorkerState::Ending;
        self.workers.values().filter(ending).count()
    }

    fn is_below_limit(&self) -> bool {
        self.workers.len() < self.limit
    }

    fn count(&self, pipeline: &str) -> WorkerCounts {
        let mut count = WorkerCounts::default();
        for worker in self.workers.values().filter(|worker| *worker.pipeline == *pipeline) {
            match worker.state {
                PooledWorkerState::Starting => count.starting += 1,
                PooledWorkerState::Idle(_) => count.idle += 1,
                PooledWorkerState::Busy => count.busy += 1,
                PooledWorkerState::Ending => {}
            }
        }
        count
    }

    /// Whether a pipeline has more workers than are reserved for it.
    fn has_surplus(&self, pipeline: &str) -> bool {
        let reserved = self.pipelines.get(pipeline).map_or(0, |line| line.reserved);
        self.count(pipeline).live() > reserved
    }

    /// Pipelines with waiting images, each with the arrival of its oldest; the oldest first.
    fn waiting(&self) -> Vec<(Arc<str>, Instant)> {
        let waiting = self.pipelines.iter();
        let waiting =
            waiting.filter_map(|(name, line)| Some((Arc::clone(name), line.queue.oldest()?)));
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(_, oldest)| *oldest);
        waiting
    }

    /// Idle workers with their pipelines; the worker that has been idle for longest first.
    fn idle_since(&self, wanted: impl Fn(Instant) -> bool) -> Vec<(WorkerNumber, Arc<str>)> {
        let idle = self.workers.iter().filter_map(|(number, worker)| match worker.state {
            PooledWorkerState::Idle(since) if wanted(since) => {
                Some((since, *number, Arc::clone(&worker.pipeline)))
            }
            _ => None,
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort();
        idle.into_iter().map(|(_, number, pipeline)| (number, pipeline)).collect()
    }

    /// The worker to end for an image of another pipeline that waits since `since`: the one that
    /// has been idle for longest. One whose own images wait ends only for an older image, and after
    /// its turn.
    fn worker_to_evict(&self, since: Option<Instant>) -> Option<WorkerNumber> {
        let may = |number: &WorkerNumber, pipeline: &str| {
            let own = self.pipelines.get(pipeline).and_then(|line| line.queue.oldest());
            let served = self.workers.get(number).map_or(0, |worker| worker.served);
            let has_its_turn = own.is_some_and(|own| {
                served < MIN_SERVED_BEFORE_EVICTION || since.is_none_or(|since| own <= since)
            });
            self.has_surplus(pipeline) && !has_its_turn
        };
        let mut idle = self.idle_since(|_| true).into_iter();
        idle.find(|(number, pipeline)| may(number, pipeline)).map(|(number, _)| number)
    }
}

#[cfg(test)]
mod tests;
