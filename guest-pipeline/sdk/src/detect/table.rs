//! Families with one output that has a box and its scores in each row or column: YOLOv5, YOLOv8 and
//! YOLOv10, with their successors. Boxes are in input pixels.

use super::family::{FinishedTable, ScoredTable};
use crate::geometry::BBox;
use crate::nms::{self, Candidate, Hit};
use crate::nn::{Floats, OutputSource};

/// An output as a table: axes of size 1 before the last two say nothing.
pub(super) struct OutputTable {
    floats: Floats,
    name: String,
    pub(super) rows: usize,
    pub(super) columns: usize,
}

impl OutputTable {
    /// Reads an output of two axes; those before them have size 1.
    pub(super) fn read(outputs: &impl OutputSource, name: &str) -> Result<Self, String> {
        let floats = outputs.floats(name)?;
        let (rows, columns) = match floats.dimensions() {
            [before @ .., rows, columns] if before.iter().all(|&side| side == 1) => {
                (*rows as usize, *columns as usize)
            }
            other => return Err(format!("output {name} is {other:?}, which is no table")),
        };
        Ok(Self { floats, name: name.to_owned(), rows, columns })
    }

    /// Its numbers, row by row.
    pub(super) fn values(&self) -> std::borrow::Cow<'_, [f32]> {
        self.floats.values()
    }

    /// An error unless so many columns are there.
    pub(super) fn with_columns(self, least: usize) -> Result<Self, String> {
        let Self { name, rows, columns, .. } = &self;
        if *columns < least {
            return Err(format!(
                "output {name} is a table of {rows} x {columns}: at least {least} columns are \
                 expected"
            ));
        }
        Ok(self)
    }
}

/// A box by its middle and its size.
pub(super) fn about(x: f32, y: f32, width: f32, height: f32) -> BBox {
    BBox::from_xywh(x - width / 2.0, y - height / 2.0, width, height)
}

/// A candidate, unless a number is not finite, the box has no area, or the class is not wanted.
pub(super) fn candidate(
    bbox: BBox,
    class: u32,
    score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Option<Candidate> {
    (score.is_finite() && bbox.is_proper() && wants(class)).then_some(Candidate {
        bbox,
        class,
        score,
    })
}

/// The best class of each row with an objectness before its scores, and what both give together,
/// where that reaches `least_score`. `classes` scores follow the objectness, which is column 4.
pub(super) fn scored_rows(
    values: &[f32],
    columns: usize,
    classes: usize,
    least_score: f32,
) -> impl Iterator<Item = (Hit, &[f32])> {
    let rows = values.chunks_exact(columns.max(1)).enumerate();
    rows.filter_map(move |(number, row)| {
        // A score is at most 1, so most rows fall by their objectness alone.
        let objectness = *row.get(4)?;
        (objectness >= least_score).then_some(())?;
        let best = nms::best(number, row.get(5..5 + classes)?);
        let hit = Hit { score: best.score * objectness, ..best };
        (hit.score >= least_score).then_some((hit, row))
    })
}

/// [1, N, 5 + classes]: middle, size, objectness, scores.
pub(super) fn yolov5(
    form: &ScoredTable,
    outputs: &impl OutputSource,
    least_score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Result<Vec<Candidate>, String> {
    let classes = form.classes as usize;
    let table = OutputTable::read(outputs, &form.output)?.with_columns(5 + classes)?;
    let values = table.values();
    let found = scored_rows(&values, table.columns, classes, least_score);
    Ok(found
        .filter_map(|(hit, row)| {
            let &[x, y, width, height, ..] = row else { return None };
            candidate(about(x, y, width, height), hit.class, hit.score, wants)
        })
        .collect())
}

/// [1, 4 + classes, N]: a row for each of the middle, the size and the scores of all boxes.
pub(super) fn yolov8(
    form: &ScoredTable,
    outputs: &impl OutputSource,
    least_score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Result<Vec<Candidate>, String> {
    let table = OutputTable::read(outputs, &form.output)?;
    let (count, classes) = (table.columns, form.classes as usize);
    let values = table.values();
    let (boxes, scores) = values.split_at_checked(4 * count).unwrap_or_default();
    let scores = scores.get(..classes * count).ok_or_else(|| {
        format!(
            "output {} is a table of {} x {count}: at least {} rows are expected",
            form.output,
            table.rows,
            4 + classes
        )
    })?;
    let hits = nms::columns_at_least(scores, count, least_score);
    Ok(hits
        .into_iter()
        .filter_map(|hit| {
            let number = |place: usize| boxes.get(place * count + hit.row).copied();
            let bbox = about(number(0)?, number(1)?, number(2)?, number(3)?);
            candidate(bbox, hit.class, hit.score, wants)
        })
        .collect())
}

/// [1, N, 6]: edges, score and class.
pub(super) fn yolov10(
    form: &FinishedTable,
    outputs: &impl OutputSource,
    least_score: f32,
    wants: &impl Fn(u32) -> bool,
) -> Result<Vec<Candidate>, String> {
    let table = OutputTable::read(outputs, &form.output)?.with_columns(6)?;
    let values = table.values();
    let rows = values.chunks_exact(table.columns);
    Ok(rows
        .filter_map(|row| {
            let &[left, top, right, bottom, score, class, ..] = row else { return None };
            let bbox = BBox { left, top, right, bottom };
            // Rows without a detection are filled with zeros, or with a class of -1.
            (score >= least_score && class >= 0.0)
                .then(|| candidate(bbox, class as u32, score, wants))?
        })
        .collect())
}
