//! A small site loses a host and has another frozen.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::process::Command;

use ocelli_testkit::skip::{FILE_VARIABLE, skip};

#[test]
fn a_host_that_dies_and_one_that_freezes_cost_no_event_and_no_camera_has_two_voices() {
    let output = Command::new(env!("CARGO_BIN_EXE_ocelli-lab"))
        .args(["--scenario", "small", "--seed", "21"])
        .args(["--hosts", "4", "--cameras", "12", "--machines", "4"])
        .args(["--event-ms", "500", "--live-ms", "200"])
        // What it skips is this test's to tell.
        .env_remove(FILE_VARIABLE)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let skipped = said.lines().filter(|line| line.starts_with("SKIPPED "));
    if let Some((_, reason)) = skipped.filter_map(|line| line.split_once('\t')).next() {
        return skip(reason);
    }
    assert!(output.status.success(), "{said}");
}
