//! Limits the frames per second that a pipeline processes, by the stream's own time, so that a file
//! always gives the same frames.

/// Nanoseconds by which a frame may come early. Streams round their timestamps to a millisecond at
/// worst.
const SLACK: u64 = 1_000_000;

/// Picks frames at an even rate.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimiter {
    /// Nanoseconds; none: every frame.
    interval: Option<u64>,
    /// Presentation time from which on the next frame is due.
    next: Option<u64>,
}

impl RateLimiter {
    /// At most `rate` frames a second, or all.
    #[must_use]
    pub fn new(rate: Option<f64>) -> Self {
        Self { interval: rate.map(|rate| (1e9 / rate) as u64), next: None }
    }

    /// Whether the frame at `time`, its presentation time in nanoseconds, is to be looked at. Due
    /// times lie on a grid, so that frames which come a little late do not lower the rate.
    pub fn is_due(&mut self, time: u64) -> bool {
        let Some(interval) = self.interval else { return true };
        let next = self.next.unwrap_or(time);
        let early = next.saturating_sub(time);
        // Earlier than a whole interval: the stream's time began anew.
        if early > SLACK && early <= interval {
            return false;
        }
        let on_grid = early <= SLACK && time.saturating_sub(next) < interval;
        self.next = Some(if on_grid { next } else { time }.saturating_add(interval));
        true
    }

    /// Presentation time of the next due frame, for the snapshot.
    #[must_use]
    pub fn next(&self) -> Option<u64> {
        self.next
    }

    /// Goes on from another instance's [`RateLimiter::next`].
    pub fn resume(&mut self, next: Option<u64>) {
        self.next = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn looked_at(rate: Option<f64>, times: impl IntoIterator<Item = u64>) -> Vec<u64> {
        let mut rate_limiter = RateLimiter::new(rate);
        times.into_iter().filter(|&time| rate_limiter.is_due(time)).collect()
    }

    #[test]
    fn without_a_rate_every_frame_is_looked_at() {
        assert_eq!(looked_at(None, [0, 1, 2]), [0, 1, 2]);
    }

    #[test]
    fn the_rate_is_met_and_not_exceeded() {
        for (fps, rate) in [(30u64, 10.0), (25, 10.0), (30, 7.0), (10, 0.5), (30, 29.0)] {
            // Ten minutes, timestamps rounded to milliseconds.
            let times = (0..fps * 600).map(|n| n * 1000 / fps * 1_000_000);
            let count = looked_at(Some(rate), times).len() as f64;
            assert!((count - rate * 600.0).abs() <= 1.0, "{count} of {fps} fps at {rate} a second");
        }
        let times = (0..250).map(|n| n * SECOND / 25);
        assert_eq!(looked_at(Some(100.0), times).len(), 250, "no more than there are");
    }

    #[test]
    fn a_rate_as_high_as_the_stream_takes_every_frame() {
        let rounded = (0..3000u64).map(|n| n * 1000 / 30 * 1_000_000);
        assert_eq!(looked_at(Some(30.0), rounded).len(), 3000);
    }

    #[test]
    fn a_gap_is_not_made_up_for() {
        let times =
            (0..10).map(|n| n * SECOND / 10).chain((0..10).map(|n| 60 * SECOND + n * SECOND / 10));
        assert_eq!(looked_at(Some(2.0), times).len(), 4);
    }

    #[test]
    fn time_that_begins_anew_does_not_silence_the_camera() {
        assert_eq!(
            looked_at(Some(1.0), [100 * SECOND, 0, SECOND / 2, SECOND]),
            [100 * SECOND, 0, SECOND]
        );
    }

    #[test]
    fn a_tiny_rate_does_not_overflow() {
        assert_eq!(looked_at(Some(f64::MIN_POSITIVE), [5, 6, u64::MAX / 2]), [5]);
    }
}
