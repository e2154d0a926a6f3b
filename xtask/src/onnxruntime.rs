//! The pinned ONNX Runtime: fetched as a wheel through pip, checked twice, kept in the user's cache
//! folder.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::process;

pub(crate) const VERSION: &str = "1.28.0";
pub(crate) const WHEEL_SHA256: &str =
    "a166b78ee04f3a37fa1ef82034b6a3ce96d9684e582d4d30b296de83e9998bb5";
const LIBRARY: &str = "libonnxruntime.so.1.28.0";
pub(crate) const LIBRARY_SHA256: &str =
    "aa4079d18f4ea7a5f3a94d80cd4bbe0f2740436626622d64d793803a20381083";

/// Names one wheel whatever Python runs pip: the library in it does not depend on Python.
const PIP_DOWNLOAD: [&str; 13] = [
    "download",
    "--no-input",
    "--disable-pip-version-check",
    "--no-deps",
    "--only-binary=:all:",
    "--python-version",
    "3.11",
    "--implementation",
    "cp",
    "--abi",
    "cp311",
    "--platform",
    "manylinux_2_28_x86_64",
];

/// Where the host looks for the library by default.
pub(crate) fn library() -> Result<PathBuf> {
    Ok(cache()?.join(format!("onnxruntime-{VERSION}")).join(LIBRARY))
}

/// The user's cache folder, in which a downloaded file or a built tool serves every checkout.
pub(crate) fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("OCELLI_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("ocelli")))
        .or_else(|| set("HOME").map(|home| home.join(".cache/ocelli")))
        .context("no cache folder: set OCELLI_CACHE or HOME")
}

/// True if the library is in its place, whole and unchanged.
pub(crate) fn is_installed(library: &Path) -> bool {
    verify(library, LIBRARY_SHA256).is_ok()
}

/// What of the wheel has to go with the library, to whomever it is given.
pub(crate) const NOTICES: [&str; 2] = ["LICENSE", "ThirdPartyNotices.txt"];

/// The library with its licence and the notices of its parts beside it.
pub(crate) fn with_notices(python: &str) -> Result<PathBuf> {
    let library = library()?;
    if !is_installed(&library) {
        install(&library, python)?;
    }
    if NOTICES.iter().any(|notice| !library.with_file_name(notice).is_file()) {
        let folder = library.parent().context("the cache folder has no parent")?;
        let wheel = unpacked_wheel(folder, python)?;
        for notice in NOTICES {
            let unpacked = wheel.path().join("onnxruntime").join(notice);
            fs::rename(&unpacked, folder.join(notice))
                .with_context(|| format!("the wheel's {notice}"))?;
        }
    }
    Ok(library)
}

/// Downloads the library to `library`, with `python -m pip`, unless another process has done so
/// meanwhile.
pub(crate) fn install(library: &Path, python: &str) -> Result<()> {
    ensure!(
        std::env::consts::ARCH == "x86_64",
        "ONNX Runtime {VERSION} is pinned for x86_64 only; this machine is {}",
        std::env::consts::ARCH
    );
    let folder = library.parent().context("the cache folder has no parent")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock = File::create(folder.join(".lock"))
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    lock.lock().context("cannot lock the cache folder")?;
    if is_installed(library) {
        return Ok(());
    }
    let work = unpacked_wheel(folder, python)?;
    let unpacked = work.path().join("onnxruntime/capi").join(LIBRARY);
    verify(&unpacked, LIBRARY_SHA256)?;
    fs::rename(&unpacked, library).with_context(|| format!("cannot write {}", library.display()))
}

/// The wheel, downloaded, checked and unpacked in a folder of its own in `folder`, so that the last
/// step is a rename within one file system.
fn unpacked_wheel(folder: &Path, python: &str) -> Result<tempfile::TempDir> {
    let work = tempfile::tempdir_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    let mut pip = Command::new(python);
    pip.args(["-m", "pip"])
        .args(PIP_DOWNLOAD)
        .arg("--dest")
        .arg(work.path())
        .arg(format!("onnxruntime=={VERSION}"));
    process::run(&mut pip).with_context(|| {
        format!("cannot download ONNX Runtime {VERSION}; with a network, run ./x setup again")
    })?;
    let wheel = the_wheel(work.path())?;
    verify(&wheel, WHEEL_SHA256)?;
    // A wheel is a zip archive, and Python is here.
    process::run(
        Command::new(python).args(["-m", "zipfile", "-e"]).args([wheel.as_path(), work.path()]),
    )?;
    Ok(work)
}

fn the_wheel(folder: &Path) -> Result<PathBuf> {
    let files =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let mut wheels = files
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension() == Some("whl".as_ref()));
    wheels.next().context("pip downloaded no wheel")
}

/// An error that says both digests, unless the file's is the expected one.
fn verify(file: &Path, expected: &str) -> Result<()> {
    let digest = sha256(file).with_context(|| format!("cannot read {}", file.display()))?;
    if digest != expected {
        bail!("{} is not the pinned file: its sha256 is {digest}, not {expected}", file.display());
    }
    Ok(())
}

/// The digest of a file, in hexadecimal.
pub(crate) fn sha256(file: &Path) -> io::Result<String> {
    let mut file = File::open(file)?;
    let mut hasher = Sha256::new();
    // 64 KiB: large enough that system calls cost nothing beside the hashing.
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        let Some(read) = buffer.get(..count).filter(|read| !read.is_empty()) else {
            return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        };
        hasher.update(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_digest_is_refused_and_both_digests_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("library");
        fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        verify(&file, abc).unwrap();
        let error = verify(&file, LIBRARY_SHA256).unwrap_err().to_string();
        assert!(error.contains(abc) && error.contains(LIBRARY_SHA256), "{error}");
        assert!(!is_installed(&file));
    }
}
