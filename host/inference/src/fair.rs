//! Who is next: start-time fair queueing of the runners' time between shares.
//!
//! Each share has a *tag*, the time that it has had divided by its weight. The share with the
//! smallest tag is next, and first come is first served within it. A share is charged what its last
//! run took when a run begins, and the difference when it ends, so that a share whose runs are many
//! at once does not seem idle meanwhile. A share that comes back after doing nothing starts from
//! the tag of the share that was served last: it gains no credit.
//!
//! So no request waits longer than the runs under way, and one run of each share with a smaller
//! tag; and busy shares get time by their weights, however long their runs are.
//!
//! This is a pure structure: time is a parameter.

use std::collections::{BTreeMap, VecDeque};

/// Tags count nanoseconds times this number, a multiple of every weight, to avoid rounding.
const SCALE: u64 = 16;

/// A request that waits.
#[derive(Debug)]
pub(crate) struct QueuedRequest<T> {
    pub(crate) item: T,
    /// Whose time it takes.
    pub(crate) share: u64,
    /// How cheap its time is.
    pub(crate) weight: u32,
    /// Nothing else may run at the same time.
    pub(crate) alone: bool,
    /// When it has waited too long, in nanoseconds.
    pub(crate) late_ns: u64,
}

/// A run under way, to be returned to [`finish`](FairQueue::finish) with the time it took.
#[derive(Debug)]
#[must_use = "the run is under way until `finish`"]
pub(crate) struct Turn {
    share: u64,
    weight: u32,
    /// The charge at its start.
    charged: u64,
    alone: bool,
}

/// The requests that wait, and the shares that they belong to.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    shares: BTreeMap<u64, Share<T>>,
    /// The largest tag that a share had when it was served.
    clock: u64,
    /// Runs that have begun, ever.
    turns: u64,
    waiting: usize,
    running: usize,
    /// The current run excludes others.
    alone: bool,
    bound: usize,
}

#[derive(Debug)]
struct Share<T> {
    waiting: VecDeque<QueuedRequest<T>>,
    tag: u64,
    /// The turn that it had last: among equal tags the share that has waited longest is next.
    turn: u64,
    running: usize,
    /// Duration of its last run in nanoseconds.
    last_ns: u64,
}

impl<T> FairQueue<T> {
    /// For at most `bound` requests that wait.
    pub(crate) fn new(bound: usize) -> Self {
        let shares = BTreeMap::new();
        Self { shares, clock: 0, turns: 0, waiting: 0, running: 0, alone: false, bound }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.running == 0
    }

    /// Adds a request, or gives it back where the bound is reached.
    pub(crate) fn push(&mut self, request: QueuedRequest<T>) -> Result<(), T> {
        if self.waiting >= self.bound {
            return Err(request.item);
        }
        let (clock, turn) = (self.clock, self.turns);
        let share = self.shares.entry(request.share).or_insert_with(|| Share {
            waiting: VecDeque::new(),
            tag: clock,
            turn,
            running: 0,
            last_ns: 0,
        });
        if share.waiting.is_empty() {
            share.tag = share.tag.max(clock);
        }
        share.waiting.push_back(request);
        self.waiting += 1;
        Ok(())
    }

    /// The next request to run. `None` if none waits, or if it must wait for runs under way.
    pub(crate) fn pop(&mut self) -> Option<(T, Turn)> {
        if self.alone {
            return None;
        }
        let (share, index) = self.next(|share| (!share.waiting.is_empty()).then_some(0))?;
        let alone = self.shares.get(&share)?.waiting.front()?.alone;
        // An exclusive request blocks the others until all runs are done, or it could wait forever.
        if alone && self.running > 0 {
            return None;
        }
        self.begin(share, index)
    }

    /// The next matching request that need not run alone, out of turn: it joins a batch.
    pub(crate) fn pop_like(
        &mut self,
        matches: impl Fn(&QueuedRequest<T>) -> bool,
    ) -> Option<(T, Turn)> {
        if self.alone {
            return None;
        }
        let position = |share: &Share<T>| {
            share.waiting.iter().position(|request| !request.alone && matches(request))
        };
        let (share, index) = self.next(position)?;
        self.begin(share, index)
    }

    /// The share whose turn it is, of those that have such a position, and the position.
    fn next(&self, position: impl Fn(&Share<T>) -> Option<usize>) -> Option<(u64, usize)> {
        self.shares
            .iter()
            .filter_map(|(&number, share)| Some((number, share, position(share)?)))
            .min_by_key(|(_, share, _)| (share.tag, share.turn))
            .map(|(number, _, index)| (number, index))
    }

    fn begin(&mut self, number: u64, index: usize) -> Option<(T, Turn)> {
        let share = self.shares.get_mut(&number)?;
        let QueuedRequest { item, weight, alone, .. } = share.waiting.remove(index)?;
        self.clock = self.clock.max(share.tag);
        let charged = charge(share.last_ns, weight);
        share.tag = share.tag.saturating_add(charged);
        self.turns += 1;
        share.turn = self.turns;
        share.running += 1;
        self.waiting -= 1;
        self.running += 1;
        self.alone = alone;
        Some((item, Turn { share: number, weight, charged, alone }))
    }

    /// Notes that a run is over and how much of a runner's time it took.
    pub(crate) fn finish(&mut self, turn: Turn, ran_ns: u64) {
        let Turn { share: number, weight, charged, alone } = turn;
        self.running = self.running.saturating_sub(1);
        self.alone &= !alone;
        if let Some(share) = self.shares.get_mut(&number) {
            share.running = share.running.saturating_sub(1);
            share.last_ns = ran_ns;
            share.tag = share.tag.saturating_add(charge(ran_ns, weight)).saturating_sub(charged);
        }
        if self.running == 0 && self.waiting == 0 {
            // No request waits, so debts are void. This also bounds the number of shares.
            self.shares.clear();
        } else {
            // An idle share keeps its debt, unless more such shares exist than can be attached.
            let (clock, crowded) = (self.clock, self.shares.len() > 2 * self.bound);
            self.shares.retain(|_, share| share.is_active() || (share.tag > clock && !crowded));
        }
    }

    /// Takes out the requests that have waited too long.
    pub(crate) fn take_late(&mut self, now_ns: u64) -> Vec<T> {
        self.take_out(|request| request.late_ns <= now_ns)
    }

    /// When the next request will have waited too long.
    pub(crate) fn next_late_ns(&self) -> Option<u64> {
        let waiting = self.shares.values().flat_map(|share| &share.waiting);
        waiting.map(|request| request.late_ns).min()
    }

    /// Takes out requests that need not run any more.
    pub(crate) fn take_out(&mut self, unwanted: impl Fn(&QueuedRequest<T>) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for share in self.shares.values_mut() {
            while let Some(index) = share.waiting.iter().position(&unwanted) {
                taken.extend(share.waiting.remove(index).map(|request| request.item));
            }
        }
        self.waiting -= taken.len();
        taken
    }
}

impl<T> Share<T> {
    fn is_active(&self) -> bool {
        self.running > 0 || !self.waiting.is_empty()
    }
}

fn charge(ns: u64, weight: u32) -> u64 {
    ns.saturating_mul(SCALE) / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: u64 = 1_000_000;

    /// Who asks, how long its runs take, how many of its sessions ask at once, and when it asks
    /// next.
    #[derive(Debug, Clone, Copy)]
    struct Asker {
        share: u64,
        weight: u32,
        run_ns: u64,
        sessions: u32,
        /// From an answer to the next request of the session.
        pause_ns: u64,
    }

    const NORMAL: Asker = Asker { share: 0, weight: 4, run_ns: MS, sessions: 1, pause_ns: 0 };

    /// What each asker had of the runners' time, and the longest that a request of it waited.
    #[derive(Debug, Clone, Copy, Default)]
    struct Had {
        time_ns: u64,
        runs: u64,
        longest_wait_ns: u64,
    }

    /// Runs askers on runners until `until_ns`, event by event.
    fn simulate(askers: &[Asker], runners: usize, until_ns: u64) -> Vec<Had> {
        let mut fair = FairQueue::new(4096);
        let mut had = vec![Had::default(); askers.len()];
        // When which asker asks, and when which runner is done with whose run.
        let mut asks: Vec<(u64, usize)> = Vec::new();
        for (index, asker) in askers.iter().enumerate() {
            asks.extend(
                (0..asker.sessions).map(|session| (asker.pause_ns * u64::from(session), index)),
            );
        }
        let mut under_way: Vec<(u64, usize, Turn)> = Vec::new();
        let mut now = 0;
        while now < until_ns {
            // Who is answered at this moment asks before the runner looks for more: always
            // something to do.
            for index in (0..under_way.len()).rev() {
                if under_way[index].0 <= now {
                    let (_, asker, turn) = under_way.remove(index);
                    fair.finish(turn, askers[asker].run_ns);
                    asks.push((now + askers[asker].pause_ns, asker));
                }
            }
            asks.sort_unstable();
            while asks.first().is_some_and(|(at, _)| *at <= now) {
                let (at, asker) = asks.remove(0);
                let Asker { share, weight, .. } = askers[asker];
                let item = (at, asker);
                fair.push(QueuedRequest { item, share, weight, alone: false, late_ns: u64::MAX })
                    .unwrap();
            }
            while under_way.len() < runners {
                let Some(((asked, asker), turn)) = fair.pop() else { break };
                let run_ns = askers[asker].run_ns;
                had[asker].time_ns += run_ns;
                had[asker].runs += 1;
                had[asker].longest_wait_ns = had[asker].longest_wait_ns.max(now - asked);
                under_way.push((now + run_ns, asker, turn));
            }
            let next =
                under_way.iter().map(|(at, ..)| *at).chain(asks.iter().map(|(at, _)| *at)).min();
            now = next.unwrap();
        }
        had
    }

    fn ratio(a: u64, b: u64) -> f64 {
        a as f64 / b as f64
    }

    #[test]
    fn shares_of_equal_weight_get_equal_time_however_long_their_runs_are() {
        // Each has two sessions, so that one waits while the other runs.
        let short = Asker { share: 1, run_ns: 3 * MS, sessions: 2, ..NORMAL };
        let long = Asker { share: 2, run_ns: 60 * MS, sessions: 2, ..NORMAL };
        for runners in 1..3 {
            let had = simulate(&[short, long], runners, 20_000 * MS);
            let ratio = ratio(had[0].time_ns, had[1].time_ns);
            assert!((0.97..1.03).contains(&ratio), "{runners} runners: {ratio}");
        }
    }

    #[test]
    fn time_is_divided_by_weight() {
        let askers = [(1, 1), (2, 4), (3, 16)].map(|(share, weight)| Asker {
            share,
            weight,
            run_ns: (1 + share) * MS,
            sessions: 3,
            pause_ns: 0,
        });
        let had = simulate(&askers, 1, 60_000 * MS);
        for (asker, had) in askers.iter().zip(&had) {
            let part = ratio(had.time_ns, 60_000 * MS) * 21.0 / f64::from(asker.weight);
            assert!((0.95..1.05).contains(&part), "weight {}: {part} of its part", asker.weight);
        }
    }

    #[test]
    fn a_flooder_with_many_sessions_in_one_share_counts_as_one() {
        let flooder = Asker { share: 1, sessions: 100, run_ns: 5 * MS, ..NORMAL };
        let other = Asker { share: 2, sessions: 2, run_ns: 5 * MS, ..NORMAL };
        let had = simulate(&[flooder, other], 2, 10_000 * MS);
        let ratio = ratio(had[0].time_ns, had[1].time_ns);
        assert!((0.95..1.05).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_flooder_raises_the_wait_of_the_others_by_one_run_at_most() {
        // Nine that ask twice a second and use a third of the runners, at moments that never meet
        // each other's.
        let camera = |index: u64| Asker {
            share: 10 + index,
            run_ns: 20 * MS,
            pause_ns: (480 + index) * MS,
            ..NORMAL
        };
        let mut askers: Vec<_> = (0..9).map(camera).collect();
        for runners in [1, 2] {
            let quiet = simulate(&askers, runners, 60_000 * MS);
            askers.push(Asker { share: 1, run_ns: 60 * MS, sessions: 50, ..NORMAL });
            let flooded = simulate(&askers, runners, 60_000 * MS);
            askers.pop();
            for (quiet, flooded) in quiet.iter().zip(&flooded) {
                let bound = quiet.longest_wait_ns + 60 * MS;
                assert!(
                    flooded.longest_wait_ns <= bound,
                    "{runners} runners: {quiet:?}, {flooded:?}"
                );
            }
            assert!(flooded.last().unwrap().runs > 100, "the flooder starves: {flooded:?}");
        }
    }

    prop_compose! {
        fn asker()(
            weight in prop_oneof![Just(1), Just(4), Just(16)],
            run_ms in 1..80_u64,
            sessions in 1..6_u32,
            pause_ms in 0..20_u64,
        ) -> Asker {
            Asker { share: 0, weight, run_ns: run_ms * MS, sessions, pause_ns: pause_ms * MS }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nobody_starves(mut askers in prop::collection::vec(asker(), 2..10), runners in 1..5_usize) {
            (1..).zip(&mut askers).for_each(|(share, asker)| asker.share = share);
            // Between two turns of a share each other has had its weight's worth of time, and one
            // run more.
            let longest = askers.iter().map(|asker| asker.run_ns).max().unwrap();
            let sessions = askers.iter().map(|asker| u64::from(asker.sessions)).max().unwrap();
            let bound = longest * 17 * askers.len() as u64 * sessions;
            for (asker, had) in askers.iter().zip(simulate(&askers, runners, 20 * bound)) {
                prop_assert!(had.runs > 0, "{asker:?} never ran");
                prop_assert!(had.longest_wait_ns <= bound, "{asker:?} had {had:?}, bound {bound}");
            }
        }
    }

    fn ask(fair: &mut FairQueue<u64>, share: u64, alone: bool) {
        let request = QueuedRequest { item: share, share, weight: 4, alone, late_ns: 100 + share };
        fair.push(request).unwrap();
    }

    #[test]
    fn who_did_nothing_gains_no_credit() {
        let mut fair = FairQueue::new(16);
        ask(&mut fair, 1, false);
        ask(&mut fair, 2, false);
        // While 1 sleeps, 2 works for long; it is never idle, so the shares are kept.
        let (first, turn) = fair.pop().unwrap();
        fair.finish(turn, MS);
        for _ in 0..100 {
            ask(&mut fair, 2, false);
            let (_, turn) = fair.pop().unwrap();
            fair.finish(turn, MS);
        }
        assert_eq!(first, 1);
        // Back again, 1 gets every other turn and not the next hundred.
        for _ in 0..4 {
            ask(&mut fair, 1, false);
            ask(&mut fair, 2, false);
        }
        let order = std::iter::from_fn(|| {
            let (item, turn) = fair.pop()?;
            fair.finish(turn, MS);
            Some(item)
        });
        let order: Vec<_> = order.collect();
        assert_eq!(order.iter().take(6).filter(|item| **item == 1).count(), 3, "{order:?}");
    }

    #[test]
    fn one_that_runs_alone_waits_for_the_others_and_they_for_it() {
        let mut fair = FairQueue::new(8);
        ask(&mut fair, 1, false);
        let (_, first) = fair.pop().unwrap();
        ask(&mut fair, 2, true);
        ask(&mut fair, 3, false);
        assert!(fair.pop().is_none(), "it runs beside the first, or is overtaken for ever");
        fair.finish(first, MS);
        let (item, suspect) = fair.pop().unwrap();
        assert_eq!(item, 2);
        assert!(
            fair.pop().is_none() && fair.pop_like(|_| true).is_none(),
            "another runs beside it"
        );
        fair.finish(suspect, MS);
        assert_eq!(fair.pop().unwrap().0, 3);
    }

    #[test]
    fn one_that_runs_alone_joins_no_other() {
        let mut fair = FairQueue::new(8);
        ask(&mut fair, 1, true);
        ask(&mut fair, 2, false);
        assert_eq!(fair.pop_like(|_| true).unwrap().0, 2);
        assert!(fair.pop_like(|_| true).is_none());
    }

    #[test]
    fn what_joins_is_charged_to_its_own_share() {
        let mut fair = FairQueue::new(8);
        for share in [1, 2, 3] {
            ask(&mut fair, share, false);
        }
        let (first, turn) = fair.pop().unwrap();
        let (second, joined) = fair.pop_like(|waiting| waiting.item == 3).unwrap();
        assert_eq!((first, second), (1, 3));
        assert!(fair.pop_like(|waiting| waiting.item == 3).is_none());
        fair.finish(turn, MS);
        fair.finish(joined, MS);
        for share in [1, 3] {
            ask(&mut fair, share, false);
        }
        assert_eq!(fair.pop().unwrap().0, 2);
    }

    #[test]
    fn no_more_than_the_bound_wait() {
        let mut fair = FairQueue::new(2);
        ask(&mut fair, 1, false);
        ask(&mut fair, 1, false);
        let request = QueuedRequest { item: 9, share: 2, weight: 4, alone: false, late_ns: 0 };
        assert_eq!(fair.push(request), Err(9));
        assert!(fair.pop().is_some() && fair.pop().is_some() && fair.pop().is_none());
    }

    #[test]
    fn who_waited_too_long_is_taken_out() {
        let mut fair = FairQueue::new(8);
        for share in [3, 1, 2] {
            ask(&mut fair, share, false);
        }
        assert_eq!(fair.next_late_ns(), Some(101));
        assert!(fair.take_late(100).is_empty());
        assert_eq!(fair.take_late(102), [1, 2]);
        assert_eq!(fair.next_late_ns(), Some(103));
        assert_eq!(fair.pop().unwrap().0, 3);
        assert!(fair.is_empty() && !fair.is_idle());
    }

    #[test]
    fn shares_that_are_gone_are_forgotten() {
        let mut fair = FairQueue::new(8);
        ask(&mut fair, 0, false);
        for share in 1..10_000 {
            ask(&mut fair, share, false);
            let (_, turn) = fair.pop().unwrap();
            fair.finish(turn, MS * (share % 7));
        }
        assert!(fair.shares.len() < 20, "{}", fair.shares.len());
    }
}
