//! IDF1.

use ocelli_sdk::assign::assign;

use super::comparison::{Comparison, LEAST};

/// Each object is given at most one number, and each number one object, for the whole sequence, so
/// that as many boxes as can be are right.
// Every index is a number that the comparison has counted.
#[allow(clippy::indexing_slicing)]
pub(super) fn idf1(comparison: &Comparison) -> f64 {
    let mut together = comparison.table();
    for frame in &comparison.frames {
        for (row, &object) in frame.truth.iter().enumerate() {
            for (column, &number) in frame.found.iter().enumerate() {
                together[object][number] += f64::from(u8::from(frame.of(row, column) >= LEAST));
            }
        }
    }
    let pairs = assign(comparison.truth.len(), comparison.found.len(), |r, c| together[r][c]);
    let right: f64 = pairs.into_iter().map(|(object, number)| together[object][number]).sum();
    let boxes: f64 = comparison.truth.iter().chain(&comparison.found).sum();
    right / (boxes / 2.0).max(1.0)
}
