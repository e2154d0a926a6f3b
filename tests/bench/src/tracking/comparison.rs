//! Two sequences side by side: which numbers are in each frame, and how their boxes overlap.

use std::collections::BTreeMap;

use super::{BoxesByFrame, Located};

/// IoU from which two boxes are a pair.
pub(super) const LEAST: f64 = 0.5;

/// What rounding may take from a threshold.
pub(super) const ROUNDING: f64 = f64::EPSILON;

/// The truth and what was found. Numbers are counted from 0 without gaps.
pub(super) struct Comparison {
    pub frames: Vec<Overlaps>,
    /// Boxes of each object of the truth.
    pub truth: Vec<f64>,
    /// Boxes of each number that was found.
    pub found: Vec<f64>,
}

/// One frame.
pub(super) struct Overlaps {
    /// The object of each box of the truth.
    pub truth: Vec<usize>,
    /// The number of each box that was found.
    pub found: Vec<usize>,
    /// IoU: a row for each box of the truth.
    overlap: Vec<f64>,
}

impl Overlaps {
    /// IoU of a box of the truth with one that was found.
    // Rows and columns are those of the two lists that the table was made of.
    #[allow(clippy::indexing_slicing)]
    pub(super) fn of(&self, row: usize, column: usize) -> f64 {
        self.overlap[row * self.found.len() + column]
    }
}

impl Comparison {
    /// Boxes without a number are not looked at.
    pub(super) fn new(truth: &BoxesByFrame, found: &BoxesByFrame) -> Self {
        let (mut objects, mut numbers) = (Counts::default(), Counts::default());
        let pairs = truth.iter().zip(found).map(|(truth, found)| Overlaps {
            truth: objects.count(truth),
            found: numbers.count(found),
            overlap: overlaps(truth, found),
        });
        Self { frames: pairs.collect(), truth: objects.boxes, found: numbers.boxes }
    }

    /// A table with a row for each object and a column for each number that was found.
    pub(super) fn table(&self) -> Vec<Vec<f64>> {
        vec![vec![0.0; self.found.len()]; self.truth.len()]
    }
}

/// IoU of each box of the truth with each that was found, row by row.
pub(super) fn overlaps(truth: &[Located], found: &[Located]) -> Vec<f64> {
    truth.iter().flat_map(|one| found.iter().map(|other| one.overlap(other))).collect()
}

/// Numbers in order of their first sight, with how many boxes each has.
#[derive(Default)]
struct Counts {
    place: BTreeMap<u64, usize>,
    boxes: Vec<f64>,
}

impl Counts {
    fn count(&mut self, frame: &[Located]) -> Vec<usize> {
        let mut places = Vec::new();
        for number in frame.iter().filter_map(|located| located.object) {
            let next = self.boxes.len();
            let place = *self.place.entry(number).or_insert(next);
            match self.boxes.get_mut(place) {
                Some(boxes) => *boxes += 1.0,
                None => self.boxes.push(1.0),
            }
            places.push(place);
        }
        places
    }
}
