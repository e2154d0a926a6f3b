//! HOTA.

use ocelli_sdk::assign::assign;

use super::comparison::{Comparison, ROUNDING};

/// Thresholds of IoU: 0.05, 0.1 and so on to 0.95.
const THRESHOLDS: u8 = 19;
/// From one to the next.
const STEP: f64 = 0.05;

/// The mean over the thresholds of the root of detection times association accuracy. Boxes are
/// paired once for all thresholds, so that pairs are preferred that agree over the sequence.
// Every index is a number that the comparison has counted, or a row or column of its tables.
#[allow(clippy::indexing_slicing)]
pub(super) fn hota(comparison: &Comparison) -> f64 {
    let agreement = agreement(comparison);
    let pairs: Vec<(usize, usize, f64)> = comparison
        .frames
        .iter()
        .flat_map(|frame| {
            let gain =
                |r: usize, c: usize| agreement[frame.truth[r]][frame.found[c]] * frame.of(r, c);
            let pairs = assign(frame.truth.len(), frame.found.len(), gain);
            pairs.into_iter().map(|(r, c)| (frame.truth[r], frame.found[c], frame.of(r, c)))
        })
        .collect();
    let accuracies = (1..=THRESHOLDS).map(|n| accuracy(comparison, &pairs, STEP * f64::from(n)));
    accuracies.sum::<f64>() / f64::from(THRESHOLDS)
}

/// How well objects and numbers fit over the sequence, 0 to 1, before each is given one partner.
#[allow(clippy::indexing_slicing)]
fn agreement(comparison: &Comparison) -> Vec<Vec<f64>> {
    let mut together = comparison.table();
    for frame in &comparison.frames {
        let (rows, columns) = (0..frame.truth.len(), 0..frame.found.len());
        let of_row = |r| columns.clone().map(|c| frame.of(r, c)).sum::<f64>();
        let of_column = |c| rows.clone().map(|r| frame.of(r, c)).sum::<f64>();
        let by_column: Vec<f64> = columns.clone().map(of_column).collect();
        for r in rows.clone() {
            let row = of_row(r);
            for c in columns.clone() {
                let all = row + by_column[c] - frame.of(r, c);
                if all > ROUNDING {
                    together[frame.truth[r]][frame.found[c]] += frame.of(r, c) / all;
                }
            }
        }
    }
    for (row, boxes) in together.iter_mut().zip(&comparison.truth) {
        for (cell, others) in row.iter_mut().zip(&comparison.found) {
            *cell /= boxes + others - *cell;
        }
    }
    together
}

/// The accuracy at one threshold.
#[allow(clippy::indexing_slicing)]
fn accuracy(comparison: &Comparison, pairs: &[(usize, usize, f64)], least: f64) -> f64 {
    let mut matched = comparison.table();
    let mut hits = 0.0;
    for &(object, number, _) in pairs.iter().filter(|(.., overlap)| *overlap >= least - ROUNDING) {
        matched[object][number] += 1.0;
        hits += 1.0;
    }
    let boxes: f64 = comparison.truth.iter().chain(&comparison.found).sum();
    let detection = hits / (boxes - hits).max(1.0);
    let mut association = 0.0;
    for (row, boxes) in matched.iter().zip(&comparison.truth) {
        for (cell, others) in row.iter().zip(&comparison.found) {
            association += cell * cell / (boxes + others - cell).max(1.0);
        }
    }
    (detection * association / f64::max(hits, 1.0)).sqrt()
}
