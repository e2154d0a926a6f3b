//! What a tree may be, and what is said of one that it may not be.

use super::*;
use crate::objects::{MAX_BATCH, MAX_CROPS};
use crate::settings::{default_tree, schema};
use ocelli_sdk::models::{DecoderTable, PictureInput};
use ocelli_sdk::testing::Schema;
use serde_json::{Value, json};

/// Reads settings where the host has no model.
fn read(settings: &str) -> Result<Tree, String> {
    Tree::read(settings, &|name| Err(format!("no model {name}")))
}

/// Settings with these stages below a nanodet that looks for cars and persons.
fn with(stages: Value) -> String {
    let detect = json!({"kind": "nanodet", "labels": ["car", "person"]});
    json!({"detect": detect, "stages": stages}).to_string()
}

fn classifier(name: &str, labels: &[&str], stages: Value) -> Value {
    json!({"kind": "classifier", "model": "m", "as": name, "labels": labels, "stages": stages})
}

#[test]
fn without_settings_it_is_person_face_age_and_gender() {
    let tree = read("{}").unwrap();
    assert!(
        matches!(&tree.detect.detector, Detector::Nanodet { variant, .. } if variant.name == "nanodet-g-320-int8")
    );
    let stages = tree.stages();
    let [face, reading] = stages[..] else { panic!("{stages:?}") };
    assert_eq!(
        (face.name.as_str(), face.number, reading.name.as_str(), reading.number),
        ("face", 0, "face", 1)
    );
    assert!(
        matches!(&reading.work, StageModel::Faceres { model, embedding: false } if model == "faceres-224")
    );
    let person = |score| Roi { label: "person".into(), score, bbox: BBox::default() };
    assert!(face.takes(&person(0.5)) && !face.takes(&person(0.49)) && !reading.takes(&person(0.9)));
    assert_eq!(tree.max_crops, 32);
}

#[test]
fn keys_apart_from_the_tree_leave_the_default_tree() {
    let tree = read(r#"{"max_crops": 4, "max_results_per_second": 2}"#).unwrap();
    assert_eq!(
        (tree.stages().len(), tree.max_crops, tree.max_results_per_second),
        (2, 4, Some(2.0))
    );
    let detector = read(r#"{"detect": {"kind": "centerface"}}"#).unwrap();
    assert!(detector.stages.is_empty(), "a tree of one's own has the stages that it names");
}

#[test]
fn names_of_stages_below_come_after_a_dot() {
    let body = classifier("body", &["van"], json!([]));
    let tree = read(&with(json!([classifier("brand", &["a", "b"], json!([body]))]))).unwrap();
    let names: Vec<_> = tree.stages().iter().map(|stage| stage.name.clone()).collect();
    assert_eq!(names, ["brand", "brand.body"]);
}

/// A host with a detector of cups and plates, a classifier, and a model that nothing is known of.
fn describe(name: &str) -> Result<ModelDescription, String> {
    let parameters = match name {
        "dishes" => r#"{"family":"yolov8","output":"output0","classes":2}"#,
        "material" => r#"{"family":"classifier","output":"probabilities","activation":"none"}"#,
        "blob" => "",
        _ => return Err(format!("the host has no model {name:?}; it has: blob, dishes, material")),
    };
    let family = if name == "dishes" { "yolov8" } else { "classifier" };
    let known = !parameters.is_empty();
    let words: &[&str] = match name {
        "dishes" => &["cup", "plate"],
        "material" => &["glass", "steel"],
        _ => &[],
    };
    Ok(ModelDescription {
        inputs: vec![],
        outputs: vec![],
        picture: known.then(|| PictureInput {
            name: "images".into(),
            spec: TensorSpec { fit: Fit::Stretch, ..TensorSpec::letterbox(320, 256) },
        }),
        decoder: known
            .then(|| DecoderTable { family: family.into(), parameters: parameters.into() }),
        labels: words.iter().map(|&word| word.to_owned()).collect(),
    })
}

#[test]
fn any_detector_that_describes_itself_and_a_classifier_need_no_more_than_their_names() {
    let settings = json!({
        "detect": {"kind": "detector", "model": "dishes", "labels": ["cup"]},
        "stages": [{"kind": "classifier", "model": "material", "as": "material", "for": ["cup"],
            "stages": [{"kind": "faceres", "for": ["steel"]}]}]
    });
    let tree = Tree::read(&settings.to_string(), &describe).unwrap();
    let Detector::Described { detector, wanted } = &tree.detect.detector else { panic!() };
    assert_eq!(
        (detector.input.as_str(), [0, 1].map(|c| wanted.wants(c))),
        ("images", [true, false])
    );
    assert_eq!((tree.detect.score, tree.detect.iou), (0.4, 0.5));
    let StageModel::Classifier(found) = &tree.stages[0].work else { panic!() };
    assert_eq!(found.labels, ["glass", "steel"]);
    assert_eq!((found.input_name.as_str(), found.output.as_str()), ("images", "probabilities"));
    assert_eq!((found.input.width, found.input.fit), (320, Fit::Stretch));
    assert_eq!(found.activation, Activation::None);
    assert_eq!(Schema::read(&schema().to_string()).unwrap().check(&settings.to_string()), Ok(()));

    let own = json!({
        "detect": {"kind": "detector", "model": "dishes"},
        "stages": [{"kind": "classifier", "model": "material", "as": "m", "labels": ["a", "b", "c"],
            "output": "o", "activation": "softmax", "input": {"width": 96, "height": 64}}]
    });
    let tree = Tree::read(&own.to_string(), &describe).unwrap();
    let StageModel::Classifier(found) = &tree.stages[0].work else { panic!() };
    assert_eq!((found.labels.len(), found.input.width), (3, 96), "the settings go first");
    assert_eq!((found.output.as_str(), found.activation), ("o", Activation::Softmax));

    let detect = |detect: Value| json!({"detect": detect}).to_string();
    for (settings, words) in [
        (detect(json!({"kind": "detector"})), "settings.detect.model: is missing"),
        (
            detect(json!({"kind": "detector", "model": "none"})),
            "settings.detect.model: the host has no model \"none\"; it has: blob, dishes, material",
        ),
        (
            detect(json!({"kind": "detector", "model": "blob"})),
            "settings.detect.model: model blob: its model.toml has no [decoder]",
        ),
        (
            detect(json!({"kind": "detector", "model": "material"})),
            "settings.detect.model: model material: it is a classifier",
        ),
        (
            detect(json!({"kind": "detector", "model": "dishes", "labels": ["cop"]})),
            "settings.detect.labels[0]: no label \"cop\", did you mean \"cup\"?",
        ),
        (
            with(json!([{"kind": "classifier", "model": "blob", "as": "x"}])),
            "settings.stages[0].labels: is missing",
        ),
    ] {
        let error = Tree::read(&settings, &describe).unwrap_err();
        assert!(error.contains(words), "{settings} gave {error:?}");
    }
}

#[test]
fn a_crop_is_squared_and_then_enlarged() {
    let crop = CropRule { expand: 1.2, square: true };
    let BBox { left, top, right, bottom } = crop.about(&BBox::from_xywh(10.0, 10.0, 20.0, 40.0));
    for (got, want) in [(left, -4.0), (top, 6.0), (right, 44.0), (bottom, 54.0)] {
        assert!((got - want).abs() < 1e-4, "{got} for {want}");
    }
}

#[test]
fn a_wrong_tree_is_answered_with_the_path_to_the_key() {
    let face = |extra: Value| {
        let mut stage = json!({"kind": "centerface"});
        stage.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        stage
    };
    let deep =
        (0..4).fold(json!([]), |below, n| json!([classifier(&format!("c{n}"), &["x"], below)]));
    let deep = json!([classifier("top", &["x"], deep)]);
    let many: Vec<_> = (0..17).map(|n| face(json!({"as": format!("face{n}")}))).collect();
    let cases = [
        (r#"{"detect":{"kind":"yolo"}}"#.into(), "settings.detect.kind: unknown variant `yolo`"),
        (r#"{"detect":{}}"#.into(), "settings.detect: missing field `kind`"),
        (r#"{"stages":[]}"#.into(), "settings.detect: is missing"),
        (
            r#"{"detect":{"kind":"nanodet","model":"nanodet"}}"#.into(),
            "settings.detect.model: no model \"nanodet\"",
        ),
        (r#"{"detect":{"kind":"nanodet","score":2}}"#.into(), "settings.detect.score: 2 "),
        (
            r#"{"detect":{"kind":"nanodet","labels":["persn"]}}"#.into(),
            "settings.detect.labels[0]: no label \"persn\", did you mean \"person\"?",
        ),
        (
            r#"{"detect":{"kind":"nanodet","size":[32,32]}}"#.into(),
            "settings.detect.size: belongs to the kind \"centerface\"",
        ),
        (r#"{"max_crops":0}"#.into(), "settings.max_crops: 0 "),
        (with(json!([{"model": "x"}])), "settings.stages[0]: missing field `kind`"),
        (
            with(json!([face(json!({"for": ["bus"]}))])),
            "settings.stages[0].for[0]: no label \"bus\"; there are \"person\", \"car\"",
        ),
        (
            with(json!([face(json!({"crop": {"expand": "big"}}))])),
            "settings.stages[0].crop.expand: invalid type",
        ),
        (with(json!([face(json!({"crop": {"expand": 0}}))])), "settings.stages[0].crop.expand: 0 "),
        (with(json!([face(json!({"min_score": -1}))])), "settings.stages[0].min_score: -1 "),
        (with(json!([face(json!({"size": [100, 100]}))])), "settings.stages[0].size: [100, 100]"),
        (
            with(json!([face(json!({"top": 2}))])),
            "settings.stages[0].top: belongs to the kind \"classifier\", this one is \
                \"centerface\"",
        ),
        (with(json!([face(json!({"as": "a.b"}))])), "settings.stages[0].as: \"a.b\""),
        (
            with(json!([face(json!({})), face(json!({}))])),
            "settings.stages[1].as: another stage gives the attribute \"face\"",
        ),
        (
            with(json!([face(json!({"stages": [{"kind": "faceres", "for": ["fase"]}]}))])),
            "settings.stages[0].stages[0].for[0]: no label \"fase\", did you mean \"face\"?",
        ),
        (
            with(json!([{"kind": "faceres", "stages": [face(json!({}))]}])),
            "settings.stages[0].stages: a stage of the kind \"faceres\"",
        ),
        (
            with(
                json!([{"kind": "faceres", "embedding": true}, {"kind": "faceres", "as": "b", "embedding": true}]),
            ),
            "settings.stages[1].embedding",
        ),
        (
            with(json!([{"kind": "classifier", "as": "brand", "labels": ["a"]}])),
            "settings.stages[0].model: is missing",
        ),
        (
            with(json!([{"kind": "classifier", "model": "m", "labels": ["a"]}])),
            "settings.stages[0].as: is missing",
        ),
        (
            with(json!([{"kind": "classifier", "model": "m", "as": "brand"}])),
            "settings.stages[0].labels: is missing",
        ),
        (
            with(
                json!([{"kind": "classifier", "model": "m", "as": "brand", "labels": ["a"], "top": 2}]),
            ),
            "settings.stages[0].top: 2 is not 1 to 1",
        ),
        (
            with(
                json!([{"kind": "classifier", "model": "m", "as": "brand", "labels": ["a"], "batch": 9}]),
            ),
            "settings.stages[0].batch: 9 ",
        ),
        (
            with(
                json!([{"kind": "classifier", "model": "m", "as": "brand", "labels": ["a"], "input": {"std": [1, 0, 1]}}]),
            ),
            "settings.stages[0].input.std",
        ),
        (
            with(
                json!([{"kind": "classifier", "model": "m", "as": "brand", "labels": ["a"], "input": {"width": 0}}]),
            ),
            "settings.stages[0].input.width: 0 ",
        ),
        (with(deep), "settings.stages[0].stages[0].stages[0].stages[0].stages: at most 4 stages"),
        (with(json!(many)), "settings.stages[16]: at most 16 stages"),
    ];
    for (json, expected) in cases {
        let error = read(&json).unwrap_err();
        assert!(error.contains(expected), "{json} gave {error:?}, not {expected:?}");
    }
}

#[test]
fn the_schema_knows_every_key_and_holds_the_default() {
    let schema = schema();
    assert_eq!(schema["default"], default_tree());
    let keys =
        |object: &Value| -> Vec<String> { object.as_object().unwrap().keys().cloned().collect() };
    // The error for an unknown key lists all known ones.
    let cases = [
        (&schema["properties"], r#"{"?":0}"#.to_owned()),
        (&schema["properties"]["detect"]["properties"], r#"{"detect":{"?":0}}"#.to_owned()),
        (&schema["$defs"]["stage"]["properties"], with(json!([{"?": 0}]))),
        (
            &schema["$defs"]["stage"]["properties"]["crop"]["properties"],
            with(json!([{"crop": {"?": 0}}])),
        ),
        (
            &schema["$defs"]["stage"]["properties"]["input"]["properties"],
            with(json!([{"input": {"?": 0}}])),
        ),
    ];
    for (object, json) in cases {
        let (keys, error) = (keys(object), read(&json).unwrap_err());
        // "expected one of" all, or "expected `a` or `b`"; the first pair of ticks is the unknown
        // key's.
        assert_eq!(error.matches('`').count(), 2 * (keys.len() + 1), "{error}");
        assert!(keys.iter().all(|key| error.contains(&format!("`{key}`"))), "{error}");
    }
}

#[test]
fn the_schema_takes_the_trees_of_the_page_of_built_in_pipelines() {
    let schema = Schema::read(&schema().to_string()).unwrap();
    let page = include_str!("../../../docs/built-in-pipelines.md");
    let examples = page.split("```json\n").skip(1).filter_map(|rest| rest.split("```").next());
    let trees: Vec<&str> = examples.filter(|json| json.contains("\"detect\"")).collect();
    assert!(trees.len() >= 2, "{trees:?}");
    let every_key = json!({
        "detect": {"kind": "centerface", "model": "centerface", "score": 0.5, "iou": 0.3, "size": [416, 256]},
        "stages": [
            {"kind": "faceres", "model": "faceres-224", "for": ["face"], "min_score": 0, "crop": {"expand": 1.2, "square": true},
             "embedding": true, "stages": []},
            {"kind": "classifier", "model": "mood", "as": "mood", "labels": ["glad", "sad"], "top": 2, "activation": "sigmoid",
             "batch": 8, "output": "probs", "input": {"name": "x", "width": 96, "height": 64, "channels": "bgr",
             "fit": "stretch", "fill": [0, 0, 0], "mean": [0, 0, 0], "std": [1, 1, 1]}}
        ],
        "max_crops": 8,
        "max_results_per_second": null
    });
    let every_key = every_key.to_string();
    for settings in trees.into_iter().chain([
        "{}",
        "{\"max_crops\":4,\"max_results_per_second\":2}",
        &every_key,
    ]) {
        assert_eq!(schema.check(settings), Ok(()), "{settings}");
        // A placeholder of the page stands for the classes of a model; three of them are asked for.
        let filled = settings.replace("[\"...\"]", "[\"a\",\"b\",\"c\"]");
        assert!(read(&filled).is_ok(), "{filled}");
    }
}

#[test]
fn the_largest_trees_fit_the_schema() {
    // As many stages below each other as may be, the rest beside the last, each with the labels of
    // ImageNet's larger set.
    let labels: Vec<_> = (0..21_841).map(|n| format!("label {n}")).collect();
    let stage = |n: usize, stages: Value| {
        json!({
            "kind": "classifier", "model": "m", "as": format!("stage-{n}"), "labels": labels,
            "for": if n == 1 { vec!["person"] } else { vec!["label 21840"] }, "min_score": 1,
            "crop": {"expand": 10, "square": true}, "top": labels.len(), "activation": "none",
            "batch": MAX_BATCH, "output": "o", "stages": stages,
            "input": {"name": "i", "width": 96, "height": 64, "channels": "bgr", "fit": "stretch",
                "fill": [0, 0, 0], "mean": [0, 0, 0], "std": [1, 1, 1]}
        })
    };
    let last: Vec<_> = (MAX_DEPTH..=MAX_STAGES).map(|n| stage(n, json!([]))).collect();
    let stages = (1..MAX_DEPTH).rev().fold(json!(last), |below, n| json!([stage(n, below)]));
    let detect = json!({"kind": "nanodet", "model": "nanodet-g-416", "score": 1, "iou": 1,
        "labels": ocelli_sdk::labels::COCO_80.to_vec()});
    let largest = json!({"detect": detect, "stages": stages, "max_crops": MAX_CROPS,
        "max_results_per_second": 1e9});
    let largest = largest.to_string();
    assert_eq!(read(&largest).map(|tree| tree.stages().len()), Ok(MAX_STAGES));
    assert_eq!(Schema::read(&schema().to_string()).unwrap().check(&largest), Ok(()));
}

#[test]
fn the_schema_refuses_at_every_depth_what_is_no_setting() {
    let schema = Schema::read(&schema().to_string()).unwrap();
    let face = |extra: Value| with(json!([{"kind": "centerface", "stages": [extra]}]));
    let cases = [
        (r#"{"crops":1}"#.to_owned(), "crops"),
        (r#"{"detect":{"kind":"yolo"}}"#.to_owned(), ".detect.kind"),
        (r#"{"detect":{"kind":"nanodet","score":0}}"#.to_owned(), ".detect.score"),
        (face(json!({"kind": "faceres", "min_score": 2})), ".stages[0].stages[0].min_score"),
        (face(json!({"kind": "faceres", "crops": 1})), "crops"),
        (face(json!({"kind": "classifier", "labels": []})), ".stages[0].stages[0].labels"),
        (
            face(json!({"kind": "classifier", "input": {"width": 0}})),
            ".stages[0].stages[0].input.width",
        ),
        (face(json!({})), ".stages[0].stages[0]"),
    ];
    for (settings, place) in cases {
        let error = schema.check(&settings).unwrap_err();
        assert!(error.contains(place), "{settings}: {error}");
        assert!(read(&settings).is_err(), "{settings}");
    }
}
