//! How often somebody may do something.

use std::time::Instant;

/// A token bucket: so many a second, and so many at once after a rest.
#[derive(Debug)]
pub(super) struct Bucket {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(super) fn new(per_second: f64, burst: f64, now: Instant) -> Self {
        Self { per_second, burst, left: burst, at: now }
    }

    /// Takes one out. False where none is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let rest = now.saturating_duration_since(self.at).as_secs_f64();
        self.left = rest.mul_add(self.per_second, self.left).min(self.burst);
        self.at = self.at.max(now);
        let some = self.left >= 1.0;
        if some {
            self.left -= 1.0;
        }
        some
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_so_many_a_second() {
        let start = Instant::now();
        let mut bucket = Bucket::new(2.0, 3.0, start);
        let mut taken = |ms| (0..10).filter(|_| bucket.take(start + Duration::from_millis(ms))).count();
        assert_eq!(taken(0), 3);
        assert_eq!(taken(499), 0);
        assert_eq!(taken(1000), 2);
        assert_eq!(taken(100_000), 3);
        assert_eq!(taken(0), 0, "time that goes back is no rest");
    }
}
