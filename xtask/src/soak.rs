//! `./x soak`: builds everything and runs the soak, minutes of what wears a host out.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{checks, process, programs, setup};

/// Strains a host; `arguments` go to the program, whose exit code is returned.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    eprintln!(
        "==> the soak takes {} on two cores, and what is not built before that",
        takes(arguments)
    );
    setup::everything()?;
    programs::build(workspace)?;
    programs::build_tools(workspace, &["ocelli-soak"])?;
    let mut soak = Command::new(workspace.programs().join("ocelli-soak"));
    checks::system_environment(&mut soak, workspace);
    process::status(soak.args(arguments)).map(checks::exit_code)
}

/// How long it takes, in words.
fn takes(arguments: &[String]) -> &'static str {
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    match (has("--quick"), has("--swaps")) {
        (false, _) if has("--chaos") => "about 75 minutes",
        (true, _) if has("--chaos") => "about 15 minutes",
        (false, false) => "about 12 minutes",
        (false, true) => "about 5 minutes",
        (true, false) => "about 3 minutes",
        (true, true) => "about a minute",
    }
}
