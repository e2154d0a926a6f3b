//! The cameras of another program's config, as entries of this one's: go2rtc's and Frigate's.
//!
//! Each camera or stream that the file names comes out exactly once: as an entry, or as left out
//! with the reason. What an entry does not carry over is said in its notes. No text of the file
//! that may hold a password is repeated in a reason or a note.

mod frigate;
mod go2rtc;
mod stream;
#[cfg(test)]
mod tests;
mod variables;

use serde_json::{Map, Value};

pub(crate) use variables::Variables;

use self::stream::Unusable;
use crate::config::edit::ConfigChange;

/// Largest file that is read. A list of a thousand cameras has a few hundred kilobytes.
pub(crate) const MAX_BYTES: u64 = 4 << 20;

/// The pipeline of entries where nothing else is asked for.
pub(crate) const DEFAULT_PIPELINE: &str = "object-detect";

/// Whose config it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// <https://github.com/AlexxIT/go2rtc>: `streams`.
    Go2rtc,
    /// <https://frigate.video>: `cameras`, and `go2rtc` within.
    Frigate,
}

/// Why nothing of a file could be taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// It is not YAML, of which JSON is a part. The parser's own text repeats lines of the file.
    #[error("the file is not YAML{}", place(*.at))]
    NotYaml {
        /// Line and column, from 1, where the parser names a place.
        at: Option<(u64, u64)>,
    },
    /// There is neither a `streams` nor a `cameras`.
    #[error(
        "the file names no cameras: neither `streams` as go2rtc's config does, nor `cameras` as \
         Frigate's does"
    )]
    Unrecognised,
    /// The section of the cameras is not a mapping of names to cameras, or is empty.
    #[error("`{section}` names no cameras")]
    Empty {
        /// Its key.
        section: &'static str,
    },
}

/// What an import gives.
#[derive(Debug, Default)]
pub(crate) struct Import {
    /// The entries, in the order of the file's names.
    pub(crate) cameras: Vec<ImportedCamera>,
    /// What did not become an entry.
    pub(crate) left_out: Vec<LeftOut>,
    /// About the file as a whole.
    pub(crate) notes: Vec<String>,
}

/// A camera that became an entry of `[[cameras]]`.
#[derive(Debug)]
pub(crate) struct ImportedCamera {
    /// Its name in the file, and as a session.
    pub(crate) id: String,
    /// Its other keys.
    pub(crate) table: Map<String, Value>,
    /// What the entry does not carry over, or what to look at.
    pub(crate) notes: Vec<String>,
}

/// A camera or stream that did not become an entry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    /// Its name in the file.
    pub(crate) name: String,
    /// Why.
    pub(crate) reason: String,
}

impl LeftOut {
    fn new(name: &str, reason: &Unusable) -> Self {
        Self { name: name.to_owned(), reason: reason.to_string() }
    }
}

/// Reads the text of a config file. `format`: `None` recognises it by its sections.
///
/// # Errors
/// Where nothing can be taken from the file at all.
pub(crate) fn read(
    text: &str,
    format: Option<Format>,
    pipeline: &str,
    variables: &Variables,
) -> Result<Import, ImportError> {
    let document: Value = serde_saphyr::from_str(text).map_err(|error| ImportError::NotYaml {
        at: error.location().map(|place| (place.line(), place.column())),
    })?;
    let recognised = || match (document.get("cameras"), document.get("streams")) {
        (Some(_), _) => Some(Format::Frigate),
        (None, Some(_)) => Some(Format::Go2rtc),
        // Frigate's file with streams and without cameras yet.
        (None, None) => document.get("go2rtc").map(|_| Format::Go2rtc),
    };
    let mut import = match format.or_else(recognised).ok_or(ImportError::Unrecognised)? {
        Format::Go2rtc => go2rtc::read(&document, pipeline, variables)?,
        Format::Frigate => frigate::read(&document, pipeline, variables)?,
    };
    import.refuse_names();
    Ok(import)
}

impl Import {
    /// Leaves out the cameras whose names no session may have.
    fn refuse_names(&mut self) {
        let (good, bad) = std::mem::take(&mut self.cameras)
            .into_iter()
            .partition(|camera| crate::config::check_session_id(&camera.id).is_ok());
        self.cameras = good;
        self.left_out.extend(Vec::<ImportedCamera>::into_iter(bad).map(|camera| LeftOut {
            reason: "no session may have this name: printable text of at most 200 bytes".to_owned(),
            name: camera.id,
        }));
    }

    /// The entries as TOML, to be put at the end of a config; notes and what was left out stand as
    /// comments beside them.
    pub(crate) fn toml(&self) -> String {
        let mut text = String::new();
        let mut paragraph = |lines: &str| {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(lines);
        };
        let comment = |line: &str| format!("# {}\n", printable(line));
        let notes: String = self.notes.iter().map(|note| comment(note)).collect();
        if !notes.is_empty() {
            paragraph(&notes);
        }
        for camera in &self.cameras {
            let change =
                ConfigChange::PutCamera { id: camera.id.clone(), table: camera.table.clone() };
            let notes: String = camera.notes.iter().map(|note| comment(note)).collect();
            paragraph(&(notes + &change.toml().unwrap_or_default()));
        }
        let left: String = self
            .left_out
            .iter()
            .map(|left| comment(&format!("left out: {}: {}", left.name, left.reason)))
            .collect();
        if !left.is_empty() {
            paragraph(&left);
        }
        text
    }
}

/// A line of text for a terminal or a comment: a name in a file may hold anything.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

fn place(at: Option<(u64, u64)>) -> String {
    at.map(|(line, column)| format!(": line {line}, column {column}")).unwrap_or_default()
}
