//! A file system that is full soon.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::skip::skip;

/// The name of the file that fills it.
const FILLER: &str = "filler";

/// A file system in memory, unmounted when dropped.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// One of so many KiB at this folder. None, and the test is skipped, where this process may not
    /// mount.
    pub fn mount(at: &Path, kib: u64) -> Option<Self> {
        let size = format!("size={kib}k");
        let mut mount = Command::new("mount");
        match mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).output() {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            refused => {
                skip(&format!(
                    "a disk that fills up cannot be tried, mounting one is refused: {refused:?}"
                ));
                None
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes another program's file until not one byte more goes. How many it took.
    pub fn fill(&self) -> u64 {
        let path = self.0.join(FILLER);
        let mut file = File::options().create(true).append(true).open(&path).unwrap();
        let before = file.metadata().unwrap().len();
        for step in [64 << 10, 1 << 10, 1] {
            let bytes = vec![0x5a; step];
            while file.write(&bytes).is_ok_and(|written| written > 0) {}
        }
        file.metadata().unwrap().len() - before
    }

    /// As [`Self::fill`], but that so many bytes stay free.
    pub fn fill_but(&self, free: u64) {
        self.fill();
        let file = File::options().write(true).open(self.0.join(FILLER)).unwrap();
        let length = file.metadata().unwrap().len();
        file.set_len(length.saturating_sub(free)).unwrap();
    }

    /// Deletes that file.
    pub fn free(&self) {
        std::fs::remove_file(self.0.join(FILLER)).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: what a test that failed still has open does not keep it.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}
