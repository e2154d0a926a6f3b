//! The log: lines on standard error, the same in `detector_worker_main.log`, and a file
//! for each session.
//!
//! ```text
//! tracing --> Logs (layer): one entry of text or JSON --> queue --> thread --> files: which, rotation, what is missing
//!                                                    `--> queue --> thread --> standard error
//! ```
//!
//! Where a line goes is said by its fields and its target. One with the field `session` goes to
//! that session's file. It goes to the main file too, unless its target is one of
//! [`GUEST_TARGETS`]: of what pipelines and workers say, the main file has the warnings and errors
//! alone, and of one session not more than some in a minute. `deployment` and `frame` stand beside
//! the session where an event has them. Spans are not shown: an event says itself what it is about.
//!
//! Logging never waits and never fails. What finds no room in a queue, or no room on the disk, is
//! counted ([`lost_lines`]), and when lines are written again, one of them tells how many are
//! missing.

mod child;
mod console;
mod files;
mod name;
pub mod otlp;
mod queue;
mod record;
mod rotate;
mod tail;
#[cfg(test)]
mod tests;
mod writer;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub(crate) use child::child_lines;
pub(crate) use console::init_console;
pub use name::{MAIN_LOG, session_log};
pub use record::GUEST_TARGETS;
pub use tail::{
    LogPart, LogPosition, MAX_TAIL_LINES, NoLogPosition, session_log_after, session_tail,
};
pub use writer::LogGuard;

use crate::config::{LogFormat, LogRotation, LogsConfig};
use files::LogFiles;
use queue::LogQueue;
use record::LogRecord;
use rotate::Rotation;
use writer::to_stderr;

/// Variables that set what is logged, the first one that is there counts: `debug`, or
/// `info,ocelli::source=trace`.
pub const VARIABLES: [&str; 2] = ["OCELLI_LOG", "RUST_LOG"];

/// Bytes that may wait for the files: the lines of a second or two at the speed of a slow disk.
const FILES_ROOM: usize = 8 << 20;

/// Bytes that may wait for standard error.
const CONSOLE_ROOM: usize = 1 << 20;

/// Lines that no file has.
static LOST: OnceLock<Arc<AtomicU64>> = OnceLock::new();

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A variable of [`VARIABLES`].
    #[error(
        "{variable}: not a log filter such as `debug` or `info,ocelli::source=trace`: {source}"
    )]
    Filter {
        variable: &'static str,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The main file or its folder.
    #[error("cannot write the log {}: {source}; `[logs] directory` in the config says where logs \
        go", path.display())]
    File {
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A thread that writes.
    #[error("cannot start a thread that writes the log")]
    Thread(#[source] std::io::Error),
    /// There is a log already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Sets the process's log up, in a folder that is made when it is not there. To be called once. The
/// log ends when the guard is dropped; what is logged after that is lost.
pub fn init(logs: &LogsConfig, rotation: &LogRotation) -> Result<LogGuard, TelemetryError> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let rotation = Rotation {
        max_bytes: rotation.max_size_mb.saturating_mul(1 << 20),
        backups: rotation.backup_count,
    };
    let lost = Arc::<AtomicU64>::default();
    let files =
        LogFiles::open(&logs.directory, logs.format, rotation, Arc::clone(&lost), Timestamp::now())
            .map_err(|(path, source)| TelemetryError::File { path, source })?;
    // A line that the console does not show is not lost.
    let console = Arc::new(LogQueue::new(CONSOLE_ROOM, Arc::default()));
    let files = files.with_console(Arc::clone(&console));
    let layer = LogLayer {
        format: logs.format,
        files: Arc::new(LogQueue::new(FILES_ROOM, Arc::clone(&lost))),
        console: Some(Arc::clone(&console)),
    };
    let shared = files.is_shared();
    let format = logs.format;
    let mut guard = LogGuard::default();
    guard
        .add("log files", Arc::clone(&layer.files), |queue| files.write_all(queue))
        .and_then(|()| guard.add("log console", console, move |queue| to_stderr(queue, format)))
        .map_err(TelemetryError::Thread)?;
    tracing_subscriber::registry().with(filter).with(layer).try_init()?;
    // There is one log, so it is set once.
    let _ = LOST.set(lost);
    if shared {
        // Who reads logs is for an operator to say; the files are the host's user's alone.
        tracing::warn!("{} is open to other users: they see its names", logs.directory.display());
    }
    Ok(guard)
}

/// Lines that were to be in a log file and are not, since the start: for want of room in the queue
/// or on the disk.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| lost.load(Ordering::Relaxed))
}

/// What is logged where no variable says otherwise. What NATS is like, the host says in its own words.
const DEFAULT_FILTER: &str = "async_nats=error,info";

/// The levels by target, of the first variable that is set, else of [`DEFAULT_FILTER`].
fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<Targets, TelemetryError> {
    filter_or(variable, DEFAULT_FILTER)
}

/// The same, else of `default`.
fn filter_or(
    variable: impl Fn(&str) -> Option<String>,
    default: &str,
) -> Result<Targets, TelemetryError> {
    let set = VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?)));
    let (variable, text) = set
        .filter(|(_, text)| !text.trim().is_empty())
        .unwrap_or(("the default", default.to_owned()));
    text.parse().map_err(|source| TelemetryError::Filter { variable, source })
}

/// Makes an entry of each event and leaves it to the threads that write.
struct LogLayer {
    format: LogFormat,
    files: Arc<LogQueue>,
    console: Option<Arc<LogQueue>>,
}

impl<S: Subscriber> Layer<S> for LogLayer {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let record = LogRecord::of(event, Timestamp::now());
        let line: Arc<str> = record.line(self.format).into();
        if let Some(console) = &self.console {
            console.push(record.entry(Arc::clone(&line)));
        }
        self.files.push(record.entry(line));
    }
}
