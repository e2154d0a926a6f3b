//! The packages of the client libraries, `clients/`: a wheel and an npm tarball.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::package::{EPOCH, commit_time};
use crate::workspace::Workspace;
use crate::{process, setup, ui};

/// What reads a package's description as PyPI does, in the one version that it is tried with.
const TWINE: &str = "twine==7.0.0";

/// Makes both packages in the folder `packages`, and holds them to what their registries ask.
/// `stage` is a folder for what lies between.
pub(crate) fn package(workspace: &Workspace, packages: &Path, stage: &Path) -> Result<()> {
    let stage = stage.join("clients");
    fs::create_dir_all(&stage).with_context(|| format!("cannot make {}", stage.display()))?;
    process::step("packing the client for Python", || python(workspace, packages, &stage))?;
    process::step("packing the client for TypeScript", || typescript(workspace, packages, &stage))
}

fn python(workspace: &Workspace, packages: &Path, stage: &Path) -> Result<()> {
    let python = setup::python_with_pip()?;
    let source = copied(&workspace.root().join("clients/python"), &stage.join("python"))?;
    let wheels = stage.join("wheels");
    let mut pip = Command::new(python);
    pip.args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-input"]);
    pip.env(EPOCH, commit_time(workspace)?.to_string());
    pip.arg("--disable-pip-version-check").arg("--wheel-dir").arg(&wheels).arg(source);
    process::run(&mut pip).context("cannot make the wheel; it takes a network")?;
    let tools = workspace.target().join("twine");
    let twine = tools.join("bin/twine");
    if !process::succeeds(Command::new(&twine).arg("--version")) {
        let venv = ["-m", "venv", "--clear", "--without-pip"];
        process::run(Command::new(python).args(venv).arg(&tools))?;
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "--python"]).arg(tools.join("bin/python"));
        pip.args(["--no-input", "--disable-pip-version-check", "install", "--quiet", TWINE]);
        process::run(&mut pip).context("cannot install twine; it takes a network once")?;
    }
    for entry in fs::read_dir(&wheels)? {
        let wheel = entry?.path();
        process::run(Command::new(&twine).args(["check", "--strict"]).arg(&wheel))?;
        let name = wheel.file_name().context("a file has a name")?;
        fs::copy(&wheel, packages.join(name)).context("cannot copy the wheel")?;
    }
    Ok(())
}

fn typescript(workspace: &Workspace, packages: &Path, stage: &Path) -> Result<()> {
    let ui = ui::prepared(workspace)?;
    let source = copied(&workspace.root().join("clients/typescript"), &stage.join("typescript"))?;
    // The script that runs before npm packs asks for the compiler by its name.
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", ui.join("node_modules/.bin").display());
    let npm = || {
        let mut npm = Command::new("npm");
        npm.current_dir(&source).args(["pack", "--silent"]).env("PATH", &path);
        npm
    };
    process::run(npm().arg("--dry-run"))?;
    process::run(npm().arg("--pack-destination").arg(packages))?;
    Ok(())
}

/// Copies a folder, and what links in it lead to, without what other tools have left there.
fn copied(from: &Path, to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let name = entry?.file_name();
        if ["__pycache__", "build", "dist", "node_modules"].iter().any(|left| name == *left) {
            continue;
        }
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            copied(&source, &target)?;
        } else {
            fs::copy(&source, &target)
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(to.to_path_buf())
}
