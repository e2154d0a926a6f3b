//! The models that an operator offers: one folder each, with the graph and a `model.toml` that describes it.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use ocelli_protocol::inference::{Device, Model, TensorDeclaration};
use ocelli_protocol::worker::{Description, ModelNeed};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// What `model.toml` holds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The model's name: that of its folder.
    pub name: String,
    /// One line for people.
    pub description: String,
    /// The graph's file in the folder.
    pub file: String,
    /// SHA-256 of that file, lower-case hexadecimal.
    pub sha256: String,
    /// SPDX expression.
    pub licence: String,
    /// Where it comes from.
    pub source: String,
    /// Class names in the order of the outputs.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Inputs by name, element type and shape.
    pub inputs: Vec<TensorDeclaration>,
    /// Outputs by name, element type and shape.
    pub outputs: Vec<TensorDeclaration>,
    /// How a picture becomes the input.
    pub preprocessing: Option<Preprocessing>,
}

/// How a picture becomes a model's input: for people and tools, the host does not look at it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocessing {
    /// "rgb" or "bgr".
    pub channels: String,
    /// Subtracted from each channel, 0 to 255.
    pub mean: [f32; 3],
    /// Then divided by.
    pub std: [f32; 3],
    /// "letterbox" or "stretch".
    pub fit: String,
    /// Pixel value of what a letterbox leaves empty.
    #[serde(default)]
    pub fill: [f32; 3],
}

/// Why a model cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The models' folder cannot be read.
    #[error("models: {directory}: {source}; set `models.directory` to the folder that holds the models")]
    Directory {
        /// The folder.
        directory: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of a model cannot be read.
    #[error("model {model}: {path}: {source}")]
    File {
        /// The model's folder.
        model: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// `model.toml` is not as it should be.
    #[error("model {model}: {path}: {message}")]
    Manifest {
        /// The model's folder.
        model: String,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The graph is not the one that `model.toml` describes.
    #[error(
        "model {model}: {path} has sha256 {found}, model.toml says {expected}: the file is damaged or was exchanged; \
         restore it, or correct `sha256` if the new file is meant"
    )]
    Digest {
        /// The model's folder.
        model: String,
        /// The graph's file.
        path: PathBuf,
        /// What model.toml says.
        expected: String,
        /// What the file has.
        found: String,
    },
}

/// All models of a folder, each checked against its digest.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    models: BTreeMap<String, Model>,
}

impl Catalogue {
    /// Reads every folder below `directory` that has a `model.toml`, and checks the digests of the graphs.
    pub fn load(directory: &Path) -> Result<Self, CatalogueError> {
        let unreadable = |source| CatalogueError::Directory { directory: directory.to_owned(), source };
        let mut models = BTreeMap::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let folder = entry.map_err(unreadable)?.path();
            if folder.join("model.toml").is_file() {
                let model = load(&folder)?;
                models.insert(model.name.clone(), model);
            }
        }
        Ok(Self { models })
    }

    /// Whether there is a model of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.models.contains_key(name)
    }

    /// The models' names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.models.keys().map(String::as_str)
    }

    /// The models, sorted by name.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.models.values()
    }
}

fn load(folder: &Path) -> Result<Model, CatalogueError> {
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let file = |path: &Path| {
        let (model, path) = (name.clone(), path.to_owned());
        move |source| CatalogueError::File { model, path, source }
    };
    let path = folder.join("model.toml");
    let text = std::fs::read_to_string(&path).map_err(file(&path))?;
    let wrong =
        |message: String| CatalogueError::Manifest { model: name.clone(), path: path.clone(), message };
    let manifest: Manifest = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if manifest.name != name {
        return Err(wrong(format!("`name` is {:?}, the folder's name is {name:?}", manifest.name)));
    }
    if Path::new(&manifest.file).file_name() != Some(manifest.file.as_ref()) {
        return Err(wrong(format!(
            "`file` is {:?}: it has to name a file in the model's folder",
            manifest.file
        )));
    }
    let graph = folder.join(&manifest.file);
    let graph = graph.canonicalize().map_err(file(&graph))?;
    let found = digest(&graph).map_err(file(&graph))?;
    if found != manifest.sha256 {
        return Err(CatalogueError::Digest { model: name, path: graph, expected: manifest.sha256, found });
    }
    let path = graph.to_str().map(str::to_owned).ok_or_else(|| wrong("the path is not UTF-8".into()))?;
    let Manifest { name, sha256, inputs, outputs, .. } = manifest;
    let (device, fallback, batching) = (Device::Cpu, false, None);
    Ok(Model { name, path, sha256, inputs, outputs, device, fallback, batching })
}

/// What a pipeline needs and the models do not offer: one sentence that says what to do, or none.
pub fn lacks(models: &[Model], pipeline: &Description) -> Option<String> {
    pipeline.models.iter().find_map(|need| {
        let problem = match models.iter().find(|model| model.name == need.name) {
            Some(model) => need.inputs.iter().find_map(|input| differs(model, input))?,
            None => {
                let offered: Vec<&str> = models.iter().map(|model| model.name.as_str()).collect();
                format!("is not in the models' folder, which has: {}", offered.join(", "))
            }
        };
        let (Description { name, version, .. }, ModelNeed { name: model, .. }) = (pipeline, need);
        Some(format!(
            "pipeline {name} {version} needs the model {model}, which {problem}; put the right one there"
        ))
    })
}

/// How a model's input is other than a pipeline expects. -1 on either side agrees with everything.
fn differs(model: &Model, (name, expected): &(String, Vec<i64>)) -> Option<String> {
    let Some(declared) = model.inputs.iter().find(|input| input.name == *name) else {
        return Some(format!("has no input {name:?}"));
    };
    let agrees = declared.shape.len() == expected.len()
        && declared.shape.iter().zip(expected).all(|(one, other)| *one < 0 || *other < 0 || one == other);
    (!agrees).then(|| format!("takes {name:?} as {:?}, not as {expected:?}", declared.shape))
}

/// SHA-256 of a file, lower-case hexadecimal.
pub fn digest(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    // Large enough that the system calls do not count beside the hashing.
    let mut buffer = vec![0; 128 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(format!("{:x}", hasher.finalize())),
            read => hasher.update(buffer.get(..read).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(toml: &str, graph: &[u8]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let model = directory.path().join("eye");
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("model.toml"), toml).unwrap();
        std::fs::write(model.join("model.onnx"), graph).unwrap();
        directory
    }

    fn manifest(extra: &str) -> String {
        let digest = format!("{:x}", Sha256::digest(b"graph"));
        format!(
            "name = \"eye\"\ndescription = \"\"\nfile = \"model.onnx\"\nsha256 = \"{digest}\"\nlicence = \"MIT\"\n\
             source = \"here\"\n{extra}inputs = [{{ name = \"x\", element = \"f32\", shape = [1, 3, -1, -1] }}]\n\
             outputs = []\n"
        )
    }

    #[test]
    fn a_model_is_offered_as_its_manifest_says() {
        let directory = folder(&manifest(""), b"graph");
        let catalogue = Catalogue::load(directory.path()).unwrap();
        assert_eq!(catalogue.names().collect::<Vec<_>>(), ["eye"]);
        let model = catalogue.models().next().unwrap();
        assert_eq!(model.inputs[0].shape, [1, 3, -1, -1]);
        assert!(Path::new(&model.path).is_absolute());
    }

    #[test]
    fn an_exchanged_graph_is_refused_with_both_digests() {
        let directory = folder(&manifest(""), b"another");
        let error = Catalogue::load(directory.path()).unwrap_err().to_string();
        assert!(
            error.contains("eye") && error.contains(&format!("{:x}", Sha256::digest(b"another"))),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_key_is_refused() {
        let directory = folder(&manifest("colour = \"red\"\n"), b"graph");
        let error = Catalogue::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("colour"), "{error}");
    }

    #[test]
    fn a_graph_outside_the_folder_is_refused() {
        let toml = manifest("").replace("model.onnx", "../model.onnx");
        let error = Catalogue::load(folder(&toml, b"graph").path()).unwrap_err().to_string();
        assert!(error.contains("in the model's folder"), "{error}");
    }

    #[test]
    fn a_pipeline_is_told_which_model_it_lacks_or_finds_other_than_expected() {
        let directory = folder(&manifest(""), b"graph");
        let models: Vec<Model> = Catalogue::load(directory.path()).unwrap().models().cloned().collect();
        let needs = |name: &str, input: &str, shape: &[i64]| {
            let inputs = vec![(input.to_owned(), shape.to_vec())];
            let models = vec![ModelNeed { name: name.to_owned(), inputs }];
            Description { name: "p".into(), version: "1.0.0".into(), models, settings_schema: String::new() }
        };
        assert_eq!(lacks(&models, &needs("eye", "x", &[1, 3, 416, -1])), None);
        let lacks = |name, input, shape| lacks(&models, &needs(name, input, shape)).unwrap();
        let missing = lacks("nose", "x", &[1]);
        assert!(
            missing.contains("p 1.0.0") && missing.contains("nose") && missing.contains("eye"),
            "{missing}"
        );
        let other = lacks("eye", "x", &[1, 1, 416, 416]);
        assert!(other.contains("[1, 3, -1, -1]") && other.contains("[1, 1, 416, 416]"), "{other}");
        assert!(lacks("eye", "y", &[1]).contains("no input \"y\""));
    }

    #[test]
    fn a_missing_folder_says_which_setting_names_it() {
        let error = Catalogue::load(Path::new("/nowhere/models")).unwrap_err().to_string();
        assert!(error.contains("/nowhere/models") && error.contains("models.directory"), "{error}");
    }
}
