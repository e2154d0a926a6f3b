//! The Python programs that the tests use as clients, in an environment of their own, the compiler of
//! TypeScript, which the dashboard has, and what reads AsyncAPI documents.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};

use crate::workspace::Workspace;
use crate::{process, setup, ui};

/// What is in the environment, in the environment: written last, so one that was not finished is
/// made anew.
const STAMP: &str = "requirements.txt";

/// Installs what `requirements.txt` and `package-lock.json` in `tests/clients` name, and the
/// compiler, unless it is there.
pub(crate) fn install(workspace: &Workspace) -> Result<()> {
    ui::prepared(workspace)?;
    let sources = workspace.root().join("tests/clients");
    ui::install_locked(&sources, "the tests' reader of AsyncAPI")?;
    let requirements = sources.join("requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("cannot read {}", requirements.display()))?;
    let folder = workspace.clients();
    let python = folder.join("bin/python");
    let runs = || {
        process::succeeds(
            Command::new(&python).args(["-c", "import websockets, schemathesis, aiohttp, mypy"]),
        )
    };
    if fs::read_to_string(folder.join(STAMP)).is_ok_and(|stamp| stamp == wanted) && runs() {
        return Ok(());
    }
    let maker = setup::python_with_pip()?;
    process::step("installing the tests' clients with pip", || {
        // Without a pip of its own: that one would not know the configuration of the Python that
        // makes it.
        process::run(
            Command::new(maker).args(["-m", "venv", "--clear", "--without-pip"]).arg(&folder),
        )?;
        let mut pip = Command::new(maker);
        pip.args(["-m", "pip", "--python"]).arg(&python);
        pip.args(["--no-input", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]);
        pip.args(["--only-binary=:all:", "--requirement"]).arg(&requirements);
        process::run(&mut pip)
            .context("cannot install the tests' clients; with a network, run ./x test again")?;
        fs::write(folder.join(STAMP), &wanted)
            .with_context(|| format!("cannot write in {}", folder.display()))
    })
}
