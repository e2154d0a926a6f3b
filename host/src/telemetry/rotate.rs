//! One log file with the older ones behind it: `NAME`, `NAME.1` (the youngest) to `NAME.N`.
//!
//! The time is that of the line which is written, so a file holds the lines of one day (UTC) at
//! most, and one without new lines is rotated with the next.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::util::folder::Folder;

/// Seconds of a day. UTC's days have no others in a Unix time.
const DAY: i64 = 86_400;

/// When a file is rotated, beside midnight, and how many older ones are kept.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    pub(super) max_bytes: u64,
    pub(super) backups: usize,
}

/// A log that is opened when it is first written to.
pub(super) struct LogFile {
    folder: Folder,
    name: String,
    rotation: Rotation,
    open: Option<OpenLogFile>,
}

struct OpenLogFile {
    file: File,
    id: (u64, u64),
    len: u64,
    /// Of the last line.
    day: i64,
    /// Whether its end is half a line.
    torn: bool,
}

impl LogFile {
    pub(super) fn new(folder: Folder, name: String, rotation: Rotation) -> Self {
        Self { folder, name, rotation, open: None }
    }

    /// Where the file is, to be shown.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join(&self.name)
    }

    /// Whether the file is there.
    pub(super) fn exists(&self) -> bool {
        self.folder.has(&self.name)
    }

    /// Opens the file, so that an error is known before the first line.
    pub(super) fn prepare(&mut self, now: Timestamp) -> io::Result<()> {
        self.opened(now).map(drop)
    }

    /// Appends whole lines. Where they would make the file too large, or are of a later day, the
    /// file is rotated first.
    ///
    /// After an error nothing of the lines is in the file, and the next call tries everything anew.
    /// Where the file cannot be rotated nothing is written either: the bound on its size holds.
    pub(super) fn append(&mut self, lines: &str, now: Timestamp) -> io::Result<()> {
        let max_bytes = self.rotation.max_bytes;
        let open = self.opened(now)?;
        let full = open.len.saturating_add(lines.len() as u64) > max_bytes;
        if open.len > 0 && (full || day(now) > open.day) {
            self.rotate()?;
            return self.opened(now)?.write(lines, now);
        }
        open.write(lines, now)
    }

    /// The file under its name: not one that was removed or renamed meanwhile.
    fn opened(&mut self, now: Timestamp) -> io::Result<&mut OpenLogFile> {
        use cap_std::fs::MetadataExt;
        let there = self.folder.about(&self.name).map(|there| (there.dev(), there.ino()));
        let open = match self.open.take() {
            Some(open) if there.is_ok_and(|id| open.id == id) => open,
            _ => OpenLogFile::new(self.begun()?, now)?,
        };
        Ok(self.open.insert(open))
    }

    /// The file, opened for appending, so that a line goes behind those of other processes.
    fn begun(&mut self) -> io::Result<File> {
        match self.folder.append(&self.name) {
            // The folder itself was removed, which an operator may do.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.folder = Folder::made(self.folder.path())?;
                self.folder.append(&self.name)
            }
            begun => begun,
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.open = None;
        let backups = self.rotation.backups;
        // Left from a time when more were kept.
        let mut surplus = backups + 1;
        while self.folder.has(&self.older(surplus)) {
            self.folder.remove(&self.older(surplus))?;
            surplus += 1;
        }
        if backups == 0 {
            return self.folder.remove(&self.name);
        }
        for number in (1..backups).rev() {
            unless_missing(self.folder.rename(&self.older(number), &self.older(number + 1)))?;
        }
        unless_missing(self.folder.rename(&self.name, &self.older(1)))
    }

    fn older(&self, number: usize) -> String {
        format!("{}.{number}", self.name)
    }
}

impl OpenLogFile {
    fn new(file: File, now: Timestamp) -> io::Result<Self> {
        let there = file.metadata()?;
        let len = there.len();
        let last =
            there.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(now);
        let mut end = [b'\n'];
        if len > 0 {
            file.read_exact_at(&mut end, len - 1)?;
        }
        Ok(Self { file, id: (there.dev(), there.ino()), len, day: day(last), torn: end != [b'\n'] })
    }

    fn write(&mut self, lines: &str, now: Timestamp) -> io::Result<()> {
        let written = if self.torn {
            self.file.write_all(format!("\n{lines}").as_bytes())
        } else {
            self.file.write_all(lines.as_bytes())
        };
        match written {
            Ok(()) => {
                self.len += lines.len() as u64 + u64::from(self.torn);
                self.torn = false;
                self.day = day(now);
                Ok(())
            }
            Err(error) => {
                // A disk that fills up may have taken half a line.
                self.torn |= self.file.set_len(self.len).is_err();
                Err(error)
            }
        }
    }
}

fn day(time: Timestamp) -> i64 {
    time.as_second().div_euclid(DAY)
}

fn unless_missing(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// The contents of `log`, `log.1` and so on, up to the first that is not there.
    fn files(folder: &Path) -> Vec<String> {
        let names =
            std::iter::once("log".to_owned()).chain((1..).map(|number| format!("log.{number}")));
        names.map_while(|name| fs::read_to_string(folder.join(name)).ok()).collect()
    }

    fn log(folder: &Path, max_bytes: u64, backups: usize) -> LogFile {
        let folder = Folder::made(folder).unwrap();
        LogFile::new(folder, "log".to_owned(), Rotation { max_bytes, backups })
    }

    #[test]
    fn a_file_is_rotated_before_it_is_too_large_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 8, 2);
        for line in ["aaa\n", "bbb\n", "c\n", "longer than a file may be\n", "d\n", "e\n"] {
            log.append(line, time("2026-03-01T12:00:00Z")).unwrap();
        }
        assert_eq!(files(folder.path()), ["d\ne\n", "longer than a file may be\n", "c\n"]);
    }

    #[test]
    fn without_backups_none_is_kept_and_those_of_a_larger_count_go() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["log", "log.1", "log.2"] {
            fs::write(folder.path().join(name), "old and long\n").unwrap();
        }
        log(folder.path(), 8, 0).append("new\n", Timestamp::now()).unwrap();
        assert_eq!(files(folder.path()), ["new\n"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_day_of_utc_has_its_own_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(folder.path(), 1000, 5);
        for (text, line) in [
            ("2026-03-01T23:59:59.999Z", "first\n"),
            ("2026-03-02T00:00:00Z", "second\n"),
            ("2026-03-02T23:59:59Z", "second too\n"),
            // The clock was set back.
            ("2026-03-01T12:00:00Z", "second still\n"),
        ] {
            log.append(line, time(text)).unwrap();
        }
        assert_eq!(files(folder.path()), ["second\nsecond too\nsecond still\n", "first\n"]);
    }

    #[test]
    fn a_restart_appends_to_the_day_and_rotates_what_is_older_or_too_large() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let now = time("2026-03-02T10:00:00Z");
        let written = |at: Timestamp| {
            File::options().append(true).open(&path).unwrap().set_modified(at.try_into().unwrap())
        };
        log(folder.path(), 100, 5).append("one\n", now).unwrap();
        written(time("2026-03-02T00:00:00Z")).unwrap();
        log(folder.path(), 100, 5).append("two\n", now).unwrap();
        assert_eq!(files(folder.path()), ["one\ntwo\n"]);
        written(time("2026-03-01T23:59:59Z")).unwrap();
        log(folder.path(), 100, 5).append("three\n", now).unwrap();
        assert_eq!(files(folder.path()), ["three\n", "one\ntwo\n"]);
        written(now).unwrap();
        log(folder.path(), 5, 5).append("four\n", now).unwrap();
        assert_eq!(files(folder.path()), ["four\n", "three\n", "one\ntwo\n"]);
    }

    #[test]
    fn a_line_after_half_a_line_begins_a_line() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("log"), "whole\nhal").unwrap();
        let mut log = log(folder.path(), 1000, 1);
        for line in ["a\n", "b\n"] {
            log.append(line, Timestamp::now()).unwrap();
        }
        assert_eq!(files(folder.path()), ["whole\nhal\na\nb\n"]);
    }

    #[test]
    fn a_file_that_was_moved_or_removed_is_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("logs");
        let mut log = log(&directory, 1000, 1);
        log.append("a\n", Timestamp::now()).unwrap();
        fs::rename(directory.join("log"), folder.path().join("kept")).unwrap();
        log.append("b\n", Timestamp::now()).unwrap();
        assert_eq!(files(&directory), ["b\n"]);
        fs::remove_dir_all(&directory).unwrap();
        log.append("c\n", Timestamp::now()).unwrap();
        assert_eq!(files(&directory), ["c\n"]);
    }

    #[test]
    fn a_file_that_cannot_be_rotated_does_not_grow() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("log.1/in the way")).unwrap();
        let mut log = log(folder.path(), 8, 1);
        log.append("aaaaaa\n", Timestamp::now()).unwrap();
        assert!(log.append("bbbbbb\n", Timestamp::now()).is_err());
        assert_eq!(files(folder.path()), ["aaaaaa\n"]);
        fs::remove_dir_all(folder.path().join("log.1")).unwrap();
        log.append("cccccc\n", Timestamp::now()).unwrap();
        assert_eq!(files(folder.path()), ["cccccc\n", "aaaaaa\n"]);
    }
}
