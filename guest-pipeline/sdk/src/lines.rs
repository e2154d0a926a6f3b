//! Lines across the picture, and who crosses them in which direction.
//!
//! A track is where its [foot point](crate::zones::foot) is. It has crossed a line when the way of
//! that point from one side to the other meets the line between its two ends, and a second frame in
//! a row finds it on the other side: boxes tremble, and somebody who stands on a line crosses
//! nothing. The time of a crossing is that of the first frame on the other side. A way past an end
//! of the line crosses nothing either, and a track that is lost meanwhile has crossed when it is
//! found again on the other side.
//!
//! ```
//! use ocelli_sdk::labels::Classes;
//! use ocelli_sdk::lines::{Direction, Line, Lines};
//! # use ocelli_sdk::geometry::BBox;
//! # use ocelli_sdk::track::TrackInfo;
//!
//! // From the upper edge to the lower one: what is left of it in the picture is to its right.
//! let gate = Line {
//!     name: "gate".into(),
//!     from: [0.5, 0.0],
//!     to: [0.5, 1.0],
//!     classes: Classes::all(),
//! };
//! let mut lines = Lines::new(&[gate]);
//! # let seen = |x: f32| [TrackInfo { id: 1, class: 0, score: 0.9, first_seen: 0, last_seen: 0,
//! #     lost: false, bbox: BBox::from_xywh(x, 10.0, 20.0, 40.0) }];
//! let mut crossings = Vec::new();
//! for (time, x) in (0..).zip([100.0, 200.0, 400.0, 500.0]) {
//!     crossings.extend(lines.observe(time, (640, 480), &seen(x)));
//! }
//! assert_eq!((crossings[0].direction, crossings[0].time), (Direction::ToLeft, 2));
//! ```

use serde::{Deserialize, Serialize};

use crate::labels::Classes;
use crate::track::TrackInfo;
use crate::zones::{self, check_name};

/// Lines that settings should define at most. Each track is compared with each of them in every
/// frame.
pub const MAX_LINES: usize = 32;

/// Least length of a line, in parts of the picture: about two pixels in 1080 lines.
const LEAST_LENGTH: f64 = 2e-3;

/// A line between two points of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// Name in events and counts.
    pub name: String,
    /// One end, x and y in parts of the picture, 0 to 1.
    pub from: [f32; 2],
    /// The other end. Right and left are those of somebody who looks from `from` to `to`.
    pub to: [f32; 2],
    /// The objects that count.
    pub classes: Classes,
}

/// The way over a line, for somebody who looks along it from its first end to its second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From the right side to the left one.
    ToLeft,
    /// From the left side to the right one.
    ToRight,
}

impl Direction {
    /// "to_left" or "to_right", as JSON has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ToLeft => "to_left",
            Self::ToRight => "to_right",
        }
    }
}

/// A track that has crossed a line.
#[derive(Debug, Clone, PartialEq)]
pub struct LineCrossing {
    /// The line's name.
    pub line: String,
    /// The track as it is now.
    pub track: TrackInfo,
    /// The side that it came to.
    pub direction: Direction,
    /// Presentation time of the first frame on the other side, in nanoseconds.
    pub time: u64,
}

/// The lines of one camera, each with the tracks that were seen beside it.
#[derive(Debug, Clone)]
pub struct Lines(Vec<LineTracks>);

#[derive(Debug, Clone)]
struct LineTracks {
    line: Line,
    /// Ordered by track.
    tracks: Vec<Walker>,
}

/// A track beside a line.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Walker {
    track: u64,
    /// Where it was when it was last on a side that a second frame confirmed.
    place: [f32; 2],
    /// The frame that first showed it on the other side.
    #[serde(default)]
    other: Option<FirstLook>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct FirstLook {
    /// Presentation time in nanoseconds.
    time: u64,
    /// Whether the way to there met the line between its ends.
    met: bool,
}

/// A line's part of a snapshot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LineState {
    name: String,
    ends: [[f32; 2]; 2],
    tracks: Vec<Walker>,
}

impl Line {
    /// Checks name and ends; `path` is where the line stands in the settings.
    ///
    /// # Errors
    /// Names what is wrong: a name that is none, an end outside of the picture, ends that are
    /// one point.
    pub fn check(&self, path: &str) -> Result<(), String> {
        check_name(&self.name, &format!("{path}.name"))?;
        zones::check_point(self.from, &format!("{path}.from"))?;
        zones::check_point(self.to, &format!("{path}.to"))?;
        let [x, y] = difference(self.from, self.to).map(f64::from);
        if x.hypot(y) < LEAST_LENGTH {
            return Err(format!("{path}: has no length"));
        }
        Ok(())
    }

    /// Whether a point is to the right; none on the line itself, whose sides are those around it.
    fn is_right(&self, point: [f32; 2]) -> Option<bool> {
        let side = zones::cross(difference(self.from, self.to), difference(self.from, point));
        (side != 0.0).then_some(side > 0.0)
    }

    /// Whether the way between two points that lie on both sides meets the line between its ends.
    /// Of two lines that share an end, a way through it meets one.
    fn is_met(&self, start: [f32; 2], stop: [f32; 2]) -> bool {
        let way = difference(start, stop);
        let right = |end| zones::cross(way, difference(start, end)) > 0.0;
        right(self.from) != right(self.to)
    }
}

fn difference([ax, ay]: [f32; 2], [bx, by]: [f32; 2]) -> [f32; 2] {
    [bx - ax, by - ay]
}

impl LineTracks {
    /// The index of a track, or the index to insert it at.
    fn place(&self, track: u64) -> Result<usize, usize> {
        self.tracks.binary_search_by_key(&track, |walker| walker.track)
    }

    /// Records where the frame at `time` shows a track.
    fn record(&mut self, track: &TrackInfo, foot: [f32; 2], time: u64) -> Option<LineCrossing> {
        // On the line itself it is still where it was.
        let right = self.line.is_right(foot)?;
        let walker = match self.place(track.id) {
            Ok(place) => self.tracks.get_mut(place)?,
            Err(place) => {
                self.tracks.insert(place, Walker { track: track.id, place: foot, other: None });
                return None;
            }
        };
        if self.line.is_right(walker.place) == Some(right) {
            (walker.place, walker.other) = (foot, None);
            return None;
        }
        let Some(FirstLook { time, met }) = walker.other else {
            let met = self.line.is_met(walker.place, foot);
            walker.other = Some(FirstLook { time, met });
            return None;
        };
        (walker.place, walker.other) = (foot, None);
        let direction = if right { Direction::ToRight } else { Direction::ToLeft };
        let line = || self.line.name.clone();
        met.then(|| LineCrossing { line: line(), track: *track, direction, time })
    }
}

impl Lines {
    /// Lines that nobody has crossed.
    #[must_use]
    pub fn new(lines: &[Line]) -> Self {
        let fresh = |line: &Line| LineTracks { line: line.clone(), tracks: Vec::new() };
        Self(lines.iter().map(fresh).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the tracks that have ended.
    pub fn end(&mut self, ended: &[TrackInfo]) {
        for watched in &mut self.0 {
            watched.tracks.retain(|walker| !ended.iter().any(|track| track.id == walker.track));
        }
    }

    /// Locates the tracks that the frame at `time` shows, a picture of `size` pixels; lost tracks
    /// are not among `seen`.
    pub fn observe(
        &mut self,
        time: u64,
        size: (u32, u32),
        seen: &[TrackInfo],
    ) -> Vec<LineCrossing> {
        let mut crossings = Vec::new();
        for track in seen {
            let foot = zones::foot(&track.bbox, size);
            for watched in &mut self.0 {
                if watched.line.classes.wants(track.class) {
                    crossings.extend(watched.record(track, foot, time));
                }
            }
        }
        crossings
    }

    /// The lines' part of a snapshot.
    #[must_use]
    pub fn state(&self) -> Vec<LineState> {
        let state = |LineTracks { line, tracks }: &LineTracks| LineState {
            name: line.name.clone(),
            ends: [line.from, line.to],
            tracks: tracks.clone(),
        };
        self.0.iter().map(state).collect()
    }

    /// Lines that go on from another instance's [`Lines::state`] where name and ends are the same.
    /// `alive` are the tracks that are, ordered by number.
    ///
    /// # Errors
    /// A state that cannot have come from here.
    pub fn resume(
        lines: &[Line],
        state: Vec<LineState>,
        alive: &[TrackInfo],
    ) -> Result<Self, String> {
        let count = state.len();
        if count > MAX_LINES.max(lines.len()) {
            return Err(format!("{count} lines are more than {MAX_LINES}"));
        }
        let mut resumed = Self::new(lines);
        for LineState { name, ends, tracks } in state {
            let refuse =
                |track: u64, why: &str| Err(format!("track {track} at line {name:?} {why}"));
            for Walker { track, place, other } in &tracks {
                let info = alive.binary_search_by_key(track, |info| info.id).ok();
                let Some(info) = info.and_then(|place| alive.get(place)) else {
                    return refuse(*track, "is not alive");
                };
                let seen = info.first_seen..=info.last_seen;
                if other.is_some_and(|first| !seen.contains(&first.time)) {
                    return refuse(*track, "has times that no look gives");
                }
                if zones::check_point(*place, "").is_err() {
                    return refuse(*track, "is not in the picture");
                }
            }
            let mut pairs = tracks.iter().zip(tracks.iter().skip(1));
            if let Some((_, next)) = pairs.find(|(one, next)| one.track >= next.track) {
                return refuse(next.track, "is there twice or out of order");
            }
            let same = |watched: &&mut LineTracks| {
                watched.line.name == name && [watched.line.from, watched.line.to] == ends
            };
            if let Some(watched) = resumed.0.iter_mut().find(same) {
                watched.tracks = tracks;
            }
        }
        Ok(resumed)
    }
}

impl LineState {
    /// Whether this is the state of the line of this name, and that is one of `lines` still.
    #[must_use]
    pub fn is_of(&self, name: &str, lines: &[Line]) -> bool {
        let is_same = |line: &Line| line.name == name && [line.from, line.to] == self.ends;
        self.name == name && lines.iter().any(is_same)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use proptest::prelude::*;

    const SIZE: (u32, u32) = (1000, 1000);

    /// From the middle of the picture to its lower edge.
    fn gate() -> Line {
        Line { name: "gate".into(), from: [0.5, 0.5], to: [0.5, 1.0], classes: Classes::all() }
    }

    fn track(id: u64, [x, y]: [f32; 2], time: u64) -> TrackInfo {
        let bbox = BBox { left: x - 20.0, top: y - 90.0, right: x + 20.0, bottom: y };
        TrackInfo { id, class: 0, score: 0.8, bbox, first_seen: 0, last_seen: time, lost: false }
    }

    /// The crossings of one track that is at these places, in pixels, one frame after the other.
    fn walk(lines: &mut Lines, from: u64, places: &[[f32; 2]]) -> Vec<(u64, Direction)> {
        let looks = (from..).zip(places);
        let crossings =
            looks.flat_map(|(time, &place)| lines.observe(time, SIZE, &[track(1, place, time)]));
        crossings.map(|crossing| (crossing.time, crossing.direction)).collect()
    }

    #[test]
    fn a_second_look_confirms_and_the_time_is_that_of_the_first() {
        let mut lines = Lines::new(&[gate()]);
        let there = walk(&mut lines, 0, &[[300.0, 800.0], [450.0, 800.0], [550.0, 800.0]]);
        assert_eq!(there, [], "once on the other side");
        assert_eq!(walk(&mut lines, 3, &[[600.0, 800.0]]), [(2, Direction::ToLeft)]);
        let back = walk(&mut lines, 4, &[[400.0, 800.0], [300.0, 800.0]]);
        assert_eq!(back, [(4, Direction::ToRight)], "looking down, the left is on one's right");
    }

    #[test]
    fn a_box_that_trembles_on_the_line_crosses_nothing() {
        let mut lines = Lines::new(&[gate()]);
        let places = [[499.0, 800.0], [501.0, 800.0]].repeat(50);
        assert_eq!(walk(&mut lines, 0, &places), []);
        assert_eq!(walk(&mut lines, 100, &[[500.0, 800.0]; 9]), [], "nor one that stands on it");
    }

    #[test]
    fn a_way_past_the_end_crosses_nothing() {
        let mut lines = Lines::new(&[gate()]);
        let past = [[300.0, 400.0], [700.0, 400.0], [700.0, 400.0], [700.0, 900.0]];
        assert_eq!(walk(&mut lines, 0, &past), []);
        assert_eq!(walk(&mut lines, 4, &[[300.0, 900.0]; 2]), [(4, Direction::ToRight)]);
    }

    #[test]
    fn a_line_is_about_its_classes_and_forgets_what_has_ended() {
        let classes = Classes::named(&["car".to_owned()], &["person", "car"]);
        let mut lines = Lines::new(&[gate(), Line { name: "cars".into(), classes, ..gate() }]);
        let mut names = Vec::new();
        for (time, x) in (0..).zip([300.0, 600.0, 600.0]) {
            let car = TrackInfo { class: 1, ..track(2, [x, 800.0], time) };
            let seen = [track(1, [x, 800.0], time), car];
            let crossings = lines.observe(time, SIZE, &seen).into_iter();
            names.extend(crossings.map(|crossing| (crossing.line, crossing.track.id)));
        }
        let found: Vec<_> = names.iter().map(|(line, id)| (line.as_str(), *id)).collect();
        assert_eq!(found, [("gate", 1), ("gate", 2), ("cars", 2)]);
        lines.end(&[track(1, [0.0; 2], 3), track(2, [0.0; 2], 3)]);
        assert!(lines.state().iter().all(|state| state.tracks.is_empty()));
    }

    #[test]
    fn a_line_has_a_name_two_ends_and_a_length() {
        let refused = |line: Line| line.check("at").unwrap_err();
        assert_eq!(gate().check("at"), Ok(()));
        assert!(refused(Line { name: String::new(), ..gate() }).starts_with("at.name: "));
        assert!(refused(Line { to: [0.5, 1.5], ..gate() }).starts_with("at.to: [0.5, 1.5] "));
        assert_eq!(refused(Line { to: [0.5, 0.501], ..gate() }), "at: has no length");
    }

    #[test]
    fn a_state_that_no_look_gives_is_refused() {
        let mut lines = Lines::new(&[gate()]);
        walk(&mut lines, 0, &[[300.0, 800.0], [700.0, 800.0]]);
        let alive = [track(1, [700.0, 800.0], 1)];
        let resume = |change: fn(&mut Walker)| {
            let mut state = lines.state();
            state[0].tracks.iter_mut().for_each(change);
            Lines::resume(&[gate()], state, &alive).map(|lines| lines.state())
        };
        assert_eq!(resume(|_| ()), Ok(lines.state()));
        let refused = |change| resume(change).unwrap_err();
        assert!(refused(|walker| walker.track = 7).contains("not alive"));
        assert!(refused(|walker| walker.place = [f32::NAN; 2]).contains("not in the picture"));
        assert!(
            refused(|walker| walker.other = Some(FirstLook { time: 9, met: true }))
                .contains("times")
        );
        let mut twice = lines.state();
        let again = twice[0].tracks[0];
        twice[0].tracks.push(again);
        assert!(Lines::resume(&[gate()], twice, &alive).is_err_and(|e| e.contains("twice")));
        let moved = Line { to: [0.6, 1.0], ..gate() };
        let [state] = &lines.state()[..] else { panic!("one line") };
        assert!(
            state.is_of("gate", &[gate()]) && !state.is_of("gate", std::slice::from_ref(&moved))
        );
        let fresh = Lines::resume(&[moved], lines.state(), &alive).unwrap();
        assert!(fresh.state()[0].tracks.is_empty(), "another line begins anew");
    }

    proptest! {
        /// Whatever the walk, the crossings of one line alternate: nobody comes to the same side
        /// twice, unless the way back went past an end.
        #[test]
        fn crossings_of_a_line_through_the_picture_alternate(
            xs in prop::collection::vec(0.0f32..1000.0, 2..60),
            swap in 0usize..60,
        ) {
            let line = Line { from: [0.5, 0.0], ..gate() };
            let mut lines = Lines::new(std::slice::from_ref(&line));
            let mut found = Vec::new();
            for (n, &x) in xs.iter().enumerate() {
                let track = track(1, [x, 800.0], n as u64);
                found.extend(lines.observe(n as u64, SIZE, &[track]));
                if n == swap {
                    lines = Lines::resume(std::slice::from_ref(&line), lines.state(), &[track])
                        .unwrap();
                }
            }
            for (one, next) in found.iter().zip(found.iter().skip(1)) {
                prop_assert!(one.direction != next.direction && one.time < next.time);
            }
            if let (Some(first), Some(last)) = (xs.first(), found.last()) {
                let left = last.direction == Direction::ToRight;
                prop_assert_eq!(found.len() % 2 == 1, (*first < 500.0) != left);
            }
        }
    }
}
