//! How long to wait before the next attempt to reach a camera. Time and randomness are parameters,
//! so that tests are exact.

use std::time::Duration;

use super::fault::SourceFaultKind;
use crate::util::backoff::{Backoff, BackoffPolicy};

/// Maximum share by which a wait is lengthened at random, so that the cameras of a restarted switch
/// do not all reconnect at once. Upwards only: a slow wait is never shorter than it says.
const JITTER: f64 = 0.25;

/// Waits after a fault that may be over at once.
const FAST: BackoffPolicy = BackoffPolicy {
    free: 0,
    // A camera that lost one packet or restarted its service is back at once.
    first: Duration::from_millis(250),
    // A stream must resume within 3 s of the camera's return, and connecting and waiting for the
    // first key frame, up to 2 s with the usual GOP, take their share of it. One connection attempt
    // every 0.7 s costs neither side anything.
    longest: Duration::from_millis(700),
    jitter: JITTER,
};

/// Waits after a fault that a retry cannot cure.
const SLOW: BackoffPolicy = BackoffPolicy {
    free: 0,
    // Cameras lock an account after a few wrong passwords (5 within 5 minutes is common); the
    // doubling waits from here on try 4 times in the first 2 minutes.
    first: Duration::from_secs(10),
    // How long a corrected camera may take to be noticed.
    longest: Duration::from_secs(60),
    jitter: JITTER,
};

/// A stream that held this long was a good one: the next fault starts from the shortest wait again.
/// Shorter ones count as failed attempts, or a camera that drops each client at once would be
/// called four times a second forever.
const HEALTHY: Duration = Duration::from_secs(5);

/// The backoff of one reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReconnectBackoff {
    fast: Backoff,
    slow: Backoff,
}

impl Default for ReconnectBackoff {
    fn default() -> Self {
        Self { fast: Backoff::new(FAST), slow: Backoff::new(SLOW) }
    }
}

impl ReconnectBackoff {
    /// The wait after an attempt that ended with `fault`, its stream having delivered for `up_for`
    /// (zero if it never did). `random` is drawn evenly from `[0, 1)`.
    pub(super) fn after(
        &mut self,
        fault: SourceFaultKind,
        up_for: Duration,
        random: f64,
    ) -> Duration {
        let Self { fast, slow } = self;
        let (this, other) = if is_slow(fault) { (slow, fast) } else { (fast, slow) };
        other.reset();
        if up_for >= HEALTHY {
            this.reset();
        }
        this.fail(random)
    }
}

/// Faults that stay until a person changes something.
fn is_slow(fault: SourceFaultKind) -> bool {
    matches!(
        fault,
        SourceFaultKind::Unauthorized
            | SourceFaultKind::NotRtsp
            | SourceFaultKind::NoVideo
            | SourceFaultKind::UnsupportedCodec
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEVER_UP: Duration = Duration::ZERO;

    fn waits(fault: SourceFaultKind, random: f64, count: usize) -> Vec<u128> {
        let mut retry = ReconnectBackoff::default();
        (0..count).map(|_| retry.after(fault, NEVER_UP, random).as_millis()).collect()
    }

    #[test]
    fn an_unreachable_camera_is_tried_at_doubling_waits_up_to_the_cap() {
        assert_eq!(waits(SourceFaultKind::Unreachable, 0.0, 5), [250, 500, 700, 700, 700]);
    }

    #[test]
    fn a_wrong_password_is_not_retried_within_ten_seconds() {
        assert_eq!(
            waits(SourceFaultKind::Unauthorized, 0.0, 5),
            [10_000, 20_000, 40_000, 60_000, 60_000]
        );
        assert_eq!(waits(SourceFaultKind::Unauthorized, 1.0, 2), [12_500, 25_000]);
    }

    #[test]
    fn a_stream_that_held_starts_the_waits_anew_and_one_that_broke_at_once_does_not() {
        let mut retry = ReconnectBackoff::default();
        retry.after(SourceFaultKind::Closed, NEVER_UP, 0.0);
        assert_eq!(
            retry.after(SourceFaultKind::Closed, Duration::from_secs(1), 0.0).as_millis(),
            500
        );
        assert_eq!(
            retry.after(SourceFaultKind::Closed, Duration::from_secs(60), 0.0).as_millis(),
            250
        );
    }

    #[test]
    fn a_camera_that_comes_back_while_it_refuses_the_password_is_not_waited_for_like_before() {
        let mut retry = ReconnectBackoff::default();
        retry.after(SourceFaultKind::Unauthorized, NEVER_UP, 0.0);
        retry.after(SourceFaultKind::Unauthorized, NEVER_UP, 0.0);
        assert_eq!(retry.after(SourceFaultKind::Unreachable, NEVER_UP, 0.0).as_millis(), 250);
    }

    proptest! {
        #[test]
        fn every_wait_lies_within_its_bounds(
            random in 0.0..1.0_f64,
            faults in prop::collection::vec(prop::sample::select(SourceFaultKind::ALL.to_vec()), 1..100),
        ) {
            let mut retry = ReconnectBackoff::default();
            for fault in faults {
                let wait = retry.after(fault, NEVER_UP, random);
                let BackoffPolicy { first, longest, .. } = if is_slow(fault) { SLOW } else { FAST };
                prop_assert!((first..=longest).contains(&wait), "{:?} {:?}", fault, wait);
            }
        }
    }
}
