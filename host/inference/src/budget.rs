//! Who may run a model now, of those that ask: the runners' time goes where it is wanted most.
//!
//! A pipeline that need not run its model on every frame *bids* at each frame: how much of the
//! picture its results no longer describe. A bucket fills with `cores` times the wall time and pays
//! for what granted runs take. A bid's *urgency* is weight x want x time since the last grant, by
//! what a run of this bidder costs. It is granted where the bucket pays for it besides all live
//! bids that are more urgent: those get theirs when they ask next, and nobody waits for one that
//! does not come. A full bucket pays for anyone who asks, since what it would take in is lost.
//!
//! So runners' time is divided by weight x want where it is short, and no run is granted for which
//! there is no time: granted runs wait for the few that the bucket holds at most.
//!
//! A bidder whose last grant is long ago, or who had none, comes before all others, whatever it
//! wants, the longest wait first: nobody starves, and what asks each frame and wants nothing is
//! looked at now and then.
//!
//! What runs without a grant is charged to nobody here: it has its part of the runners by
//! [`FairQueue`](crate::fair::FairQueue), as all that never asks.
//!
//! A process that replaces another knows nothing of its bids: everyone comes first once.
//!
//! This is a pure structure: time is a parameter, in nanoseconds on the monotonic clock.

use std::collections::BTreeMap;

use ocelli_protocol::inference::MAX_WANT;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;

/// After so long without a run a bidder comes first: an idle camera is looked at this often, which
/// costs a core 20 ms in 8 s, and a camera of which nobody knows how uncertain it is no more.
pub(crate) const FLOOR_NS: u64 = 8 * SECOND;

/// A bid counts for two of its bidder's intervals and at least for this long: two frames of a
/// camera with 8 frames a second.
const LIVE_NS: u64 = 250 * MS;

/// A bid counts no longer than this, however seldom its bidder asks: time is reserved for it.
const MAX_LIVE_NS: u64 = 2 * SECOND;

/// The bucket holds what comes in so long, but at least two runs: more would be granted at once
/// after a pause, and wait for each other. Less would be lost between the frames of a camera with 5
/// frames a second.
const FULL_NS: u64 = 200 * MS;

/// A run is paid in advance with at most what comes in so long, the rest afterwards: others would
/// wait until there is enough for one that is expensive.
const MAX_ADVANCE_NS: u64 = SECOND;

/// The bucket owes at most what comes in so long: a run that hangs for a minute must not cost the
/// others ten at a tenth of a core.
const MAX_DEBT_NS: u64 = 5 * SECOND;

/// What a bidder's run is taken to cost before its first: a small detector on a processor.
const FIRST_COST_NS: u64 = 20 * MS;

/// The bucket, and the bids.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Thousandths of a core that come in.
    millicores: u64,
    /// Runners' time that is there to give; below 0 it is owed.
    held_ns: i64,
    /// When time came in last; `None` before the first bid.
    filled_ns: Option<u64>,
    bidders: BTreeMap<u64, Bidder>,
}

/// One who has asked.
#[derive(Debug)]
struct Bidder {
    weight: u32,
    /// Its last bid, 0 to [`MAX_WANT`].
    want: u16,
    first_ns: u64,
    asked_ns: u64,
    /// From the bid before the last to the last.
    interval_ns: u64,
    /// When it was granted a run last.
    granted_ns: Option<u64>,
    /// Its last bid was granted: what it runs until the next is charged.
    granted: bool,
    /// What the runs of a grant cost, as a moving mean.
    cost_ns: u64,
    /// Of what was paid in advance, the part that no run has used.
    reserved_ns: u64,
    /// What the runs of the last grant took.
    spent_ns: u64,
}

/// How early a bid's turn is; the greatest first.
type Rank = (u64, u128, u64);

impl Budget {
    /// With so many thousandths of a core.
    pub(crate) fn new(millicores: u32) -> Self {
        let millicores = u64::from(millicores);
        Self { millicores, held_ns: i64::MAX, filled_ns: None, bidders: BTreeMap::new() }
    }

    /// Takes a bid, 0 to [`MAX_WANT`], and says whether the bidder may run its models now.
    pub(crate) fn ask(&mut self, number: u64, weight: u32, want: u16, now_ns: u64) -> bool {
        self.settle(number);
        let bidder = self.bidders.entry(number).or_insert_with(|| Bidder::new(now_ns));
        bidder.bid(weight, want.min(MAX_WANT), now_ns);
        self.fill(now_ns);
        let most = self.coming_in(MAX_ADVANCE_NS);
        let Some(bidder) = self.bidders.get(&number) else { return false };
        let Some(rank) = bidder.rank(now_ns) else { return false };
        let cost = bidder.advance(most);
        let above = self.bidders.iter().filter(|&(&other, bid)| {
            other != number
                // Who has a grant is paid for until it asks again.
                && !bid.granted
                && bid.is_live(now_ns)
                && bid.rank(now_ns).is_some_and(|theirs| (theirs, other) > (rank, number))
        });
        let above: i64 = above.map(|(_, bid)| bid.advance(most)).sum();
        let full = self.held_ns >= self.most_held();
        let granted = self.held_ns >= cost && (full || self.held_ns >= cost.saturating_add(above));
        if granted && let Some(bidder) = self.bidders.get_mut(&number) {
            self.held_ns -= cost;
            bidder.granted = true;
            bidder.granted_ns = Some(now_ns);
            bidder.reserved_ns = cost.unsigned_abs();
        }
        granted
    }

    /// Charges what a run took, if its bidder was granted it.
    pub(crate) fn charge(&mut self, number: u64, ran_ns: u64) {
        let most_owed = self.coming_in(MAX_DEBT_NS);
        let Some(bidder) = self.bidders.get_mut(&number).filter(|bidder| bidder.granted) else {
            return;
        };
        bidder.spent_ns = bidder.spent_ns.saturating_add(ran_ns);
        let paid = bidder.reserved_ns.min(ran_ns);
        bidder.reserved_ns -= paid;
        let rest = i64::try_from(ran_ns - paid).unwrap_or(i64::MAX);
        self.held_ns = self.held_ns.saturating_sub(rest).max(-most_owed);
    }

    /// Forgets a bidder that is gone. What it had not used is there for others.
    pub(crate) fn forget(&mut self, number: u64) {
        self.settle(number);
        self.bidders.remove(&number);
    }

    /// Ends a bidder's last grant: gives back what its runs have not used.
    fn settle(&mut self, number: u64) {
        if let Some(bidder) = self.bidders.get_mut(&number) {
            let unused = i64::try_from(std::mem::take(&mut bidder.reserved_ns)).unwrap_or(0);
            self.held_ns = self.held_ns.saturating_add(unused);
            bidder.settle();
        }
    }

    fn fill(&mut self, now_ns: u64) {
        let since = now_ns.saturating_sub(self.filled_ns.unwrap_or(now_ns));
        self.filled_ns = Some(self.filled_ns.unwrap_or(now_ns).max(now_ns));
        let more = self.coming_in(since);
        self.held_ns = self.held_ns.saturating_add(more).min(self.most_held());
    }

    /// What the bucket takes in within so long.
    fn coming_in(&self, ns: u64) -> i64 {
        let ns = u128::from(ns) * u128::from(self.millicores) / 1000;
        i64::try_from(ns).unwrap_or(i64::MAX)
    }

    /// What the bucket holds at most.
    fn most_held(&self) -> i64 {
        let most = self.coming_in(MAX_ADVANCE_NS);
        let dearest = self.bidders.values().map(|bidder| bidder.advance(most)).max().unwrap_or(0);
        self.coming_in(FULL_NS).max(2 * dearest)
    }
}

impl Bidder {
    fn new(now_ns: u64) -> Self {
        Self {
            weight: 1,
            want: 0,
            first_ns: now_ns,
            asked_ns: now_ns,
            interval_ns: 0,
            granted_ns: None,
            granted: false,
            cost_ns: FIRST_COST_NS,
            reserved_ns: 0,
            spent_ns: 0,
        }
    }

    fn bid(&mut self, weight: u32, want: u16, now_ns: u64) {
        (self.weight, self.want) = (weight, want);
        self.interval_ns = now_ns.saturating_sub(self.asked_ns);
        self.asked_ns = now_ns;
    }

    fn settle(&mut self) {
        self.granted = false;
        match std::mem::take(&mut self.spent_ns) {
            0 => {}
            spent_ns => self.cost_ns = self.cost_ns / 4 * 3 + spent_ns / 4,
        }
    }

    fn is_live(&self, now_ns: u64) -> bool {
        let lasts = self.interval_ns.saturating_mul(2).clamp(LIVE_NS, MAX_LIVE_NS);
        now_ns.saturating_sub(self.asked_ns) <= lasts
    }

    /// `None`: it wants nothing, and has had a run not long ago.
    fn rank(&self, now_ns: u64) -> Option<Rank> {
        let Some(granted_ns) = self.granted_ns else {
            // Before all that have had one.
            let waits = now_ns.saturating_sub(self.first_ns);
            return Some((u64::MAX / 2 + waits.min(u64::MAX / 4), 0, 0));
        };
        let waits = now_ns.saturating_sub(granted_ns);
        if waits >= FLOOR_NS {
            return Some((waits.min(u64::MAX / 4), 0, 0));
        }
        let wants = u128::from(self.weight) * u128::from(self.want);
        let urgency = wants * u128::from(waits) * u128::from(MS) / u128::from(self.cost_ns.max(1));
        (wants > 0).then_some((0, urgency, waits))
    }

    /// What is paid in advance for a run.
    fn advance(&self, most_ns: i64) -> i64 {
        i64::try_from(self.cost_ns).unwrap_or(i64::MAX).min(most_ns)
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
