//! How well a sight fits a track that has a number: by overlap, by distance and by height.
//!
//! Overlap alone loses an object whose box shrinks or jumps at the edge of what hides it, and tells
//! two people who pass each other only while they are apart. Distance from where the track is
//! expected tells more: it is zero for one of them, and how far a track may have strayed is known
//! from how long it was out of sight. How alike they look tells more still ([`super::Look`]).
//!
//! Where two objects meet there is one detection for both. It is of the one in front, whose foot is
//! lower in the picture, nine times of ten.

use crate::geometry::BBox;

/// How far from its expected place an object may be, in sizes of itself: at once, with each second
/// out of sight, and at most. The size is the side of a square of the box's area. Objects that walk
/// past each other are half a size apart.
const AT_ONCE: f32 = 0.2;
const A_SECOND: f32 = 1.25;
const AT_MOST: f32 = 1.0;

/// What being where it is expected weighs against a full overlap.
const DISTANCE: f32 = 2.0;
/// What a height e times as large as expected costs.
const HEIGHT: f32 = 0.3;
/// What a track that is lost is behind one that was just seen: where one detection is left of two
/// that meet, it is of the one that was in sight, unless it fits the other better.
const LOST: f32 = 0.2;
/// What a track is behind another that hides it.
const HIDDEN: f32 = 0.4;

/// A track hides another that overlaps it by more than this IoU, if its foot is lower by more than
/// this part of the other's height: a camera looks down at the ground.
const MEETING: f32 = 0.15;
const LOWER: f32 = 0.05;

/// A box of so many times the height, or so few, is another object unless it overlaps much.
const ALIKE: f32 = 2.0;
/// This much, as IoU.
const MUCH: f32 = 0.1;

/// Of a pair that may be one, and for which nothing else speaks.
const LEAST: f32 = 0.001;

/// The gain of pairing `seen` with a track that is expected as `expected` and was last seen as
/// `last`, `unseen` seconds ago; `more`: what else speaks for the pair. 0 where they cannot be one.
pub(super) fn gain(expected: &BBox, last: &BBox, seen: &BBox, unseen: f32, more: f32) -> f32 {
    let overlap = expected.iou(seen);
    let reach = (AT_ONCE + A_SECOND * unseen).min(AT_MOST);
    let nearness = (1.0 - distance(expected, seen, last) / reach).max(0.0);
    let (one, other) = (expected.height(), seen.height());
    let ratio = one.max(other) / one.min(other);
    if overlap < MUCH && (nearness <= 0.0 || ratio > ALIKE) {
        return 0.0;
    }
    (overlap + DISTANCE * nearness - HEIGHT * ratio.ln() + more).max(LEAST)
}

/// What speaks against a track that was not seen in the update before, and one that is hidden.
pub(super) fn doubt(lost: bool, hidden: bool) -> f32 {
    (if lost { LOST } else { 0.0 }) + (if hidden { HIDDEN } else { 0.0 })
}

/// Whether an object that is expected as `here` is behind one that is expected as `there`.
pub(super) fn hides(there: &BBox, here: &BBox) -> bool {
    there.bottom - here.bottom > LOWER * here.height() && here.iou(there) > MEETING
}

/// Between the centres of two boxes, in sizes of a third.
fn distance(one: &BBox, other: &BBox, size: &BBox) -> f32 {
    let centre = |b: &BBox| [(b.left + b.right) / 2.0, (b.top + b.bottom) / 2.0];
    let ([ax, ay], [bx, by]) = (centre(one), centre(other));
    (ax - bx).hypot(ay - by) / size.area().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: BBox = BBox::from_xywh(100.0, 100.0, 30.0, 80.0);

    fn at(x: f32) -> BBox {
        BBox::from_xywh(x, 100.0, 30.0, 80.0)
    }

    /// A track that is expected here, and was seen here.
    fn of(seen: &BBox, unseen: f32, lost: bool) -> f32 {
        gain(&HERE, &HERE, seen, unseen, -doubt(lost, false))
    }

    #[test]
    fn nearer_higher_and_seen_are_better() {
        let best = of(&HERE, 0.1, false);
        assert!(best > of(&at(103.0), 0.1, false));
        assert!(best > of(&BBox::from_xywh(100.0, 110.0, 30.0, 60.0), 0.1, false));
        assert!(best > of(&HERE, 0.1, true));
    }

    #[test]
    fn what_a_track_may_be_grows_with_the_time_out_of_sight_and_ends() {
        // 40 pixels are 0.8 sizes of a box of 30 x 80.
        assert_eq!(of(&at(140.0), 0.1, true), 0.0);
        assert!(of(&at(140.0), 1.0, true) > 0.0);
        assert_eq!(of(&at(165.0), 1000.0, true), 0.0);
    }

    #[test]
    fn another_height_needs_an_overlap() {
        let child = BBox::from_xywh(100.0, 142.0, 30.0, 38.0);
        assert!(of(&child, 0.1, false) > 0.0);
        let apart = BBox::from_xywh(135.0, 142.0, 30.0, 38.0);
        assert_eq!(of(&apart, 2.0, true), 0.0);
        assert!(of(&at(135.0), 2.0, true) > 0.0);
    }

    #[test]
    fn who_stands_lower_hides_whom_he_overlaps() {
        let front = BBox::from_xywh(108.0, 110.0, 30.0, 80.0);
        assert!(hides(&front, &HERE) && !hides(&HERE, &front));
        assert!(!hides(&at(108.0), &HERE), "beside each other");
        assert!(!hides(&BBox::from_xywh(160.0, 110.0, 30.0, 80.0), &HERE), "apart");
        assert!(doubt(false, true) > doubt(true, false));
    }
}
