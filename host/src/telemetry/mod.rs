//! Log set-up: lines for people on standard error, and the same lines in `detector_worker_main.log`.
//!
//! Whatever is about one session is logged with a field `session`, so that every such line can be found by `session=` and
//! the name.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::filter::{EnvFilter, ParseError};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// The host's own log, in the folder of `[logs] directory`.
pub const MAIN_LOG: &str = "detector_worker_main.log";

/// Variables that set what is logged, the first one that is there counts: `debug`, or `info,ocelli::source=trace`.
pub const VARIABLES: [&str; 2] = ["OCELLI_LOG", "RUST_LOG"];

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// A variable of [`VARIABLES`].
    #[error("{variable}: not a log filter such as `debug` or `info,ocelli::source=trace`: {source}")]
    Filter {
        /// Its name.
        variable: &'static str,
        /// What is wrong with it.
        source: ParseError,
    },
    /// The file or its folder.
    #[error("cannot write the log {}: {source}; `[logs] directory` in the config says where logs go", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// There is a log already.
    #[error(transparent)]
    Twice(#[from] TryInitError),
}

/// Sets the process's log up, in a folder that is made when it is not there. To be called once.
pub fn init(directory: &Path) -> Result<(), TelemetryError> {
    let filter = filter(|name| std::env::var(name).ok())?;
    let file = open(directory)?;
    let colours = std::io::stderr().is_terminal();
    let console = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    tracing_subscriber::registry().with(filter).with(console).with(to_file(file)).try_init()?;
    Ok(())
}

/// What is logged where no variable says otherwise. retina tells every oddity of a camera at info.
const DEFAULT_FILTER: &str = "info,retina=warn";

/// [`DEFAULT_FILTER`] where no variable says otherwise.
fn filter(variable: impl Fn(&str) -> Option<String>) -> Result<EnvFilter, TelemetryError> {
    let set = VARIABLES.into_iter().find_map(|name| Some((name, variable(name)?)));
    match set {
        Some((name, text)) if !text.trim().is_empty() => {
            EnvFilter::try_new(text).map_err(|source| TelemetryError::Filter { variable: name, source })
        }
        _ => Ok(EnvFilter::new(DEFAULT_FILTER)),
    }
}

fn open(directory: &Path) -> Result<File, TelemetryError> {
    let path = directory.join(MAIN_LOG);
    // Appending, so that each line goes behind all others whoever writes them.
    std::fs::create_dir_all(directory)
        .and_then(|()| OpenOptions::new().create(true).append(true).open(&path))
        .map_err(|source| TelemetryError::File { path, source })
}

/// A line is one write to the file.
fn to_file<S>(file: File) -> impl Layer<S>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_subscriber::fmt::layer().with_writer(Arc::new(file)).with_ansi(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_session_carry_its_name_and_are_appended() {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("made/on/the/way");
        for round in 0..2 {
            let subscriber = tracing_subscriber::registry().with(to_file(open(&directory).unwrap()));
            tracing::subscriber::with_default(subscriber, || {
                tracing::warn!(session = "display-001;cam-001", round, "the source is down");
            });
        }
        let text = std::fs::read_to_string(directory.join(MAIN_LOG)).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        for (round, line) in lines.iter().enumerate() {
            assert!(line.contains(r#"session="display-001;cam-001""#), "{line}");
            assert!(line.contains("WARN") && line.contains(&format!("round={round}")), "{line}");
        }
    }

    #[test]
    fn a_log_that_cannot_be_written_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"").unwrap();
        let error = open(&folder.path().join("file")).unwrap_err().to_string();
        assert!(error.contains(MAIN_LOG) && error.contains("directory"), "{error}");
    }

    #[test]
    fn the_first_variable_counts_and_a_wrong_one_is_refused() {
        let set = |name: &'static str, value: &'static str| {
            move |asked: &str| (asked == name).then(|| value.into())
        };
        let default = EnvFilter::new(DEFAULT_FILTER).to_string();
        assert_eq!(filter(|_| None).unwrap().to_string(), default);
        assert_eq!(filter(set("OCELLI_LOG", "debug")).unwrap().to_string(), "debug");
        assert_eq!(filter(set("RUST_LOG", "warn")).unwrap().to_string(), "warn");
        assert_eq!(filter(set("OCELLI_LOG", "")).unwrap().to_string(), default);
        let error = filter(set("OCELLI_LOG", "ocelli=loud")).unwrap_err().to_string();
        assert!(error.contains("OCELLI_LOG"), "{error}");
    }
}
