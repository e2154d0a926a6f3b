//! `./x bench`: builds everything and runs the driver of the measurements.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{checks, process, programs, setup};

/// Measures; `arguments` go to the driver, whose exit code is returned.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    setup::for_measuring()?;
    programs::build(workspace)?;
    programs::build_test_pipelines(workspace)?;
    programs::build_tools(workspace, &["ocelli-bench", "bare-loop", "bare-models"])?;
    let mut bench = Command::new(workspace.programs().join("ocelli-bench"));
    checks::system_environment(&mut bench, workspace);
    process::status(bench.arg("--root").arg(workspace.root()).args(arguments))
        .map(checks::exit_code)
}
