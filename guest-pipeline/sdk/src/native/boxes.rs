//! `ocelli:pipeline/boxes`.

use crate::bindings::ocelli::pipeline::boxes as wit;
use crate::nms;
use crate::nn::Floats;

pub use wit::{Axes, Candidate, Columns, ScoredBox};

use super::tensor::{Tensor, TensorType};

/// Rows, hits and boxes of a call, as with the host.
const MAX_ROWS: usize = 10_000;

/// A table, row by row.
struct Table {
    rows: usize,
    columns: usize,
    values: Vec<f32>,
}

impl Table {
    fn read(tensor: &Tensor, axes: Axes) -> Result<Self, String> {
        let dimensions = tensor.dimensions();
        let refuse = |what: &str| format!("a tensor {dimensions:?} {what}");
        if tensor.ty() != TensorType::Fp32 {
            return Err(refuse("is not of f32"));
        }
        let (before, &[first, second]) =
            dimensions.split_last_chunk().ok_or_else(|| refuse("is no table"))?;
        if before.iter().any(|&side| side != 1) {
            return Err(refuse("is no table"));
        }
        let floats = Floats::new(dimensions.clone(), tensor.data())?;
        let values = floats.values();
        let (first, second) = (first as usize, second as usize);
        Ok(match axes {
            Axes::RowsColumns => Self { rows: first, columns: second, values: values.to_vec() },
            Axes::ColumnsRows => {
                let row = |row: usize| values.iter().skip(row).step_by(second.max(1)).copied();
                let values = (0..second).flat_map(row).collect();
                Self { rows: second, columns: first, values }
            }
        })
    }

    fn row(&self, row: usize) -> Option<&[f32]> {
        (row < self.rows).then(|| self.values.get(row * self.columns..(row + 1) * self.columns))?
    }
}

/// See the contract.
///
/// # Errors
/// As with the host.
pub fn best(
    table: &Tensor,
    axes: Axes,
    classes: Option<Columns>,
    threshold: f32,
    limit: u32,
) -> Result<Vec<Candidate>, String> {
    if threshold.is_nan() || limit as usize > MAX_ROWS {
        return Err(format!("threshold {threshold}, limit {limit}: at most {MAX_ROWS} rows"));
    }
    let table = Table::read(table, axes)?;
    let (first, count) = classes
        .map_or((0, table.columns), |columns| (columns.first as usize, columns.count as usize));
    if count == 0 || first + count > table.columns {
        return Err(format!("no columns {first} to {}", first + count));
    }
    let mut found = Vec::new();
    for row in 0..table.rows {
        let scores = table.row(row).and_then(|row| row.get(first..first + count));
        let hit = nms::rows_at_least(scores.unwrap_or_default(), count, threshold);
        let row = u32::try_from(row).map_err(|error| error.to_string())?;
        found.extend(hit.first().map(|h| Candidate { row, class: h.class, score: h.score }));
    }
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    found.truncate(limit as usize);
    Ok(found)
}

/// See the contract.
///
/// # Errors
/// As with the host.
pub fn rows(table: &Tensor, axes: Axes, rows: &[u32]) -> Result<Vec<f32>, String> {
    if rows.len() > MAX_ROWS {
        return Err(format!("{} rows are more than {MAX_ROWS}", rows.len()));
    }
    let table = Table::read(table, axes)?;
    let mut values = Vec::new();
    for &row in rows {
        let no_row = || format!("no row {row} of {}", table.rows);
        values.extend(table.row(row as usize).ok_or_else(no_row)?);
    }
    Ok(values)
}

/// See the contract.
///
/// # Errors
/// As with the host.
pub fn suppress(boxes: &[ScoredBox], iou: f32) -> Result<Vec<u32>, String> {
    if !(0.0..=1.0).contains(&iou) || boxes.len() > MAX_ROWS {
        return Err(format!("{} boxes at IoU {iou}: at most {MAX_ROWS}, 0 to 1", boxes.len()));
    }
    let candidate =
        |b: &ScoredBox| nms::Candidate { bbox: b.box_.into(), class: b.class, score: b.score };
    let numbered = (0u32..).zip(boxes.iter().map(candidate));
    let finite = |(_, c): &(u32, nms::Candidate)| c.score.is_finite() && c.bbox.is_proper();
    let standing = nms::suppress_by(numbered.filter(finite).collect(), iou, |(_, c)| *c);
    Ok(standing.into_iter().map(|(place, _)| place).collect())
}
