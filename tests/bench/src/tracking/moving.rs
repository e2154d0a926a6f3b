//! Boxes alone: F1, and the recall of what moves.

use std::collections::BTreeMap;

use ocelli_sdk::assign::assign;

use super::comparison::{LEAST, overlaps};
use super::{BoxesByFrame, Located};

/// A box of the truth moves if its centre is at least this share of its height away from where it
/// was at any time within [`AGO`].
pub const SHARE: f64 = 0.1;
/// Seconds.
pub const AGO: f64 = 1.0;

pub(super) struct Boxes {
    pub f1: f64,
    pub moving_recall: f64,
}

/// In each frame boxes are paired so that the sum of IoU is the largest.
// Every index is a row or column of the two lists.
#[allow(clippy::indexing_slicing)]
pub(super) fn boxes(truth: &BoxesByFrame, found: &BoxesByFrame, rate: f64) -> Boxes {
    let (mut all, mut hits, mut moving, mut seen) = (0usize, 0usize, 0usize, 0usize);
    for ((truth, found), moves) in truth.iter().zip(found).zip(moving_boxes(truth, rate)) {
        let overlap = overlaps(truth, found);
        let gain = |row: usize, column: usize| {
            let overlap = overlap[row * found.len() + column];
            if overlap >= LEAST { overlap } else { 0.0 }
        };
        let pairs = assign(truth.len(), found.len(), gain);
        all += truth.len() + found.len();
        hits += pairs.len();
        moving += moves.iter().filter(|moves| **moves).count();
        seen += pairs.iter().filter(|(row, _)| moves[*row]).count();
    }
    let f1 = 2.0 * hits as f64 / all.max(1) as f64;
    Boxes { f1, moving_recall: seen as f64 / moving as f64 }
}

/// Which boxes of each frame move.
fn moving_boxes(truth: &BoxesByFrame, rate: f64) -> Vec<Vec<bool>> {
    let window = (AGO * rate).round().max(1.0) as usize;
    let mut places: BTreeMap<u64, Vec<(usize, [f64; 2])>> = BTreeMap::new();
    let mut moves = |number: usize, located: &Located| {
        let Some(object) = located.object else { return false };
        let here = located.centre();
        let [.., height] = located.area;
        let places = places.entry(object).or_default();
        places.retain(|(at, _)| at + window >= number);
        let far = |[x, y]: [f64; 2]| (x - here[0]).hypot(y - here[1]) >= SHARE * height;
        let moves = places.iter().any(|(_, place)| far(*place));
        places.push((number, here));
        moves
    };
    let frames = truth.iter().enumerate();
    frames.map(|(number, frame)| frame.iter().map(|box_| moves(number, box_)).collect()).collect()
}
