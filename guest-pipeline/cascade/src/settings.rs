//! The form in which a tree is written down, and its JSON Schema. What it means is checked in
//! [`crate::tree`].

use ocelli_sdk::classifier::Activation;
use ocelli_sdk::{centerface, faceres, nanodet};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::objects::{MAX_BATCH, MAX_CROPS, MAX_SIDE};

/// The settings. Without `detect` and `stages` both they are [`default_tree`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) detect: Option<DetectSettings>,
    pub(crate) stages: Option<Vec<StageSettings>>,
    #[serde(default = "default_max_crops")]
    pub(crate) max_crops: usize,
    pub(crate) max_results_per_second: Option<f64>,
}

/// Crops of a frame where the settings say nothing: at the time of a face's reading, half a second
/// of a core.
fn default_max_crops() -> usize {
    32
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum DetectorKind {
    Nanodet,
    Centerface,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DetectSettings {
    pub(crate) kind: DetectorKind,
    pub(crate) model: Option<String>,
    pub(crate) score: Option<f32>,
    pub(crate) iou: Option<f32>,
    pub(crate) labels: Option<Vec<String>>,
    pub(crate) size: Option<[u32; 2]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum StageKind {
    Centerface,
    Faceres,
    Classifier,
}

impl StageKind {
    /// As the settings write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Centerface => "centerface",
            Self::Faceres => "faceres",
            Self::Classifier => "classifier",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StageSettings {
    pub(crate) kind: StageKind,
    pub(crate) model: Option<String>,
    #[serde(rename = "for", default)]
    pub(crate) labels_of: Vec<String>,
    #[serde(default)]
    pub(crate) min_score: f32,
    #[serde(default)]
    pub(crate) crop: CropSettings,
    #[serde(rename = "as")]
    pub(crate) name: Option<String>,
    #[serde(default)]
    pub(crate) stages: Vec<StageSettings>,
    // Of centerface.
    pub(crate) score: Option<f32>,
    pub(crate) size: Option<[u32; 2]>,
    // Of faceres.
    pub(crate) embedding: Option<bool>,
    // Of classifier.
    pub(crate) labels: Option<Vec<String>>,
    pub(crate) top: Option<usize>,
    pub(crate) activation: Option<Activation>,
    pub(crate) batch: Option<usize>,
    pub(crate) input: Option<InputSettings>,
    pub(crate) output: Option<String>,
}

/// The crop about a box.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CropSettings {
    pub(crate) expand: f32,
    pub(crate) square: bool,
}

impl Default for CropSettings {
    fn default() -> Self {
        Self { expand: 1.0, square: false }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Channels {
    Rgb,
    Bgr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Fit {
    Letterbox,
    Stretch,
}

/// A classifier's input: f32, [n, 3, height, width].
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct InputSettings {
    pub(crate) name: String,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) channels: Channels,
    pub(crate) fit: Fit,
    pub(crate) fill: [f32; 3],
    pub(crate) mean: [f32; 3],
    pub(crate) std: [f32; 3],
}

impl Default for InputSettings {
    fn default() -> Self {
        Self {
            name: "input".into(),
            width: 224,
            height: 224,
            channels: Channels::Rgb,
            fit: Fit::Letterbox,
            fill: [0.0; 3],
            // ImageNet's, on pixel values 0 to 255: what most classifiers were trained with.
            mean: [123.675, 116.28, 103.53],
            std: [58.395, 57.12, 57.375],
        }
    }
}

/// Person, face, age and gender.
#[must_use]
pub fn default_tree() -> Value {
    json!({
        "detect": {
            "kind": DetectorKind::Nanodet, "model": nanodet::DEFAULT.name, "score": 0.4, "labels": ["person"]
        },
        "stages": [{
            "for": ["person"],
            "min_score": 0.5,
            "kind": StageKind::Centerface,
            "model": centerface::MODEL,
            "size": [256, 256],
            "as": "face",
            "stages": [{
                "for": ["face"],
                "crop": { "expand": 1.2, "square": true },
                "kind": StageKind::Faceres,
                "model": faceres::MODEL
            }]
        }]
    })
}

/// The JSON Schema of the settings.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of cascade",
        "type": "object",
        "additionalProperties": false,
        "default": default_tree(),
        "properties": {
            "detect": detect_schema(),
            "stages": stages_schema(),
            "max_crops": {
                "type": "integer", "minimum": 1, "maximum": MAX_CROPS, "default": default_max_crops(),
                "description": "Most crops of a frame that the stages look at together; the best \
                    detections come first."
            },
            "max_results_per_second": {
                "type": ["number", "null"], "exclusiveMinimum": 0, "default": null,
                "description": "Look at no more frames than this a second of the stream. Null: at \
                    every frame that comes."
            }
        },
        "$defs": { "stage": stage_schema() }
    })
}

/// The object `detect`.
fn detect_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind"],
        "description": "Looks at the whole frame.",
        "properties": {
            "kind": { "enum": [DetectorKind::Nanodet, DetectorKind::Centerface] },
            "model": model_schema(),
            "score": share_schema("Detections of this score and more are reported. Left out: 0.4 \
                for nanodet, 0.5 for centerface."),
            "iou": share_schema("Of two boxes of one label that overlap by more, the better \
                stands. Left out: 0.5 for nanodet, 0.3 for centerface."),
            "labels": texts_schema("nanodet: the labels to look for. None: all."),
            "size": size_schema()
        }
    })
}

/// An object of `stages`, at any depth.
fn stage_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["kind"],
        "description": "Looks at crops of what is above it.",
        "properties": {
            "kind": { "enum": [StageKind::Centerface, StageKind::Faceres, StageKind::Classifier] },
            "model": model_schema(),
            "for": texts_schema("Labels that it looks at. None: all."),
            "min_score": {
                "type": "number", "minimum": 0, "maximum": 1, "default": 0,
                "description": "Least score of what it looks at."
            },
            "crop": crop_schema(),
            "as": { "type": "string", "description": "What its attributes are called; stages \
                below it add theirs after a dot." },
            "stages": stages_schema(),
            "score": share_schema("centerface: least score of a face. Left out: 0.5."),
            "size": size_schema(),
            "embedding": { "type": "boolean", "default": false, "description": "faceres: whether \
                the detection gets the embedding." },
            "labels": {
                "type": "array", "items": { "type": "string" }, "minItems": 1,
                "description": "classifier: its classes, in the output's order."
            },
            "top": { "type": "integer", "minimum": 1, "default": 1, "description": "classifier: \
                how many of the best classes are reported." },
            "activation": { "enum": ["softmax", "sigmoid", "none"], "default": "softmax", "description": "classifier: what makes scores of its output." },
            "batch": { "type": "integer", "minimum": 1, "maximum": MAX_BATCH, "default": 1, "description": "classifier: crops in a run. More than 1 needs a model whose first dimension is open." },
            "input": input_schema(),
            "output": { "type": "string", "default": "output", "description": "classifier: its \
                output's name, [n, labels]." }
        }
    })
}

/// The object `crop` of a stage.
fn crop_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "The crop about the box: made square by its longer side, then enlarged.",
        "properties": {
            "expand": { "type": "number", "minimum": 0.1, "maximum": 10, "default": 1 },
            "square": { "type": "boolean", "default": false }
        }
    })
}

/// The object `input` of a classifier.
fn input_schema() -> Value {
    let side = json!({ "type": "integer", "minimum": 1, "maximum": MAX_SIDE, "default": 224 });
    let three = |description: &str| json!({ "type": "array", "items": { "type": "number" }, "minItems": 3, "maxItems": 3, "description": description });
    json!({
        "type": "object",
        "additionalProperties": false,
        "description": "classifier: its input, f32 [n, 3, height, width].",
        "properties": {
            "name": { "type": "string", "default": "input" },
            "width": side,
            "height": side,
            "channels": { "enum": ["rgb", "bgr"], "default": "rgb" },
            "fit": { "enum": ["letterbox", "stretch"], "default": "letterbox" },
            "fill": three("Pixel value of what a letterbox leaves empty."),
            "mean": three("Subtracted from pixels of 0 to 255, in the order of the channels."),
            "std": three("Then divided by.")
        }
    })
}

fn model_schema() -> Value {
    json!({ "type": "string", "description": "The model's name. Left out: the kind's usual one." })
}

fn stages_schema() -> Value {
    json!({ "type": "array", "items": { "$ref": "#/$defs/stage" } })
}

/// A number above 0 and up to 1.
fn share_schema(description: &str) -> Value {
    json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1, "description": description })
}

fn texts_schema(description: &str) -> Value {
    json!({ "type": "array", "items": { "type": "string" }, "description": description })
}

/// Width and height of CenterFace's input.
fn size_schema() -> Value {
    json!({
        "type": "array",
        "items": { "type": "integer", "minimum": centerface::SIDE_STEP, "multipleOf": centerface::SIDE_STEP },
        "minItems": 2,
        "maxItems": 2,
        "description": "centerface: width and height of its input."
    })
}
