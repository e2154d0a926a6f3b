//! Which worker analyses which picture, and which workers there are: decisions alone. Everything
//! that happens is told to the [`TypePool`], with the time; it answers with what is to be done.
//!
//! A worker belongs to one pipeline. What is decided, in this order:
//!
//! 1. A pipeline whose pictures wait and that has no worker gets one; where there are as many
//!    workers as there may be, the one that has been idle for longest ends for it. One that others
//!    wait for too ends when it has had its turn.
//! 2. An idle worker gets the next picture of its pipeline.
//! 3. A pipeline whose pictures wait behind others gets more workers, as far as there is room.
//! 4. A pipeline whose workers are kept gets back those that it lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::AnalysisError;
use super::queue::{ImageQueue, WaitingImage};
use crate::util::backoff::BackoffPolicy;

/// Pictures that a worker has analysed at least before it ends for another pipeline while its own
/// pictures wait. A start costs as much as some ten pictures.
const MIN_SERVED_BEFORE_EVICTION: u32 = 8;

/// A picture that has waited this long gets a worker of its own where there is room, however few
/// wait. About as long as a start takes.
const LATE_AFTER: Duration = Duration::from_millis(300);

/// Starts in a row that may fail for no lasting reason before the pictures that wait for them are
/// given up.
const ATTEMPTS: u32 = 2;

/// Waits after losses of a pipeline's workers in a row.
const WAITS: BackoffPolicy = BackoffPolicy {
    // The first loss is made up for at once.
    free: 1,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
    jitter: 0.0,
};

/// A worker's number.
pub(super) type WorkerNumber = u64;

/// What is to be done.
#[derive(Debug)]
pub(super) enum PoolAction<P> {
    /// Start a worker for a pipeline.
    Start(WorkerNumber, Arc<str>),
    /// Let an idle worker analyse a picture.
    Assign(WorkerNumber, WaitingImage<P>),
    /// End an idle worker.
    End(WorkerNumber),
    /// Answer a picture that no worker will take.
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
    /// Pictures that it has analysed.
    served: u32,
}

/// What is known of a pipeline.
#[derive(Debug)]
struct PipelineWorkers<P> {
    queue: ImageQueue<P>,
    /// Workers that are kept.
    kept: usize,
    /// Workers that were lost in a row for no picture's sake.
    losses: u32,
    /// The first worker that was started after the last of them: it shows that workers can live.
    first_after_loss: WorkerNumber,
    /// When a worker may be started again that is not the only one of waiting pictures.
    not_before: Option<Instant>,
}

impl<P> PipelineWorkers<P> {
    fn new(kept: usize) -> Self {
        Self {
            queue: ImageQueue::default(),
            kept,
            losses: 0,
            first_after_loss: 0,
            not_before: None,
        }
    }
}

/// How many workers a pipeline has.
#[derive(Debug, Clone, Copy, Default)]
struct WorkerCounts {
    starting: usize,
    idle: usize,
    busy: usize,
}

impl WorkerCounts {
    /// Those that end do not count: they take no more pictures.
    fn live(self) -> usize {
        self.starting + self.ready()
    }

    fn ready(self) -> usize {
        self.idle + self.busy
    }
}

/// How many there are of what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolLoad {
    /// Pictures that wait.
    pub waiting: usize,
    /// Workers that get ready.
    pub starting: usize,
    /// Workers that wait for a picture.
    pub idle: usize,
    /// Workers with a picture.
    pub busy: usize,
}

/// All workers and all pictures that wait. `P` is what a picture is.
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
    /// A pool of at most `limit` workers, each of which ends when it was idle for so long, unless
    /// it is one of those that are kept.
    pub(super) fn new<'a>(
        limit: usize,
        idle: Duration,
        kept: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> Self {
        let mut lines = BTreeMap::new();
        for (pipeline, count) in kept {
            lines.entry(Arc::from(pipeline)).or_insert_with(|| PipelineWorkers::new(0)).kept +=
                count;
        }
        Self { limit, idle, pipelines: lines, workers: BTreeMap::new(), next: 0, stopping: false }
    }

    /// Whether a worker of this pipeline can ever be: places that are kept for others are never
    /// given.
    pub(super) fn can_serve(&self, pipeline: &str) -> bool {
        let others = self.pipelines.iter().filter(|(name, _)| ***name != *pipeline);
        others.map(|(_, line)| line.kept).sum::<usize>() < self.limit
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

    /// A picture has come.
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

    /// Nobody waits for a picture any more. None where it does not wait.
    pub(super) fn cancel(&mut self, number: u64) -> Option<WaitingImage<P>> {
        self.pipelines.values_mut().find_map(|line| line.queue.remove(number))
    }

    /// A worker is ready for its first picture.
    pub(super) fn ready(&mut self, worker: WorkerNumber, now: Instant) -> Vec<PoolAction<P>> {
        if let Some(worker) = self.workers.get_mut(&worker)
            && worker.state == PooledWorkerState::Starting
        {
            worker.state = PooledWorkerState::Idle(now);
        }
        self.plan(now)
    }

    /// A worker has answered and is ready for the next picture.
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

    /// A worker is gone that was told to end.
    pub(super) fn ended(&mut self, worker: WorkerNumber, now: Instant) -> Vec<PoolAction<P>> {
        self.workers.remove(&worker);
        self.plan(now)
    }

    /// A worker is gone over a picture that it had taken.
    pub(super) fn lost_over_picture(
        &mut self,
        worker: WorkerNumber,
        now: Instant,
    ) -> Vec<PoolAction<P>> {
        self.ended(worker, now)
    }

    /// A worker is gone that was ready once. `untaken` is a picture that it was given and never
    /// took.
    pub(super) fn lost(
        &mut self,
        worker: WorkerNumber,
        untaken: Option<WaitingImage<P>>,
        now: Instant,
    ) -> Vec<PoolAction<P>> {
        let next = self.next;
        if let Some(worker) = self.workers.remove(&worker) {
            let line = self.pipeline(&worker.pipeline);
            line.queue_first(untaken);
            line.record_loss(next, now);
        }
        self.plan(now)
    }

    /// A worker did not get ready. For a `lasting` reason the next one would not either.
    pub(super) fn start_failed(
        &mut self,
        worker: WorkerNumber,
        fault: &AnalysisError,
        lasting: bool,
        now: Instant,
    ) -> Vec<PoolAction<P>> {
        let Some(PooledWorker { pipeline, .. }) = self.workers.remove(&worker) else {
            return self.plan(now);
        };
        let (next, others) = (self.next, self.count(&pipeline).ready() > 0);
        let line = self.pipeline(&pipeline);
        line.record_loss(next, now);
        let given_up = !others && (lasting || line.losses >= ATTEMPTS);
        let refused: Vec<_> = if given_up { line.queue.drain().collect() } else { Vec::new() };
        let refused = refused.into_iter().map(|waiting| PoolAction::Refuse(waiting, fault.clone()));
        let mut actions: Vec<_> = refused.collect();
        actions.extend(self.plan(now));
        actions
    }

    /// Time has passed. To be called about once a second.
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

    /// No more pictures and no more workers.
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
        self.restore_kept(&mut actions, now);
        self.pipelines.retain(|pipeline, line| {
            line.kept > 0
                || line.queue.len() > 0
                || self.workers.values().any(|worker| worker.pipeline == *pipeline)
        });
        actions
    }

    /// A worker for each pipeline that has none, or the end of another pipeline's worker, whose
    /// place it gets then.
    fn start_missing(&mut self, actions: &mut Vec<PoolAction<P>>) {
        let mut coming = self
            .workers
            .values()
            .filter(|worker| worker.state == PooledWorkerState::Ending)
            .count();
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

    /// Pictures for the idle workers, those first that were busy last: the others may end.
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
                // One that has none has been seen to.
                if waiting <= enough || count.live() == 0 {
                    break;
                }
                actions.push(self.start(&pipeline));
            }
        }
    }

    fn restore_kept(&mut self, actions: &mut Vec<PoolAction<P>>, now: Instant) {
        let kept = self.pipelines.iter().filter(|(_, line)| line.is_due(now));
        let kept: Vec<_> = kept.map(|(pipeline, line)| (Arc::clone(pipeline), line.kept)).collect();
        for (pipeline, kept) in kept {
            for _ in self.count(&pipeline).live()..kept {
                if self.is_below_limit() {
                    actions.push(self.start(&pipeline));
                } else if !self
                    .workers
                    .values()
                    .any(|worker| worker.state == PooledWorkerState::Ending)
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
        self.pipelines.entry(Arc::from(pipeline)).or_insert_with(|| PipelineWorkers::new(0))
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

    /// Whether a pipeline has more workers than are kept for it.
    fn has_surplus(&self, pipeline: &str) -> bool {
        let kept = self.pipelines.get(pipeline).map_or(0, |line| line.kept);
        self.count(pipeline).live() > kept
    }

    /// Pipelines whose pictures wait, and since when; the longest first.
    fn waiting(&self) -> Vec<(Arc<str>, Instant)> {
        let waiting = self.pipelines.iter();
        let waiting =
            waiting.filter_map(|(name, line)| Some((Arc::clone(name), line.queue.oldest()?)));
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(_, oldest)| *oldest);
        waiting
    }

    /// Idle workers with their pipelines, those first that have been idle for longest.
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

    /// The worker that ends for a picture of another pipeline, which has waited since then: the one
    /// that has been idle for longest. One whose own pictures wait ends only for an older picture,
    /// and when it has had its turn.
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

impl<P> PipelineWorkers<P> {
    fn queue_first(&mut self, untaken: Option<WaitingImage<P>>) {
        if let Some(waiting) = untaken {
            self.queue.push_first(waiting);
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }

    /// `next` is the number of the next worker.
    fn record_loss(&mut self, next: WorkerNumber, now: Instant) {
        self.first_after_loss = next;
        self.losses = self.losses.saturating_add(1);
        self.not_before = Some(now + WAITS.delay(self.losses, 0.0));
    }
}

#[cfg(test)]
mod tests;
