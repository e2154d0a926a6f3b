//! `ocelli-VERSION-py3-none-manylinux_2_N_x86_64.whl`: the product for `pip install`, with a
//! command `ocelli` that becomes the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};

use super::ffmpeg::Ffmpeg;
use super::parts::Parts;
use super::{Product, stage, told};
use crate::{process, setup};

/// Packs a folder as a wheel; Python's own library knows the format.
const WRITER: &str = include_str!("wheel.py");

/// What the command runs.
const LAUNCHER: &str = include_str!("wheel_launcher.py");

/// Libraries that manylinux leaves to the system.
const OF_THE_SYSTEM: [&str; 9] = [
    "ld-linux-x86-64.so.2",
    "libc.so.6",
    "libdl.so.2",
    "libgcc_s.so.1",
    "libm.so.6",
    "libpthread.so.0",
    "librt.so.1",
    "libstdc++.so.6",
    "libz.so.1",
];

pub(crate) fn make(product: &Product<'_>, parts: &Parts, ffmpeg: &Ffmpeg) -> Result<()> {
    let folder = product.stage("wheel")?;
    let module = folder.join("ocelli");
    stage::installation(product, &module.join("installed"), Some(ffmpeg))?;
    stage::write(&module.join("__init__.py"), &module_text(&product.version), stage::FILE)?;
    stage::write(&module.join("__main__.py"), LAUNCHER, stage::FILE)?;
    let tag = format!("py3-none-manylinux_2_{}_x86_64", libc(&module.join("installed"))?);
    let info = folder.join(format!("ocelli-{}.dist-info", product.version));
    metadata(product, parts, ffmpeg, &info, &tag)?;
    let wheel = product.out.join(format!("ocelli-{}-{tag}.whl", product.version));
    pack(product, &folder, &wheel)?;
    told(&wheel)
}

/// Packs a folder as a wheel.
pub(crate) fn pack(product: &Product<'_>, folder: &Path, wheel: &Path) -> Result<()> {
    let mut python = product.command(setup::SYSTEM_PYTHON);
    process::run(python.args(["-B", "-c", WRITER]).arg(folder).arg(wheel))
}

fn module_text(version: &str) -> String {
    format!(
        "\"\"\"Ocelli, live camera analytics: the programs.\"\"\"\n\n__version__ = \"{version}\"\n"
    )
}

fn metadata(
    product: &Product<'_>,
    parts: &Parts,
    ffmpeg: &Ffmpeg,
    info: &Path,
    tag: &str,
) -> Result<()> {
    let root = product.workspace.root();
    let licences = info.join("licenses");
    stage::documents(product, parts, &licences)?;
    ffmpeg.documents(&licences)?;
    for name in ["ocelli.toml", "ocelli.schema.json"] {
        std::fs::remove_file(licences.join(name))?;
    }
    for licence in ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT"] {
        stage::copy(&root.join(licence), &licences.join(licence), stage::FILE)?;
    }
    let files: String = stage::files(&licences)?
        .into_iter()
        .map(|(name, _)| format!("License-File: {name}\n"))
        .collect();
    let text = format!(
        "Metadata-Version: 2.4\nName: ocelli\nVersion: {}\n\
         Summary: Live camera analytics whose pipelines cannot hurt each other\n\
         License-Expression: Apache-2.0 OR MIT\n{files}\
         Requires-Python: >=3.8\nDescription-Content-Type: text/markdown\n\n{}",
        product.version,
        include_str!("wheel.md")
    );
    stage::write(&info.join("METADATA"), &text, stage::FILE)?;
    let wheel = format!(
        "Wheel-Version: 1.0\nGenerator: ocelli xtask\nRoot-Is-Purelib: false\nTag: {tag}\n"
    );
    stage::write(&info.join("WHEEL"), &wheel, stage::FILE)?;
    let command = "[console_scripts]\nocelli = ocelli.__main__:main\n";
    stage::write(&info.join("entry_points.txt"), command, stage::FILE)
}

/// The N of the oldest glibc 2.N that all programs and libraries of a tree run on. An error where
/// one needs a library that neither the tree nor every system has.
fn libc(installed: &Path) -> Result<u32> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["bin", "lib", "lib/onnxruntime-1.28.0"] {
        let found = stage::files(&installed.join(folder))?.into_iter().map(|(_, path)| path);
        files.extend(found.filter(|path| path.is_file()));
    }
    let name = |path: &PathBuf| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let own: BTreeSet<String> = files.iter().map(name).collect();
    let mut newest = 0;
    for file in &files {
        let told = process::output(Command::new("objdump").arg("-p").arg(file))?;
        for library in needed(&told) {
            ensure!(
                own.contains(library) || OF_THE_SYSTEM.contains(&library),
                "{} needs {library}, which not every system has",
                file.display()
            );
        }
        newest = newest.max(newest_glibc(&told).unwrap_or(0));
    }
    ensure!(newest > 0, "no program needs a glibc");
    Ok(newest)
}

/// The shared libraries that `objdump -p` lists.
fn needed(told: &str) -> impl Iterator<Item = &str> {
    told.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")).map(str::trim)
}

/// The newest version 2.N of glibc among the references that `objdump -p` lists.
fn newest_glibc(told: &str) -> Option<u32> {
    let words = told.split_whitespace();
    words.filter_map(|word| word.strip_prefix("GLIBC_2.")?.split('.').next()?.parse().ok()).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_libc_are_read_from_what_objdump_says() {
        let told = "  NEEDED               libz.so.1\n  NEEDED               libc.so.6\n\
            Version References:\n  required from libc.so.6:\n\
            0x0d696913 0x00 03 GLIBC_2.3.4\n    0x069691b4 0x00 02 GLIBC_2.34\n";
        assert_eq!(needed(told).collect::<Vec<_>>(), ["libz.so.1", "libc.so.6"]);
        assert_eq!(newest_glibc(told), Some(34));
        assert_eq!(newest_glibc("not an ELF file"), None);
    }
}
