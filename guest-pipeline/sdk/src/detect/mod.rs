//! Any detector whose model describes itself: by its family, its outputs become boxes.
//!
//! ```no_run
//! use ocelli_sdk::detect::Detector;
//! use ocelli_sdk::{Frame, nms};
//!
//! fn look(detector: &Detector, frame: &Frame) -> Result<(), String> {
//!     let found = detector.candidates(frame, None, 0.4, |_| true)?;
//!     for one in nms::suppress(found, 0.5) {
//!         println!("{} {:?}", detector.label(one.class), one.bbox);
//!     }
//!     Ok(())
//! }
//!
//! # fn main() -> Result<(), String> {
//! let detector = Detector::load("my-detector")?;
//! # Ok(()) }
//! ```
//!
//! | family | outputs |
//! | --- | --- |
//! | `yolov5` | [1, N, 5 + classes]: middle, size, objectness, scores |
//! | `yolov8` | [1, 4 + classes, N]: middle, size, scores; YOLOv9, 11 and 12 too |
//! | `yolov10` | [1, N, 6]: edges, score, class, suppressed already |
//! | `yolox` | [1, N, 5 + classes], relative to the cells of a grid |
//! | `nanodet` | scores, and distances as distributions over bins; NanoDet-Plus too |
//! | `detr` | queries: boxes and logits, or labels, boxes and scores |
//! | `ssd` | edges beside scores |
//! | `classifier` | no boxes: see [`classifier`](crate::classifier) |
//!
//! `models/README.md` of the repository has the keys of each family.

mod described;
mod family;
mod grid;
mod queries;
mod table;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use crate::models::{self, ModelDescription};
use crate::nanodet::{self, Variant};
use crate::nms::Candidate;
use crate::nn::{Model, OutputSource};
use crate::{Frame, Letterbox, Rect, Tensor, TensorSpec, TensorType};

pub use described::DescribedDetector;
pub use family::{
    BinnedLevels, ClassScores, Decoder, EdgeOrder, EdgeOutputs, FinishedTable, GridTable,
    QueryOutputs, ScoredTable,
};

/// A loaded model that finds boxes.
pub struct Detector {
    described: DescribedDetector,
    model: Model,
}

impl Detector {
    /// Loads a model as the host describes it.
    ///
    /// # Errors
    /// Those of [`describe`]; the host cannot run the model.
    pub fn load(name: &str) -> Result<Self, String> {
        Self::open(describe(name)?)
    }

    /// Loads a model that is described already.
    ///
    /// # Errors
    /// The host has no such model or cannot run it.
    pub fn open(described: DescribedDetector) -> Result<Self, String> {
        Ok(Self { model: Model::load(&described.model)?, described })
    }

    /// What the model sees in a part of a frame, or in all of it: candidates of `least_score` and
    /// more, of the classes that `wants` lets pass, in frame pixels and clipped to the frame. They
    /// have not been through suppression.
    ///
    /// # Errors
    /// No tensor to be had, a run that failed, outputs that are not as the model is described.
    pub fn candidates(
        &self,
        frame: &Frame,
        region: Option<Rect>,
        least_score: f32,
        wants: impl Fn(u32) -> bool,
    ) -> Result<Vec<Candidate>, String> {
        let DescribedDetector { input, spec, decoder, .. } = &self.described;
        let (tensor, placement) = frame.tensor(region, *spec).map_err(|e| e.to_string())?;
        let mut inputs = vec![(input.as_str(), tensor)];
        if let Decoder::Detr(QueryOutputs { sizes: Some(sizes), .. }) = decoder {
            inputs.push((sizes.as_str(), size_tensor(spec)));
        }
        let outputs = self.model.run(inputs)?;
        let picture = Letterbox { width: frame.width(), height: frame.height(), placement };
        self.described.in_frame(&outputs, least_score, wants, &picture)
    }

    /// The names of the classes by their index. Empty where the model has none.
    #[must_use]
    pub fn labels(&self) -> &[String] {
        &self.described.labels
    }

    /// The name of a class: "class 3" where the model has no name for it.
    #[must_use]
    pub fn label(&self, class: u32) -> Cow<'_, str> {
        label(&self.described.labels, class)
    }

    /// How the model is described.
    #[must_use]
    pub fn description(&self) -> &DescribedDetector {
        &self.described
    }
}

/// The name of a class among `labels`: "class 3" where there is none for it.
#[must_use]
pub fn label(labels: &[String], class: u32) -> Cow<'_, str> {
    match labels.get(class as usize) {
        Some(label) => Cow::Borrowed(label),
        None => Cow::Owned(format!("class {class}")),
    }
}

/// What the host knows of a detector. The models of [`nanodet::KNOWN`] are known here, too.
///
/// # Errors
/// The host has no such model; its `model.toml` does not say how to run it.
pub fn describe(name: &str) -> Result<DescribedDetector, String> {
    known(name, models::describe(name)?)
}

/// The description of a detector. A model of [`nanodet::KNOWN`] needs none.
///
/// # Errors
/// Names what the description lacks.
pub fn known(name: &str, described: ModelDescription) -> Result<DescribedDetector, String> {
    let built_in = nanodet::KNOWN.into_iter().find(|variant| variant.name == name);
    match built_in.filter(|_| described.decoder.is_none()) {
        Some(variant) => Ok(DescribedDetector::from(variant)),
        None => DescribedDetector::new(name, described),
    }
}

/// The size of the input's picture as a tensor, [[width, height]].
fn size_tensor(spec: &TensorSpec) -> Tensor {
    let sides = [spec.width, spec.height].map(|side| i64::from(side).to_le_bytes());
    Tensor::new(&[1, 2], TensorType::I64, sides.as_flattened())
}

impl From<Variant> for DescribedDetector {
    fn from(variant: Variant) -> Self {
        let names = |name: fn(&nanodet::LevelNames) -> &'static str| {
            nanodet::LEVELS.iter().map(|level| name(level).to_owned()).collect()
        };
        let decoder = Decoder::Nanodet(BinnedLevels {
            output: None,
            scores: names(|level| level.scores),
            sides: names(|level| level.sides),
            classes: nanodet::CLASSES as u32,
            strides: nanodet::STRIDES.to_vec(),
            bins: nanodet::BINS as u32,
            point: 0.5,
        });
        Self {
            model: variant.name.to_owned(),
            input: nanodet::INPUT.to_owned(),
            spec: variant.input(),
            decoder,
            labels: crate::labels::COCO_80.map(str::to_owned).to_vec(),
        }
    }
}

impl DescribedDetector {
    /// The candidates in a run's outputs, in frame pixels and clipped to the frame. What lies
    /// outside the frame altogether, in a letterbox's bars, is left out.
    ///
    /// # Errors
    /// Outputs that are not as the model is described.
    pub fn in_frame(
        &self,
        outputs: &impl OutputSource,
        least_score: f32,
        wants: impl Fn(u32) -> bool,
        picture: &Letterbox,
    ) -> Result<Vec<Candidate>, String> {
        let size = (self.spec.width, self.spec.height);
        let found = self.decoder.candidates(size, outputs, least_score, &wants);
        let mut found = found.map_err(|error| format!("model {}: {error}", self.model))?;
        for candidate in &mut found {
            candidate.bbox = picture.in_frame(&candidate.bbox);
        }
        found.retain(|candidate| candidate.bbox.is_proper());
        Ok(found)
    }
}
