//! The files of attachments, named by their content: `attachments/ab/<digest>.jpg`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use ocelli_protocol::digest::Digest;

use super::Attachment;

/// The ending of a file that is being written.
const BEGUN: &str = "new";

/// Into how many folders pictures are divided: one for each first byte of a digest.
pub(super) const FOLDERS: u16 = 256;

/// The folder of all.
#[derive(Debug, Clone)]
pub(super) struct AttachmentFiles(PathBuf);

impl AttachmentFiles {
    pub(super) fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Writes those that are not there yet: on the disk when it returns, each under its name only
    /// as a whole.
    pub(super) fn write<'a>(
        &self,
        pictures: impl Iterator<Item = &'a Attachment>,
    ) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for picture in pictures {
            let path = self.path(&picture.digest);
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
        match std::fs::read(self.path(digest)) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a picture, whole or begun, where it is there.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        let path = self.path(digest);
        gone(std::fs::remove_file(path.with_extension(BEGUN)))?;
        gone(std::fs::remove_file(path))
    }

    /// The pictures in one of the folders, whole or begun.
    pub(super) fn list(&self, folder: u16) -> Vec<Digest> {
        let files = std::fs::read_dir(self.0.join(format!("{folder:02x}")));
        let files = files.into_iter().flatten().flatten();
        files
            .filter_map(|file| Path::new(&file.file_name()).file_stem()?.to_str()?.parse().ok())
            .collect()
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(format!("{digest:.2}")).join(format!("{digest}.jpg"))
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}
