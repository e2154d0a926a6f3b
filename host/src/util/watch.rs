//! Notices edits of files by polling them once a second.
//!
//! Polling, not inotify. A poll follows the path anew each time. So it sees an editor that writes a
//! new file and renames it, one that writes in place, and a symbolic link swapped somewhere on the
//! way, as Kubernetes does. It also sees edits that another machine makes on a network file system.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior, interval};

/// Time between two polls, for which a file must rest: editors write in steps.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Identity and state of a file at one poll. Another file, or another state of it, differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileStamp {
    File {
        device: u64,
        inode: u64,
        /// Bytes.
        size: u64,
        /// Seconds and nanoseconds of the last change of the content (mtime).
        written: (i64, i64),
        /// The same of content or inode (ctime): a tool may set mtime back.
        changed: (i64, i64),
    },
    /// The file does not exist or cannot be read.
    Missing,
}

impl FileStamp {
    /// Stats the file behind `path`, through links. Blocks.
    pub(crate) fn of(path: &Path) -> Self {
        std::fs::metadata(path).map_or(Self::Missing, |metadata| Self::File {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            written: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// Polls the file system until what `observe` returns changes and rests.
pub(crate) struct Watch<T> {
    interval: Interval,
    observe: Arc<dyn Fn() -> T + Send + Sync>,
    debounce: Debounce<T>,
}

impl<T: PartialEq + Clone + Send + 'static> Watch<T> {
    /// Starts to poll. `observe` may block: it runs on a thread for that.
    pub(crate) fn new(observe: impl Fn() -> T + Send + Sync + 'static) -> Self {
        let mut interval = interval(POLL_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self { interval, observe: Arc::new(observe), debounce: Debounce::default() }
    }

    /// The observation of the next poll. A dropped call costs one poll at most.
    pub(crate) async fn poll(&mut self) -> T {
        loop {
            self.interval.tick().await;
            let observe = Arc::clone(&self.observe);
            if let Ok(seen) = tokio::task::spawn_blocking(move || observe()).await {
                return seen;
            }
        }
    }

    /// Returns after a change that has rested. The first call returns for the state found at the
    /// start: it may have changed since it was read. Cancel-safe.
    pub(crate) async fn changed(&mut self) {
        loop {
            let seen = self.poll().await;
            if self.debounce.observe(seen) {
                return;
            }
        }
    }
}

/// Tells a finished edit from one under way by comparing successive observations.
#[derive(Debug)]
pub(crate) struct Debounce<T> {
    last: Option<T>,
    reported: Option<T>,
}

impl<T> Default for Debounce<T> {
    fn default() -> Self {
        Self { last: None, reported: None }
    }
}

impl<T: PartialEq + Clone> Debounce<T> {
    /// Whether `seen` equals the observation before it and differs from the last one reported.
    pub(crate) fn observe(&mut self, seen: T) -> bool {
        let rested = self.last.replace(seen.clone()).as_ref() == Some(&seen);
        rested && self.reported.replace(seen.clone()) != Some(seen)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// Whether an edit changes the file's stamp.
    fn differs(path: &Path, edit: impl FnOnce()) -> bool {
        let before = FileStamp::of(path);
        edit();
        FileStamp::of(path) != before
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
        let mut debounce = Debounce::default();
        let mut reports = |seen: &[FileStamp]| {
            seen.iter().map(|seen| debounce.observe(*seen)).collect::<Vec<_>>()
        };
        assert_eq!(reports(&[file(1), file(1), file(1)]), [false, true, false], "as it is found");
        assert_eq!(
            reports(&[FileStamp::Missing, file(2), file(3), file(3), file(3)]),
            [false, false, false, true, false]
        );
        assert_eq!(reports(&[file(4), file(3), file(3)]), [false, false, false], "taken back");
        assert_eq!(
            reports(&[FileStamp::Missing, FileStamp::Missing, FileStamp::Missing]),
            [false, true, false],
            "gone for good"
        );
        assert_eq!(reports(&[file(3), file(3)]), [false, true], "and back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_reports_an_edit_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ocelli.toml");
        fs::write(&path, "one").unwrap();
        let mut watch = Watch::new({
            let path = path.clone();
            move || FileStamp::of(&path)
        });
        watch.changed().await;
        let quiet = tokio::time::timeout(POLL_INTERVAL * 10, watch.changed()).await;
        assert!(quiet.is_err(), "nothing was edited");
        fs::write(&path, "other").unwrap();
        watch.changed().await;
    }
}
