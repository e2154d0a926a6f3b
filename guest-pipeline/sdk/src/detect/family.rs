//! The families of detectors, with what each has to know of its outputs: the table `[decoder]` of a
//! `model.toml`.

use serde::Deserialize;

use super::{grid, queries, table};
use crate::classifier::Activation;
use crate::nms::Candidate;
use crate::nn::OutputSource;

/// The form of a model's outputs.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum Decoder {
    /// [1, N, 5 + classes].
    Yolov5(ScoredTable),
    /// [1, 4 + classes, N].
    Yolov8(ScoredTable),
    /// [1, N, 6].
    Yolov10(FinishedTable),
    /// [1, N, 5 + classes], relative to the cells of a grid.
    Yolox(GridTable),
    /// Distances as distributions over bins.
    Nanodet(BinnedLevels),
    /// A fixed number of queries.
    Detr(QueryOutputs),
    /// Edges beside scores.
    Ssd(EdgeOutputs),
    /// No boxes.
    Classifier(ClassScores),
}

/// The names of the families, as `model.toml` writes them.
const FAMILIES: [&str; 8] =
    ["yolov5", "yolov8", "yolov10", "yolox", "nanodet", "detr", "ssd", "classifier"];

/// One output with a box and its scores in each row or column. Boxes are in input pixels.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ScoredTable {
    /// Its name.
    pub output: String,
    /// Number of scores.
    pub classes: u32,
}

/// One output whose rows are finished detections. Boxes are in input pixels.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct FinishedTable {
    /// Its name.
    pub output: String,
}

/// One output with a row for each cell of each level, the finest first.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct GridTable {
    /// Its name.
    pub output: String,
    /// Number of scores.
    pub classes: u32,
    /// Input pixels from cell to cell, level by level.
    pub strides: Vec<u32>,
}

/// The outputs of NanoDet: one, or two for each level.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BinnedLevels {
    /// The one, [1, N, classes + 4 * bins].
    pub output: Option<String>,
    /// For each level [1, cells, classes].
    #[serde(default)]
    pub scores: Vec<String>,
    /// For each level [1, cells, 4 * bins].
    #[serde(default)]
    pub sides: Vec<String>,
    /// Number of scores.
    pub classes: u32,
    /// Input pixels from cell to cell, level by level.
    pub strides: Vec<u32>,
    /// Bins of a side.
    pub bins: u32,
    /// Where in a cell its point lies, in strides.
    pub point: f32,
}

/// The outputs of DETR in one of three forms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct QueryOutputs {
    /// [1, queries, 4 + classes].
    pub output: Option<String>,
    /// [1, queries, 4].
    pub boxes: Option<String>,
    /// [1, queries, classes], before the sigmoid.
    pub logits: Option<String>,
    /// [1, queries]: class numbers.
    pub labels: Option<String>,
    /// [1, queries].
    pub scores: Option<String>,
    /// The input, i64 [1, 2], that takes the picture's width and height.
    pub sizes: Option<String>,
}

/// The outputs of SSD: boxes by their edges beside their scores.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct EdgeOutputs {
    /// [1, N, 4].
    pub boxes: String,
    /// [1, N, classes]; with `labels` [1, N].
    pub scores: String,
    /// [1, N]: class numbers.
    pub labels: Option<String>,
    /// The order of a box's edges.
    pub order: EdgeOrder,
    /// Whether edges are shares of the picture, and not input pixels.
    pub unit: bool,
    /// The class number, or the column of `scores`, of the first label.
    pub first: u32,
}

/// The order of a box's edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EdgeOrder {
    /// Left, top, right, bottom.
    Xyxy,
    /// Top, left, bottom, right.
    Yxyx,
}

/// The output of a classifier, [n, classes].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ClassScores {
    /// Its name.
    pub output: String,
    /// The function from its numbers to scores.
    pub activation: Activation,
}

impl Decoder {
    /// Reads the table of a model, JSON.
    ///
    /// # Errors
    /// A family that is not known here, a key that it lacks.
    pub fn read(family: &str, parameters: &str) -> Result<Self, String> {
        if !FAMILIES.contains(&family) {
            let known = FAMILIES.join(", ");
            return Err(format!(
                "its decoder is of the family {family:?}; this pipeline knows {known}"
            ));
        }
        serde_json::from_str(parameters).map_err(|error| format!("its [decoder]: {error}"))
    }

    /// The number of classes, of a family whose table says it.
    pub(super) fn classes(&self) -> Option<u32> {
        match self {
            Self::Yolov5(ScoredTable { classes, .. })
            | Self::Yolov8(ScoredTable { classes, .. })
            | Self::Yolox(GridTable { classes, .. })
            | Self::Nanodet(BinnedLevels { classes, .. }) => Some(*classes),
            Self::Yolov10(_) | Self::Detr(_) | Self::Ssd(_) | Self::Classifier(_) => None,
        }
    }

    /// The candidates in a run's outputs that score `least_score` or more and whose class `wants`
    /// lets pass, boxes in input pixels. `size` is width and height of the input.
    ///
    /// # Errors
    /// Outputs that do not have the family's form.
    pub fn candidates(
        &self,
        size: (u32, u32),
        outputs: &impl OutputSource,
        least_score: f32,
        wants: &impl Fn(u32) -> bool,
    ) -> Result<Vec<Candidate>, String> {
        match self {
            Self::Yolov5(form) => table::yolov5(form, outputs, least_score, wants),
            Self::Yolov8(form) => table::yolov8(form, outputs, least_score, wants),
            Self::Yolov10(form) => table::yolov10(form, outputs, least_score, wants),
            Self::Yolox(form) => grid::yolox(form, size, outputs, least_score, wants),
            Self::Nanodet(form) => grid::nanodet(form, size, outputs, least_score, wants),
            Self::Detr(form) => queries::detr(form, size, outputs, least_score, wants),
            Self::Ssd(form) => queries::ssd(form, size, outputs, least_score, wants),
            Self::Classifier(_) => Err("a classifier finds no boxes".into()),
        }
    }
}
