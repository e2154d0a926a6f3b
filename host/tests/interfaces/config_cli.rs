//! The command line's promises on exit status and words: 0 done, 1 failed, 2 wrong usage or config.

use std::path::Path;
use std::process::{Command, Output};

fn ocelli(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ocelli"));
    command.args(arguments).current_dir(folder).envs(variables.iter().copied());
    for name in ["OCELLI_LOG", "RUST_LOG", "OCELLI_URL"] {
        if !variables.iter().any(|(set, _)| *set == name) {
            command.env_remove(name);
        }
    }
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn wrong_usage_and_wrong_configs_are_status_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("bad.toml"), "[server]\nlistn = 1\n").unwrap();
    std::fs::write(folder.path().join("good.toml"), "").unwrap();
    type Case<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], &'a str);
    let cases: [Case<'_>; 7] = [
        (&[], &[], "Usage"),
        (&["dance"], &[], "dance"),
        (&["serve"], &[], "config/ocelli.toml: no such config file"),
        (
            &["serve", "--config", "bad.toml"],
            &[],
            "bad.toml: line 2: server.listn: unknown key; did you mean listen?",
        ),
        (
            &["check", "--config", "bad.toml"],
            &[],
            "bad.toml: line 2: server.listn: unknown key; did you mean listen?",
        ),
        (
            &["check", "--config", "good.toml"],
            &[("OCELLI__SERVER__LISTEN", "0.0.0.0:1")],
            "environment variable OCELLI__SERVER__LISTEN: server.listen: 0.0.0.0:1 is not a \
                loopback address",
        ),
        (
            &["serve", "--config", "good.toml"],
            &[("OCELLI_LOG", "ocelli=loud")],
            "OCELLI_LOG: not a log filter",
        ),
    ];
    for (arguments, variables, words) in cases {
        let (status, out, error) = ocelli(folder.path(), arguments, variables);
        assert_eq!((status, out.as_str()), (2, ""), "{arguments:?}: {error}");
        assert!(error.contains(words), "{arguments:?}: {error}");
    }
}

#[test]
fn a_check_says_every_model_and_pipeline_that_is_missing_with_status_1() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[inference]\npreload = [\"eye\"]\nisolation = \"in-process\"\n\
                  [[cameras]]\nid = \"one\"\nsource = \"rtsp://u:hunter2@h/\"\npipeline = \
                  \"nose\"\n\
                  [[cameras]]\nid = \"two\"\nsource = \"rtsp://h/\"\npipeline = \"ear.wasm\"\n";
    std::fs::write(folder.path().join("cams.toml"), config).unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let (status, _, error) = ocelli(folder.path(), &["check", "--config", "cams.toml"], &[]);
    assert_eq!(status, 1, "{error}");
    for words in [
        "\"eye\"",
        "camera \"one\"",
        "nose",
        "camera \"two\"",
        "ear.wasm",
        "a crash of ONNX Runtime",
    ] {
        assert!(error.contains(words), "{words} is not in: {error}");
    }
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_good_config_is_status_0_and_says_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cams.json"), "{}").unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let (status, out, error) = ocelli(folder.path(), &["check", "--config", "cams.json"], &[]);
    assert_eq!((status, error.as_str()), (0, ""));
    assert!(out.starts_with("cams.json: good; cameras: 0"), "{out}");
    assert_eq!(ocelli(folder.path(), &["--help"], &[]).0, 0);
    assert_eq!(
        ocelli(folder.path(), &["--version"], &[]).1.trim(),
        concat!("ocelli ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn a_host_that_is_not_there_is_status_3_and_named() {
    let folder = tempfile::tempdir().unwrap();
    // Nothing listens on port 1 of a machine that runs tests.
    let url = "http://127.0.0.1:1";
    let (status, out, error) = ocelli(folder.path(), &["sessions"], &[("OCELLI_URL", url)]);
    assert_eq!((status, out.as_str()), (3, ""));
    assert!(error.contains(url) && error.contains("ocelli serve"), "{error}");
}

#[test]
fn an_address_in_use_is_status_1_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    std::fs::write(folder.path().join("cams.toml"), format!("[server]\nlisten = {address:?}\n"))
        .unwrap();
    let (status, _, error) = ocelli(folder.path(), &["serve", "--config", "cams.toml"], &[]);
    assert_eq!(status, 1, "{error}");
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    let log = std::fs::read_to_string(folder.path().join("logs/detector_worker_main.log")).unwrap();
    assert!(log.contains("cannot listen on") && log.contains("starting"), "{log}");
}
