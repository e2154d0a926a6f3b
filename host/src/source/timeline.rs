//! Brings the presentation times of two streams of one camera together.
//!
//! Each stream counts from its own first picture. A [`StreamTimeline`] knows where a stream's times
//! lie on clocks that both have: the camera's, by its sender reports, and the host's at the receipt.
//! An [`Alignment`] moves the pictures of one stream to the times of the other. Nothing here reads a
//! clock.

use std::sync::Arc;

use ocelli_protocol::worker::{CaptureClock, UnitHeader};

use super::AccessUnit;

/// Units of which the least delayed says where a stream lies by the host's clock: some seconds, in
/// which one picture comes without having waited.
const WINDOW: u32 = 64;

/// How far the camera's clocks of two streams may say otherwise than the host's: longer than
/// encoders and networks hold pictures up. Beyond, the streams have two clocks.
const CLOCKS_APART_NS: i64 = 3_000_000_000;

/// How far an alignment may be off before it is made anew, in which the picture jumps. Less is not
/// seen: it is a picture of a stream of 10 a second.
const DRIFT_NS: i64 = 100_000_000;

/// How much later than others a picture may come that has but waited: encoders spread a key picture
/// over some tenths of a second.
const HELD_UP_NS: i64 = 1_000_000_000;

/// Where a stream's presentation times lie: what is to be added to one for the time by a clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamTimeline {
    /// By the camera's wall clock, while it sends reports.
    camera: Option<i64>,
    /// By the host's monotonic clock at the receipt: the least of this window and of the last one.
    receipt: Option<i64>,
    last_receipt: Option<i64>,
    units: u32,
}

impl StreamTimeline {
    /// Takes in the next unit of the stream.
    pub(super) fn unit(&mut self, header: &UnitHeader) {
        let Some(time) = header.presentation_ns else { return };
        let since = |ns: u64| i64::try_from(ns).ok().and_then(|ns| ns.checked_sub(time));
        // Times go on over a break: they move only by what the last picture before it was held up.
        let held_up = since(header.received_ns).zip(self.by_receipt());
        let moved = held_up.is_some_and(|(now, known)| now.saturating_sub(known) > HELD_UP_NS);
        if header.discontinuity && moved {
            *self = Self::default();
        }
        self.camera = match header.capture_clock {
            CaptureClock::Camera => since(header.capture_ns),
            CaptureClock::Host => None,
        };
        if self.units == WINDOW {
            (self.last_receipt, self.receipt, self.units) = (self.receipt, None, 0);
        }
        self.units += 1;
        self.receipt = self.receipt.into_iter().chain(since(header.received_ns)).min();
    }

    fn by_receipt(&self) -> Option<i64> {
        self.receipt.into_iter().chain(self.last_receipt).min()
    }

    /// What is to be added to a time of this stream for the same moment's of `other`. `None`: one
    /// of them has shown nothing yet.
    fn until(&self, other: &Self) -> Option<i64> {
        let by_host = self.by_receipt()?.checked_sub(other.by_receipt()?)?;
        let by_camera = self.camera.zip(other.camera);
        let by_camera = by_camera.and_then(|(own, other)| own.checked_sub(other));
        let agrees =
            |by_camera: &i64| by_camera.abs_diff(by_host) <= CLOCKS_APART_NS.unsigned_abs();
        Some(by_camera.filter(agrees).unwrap_or(by_host))
    }
}

/// Gives the pictures of one stream the times of another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Alignment {
    /// What is added; `None` before both streams have shown where they lie.
    shift: Option<i64>,
}

impl Alignment {
    /// The unit with its time in the other stream, both lying where the timelines say. The shift
    /// changes at key units alone, and such a one is marked as a discontinuity.
    pub fn place(
        &mut self,
        unit: &Arc<AccessUnit>,
        own: &StreamTimeline,
        other: &StreamTimeline,
    ) -> Arc<AccessUnit> {
        let before = self.shift.unwrap_or_default();
        let is_off = |shift: &i64| shift.abs_diff(before) > DRIFT_NS.unsigned_abs();
        let measured = own.until(other).filter(|shift| self.shift.is_none() || is_off(shift));
        let mut moved = false;
        if let (true, Some(shift)) = (unit.header.key, measured) {
            moved = shift != before;
            self.shift = Some(shift);
        }
        let shift = self.shift.unwrap_or_default();
        if shift == 0 && !moved {
            return Arc::clone(unit);
        }
        let mut header = unit.header.clone();
        header.presentation_ns = header.presentation_ns.map(|time| time.saturating_add(shift));
        header.discontinuity |= moved;
        Arc::new(AccessUnit { header, data: unit.data.clone() })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::unit;
    use super::*;

    const SECOND: i64 = 1_000_000_000;

    /// A stream of 10 pictures a second, whose first was taken at `begun` and comes `delay` later
    /// by the host's clock, and whose camera's clock is ahead by `ahead`.
    struct Camera {
        begun: i64,
        delay: i64,
        ahead: Option<i64>,
    }

    impl Camera {
        fn unit(&self, number: u64) -> Arc<AccessUnit> {
            let mut unit = AccessUnit::clone(&unit(number, number.is_multiple_of(10), 1));
            let time = number.cast_signed() * SECOND / 10;
            // Every third picture waits in the network.
            let wait = if number % 3 == 1 { SECOND / 5 } else { 0 };
            let header = &mut unit.header;
            header.presentation_ns = Some(time);
            header.received_ns = (self.begun + time + self.delay + wait).unsigned_abs();
            header.capture_ns = header.received_ns;
            if let Some(ahead) = self.ahead {
                header.capture_clock = CaptureClock::Camera;
                header.capture_ns = (self.begun + time + ahead).unsigned_abs();
            }
            Arc::new(unit)
        }

        fn timeline(&self, numbers: std::ops::Range<u64>) -> StreamTimeline {
            let mut timeline = StreamTimeline::default();
            numbers.for_each(|number| timeline.unit(&self.unit(number).header));
            timeline
        }
    }

    fn placed(main: &Camera, sub: &Camera) -> (i64, bool) {
        let mut alignment = Alignment::default();
        let (own, other) = (main.timeline(0..21), sub.timeline(0..21));
        let placed = alignment.place(&main.unit(20), &own, &other);
        (placed.header.presentation_ns.unwrap(), placed.header.discontinuity)
    }

    const SUB: Camera = Camera { begun: 50 * SECOND, delay: SECOND / 20, ahead: None };

    #[test]
    fn a_picture_gets_the_other_streams_time_of_its_moment_by_the_receipts() {
        // Begun 30 s later, and 20 ms more of delay: its second 2 is the other's 32.02.
        let main = Camera { begun: 80 * SECOND, delay: SECOND * 7 / 100, ..SUB };
        assert_eq!(placed(&main, &SUB), (32 * SECOND + SECOND / 50, true));
    }

    #[test]
    fn the_cameras_clock_is_more_exact_where_both_streams_have_it() {
        let main = Camera { begun: 80 * SECOND, delay: SECOND, ahead: Some(7200 * SECOND) };
        let sub = Camera { ahead: main.ahead, ..SUB };
        assert_eq!(placed(&main, &sub).0, 32 * SECOND);
        let main = Camera { ahead: None, ..main };
        assert_eq!(placed(&main, &sub).0, 32 * SECOND + SECOND * 95 / 100);
    }

    #[test]
    fn clocks_that_have_nothing_to_do_with_each_other_are_not_used() {
        let main = Camera { begun: 80 * SECOND, ahead: Some(9 * 3600 * SECOND), ..SUB };
        let sub = Camera { ahead: Some(0), ..SUB };
        assert_eq!(placed(&main, &sub).0, 32 * SECOND);
    }

    #[test]
    fn a_stream_that_is_not_there_yet_moves_nothing_and_the_shift_waits_for_a_key_unit() {
        let main = Camera { begun: 80 * SECOND, ..SUB };
        let (own, none) = (main.timeline(0..30), StreamTimeline::default());
        let mut alignment = Alignment::default();
        let unit = main.unit(20);
        assert!(Arc::ptr_eq(&alignment.place(&unit, &own, &none), &unit));
        let sub = SUB.timeline(0..30);
        assert_eq!(alignment.place(&main.unit(25), &own, &sub), main.unit(25));
        let key = alignment.place(&main.unit(30), &own, &sub);
        assert_eq!(key.header.presentation_ns, Some(33 * SECOND));
        assert!(key.header.discontinuity);
        let next = alignment.place(&main.unit(31), &own, &sub);
        assert_eq!(next.header.presentation_ns, Some(33 * SECOND + SECOND / 10));
        assert!(!next.header.discontinuity);
    }

    #[test]
    fn a_small_drift_moves_no_picture_and_a_large_one_does() {
        let main = Camera { begun: 80 * SECOND, ..SUB };
        let own = main.timeline(0..21);
        let mut alignment = Alignment::default();
        alignment.place(&main.unit(20), &own, &SUB.timeline(0..21));
        let near = Camera { begun: SUB.begun + SECOND / 20, ..SUB };
        let placed = alignment.place(&main.unit(30), &own, &near.timeline(0..21));
        assert_eq!(placed.header.presentation_ns, Some(33 * SECOND));
        assert!(!placed.header.discontinuity);
        let far = Camera { begun: SUB.begun + SECOND, ..SUB };
        let placed = alignment.place(&main.unit(40), &own, &far.timeline(0..21));
        assert_eq!(placed.header.presentation_ns, Some(33 * SECOND));
        assert!(placed.header.discontinuity);
    }

    #[test]
    fn a_loss_moves_no_picture() {
        let main = Camera { begun: 80 * SECOND, ..SUB };
        let (mut own, sub) = (main.timeline(0..31), SUB.timeline(0..31));
        let mut alignment = Alignment::default();
        let before = alignment.place(&main.unit(30), &own, &sub).header.presentation_ns.unwrap();
        let mut late = AccessUnit::clone(&main.unit(40));
        late.header.discontinuity = true;
        own.unit(&late.header);
        let placed = alignment.place(&Arc::new(late), &own, &sub);
        assert_eq!(placed.header.presentation_ns, Some(before + SECOND));
    }
}
