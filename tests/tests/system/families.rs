//! Models that describe themselves: a detector of each family is added and used, by config alone.

use std::process::{Command, Output, Stdio};

use ocelli_testkit::{Ocelli, onnx, program, root};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::analyze::{analyze, frame};

const DETECTOR: &str = "nanodet-g-416";

/// The default pipeline's.
const USUAL: &str = "nanodet-g-320-int8";

/// Pixels by which an edge of a box may differ from the reference's.
const TOLERANCE: f64 = 3.0;

/// A folder of models with the usual detector, and a config that names it.
struct Models(TempDir);

impl Models {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("models")).unwrap();
        let models = Self(folder);
        std::fs::write(models.0.path().join("ocelli.toml"), models.section()).unwrap();
        models.reference(DETECTOR, DETECTOR, &[]);
        // A worker for single pictures begins with the usual settings.
        models.reference(USUAL, USUAL, &[]);
        models
    }

    fn section(&self) -> String {
        let directory = self.0.path().join("models");
        format!("[models]\ndirectory = {:?}\n", directory.display().to_string())
    }

    /// A bundled model under another name, with another preprocessing.
    fn reference(&self, model: &str, name: &str, changes: &[(&str, &str)]) {
        let (from, to) = (root().join("models").join(model), self.0.path().join("models"));
        let to = to.join(name);
        std::fs::create_dir(&to).unwrap();
        std::fs::copy(from.join("model.onnx"), to.join("model.onnx")).unwrap();
        let mut text = std::fs::read_to_string(from.join("model.toml")).unwrap();
        text = text.replace(&format!("name = {model:?}"), &format!("name = {name:?}"));
        for (from, to) in changes {
            assert!(text.contains(from), "{from} is not in model.toml");
            text = text.replace(from, to);
        }
        std::fs::write(to.join("model.toml"), text).unwrap();
    }

    /// Runs `ocelli models add` with a file of these bytes.
    fn add(&self, name: &str, graph: &[u8], more: &[&str]) -> Output {
        let file = self.0.path().join(format!("{name}.onnx"));
        std::fs::write(&file, graph).unwrap();
        let file = file.to_str().unwrap();
        self.ocelli(&[&["models", "add", file, "--name", name], more].concat())
    }

    fn ocelli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("ocelli"));
        command.args(arguments).arg("--config").arg(self.0.path().join("ocelli.toml"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn manifest(&self, name: &str) -> String {
        let path = self.0.path().join("models").join(name).join("model.toml");
        std::fs::read_to_string(path).unwrap()
    }

    /// A model as `ocelli models list` has it.
    fn listed(&self, name: &str) -> Value {
        let listed = self.ocelli(&["models", "list", "--json"]);
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
        let models = listed["models"].as_array().unwrap();
        models.iter().find(|model| model["name"] == name).unwrap().clone()
    }
}

/// JSON as a query of a URL has it.
fn query(settings: &Value) -> String {
    settings.to_string().bytes().map(|byte| format!("%{byte:02x}")).collect()
}

/// What `object-detect` finds with a model.
async fn found(host: &Ocelli, model: &str, picture: &[u8]) -> Vec<Value> {
    let settings = query(&json!({"model": model, "score": 0.3}));
    let path = format!("object-detect?settings={settings}");
    let (status, answer) = analyze(host, &path, "image/jpeg", picture).await;
    assert_eq!(status, 200, "{model}: {answer}");
    answer["detections"].as_array().unwrap().clone()
}

/// Label, score, and the edges of the box.
fn parts(detection: &Value) -> (&str, f64, [f64; 4]) {
    let side = |n: usize| detection["box"][n].as_f64().unwrap();
    let edges = [side(0), side(1), side(0) + side(2), side(1) + side(3)];
    (detection["label"].as_str().unwrap(), detection["score"].as_f64().unwrap(), edges)
}

/// Each detection of one that is not at the edge of the threshold is in the other.
fn holds(model: &str, these: &[Value], those: &[Value]) {
    let mut compared = 0;
    for detection in these {
        let (label, score, edges) = parts(detection);
        if score < 0.35 {
            continue;
        }
        compared += 1;
        let alike = |other: &&Value| {
            let (name, other, sides) = parts(other);
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE;
            name == label && (other - score).abs() <= 0.02 && edges.iter().zip(&sides).all(near)
        };
        assert!(those.iter().any(|other| alike(&other)), "{model}: {detection} not in {those:?}");
    }
    assert!(compared >= 3, "{model}: a picture with {compared} objects tells little");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detector_of_each_family_finds_the_references_boxes_by_config_alone() {
    let models = Models::new();
    let grey = ("fill = [0, 0, 0]", "fill = [114, 114, 114]");
    let stretched = ("fit = \"letterbox\"", "fit = \"stretch\"");
    models.reference(DETECTOR, "grey", &[grey]);
    models.reference(DETECTOR, "stretched", &[stretched]);
    let labels = models.0.path().join("labels.txt");
    let names = models.listed("grey")["labels"].as_array().unwrap().clone();
    let lines: Vec<_> = names.iter().map(|name| name.as_str().unwrap()).collect();
    std::fs::write(&labels, lines.join("\n")).unwrap();
    let given = ["--labels", labels.to_str().unwrap()];

    let families = [
        ("yolov5", "yolov5", "grey", &[][..]),
        ("yolov8", "yolov8", "grey", &[]),
        ("yolov10", "yolov10", "grey", &[]),
        ("yolox", "yolox", "grey", &given),
        ("detr", "detr", "stretched", &given),
        ("dfine", "detr", "stretched", &given),
        ("ssd", "ssd", "stretched", &given),
    ];
    for (file, family, _, more) in families {
        let added = models.add(file, &onnx::family(file), more);
        let [words, errors] =
            [&added.stdout, &added.stderr].map(|said| String::from_utf8_lossy(said).into_owned());
        assert!(added.status.success() && errors.is_empty(), "{file}: {errors}");
        assert!(words.contains(&format!("decoder: {family}; labels: 80")), "{file}: {words}");
        assert!(models.manifest(file).contains(&format!("family = {family:?}")), "{file}");
        assert_eq!(models.listed(file)["labels"].as_array(), Some(&names), "{file}");
    }
    let shape = &models.listed("yolov8")["inputs"][0]["shape"];
    assert_eq!(shape, &json!([1, 3, 416, 416]), "by imgsz");

    let host = Ocelli::start(&models.section()).await;
    let street = frame("people-576-mjpeg.avi");
    for (file, _, reference, _) in families {
        let reference = found(&host, reference, &street).await;
        let own = found(&host, file, &street).await;
        holds(file, &own, &reference);
        holds(file, &reference, &own);
    }

    // What the settings ask for is held against the model's labels.
    let wrong = query(&json!({"model": "yolov8", "labels": ["persn"]}));
    let wrong = format!("object-detect?settings={wrong}");
    let (status, problem) = analyze(&host, &wrong, "image/jpeg", &street).await;
    assert_eq!(status, 422, "{problem}");
    assert!(problem.to_string().contains("did you mean"), "{problem}");
    let tree = json!({"detect": {"kind": "detector", "model": "yolov8", "labels": ["person"]}});
    let path = format!("cascade?settings={}", query(&tree));
    let (status, answer) = analyze(&host, &path, "image/jpeg", &street).await;
    assert_eq!(status, 200, "{answer}");
    let persons = answer["detections"].as_array().unwrap();
    assert!(!persons.is_empty() && persons.iter().all(|one| one["label"] == "person"), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn single_pictures_need_the_model_that_their_settings_name_and_no_other() {
    let models = Models::new();
    std::fs::remove_dir_all(models.0.path().join("models").join(USUAL)).unwrap();
    let host = Ocelli::start(&models.section()).await;
    let street = frame("people-576-mjpeg.avi");
    let usual = async || analyze(&host, "object-detect", "image/jpeg", &street).await;
    for _ in 0..2 {
        let (status, problem) = usual().await;
        assert_eq!((status, &problem["code"]), (503, &"model_missing".into()), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        for word in [USUAL, "has: nanodet-g-416", "settings.model", "[[analyze.pipelines]]"] {
            assert!(detail.contains(word), "no {word} in {detail}");
        }
        assert!(!found(&host, DETECTOR, &street).await.is_empty());
    }
    // It is there in the end, and needs no other request.
    models.reference(USUAL, USUAL, &[]);
    ocelli_testkit::within(async {
        while usual().await.0 != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_of_no_known_family_is_added_with_what_it_lacks() {
    let models = Models::new();
    let echo = std::fs::read(root().join("tests/models/echo/model.onnx")).unwrap();
    let added = models.add("echo", &echo, &[]);
    let words = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(added.status.success(), "{words}");
    assert_eq!(words.lines().count(), 1, "{words}");
    for word in ["echo", "no [decoder]", "\"y\" [16]"] {
        assert!(words.contains(word), "no {word:?} in {words}");
    }
    assert!(!models.manifest("echo").contains("[decoder]"));

    let host = Ocelli::start(&models.section()).await;
    let street = frame("people-576-mjpeg.avi");
    for (model, word) in [("echo", "no [decoder]"), ("eco", "it has: echo, nanodet-g-320-int8, ")] {
        let path = format!("object-detect?settings={}", query(&json!({"model": model})));
        let (status, problem) = analyze(&host, &path, "image/jpeg", &street).await;
        assert_eq!(status, 422, "{problem}");
        assert!(problem.to_string().contains(word), "{problem}");
    }
}
