//! The versions of models that are in use: copies in the store, each named after its digest.
//!
//! A model's folder belongs to its operator, who may edit it at any time. What sessions run is a
//! copy that nobody edits, so a file that changes never changes under a session, and an inference
//! process that is started anew reads what the one before it read. A copy and no hard link: whoever
//! writes into a file in place writes into all its links.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use ocelli_protocol::digest::Digest;
use rustix::fs::{FlockOperation, flock};

use super::{Catalog, CatalogError};

/// The folder of the copies. While this lives, no other host deletes what lies there.
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

    /// Makes the folder `models` in the store where it is not there.
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
        // Where the file system has no locks nothing is deleted, which costs room alone.
        let alone = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        Ok(Self { folder, lock, alone })
    }

    /// Copies each model of a catalogue that is not there yet, and has the catalogue name the
    /// copies.
    pub fn store_copies(&self, mut catalogue: Catalog) -> Result<Catalog, CatalogError> {
        for entry in catalogue.entries.values_mut() {
            let model = &mut entry.model;
            let kept = self.folder.join(format!("{}.onnx", model.sha256));
            let source = PathBuf::from(&model.path);
            let failed = |path: &Path| {
                let (model, path) = (model.name.clone(), path.to_owned());
                move |source| CatalogError::File { model, path, source }
            };
            // One that a crash of the machine left half written is made again.
            if !digest(&kept).is_ok_and(|found| found == model.sha256) {
                let mut copy = tempfile::Builder::new()
                    .prefix(".copy-")
                    .tempfile_in(&self.folder)
                    .map_err(failed(&self.folder))?;
                let (found, _) = File::open(&source)
                    .and_then(|source| Digest::of_copy(source, copy.as_file_mut()))
                    .map_err(failed(&source))?;
                let found = found.to_string();
                if found != model.sha256 {
                    let (model, expected) = (model.name.clone(), model.sha256.clone());
                    return Err(CatalogError::Digest { model, path: source, expected, found });
                }
                copy.persist(&kept).map_err(|error| failed(&kept)(error.error))?;
            }
            let path = kept.to_str().map(str::to_owned);
            model.path =
                path.ok_or_else(|| failed(&kept)(std::io::Error::other("the path is not UTF-8")))?;
        }
        Ok(catalogue)
    }

    /// Deletes what no model of this catalogue needs. To be called at start alone: afterwards
    /// sessions may use versions that the newest catalogue does not have. Another host with the
    /// same store keeps everything.
    pub fn clean(&self, catalogue: &Catalog) {
        if self.alone {
            self.delete_unused(catalogue);
        }
        // From here on others may start with the same store, and delete nothing.
        if let Err(error) = flock(&self.lock, FlockOperation::LockShared) {
            tracing::debug!("{}: {error}", self.folder.display());
        }
    }

    fn delete_unused(&self, catalogue: &Catalog) {
        let Ok(files) = std::fs::read_dir(&self.folder) else { return };
        for path in files.filter_map(|file| Some(file.ok()?.path())) {
            let used = catalogue.models().any(|model| Path::new(&model.path) == path);
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
