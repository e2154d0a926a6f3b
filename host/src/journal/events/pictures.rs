//! The files of attachments, named by their content: `attachments/ab/<digest>.jpg`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use ocelli_protocol::digest::Digest;
use tempfile::TempDir;

use super::Attachment;

/// The ending of a file that is being written.
const BEGUN: &str = "new";

/// Where they are. Clones are one.
#[derive(Debug, Clone)]
pub(super) struct AttachmentFiles {
    place: Arc<AttachmentFolder>,
}

#[derive(Debug)]
enum AttachmentFolder {
    Folder(PathBuf),
    /// Made with the first picture, and gone with the journal.
    Temporary(OnceLock<TempDir>),
}

impl AttachmentFiles {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { place: Arc::new(AttachmentFolder::Folder(folder)) }
    }

    pub(super) fn temporary() -> Self {
        Self { place: Arc::new(AttachmentFolder::Temporary(OnceLock::new())) }
    }

    /// Writes those that are not there yet: on the disk when it returns, each under its name only
    /// as a whole.
    pub(super) fn write<'a>(
        &self,
        pictures: impl Iterator<Item = &'a Attachment>,
    ) -> io::Result<()> {
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
            let begun = path.with_extension(BEGUN);
            let mut file = File::create(&begun)?;
            file.write_all(&picture.bytes)?;
            file.sync_all()?;
            std::fs::rename(&begun, &path)?;
        }
        // Names, too, are on the disk only when their folder is.
        folders.iter().try_for_each(|folder| File::open(folder)?.sync_all())
    }

    /// The picture, where it is kept.
    pub(super) fn read(&self, digest: &Digest) -> io::Result<Option<Bytes>> {
        match std::fs::read(self.path(digest)?) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a picture, whole or begun, where it is there.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest)?;
        gone(std::fs::remove_file(path.with_extension(BEGUN)))?;
        gone(std::fs::remove_file(path))
    }

    /// Into how many folders pictures of an earlier host may be divided: one for each first byte of
    /// a digest.
    pub(super) fn folders(&self) -> u16 {
        match &*self.place {
            AttachmentFolder::Folder(_) => 256,
            AttachmentFolder::Temporary(_) => 0,
        }
    }

    /// The pictures in one of those folders, whole or begun.
    pub(super) fn list(&self, folder: u16) -> Vec<Digest> {
        let Ok(folder) = self.folder().map(|all| all.join(format!("{folder:02x}"))) else {
            return Vec::new();
        };
        let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
        files
            .filter_map(|file| Path::new(&file.file_name()).file_stem()?.to_str()?.parse().ok())
            .collect()
    }

    fn path(&self, digest: &Digest) -> io::Result<PathBuf> {
        Ok(self.folder()?.join(format!("{digest:.2}")).join(format!("{digest}.jpg")))
    }

    fn folder(&self) -> io::Result<&Path> {
        match &*self.place {
            AttachmentFolder::Folder(folder) => Ok(folder),
            AttachmentFolder::Temporary(made) => {
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
