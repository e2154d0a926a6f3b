//! What the host knows of a detector, checked.

use super::family::Decoder;
use crate::TensorSpec;
use crate::models::{ModelDescription, PictureInput};

/// How to run a detector and what its outputs mean.
#[derive(Debug, Clone)]
pub struct DescribedDetector {
    /// The model's name.
    pub model: String,
    /// The name of the input that takes the picture.
    pub input: String,
    /// The tensor that it takes.
    pub spec: TensorSpec,
    /// How the outputs become boxes.
    pub decoder: Decoder,
    /// The names of the classes by their index: "class 3" where the model has none. Empty where
    /// their number is not known either.
    pub labels: Vec<String>,
}

impl DescribedDetector {
    /// Of what the host says of a model.
    ///
    /// # Errors
    /// Names what its `model.toml` lacks.
    pub fn new(name: &str, described: ModelDescription) -> Result<Self, String> {
        let lacks = |what: &str| format!("model {name}: {what}; a pipeline of its own can run it");
        let decoder = described
            .decoder
            .ok_or_else(|| lacks("its model.toml has no [decoder], so its outputs mean nothing"))?;
        let decoder = Decoder::read(&decoder.family, &decoder.parameters)
            .map_err(|error| format!("model {name}: {error}"))?;
        if let Decoder::Classifier(_) = decoder {
            return Err(format!("model {name}: it is a classifier, which finds no boxes"));
        }
        let PictureInput { name: input, spec } = described.picture.ok_or_else(|| {
            lacks("its model.toml has no [preprocessing] for an input of one size, f32 or u8")
        })?;
        let labels = match (described.labels, decoder.classes()) {
            (none, Some(classes)) if none.is_empty() => {
                (0..classes).map(|class| format!("class {class}")).collect()
            }
            (labels, _) => labels,
        };
        Ok(Self { model: name.to_owned(), input, spec, decoder, labels })
    }
}
