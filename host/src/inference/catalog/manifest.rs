//! `model.toml`: what a model is, and the checks that need nothing but the text.

use std::path::Path;

use ocelli_protocol::inference::{Element, MAX_RANK, MAX_TENSORS, TensorDeclaration};
use ocelli_protocol::model::{
    ChannelOrder, DecoderTable, ModelDescription, PictureFit, PictureInput,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::decoder::ModelDecoder;
use super::picture::{PictureFault, picture};

/// Most labels of a model: ImageNet-21k, the largest set of classes in use, has 21,841.
pub(super) const MAX_LABELS: usize = 32_768;

/// Bytes of all labels together: the workers get them, and a message holds those of 16 such models.
const MAX_LABEL_BYTES: usize = 1 << 20;

/// The content of `model.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// The licence as an SPDX expression, such as `Apache-2.0`.
    pub licence: String,
    /// Its origin, such as a URL.
    pub source: String,
    /// Class names in the order of the outputs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<String>,
    /// Inputs by name, element type and shape.
    pub inputs: Vec<TensorDeclaration>,
    /// Outputs by name, element type and shape.
    pub outputs: Vec<TensorDeclaration>,
    /// Which output is an embedding, where one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub embedding: Option<Embedding>,
    /// How a picture becomes the input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
    /// How the outputs become boxes or classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<ModelDecoder>,
}

/// An output whose last side is a vector that can be compared with others of the same model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Embedding {
    /// The name of the output.
    pub output: String,
    /// The length of the vector: the output's last side.
    #[schemars(range(min = 1))]
    pub dimension: u32,
}

/// How a picture becomes a model's input. Pipelines get it; the host does not use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Preprocessing {
    /// The order of channels.
    pub channels: ChannelOrder,
    /// Subtracted from each channel, 0 to 255.
    pub mean: [f32; 3],
    /// Divisor of each channel, after the mean is subtracted.
    pub std: [f32; 3],
    /// How the picture is scaled.
    pub fit: PictureFit,
    /// Pixel value of what a letterbox leaves empty.
    #[serde(default)]
    pub fill: [f32; 3],
}

impl Manifest {
    /// The first error in it as the manifest of the folder `name`.
    pub fn problem(&self, name: &str) -> Option<String> {
        if self.name != name {
            return Some(format!("`name` is {:?}, the folder's name is {name:?}", self.name));
        }
        if Path::new(&self.file).file_name() != Some(self.file.as_ref()) {
            return Some(format!(
                "`file` is {:?}: it has to name a file in the model's folder",
                self.file
            ));
        }
        self.tensors_problem()
            .or_else(|| self.embedding_problem())
            .or_else(|| self.labels_problem())
            .or_else(|| self.preprocessing_problem())
            .or_else(|| {
                let decoder = self.decoder.as_ref()?;
                decoder.problem(&self.inputs, &self.outputs, self.labels.len())
            })
    }

    /// What pipelines are told of the model.
    pub(super) fn description(&self) -> ModelDescription {
        let table = self.decoder.as_ref().map(|decoder| DecoderTable {
            family: decoder.family().to_owned(),
            // Texts and finite numbers always serialise.
            parameters: serde_json::to_string(decoder).unwrap_or_default(),
        });
        ModelDescription {
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            picture: self.picture().ok(),
            decoder: table,
            labels: self.labels.clone(),
        }
    }

    fn picture(&self) -> Result<PictureInput, PictureFault> {
        picture(&self.inputs, self.preprocessing.as_ref())
    }

    /// What it lacks to be run by a pipeline that was not written for it: a line for people.
    pub fn lack(&self) -> Option<String> {
        let forms = || {
            let form = |tensor: &TensorDeclaration| format!("{:?} {:?}", tensor.name, tensor.shape);
            self.outputs.iter().map(form).collect::<Vec<_>>().join(", ")
        };
        match (&self.decoder, self.picture()) {
            (None, _) if self.embedding.is_none() => Some(format!(
                "no [decoder]: its outputs ({}) have the form of no known family of detectors or \
                 classifiers; a pipeline with code for it can run it",
                forms()
            )),
            (Some(_), Err(fault)) => Some(fault.to_string()),
            _ => None,
        }
    }

    fn preprocessing_problem(&self) -> Option<String> {
        let Preprocessing { mean, std, fill, .. } = self.preprocessing.as_ref()?;
        let numbers = mean.iter().chain(std).chain(fill);
        (std.contains(&0.0) || numbers.into_iter().any(|number| !number.is_finite()))
            .then(|| "`preprocessing`: its numbers are finite, and those of `std` are not 0".into())
    }

    fn tensors_problem(&self) -> Option<String> {
        for (kind, tensors) in [("input", &self.inputs), ("output", &self.outputs)] {
            if !(1..=MAX_TENSORS).contains(&tensors.len()) {
                return Some(format!(
                    "it has {} {kind}s; 1 to {MAX_TENSORS} are possible",
                    tensors.len()
                ));
            }
            for (index, TensorDeclaration { name, shape, .. }) in tensors.iter().enumerate() {
                if tensors.iter().take(index).any(|other| other.name == *name) {
                    return Some(format!("{kind} {name:?} stands there twice"));
                }
                if shape.len() > MAX_RANK || shape.iter().any(|&side| side == 0 || side < -1) {
                    return Some(format!(
                        "{kind} {name:?} has shape {shape:?}; at most {MAX_RANK} sides are \
                         possible, each -1 or more than 0"
                    ));
                }
            }
        }
        None
    }

    fn embedding_problem(&self) -> Option<String> {
        let Embedding { output, dimension } = self.embedding.as_ref()?;
        let Some(tensor) = self.outputs.iter().find(|tensor| tensor.name == *output) else {
            let outputs: Vec<_> = self.outputs.iter().map(|tensor| tensor.name.as_str()).collect();
            return Some(format!(
                "`embedding.output` is {output:?}, which is no output; there are: {}",
                outputs.join(", ")
            ));
        };
        (tensor.shape.last() != Some(&i64::from(*dimension))).then(|| {
            format!(
                "`embedding.dimension` is {dimension}, but the last side of output {output:?} is \
                 that of {:?}",
                tensor.shape
            )
        })
    }

    /// The number of labels is known for a classifier, which has one row of scores. Other outputs
    /// hold boxes beside scores, or indexes of labels.
    fn labels_problem(&self) -> Option<String> {
        let (count, bytes) =
            (self.labels.len(), self.labels.iter().map(String::len).sum::<usize>());
        if count > MAX_LABELS || bytes > MAX_LABEL_BYTES {
            return Some(format!(
                "there are {count} `labels` of {bytes} bytes together; {MAX_LABELS} of \
                 {MAX_LABEL_BYTES} are possible"
            ));
        }
        let [TensorDeclaration { name, element, shape }] = self.outputs.as_slice() else {
            return None;
        };
        let &[1 | -1, classes] = shape.as_slice() else { return None };
        let scores = matches!(element, Element::F16 | Element::F32 | Element::F64 | Element::Bf16);
        let embedding = self.embedding.is_some();
        // A classifier of two classes may have one score.
        let counted = classes > 1;
        let labels = self.labels.len();
        (scores && counted && !embedding && labels > 0 && i64::try_from(labels) != Ok(classes))
            .then(|| {
                format!("there are {labels} `labels`, but output {name:?} has shape {shape:?}")
            })
    }

    /// A possible error that cannot be proven, for people.
    pub fn warning(&self) -> Option<String> {
        let labels = i64::try_from(self.labels.len()).unwrap_or(i64::MAX);
        let mut sides = self.outputs.iter().flat_map(|output| &output.shape);
        let told = sides.clone().all(|side| *side > 0);
        (labels > 0 && told && !sides.any(|side| *side >= labels))
            .then(|| format!("there are {labels} `labels`, and no output has a side as long"))
    }
}
