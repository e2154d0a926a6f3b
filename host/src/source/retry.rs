//! How long to wait before the next attempt to reach a camera, and which faults the log gets. Time
//! and randomness are parameters, so that tests are exact.

use std::time::Duration;

use tokio::time::Instant;

use super::fault::{FaultKey, SourceFaultKind, SourceStep};
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

/// Waits after a fault that comes at once and again and again: a server that answers, and never in
/// a way that leads to a picture.
const PERSISTENT: BackoffPolicy = BackoffPolicy {
    free: 0,
    // The first attempts are as quick as after any fault.
    first: Duration::from_millis(250),
    // How long the camera's next firmware, or the path that someone has just published, may take
    // to be noticed. Two connections a minute fill no camera's log.
    longest: Duration::from_secs(30),
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

/// How often a fault that stays is logged. A person who looks at one day's log sees it.
const REMINDER: Duration = Duration::from_secs(3600);

/// Faults of one camera that are logged within [`REMINDER`]: more than two readers have steps. A
/// server that answers with another status each time fills no log.
const MAX_FAULTS: usize = 16;

/// The backoff of one reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReconnectBackoff {
    /// The pace of the last fault, and its waits.
    current: Option<(RetryPace, FaultKey, Backoff)>,
}

/// How fast a fault may be tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RetryPace {
    Fast,
    Persistent,
    Slow,
}

impl RetryPace {
    fn policy(self) -> BackoffPolicy {
        match self {
            Self::Fast => FAST,
            Self::Persistent => PERSISTENT,
            Self::Slow => SLOW,
        }
    }

    /// That of a fault. `delivered`: the session brought pictures before it.
    fn of(fault: FaultKey, delivered: bool) -> Self {
        match (fault.kind, fault.step) {
            // Stays until a person changes something. A 401 in any step may count as a wrong
            // password.
            (
                SourceFaultKind::Unauthorized
                | SourceFaultKind::NotRtsp
                | SourceFaultKind::NoVideo
                | SourceFaultKind::UnsupportedCodec
                | SourceFaultKind::Certificate,
                _,
            ) => Self::Slow,
            _ if fault.status == Some(401) => Self::Slow,
            _ if delivered => Self::Fast,
            // Answers, and to no avail.
            (
                SourceFaultKind::Protocol | SourceFaultKind::Reader | SourceFaultKind::TooLarge,
                _,
            )
            | (
                SourceFaultKind::Closed,
                SourceStep::Setup | SourceStep::Play | SourceStep::Stream,
            ) => Self::Persistent,
            // Away, or on the way up: what starts accepts connections first, and closes them or
            // says nothing. Those that say nothing are bounded by the limit of the request.
            _ => Self::Fast,
        }
    }
}

impl ReconnectBackoff {
    /// Nothing has failed yet.
    pub(super) fn new() -> Self {
        Self { current: None }
    }

    /// The wait after an attempt that ended with `fault`, its stream having delivered for `up_for`
    /// (zero if it never did). `random` is drawn evenly from `[0, 1)`.
    pub(super) fn after(&mut self, fault: FaultKey, up_for: Duration, random: f64) -> Duration {
        self.wait(RetryPace::of(fault, !up_for.is_zero()), fault, up_for, random)
    }

    /// The wait after a fault with which every reader fails, so that only a person can help.
    pub(super) fn slowly(&mut self, fault: FaultKey, random: f64) -> Duration {
        self.wait(RetryPace::Slow, fault, Duration::ZERO, random)
    }

    fn wait(
        &mut self,
        pace: RetryPace,
        fault: FaultKey,
        up_for: Duration,
        random: f64,
    ) -> Duration {
        let continues = |last: RetryPace, key: FaultKey| {
            // The fast pace is the same for all: what a camera on its way up says changes.
            let same = (key.kind, key.step) == (fault.kind, fault.step);
            last == pace && up_for < HEALTHY && (pace != RetryPace::Persistent || same)
        };
        let mut waits = match self.current {
            Some((last, key, waits)) if continues(last, key) => waits,
            _ => Backoff::new(pace.policy()),
        };
        let wait = waits.fail(random);
        self.current = Some((pace, fault, waits));
        wait
    }
}

/// Which faults of one camera are logged as warnings: each once, by kind and step, and again after
/// a good stream, or after a long time. Two readers that take turns and fail in two ways are two
/// faults.
#[derive(Clone, Debug, Default)]
pub(super) struct FaultLog {
    /// When each was logged, and how many like it were not since then; at most [`MAX_FAULTS`].
    logged: Vec<(FaultKey, Instant, u64)>,
}

impl FaultLog {
    /// Whether this fault is logged, and how many like it were not since the last that was.
    pub(super) fn take(&mut self, fault: FaultKey, up_for: Duration, now: Instant) -> Option<u64> {
        if up_for >= HEALTHY {
            self.logged.clear();
        }
        let Some((_, at, since)) = self.logged.iter_mut().find(|(key, ..)| *key == fault) else {
            self.logged.retain(|(_, at, _)| now.duration_since(*at) < REMINDER);
            if self.logged.len() >= MAX_FAULTS {
                return None;
            }
            self.logged.push((fault, now, 0));
            return Some(0);
        };
        if now.duration_since(*at) < REMINDER {
            *since += 1;
            return None;
        }
        *at = now;
        Some(std::mem::take(since))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NEVER_UP: Duration = Duration::ZERO;

    fn fault(kind: SourceFaultKind, step: SourceStep) -> FaultKey {
        FaultKey { kind, step, status: None }
    }

    fn waits(fault: FaultKey, random: f64, count: usize) -> Vec<u128> {
        let mut retry = ReconnectBackoff::new();
        (0..count).map(|_| retry.after(fault, NEVER_UP, random).as_millis()).collect()
    }

    const AWAY: FaultKey =
        FaultKey { kind: SourceFaultKind::Unreachable, step: SourceStep::Describe, status: None };
    const REFUSED: FaultKey = FaultKey {
        kind: SourceFaultKind::Unauthorized,
        step: SourceStep::Describe,
        status: Some(401),
    };

    #[test]
    fn an_unreachable_camera_is_tried_at_doubling_waits_up_to_the_cap() {
        assert_eq!(waits(AWAY, 0.0, 5), [250, 500, 700, 700, 700]);
        let closed = fault(SourceFaultKind::Closed, SourceStep::Describe);
        assert_eq!(waits(closed, 0.0, 5), [250, 500, 700, 700, 700], "it may be on its way up");
    }

    #[test]
    fn a_wrong_password_is_not_retried_within_ten_seconds() {
        assert_eq!(waits(REFUSED, 0.0, 5), [10_000, 20_000, 40_000, 60_000, 60_000]);
        assert_eq!(waits(REFUSED, 1.0, 2), [12_500, 25_000]);
        let later =
            FaultKey { status: Some(401), ..fault(SourceFaultKind::Protocol, SourceStep::Setup) };
        assert_eq!(waits(later, 0.0, 2), [10_000, 20_000]);
    }

    #[test]
    fn a_server_that_answers_to_no_avail_is_tried_ever_more_seldom() {
        let odd = fault(SourceFaultKind::Protocol, SourceStep::Setup);
        let expected = [250, 500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
        assert_eq!(waits(odd, 0.0, 9), expected);
        assert_eq!(waits(fault(SourceFaultKind::Closed, SourceStep::Play), 0.0, 9), expected);
        // Once it gets further, or has gone away, that is news.
        let mut retry = ReconnectBackoff::new();
        let mut after = |fault, up_for| retry.after(fault, up_for, 0.0).as_millis();
        for _ in 0..5 {
            after(odd, NEVER_UP);
        }
        assert_eq!(after(fault(SourceFaultKind::Protocol, SourceStep::Play), NEVER_UP), 250);
        assert_eq!(after(odd, NEVER_UP), 250);
        assert_eq!(after(AWAY, NEVER_UP), 250);
        assert_eq!(after(odd, NEVER_UP), 250);
        assert_eq!(after(odd, Duration::from_secs(1)), 250, "it has brought pictures");
        after(odd, NEVER_UP);
        assert_eq!(after(FaultKey { status: Some(503), ..odd }, NEVER_UP), 500, "no other fault");
    }

    #[test]
    fn a_stream_that_held_starts_the_waits_anew_and_one_that_broke_at_once_does_not() {
        let closed = fault(SourceFaultKind::Closed, SourceStep::Stream);
        let mut retry = ReconnectBackoff::new();
        retry.after(closed, Duration::from_secs(1), 0.0);
        assert_eq!(retry.after(closed, Duration::from_secs(1), 0.0).as_millis(), 500);
        assert_eq!(retry.after(closed, Duration::from_secs(60), 0.0).as_millis(), 250);
    }

    #[test]
    fn a_camera_that_comes_back_while_it_refuses_the_password_is_not_waited_for_like_before() {
        let mut retry = ReconnectBackoff::new();
        retry.after(REFUSED, NEVER_UP, 0.0);
        retry.after(REFUSED, NEVER_UP, 0.0);
        assert_eq!(retry.after(AWAY, NEVER_UP, 0.0).as_millis(), 250);
    }

    #[test]
    fn a_fault_is_logged_once_and_then_each_hour() {
        let (mut log, start) = (FaultLog::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(log.take(AWAY, NEVER_UP, start), Some(0));
        for second in 1..3600 {
            assert_eq!(log.take(AWAY, NEVER_UP, at(second)), None);
        }
        assert_eq!(log.take(AWAY, NEVER_UP, at(3600)), Some(3599));
        assert_eq!(log.take(REFUSED, NEVER_UP, at(3601)), Some(0), "another fault is news");
        assert_eq!(log.take(REFUSED, Duration::from_secs(1), at(3602)), None);
        assert_eq!(log.take(AWAY, NEVER_UP, at(3603)), None, "two in turn are told once each");
        assert_eq!(log.take(REFUSED, HEALTHY, at(3604)), Some(0), "it was over in between");
        let statuses = (300..1000).map(|status| FaultKey { status: Some(status), ..AWAY });
        let logged = statuses.filter(|fault| log.take(*fault, NEVER_UP, at(3605)).is_some());
        assert_eq!(logged.count(), MAX_FAULTS - 1);
    }

    proptest! {
        #[test]
        fn every_wait_lies_within_its_bounds(
            random in 0.0..1.0_f64,
            faults in prop::collection::vec(prop::sample::select(SourceFaultKind::ALL.to_vec()), 1..100),
        ) {
            let mut retry = ReconnectBackoff::new();
            for kind in faults {
                let fault = fault(kind, SourceStep::Describe);
                let wait = retry.after(fault, NEVER_UP, random);
                let BackoffPolicy { first, longest, .. } = RetryPace::of(fault, false).policy();
                prop_assert!((first..=longest).contains(&wait), "{:?} {:?}", fault, wait);
            }
        }
    }
}
