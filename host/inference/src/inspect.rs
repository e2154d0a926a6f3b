//! `ocelli-inference --inspect`: describes a model file for the host's command line.
//!
//! ONNX Runtime parses an untrusted file. So the process does nothing else: with the library loaded
//! and the file open it confines itself, with little memory and time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use ocelli_protocol::digest::Digest;
use ocelli_protocol::graph::Inspection;
use ocelli_sandbox::{Profile, confine, limit};
use ort::session::ModelMetadata;

use crate::error::EngineError;
use crate::runtime::Runtime;
use crate::tensor::graph_tensor;

/// Largest file in bytes: the limit of a protobuf message, in which models are written.
const MAX_FILE: u64 = 2 << 30;

/// Private memory in bytes: the share of ONNX Runtime itself, ...
const OWN_MEMORY: u64 = 1 << 30;

/// ... and how many copies of the file there are: its bytes, the message made of them, the weights.
const COPIES: u64 = 4;

/// CPU time in seconds. The largest file takes a few.
const CPU_SECONDS: u64 = 60;

/// Keys of metadata that tell how to run a model, as Ultralytics' exporter writes them.
const METADATA: [&str; 5] = ["description", "imgsz", "names", "stride", "task"];

/// Bytes of those values together, as JSON: the host reads a line of 1 MiB, in which the tensors
/// stand too. The names of ImageNet's 1000 classes take 30 KB.
const MAX_VALUES: usize = 512 << 10;

/// Why a file was not inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// ONNX Runtime cannot be loaded.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    File(#[from] std::io::Error),
    /// It is larger than a model can be.
    #[error("it has {0} bytes; a model has at most {MAX_FILE}")]
    TooLarge(u64),
    /// It is no graph.
    #[error("it is no model that ONNX Runtime can read: {0}")]
    Graph(#[from] ort::Error),
}

/// Loads the library, confines this process, and reads the model. `ORT_DISABLE_TELEMETRY=1` must be
/// in the environment, and the process must have one thread. `sha256` is the library's, where it
/// has to be a certain one.
pub fn inspect(
    file: &Path,
    library: &Path,
    library_sha256: Option<&str>,
) -> Result<Inspection, InspectError> {
    let mut model = File::open(file)?;
    let bytes = model.metadata()?.len();
    if bytes > MAX_FILE {
        return Err(InspectError::TooLarge(bytes));
    }
    let runtime = Runtime::load(library, library_sha256)?;
    limit::memory(OWN_MEMORY + COPIES * bytes)?;
    limit::cpu_time(CPU_SECONDS)?;
    // Not even the file's folder: weights in files beside the model are not read.
    let confinement = confine(&Profile::inference(Vec::new()));
    if !confinement.is_complete() {
        tracing::debug!("not confined as it should be: {}", confinement.missing_text());
    }
    let mut content = Vec::new();
    model.by_ref().take(MAX_FILE).read_to_end(&mut content)?;
    let session = runtime.inspected(&content)?;
    let (producer, notes) = match session.metadata() {
        Ok(metadata) => (metadata.producer().unwrap_or_default(), notes(&metadata)),
        Err(_) => Default::default(),
    };
    Ok(Inspection {
        sha256: Digest::of(&content).to_string(),
        bytes: content.len() as u64,
        producer,
        metadata: notes,
        inputs: session.inputs().iter().map(graph_tensor).collect(),
        outputs: session.outputs().iter().map(graph_tensor).collect(),
    })
}

/// The metadata that is looked for. A value for which no room is left is left out.
fn notes(metadata: &ModelMetadata<'_>) -> BTreeMap<String, String> {
    let (mut found, mut room) = (BTreeMap::new(), MAX_VALUES);
    for key in METADATA {
        let Some(value) = metadata.custom(key) else { continue };
        let bytes = serde_json::to_string(&value).map_or(usize::MAX, |text| text.len());
        if let Some(left) = room.checked_sub(bytes) {
            room = left;
            found.insert(key.to_owned(), value);
        }
    }
    found
}
