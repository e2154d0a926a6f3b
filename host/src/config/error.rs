//! Errors of a config, worded so that an operator can fix them without looking anything up.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

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
    /// A line of the config's file of cameras.
    Cameras(CamerasLine),
}

/// A line of the file of cameras (`[server] cameras_file`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CamerasLine {
    /// The file.
    pub file: Arc<Path>,
    /// Counted from 1.
    pub line: usize,
    /// Cameras that stand in the config itself: in its tree those of this file come behind them.
    pub before: usize,
}

impl CamerasLine {
    /// A key of the tree as it counts in the file: its first camera is `cameras[0]`.
    fn key(&self, key: String) -> String {
        let index = key.strip_prefix("cameras[").and_then(|rest| rest.split_once(']'));
        let counted = index.and_then(|(index, rest)| {
            let index = index.parse::<usize>().ok()?.checked_sub(self.before)?;
            Some(format!("cameras[{index}]{rest}"))
        });
        counted.unwrap_or(key)
    }
}

impl ValueOrigin {
    /// A key of the tree as it counts in the file where it was written.
    pub(super) fn key(&self, key: String) -> String {
        match self {
            Self::Cameras(place) => place.key(key),
            _ => key,
        }
    }
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
            ValueOrigin::Cameras(CamerasLine { file, line, .. }) => {
                write!(formatter, "{}: line {line}: ", file.display())?;
            }
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
    /// The file with the value: the config, or its file of cameras.
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

impl ShownProblem {
    /// Its words in a list about the config `config`: with the file, if it is another one.
    pub(crate) fn beside(&self, config: &Path) -> String {
        match config.to_str() {
            Some(config) if config == self.file => self.to_string(),
            _ => format!("{}: {self}", self.file),
        }
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
        let (file, line, variable) = match &self.origin {
            ValueOrigin::Line(line) => (file, Some(*line), None),
            ValueOrigin::File => (file, None, None),
            ValueOrigin::Environment(name) => (file, None, Some(name.clone())),
            ValueOrigin::Cameras(place) => (&*place.file, Some(place.line), None),
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
        let key = origin.key(key.into());
        Self { origin: origin.clone(), key, message: message.into() }
    }

    /// About the config as a whole.
    pub(super) fn whole(message: String) -> Self {
        Self::at(&ValueOrigin::File, "", message)
    }
}
