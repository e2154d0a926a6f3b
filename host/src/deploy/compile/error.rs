//! Why a component was not prepared.

use std::path::{Path, PathBuf};

use ocelli_protocol::component::{CheckReport, ProblemKind};

use crate::session::rollout::Step;

/// Problems that an error's line names; the report has all.
const NAMED: usize = 5;

/// Why a component was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component or the cache cannot be read or written.
    #[error("pipeline {pipeline}: {path}: {source}")]
    File {
        /// The pipeline.
        pipeline: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The compiler could not be started or passed its files, or what it said is no report.
    #[error("pipeline {pipeline}: starting the compiler: {message}")]
    Start {
        /// The pipeline.
        pipeline: String,
        /// What the system or the compiler said.
        message: String,
    },
    /// Something is wrong with the component.
    #[error("pipeline {pipeline}: {}", told(report))]
    Refused {
        /// The pipeline.
        pipeline: String,
        /// All that is wrong.
        report: Box<CheckReport>,
    },
    /// The compiler was ended while it worked.
    #[error("pipeline {pipeline}: the compiler was ended by \
        {signal}{}{said}", if said.is_empty() { "" } else { ": " })]
    Ended {
        /// The pipeline.
        pipeline: String,
        /// The signal's name, and what it commonly means: "SIGKILL (killed, or out of memory)".
        signal: String,
        /// The compiler's last words.
        said: String,
    },
    /// The compiler took too long and was ended.
    #[error(
        "pipeline {pipeline}: checking and compiling took longer than {seconds} s \
            (`deploy.compile_timeout_s`)"
    )]
    Timeout {
        /// The pipeline.
        pipeline: String,
        /// What it may take.
        seconds: u64,
    },
}

impl CompileError {
    pub(super) fn file(pipeline: &str, path: &Path, source: std::io::Error) -> Self {
        Self::File { pipeline: pipeline.to_owned(), path: path.to_owned(), source }
    }

    pub(super) fn start(pipeline: &str, message: impl Into<String>) -> Self {
        Self::Start { pipeline: pipeline.to_owned(), message: message.into() }
    }

    /// What the check found, where the component itself is at fault.
    pub fn report(&self) -> Option<&CheckReport> {
        match self {
            Self::Refused { report, .. } => Some(report),
            _ => None,
        }
    }

    /// The step of a deployment that failed.
    pub fn step(&self) -> Step {
        match self {
            Self::File { .. } => Step::Check,
            Self::Refused { report, .. }
                if report
                    .problems
                    .iter()
                    .all(|problem| problem.kind != ProblemKind::NotCompiled) =>
            {
                Step::Check
            }
            Self::Start { .. }
            | Self::Refused { .. }
            | Self::Ended { .. }
            | Self::Timeout { .. } => Step::Compile,
        }
    }
}

/// The first problems on one line.
fn told(report: &CheckReport) -> String {
    let named = report.problems.iter().take(NAMED).map(|problem| problem.message.as_str());
    let named = named.collect::<Vec<_>>().join("; ");
    match report.problems.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}
