//! A file that a command writes: it gets its name when it is whole, and where the command fails
//! before, there is none.

use std::fs::Permissions;
use std::io::{BufWriter, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use tempfile::NamedTempFile;

/// Rights of a file before the user's mask takes some away.
const FILE_MODE: u32 = 0o666;

/// See the module's documentation.
pub(in crate::cli) struct DraftFile {
    file: BufWriter<NamedTempFile>,
    path: PathBuf,
}

impl DraftFile {
    /// A file beside the place where it is to be.
    pub(in crate::cli) fn new(path: &Path) -> anyhow::Result<Self> {
        ensure!(!path.is_dir(), "{} is a folder", path.display());
        let made = tempfile::Builder::new()
            .prefix(".ocelli-")
            .permissions(Permissions::from_mode(FILE_MODE))
            .tempfile_in(parent(path));
        let file = made.with_context(|| format!("writing {}", path.display()))?;
        Ok(Self { file: BufWriter::new(file), path: path.to_owned() })
    }

    pub(in crate::cli) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let written = self.file.write_all(bytes);
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    /// Writes at a place that has been written before.
    pub(super) fn write_at(&mut self, place: u64, bytes: &[u8]) -> anyhow::Result<()> {
        use std::os::unix::fs::FileExt;
        let written = self
            .file
            .flush()
            .and_then(|()| self.file.get_ref().as_file().write_all_at(bytes, place));
        written.with_context(|| format!("writing {}", self.path.display()))
    }

    pub(in crate::cli) fn finish(self) -> anyhow::Result<PathBuf> {
        let Self { file, path } = self;
        let file = file.into_inner().map_err(std::io::IntoInnerError::into_error);
        let named = file.and_then(|file| file.persist(&path).map_err(|failed| failed.error));
        named.with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

/// The folder of a file.
pub(in crate::cli) fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_there_when_it_is_whole_and_takes_the_place_of_the_one_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.jsonl");
        std::fs::write(&path, "before").unwrap();
        let mut draft = DraftFile::new(&path).unwrap();
        draft.write(b"0123").unwrap();
        draft.write_at(1, b"x").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"before");
        drop(draft);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut draft = DraftFile::new(&path).unwrap();
        draft.write(b"0123").unwrap();
        draft.write_at(1, b"x").unwrap();
        draft.write(b"4").unwrap();
        assert_eq!(draft.finish().unwrap(), path);
        assert_eq!(std::fs::read(&path).unwrap(), b"0x234");
        assert!(DraftFile::new(folder.path()).is_err());
        assert!(DraftFile::new(&folder.path().join("none/out.jsonl")).is_err());
    }
}
