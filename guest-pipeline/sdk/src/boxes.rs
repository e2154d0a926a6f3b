//! A detector's outputs looked through by the host: the rows stay on its side until they are asked for.
//!
//! This pays for outputs that are large and of which little is wanted. Where a Rust pipeline reads most of an output anyway,
//! [`nms`](crate::nms) does the same on its own copy and needs no call.
//!
//! ```no_run
//! use ocelli_sdk::nn::Outputs;
//! use ocelli_sdk::boxes;
//!
//! /// The four numbers of each of the hundred best rows.
//! fn best_boxes(outputs: &Outputs) -> Result<Vec<[f32; 4]>, String> {
//!     let hits = boxes::best(outputs.tensor("scores")?, 0.4, 100)?;
//!     let rows = hits.iter().map(|hit| hit.row);
//!     let numbers = boxes::rows(outputs.tensor("boxes")?, rows)?;
//!     Ok(numbers.as_chunks::<4>().0.to_vec())
//! }
//! ```

use crate::Tensor;
use crate::bindings::ocelli::pipeline::boxes as host;
use crate::nms::{Candidate, Hit};

/// The rows of a tensor [.., rows, classes] of f32 whose largest score is at least `threshold`, the best first; at most
/// `limit`. Leading dimensions have to be 1.
///
/// # Errors
/// A tensor of another type or shape.
pub fn best(scores: &Tensor, threshold: f32, limit: u32) -> Result<Vec<Hit>, String> {
    let found = host::best(scores, threshold, limit)?;
    Ok(found.iter().map(|c| Hit { row: c.row as usize, class: c.class, score: c.score }).collect())
}

/// These rows of a tensor [.., rows, columns] of f32, one behind the other.
///
/// # Errors
/// A tensor of another type or shape, a row that it does not have.
pub fn rows(values: &Tensor, rows: impl IntoIterator<Item = usize>) -> Result<Vec<f32>, String> {
    let number = |row: usize| u32::try_from(row).map_err(|_| format!("no tensor has a row {row}"));
    let rows: Vec<u32> = rows.into_iter().map(number).collect::<Result<_, _>>()?;
    host::rows(values, &rows)
}

/// Greedy non-maximum suppression within each class: the places in `candidates` of those that stand, the best first. A
/// candidate falls to a better one that overlaps it by more than `iou`.
///
/// # Errors
/// More than 10,000 candidates, a box or a score that is not finite.
pub fn suppress(candidates: &[Candidate], iou: f32) -> Result<Vec<usize>, String> {
    let scored = |c: &Candidate| host::ScoredBox { box_: c.bbox.into(), score: c.score, class: c.class };
    let boxes: Vec<_> = candidates.iter().map(scored).collect();
    Ok(host::suppress(&boxes, iou)?.into_iter().map(|place| place as usize).collect())
}
