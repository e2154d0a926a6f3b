//! The models that an operator offers: one folder each, with the graph and its `model.toml`.

mod census;
mod decoder;
mod error;
mod graph_file;
mod inspect;
mod manifest;
mod metadata;
mod model_catalog;
mod picture;
mod recognised;
mod shown;
mod versions;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use ocelli_protocol::inference::{Batching, Device, Model, TensorDeclaration};
use ocelli_protocol::model::ModelDescriptions;
use ocelli_protocol::wire::{WireError, to_bytes};
use ocelli_protocol::worker::{Description, ModelNeed};

use super::library;
use crate::config::{DeviceFallback, InferenceConfig, ModelOptions};
use crate::util::folder::Folder;

pub use census::GraphCensus;
pub use decoder::ModelDecoder;
pub use error::CatalogError;
pub use graph_file::GraphFault;
pub use inspect::{InspectError, ModelInspector, mismatch};
pub use manifest::{Embedding, Manifest, Preprocessing};
pub(crate) use model_catalog::{CatalogWatcher, ModelCatalog};
pub use recognised::{Recognised, recognise};
pub use shown::{ModelInfo, ModelList};
pub use versions::VersionStore;

/// The name of a model's description in its folder.
pub const MANIFEST: &str = "model.toml";

/// All models of a folder, each checked against its digest.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    entries: BTreeMap<String, CatalogEntry>,
}

/// A model of a catalog.
#[derive(Debug, Clone)]
pub struct CatalogEntry {
    /// The content of its `model.toml`.
    pub manifest: Manifest,
    /// Its description for the inference process.
    pub model: Model,
    /// Whether it is loaded before it is asked for.
    pub preload: bool,
    /// The model's folder, open.
    folder: Folder,
}

impl Catalog {
    /// Reads every folder below `directory` that has a `model.toml`, checks the digests of the
    /// graphs, and applies the options of the config. Returns the first error.
    pub fn load(directory: &Path, config: &InferenceConfig) -> Result<Self, CatalogError> {
        let (catalog, mut problems) = Self::survey(directory, config)?;
        match problems.is_empty() {
            true => Ok(catalog),
            false => Err(problems.swap_remove(0)),
        }
    }

    /// The same with all errors: the good models, and the errors of the others. Fails if
    /// `directory` cannot be read.
    pub fn survey(
        directory: &Path,
        config: &InferenceConfig,
    ) -> Result<(Self, Vec<CatalogError>), CatalogError> {
        let (mut catalog, mut problems) = (Self::default(), Vec::new());
        let pinned = library::is_pinned(config.library.as_deref());
        for (name, folder) in folders(directory)? {
            let model = folder.map_err(CatalogError::file(&name, &directory.join(&name)));
            match model.and_then(|folder| load(&name, folder, pinned)) {
                Ok(entry) => drop(catalog.entries.insert(name, entry)),
                Err(error) => problems.push(error),
            }
        }
        problems.extend(catalog.apply(config, directory));
        Ok((catalog, problems))
    }

    /// Applies the options of the config. Returns the errors.
    fn apply(&mut self, config: &InferenceConfig, directory: &Path) -> Vec<CatalogError> {
        let mut problems = Vec::new();
        for entry in self.entries.values_mut() {
            entry.preload = config.preload.contains(&entry.model.name);
            (entry.model.device, entry.model.fallback) =
                (config.device, config.fallback == DeviceFallback::Cpu);
        }
        for (index, options) in config.models.iter().enumerate() {
            let key = format!("inference.models[{index}]");
            let Some(entry) = self.entries.get_mut(&options.name) else {
                problems.push(self.unknown(format!("{key}.name"), &options.name, directory));
                continue;
            };
            entry.model.device = options.device.unwrap_or(config.device);
            entry.model.fallback =
                options.fallback.unwrap_or(config.fallback) == DeviceFallback::Cpu;
            match batching(options, &entry.model) {
                Ok(batching) => entry.model.batching = batching,
                Err(message) => {
                    problems
                        .push(CatalogError::Options { key: format!("{key}.max_batch"), message });
                }
            }
        }
        let missing = config.preload.iter().filter(|name| !self.contains(name));
        problems
            .extend(missing.map(|name| self.unknown("inference.preload".into(), name, directory)));
        problems
    }

    fn unknown(&self, key: String, name: &str, directory: &Path) -> CatalogError {
        let known: Vec<_> = self.names().collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let message = format!(
            "names the model {name:?}, which is not in {}; usable ones there: {known}",
            directory.display()
        );
        CatalogError::Options { key, message }
    }

    /// Whether there is a model of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.entries.contains_key(name)
    }

    /// The models' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The models, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.entries.values().map(|entry| &entry.model)
    }

    /// The models with all that is known of them, sorted by name.
    pub fn entries(&self) -> impl Iterator<Item = &CatalogEntry> {
        self.entries.values()
    }

    /// What workers are told of the models, encoded.
    pub fn descriptions(&self) -> Result<Arc<[u8]>, WireError> {
        let described =
            self.entries.iter().map(|(name, entry)| (name.clone(), entry.manifest.description()));
        Ok(to_bytes(&described.collect::<ModelDescriptions>())?.into())
    }

    /// A model by name.
    pub fn get(&self, name: &str) -> Option<&CatalogEntry> {
        self.entries.get(name)
    }

    /// How this catalog differs from an older one: a line for each model that is new, other or
    /// gone. The paths of the files do not count.
    pub fn changes_since(&self, old: &Self) -> Vec<String> {
        let short =
            |entry: &CatalogEntry| entry.model.sha256.get(..12).unwrap_or_default().to_owned();
        let mut changes: Vec<String> = Vec::new();
        for (name, entry) in &self.entries {
            match old.get(name) {
                None => changes.push(format!("model {name} added: {}", short(entry))),
                Some(before) if before.model.sha256 != entry.model.sha256 => {
                    changes.push(format!(
                        "model {name} changed: {} -> {}",
                        short(before),
                        short(entry)
                    ));
                }
                Some(before) if before.manifest != entry.manifest => {
                    changes.push(format!(
                        "model {name} changed: another {MANIFEST}, the same file {}",
                        short(entry)
                    ));
                }
                Some(_) => {}
            }
        }
        let removed = old.entries().filter(|entry| !self.contains(&entry.model.name));
        changes.extend(
            removed.map(|entry| format!("model {} removed: {}", entry.model.name, short(entry))),
        );
        changes
    }
}

/// The folders of models by name, without hidden ones, which are being made or removed. A link that
/// leads out of the models' folder is an error.
fn folders(directory: &Path) -> Result<BTreeMap<String, io::Result<Folder>>, CatalogError> {
    let unreadable = |source| CatalogError::Directory { directory: directory.to_owned(), source };
    let models = directory.canonicalize().and_then(|path| Folder::open(&path));
    let models = models.map_err(unreadable)?;
    let names = models.names().map_err(unreadable)?.into_iter();
    let named = names.filter(|name| !name.starts_with('.')).filter_map(|name| {
        let folder = match models.open_folder(&name) {
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => return None,
            folder => folder,
        };
        let described = folder.as_ref().map_or(true, |folder| folder.has(MANIFEST));
        described.then_some((name, folder))
    });
    Ok(named.collect())
}

/// Reads a model from its folder, with default options. `pinned`: for the library whose versions
/// are known.
fn load(name: &str, folder: Folder, pinned: bool) -> Result<CatalogEntry, CatalogError> {
    let path = folder.path().join(MANIFEST);
    let text = folder.read_linked(MANIFEST).and_then(io::read_to_string);
    let text = text.map_err(CatalogError::file(name, &path))?;
    let wrong = |message: String| CatalogError::Manifest {
        model: name.to_owned(),
        path: path.clone(),
        message,
    };
    let manifest: Manifest = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if let Some(problem) = manifest.problem(name) {
        return Err(wrong(problem));
    }
    let graph = folder.path().join(&manifest.file);
    let file = || folder.read_linked(&manifest.file);
    let fault = file().and_then(|file| graph_file::fault(file, pinned));
    if let Some(fault) = fault.map_err(CatalogError::file(name, &graph))? {
        return Err(CatalogError::Graph { model: name.to_owned(), path: graph, fault });
    }
    let found = file().and_then(versions::digest);
    let found = found.map_err(CatalogError::file(name, &graph))?;
    if found != manifest.sha256 {
        let (model, expected) = (name.to_owned(), manifest.sha256);
        return Err(CatalogError::Digest { model, path: graph, expected, found });
    }
    let path =
        graph.to_str().map(str::to_owned).ok_or_else(|| wrong("the path is not UTF-8".into()))?;
    let model = Model {
        name: manifest.name.clone(),
        path,
        sha256: manifest.sha256.clone(),
        inputs: manifest.inputs.clone(),
        outputs: manifest.outputs.clone(),
        device: Device::Cpu,
        fallback: false,
        batching: None,
    };
    Ok(CatalogEntry { manifest, model, preload: false, folder })
}

/// How requests for a model are put together. That takes a first dimension that is open.
fn batching(options: &ModelOptions, model: &Model) -> Result<Option<Batching>, String> {
    if options.max_batch < 2 {
        return Ok(None);
    }
    let fixed = |tensor: &&TensorDeclaration| tensor.shape.first() != Some(&-1);
    if let Some(TensorDeclaration { name, shape, .. }) =
        model.inputs.iter().chain(&model.outputs).find(fixed)
    {
        return Err(format!(
            "{} requests of model {:?} cannot be one run: the first side of {name:?} has to be \
             open (-1), it is that of {shape:?}",
            options.max_batch, model.name
        ));
    }
    Ok(Some(Batching { max: options.max_batch, delay_ms: options.batch_delay_ms }))
}

/// The first model that a pipeline needs and `models` lacks: one sentence with the remedy.
pub fn missing_model(models: &[Model], pipeline: &Description) -> Option<String> {
    pipeline.models.iter().find_map(|need| {
        let problem = match models.iter().find(|model| model.name == need.name) {
            Some(model) => need.inputs.iter().find_map(|input| differs(model, input))?,
            None => {
                let offered: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
                let offered =
                    if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
                format!("is not in the models' folder, which has: {offered}")
            }
        };
        let (Description { name, version, .. }, ModelNeed { name: model, .. }) = (pipeline, need);
        Some(format!(
            "pipeline {name} {version} needs the model {model}, which {problem}; put the right \
             one there, or name another folder ([models] directory in the config, --models){}",
            if takes_model(pipeline) { ", or another model in settings.model" } else { "" }
        ))
    })
}

/// Whether a pipeline's settings name its model.
fn takes_model(pipeline: &Description) -> bool {
    let schema = serde_json::from_str::<serde_json::Value>(&pipeline.settings_schema);
    schema.is_ok_and(|schema| schema.pointer("/properties/model").is_some())
}

/// How a model's input differs from the pipeline's expectation. -1 matches any size.
fn differs(model: &Model, (name, expected): &(String, Vec<i64>)) -> Option<String> {
    let Some(declared) = model.inputs.iter().find(|input| input.name == *name) else {
        return Some(format!("has no input {name:?}"));
    };
    let agrees = declared.shape.len() == expected.len()
        && declared
            .shape
            .iter()
            .zip(expected)
            .all(|(one, other)| *one < 0 || *other < 0 || one == other);
    (!agrees).then(|| format!("takes {name:?} as {:?}, not as {expected:?}", declared.shape))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::digest::Digest;

    fn read(directory: &Path) -> Result<Catalog, CatalogError> {
        Catalog::load(directory, &InferenceConfig::default())
    }

    fn folder(toml: &str, graph: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("eye");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("model.toml"), toml).unwrap();
        std::fs::write(model.join("model.onnx"), graph).unwrap();
        directory
    }

    fn manifest(extra: &str) -> String {
        let digest = Digest::of("graph");
        format!(
            "name = \"eye\"\ndescription = \"\"\nfile = \"model.onnx\"\nsha256 = \
                \"{digest}\"\nlicence = \"MIT\"\n\
             source = \"here\"\n{extra}inputs = \
             [{{ name = \"x\", element = \"f32\", shape = [1, 3, -1, -1] }}]\n\
             outputs = [{{ name = \"y\", element = \"f32\", shape = [1, 512] }}]\n"
        )
    }

    #[test]
    fn a_model_is_offered_as_its_manifest_says() {
        let directory = folder(&manifest(""), b"graph");
        let catalog = read(directory.path()).unwrap();
        assert_eq!(catalog.names().collect::<Vec<_>>(), ["eye"]);
        let model = catalog.models().next().unwrap();
        assert_eq!(model.inputs[0].shape, [1, 3, -1, -1]);
        assert!(Path::new(&model.path).is_absolute());
    }

    #[test]
    fn a_model_is_shown_with_how_it_is_run_and_what_it_lacks_for_that() {
        let shown = |extra: &str| {
            let directory = folder(&manifest(extra), b"graph");
            let catalog = read(directory.path()).unwrap();
            let entry = catalog.entries().next().unwrap();
            serde_json::to_value(ModelInfo::new(entry, &[])).unwrap()
        };
        let bare = shown("");
        assert!(bare["decoder"].is_null() && bare["preprocessing"].is_null());
        assert!(bare["lacks"].as_str().unwrap().contains("no [decoder]"), "{bare}");
        let described = shown(
            "decoder = { family = \"classifier\", output = \"y\", activation = \"softmax\" }\n\
             preprocessing = { channels = \"rgb\", mean = [0, 0, 0], std = [255, 255, 255], \
             fit = \"stretch\" }\n",
        );
        assert_eq!(described["decoder"]["family"], "classifier");
        assert_eq!(described["preprocessing"]["fit"], "stretch");
        let lacks = described["lacks"].as_str().unwrap();
        assert!(lacks.contains("fix height and width"), "{lacks}");
    }

    #[test]
    fn an_exchanged_graph_is_refused_with_both_digests() {
        let directory = folder(&manifest(""), b"another");
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("eye") && error.contains(&Digest::of("another").to_string()),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let directory = folder(&manifest("colour = \"red\"\n"), b"graph");
        let error = read(directory.path()).unwrap_err().to_string();
        assert!(error.contains("colour"), "{error}");
    }

    #[test]
    fn a_graph_outside_the_folder_is_refused() {
        let toml = manifest("").replace("model.onnx", "../model.onnx");
        let error = read(folder(&toml, b"graph").path()).unwrap_err().to_string();
        assert!(error.contains("in the model's folder"), "{error}");
    }

    #[test]
    fn a_pipeline_is_told_which_model_it_lacks_or_finds_other_than_expected() {
        let directory = folder(&manifest(""), b"graph");
        let models: Vec<Model> = read(directory.path()).unwrap().models().cloned().collect();
        let needs = |name: &str, input: &str, shape: &[i64]| {
            let inputs = vec![(input.to_owned(), shape.to_vec())];
            let models = vec![ModelNeed { name: name.to_owned(), inputs }];
            Description {
                name: "p".into(),
                version: "1.0.0".into(),
                models,
                settings_schema: String::new(),
            }
        };
        assert_eq!(missing_model(&models, &needs("eye", "x", &[1, 3, 416, -1])), None);
        let lacks =
            |name, input, shape| missing_model(&models, &needs(name, input, shape)).unwrap();
        let missing = lacks("nose", "x", &[1]);
        assert!(
            missing.contains("p 1.0.0") && missing.contains("nose") && missing.contains("eye"),
            "{missing}"
        );
        let other = lacks("eye", "x", &[1, 1, 416, 416]);
        assert!(other.contains("[1, 3, -1, -1]") && other.contains("[1, 1, 416, 416]"), "{other}");
        assert!(lacks("eye", "y", &[1]).contains("no input \"y\""));
        assert!(missing.contains("--models") && !missing.contains("settings.model"), "{missing}");
        let settings_schema = r#"{"properties":{"model":{"type":"string"}}}"#.to_owned();
        let chooses = Description { settings_schema, ..needs("nose", "x", &[1]) };
        let missing = missing_model(&[], &chooses).unwrap();
        assert!(missing.contains("has: none") && missing.contains("settings.model"), "{missing}");
    }

    #[test]
    fn a_missing_folder_says_which_setting_names_it() {
        let error = read(Path::new("/nowhere/models")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/models") && error.contains("models.directory"), "{error}");
    }

    #[test]
    fn an_embedding_that_the_outputs_do_not_have_is_refused_with_both_figures() {
        // Tables stand behind all keys of the document itself.
        let with = |embedding: &str| {
            let toml = manifest("") + "[embedding]\n" + embedding;
            read(folder(&toml, b"graph").path()).map(|_| ()).map_err(|error| error.to_string())
        };
        assert_eq!(with("output = \"y\"\ndimension = 512\n"), Ok(()));
        let other = with("output = \"y\"\ndimension = 128\n").unwrap_err();
        assert!(
            other.contains("128") && other.contains("[1, 512]") && other.contains("\"y\""),
            "{other}"
        );
        let missing = with("output = \"z\"\ndimension = 512\n").unwrap_err();
        assert!(missing.contains("\"z\"") && missing.contains("there are: y"), "{missing}");
    }

    #[test]
    fn labels_that_a_classifier_has_no_scores_for_are_refused_with_both_figures() {
        let error =
            read(folder(&manifest("labels = [\"cat\", \"dog\"]\n"), b"graph").path()).unwrap_err();
        let error = error.to_string();
        assert!(error.contains("2 `labels`") && error.contains("[1, 512]"), "{error}");
    }

    #[test]
    fn tensors_that_no_session_could_hold_are_refused() {
        for (from, to, word) in [
            (
                "outputs = [{ name = \"y\", element = \"f32\", shape = [1, 512] }]",
                "outputs = []",
                "0 outputs",
            ),
            ("[1, 512]", "[1, 0]", "[1, 0]"),
            ("\"f32\", shape = [1, 512]", "\"u16\", shape = [1, 512]", "u16"),
        ] {
            let toml = manifest("").replace(from, to);
            let error = read(folder(&toml, b"graph").path()).unwrap_err().to_string();
            assert!(error.contains("eye") && error.contains(word), "{error}");
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_and_the_good_models_are_given() {
        let directory = folder(&manifest(""), b"graph");
        for name in ["ear", "nose"] {
            std::fs::create_dir(directory.path().join(name)).unwrap();
            std::fs::write(directory.path().join(name).join("model.toml"), "").unwrap();
        }
        let (good, problems) =
            Catalog::survey(directory.path(), &InferenceConfig::default()).unwrap();
        assert_eq!((good.names().collect::<Vec<_>>(), problems.len()), (vec!["eye"], 2));
    }
}
