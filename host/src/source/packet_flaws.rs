//! Packets of a session that could not be used: what is missing because of them, and when there is
//! no use in going on. Time is a parameter.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::fault::PacketFlaw;
use super::timing::RtpTime;

/// Unusable packets in a row that end a session, once [`IN_A_ROW`] is over too: fewer can be the
/// rest of one picture.
const MAX_IN_A_ROW: u64 = 8;
/// How long unusable packets may come without a frame in between. The parts of one picture take far
/// less; a server that counts its packets anew, or marks them with an SSRC that it did not
/// announce, never gets better within the session.
const IN_A_ROW: Duration = Duration::from_secs(2);
/// Breaks within [`BREAKS_WITHIN`] that call for the other reader: in each, the pictures up to the
/// next key picture are lost.
const MAX_BREAKS: u32 = 10;
const BREAKS_WITHIN: Duration = Duration::from_secs(60);
/// Without a picture, the other reader is called for after this time and [`MAX_IN_A_ROW`] unusable
/// packets: twice the usual time between two key pictures.
const NO_PICTURE: Duration = Duration::from_secs(4);
/// Steps between pictures that say how far apart they usually are: the latest ones, once there are
/// a few.
const STEPS: usize = 8;
const MIN_STEPS: usize = 3;

/// What an unusable packet says of the next frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Suspicion {
    None,
    /// A picture may be missing.
    Possible,
    /// One is.
    Certain,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub(super) struct PacketFlaws {
    total: u64,
    suspicion: Suspicion,
    in_a_row: u64,
    row_since: Instant,
    session_since: Instant,
    breaks: u32,
    breaks_since: Instant,
    last_frame: Option<RtpTime>,
    /// Nanoseconds of RTP time between the latest frames.
    steps: VecDeque<i64>,
}

impl PacketFlaws {
    /// Of a session that has just begun to play.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            total: 0,
            suspicion: Suspicion::None,
            in_a_row: 0,
            row_since: now,
            session_since: now,
            breaks: 0,
            breaks_since: now,
            last_frame: None,
            steps: VecDeque::with_capacity(STEPS),
        }
    }

    /// How many there were.
    pub(super) fn total(&self) -> u64 {
        self.total
    }

    /// Notes one.
    pub(super) fn note(&mut self, flaw: PacketFlaw, now: Instant) {
        self.total += 1;
        let suspicion = match flaw {
            PacketFlaw::Report | PacketFlaw::Stray => Suspicion::None,
            PacketFlaw::Odd | PacketFlaw::Order => Suspicion::Possible,
            PacketFlaw::Damaged => Suspicion::Certain,
        };
        self.suspicion = self.suspicion.max(suspicion);
        if flaw != PacketFlaw::Report {
            if self.in_a_row == 0 {
                self.row_since = now;
            }
            self.in_a_row += 1;
        }
    }

    /// A frame has come. `whole`: it begins with the first part of its picture. Whether a picture
    /// is missing before it because of unusable packets, or a part of it.
    ///
    /// An odd packet costs nothing where it stands between two pictures: then the next one is as
    /// far away as pictures have been, all of them in the order of their times.
    pub(super) fn frame(&mut self, rtp: RtpTime, whole: bool, now: Instant) -> bool {
        self.in_a_row = 0;
        let usual = self.last_frame.replace(rtp).is_some_and(|last| self.step(rtp.since(last)));
        let lost = match std::mem::replace(&mut self.suspicion, Suspicion::None) {
            Suspicion::None => !whole,
            Suspicion::Possible => !whole || !usual,
            Suspicion::Certain => true,
        };
        if lost {
            if now.duration_since(self.breaks_since) > BREAKS_WITHIN {
                (self.breaks, self.breaks_since) = (0, now);
            }
            self.breaks += 1;
        }
        lost
    }

    /// Notes a step from one frame to the next, in nanoseconds. Whether it is a usual one.
    fn step(&mut self, step: i64) -> bool {
        let shortest = self.steps.iter().copied().min().unwrap_or_default();
        let usual = self.steps.len() >= MIN_STEPS
            && shortest > 0
            && step > 0
            && step <= shortest.saturating_add(shortest / 2);
        if self.steps.len() == STEPS {
            self.steps.pop_front();
        }
        self.steps.push_back(step);
        usual
    }

    /// Whether nothing but unusable packets comes.
    pub(super) fn is_hopeless(&self, now: Instant) -> bool {
        self.in_a_row >= MAX_IN_A_ROW && now.duration_since(self.row_since) >= IN_A_ROW
    }

    /// Whether a reader that bears more is called for: the stream breaks again and again, or, if
    /// `delivered` is false, does not begin.
    pub(super) fn call_for_other_reader(&self, delivered: bool, now: Instant) -> bool {
        let never_began = !delivered
            && self.total >= MAX_IN_A_ROW
            && now.duration_since(self.session_since) >= NO_PICTURE;
        never_began || self.breaks >= MAX_BREAKS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rtp(picture: i64) -> RtpTime {
        RtpTime { ticks: picture * 9000, rate: 90_000 }
    }

    /// Ten pictures, a tenth of a second apart.
    fn ten_pictures() -> (PacketFlaws, Instant) {
        let now = Instant::now();
        let mut flaws = PacketFlaws::new(now);
        for picture in 0..10 {
            assert!(!flaws.frame(rtp(picture), true, now));
        }
        (flaws, now)
    }

    #[test]
    fn an_odd_packet_between_two_pictures_costs_nothing() {
        let (mut flaws, now) = ten_pictures();
        flaws.note(PacketFlaw::Odd, now);
        assert!(!flaws.frame(rtp(10), true, now));
        flaws.note(PacketFlaw::Odd, now);
        assert!(flaws.frame(rtp(12), true, now), "a picture is missing");
        flaws.note(PacketFlaw::Odd, now);
        assert!(flaws.frame(rtp(13), false, now), "the picture's first part is missing");
        assert_eq!(flaws.total(), 3);
    }

    #[test]
    fn with_b_frames_or_before_the_rate_is_known_an_odd_packet_is_a_loss() {
        let now = Instant::now();
        let mut flaws = PacketFlaws::new(now);
        flaws.frame(rtp(0), true, now);
        flaws.note(PacketFlaw::Odd, now);
        assert!(flaws.frame(rtp(1), true, now));
        let (mut flaws, now) = ten_pictures();
        for picture in [12, 10, 11] {
            flaws.frame(rtp(picture), true, now);
        }
        flaws.note(PacketFlaw::Odd, now);
        assert!(flaws.frame(rtp(13), true, now));
    }

    #[test]
    fn a_damaged_part_is_a_loss_and_a_packet_of_another_stream_is_none() {
        let (mut flaws, now) = ten_pictures();
        flaws.note(PacketFlaw::Damaged, now);
        assert!(flaws.frame(rtp(10), true, now));
        for flaw in [PacketFlaw::Stray, PacketFlaw::Report] {
            flaws.note(flaw, now);
            assert!(!flaws.frame(rtp(12), true, now));
        }
    }

    #[test]
    fn unusable_packets_without_end_end_the_session_and_one_bad_picture_does_not() {
        let (mut flaws, now) = ten_pictures();
        for _ in 0..100 {
            flaws.note(PacketFlaw::Damaged, now);
        }
        assert!(!flaws.is_hopeless(now + Duration::from_secs(1)));
        assert!(flaws.is_hopeless(now + IN_A_ROW));
        flaws.frame(rtp(10), true, now);
        assert!(!flaws.is_hopeless(now + IN_A_ROW));
        for _ in 0..100 {
            flaws.note(PacketFlaw::Report, now);
        }
        assert!(!flaws.is_hopeless(now + IN_A_ROW), "no picture is in these");
    }

    #[test]
    fn breaks_again_and_again_or_no_begin_call_for_the_other_reader() {
        let (mut flaws, now) = ten_pictures();
        for _ in 0..MAX_BREAKS {
            assert!(!flaws.call_for_other_reader(true, now + NO_PICTURE));
            flaws.note(PacketFlaw::Damaged, now);
            flaws.frame(rtp(10), true, now);
        }
        assert!(flaws.call_for_other_reader(true, now));
        let later = now + BREAKS_WITHIN + Duration::from_secs(1);
        flaws.note(PacketFlaw::Damaged, later);
        flaws.frame(rtp(10), true, later);
        assert!(!flaws.call_for_other_reader(true, later), "ten in a day are no reason");
        assert!(flaws.call_for_other_reader(false, later));
    }
}
