//! Tests that need a process of their own: a limit of the process would hit the tests beside them
//! too.

use std::process::Command;

/// Runs an ignored test of this crate in a process of its own, where it has to pass. `test` is its
/// whole name.
pub(crate) fn run_in_own_process(test: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    // A Rust backtrace takes more memory than such a test may leave.
    command.args(["--exact", test, "--ignored", "--nocapture"]).env("RUST_BACKTRACE", "0");
    let ended = command.output().unwrap();
    let said = [ended.stdout, ended.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat();
    eprintln!("{said}");
    assert!(ended.status.success() && said.contains("1 passed"), "{test}: {}", ended.status);
}
