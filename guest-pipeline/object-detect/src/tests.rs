//! The pipeline as the host calls it, on scripted frames and outputs of the detector.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::models::{DecoderTable, ModelDescription, PictureInput};
use ocelli_sdk::nms::Candidate;
use ocelli_sdk::testing::{self, NamedTensor, Session};
use ocelli_sdk::{Event, Frame, Output, Source, TensorSpec, nanodet};
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

/// A camera in budget mode, 10 frames a second: a person who walks 20 pixels a frame to the right,
/// seen by the model wherever it looks.
struct Walk {
    session: Session<ObjectDetect>,
    /// What the model sees when it runs, and how often it ran.
    scene: Rc<RefCell<Vec<Candidate>>>,
    ran: Rc<Cell<usize>>,
    next: u64,
}

impl Walk {
    fn start(settings: &Value) -> Self {
        let (scene, ran) = (Rc::<RefCell<Vec<Candidate>>>::default(), Rc::<Cell<usize>>::default());
        let (sees, counts) = (Rc::clone(&scene), Rc::clone(&ran));
        testing::model(nanodet::DEFAULT.name, move |_| {
            counts.set(counts.get() + 1);
            Ok(seen(&sees.borrow()))
        });
        let mut settings = settings.clone();
        settings["mode"] = "budget".into();
        let session = Session::start(&settings.to_string()).unwrap();
        Self { session, scene, ran, next: 0 }
    }

    /// A frame in which the person moves on, if there is one.
    fn step(&mut self, who: Option<f32>) -> Output {
        let n = self.next;
        self.next += 1;
        *self.scene.borrow_mut() = who.map(person).into_iter().collect();
        let frame = Frame::solid(SIZE.0, SIZE.1, [128; 3]).at(n, Duration::from_millis(100 * n));
        let frame = match who.map(|x| person(x).bbox) {
            Some(there) => frame
                .with_motion(&[there.into()])
                .with_flow(BBox { left: there.left - 40.0, ..there }.into(), Some((20.0, 0.0))),
            None => frame,
        };
        self.session.process(&frame).unwrap()
    }
}

fn source(output: &Output) -> Option<(Source, u64)> {
    output.basis.map(|basis| (basis.source, basis.model_age / 1_000_000))
}

#[test]
fn in_budget_mode_there_is_a_box_on_every_frame_and_the_model_runs_for_some() {
    let mut walk = Walk::start(&json!({ "zones": zone(), "runs_per_second": 2 }));
    let mut kinds = Vec::new();
    let mut sources = Vec::new();
    for n in 0..16u8 {
        let x = 200.0 + 20.0 * f32::from(n);
        let output = walk.step(Some(x));
        let found = output.detections.as_deref().unwrap();
        assert_eq!(found.len(), 1, "frame {n}");
        assert!((found[0].box_.x - x).abs() < 1.0, "frame {n}: {} and not {x}", found[0].box_.x);
        kinds.extend(output.events.iter().map(|event| event.kind.clone()));
        sources.push(source(&output).unwrap());
    }
    assert_eq!(kinds, ["entered", "zone_entered", "zone_left"]);
    assert_eq!(walk.ran.get(), sources.iter().filter(|(s, _)| *s == Source::Model).count());
    assert!((3..=5).contains(&walk.ran.get()), "{} runs in 1.6 s", walk.ran.get());
    assert_eq!(sources[..2], [(Source::Model, 0), (Source::Flow, 100)]);
}

#[test]
fn without_time_for_a_run_results_grow_old_and_say_so() {
    let mut walk = Walk::start(&json!({}));
    testing::budget_says(vec![false; 3]);
    for _ in 0..3 {
        let output = walk.step(Some(200.0));
        assert!(output.detections.is_none() && output.basis.is_none(), "nothing is known yet");
    }
    walk.step(Some(200.0));
    walk.step(Some(220.0));
    walk.step(Some(240.0));
    assert!(!testing::budget_asked().is_empty());
    testing::budget_says(vec![false; 50]);
    let ran = walk.ran.get();
    let outputs: Vec<_> = (0..20u8).map(|n| walk.step(Some(260.0 + 20.0 * f32::from(n)))).collect();
    assert_eq!(walk.ran.get(), ran);
    let ages: Vec<_> = outputs.iter().map(|output| source(output).unwrap()).collect();
    assert!(ages.windows(2).all(|pair| pair[1].1 == pair[0].1 + 100), "{ages:?}");
    assert!(ages.iter().all(|(source, _)| *source == Source::Flow));
    assert!(outputs.iter().all(|output| output.detections.as_ref().is_some_and(|d| d.len() == 1)));
    assert!(testing::budget_asked().iter().all(|want| *want > 0.0 && *want <= 1.0));
}

#[test]
fn a_picture_in_which_nothing_moves_costs_next_to_nothing() {
    let mut walk = Walk::start(&json!({}));
    let outputs: Vec<_> = (0..100).map(|_| walk.step(None)).collect();
    assert_eq!(walk.ran.get(), 2, "at the start and after 8 s");
    assert!(outputs.iter().all(|output| output.detections.as_ref().is_some_and(Vec::is_empty)));
    let came = walk.step(Some(200.0));
    assert_eq!((walk.ran.get(), source(&came)), (3, Some((Source::Model, 0))), "at once");
}

#[test]
fn who_is_lost_from_sight_is_predicted_and_then_left_out() {
    let mut walk = Walk::start(&json!({}));
    (0..6u8).for_each(|n| drop(walk.step(Some(200.0 + 20.0 * f32::from(n)))));
    testing::budget_says(vec![false; 30]);
    let dark = |n: u64| {
        let frame = Frame::solid(SIZE.0, SIZE.1, [0; 3]).at(n, Duration::from_millis(100 * n));
        let all = BBox { left: 0.0, top: 0.0, right: SIZE.0 as f32, bottom: SIZE.1 as f32 };
        frame.calibrating().with_flow(all.into(), None)
    };
    let outputs: Vec<_> = (6..20).map(|n| walk.session.process(&dark(n)).unwrap()).collect();
    let counts: Vec<_> =
        outputs.iter().map(|output| output.detections.as_ref().unwrap().len()).collect();
    assert_eq!(counts, [[1; 10].as_slice(), &[0; 4]].concat(), "for a second");
    assert_eq!(outputs[0].basis.unwrap().source, Source::Predicted);
}

#[test]
fn the_mode_may_change_while_a_camera_runs() {
    let mut walk = Walk::start(&json!({}));
    for n in 0..12u8 {
        match n {
            4 => walk.session.swap(r#"{"mode":"every"}"#).unwrap(),
            8 => walk.session.swap(r#"{"mode":"budget"}"#).unwrap(),
            _ => (),
        }
        let output = walk.step(Some(200.0 + 20.0 * f32::from(n)));
        let found = output.detections.unwrap();
        assert_eq!(found.len(), 1, "frame {n}");
        assert_eq!(found[0].track, (n > 0).then_some(1).filter(|_| n > 1), "frame {n}");
        assert_eq!(output.basis.is_none(), (4..8).contains(&n), "every: nothing is said");
    }
}

#[test]
fn who_is_gone_between_two_runs_is_looked_for_although_nothing_moves_any_more() {
    let mut walk = Walk::start(&json!({ "runs_per_second": 2 }));
    (0..6u8).for_each(|n| drop(walk.step(Some(200.0 + 20.0 * f32::from(n)))));
    let ran = walk.ran.get();
    let boxes: Vec<_> =
        (0..8).map(|_| walk.step(None).detections.unwrap_or_default().len()).collect();
    assert!(walk.ran.get() > ran, "a run when the picture came to rest");
    assert_eq!(boxes.last(), Some(&0), "{boxes:?}");
}
