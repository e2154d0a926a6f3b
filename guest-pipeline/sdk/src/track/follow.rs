//! Tracks between two runs of a detector: their boxes go where their pixels go.
//!
//! A detector that runs three times a second says nothing of the frames between. The pixels of an
//! object do: points of the last frame are looked for in the next one (`frame.flow`), and the box
//! moves as they did. Four things are known of them:
//!
//! - A box is not its object: its corners show what is behind it. So the points lie in its inner
//!   part, and the shift is the median of those that agree with each other.
//! - What passes in front of an object takes points along, and points are lost. Where too few
//!   agree, nothing is measured, and the box goes on as its Kalman filter says.
//! - Where two people pass each other, the box of the one behind goes along with the one in front.
//!   So pixels move the box alone, and the Kalman filter knows detections only: by which of the two
//!   the next detections are paired depends on how long ago the last ones were.
//! - The pixels of an object that stands still tremble. Where nothing changes in the picture
//!   nothing is measured, and the box stays exactly as it was.
//!
//! A box keeps its size, which the detector gave it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Track, TrackInfo, Tracker};
use crate::geometry::BBox;

/// Points of one frame: as many as the host looks for (`frame.flow`).
pub const MAX_POINTS: usize = 1024;

/// Points of a box along each side, where there is room for as many. A median needs no more.
const SIDE: usize = 5;

/// The inner part of a box in which its points lie, in its width and height: an upright person's
/// trunk, the middle of a vehicle. Legs go to and fro.
const INNER: [[f32; 2]; 2] = [[0.25, 0.75], [0.1, 0.6]];

/// Pixels by which points that agree differ: a part of the box's size, and what points tremble by.
const AGREE: (f32, f32) = (0.03, 0.5);

/// The least part of a box's points that agree on its shift. With more of them as a condition, more
/// boxes go on by their filter alone, which is worse.
const ENOUGH: f32 = 0.2;

/// Seconds in which a box's drift becomes that of its pixels: over a person's step.
const SETTLED: f32 = 0.3;

/// What the box of a track rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Footing {
    /// A detection of this frame.
    #[default]
    Detected,
    /// Pixels that were followed since the last detection, from frame to frame.
    Followed,
    /// The motion so far: there is a frame since the last detection in which the pixels were not
    /// found.
    Predicted,
}

/// The box of a track that is in sight, confirmed or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight {
    /// Number of the track; none until it is confirmed.
    pub track: Option<u64>,
    /// Number of the class.
    pub class: u32,
    /// The score of the last detection.
    pub score: f32,
    /// In frame pixels; it may reach over the picture's edges.
    pub bbox: BBox,
    /// What the box rests on.
    pub footing: Footing,
    /// Whether it moved, or may have, between the last two frames, or before that and no detection
    /// has found it at rest since.
    pub moves: bool,
}

/// Points in the last frame, to be looked for in the next one.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Points {
    all: Vec<[f32; 2]>,
    /// How many of these are each track's, in the order of tracks; none where it stands still.
    counts: Vec<Option<usize>>,
}

impl Points {
    /// The points' x and y in frame pixels; at most [`MAX_POINTS`].
    #[must_use]
    pub fn all(&self) -> &[[f32; 2]] {
        &self.all
    }
}

impl Tracker {
    /// The points of the tracks in sight, where the last frame had them. `is_still` says of a part
    /// of the picture whether nothing changes there: a box in it stays where it is.
    #[must_use]
    pub fn points(&self, is_still: impl Fn(&BBox) -> bool) -> Points {
        let in_sight = |track: &Track| !track.is_lost(self.state.time);
        let count = self.state.tracks.iter().filter(|track| in_sight(track)).count();
        let fits = |side: &usize| side * side * count <= MAX_POINTS;
        let side = (1..=SIDE).rev().find(fits).unwrap_or(1);
        let mut points = Points::default();
        for track in &self.state.tracks {
            let count = if !in_sight(track) {
                Some(0)
            } else if is_still(&track.bbox) {
                None
            } else {
                points.all.extend(grid(&track.bbox, side));
                Some(side * side)
            };
            points.counts.push(count);
        }
        points
    }

    /// Moves the tracks on to the frame at `time`, its presentation time in nanoseconds: `found`
    /// says, in the order of `points`, where each of them is in it. To be called for every frame,
    /// one that an update follows for too, which pairs the better for it.
    ///
    /// Time that runs backwards, or a gap of three times [`TrackerConfig::lost_for`], ends every
    /// track. Those are given.
    ///
    /// [`TrackerConfig::lost_for`]: super::TrackerConfig::lost_for
    pub fn follow(
        &mut self,
        time: u64,
        points: &Points,
        found: &[Option<[f32; 2]>],
    ) -> Vec<TrackInfo> {
        let seconds = Duration::from_nanos(time.saturating_sub(self.state.time)).as_secs_f32();
        let ended = self.advance(time);
        let lost = std::iter::repeat(&None);
        let mut pairs = points.all.iter().zip(found.iter().chain(lost));
        let counts = points.counts.iter().copied().chain(std::iter::repeat(Some(0)));
        for (track, count) in self.state.tracks.iter_mut().zip(counts) {
            let shift = count.map_or(Some([0.0, 0.0]), |count| {
                let own = pairs.by_ref().take(count);
                let shift = |from: &[f32; 2], to: [f32; 2]| [to[0] - from[0], to[1] - from[1]];
                let shifts = own.filter_map(|(from, to)| to.map(|to| shift(from, to)));
                agreed(&shifts.collect::<Vec<_>>(), count, &track.bbox)
            });
            track.still = count.is_none();
            track.restless |= !track.still;
            track.go(shift, seconds, time);
        }
        ended
    }

    /// The tracks in sight, confirmed or not: those that are not lost.
    #[must_use]
    pub fn sights(&self) -> Vec<Sight> {
        let tracks = self.state.tracks.iter().filter(|track| !track.is_lost(self.state.time));
        let sight = |t: &Track| Sight {
            track: t.id,
            class: t.class,
            score: t.score,
            bbox: t.bbox,
            footing: t.footing,
            moves: !t.still || t.restless,
        };
        tracks.map(sight).collect()
    }
}

impl Track {
    /// Moves on by a measured shift, or as the motion so far says.
    fn go(&mut self, shift: Option<[f32; 2]>, seconds: f32, time: u64) {
        if shift.is_none() && self.is_lost(time) {
            // Out of sight: its box is where it was seen last, the filter alone goes on.
            self.footing = Footing::Predicted;
            return;
        }
        let rates = self.drift.unwrap_or_else(|| self.motion.rates());
        let [x, y] = shift.unwrap_or_else(|| rates.map(|rate| rate * seconds));
        let BBox { left, top, right, bottom } = self.bbox;
        let moved = BBox { left: left + x, top: top + y, right: right + x, bottom: bottom + y };
        // A box that is beyond numbers stays.
        let moved = Some(moved).filter(BBox::is_proper);
        self.bbox = moved.unwrap_or(self.bbox);
        let is_measured = shift.is_some() && moved.is_some();
        if is_measured {
            if seconds > 0.0 {
                let settled = 1.0 - (-seconds / SETTLED).exp();
                let [by_x, by_y] = [x, y].map(|by| by / seconds);
                let [old_x, old_y] = rates;
                let new = [old_x + settled * (by_x - old_x), old_y + settled * (by_y - old_y)];
                self.drift = Some(new).filter(|new| new.iter().all(|rate| rate.is_finite()));
            }
            // What was lost and comes to rest where nothing changes is not found by that.
            if !(self.still && self.footing == Footing::Predicted) {
                self.last_seen = time;
            }
        }
        let footing = if is_measured { Footing::Followed } else { Footing::Predicted };
        self.footing = self.footing.max(footing);
    }
}

/// Points evenly over the inner part of a box.
fn grid(b: &BBox, side: usize) -> impl Iterator<Item = [f32; 2]> {
    let [across, down] = INNER;
    let (b, size) = (*b, [b.width(), b.height()]);
    let part =
        move |[from, to]: [f32; 2], n: usize| from + (to - from) * (n as f32 + 0.5) / side as f32;
    (0..side * side).map(move |n| {
        [b.left + size[0] * part(across, n % side), b.top + size[1] * part(down, n / side)]
    })
}

/// The shift on which enough of a box's points agree, `count` of which were looked for.
fn agreed(shifts: &[[f32; 2]], count: usize, b: &BBox) -> Option<[f32; 2]> {
    let middle = median(shifts)?;
    let (part, trembling) = AGREE;
    let tolerance = part * (b.width() * b.height()).sqrt() + trembling;
    let near = |s: &&[f32; 2]| (s[0] - middle[0]).hypot(s[1] - middle[1]) <= tolerance;
    let agreeing: Vec<_> = shifts.iter().filter(near).copied().collect();
    if (agreeing.len() as f32) < ENOUGH * count as f32 { None } else { median(&agreeing) }
}

/// The median along each axis.
fn median(shifts: &[[f32; 2]]) -> Option<[f32; 2]> {
    let along = |axis: fn(&[f32; 2]) -> f32| {
        let mut values: Vec<f32> = shifts.iter().map(axis).filter(|v| v.is_finite()).collect();
        let middle = values.len() / 2;
        (!values.is_empty()).then(|| *values.select_nth_unstable_by(middle, f32::total_cmp).1)
    };
    Some([along(|s| s[0])?, along(|s| s[1])?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::{Observation, TrackerConfig};
    use proptest::prelude::*;

    const FRAME: u64 = 100_000_000;

    fn at(x: f32, y: f32, score: f32) -> Observation {
        Observation { bbox: BBox::from_xywh(x, y, 40.0, 80.0), score, class: 0 }
    }

    /// A tracker of these objects, confirmed: two updates a frame apart.
    fn tracker(objects: &[Observation]) -> Tracker {
        let mut tracker = Tracker::new(TrackerConfig::for_score(0.4));
        tracker.update(0, objects);
        tracker.update(FRAME, objects);
        tracker
    }

    /// Follows for a frame in which the `n`th point is shifted by `shift`.
    fn step(
        tracker: &mut Tracker,
        frame: u64,
        shift: impl Fn(usize) -> Option<[f32; 2]>,
    ) -> Vec<TrackInfo> {
        let points = tracker.points(|_| false);
        let moved = |(n, p): (usize, &[f32; 2])| shift(n).map(|[x, y]| [p[0] + x, p[1] + y]);
        let found: Vec<_> = points.all().iter().enumerate().map(moved).collect();
        tracker.follow(frame * FRAME, &points, &found)
    }

    fn lefts(tracker: &Tracker) -> Vec<f32> {
        tracker.sights().iter().map(|sight| sight.bbox.left).collect()
    }

    fn footing(tracker: &Tracker) -> Vec<Footing> {
        tracker.sights().iter().map(|sight| sight.footing).collect()
    }

    #[test]
    fn a_box_goes_where_its_points_go() {
        let mut tracker = tracker(&[at(10.0, 20.0, 0.8), at(300.0, 20.0, 0.8)]);
        assert_eq!(footing(&tracker), [Footing::Detected; 2]);
        let inside = tracker.points(|_| false);
        assert_eq!(inside.all().len(), 50);
        let boxes: Vec<_> = tracker.sights().iter().map(|sight| sight.bbox).collect();
        assert!(inside.all()[..25].iter().all(|&[x, y]| {
            x > boxes[0].left && x < boxes[0].right && y > boxes[0].top && y < boxes[0].bottom
        }));
        step(&mut tracker, 2, |n| Some(if n < 25 { [5.0, -1.0] } else { [-3.0, 0.0] }));
        assert_eq!(lefts(&tracker), [15.0, 297.0]);
        assert_eq!(footing(&tracker), [Footing::Followed; 2]);
        let tracks = tracker.tracks();
        assert_eq!((tracks[0].bbox.top, tracks[0].bbox.height()), (19.0, 80.0));
        assert_eq!((tracks[0].last_seen, tracks[0].lost), (2 * FRAME, false));
    }

    #[test]
    fn points_on_what_stands_behind_do_not_hold_a_box_back() {
        let mut tracker = tracker(&[at(10.0, 20.0, 0.8)]);
        // Two of five stay, one of five is lost.
        step(&mut tracker, 2, |n| match n % 5 {
            0 | 4 => Some([0.0, 0.0]),
            1 => None,
            _ => Some([6.0, 0.0]),
        });
        assert_eq!(lefts(&tracker), [16.0]);
    }

    #[test]
    fn a_box_whose_points_are_lost_goes_on_as_it_went_and_says_so() {
        let mut tracker = tracker(&[at(10.0, 20.0, 0.8)]);
        (2..10).for_each(|n| drop(step(&mut tracker, n, |_| Some([4.0, 0.0]))));
        let before = lefts(&tracker)[0];
        step(&mut tracker, 10, |n| (n == 3).then_some([40.0, 0.0]));
        let moved = lefts(&tracker)[0] - before;
        assert!((moved - 4.0).abs() < 1.5, "{moved} px in a frame after 4 px in each");
        assert_eq!(footing(&tracker), [Footing::Predicted]);
        step(&mut tracker, 11, |_| Some([4.0, 0.0]));
        assert_eq!(footing(&tracker), [Footing::Predicted], "until the detector sees it again");
        let there = tracker.tracks()[0].bbox;
        let update =
            tracker.update(11 * FRAME, &[Observation { bbox: there, ..at(0.0, 0.0, 0.8) }]);
        assert_eq!(update.tracks, [Some(1)]);
        assert_eq!(footing(&tracker), [Footing::Detected]);
    }

    #[test]
    fn what_is_predicted_for_a_second_is_out_of_sight_and_found_again() {
        let mut tracker = tracker(&[at(10.0, 20.0, 0.8)]);
        (2..=11).for_each(|n| drop(step(&mut tracker, n, |_| None)));
        assert_eq!(footing(&tracker), [Footing::Predicted]);
        step(&mut tracker, 12, |_| None);
        assert!(tracker.sights().is_empty() && tracker.tracks()[0].lost);
        assert_eq!(tracker.update(12 * FRAME, &[at(11.0, 20.0, 0.8)]).tracks, [Some(1)]);
    }

    #[test]
    fn a_box_in_which_nothing_changes_stays_to_the_last_bit() {
        let mut tracker = tracker(&[at(10.3, 20.7, 0.8)]);
        let before = tracker.tracks()[0].bbox;
        for n in 2..200 {
            let points = tracker.points(|_| true);
            assert!(points.all().is_empty(), "nothing is looked for");
            tracker.follow(n * FRAME, &points, &[]);
        }
        assert_eq!(tracker.tracks()[0].bbox, before);
        let sight = tracker.sights()[0];
        assert_eq!((sight.footing, sight.moves), (Footing::Followed, false));
    }

    #[test]
    fn a_followed_track_is_found_by_the_next_update_far_from_where_the_last_one_saw_it() {
        let mut tracker = tracker(&[at(10.0, 20.0, 0.8)]);
        (2..30).for_each(|n| drop(step(&mut tracker, n, |_| Some([9.0, 0.0]))));
        let update = tracker.update(30 * FRAME, &[at(10.0 + 29.0 * 9.0, 20.0, 0.8)]);
        assert_eq!(update.tracks, [Some(1)]);
        assert!(update.ended.is_empty());
    }

    #[test]
    fn who_is_taken_along_by_another_is_found_where_he_was_expected() {
        let mut tracker = Tracker::new(TrackerConfig::for_score(0.4));
        // They walk towards each other and meet in frame 10.
        let seen = |n: u64| {
            let way = 6.0 * n as f32;
            [at(100.0 + way, 100.0, 0.8), at(220.0 - way, 115.0, 0.8)]
        };
        (0..=8).for_each(|n| drop(tracker.update(n * FRAME, &seen(n))));
        (9..=12).for_each(|n| drop(step(&mut tracker, n, |_| Some([6.0, 0.0]))));
        assert_eq!(lefts(&tracker), [172.0, 196.0]);
        assert_eq!(tracker.update(12 * FRAME, &seen(12)).tracks, [Some(1), Some(2)]);
    }

    #[test]
    fn the_pace_is_that_of_updates() {
        let mut tracker = Tracker::new(TrackerConfig::for_score(0.4));
        for n in 0..40 {
            step(&mut tracker, n, |_| Some([0.0, 0.0]));
            if n % 5 == 0 {
                tracker.update(n * FRAME, &[at(10.0, 20.0, 0.8)]);
            }
        }
        assert!((tracker.pace().unwrap() - 2.0).abs() < 0.01, "{:?}", tracker.pace());
    }

    #[test]
    fn many_tracks_share_the_points_that_there_are() {
        let crowd: Vec<_> =
            (0..150).map(|i| at((i % 15) as f32 * 60.0, (i / 15) as f32 * 90.0, 0.9)).collect();
        let tracker = tracker(&crowd);
        let points = tracker.points(|_| false);
        assert_eq!(points.all().len(), 150 * 4, "two by two");
    }

    #[test]
    fn time_that_jumps_ends_every_track() {
        let mut tracker = tracker(&[at(10.0, 20.0, 0.8)]);
        assert_eq!(step(&mut tracker, 2, |_| Some([1.0, 0.0])).len(), 0);
        assert_eq!(step(&mut tracker, 1, |_| Some([1.0, 0.0])).len(), 1);
        assert!(tracker.sights().is_empty());
    }

    #[test]
    fn a_state_of_a_version_without_pixels_is_taken_over() {
        let tracker = tracker(&[at(10.0, 20.0, 0.8)]);
        let mut state = serde_json::to_value(tracker.state()).unwrap();
        let track = state.pointer_mut("/tracks/0").unwrap().as_object_mut().unwrap();
        for new in ["footing", "still", "last_detected"] {
            track.remove(new).unwrap();
        }
        let state = serde_json::from_value(state).unwrap();
        let resumed = Tracker::resume(TrackerConfig::for_score(0.4), state).unwrap();
        assert_eq!(resumed.state(), tracker.state());
    }

    /// What no frame has too.
    fn any_point() -> impl Strategy<Value = [f32; 2]> {
        let x = prop_oneof![-1e9f32..1e9, Just(f32::NAN), Just(f32::MAX)];
        (x, -10f32..10.0).prop_map(|(x, y)| [x, y])
    }

    proptest! {
        #[test]
        fn whatever_is_found_the_state_can_be_taken_over(
            found in prop::collection::vec(prop::option::weighted(0.8, any_point()), 0..80),
            still in any::<bool>(),
        ) {
            let mut tracker = tracker(&[at(10.0, 20.0, 0.8), at(300.0, 20.0, 0.8)]);
            for n in 2..6 {
                let points = tracker.points(|_| still);
                tracker.follow(n * FRAME, &points, &found);
            }
            prop_assert!(tracker.sights().iter().all(|sight| sight.bbox.is_proper()));
            let kept = serde_json::to_string(tracker.state()).unwrap();
            let state = serde_json::from_str(&kept).unwrap();
            let resumed = Tracker::resume(TrackerConfig::for_score(0.4), state).unwrap();
            prop_assert_eq!(resumed.state(), tracker.state());
        }
    }
}
