//! What an author of pipelines does outside this repository, with the program alone: from an empty
//! folder to a pipeline on a live camera.

mod project;
mod soak;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ocelli_testkit::depth::is_full;
use ocelli_testkit::skip::skip;
use ocelli_testkit::{Cameras, ClientProcess, Ocelli, PipelineFolder, clip, program};

use project::{COMPONENT, Project};
use soak::{MemorySample, Soak};

/// Bytes that a worker may have asked for in a soak beside its component's memory: the allocator's
/// arenas settle.
const WORKER_GROWTH: u64 = 8 << 20;

/// Bytes that a component in JavaScript may grow by in a soak: its engine collects when tens of
/// megabytes of garbage are there.
const NODE_GROWTH: u64 = 64 << 20;

/// `ocelli` as an author has it: from the PATH, in a folder. Cargo takes what this repository's
/// build has fetched.
fn ocelli(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("ocelli"));
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    command.env("CARGO_NET_OFFLINE", "true").env_remove("CARGO_TARGET_DIR");
    // Flags of the test's own build are none of a project's.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// Runs a command to its end: status, standard output and standard error.
fn told(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs a command that goes well; standard output.
fn well(command: &mut Command) -> String {
    let (status, out, error) = told(command);
    assert_eq!(status, 0, "{command:?}: {out}{error}");
    out
}

/// Runs a command that is refused with one line, which says this.
fn refused(command: &mut Command, why: &str) {
    let (status, _, error) = told(command);
    assert_eq!(status, 1, "{command:?}: {error}");
    assert!(error.contains(why) && error.trim_end().lines().count() == 1, "{error}");
}

/// A folder with these programs, which print a line.
fn tools(folder: &Path, lines: &[(&str, &str)]) -> std::path::PathBuf {
    let tools = folder.join("tools");
    std::fs::create_dir_all(&tools).unwrap();
    for (name, line) in lines {
        let path = tools.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho {line}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    tools
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn bad_input_gets_one_line_and_nothing_half_made() {
    let site = tempfile::tempdir().unwrap();
    let new =
        |name: &str, lang: &str| ocelli(site.path(), &["pipeline", "new", name, "--lang", lang]);
    refused(&mut new("gate", "cobol"), "rust, python, js or ts");
    for name in ["../gate", "Gate", "fn", ""] {
        refused(&mut new(name, "rust"), "name");
    }
    assert!(names(site.path()).is_empty());
    well(&mut new("gate", "rust"));
    refused(&mut new("gate", "rust"), "there already");
    assert_eq!(names(site.path()), ["gate"]);
    let mode = std::fs::metadata(site.path().join("gate")).unwrap().permissions().mode();
    assert_eq!(mode & 0o500, 0o500);

    refused(&mut ocelli(site.path(), &["pipeline", "build"]), "no project of a pipeline");
    let gate = site.path().join("gate");
    let build = |path: &Path| {
        let mut build = ocelli(&gate, &["pipeline", "build"]);
        build.env("PATH", path);
        build
    };
    refused(&mut build(Path::new("/nowhere")), "cargo is not installed; this installs it: curl");
    let tools = tools(site.path(), &[("cargo", "cargo 1.95.0"), ("rustc", "/nowhere")]);
    refused(&mut build(&tools), "rustup target add wasm32-wasip2");
    for (manifest, tool) in [("pyproject.toml", "python3"), ("package.json", "node")] {
        let folder = site.path().join(tool);
        std::fs::create_dir(&folder).unwrap();
        let text = if tool == "node" { r#"{"name":"a"}"# } else { "[project]\nname = \"a\"\n" };
        std::fs::write(folder.join(manifest), text).unwrap();
        let mut build = ocelli(&folder, &["pipeline", "build"]);
        let why = format!("{tool} is not installed; this installs it: sudo apt-get install");
        refused(build.env("PATH", &tools), &why);
        assert_eq!(names(&folder), [manifest]);
    }
    assert!(!gate.join("build").exists() && !gate.join("target").exists());
}

/// A host on a live camera, whose picture is a white square on dark grey. What it compiles was not
/// compiled before.
async fn host() -> (Cameras, PipelineFolder, Ocelli) {
    let cameras = Cameras::start(&[], &[("/spot", "spot.mp4")]);
    let store = PipelineFolder::with(&["changeling"]);
    let config = format!(
        "{}[deploy]\nreserve_mb = 0\nprobation_s = 2\n[[cameras]]\nid = \"gate\"\nsource = {:?}\n\
         pipeline = \"changeling\"\n",
        store.section(),
        cameras.url("/spot")
    );
    let cache = store.folder().join("cache").display().to_string();
    let host = Ocelli::start_with(&config, &[("OCELLI__STORE__CACHE", &cache)]).await;
    host.wait_for_session("gate", |session| session["results"].as_u64() > Some(0)).await;
    (cameras, store, host)
}

/// The pipeline of a project finds the square on the live camera.
async fn finds_the_square(host: &Ocelli) {
    let mut client = host.client().await;
    client.subscribe("gate").await;
    let found = client.detections("gate").await;
    let area = &found["detections"][0]["box"];
    for side in [2, 3] {
        assert!((area[side].as_f64().unwrap() - 64.0).abs() <= 4.0, "{found}");
    }
    assert!(!host.events("gate").await.is_empty());
}

/// From an empty folder to a live camera by the commands that a project's README shows, then by
/// `dev`; `tests` are those of the language.
async fn comes_to_life(project: &mut Project, tests: &mut Command, host: &Ocelli) {
    project.build();
    let own = tests.current_dir(project.folder()).env_remove("CARGO_TARGET_DIR");
    well(own.env_remove("RUSTFLAGS"));
    project.play();
    project.test();
    project.deploy(host, "gate");
    finds_the_square(host).await;
    let (status, shown, error) = project.dev(host, &["--state", "fresh"]);
    assert_eq!(status, 0, "{shown}{error}");
    assert!(shown.contains("healthy") && shown.contains("came into view"), "{shown}");
    assert!(shown.contains("  bright 1.00 ["), "{shown}");
    finds_the_square(host).await;
}

/// Minutes of it on the camera. What it cost is printed.
async fn stays_alive(project: &Project, host: &Ocelli, most_growth: u64) {
    let deployments = host.deployments("gate").await;
    let compile_ms = deployments.iter().find_map(|one| one["compile_ms"].as_f64()).unwrap();
    let soak = Soak::of(host, "gate").await;
    eprintln!("{}: {}", project.language, project.times());
    eprintln!(
        "{}: component {:.2} MB, compiled in {:.1} s; {}",
        project.language,
        project.size() as f64 / 1e6,
        compile_ms / 1e3,
        soak.report()
    );
    let (settled, last) = soak.settled_and_last();
    assert!(last.linear <= settled.linear + most_growth, "{settled:?} {last:?}");
    // Beside the component, a worker keeps nothing of a frame.
    let beside = |sample: &MemorySample| sample.private.saturating_sub(sample.linear);
    assert!(beside(&last) <= beside(&settled) + WORKER_GROWTH, "{settled:?} {last:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_folder_to_a_live_camera_in_rust() {
    if !is_full() {
        return skip("a project's dependencies take a minute to build: `./x test --full` does");
    }
    let mut project = Project::new("rust");
    let (_cameras, _store, host) = host().await;
    let mut tests = Command::new("cargo");
    tests.args(["test", "--offline", "--quiet"]);
    comes_to_life(&mut project, &mut tests, &host).await;

    // What does not compile leaves what runs, and what was built.
    let before = host.session("gate").await["deployment"].clone();
    let source = project.path("src/lib.rs");
    let text = std::fs::read_to_string(&source).unwrap();
    std::fs::write(&source, text.replace("let came =", "let came ==")).unwrap();
    let (status, _, error) = project.dev(&host, &[]);
    assert!(status == 1 && error.contains("cargo build failed"), "{error}");
    assert_eq!(host.session("gate").await["deployment"], before);
    assert!(project.path(COMPONENT).is_file());

    // A version that traps is told with the function's name, and the one before comes back.
    let traps = "assert!(frame.index() < 5, \"no more frames\");\n        let came =";
    std::fs::write(&source, text.replace("let came =", traps)).unwrap();
    let (status, out, error) = project.dev(&host, &[]);
    assert_eq!(status, 1, "{out}{error}");
    let told = out + &error;
    assert!(told.contains("it said: panicked at src/lib.rs:"), "{told}");
    assert!(told.contains("no more frames") && told.contains("::process"), "{told}");
    assert!(!told.contains("RUST_BACKTRACE"), "no hint that cannot be followed: {told}");
    host.wait_for_session("gate", |session| session["deployment"] == before).await;
    stays_alive(&project, &host, 0).await;
}

/// Whether a program says that this is so.
fn says_yes(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_folder_to_a_live_camera_in_python() {
    let new = "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))";
    if !is_full() {
        return skip("its compiler comes over the network: `./x test --full`");
    }
    if !says_yes("python3", &["-c", new]) {
        return skip("needs Python 3.10 with venv");
    }
    let mut project = Project::new("python");
    let (_cameras, _store, host) = host().await;
    let mut tests = Command::new("python3");
    tests.args(["-m", "unittest", "discover", "tests"]);
    tests.env("PYTHONPATH", "src:vendor/ocelli-sdk");
    comes_to_life(&mut project, &mut tests, &host).await;
    stays_alive(&project, &host, 0).await;
}

/// Whether Node.js is new enough; else the test is skipped.
fn has_node() -> bool {
    let new = "process.exit(Number(process.versions.node.split('.')[0]) < 20 ? 1 : 0)";
    if !is_full() {
        skip("its compiler comes over the network: `./x test --full`");
        return false;
    }
    if !says_yes("node", &["-e", new]) || !says_yes("npm", &["--version"]) {
        skip("needs Node.js 20 with npm");
        return false;
    }
    true
}

async fn from_an_empty_folder_to_a_live_camera_with_node(language: &'static str) {
    let mut project = Project::new(language);
    let (_cameras, _store, host) = host().await;
    comes_to_life(&mut project, Command::new("npm").arg("test"), &host).await;
    stays_alive(&project, &host, NODE_GROWTH).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_folder_to_a_live_camera_in_javascript() {
    if has_node() {
        from_an_empty_folder_to_a_live_camera_with_node("js").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn from_an_empty_folder_to_a_live_camera_in_typescript() {
    if has_node() {
        from_an_empty_folder_to_a_live_camera_with_node("ts").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_log_gets_each_line_once_until_the_session_ends() {
    let store = PipelineFolder::with(&["changeling"]);
    let source = format!("file:{}", clip("bikes.mp4").display());
    let config = format!(
        "{}[[cameras]]\nid = \"gate\"\nsource = {source:?}\npace = \"realtime\"\nrepeat = true\n\
         pipeline = \"changeling\"\n",
        store.section()
    );
    let host = Ocelli::start(&config).await;
    host.wait_for_session("gate", |session| session["results"].as_u64() > Some(0)).await;
    let url = format!("http://{}", host.address());
    let folder = host.folder().to_owned();
    let mut follower =
        ClientProcess::start(&mut ocelli(&folder, &["logs", "gate", "--follow", "--url", &url]));
    follower.find(|line| line.contains("session state").then_some(())).await;
    host.restart("gate").await;
    let running = |line: &str| (line.contains("session=\"gate\"")).then(|| line.to_owned());
    follower.find(running).await;
    assert_eq!(host.request("DELETE", "/v1/sessions/gate").await.0, 204);
    let (well, shown) = follower.end().await;
    assert!(!well, "a session that has ended has no more lines");
    let file = folder.join("logs/detector_worker_camera_gate.log");
    let file = std::fs::read_to_string(file).unwrap();
    let kept: Vec<&str> = file.lines().collect();
    let shown: Vec<&str> = shown.lines().collect();
    assert!(kept.starts_with(&shown), "each line once, in order:\n{shown:#?}\n{kept:#?}");
    refused(&mut ocelli(&folder, &["logs", "gone", "--url", &url]), "\"gone\"");
}
