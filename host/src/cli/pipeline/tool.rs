//! The programs of others that build a pipeline.

use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// Why a step of a build did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ToolError {
    /// A tool that is not there, and the command that installs it.
    #[error("{tool} is not installed; this installs it: {install}")]
    Missing { tool: &'static str, install: &'static str },
    /// What it says stands on the terminal.
    #[error("{what} failed ({status}); what it says stands above")]
    Failed { what: String, status: std::process::ExitStatus },
    /// It cannot be started.
    #[error("cannot start {what}: {error}")]
    Start { what: String, error: io::Error },
}

/// A tool: its program, and the command that installs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    program: &'static str,
    install: &'static str,
}

pub(super) const CARGO: Tool = Tool {
    program: "cargo",
    install: "curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh",
};

pub(super) const RUSTC: Tool = Tool { program: "rustc", ..CARGO };

pub(super) const PYTHON: Tool =
    Tool { program: "python3", install: "sudo apt-get install python3 python3-venv" };

pub(super) const NODE: Tool = Tool { program: "node", install: "sudo apt-get install nodejs npm" };

pub(super) const NPM: Tool = Tool { program: "npm", ..NODE };

/// The Python of a project, with the packages of its `requirements.txt`.
pub(super) const PROJECT_PYTHON: Tool = Tool { program: ".venv/bin/python", ..PYTHON };

pub(super) const COMPONENTIZE_PY: Tool = Tool {
    program: ".venv/bin/componentize-py",
    install: "echo componentize-py >> requirements.txt",
};

/// The target of a component in Rust.
pub(super) const RUST_TARGET: &str = "wasm32-wasip2";

impl Tool {
    /// A command of it in a folder.
    pub(super) fn command(&self, folder: &Path) -> Command {
        let mut command = Command::new(self.program);
        command.current_dir(folder).stdin(Stdio::null());
        command
    }

    /// A command of it as it was installed in the project's own folder.
    pub(super) fn installed(&self, folder: &Path) -> Command {
        let mut command = Command::new(folder.join(self.program));
        command.current_dir(folder).stdin(Stdio::null());
        command
    }

    /// Runs a command of it, whose words go to the terminal.
    pub(super) fn run(&self, command: &mut Command, what: &str) -> Result<(), ToolError> {
        let status = command.status().map_err(|error| self.not_started(error, what))?;
        succeeded(status, what)
    }

    /// Runs a command of it for its standard output.
    pub(super) fn output(&self, command: &mut Command, what: &str) -> Result<Vec<u8>, ToolError> {
        let output = command.stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| self.not_started(error, what))?;
        succeeded(output.status, what).map(|()| output.stdout)
    }

    /// What a build says that lacks it.
    pub(super) fn missing(&self) -> ToolError {
        ToolError::Missing { tool: self.program, install: self.install }
    }

    fn not_started(&self, error: io::Error, what: &str) -> ToolError {
        match error.kind() {
            io::ErrorKind::NotFound => self.missing(),
            _ => ToolError::Start { what: what.to_owned(), error },
        }
    }
}

fn succeeded(status: std::process::ExitStatus, what: &str) -> Result<(), ToolError> {
    if status.success() { Ok(()) } else { Err(ToolError::Failed { what: what.to_owned(), status }) }
}

/// Whether the compiler has the standard library of components.
pub(super) fn has_rust_target(folder: &Path) -> Result<(), ToolError> {
    let mut command = RUSTC.command(folder);
    command.args(["--print", "target-libdir", "--target", RUST_TARGET]);
    let told = RUSTC.output(&mut command, "rustc")?;
    let library = String::from_utf8_lossy(&told);
    if Path::new(library.trim()).is_dir() {
        Ok(())
    } else {
        let install = "rustup target add wasm32-wasip2";
        Err(ToolError::Missing { tool: "the target wasm32-wasip2 of Rust", install })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_is_not_there_is_named_with_the_command_that_installs_it() {
        let tool = Tool { program: "no-such-tool-of-ocelli", install: "get it" };
        let folder = std::env::temp_dir();
        let error = tool.run(&mut tool.command(&folder), "the build").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no-such-tool-of-ocelli is not installed; this installs it: get it"
        );
    }

    #[test]
    fn a_step_that_fails_is_named_with_its_status() {
        let tool = Tool { program: "sh", install: "" };
        let folder = std::env::temp_dir();
        let failing = |words: &[&str]| {
            let mut command = tool.command(&folder);
            tool.output(command.args(words), "the build")
        };
        assert_eq!(failing(&["-c", "echo well"]).unwrap(), b"well\n");
        let error = failing(&["-c", "exit 3"]).unwrap_err().to_string();
        assert!(error.starts_with("the build failed (exit status: 3)"), "{error}");
    }
}
