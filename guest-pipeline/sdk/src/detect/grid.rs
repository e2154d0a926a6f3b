//! Families with a row for each cell of each level, whose boxes are relative to the cell: YOLOX
//! (Ge et al., "YOLOX: Exceeding YOLO Series in 2021") and NanoDet.

use super::family::{BinnedLevels, GridTable};
use super::table::{OutputTable, about, candidate, scored_rows};
use crate::nanodet::{Columns, Level, LevelForm};
use crate::nms::Candidate;
use crate::nn::OutputSource;

/// Columns and rows of a level's cells.
fn cells((width, height): (u32, u32), stride: u32) -> (usize, usize) {
    let along = |side: u32| side.div_ceil(stride.max(1)) as usize;
    (along(width), along(height))
}

/// Rows of the table of a level before it, and of the level itself, for each level.
fn spans(size: (u32, u32), strides: &[u32]) -> Vec<(u32, std::ops::Range<usize>)> {
    let mut end = 0;
    let span = |&stride: &u32| {
        let (columns, rows) = cells(size, stride);
        let start = end;
        end += columns * rows;
        (stride, start..end)
    };
    strides.iter().map(span).collect()
}

/// An error unless the table has a row for each cell.
fn whole(table: OutputTable, size: (u32, u32), strides: &[u32]) -> Result<OutputTable, String> {
    let expected = spans(size, strides).last().map_or(0, |(_, span)| span.end);
    if table.rows == expected {
        return Ok(table);
    }
    let (rows, (width, height)) = (table.rows, size);
    Err(format!(
        "its output has {rows} rows; strides {strides:?} of {width} x {height} pixels give \
         {expected}"
    ))
}

/// [1, N, 5 + classes]: the middle from the cell's corner, and the logarithm of the size, both in
/// strides; objectness and scores.
pub(super) fn yolox(
    form: &GridTable,
    size: (u32, u32),
    outputs: &impl OutputSource,
    least_score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Result<Vec<Candidate>, String> {
    let classes = form.classes as usize;
    let table = OutputTable::read(outputs, &form.output)?.with_columns(5 + classes)?;
    let table = whole(table, size, &form.strides)?;
    let values = table.values();
    let spans = spans(size, &form.strides);
    let found = scored_rows(&values, table.columns, classes, least_score);
    Ok(found
        .filter_map(|(hit, row)| {
            let (stride, span) = spans.iter().find(|(_, span)| span.contains(&hit.row))?;
            let (columns, _) = cells(size, *stride);
            let cell = hit.row - span.start;
            let (column, line) = (cell.checked_rem(columns)?, cell.checked_div(columns)?);
            let &[x, y, width, height, ..] = row else { return None };
            let pixels = *stride as f32;
            let bbox = about(
                (x + column as f32) * pixels,
                (y + line as f32) * pixels,
                width.exp() * pixels,
                height.exp() * pixels,
            );
            candidate(bbox, hit.class, hit.score, wants)
        })
        .collect())
}

/// Scores, and logits of the distances to the sides.
pub(super) fn nanodet(
    form: &BinnedLevels,
    size: (u32, u32),
    outputs: &impl OutputSource,
    least_score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Result<Vec<Candidate>, String> {
    let (classes, bins) = (form.classes as usize, form.bins as usize);
    let level = |stride: u32| LevelForm { size, stride, classes, bins, point: form.point };
    let mut found = Vec::new();
    let mut add = |level: &Level<'_>| {
        let hits = level.hits(least_score).into_iter().filter(|hit| wants(hit.class));
        found.extend(hits.filter_map(|hit| level.candidate(&hit)));
    };
    if let Some(output) = &form.output {
        let table = OutputTable::read(outputs, output)?.with_columns(classes + 4 * bins)?;
        let table = whole(table, size, &form.strides)?;
        let values = table.values();
        for (stride, span) in spans(size, &form.strides) {
            let rows = values.get(span.start * table.columns..span.end * table.columns);
            let columns = Columns::all(rows.unwrap_or_default(), table.columns);
            let (scores, sides) = (columns.part(0, classes), columns.part(classes, 4 * bins));
            add(&Level::of(level(stride), scores, sides)?);
        }
        return Ok(found);
    }
    for ((&stride, scores), sides) in form.strides.iter().zip(&form.scores).zip(&form.sides) {
        let (scores, sides) = (outputs.floats(scores)?, outputs.floats(sides)?);
        let (scores, sides) = (scores.values(), sides.values());
        let scores = Columns::all(&scores, classes);
        add(&Level::of(level(stride), scores, Columns::all(&sides, 4 * bins))?);
    }
    Ok(found)
}
