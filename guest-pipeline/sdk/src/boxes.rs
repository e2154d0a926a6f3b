//! The host's search in a detector's outputs: the rows stay on its side until the pipeline asks for
//! them.
//!
//! This pays for large outputs of which the pipeline needs little. If a Rust pipeline reads
//! most of an output anyway, [`nms`](crate::nms) does the same on its own copy and needs no call.
//!
//! ```no_run
//! use ocelli_sdk::boxes::{self, Axes};
//! use ocelli_sdk::nn::Outputs;
//!
//! /// The hundred best rows of an output [1, 84, 8400]: a column for each box, with its four
//! /// numbers, then 80 scores.
//! fn best_rows(outputs: &Outputs) -> Result<Vec<Vec<f32>>, String> {
//!     let output = outputs.tensor("output0")?;
//!     let hits = boxes::best(output, Axes::ColumnsRows, Some(4..84), 0.4, 100)?;
//!     let numbers = boxes::rows(output, Axes::ColumnsRows, hits.iter().map(|hit| hit.row))?;
//!     Ok(numbers.chunks_exact(84).map(<[f32]>::to_vec).collect())
//! }
//! ```

use std::ops::Range;

use crate::Tensor;
#[cfg(target_family = "wasm")]
use crate::bindings::ocelli::pipeline::boxes as host;
#[cfg(not(target_family = "wasm"))]
use crate::native::boxes as host;
use crate::nms::{Candidate, Hit};

pub use host::Axes;

/// The rows of a table of f32 whose largest score is at least `threshold`, the best first; at most
/// `limit`. `classes` are the columns to look at, all unless said; a hit's class counts from the
/// first of them.
///
/// # Errors
/// A tensor that is no such table, columns that it does not have, a `limit` above 10,000.
pub fn best(
    table: &Tensor,
    axes: Axes,
    classes: Option<Range<u32>>,
    threshold: f32,
    limit: u32,
) -> Result<Vec<Hit>, String> {
    let classes =
        classes.map(|columns| host::Columns { first: columns.start, count: columns.len() as u32 });
    let found = host::best(table, axes, classes, threshold, limit)?;
    Ok(found.iter().map(|c| Hit { row: c.row as usize, class: c.class, score: c.score }).collect())
}

/// These rows of a table of f32, one behind the other.
///
/// # Errors
/// A tensor that is no such table, a row that it does not have, more than 10,000 rows or 1,048,576
/// numbers.
pub fn rows(
    table: &Tensor,
    axes: Axes,
    rows: impl IntoIterator<Item = usize>,
) -> Result<Vec<f32>, String> {
    let number = |row: usize| u32::try_from(row).map_err(|_| format!("no table has a row {row}"));
    let rows: Vec<u32> = rows.into_iter().map(number).collect::<Result<_, _>>()?;
    host::rows(table, axes, &rows)
}

/// Greedy non-maximum suppression within each class: the places in `candidates` of those that
/// stand, the best first. A candidate falls to a better one that overlaps it by more than `iou`;
/// one with a number that is not finite never stands.
///
/// # Errors
/// An `iou` that is not 0 to 1, more than 10,000 candidates.
pub fn suppress(candidates: &[Candidate], iou: f32) -> Result<Vec<usize>, String> {
    let scored =
        |c: &Candidate| host::ScoredBox { box_: c.bbox.into(), score: c.score, class: c.class };
    let boxes: Vec<_> = candidates.iter().map(scored).collect();
    Ok(host::suppress(&boxes, iou)?.into_iter().map(|place| place as usize).collect())
}
