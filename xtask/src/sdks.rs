//! The SDKs of other languages than Rust: their tests, which take no host, and `./x package`.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::package::{EPOCH, cleared, commit_time};
use crate::workspace::Workspace;
use crate::{client_packages, process, setup};

const PYTHON: &str = "guest-pipeline/sdk-python";
const JAVASCRIPT: &str = "guest-pipeline/sdk-js";

/// A file of the contract, which each package holds.
const CONTRACT: &str = "wit/frames.wit";

/// What is no part of a package.
const LEFT_OUT: [&str; 4] = ["tests", "node_modules", "__pycache__", "build"];

/// Runs the tests of both SDKs, and those of the templates that take nothing else.
pub(crate) fn test(workspace: &Workspace) -> Result<()> {
    setup::for_the_dashboard()?;
    process::step("testing the SDK for Python", || {
        process::run(&mut unittest(&workspace.root().join(PYTHON), "."))?;
        let template = workspace.root().join("guest-pipeline/templates/python");
        process::run(&mut unittest(&template, "src:../../sdk-python"))
    })?;
    process::step("testing the SDK for JavaScript", || {
        let sdk = workspace.root().join(JAVASCRIPT);
        let project = javascript_project(workspace, &sdk)?;
        for folder in [sdk, project] {
            process::run(Command::new("node").current_dir(folder).arg("--test"))?;
        }
        Ok(())
    })
}

/// The template's code as a project in which the SDK is installed.
fn javascript_project(workspace: &Workspace, sdk: &Path) -> Result<PathBuf> {
    let template = workspace.root().join("guest-pipeline/templates/js");
    let project = workspace.target().join("sdk-tests/js");
    for file in ["package.json", "src/app.js", "tests/app.test.js"] {
        let copy = project.join(file);
        fs::create_dir_all(copy.parent().context("a file in a folder")?)?;
        fs::copy(template.join(file), copy).with_context(|| format!("cannot copy {file}"))?;
    }
    let scope = project.join("node_modules/@ocelli");
    fs::create_dir_all(&scope)?;
    // Another checkout with the same target folder may have left its own.
    let _ = fs::remove_file(scope.join("sdk"));
    match std::os::unix::fs::symlink(sdk, scope.join("sdk")) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error.into()),
        _ => Ok(project),
    }
}

/// Python's own test runner on the folder `tests` of `place`.
fn unittest(place: &Path, path: &str) -> Command {
    let mut python = Command::new(setup::SYSTEM_PYTHON);
    python.current_dir(place).args(["-B", "-m", "unittest", "discover", "--quiet", "tests"]);
    python.env("PYTHONPATH", path);
    python
}

/// Makes the wheels and the npm tarballs of SDKs and clients in the folder `packages`. Each SDK
/// holds the contract, to which a link leads in the repository.
pub(crate) fn package(workspace: &Workspace, packages: &Path) -> Result<()> {
    setup::for_the_dashboard()?;
    let python = setup::python_with_pip()?;
    let stage = packages.join("stage/sdks");
    cleared(&stage)?;
    let epoch = commit_time(workspace)?;
    process::step("packing the SDK for Python", || {
        let source = copied(&workspace.root().join(PYTHON), &stage.join("python"))?;
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-input"]);
        pip.env(EPOCH, epoch.to_string());
        pip.arg("--disable-pip-version-check").arg("--wheel-dir").arg(packages).arg(source);
        process::run(&mut pip).context("cannot make the wheel; it takes a network")?;
        let wheel = packed(packages, "ocelli_sdk", "whl")?;
        let list = Command::new(python).args(["-m", "zipfile", "--list"]).arg(&wheel).output();
        holds_the_contract(&wheel, &list?.stdout)
    })?;
    process::step("packing the SDK for JavaScript", || {
        let source = copied(&workspace.root().join(JAVASCRIPT), &stage.join("js"))?;
        let mut npm = Command::new("npm");
        npm.current_dir(source).args(["pack", "--silent", "--pack-destination"]).arg(packages);
        process::run(&mut npm)?;
        let tarball = packed(packages, "ocelli-sdk", "tgz")?;
        let list = Command::new("tar").arg("-tzf").arg(&tarball).output();
        holds_the_contract(&tarball, &list?.stdout)
    })?;
    client_packages::package(workspace, packages, &stage)
}

/// Copies a folder, and what links in it lead to, without what is no part of a package.
fn copied(from: &Path, to: &Path) -> Result<PathBuf> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let name = entry?.file_name();
        if LEFT_OUT.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let (source, target) = (from.join(&name), to.join(&name));
        if fs::metadata(&source).with_context(|| source.display().to_string())?.is_dir() {
            copied(&source, &target)?;
        } else {
            fs::copy(&source, &target)
                .with_context(|| format!("cannot copy {}", source.display()))?;
        }
    }
    Ok(to.to_path_buf())
}

/// The file of a folder whose name begins and ends so.
fn packed(folder: &Path, name: &str, extension: &str) -> Result<PathBuf> {
    let files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path()));
    let found: Vec<PathBuf> = files.collect::<Result<Vec<_>>>()?;
    let is_it = |path: &PathBuf| {
        let begins = path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
        begins && path.extension() == Some(OsStr::new(extension))
    };
    found.into_iter().find(is_it).with_context(|| format!("there is no {name}*.{extension}"))
}

fn holds_the_contract(package: &Path, list: &[u8]) -> Result<()> {
    let list = String::from_utf8_lossy(list);
    ensure!(list.contains(CONTRACT), "{} does not hold {CONTRACT}", package.display());
    ensure!(!list.contains("tests/"), "{} holds tests", package.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_links_lead_to_is_copied_and_tests_are_not() {
        let root = tempfile::tempdir().unwrap();
        let (sdk, contract) = (root.path().join("sdk"), root.path().join("contract"));
        for folder in [sdk.join("src"), sdk.join("tests"), contract.clone()] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(contract.join("frames.wit"), "package").unwrap();
        fs::write(sdk.join("tests/test.py"), "").unwrap();
        std::os::unix::fs::symlink("../contract", sdk.join("wit")).unwrap();
        let copy = copied(&sdk, &root.path().join("stage/python")).unwrap();
        assert_eq!(fs::read_to_string(copy.join("wit/frames.wit")).unwrap(), "package");
        assert!(!copy.join("wit").is_symlink());
        assert!(copy.join("src").is_dir() && !copy.join("tests").exists());
    }

    #[test]
    fn a_package_without_the_contract_is_refused() {
        let package = Path::new("sdk.whl");
        assert!(holds_the_contract(package, b"ocelli_sdk/wit/frames.wit 3").is_ok());
        assert!(holds_the_contract(package, b"ocelli_sdk/frames.py").is_err());
        assert!(holds_the_contract(package, b"wit/frames.wit tests/a.py").is_err());
    }
}
