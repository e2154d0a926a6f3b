//! Lines of several logs in one order: by their time, an entry's lines together.

use clap::ValueEnum;
use serde_json::{Value, json};

use super::super::table::printable;

/// The levels of a log, the gravest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    fn named(name: &str) -> Option<Self> {
        Self::from_str(name, true).ok()
    }
}

/// When an entry was logged, and how grave it is. `None`: its beginning was not seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct EntryHead {
    /// As the log has it: times of one form, so that their order is that of the texts.
    time: String,
    level: Option<Level>,
}

/// An entry of a session's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggedEntry {
    session: String,
    head: EntryHead,
    /// As they stand in the file.
    lines: Vec<String>,
}

/// Takes the lines of one log apart, which come in parts.
#[derive(Debug, Clone, Default)]
pub(super) struct EntryReader {
    /// Of the last entry, which the next part may continue.
    last: EntryHead,
}

impl EntryReader {
    /// The entries of the next lines.
    pub(super) fn read(&mut self, session: &str, lines: Vec<String>) -> Vec<LoggedEntry> {
        let mut entries: Vec<LoggedEntry> = Vec::new();
        for line in lines {
            let begins = head(&line);
            match (begins, entries.last_mut()) {
                (None, Some(entry)) => entry.lines.push(line),
                (begins, _) => {
                    self.last = begins.unwrap_or_else(|| self.last.clone());
                    let (session, head) = (session.to_owned(), self.last.clone());
                    entries.push(LoggedEntry { session, head, lines: vec![line] });
                }
            }
        }
        entries
    }
}

/// The head of the entry that a line begins, in either format of a log. `None`: it continues one.
fn head(line: &str) -> Option<EntryHead> {
    if line.starts_with('{') {
        let entry: Value = serde_json::from_str(line).ok()?;
        let member = |name| entry.get(name).and_then(Value::as_str);
        let level = member("level").and_then(Level::named);
        return Some(EntryHead { time: member("time")?.to_owned(), level });
    }
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let time = words.next().filter(|_| line.starts_with(|first: char| first.is_ascii_digit()))?;
    let time = Some(time).filter(|time| time.ends_with('Z') && time.contains('T'))?;
    Some(EntryHead { time: time.to_owned(), level: words.next().and_then(Level::named) })
}

impl LoggedEntry {
    /// Whether it is at least as grave. One whose level is not known may be.
    pub(super) fn is_at_least(&self, least: Level) -> bool {
        self.head.level.is_none_or(|level| level <= least)
    }

    /// Whether it was logged later. One whose time is not known was not.
    pub(super) fn is_after(&self, time: &str) -> bool {
        self.head.time.as_str() > time
    }

    pub(super) fn time(&self) -> &str {
        &self.head.time
    }

    /// The entry of one session's log alone, a line for each of its own.
    pub(super) fn alone(&self, json: bool) -> String {
        self.each_line(|line| match json {
            true => Value::from(line).to_string(),
            false => super::shown(line),
        })
    }

    /// The entry among those of others, with the session's name in front, in so many columns.
    pub(super) fn among_others(&self, columns: usize, json: bool) -> String {
        let EntryHead { time, level } = &self.head;
        let name = printable(&self.session);
        self.each_line(|line| match json {
            true => {
                let level = level.and_then(|level| level.to_possible_value());
                let level = level.map(|level| level.get_name().to_owned());
                let time = Some(time).filter(|time| !time.is_empty());
                json!({"session": self.session, "time": time, "level": level, "line": line})
                    .to_string()
            }
            false => format!("{name:<columns$}  {}", super::shown(line)),
        })
    }

    fn each_line(&self, shown: impl Fn(&str) -> String) -> String {
        self.lines.iter().map(|line| shown(line) + "\n").collect()
    }
}

/// Puts entries into the order of their times. Those of one session stay in theirs.
pub(super) fn sort(entries: &mut [LoggedEntry]) {
    entries.sort_by(|one, other| one.head.time.cmp(&other.head.time));
}

/// The last lines of several logs together.
#[derive(Debug)]
pub(super) struct Tail {
    most: usize,
    entries: Vec<LoggedEntry>,
}

impl Tail {
    /// At most so many lines.
    pub(super) fn new(most: usize) -> Self {
        Self { most, entries: Vec::new() }
    }

    /// Takes the entries of one more log.
    pub(super) fn add(&mut self, entries: Vec<LoggedEntry>) {
        self.entries.extend(entries);
        sort(&mut self.entries);
        let mut room = self.most;
        let mut first = self.entries.len();
        for (index, entry) in self.entries.iter_mut().enumerate().rev() {
            if room == 0 {
                break;
            }
            let spare = entry.lines.len().saturating_sub(room);
            entry.lines.drain(..spare);
            room -= entry.lines.len();
            first = index;
        }
        self.entries.drain(..first);
    }

    pub(super) fn into_entries(self) -> Vec<LoggedEntry> {
        self.entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(session: &str, text: &str) -> Vec<LoggedEntry> {
        EntryReader::default().read(session, text.lines().map(str::to_owned).collect())
    }

    fn shown(entries: &[LoggedEntry]) -> String {
        entries.iter().map(|entry| entry.among_others(4, false)).collect()
    }

    const GATE: &str = "\
2026-03-01T12:00:00.000131Z ERROR ocelli::session session=\"gate\": lost
    wasm backtrace:
2026-03-01T12:00:02.000000Z  INFO ocelli::session session=\"gate\": back";

    const YARD: &str = "\
2026-03-01T12:00:01.000000Z  WARN ocelli::worker session=\"yard\": slow
2026-03-01T12:00:02.000001Z DEBUG ocelli::worker session=\"yard\": well";

    #[test]
    fn logs_merge_by_time_and_an_entry_stays_together() {
        let mut tail = Tail::new(100);
        tail.add(read("yard", YARD));
        tail.add(read("gate", GATE));
        let expected = "\
gate  2026-03-01T12:00:00.000131Z ERROR ocelli::session session=\"gate\": lost
gate      wasm backtrace:
yard  2026-03-01T12:00:01.000000Z  WARN ocelli::worker session=\"yard\": slow
gate  2026-03-01T12:00:02.000000Z  INFO ocelli::session session=\"gate\": back
yard  2026-03-01T12:00:02.000001Z DEBUG ocelli::worker session=\"yard\": well
";
        assert_eq!(shown(&tail.into_entries()), expected);
    }

    #[test]
    fn the_last_lines_of_all_together_are_kept() {
        for most in 0..7 {
            let mut tail = Tail::new(most);
            let mut all = Tail::new(100);
            for (session, text) in [("gate", GATE), ("yard", YARD)] {
                tail.add(read(session, text));
                all.add(read(session, text));
            }
            let (tail, all) = (shown(&tail.into_entries()), shown(&all.into_entries()));
            let lines: Vec<&str> = all.lines().collect();
            let last = &lines[lines.len().saturating_sub(most)..];
            assert_eq!(tail.lines().collect::<Vec<_>>(), last, "{most}");
        }
    }

    #[test]
    fn entries_are_chosen_by_level_and_what_has_none_is_kept() {
        let chosen = |text: &str, least| -> usize {
            read("a", text).iter().filter(|entry| entry.is_at_least(least)).count()
        };
        let all = format!("{GATE}\n{YARD}");
        let counts = [Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Trace]
            .map(|least| chosen(&all, least));
        assert_eq!(counts, [1, 2, 3, 4, 4]);
        assert_eq!(chosen("    the end of a backtrace\nwords of a program", Level::Error), 1);
    }

    #[test]
    fn both_formats_and_parts_of_an_entry_are_understood() {
        let line = r#"{"time":"2026-03-01T12:00:03.000000Z","level":"WARN","message":"slow"}"#;
        let entries = read("a", line);
        assert_eq!(entries[0].time(), "2026-03-01T12:00:03.000000Z");
        assert!(entries[0].is_at_least(Level::Warn) && !entries[0].is_at_least(Level::Error));
        let json: Value = serde_json::from_str(&entries[0].among_others(1, true)).unwrap();
        assert_eq!(json["line"], line);
        assert_eq!((&json["session"], &json["level"]), (&"a".into(), &"warn".into()));
        assert_eq!(entries[0].alone(true).trim_end(), Value::from(line).to_string());

        let mut reader = EntryReader::default();
        reader.read("a", vec![GATE.lines().next().unwrap().to_owned()]);
        let rest = reader.read("a", vec!["      0: 0x1f3a - decode".to_owned()]);
        assert_eq!(rest[0].time(), "2026-03-01T12:00:00.000131Z", "of the entry before");
        assert!(rest[0].is_at_least(Level::Error));
        assert!(!rest[0].is_after("2026-03-01T12:00:00.000131Z"));
    }
}
