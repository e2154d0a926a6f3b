//! How long a host may speak for its cameras.
//!
//! etcd ends a host's lease [`TTL`] after the last renewal that it has seen. The host cannot know when
//! that was, but it was not before the host sent the renewal: so it counts from the *sending* of the
//! last answered one, and stops [`VOICE`] after it, before etcd can give its cameras to another. An
//! answer that comes later revives nothing: a new lease is a new life, without cameras.
//!
//! [`Lease`] decides, with times as parameters. Times are [`BootTime`]s, which go on while the
//! machine is suspended, and which nobody can set.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// After which time without a renewal etcd ends a lease. Shorter, and a new etcd leader, which takes
/// 1 to 2 s to be elected, would cost a host its cameras; longer, and cameras of a dead host wait.
pub const TTL: Duration = Duration::from_secs(5);

/// From one renewal to the next: five get lost before the host falls silent.
pub const RENEWAL: Duration = Duration::from_millis(700);

/// How long an answer is waited for, before another server is asked: five are asked in one [`VOICE`].
pub const REQUEST: Duration = Duration::from_millis(800);

/// How long a host may speak after it sent a renewal. What is left to [`TTL`] covers the different
/// speeds of two machines' clocks and what a message that was begun in time still takes.
pub const VOICE: Duration = Duration::from_millis(4300);

/// From a renewal that was refused at once to the next, which asks another server.
const RETRY: Duration = Duration::from_millis(100);

/// A moment by CLOCK_BOOTTIME: the time since the machine was started, suspended or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(Duration);

impl BootTime {
    /// This moment.
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanoseconds = u32::try_from(time.tv_nsec).unwrap_or_default();
        Self(Duration::new(seconds, nanoseconds))
    }

    /// The moment `since_start` after the machine was started.
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Nanoseconds since the machine was started: enough for 580 years.
    pub fn as_nanos(self) -> u64 {
        u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The time from `earlier` to this moment, none where that is later.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment `duration` later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// Why a lease is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lapse {
    /// No renewal was answered in time.
    Unanswered,
    /// etcd does not have it.
    Gone,
}

/// What a lease's holder does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Send a renewal.
    Renew,
    /// Ask again at that moment.
    Wait(BootTime),
    /// Fall silent. Nothing revives this lease.
    Lapsed(Lapse),
}

/// One lease of one host, from its grant to its lapse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Until when its holder may speak.
    until: BootTime,
    /// When the next renewal is to be sent.
    due: BootTime,
    over: Option<Lapse>,
}

impl Lease {
    /// One that etcd granted upon a request sent at `sent`.
    pub fn granted(sent: BootTime) -> Self {
        Self { until: sent.after(VOICE), due: sent.after(RENEWAL), over: None }
    }

    /// Until when its holder may speak, if no more renewals are answered.
    pub fn until(&self) -> BootTime {
        self.until
    }

    /// Whether its holder may speak at `now`.
    pub fn holds(&self, now: BootTime) -> bool {
        self.over.is_none() && now < self.until
    }

    /// What to do at `now`. A renewal is in flight no longer than until the caller says
    /// [`Lease::answered`], [`Lease::unanswered`] or [`Lease::gone`].
    pub fn next(&mut self, now: BootTime) -> Next {
        if self.over.is_none() && now >= self.until {
            self.over = Some(Lapse::Unanswered);
        }
        match self.over {
            Some(lapse) => Next::Lapsed(lapse),
            None if now >= self.due => Next::Renew,
            None => Next::Wait(self.due.min(self.until)),
        }
    }

    /// The renewal sent at `sent` was answered at `now`.
    pub fn answered(&mut self, sent: BootTime, now: BootTime) {
        if self.holds(now) {
            self.until = self.until.max(sent.after(VOICE));
            self.due = self.due.max(sent.after(RENEWAL));
        }
    }

    /// The renewal sent at `sent` brought an error, or nothing until `now`.
    pub fn unanswered(&mut self, sent: BootTime, now: BootTime) {
        self.due = sent.after(RETRY).max(now);
    }

    /// etcd says that it does not have the lease.
    pub fn gone(&mut self) {
        self.over.get_or_insert(Lapse::Gone);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: BootTime = BootTime::new(Duration::from_secs(1000));

    fn at(millis: u64) -> BootTime {
        START.after(Duration::from_millis(millis))
    }

    #[test]
    fn the_voice_ends_well_before_the_lease_and_spans_five_requests() {
        assert!(VOICE + Duration::from_millis(500) < TTL);
        assert!(REQUEST * 5 <= VOICE);
        assert!(RENEWAL * 5 <= VOICE);
    }

    #[test]
    fn what_counts_is_when_a_renewal_was_sent() {
        let mut lease = Lease::granted(START);
        lease.answered(at(700), at(1400));
        assert_eq!(lease.until(), at(700 + 4300));
        // An older answer, later.
        lease.answered(at(300), at(1500));
        assert_eq!(lease.until(), at(700 + 4300));
    }

    #[test]
    fn a_late_answer_revives_nothing() {
        let mut lease = Lease::granted(START);
        lease.answered(at(4200), at(4300));
        assert!(!lease.holds(at(4300)));
        assert_eq!(lease.next(at(4300)), Next::Lapsed(Lapse::Unanswered));
        lease.answered(at(4250), at(4350));
        assert_eq!(lease.next(at(4350)), Next::Lapsed(Lapse::Unanswered));
    }

    #[test]
    fn a_machine_that_was_suspended_wakes_up_silent() {
        let mut lease = Lease::granted(START);
        assert!(lease.holds(at(4299)));
        assert!(!lease.holds(at(3_600_000)));
        assert_eq!(lease.next(at(3_600_000)), Next::Lapsed(Lapse::Unanswered));
    }

    #[test]
    fn a_lease_that_etcd_does_not_have_is_over_at_once() {
        let mut lease = Lease::granted(START);
        lease.gone();
        assert!(!lease.holds(at(1)));
        assert_eq!(lease.next(at(1)), Next::Lapsed(Lapse::Gone));
    }

    #[test]
    fn a_server_that_refuses_costs_less_than_one_that_is_silent() {
        let mut lease = Lease::granted(START);
        assert_eq!(lease.next(at(0)), Next::Wait(at(700)));
        assert_eq!(lease.next(at(700)), Next::Renew);
        lease.unanswered(at(700), at(701));
        assert_eq!(lease.next(at(701)), Next::Wait(at(800)));
        lease.unanswered(at(800), at(1600));
        assert_eq!(lease.next(at(1600)), Next::Renew);
    }

    /// One renewal as the world has it: how long the answer takes, whether etcd sees it, and after
    /// which part of that time.
    #[derive(Debug, Clone)]
    struct Try {
        answer: Option<u64>,
        seen: bool,
        part: f64,
        /// The holder runs only after that time.
        stall: u64,
    }

    fn tries() -> impl Strategy<Value = Vec<Try>> {
        let answer = prop_oneof![3 => (0_u64..750).prop_map(Some), 1 => Just(None)];
        let stall = prop_oneof![9 => Just(0_u64), 1 => 0_u64..8000];
        let one =
            (answer, any::<bool>(), 0.0..1.0, stall).prop_map(|(answer, seen, part, stall)| Try {
                answer,
                seen: seen || answer.is_some(),
                part,
                stall,
            });
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        /// Against an etcd that ends the lease `TTL` after the last renewal it has seen: whenever the
        /// holder may speak, the lease lives.
        #[test]
        fn whoever_may_speak_has_a_lease(tries in tries(), grant in 0_u64..800) {
            let mut now = at(grant);
            let mut lease = Lease::granted(START);
            // Not before it was sent.
            let mut ends = START.after(TTL);
            let mut over = false;
            for attempt in tries {
                now = now.after(Duration::from_millis(attempt.stall));
                loop {
                    match lease.next(now) {
                        Next::Wait(until) => {
                            prop_assert!(until > now && until <= lease.until());
                            now = until;
                        }
                        Next::Renew => {
                            prop_assert!(!over);
                            break;
                        }
                        Next::Lapsed(_) => {
                            over = true;
                            break;
                        }
                    }
                }
                if over {
                    prop_assert!(!lease.holds(now));
                    lease.answered(now, now);
                    prop_assert!(!lease.holds(now));
                    continue;
                }
                let sent = now;
                let taken = attempt.answer.unwrap_or(800);
                #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                let seen = sent.after(Duration::from_millis((taken as f64 * attempt.part) as u64));
                // etcd renews no lease that is over.
                let alive = seen < ends;
                if attempt.seen && alive {
                    ends = seen.after(TTL);
                }
                now = sent.after(Duration::from_millis(taken));
                match attempt.answer {
                    Some(_) if alive => lease.answered(sent, now),
                    Some(_) => lease.gone(),
                    None => lease.unanswered(sent, now),
                }
                prop_assert!(lease.until() < ends || !lease.holds(now));
            }
        }
    }
}
