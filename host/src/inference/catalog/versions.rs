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

use super::{Catalog, CatalogError};

/// The folder of the copies. While this value lives, no other host deletes files there.
#[derive(Debug)]
pub struct VersionStore {
    folder: PathBuf,
    lock: File,
    alone: bool,
}

impl VersionStore {
    /// Where the copies lie in a store.
    pub fn folder(store: &Path) -> PathBuf {
        store.join("models")
    }

    /// Creates the folder `models` in the data directory if it is missing.
    pub fn new(store: &Path) -> anyhow::Result<Self> {
        let folder = Self::folder(store);
        let making = || {
            format!(
                "making {}: set `store.directory` to a folder that can be written",
                folder.display()
            )
        };
        std::fs::create_dir_all(&folder).with_context(making)?;
        let folder = folder.canonicalize().with_context(making)?;
        let lock = File::open(&folder).with_context(making)?;
        // Without file locks nothing is deleted, which only costs disk space.
        let alone = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        Ok(Self { folder, lock, alone })
    }

    /// Copies each model that has no copy yet, and points the catalog to the copies.
    pub fn store_copies(&self, mut catalog: Catalog) -> Result<Catalog, CatalogError> {
        for entry in catalog.entries.values_mut() {
            let model = &mut entry.model;
            let kept = self.folder.join(format!("{}.onnx", model.sha256));
            let source = PathBuf::from(&model.path);
            let name = model.name.clone();
            // One that a crash of the machine left half written is made again.
            if !digest(&kept).is_ok_and(|found| found == model.sha256) {
                let mut copy = tempfile::Builder::new()
                    .prefix(".copy-")
                    .tempfile_in(&self.folder)
                    .map_err(CatalogError::file(&name, &self.folder))?;
                let (found, _) = File::open(&source)
                    .and_then(|source| Digest::of_copy(source, copy.as_file_mut()))
                    .map_err(CatalogError::file(&name, &source))?;
                let found = found.to_string();
                if found != model.sha256 {
                    let (model, expected) = (model.name.clone(), model.sha256.clone());
                    return Err(CatalogError::Digest { model, path: source, expected, found });
                }
                let persisted = copy.persist(&kept).map_err(|error| error.error);
                persisted.map_err(CatalogError::file(&name, &kept))?;
            }
            let not_utf8 = || std::io::Error::other("the path is not UTF-8");
            let path = kept.to_str().ok_or_else(not_utf8).map_err(CatalogError::file(&name, &kept));
            model.path = path?.to_owned();
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
            tracing::debug!("{}: {error}", self.folder.display());
        }
    }

    fn delete_unused(&self, catalog: &Catalog) {
        let Ok(files) = std::fs::read_dir(&self.folder) else { return };
        for path in files.filter_map(|file| Some(file.ok()?.path())) {
            let used = catalog.models().any(|model| Path::new(&model.path) == path);
            if used || !path.is_file() {
                continue;
            }
            match std::fs::remove_file(&path) {
                Ok(()) => tracing::debug!("deleted {}: no model is this version", path.display()),
                Err(error) => tracing::warn!("{} is of no use and stays: {error}", path.display()),
            }
        }
    }
}

/// SHA-256 of a file, lower-case hexadecimal.
pub fn digest(path: &Path) -> std::io::Result<String> {
    Digest::of_reader(File::open(path)?).map(|digest| digest.to_string())
}
