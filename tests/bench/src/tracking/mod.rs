//! How good tracks are, against a ground truth: MOTA and identity switches (CLEAR MOT, Bernardin
//! and Stiefelhagen 2008), IDF1 (Ristani et al. 2016), HOTA (Luiten et al. 2021), each as TrackEval
//! defines it; F1 of the boxes alone; and the recall of what moves.
//!
//! A pair of boxes counts from an IoU of 0.5 on, in HOTA from each of its nineteen thresholds.
//!
//! A box without a track's number is not yet anybody's: F1 and the recall count it, the figures of
//! tracks leave it out, as a tracker's output is scored elsewhere.

mod clear;
mod comparison;
mod hota;
mod identity;
mod moving;
mod truth;

use serde::Serialize;

use comparison::Comparison;
pub use moving::{AGO, SHARE};
pub use truth::Truth;

/// A box of an object: of the truth, or found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Located {
    /// The object's number, the same in all frames. None: of an object without one.
    pub object: Option<u64>,
    /// Left edge, upper edge, width, height.
    pub area: [f64; 4],
}

impl Located {
    fn centre(&self) -> [f64; 2] {
        let [x, y, width, height] = self.area;
        [x + width / 2.0, y + height / 2.0]
    }

    /// Intersection over union.
    pub(crate) fn overlap(&self, other: &Self) -> f64 {
        let ([x, y, w, h], [a, b, c, d]) = (self.area, other.area);
        let wide = ((x + w).min(a + c) - x.max(a)).max(0.0);
        let high = ((y + h).min(b + d) - y.max(b)).max(0.0);
        let common = wide * high;
        if common > 0.0 { common / (w * h + c * d - common) } else { 0.0 }
    }
}

/// The boxes of each frame.
pub type BoxesByFrame = [Vec<Located>];

/// The figures of a sequence. All but the switches are at most 1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Scores {
    /// 1 less the share of misses, false boxes and switches in the truth's boxes.
    pub mota: f64,
    /// F1 of boxes that have the number that fits their object best in the whole sequence.
    pub idf1: f64,
    /// How often an object got another number.
    pub switches: usize,
    /// The mean over thresholds of how well boxes and their association fit.
    pub hota: f64,
    /// F1 of all boxes, numbers or not.
    pub f1: f64,
    /// The share found of the truth's boxes that move; not a number without one.
    pub moving_recall: f64,
}

/// Compares what was found with the truth, frame by frame, at `rate` frames a second.
#[must_use]
pub fn score(truth: &BoxesByFrame, found: &BoxesByFrame, rate: f64) -> Scores {
    let numbered = |frame: &Vec<Located>| -> Vec<Located> {
        frame.iter().copied().filter(|located| located.object.is_some()).collect()
    };
    let tracks: Vec<Vec<Located>> = found.iter().map(numbered).collect();
    let comparison = Comparison::new(truth, &tracks);
    let clear::Clear { mota, switches } = clear::clear(&comparison);
    let moving::Boxes { f1, moving_recall } = moving::boxes(truth, found, rate);
    let (idf1, hota) = (identity::idf1(&comparison), hota::hota(&comparison));
    Scores { mota, idf1, switches, hota, f1, moving_recall }
}

#[cfg(test)]
mod tests;
