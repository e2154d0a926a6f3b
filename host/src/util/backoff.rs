//! How long to wait before something that has failed is tried again.
//!
//! Not the crate `backon`: its jitter only lengthens a wait, past the longest too, and it knows
//! neither free failures nor a way back to the first wait. It is made for running a future again,
//! and a supervisor has other things to do while it waits.

use std::time::Duration;

/// The waits of one kind of failure: each twice the one before.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BackoffPolicy {
    /// Failures in a row that are not waited for.
    pub(crate) free: u32,
    /// The wait after the first failure beyond those.
    pub(crate) first: Duration,
    /// No wait is longer.
    pub(crate) longest: Duration,
    /// The share by which a wait is at most lengthened at random, or shortened where it is below
    /// zero: what failed together is not to come back together.
    pub(crate) jitter: f64,
}

impl BackoffPolicy {
    /// The wait after so many failures in a row: zero after those that are free. `random` is drawn
    /// evenly from `[0, 1)`.
    pub(crate) fn delay(&self, failures: u32, random: f64) -> Duration {
        let Some(doublings) = failures.saturating_sub(self.free).checked_sub(1) else {
            return Duration::ZERO;
        };
        // 2^20 times any first wait is far above any longest one, and far from overflow.
        let wait = self.first.saturating_mul(1 << doublings.min(20)).min(self.longest);
        wait.mul_f64(1.0 + self.jitter * random.clamp(0.0, 1.0)).min(self.longest)
    }
}

/// Failures in a row, and what to wait after each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backoff {
    waits: BackoffPolicy,
    failures: u32,
}

impl Backoff {
    /// Nothing has failed yet.
    pub(crate) fn new(waits: BackoffPolicy) -> Self {
        Self { waits, failures: 0 }
    }

    /// Another failure: how long to wait, as [`BackoffPolicy::delay`] says.
    pub(crate) fn fail(&mut self, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.waits.delay(self.failures, random)
    }

    /// It went well: the next failure is the first again.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WAITS: BackoffPolicy = BackoffPolicy {
        free: 0,
        first: Duration::from_millis(100),
        longest: Duration::from_secs(5),
        jitter: 0.0,
    };

    fn waits(waits: BackoffPolicy, random: f64, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::new(waits);
        (0..count).map(|_| backoff.fail(random).as_millis()).collect()
    }

    #[test]
    fn waits_double_up_to_the_longest_and_begin_anew_after_a_success() {
        assert_eq!(waits(WAITS, 0.5, 8), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let mut backoff = Backoff::new(WAITS);
        (0..100).for_each(|_| _ = backoff.fail(0.0));
        assert_eq!(backoff.fail(0.0), WAITS.longest);
        backoff.reset();
        assert_eq!(backoff.fail(0.0), WAITS.first);
    }

    #[test]
    fn free_failures_are_not_waited_for() {
        assert_eq!(waits(BackoffPolicy { free: 2, ..WAITS }, 0.0, 4), [0, 0, 100, 200]);
        assert_eq!(WAITS.delay(0, 0.0), Duration::ZERO);
    }

    #[test]
    fn chance_lengthens_a_wait_or_shortens_it_and_never_past_the_longest() {
        assert_eq!(waits(BackoffPolicy { jitter: 0.25, ..WAITS }, 1.0, 2), [125, 250]);
        assert_eq!(BackoffPolicy { jitter: 0.25, ..WAITS }.delay(100, 1.0), WAITS.longest);
        assert_eq!(waits(BackoffPolicy { jitter: -0.5, ..WAITS }, 1.0, 2), [50, 100]);
    }

    proptest! {
        #[test]
        fn a_wait_is_never_out_of_its_bounds(failures in 1..=u32::MAX, random in 0.0..1.0_f64, jitter in -0.5..0.5_f64) {
            let wait = BackoffPolicy { jitter, ..WAITS }.delay(failures, random);
            prop_assert!((WAITS.first / 2..=WAITS.longest).contains(&wait), "{wait:?}");
        }
    }
}
