use std::path::Path;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::Config;
use crate::config::source::Source;

fn variables(pairs: &[(&str, &str)]) -> Variables {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn import(text: &str) -> Import {
    read(text, None, DEFAULT_PIPELINE, &variables(&[("PASSWORD", "a b"), ("FRIGATE_USER", "ann")]))
        .unwrap()
}

/// The config that the entries make, as the host reads it.
fn config(import: &Import) -> Config {
    Config::from_text(Path::new("imported.toml"), &import.toml(), &[]).unwrap()
}

fn left_out<'a>(import: &'a Import, name: &str) -> &'a str {
    &import.left_out.iter().find(|left| left.name == name).unwrap().reason
}

fn notes<'a>(import: &'a Import, id: &str) -> &'a [String] {
    &import.cameras.iter().find(|camera| camera.id == id).unwrap().notes
}

const GO2RTC: &str = r##"
streams:
  gate: rtsp://admin:pa%23ss@192.0.2.1/stream1
  gate_sub: rtsp://admin:pa%23ss@192.0.2.1/stream2
  yard:
    - rtsp://192.0.2.2:8554/live#transport=udp#backchannel=0#timeout=30
    - "ffmpeg:yard#audio=opus"
  door: rtspx://192.0.2.3:7441/key?enableSrtp
  hall: "ffmpeg:rtsp://192.0.2.4/hall#video=h264#audio=aac"
  variable: rtsp://user:${PASSWORD}@192.0.2.5/
  default: rtsp://${NOBODY_SET_THIS:user}:x@192.0.2.6/
  unset: rtsp://user:${NOBODY_SET_THIS}@192.0.2.7/
  web: http://192.0.2.8/flv?user=admin&password=secret
  onvif: onvif://admin:secret@192.0.2.9
  made: ffmpeg:device?video=0
  nothing:
  fallback: [tapo://secret@192.0.2.10, "rtsp://192.0.2.10/stream1#frobnicate=1"]
  noscheme: admin:secret@192.0.2.11
  hash: rtsp://admin:secret#with@192.0.2.12/x
homekit: {gate: {}}
"##;

#[test]
fn each_stream_of_go2rtc_is_taken_or_left_out() {
    let import = import(GO2RTC);
    let cameras = config(&import).cameras;
    let ids: Vec<&str> = cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(
        ids,
        ["default", "door", "fallback", "gate", "gate_sub", "hall", "variable", "yard"]
    );
    assert_eq!(cameras.len() + import.left_out.len(), 15);
    assert!(cameras.iter().all(|camera| camera.pipeline == "object-detect"));
    let source = |id: &str| &cameras.iter().find(|camera| camera.id == id).unwrap().source;
    let Source::Rtsp(gate) = source("gate") else { panic!("gate is a camera") };
    assert_eq!(gate.credentials.as_ref().unwrap().password, "pa#ss");
    let Source::Rtsp(yard) = source("yard") else { panic!("yard is a camera") };
    assert_eq!(yard.transport, crate::config::source::Transport::Udp);
    assert_eq!(source("door").to_string(), "rtsps://192.0.2.3:7441/key");
    let Source::Rtsp(variable) = source("variable") else { panic!("variable is a camera") };
    assert_eq!(variable.credentials.as_ref().unwrap().password, "a b");
    let Source::Rtsp(default) = source("default") else { panic!("default is a camera") };
    assert_eq!(default.credentials.as_ref().unwrap().user, "user");
}

#[test]
fn what_go2rtc_does_otherwise_is_said() {
    let import = import(GO2RTC);
    assert_eq!(
        notes(&import, "gate_sub"),
        ["by its name a smaller stream of the camera gate, whose `substream` it may be"]
    );
    assert_eq!(notes(&import, "yard"), ["of its sources number 1 is taken, 1 other left out"]);
    assert!(notes(&import, "door").iter().any(|note| note.contains("certificate_sha256")));
    assert!(notes(&import, "hall").iter().any(|note| note.contains("that of the camera")));
    assert_eq!(
        notes(&import, "fallback"),
        [
            "without go2rtc's options frobnicate",
            "of its sources number 2 is taken, 1 other left out"
        ]
    );
    assert_eq!(import.notes, ["the section `homekit` has no entry here"]);
    let unset = left_out(&import, "unset");
    assert_eq!(unset, "its source names the variable NOBODY_SET_THIS, which has no value here");
    assert!(left_out(&import, "onvif").contains("ONVIF"));
    assert!(left_out(&import, "web").contains("`http:`"));
    assert_eq!(left_out(&import, "nothing"), "it has no source");
    assert_eq!(left_out(&import, "noscheme"), "its source is neither rtsp:// nor rtsps://");
    assert!(left_out(&import, "hash").contains("%23"));
}

#[test]
fn no_reason_and_no_note_repeats_a_password() {
    let import = import(GO2RTC);
    let reasons = import.left_out.iter().map(|left| &left.reason);
    let notes = import.cameras.iter().flat_map(|camera| &camera.notes);
    for line in reasons.chain(notes).chain(&import.notes) {
        assert!(!line.contains("secret") && !line.contains("pa%23ss"), "{line}");
    }
}

const FRIGATE: &str = r#"
mqtt: {host: broker}
environment_vars: {FRIGATE_PASSWORD: in the file}
go2rtc:
  streams:
    front_main: ["rtsp://{FRIGATE_USER}:{FRIGATE_PASSWORD}@192.0.2.1/main"]
    front_sub: ["rtsp://{FRIGATE_USER}:{FRIGATE_PASSWORD}@192.0.2.1/sub", "ffmpeg:front_sub#audio=opus"]
objects: {track: [person, car, license_plate]}
x-detect: &detect {width: 640, height: 360, fps: 5}
cameras:
  front:
    ffmpeg:
      inputs:
        - {path: "rtsp://127.0.0.1:8554/front_main", input_args: preset-rtsp-restream, roles: [record]}
        - {path: "rtsp://127.0.0.1:8554/front_sub", roles: [detect]}
    detect: {<<: *detect, fps: 4}
    record: {enabled: true}
    zones:
      drive: {coordinates: "0,180,320,180,640,360,0,360", objects: [car, dog]}
      porch: {coordinates: ["0.1,0.5", "0.6,0.4", "0.9,1.0"], objects: person}
      broken: {coordinates: "1,2,3"}
  back:
    ffmpeg: {inputs: [{path: "rtsp://192.0.2.2/x", roles: [detect, record]}]}
    detect: {enabled: no}
    objects: {track: [face]}
    zones: {pixels: {coordinates: "0,0,100,0,100,100"}}
  shed: {enabled: false, ffmpeg: {inputs: [{path: "rtsp://192.0.2.3/x", roles: [detect]}]}}
  lost: {ffmpeg: {inputs: [{path: "rtsp://127.0.0.1:8554/unknown", roles: [detect]}]}}
  bare: {}
"#;

#[test]
fn a_camera_of_frigate_keeps_its_labels_rate_and_zones() {
    let import = import(FRIGATE);
    let cameras = config(&import).cameras;
    let ids: Vec<&str> = cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(ids, ["back", "front"]);
    let front = cameras.iter().find(|camera| camera.id == "front").unwrap();
    let Source::Rtsp(source) = &front.source else { panic!("front is a camera") };
    assert_eq!(front.source.to_string(), "rtsp://***:***@192.0.2.1/main");
    assert_eq!(front.substream.as_ref().unwrap().to_string(), "rtsp://***:***@192.0.2.1/sub");
    assert_eq!(source.credentials.as_ref().unwrap().password, "in the file");
    assert_eq!(
        serde_json::Value::Object(front.settings.clone()),
        json!({
            "labels": ["person", "car"],
            "max_results_per_second": 4.0,
            "zones": [
                {"name": "drive", "labels": ["car"],
                 "polygon": [[0.0, 0.5], [0.5, 0.5], [1.0, 1.0], [0.0, 1.0]]},
                {"name": "porch", "labels": ["person"],
                 "polygon": [[0.1, 0.5], [0.6, 0.4], [0.9, 1.0]]},
            ],
        })
    );
}

#[test]
fn a_main_stream_that_cannot_be_taken_leaves_the_one_that_is_analysed() {
    let camera = |record: &str| {
        let inputs = json!([
            {"path": record, "roles": ["record"]},
            {"path": "rtsp://192.0.2.1/sub", "roles": ["detect"]},
        ]);
        import(&json!({"cameras": {"a": {"ffmpeg": {"inputs": inputs}}}}).to_string())
    };
    for (record, reason) in [
        ("http://192.0.2.1/main", "Ocelli reads rtsp:// and rtsps://"),
        ("rtsp://192.0.2.1/main#transport=udp", "another transport"),
    ] {
        let import = camera(record);
        let [read] = &config(&import).cameras[..] else { panic!("one camera") };
        assert_eq!(
            (read.source.to_string().as_str(), &read.substream),
            ("rtsp://192.0.2.1/sub", &None)
        );
        let notes = notes(&import, "a").join("\n");
        assert!(notes.contains("without the input with the role `record`"), "{notes}");
        assert!(notes.contains(reason), "{notes}");
    }
    // One stream for both is no substream.
    assert_eq!(config(&camera("rtsp://192.0.2.1/sub")).cameras[0].substream, None);
}

#[test]
fn what_frigate_does_otherwise_is_said() {
    let import = import(FRIGATE);
    assert_eq!(
        import.notes,
        ["Frigate's section `mqtt` is not carried over: see [mqtt] of the config"]
    );
    let front = notes(&import, "front").join("\n");
    assert!(front.contains("zone broken is left out: its coordinates are not 3 to 32"), "{front}");
    assert!(front.contains("does not have: license_plate"), "{front}");
    assert!(front.contains("without Frigate's record"), "{front}");
    let back = notes(&import, "back").join("\n");
    assert!(back.contains("Frigate does not detect on this camera"), "{back}");
    assert!(back.contains("it looks for all labels instead"), "{back}");
    assert!(back.contains("zone pixels is left out: its corners are pixels"), "{back}");
    assert_eq!(left_out(&import, "shed"), "it is not enabled");
    assert!(left_out(&import, "lost").contains("that the file does not name"));
    assert_eq!(left_out(&import, "bare"), "it has no ffmpeg.inputs");
}

#[test]
fn the_streams_within_frigates_file_are_taken_as_go2rtcs() {
    let import = read(
        FRIGATE,
        Some(Format::Go2rtc),
        "my",
        &variables(&[("FRIGATE_USER", "ann"), ("FRIGATE_PASSWORD", "x")]),
    )
    .unwrap();
    let ids: Vec<&str> = import.cameras.iter().map(|camera| camera.id.as_str()).collect();
    assert_eq!(ids, ["front_main", "front_sub"]);
    assert!(import.cameras.iter().all(|camera| camera.table["pipeline"] == "my"));
}

#[test]
fn another_pipeline_gets_no_settings_of_object_detect() {
    let none = Variables::default();
    let import = read(FRIGATE, None, "mine", &none).unwrap();
    assert!(import.cameras.iter().all(|camera| !camera.table.contains_key("settings")));
}

#[test]
fn a_file_that_is_something_else_is_named() {
    let read = |text| read(text, None, DEFAULT_PIPELINE, &Variables::default()).unwrap_err();
    assert!(matches!(read("streams: [\n  a: }"), ImportError::NotYaml { at: Some(_) }));
    assert!(matches!(read("- a\n- b"), ImportError::Unrecognised));
    assert!(matches!(read(""), ImportError::Unrecognised | ImportError::NotYaml { .. }));
    assert!(matches!(read("streams: {}"), ImportError::Empty { section: "streams" }));
    assert!(matches!(read("cameras: [a]"), ImportError::Empty { section: "cameras" }));
    // A name twice: one of the two would be lost.
    assert!(matches!(
        read("streams:\n  a: rtsp://192.0.2.1/\n  a: rtsp://192.0.2.2/"),
        ImportError::NotYaml { at: Some(_) }
    ));
    // The parser's own text would repeat the line, password included.
    let shown = read("streams:\n  a: rtsp://u:secret@192.0.2.1/\n b: [").to_string();
    assert!(!shown.contains("secret"), "{shown}");
}

#[test]
fn a_name_that_no_session_may_have_is_left_out() {
    let name = "n".repeat(201);
    let import =
        import(&format!("streams:\n  \"a\\tb\": rtsp://192.0.2.1/\n  {name}: rtsp://192.0.2.2/"));
    assert!(import.cameras.is_empty());
    assert_eq!(import.left_out.len(), 2);
    assert!(!import.toml().contains('\t'));
}

#[test]
fn aliases_do_not_multiply_without_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let last = n - 1;
        let names = vec![format!("*a{last}"); 10].join(", ");
        text += &format!("a{n}: &a{n} [{names}]\n");
    }
    let read = read(&text, None, DEFAULT_PIPELINE, &Variables::default());
    assert!(matches!(read, Err(ImportError::NotYaml { .. })));
}

proptest! {
    /// Whatever the sources are, each stream comes out once, and what comes out is a config.
    #[test]
    fn nothing_is_lost(sources in prop::collection::vec(
        prop_oneof![
            "[ -~]{0,40}",
            "(rtsp|rtsps|rtspx|ffmpeg:rtsp|onvif|http)://[a-z:@#%$\\{\\}0-9./?=&]{0,30}",
        ],
        1..8,
    )) {
        let streams: Map<String, Value> = sources
            .iter()
            .enumerate()
            .map(|(n, source)| (format!("camera {n}"), Value::from(source.as_str())))
            .collect();
        let text = json!({"streams": streams}).to_string();
        let import = read(&text, None, DEFAULT_PIPELINE, &Variables::default()).unwrap();
        prop_assert_eq!(import.cameras.len() + import.left_out.len(), sources.len());
        prop_assert_eq!(config(&import).cameras.len(), import.cameras.len());
    }
}
