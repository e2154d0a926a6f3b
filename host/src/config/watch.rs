//! Notices when the config file was edited.
//!
//! The file is looked at once a second, rather than asking the kernel for notices (inotify). A look
//! follows the path anew each time, so it sees what an editor does that writes a new file and
//! renames it, what one does that writes in place, and a symbolic link that is swapped somewhere on
//! the way, as Kubernetes does. It sees edits made on another machine of a network file system, of
//! which the kernel here knows nothing. A notice would come sooner, from the one file or folder
//! that it was asked for.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Between two looks. It is the time that a file must have been left alone too: editors write in
/// several steps.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// What is seen of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileStamp {
    /// Another file, or another state of it, differs in one of these.
    File {
        device: u64,
        inode: u64,
        size: u64,
        /// Seconds and nanoseconds of the last change of the content.
        written: (i64, i64),
        /// The same of the content or of the entry: a tool may set the other time back.
        changed: (i64, i64),
    },
    /// Not there, or not to be seen.
    Missing,
}

impl From<io::Result<Metadata>> for FileStamp {
    fn from(metadata: io::Result<Metadata>) -> Self {
        metadata.map_or(Self::Missing, |metadata| Self::File {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Watches a file.
#[derive(Debug)]
pub struct Watch {
    path: PathBuf,
    looks: Interval,
    settling: Debounce<FileStamp>,
}

impl Watch {
    /// Begins to look. Reports the file as it is found first, too: it may have been edited since it
    /// was read.
    pub fn new(path: PathBuf) -> Self {
        let mut looks = interval(POLL_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { path, looks, settling: Debounce::default() }
    }

    /// Returns when the file is another than before and has been left alone since. Losing the
    /// future loses nothing.
    pub async fn edited(&mut self) {
        loop {
            self.looks.tick().await;
            // On a thread of its own: a network file system may take its time.
            if self.settling.observe(tokio::fs::metadata(&self.path).await.into()) {
                return;
            }
        }
    }
}

/// Tells an edit that is done from one that is under way, by what is seen at each look.
#[derive(Debug)]
pub(crate) struct Debounce<L> {
    last: Option<L>,
    reported: Option<L>,
}

impl<L> Default for Debounce<L> {
    fn default() -> Self {
        Self { last: None, reported: None }
    }
}

impl<L: PartialEq + Clone> Debounce<L> {
    /// Whether what is seen is another than the one reported last and the same as at the look
    /// before this one.
    pub(crate) fn observe(&mut self, look: L) -> bool {
        let settled = self.last.replace(look.clone()).as_ref() == Some(&look);
        settled && self.reported.replace(look.clone()) != Some(look)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;

    fn look(path: &Path) -> FileStamp {
        fs::metadata(path).into()
    }

    /// What is seen before and after.
    fn differs(path: &Path, edit: impl FnOnce()) -> bool {
        let before = look(path);
        edit();
        look(path) != before
    }

    #[test]
    fn every_way_of_editing_a_file_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ocelli.toml");
        let other = folder.path().join("other");
        fs::write(&path, "one").unwrap();
        assert!(!differs(&path, || {}));
        assert!(differs(&path, || fs::write(&path, "longer").unwrap()), "in place");
        assert!(
            differs(&path, || {
                fs::write(&other, "longer").unwrap();
                let time = fs::metadata(&path).unwrap().modified().unwrap();
                fs::File::options().write(true).open(&other).unwrap().set_modified(time).unwrap();
                fs::rename(&other, &path).unwrap();
            }),
            "renamed, of the same size and time"
        );
        assert!(differs(&path, || fs::remove_file(&path).unwrap()), "removed");
        assert!(differs(&path, || fs::write(&path, "longer").unwrap()), "back again");
    }

    #[test]
    fn a_link_that_is_swapped_on_the_way_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for (version, text) in [("one", "1"), ("two", "2")] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("ocelli.toml"), text).unwrap();
        }
        std::os::unix::fs::symlink("one", at("..data")).unwrap();
        std::os::unix::fs::symlink("..data/ocelli.toml", at("ocelli.toml")).unwrap();
        let swap = || {
            std::os::unix::fs::symlink("two", at("..next")).unwrap();
            fs::rename(at("..next"), at("..data")).unwrap();
        };
        assert!(differs(&at("ocelli.toml"), swap));
    }

    #[test]
    fn an_edit_in_several_steps_is_one_and_counts_when_it_is_done() {
        let file =
            |size| FileStamp::File { device: 1, inode: 1, size, written: (0, 0), changed: (0, 0) };
        let mut settling = Debounce::default();
        let mut looks = |looks: &[FileStamp]| {
            looks.iter().map(|look| settling.observe(*look)).collect::<Vec<_>>()
        };
        assert_eq!(looks(&[file(1), file(1), file(1)]), [false, true, false], "as it is found");
        assert_eq!(
            looks(&[FileStamp::Missing, file(2), file(3), file(3), file(3)]),
            [false, false, false, true, false]
        );
        assert_eq!(looks(&[file(4), file(3), file(3)]), [false, false, false], "taken back");
        assert_eq!(
            looks(&[FileStamp::Missing, FileStamp::Missing, FileStamp::Missing]),
            [false, true, false],
            "gone for good"
        );
        assert_eq!(looks(&[file(3), file(3)]), [false, true], "and back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_reports_an_edit_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ocelli.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::new(path.clone());
        watch.edited().await;
        let quiet = tokio::time::timeout(POLL_INTERVAL * 10, watch.edited()).await;
        assert!(quiet.is_err(), "nothing was edited");
        fs::write(&path, "other").unwrap();
        watch.edited().await;
    }
}
