//! Which worker analyses which picture, and which workers there are: decisions alone. Everything that happens is told to
//! the [`Pool`], with the time; it answers with what is to be done.
//!
//! A worker belongs to one pipeline. What is decided, in this order:
//!
//! 1. A pipeline whose pictures wait and that has no worker gets one; where there are as many workers as there may be, the
//!    one that has been idle for longest ends for it. One that others wait for too ends when it has had its turn.
//! 2. An idle worker gets the next picture of its pipeline.
//! 3. A pipeline whose pictures wait behind others gets more workers, as far as there is room.
//! 4. A pipeline whose workers are kept gets back those that it lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fault::Fault;
use super::queue::{Queue, Waiting};
use crate::util::backoff::Waits;

/// Pictures that a worker has analysed at least before it ends for another pipeline while its own pictures wait. A start
/// costs as much as some ten pictures.
const TURN: u32 = 8;

/// A picture that has waited this long gets a worker of its own where there is room, however few wait. About as long as
/// a start takes.
const PATIENCE: Duration = Duration::from_millis(300);

/// Starts in a row that may fail for no lasting reason before the pictures that wait for them are given up.
const ATTEMPTS: u32 = 2;

/// Waits after losses of a pipeline's workers in a row.
const WAITS: Waits = Waits {
    // The first loss is made up for at once.
    free: 1,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(30),
    jitter: 0.0,
};

/// A worker's number.
pub(super) type Number = u64;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Action<P> {
    /// Start a worker for a pipeline.
    Start(Number, Arc<str>),
    /// Let an idle worker analyse a picture.
    Give(Number, Waiting<P>),
    /// End an idle worker.
    End(Number),
    /// Answer a picture that no worker will take.
    Refuse(Waiting<P>, Fault),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Starting,
    Idle(Instant),
    Busy,
    Ending,
}

#[derive(Debug)]
struct Worker {
    pipeline: Arc<str>,
    state: State,
    /// Pictures that it has analysed.
    served: u32,
}

/// What is known of a pipeline.
#[derive(Debug)]
struct Line<P> {
    queue: Queue<P>,
    /// Workers that are kept.
    kept: usize,
    /// Workers that were lost in a row for no picture's sake.
    losses: u32,
    /// The first worker that was started after the last of them: it shows that workers can live.
    proof: Number,
    /// When a worker may be started again that is not the only one of waiting pictures.
    not_before: Option<Instant>,
}

impl<P> Line<P> {
    fn new(kept: usize) -> Self {
        Self { queue: Queue::default(), kept, losses: 0, proof: 0, not_before: None }
    }
}

/// How many workers a pipeline has.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    starting: usize,
    idle: usize,
    busy: usize,
}

impl Count {
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
pub struct Load {
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
    lines: BTreeMap<Arc<str>, Line<P>>,
    workers: BTreeMap<Number, Worker>,
    next: Number,
    stopping: bool,
}

impl<P> Pool<P> {
    /// A pool of at most `limit` workers, each of which ends when it was idle for so long, unless it is one of those that
    /// are kept.
    pub(super) fn new<'a>(
        limit: usize,
        idle: Duration,
        kept: impl IntoIterator<Item = (&'a str, usize)>,
    ) -> Self {
        let mut lines = BTreeMap::new();
        for (pipeline, count) in kept {
            lines.entry(Arc::from(pipeline)).or_insert_with(|| Line::new(0)).kept += count;
        }
        Self { limit, idle, lines, workers: BTreeMap::new(), next: 0, stopping: false }
    }

    /// Whether a worker of this pipeline can ever be: places that are kept for others are never given.
    pub(super) fn has_place_for(&self, pipeline: &str) -> bool {
        let others = self.lines.iter().filter(|(name, _)| ***name != *pipeline);
        others.map(|(_, line)| line.kept).sum::<usize>() < self.limit
    }

    pub(super) fn load(&self) -> Load {
        let count =
            |wanted: fn(State) -> bool| self.workers.values().filter(|worker| wanted(worker.state)).count();
        Load {
            waiting: self.lines.values().map(|line| line.queue.len()).sum(),
            starting: count(|state| state == State::Starting),
            idle: count(|state| matches!(state, State::Idle(_))),
            busy: count(|state| state == State::Busy),
        }
    }

    /// A picture has come.
    pub(super) fn submit(&mut self, pipeline: &str, waiting: Waiting<P>, now: Instant) -> Vec<Action<P>> {
        if self.stopping {
            return vec![Action::Refuse(waiting, Fault::shutting_down())];
        }
        self.line(pipeline).queue.push(waiting);
        self.plan(now)
    }

    /// Nobody waits for a picture any more. None where it does not wait.
    pub(super) fn cancel(&mut self, number: u64) -> Option<Waiting<P>> {
        self.lines.values_mut().find_map(|line| line.queue.remove(number))
    }

    /// A worker is ready for its first picture.
    pub(super) fn ready(&mut self, worker: Number, now: Instant) -> Vec<Action<P>> {
        if let Some(worker) = self.workers.get_mut(&worker)
            && worker.state == State::Starting
        {
            worker.state = State::Idle(now);
        }
        self.plan(now)
    }

    /// A worker has answered and is ready for the next picture.
    pub(super) fn served(&mut self, number: Number, now: Instant) -> Vec<Action<P>> {
        if let Some(worker) = self.workers.get_mut(&number)
            && worker.state == State::Busy
        {
            worker.state = State::Idle(now);
            worker.served = worker.served.saturating_add(1);
            if let Some(line) = self.lines.get_mut(&worker.pipeline)
                && number >= line.proof
            {
                (line.losses, line.not_before) = (0, None);
            }
        }
        self.plan(now)
    }

    /// A worker is gone that was told to end.
    pub(super) fn ended(&mut self, worker: Number, now: Instant) -> Vec<Action<P>> {
        self.workers.remove(&worker);
        self.plan(now)
    }

    /// A worker is gone over a picture that it had taken.
    pub(super) fn lost_over_picture(&mut self, worker: Number, now: Instant) -> Vec<Action<P>> {
        self.ended(worker, now)
    }

    /// A worker is gone that was ready once. `untaken` is a picture that it was given and never took.
    pub(super) fn lost(
        &mut self,
        worker: Number,
        untaken: Option<Waiting<P>>,
        now: Instant,
    ) -> Vec<Action<P>> {
        let next = self.next;
        if let Some(worker) = self.workers.remove(&worker) {
            let line = self.line(&worker.pipeline);
            line.queue_first(untaken);
            line.lose(next, now);
        }
        self.plan(now)
    }

    /// A worker did not get ready. For a `lasting` reason the next one would not either.
    pub(super) fn unready(
        &mut self,
        worker: Number,
        fault: &Fault,
        lasting: bool,
        now: Instant,
    ) -> Vec<Action<P>> {
        let Some(Worker { pipeline, .. }) = self.workers.remove(&worker) else { return self.plan(now) };
        let (next, others) = (self.next, self.count(&pipeline).ready() > 0);
        let line = self.line(&pipeline);
        line.lose(next, now);
        let given_up = !others && (lasting || line.losses >= ATTEMPTS);
        let refused: Vec<_> = if given_up { line.queue.drain().collect() } else { Vec::new() };
        let refused = refused.into_iter().map(|waiting| Action::Refuse(waiting, fault.clone()));
        let mut actions: Vec<_> = refused.collect();
        actions.extend(self.plan(now));
        actions
    }

    /// Time has passed. To be called about once a second.
    pub(super) fn tick(&mut self, now: Instant) -> Vec<Action<P>> {
        let mut actions = Vec::new();
        for (number, pipeline) in self.idle_since(|since| now.saturating_duration_since(since) >= self.idle) {
            if self.has_to_spare(&pipeline) {
                actions.push(self.end(number));
            }
        }
        actions.extend(self.plan(now));
        actions
    }

    /// No more pictures and no more workers.
    pub(super) fn stop(&mut self) -> Vec<Action<P>> {
        self.stopping = true;
        let waiting = self.lines.values_mut().flat_map(|line| line.queue.drain());
        let mut actions: Vec<_> =
            waiting.map(|waiting| Action::Refuse(waiting, Fault::shutting_down())).collect();
        let numbers: Vec<Number> = self.workers.keys().copied().collect();
        actions.extend(numbers.into_iter().map(|number| self.end(number)));
        actions
    }

    fn plan(&mut self, now: Instant) -> Vec<Action<P>> {
        if self.stopping {
            return Vec::new();
        }
        let mut actions = Vec::new();
        self.serve_those_without(&mut actions);
        self.give(&mut actions);
        self.add_workers(&mut actions, now);
        self.restore_kept(&mut actions, now);
        self.lines.retain(|pipeline, line| {
            line.kept > 0
                || line.queue.len() > 0
                || self.workers.values().any(|worker| worker.pipeline == *pipeline)
        });
        actions
    }

    /// A worker for each pipeline that has none, or the end of another pipeline's worker, whose place it gets then.
    fn serve_those_without(&mut self, actions: &mut Vec<Action<P>>) {
        let mut coming = self.workers.values().filter(|worker| worker.state == State::Ending).count();
        for (pipeline, oldest) in self.waiting() {
            if self.count(&pipeline).live() > 0 {
                continue;
            }
            if self.has_room() {
                actions.push(self.start(&pipeline));
            } else if coming > 0 {
                coming -= 1;
            } else if let Some(number) = self.dispensable(Some(oldest)) {
                actions.push(self.end(number));
            }
        }
    }

    /// Pictures for the idle workers, those first that were busy last: the others may end.
    fn give(&mut self, actions: &mut Vec<Action<P>>) {
        let mut idle = self.idle_since(|_| true);
        idle.reverse();
        for (number, pipeline) in idle {
            let Some(waiting) = self.lines.get_mut(&pipeline).and_then(|line| line.queue.pop()) else {
                continue;
            };
            if let Some(worker) = self.workers.get_mut(&number) {
                worker.state = State::Busy;
            }
            actions.push(Action::Give(number, waiting));
        }
    }

    fn add_workers(&mut self, actions: &mut Vec<Action<P>>, now: Instant) {
        for (pipeline, oldest) in self.waiting() {
            let line = self.lines.get(&pipeline).filter(|line| line.is_due(now));
            let waiting = line.map_or(0, |line| line.queue.len());
            let late = now.saturating_duration_since(oldest) >= PATIENCE;
            while self.has_room() {
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

    fn restore_kept(&mut self, actions: &mut Vec<Action<P>>, now: Instant) {
        let kept = self.lines.iter().filter(|(_, line)| line.is_due(now));
        let kept: Vec<_> = kept.map(|(pipeline, line)| (Arc::clone(pipeline), line.kept)).collect();
        for (pipeline, kept) in kept {
            for _ in self.count(&pipeline).live()..kept {
                if self.has_room() {
                    actions.push(self.start(&pipeline));
                } else if !self.workers.values().any(|worker| worker.state == State::Ending)
                    && let Some(number) = self.dispensable(None)
                {
                    actions.push(self.end(number));
                }
            }
        }
    }

    fn start(&mut self, pipeline: &Arc<str>) -> Action<P> {
        let number = self.next;
        self.next += 1;
        let worker = Worker { pipeline: Arc::clone(pipeline), state: State::Starting, served: 0 };
        self.workers.insert(number, worker);
        Action::Start(number, Arc::clone(pipeline))
    }

    fn end(&mut self, number: Number) -> Action<P> {
        if let Some(worker) = self.workers.get_mut(&number) {
            worker.state = State::Ending;
        }
        Action::End(number)
    }

    fn line(&mut self, pipeline: &str) -> &mut Line<P> {
        self.lines.entry(Arc::from(pipeline)).or_insert_with(|| Line::new(0))
    }

    fn has_room(&self) -> bool {
        self.workers.len() < self.limit
    }

    fn count(&self, pipeline: &str) -> Count {
        let mut count = Count::default();
        for worker in self.workers.values().filter(|worker| *worker.pipeline == *pipeline) {
            match worker.state {
                State::Starting => count.starting += 1,
                State::Idle(_) => count.idle += 1,
                State::Busy => count.busy += 1,
                State::Ending => {}
            }
        }
        count
    }

    /// Whether a pipeline has more workers than are kept for it.
    fn has_to_spare(&self, pipeline: &str) -> bool {
        let kept = self.lines.get(pipeline).map_or(0, |line| line.kept);
        self.count(pipeline).live() > kept
    }

    /// Pipelines whose pictures wait, and since when; the longest first.
    fn waiting(&self) -> Vec<(Arc<str>, Instant)> {
        let waiting = self.lines.iter();
        let waiting = waiting.filter_map(|(name, line)| Some((Arc::clone(name), line.queue.oldest()?)));
        let mut waiting: Vec<_> = waiting.collect();
        waiting.sort_by_key(|(_, oldest)| *oldest);
        waiting
    }

    /// Idle workers with their pipelines, those first that have been idle for longest.
    fn idle_since(&self, wanted: impl Fn(Instant) -> bool) -> Vec<(Number, Arc<str>)> {
        let idle = self.workers.iter().filter_map(|(number, worker)| match worker.state {
            State::Idle(since) if wanted(since) => Some((since, *number, Arc::clone(&worker.pipeline))),
            _ => None,
        });
        let mut idle: Vec<_> = idle.collect();
        idle.sort();
        idle.into_iter().map(|(_, number, pipeline)| (number, pipeline)).collect()
    }

    /// The worker that ends for a picture of another pipeline, which has waited since then: the one that has been idle
    /// for longest. One whose own pictures wait ends only for an older picture, and when it has had its turn.
    fn dispensable(&self, since: Option<Instant>) -> Option<Number> {
        let may = |number: &Number, pipeline: &str| {
            let own = self.lines.get(pipeline).and_then(|line| line.queue.oldest());
            let served = self.workers.get(number).map_or(0, |worker| worker.served);
            let has_its_turn = own.is_some_and(|own| served < TURN || since.is_none_or(|since| own <= since));
            self.has_to_spare(pipeline) && !has_its_turn
        };
        let mut idle = self.idle_since(|_| true).into_iter();
        idle.find(|(number, pipeline)| may(number, pipeline)).map(|(number, _)| number)
    }
}

impl<P> Line<P> {
    fn queue_first(&mut self, untaken: Option<Waiting<P>>) {
        if let Some(waiting) = untaken {
            self.queue.push_first(waiting);
        }
    }

    fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|time| time <= now)
    }

    /// `next` is the number of the next worker.
    fn lose(&mut self, next: Number, now: Instant) {
        self.proof = next;
        self.losses = self.losses.saturating_add(1);
        self.not_before = Some(now + WAITS.after(self.losses, 0.0));
    }
}

#[cfg(test)]
mod tests;
