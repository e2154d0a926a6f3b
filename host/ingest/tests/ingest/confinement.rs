//! What a confined reader cannot do.

use std::process::{Command, Stdio};

use ocelli_protocol::confinement::SandboxCheck;
use ocelli_protocol::ingest::FromIngest;
use ocelli_sandbox::attempt::names;
use ocelli_testkit::clip;
use ocelli_testkit::skip::skip;

use crate::process::Ingest;

#[test]
fn every_attempt_from_inside_is_refused() {
    let all: Vec<_> = names().collect();
    all_are_refused(env!("CARGO_BIN_EXE_ocelli-ingest"), &all);
    // It starts a thread that resolves names.
    let others: Vec<_> = all.into_iter().filter(|name| *name != "start_thread").collect();
    all_are_refused(env!("CARGO_BIN_EXE_ocelli-rtsp"), &others);
}

fn all_are_refused(program: &str, expected: &[&str]) {
    let output = Command::new(program)
        .arg("--sandbox-check")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let check: SandboxCheck = serde_json::from_slice(&output.stdout).unwrap();
    let made: Vec<_> = check.attempts.iter().map(|attempt| attempt.attempt.as_str()).collect();
    assert_eq!(made, expected);
    for needed in [
        "open_file",
        "connect_tcp",
        "send_udp",
        "send_udp_message",
        "listen",
        "execute",
        "fork",
        "trace_process",
        "create_shared_memory",
    ] {
        assert!(made.contains(&needed), "{needed}");
    }
    for attempt in &check.attempts {
        assert!(attempt.refused, "{attempt:?}");
    }
    assert!(output.status.success());
    if !check.confinement.is_complete() {
        skip(&format!("in part: {}", check.confinement.missing_text()));
    }
}

#[test]
fn a_reader_says_how_it_is_confined_before_it_reads() {
    let file = std::fs::File::open(clip("people-576-baseline.mp4")).unwrap();
    let mut ingest = Ingest::of_file(file, "mp4");
    let (first, _) = ingest.message().unwrap();
    let FromIngest::SandboxReport(confinement) = first else { panic!("{first:?}") };
    let status = std::fs::read_to_string(format!("/proc/{}/status", ingest.pid())).unwrap();
    let value = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(value("Seccomp:"), "2");
    assert_eq!(value("NoNewPrivs:"), "1");
    assert_eq!(value("Threads:"), "1");
    let report = format!("{:?}", confinement.enforced);
    assert!(report.contains("SystemCalls") && report.contains("NoNewPrivileges"), "{report}");
}
