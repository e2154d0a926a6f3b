//! `boxes`: looking through a detector's output, and non-maximum suppression. What a call may take
//! is bounded by numbers, because it keeps the thread until it is done: the longest measured call
//! took 0.46 s of CPU time.

use std::ops::Range;

use ocelli_protocol::inference::Element;
use wasmtime::component::{HasData, Resource, ResourceTable};

use super::HostResult;
use super::newest::boxes::{self as wit, Axes, Candidate, Columns, ScoredBox};
use super::tensor::Tensor;

/// Most boxes of one call, found, asked for or competing. Suppression takes time by their square:
/// 0.1 s for as many that all stand.
const MAX_BOXES: usize = 10_000;

/// Most numbers of a table that is looked through: twice those of a model with 1280 x 1280 pixels
/// and 85 columns.
const MAX_NUMBERS: usize = 1 << 24;

/// Most numbers that are given to a component at a time. They lie in the worker's memory on their
/// way.
const MAX_GIVEN: usize = 1 << 20;

/// Numbers of a row that are compared at once: two vectors of what every processor of this
/// architecture has.
const LANES: usize = 8;

/// Rows that are looked at together where their numbers lie apart: their largest values stay in the
/// first cache.
const BLOCK: usize = 1024;

/// The view of `boxes`: the only state that its functions reach.
pub(super) struct BoxesView<'a> {
    table: &'a ResourceTable,
}

impl<'a> BoxesView<'a> {
    pub(super) fn new(table: &'a ResourceTable) -> Self {
        Self { table }
    }
}

/// Links the functions of `boxes` to [`BoxesView`].
pub(super) struct Boxes;

impl HasData for Boxes {
    type Data<'a> = BoxesView<'a>;
}

impl wit::Host for BoxesView<'_> {
    fn best(
        &mut self,
        table: Resource<Tensor>,
        axes: Axes,
        classes: Option<Columns>,
        threshold: f32,
        limit: u32,
    ) -> HostResult<Vec<Candidate>, String> {
        let tensor = self.table.get(&table)?;
        Ok(ScoreTable::of(tensor, axes).and_then(|table| table.best(classes, threshold, limit)))
    }

    fn rows(
        &mut self,
        table: Resource<Tensor>,
        axes: Axes,
        rows: Vec<u32>,
    ) -> HostResult<Vec<f32>, String> {
        let tensor = self.table.get(&table)?;
        Ok(ScoreTable::of(tensor, axes).and_then(|table| table.rows(&rows)))
    }

    fn suppress(&mut self, boxes: Vec<ScoredBox>, iou: f32) -> HostResult<Vec<u32>, String> {
        Ok(suppress(&boxes, iou))
    }
}

/// A tensor's numbers as a table.
pub(super) struct ScoreTable<'a> {
    numbers: &'a [[u8; 4]],
    axes: Axes,
    rows: usize,
    columns: usize,
}

impl<'a> ScoreTable<'a> {
    pub(super) fn of(tensor: &'a Tensor, axes: Axes) -> Result<Self, String> {
        let (element, shape) = (tensor.element(), tensor.shape());
        let size = |side: u32| usize::try_from(side).unwrap_or(usize::MAX);
        match shape {
            [before @ .., last_but_one, last]
                if element == Element::F32 && before.iter().all(|&side| side == 1) =>
            {
                let (numbers, _) = tensor.bytes().as_chunks::<4>();
                let (rows, columns) = match axes {
                    Axes::RowsColumns => (size(*last_but_one), size(*last)),
                    Axes::ColumnsRows => (size(*last), size(*last_but_one)),
                };
                Ok(Self { numbers, axes, rows, columns })
            }
            _ => Err(format!(
                "a tensor {element:?} {shape:?}: a table is F32, and has two axes, and before \
                    them none but of size 1"
            )),
        }
    }

    /// See `best` in the WIT.
    pub(super) fn best(
        &self,
        classes: Option<Columns>,
        threshold: f32,
        limit: u32,
    ) -> Result<Vec<Candidate>, String> {
        let Self { rows, columns, .. } = *self;
        if threshold.is_nan() {
            return Err("the threshold is NaN".into());
        }
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        if limit > MAX_BOXES {
            return Err(format!("up to {limit} rows are asked for: at most {MAX_BOXES} are given"));
        }
        if self.numbers.len() > MAX_NUMBERS {
            return Err(format!(
                "a table of {rows} rows and {columns} columns: at most {MAX_NUMBERS} numbers are \
                    looked at"
            ));
        }
        let classes = match classes {
            None => 0..columns,
            Some(Columns { first, count }) => {
                let within = first.checked_add(count).map(|end| first as usize..end as usize);
                let within = within.filter(|classes| classes.end <= columns);
                let outside =
                    || format!("{count} columns from {first} on: a row of the table has {columns}");
                within.ok_or_else(outside)?
            }
        };
        let mut best = TopCandidates::new(threshold, limit);
        match self.axes {
            Axes::RowsColumns => self.scan_rows(classes, &mut best),
            Axes::ColumnsRows => self.scan_columns(&classes, &mut best),
        }
        Ok(best.finish())
    }

    /// Looks at one row after the other.
    fn scan_rows(&self, classes: Range<usize>, best: &mut TopCandidates) {
        // No row has a side of 0 where there are columns to look at.
        let rows = self.numbers.chunks_exact(self.columns.max(1));
        for (row, numbers) in (0..).zip(rows) {
            let numbers = numbers.get(classes.clone()).unwrap_or_default();
            let score = largest(numbers);
            // Few rows pass, so the class is searched for in those alone.
            if best.admits(score)
                && let Some(class) = numbers.iter().position(|&number| value(number) == score)
            {
                best.take(Candidate { row, class: class as u32, score });
            }
        }
    }

    /// Looks at the columns of so many rows at a time.
    fn scan_columns(&self, classes: &Range<usize>, best: &mut TopCandidates) {
        for start in (0..self.rows).step_by(BLOCK) {
            let mut found = [(f32::NAN, 0); BLOCK];
            let columns =
                self.numbers.chunks_exact(self.rows).take(classes.end).skip(classes.start);
            for (class, column) in (0u32..).zip(columns) {
                let numbers = column.get(start..).unwrap_or_default();
                for ((score, at), &number) in found.iter_mut().zip(numbers) {
                    let number = value(number);
                    let larger = is_larger(number, *score);
                    *score = if larger { number } else { *score };
                    *at = if larger { class } else { *at };
                }
            }
            let rows = start..self.rows;
            for (row, (score, class)) in rows.zip(found) {
                if best.admits(score) {
                    best.take(Candidate { row: row as u32, class, score });
                }
            }
        }
    }

    /// See `rows` in the WIT.
    pub(super) fn rows(&self, wanted: &[u32]) -> Result<Vec<f32>, String> {
        let Self { rows, columns, .. } = *self;
        let count = wanted.len();
        if count > MAX_BOXES || count.saturating_mul(columns) > MAX_GIVEN {
            return Err(format!(
                "{count} rows of {columns} numbers: at most {MAX_BOXES} rows and {MAX_GIVEN} \
                    numbers are given"
            ));
        }
        if let Some(row) = wanted.iter().find(|&&row| row as usize >= rows) {
            return Err(format!("row {row}: the table has {rows}, counted from 0"));
        }
        let mut given = Vec::with_capacity(count * columns);
        for &row in wanted {
            let row = row as usize;
            match self.axes {
                Axes::RowsColumns => {
                    let numbers = self.numbers.get(row * columns..(row + 1) * columns);
                    given.extend(numbers.unwrap_or_default().iter().map(|&number| value(number)));
                }
                Axes::ColumnsRows => {
                    let numbers = self.numbers.get(row..).unwrap_or_default().iter().step_by(rows);
                    given.extend(numbers.map(|&number| value(number)));
                }
            }
        }
        Ok(given)
    }
}

fn value(number: [u8; 4]) -> f32 {
    f32::from_le_bytes(number)
}

/// Whether a number takes the place of the largest so far, which is NaN where there was none yet.
/// NaN never does.
#[allow(clippy::neg_cmp_op_on_partial_ord, reason = "what is not larger than NaN is meant too")]
fn is_larger(number: f32, than: f32) -> bool {
    // Both comparisons are made of every number, without a branch: that is what the compiler makes
    // vectors of.
    !(than >= number) & !number.is_nan()
}

/// The largest of the numbers; NaN for an empty slice.
fn largest(numbers: &[[u8; 4]]) -> f32 {
    let (vectors, rest) = numbers.as_chunks::<LANES>();
    let mut lanes = [f32::NAN; LANES];
    for vector in vectors {
        for (largest, &number) in lanes.iter_mut().zip(vector) {
            let number = value(number);
            *largest = if is_larger(number, *largest) { number } else { *largest };
        }
    }
    let all = lanes.into_iter().chain(rest.iter().map(|&number| value(number)));
    all.fold(f32::NAN, |largest, number| if is_larger(number, largest) { number } else { largest })
}

/// The best rows so far. Rows come in their order.
struct TopCandidates {
    /// Up to twice as many as are wanted, in no order.
    found: Vec<Candidate>,
    limit: usize,
    threshold: f32,
    /// The score of the last that is wanted, as of when there were too many: an equal one that
    /// comes later is not.
    above: Option<f32>,
}

impl TopCandidates {
    fn new(threshold: f32, limit: usize) -> Self {
        Self { found: Vec::new(), limit, threshold, above: None }
    }

    fn admits(&self, score: f32) -> bool {
        score >= self.threshold && self.above.is_none_or(|above| score > above)
    }

    fn take(&mut self, candidate: Candidate) {
        self.found.push(candidate);
        // Time by the number of those taken alone: each cut takes as long as half of what it leaves
        // is.
        if self.found.len() >= self.limit.saturating_mul(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        if self.found.len() <= self.limit {
            return;
        }
        let Some(last) = self.limit.checked_sub(1) else { return self.found.clear() };
        let (_, last, _) = self.found.select_nth_unstable_by(last, in_order);
        self.above = Some(last.score);
        self.found.truncate(self.limit);
    }

    fn finish(mut self) -> Vec<Candidate> {
        self.cut();
        self.found.sort_unstable_by(in_order);
        self.found
    }
}

/// The larger score first, then the earlier row. No score is NaN.
fn in_order(a: &Candidate, b: &Candidate) -> std::cmp::Ordering {
    b.score.partial_cmp(&a.score).unwrap_or(std::cmp::Ordering::Equal).then(a.row.cmp(&b.row))
}

/// A box by its edges, with its area.
#[derive(Clone, Copy)]
struct Bounds {
    class: u32,
    left: f32,
    top: f32,
    right: f32,
    bottom: f32,
    area: f32,
}

impl Bounds {
    fn of(scored: &ScoredBox) -> Self {
        let area = &scored.box_;
        let (left, top, right, bottom) =
            (area.x, area.y, area.x + area.width, area.y + area.height);
        let area = (right - left).max(0.0) * (bottom - top).max(0.0);
        Self { class: scored.class, left, top, right, bottom, area }
    }

    /// Intersection over union: 0 for boxes that do not overlap, 1 for equal ones.
    fn iou(&self, other: &Self) -> f32 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        let shared = width.max(0.0) * height.max(0.0);
        if shared > 0.0 { shared / (self.area + other.area - shared) } else { 0.0 }
    }
}

/// See `suppress` in the WIT.
pub(super) fn suppress(boxes: &[ScoredBox], iou: f32) -> Result<Vec<u32>, String> {
    if boxes.len() > MAX_BOXES {
        return Err(format!("{} boxes: at most {MAX_BOXES} are taken", boxes.len()));
    }
    if !(0.0..=1.0).contains(&iou) {
        return Err(format!("an iou of {iou}: it lies within 0 to 1"));
    }
    let finite = |scored: &ScoredBox| {
        let ScoredBox { box_: area, score, .. } = scored;
        [*score, area.x, area.y, area.width, area.height].iter().all(|number| number.is_finite())
    };
    let mut order: Vec<_> = (0u32..).zip(boxes).filter(|(_, scored)| finite(scored)).collect();
    // A stable sort: of equal scores the earlier stays before the later.
    order.sort_by(|(_, a), (_, b)| {
        b.score.partial_cmp(&a.score).unwrap_or(std::cmp::Ordering::Equal)
    });
    let mut standing: Vec<Bounds> = Vec::new();
    let mut indices = Vec::new();
    for (index, scored) in order {
        let new = Bounds::of(scored);
        if !standing.iter().any(|other| other.class == new.class && other.iou(&new) > iou) {
            standing.push(new);
            indices.push(index);
        }
    }
    Ok(indices)
}
