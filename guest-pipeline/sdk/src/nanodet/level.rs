//! One level of a detector's outputs, decoded to boxes.

use crate::geometry::BBox;
use crate::nms::{self, Candidate, Hit};

/// Bins of a side: distances of 0 to 10 strides.
pub const BINS: usize = 11;

/// Distances of a cell: left, top, right, bottom.
const SIDES: usize = 4;

/// Strides of the three output levels, in input pixels.
pub const STRIDES: [u32; 3] = [8, 16, 32];

/// Neighbouring columns of a table in row-major order.
#[derive(Debug, Clone, Copy)]
pub struct Columns<'a> {
    values: &'a [f32],
    width: usize,
    first: usize,
    count: usize,
}

impl<'a> Columns<'a> {
    /// All columns of a table whose rows have `width` numbers.
    #[must_use]
    pub fn all(values: &'a [f32], width: usize) -> Self {
        Self { values, width, first: 0, count: width }
    }

    /// Some of these columns.
    #[must_use]
    pub fn part(self, first: usize, count: usize) -> Self {
        Self { first: self.first + first, count, ..self }
    }

    /// The columns of each row.
    fn rows(self) -> impl Iterator<Item = &'a [f32]> {
        let rows = self.values.chunks_exact(self.width.max(1));
        rows.map(move |row| row.get(self.first..self.first + self.count).unwrap_or_default())
    }

    /// The columns of one row.
    fn row(self, number: usize) -> Option<&'a [f32]> {
        let first = number.checked_mul(self.width)?.checked_add(self.first)?;
        self.values.get(first..first.checked_add(self.count)?)
    }
}

/// What a level's outputs look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LevelForm {
    /// Width and height of the model's input in pixels.
    pub size: (u32, u32),
    /// Input pixels from cell to cell.
    pub stride: u32,
    /// Class scores of a cell.
    pub classes: usize,
    /// Bins of a side: distances of 0 to `bins` - 1 strides.
    pub bins: usize,
    /// Where in a cell its point lies, in strides: 0.5, and 0 for NanoDet-Plus.
    pub point: f32,
}

/// The outputs of one level, one row for each cell, row by row over the picture.
#[derive(Debug, Clone, Copy)]
pub struct Level<'a> {
    form: LevelForm,
    columns: usize,
    scores: Columns<'a>,
    sides: Columns<'a>,
}

impl<'a> Level<'a> {
    /// The level of `stride` of a model with a square input of `size` pixels. `scores` is [n,
    /// classes] after the sigmoid, `sides` is [n, 44] logits, n = (size / stride)^2.
    ///
    /// # Errors
    /// Outputs whose lengths do not fit the size; outputs that are not numbers.
    pub fn new(
        size: u32,
        stride: u32,
        classes: usize,
        scores: &'a [f32],
        sides: &'a [f32],
    ) -> Result<Self, String> {
        let form = LevelForm { size: (size, size), stride, classes, bins: BINS, point: 0.5 };
        Self::of(form, Columns::all(scores, classes), Columns::all(sides, SIDES * BINS))
    }

    /// A level of any form: `scores` after the sigmoid, and `sides`, logits of the bins of the
    /// left, top, right and bottom side.
    ///
    /// # Errors
    /// As of [`Level::new`].
    pub fn of(form: LevelForm, scores: Columns<'a>, sides: Columns<'a>) -> Result<Self, String> {
        let LevelForm { size: (width, height), stride, .. } = form;
        let along = |side: u32| if stride == 0 { 0 } else { side.div_ceil(stride) as usize };
        let columns = along(width);
        let cells = columns * along(height);
        for (what, part) in [("class output", scores), ("box output", sides)] {
            let Columns { values, width: wide, .. } = part;
            if values.len() != cells * wide || cells == 0 {
                return Err(format!(
                    "{what} of stride {stride} has {} values, {width} x {height} input pixels \
                     give {cells} x {wide}",
                    values.len()
                ));
            }
            // A NaN or an infinity in a model's input reaches all of a level, so one value of each
            // row is enough.
            if !part.rows().all(|row| row.first().is_none_or(|value| value.is_finite())) {
                return Err(format!("the model's output of stride {stride} is not finite"));
            }
        }
        Ok(Self { form, columns, scores, sides })
    }

    /// The cells whose best class scores `threshold` or more.
    #[must_use]
    pub fn hits(&self, threshold: f32) -> Vec<Hit> {
        nms::hits(self.scores.rows(), threshold)
    }

    /// The candidate of one cell, its box in input pixels. `None` where score or box is not finite
    /// or the box has no area.
    ///
    /// A cell's point is (column + point, row + point) x stride, its centre unless the form says
    /// otherwise; the distance from it to a side is stride x the expected bin, sum over j of
    /// j x softmax(logits)_j.
    #[must_use]
    pub fn candidate(&self, hit: &Hit) -> Option<Candidate> {
        let mut sides = self.sides.row(hit.row)?.chunks_exact(self.form.bins.max(1));
        let stride = self.form.stride as f32;
        let mut distance = || Some(expected_bin(sides.next()?) * stride);
        let (left, top, right, bottom) = (distance()?, distance()?, distance()?, distance()?);
        let at = |cell: usize| (cell as f32 + self.form.point) * stride;
        let x = at(hit.row.checked_rem(self.columns)?);
        let y = at(hit.row.checked_div(self.columns)?);
        let bbox = BBox { left: x - left, top: y - top, right: x + right, bottom: y + bottom };
        (bbox.is_proper() && hit.score.is_finite()).then_some(Candidate {
            bbox,
            class: hit.class,
            score: hit.score,
        })
    }
}

/// The mean of the bins' numbers, from 0 on, under the softmax of the logits.
fn expected_bin(logits: &[f32]) -> f32 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let (mut sum, mut weighted) = (0.0, 0.0);
    for (bin, logit) in logits.iter().enumerate() {
        let weight = (logit - largest).exp();
        sum += weight;
        weighted += weight * bin as f32;
    }
    weighted / sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Logits that put all weight on one bin.
    fn peak(bin: usize) -> [f32; BINS] {
        std::array::from_fn(|j| if j == bin { 40.0 } else { -40.0 })
    }

    fn row(sides: [[f32; BINS]; SIDES]) -> Vec<f32> {
        sides.concat()
    }

    #[test]
    fn a_cell_gives_the_box_worked_out_by_hand() {
        // A 2 x 2 level of stride 8 with two classes; cell 3 lies in column 1, row 1: centre (12,
        // 12).
        let scores = [0.0, 0.1, 0.0, 0.1, 0.2, 0.1, 0.3, 0.9];
        let mut sides = vec![0.0; 3 * SIDES * BINS];
        // Left 1, top 0, right 2; bottom: bins 0 and 10 with equal weight, so 5.
        let two = std::array::from_fn(|j| if j == 0 || j == 10 { 30.0 } else { -60.0 });
        sides.extend(row([peak(1), peak(0), peak(2), two]));
        let level = Level::new(16, 8, 2, &scores, &sides).unwrap();
        let hits = level.hits(0.5);
        assert_eq!(hits, [Hit { row: 3, class: 1, score: 0.9 }]);
        let found = level.candidate(&hits[0]).unwrap();
        assert_eq!((found.class, found.score), (1, 0.9));
        let BBox { left, top, right, bottom } = found.bbox;
        for (got, want) in
            [(left, 12.0 - 8.0), (top, 12.0), (right, 12.0 + 16.0), (bottom, 12.0 + 40.0)]
        {
            assert!((got - want).abs() < 1e-4, "{got} for {want}");
        }
    }

    #[test]
    fn equal_logits_mean_the_middle_bin() {
        assert!((expected_bin(&[3.5; BINS]) - 5.0).abs() < 1e-6);
        // Weights 1 and e on bins 0 and 1 by logits 0 and 1, the rest far below.
        let mut logits = [-100.0; BINS];
        (logits[0], logits[1]) = (0.0, 1.0);
        let e = std::f32::consts::E;
        assert!((expected_bin(&logits) - e / (1.0 + e)).abs() < 1e-6);
    }

    #[test]
    fn outputs_of_another_size_are_refused_with_both_sizes() {
        let error = Level::new(16, 8, 2, &[0.0; 7], &[0.0; 176]).unwrap_err();
        assert!(error.contains("stride 8 has 7 values") && error.contains("4 x 2"), "{error}");
        assert!(Level::new(16, 8, 2, &[0.0; 8], &[0.0; 175]).is_err());
        assert!(Level::new(16, 0, 2, &[0.0; 8], &[0.0; 176]).is_err());
    }

    #[test]
    fn an_output_that_is_not_finite_is_an_error() {
        let error = Level::new(8, 8, 2, &[f32::NAN; 2], &[0.0; 44]).unwrap_err();
        assert!(error.contains("not finite"), "{error}");
        let one_bad: Vec<f32> = (0..44).map(|i| if i == 20 { f32::NAN } else { 0.0 }).collect();
        let level = Level::new(8, 8, 2, &[0.9, 0.1], &one_bad).unwrap();
        assert_eq!(level.candidate(&level.hits(0.5)[0]), None);
    }

    #[test]
    fn a_box_without_area_is_no_candidate() {
        let sides = row([peak(0), peak(1), peak(0), peak(1)]);
        let level = Level::new(8, 8, 1, &[0.9], &sides).unwrap();
        assert_eq!(level.candidate(&level.hits(0.5)[0]), None);
    }
}
