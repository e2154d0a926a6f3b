//! Compiled components on disk. To load one is to run its code, so an entry counts only if this
//! host's compiler wrote it: its name has the SHA-256 of its content, which is checked each time.
//!
//! `COMPONENT-ENGINE-CONTENT.cwasm`: the component's digest, the engine with which the compiled
//! code is compatible, and the digest of the code itself, all in the name of one file, so that
//! entry and digest stay together.
//!
//! Hosts of one user may share the folder. An entry appears whole, by renaming; a process that has
//! it open keeps it when another host deletes it. A draft is locked by the host that writes it and
//! by the compiler; one without a lock is abandoned.

use std::fs::{File, TryLockError};
use std::io::{self, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::SystemTime;

use ocelli_protocol::digest::Digest;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, futimens};

use crate::util::folder::{DRAFT, Draft, Folder};

/// The folder of compiled components.
#[derive(Debug)]
pub(super) struct CompiledCache {
    folder: Folder,
    compatibility: String,
}

impl CompiledCache {
    /// Opens the cache for code that is compatible with `compatibility`. The folder is made if it
    /// is missing, closed to other users, and rid of abandoned drafts.
    pub(super) fn open(folder: &Path, compatibility: String) -> io::Result<Self> {
        let folder = Folder::private(folder)?;
        for name in folder.names()?.iter().filter(|name| name.starts_with(DRAFT)) {
            remove_abandoned(&folder, name)?;
        }
        Ok(Self { folder, compatibility })
    }

    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The compiled code of a component, which becomes the entry used last. An entry whose content
    /// does not fit its name is deleted.
    pub(super) fn find(&self, digest: &str) -> Option<File> {
        let beginning = self.beginning(digest);
        for entry in self.entries() {
            let Some(content) =
                entry.name.strip_prefix(&beginning).and_then(|rest| rest.strip_suffix(".cwasm"))
            else {
                continue;
            };
            match genuine(&self.folder, &entry.name, content) {
                Ok(file) => {
                    // Only the choice of the entry to delete depends on it.
                    let _ =
                        futimens(&file, &Timestamps { last_access: NOW, last_modification: NOW });
                    return Some(file);
                }
                // Another host deleted it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(
                        target: "ocelli::deploy",
                        "{}: compiled code that cannot be trusted is compiled again: {error}",
                        self.folder.path().join(&entry.name).display()
                    );
                    let _ = self.folder.remove(&entry.name);
                }
            }
        }
        None
    }

    /// A locked file to write compiled code to. It is deleted when it is dropped.
    pub(super) fn draft(&self) -> io::Result<Draft> {
        loop {
            let draft = self.folder.draft()?;
            draft.file.lock()?;
            // A host that starts may have taken it for abandoned before it was locked.
            if draft.file.metadata()?.nlink() > 0 {
                return Ok(draft);
            }
        }
    }

    /// Makes a draft a component's entry, and returns it, open for reading only.
    pub(super) fn insert(&self, digest: &str, mut draft: Draft) -> io::Result<File> {
        draft.file.rewind()?;
        let content = Digest::of_reader(&mut draft.file)?;
        // Before it has its name: from then on another host may delete it.
        let entry = draft.reader()?;
        draft.persist(&format!("{}{content}.cwasm", self.beginning(digest)))?;
        Ok(entry)
    }

    /// Deletes the entries used longest ago until all others have at most `most` bytes together. A
    /// process that has one open keeps it.
    pub(super) fn shrink(&self, most: u64) {
        let mut entries = self.entries();
        entries.sort_by_key(|entry| entry.used);
        let mut size: u64 = entries.iter().map(|entry| entry.size).sum();
        for entry in entries {
            if size <= most {
                break;
            }
            match self.folder.remove(&entry.name) {
                Ok(()) => size = size.saturating_sub(entry.size),
                Err(error) => {
                    let path = self.folder.path().join(&entry.name);
                    tracing::warn!(target: "ocelli::deploy", "{}: {error}", path.display());
                }
            }
        }
    }

    fn beginning(&self, digest: &str) -> String {
        format!("{digest}-{}-", self.compatibility)
    }

    /// All files but drafts. One that is deleted meanwhile is left out.
    fn entries(&self) -> Vec<CacheEntry> {
        let names = self.folder.names().unwrap_or_default().into_iter();
        let names = names.filter(|name| !name.starts_with(DRAFT));
        names.filter_map(|name| CacheEntry::of(&self.folder, name)).collect()
    }
}

/// Deletes a draft that has no lock. One that is not there any more has become an entry, or went
/// with its host.
fn remove_abandoned(folder: &Folder, name: &str) -> io::Result<()> {
    let draft = match folder.read(name) {
        Ok(draft) => draft,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match draft.try_lock() {
        Ok(()) => folder.remove(name),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };

/// A file in the cache.
struct CacheEntry {
    name: String,
    size: u64,
    used: SystemTime,
}

impl CacheEntry {
    fn of(folder: &Folder, name: String) -> Option<Self> {
        let about = folder.about(&name).ok().filter(|about| !about.is_dir())?;
        let used = about.modified().ok()?.into_std();
        Some(Self { name, size: about.len(), used })
    }
}

/// Opens an entry whose content has this SHA-256 and that only this user can write.
fn genuine(folder: &Folder, name: &str, content: &str) -> io::Result<File> {
    let mut file = folder.read(name)?;
    let about = file.metadata()?;
    if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o022 != 0 {
        return Err(io::Error::other(
            "it is not a file of this host's own, or others may write to it",
        ));
    }
    let (found, size) = Digest::of_copy(&mut file, &mut io::sink())?;
    if found.to_string() != content {
        return Err(io::Error::other(format!("its {size} bytes are not those that were compiled")));
    }
    file.rewind()?;
    Ok(file)
}
