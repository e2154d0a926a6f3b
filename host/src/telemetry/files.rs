//! All log files, as one owner has them: which line goes where, how many files there are, and what
//! is said of lines that could not be written.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use jiff::Timestamp;
use tracing::Level;

use super::name::{MAIN_LOG, session_log, session_log_of};
use super::queue::{LogEntry, LogQueue, MissedLines};
use super::record::LogRecord;
use super::rotate::{LogFile, Rotation};
use crate::config::LogFormat;
use crate::util::folder::Folder;

/// Session logs that are open at once: all of a large host, at a small part of its descriptors.
/// With more sessions than that, files are opened and closed as lines come.
const MAX_OPEN: usize = 64;

/// Session logs on disk, each with its older ones. Subscribers choose names of sessions, and every
/// name has a file. As many as there may be sessions at once.
const MAX_SESSION_LOGS: usize = 1000;

/// Warnings and errors of one session's pipeline and worker that the main log shows in a minute.
/// One that complains about every frame must not wash the sessions' lives out of it.
const GUEST_LINES_IN_MAIN: u32 = 10;

/// Seconds between two words on standard error, and in the main log, about lines that are lost.
const TROUBLE_EVERY: i64 = 60;

/// The main log and the sessions'.
pub(super) struct LogFiles {
    folder: Folder,
    format: LogFormat,
    rotation: Rotation,
    main: ManagedLog,
    sessions: HashMap<Arc<str>, ManagedLog>,
    /// Counts up with each line of a session.
    uses: u64,
    lost: Arc<AtomicU64>,
    /// Where trouble with the files is told.
    console: Option<Arc<LogQueue>>,
    last_report: Option<Timestamp>,
}

struct ManagedLog {
    file: LogFile,
    /// Whether it is known to be one of at most [`MAX_SESSION_LOGS`] on disk.
    admitted: bool,
    /// Lines that are to be told of as missing, and why the last one is.
    missing: u64,
    why: String,
    /// The minute of the last warning that the main log showed of this session, and how many it had
    /// in that minute.
    minute: i64,
    shown: u32,
    /// When it was written to last.
    used: u64,
}

impl LogFiles {
    /// Opens the main log, in a folder that is made when it is not there. What gets lost is added
    /// to `lost`.
    ///
    /// # Errors
    /// The main log and what the system says, where it cannot be written to.
    pub(super) fn open(
        directory: &Path,
        format: LogFormat,
        rotation: Rotation,
        lost: Arc<AtomicU64>,
        now: Timestamp,
    ) -> Result<Self, (PathBuf, io::Error)> {
        let failed = |error| (directory.join(MAIN_LOG), error);
        let folder = Folder::made(directory).map_err(failed)?;
        let mut main = ManagedLog::new(&folder, MAIN_LOG.to_owned(), rotation);
        main.file.prepare(now).map_err(failed)?;
        Ok(Self {
            folder,
            format,
            rotation,
            main,
            sessions: HashMap::new(),
            uses: 0,
            lost,
            console: None,
            last_report: None,
        })
    }

    /// Whether others than the host's user can look into the folder.
    pub(super) fn is_shared(&self) -> bool {
        self.folder.is_shared()
    }

    /// As this, with trouble told on the console.
    pub(super) fn with_console(self, console: Arc<LogQueue>) -> Self {
        Self { console: Some(console), ..self }
    }

    /// Writes all entries of a queue, until it is closed and empty.
    pub(super) fn write_all(mut self, queue: &LogQueue) {
        while let Some((entry, missed)) = queue.pop() {
            if !missed.is_empty() {
                self.note_missed(missed, entry.time);
            }
            self.write(&entry);
        }
        self.finish();
    }

    /// Writes an entry where it belongs: host lines to the main log; lines about a session to that
    /// session's log, and to the main log too, unless they come from its pipeline or worker. Of
    /// those the main log has some warnings and errors.
    pub(super) fn write(&mut self, entry: &LogEntry) {
        let Some(session) = &entry.session else { return self.write_main(&entry.line, entry.time) };
        self.write_session(session, &entry.line, entry.time);
        if !entry.guest {
            return self.write_main(&entry.line, entry.time);
        }
        if entry.level > Level::WARN {
            return;
        }
        let log = self.session(session);
        let minute = entry.time.as_second().div_euclid(60);
        if minute != log.minute {
            (log.minute, log.shown) = (minute, 0);
        }
        log.shown = log.shown.saturating_add(1);
        let shown = log.shown;
        if shown <= GUEST_LINES_IN_MAIN {
            self.write_main(&entry.line, entry.time);
        }
        if shown == GUEST_LINES_IN_MAIN {
            let message =
                format!("further warnings of this minute are in {} alone", session_log(session));
            let line = LogRecord::note(entry.time, Some(session), message).line(self.format);
            self.write_main(&line, entry.time);
        }
    }

    /// Keeps in mind what the queue had no room for: the main log tells the sum, a session's log
    /// its own.
    fn note_missed(&mut self, missed: MissedLines, now: Timestamp) {
        const WHY: &str = "they came faster than they could be written";
        let sum = missed.values().sum();
        self.main.miss(sum, WHY);
        for (session, lines) in missed {
            if let Some(session) = session {
                self.session(&session).miss(lines, WHY);
            }
        }
        self.report(format!("{sum} log lines are lost: {WHY}"), now);
    }

    fn write_main(&mut self, line: &str, now: Timestamp) {
        if let Err(error) = self.main.append(None, self.format, line, now) {
            self.failed(self.main.file.path(), &error, now);
        }
    }

    fn write_session(&mut self, session: &Arc<str>, line: &str, now: Timestamp) {
        let (folder, format) = (self.folder.clone(), self.format);
        let log = self.session(session);
        if let Err(error) =
            log.admit(&folder).and_then(|()| log.append(Some(session), format, line, now))
        {
            let path = log.file.path();
            self.failed(path, &error, now);
        }
    }

    /// A session's log. The one that has been idle for longest makes room for a new one.
    fn session(&mut self, session: &Arc<str>) -> &mut ManagedLog {
        self.uses += 1;
        if !self.sessions.contains_key(session) && self.sessions.len() >= MAX_OPEN {
            let idle = self
                .sessions
                .iter()
                .min_by_key(|(_, log)| log.used)
                .map(|(name, _)| Arc::clone(name));
            if let Some(closed) =
                idle.and_then(|name| self.sessions.remove(&name)).filter(|log| log.missing > 0)
            {
                self.main.miss(closed.missing, &closed.why);
            }
        }
        let new = || ManagedLog::new(&self.folder, session_log(session), self.rotation);
        let log = self.sessions.entry(Arc::clone(session)).or_insert_with(new);
        log.used = self.uses;
        log
    }

    fn failed(&mut self, path: PathBuf, error: &io::Error, now: Timestamp) {
        let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
        let path = path.display();
        self.report(
            format!("cannot write {path}: {error}; log lines lost since the start: {lost}"),
            now,
        );
    }

    /// Says now and then, on the console and in the main log, that lines are lost.
    fn report(&mut self, message: String, now: Timestamp) {
        if self
            .last_report
            .is_some_and(|last| (0..TROUBLE_EVERY).contains(&(now.as_second() - last.as_second())))
        {
            return;
        }
        self.last_report = Some(now);
        let note = LogRecord::note(now, None, message);
        if let Some(console) = &self.console {
            console.push(note.entry(note.line(self.format).into()));
        }
        // Where the main log is what cannot be written, the console alone has it.
        let _ = self.main.file.append(&note.line(self.format), now);
    }

    /// Says what is missing where no line came since.
    fn finish(&mut self) {
        let now = Timestamp::now();
        let format = self.format;
        for (session, log) in &mut self.sessions {
            // The log ends here: an error has no place any more.
            let _ = log.append(Some(session), format, "", now);
        }
        let _ = self.main.append(None, format, "", now);
    }
}

impl ManagedLog {
    fn new(folder: &Folder, name: String, rotation: Rotation) -> Self {
        let file = LogFile::new(folder.clone(), name, rotation);
        Self { file, admitted: false, missing: 0, why: String::new(), minute: 0, shown: 0, used: 0 }
    }

    /// Sees to it that there is room for this log among the sessions', once: the folder may be a
    /// large one.
    fn admit(&mut self, folder: &Folder) -> io::Result<()> {
        if !self.admitted && !self.file.exists() {
            make_room(folder, MAX_SESSION_LOGS - 1)?;
        }
        self.admitted = true;
        Ok(())
    }

    fn miss(&mut self, lines: u64, why: &str) {
        self.missing = self.missing.saturating_add(lines);
        why.clone_into(&mut self.why);
    }

    /// Appends whole lines, behind a word on those that are missing. Empty ones are no lines.
    fn append(
        &mut self,
        session: Option<&Arc<str>>,
        format: LogFormat,
        lines: &str,
        now: Timestamp,
    ) -> io::Result<()> {
        let written = match self.missing {
            0 if lines.is_empty() => return Ok(()),
            0 => self.file.append(lines, now),
            missing => {
                let message = format!("{missing} log lines are lost: {}", self.why);
                let note = LogRecord::note(now, session.map(|name| &**name), message).line(format);
                self.file.append(&format!("{note}{lines}"), now)
            }
        };
        match &written {
            Ok(()) => self.missing = 0,
            Err(error) => self.miss(u64::from(!lines.is_empty()), &error.to_string()),
        }
        written
    }
}

/// Removes the session logs that were written to longest ago, with their older files, until there
/// are at most `kept`.
fn make_room(folder: &Folder, kept: usize) -> io::Result<()> {
    let names = match folder.names() {
        // It is made with the first file.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        names => names?,
    };
    let mut logs = BTreeMap::<String, (SystemTime, Vec<String>)>::new();
    for name in names {
        let Some(log) = session_log_of(&name) else { continue };
        let written = folder.about(&name).and_then(|file| file.modified());
        let written = written.map_or(SystemTime::UNIX_EPOCH, |time| time.into_std());
        let (last, files) = logs.entry(log.to_owned()).or_insert((written, Vec::new()));
        *last = written.max(*last);
        files.push(name);
    }
    let mut logs: Vec<_> = logs.into_values().collect();
    logs.sort();
    let surplus = logs.len().saturating_sub(kept);
    let mut files = logs.into_iter().take(surplus).flat_map(|(_, files)| files);
    files.try_for_each(|name| folder.remove(&name))
}
