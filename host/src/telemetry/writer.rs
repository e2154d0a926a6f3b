//! The threads that write: one for all files, one for standard error. A disk that hangs holds up
//! the one, a terminal that is paused the other, and neither of them the host.

use std::convert::Infallible;
use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::Level;

use super::queue::{LogEntry, LogQueue};
use super::record::LogRecord;
use crate::config::LogFormat;

/// How long the process waits at its end for each thread: a disk that hangs must not keep it.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes before the level in a line of text: a time with microseconds, and a blank.
const TIME: usize = "2026-01-01T00:00:00.000000Z ".len();

/// Bytes of the longest level.
const LEVEL: usize = 5;

/// The threads that write. Dropping it ends them when they have written what waits; one that does
/// not within two seconds is left behind.
#[derive(Default)]
#[must_use = "the log ends when this is dropped"]
pub struct LogGuard(Vec<WriterThread>);

struct WriterThread {
    queue: Arc<LogQueue>,
    /// Closed when the thread has ended.
    ended: Receiver<Infallible>,
}

impl LogGuard {
    /// Starts a thread that writes what is in `queue`. They end in the order in which they are
    /// added.
    pub(super) fn add(
        &mut self,
        name: &str,
        queue: Arc<LogQueue>,
        write: impl FnOnce(&LogQueue) + Send + 'static,
    ) -> io::Result<()> {
        let (running, ended) = sync_channel(0);
        let taken = Arc::clone(&queue);
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            write(&taken);
            drop(running);
        })?;
        self.0.push(WriterThread { queue, ended });
        Ok(())
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        for writer in &self.0 {
            writer.queue.close();
            let _ = writer.ended.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

/// Writes a queue to standard error, text in colour on a terminal.
pub(super) fn to_stderr(queue: &LogQueue, format: LogFormat) {
    let colours = format == LogFormat::Text && io::stderr().is_terminal();
    to_console(queue, &mut io::stderr(), format, colours);
}

fn to_console(queue: &LogQueue, to: &mut impl Write, format: LogFormat, colours: bool) {
    let mut missing: u64 = 0;
    while let Some((entry, missed)) = queue.pop() {
        missing = missed.values().fold(missing, |sum, lines| sum.saturating_add(*lines));
        let mut text = String::new();
        if missing > 0 {
            let message = format!(
                "{missing} lines are not shown here: they came faster than they could be written"
            );
            text = LogRecord::note(entry.time, None, message).line(format);
        }
        text += &if colours { coloured(&entry) } else { entry.line.to_string() };
        // A closed terminal cannot be told of lines that it lacks.
        match to.write_all(text.as_bytes()) {
            Ok(()) => missing = 0,
            Err(_) => missing = missing.saturating_add(1),
        }
    }
}

/// The line with its time dimmed and its level in colour, by the codes of ECMA-48.
fn coloured(entry: &LogEntry) -> String {
    let parts = entry.line.split_at_checked(TIME);
    let Some((time, (level, rest))) =
        parts.and_then(|(time, rest)| Some((time, rest.split_at_checked(LEVEL)?)))
    else {
        return entry.line.to_string();
    };
    let colour = match entry.level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    };
    format!("\x1b[2m{time}\x1b[0m\x1b[{colour}m{level}\x1b[0m{rest}")
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn entry(message: &str) -> LogEntry {
        let record = LogRecord::note(Timestamp::UNIX_EPOCH, None, message.into());
        record.entry(record.text().into())
    }

    #[test]
    fn a_console_shows_lines_in_colour_and_how_many_it_does_not_show() {
        let room = 3 * 512;
        let queue = LogQueue::new(room, Arc::default());
        for _ in 0..100 {
            queue.push(entry("it breaks"));
        }
        queue.close();
        let mut shown = Vec::new();
        to_console(&queue, &mut shown, LogFormat::Text, true);
        let shown = String::from_utf8(shown).unwrap();
        let lines = shown.lines().filter(|line| line.contains("it breaks")).count();
        let line = "\x1b[2m1970-01-01T00:00:00.000000Z \x1b[0m\x1b[33m WARN\x1b[0m \
            ocelli::telemetry: it breaks\n";
        assert!(shown.contains(line), "{shown:?}");
        assert!(shown.contains(&format!("{} lines are not shown", 100 - lines)), "{shown}");
    }

    #[test]
    fn what_a_console_of_json_shows_is_json_to_the_last_line() {
        let queue = LogQueue::new(3 * 512, Arc::default());
        for _ in 0..100 {
            let record = LogRecord::note(Timestamp::UNIX_EPOCH, None, "it breaks".into());
            queue.push(record.entry(record.line(LogFormat::Json).into()));
        }
        queue.close();
        let mut shown = Vec::new();
        to_console(&queue, &mut shown, LogFormat::Json, false);
        let shown = String::from_utf8(shown).unwrap();
        let lines = shown.lines().map(|line| serde_json::from_str(line).unwrap());
        let lines: Vec<serde_json::Value> = lines.collect();
        let missing = lines.iter().filter_map(|line| line["message"].as_str());
        let missing = missing.filter(|message| message.contains("not shown")).count();
        assert!(lines.len() > 1 && missing == 1, "{lines:?}");
    }

    #[test]
    fn the_guard_waits_until_all_is_written_and_not_for_ever() {
        let (queue, shown) = (Arc::new(LogQueue::new(1 << 20, Arc::default())), Arc::default());
        let to: Arc<parking_lot::Mutex<Vec<u8>>> = Arc::clone(&shown);
        let mut guard = LogGuard::default();
        let write =
            move |queue: &LogQueue| to_console(queue, &mut *to.lock(), LogFormat::Text, false);
        guard.add("test", Arc::clone(&queue), write).unwrap();
        // Never ends: the other end of its channel is held below.
        let (_never, hangs) = sync_channel::<()>(0);
        guard.add("hangs", Arc::default(), move |_| _ = hangs.recv()).unwrap();
        for _ in 0..100 {
            queue.push(entry("it breaks"));
        }
        drop(guard);
        let shown = String::from_utf8(shown.lock().clone()).unwrap();
        assert_eq!(shown.matches("it breaks").count(), 100);
    }

    impl Default for LogQueue {
        fn default() -> Self {
            Self::new(0, Arc::default())
        }
    }
}
