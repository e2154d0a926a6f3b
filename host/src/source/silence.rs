//! How long a live stream may be silent before its connection is given up: by the rate that the
//! camera has shown. Time is a parameter.

use std::time::Duration;

use tokio::time::Instant;

/// From PLAY to the first picture: some cameras start their encoder only then.
const FIRST_PICTURE: Duration = Duration::from_secs(8);
/// Likewise while the camera's reports come: a time-lapse camera takes its next picture when it is
/// due.
const FIRST_PICTURE_REPORTED: Duration = Duration::from_secs(30);
/// From the first picture to the second, when nothing says how fast the camera is: the slowest rate
/// in the menus of cameras is one picture in 16 s.
const SECOND_PICTURE: Duration = Duration::from_secs(20);
/// So many times the longest interval that the camera has shown.
const TIMES_LONGEST: u32 = 4;
/// No rate makes the limit longer: who watches one picture in a minute notices a dead camera within
/// two.
const LONGEST: Duration = Duration::from_secs(120);
/// Without pictures, but with reports in between: a codec with a dynamic rate in a still scene, or
/// an encoder that hangs.
const LONGEST_REPORTED: Duration = Duration::from_secs(90);
/// A report this long after a picture is of the silence, not of the picture.
const OF_THE_SILENCE: Duration = Duration::from_secs(1);
/// Reports come every 5 s, give or take half of that (RFC 3550, 6.2): after one, the next is
/// waited for.
const REPORT_INTERVAL: Duration = Duration::from_secs(8);
/// The first picture after a silence comes at once if it comes within this time: a new connection
/// takes less than a second, and the next key picture two.
const AT_ONCE: Duration = Duration::from_secs(3);
/// How long an interval is remembered, at least: cameras with a dynamic rate change back and forth.
const MEMORY: Duration = Duration::from_secs(600);

/// Judges one camera's silence, over all of its sessions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// The shortest limit.
    floor: Duration,
    /// The operator's own limit for this camera.
    fixed: Option<Duration>,
    longest: RecentMaximum,
    session_since: Instant,
    impatient: bool,
    last_picture: Option<Instant>,
    last_report: Option<Instant>,
    /// When a session was given up, and after how long a silence.
    given_up: Option<(Instant, Duration)>,
}

impl Silence {
    pub(super) fn new(floor: Duration, fixed: Option<Duration>, now: Instant) -> Self {
        Self {
            floor,
            fixed,
            longest: RecentMaximum::new(now),
            session_since: now,
            impatient: false,
            last_picture: None,
            last_report: None,
            given_up: None,
        }
    }

    /// A new session has begun to play. The camera's rate is still what it was.
    pub(super) fn new_session(&mut self, now: Instant) {
        self.session_since = now;
        self.last_picture = None;
        self.last_report = None;
        self.impatient = false;
    }

    /// The session is given up because of its silence. If the camera sends a picture to the next
    /// one at once, it was alive, and that long a silence is its way.
    pub(super) fn give_up(&mut self, now: Instant) {
        self.given_up = self.last_picture.map(|_| (now, self.so_far(now)));
    }

    /// A picture has come.
    pub(super) fn picture(&mut self, now: Instant) {
        if let Some((at, silence)) = self.given_up.take()
            && now.duration_since(at) <= AT_ONCE
        {
            self.longest.note(silence, now);
        }
        if let Some(last) = self.last_picture.replace(now) {
            self.longest.note(now.duration_since(last), now);
        }
    }

    /// A report of the camera has come.
    pub(super) fn report(&mut self, now: Instant) {
        let since = self.last_picture.unwrap_or(self.session_since);
        if now.duration_since(since) >= OF_THE_SILENCE {
            self.last_report = Some(now);
        }
    }

    /// Another reader is at hand: for a first picture, this session is not to wait on reports.
    pub(super) fn be_impatient(&mut self) {
        self.impatient = true;
    }

    /// When the connection is to be given up if no picture and no report comes.
    pub(super) fn deadline(&self) -> Instant {
        let since = self.last_picture.unwrap_or(self.session_since);
        let (limit, longest_reported) = match (self.fixed, self.last_picture) {
            (Some(fixed), _) => return since + fixed,
            (None, None) if self.impatient => return since + FIRST_PICTURE.max(self.floor),
            (None, None) => (FIRST_PICTURE.max(self.floor), FIRST_PICTURE_REPORTED),
            (None, Some(_)) => (self.by_rate(), LONGEST_REPORTED),
        };
        let reported = self.last_report.filter(|report| *report > since);
        let reported = reported.map(|at| (at + REPORT_INTERVAL).min(since + longest_reported));
        (since + limit).max(reported.unwrap_or(since))
    }

    /// How long the stream is silent at `now`.
    pub(super) fn so_far(&self, now: Instant) -> Duration {
        now.duration_since(self.last_picture.unwrap_or(self.session_since))
    }

    fn by_rate(&self) -> Duration {
        match self.longest.get() {
            Some(longest) => (longest * TIMES_LONGEST).clamp(self.floor, LONGEST.max(self.floor)),
            None => SECOND_PICTURE.max(self.floor),
        }
    }
}

/// The longest of the intervals of the last [`MEMORY`] to twice that.
#[derive(Clone, Copy, Debug)]
struct RecentMaximum {
    /// Of the window before, and of the present one.
    windows: [Option<Duration>; 2],
    since: Instant,
}

impl RecentMaximum {
    fn new(now: Instant) -> Self {
        Self { windows: [None; 2], since: now }
    }

    fn note(&mut self, interval: Duration, now: Instant) {
        let [_, present] = self.windows;
        if now.duration_since(self.since) >= MEMORY {
            (self.windows, self.since) = ([present, None], now);
        }
        let [before, present] = self.windows;
        self.windows = [before, present.max(Some(interval))];
    }

    fn get(&self) -> Option<Duration> {
        let [before, present] = self.windows;
        before.max(present)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOOR: Duration = Duration::from_secs(4);

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// Seconds of silence that are allowed after pictures at these seconds.
    fn limit(silence: &mut Silence, start: Instant, pictures: &[f64]) -> f64 {
        for at in pictures {
            silence.picture(start + seconds(*at));
        }
        let last = start + seconds(*pictures.last().unwrap());
        silence.deadline().duration_since(last).as_secs_f64()
    }

    fn new(fixed: Option<Duration>) -> (Silence, Instant) {
        let start = Instant::now();
        (Silence::new(FLOOR, fixed, start), start)
    }

    #[test]
    fn a_camera_of_usual_rate_that_freezes_is_noticed_after_four_seconds() {
        let (mut silence, start) = new(None);
        assert_eq!(limit(&mut silence, start, &[0.0, 0.1, 0.2]), 4.0);
        // A report right behind the last picture says nothing of the silence.
        silence.report(start + seconds(0.3));
        assert_eq!(silence.deadline(), start + seconds(4.2));
        assert_eq!(silence.so_far(start + seconds(4.2)), FLOOR);
    }

    #[test]
    fn a_slow_camera_may_take_four_times_its_interval() {
        let (mut silence, start) = new(None);
        assert_eq!(limit(&mut silence, start, &[0.0]), 20.0, "its rate is not known yet");
        assert_eq!(limit(&mut silence, start, &[6.0]), 24.0);
        assert_eq!(limit(&mut silence, start, &[66.0]), 120.0);
        // The camera moves again: its slow phase is remembered for a while, and not for ever.
        let fast: Vec<f64> = (0..13_000).map(|at| 67.0 + f64::from(at) / 10.0).collect();
        assert_eq!(limit(&mut silence, start, &fast[..10]), 120.0);
        assert_eq!(limit(&mut silence, start, &fast[10..]), 4.0);
    }

    #[test]
    fn the_rate_is_still_known_in_the_next_session_and_the_gap_between_two_is_none() {
        let (mut silence, start) = new(None);
        limit(&mut silence, start, &[0.0, 0.1]);
        let later = start + seconds(60.0);
        silence.new_session(later);
        assert_eq!(silence.deadline(), later + FIRST_PICTURE);
        assert_eq!(limit(&mut silence, later, &[1.0]), 4.0);
    }

    #[test]
    fn reports_keep_a_connection_without_pictures_for_a_while() {
        let (mut silence, start) = new(None);
        limit(&mut silence, start, &[0.0, 0.1]);
        for at in (3..200).step_by(5) {
            silence.report(start + seconds(f64::from(at)));
        }
        assert_eq!(silence.deadline(), start + seconds(90.1));
        let (mut silence, start) = new(None);
        silence.report(start + seconds(7.0));
        assert_eq!(silence.deadline(), start + seconds(15.0), "before the first picture");
        silence.report(start + seconds(29.0));
        assert_eq!(silence.deadline(), start + seconds(30.0));
        silence.be_impatient();
        assert_eq!(silence.deadline(), start + FIRST_PICTURE, "another reader is at hand");
    }

    #[test]
    fn a_camera_that_was_only_slow_is_given_more_time() {
        let (mut silence, start) = new(None);
        limit(&mut silence, start, &[0.0, 0.1]);
        let mut at = start + seconds(4.1);
        for expected in [16.0, 64.0, 120.0] {
            silence.give_up(at);
            silence.new_session(at + seconds(0.5));
            assert_eq!(limit(&mut silence, at, &[1.0]), expected);
            at += seconds(1.0 + expected);
        }
        // One that was away stays to be noticed soon.
        let (mut silence, start) = new(None);
        limit(&mut silence, start, &[0.0, 0.1]);
        silence.give_up(start + seconds(4.1));
        silence.new_session(start + seconds(20.0));
        assert_eq!(limit(&mut silence, start, &[20.1, 20.2]), 4.0);
    }

    #[test]
    fn the_operators_limit_is_the_limit() {
        let (mut silence, start) = new(Some(seconds(70.0)));
        assert_eq!(silence.deadline(), start + seconds(70.0));
        assert_eq!(limit(&mut silence, start, &[0.0, 0.1]), 70.0);
        silence.report(start + seconds(60.0));
        assert_eq!(silence.deadline(), start + seconds(70.1));
    }
}
