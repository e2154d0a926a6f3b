//! When the next inference process may be started, where some have died soon.

use std::time::{Duration, Instant};

use super::blame::MAX_OFFENCES;

/// A process that lived so long did not die of its start.
const STABLE: Duration = Duration::from_secs(10);

/// Quick deaths that are not waited for: those that one session's requests cause before it is refused.
const FREE: u32 = 2 * MAX_OFFENCES;

/// Wait after the first quick death beyond those: doubled each time, up to the second figure.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Counts quick deaths and failed starts in a row.
#[derive(Debug, Default)]
pub(super) struct Pace {
    quick: u32,
    not_before: Option<Instant>,
    failed: bool,
}

impl Pace {
    /// A process that had lived so long has died.
    pub(super) fn died(&mut self, now: Instant, lived: Duration) {
        self.quick = if lived >= STABLE { 0 } else { self.quick.saturating_add(1) };
        self.wait(now);
    }

    /// A start has failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failed = true;
        self.quick = self.quick.max(FREE).saturating_add(1);
        self.wait(now);
    }

    /// A start has succeeded.
    pub(super) fn started(&mut self) {
        self.failed = false;
    }

    /// Whether the last start failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Whether a process may be started now.
    pub(super) fn allows(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| now >= at)
    }

    fn wait(&mut self, now: Instant) {
        self.not_before = self.quick.checked_sub(FREE + 1).map(|doublings| {
            let wait = FIRST_WAIT.saturating_mul(1 << doublings.min(16));
            now + wait.min(LONGEST_WAIT)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after `now` a start is allowed.
    fn wait(pace: &Pace, now: Instant) -> Duration {
        (0..=6000).map(Duration::from_millis).find(|wait| pace.allows(now + *wait)).unwrap()
    }

    #[test]
    fn the_deaths_that_one_session_may_cause_delay_nobody() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..6 {
            pace.died(now, Duration::ZERO);
            assert!(pace.allows(now));
        }
        pace.died(now, Duration::ZERO);
        assert_eq!(wait(&pace, now), Duration::from_millis(100));
        pace.died(now, Duration::ZERO);
        assert_eq!(wait(&pace, now), Duration::from_millis(200));
        (0..100).for_each(|_| pace.died(now, Duration::ZERO));
        assert_eq!(wait(&pace, now), Duration::from_secs(5));
        pace.died(now, STABLE);
        assert!(pace.allows(now), "a process that lived for long begins anew");
    }

    #[test]
    fn a_failed_start_is_waited_for_at_once() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.failed(now);
        assert!(pace.has_failed());
        assert_eq!(wait(&pace, now), Duration::from_millis(100));
        pace.started();
        assert!(!pace.has_failed());
    }
}
