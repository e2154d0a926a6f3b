//! The log of a command: lines on standard error, in no file.

use std::io::Write;

use jiff::Timestamp;
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use super::record::LogRecord;
use super::{TelemetryError, filter_or};
use crate::config::LogFormat;

/// Writes the log to standard error. Of what is logged the variables say, else `default`. To be
/// called once, by a command that waits for its own lines.
pub(crate) fn init_console(default: &str) -> Result<(), TelemetryError> {
    let filter = filter_or(|name| std::env::var(name).ok(), default)?;
    Ok(tracing_subscriber::registry().with(filter).with(Console).try_init()?)
}

struct Console;

impl<S: Subscriber> Layer<S> for Console {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let line = LogRecord::of(event, Timestamp::now()).line(LogFormat::Text);
        // Standard error may be a file on a full disk.
        let _ = writeln!(std::io::stderr(), "{}", line.trim_end());
    }
}
