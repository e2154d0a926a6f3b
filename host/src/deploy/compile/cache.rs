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

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io::{self, Seek};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use ocelli_protocol::digest::Digest;
use rustix::fs::{OFlags, Timespec, Timestamps, UTIME_NOW, futimens};
use tempfile::NamedTempFile;

/// The beginning of the names of files that are not complete.
const DRAFT: &str = ".draft-";

/// The folder of compiled components.
#[derive(Debug)]
pub(super) struct CompiledCache {
    folder: PathBuf,
    compatibility: String,
}

impl CompiledCache {
    /// Opens the cache for code that is compatible with `compatibility`. The folder is made if it
    /// is missing, closed to other users, and rid of abandoned drafts.
    pub(super) fn open(folder: &Path, compatibility: String) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        fs::set_permissions(folder, Permissions::from_mode(0o700))?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
                remove_abandoned(&entry.path())?;
            }
        }
        Ok(Self { folder: folder.to_owned(), compatibility })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The compiled code of a component, which becomes the entry used last. An entry whose content
    /// does not fit its name is deleted.
    pub(super) fn find(&self, digest: &str) -> Option<File> {
        let beginning = self.beginning(digest);
        for entry in self.entries() {
            let Some(content) =
                entry.name().strip_prefix(&beginning).and_then(|rest| rest.strip_suffix(".cwasm"))
            else {
                continue;
            };
            match genuine(&entry.path, content) {
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
                        entry.path.display()
                    );
                    let _ = fs::remove_file(&entry.path);
                }
            }
        }
        None
    }

    /// A locked file to write compiled code to. It is deleted when it is dropped.
    pub(super) fn draft(&self) -> io::Result<NamedTempFile> {
        loop {
            let draft = tempfile::Builder::new()
                .prefix(DRAFT)
                .permissions(Permissions::from_mode(0o600))
                .tempfile_in(&self.folder)?;
            draft.as_file().lock()?;
            // A host that starts may have taken it for abandoned before it was locked.
            if draft.as_file().metadata()?.nlink() > 0 {
                return Ok(draft);
            }
        }
    }

    /// Makes a draft a component's entry, and returns it, open for reading only.
    pub(super) fn insert(&self, digest: &str, mut draft: NamedTempFile) -> io::Result<File> {
        draft.as_file_mut().rewind()?;
        let content = Digest::of_reader(draft.as_file_mut())?;
        // Before it has its name: from then on another host may delete it.
        let entry = File::open(draft.path())?;
        draft.persist(self.folder.join(format!("{}{content}.cwasm", self.beginning(digest))))?;
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
            match fs::remove_file(&entry.path) {
                Ok(()) => size = size.saturating_sub(entry.size),
                // Another host has deleted it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    size = size.saturating_sub(entry.size);
                }
                Err(error) => {
                    tracing::warn!(target: "ocelli::deploy", "{}: {error}", entry.path.display());
                }
            }
        }
    }

    fn beginning(&self, digest: &str) -> String {
        format!("{digest}-{}-", self.compatibility)
    }

    /// All files but drafts. One that is deleted meanwhile is left out.
    fn entries(&self) -> Vec<CacheEntry> {
        let Ok(listed) = fs::read_dir(&self.folder) else { return Vec::new() };
        listed.filter_map(|entry| CacheEntry::of(&entry.ok()?)).collect()
    }
}

/// Deletes a draft that has no lock.
fn remove_abandoned(path: &Path) -> io::Result<()> {
    let opened = File::open(path);
    let gone = |result: io::Result<()>| match result {
        // It has become an entry, or went with its host.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    let draft = match opened {
        Ok(draft) => draft,
        Err(error) => return gone(Err(error)),
    };
    match draft.try_lock() {
        Ok(()) => gone(fs::remove_file(path)),
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };

/// A file in the cache.
struct CacheEntry {
    path: PathBuf,
    size: u64,
    used: SystemTime,
}

impl CacheEntry {
    fn of(entry: &fs::DirEntry) -> Option<Self> {
        let about = entry.metadata().ok()?;
        let draft = entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes());
        let used = about.modified().ok()?;
        (!about.is_dir() && !draft).then(|| Self { path: entry.path(), size: about.len(), used })
    }

    fn name(&self) -> &str {
        self.path.file_name().and_then(OsStr::to_str).unwrap_or_default()
    }
}

/// Opens an entry whose content has this SHA-256 and that only this user can write.
fn genuine(path: &Path, content: &str) -> io::Result<File> {
    let not_following = OFlags::NOFOLLOW.bits().cast_signed();
    let mut file = File::options().read(true).custom_flags(not_following).open(path)?;
    let about = file.metadata()?;
    if !about.is_file()
        || about.uid() != rustix::process::geteuid().as_raw()
        || about.mode() & 0o022 != 0
    {
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
