//! `ocelli pipeline run` and `ocelli pipeline test`: a pipeline on recordings, without a host.

use std::path::Path;
use std::process::{Command, Stdio};

use ocelli_testkit::{built_in_pipeline, clip, guest, program, root};
use serde_json::Value;

/// The exit status of a command of `ocelli pipeline`, and what it prints on both ways out.
fn pipeline(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(program("ocelli"));
    command.arg("pipeline").args(arguments).current_dir(folder).stdin(Stdio::null());
    let output = command.env("ORT_DISABLE_TELEMETRY", "1").output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What `ocelli probe` says of a video.
fn probed(video: &Path) -> Value {
    let output =
        Command::new(program("ocelli")).args(["probe", text(video), "--json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn every_frame_of_a_clip_is_processed_and_what_is_found_is_written_and_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let models = root().join("models");
    let settings = r#"{"zones": [{"name": "gate", "polygon": [[0, 0], [1, 0], [0.5, 1]]}]}"#;
    let detect = built_in_pipeline("object-detect");
    let clip = clip("people-576-high.mp4");
    let (status, printed, said) = pipeline(
        folder,
        &[
            "run",
            text(&detect),
            "--video",
            text(&clip),
            "--models",
            text(&models),
            "--settings",
            settings,
            "--json",
            "out.jsonl",
            "--annotate",
            "out.mp4",
        ],
    );
    assert_eq!(status, Some(0), "{printed}{said}");
    for figure in [
        "frames       100 processed, 0 of them not looked at; 0 failed; 0 not decoded\n",
        "in the guest p50 ",
        "inference    p50 ",
        " MiB of 256.0 MiB at most\n",
        " held at the end\n",
        "entered ",
        "zone_entered ",
        "wrote        out.jsonl\n",
        "wrote        out.mp4\n",
    ] {
        assert!(printed.contains(figure), "{figure}: {printed}");
    }
    let lines = lines(&folder.join("out.jsonl"));
    let frames: Vec<_> = lines.iter().map(|line| line["frame"].as_u64().unwrap()).collect();
    assert!(frames.into_iter().eq(0..100));
    assert!(lines.iter().all(|line| line["detections"][0]["label"] == "person"));
    let video = probed(&folder.join("out.mp4"));
    assert_eq!((&video["codec"], &video["pictures"]), (&"mjpeg".into(), &100.into()), "{video}");
    assert_eq!((&video["size"][0], &video["size"][1]), (&768.into(), &576.into()), "{video}");
    assert_eq!((&video["rate"], &video["plays"]), (&10.0.into(), &true.into()), "{video}");
}

/// What `object-detect` says of each frame of the clip with people, with these settings.
fn detected(folder: &Path, settings: &str) -> Vec<Value> {
    let (detect, clip) = (built_in_pipeline("object-detect"), clip("people-576-high.mp4"));
    let models = root().join("models");
    let (status, printed, said) = pipeline(
        folder,
        &[
            "run",
            text(&detect),
            "--video",
            text(&clip),
            "--models",
            text(&models),
            "--settings",
            settings,
            "--json",
            "found.jsonl",
        ],
    );
    assert_eq!(status, Some(0), "{printed}{said}");
    lines(&folder.join("found.jsonl"))
}

/// Intersection over union of the boxes of two detections.
fn overlap(one: &Value, other: &Value) -> f64 {
    let edges = |found: &Value| {
        let [x, y, w, h] = [0, 1, 2, 3].map(|n| found["box"][n].as_f64().unwrap());
        [x, y, x + w, y + h]
    };
    let (a, b) = (edges(one), edges(other));
    let area =
        |[left, top, right, bottom]: [f64; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both)
}

#[test]
fn on_a_budget_there_are_boxes_on_every_frame_of_a_clip_by_few_runs_of_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let every = detected(folder, "{}");
    let budget = detected(folder, r#"{"mode": "budget", "runs_per_second": 2}"#);
    assert_eq!((every.len(), budget.len()), (100, 100));
    assert!(every.iter().all(|line| line["source"].is_null()), "nothing is said where all is new");

    let ages: Vec<_> = budget.iter().map(|line| line["model_age_ms"].as_u64().unwrap()).collect();
    let runs = ages.iter().filter(|age| **age == 0).count();
    assert!((18..=22).contains(&runs), "{runs} runs in 10 s: {ages:?}");
    for (line, age) in budget.iter().zip(&ages) {
        let source = line["source"].as_str().unwrap();
        assert_eq!(source == "model", *age == 0, "{line}");
        assert!(["model", "flow", "predicted"].contains(&source), "{line}");
        assert!(!line["detections"].as_array().unwrap().is_empty(), "{line}");
    }

    let of = |line: &Value| line["detections"].as_array().unwrap().clone();
    let people = |line: &Value| {
        let mut found = of(line);
        found.retain(|found| found["track"].is_u64() && found["label"] == "person");
        found
    };
    let (mut there, mut found) = (0, 0);
    for (one, other) in every.iter().zip(&budget) {
        let boxes = of(other);
        for person in people(one) {
            there += 1;
            found += usize::from(boxes.iter().any(|b| overlap(&person, b) >= 0.5));
        }
    }
    assert!(there > 400 && found * 100 >= there * 90, "{found} of {there}");
}

#[test]
fn pictures_of_a_folder_are_frames_in_the_order_of_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (spot, clip) = (guest("spot"), clip("spot-b3.mp4"));
    let (status, printed, said) = pipeline(
        folder,
        &["run", text(&spot), "--video", text(&clip), "--json", "1", "--annotate", "frames"],
    );
    assert_eq!(status, Some(0), "{printed}{said}");
    let first = lines(&folder.join("1"));
    assert_eq!((first.len(), first[0]["detections"][0]["label"].as_str()), (40, Some("spot")));
    assert_eq!(std::fs::read_dir(folder.join("frames")).unwrap().count(), 40);
    let (status, printed, said) =
        pipeline(folder, &["run", text(&spot), "--images", "frames", "--rate", "4", "--json", "2"]);
    assert_eq!(status, Some(0), "{printed}{said}");
    let second = lines(&folder.join("2"));
    assert_eq!((second.len(), &second[39]["presentation_ns"]), (40, &9_750_000_000_u64.into()));
    // Texts are drawn into them, which are bright too, so the boxes are others.
    assert!(second.iter().all(|line| line["width"] == 640 && line["detections"][0].is_object()));

    std::fs::write(folder.join("frames/frame-000020.jpg"), "no picture").unwrap();
    let (status, printed, said) =
        pipeline(folder, &["run", text(&spot), "--images", "frames", "--json", "3"]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(said.contains("pictures that cannot be decoded: 1"), "{said}");
    assert_eq!(lines(&folder.join("3")).len(), 39);
}

#[test]
fn a_pipeline_that_traps_or_fails_is_told_with_its_frame_and_what_it_found_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (hostile, clip) = (guest("hostile"), clip("people-576-high.mp4"));
    for (attack, said) in [
        ("leak-tensors", "limit handles"),
        ("panic", "lost in the first frame"),
        ("trap-on-frame50", "lost after frame 49"),
    ] {
        let settings = format!(r#"{{"do": "{attack}"}}"#);
        let (status, printed, words) = pipeline(
            folder,
            &[
                "run",
                text(&hostile),
                "--video",
                text(&clip),
                "--settings",
                &settings,
                "--json",
                attack,
            ],
        );
        assert_eq!(status, Some(1), "{attack}: {printed}{words}");
        assert!(words.contains("the pipeline was lost "), "{attack}: {words}");
        assert!(words.contains(said), "{attack}: {words}");
        assert!(printed.contains("tensors      "), "{attack}: {printed}");
        assert!(folder.join(attack).is_file());
    }
}

#[test]
fn bad_input_is_told_on_one_line_and_leaves_nothing_half_made() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("no.mp4"), "no video").unwrap();
    std::fs::write(folder.join("no.wasm"), "no component").unwrap();
    std::fs::create_dir(folder.join("empty")).unwrap();
    let (spot, hostile, clip) = (guest("spot"), guest("hostile"), clip("spot.mp4"));
    let (spot, hostile, clip) = (text(&spot), text(&hostile), text(&clip));
    let detect = built_in_pipeline("object-detect");
    let before = std::fs::read_dir(folder).unwrap().count();
    for (arguments, words) in [
        (vec![spot, "--video", "none.mp4"], "none.mp4: No such file"),
        (vec![spot, "--video", "no.mp4"], "no.mp4: "),
        (vec![spot, "--images", "none"], "none: No such file"),
        (vec![spot, "--images", "empty"], "has no JPEG or PNG file"),
        (vec!["none.wasm", "--video", clip], "none.wasm: No such file"),
        (vec!["no.wasm", "--video", clip], "no.wasm: "),
        (vec![hostile, "--video", clip], "settings"),
        (vec![spot, "--video", clip, "--settings", "{"], "--settings: not a JSON object"),
        (vec![spot, "--video", clip, "--settings", "x.json"], "--settings: x.json: No such file"),
        (vec![spot, "--video", clip, "--models", "none"], "none"),
        (vec![text(&detect), "--video", clip], "nanodet"),
        (vec![spot, "--video", clip, "--annotate", "x.avi"], "writes a .mp4 file or a folder"),
        (vec![spot, "--video", clip, "--annotate", "none/x"], "writing none/x"),
    ] {
        let all = [&["run"], arguments.as_slice(), &["--json", "out.jsonl"]].concat();
        let (status, printed, said) = pipeline(folder, &all);
        assert_eq!((status, printed.as_str()), (Some(1), ""), "{arguments:?}: {said}");
        assert!(said.contains(words), "{said} for {arguments:?}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), before, "{arguments:?}");
    }
}

#[test]
fn a_test_holds_a_pipeline_to_its_golden_file_its_events_and_its_state() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let (spot, video) = (guest("spot"), clip("spot-b3.mp4"));
    let test = |more: &str| {
        std::fs::write(folder.join("spot.toml"), format!("video = {video:?}\n{more}")).unwrap();
    };
    let run =
        |more: &[&str]| pipeline(folder, &[&["test", text(&spot), "spot.toml"], more].concat());
    test("");
    let (status, printed, said) = run(&[]);
    assert_eq!((status, printed.as_str()), (Some(1), ""), "{said}");
    assert!(said.contains("no golden file spot.golden.jsonl: --bless"), "{said}");
    let (status, printed, said) = run(&["--bless"]);
    assert_eq!(status, Some(0), "{printed}{said}");
    let (status, printed, said) = run(&[]);
    assert_eq!(status, Some(0), "{printed}{said}");
    for part in [
        "good   frames   40 processed, 0 failed, 0 not decoded",
        "good   golden   40 frames as in spot.golden.jsonl, made by version ",
        "good   repeat   the same to the last digit",
        "good   restore  the same with no state handed over after frame ",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }

    let golden = folder.join("spot.golden.jsonl");
    let blessed = std::fs::read_to_string(&golden).unwrap();
    let label = blessed.replacen("\"spot\",\"score\"", "\"stain\",\"score\"", 1);
    assert_ne!(label, blessed);
    std::fs::write(&golden, label).unwrap();
    test("restore = false\nrepeat = false\n[[events]]\nkind = \"seen\"\n");
    let (status, printed, said) = run(&[]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(said.contains("tests failed: 1 of 1"), "{said}");
    assert!(printed.contains("FAILED golden   frame 0: stain 1.0 at ["), "{printed}");
    assert!(printed.contains("FAILED events   seen: 1 or more expected, 0 found"), "{printed}");

    for (golden_text, words) in [
        (blessed.replacen("\"ocelli_golden\":1", "\"ocelli_golden\":7", 1), "of form 7"),
        (blessed.replacen("\"footage\":\"", "\"footage\":\"0", 1), "is of other frames"),
    ] {
        std::fs::write(&golden, golden_text).unwrap();
        let (status, printed, said) = run(&[]);
        assert_eq!((status, said.lines().count()), (Some(1), 1), "{printed}{said}");
        assert!(said.contains(words), "{said}");
    }
}
