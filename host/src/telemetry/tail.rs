//! A session's log for readers: its last lines, and those behind a place, across rotations.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::str::FromStr;
use std::time::UNIX_EPOCH;

use super::name::session_log;
use crate::util::folder::Folder;

/// Most lines: more than a page shows.
pub const MAX_TAIL_LINES: usize = 1000;

/// Bytes that are read of a log at most: a thousand long lines, and nothing that a disk or a client
/// would feel.
const MAX_TAIL_BYTES: usize = 256 << 10;

/// A place in a session's log, behind a line. Its text is for clients to give back.
///
/// It names the file by its identity, which a rotation leaves as it is. The time of the file's
/// birth is of that: file systems give the number of a removed file to the next one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogPosition {
    /// All zero: before the first line.
    file: FileIdentity,
    /// Bytes of the file before it.
    offset: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct FileIdentity {
    inode: u64,
    /// Nanoseconds since 1970; 0 where the file system does not keep it.
    born: u64,
}

/// Why a text is no [`LogPosition`].
#[derive(Debug, thiserror::Error)]
#[error("no place in a log")]
pub struct NoLogPosition;

impl fmt::Display for LogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}-{:x}", self.file.inode, self.file.born, self.offset)
    }
}

impl FromStr for LogPosition {
    type Err = NoLogPosition;

    fn from_str(text: &str) -> Result<Self, NoLogPosition> {
        let mut parts = text.split('-');
        let mut number = || {
            let part = parts.next().filter(|part| !part.starts_with('+')).ok_or(NoLogPosition)?;
            u64::from_str_radix(part, 16).map_err(|_| NoLogPosition)
        };
        let position =
            Self { file: FileIdentity { inode: number()?, born: number()? }, offset: number()? };
        if parts.next().is_some() { Err(NoLogPosition) } else { Ok(position) }
    }
}

/// Lines of a session's log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct LogPart {
    /// Without their line feeds, the newest last.
    pub lines: Vec<String>,
    /// The place behind them.
    pub next: LogPosition,
    /// Whether lines between the place that was asked for and these are gone: the file was removed
    /// or cut.
    pub missed: bool,
}

/// The last lines of a session's log, the newest last: at most [`MAX_TAIL_LINES`], and 256 KiB of
/// it. The file before the last rotation counts too. Empty where the session has no log yet.
pub fn session_tail(directory: &Path, session: &str, lines: usize) -> io::Result<LogPart> {
    let wanted = lines.min(MAX_TAIL_LINES);
    let files = opened(directory, session, 2)?;
    let mut part = LogPart::default();
    let mut text = String::new();
    let mut room = MAX_TAIL_BYTES;
    // The lines of the older file come before those of the newer one.
    for (age, log) in files.iter().enumerate() {
        let begin = log.len.saturating_sub(room as u64);
        let bytes = log.read(begin, room)?;
        let mut end = whole_lines(&bytes);
        if age == 0 {
            part.next =
                LogPosition { file: log.identity, offset: begin.saturating_add(end.len() as u64) };
        }
        if begin > 0 {
            // A line that is cut at its beginning is left out.
            let line_feed = end.iter().position(|byte| *byte == b'\n');
            end = line_feed.and_then(|at| end.get(at + 1..)).unwrap_or_default();
        }
        text.insert_str(0, &String::from_utf8_lossy(end));
        room = room.saturating_sub(bytes.len());
        if begin > 0 || room == 0 || text.lines().count() >= wanted {
            break;
        }
    }
    let all: Vec<&str> = text.lines().collect();
    let skipped = all.len().saturating_sub(wanted);
    part.lines = all.into_iter().skip(skipped).map(str::to_owned).collect();
    Ok(part)
}

/// The lines of a session's log behind a place, the oldest first: at most [`MAX_TAIL_LINES`], and
/// 256 KiB of it. What was rotated since counts, as far as it is kept.
pub fn session_log_after(
    directory: &Path,
    session: &str,
    after: LogPosition,
    lines: usize,
) -> io::Result<LogPart> {
    let wanted = lines.min(MAX_TAIL_LINES);
    let files = opened(directory, session, usize::MAX)?;
    let mut part = LogPart { next: after, ..LogPart::default() };
    let known = files.iter().position(|log| log.identity == after.file && after.offset <= log.len);
    let oldest = match known {
        Some(age) => age,
        None => {
            part.missed = after != LogPosition::default();
            part.next = LogPosition::default();
            files.len().saturating_sub(1)
        }
    };
    let mut room = MAX_TAIL_BYTES;
    for (age, log) in files.iter().enumerate().take(oldest + 1).rev() {
        let begin = if part.next.file == log.identity { part.next.offset } else { 0 };
        let mut bytes = log.read(begin, room)?;
        let at_end = bytes.len() < room;
        let there = bytes.len();
        // What ends without a line feed and is followed by none: half a line at the end of an older
        // file, and one as long as all that is read.
        let unended = if at_end {
            age > 0 && !bytes.ends_with(b"\n")
        } else {
            room == MAX_TAIL_BYTES && !bytes.contains(&b'\n')
        };
        if unended && there > 0 {
            bytes.push(b'\n');
        }
        let mut taken = 0;
        for line in whole_lines(&bytes).split_inclusive(|byte| *byte == b'\n') {
            if part.lines.len() == wanted {
                break;
            }
            taken += line.len();
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            part.lines.push(String::from_utf8_lossy(line).into_owned());
        }
        let offset = begin.saturating_add(taken.min(there) as u64);
        room = room.saturating_sub(there);
        part.next = LogPosition { file: log.identity, offset };
        if part.lines.len() == wanted || !at_end || room == 0 {
            break;
        }
    }
    Ok(part)
}

/// A file of a log.
struct OpenLog {
    file: File,
    identity: FileIdentity,
    /// Bytes when it was opened.
    len: u64,
}

impl OpenLog {
    fn new(file: File) -> io::Result<Self> {
        let about = file.metadata()?;
        let born = about.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |age| u64::try_from(age.as_nanos()).unwrap_or(0));
        let identity = FileIdentity { inode: about.ino(), born };
        Ok(Self { file, identity, len: about.len() })
    }

    /// The bytes from a place on, at most so many. A file that was cut meanwhile is read as far as
    /// it goes.
    fn read(&self, begin: u64, most: usize) -> io::Result<Vec<u8>> {
        let there = usize::try_from(self.len.saturating_sub(begin)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; there.min(most)];
        let mut filled = 0;
        while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, begin + filled as u64)? {
                0 => break,
                read => filled += read,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

/// The files of a session's log, the newest first, at most so many.
fn opened(directory: &Path, session: &str, most: usize) -> io::Result<Vec<OpenLog>> {
    let folder = match Folder::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folder => folder?,
    };
    let name = session_log(session);
    let mut files: Vec<OpenLog> = Vec::new();
    let mut gap = false;
    for number in 0.. {
        if files.len() == most {
            break;
        }
        let older = if number == 0 { name.clone() } else { format!("{name}.{number}") };
        let log = match folder.read(&older) {
            // A rotation that is under way leaves one name free, and the newest file is missing
            // until somebody writes.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !gap => {
                gap = true;
                continue;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            file => OpenLog::new(file?)?,
        };
        // A rotation between two looks shows a file twice.
        if files.last().is_none_or(|newer| newer.identity != log.identity) {
            files.push(log);
        }
    }
    Ok(files)
}

/// What of the bytes ends in a line feed.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    bytes.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, ending: &str, text: &str) {
        std::fs::write(folder.join(session_log("gate") + ending), text).unwrap();
    }

    fn written(files: &[(&str, &str)], lines: usize) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        files.iter().for_each(|(ending, text)| write(folder.path(), ending, text));
        session_tail(folder.path(), "gate", lines).unwrap().lines
    }

    #[test]
    fn the_newest_lines_are_last_and_those_before_a_rotation_count() {
        assert_eq!(written(&[("", "a\nb\nc\n")], 2), ["b", "c"]);
        assert_eq!(written(&[("", "c\n"), (".1", "a\nb\n"), (".2", "z\n")], 9), ["a", "b", "c"]);
        assert_eq!(written(&[("", "c\nd\n"), (".1", "a\nb\n")], 1), ["d"]);
        assert!(written(&[], 9).is_empty() && written(&[("", "a\n")], 0).is_empty());
        assert_eq!(session_tail(Path::new("/no/such/folder"), "gate", 9).unwrap().lines.len(), 0);
    }

    #[test]
    fn lines_and_bytes_have_a_bound_and_a_cut_line_is_left_out() {
        let many = "line\n".repeat(5000);
        assert_eq!(written(&[("", &many)], usize::MAX).len(), MAX_TAIL_LINES);
        let long = format!("{}\nlast\n", "x".repeat(MAX_TAIL_BYTES));
        assert_eq!(written(&[("", &long), (".1", "before\n")], 10), ["last"]);
        assert_eq!(written(&[("", "caf\u{fffd}\n")], 1), ["caf\u{fffd}"]);
        assert_eq!(written(&[("", "whole\nhal")], 9), ["whole"], "the rest of it is to come");
    }

    #[test]
    fn a_link_in_the_place_of_a_log_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(session_log("gate"));
        std::os::unix::fs::symlink("/etc/hostname", link).unwrap();
        assert!(session_tail(folder.path(), "gate", 9).is_err());
    }

    /// A log that rotates beside a reader that follows it.
    struct FollowedLog {
        folder: tempfile::TempDir,
        at: LogPosition,
    }

    impl FollowedLog {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap(), at: LogPosition::default() }
        }

        fn append(&self, text: &str) {
            use std::io::Write;
            let path = self.folder.path().join(session_log("gate"));
            let mut file = File::options().create(true).append(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }

        fn rotate(&self, backups: usize) {
            let at = |number: usize| {
                let ending = if number == 0 { String::new() } else { format!(".{number}") };
                self.folder.path().join(session_log("gate") + &ending)
            };
            (0..backups).rev().for_each(|number| {
                let _ = std::fs::rename(at(number), at(number + 1));
            });
        }

        /// The next lines, and whether some are missing before them.
        fn next(&mut self, lines: usize) -> (Vec<String>, bool) {
            let place = self.at.to_string().parse().unwrap();
            let part = session_log_after(self.folder.path(), "gate", place, lines).unwrap();
            self.at = part.next;
            (part.lines, part.missed)
        }
    }

    #[test]
    fn who_follows_a_log_gets_each_line_once_across_rotations() {
        let mut log = FollowedLog::new();
        assert_eq!(log.next(9), (vec![], false), "no log yet");
        log.append("a\nb\n");
        log.rotate(3);
        assert_eq!(log.next(9).0, ["a", "b"], "nobody has written since the rotation");
        log.append("c\nd\nhal");
        assert_eq!(log.next(1).0, ["c"]);
        log.rotate(3);
        log.append("e\n");
        log.rotate(3);
        log.append("f\ng");
        assert_eq!(log.next(2).0, ["d", "hal"]);
        assert_eq!(log.next(9), (vec!["e".into(), "f".into()], false));
        assert!(log.next(9).0.is_empty());
        log.append("g\n");
        assert_eq!(log.next(9), (vec!["gg".into()], false));
    }

    #[test]
    fn the_tail_gives_the_place_behind_it() {
        let mut log = FollowedLog::new();
        log.append("a\nb\n");
        let tail = session_tail(log.folder.path(), "gate", 1).unwrap();
        assert_eq!((tail.lines, tail.missed), (vec!["b".into()], false));
        log.at = tail.next;
        log.append("c\n");
        assert_eq!(log.next(9), (vec!["c".into()], false));
    }

    #[test]
    fn lines_that_are_gone_are_told() {
        let mut log = FollowedLog::new();
        log.append("a\nb\n");
        log.next(9);
        log.append("c\n");
        for _ in 0..2 {
            log.rotate(1);
            log.append("d\n");
        }
        assert_eq!(log.next(9), (vec!["d".into(), "d".into()], true), "rotated away");
        write(log.folder.path(), "", "");
        assert_eq!(log.next(9), (vec!["d".into()], true), "cut: what is left comes again");
        std::fs::remove_file(log.folder.path().join(session_log("gate"))).unwrap();
        std::fs::remove_file(log.folder.path().join(session_log("gate") + ".1")).unwrap();
        assert_eq!(log.next(9), (vec![], true), "removed");
        assert_eq!(log.next(9), (vec![], false), "and told once");
    }

    #[test]
    fn much_to_catch_up_with_comes_in_parts_and_a_line_without_end_in_pieces() {
        let mut log = FollowedLog::new();
        log.append(&format!("{}\nlast\n", "x".repeat(MAX_TAIL_BYTES + 7)));
        let lines: Vec<String> =
            std::iter::repeat_with(|| log.next(9).0).take(3).flatten().collect();
        let lengths: Vec<usize> = lines.iter().map(String::len).collect();
        assert_eq!(lengths, [MAX_TAIL_BYTES, 7, 4]);
        log.append(&"line\n".repeat(1500));
        assert_eq!([log.next(usize::MAX).0.len(), log.next(usize::MAX).0.len()], [1000, 500]);
    }

    #[test]
    fn what_is_no_place_is_refused() {
        for text in ["", "1", "1-2", "1-2-3-4", "x-0-0", "+1-0-0", "1-2-10000000000000000"] {
            assert!(text.parse::<LogPosition>().is_err(), "{text}");
        }
    }
}
