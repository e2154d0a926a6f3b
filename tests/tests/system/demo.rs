//! `ocelli demo`: results from nothing but what is installed, and nothing left behind.

use std::fs::read_dir;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use ocelli_testkit::program;
use tempfile::TempDir;

/// The demo with a temporary folder that can be looked at, on a port of its own.
fn demo(temporary: &TempDir, arguments: &[&str]) -> Command {
    let mut command = Command::new(program("ocelli"));
    command.args(["demo", "--listen", "127.0.0.1:0"]).args(arguments);
    command.env("TMPDIR", temporary.path()).stdin(Stdio::null());
    // Neither is for the demo's host.
    command.env("OCELLI_TOKEN", "of another host").env("OCELLI__SERVER__LISTEN", "nowhere");
    command
}

fn is_empty(folder: &TempDir) -> bool {
    read_dir(folder.path()).unwrap().next().is_none()
}

#[test]
fn the_demo_shows_results_of_the_bundled_clip_and_leaves_nothing() {
    let temporary = TempDir::new().unwrap();
    let run = demo(&temporary, &["--seconds", "4"]).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{out}{err}");
    assert!(out.contains("results/s"), "{out}{err}");
    assert!(err.contains("the dashboard: http://127.0.0.1:"), "{err}");
    assert!(is_empty(&temporary), "{err}");
}

#[test]
fn a_signal_ends_the_demo_and_its_host() {
    let temporary = TempDir::new().unwrap();
    let mut child = demo(&temporary, &[]).stdout(Stdio::piped()).spawn().unwrap();
    // It stays open to the end: a pipe that nobody reads would end `watch` otherwise.
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let result = lines.by_ref().map(Result::unwrap).find(|line| line.contains("results/s"));
    assert!(result.is_some(), "the demo ended before its first result");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(is_empty(&temporary));
}

#[test]
fn a_source_that_is_none_is_told_with_what_the_host_says() {
    let temporary = TempDir::new().unwrap();
    let run = demo(&temporary, &["ftp://192.0.2.1/clip"]).output().unwrap();
    let err = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && err.contains("cameras[0].source"), "{err}");
    let run = demo(&temporary, &["/nowhere/clip.mp4"]).output().unwrap();
    let err = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && err.contains("/nowhere/clip.mp4"), "{err}");
    assert!(is_empty(&temporary));
}
