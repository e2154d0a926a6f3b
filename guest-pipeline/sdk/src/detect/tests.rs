//! The same two objects in the form of each family.

use std::collections::BTreeMap;

use super::*;
use crate::geometry::BBox;
use crate::letterbox;
use crate::nn::Floats;

/// Width and height of the input.
const SIZE: (u32, u32) = (320, 256);
const CLASSES: usize = 3;

struct Object {
    bbox: BBox,
    class: usize,
    score: f32,
}

const OBJECTS: [Object; 3] = [
    Object {
        bbox: BBox { left: 20.0, top: 30.0, right: 100.0, bottom: 90.0 },
        class: 2,
        score: 0.9,
    },
    Object {
        bbox: BBox { left: 200.0, top: 40.0, right: 260.0, bottom: 200.0 },
        class: 0,
        score: 0.6,
    },
    Object { bbox: BBox { left: 5.0, top: 5.0, right: 25.0, bottom: 25.0 }, class: 1, score: 0.2 },
];

/// Outputs by their names.
#[derive(Default)]
struct Given {
    floats: BTreeMap<&'static str, Floats>,
    integers: BTreeMap<&'static str, Vec<i64>>,
}

impl Given {
    fn floats(mut self, name: &'static str, sides: &[u32], values: &[f32]) -> Self {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.floats.insert(name, Floats::new(sides.to_vec(), bytes).unwrap());
        self
    }

    fn integers(mut self, name: &'static str, values: &[i64]) -> Self {
        self.integers.insert(name, values.to_vec());
        self
    }
}

impl OutputSource for Given {
    fn floats(&self, name: &str) -> Result<Floats, String> {
        self.floats.get(name).cloned().ok_or_else(|| format!("no output {name}"))
    }

    fn integers(&self, name: &str) -> Result<Vec<i64>, String> {
        self.integers.get(name).cloned().ok_or_else(|| format!("no output {name}"))
    }
}

fn decoder(parameters: &str) -> Decoder {
    let family = serde_json::from_str::<serde_json::Value>(parameters).unwrap();
    Decoder::read(family["family"].as_str().unwrap(), parameters).unwrap()
}

fn found(parameters: &str, outputs: &Given) -> Result<Vec<Candidate>, String> {
    decoder(parameters).candidates(SIZE, outputs, 0.4, &|_| true)
}

/// Both objects that reach the score are there, and nothing else.
fn holds_both(parameters: &str, outputs: &Given) {
    let mut candidates = found(parameters, outputs).unwrap();
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    let [a, b] = candidates.as_slice() else { panic!("{parameters}: {candidates:?}") };
    for (found, Object { bbox, class, score }) in [a, b].into_iter().zip(&OBJECTS) {
        assert_eq!(found.class as usize, *class, "{parameters}");
        assert!((found.score - score).abs() < 1e-4, "{parameters}: {found:?}");
        let edges = |b: &BBox| [b.left, b.top, b.right, b.bottom];
        for (got, want) in edges(&found.bbox).into_iter().zip(edges(bbox)) {
            assert!((got - want).abs() < 0.01, "{parameters}: {found:?} for {bbox:?}");
        }
    }
    let only = decoder(parameters).candidates(SIZE, outputs, 0.4, &|class| class == 0).unwrap();
    assert_eq!(only.iter().map(|found| found.class).collect::<Vec<_>>(), [0], "{parameters}");
}

/// Middle and size.
fn middle(b: &BBox) -> [f32; 4] {
    [(b.left + b.right) / 2.0, (b.top + b.bottom) / 2.0, b.width(), b.height()]
}

/// In shares of the input.
fn shares([x, y, width, height]: [f32; 4]) -> [f32; 4] {
    let (w, h) = (SIZE.0 as f32, SIZE.1 as f32);
    [x / w, y / h, width / w, height / h]
}

/// A score for each class, `rest` for the others.
fn scores(object: &Object, score: f32, rest: f32) -> [f32; CLASSES] {
    std::array::from_fn(|class| if class == object.class { score } else { rest })
}

#[test]
fn yolov5_multiplies_objectness_and_class() {
    let mut rows: Vec<f32> = OBJECTS
        .iter()
        .flat_map(|o| {
            let classes = scores(o, o.score / 0.95, 0.01);
            [middle(&o.bbox).as_slice(), &[0.95], &classes].concat()
        })
        .collect();
    // A class that is certain of nothing.
    rows.extend([50.0, 50.0, 20.0, 20.0, 0.1, 1.0, 0.0, 0.0]);
    let outputs = Given::default().floats("rows", &[1, 4, 8], &rows);
    holds_both(r#"{"family":"yolov5","output":"rows","classes":3}"#, &outputs);
}

#[test]
fn yolov8_has_a_column_for_each_box_and_may_have_more_behind_the_scores() {
    const COUNT: usize = 7;
    // 4 numbers, 3 scores, 2 weights of masks.
    let mut columns = vec![0.0; 9 * COUNT];
    for (place, object) in [1, 4, 6].into_iter().zip(&OBJECTS) {
        let numbers = middle(&object.bbox);
        let scores = scores(object, object.score, 0.01);
        for (row, value) in numbers.into_iter().chain(scores).chain([9.0, 9.0]).enumerate() {
            columns[row * COUNT + place] = value;
        }
    }
    let outputs = Given::default().floats("out", &[1, 9, COUNT as u32], &columns);
    holds_both(r#"{"family":"yolov8","output":"out","classes":3}"#, &outputs);
    let error = found(r#"{"family":"yolov8","output":"out","classes":6}"#, &outputs).unwrap_err();
    assert!(error.contains("9 x 7") && error.contains("10 rows"), "{error}");
}

#[test]
fn yolov10_gives_finished_rows() {
    let mut rows: Vec<f32> = OBJECTS
        .iter()
        .flat_map(|o| {
            let b = &o.bbox;
            [b.left, b.top, b.right, b.bottom, o.score, o.class as f32]
        })
        .collect();
    rows.extend([0.0; 6]);
    rows.extend([1.0, 1.0, 9.0, 9.0, 0.9, -1.0]);
    let outputs = Given::default().floats("rows", &[1, 5, 6], &rows);
    holds_both(r#"{"family":"yolov10","output":"rows"}"#, &outputs);
}

/// Where the objects lie: the stride of their level, and its cell.
fn cells() -> [(u32, usize, usize); 3] {
    [(16, 3, 3), (32, 7, 3), (8, 1, 1)]
}

/// The row of a cell in a table of all levels.
fn row(strides: &[u32], (stride, column, line): (u32, usize, usize)) -> usize {
    let cells = |stride: u32| (SIZE.0.div_ceil(stride) as usize, SIZE.1.div_ceil(stride) as usize);
    let before = strides.iter().take_while(|s| **s != stride).map(|s| cells(*s).0 * cells(*s).1);
    before.sum::<usize>() + line * cells(stride).0 + column
}

#[test]
fn yolox_is_relative_to_its_cells() {
    let rows = 40 * 32 + 20 * 16 + 10 * 8;
    let mut table = vec![0.0; rows * 8];
    for (cell, object) in cells().into_iter().zip(&OBJECTS) {
        let (stride, column, line) = cell;
        let pixels = stride as f32;
        let [x, y, width, height] = middle(&object.bbox);
        let at = row(&[8, 16, 32], cell) * 8;
        let (x, y) = (x / pixels - column as f32, y / pixels - line as f32);
        let numbers = [x, y, (width / pixels).ln(), (height / pixels).ln(), 0.95];
        table[at..at + 5].copy_from_slice(&numbers);
        table[at + 5..at + 8].copy_from_slice(&scores(object, object.score / 0.95, 0.0));
    }
    let outputs = Given::default().floats("out", &[1, rows as u32, 8], &table);
    let parameters = r#"{"family":"yolox","output":"out","classes":3,"strides":[8,16,32]}"#;
    holds_both(parameters, &outputs);
    let error = found(&parameters.replace(",32]", "]"), &outputs).unwrap_err();
    assert!(error.contains("1680 rows") && error.contains("1600"), "{error}");
}

/// Logits of bins whose expected number is `distance`.
fn bins(distance: f32, bins: usize) -> Vec<f32> {
    let (low, part) = (distance.floor() as usize, distance.fract());
    let mut logits = vec![-60.0; bins];
    logits[low] = (1.0 - part).ln();
    if part > 0.0 {
        logits[low + 1] = part.ln();
    }
    logits
}

/// The logits of an object's four sides at a cell.
fn sides(object: &Object, cell: (u32, usize, usize), many: usize, point: f32) -> Vec<f32> {
    let (stride, column, line) = cell;
    let pixels = stride as f32;
    let (x, y) = ((column as f32 + point) * pixels, (line as f32 + point) * pixels);
    let b = &object.bbox;
    let distances = [x - b.left, y - b.top, b.right - x, b.bottom - y];
    distances.into_iter().flat_map(|side| bins(side / pixels, many)).collect()
}

#[test]
fn nanodet_has_two_outputs_for_each_level_or_one_for_all() {
    let strides = [8u32, 16, 32];
    let mut outputs = Given::default();
    for (stride, [class, side]) in
        strides.into_iter().zip([["c8", "s8"], ["c16", "s16"], ["c32", "s32"]])
    {
        let count = (SIZE.0 / stride * (SIZE.1 / stride)) as usize;
        let (mut classes, mut logits) = (vec![0.0; count * 3], vec![0.0; count * 44]);
        for (cell, object) in cells().into_iter().zip(&OBJECTS).filter(|(c, _)| c.0 == stride) {
            let at = row(&[stride], cell);
            classes[at * 3..at * 3 + 3].copy_from_slice(&scores(object, object.score, 0.0));
            logits[at * 44..at * 44 + 44].copy_from_slice(&sides(object, cell, 11, 0.5));
        }
        outputs = outputs.floats(class, &[1, count as u32, 3], &classes).floats(
            side,
            &[1, count as u32, 44],
            &logits,
        );
    }
    holds_both(
        r#"{"family":"nanodet","scores":["c8","c16","c32"],"sides":["s8","s16","s32"],"classes":3,
            "strides":[8,16,32],"bins":11,"point":0.5}"#,
        &outputs,
    );

    let strides = [8, 16, 32, 64];
    let rows = 40 * 32 + 20 * 16 + 10 * 8 + 5 * 4;
    let mut table = vec![0.0; rows * 35];
    for (cell, object) in cells().into_iter().zip(&OBJECTS) {
        let numbers = scores(object, object.score, 0.0);
        let at = row(&strides, cell) * 35;
        table[at..at + 35].copy_from_slice(&[&numbers[..], &sides(object, cell, 8, 0.0)].concat());
    }
    let outputs = Given::default().floats("out", &[1, rows as u32, 35], &table);
    holds_both(
        r#"{"family":"nanodet","output":"out","classes":3,"strides":[8,16,32,64],"bins":8,
            "point":0}"#,
        &outputs,
    );
}

#[test]
fn detr_has_queries_in_three_forms() {
    let boxes: Vec<f32> = OBJECTS.iter().flat_map(|o| shares(middle(&o.bbox))).collect();
    let logit = |score: f32| (score / (1.0 - score)).ln();
    let logits: Vec<f32> = OBJECTS.iter().flat_map(|o| scores(o, logit(o.score), -9.0)).collect();
    let outputs = Given::default().floats("boxes", &[1, 3, 4], &boxes);
    let outputs = outputs.floats("logits", &[1, 3, 3], &logits);
    holds_both(r#"{"family":"detr","boxes":"boxes","logits":"logits"}"#, &outputs);

    let rows: Vec<f32> = OBJECTS
        .iter()
        .flat_map(|o| [&shares(middle(&o.bbox))[..], &scores(o, o.score, 0.01)].concat())
        .collect();
    let outputs = Given::default().floats("rows", &[1, 3, 7], &rows);
    holds_both(r#"{"family":"detr","output":"rows"}"#, &outputs);

    let edges: Vec<f32> =
        OBJECTS.iter().map(|o| &o.bbox).flat_map(|b| [b.left, b.top, b.right, b.bottom]).collect();
    let outputs = Given::default()
        .floats("boxes", &[1, 3, 4], &edges)
        .floats("scores", &[1, 3], &OBJECTS.map(|o| o.score))
        .integers("labels", &OBJECTS.map(|o| o.class as i64));
    holds_both(
        r#"{"family":"detr","boxes":"boxes","labels":"labels","scores":"scores",
            "sizes":"orig_target_sizes"}"#,
        &outputs,
    );
}

#[test]
fn ssd_has_edges_in_either_order_beside_scores_or_classes() {
    let (w, h) = (SIZE.0 as f32, SIZE.1 as f32);
    let edges = |b: &BBox| [b.left, b.top, b.right, b.bottom];
    let unit: Vec<f32> = OBJECTS.iter().flat_map(|o| shares(edges(&o.bbox))).collect();
    // The background, which is the best of what nothing is at.
    let mut classes: Vec<f32> =
        OBJECTS.iter().flat_map(|o| [&[0.3][..], &scores(o, o.score, 0.01)].concat()).collect();
    classes.extend([0.99, 0.0, 0.0, 0.0]);
    let boxes = [&unit[..], &[0.1, 0.1, 0.2, 0.2]].concat();
    let outputs = Given::default().floats("boxes", &[1, 4, 4], &boxes);
    let outputs = outputs.floats("scores", &[1, 4, 4], &classes);
    holds_both(
        r#"{"family":"ssd","boxes":"boxes","scores":"scores","order":"xyxy","unit":true,
            "first":1}"#,
        &outputs,
    );

    let turned: Vec<f32> = OBJECTS
        .iter()
        .flat_map(|o| {
            let b = &o.bbox;
            [b.top / h, b.left / w, b.bottom / h, b.right / w]
        })
        .collect();
    let numbered = |outputs: Given| {
        outputs
            .floats("scores", &[3], &OBJECTS.map(|o| o.score))
            .integers("classes", &OBJECTS.map(|o| o.class as i64 + 1))
    };
    let outputs = numbered(Given::default().floats("boxes", &[1, 3, 4], &turned));
    holds_both(
        r#"{"family":"ssd","boxes":"boxes","scores":"scores","labels":"classes","order":"yxyx",
            "unit":true,"first":1}"#,
        &outputs,
    );
    let pixels: Vec<f32> = OBJECTS.iter().flat_map(|o| edges(&o.bbox)).collect();
    let outputs = numbered(Given::default().floats("boxes", &[3, 4], &pixels));
    holds_both(
        r#"{"family":"ssd","boxes":"boxes","scores":"scores","labels":"classes","order":"xyxy",
            "unit":false,"first":1}"#,
        &outputs,
    );
}

#[test]
fn what_this_crate_does_not_know_is_an_error_with_what_it_does() {
    let error = Decoder::read("yolov99", "{}").unwrap_err();
    assert!(error.contains("yolov99") && error.contains("yolov8, "), "{error}");
    let error = Decoder::read("yolov8", r#"{"family":"yolov8"}"#).unwrap_err();
    assert!(error.contains("output"), "{error}");
    // A key of a later host.
    let later = r#"{"family":"yolov10","output":"rows","angle":true}"#;
    assert!(Decoder::read("yolov10", later).is_ok());
    for (family, form) in [
        ("yolov10", r#"{"family":"yolov10","output":"rows"}"#),
        ("detr", r#"{"family":"detr","output":"rows"}"#),
        ("detr", r#"{"family":"detr"}"#),
    ] {
        for sides in [&[2, 3][..], &[2, 1, 3], &[6]] {
            let outputs = Given::default().floats("rows", sides, &[0.9; 6]);
            assert!(found(form, &outputs).is_err(), "{family} {sides:?}");
        }
    }
}

fn described(decoder: Option<(&str, &str)>, picture: bool) -> ModelDescription {
    let picture = picture.then(|| models::PictureInput {
        name: "images".into(),
        spec: TensorSpec::letterbox(320, 256),
    });
    let decoder = decoder.map(|(family, parameters)| models::DecoderTable {
        family: family.into(),
        parameters: parameters.into(),
    });
    ModelDescription {
        inputs: vec![],
        outputs: vec![],
        picture,
        decoder,
        labels: vec!["a".into(), "b".into()],
    }
}

#[test]
fn a_model_that_is_not_described_is_refused_with_what_it_lacks_unless_it_is_known_here() {
    let rows = Some(("yolov10", r#"{"family":"yolov10","output":"rows"}"#));
    assert!(known("eye", described(rows, true)).is_ok());
    for (decoder, picture, words) in [
        (None, true, "no [decoder]"),
        (rows, false, "no [preprocessing]"),
        (Some(("yolov99", "{}")), true, "yolov99"),
        (
            Some(("classifier", r#"{"family":"classifier","output":"o","activation":"softmax"}"#)),
            true,
            "classifier",
        ),
    ] {
        let error = known("eye", described(decoder, picture)).unwrap_err();
        assert!(error.starts_with("model eye: ") && error.contains(words), "{error}");
    }
    let built_in = known("nanodet-g-320", described(None, false)).unwrap();
    assert_eq!((built_in.spec.width, built_in.labels.len()), (320, 80));
    assert_eq!(label(&built_in.labels, 2), "car");
    assert_eq!(label(&built_in.labels, 80), "class 80");
    // What the operator says goes before what is known here.
    let other = known("nanodet-g-320", described(rows, true)).unwrap();
    assert_eq!(other.labels.len(), 2);
}

#[test]
fn boxes_are_taken_to_the_frame_and_those_in_the_bars_are_left_out() {
    // 640 x 256 at half size: 320 x 128 with 64 rows above and below.
    let detector =
        known("eye", described(Some(("yolov10", r#"{"family":"yolov10","output":"rows"}"#)), true))
            .unwrap();
    let rows = [[10.0, 54.0, 30.0, 84.0, 0.9, 1.0], [10.0, 10.0, 30.0, 60.0, 0.9, 1.0]].concat();
    let outputs = Given::default().floats("rows", &[1, 2, 6], &rows);
    let placement = letterbox::place(640, 256, 320, 256).unwrap();
    let picture = Letterbox { width: 640, height: 256, placement };
    let found = detector.in_frame(&outputs, 0.5, |_| true, &picture).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].bbox, BBox { left: 20.0, top: 0.0, right: 60.0, bottom: 40.0 });
}
