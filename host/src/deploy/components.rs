//! The store of components that sessions run or may go back to. Each is a file that is named after
//! its digest, so a change of the pipeline's own file does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::compile::ComponentSource;
use anyhow::Context;
use ocelli_protocol::digest::Digest;
use parking_lot::Mutex;

/// The beginning of the names of files that are not complete.
const DRAFT: &str = ".draft-";

/// The folder of components. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ComponentStore {
    folder: PathBuf,
    /// Leases of each component, by digest. Locked while files are named and deleted, so that no
    /// file goes while it is leased.
    held: Arc<Mutex<BTreeMap<String, usize>>>,
}

/// A component that stays in the store while this exists, even if no session needs it.
#[derive(Debug)]
pub(super) struct ComponentLease {
    /// SHA-256, hexadecimal.
    pub(super) digest: String,
    /// Bytes.
    pub(super) size: u64,
    /// The component's file in the store.
    pub(super) path: PathBuf,
    components: ComponentStore,
}

impl Drop for ComponentLease {
    fn drop(&mut self) {
        let mut held = self.components.held.lock();
        if let Some(holders) = held.get_mut(&self.digest) {
            *holders -= 1;
            if *holders == 0 {
                held.remove(&self.digest);
            }
        }
    }
}

impl ComponentStore {
    /// Opens the store in this folder, which is made if it is missing. Deletes incomplete files of
    /// a host that was killed.
    pub(super) fn open(folder: PathBuf) -> anyhow::Result<Self> {
        let making = || {
            format!(
                "making {}: set `store.directory` to a folder that can be written",
                folder.display()
            )
        };
        fs::create_dir_all(&folder).with_context(making)?;
        for entry in fs::read_dir(&folder).with_context(making)? {
            let entry = entry.with_context(making)?;
            if entry.file_name().as_encoded_bytes().starts_with(DRAFT.as_bytes()) {
                fs::remove_file(entry.path()).with_context(making)?;
            }
        }
        Ok(Self { folder, held: Arc::default() })
    }

    /// Stores a component. `None` if it has more than `most` bytes. Reads it once, to its end. May
    /// block.
    pub(super) fn insert(
        &self,
        source: &ComponentSource,
        most: u64,
    ) -> io::Result<Option<ComponentLease>> {
        let mut draft = tempfile::Builder::new().prefix(DRAFT).tempfile_in(&self.folder)?;
        let most_read = most.saturating_add(1);
        let (digest, size) = match source {
            ComponentSource::Path(path) => {
                Digest::of_copy(File::open(path)?.take(most_read), draft.as_file_mut())?
            }
            ComponentSource::Bytes(bytes) => {
                Digest::of_copy(bytes.as_ref().take(most_read), draft.as_file_mut())?
            }
        };
        if size > most {
            return Ok(None);
        }
        let digest = digest.to_string();
        let path = self.file(&digest);
        let mut held = self.held.lock();
        // A file that a crash of the machine left incomplete is written again.
        if fs::metadata(&path).map(|about| about.len()).ok() != Some(size) {
            // A rollback after a power cut needs the whole component.
            draft.as_file().sync_all()?;
            draft.persist(&path)?;
        }
        *held.entry(digest.clone()).or_default() += 1;
        Ok(Some(ComponentLease { digest, size, path, components: self.clone() }))
    }

    /// Leases a stored component. `None` if it is not stored.
    pub(super) fn lease(&self, digest: &str) -> Option<ComponentLease> {
        let path = self.file(digest);
        let mut held = self.held.lock();
        let size = fs::metadata(&path).ok()?.len();
        *held.entry(digest.to_owned()).or_default() += 1;
        Some(ComponentLease { digest: digest.to_owned(), size, path, components: self.clone() })
    }

    /// Whether a component is stored.
    pub(super) fn contains(&self, digest: &str) -> bool {
        self.file(digest).is_file()
    }

    /// Deletes every component that is neither leased nor among `needed`. May block.
    pub(super) fn remove_unneeded(&self, needed: &BTreeSet<String>) {
        let held = self.held.lock();
        let Ok(files) = fs::read_dir(&self.folder) else { return };
        for file in files.filter_map(Result::ok) {
            let name = file.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.strip_suffix(".wasm")) else {
                continue;
            };
            if needed.contains(digest) || held.contains_key(digest) {
                continue;
            }
            if let Err(error) = fs::remove_file(file.path()) {
                tracing::warn!(target: "ocelli::deploy", "{} is of no use and stays: \
                    {error}", file.path().display());
            }
        }
    }

    fn file(&self, digest: &str) -> PathBuf {
        // A digest from outside never becomes a path.
        let hexadecimal =
            digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
        self.folder.join(if hexadecimal { format!("{digest}.wasm") } else { "none".to_owned() })
    }
}

/// Writes a file as a whole: afterwards it has these bytes, or is as it was.
pub(super) fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut draft = tempfile::Builder::new().prefix(DRAFT).tempfile_in(folder)?;
    draft.write_all(bytes)?;
    draft.as_file().sync_all()?;
    draft.persist(path)?;
    Ok(())
}

/// The SHA-256, hexadecimal, and the number of bytes.
pub(super) fn digest(from: impl Read) -> io::Result<(String, u64)> {
    Digest::of_copy(from, &mut io::sink()).map(|(digest, size)| (digest.to_string(), size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> ComponentSource {
        ComponentSource::Bytes(bytes::Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn a_component_is_kept_whatever_becomes_of_its_file_and_goes_when_nothing_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let components = ComponentStore::open(folder.path().join("components")).unwrap();
        let file = folder.path().join("eye.wasm");
        fs::write(&file, "one").unwrap();
        let one = components.insert(&ComponentSource::Path(file.clone()), 3).unwrap().unwrap();
        fs::write(&file, "two").unwrap();
        assert_eq!((fs::read(&one.path).unwrap(), one.size), (b"one".to_vec(), 3));
        let again = components.insert(&bytes("one"), 3).unwrap().unwrap();
        assert_eq!((&again.digest, &again.path), (&one.digest, &one.path));

        components.remove_unneeded(&BTreeSet::new());
        drop(one);
        components.remove_unneeded(&BTreeSet::new());
        assert!(components.contains(&again.digest), "still held");
        let digest = again.digest.clone();
        drop(again);
        components.remove_unneeded(&BTreeSet::from([digest.clone()]));
        assert!(components.contains(&digest), "needed");
        let held = components.lease(&digest).unwrap();
        components.remove_unneeded(&BTreeSet::new());
        assert!(components.contains(&digest), "held");
        drop(held);
        components.remove_unneeded(&BTreeSet::new());
        assert!(!components.contains(&digest) && components.lease(&digest).is_none());
    }

    #[test]
    fn what_is_too_large_or_half_written_is_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(".draft-x"), "half").unwrap();
        let components = ComponentStore::open(folder.path().to_owned()).unwrap();
        assert!(components.insert(&bytes("four"), 3).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let held = components.insert(&bytes("four"), 4).unwrap().unwrap();
        fs::write(&held.path, "fo").unwrap();
        let held = components.insert(&bytes("four"), 4).unwrap().unwrap();
        assert_eq!(fs::read(&held.path).unwrap(), b"four");
        for digest in ["../../etc/passwd", "", "../x"] {
            assert!(
                components.lease(digest).is_none() && !components.contains(digest),
                "{digest:?}"
            );
        }
    }
}
