//! The frames of a run with what was found drawn in: a video, or a folder of pictures.

use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use tempfile::TempDir;

use super::super::draft::{DraftFile, parent};
use super::mp4::Mp4;
use crate::playback::AnnotatedPicture;

/// The ending of a video.
const VIDEO: &str = "mp4";

/// Endings of videos that are not written here.
const OTHER_VIDEOS: [&str; 6] = ["avi", "m4v", "mkv", "mov", "mpg", "webm"];

/// Rights of a folder before the user's mask takes some away.
const FOLDER_MODE: u32 = 0o777;

/// See the module's documentation.
pub(super) enum Annotated {
    Video(Mp4),
    /// Made beside its place, where it gets to when it is whole.
    Folder {
        made: TempDir,
        place: PathBuf,
    },
}

impl Annotated {
    /// A video where the name says so, else a folder, which is not there yet or empty.
    pub(super) fn new(place: &Path) -> anyhow::Result<Self> {
        let shown = place.display();
        let ending = place.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        match ending.as_deref() {
            Some(VIDEO) => return Ok(Self::Video(Mp4::new(DraftFile::new(place)?)?)),
            Some(other) if OTHER_VIDEOS.contains(&other) => {
                bail!("{shown}: --annotate writes a .mp4 file or a folder of pictures")
            }
            _ => {}
        }
        match std::fs::read_dir(place) {
            Ok(mut entries) => {
                ensure!(entries.next().is_none(), "{shown} is not empty");
                // At the end it makes way, which a link and a mounted file system do not.
                let (about, beside) = (place.symlink_metadata()?, parent(place).metadata()?);
                ensure!(
                    about.is_dir() && about.dev() == beside.dev(),
                    "{shown} is a link or a mounted file system: name a folder in it"
                );
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| shown.to_string()),
        }
        let made = tempfile::Builder::new()
            .prefix(".ocelli-")
            .permissions(Permissions::from_mode(FOLDER_MODE))
            .tempdir_in(parent(place));
        let made = made.with_context(|| format!("writing {shown}"))?;
        Ok(Self::Folder { made, place: place.to_owned() })
    }

    pub(super) fn take(&mut self, picture: &AnnotatedPicture) -> anyhow::Result<()> {
        match self {
            Self::Video(video) => video.push(picture),
            Self::Folder { made, place } => {
                let file = made.path().join(format!("frame-{:06}.jpg", picture.frame));
                let written = std::fs::write(file, &picture.jpeg);
                written.with_context(|| format!("writing {}", place.display()))
            }
        }
    }

    /// Gives it its name.
    pub(super) fn finish(self) -> anyhow::Result<PathBuf> {
        match self {
            Self::Video(video) => video.finish(),
            Self::Folder { made, place } => {
                // An empty folder there makes way.
                let named = std::fs::rename(made.path(), &place);
                named.with_context(|| format!("writing {}", place.display()))?;
                // There is nothing left to remove.
                let _ = made.keep();
                Ok(place)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn picture(frame: u64) -> AnnotatedPicture {
        AnnotatedPicture { frame, presentation_ns: 0, size: (1, 1), jpeg: vec![frame as u8] }
    }

    #[test]
    fn a_folder_of_pictures_is_there_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("frames");
        let count = |path: &Path| std::fs::read_dir(path).unwrap().count();
        let mut annotated = Annotated::new(&place).unwrap();
        annotated.take(&picture(3)).unwrap();
        assert!(!place.exists());
        drop(annotated);
        assert_eq!(count(folder.path()), 0);
        std::fs::create_dir(&place).unwrap();
        let mut annotated = Annotated::new(&place).unwrap();
        annotated.take(&picture(3)).unwrap();
        annotated.finish().unwrap();
        assert_eq!(std::fs::read(place.join("frame-000003.jpg")).unwrap(), [3]);
        assert_eq!(count(folder.path()), 1);
        for (bad, said) in [("frames", "not empty"), ("a.avi", ".mp4"), ("none/x", "writing")] {
            let error = Annotated::new(&folder.path().join(bad)).err().unwrap();
            assert!(format!("{error:#}").contains(said), "{error:#}");
        }
    }
}
