use serde::Deserialize;

use super::*;

/// Ten frames a second.
const RATE: f64 = 10.0;

fn at(object: u64, x: f64) -> Located {
    Located { object: Some(object), area: [x, 100.0, 40.0, 80.0] }
}

fn unnumbered(x: f64) -> Located {
    Located { object: None, ..at(0, x) }
}

/// An object that stands, in each of ten frames.
fn standing() -> Vec<Vec<Located>> {
    vec![vec![at(1, 100.0)]; 10]
}

fn close(one: f64, other: f64) -> bool {
    (one - other).abs() < 1e-6
}

#[test]
fn what_is_found_as_it_is_has_full_marks() {
    let truth: Vec<_> =
        (0..20).map(|n| vec![at(1, f64::from(n) * 8.0), at(2, f64::from(n) * -9.0)]).collect();
    let found: Vec<_> = truth
        .iter()
        .map(|frame| frame.iter().map(|b| at(b.object.unwrap() + 70, b.area[0])).collect())
        .collect::<Vec<_>>();
    let scores = score(&truth, &found, RATE);
    let all = [scores.mota, scores.idf1, scores.hota, scores.f1, scores.moving_recall];
    assert!(all.iter().all(|figure| close(*figure, 1.0)), "{scores:?}");
    assert_eq!(scores.switches, 0);
}

#[test]
fn misses_and_false_boxes_cost_a_share_of_the_truth() {
    let mut found = standing();
    found[3].clear();
    found[5].push(at(9, 400.0));
    found[6] = vec![at(1, 130.0)];
    // Three misses and false boxes of frames 3, 5 and 6: one missed, one false, one both.
    let scores = score(&standing(), &found, RATE);
    assert!(close(scores.mota, 1.0 - 4.0 / 10.0), "{scores:?}");
    assert!(close(scores.f1, 16.0 / 20.0), "{scores:?}");
    assert!(scores.moving_recall.is_nan(), "nothing moves");
}

#[test]
fn another_number_is_a_switch_and_half_of_the_identity() {
    let found: Vec<_> = (0..10).map(|n| vec![at(if n < 5 { 1 } else { 2 }, 100.0)]).collect();
    let scores = score(&standing(), &found, RATE);
    assert_eq!(scores.switches, 1);
    assert!(close(scores.mota, 0.9) && close(scores.idf1, 0.5), "{scores:?}");
    // DetA is 1; each half is associated with half of the object's boxes.
    assert!(close(scores.hota, 0.5f64.sqrt()), "{scores:?}");
}

#[test]
fn a_number_that_comes_back_after_a_gap_is_none() {
    let mut found = standing();
    found[4..7].iter_mut().for_each(Vec::clear);
    let scores = score(&standing(), &found, RATE);
    assert_eq!(scores.switches, 0);
    assert!(close(scores.idf1, 14.0 / 17.0), "{scores:?}");
}

#[test]
fn a_pair_is_kept_though_another_box_fits_better() {
    let mut found = standing();
    found[5] = vec![at(1, 104.0), at(2, 100.0)];
    let scores = score(&standing(), &found, RATE);
    assert_eq!(scores.switches, 0);
    assert!(close(scores.mota, 0.9), "{scores:?}");
}

#[test]
fn a_box_without_a_number_counts_as_a_box_alone() {
    let mut found = standing();
    found[0] = vec![unnumbered(100.0)];
    let scores = score(&standing(), &found, RATE);
    assert!(close(scores.f1, 1.0) && close(scores.mota, 0.9), "{scores:?}");
    assert!(close(scores.idf1, 18.0 / 19.0), "{scores:?}");
}

#[test]
fn a_tenth_of_its_height_within_a_second_is_a_movement() {
    // 8 of 80 pixels in frame 30 and no more: it moves until a second after.
    let truth: Vec<_> = (0..60).map(|n| vec![at(1, if n < 30 { 100.0 } else { 108.0 })]).collect();
    let mut found = truth.clone();
    found[30..35].iter_mut().for_each(Vec::clear);
    // Frames 30 to 39 have a place of 8 pixels away within the second before.
    assert!(close(score(&truth, &found, RATE).moving_recall, 0.5));
    let less: Vec<_> = (0..60).map(|n| vec![at(1, if n < 30 { 100.0 } else { 107.9 })]).collect();
    assert!(score(&less, &less, RATE).moving_recall.is_nan());
}

#[test]
fn nothing_is_compared_without_a_failure() {
    let nothing = vec![Vec::new(); 10];
    let scores = score(&standing(), &nothing, RATE);
    assert_eq!((scores.mota, scores.idf1, scores.hota, scores.f1), (0.0, 0.0, 0.0, 0.0));
    assert_eq!(score(&nothing, &standing(), RATE).mota, -10.0);
    assert_eq!(score(&[], &[], RATE).mota, 0.0);
}

/// Number, left, top, width, height.
type Row = (u64, f64, f64, f64, f64);

/// A sequence that `figures_of_trackeval.py` made, and what TrackEval said of it.
#[derive(Deserialize)]
struct Judged {
    /// Truth and results of each frame.
    frames: Vec<[Vec<Row>; 2]>,
    mota: f64,
    switches: usize,
    idf1: f64,
    hota: f64,
}

#[test]
fn figures_are_those_of_trackeval() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/trackeval.json");
    let sequences: Vec<Judged> =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert!(sequences.len() > 20);
    for (index, judged) in sequences.iter().enumerate() {
        let side = |side: usize| -> Vec<Vec<Located>> {
            let located = |&(n, x, y, w, h): &Row| Located { object: Some(n), area: [x, y, w, h] };
            judged.frames.iter().map(|frame| frame[side].iter().map(located).collect()).collect()
        };
        let scores = score(&side(0), &side(1), RATE);
        assert_eq!(scores.switches, judged.switches, "sequence {index}");
        for (name, own, theirs) in [
            ("MOTA", scores.mota, judged.mota),
            ("IDF1", scores.idf1, judged.idf1),
            ("HOTA", scores.hota, judged.hota),
        ] {
            assert!(close(own, theirs), "{name} of sequence {index}: {own}, not {theirs}");
        }
    }
}
