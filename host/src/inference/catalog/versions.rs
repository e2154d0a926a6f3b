//! The versions of models that are in use: copies in the store, each named after its digest.
//!
//! A model's folder belongs to its operator, who may edit it at any time. Sessions run a copy, so
//! an edit never reaches a running session, and a restarted inference process reads the same file
//! as the one before it. A copy and no hard link: a write in place changes all links.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ocelli_protocol::digest::Digest;
use rustix::fs::{FlockOperation, flock};

use super::{Catalog, CatalogEntry, CatalogError};
use crate::util::folder::Folder;

/// The folder of the copies, in the data directory.
const COPIES: &str = "models";

/// The folder of the copies. While this value lives, no other host deletes files there.
#[derive(Debug)]
pub struct VersionStore {
    folder: Folder,
    lock: File,
    alone: bool,
}

impl VersionStore {
    /// Where the copies lie in a store.
    pub fn folder(store: &Path) -> PathBuf {
        store.join(COPIES)
    }

    /// Creates the folder `models` in the data directory if it is missing.
    pub fn new(store: &Path) -> anyhow::Result<Self> {
        let opened = || -> std::io::Result<(Folder, File)> {
            // The inference process is given the copies by path: in full, where links lead.
            let store = Folder::private(store)?.path().canonicalize()?;
            let folder = Folder::open(&store)?.subfolder(COPIES)?;
            let lock = folder.handle(".")?;
            Ok((folder, lock))
        };
        let (folder, lock) = opened().with_context(|| {
            let folder = Self::folder(store);
            let folder = folder.display();
            format!("making {folder}: set `store.directory` to a folder that can be written")
        })?;
        // Without file locks nothing is deleted, which only costs disk space.
        let alone = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        Ok(Self { folder, lock, alone })
    }

    /// Copies each model that has no copy yet, and points the catalog to the copies.
    pub(super) fn store_copies(&self, mut catalog: Catalog) -> Result<Catalog, CatalogError> {
        for entry in catalog.entries.values_mut() {
            let CatalogEntry { manifest, model, folder, .. } = entry;
            let kept = format!("{}.onnx", model.sha256);
            let path = self.folder.path().join(&kept);
            let name = model.name.clone();
            // One that a crash of the machine left half written is made again.
            let whole = self.folder.read(&kept).and_then(digest);
            if !whole.is_ok_and(|found| found == model.sha256) {
                let mut copy =
                    self.folder.draft().map_err(CatalogError::file(&name, self.folder.path()))?;
                let source = PathBuf::from(&model.path);
                let (found, _) = folder
                    .read_linked(&manifest.file)
                    .and_then(|file| Digest::of_copy(file, &mut copy.file))
                    .map_err(CatalogError::file(&name, &source))?;
                let found = found.to_string();
                if found != model.sha256 {
                    let (model, expected) = (model.name.clone(), model.sha256.clone());
                    return Err(CatalogError::Digest { model, path: source, expected, found });
                }
                copy.persist(&kept).map_err(CatalogError::file(&name, &path))?;
            }
            let not_utf8 = || std::io::Error::other("the path is not UTF-8");
            let shown = path.to_str().ok_or_else(not_utf8);
            model.path = shown.map_err(CatalogError::file(&name, &path))?.to_owned();
        }
        Ok(catalog)
    }

    /// Deletes copies that this catalog does not use. Call it at the start only: later, sessions
    /// may use versions that the newest catalog lacks. While another host uses the same data
    /// directory, nothing is deleted.
    pub fn clean(&self, catalog: &Catalog) {
        if self.alone {
            self.delete_unused(catalog);
        }
        // From here on others may start with the same store, and delete nothing.
        if let Err(error) = flock(&self.lock, FlockOperation::LockShared) {
            tracing::debug!("{}: {error}", self.folder.path().display());
        }
    }

    fn delete_unused(&self, catalog: &Catalog) {
        for name in self.folder.names().unwrap_or_default() {
            let path = self.folder.path().join(&name);
            let used = catalog.models().any(|model| Path::new(&model.path) == path);
            if used || self.folder.size(&name).is_none() {
                continue;
            }
            match self.folder.remove(&name) {
                Ok(()) => tracing::debug!("deleted {}: no model is this version", path.display()),
                Err(error) => tracing::warn!("{} is of no use and stays: {error}", path.display()),
            }
        }
    }
}

/// SHA-256 of a file, lower-case hexadecimal.
pub(super) fn digest(file: File) -> std::io::Result<String> {
    Digest::of_reader(file).map(|digest| digest.to_string())
}
