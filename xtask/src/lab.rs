//! `./x lab`: builds the lab's program and runs it.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{checks, process, programs, setup};

/// The program.
const PROGRAM: &str = "ocelli-lab";

/// Loses what a site may lose; `arguments` go to the program, whose exit code is returned.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    setup::for_the_lab()?;
    programs::build_tools(workspace, &[PROGRAM])?;
    let mut lab = Command::new(workspace.programs().join(PROGRAM));
    checks::system_environment(&mut lab, workspace);
    process::status(lab.args(arguments)).map(checks::exit_code)
}
