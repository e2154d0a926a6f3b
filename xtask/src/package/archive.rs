//! `ocelli-VERSION-x86_64.tar.zst`: unpacked anywhere, it runs on any Linux with a recent libc.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};

use super::ffmpeg::Ffmpeg;
use super::parts::Parts;
use super::{Product, stage, told};
use crate::process;

/// Where the unit of the archive expects it.
const PLACE: &str = "/opt/ocelli";

pub(crate) fn make(product: &Product<'_>, parts: &Parts, ffmpeg: &Ffmpeg) -> Result<()> {
    let name = format!("ocelli-{}-x86_64", product.version);
    let folder = product.stage("tar")?;
    let root = folder.join(&name);
    stage::installation(product, &root, Some(ffmpeg))?;
    stage::documents(product, parts, &root.join("doc"))?;
    ffmpeg.documents(&root.join("doc"))?;
    stage::for_shells(&root.join("bin/ocelli"), &root.join("share/man/man1"), &root.join("share"))?;
    let unit = stage::unit(product, &format!("{PLACE}/bin/ocelli"))?;
    stage::write(&root.join("config/ocelli.service"), &unit, stage::FILE)?;
    let config = stage::service_config(product, PLACE, &format!("{PLACE}/doc/ocelli.toml"))?;
    stage::write(&root.join("config/ocelli.toml"), &config, stage::FILE)?;
    for licence in ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT", "CHANGELOG.md"] {
        let text = product.workspace.root().join(licence);
        stage::copy(&text, &root.join(licence), stage::FILE)?;
    }
    let archive = product.out.join(format!("{name}.tar.zst"));
    // 15: stronger levels take three times as long for a few percent.
    pack(product, &Tree::all(&folder), &archive, &["zstd", "-15", "-q", "-T1", "--no-progress"])?;
    told(&archive)
}

/// What goes into an archive.
pub(crate) struct Tree<'a> {
    pub(crate) folder: &'a Path,
    /// Paths in it; folders with all below them.
    pub(crate) members: &'a [&'a str],
    /// The number of the user and the group.
    pub(crate) owner: u32,
}

impl<'a> Tree<'a> {
    /// All of a folder, as root's.
    pub(crate) fn all(folder: &'a Path) -> Self {
        Self { folder, members: &["."], owner: 0 }
    }
}

/// Packs a tree into an archive that depends on names, modes and contents alone, through a program
/// that compresses.
pub(crate) fn pack(
    product: &Product<'_>,
    tree: &Tree<'_>,
    archive: &Path,
    compressor: &[&str],
) -> Result<()> {
    let mut tar = product.command("tar");
    tar.arg("-C").arg(tree.folder).args(["--sort=name", "--numeric-owner"]);
    tar.args([format!("--owner={}", tree.owner), format!("--group={}", tree.owner)]);
    tar.args(["--format=gnu", &format!("--mtime=@{}", product.epoch), "-cf", "-"])
        .args(tree.members);
    let mut tar = tar.stdout(Stdio::piped()).spawn().context("cannot run tar")?;
    let packed = tar.stdout.take().context("tar has an output")?;
    let (program, arguments) = compressor.split_first().context("a program")?;
    let file =
        fs::File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
    let mut compress = product.command(program);
    compress.args(arguments).stdin(packed).stdout(file);
    process::run(&mut compress)?;
    let ended = tar.wait()?;
    ensure!(ended.success(), "tar failed: {ended}");
    Ok(())
}
