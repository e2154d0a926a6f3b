//! The two times of a live picture: presentation time that continues across reconnects, and
//! wall-clock capture time. Nothing here reads a clock.

/// Nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;
/// A step between two pictures' RTP times beyond which the camera must have set its clock: pictures
/// further apart would have been reported as silence long before.
const MAX_STEP_NS: i64 = 10_000_000_000;
/// A sender report from before 2000-01-01 comes from a camera whose clock was never set (they start
/// at 1970, or send the time since power-on): not worth more than the time of receipt.
const EARLIEST_NS: i128 = 946_684_800 * SECOND;
/// Seconds from 1900-01-01, where NTP counts from, to 1970-01-01 (RFC 868).
const NTP_TO_UNIX: i128 = 2_208_988_800;

/// An RTP timestamp without wraparound, as the stream's clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RtpTime {
    pub(super) ticks: i64,
    /// Ticks of the clock per second.
    pub(super) rate: u32,
}

impl RtpTime {
    /// Nanoseconds from `earlier` on; both are of one stream.
    fn since(self, earlier: Self) -> i64 {
        let ticks = i128::from(self.ticks) - i128::from(earlier.ticks);
        let ns = ticks * SECOND / i128::from(self.rate.max(1));
        i64::try_from(ns).unwrap_or(if ns < 0 { i64::MIN } else { i64::MAX })
    }
}

/// Presentation time since a source began. RTP times start anywhere in each session, so the
/// receiver's clock measures the gap between two sessions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PresentationClock {
    /// Where the session's pictures lie: this RTP time is that presentation time.
    origin: Option<(RtpTime, i64)>,
    /// The last picture: RTP time and time of receipt.
    last: Option<(RtpTime, u64)>,
    /// The latest presentation time given out.
    latest_ns: i64,
    /// No picture after the last break is presented before those ahead of it.
    floor_ns: i64,
    started: bool,
}

impl PresentationClock {
    /// A new session: its RTP times have nothing to do with those before.
    pub(super) fn new_session(&mut self) {
        self.origin = None;
    }

    /// The presentation time of a picture, in nanoseconds. Pictures come in decoding order, so it
    /// moves back and forth by the reordering of B frames, but never back past a break.
    pub(super) fn place(&mut self, rtp: RtpTime, received_ns: u64) -> i64 {
        let stepped =
            |(last, _): (RtpTime, u64)| rtp.since(last).unsigned_abs() > MAX_STEP_NS.unsigned_abs();
        let (origin, base) = match self.origin {
            Some(origin) if !self.last.is_some_and(stepped) => origin,
            _ => {
                let origin = (rtp, self.base_after_break(received_ns));
                *self.origin.insert(origin)
            }
        };
        let ns = base.saturating_add(rtp.since(origin)).max(self.floor_ns);
        self.started = true;
        self.last = Some((rtp, received_ns));
        self.latest_ns = self.latest_ns.max(ns);
        ns
    }

    fn base_after_break(&mut self, received_ns: u64) -> i64 {
        if !self.started {
            self.floor_ns = i64::MIN;
            return 0;
        }
        self.floor_ns = self.latest_ns.saturating_add(1);
        let gap =
            self.last.map_or(0, |(_, last_received)| received_ns.saturating_sub(last_received));
        self.latest_ns.saturating_add(i64::try_from(gap).unwrap_or(i64::MAX)).max(self.floor_ns)
    }
}

/// The wall clock of a camera, from its RTCP sender reports.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CameraClock {
    /// This RTP time is that time since 1970 in nanoseconds.
    report: Option<(RtpTime, i128)>,
}

impl CameraClock {
    /// A new session: reports of the one before do not count.
    pub(super) fn new_session(&mut self) {
        self.report = None;
    }

    /// Takes a sender report: `ntp` is its 32.32 fixed-point NTP time.
    pub(super) fn report(&mut self, rtp: RtpTime, ntp: u64) {
        let seconds = i128::from(ntp >> 32) - NTP_TO_UNIX;
        let fraction = (i128::from(ntp & 0xffff_ffff) * SECOND) >> 32;
        let unix_ns = seconds * SECOND + fraction;
        self.report = (unix_ns >= EARLIEST_NS).then_some((rtp, unix_ns));
    }

    /// When the picture was taken, in nanoseconds since 1970: the camera's own time where it has
    /// reported one, else the time of receipt.
    pub(super) fn capture_ns(&self, rtp: RtpTime, received_wall_ns: u64) -> u64 {
        self.report
            .and_then(|(at, unix_ns)| u64::try_from(unix_ns + i128::from(rtp.since(at))).ok())
            .unwrap_or(received_wall_ns)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rtp(ticks: i64) -> RtpTime {
        RtpTime { ticks, rate: 90_000 }
    }

    #[test]
    fn presentation_time_starts_at_zero_and_follows_the_rtp_clock() {
        let mut presentation = PresentationClock::default();
        presentation.new_session();
        assert_eq!(presentation.place(rtp(123_456), 7), 0);
        assert_eq!(presentation.place(rtp(123_456 + 9000), 8), 100_000_000);
        assert_eq!(
            presentation.place(rtp(123_456 + 4500), 9),
            50_000_000,
            "a B frame is shown before"
        );
        assert_eq!(
            presentation.place(rtp(123_456 - 900), 9),
            -10_000_000,
            "so is a leading picture"
        );
    }

    #[test]
    fn after_a_reconnect_it_goes_on_by_the_time_that_passed() {
        let mut presentation = PresentationClock::default();
        presentation.place(rtp(0), 0);
        presentation.place(rtp(90_000), 1_000_000_000);
        presentation.new_session();
        assert_eq!(presentation.place(rtp(-5), 6_000_000_000), 6_000_000_000);
        assert_eq!(presentation.place(rtp(-5 - 9000), 6_000_000_000), 5_900_000_000);
        assert_eq!(
            presentation.place(rtp(-5 - 900_000 + 9000), 6_000_000_000),
            1_000_000_001,
            "not past the break"
        );
    }

    #[test]
    fn a_camera_that_sets_its_clock_does_not_move_presentation_time() {
        let mut presentation = PresentationClock::default();
        presentation.place(rtp(0), 0);
        let jumped = presentation.place(rtp(90_000 * 86_400), 40_000_000);
        assert_eq!(jumped, 40_000_000);
        assert_eq!(presentation.place(rtp(90_000 * 86_400 + 3600), 80_000_000), 80_000_000);
        assert_eq!(presentation.place(rtp(0), 120_000_000), 120_000_000);
    }

    #[test]
    fn capture_time_comes_from_the_sender_report() {
        let mut clock = CameraClock::default();
        assert_eq!(clock.capture_ns(rtp(0), 42), 42, "no report yet: the time of receipt");
        let ntp = ((NTP_TO_UNIX as u64 + 1_700_000_000) << 32) | (1 << 31);
        clock.report(rtp(90_000), ntp);
        assert_eq!(clock.capture_ns(rtp(180_000), 42), 1_700_000_001_500_000_000);
        assert_eq!(clock.capture_ns(rtp(0), 42), 1_699_999_999_500_000_000);
        clock.report(rtp(90_000), (NTP_TO_UNIX as u64 + 60) << 32);
        assert_eq!(clock.capture_ns(rtp(180_000), 42), 42, "the camera's clock is not set");
    }

    proptest! {
        #[test]
        fn presentation_never_runs_back_past_a_break_and_never_panics(
            pictures in prop::collection::vec((any::<i64>(), 0_u64..1 << 62, any::<bool>(), 0_u32..200_000), 1..60),
        ) {
            let mut presentation = PresentationClock::default();
            let mut latest = None;
            for (ticks, received, new_session, rate) in pictures {
                let before = presentation.latest_ns;
                if new_session {
                    presentation.new_session();
                }
                let placed = presentation.place(RtpTime { ticks, rate }, received);
                if let (true, Some(_)) = (new_session, latest) {
                    prop_assert!(placed > before || before == i64::MAX);
                }
                latest = Some(placed);
            }
        }
    }
}
