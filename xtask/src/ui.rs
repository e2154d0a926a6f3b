//! `./x ui`: builds the dashboard, `host/ui`, into its `dist`, which is committed and which the
//! host embeds: building the host takes no Node.js.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use crate::{checks, process, programs, setup};

/// What is installed in `node_modules`, in it: written last, so that one that was not finished is
/// made anew.
const STAMP: &str = ".installed";

/// Checks the source, runs its tests, and builds `dist`.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    let ui = prepared(workspace)?;
    process::step("checking the dashboard", || npm(&ui, &["run", "check"]))?;
    process::step("building the dashboard", || npm(&ui, &["run", "build"]))
}

/// Checks the source, runs its tests, and compares `dist` with what it builds.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let ui = prepared(workspace)?;
    process::step("checking the dashboard", || npm(&ui, &["run", "check"]))?;
    process::step("comparing the dashboard with its source", || {
        let built = workspace.target().join("ui");
        let out = built.to_str().context("the target directory's path is not UTF-8")?;
        npm(
            &ui,
            &["exec", "--", "vite", "build", "--logLevel=warn", "--emptyOutDir", "--outDir", out],
        )?;
        let differ = differences(&files(&built)?, &files(&ui.join("dist"))?);
        ensure!(
            differ.is_empty(),
            "host/ui/dist is not what its source builds: {}; run `./x ui` and commit it",
            differ.join(", ")
        );
        Ok(())
    })
}

/// Builds the product and takes the pictures that the documentation shows.
pub(crate) fn screenshots(workspace: &Workspace) -> Result<()> {
    setup::for_measuring()?;
    programs::build(workspace)?;
    programs::build_tools(workspace, &["screenshots"])?;
    let mut command = Command::new(workspace.programs().join("screenshots"));
    checks::system_environment(&mut command, workspace);
    process::run(command.arg(workspace.root().join("docs/images")))
}

/// The folder of the dashboard, with Node.js on the machine and the packages of the lock in
/// `node_modules`.
pub(crate) fn prepared(workspace: &Workspace) -> Result<PathBuf> {
    setup::for_the_dashboard()?;
    let ui = workspace.root().join("host/ui");
    install_locked(&ui, "the dashboard's packages")?;
    Ok(ui)
}

/// Installs what the lock in a folder names into its `node_modules`, unless it is there. `what` is
/// for a person.
pub(crate) fn install_locked(folder: &Path, what: &str) -> Result<()> {
    let lock = folder.join("package-lock.json");
    let lock = fs::read(&lock).with_context(|| lock.display().to_string())?;
    let stamp = folder.join("node_modules").join(STAMP);
    if fs::read(&stamp).is_ok_and(|installed| installed == lock) {
        return Ok(());
    }
    process::step(&format!("installing {what} with npm"), || {
        npm(folder, &["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .with_context(|| format!("cannot install {what}; it takes a network once"))?;
        fs::write(&stamp, &lock).with_context(|| format!("cannot write {}", stamp.display()))
    })
}

fn npm(folder: &Path, arguments: &[&str]) -> Result<()> {
    process::run(Command::new("npm").current_dir(folder).args(arguments))
}

/// The files below a folder, by their paths in it.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn files(root: &Path) -> Result<Files> {
    let mut found = Files::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            found.insert(path.strip_prefix(root)?.to_path_buf(), bytes);
        }
    }
    Ok(found)
}

/// The paths that only one of two folders has, or that have other bytes in the second.
fn differences(one: &Files, other: &Files) -> Vec<String> {
    let paths = one.keys().chain(other.keys().filter(|path| !one.contains_key(*path)));
    let differ = paths.filter(|path| one.get(*path) != other.get(*path));
    differ.map(|path| path.display().to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_differ_by_names_and_by_bytes() {
        let folder = |files: &[(&str, &str)]| -> Result<Files> {
            let root = tempfile::tempdir()?;
            for (path, text) in files {
                let path = root.path().join(path);
                fs::create_dir_all(path.parent().context("a path in the folder")?)?;
                fs::write(path, text)?;
            }
            super::files(root.path())
        };
        let one =
            folder(&[("index.html", "a"), ("assets/a.js", "b"), ("assets/b.js", "c")]).unwrap();
        let other =
            folder(&[("index.html", "a"), ("assets/a.js", "x"), ("assets/c.js", "c")]).unwrap();
        assert!(differences(&one, &one).is_empty());
        assert_eq!(differences(&one, &other), ["assets/a.js", "assets/b.js", "assets/c.js"]);
    }
}
