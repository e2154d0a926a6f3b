//! The folders that a session was granted: inherited open, and given to its component as preopened
//! directories of WASI.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use ocelli_protocol::confinement::{Confinement, Measure};
use ocelli_protocol::process::GrantedDirectory;
use ocelli_sandbox::limit;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

/// The largest file that a component may write, in bytes: a worker that runs wild must not fill a
/// disk with one. How many it writes is not bounded.
const MAX_FILE: u64 = 64 << 20;

/// The session's folders. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Directories(Arc<[(GrantedDirectory, OwnedFd)]>);

impl Directories {
    /// Those that were inherited.
    pub fn new(folders: impl Iterator<Item = (GrantedDirectory, OwnedFd)>) -> Self {
        Self(folders.collect())
    }

    /// For the process's confinement.
    pub fn profile(&self) -> Vec<(BorrowedFd<'_>, bool)> {
        self.0.iter().map(|(folder, fd)| (fd.as_fd(), folder.write)).collect()
    }

    /// Whether there is one.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bounds what is written. An error where the process is not held to its folders: whoever takes
    /// it over would open any file.
    pub(crate) fn secure(&self, confinement: &Confinement) -> io::Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        if !confinement.enforced.contains(&Measure::Files) {
            return Err(io::Error::other(format!(
                "`directories` need a kernel that confines files (landlock, Linux 6.2): {}",
                confinement.missing_text()
            )));
        }
        limit::file_size(MAX_FILE)
    }

    /// Gives them to a component.
    pub(crate) fn preopen(&self, wasi: &mut WasiCtxBuilder) -> wasmtime::Result<()> {
        // On the component's own thread: a worker starts no more of them.
        wasi.allow_blocking_current_thread(true);
        for (folder, fd) in self.0.iter() {
            let perms = if folder.write { FsPerms::ReadWrite } else { FsPerms::ReadOnly };
            let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
            wasi.preopened_dir(path, &folder.guest, perms)?;
        }
        Ok(())
    }
}
