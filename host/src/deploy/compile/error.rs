//! Why a component was not prepared.

use std::path::{Path, PathBuf};

use ocelli_protocol::component::{CheckReport, ProblemKind};

use crate::session::rollout::Step;

/// Problems that an error's text names; the report has all.
const NAMED: usize = 5;

/// Why a component was not prepared.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The component or the cache cannot be read or written.
    #[error("pipeline {pipeline}: {path}: {source}")]
    File {
        /// The pipeline's name or file.
        pipeline: String,
        /// The component, or the cache's folder.
        path: PathBuf,
        source: std::io::Error,
    },
    /// The compiler could not be started, or printed no report.
    #[error("pipeline {pipeline}: starting the compiler: {message}")]
    Start {
        /// The pipeline's name or file.
        pipeline: String,
        /// The error of the system or the compiler.
        message: String,
    },
    /// The component has problems.
    #[error("pipeline {pipeline}: {}", format_problems(report))]
    Refused {
        /// The pipeline's name or file.
        pipeline: String,
        /// The report with all problems.
        report: Box<CheckReport>,
    },
    /// A signal ended the compiler.
    #[error("pipeline {pipeline}: the compiler was ended by \
        {signal}{}{said}", if said.is_empty() { "" } else { ": " })]
    Ended {
        /// The pipeline's name or file.
        pipeline: String,
        /// The signal's name and its usual reason: "SIGKILL (killed, or out of memory)".
        signal: String,
        /// The compiler's standard error, on one line.
        said: String,
    },
    /// The compiler took too long and was ended.
    #[error(
        "pipeline {pipeline}: checking and compiling took longer than {seconds} s \
            (`deploy.compile_timeout_s`)"
    )]
    Timeout {
        /// The pipeline's name or file.
        pipeline: String,
        /// The limit in seconds.
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

    /// The report, if the component itself is at fault.
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
fn format_problems(report: &CheckReport) -> String {
    let named = report.problems.iter().take(NAMED).map(|problem| problem.message.as_str());
    let named = named.collect::<Vec<_>>().join("; ");
    match report.problems.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}; and {more} more"),
    }
}
