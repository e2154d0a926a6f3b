//! Prometheus's tool for rules, which the tests of `config/monitoring` take: out of Debian's
//! package of Prometheus, which is unpacked and not installed, so that no server is started.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

use crate::{onnxruntime, process};

/// By which the tests know where it lies.
pub(crate) const VARIABLE: &str = "OCELLI_PROMTOOL";

const NAME: &str = "promtool";

/// The package that has it.
const PACKAGE: &str = "prometheus";

/// Its place in the package.
const IN_PACKAGE: &str = "./usr/bin/promtool";

/// The tool of this machine, or the one that [`install`] has unpacked.
pub(crate) fn find() -> Option<PathBuf> {
    let runs = |tool: &PathBuf| process::succeeds(Command::new(tool).arg("--version"));
    [Some(PathBuf::from(NAME)), unpacked().ok()].into_iter().flatten().find(runs)
}

/// Unpacks it into the user's cache folder, unless it is there. A machine that cannot have it says
/// so, and goes without.
pub(crate) fn install() -> Result<()> {
    if find().is_some() {
        return Ok(());
    }
    let title = format!("unpacking {NAME} from Debian's package {PACKAGE} (20 MB)");
    if let Err(error) = process::step(&title, unpack) {
        eprintln!("    SKIPPED: the alert rules are not tested here: {error:#}");
    }
    Ok(())
}

fn unpacked() -> Result<PathBuf> {
    Ok(onnxruntime::cache()?.join("tools/bin").join(NAME))
}

fn unpack() -> Result<()> {
    let tool = unpacked()?;
    let folder = tool.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // In the cache folder, so that the last step is a rename within one file system.
    let work = tempfile::tempdir_in(folder)?;
    let mut fetch = Command::new("apt-get");
    fetch.args(["-q", "download", PACKAGE]).current_dir(work.path()).stdin(Stdio::null());
    process::output(&mut fetch)?;
    let package = fs::read_dir(work.path())?.flatten().map(|entry| entry.path());
    let package = package.into_iter().next().context("apt-get has downloaded nothing")?;
    process::output(
        Command::new("sh")
            .args(["-c", "dpkg-deb --fsys-tarfile \"$1\" | tar -x \"$2\"", "sh"])
            .arg(&package)
            .arg(IN_PACKAGE)
            .current_dir(work.path()),
    )?;
    fs::rename(work.path().join(IN_PACKAGE), &tool)
        .with_context(|| format!("cannot write {}", tool.display()))
}
