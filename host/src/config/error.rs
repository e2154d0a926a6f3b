//! Errors of a config, worded so that an operator can fix them without looking anything up.

use std::fmt;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueOrigin {
    /// This line of the file, counted from 1.
    Line(usize),
    /// Somewhere in the file: the JSON parser drops line numbers.
    File,
    /// The environment variable of this name.
    Environment(String),
}

/// One thing that is wrong, with the key that it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// Where it was written.
    pub origin: ValueOrigin,
    /// The key's full path, such as `cameras[0].source`. Empty for the file as a whole.
    pub key: String,
    /// The error and the remedy. Never holds a credential.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.origin {
            ValueOrigin::Line(line) => write!(formatter, "line {line}: ")?,
            ValueOrigin::File => {}
            ValueOrigin::Environment(name) => write!(formatter, "environment variable {name}: ")?,
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// Why there is no config. Each has the path as it was given.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error(
        "{}: no such config file. Name another with --config FILE, or make one. The smallest that \
            does something:\n\n\
         [[cameras]]\nid = \"cam-001\"\nsource = \"rtsp://user:password@host/stream\"\npipeline = \
         \"object-detect\"\n",
        path.display()
    )]
    Missing { path: PathBuf },
    /// The file is there and cannot be read.
    #[error("{}: cannot read the config file: {source}", path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// It is neither TOML nor JSON.
    #[error("{}: not valid {format}, {position}: {message}", path.display())]
    Syntax {
        path: PathBuf,
        /// The format of the file: `TOML` or `JSON`.
        format: &'static str,
        /// Line and column, counted from 1.
        position: String,
        /// The parser's words, without the line itself: it may hold a password.
        message: String,
    },
    /// It can be read and says something wrong.
    #[error("{}: {}", path.display(), listing(problems))]
    Invalid {
        path: PathBuf,
        /// All that is wrong, in the order of the file's sections; never empty.
        problems: Vec<ConfigProblem>,
    },
}

/// A problem as `ocelli check --json` and `GET /v1/config` show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ConfigProblem")]
pub struct ShownProblem {
    /// The config file.
    pub file: String,
    /// The line, counted from 1. Null where it is not known: JSON, or a variable.
    pub line: Option<usize>,
    /// The environment variable that sets the value; null where the file does.
    pub variable: Option<String>,
    /// The key's full path, such as `cameras[0].source`. Empty for the file as a whole.
    pub key: String,
    /// The camera that it concerns; null: the host.
    pub camera: Option<String>,
    /// The error and the remedy.
    pub message: String,
}

impl fmt::Display for ShownProblem {
    /// Without the file, which stands once above all.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.line, &self.variable) {
            (Some(line), _) => write!(formatter, "line {line}: ")?,
            (None, Some(variable)) => write!(formatter, "environment variable {variable}: ")?,
            (None, None) => {}
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        if let Some(camera) = &self.camera {
            write!(formatter, "camera {camera:?}: ")?;
        }
        formatter.write_str(&self.message)
    }
}

impl ConfigError {
    /// Its problems, one by one.
    pub fn problems(&self) -> Vec<ShownProblem> {
        match self {
            Self::Invalid { path, problems } => {
                problems.iter().map(|problem| problem.shown(path, None)).collect()
            }
            Self::Missing { path } => {
                vec![ConfigProblem::whole("no such file".into()).shown(path, None)]
            }
            Self::Unreadable { path, source } => {
                vec![ConfigProblem::whole(source.to_string()).shown(path, None)]
            }
            Self::Syntax { path, .. } => {
                vec![ConfigProblem::whole(self.to_string()).shown(path, None)]
            }
        }
    }
}

/// Problems on a line each, below their number; one alone stands for itself.
pub(crate) fn listing<P: fmt::Display>(problems: &[P]) -> String {
    match problems {
        [only] => only.to_string(),
        several => {
            let lines: Vec<String> =
                several.iter().map(|problem| format!("\n  {problem}")).collect();
            format!("{} problems:{}", several.len(), lines.concat())
        }
    }
}

impl ConfigProblem {
    /// As programs get it. `camera`: the camera that it concerns.
    pub fn shown(&self, file: &Path, camera: Option<&str>) -> ShownProblem {
        let (line, variable) = match &self.origin {
            ValueOrigin::Line(line) => (Some(*line), None),
            ValueOrigin::File => (None, None),
            ValueOrigin::Environment(name) => (None, Some(name.clone())),
        };
        ShownProblem {
            file: file.display().to_string(),
            line,
            variable,
            key: self.key.clone(),
            camera: camera.map(str::to_owned),
            message: self.message.clone(),
        }
    }

    /// About what was written there; `key` may be empty.
    pub(super) fn at(
        origin: &ValueOrigin,
        key: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self { origin: origin.clone(), key: key.into(), message: message.into() }
    }

    /// About the config as a whole.
    pub(super) fn whole(message: String) -> Self {
        Self::at(&ValueOrigin::File, "", message)
    }
}
