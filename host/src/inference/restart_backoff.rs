//! When the next inference process may be started, where some have died soon.

use std::time::{Duration, Instant};

use super::attribution::MAX_STRIKES;
use crate::util::backoff::BackoffPolicy;

/// A process that lived so long did not die of its start.
const STABLE: Duration = Duration::from_secs(10);

/// Waits after quick deaths and failed starts.
const POLICY: BackoffPolicy = BackoffPolicy {
    // Those that one session's requests cause before it is refused.
    free: 2 * MAX_STRIKES,
    first: Duration::from_millis(100),
    longest: Duration::from_secs(5),
    jitter: 0.0,
};

/// Counts quick deaths and failed starts in a row.
#[derive(Debug, Default)]
pub(super) struct RestartBackoff {
    quick_deaths: u32,
    not_before: Option<Instant>,
    failed: bool,
}

impl RestartBackoff {
    /// A process that had lived so long has died.
    pub(super) fn died(&mut self, now: Instant, lived: Duration) {
        self.quick_deaths = if lived >= STABLE { 0 } else { self.quick_deaths.saturating_add(1) };
        self.wait(now);
    }

    /// A start has failed.
    pub(super) fn failed(&mut self, now: Instant) {
        self.failed = true;
        self.quick_deaths = self.quick_deaths.max(POLICY.free).saturating_add(1);
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
        self.not_before = Some(now + POLICY.delay(self.quick_deaths, 0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How long after `now` a start is allowed.
    fn wait(pace: &RestartBackoff, now: Instant) -> Duration {
        (0..=6000).map(Duration::from_millis).find(|wait| pace.allows(now + *wait)).unwrap()
    }

    #[test]
    fn the_deaths_that_one_session_may_cause_delay_nobody() {
        let (mut pace, now) = (RestartBackoff::default(), Instant::now());
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
        let (mut pace, now) = (RestartBackoff::default(), Instant::now());
        pace.failed(now);
        assert!(pace.has_failed());
        assert_eq!(wait(&pace, now), Duration::from_millis(100));
        pace.started();
        assert!(!pace.has_failed());
    }
}
