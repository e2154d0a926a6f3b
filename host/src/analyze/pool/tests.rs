use proptest::prelude::*;

use super::super::error::AnalysisErrorKind;
use super::*;

const IDLE: Duration = Duration::from_secs(60);

/// A pool with a clock of its own, and what it asked for last.
struct PoolBench {
    pool: Pool<()>,
    now: Instant,
    next: u64,
    done: Vec<String>,
}

impl PoolBench {
    fn new(limit: usize, kept: &[(&str, usize)]) -> Self {
        let pool = Pool::new(limit, IDLE, kept.iter().copied());
        let mut bench = Self { pool, now: Instant::now(), next: 0, done: Vec::new() };
        bench.tell(Pool::tick);
        bench
    }

    fn tell(
        &mut self,
        what: impl FnOnce(&mut Pool<()>, Instant) -> Vec<PoolAction<()>>,
    ) -> Vec<String> {
        let actions = what(&mut self.pool, self.now);
        let told = |action: &PoolAction<()>| match action {
            PoolAction::Start(number, pipeline) => format!("start {number} {pipeline}"),
            PoolAction::Assign(number, waiting) => format!("give {number} {}", waiting.number),
            PoolAction::End(number) => format!("end {number}"),
            PoolAction::Refuse(waiting, fault) => {
                format!("refuse {} {}", waiting.number, fault.kind.code())
            }
        };
        self.done = actions.iter().map(told).collect();
        self.done.clone()
    }

    /// A picture of a request of its own.
    fn submit(&mut self, pipeline: &str) -> Vec<String> {
        let (number, since) = (self.next, self.now);
        self.next += 1;
        let waiting = WaitingImage { number, request: number, since, image: () };
        self.tell(|pool, now| pool.submit(pipeline, waiting, now))
    }

    fn ready(&mut self, worker: WorkerNumber) -> Vec<String> {
        self.tell(|pool, now| pool.ready(worker, now))
    }

    fn served(&mut self, worker: WorkerNumber) -> Vec<String> {
        self.tell(|pool, now| pool.served(worker, now))
    }

    fn ended(&mut self, worker: WorkerNumber) -> Vec<String> {
        self.tell(|pool, now| pool.ended(worker, now))
    }

    fn lost(&mut self, worker: WorkerNumber, not_received: Option<u64>) -> Vec<String> {
        let since = self.now;
        let not_received =
            not_received.map(|number| WaitingImage { number, request: number, since, image: () });
        self.tell(|pool, now| pool.lost(worker, not_received, now))
    }

    fn unready(&mut self, worker: WorkerNumber, lasting: bool) -> Vec<String> {
        let fault = AnalysisError::new(AnalysisErrorKind::InvalidPipeline, "no");
        self.tell(|pool, now| pool.start_failed(worker, &fault, lasting, now))
    }

    fn after(&mut self, time: Duration) -> Vec<String> {
        self.now += time;
        self.tell(Pool::tick)
    }
}

#[test]
fn a_worker_is_started_for_the_first_picture_and_takes_the_next_ones() {
    let mut bench = PoolBench::new(4, &[]);
    assert_eq!(bench.submit("a"), ["start 0 a"]);
    assert_eq!(bench.ready(0), ["give 0 0"]);
    assert_eq!(bench.submit("a"), [""; 0], "one picture waits for one worker");
    assert_eq!(bench.served(0), ["give 0 1"]);
    assert_eq!(bench.served(0), [""; 0]);
    assert_eq!(bench.pool.load(), PoolLoad { waiting: 0, starting: 0, idle: 1, busy: 0 });
}

#[test]
fn many_pictures_get_as_many_workers_as_there_may_be() {
    let mut bench = PoolBench::new(3, &[]);
    let started: usize = (0..10).map(|_| bench.submit("a").len()).sum();
    assert_eq!(started, 3);
    assert_eq!(bench.pool.load().waiting, 10);
    assert_eq!(bench.ready(1), ["give 1 0"]);
}

#[test]
fn a_picture_that_waits_for_a_slow_one_gets_a_worker_of_its_own() {
    let mut bench = PoolBench::new(2, &[]);
    bench.submit("a");
    bench.ready(0);
    assert!(bench.submit("a").is_empty());
    assert_eq!(bench.after(LATE_AFTER), ["start 1 a"]);
    assert_eq!(bench.ready(1), ["give 1 1"]);
}

#[test]
fn an_idle_worker_ends_after_its_time_and_a_kept_one_never() {
    let mut bench = PoolBench::new(3, &[("kept", 1)]);
    assert_eq!(bench.done, ["start 0 kept"]);
    bench.ready(0);
    bench.submit("a");
    bench.ready(1);
    bench.served(1);
    assert!(bench.after(IDLE - Duration::from_secs(1)).is_empty());
    assert_eq!(bench.after(Duration::from_secs(1)), ["end 1"]);
    assert!(bench.ended(1).is_empty());
    assert!(bench.after(IDLE * 100).is_empty());
    assert_eq!(bench.pool.load().idle, 1);
}

#[test]
fn the_worker_that_is_idle_for_longest_ends_for_another_pipeline() {
    let mut bench = PoolBench::new(2, &[]);
    for (worker, pipeline) in [(0, "a"), (1, "b")] {
        bench.submit(pipeline);
        bench.ready(worker);
        bench.now += Duration::from_secs(1);
        bench.served(worker);
    }
    assert_eq!(bench.submit("c"), ["end 0"]);
    assert!(bench.submit("c").is_empty(), "its place is on its way");
    assert_eq!(bench.ended(0), ["start 2 c"]);
    assert_eq!(bench.ready(2), ["give 2 2"]);
}

#[test]
fn a_busy_pipeline_gives_a_worker_up_to_one_that_has_none_when_it_has_had_its_turn() {
    let mut bench = PoolBench::new(1, &[]);
    (0..50).for_each(|_| drop(bench.submit("a")));
    bench.ready(0);
    bench.now += Duration::from_millis(1);
    bench.submit("b");
    // Everything that came before it comes before it.
    for _ in 0..49 {
        bench.now += Duration::from_millis(1);
        assert!(bench.served(0)[0].starts_with("give 0"), "{:?}", bench.done);
        bench.submit("a");
    }
    assert_eq!(bench.served(0), ["end 0"]);
    assert_eq!(bench.ended(0), ["start 1 b"]);
    assert_eq!(bench.ready(1), ["give 1 50"]);
    assert_eq!(bench.served(1), ["end 1"], "nothing more of its own");
}

#[test]
fn kept_places_are_never_given_to_others() {
    let mut bench = PoolBench::new(2, &[("a", 1), ("b", 1)]);
    bench.ready(0);
    bench.ready(1);
    assert!(!bench.pool.can_serve("c") && bench.pool.can_serve("a"));
    let mut bench = PoolBench::new(2, &[("a", 1)]);
    bench.ready(0);
    assert!(bench.pool.can_serve("c"));
    bench.submit("c");
    bench.ready(1);
    assert!(bench.submit("d").is_empty());
    assert_eq!(bench.served(1), ["end 1"]);
}

#[test]
fn a_picture_that_its_worker_never_took_is_the_next_one_of_another() {
    let mut bench = PoolBench::new(1, &[]);
    bench.submit("a");
    bench.ready(0);
    bench.submit("a");
    assert_eq!(bench.lost(0, Some(0)), ["start 1 a"]);
    assert_eq!(bench.ready(1), ["give 1 0"]);
    assert_eq!(bench.served(1), ["give 1 1"]);
}

#[test]
fn a_pipeline_that_cannot_be_started_has_its_pictures_refused_and_others_not() {
    let mut bench = PoolBench::new(2, &[]);
    assert_eq!(bench.submit("a"), ["start 0 a"]);
    assert_eq!(bench.submit("b"), ["start 1 b"]);
    bench.submit("a");
    assert_eq!(bench.unready(0, false), ["start 2 a"], "once may be chance");
    assert_eq!(bench.unready(2, false), ["refuse 0 invalid_pipeline", "refuse 2 invalid_pipeline"]);
    assert_eq!(bench.submit("a"), ["start 3 a"]);
    assert_eq!(bench.unready(3, true), ["refuse 3 invalid_pipeline"]);
    assert_eq!(bench.ready(1), ["give 1 1"]);
}

#[test]
fn workers_that_fail_beside_each_other_are_not_started_for_ever() {
    let mut bench = PoolBench::new(4, &[]);
    (0..8).for_each(|_| drop(bench.submit("a")));
    let mut refused = 0;
    for worker in 0..4 {
        let actions = bench.unready(worker, false);
        refused += actions.iter().filter(|action| action.starts_with("refuse")).count();
        assert!(
            worker == 0 || actions.iter().all(|action| !action.starts_with("start")),
            "{actions:?}"
        );
    }
    assert_eq!(refused, 8);
}

#[test]
fn one_worker_that_lives_serves_on_while_others_fail_ever_more_seldom() {
    let mut bench = PoolBench::new(2, &[]);
    bench.submit("a");
    bench.ready(0);
    (0..100).for_each(|_| drop(bench.submit("a")));
    let (mut starting, mut starts) = (vec![1], 1);
    for _ in 0..50 {
        bench.now += Duration::from_millis(100);
        let mut actions = bench.served(0);
        if let Some(failed) = starting.pop() {
            actions.extend(bench.unready(failed, false));
        }
        for action in actions.iter().filter_map(|action| action.strip_prefix("start ")) {
            starting.push(action.split(' ').next().unwrap().parse().unwrap());
            starts += 1;
        }
        assert!(!actions.iter().any(|action| action.starts_with("refuse")), "{actions:?}");
    }
    assert!(starts <= 6, "{starts} starts in 5 s");
}

#[test]
fn a_kept_worker_that_dies_again_and_again_is_started_ever_more_seldom() {
    let mut bench = PoolBench::new(1, &[("a", 1)]);
    let mut starts = 0;
    for _ in 0..3600 {
        while let Some(start) = bench.done.first().and_then(|action| action.strip_prefix("start "))
        {
            let number = start.split(' ').next().unwrap().parse().unwrap();
            starts += 1;
            bench.unready(number, true);
        }
        bench.after(Duration::from_secs(1));
    }
    assert!((100..150).contains(&starts), "{starts} starts in an hour");
}

#[test]
fn a_stop_refuses_what_waits_and_ends_every_worker() {
    let mut bench = PoolBench::new(1, &[]);
    bench.submit("a");
    bench.submit("a");
    assert_eq!(
        bench.tell(|pool, _| pool.stop()),
        ["refuse 0 shutting_down", "refuse 1 shutting_down", "end 0"]
    );
    assert_eq!(bench.submit("a"), ["refuse 2 shutting_down"]);
    assert!(bench.ended(0).is_empty());
}

proptest! {
    /// Whatever happens: no more workers than allowed, each picture is answered or given exactly
    /// once, and none waits for ever.
    #[test]
    fn every_picture_gets_a_worker_in_the_end(
        limit in 1usize..4, kept in 0usize..2,
        steps in proptest::collection::vec((0u8..6, 0u64..4), 1..80)
    ) {
        let kept = [("p0", kept.min(limit - 1))];
        let mut pool = Pool::new(limit, IDLE, kept);
        let mut now = Instant::now();
        let (mut starting, mut busy, mut ending) = (Vec::new(), Vec::new(), Vec::new());
        let (mut submitted, mut given) = (0, 0);
        let mut actions = pool.tick(now);
        let mut steps = steps.into_iter().map(Some).collect::<Vec<_>>();
        // In the end everything comes to its end.
        steps.extend([None; 1000]);
        for step in steps {
            for action in std::mem::take(&mut actions) {
                match action {
                    PoolAction::Start(number, _) => starting.push(number),
                    PoolAction::Assign(number, _) => { given += 1; busy.push(number); }
                    PoolAction::End(number) => ending.push(number),
                    PoolAction::Refuse(..) => prop_assert!(false, "nothing is refused"),
                }
            }
            prop_assert!(pool.workers.len() <= limit);
            now += Duration::from_millis(400);
            actions = match step {
                Some((0..=2, pipeline)) => {
                    let (number, request) = (submitted, submitted);
                    let waiting = WaitingImage { number, request, since: now, image: () };
                    submitted += 1;
                    pool.submit(&format!("p{pipeline}"), waiting, now)
                }
                Some((3, _)) if !starting.is_empty() => pool.ready(starting.remove(0), now),
                Some((4, _)) if !busy.is_empty() => pool.served(busy.remove(0), now),
                Some((5, _)) if !ending.is_empty() => pool.ended(ending.remove(0), now),
                None if !ending.is_empty() => pool.ended(ending.remove(0), now),
                None if !starting.is_empty() => pool.ready(starting.remove(0), now),
                None if !busy.is_empty() => pool.served(busy.remove(0), now),
                _ => pool.tick(now),
            };
        }
        prop_assert_eq!(given, submitted);
        prop_assert_eq!(pool.load().waiting, 0);
    }
}
