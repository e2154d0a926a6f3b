//! `boxes` held against what its WIT says, said once more without any care for time.

use std::cmp::Ordering;

use ocelli_protocol::inference::Element;
use ocelli_protocol::shm::SharedMemory;
use proptest::prelude::*;

use super::boxes::{ScoreTable, suppress};
use super::newest::boxes::{Axes, Candidate, Columns, ScoredBox};
use super::newest::frames::Rect;
use super::tensor::Tensor;
use crate::arena::Arena;

/// A tensor of these numbers, as they are.
fn tensor_of(shape: Vec<u32>, numbers: &[f32]) -> Tensor {
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let arena =
        Arena::new(SharedMemory::create(bytes.len().next_multiple_of(4096).max(4096)).unwrap());
    let mut block = arena.allocate(bytes.len()).unwrap();
    block.bytes_mut()[..bytes.len()].copy_from_slice(&bytes);
    Tensor::in_block(Element::F32, shape, block)
}

/// Rows of equal length.
#[derive(Debug, Clone)]
struct Rows {
    columns: usize,
    numbers: Vec<f32>,
}

impl Rows {
    fn iter(&self) -> impl Iterator<Item = &[f32]> {
        self.numbers.chunks_exact(self.columns)
    }

    fn tensor(&self, axes: Axes) -> Tensor {
        let (rows, columns) = (self.numbers.len() / self.columns, self.columns);
        let side = |side: usize| u32::try_from(side).unwrap();
        match axes {
            Axes::RowsColumns => tensor_of(vec![1, side(rows), side(columns)], &self.numbers),
            Axes::ColumnsRows => {
                let turned =
                    (0..columns).flat_map(|column| self.iter().map(move |row| row[column]));
                tensor_of(vec![1, side(columns), side(rows)], &turned.collect::<Vec<_>>())
            }
        }
    }
}

/// What [`ScoreTable::best`] promises.
fn best(
    rows: &Rows,
    classes: std::ops::Range<usize>,
    threshold: f32,
    limit: usize,
) -> Vec<(u32, u32, u32)> {
    let mut found = Vec::new();
    for (row, numbers) in (0u32..).zip(rows.iter()) {
        let mut largest: Option<(u32, f32)> = None;
        for (class, &number) in (0u32..).zip(&numbers[classes.clone()]) {
            if !number.is_nan() && largest.is_none_or(|(_, than)| number > than) {
                largest = Some((class, number));
            }
        }
        found.extend(
            largest
                .filter(|&(_, score)| score >= threshold)
                .map(|(class, score)| (row, class, score)),
        );
    }
    found.sort_by(|(_, _, a), (_, _, b)| b.partial_cmp(a).unwrap());
    found.truncate(limit);
    found.into_iter().map(|(row, class, score)| (row, class, score.to_bits())).collect()
}

fn summary(found: Vec<Candidate>) -> Vec<(u32, u32, u32)> {
    found.into_iter().map(|found| (found.row, found.class, found.score.to_bits())).collect()
}

/// Few different ones, so that many are equal.
fn any_number() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => (0u8..6).prop_map(|step| f32::from(step) / 5.0),
        6 => 0f32..1.0,
        1 => Just(f32::NAN),
        1 => Just(f32::INFINITY),
        1 => Just(f32::NEG_INFINITY),
        1 => Just(-0.0f32),
        1 => -1f32..0.0,
    ]
}

fn any_rows() -> impl Strategy<Value = Rows> {
    (1usize..40, 1usize..60).prop_flat_map(|(columns, rows)| {
        let numbers = prop::collection::vec(any_number(), rows * columns);
        numbers.prop_map(move |numbers| Rows { columns, numbers })
    })
}

const AXES: [Axes; 2] = [Axes::RowsColumns, Axes::ColumnsRows];

fn any_box() -> impl Strategy<Value = ScoredBox> {
    let side = || prop_oneof![30 => -5f32..50.0, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY), 1 => Just(f32::MAX)];
    let score = prop_oneof![4 => any_number(), 1 => Just(0.5f32)];
    let numbers = (side(), side(), side(), side(), score, 0u32..3);
    numbers.prop_map(|(x, y, width, height, score, class)| ScoredBox {
        box_: Rect { x, y, width, height },
        score,
        class,
    })
}

/// Intersection over union, as `guest-pipeline/sdk/src/geometry.rs` has it.
fn iou(a: &Rect, b: &Rect) -> f32 {
    let edges = |area: &Rect| (area.x, area.y, area.x + area.width, area.y + area.height);
    let ((a_left, a_top, a_right, a_bottom), (b_left, b_top, b_right, b_bottom)) =
        (edges(a), edges(b));
    let area = |left: f32, top: f32, right: f32, bottom: f32| {
        (right - left).max(0.0) * (bottom - top).max(0.0)
    };
    let shared =
        area(a_left.max(b_left), a_top.max(b_top), a_right.min(b_right), a_bottom.min(b_bottom));
    let both = area(a_left, a_top, a_right, a_bottom) + area(b_left, b_top, b_right, b_bottom);
    if shared > 0.0 { shared / (both - shared) } else { 0.0 }
}

fn is_finite(scored: &ScoredBox) -> bool {
    let Rect { x, y, width, height } = scored.box_;
    [scored.score, x, y, width, height].iter().all(|number| number.is_finite())
}

/// What [`suppress`] promises: again and again the best that is left stands, and those that it
/// overlaps go.
fn standing(boxes: &[ScoredBox], at_most: f32) -> Vec<u32> {
    let mut left: Vec<_> = (0u32..).zip(boxes).filter(|(_, scored)| is_finite(scored)).collect();
    let mut standing = Vec::new();
    while let Some(&first) = left.first() {
        let better = |best: (u32, _), other: (u32, _)| {
            let (a, b): (&ScoredBox, &ScoredBox) = (best.1, other.1);
            if b.score > a.score { other } else { best }
        };
        let (index, best) = left.iter().copied().fold(first, better);
        standing.push(index);
        left.retain(|&(other, scored)| {
            other != index
                && (scored.class != best.class
                    || iou(&scored.box_, &best.box_).partial_cmp(&at_most)
                        != Some(Ordering::Greater))
        });
    }
    standing
}

proptest! {
    #[test]
    fn the_best_rows_are_those_that_a_plain_search_finds(
        rows in any_rows(),
        from in 0usize..40,
        to in 0usize..40,
        threshold in prop_oneof![any_number(), Just(0.4f32)],
        limit in prop_oneof![0u32..8, Just(10_000u32)],
    ) {
        prop_assume!(!threshold.is_nan());
        let first = from.min(to).min(rows.columns);
        let classes = first..from.max(to).min(rows.columns);
        let columns = Columns { first: first as u32, count: classes.len() as u32 };
        for axes in AXES {
            let tensor = rows.tensor(axes);
            let table = ScoreTable::of(&tensor, axes).unwrap();
            let found = table.best(Some(columns), threshold, limit).unwrap();
            prop_assert_eq!(summary(found), best(&rows, classes.clone(), threshold, limit as usize));
            let found = table.best(None, threshold, limit).unwrap();
            prop_assert_eq!(summary(found), best(&rows, 0..rows.columns, threshold, limit as usize));
        }
    }

    #[test]
    fn rows_are_given_as_they_are(rows in any_rows(), wanted in prop::collection::vec(0u32..60, 0..30)) {
        let count = rows.iter().count();
        for axes in AXES {
            let tensor = rows.tensor(axes);
            let given = ScoreTable::of(&tensor, axes).unwrap().rows(&wanted);
            if let Some(gone) = wanted.iter().find(|&&row| row as usize >= count) {
                prop_assert_eq!(given.unwrap_err(), format!("row {gone}: the table has {count}, \
                    counted from 0"));
                continue;
            }
            let expected = wanted.iter().flat_map(|&row| rows.iter().nth(row as usize).unwrap());
            let bits = |numbers: Vec<f32>| numbers.into_iter().map(f32::to_bits).collect::<Vec<_>>();
            prop_assert_eq!(bits(given.unwrap()), bits(expected.copied().collect()));
        }
    }

    #[test]
    fn boxes_stand_that_no_better_one_overlaps(
        boxes in prop::collection::vec(any_box(), 0..80),
        at_most in prop_oneof![0f32..=1.0, Just(0.0f32), Just(1.0f32)],
    ) {
        prop_assert_eq!(suppress(&boxes, at_most).unwrap(), standing(&boxes, at_most));
    }
}

#[test]
fn a_table_of_many_rows_is_cut_to_the_best_in_their_order() {
    let rows =
        |score: fn(usize) -> f32| Rows { columns: 3, numbers: (0..9000).map(score).collect() };
    let scores: [fn(usize) -> f32; 3] =
        [|n| n as f32, |n| -(n as f32), |n| ((n * 7919) % 101) as f32];
    for score in scores {
        let rows = rows(score);
        for axes in AXES {
            let tensor = rows.tensor(axes);
            let table = ScoreTable::of(&tensor, axes).unwrap();
            for limit in [1, 10, 2000, 3000] {
                let found = table.best(None, f32::NEG_INFINITY, limit).unwrap();
                assert_eq!(summary(found), best(&rows, 0..3, f32::NEG_INFINITY, limit as usize));
            }
        }
    }
}

#[test]
fn what_cannot_be_served_is_refused_with_shape_and_type() {
    let refused = |shape: &[u32], element| {
        let arena = Arena::new(SharedMemory::create(4096).unwrap());
        let tensor = Tensor::in_block(element, shape.to_vec(), arena.allocate(96).unwrap());
        ScoreTable::of(&tensor, Axes::RowsColumns).err().unwrap()
    };
    let words = |tensor: &str| {
        format!(
            "a tensor {tensor}: a table is F32, and has two axes, and before them none but of \
                size 1"
        )
    };
    assert_eq!(refused(&[1, 4, 6], Element::U8), words("U8 [1, 4, 6]"));
    assert_eq!(refused(&[2, 3, 4], Element::F32), words("F32 [2, 3, 4]"));
    assert_eq!(refused(&[24], Element::F32), words("F32 [24]"));
    assert_eq!(refused(&[], Element::F32), words("F32 []"));

    let tensor = tensor_of(vec![2, 3], &[0.0; 6]);
    let table = ScoreTable::of(&tensor, Axes::RowsColumns).unwrap();
    let refused = |classes, threshold, limit| table.best(classes, threshold, limit).unwrap_err();
    let columns = |first, count| Some(Columns { first, count });
    assert_eq!(refused(None, f32::NAN, 1), "the threshold is NaN");
    assert_eq!(
        refused(None, 0.0, 10_001),
        "up to 10001 rows are asked for: at most 10000 are given"
    );
    assert_eq!(refused(columns(1, 3), 0.0, 1), "3 columns from 1 on: a row of the table has 3");
    assert_eq!(
        refused(columns(u32::MAX, 2), 0.0, 1),
        "2 columns from 4294967295 on: a row of the table has 3"
    );
    assert_eq!(table.best(columns(3, 0), 0.0, 1).unwrap().len(), 0, "no columns, no values");
    assert!(table.rows(&[0; 10_000]).is_ok());
    let many = "10001 rows of 3 numbers: at most 10000 rows and 1048576 numbers are given";
    assert_eq!(table.rows(&[0; 10_001]).unwrap_err(), many);
    let wide = tensor_of(vec![1, 1000], &[0.0; 1000]);
    let wide = ScoreTable::of(&wide, Axes::RowsColumns).unwrap();
    assert_eq!(wide.rows(&[0; 1048]).unwrap().len(), 1_048_000);
    assert!(wide.rows(&[0; 1049]).unwrap_err().starts_with("1049 rows of 1000 numbers: "));
}

#[test]
fn a_table_without_numbers_has_no_best_row() {
    for shape in [vec![0, 80], vec![5, 0], vec![0, 0], vec![1, 1, 0, 4]] {
        for axes in AXES {
            let tensor = tensor_of(shape.clone(), &[]);
            let table = ScoreTable::of(&tensor, axes).unwrap();
            assert_eq!(table.best(None, f32::NEG_INFINITY, 10).unwrap().len(), 0, "{shape:?}");
            assert!(table.rows(&[]).unwrap().is_empty(), "{shape:?}");
        }
    }
    let tensor = tensor_of(vec![5, 0], &[]);
    assert!(ScoreTable::of(&tensor, Axes::RowsColumns).unwrap().rows(&[4]).unwrap().is_empty());
    assert!(ScoreTable::of(&tensor, Axes::ColumnsRows).unwrap().rows(&[0]).is_err());
}

fn apart(count: usize) -> Vec<ScoredBox> {
    let scored = |n: usize| {
        let box_ = Rect { x: n as f32 * 20.0, y: 0.0, width: 10.0, height: 10.0 };
        ScoredBox { box_, score: n as f32, class: 0 }
    };
    (0..count).map(scored).collect()
}

#[test]
fn boxes_are_taken_up_to_the_limit_and_an_iou_within_0_and_1() {
    let standing = suppress(&apart(10_000), 0.5).unwrap();
    assert_eq!(standing, (0..10_000).rev().collect::<Vec<_>>());
    assert_eq!(suppress(&apart(10_001), 0.5).unwrap_err(), "10001 boxes: at most 10000 are taken");
    for iou in [f32::NAN, -0.1, 1.1, f32::INFINITY] {
        assert_eq!(
            suppress(&apart(2), iou).unwrap_err(),
            format!("an iou of {iou}: it lies within 0 to 1")
        );
    }
}

/// As many rows as those of a detector, and far more than are given.
#[test]
fn long_calls_give_what_short_ones_do() {
    let scores = Rows {
        columns: 80,
        numbers: (0..3598 * 80)
            .map(|n| if n % 7193 == 0 { 0.9 } else { (n % 97) as f32 / 400.0 })
            .collect(),
    };
    let expected = best(&scores, 0..80, 0.4, 1000);
    assert_eq!(expected.len(), 41);
    // Each better than those before it.
    let count = 1 << 20;
    let rising = Rows { columns: 1, numbers: (0..count).map(|n| n as f32).collect() };
    let last = |n: u32| (count - 1 - n, 0, ((count - 1 - n) as f32).to_bits());
    let last: Vec<_> = (0..10_000).map(last).collect();
    for axes in AXES {
        let look = |rows: &Rows, threshold: f32, limit: u32| {
            let tensor = rows.tensor(axes);
            summary(ScoreTable::of(&tensor, axes).unwrap().best(None, threshold, limit).unwrap())
        };
        assert_eq!(look(&scores, 0.4, 1000), expected, "{axes:?}");
        assert!(look(&rising, 0.0, 10_000) == last, "{axes:?}");
    }
}
