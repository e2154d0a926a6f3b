//! The store of components that sessions run or may go back to. Each is a file that is named after
//! its digest, so a change of the pipeline's own file does not matter.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use super::compile::{ComponentSource, StoredComponent};
use anyhow::Context;
use ocelli_protocol::digest::Digest;
use parking_lot::Mutex;

use crate::util::folder::Folder;

/// The ending of a component's file.
const ENDING: &str = ".wasm";

/// The folder of components. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct ComponentStore {
    folder: Folder,
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
    components: ComponentStore,
}

impl ComponentLease {
    /// The component's file in the store.
    pub(super) fn source(&self) -> ComponentSource {
        ComponentSource::Stored(StoredComponent {
            folder: self.components.folder.clone(),
            name: file_name(&self.digest).unwrap_or_default(),
        })
    }
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
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let opened = Folder::private(path).and_then(|folder| {
            folder.remove_drafts()?;
            Ok(folder)
        });
        let folder = opened.with_context(|| {
            let path = path.display();
            format!("making {path}: set `store.directory` to a folder that can be written")
        })?;
        Ok(Self { folder, held: Arc::default() })
    }

    /// Stores a component. `None` if it has more than `most` bytes. Reads it once, to its end. May
    /// block.
    pub(super) fn insert(
        &self,
        source: &ComponentSource,
        most: u64,
    ) -> io::Result<Option<ComponentLease>> {
        let mut draft = self.folder.draft()?;
        let most_read = most.saturating_add(1);
        let (digest, size) = Digest::of_copy(source.open()?.take(most_read), &mut draft.file)?;
        if size > most {
            return Ok(None);
        }
        let name = format!("{digest}{ENDING}");
        let digest = digest.to_string();
        let mut held = self.held.lock();
        // A file that a crash of the machine left incomplete is written again.
        if self.folder.size(&name) != Some(size) {
            // A rollback after a power cut needs the whole component.
            draft.file.sync_all()?;
            draft.persist(&name)?;
        }
        *held.entry(digest.clone()).or_default() += 1;
        Ok(Some(ComponentLease { digest, size, components: self.clone() }))
    }

    /// Leases a stored component. `None` if it is not stored.
    pub(super) fn lease(&self, digest: &str) -> Option<ComponentLease> {
        let name = file_name(digest)?;
        let mut held = self.held.lock();
        let size = self.folder.size(&name)?;
        *held.entry(digest.to_owned()).or_default() += 1;
        Some(ComponentLease { digest: digest.to_owned(), size, components: self.clone() })
    }

    /// Whether a component is stored.
    pub(super) fn contains(&self, digest: &str) -> bool {
        file_name(digest).is_some_and(|name| self.folder.size(&name).is_some())
    }

    /// Deletes every component that is neither leased nor among `needed`. May block.
    pub(super) fn remove_unneeded(&self, needed: &BTreeSet<String>) {
        let held = self.held.lock();
        let Ok(names) = self.folder.names() else { return };
        for name in names {
            let Some(digest) = name.strip_suffix(ENDING) else { continue };
            if needed.contains(digest) || held.contains_key(digest) {
                continue;
            }
            if let Err(error) = self.folder.remove(&name) {
                let path = self.folder.path().join(&name);
                tracing::warn!(target: "ocelli::deploy", "{} is of no use and stays: \
                    {error}", path.display());
            }
        }
    }
}

/// The name of a component's file. `None`: this is no digest.
fn file_name(digest: &str) -> Option<String> {
    let hexadecimal = digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
    hexadecimal.then(|| format!("{digest}{ENDING}"))
}

/// The SHA-256, hexadecimal, and the number of bytes.
pub(super) fn digest(from: impl Read) -> io::Result<(String, u64)> {
    Digest::of_copy(from, &mut io::sink()).map(|(digest, size)| (digest.to_string(), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn bytes(text: &'static str) -> ComponentSource {
        ComponentSource::Bytes(bytes::Bytes::from_static(text.as_bytes()))
    }

    fn content(lease: &ComponentLease) -> String {
        io::read_to_string(lease.source().open().unwrap()).unwrap()
    }

    #[test]
    fn a_component_is_kept_whatever_becomes_of_its_file_and_goes_when_nothing_needs_it() {
        let folder = tempfile::tempdir().unwrap();
        let components = ComponentStore::open(&folder.path().join("components")).unwrap();
        let file = folder.path().join("eye.wasm");
        fs::write(&file, "one").unwrap();
        let one = components.insert(&ComponentSource::Path(file.clone()), 3).unwrap().unwrap();
        fs::write(&file, "two").unwrap();
        assert_eq!((content(&one), one.size), ("one".to_owned(), 3));
        let again = components.insert(&bytes("one"), 3).unwrap().unwrap();
        assert_eq!((&again.digest, content(&again)), (&one.digest, content(&one)));

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
        let components = ComponentStore::open(folder.path()).unwrap();
        assert!(components.insert(&bytes("four"), 3).unwrap().is_none());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        let held = components.insert(&bytes("four"), 4).unwrap().unwrap();
        fs::write(folder.path().join(file_name(&held.digest).unwrap()), "fo").unwrap();
        let held = components.insert(&bytes("four"), 4).unwrap().unwrap();
        assert_eq!(content(&held), "four");
        for digest in ["../../etc/passwd", "", "../x"] {
            assert!(
                components.lease(digest).is_none() && !components.contains(digest),
                "{digest:?}"
            );
        }
    }
}
