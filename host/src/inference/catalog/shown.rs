//! Models as `GET /v1/models` and `ocelli models list` show them.

use ocelli_protocol::inference::{LoadedModel, TensorDeclaration};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Catalog, CatalogEntry, Embedding, ModelDecoder, Preprocessing};
use crate::config::DeviceFallback;
use crate::inference::InferenceStatus;
use crate::shape::DIGEST;

/// All models and the processes that run them.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Models")]
pub struct ModelList {
    /// How often the models have changed since the host was started.
    catalog_version: u32,
    models: Vec<ModelInfo>,
    /// Versions that sessions still run and that the catalog no longer has.
    earlier: Vec<Earlier>,
    runtime: InferenceStatus,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
struct Earlier {
    name: String,
    #[schemars(regex(pattern = DIGEST))]
    sha256: String,
    #[serde(flatten)]
    run: ShownRun,
}

impl ModelList {
    /// Combines the catalog, the loaded models and the state of inference.
    pub fn new(
        catalog_version: u32,
        catalog: &Catalog,
        loaded: &[LoadedModel],
        runtime: InferenceStatus,
    ) -> Self {
        let offered = |sha256: &str| catalog.models().any(|model| model.sha256 == sha256);
        let earlier = loaded.iter().filter(|loaded| !offered(&loaded.sha256));
        Self {
            catalog_version,
            models: catalog.entries().map(|entry| ModelInfo::new(entry, loaded)).collect(),
            earlier: earlier
                .map(|loaded| Earlier {
                    name: loaded.name.clone(),
                    sha256: loaded.sha256.clone(),
                    run: loaded.into(),
                })
                .collect(),
            runtime,
        }
    }
}

/// A model and the execution providers that run it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Model")]
pub struct ModelInfo {
    name: String,
    /// The version's.
    #[schemars(regex(pattern = DIGEST))]
    sha256: String,
    description: String,
    licence: String,
    source: String,
    labels: Vec<String>,
    inputs: Vec<TensorDeclaration>,
    outputs: Vec<TensorDeclaration>,
    embedding: Option<Embedding>,
    /// How a picture becomes the input, by `model.toml`.
    preprocessing: Option<Preprocessing>,
    /// How the outputs become boxes or classes, by `model.toml`.
    decoder: Option<ModelDecoder>,
    /// What it lacks to be run by a pipeline that was not written for it.
    lacks: Option<String>,
    /// The configured device, as the config writes it.
    device: String,
    /// Policy for an unusable device.
    fallback: DeviceFallback,
    preload: bool,
    batching: Option<ShownBatching>,
    /// Whether an inference process has it ready.
    state: ShownState,
    #[serde(flatten)]
    run: ShownRun,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
struct ShownBatching {
    #[schemars(range(min = 1))]
    max_batch: u32,
    batch_delay_ms: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum ShownState {
    Loaded,
    Available,
}

/// The execution providers of a loaded model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
struct ShownRun {
    /// Number of nodes of the graph by execution provider. Empty if it is not loaded.
    runs_on: Vec<ShownNodes>,
    /// Why it does not run on `device`, in the provider's words.
    fell_back: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
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

impl ModelInfo {
    /// Combines an entry of the catalog with the loaded models.
    pub fn new(entry: &CatalogEntry, loaded: &[LoadedModel]) -> Self {
        let CatalogEntry { manifest, model, preload, .. } = entry;
        let run =
            loaded.iter().find(|other| other.name == model.name && other.sha256 == model.sha256);
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
            preprocessing: manifest.preprocessing.clone(),
            decoder: manifest.decoder.clone(),
            lacks: manifest.lack(),
            device: model.device.to_string(),
            fallback: if model.fallback { DeviceFallback::Cpu } else { DeviceFallback::None },
            preload: *preload,
            batching: model.batching.map(|batching| ShownBatching {
                max_batch: batching.max,
                batch_delay_ms: batching.delay_ms,
            }),
            state: if run.is_some() { ShownState::Loaded } else { ShownState::Available },
            run: run.map(ShownRun::from).unwrap_or_default(),
        }
    }
}
