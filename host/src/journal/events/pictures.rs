//! The files of attachments, named by their content: `attachments/ab/<digest>.jpg`.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use bytes::Bytes;
use ocelli_protocol::digest::Digest;

use super::Attachment;
use crate::util::folder::Folder;

/// The folder of all, in the data directory.
const ATTACHMENTS: &str = "attachments";

/// The ending of a file that is being written.
const BEGUN: &str = "new";

/// The ending of a picture.
const WHOLE: &str = "jpg";

/// Into how many folders pictures are divided: one for each first byte of a digest.
pub(super) const FOLDERS: u16 = 256;

/// The attachments of a data directory.
#[derive(Debug, Clone)]
pub(super) struct AttachmentFiles(Folder);

impl AttachmentFiles {
    /// Those in this data directory.
    pub(super) fn new(data: Folder) -> Self {
        Self(data)
    }

    /// Writes those that are not there yet: on the disk when it returns, each under its name only
    /// as a whole.
    pub(super) fn write<'a>(
        &self,
        pictures: impl Iterator<Item = &'a Attachment>,
    ) -> io::Result<()> {
        let mut folders = BTreeSet::new();
        for picture in pictures {
            let folder = format!("{ATTACHMENTS}/{:.2}", picture.digest);
            if !folders.contains(&folder) && self.0.make_folder(&folder)? {
                folders.extend([ATTACHMENTS.to_owned(), ".".to_owned()]);
            }
            folders.insert(folder);
            let name = name(&picture.digest, WHOLE);
            if self.0.size(&name) == Some(picture.bytes.len() as u64) {
                continue;
            }
            let begun = self::name(&picture.digest, BEGUN);
            let mut file = self.0.create(&begun)?;
            file.write_all(&picture.bytes)?;
            file.sync_all()?;
            self.0.rename(&begun, &name)?;
        }
        // Names, too, are on the disk only when their folder is.
        folders.iter().try_for_each(|folder| self.0.handle(folder)?.sync_all())
    }

    /// The picture, where it is kept.
    pub(super) fn read(&self, digest: &Digest) -> io::Result<Option<Bytes>> {
        let mut bytes = Vec::new();
        match self.0.read(&name(digest, WHOLE)).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Ok(_) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes a picture, whole or begun, where it is there.
    pub(super) fn remove(&self, digest: &Digest) -> io::Result<()> {
        self.0.remove(&name(digest, BEGUN))?;
        self.0.remove(&name(digest, WHOLE))
    }

    /// The pictures in one of the folders, whole or begun.
    pub(super) fn list(&self, folder: u16) -> Vec<Digest> {
        let names = self.0.names_in(&format!("{ATTACHMENTS}/{folder:02x}")).unwrap_or_default();
        names
            .iter()
            .filter_map(|name| Path::new(name).file_stem()?.to_str()?.parse().ok())
            .collect()
    }
}

/// The name of a picture's file in the data directory.
fn name(digest: &Digest, ending: &str) -> String {
    format!("{ATTACHMENTS}/{digest:.2}/{digest}.{ending}")
}
