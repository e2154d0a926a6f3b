//! The two times of a live picture: presentation time that continues across reconnects, and
//! wall-clock capture time. Nothing here reads a clock.

use ocelli_protocol::worker::CaptureClock;

/// Nanoseconds in a second.
const SECOND: i128 = 1_000_000_000;
/// How far the RTP time may run ahead of the clock between two pictures: beyond, the camera must
/// have set its own. A stall of the network holds pictures up and moves no RTP time.
const MAX_AHEAD_NS: i64 = 10_000_000_000;
/// How far the RTP time may go back from one picture to the next: as far as B frames of a slow
/// stream reach, 16 pictures at 5 a second.
const MAX_BACK_NS: i64 = 3_200_000_000;
/// How far a camera's wall clock may be off the host's. A time zone set wrong is 14 h at most, and
/// such times still agree with what the camera writes into its pictures. A clock that is further
/// off was never set: cameras start in 1970 or 2000, or send the time since power-on. That is
/// worth less than the time of receipt.
const MAX_OFF_NS: i128 = 24 * 3600 * SECOND;
/// How far a report's RTP time may lie off that of the pictures around it. Reports are of the
/// moment at which they are sent; pictures may wait in the encoder for a second or two.
const MAX_APART_NS: i64 = 10_000_000_000;
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
    pub(super) fn since(self, earlier: Self) -> i64 {
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
        let jumped = self.last.is_some_and(|last| is_jump(last, (rtp, received_ns)));
        let (origin, base) = match self.origin {
            Some(origin) if !jumped => origin,
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

/// Whether the RTP time between two pictures has nothing to do with the time that passed between
/// them, which is also what a slow camera's takes. Each is an RTP time and a time of receipt.
fn is_jump((last, last_ns): (RtpTime, u64), (rtp, received_ns): (RtpTime, u64)) -> bool {
    let step = rtp.since(last);
    step < -MAX_BACK_NS || step.saturating_sub(between(last_ns, received_ns)) > MAX_AHEAD_NS
}

/// Nanoseconds from one time of the monotonic clock to another.
fn between(from_ns: u64, to_ns: u64) -> i64 {
    i64::try_from(to_ns.saturating_sub(from_ns)).unwrap_or(i64::MAX)
}

/// Why a sender report is not used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UnusableReport {
    /// Its wall-clock time is further off than [`MAX_OFF_NS`].
    FarOff,
    /// Its RTP time has nothing to do with the pictures'.
    ForeignRtpTime,
}

impl UnusableReport {
    /// For people.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::FarOff => "a sender report whose time is more than a day off",
            Self::ForeignRtpTime => "a sender report whose RTP time is not that of the pictures",
        }
    }
}

/// A sender report.
#[derive(Clone, Copy, Debug)]
pub(super) struct SenderReport {
    /// Its RTP time, on the stream's own timeline.
    pub(super) rtp: RtpTime,
    /// Its NTP time: 32.32 fixed-point seconds since 1900.
    pub(super) ntp: u64,
    /// When it came, on the monotonic clock, in nanoseconds.
    pub(super) received_ns: u64,
    /// When it came, in nanoseconds since 1970.
    pub(super) received_wall_ns: u64,
}

impl SenderReport {
    /// Its time in nanoseconds since 1970. The 32 bits of its seconds start again in 2036: of the
    /// two times that they can mean, the one nearer to the host's.
    fn unix_ns(&self) -> i128 {
        const ERA: i128 = (1 << 32) * SECOND;
        let fraction = (i128::from(self.ntp & 0xffff_ffff) * SECOND) >> 32;
        let ns = (i128::from(self.ntp >> 32) - NTP_TO_UNIX) * SECOND + fraction;
        let host = i128::from(self.received_wall_ns);
        if host - ns > ERA / 2 { ns + ERA } else { ns }
    }
}

/// The wall clock of a camera, by its RTCP sender reports.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct CameraClock {
    /// The report in force: its RTP time, the time since 1970 in nanoseconds, the time of receipt.
    report: Option<(RtpTime, i128, u64)>,
    /// The last picture: RTP time and time of receipt.
    last: Option<(RtpTime, u64)>,
}

impl CameraClock {
    /// A new session: reports of the one before do not count.
    pub(super) fn new_session(&mut self) {
        *self = Self::default();
    }

    /// Takes a sender report. One that cannot be used also ends the one before: one of the two is
    /// wrong.
    pub(super) fn report(&mut self, report: SenderReport) -> Result<(), UnusableReport> {
        self.report = None;
        let unix_ns = report.unix_ns();
        if (unix_ns - i128::from(report.received_wall_ns)).abs() > MAX_OFF_NS {
            return Err(UnusableReport::FarOff);
        }
        let at = (report.rtp, report.received_ns);
        if self.last.is_some_and(|picture| are_apart(picture, at)) {
            return Err(UnusableReport::ForeignRtpTime);
        }
        self.report = Some((report.rtp, unix_ns, report.received_ns));
        Ok(())
    }

    /// When a picture was taken, in nanoseconds since 1970, and by whose clock: the camera's where
    /// a report is in force, else the host's at the receipt. A jump of the RTP time ends a report.
    pub(super) fn capture(
        &mut self,
        rtp: RtpTime,
        received_ns: u64,
        received_wall_ns: u64,
    ) -> (u64, CaptureClock) {
        let picture = (rtp, received_ns);
        let stale = match (self.last, self.report) {
            (Some(last), _) => is_jump(last, picture),
            // The report came before the first picture, so nothing was there to hold it against.
            (None, Some((rtp, _, received_ns))) => are_apart((rtp, received_ns), picture),
            (None, None) => false,
        };
        if stale {
            self.report = None;
        }
        self.last = Some(picture);
        let by_report = self
            .report
            .and_then(|(at, unix_ns, _)| u64::try_from(unix_ns + i128::from(rtp.since(at))).ok());
        match by_report {
            Some(capture_ns) => (capture_ns, CaptureClock::Camera),
            None => (received_wall_ns, CaptureClock::Host),
        }
    }
}

/// Whether two RTP times of one stream do not lie as far apart as the moments at which they came.
fn are_apart((earlier, earlier_ns): (RtpTime, u64), (later, later_ns): (RtpTime, u64)) -> bool {
    let difference = later.since(earlier).saturating_sub(between(earlier_ns, later_ns));
    difference.unsigned_abs() > MAX_APART_NS.unsigned_abs()
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
        assert_eq!(presentation.place(rtp(-5 - 9000 - 270_000), 6_000_000_000), 2_900_000_000);
        assert_eq!(
            presentation.place(rtp(-5 - 9000 - 2 * 270_000), 6_000_000_000),
            1_000_000_001,
            "not past the break"
        );
    }

    const S: u64 = 1_000_000_000;
    /// The host's wall clock when the monotonic one is at 0.
    const WALL: u64 = 1_700_000_000 * S;

    #[test]
    fn a_camera_that_sets_its_clock_does_not_move_presentation_time() {
        let mut presentation = PresentationClock::default();
        presentation.place(rtp(0), 0);
        let jumped = presentation.place(rtp(90_000 * 86_400), 40_000_000);
        assert_eq!(jumped, 40_000_000);
        assert_eq!(presentation.place(rtp(90_000 * 86_400 + 3600), 80_000_000), 80_000_000);
        assert_eq!(presentation.place(rtp(0), 120_000_000), 120_000_000);
        // Four seconds back is more than B frames need.
        assert_eq!(presentation.place(rtp(-4 * 90_000), 160_000_000), 160_000_000);
    }

    #[test]
    fn a_slow_camera_and_a_stalled_network_are_no_jump() {
        let mut presentation = PresentationClock::default();
        presentation.place(rtp(0), 0);
        assert_eq!(presentation.place(rtp(60 * 90_000), 61 * S), 60_000_000_000);
        // Held up for a minute, then all at once.
        assert_eq!(presentation.place(rtp(61 * 90_000), 120 * S), 61_000_000_000);
        assert_eq!(presentation.place(rtp(62 * 90_000), 120 * S), 62_000_000_000);
    }

    /// A report that came at `at` seconds, `off` seconds ahead of the host's clock.
    fn report(ticks: i64, at: u64, off: i128) -> SenderReport {
        let unix = i128::from(WALL / S) + i128::from(at) + off;
        let ntp = u64::try_from((unix + NTP_TO_UNIX) & 0xffff_ffff).unwrap() << 32;
        let received_ns = at * S;
        SenderReport { rtp: rtp(ticks), ntp, received_ns, received_wall_ns: WALL + received_ns }
    }

    /// The capture time of a picture that came at `at` seconds: seconds ahead of [`WALL`].
    fn capture(clock: &mut CameraClock, ticks: i64, at: u64) -> (i64, CaptureClock) {
        let (ns, whose) = clock.capture(rtp(ticks), at * S, WALL + at * S);
        (ns.cast_signed().wrapping_sub(WALL.cast_signed()) / S.cast_signed(), whose)
    }

    #[test]
    fn capture_time_comes_from_the_sender_report() {
        let mut clock = CameraClock::default();
        assert_eq!(capture(&mut clock, 0, 1), (1, CaptureClock::Host));
        clock.report(report(90_000, 2, -7200)).unwrap();
        assert_eq!(capture(&mut clock, 90_000, 2), (2 - 7200, CaptureClock::Camera));
        assert_eq!(capture(&mut clock, 4 * 90_000, 4), (5 - 7200, CaptureClock::Camera));
        clock.new_session();
        assert_eq!(capture(&mut clock, 5 * 90_000, 5), (5, CaptureClock::Host));
    }

    #[test]
    fn a_clock_that_was_never_set_is_not_believed() {
        let year = 365 * 86_400;
        for off in [-i128::from(WALL / S), 9 * year, -23 * year, 86_401, -86_401] {
            let mut clock = CameraClock::default();
            assert_eq!(clock.report(report(0, 1, off)), Err(UnusableReport::FarOff), "{off}");
            assert_eq!(capture(&mut clock, 0, 1), (1, CaptureClock::Host));
        }
        // 14 h: a time zone set wrong.
        let mut clock = CameraClock::default();
        clock.report(report(0, 1, 14 * 3600)).unwrap();
        assert_eq!(capture(&mut clock, 0, 1), (1 + 14 * 3600, CaptureClock::Camera));
    }

    #[test]
    fn reports_go_on_when_the_seconds_of_ntp_start_again() {
        // 2036-02-07, four seconds into the next era.
        let wall_ns = (2_085_978_496 + 4) * S;
        let ntp = 4_u64 << 32;
        let report = SenderReport { rtp: rtp(0), ntp, received_ns: 0, received_wall_ns: wall_ns };
        assert_eq!(report.unix_ns(), i128::from(wall_ns));
    }

    #[test]
    fn a_jump_of_rtp_time_ends_the_report_until_the_next_one() {
        let mut clock = CameraClock::default();
        clock.report(report(0, 0, 5)).unwrap();
        assert_eq!(capture(&mut clock, 0, 0), (5, CaptureClock::Camera));
        let hour = 3600 * 90_000;
        assert_eq!(capture(&mut clock, hour, 1), (1, CaptureClock::Host));
        assert_eq!(capture(&mut clock, hour + 90_000, 2), (2, CaptureClock::Host));
        clock.report(report(hour + 90_000, 2, 5)).unwrap();
        assert_eq!(capture(&mut clock, hour + 2 * 90_000, 3), (8, CaptureClock::Camera));
    }

    #[test]
    fn a_report_of_another_rtp_time_is_not_used() {
        let mut clock = CameraClock::default();
        capture(&mut clock, 0, 0);
        let foreign = clock.report(report(0x7000_0000, 1, 0));
        assert_eq!(foreign, Err(UnusableReport::ForeignRtpTime));
        assert_eq!(capture(&mut clock, 90_000, 1), (1, CaptureClock::Host));
        // Nor one that came before the first picture.
        clock.new_session();
        clock.report(report(0x7000_0000, 1, 0)).unwrap();
        assert_eq!(capture(&mut clock, 2 * 90_000, 2), (2, CaptureClock::Host));
        // A minute without a picture is no reason to doubt.
        clock.report(report(62 * 90_000, 62, 3)).unwrap();
        assert_eq!(capture(&mut clock, 63 * 90_000, 63), (66, CaptureClock::Camera));
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
