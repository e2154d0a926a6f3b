//! What the host tells a worker of the models that its session may use, so that a pipeline can run
//! one that it was not written for (`ocelli:pipeline/models`).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::inference::TensorDeclaration;

/// The descriptions of a catalog's models by their names: the payload of
/// [`ToWorker::Start`](crate::worker::ToWorker::Start), in postcard.
pub type ModelDescriptions = BTreeMap<String, ModelDescription>;

/// What is known of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelDescription {
    /// Inputs as `model.toml` declares them.
    pub inputs: Vec<TensorDeclaration>,
    /// Outputs as `model.toml` declares them.
    pub outputs: Vec<TensorDeclaration>,
    /// The input that takes a picture, if how is known.
    pub picture: Option<PictureInput>,
    /// How the outputs become boxes or classes, if that is known.
    pub decoder: Option<DecoderTable>,
    /// Names of the classes by their index.
    pub labels: Vec<String>,
}

/// The table `[decoder]` of a `model.toml`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecoderTable {
    /// The outputs' form: "yolov8".
    pub family: String,
    /// The whole table, a JSON object.
    pub parameters: String,
}

/// The input of a model that takes a picture, and how a frame becomes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PictureInput {
    /// Its name in the graph.
    pub name: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The order of its axes.
    pub layout: AxisOrder,
    /// Whether it takes bytes, pixels as they are, and not `f32`.
    pub bytes: bool,
    pub channels: ChannelOrder,
    pub fit: PictureFit,
    /// Subtracted from a pixel of 0 to 255, channel by channel.
    pub mean: [f32; 3],
    /// Divisor of the difference.
    pub std: [f32; 3],
    /// Pixel value of what a letterbox leaves empty.
    pub fill: [f32; 3],
}

/// The order of a picture's axes in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AxisOrder {
    /// [1, 3, height, width].
    Nchw,
    /// [1, height, width, 3].
    Nhwc,
}

/// The order of a picture's channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ChannelOrder {
    Rgb,
    Bgr,
}

/// How a picture of another aspect ratio is brought to an input's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum PictureFit {
    /// The aspect ratio is kept, and what is left is filled.
    Letterbox,
    /// Both axes are scaled on their own.
    Stretch,
}
