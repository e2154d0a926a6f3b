//! `./x bench`: builds everything and runs the bench program of the whole-system tests.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{checks, process, programs, setup};

/// Measures; `arguments` go to the bench program, whose exit code is returned.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    setup::everything()?;
    programs::build(workspace)?;
    process::step("building the bench program", || {
        process::run(workspace.cargo().args(["build", "--release", "-p", "ocelli-tests", "--bin", "bench"]))
    })?;
    let mut bench = Command::new(workspace.programs().join("bench"));
    checks::system_environment(&mut bench, workspace);
    process::status(bench.args(arguments).current_dir(workspace.root())).map(checks::exit_code)
}
