//! Results a second.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The rate shown is that of the last so many seconds: long enough to be steady, short enough to
/// follow a change.
pub(super) const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Results counted as they come.
#[derive(Default)]
pub(in crate::cli) struct Rate {
    first: Option<Instant>,
    recent: VecDeque<Instant>,
}

impl Rate {
    /// Counts a result and returns results per second over the last [`RATE_WINDOW`], or since the
    /// first.
    pub(in crate::cli) fn count(&mut self, now: Instant) -> f64 {
        self.first.get_or_insert(now);
        self.recent.push_back(now);
        self.per_second(now)
    }

    /// Results per second now.
    pub(super) fn per_second(&mut self, now: Instant) -> f64 {
        let Some(first) = self.first else { return 0.0 };
        while self.recent.front().is_some_and(|then| now.duration_since(*then) >= RATE_WINDOW) {
            self.recent.pop_front();
        }
        let window = now.duration_since(first).min(RATE_WINDOW).as_secs_f64();
        // The first result ends no interval yet.
        let intervals = if window < RATE_WINDOW.as_secs_f64() {
            self.recent.len().saturating_sub(1)
        } else {
            self.recent.len()
        };
        if window > 0.0 { intervals as f64 / window } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let started = Instant::now();
        let mut rate = Rate::default();
        let at = |rate: &mut Rate, milliseconds| {
            rate.count(started + Duration::from_millis(milliseconds))
        };
        assert_eq!(at(&mut rate, 0), 0.0);
        let ten_a_second = (1..=100).map(|n| at(&mut rate, n * 100)).last().unwrap();
        assert!((ten_a_second - 10.0).abs() < 0.01, "{ten_a_second}");
        let after_a_pause = at(&mut rate, 60_000);
        assert!(after_a_pause < 0.5, "{after_a_pause}");
    }
}
