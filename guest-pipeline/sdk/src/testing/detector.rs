//! What a detector says of a scene.

#![allow(
    clippy::indexing_slicing,
    reason = "a test is told by a panic what it got wrong; cells and bins are counted here"
)]

use super::{NamedTensor, floats};
use crate::geometry::BBox;
use crate::letterbox;
use crate::nanodet::{BINS, CLASSES, LEVELS, Variant};
use crate::nms::Candidate;

/// Logit of a bin that the side does not have: the rest of its softmax is below an f32.
const NOTHING: f32 = -60.0;

/// The outputs of a NanoDet model that sees these objects, boxes in frame pixels, in a frame of
/// `frame` pixels.
///
/// # Panics
/// A box that no cell of the model can say: with no area, outside the frame, larger than 20 of the
/// coarsest strides; more objects in one place than cells.
#[must_use]
pub fn nanodet_outputs(
    variant: Variant,
    frame: (u32, u32),
    objects: &[Candidate],
) -> Vec<NamedTensor> {
    let placement = letterbox::place(frame.0, frame.1, variant.size, variant.size);
    let mut levels = LEVELS.map(|names| Cells::new(variant.size, names.stride));
    for object in objects {
        let bbox = placement.map(|placement| placement.box_to_tensor(&object.bbox));
        let bbox = bbox.filter(BBox::is_proper);
        let said = bbox.is_some_and(|bbox| {
            levels.iter_mut().any(|level| level.say(&bbox, object.class as usize, object.score))
        });
        assert!(said, "no cell can say {object:?}");
    }
    let outputs = LEVELS.iter().zip(levels).flat_map(|(names, level)| {
        let cells = (level.columns * level.columns) as u32;
        let (classes, bins) = (CLASSES as u32, 4 * BINS as u32);
        [
            floats(names.scores, &[1, cells, classes], &level.scores),
            floats(names.sides, &[1, cells, bins], &level.sides),
        ]
    });
    outputs.collect()
}

/// The outputs of one level.
struct Cells {
    stride: f32,
    columns: usize,
    taken: Vec<bool>,
    scores: Vec<f32>,
    sides: Vec<f32>,
}

impl Cells {
    fn new(size: u32, stride: u32) -> Self {
        let columns = (size / stride) as usize;
        let count = columns * columns;
        Self {
            stride: stride as f32,
            columns,
            taken: vec![false; count],
            scores: vec![0.0; count * CLASSES],
            sides: vec![NOTHING; count * 4 * BINS],
        }
    }

    /// Has the free cell nearest to the box's middle say it, if one can.
    fn say(&mut self, bbox: &BBox, class: usize, score: f32) -> bool {
        let middle = ((bbox.left + bbox.right) / 2.0, (bbox.top + bbox.bottom) / 2.0);
        let centre = |cell: usize| {
            let along = |n: usize| (n as f32 + 0.5) * self.stride;
            (along(cell % self.columns), along(cell / self.columns))
        };
        let distances = |cell: usize| {
            let (x, y) = centre(cell);
            [x - bbox.left, y - bbox.top, bbox.right - x, bbox.bottom - y]
                .map(|distance| distance / self.stride)
        };
        let most = (BINS - 1) as f32;
        let can = |cell: &usize| {
            let distances = distances(*cell);
            !self.taken[*cell] && distances.iter().all(|side| (0.0..=most).contains(side))
        };
        let away = |cell: &usize| {
            let (x, y) = centre(*cell);
            (x - middle.0).hypot(y - middle.1)
        };
        let cells = (0..self.taken.len()).filter(can);
        let nearest = cells.min_by(|one, other| away(one).total_cmp(&away(other)));
        let Some(cell) = nearest else { return false };
        for (side, distance) in distances(cell).into_iter().enumerate() {
            // The softmax of the logarithms of two shares are the shares.
            let bins = &mut self.sides[(cell * 4 + side) * BINS..][..BINS];
            let lower = (distance.floor() as usize).min(BINS - 2);
            let share = distance - lower as f32;
            bins[lower] = (1.0 - share).ln().max(NOTHING);
            bins[lower + 1] = share.ln().max(NOTHING);
        }
        self.taken[cell] = true;
        self.scores[cell * CLASSES + class] = score;
        true
    }
}
