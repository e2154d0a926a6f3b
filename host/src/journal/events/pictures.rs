//! The files of attachments, named by their content: `attachments/ab/<digest>.jpg`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use tempfile::TempDir;

use super::Attachment;

/// Where they are. Clones are one.
#[derive(Debug, Clone)]
pub(super) struct Pictures {
    place: Arc<Place>,
}

#[derive(Debug)]
enum Place {
    Folder(PathBuf),
    /// Made with the first picture, and gone with the journal.
    Temporary(OnceLock<TempDir>),
}

impl Pictures {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { place: Arc::new(Place::Folder(folder)) }
    }

    pub(super) fn temporary() -> Self {
        Self { place: Arc::new(Place::Temporary(OnceLock::new())) }
    }

    /// Writes those that are not there yet: on the disk when it returns, each under its name only as a whole.
    pub(super) fn write<'a>(&self, pictures: impl Iterator<Item = &'a Attachment>) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for picture in pictures {
            let path = self.path(&picture.digest)?;
            let Some(folder) = path.parent() else { continue };
            if folders.insert(folder.to_owned()) && !folder.is_dir() {
                std::fs::create_dir_all(folder)?;
                folders.extend(folder.parent().map(Path::to_owned));
            }
            let there = std::fs::metadata(&path);
            if there.is_ok_and(|there| there.len() == picture.bytes.len() as u64) {
                continue;
            }
            let begun = path.with_extension("new");
            let mut file = File::create(&begun)?;
            file.write_all(&picture.bytes)?;
            file.sync_all()?;
            std::fs::rename(&begun, &path)?;
        }
        // Names, too, are on the disk only when their folder is.
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
    }

    /// The picture, where it is kept.
    pub(super) fn read(&self, digest: &[u8; 32]) -> io::Result<Option<Bytes>> {
        match std::fs::read(self.path(digest)?) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a picture, where it is there.
    pub(super) fn remove(&self, digest: &[u8; 32]) -> io::Result<()> {
        gone(std::fs::remove_file(self.path(digest)?))
    }

    fn path(&self, digest: &[u8; 32]) -> io::Result<PathBuf> {
        let name = hex(digest);
        Ok(self.folder()?.join(name.get(..2).unwrap_or_default()).join(format!("{name}.jpg")))
    }

    fn folder(&self) -> io::Result<&Path> {
        match &*self.place {
            Place::Folder(folder) => Ok(folder),
            Place::Temporary(made) => {
                if let Some(folder) = made.get() {
                    return Ok(folder.path());
                }
                let folder = tempfile::tempdir()?;
                Ok(made.get_or_init(|| folder).path())
            }
        }
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// As it is written in JSON and in names of files: 64 small digits.
fn hex(digest: &[u8; 32]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}
