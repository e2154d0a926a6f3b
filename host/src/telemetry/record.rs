//! One log entry: what an event says, and how it is written. Text of pipelines and cameras can
//! neither begin an entry of its own nor move a terminal's cursor.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level};
use tracing_log::NormalizeEvent;

use super::queue::LogEntry;
use crate::config::LogFormat;

/// Targets of what a session's pipeline and worker say themselves.
pub const GUEST_TARGETS: [&str; 2] = ["ocelli::pipeline", "ocelli::worker"];

/// Bytes of a message. A worker cuts what a pipeline says at 8 KiB; a backtrace with the pipeline's
/// last words is longer.
const MAX_MESSAGE: usize = 32 << 10;

/// Bytes of any other value. An event has at most 32 of them.
const MAX_VALUE: usize = 4 << 10;

/// Stands before each further line of an entry: a line that begins with a time begins an entry.
const INDENT: &str = "    ";

/// The target of lines about the log itself.
const TARGET: &str = "ocelli::telemetry";

/// What an event says.
#[derive(Serialize)]
pub(super) struct LogRecord {
    #[serde(serialize_with = "time")]
    time: Timestamp,
    #[serde(serialize_with = "level")]
    level: Level,
    target: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<u64>,
    message: String,
    #[serde(skip_serializing_if = "Map::is_empty")]
    fields: Map<String, Value>,
    /// Names of those fields, in their order, and whether a text is quoted.
    #[serde(skip)]
    order: Vec<(&'static str, bool)>,
}

impl LogRecord {
    fn new(time: Timestamp, level: Level, target: Cow<'static, str>) -> Self {
        Self {
            time,
            level,
            target,
            session: None,
            deployment: None,
            frame: None,
            message: String::new(),
            fields: Map::new(),
            order: Vec::new(),
        }
    }

    /// A warning about the log itself.
    pub(super) fn note(time: Timestamp, session: Option<&str>, message: String) -> Self {
        let session = session.map(str::to_owned);
        Self { session, message, ..Self::new(time, Level::WARN, TARGET.into()) }
    }

    /// What `event` says. Records of the crate `log` come with their own target.
    pub(super) fn of(event: &Event<'_>, time: Timestamp) -> Self {
        let normalized = event.normalized_metadata();
        let metadata = normalized.as_ref().unwrap_or_else(|| event.metadata());
        let mut record = Self::new(time, *metadata.level(), metadata.target().to_owned().into());
        event.record(&mut record);
        record
    }

    /// What waits to be written: this line, with the line feed at its end.
    pub(super) fn entry(&self, line: Arc<str>) -> LogEntry {
        let session = self.session.as_deref().map(Arc::from);
        let guest = GUEST_TARGETS.contains(&self.target.as_ref());
        LogEntry { time: self.time, level: self.level, session, guest, line }
    }

    /// The entry as it stands in a file, with the line feed at its end.
    pub(super) fn line(&self, format: LogFormat) -> String {
        match format {
            LogFormat::Text => self.text(),
            LogFormat::Json => self.json(),
        }
    }

    /// For people. The message comes behind what the host knows: what stands before it is true
    /// whatever the message says.
    pub(super) fn text(&self) -> String {
        let mut text = String::with_capacity(self.message.len() + 128);
        // Writing to a string cannot fail.
        let _ = write!(text, "{:.6} {:>5} {}", self.time, self.level, self.target);
        for (name, value) in [("session", &self.session), ("deployment", &self.deployment)] {
            if let Some(value) = value {
                let _ = write!(text, " {name}=");
                quote(&mut text, value);
            }
        }
        if let Some(frame) = self.frame {
            let _ = write!(text, " frame={frame}");
        }
        text.push_str(": ");
        let mut lines = self.message.trim_start_matches(['\r', '\n']).trim_end().lines();
        push_escaped(&mut text, lines.next().unwrap_or_default());
        for (name, quoted) in &self.order {
            let _ = write!(text, " {name}=");
            match self.fields.get(*name) {
                Some(Value::String(value)) if *quoted => quote(&mut text, value),
                Some(Value::String(value)) => push_escaped(&mut text, value),
                Some(value) => text.push_str(&value.to_string()),
                None => {}
            }
        }
        for line in lines {
            text.push('\n');
            text.push_str(INDENT);
            push_escaped(&mut text, line);
        }
        text.push('\n');
        text
    }

    /// For programs: one object, on one line.
    fn json(&self) -> String {
        let json = serde_json::to_string(self).unwrap_or_else(|error| {
            // Nothing in a record can fail to be written. Should it ever, the message is not lost.
            let message = format!("{} ({error})", self.message);
            serde_json::json!({ "message": message }).to_string()
        });
        // What JSON leaves as it is may still move a cursor. Such a character can only stand in a
        // text.
        let mut line = String::with_capacity(json.len() + 1);
        for character in json.chars() {
            if shown(character) {
                line.push(character);
            } else {
                let _ = write!(line, "\\u{:04x}", u32::from(character));
            }
        }
        line.push('\n');
        line
    }

    fn field(&mut self, field: &Field, value: Value, quoted: bool) {
        // Where a record of the crate `log` comes from is in its target already.
        if !field.name().starts_with("log.") {
            self.order.push((field.name(), quoted));
            self.fields.insert(field.name().to_owned(), value);
        }
    }

    fn put(&mut self, field: &Field, value: fmt::Arguments<'_>, quoted: bool) {
        match field.name() {
            "message" => self.message = bounded(value, MAX_MESSAGE),
            "session" => self.session = Some(bounded(value, MAX_VALUE)),
            "deployment" => self.deployment = Some(bounded(value, MAX_VALUE)),
            _ => self.field(field, bounded(value, MAX_VALUE).into(), quoted),
        }
    }
}

impl Visit for LogRecord {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format_args!("{value:?}"), false);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, format_args!("{value}"), true);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "frame" => self.frame = Some(value),
            _ => self.field(field, value.into(), false),
        }
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.field(field, value.into(), false);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.field(field, value.into(), false);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.field(field, value.into(), false);
    }
}

fn time<S: serde::Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{time:.6}"))
}

fn level<S: serde::Serializer>(level: &Level, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(level)
}

/// Whether a character is written as it is: all but those that end a line, move a cursor, are
/// invisible, or turn the direction of the line around.
fn shown(character: char) -> bool {
    character == '\t'
        || !character.is_control()
            && !matches!(character,
                '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// Appends a text that stays on its line.
fn push_escaped(to: &mut String, text: &str) {
    for character in text.chars() {
        match character {
            _ if shown(character) => to.push(character),
            '\n' => to.push_str("\\n"),
            '\r' => to.push_str("\\r"),
            _ => {
                let _ = write!(to, "\\u{{{:x}}}", u32::from(character));
            }
        }
    }
}

/// Appends a text in quotation marks, of which it has none but with a backslash.
fn quote(to: &mut String, text: &str) {
    to.push('"');
    push_escaped(to, &text.replace('\\', "\\\\").replace('"', "\\\""));
    to.push('"');
}

/// A text of at most `room` bytes, and a word on how much was cut off.
fn bounded(text: fmt::Arguments<'_>, room: usize) -> String {
    let mut kept = TruncatingWriter { text: String::new(), room, cut: 0 };
    let _ = kept.write_fmt(text);
    if kept.cut > 0 {
        let _ = write!(kept.text, " [cut: {} bytes]", kept.cut);
    }
    kept.text
}

struct TruncatingWriter {
    text: String,
    room: usize,
    cut: usize,
}

impl fmt::Write for TruncatingWriter {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let (kept, cut) =
            text.split_at_checked(text.floor_char_boundary(self.room)).unwrap_or((text, ""));
        self.text.push_str(kept);
        self.cut += cut.len();
        self.room = if cut.is_empty() { self.room - kept.len() } else { 0 };
        Ok(())
    }
}
