//! From a detector's class scores to the boxes that stand: score filter and non-maximum
//! suppression.

use crate::geometry::BBox;
use crate::lanes::{self, Lanes};

/// A row of a score table whose best class passed the score filter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Hit {
    /// Number of the row, from 0.
    pub row: usize,
    /// Number of the best class, from 0; the first of equals.
    pub class: u32,
    /// The best class's score.
    pub score: f32,
}

/// A box with its best class.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// In whatever pixels the caller works in.
    pub bbox: BBox,
    /// Number of the class, from 0.
    pub class: u32,
    /// 0 to 1.
    pub score: f32,
}

/// The rows of `scores`, a table [rows, `classes`] in row-major order, whose best class scores
/// `threshold` or more, in order of the rows. NaN counts as no score. Numbers after the last whole
/// row are not looked at.
#[must_use]
pub fn rows_at_least(scores: &[f32], classes: usize, threshold: f32) -> Vec<Hit> {
    rows_with::<lanes::Native>(scores, classes, threshold)
}

/// As [`rows_at_least`].
fn rows_with<L: Lanes>(scores: &[f32], classes: usize, threshold: f32) -> Vec<Hit> {
    if classes == 0 {
        return Vec::new();
    }
    hits_with::<L>(scores.chunks_exact(classes), threshold)
}

/// The rows whose best class scores `threshold` or more, in their order.
pub(crate) fn hits<'a>(rows: impl Iterator<Item = &'a [f32]>, threshold: f32) -> Vec<Hit> {
    hits_with::<lanes::Native>(rows, threshold)
}

/// Few rows pass, so all get the quick test and only those that pass are searched for the class.
fn hits_with<'a, L: Lanes>(rows: impl Iterator<Item = &'a [f32]>, threshold: f32) -> Vec<Hit> {
    let rows = rows.enumerate();
    let passing = rows.filter(|(_, scores)| lanes::any_at_least::<L>(scores, threshold));
    passing.map(|(row, scores)| best(row, scores)).collect()
}

/// The same of a table that lies the other way, [classes, `rows`]: the scores of the first class,
/// then those of the second. Numbers after the last whole class are not looked at.
#[must_use]
pub fn columns_at_least(scores: &[f32], rows: usize, threshold: f32) -> Vec<Hit> {
    columns_with::<lanes::Native>(scores, rows, threshold)
}

/// As [`columns_at_least`]: the largest score of each row first, then the class of those that pass.
fn columns_with<L: Lanes>(scores: &[f32], rows: usize, threshold: f32) -> Vec<Hit> {
    if rows == 0 {
        return Vec::new();
    }
    let mut largest = vec![f32::NEG_INFINITY; rows];
    scores.chunks_exact(rows).for_each(|class| lanes::raise::<L>(&mut largest, class));
    let passing = largest.into_iter().enumerate().filter(|(_, score)| *score >= threshold);
    let class = |row: usize, score: f32| {
        let classes = scores.chunks_exact(rows);
        (0u32..).zip(classes).find(|(_, scores)| scores.get(row) == Some(&score))
    };
    let hit = |(row, score)| Some(Hit { row, class: class(row, score)?.0, score });
    passing.filter_map(hit).collect()
}

/// The best class of a row; of no scores, one that no threshold lets pass.
pub(crate) fn best(row: usize, scores: &[f32]) -> Hit {
    let start = Hit { row, class: 0, score: f32::NEG_INFINITY };
    (0u32..).zip(scores).fold(start, |best, (class, &score)| {
        if score > best.score { Hit { row, class, score } } else { best }
    })
}

/// Most candidates that non-maximum suppression looks at, best first. Its time grows with their
/// square; 1,000 is what NanoDet's own evaluation keeps (`nms_pre`) and costs about a millisecond.
pub const MAX_CANDIDATES: usize = 1000;

/// Greedy non-maximum suppression within each class, best score first.
///
/// A candidate stands when no better one of its class that stands overlaps it by more than `iou`.
/// Of equal scores the earlier candidate counts as the better. At most [`MAX_CANDIDATES`] are
/// looked at, those with the best scores.
///
/// A candidate can only fall to a better one: leaving out all below some score, before or after,
/// gives the same of the rest.
#[must_use]
pub fn suppress(candidates: Vec<Candidate>, iou: f32) -> Vec<Candidate> {
    suppress_by(candidates, iou, |candidate| *candidate)
}

/// As [`suppress`], for whatever `candidate` makes a candidate of: a face with its landmarks, say.
#[must_use]
pub fn suppress_by<T>(mut items: Vec<T>, iou: f32, candidate: impl Fn(&T) -> Candidate) -> Vec<T> {
    items.sort_by(|a, b| candidate(b).score.total_cmp(&candidate(a).score));
    items.truncate(MAX_CANDIDATES);
    let mut kept: Vec<T> = Vec::new();
    for item in items {
        let new = candidate(&item);
        let falls = kept
            .iter()
            .map(&candidate)
            .any(|k| k.class == new.class && k.bbox.iou(&new.bbox) > iou);
        if !falls {
            kept.push(item);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What [`rows_at_least`] promises, stated without lanes.
    fn restated(scores: &[f32], classes: usize, threshold: f32) -> Vec<Hit> {
        let mut hits = Vec::new();
        for (row, values) in scores.chunks_exact(classes).enumerate() {
            let mut found: Option<Hit> = None;
            for (class, &score) in values.iter().enumerate() {
                if score >= threshold && found.is_none_or(|f| score > f.score) {
                    found = Some(Hit { row, class: class as u32, score });
                }
            }
            hits.extend(found);
        }
        hits
    }

    fn any_score() -> impl Strategy<Value = f32> {
        prop_oneof![
            20 => 0f32..1.0,
            1 => Just(f32::NAN),
            1 => Just(f32::INFINITY),
            1 => Just(f32::NEG_INFINITY),
            1 => Just(-0.0f32),
            1 => Just(0.5f32),
        ]
    }

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0f32..50.0, 0f32..50.0, 1f32..30.0, 1f32..30.0, 0u32..3, 0f32..1.0);
        let one = one.prop_map(|(x, y, w, h, class, score)| Candidate {
            bbox: BBox::from_xywh(x, y, w, h),
            class,
            score,
        });
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        #[test]
        fn lanes_find_what_a_plain_search_finds(
            scores in prop::collection::vec(any_score(), 0..700),
            classes in 1usize..90,
            threshold in prop_oneof![0.01f32..1.0, Just(0.5f32)],
        ) {
            prop_assert_eq!(rows_with::<[f32; 4]>(&scores, classes, threshold), restated(&scores, classes, threshold));
        }

        #[test]
        fn a_table_that_lies_the_other_way_gives_the_same(
            scores in prop::collection::vec(any_score(), 0..700),
            classes in 1usize..90,
            threshold in prop_oneof![0.01f32..1.0, Just(0.5f32)],
        ) {
            let rows = scores.len() / classes;
            let place = |at: usize| scores[at % rows * classes + at / rows];
            let turned: Vec<f32> = (0..rows * classes).map(place).collect();
            let expected = restated(&scores, classes, threshold);
            prop_assert_eq!(columns_with::<[f32; 4]>(&turned, rows, threshold), expected);
        }

        #[test]
        fn what_stands_does_not_overlap_within_its_class(input in candidates(), iou in 0.1f32..0.9) {
            let kept = suppress(input.clone(), iou);
            for (i, a) in kept.iter().enumerate() {
                for b in &kept[..i] {
                    prop_assert!(a.class != b.class || a.bbox.iou(&b.bbox) <= iou);
                    prop_assert!(a.score <= b.score, "best first");
                }
            }
            for fallen in input.iter().filter(|c| !kept.contains(c)) {
                prop_assert!(
                    kept.iter().any(|k| k.class == fallen.class
                        && k.score >= fallen.score
                        && k.bbox.iou(&fallen.bbox) > iou),
                    "nothing falls without a better one over it"
                );
            }
        }

        #[test]
        fn a_lower_threshold_changes_nothing_above_the_higher(input in candidates(), at in 0f32..1.0) {
            let above = |c: &Candidate| c.score >= at;
            let first: Vec<_> = suppress(input.iter().copied().filter(above).collect(), 0.5);
            let last: Vec<_> = suppress(input, 0.5).into_iter().filter(above).collect();
            prop_assert_eq!(first, last);
        }
    }

    #[test]
    fn the_first_of_equal_classes_is_the_best() {
        let hits = rows_at_least(&[0.1, 0.7, 0.7, 0.2, 0.3, 0.1], 3, 0.5);
        assert_eq!(hits, [Hit { row: 0, class: 1, score: 0.7 }]);
        assert!(rows_at_least(&[0.9], 0, 0.5).is_empty());
    }

    #[test]
    fn the_earlier_of_two_equal_candidates_stands() {
        let at = |x| Candidate { bbox: BBox::from_xywh(x, 0.0, 10.0, 10.0), class: 0, score: 0.5 };
        assert_eq!(suppress(vec![at(1.0), at(0.0)], 0.5), [at(1.0)]);
    }

    #[test]
    fn the_number_of_candidates_is_bounded() {
        let apart = |i: usize| Candidate {
            bbox: BBox::from_xywh(i as f32 * 20.0, 0.0, 10.0, 10.0),
            class: 0,
            score: i as f32 / 5000.0,
        };
        let kept = suppress((0..2000).map(apart).collect(), 0.5);
        assert_eq!(kept.len(), MAX_CANDIDATES);
        assert_eq!(kept[0], apart(1999), "the best are kept");
    }
}
