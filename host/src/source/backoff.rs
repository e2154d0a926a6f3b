//! How long to wait before the next attempt to reach a camera. Time and randomness are parameters, so that tests are
//! exact.

use std::time::Duration;

use super::fault::FaultKind;

/// The first wait after a stream broke: a camera that lost one packet or restarted its service is back at once.
const FAST_START: Duration = Duration::from_millis(250);
/// The longest wait for a camera that does not answer. A stream must resume within 3 s of the camera's return, and
/// connecting and waiting for the first key frame, up to 2 s with the usual GOP, take their share of it. One connection
/// attempt every 0.7 s costs neither side anything.
const FAST_CAP: Duration = Duration::from_millis(700);
/// The first wait after a fault that a retry cannot cure. Cameras lock an account after a few wrong passwords (5 within
/// 5 minutes is common); the doubling waits from here on try 4 times in the first 2 minutes.
const SLOW_START: Duration = Duration::from_secs(10);
/// The longest such wait: how long a corrected camera may take to be noticed.
const SLOW_CAP: Duration = Duration::from_secs(60);
/// Waits are drawn from `[wait, wait * (1 + JITTER)]`, so that the cameras of a switch that restarted do not all come at
/// once. Upwards only: a slow wait is never shorter than it says.
const JITTER: f64 = 0.25;
/// A stream that held this long was a good one: the next fault starts from the shortest wait again. Shorter ones count
/// as failed attempts, or a camera that drops each client at once would be called four times a second for ever.
const HEALTHY: Duration = Duration::from_secs(5);

/// Exponential backoff of one reader.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    fast_failures: u32,
    slow_failures: u32,
}

impl Backoff {
    /// The wait after an attempt that ended with `fault`, its stream having delivered for `up_for` (zero if it never
    /// did). `random` is drawn evenly from `[0, 1)`.
    pub(super) fn after(&mut self, fault: FaultKind, up_for: Duration, random: f64) -> Duration {
        if up_for >= HEALTHY {
            *self = Self::default();
        }
        let (failures, start, cap) = if is_slow(fault) {
            self.fast_failures = 0;
            (&mut self.slow_failures, SLOW_START, SLOW_CAP)
        } else {
            self.slow_failures = 0;
            (&mut self.fast_failures, FAST_START, FAST_CAP)
        };
        // 2^20 times any start is far above any cap, and far from overflow.
        let wait = start.saturating_mul(1 << (*failures).min(20));
        *failures = failures.saturating_add(1);
        let jittered = wait.min(cap).mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0));
        jittered.min(cap)
    }
}

/// Faults that stay until a person changes something.
fn is_slow(fault: FaultKind) -> bool {
    matches!(
        fault,
        FaultKind::Unauthorized | FaultKind::NotRtsp | FaultKind::NoVideo | FaultKind::UnsupportedCodec
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEVER_UP: Duration = Duration::ZERO;

    fn waits(fault: FaultKind, random: f64, count: usize) -> Vec<u128> {
        let mut backoff = Backoff::default();
        (0..count).map(|_| backoff.after(fault, NEVER_UP, random).as_millis()).collect()
    }

    #[test]
    fn an_unreachable_camera_is_tried_at_doubling_waits_up_to_the_cap() {
        assert_eq!(waits(FaultKind::Unreachable, 0.0, 5), [250, 500, 700, 700, 700]);
    }

    #[test]
    fn a_wrong_password_is_not_retried_within_ten_seconds() {
        assert_eq!(waits(FaultKind::Unauthorized, 0.0, 5), [10_000, 20_000, 40_000, 60_000, 60_000]);
        assert_eq!(waits(FaultKind::Unauthorized, 1.0, 2), [12_500, 25_000]);
    }

    #[test]
    fn a_stream_that_held_starts_the_waits_anew_and_one_that_broke_at_once_does_not() {
        let mut backoff = Backoff::default();
        backoff.after(FaultKind::Closed, NEVER_UP, 0.0);
        assert_eq!(backoff.after(FaultKind::Closed, Duration::from_secs(1), 0.0).as_millis(), 500);
        assert_eq!(backoff.after(FaultKind::Closed, Duration::from_secs(60), 0.0).as_millis(), 250);
    }

    #[test]
    fn a_camera_that_comes_back_while_it_refuses_the_password_is_not_waited_for_like_before() {
        let mut backoff = Backoff::default();
        backoff.after(FaultKind::Unauthorized, NEVER_UP, 0.0);
        backoff.after(FaultKind::Unauthorized, NEVER_UP, 0.0);
        assert_eq!(backoff.after(FaultKind::Unreachable, NEVER_UP, 0.0).as_millis(), 250);
    }

    proptest! {
        #[test]
        fn every_wait_lies_within_its_bounds(
            random in 0.0..1.0_f64,
            faults in prop::collection::vec(prop::sample::select(FaultKind::ALL.to_vec()), 1..100),
        ) {
            let mut backoff = Backoff::default();
            for fault in faults {
                let wait = backoff.after(fault, NEVER_UP, random);
                let (low, high) = if is_slow(fault) { (SLOW_START, SLOW_CAP) } else { (FAST_START, FAST_CAP) };
                prop_assert!((low..=high).contains(&wait), "{:?} {:?}", fault, wait);
            }
        }
    }
}
