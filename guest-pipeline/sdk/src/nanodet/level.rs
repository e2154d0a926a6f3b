//! One level of a detector's outputs, decoded to boxes.

use crate::geometry::BBox;
use crate::nms::{self, Candidate, Hit};

/// Bins of a side: distances of 0 to 10 strides.
pub const BINS: usize = 11;

/// Distances of a cell: left, top, right, bottom.
const SIDES: usize = 4;

/// Strides of the three output levels, in input pixels.
pub const STRIDES: [u32; 3] = [8, 16, 32];

/// The outputs of one level of a square input, one row for each cell, row by row over the picture.
#[derive(Debug, Clone, Copy)]
pub struct Level<'a> {
    stride: u32,
    columns: usize,
    classes: usize,
    scores: &'a [f32],
    sides: &'a [f32],
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
        let columns = size.checked_div(stride).unwrap_or(0) as usize;
        let cells = columns * columns;
        let expect = |what: &str, values: &[f32], width: usize| {
            if values.len() == cells * width {
                Ok(())
            } else {
                let (found, want) = (values.len(), format!("{cells} x {width}"));
                Err(format!(
                    "{what} of stride {stride} has {found} values, {size} input pixels give {want}"
                ))
            }
        };
        expect("class output", scores, classes)?;
        expect("box output", sides, SIDES * BINS)?;
        // A NaN or an infinity in a model's input reaches all of a level, so one value of each row
        // is enough.
        let finite = |values: &[f32], width: usize| {
            values.iter().step_by(width.max(1)).all(|v| v.is_finite())
        };
        if !finite(scores, classes) || !finite(sides, SIDES * BINS) {
            return Err(format!("the model's output of stride {stride} is not finite"));
        }
        Ok(Self { stride, columns, classes, scores, sides })
    }

    /// The cells whose best class scores `threshold` or more.
    #[must_use]
    pub fn hits(&self, threshold: f32) -> Vec<Hit> {
        nms::rows_at_least(self.scores, self.classes, threshold)
    }

    /// The candidate of one cell, its box in input pixels. `None` where score or box is not finite
    /// or the box has no area.
    ///
    /// A cell's centre is (column + 0.5, row + 0.5) x stride; the distance from it to a side is
    /// stride x the expected bin, sum over j of j x softmax(logits)_j.
    #[must_use]
    pub fn candidate(&self, hit: &Hit) -> Option<Candidate> {
        let logits = self.sides.chunks_exact(SIDES * BINS).nth(hit.row)?;
        let (sides, _) = logits.as_chunks::<BINS>();
        let [left, top, right, bottom] = sides else { return None };
        let stride = self.stride as f32;
        let x = (hit.row.checked_rem(self.columns)? as f32 + 0.5) * stride;
        let y = (hit.row.checked_div(self.columns)? as f32 + 0.5) * stride;
        let bbox = BBox {
            left: x - expected_bin(left) * stride,
            top: y - expected_bin(top) * stride,
            right: x + expected_bin(right) * stride,
            bottom: y + expected_bin(bottom) * stride,
        };
        (bbox.is_proper() && hit.score.is_finite()).then_some(Candidate {
            bbox,
            class: hit.class,
            score: hit.score,
        })
    }
}

/// The mean of 0 to 10 under the softmax of the logits.
fn expected_bin(logits: &[f32; BINS]) -> f32 {
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
