//! Where points of one picture are in a later one: sparse Lucas-Kanade on pyramids, as Bouguet
//! describes it ("Pyramidal implementation of the affine Lucas Kanade feature tracker", 2001), with
//! the gradients of the earlier picture alone.
//!
//! A point is known by the 8 x 8 samples around it. At each level, from the smallest picture to the
//! largest, the shift is improved until those samples lie on the later picture's. Gradients are
//! taken about their mean, which makes a change of light that is the same all over the window no
//! part of the error. A point is lost where nothing around it tells where it is (a wall, an edge),
//! where what is found does not look like it, and where it leaves the picture.

use super::grey::{Averager, Grey};

mod window;

use window::{Found, Template};

/// Pictures of a pyramid, each of half the sides of the one below: a window of the smallest sees
/// 64 x 64 samples of the largest.
const LEVELS: usize = 4;

/// Steps to a level's shift, at most. Most points need two or three.
const STEPS: usize = 5;

/// Longest step, in samples of a level: what leaves half a window follows something else.
const LONG: f32 = window::SIDE as f32 / 2.0;

/// A step shorter than this, in a level's samples, is the last.
const SHORT: f32 = 0.03;

/// What is found has at least this correlation with what was looked for.
const LIKENESS: f32 = 0.8;

/// A point in a picture, in pixels from its left and upper edge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub x: f32,
    pub y: f32,
}

impl Point {
    pub(super) fn scaled(self, by: f32) -> Self {
        Self { x: self.x * by, y: self.y * by }
    }

    fn plus(self, x: f32, y: f32) -> Self {
        Self { x: self.x + x, y: self.y + y }
    }

    fn lies_in(self, picture: &Grey) -> bool {
        // False for what is no number.
        self.x >= 0.0
            && self.y >= 0.0
            && self.x < picture.width as f32
            && self.y < picture.height as f32
    }
}

/// A grey picture at several sizes.
#[derive(Debug, Default)]
pub(super) struct Pyramid {
    /// The largest.
    pub(super) base: Grey,
    above: [Grey; LEVELS - 1],
}

impl Pyramid {
    /// Makes the smaller pictures of the largest.
    pub(super) fn build(&mut self, averager: &mut Averager) {
        let mut below = &self.base;
        for level in &mut self.above {
            averager.by(below, 2, level);
            below = level;
        }
    }

    /// From the smallest to the largest, each with the length of its samples in those of the
    /// largest.
    fn levels<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a Grey, &'a Grey, f32)> {
        let above = self.above.iter().zip(&other.above).enumerate().rev();
        let above = above.map(|(level, (one, other))| (one, other, (2 << level) as f32));
        above.chain(std::iter::once((&self.base, &other.base, 1.0)))
    }

    /// Where a point of this picture is in a later one of the same size.
    pub(super) fn follow(&self, later: &Self, point: Point) -> Option<Point> {
        let sides = |grey: &Grey| (grey.width, grey.height);
        if sides(&self.base) != sides(&later.base) || !point.lies_in(&self.base) {
            return None;
        }
        // In samples of the largest picture.
        let (mut x, mut y) = (0.0, 0.0);
        let mut found = None;
        for (from, to, length) in self.levels(later) {
            // A picture that is smaller than the window says nothing.
            if from.width < window::SIDE || from.height < window::SIDE {
                continue;
            }
            let at = point.scaled(1.0 / length);
            // A level without texture leaves the shift as it is.
            let template = Template::of(from, at);
            found = template.map(|template| {
                let start = at.plus(x / length, y / length);
                let (reached, likeness) = converge(&template, to, start);
                (reached, likeness)
            });
            if let Some((reached, _)) = found {
                (x, y) = ((reached.x - at.x) * length, (reached.y - at.y) * length);
            }
        }
        let (reached, likeness) = found?;
        (likeness >= LIKENESS && reached.lies_in(&later.base)).then_some(reached)
    }
}

/// Moves a template over a picture until it lies well, and says how well.
fn converge(template: &Template, picture: &Grey, start: Point) -> (Point, f32) {
    let mut at = start;
    let mut patch = Found::of(picture, at);
    for _ in 0..STEPS {
        let (x, y) = template.step(&patch);
        let (x, y) = (x.clamp(-LONG, LONG), y.clamp(-LONG, LONG));
        at = at.plus(x, y);
        patch = Found::of(picture, at);
        if x * x + y * y < SHORT * SHORT {
            break;
        }
    }
    (at, template.likeness(&patch))
}

#[cfg(test)]
#[path = "flow/tests.rs"]
mod tests;
