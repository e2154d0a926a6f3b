//! `./x test` and `./x lint`.

use std::process::{Command, ExitCode, ExitStatus};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{process, programs, setup};

/// Runs all tests, or those that `filter` selects. The runner speaks last, and its exit code is returned.
pub(crate) fn test(workspace: &Workspace, filter: &[String]) -> Result<ExitCode> {
    setup::for_testing(workspace)?;
    programs::build(workspace)?;
    programs::build_test_pipelines(workspace)?;
    let mut runner = workspace.cargo();
    if process::succeeds(workspace.cargo().args(["nextest", "--version"])) {
        runner.args(["nextest", "run"]);
    } else {
        runner.arg("test");
    }
    // No feature of the workspace's crates brings Wasmtime's compiler in, so the tests meet the worker as it ships.
    runner.args(["--release", "--workspace"]).args(filter);
    system_environment(&mut runner, workspace);
    eprintln!("==> {} (first time: several minutes) ...", process::shown(&runner));
    process::status(&mut runner).map(exit_code)
}

/// Checks the format of all crates, and runs clippy over all of their targets.
pub(crate) fn lint(workspace: &Workspace) -> Result<ExitCode> {
    setup::for_building()?;
    setup::rust_component("rustfmt", "fmt")?;
    setup::rust_component("clippy", "clippy")?;
    process::step("checking the format", || {
        process::run(workspace.cargo().args(["fmt", "--all", "--check"]))
    })?;
    let clippy = |crates: &[&str]| {
        let mut command = workspace.cargo();
        command.args(["clippy", "--release", "--all-targets"]).args(crates).args(["--", "-D", "warnings"]);
        process::run(&mut command)
    };
    process::step("running clippy", || clippy(&["--workspace"]))?;
    process::step("running clippy on the compiler", || {
        clippy(&["-p", "ocelli-worker", "--features", "compile"])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What programs that test or measure the whole system find in their environment.
pub(crate) fn system_environment(command: &mut Command, workspace: &Workspace) {
    command.env("OCELLI_BIN_DIR", workspace.programs());
    // Newer versions of ONNX Runtime phone home unless told not to before they are loaded.
    command.env("ORT_DISABLE_TELEMETRY", "1");
}

/// The exit code of a program as our own; 1 where a signal ended it.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    code.map_or(ExitCode::FAILURE, ExitCode::from)
}
