//! The pipeline as the host calls it, on scripted frames and outputs of the detector.

use std::time::Duration;

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::models::{DecoderTable, ModelDescription, PictureInput};
use ocelli_sdk::nms::Candidate;
use ocelli_sdk::testing::{self, NamedTensor, Session};
use ocelli_sdk::{Event, Frame, TensorSpec, nanodet};
use serde_json::{Value, json};

use crate::ObjectDetect;
use crate::pictures::{MAX_BYTES, MAX_PICTURES};

const SIZE: (u32, u32) = (768, 576);

fn person(x: f32) -> Candidate {
    Candidate { bbox: BBox::from_xywh(x, 200.0, 60.0, 150.0), class: 0, score: 0.8 }
}

/// What the detector says of these objects.
fn seen(objects: &[Candidate]) -> Vec<NamedTensor> {
    testing::nanodet_outputs(nanodet::DEFAULT, SIZE, objects)
}

/// The events of frames in which the objects are; `each` sees each frame's.
fn run(settings: &Value, looks: &[Vec<Candidate>]) -> Vec<Vec<Event>> {
    testing::model_says(nanodet::DEFAULT.name, looks.iter().map(|objects| seen(objects)));
    let mut session = Session::<ObjectDetect>::start(&settings.to_string()).unwrap();
    let frames = testing::frames(SIZE.0, SIZE.1, 10.0).take(looks.len());
    frames.map(|frame| session.process(&frame).unwrap().events).collect()
}

/// The events of all frames.
fn all(settings: &Value, looks: &[Vec<Candidate>]) -> Vec<Event> {
    run(settings, looks).into_iter().flatten().collect()
}

/// A person that walks through the left half of the picture and out of it.
fn walk() -> Vec<Vec<Candidate>> {
    (0..16u8).map(|n| vec![person(200.0 + 20.0 * f32::from(n))]).collect()
}

fn zone() -> Value {
    json!([{ "name": "left", "polygon": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]] }])
}

fn sizes(event: &Event) -> Vec<(u32, u32)> {
    event.attachments.iter().map(|image| (image.width(), image.height())).collect()
}

#[test]
fn a_person_that_walks_through_a_zone_is_told_of_without_pictures() {
    let events = all(&json!({ "zones": zone() }), &walk());
    let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
    assert_eq!(kinds, ["entered", "zone_entered", "zone_left"]);
    assert!(events.iter().all(|event| event.attachments.is_empty()));
}

#[test]
fn events_have_crops_where_they_are_asked_for() {
    let settings = json!({ "zones": zone(), "pictures": {} });
    let events = all(&settings, &walk());
    let found: Vec<_> =
        events.iter().map(|event| (event.kind.as_str(), event.attachments.len())).collect();
    assert_eq!(found, [("entered", 1), ("zone_entered", 1), ("zone_left", 0)]);
    for event in events.iter().filter(|event| !event.attachments.is_empty()) {
        let region = BBox::from(event.attachments[0].region().unwrap());
        let object = BBox::from(event.detections[0].box_);
        assert!(region.left < object.left && region.bottom > object.bottom);
        assert!(region.iou(&object) > 0.5, "1.3 times each side");
        assert_eq!(event.attachments[0].quality(), 80);
    }
}

#[test]
fn size_quality_and_events_are_those_of_the_settings() {
    let pictures = json!({ "of": "frame", "size": 384, "quality": 55, "events": ["zone_left"] });
    let events = all(&json!({ "zones": zone(), "pictures": pictures }), &walk());
    let with: Vec<_> = events.iter().filter(|event| !event.attachments.is_empty()).collect();
    let [event] = with[..] else { panic!("{with:?}") };
    assert_eq!((event.kind.as_str(), sizes(event)), ("zone_left", vec![(384, 288)]));
    let image = &event.attachments[0];
    assert_eq!((image.quality(), image.region().is_none()), (55, true));
}

#[test]
fn an_object_that_is_gone_has_no_picture() {
    let mut looks = vec![vec![person(100.0)]; 4];
    looks.resize(30, vec![]);
    let pictures = json!({ "events": ["entered", "zone_entered", "zone_left"] });
    let events = all(&json!({ "zones": zone(), "pictures": pictures }), &looks);
    let found: Vec<_> =
        events.iter().map(|event| (event.kind.as_str(), event.attachments.len())).collect();
    assert_eq!(found, [("entered", 1), ("zone_entered", 1), ("zone_left", 0), ("left", 0)]);
}

#[test]
fn the_pictures_of_a_frame_are_bounded_by_number_and_bytes() {
    let crowd: Vec<_> = (0..12u8).map(|n| person(60.0 * f32::from(n))).collect();
    let crops = run(&json!({ "pictures": {} }), &[crowd.clone(), crowd.clone()]);
    let count: usize = crops[1].iter().map(|event| event.attachments.len()).sum();
    assert_eq!((crops[1].len(), count), (12, MAX_PICTURES));

    // A frame 4096 pixels wide takes more than 1 MiB: no picture, and all events.
    let (width, height) = (7680, 4320);
    let large = Candidate { bbox: BBox::from_xywh(900.0, 900.0, 600.0, 1500.0), ..person(0.0) };
    let variant = nanodet::DEFAULT;
    let says = || testing::nanodet_outputs(variant, (width, height), &[large]);
    testing::model_says(variant.name, [says(), says()]);
    let settings = json!({ "pictures": { "of": "frame", "size": 4096 } }).to_string();
    let mut session = Session::<ObjectDetect>::start(&settings).unwrap();
    let mut events = Vec::new();
    for n in 0..2 {
        let frame = Frame::solid(width, height, [0; 3]).at(n, Duration::from_millis(100 * n));
        events.extend(session.process(&frame).unwrap().events);
    }
    let bytes: u64 = events.iter().flat_map(|event| &event.attachments).map(|i| i.size()).sum();
    assert_eq!((events.len(), bytes), (1, 0), "over {MAX_BYTES} bytes");
}

fn gate() -> Value {
    json!([{ "name": "gate", "ends": [[0.5, 0], [0.5, 1]] }])
}

/// The events of a walk through the gate, with the state handed over after so many frames.
fn crossing(settings: &Value, swap: usize) -> Vec<Event> {
    let looks = walk();
    testing::model_says(nanodet::DEFAULT.name, looks.iter().map(|objects| seen(objects)));
    let mut session = Session::<ObjectDetect>::start(&settings.to_string()).unwrap();
    let mut events = Vec::new();
    for frame in testing::frames(SIZE.0, SIZE.1, 10.0).take(looks.len()) {
        if frame.index() == swap as u64 {
            session.swap(&settings.to_string()).unwrap();
        }
        events.extend(session.process(&frame).unwrap().events);
    }
    let counts = session.query(r#""counts""#).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&counts).unwrap(),
        json!({
            "zones": [],
            "lines": [{ "line": "gate", "labels": { "person": { "to_right": 0, "to_left": 1 } } }],
        })
    );
    session.command(r#"{"reset":"counts"}"#).unwrap();
    events
}

#[test]
fn a_person_that_walks_over_a_line_is_told_of_and_counted_whenever_the_state_is_handed_over() {
    for swap in 1..walk().len() {
        let events = crossing(&json!({ "lines": gate(), "pictures": {} }), swap);
        let kinds: Vec<_> = events.iter().map(|event| event.kind.as_str()).collect();
        assert_eq!(kinds, ["entered", "line_crossed"], "{swap}");
        let data: Value = serde_json::from_str(&events[1].data).unwrap();
        let expected =
            json!({ "track": 1, "label": "person", "line": "gate", "direction": "to_left" });
        assert_eq!(data, expected);
        assert_eq!(events[1].attachments.len(), 1);
    }
}

#[test]
fn tracks_go_on_in_another_version() {
    let looks = walk();
    testing::model_says(nanodet::DEFAULT.name, looks.iter().map(|objects| seen(objects)));
    let mut session = Session::<ObjectDetect>::start("{}").unwrap();
    let mut kinds = Vec::new();
    for frame in testing::frames(SIZE.0, SIZE.1, 10.0).take(looks.len()) {
        if frame.index() == 8 {
            session.swap(r#"{"score":0.5}"#).unwrap();
        }
        let output = session.process(&frame).unwrap();
        kinds.extend(output.events.into_iter().map(|event| event.kind));
    }
    assert_eq!(kinds, ["entered"]);
    assert!(session.query(r#""tracks""#).unwrap().contains(r#""track":1"#));
}

/// A model of this many classes and these labels, which sees an object of each class in each frame.
fn described(name: &str, classes: u16, labels: &[&str], frames: usize) {
    let parameters = json!({ "family": "yolov5", "output": "rows", "classes": classes });
    let decoder = DecoderTable { family: "yolov5".into(), parameters: parameters.to_string() };
    let spec = TensorSpec::letterbox(320, 320);
    testing::describe_model(
        name,
        ModelDescription {
            inputs: Vec::new(),
            outputs: Vec::new(),
            picture: Some(PictureInput { name: "images".into(), spec }),
            decoder: Some(decoder),
            labels: labels.iter().map(|&label| label.to_owned()).collect(),
        },
    );
    let row = |class: u16| {
        let scores = (0..classes).map(move |n| f32::from(u8::from(n == class)));
        [40.0 + 80.0 * f32::from(class), 160.0, 30.0, 60.0, 0.9].into_iter().chain(scores)
    };
    let rows: Vec<f32> = (0..classes).flat_map(row).collect();
    let shape = [1, classes.into(), 5 + u32::from(classes)];
    testing::model_says(name, vec![vec![testing::floats("rows", &shape, &rows)]; frames]);
}

/// The labels of the events of six frames, with a swap after the third.
fn labels_through_a_swap(model: &str) -> Vec<Vec<String>> {
    let settings = json!({ "model": model }).to_string();
    let mut session = Session::<ObjectDetect>::start(&settings).unwrap();
    let mut seen = Vec::new();
    for frame in testing::frames(SIZE.0, SIZE.1, 10.0).take(6) {
        if frame.index() == 3 {
            session.swap(&settings).unwrap();
        }
        let output = session.process(&frame).unwrap();
        let detections = output.detections.unwrap_or_default();
        seen.push(detections.into_iter().map(|detection| detection.label).collect());
    }
    seen
}

#[test]
fn a_model_with_fewer_labels_than_classes_finds_what_has_a_label() {
    described("short", 3, &["cup", "plate"], 6);
    assert_eq!(labels_through_a_swap("short"), vec![["cup", "plate"]; 6]);
}

#[test]
fn objects_of_a_model_without_labels_are_called_by_their_class() {
    described("bare", 2, &[], 6);
    assert_eq!(labels_through_a_swap("bare"), vec![["class 0", "class 1"]; 6]);
}
