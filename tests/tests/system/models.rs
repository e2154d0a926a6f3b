//! Models: on the command line, on the API, and in a folder that changes while the host runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use ocelli_testkit::skip::skip;
use ocelli_testkit::{DEADLINE, Ocelli, Process, clip, program, root, run_to_end};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::{SLOW, camera};

const DETECTOR: &str = "nanodet-g-320-int8";

/// A folder of models with the detector alone, and a config that names it.
struct Site {
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let own = folder.path().join("models").join(DETECTOR);
        std::fs::create_dir_all(&own).unwrap();
        for file in ["model.toml", "model.onnx"] {
            std::fs::copy(root().join("models").join(DETECTOR).join(file), own.join(file)).unwrap();
        }
        std::fs::write(folder.path().join("ocelli.toml"), config(folder.path())).unwrap();
        Self { folder }
    }

    fn model(&self, name: &str) -> PathBuf {
        self.folder.path().join("models").join(name)
    }

    /// Runs a command with the site's config.
    fn ocelli(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(program("ocelli"));
        command.args(arguments).arg("--config").arg(self.folder.path().join("ocelli.toml"));
        command.stdin(Stdio::null()).output().unwrap()
    }

    fn done(&self, arguments: &[&str]) -> String {
        let output = self.ocelli(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", words(&output));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs a command that fails with these words.
    fn refused(&self, arguments: &[&str], expected: &[&str]) {
        let output = self.ocelli(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", words(&output));
        for text in expected {
            assert!(
                words(&output).contains(text),
                "{arguments:?}: no {text:?} in {}",
                words(&output)
            );
        }
    }

    /// Every folder in the models' folder, those with a dot too.
    fn folders(&self) -> Vec<String> {
        let folders = std::fs::read_dir(self.folder.path().join("models")).unwrap();
        let mut names: Vec<_> =
            folders.map(|folder| folder.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_unstable();
        names
    }
}

fn config(site: &Path) -> String {
    format!("[models]\ndirectory = {:?}\n", site.join("models").display().to_string())
}

fn words(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

async fn models(host: &Ocelli) -> Value {
    serde_json::from_str(&host.get("/v1/models").await).unwrap()
}

/// Asks for the models until they are as they should be.
async fn models_become(host: &Ocelli, good: impl Fn(&Value) -> bool) -> Value {
    let begun = Instant::now();
    loop {
        let models = models(host).await;
        if good(&models) {
            return models;
        }
        assert!(begun.elapsed() < DEADLINE, "the models stay {models}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Looks at the inference processes that serve until they are as they should be.
async fn inference_becomes(host: &Ocelli, good: impl Fn(&[Process]) -> bool) {
    let begun = Instant::now();
    loop {
        let serving = host.inference().await;
        if good(&serving) {
            return;
        }
        assert!(begun.elapsed() < DEADLINE, "these serve: {serving:?}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

async fn logged(host: &Ocelli, words: &[&str]) {
    let holds = |line: &str| words.iter().all(|word| line.contains(word)).then_some(());
    let found = timeout(DEADLINE, host.log().find(holds)).await;
    found.unwrap_or_else(|_| panic!("nothing in the log holds {words:?}")).expect("the host lives");
}

#[test]
fn a_file_is_added_listed_inspected_and_replaced() {
    let site = Site::new();
    let file = site.model(DETECTOR).join("model.onnx");
    let file = file.to_str().unwrap();
    let labels = site.folder.path().join("labels.txt");
    std::fs::write(&labels, (0..80).map(|number| format!("class {number}\n")).collect::<String>())
        .unwrap();
    let add = [
        "models",
        "add",
        file,
        "--name",
        "eye",
        "--licence",
        "MIT",
        "--source",
        "a test",
        "--labels",
    ];
    let add = [add.as_slice(), &[labels.to_str().unwrap()]].concat();
    assert!(site.done(&add).contains("inputs: 1, outputs: 6"));
    assert_eq!(site.folders(), ["eye", DETECTOR]);
    site.refused(&add, &["eye exists", "--replace"]);
    site.done(&[add.as_slice(), &["--replace", "--description", "the second"]].concat());
    assert_eq!(site.folders(), ["eye", DETECTOR]);

    let list: Value = serde_json::from_str(&site.done(&["models", "list", "--json"])).unwrap();
    let (eye, detector) = (&list["models"][0], &list["models"][1]);
    assert_eq!((&eye["name"], &eye["description"]), (&"eye".into(), &"the second".into()));
    assert_eq!((&eye["licence"], &eye["source"]), (&"MIT".into(), &"a test".into()));
    assert_eq!(eye["labels"].as_array().unwrap().len(), 80);
    assert_eq!((&eye["inputs"], &eye["sha256"]), (&detector["inputs"], &detector["sha256"]));
    assert_eq!(eye["decoder"]["family"], "nanodet", "{eye}");
    assert_eq!(eye["preprocessing"]["channels"], "bgr", "{eye}");
    assert_eq!(eye["lacks"], Value::Null);
    assert!(site.done(&["models", "list"]).contains("input f32 [1, 3, 320, 320]  nanodet  80"));

    for what in ["eye", file] {
        let told: Value =
            serde_json::from_str(&site.done(&["models", "inspect", what, "--json"])).unwrap();
        assert_eq!(told["inputs"][0]["shape"], serde_json::json!([1, 3, 320, 320]), "{what}");
        assert_eq!(told["sha256"], detector["sha256"], "{what}");
        assert_eq!(told["operators"]["Conv"], 34, "{what}");
    }
    let inspected = site.done(&["models", "inspect", "eye"]);
    for words in [
        "operators: ",
        "preprocessing: bgr, ",
        "decoder: nanodet: ",
        "labels: 80: class 0, ",
        "model.toml agrees",
    ] {
        assert!(inspected.contains(words), "{inspected}");
    }
    assert!(site.done(&["check"]).contains("models: 2"));
}

#[test]
fn what_is_no_model_is_refused_by_name_and_leaves_nothing() {
    let site = Site::new();
    let file = site.folder.path().join("half.onnx");
    let whole = std::fs::read(site.model(DETECTOR).join("model.onnx")).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let half = file.to_str().unwrap();
    site.refused(&["models", "add", half, "--name", "half"], &["half.onnx", "no model"]);
    site.refused(&["models", "inspect", half], &["half.onnx", "no model"]);
    site.refused(&["models", "add", "/nowhere.onnx", "--name", "half"], &["/nowhere.onnx"]);
    for name in ["../half", ".half", "", "a/b", "ä"] {
        site.refused(&["models", "add", half, "--name", name], &["--name"]);
    }
    site.refused(&["models", "inspect", "half"], &["half", DETECTOR]);
    assert_eq!(site.folders(), [DETECTOR]);
}

#[test]
fn a_description_that_differs_from_its_file_is_named_with_both_shapes() {
    let site = Site::new();
    let manifest = site.model(DETECTOR).join("model.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("[1, 400, 80]", "[1, 401, 80]")).unwrap();
    let expected = ["cls_s16", "[1, 401, 80]", "[1, 400, 80]"];
    site.refused(&["models", "inspect", DETECTOR], &expected);
    site.refused(&["check"], &expected);
    std::fs::write(&manifest, text + "\n[embedding]\noutput = \"reg_s8\"\ndimension = 45\n")
        .unwrap();
    let expected = ["reg_s8", "45", "[1, 1600, 44]"];
    site.refused(&["models", "inspect", DETECTOR], &expected);
    site.refused(&["models", "list"], &expected);
    site.refused(&["check"], &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_changes_is_offered_anew_and_costs_no_session_anything() {
    let site = Site::new();
    let source = format!("file:{}", clip("people-576-high-b3.mp4").display());
    let cameras = camera("cam", &source, &format!("pace = \"realtime\"\nrepeat = true\n{SLOW}"));
    let preload = format!("[inference]\npreload = [{DETECTOR:?}]\n");
    let host = Ocelli::start(&(config(site.folder.path()) + &preload + &cameras)).await;
    let mut client = host.client().await;
    client.subscribe("cam").await;
    client.detections("cam").await;

    let told = models_become(&host, |models| models["models"][0]["state"] == "loaded").await;
    assert_eq!(told["runtime"]["version"], "1.28.0");
    let detector = &told["models"][0];
    assert_eq!((&told["catalog_version"], &detector["name"]), (&0.into(), &DETECTOR.into()));
    assert_eq!((&detector["device"], &detector["fallback"]), (&"cpu".into(), &"none".into()));
    assert_eq!(detector["runs_on"][0]["provider"], "CPUExecutionProvider");
    assert!(
        detector["runs_on"][0]["nodes"].as_u64().unwrap() > 50 && detector["fell_back"].is_null()
    );

    let file = site.model(DETECTOR).join("model.onnx");
    let add = ["models", "add", file.to_str().unwrap(), "--name", "second"];
    site.done(&add);
    logged(&host, &["model second added"]).await;
    let told = models_become(&host, |models| models["catalog_version"] == 1).await;
    assert_eq!(told["models"][1]["name"], "second");

    // In place, as a careless copy does it: neither the session nor a new inference process may see
    // it.
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    logged(&host, &["the models are not offered", DETECTOR, "sha256"]).await;
    // The second to go was started after the file was spoilt.
    for _ in 0..2 {
        let serving = host.inference().await;
        let killed: Vec<u32> = serving.iter().map(|process| process.pid).collect();
        serving.iter().for_each(|process| process.signal(Signal::KILL));
        inference_becomes(&host, |now| now.iter().all(|process| !killed.contains(&process.pid)))
            .await;
        let results = host.session("cam").await["results"].as_u64();
        host.wait_for_session("cam", |session| {
            session["results"].as_u64() > results.map(|many| many + 2)
        })
        .await;
    }
    std::fs::write(&file, whole).unwrap();
    std::fs::remove_dir_all(site.model("second")).unwrap();
    logged(&host, &["model second removed"]).await;
    client.detections("cam").await;
    assert_eq!(host.session("cam").await["restarts"], 0);
}

/// Whether this machine has what these tests expect it to lack.
fn has_gpu() -> bool {
    let has = Path::new("/dev/nvidiactl").exists();
    if has {
        skip("this machine has an NVIDIA device");
    }
    has
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_is_not_usable_is_refused_at_start_in_the_providers_words() {
    if has_gpu() {
        return;
    }
    for device in ["cuda:0", "tensorrt:0", "openvino"] {
        let site = Site::new();
        let exit = run_to_end(
            &(config(site.folder.path()) + &format!("[inference]\ndevice = {device:?}\n")),
        )
        .await;
        assert_eq!(exit.status, Some(1), "{}", exit.stderr);
        for text in [device, DETECTOR, "in this build", "fallback = \"cpu\"", "inference.device"] {
            assert!(exit.stderr.contains(text), "no {text:?} in {}", exit.stderr);
        }
    }
}

#[test]
fn the_check_of_devices_says_why_it_is_skipped_where_there_is_none() {
    if has_gpu() {
        return;
    }
    for (more, status) in [(None, 0), (Some("--require"), 1)] {
        let mut check = Command::new("python3");
        check.arg(root().join("tests/gpu/run")).args(more);
        check.arg("--programs").arg(program("ocelli").parent().unwrap());
        let output = check.stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{}", words(&output));
        assert!(words(&output).starts_with("SKIPPED: no NVIDIA device: "), "{}", words(&output));
        let skips = words(&output).lines().filter(|line| line.starts_with("SKIPPED: ")).count();
        assert_eq!((skips, words(&output).lines().count()), (2, 2), "{}", words(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processor_takes_over_where_it_may_and_the_api_says_so() {
    if has_gpu() {
        return;
    }
    let site = Site::new();
    let inference =
        format!("[inference]\ndevice = \"cuda:0\"\nfallback = \"cpu\"\npreload = [{DETECTOR:?}]\n");
    let host = Ocelli::start(&(config(site.folder.path()) + &inference)).await;
    let told = models_become(&host, |models| models["models"][0]["state"] == "loaded").await;
    let detector = &told["models"][0];
    assert_eq!((&detector["device"], &detector["fallback"]), (&"cuda:0".into(), &"cpu".into()));
    assert_eq!(detector["runs_on"].as_array().unwrap().len(), 1);
    assert_eq!(detector["runs_on"][0]["provider"], "CPUExecutionProvider");
    assert!(detector["fell_back"].as_str().unwrap().contains("CUDA"), "{detector}");
}
