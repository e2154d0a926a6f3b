//! Models as `GET /v1/models` and `ocelli models list` show them.

use ocelli_protocol::inference::{LoadedModel, TensorDeclaration};
use serde::Serialize;

use super::{Embedding, Entry};

/// A model, and what it really runs on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ShownModel {
    name: String,
    /// The version's.
    sha256: String,
    description: String,
    licence: String,
    source: String,
    labels: Vec<String>,
    inputs: Vec<TensorDeclaration>,
    outputs: Vec<TensorDeclaration>,
    embedding: Option<Embedding>,
    /// What it is to run on, as the config writes it.
    device: String,
    /// "none" or "cpu".
    fallback: &'static str,
    preload: bool,
    batching: Option<ShownBatching>,
    /// "available", or "loaded" where an inference process has it ready.
    state: &'static str,
    #[serde(flatten)]
    run: ShownRun,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ShownBatching {
    max_batch: u32,
    batch_delay_ms: u32,
}

/// What a loaded model really runs on.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ShownRun {
    /// Which execution provider runs how many nodes of the graph. Empty where it is not loaded.
    runs_on: Vec<ShownNodes>,
    /// Why it does not run on `device`, in the provider's words.
    fell_back: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct ShownNodes {
    provider: String,
    nodes: u32,
}

impl From<&LoadedModel> for ShownRun {
    fn from(loaded: &LoadedModel) -> Self {
        let nodes = loaded.nodes.iter().cloned();
        Self {
            runs_on: nodes.map(|(provider, nodes)| ShownNodes { provider, nodes }).collect(),
            fell_back: loaded.fell_back.clone(),
        }
    }
}

impl ShownModel {
    /// A model of a catalogue, and what is known of those that are loaded.
    pub fn new(entry: &Entry, loaded: &[LoadedModel]) -> Self {
        let Entry { manifest, model, preload } = entry;
        let run = loaded.iter().find(|other| other.name == model.name && other.sha256 == model.sha256);
        Self {
            name: model.name.clone(),
            sha256: model.sha256.clone(),
            description: manifest.description.clone(),
            licence: manifest.licence.clone(),
            source: manifest.source.clone(),
            labels: manifest.labels.clone(),
            inputs: model.inputs.clone(),
            outputs: model.outputs.clone(),
            embedding: manifest.embedding.clone(),
            device: model.device.to_string(),
            fallback: if model.fallback { "cpu" } else { "none" },
            preload: *preload,
            batching: model
                .batching
                .map(|batching| ShownBatching { max_batch: batching.max, batch_delay_ms: batching.delay_ms }),
            state: if run.is_some() { "loaded" } else { "available" },
            run: run.map(ShownRun::from).unwrap_or_default(),
        }
    }
}
