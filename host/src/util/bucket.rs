//! How often something may be done: a pace, and what is left of it.

use std::time::{Duration, Instant};

/// So many times at once, and after that so many a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct RateLimit {
    /// At once.
    pub(crate) burst: f64,
    /// In a second, in the long run.
    pub(crate) per_second: f64,
}

/// What is left of a [`RateLimit`], which the caller brings along: it may change between two calls.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TokenBucket {
    left: f64,
    at: Instant,
}

impl TokenBucket {
    pub(crate) fn full(pace: RateLimit, now: Instant) -> Self {
        Self { left: pace.burst, at: now }
    }

    /// Takes one time out. Else how long it takes until there is one.
    pub(crate) fn take(&mut self, pace: RateLimit, now: Instant) -> Result<(), Duration> {
        self.left = self.left(pace, now);
        // Time that goes back is no rest when it comes again.
        self.at = self.at.max(now);
        // What is a hair below one by rounding is one.
        if self.left > 1.0 - 1e-6 {
            self.left -= 1.0;
            Ok(())
        } else {
            Err(Duration::from_secs_f64((1.0 - self.left) / pace.per_second))
        }
    }

    /// Whether nothing is taken, or so long ago that it does not count any more.
    pub(crate) fn is_full(&self, pace: RateLimit, now: Instant) -> bool {
        self.left(pace, now) >= pace.burst
    }

    fn left(&self, pace: RateLimit, now: Instant) -> f64 {
        let rest = now.saturating_duration_since(self.at).as_secs_f64();
        rest.mul_add(pace.per_second, self.left).min(pace.burst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: RateLimit = RateLimit { per_second: 2.0, burst: 3.0 };

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(PACE, start);
        let mut taken = |ms| {
            (0..10).filter(|_| bucket.take(PACE, start + Duration::from_millis(ms)).is_ok()).count()
        };
        assert_eq!(taken(0), 3);
        assert_eq!(taken(499), 0);
        assert_eq!(taken(1000), 2);
        assert_eq!(taken(100_000), 3);
        assert_eq!(taken(0), 0, "time that goes back is no rest");
        assert_eq!(taken(100_000), 0, "nor is it one when it comes again");
    }

    #[test]
    fn an_empty_one_says_how_long_it_takes_and_a_full_one_that_it_is_full() {
        let start = Instant::now();
        let mut bucket = TokenBucket::full(PACE, start);
        assert!(bucket.is_full(PACE, start));
        assert_eq!([(); 3].map(|()| bucket.take(PACE, start)), [Ok(()); 3]);
        assert_eq!(bucket.take(PACE, start), Err(Duration::from_millis(500)));
        let later = |ms| start + Duration::from_millis(ms);
        assert_eq!(bucket.take(PACE, later(250)), Err(Duration::from_millis(250)));
        assert!(!bucket.is_full(PACE, later(1499)));
        assert!(bucket.is_full(PACE, later(1500)));
    }
}
