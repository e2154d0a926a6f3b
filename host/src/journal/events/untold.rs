//! Events of a lost epoch that were neither held by the site nor told: a file for those who have to
//! account for them.
//!
//! One JSON object a line: `at`, when it was refused, `session`, `kind`, `reason`, and the `event` as
//! subscribers would have got it, without session and number. Its pictures are not kept.

use std::io::{self, Write};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::EventDraft;
use crate::util::folder::Folder;

/// The file in the data directory, and what it becomes when it is full.
const FILE: &str = "untold-events.jsonl";
const FORMER: &str = "untold-events.1.jsonl";

/// Bytes at which a file is full. Events wait in a bounded outbox, of which little is in flight: both
/// files hold what hundreds of lost epochs leave.
const FULL: u64 = 8 << 20;

/// The file, and the one before it.
#[derive(Debug)]
pub(super) struct UntoldEvents {
    folder: Folder,
    /// One writes at a time.
    turn: Mutex<()>,
}

impl UntoldEvents {
    pub(super) fn new(folder: Folder) -> Self {
        Self { folder, turn: Mutex::new(()) }
    }

    /// Where the file is, to be shown.
    pub(super) fn shown(&self) -> String {
        self.folder.path().join(FILE).display().to_string()
    }

    /// Keeps events, on the disk once this returns. `at_ms`: milliseconds since 1970.
    pub(super) fn keep(
        &self,
        session: &str,
        reason: &str,
        at_ms: i64,
        events: &[EventDraft],
    ) -> io::Result<()> {
        let at = Timestamp::from_millisecond(at_ms).unwrap_or_default().to_string();
        let mut text = String::new();
        for EventDraft { kind, body, .. } in events {
            let event = serde_json::from_str(body).unwrap_or_else(|_| Value::from(&**body));
            let line = json!({
                "at": at, "session": session, "kind": kind, "reason": reason, "event": event
            });
            text += &format!("{line}\n");
        }
        let _turn = self.turn.lock();
        let size = self.folder.size(FILE).unwrap_or_default();
        if size > 0 && size.saturating_add(text.len() as u64) > FULL {
            self.folder.rename(FILE, FORMER)?;
        }
        let mut file = self.folder.append(FILE)?;
        let before = file.metadata()?.len();
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            // Half a line would spoil the next. Where that fails, too, the disk is to blame.
            let _ = file.set_len(before);
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::super::tests::draft;
    use super::*;

    fn lines(path: &Path) -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn each_event_is_a_line_and_the_file_is_the_hosts_alone() {
        let folder = tempfile::tempdir().unwrap();
        let untold = UntoldEvents::new(Folder::private(folder.path()).unwrap());
        untold.keep("one", "it is b's", 0, &[draft(1), draft(2)]).unwrap();
        untold.keep("two", "it is c's", 1000, &[draft(3)]).unwrap();
        let path = folder.path().join(FILE);
        assert_eq!(untold.shown(), path.display().to_string());
        let kept = lines(&path);
        assert_eq!(kept.len(), 3);
        let first = json!({"at": "1970-01-01T00:00:00Z", "session": "one", "kind": draft(1).kind,
            "reason": "it is b's", "event": {"n": 1}});
        assert_eq!(kept[0], first);
        assert_eq!(kept[2]["event"], json!({"n": 3}));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_full_file_takes_the_place_of_the_former_one() {
        let folder = tempfile::tempdir().unwrap();
        let untold = UntoldEvents::new(Folder::private(folder.path()).unwrap());
        let large = |number: u64| {
            let body = json!({"n": number, "text": "x".repeat(FULL as usize / 2)}).to_string();
            EventDraft { body: body.into(), ..draft(number) }
        };
        for number in 1..=3 {
            untold.keep("one", "lost", 0, &[large(number)]).unwrap();
        }
        let numbers = |name: &str| -> Vec<Value> {
            let kept = lines(&folder.path().join(name));
            kept.into_iter().map(|mut line| line["event"]["n"].take()).collect()
        };
        assert_eq!((numbers(FORMER), numbers(FILE)), (vec![json!(2)], vec![json!(3)]));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }
}
