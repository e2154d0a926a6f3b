//! How far an object may have come since it was last seen, and how sure its pairing is then.
//!
//! Between two looks that are long apart an object moves by more than its own size, so its boxes
//! do not overlap and IoU pairs it with nothing, or with another one that happens to stand there.
//! What is left after the pairings by IoU is paired by distance, measured in sizes of the object
//! and in the time that has passed. Where other objects are so near that they could have come there
//! meanwhile, that is a guess, and counted as one ([`Certainty`]).

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;

/// How far an object may move in a second, in sizes of itself, while its velocity is not known; the
/// size is the side of a square of the box's area. A person walks 1.5 sizes a second and runs 4.
const SPEED: f32 = 2.5;

/// The same, off from where it is expected, once two sights have shown a velocity; and how near
/// another object is at which it could be taken for this one.
const STRIDE: f32 = 1.25;

/// Sizes beyond which a pairing is a guess, however much time has passed.
const FARTHEST: f32 = 4.0;

/// One object is not higher than another sight of it by more than this factor.
const ALIKE: f32 = 1.35;

/// What a look weighs against the one before it: the measure is of the last twenty or so.
const MEMORY: f32 = 0.95;

/// Pairings by which a measure is one.
const ENOUGH: f32 = 8.0;

/// Shares of pairings in doubt above which tracks are uncertain, and below which they are certain
/// again. Apart, so that the answer does not swing.
const UNCERTAIN: f32 = 0.25;
const CERTAIN: f32 = 0.15;

/// How well a sight fits an object that was last seen as `last`, `unseen` seconds ago, and is
/// expected elsewhere: 1 where it is expected, 0 as far as it may have come.
pub(super) fn gain(expected: &BBox, last: &BBox, seen: &BBox, unseen: f32, is_known: bool) -> f32 {
    let (low, high) = (last.height().min(seen.height()), last.height().max(seen.height()));
    let speed = if is_known { STRIDE } else { SPEED };
    let reach = (speed * unseen).min(FARTHEST);
    if high > ALIKE * low || reach <= 0.0 {
        return 0.0;
    }
    (1.0 - distance(expected, seen) / reach).max(0.0)
}

/// How many of the last pairings were in doubt, and how long it was from one look to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Certainty {
    /// Pairings, and those of them in doubt; the older the look, the less they weigh.
    pairs: f32,
    doubtful: f32,
    uncertain: bool,
    /// Times from one look to the next and their sum, weighed likewise.
    waits: f32,
    seconds: f32,
    /// Since the last look.
    since: f32,
}

impl Certainty {
    /// Takes in the pairings of one look, and how many of them are in doubt.
    pub(super) fn look(&mut self, pairs: usize, doubtful: usize) {
        self.pairs = self.pairs * MEMORY + pairs as f32;
        self.doubtful = self.doubtful * MEMORY + doubtful as f32;
        let share = self.doubtful / self.pairs.max(ENOUGH);
        self.uncertain = share > if self.uncertain { CERTAIN } else { UNCERTAIN };
        if self.since > 0.0 {
            self.waits = self.waits * MEMORY + 1.0;
            self.seconds = self.seconds * MEMORY + self.since;
            self.since = 0.0;
        }
    }

    /// Takes in time on the way to the next look.
    pub(super) fn wait(&mut self, seconds: f32) {
        self.since += seconds;
    }

    /// Looks a second.
    pub(super) fn pace(self) -> Option<f32> {
        (self.seconds > 0.0).then(|| self.waits / self.seconds)
    }

    pub(super) fn is_uncertain(self) -> bool {
        self.uncertain
    }
}

/// Whether an object that was last seen as `last`, `unseen` seconds ago, could be `other` by now.
pub(super) fn is_near(last: &BBox, other: &BBox, unseen: f32) -> bool {
    distance(last, other) < STRIDE * unseen
}

/// Between the centres, in sizes of the second.
fn distance(one: &BBox, other: &BBox) -> f32 {
    let centre = |b: &BBox| [(b.left + b.right) / 2.0, (b.top + b.bottom) / 2.0];
    let ([ax, ay], [bx, by]) = (centre(one), centre(other));
    (ax - bx).hypot(ay - by) / (other.width() * other.height()).sqrt()
}
