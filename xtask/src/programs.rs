//! `./x build`: the programs and the built-in pipelines.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::features::UNIFIER;
use crate::onnxruntime::sha256;
use crate::process;
use crate::workspace::Workspace;

/// The target of every pipeline.
pub(crate) const GUEST_TARGET: &str = "wasm32-wasip2";

/// Folders of `guest-pipeline/` that are no pipelines: the authors' crate, and the beginnings that
/// authors copy.
const NOT_PIPELINES: [&str; 2] = ["sdk", "templates"];

/// The programs that one command builds, with the same dependencies.
const PROGRAMS: [&str; 5] =
    ["ocelli", "ocelli-worker", "ocelli-inference", "ocelli-ingest", "ocelli-rtsp"];

/// The program that has Wasmtime's compiler inside.
const COMPILER: &str = "ocelli-compile";

/// Builds the programs into `target/release` and the built-in pipelines into `target/pipelines`,
/// and notes their digests.
///
/// Cargo unifies the features of all that one command selects, so the compiler needs one of its
/// own: with it Cranelift would come into every session's process. The other programs are built
/// from the whole workspace, as the tests are: what is built here is what the tests find.
pub(crate) fn build(workspace: &Workspace) -> Result<()> {
    process::step(&title(workspace, "host, worker and inference", "ocelli-inference"), || {
        let bins = PROGRAMS.iter().flat_map(|program| ["--bin", program]);
        process::run(release(workspace, "build").args(bins))
    })?;
    process::step(&title(workspace, "the compiler of pipelines", COMPILER), || {
        process::run(&mut compiler(workspace, "build"))
    })?;
    components(workspace, "pipelines", "guest-pipeline", &workspace.pipelines())?;
    note_digests(workspace)
}

/// The programs that make up the product.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    PROGRAMS.into_iter().chain([COMPILER])
}

/// A cargo command on the workspace as a whole, whose features are the same whatever part of it is
/// built.
pub(crate) fn release(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = workspace.cargo();
    command.args([subcommand, "--release", "--workspace"]);
    command
}

/// Builds programs of the tests or the bench, with dependencies that the tests share.
pub(crate) fn build_tools(workspace: &Workspace, names: &[&str]) -> Result<()> {
    process::step(&format!("building {}", names.join(", ")), || {
        process::run(
            release(workspace, "build").args(names.iter().flat_map(|name| ["--bin", name])),
        )
    })
}

/// A cargo command on the compiler alone.
pub(crate) fn compiler(workspace: &Workspace, subcommand: &str) -> Command {
    let mut command = workspace.cargo();
    command.args([subcommand, "--release", "-p", COMPILER, "-p", UNIFIER]);
    command.args(["--features", "ocelli-compile/cranelift", "--bin", COMPILER]);
    command
}

/// Writes `target/programs.sha256`: which files are the product, as `sha256sum` would write it. The
/// tests hold what they run against it.
fn note_digests(workspace: &Workspace) -> Result<()> {
    let programs = names().map(|name| format!("release/{name}"));
    let names = pipelines(&workspace.root().join("guest-pipeline"))?;
    let pipelines = names.iter().map(|name| format!("pipelines/{name}.wasm"));
    let mut lines = String::new();
    for file in programs.chain(pipelines) {
        let digest = sha256(&workspace.target().join(&file))
            .with_context(|| format!("cannot read {file}"))?;
        lines += &format!("{digest}  {file}\n");
    }
    let list = workspace.target().join("programs.sha256");
    fs::write(&list, lines).with_context(|| format!("cannot write {}", list.display()))
}

/// Builds the pipelines of the tests into `target/test-pipelines`, apart from the built-in ones:
/// no camera is to run them.
pub(crate) fn build_test_pipelines(workspace: &Workspace) -> Result<()> {
    components(workspace, "pipelines of the tests", "tests/guests", &workspace.test_pipelines())
}

/// Builds the components whose crates lie in a folder of the checkout, and puts them into the folder
/// `destination`.
fn components(workspace: &Workspace, what: &str, folder: &str, destination: &Path) -> Result<()> {
    let names = pipelines(&workspace.root().join(folder))?;
    process::step(&format!("building {what}: {}", names.join(", ")), || {
        let mut command = workspace.cargo();
        command.args(["build", "--release", "--target", GUEST_TARGET, "-p", UNIFIER]);
        process::run(command.args(names.iter().flat_map(|name| ["-p", name])))?;
        let built = workspace.target().join(GUEST_TARGET).join("release");
        names.iter().try_for_each(|name| install_pipeline(&built, name, destination))
    })
}

fn title(workspace: &Workspace, what: &str, program: &str) -> String {
    let built = workspace.programs().join(program).exists();
    format!("building {what}{}", if built { "" } else { " (first time: several minutes)" })
}

/// The names of the pipelines: of the crates in `folder`, sorted.
fn pipelines(folder: &Path) -> Result<Vec<String>> {
    let read = |error| format!("cannot list {}: {error}", folder.display());
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| anyhow::anyhow!(read(error)))? {
        let entry = entry.map_err(|error| anyhow::anyhow!(read(error)))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().join("Cargo.toml").exists() && !NOT_PIPELINES.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Puts what Cargo built into its folder in one step, so that a running host never reads half a
/// file.
fn install_pipeline(folder: &Path, name: &str, destination: &Path) -> Result<()> {
    let built = folder.join(format!("{}.wasm", name.replace('-', "_")));
    let place = || -> std::io::Result<()> {
        fs::create_dir_all(destination)?;
        let partial = tempfile::NamedTempFile::new_in(destination)?;
        fs::copy(&built, partial.path())?;
        partial.persist(destination.join(format!("{name}.wasm")))?;
        Ok(())
    };
    place().with_context(|| format!("cannot copy {} to {}", built.display(), destination.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pipelines_are_the_crates_that_are_no_part_of_the_sdk() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["object-detect", "count", "sdk", "templates"] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::write(folder.path().join(name).join("Cargo.toml"), "").unwrap();
        }
        fs::create_dir(folder.path().join("notes")).unwrap();
        assert_eq!(pipelines(folder.path()).unwrap(), ["count", "object-detect"]);
    }
}
