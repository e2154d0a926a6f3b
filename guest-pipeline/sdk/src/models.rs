//! What the host knows of its models, by their `model.toml`. [`detect`](crate::detect) does the
//! rest for detectors.

use crate::bindings::ocelli::pipeline::models as host;

pub use host::{Decoder as DecoderTable, ModelDescription, PictureInput, TensorDescription};

/// Describes a model. Natively, in tests, it is as `testing::describe_model` says.
///
/// # Errors
/// The host has no model of that name; the text lists those that there are.
pub fn describe(name: &str) -> Result<ModelDescription, String> {
    #[cfg(target_family = "wasm")]
    return host::describe(name);
    #[cfg(not(target_family = "wasm"))]
    return crate::native::model::description(name);
}
