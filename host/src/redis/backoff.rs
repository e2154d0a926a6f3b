//! How long to wait before Redis is tried again. Randomness is a parameter, so that tests are exact.

use std::time::Duration;

/// The first wait: a Redis that was restarted is back within a second.
const START: Duration = Duration::from_millis(100);

/// The longest: how long a Redis that is back may go unnoticed.
const CAP: Duration = Duration::from_secs(5);

/// Waits are drawn from `[wait / 2, wait]`, so that the hosts of one Redis do not all come at once.
const JITTER: f64 = 0.5;

/// Waits that double.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after another failure. `random` is drawn evenly from `[0, 1)`.
    pub(super) fn after(&mut self, random: f64) -> Duration {
        // Six doublings reach the cap.
        let wait = START.saturating_mul(1 << self.failures.min(6)).min(CAP);
        self.failures = self.failures.saturating_add(1);
        wait.mul_f64(1.0 - JITTER * random.clamp(0.0, 1.0))
    }

    /// It went well: the next failure is the first again.
    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_five_seconds_and_begin_anew_after_a_success() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..8).map(|_| backoff.after(0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(backoff.after(1.0).as_millis(), 2500);
        backoff.reset();
        assert_eq!(backoff.after(0.0).as_millis(), 100);
    }
}
