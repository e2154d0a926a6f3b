//! What frames, models and sessions of a test promise.

use super::*;
use crate::boxes::{self, Axes};
use crate::budget;
use crate::geometry::BBox;
use crate::nanodet::{self, Detector};
use crate::nms::Candidate;
use crate::nn::{Floats, Model};
use crate::{Affine, Channels, Description, Element, Event, Fit, FrameError, Layout, Output};
use crate::{Pipeline, Point, Rect, TensorSpec};

fn values(tensor: &Tensor) -> Vec<f32> {
    Floats::new(tensor.dimensions(), tensor.data()).unwrap().values().to_vec()
}

/// Left half red, right half blue.
fn halves() -> Frame {
    let row = [[200u8, 0, 0].repeat(4), [0, 0, 100].repeat(4)].concat();
    Frame::of_rgb(8, 4, &row.repeat(4))
}

#[test]
fn frames_follow_each_other_as_those_of_a_stream() {
    let numbers: Vec<_> = frames(64, 48, 4.0)
        .take(3)
        .map(|f| (f.index(), f.presentation_time(), f.skipped(), f.width(), f.height()))
        .collect();
    let quarter = 250_000_000;
    let expected = [0, 1, 2].map(|n| (n, n * quarter, 0, 64, 48));
    assert_eq!(numbers, expected);
    assert_eq!(halves().after_skipped(3).skipped(), 3);
}

#[test]
fn a_tensor_shows_the_picture_letterboxed_ordered_and_normalised() {
    let spec = TensorSpec {
        channels: Channels::Bgr,
        fill: (9.0, 9.0, 9.0),
        mean: (0.0, 0.0, 100.0),
        std: (1.0, 1.0, 50.0),
        ..TensorSpec::letterbox(4, 4)
    };
    let (tensor, placement) = halves().tensor(None, spec).unwrap();
    assert_eq!(tensor.dimensions(), [1, 3, 4, 4]);
    assert_eq!((placement.scale_x, placement.offset_x, placement.offset_y), (0.5, 0.0, 1.0));
    let bar = [9.0; 4];
    let blue = [bar, [0.0, 0.0, 100.0, 100.0], [0.0, 0.0, 100.0, 100.0], bar].concat();
    let rest = (9.0 - 100.0) / 50.0;
    let red = [2.0, 2.0, -2.0, -2.0];
    let red = [[rest; 4], red, red, [rest; 4]].concat();
    let values = values(&tensor);
    assert_eq!((&values[..16], &values[32..]), (&blue[..], &red[..]));
}

#[test]
fn regions_make_a_batch_with_a_placement_each() {
    let spec = TensorSpec {
        fit: Fit::Stretch,
        layout: Layout::Nhwc,
        element: Element::U8,
        ..TensorSpec::letterbox(1, 1)
    };
    let region = |x, width| Rect { x, y: 1.0, width, height: 2.0 };
    let (tensor, placements) =
        halves().tensors(&[region(0.0, 2.0), region(6.0, 4.0)], spec).unwrap();
    assert_eq!((tensor.dimensions(), tensor.ty()), (vec![2, 1, 1, 3], TensorType::U8));
    assert_eq!(tensor.data(), [200, 0, 0, 0, 0, 100]);
    let found: Vec<_> = placements.iter().map(|p| p.to_frame(0.0, 0.0)).collect();
    assert_eq!(found, [(0.0, 1.0), (6.0, 1.0)]);
}

#[test]
fn a_warp_samples_where_it_is_sent_and_fills_beside_the_frame() {
    let spec = TensorSpec { fill: (7.0, 7.0, 7.0), ..TensorSpec::letterbox(2, 1) };
    let away = Affine { a: 8.0, b: 0.0, c: 2.0, d: 0.0, e: 1.0, f: 0.0 };
    let tensor = halves().warp(away, spec).unwrap();
    // Pixel middles 0.5 and 1.5 go to x 6 and 14.
    assert_eq!(values(&tensor), [0.0, 7.0, 0.0, 7.0, 100.0, 7.0]);
}

#[test]
fn grey_pictures_and_images_are_of_the_frame() {
    assert_eq!(halves().luma(2, 1).unwrap(), [60, 11]);
    let region = Rect { x: 1.5, y: -3.0, width: 2.0, height: 5.0 };
    let image = halves().image(Some(region), 70).unwrap();
    assert_eq!((image.width(), image.height(), image.quality()), (3, 2, 70));
    assert_eq!(image.region().map(|region| region.x), Some(1.5));
    let small = halves().image_within(None, 2, 70).unwrap();
    assert_eq!((small.width(), small.height()), (2, 1));
    let whole = halves().image_within(None, 100, 70).unwrap();
    assert_eq!((whole.width(), whole.height()), (8, 4), "never larger");
}

#[test]
fn what_the_host_refuses_is_refused() {
    let frame = halves();
    let spec = TensorSpec::letterbox(4, 4);
    let at = |x, width| Some(Rect { x, y: 0.0, width, height: 1.0 });
    for region in [at(0.0, 0.0), at(8.0, 1.0), at(f32::NAN, 1.0)] {
        assert!(matches!(frame.tensor(region, spec), Err(FrameError::InvalidRegion(_))));
        assert!(matches!(frame.image(region, 50), Err(FrameError::InvalidRegion(_))));
    }
    let none = TensorSpec::letterbox(0, 4);
    let still = TensorSpec { std: (1.0, 0.0, 1.0), ..spec };
    let large = TensorSpec::letterbox(4097, 1);
    for spec in [none, still, large] {
        assert!(matches!(frame.tensor(None, spec), Err(FrameError::InvalidSpec(_))), "{spec:?}");
    }
    assert!(matches!(frame.tensors(&[], spec), Err(FrameError::InvalidSpec(_))));
    assert!(matches!(frame.luma(641, 1), Err(FrameError::InvalidSpec(_))));
    assert!(matches!(frame.image(None, 0), Err(FrameError::InvalidSpec(_))));
    assert!(matches!(frame.image_within(None, 0, 80), Err(FrameError::InvalidSpec(_))));
}

#[test]
fn a_detector_finds_what_the_test_has_it_see() {
    let size = (768, 576);
    let objects = [
        Candidate { bbox: BBox::from_xywh(10.0, 20.0, 30.0, 60.0), class: 0, score: 0.9 },
        Candidate { bbox: BBox::from_xywh(300.0, 100.0, 200.0, 400.0), class: 2, score: 0.6 },
        Candidate { bbox: BBox::from_xywh(700.0, 500.0, 68.0, 76.0), class: 79, score: 0.5 },
        Candidate { bbox: BBox::from_xywh(304.0, 104.0, 200.0, 400.0), class: 2, score: 0.4 },
    ];
    let variant = nanodet::DEFAULT;
    model_says(variant.name, [nanodet_outputs(variant, size, &objects)]);
    let frame = Frame::solid(size.0, size.1, [0; 3]);
    let detector = Detector::load(variant).unwrap();
    let mut found = detector.candidates(&frame, 0.3, |_| true).unwrap();
    found.sort_by(|one, other| other.score.total_cmp(&one.score));
    assert_eq!(found.len(), objects.len());
    for (found, object) in found.iter().zip(&objects) {
        assert_eq!((found.class, found.score), (object.class, object.score));
        assert!(found.bbox.iou(&object.bbox) > 0.99, "{found:?} for {object:?}");
    }
    let again = detector.candidates(&frame, 0.3, |_| true).unwrap_err();
    assert!(
        again.contains("nanodet-g-320-int8") && again.contains("outputs for 1 runs"),
        "{again}"
    );
}

#[test]
fn a_model_of_the_test_sees_its_inputs() {
    model("sum", |inputs| {
        let [(name, tensor)] = inputs else { return Err("one input".into()) };
        let sum: f32 = values(tensor).iter().sum();
        Ok(vec![floats(name, &[1], &[sum])])
    });
    let sum = Model::load("sum").unwrap();
    let (_, three) = floats("", &[3], &[1.0, 2.0, 3.5]);
    assert_eq!(*sum.run([("x", three)]).unwrap().floats("x").unwrap().values(), [6.5]);
    assert_eq!(sum.run([]).err(), Some("model sum: one input".into()));
    let error = Model::load("mean").err().unwrap();
    assert!(error.starts_with("model mean: cannot be loaded") && error.contains("sum"), "{error}");
}

#[test]
fn the_search_in_outputs_is_the_hosts() {
    // Four boxes of two numbers and two scores, a column each.
    #[rustfmt::skip]
    let (_, table) = floats("", &[1, 4, 4], &[
        0.0, 1.0, 2.0, 3.0,
        0.5, 1.5, 2.5, 3.5,
        0.1, 0.9, 0.3, 0.6,
        0.2, 0.1, 0.8, f32::NAN,
    ]);
    let hits = boxes::best(&table, Axes::ColumnsRows, Some(2..4), 0.5, 2).unwrap();
    let hits: Vec<_> = hits.iter().map(|hit| (hit.row, hit.class, hit.score)).collect();
    assert_eq!(hits, [(1, 0, 0.9), (2, 1, 0.8)]);
    let rows = boxes::rows(&table, Axes::ColumnsRows, [1, 2]).unwrap();
    assert_eq!(rows, [1.0, 1.5, 0.9, 0.1, 2.0, 2.5, 0.3, 0.8]);
    assert_eq!(boxes::rows(&table, Axes::RowsColumns, [1]).unwrap(), [0.5, 1.5, 2.5, 3.5]);
    assert!(boxes::rows(&table, Axes::RowsColumns, [4]).is_err());
    assert!(boxes::best(&table, Axes::RowsColumns, Some(3..5), 0.5, 2).is_err());
    let at =
        |x: f32, score| Candidate { bbox: BBox::from_xywh(x, 0.0, 10.0, 10.0), class: 0, score };
    let standing = boxes::suppress(&[at(0.0, 0.5), at(1.0, 0.9), at(50.0, 0.1)], 0.5);
    assert_eq!(standing, Ok(vec![1, 2]));
}

/// Counts frames and says what it is told to.
struct Counter {
    frames: u64,
    data: String,
}

impl Pipeline for Counter {
    fn describe() -> Description {
        Description {
            name: "counter".into(),
            version: "1.0.0".into(),
            models: vec![],
            settings_schema: r#"{"properties":{"data":{"type":"string"}}}"#.into(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let settings: serde_json::Value =
            serde_json::from_str(json).map_err(|error| error.to_string())?;
        let data = settings["data"].as_str().unwrap_or_default().to_owned();
        Ok(Self { frames: 0, data })
    }

    fn process(&mut self, _: &Frame) -> Result<Output, String> {
        self.frames += 1;
        let event = Event { data: self.data.clone(), ..Event::new("seen") };
        Ok(Output::skipped().with_events(vec![event]))
    }

    fn query(&self, _: &str) -> Result<String, String> {
        Ok(self.frames.to_string())
    }

    fn snapshot(&mut self) -> Vec<u8> {
        vec![self.frames as u8]
    }

    fn restore(&mut self, version: &str, state: &[u8]) -> Result<(), String> {
        match state {
            [frames] if version == "1.0.0" => self.frames = u64::from(*frames),
            _ => return Err("no state".into()),
        }
        Ok(())
    }
}

#[test]
fn a_session_checks_settings_and_hands_over_as_the_host_does() {
    let error = Session::<Counter>::start(r#"{"data":1}"#).err().unwrap();
    assert!(error.contains("settings.data: 1"), "{error}");
    let mut session = Session::<Counter>::start("{}").unwrap();
    for frame in frames(8, 8, 25.0).take(3) {
        session.process(&frame).unwrap();
    }
    assert!(session.swap(r#"{"data":1}"#).is_err());
    session.swap(r#"{"data":"[]"}"#).unwrap();
    assert_eq!(session.query(""), Ok("3".into()));
    let error = session.process(&Frame::solid(8, 8, [0; 3])).unwrap_err();
    assert!(error.contains("data is no JSON object"), "{error}");
    assert!(session.command("").is_err_and(|error| error.contains("takes no commands")));
}

#[test]
fn a_frame_moves_as_the_test_says() {
    let still = halves().motion().unwrap();
    assert!(still.regions.is_empty() && still.share == 0.0 && !still.calibrating);
    let region = |x, width| Rect { x, y: 0.0, width, height: 2.0 };
    let motion = halves().with_motion(&[region(0.0, 1.0), region(4.0, 3.0)]).motion().unwrap();
    assert_eq!(motion.regions.iter().map(|r| r.width).collect::<Vec<_>>(), [3.0, 1.0]);
    assert_eq!(motion.share, 0.25);
    let turned = halves().with_motion(&[region(0.0, 1.0)]).calibrating().motion().unwrap();
    assert!(turned.calibrating && turned.regions.is_empty());
}

#[test]
fn points_go_as_the_test_says() {
    let area = |x, width| Rect { x, y: 0.0, width, height: 4.0 };
    let frame =
        halves().with_flow(area(1.0, 2.0), Some((3.0, 1.0))).with_flow(area(0.0, 4.0), None);
    let points = [0.5, 1.5, 2.5, 5.0, 8.0].map(|x| Point { x, y: 2.5 });
    let found = frame.flow(&points).unwrap();
    let places: Vec<_> = found.iter().map(|point| point.map(|point| (point.x, point.y))).collect();
    assert_eq!(places, [None, Some((4.5, 3.5)), Some((5.5, 3.5)), Some((5.0, 2.5)), None]);
    let many = vec![points[0]; 1025];
    assert!(matches!(frame.flow(&many), Err(FrameError::InvalidSpec(_))));
}

#[test]
fn the_budget_says_what_the_test_has_it_say_and_then_yes() {
    super::budget_says([false, true, false]);
    assert_eq!([0.5, 1.0, 0.0, 0.25].map(budget::ask), [false, true, false, true]);
    assert_eq!(super::budget_asked(), [0.5, 1.0, 0.0, 0.25]);
    assert!(super::budget_asked().is_empty());
}
