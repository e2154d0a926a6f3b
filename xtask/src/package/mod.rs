//! `./x package`: what users install. The product as a Debian package, a relocatable archive, a
//! Python wheel and an OCI image, all from one build; and the SDKs of pipelines.
//!
//! ```text
//! target/release, pipelines, models, ONNX Runtime, a clip --> one tree (`stage`) --> deb
//!                                                              + FFmpeg          --> tar.zst
//!                                                                                --> wheel
//!                                                              + Debian's libc   --> OCI layout
//! ```
//!
//! The Debian package uses Debian's FFmpeg. The others bring a small one of their own (`ffmpeg`),
//! because no machine but a Debian 12 has those versions. Every package holds the licences and the
//! parts list (`parts`) of what is in it, and is the same to the byte when it is made again from
//! the same build: times are those of the commit, entries are sorted, and owners are fixed.

mod archive;
mod crates;
mod deb;
mod ffmpeg;
mod image;
mod parts;
mod sizes;
mod stage;
pub(crate) mod trial;
mod wheel;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;
use crate::{onnxruntime, process, programs, sdks, setup};

#[derive(Args)]
pub(crate) struct Packages {
    /// Packs what lies in this target folder instead of building: release/ and pipelines/
    #[arg(long, value_name = "TARGET")]
    built: Option<PathBuf>,
    /// Where the packages go; default: target/packages
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Which; default: all
    #[arg(value_name = "PACKAGE")]
    which: Vec<Kind>,
}

impl Packages {
    /// All packages of what was built.
    fn of_build(workspace: &Workspace, out: &Path) -> Self {
        Self {
            built: Some(workspace.target().to_owned()),
            out: Some(out.to_owned()),
            which: Vec::new(),
        }
    }
}

/// A package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// The Debian package
    Deb,
    /// The relocatable archive
    Tar,
    /// The Python wheel of the product
    Wheel,
    /// The OCI image, as a layout
    Image,
    /// The SDKs of pipelines: a wheel and an npm tarball
    Sdks,
}

/// What all packages are made from.
pub(crate) struct Product<'a> {
    pub(crate) workspace: &'a Workspace,
    /// Has `release/` and `pipelines/`.
    pub(crate) built: PathBuf,
    /// Where packages go.
    pub(crate) out: PathBuf,
    pub(crate) version: String,
    /// The time that all files get: seconds since 1970.
    pub(crate) epoch: u64,
    /// ONNX Runtime's library, beside its licence and notices.
    pub(crate) onnxruntime: PathBuf,
}

impl Product<'_> {
    /// A command that knows the time of all files.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env(EPOCH, self.epoch.to_string()).env("TZ", "UTC");
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// A fresh folder for the tree of a package.
    fn stage(&self, name: &str) -> Result<PathBuf> {
        let stage = self.out.join("stage").join(name);
        cleared(&stage)?;
        Ok(stage)
    }
}

/// Makes the packages.
pub(crate) fn run(workspace: &Workspace, packages: &Packages) -> Result<()> {
    let wanted = |kind| packages.which.is_empty() || packages.which.contains(&kind);
    let out = packages.out.clone().unwrap_or_else(|| workspace.target().join("packages"));
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let out = out.canonicalize()?;
    if wanted(Kind::Sdks) {
        sdks::package(workspace, &out)?;
    }
    if packages.which.is_empty() || packages.which.iter().any(|kind| *kind != Kind::Sdks) {
        product(workspace, packages, &out, wanted)?;
    }
    let stage = out.join("stage");
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("cannot remove {}", stage.display()))?;
    }
    eprintln!("==> the packages are in {}", out.display());
    Ok(())
}

fn product(
    workspace: &Workspace,
    packages: &Packages,
    out: &Path,
    wanted: impl Fn(Kind) -> bool,
) -> Result<()> {
    setup::for_packaging()?;
    if packages.built.is_none() {
        setup::for_building()?;
        programs::build(workspace)?;
    }
    let built = packages.built.clone().unwrap_or_else(|| workspace.target().to_owned());
    let product = Product {
        workspace,
        built: built.canonicalize().with_context(|| built.display().to_string())?,
        out: out.to_owned(),
        version: workspace.version().to_owned(),
        epoch: commit_time(workspace)?,
        onnxruntime: onnxruntime::with_notices(setup::python_with_pip()?)?,
    };
    let parts = process::step("listing parts and licences", || parts::write(&product))?;
    if wanted(Kind::Deb) {
        process::step("making the Debian package", || deb::make(&product, &parts))?;
    }
    if wanted(Kind::Tar) || wanted(Kind::Wheel) || wanted(Kind::Image) {
        let ffmpeg = ffmpeg::libraries(&product)?;
        if wanted(Kind::Tar) {
            process::step("making the archive", || archive::make(&product, &parts, &ffmpeg))?;
        }
        if wanted(Kind::Wheel) {
            process::step("making the wheel", || wheel::make(&product, &parts, &ffmpeg))?;
        }
        if wanted(Kind::Image) {
            process::step("making the image", || image::make(&product, &parts, &ffmpeg))?;
        }
    }
    sizes::tell(&product)
}

/// By which packers know the time of all files.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The time of the last commit, unless the usual variable says another.
pub(crate) fn commit_time(workspace: &Workspace) -> Result<u64> {
    let text = match std::env::var(EPOCH) {
        Ok(set) => set,
        Err(_) => process::output(Command::new("git").current_dir(workspace.root()).args([
            "log",
            "-1",
            "--format=%ct",
        ]))?,
    };
    text.trim().parse().with_context(|| format!("{text:?} is no time in seconds"))
}

/// An empty folder at a path.
pub(crate) fn cleared(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))
}

/// Says how large a package is, and its digest.
pub(crate) fn told(package: &Path) -> Result<()> {
    let bytes = fs::metadata(package).with_context(|| package.display().to_string())?.len();
    ensure!(bytes > 0, "{} is empty", package.display());
    let digest = onnxruntime::sha256(package)?;
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    eprintln!("    {name}: {:.1} MB, sha256 {digest}", bytes as f64 / 1e6);
    Ok(())
}
