//! The packages as users meet them: made twice, checked by their formats' own tools, and tried in
//! bare systems (tests/packages). Part of `./x test --full`: it takes minutes, root and a network.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{Packages, cleared, stage};
use crate::workspace::Workspace;
use crate::{onnxruntime, process, setup};

/// Tries packages in bare systems.
const TRIAL: &str = "tests/packages/trial.sh";

/// Checkers of wheels and parts lists, from PyPI.
const CHECKERS: [&str; 2] = ["twine==7.0.0", "cyclonedx-python-lib[json-validation]==11.12.0"];

/// Holds a parts list to the format's own schema.
const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(open(sys.argv[1]).read())
sys.exit(fault and f'{sys.argv[1]}: {fault}')
";

/// Makes the packages of the last build twice and tries them.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("==> SKIPPED: trying the packages in bare systems takes root");
        return Ok(());
    }
    setup::for_trying_packages()?;
    let folder = workspace.target().join("packages-trial");
    let [first, second] = ["first", "second"].map(|name| folder.join(name));
    for out in [&first, &second] {
        cleared(out)?;
        super::run(workspace, &Packages::of_build(workspace, out))?;
    }
    process::step("comparing both", || {
        let (first, second) = (digests(&first)?, digests(&second)?);
        ensure!(first.len() > 4, "there are no packages");
        for (name, digest) in &first {
            ensure!(
                second.get(name) == Some(digest),
                "{} is another the second time",
                name.display()
            );
        }
        Ok(())
    })?;
    process::step("checking their formats", || formats(&first, &folder))?;
    process::step("trying them in bare systems", || {
        let mut trial = Command::new("sh");
        process::run(trial.arg(workspace.root().join(TRIAL)).arg(&first).arg(folder.join("work")))
    })
}

/// The digests of all files below a folder.
fn digests(folder: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(stage::files(&path)?.into_iter().map(|(_, path)| path));
        } else {
            let name = path.strip_prefix(folder)?.to_owned();
            found.insert(name, onnxruntime::sha256(&path)?);
        }
    }
    Ok(found)
}

/// lintian on the Debian package, twine on the wheel, the schema on the parts list.
fn formats(packages: &Path, folder: &Path) -> Result<()> {
    let environment = folder.join("checkers");
    if !environment.is_dir() {
        let mut make = Command::new(setup::SYSTEM_PYTHON);
        process::run(make.args(["-m", "venv"]).arg(&environment))?;
        let mut pip = Command::new(environment.join("bin/pip"));
        process::run(pip.args(["install", "--quiet"]).args(CHECKERS))?;
    }
    for (name, file) in stage::files(packages)? {
        if name.ends_with(".deb") {
            let options = ["--fail-on", "error,warning", "--tag-display-limit", "0"];
            process::run(Command::new("lintian").args(options).arg(&file))?;
        } else if name.ends_with(".whl") {
            let mut twine = Command::new(environment.join("bin/twine"));
            process::run(twine.args(["check", "--strict"]).arg(&file))?;
        } else if name.ends_with(".cdx.json") {
            let mut python = Command::new(environment.join("bin/python"));
            process::run(python.args(["-c", VALIDATE]).arg(&file))
                .context("the parts list is not CycloneDX")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_of_all_files_below_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        stage::write(&folder.path().join("a/b"), "abc", stage::FILE).unwrap();
        let found = digests(folder.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), [Path::new("a/b")]);
    }
}
