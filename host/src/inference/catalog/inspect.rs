//! Inspects model files in a confined process: the host does not load ONNX Runtime.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use ocelli_protocol::graph::{Inspection, difference};
use ocelli_protocol::inference::Model;

use super::super::library::{self, Library};
use super::census::GraphCensus;
use super::graph_file::{self, GraphFault};
use crate::util::folder::open_regular;

/// Maximum length of the output in bytes: 128 tensors with long names, and metadata.
const MAX_OUTPUT: u64 = 1 << 20;

/// Bytes of the process's error that are shown.
const SHOWN: usize = 2000;

/// Why a file was not inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The program cannot be started.
    #[error("starting {program}: {source}")]
    Start { program: PathBuf, source: std::io::Error },
    /// It is not a file that can be read.
    #[error("{path}: {source}")]
    File { path: PathBuf, source: std::io::Error },
    /// It is none that ONNX Runtime reads.
    #[error("{path}: {fault}")]
    Graph { path: PathBuf, fault: GraphFault },
    /// It is no model, or one that takes more memory or time than it may.
    #[error("{0}")]
    Refused(String),
}

/// Inspects model files by `ocelli-inference --inspect`.
#[derive(Debug)]
pub struct ModelInspector {
    program: PathBuf,
    library: Library,
}

impl ModelInspector {
    /// The program beside this one, and ONNX Runtime where the config or the cache has it.
    pub fn find(library: Option<&Path>) -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("asking for this program's path")?;
        let program = own.with_file_name("ocelli-inference");
        anyhow::ensure!(
            program.is_file(),
            "{} is missing: `./x build` makes it",
            program.display()
        );
        Ok(Self { program, library: library::find(library)? })
    }

    /// The operators of a model file that was inspected. Empty for one with more of them than are
    /// looked at.
    pub fn census(&self, file: &Path) -> Result<GraphCensus, InspectError> {
        let census = open_regular(file).and_then(GraphCensus::of);
        let unreadable = |source| InspectError::File { path: file.to_owned(), source };
        Ok(census.map_err(unreadable)?.unwrap_or_default())
    }

    /// The tensors of a model file. Blocks until the process has ended.
    pub fn inspect(&self, file: &Path) -> Result<Inspection, InspectError> {
        let unreadable = |source| InspectError::File { path: file.to_owned(), source };
        let pinned = self.library.sha256.is_some();
        let fault = open_regular(file).and_then(|file| graph_file::fault(file, pinned));
        if let Some(fault) = fault.map_err(unreadable)? {
            return Err(InspectError::Graph { path: file.to_owned(), fault });
        }
        let start = |source| InspectError::Start { program: self.program.clone(), source };
        let mut complaint = tempfile::tempfile().map_err(start)?;
        let mut command = Command::new(&self.program);
        command
            .arg("--inspect")
            .arg(file)
            .args(["--library", &self.library.path])
            .args(&self.library.sha256);
        let mut child = command
            .env_clear()
            .env("ORT_DISABLE_TELEMETRY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(complaint.try_clone().map_err(start)?)
            .spawn()
            .map_err(start)?;
        let mut printed = Vec::new();
        if let Some(pipe) = child.stdout.take() {
            pipe.take(MAX_OUTPUT).read_to_end(&mut printed).map_err(start)?;
        }
        let status = child.wait().map_err(start)?;
        if status.success()
            && let Ok(inspection) = serde_json::from_slice(&printed)
        {
            return Ok(inspection);
        }
        let mut words = Vec::new();
        complaint
            .rewind()
            .and_then(|()| complaint.take(MAX_OUTPUT).read_to_end(&mut words))
            .map_err(start)?;
        let words = String::from_utf8_lossy(&words);
        let words = words.trim();
        let words = words.get(..words.floor_char_boundary(SHOWN)).unwrap_or_default();
        Err(InspectError::Refused(match status.code() {
            Some(_) if !words.is_empty() => words.to_owned(),
            _ => format!(
                "{}: looking into it ended with {status}: it is damaged, or takes more memory or \
                 time than a model of its size should {words}",
                file.display()
            ),
        }))
    }
}

/// The difference between a model's description and its file, if any.
pub fn mismatch(model: &Model, found: &Inspection) -> Option<String> {
    difference("input", model.inputs.iter(), &found.inputs)
        .or_else(|| difference("output", model.outputs.iter(), &found.outputs))
}
