//! CLEAR MOT.

use ocelli_sdk::assign::assign;

use super::comparison::{Comparison, LEAST, ROUNDING};

/// What keeping a pair of the frame before is worth, in IoU: more than a frame's boxes together.
const KEEP: f64 = 1000.0;

pub(super) struct Clear {
    pub mota: f64,
    pub switches: usize,
}

/// A pair of the frame before is kept while its boxes overlap; a switch is counted against the last
/// number that an object had, however long ago. Frames in which truth or results have nothing leave
/// "the frame before" as it was, as in TrackEval.
// Every index is a number that the comparison has counted, or a row or column of its tables.
#[allow(clippy::indexing_slicing)]
pub(super) fn clear(comparison: &Comparison) -> Clear {
    let (mut hits, mut missed, mut wrong, mut switches) = (0usize, 0usize, 0usize, 0usize);
    let mut last: Vec<Option<usize>> = vec![None; comparison.truth.len()];
    let mut before = last.clone();
    for frame in &comparison.frames {
        if frame.truth.is_empty() || frame.found.is_empty() {
            (missed, wrong) = (missed + frame.truth.len(), wrong + frame.found.len());
            continue;
        }
        let gain = |row: usize, column: usize| {
            let overlap = frame.of(row, column);
            let kept = before[frame.truth[row]] == Some(frame.found[column]);
            match overlap < LEAST - ROUNDING {
                true => 0.0,
                false => overlap + if kept { KEEP } else { 0.0 },
            }
        };
        let pairs = assign(frame.truth.len(), frame.found.len(), gain);
        hits += pairs.len();
        missed += frame.truth.len() - pairs.len();
        wrong += frame.found.len() - pairs.len();
        before.fill(None);
        for (object, number) in pairs.iter().map(|&(r, c)| (frame.truth[r], frame.found[c])) {
            switches += usize::from(last[object].is_some_and(|last| last != number));
            (last[object], before[object]) = (Some(number), Some(number));
        }
    }
    let mota = (hits as f64 - wrong as f64 - switches as f64) / (hits + missed).max(1) as f64;
    Clear { mota, switches }
}
