//! The last lines of a session's log.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::name::session_log;
use crate::util::folder::Folder;

/// Most lines: more than a page shows.
pub const MAX_TAIL_LINES: usize = 1000;

/// Bytes that are read of a log at most: a thousand long lines, and nothing that a disk or a client
/// would feel.
const MAX_TAIL_BYTES: u64 = 256 << 10;

/// The last lines of a session's log, the newest last: at most [`MAX_TAIL_LINES`], and 256 KiB of
/// it. The file before the last rotation counts too. Empty where the session has no log yet.
pub fn session_tail(directory: &Path, session: &str, lines: usize) -> io::Result<Vec<String>> {
    let folder = match Folder::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        folder => folder?,
    };
    let (wanted, name) = (lines.min(MAX_TAIL_LINES), session_log(session));
    let mut text = String::new();
    let mut room = MAX_TAIL_BYTES;
    // The lines of the older file come before those of the newer one.
    for name in [name.clone(), format!("{name}.1")] {
        let file = match folder.read(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            file => file?,
        };
        let (end, whole) = last_bytes(&file, room)?;
        room = room.saturating_sub(end.len() as u64);
        text.insert_str(0, &end);
        if !whole || room == 0 || text.lines().count() >= wanted {
            break;
        }
    }
    let lines: Vec<&str> = text.lines().collect();
    let skipped = lines.len().saturating_sub(wanted);
    Ok(lines.into_iter().skip(skipped).map(str::to_owned).collect())
}

/// The whole lines at the end of a file, at most so many bytes, and whether that is all of it.
fn last_bytes(file: &File, most: u64) -> io::Result<(String, bool)> {
    let len = file.metadata()?.len();
    let begin = len.saturating_sub(most);
    let mut bytes = vec![0; usize::try_from(len - begin).unwrap_or(0)];
    // A file that was cut meanwhile is read as far as it goes.
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, begin + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    bytes.truncate(filled);
    let text = String::from_utf8_lossy(&bytes);
    let whole = begin == 0;
    let text = match (whole, text.split_once('\n')) {
        (false, Some((_, lines))) => lines.to_owned(),
        (false, None) => String::new(),
        (true, _) => text.into_owned(),
    };
    Ok((text, whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(files: &[(&str, &str)], lines: usize) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        for (ending, text) in files {
            std::fs::write(folder.path().join(session_log("gate") + ending), text).unwrap();
        }
        session_tail(folder.path(), "gate", lines).unwrap()
    }

    #[test]
    fn the_newest_lines_are_last_and_those_before_a_rotation_count() {
        assert_eq!(written(&[("", "a\nb\nc\n")], 2), ["b", "c"]);
        assert_eq!(written(&[("", "c\n"), (".1", "a\nb\n"), (".2", "z\n")], 9), ["a", "b", "c"]);
        assert_eq!(written(&[("", "c\nd\n"), (".1", "a\nb\n")], 1), ["d"]);
        assert!(written(&[], 9).is_empty() && written(&[("", "a\n")], 0).is_empty());
        assert_eq!(session_tail(Path::new("/no/such/folder"), "gate", 9).unwrap().len(), 0);
    }

    #[test]
    fn lines_and_bytes_have_a_bound_and_a_cut_line_is_left_out() {
        let many = "line\n".repeat(5000);
        assert_eq!(written(&[("", &many)], usize::MAX).len(), MAX_TAIL_LINES);
        let long = format!("{}\nlast\n", "x".repeat(MAX_TAIL_BYTES as usize));
        assert_eq!(written(&[("", &long), (".1", "before\n")], 10), ["last"]);
        assert_eq!(written(&[("", "caf\u{fffd}\n")], 1), ["caf\u{fffd}"]);
    }

    #[test]
    fn a_link_in_the_place_of_a_log_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let link = folder.path().join(session_log("gate"));
        std::os::unix::fs::symlink("/etc/hostname", link).unwrap();
        assert!(session_tail(folder.path(), "gate", 9).is_err());
    }
}
