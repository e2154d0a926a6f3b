//! `ocelli probe`: the operator's first tool.

use std::process::{Command, Stdio};

use ocelli_testkit::{Cameras, ClosedPort, clip, program};
use serde_json::{Value, json};

/// Its exit status and what it prints. It ends by itself.
fn probe(arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(program("ocelli"));
    let output = command.arg("probe").args(arguments).stdin(Stdio::null()).output().unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[test]
fn a_file_and_a_camera_that_play_are_described_with_a_still() {
    let folder = tempfile::tempdir().unwrap();
    let still = folder.path().join("still.png");
    let file = clip("people-576-high-b3.mp4");
    let arguments = [file.to_str().unwrap(), "--still", still.to_str().unwrap(), "--json"];
    let (status, printed) = probe(&arguments);
    assert_eq!(status, Some(0), "{printed}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(report["plays"], true, "{printed}");
    assert_eq!((&report["codec"], &report["pictures"]), (&"h264".into(), &102.into()));
    assert_eq!((&report["size"][0], &report["size"][1]), (&768.into(), &576.into()));
    assert_eq!((&report["rate"], &report["gop"]), (&10.0.into(), &20.0.into()), "{printed}");
    assert_eq!(report["left_out"], json!([]), "{printed}");
    assert!(std::fs::read(&still).unwrap().starts_with(b"\x89PNG"));

    let cameras = Cameras::start(
        &["--user", "eye", "--password", "secret"],
        &[("/a", "people-576-hevc.mp4")],
    );
    let (status, printed) = probe(&[&cameras.url_with("eye:secret", "/a"), "--seconds", "2"]);
    assert_eq!(status, Some(0), "{printed}");
    for said in ["H.265", "768 x 576", "strict: ", "pictures a second", "tcp"] {
        assert!(printed.contains(said), "{said}: {printed}");
    }
    assert!(!printed.contains("secret"), "{printed}");

    let (status, printed) = probe(&[clip("field/sound-first.mp4").to_str().unwrap()]);
    assert_eq!(status, Some(0), "{printed}");
    assert!(printed.contains("left out     audio aac\n"), "{printed}");
}

#[test]
fn a_source_that_does_not_play_has_its_step_its_cause_and_what_to_do() {
    let nothing = ClosedPort::new();
    let (status, printed) = probe(&[&format!("rtsp://u:secret@{}/x", nothing.address)]);
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("unreachable at describe: "), "{printed}");
    assert!(printed.contains("check the address"), "{printed}");
    assert!(!printed.contains("secret"), "{printed}");
    let (status, printed) = probe(&["file:no-such-file.mp4", "--json"]);
    let report: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    assert_eq!((status, &report["fault"]["kind"]), (Some(1), &"file".into()), "{printed}");
    assert_eq!(probe(&["http://camera/stream"]).0, Some(2));
    assert_eq!(probe(&[]).0, Some(2));
}
