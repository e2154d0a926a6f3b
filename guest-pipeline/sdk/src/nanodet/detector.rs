//! The NanoDet models that pipelines know, and a detector that runs one of them. `wasi:nn` does not
//! report a model's input size, so it is defined here.

use super::level::Level;
use crate::nms::Candidate;
use crate::nn::Model;
use crate::settings::nearest;
use crate::{Channels, Frame, Letterbox, TensorSpec, labels};

/// A model, which differs from its sisters in input size or in the type of its weights, not in its
/// outputs' form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// The name in the host's catalog.
    pub name: &'static str,
    /// Width and height of the input in pixels.
    pub size: u32,
}

/// The default model: int8 weights and activations, a third of the CPU time of `nanodet-g-416` at
/// most. Sees people from 48 pixels of a picture that is 768 wide, where that sees those of 40.
pub const DEFAULT: Variant = Variant { name: "nanodet-g-320-int8", size: 320 };

/// All models that the settings may name.
pub const KNOWN: [Variant; 4] = [
    DEFAULT,
    Variant { name: "nanodet-g-416", size: 416 },
    Variant { name: "nanodet-g-320", size: 320 },
    Variant { name: "nanodet-g-416-int8", size: 416 },
];

/// The name of the models' input, [1, 3, size, size].
pub const INPUT: &str = "input";

/// Number of classes; a class's number is its label's in [`labels::COCO_80`].
pub const CLASSES: usize = labels::COCO_80.len();

/// The names of the outputs of one level.
#[derive(Debug, Clone, Copy)]
pub struct LevelNames {
    /// Input pixels from cell to cell.
    pub stride: u32,
    /// Class scores after the sigmoid, [1, cells, 80].
    pub scores: &'static str,
    /// Logits of the distances to the sides, [1, cells, 44].
    pub sides: &'static str,
}

/// The outputs, from the finest level to the coarsest.
pub const LEVELS: [LevelNames; 3] = [
    LevelNames { stride: 8, scores: "cls_s8", sides: "reg_s8" },
    LevelNames { stride: 16, scores: "cls_s16", sides: "reg_s16" },
    LevelNames { stride: 32, scores: "cls_s32", sides: "reg_s32" },
];

/// ImageNet's channel means in BGR, as NanoDet was trained with.
const MEAN: (f32, f32, f32) = (103.53, 116.28, 123.675);
/// The deviations that go with them.
const STD: (f32, f32, f32) = (57.375, 57.12, 58.395);

/// The model of that name. `path` is where the name stands: "settings.model".
///
/// # Errors
/// Names the models that are known.
pub fn find(name: &str, path: &str) -> Result<Variant, String> {
    KNOWN.into_iter().find(|v| v.name == name).ok_or_else(|| {
        let known = KNOWN.map(|v| v.name);
        let hint =
            nearest(name, known).map(|n| format!("did you mean {n:?}? ")).unwrap_or_default();
        format!("{path}: no model {name:?}: {hint}This pipeline knows {}", known.join(", "))
    })
}

/// A loaded NanoDet model.
pub struct Detector {
    variant: Variant,
    input: TensorSpec,
    model: Model,
}

impl Detector {
    /// Loads the model.
    ///
    /// # Errors
    /// The host has no such model or cannot run it.
    pub fn load(variant: Variant) -> Result<Self, String> {
        Ok(Self { variant, input: variant.input(), model: Model::load(variant.name)? })
    }

    /// What the model sees in a frame: candidates of `least_score` and more, of the classes that
    /// `wants` lets pass, in frame pixels and clipped to the frame. They have not been through
    /// suppression.
    ///
    /// # Errors
    /// No tensor to be had, a run that failed, outputs that are not this model's.
    pub fn candidates(
        &self,
        frame: &Frame,
        least_score: f32,
        wants: impl Fn(u32) -> bool,
    ) -> Result<Vec<Candidate>, String> {
        let (tensor, placement) = frame.tensor(None, self.input).map_err(|e| e.to_string())?;
        let outputs = self.model.run([(INPUT, tensor)])?;
        let picture = Letterbox { width: frame.width(), height: frame.height(), placement };
        let mut candidates = Vec::new();
        for names in LEVELS {
            let (scores, sides) = (outputs.floats(names.scores)?, outputs.floats(names.sides)?);
            let (scores, sides) = (scores.values(), sides.values());
            let level = self.variant.level(names.stride, &scores, &sides)?;
            candidates.extend(in_frame(&level, least_score, &wants, &picture));
        }
        Ok(candidates)
    }
}

/// The candidates of one level in order of the cells, their boxes in frame pixels and clipped to
/// the frame. What lies outside the frame altogether, in the letterbox's bars, is left out.
pub fn in_frame<'a>(
    level: &'a Level<'_>,
    least_score: f32,
    wants: &'a impl Fn(u32) -> bool,
    picture: &'a Letterbox,
) -> impl Iterator<Item = Candidate> + 'a {
    let hits = level.hits(least_score).into_iter().filter(|hit| wants(hit.class));
    hits.filter_map(|hit| {
        let mut candidate = level.candidate(&hit)?;
        candidate.bbox = picture.in_frame(&candidate.bbox);
        candidate.bbox.is_proper().then_some(candidate)
    })
}

impl Variant {
    /// The tensor that the model takes: letterboxed on black, BGR, normalised.
    #[must_use]
    pub fn input(&self) -> TensorSpec {
        TensorSpec {
            channels: Channels::Bgr,
            mean: MEAN,
            std: STD,
            ..TensorSpec::letterbox(self.size, self.size)
        }
    }

    /// The outputs of the level of `stride`.
    ///
    /// # Errors
    /// Outputs that are not of this model's form, or not finite.
    pub fn level<'a>(
        &self,
        stride: u32,
        scores: &'a [f32],
        sides: &'a [f32],
    ) -> Result<Level<'a>, String> {
        Level::new(self.size, stride, CLASSES, scores, sides)
            .map_err(|e| format!("model {}: {e}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;
    use crate::letterbox;

    #[test]
    fn an_unknown_model_is_answered_with_the_known_ones() {
        let error = find("nanodet-g-461", "settings.model").unwrap_err();
        assert!(error.starts_with("settings.model"), "{error}");
        for known in KNOWN {
            assert!(error.contains(known.name), "{error}");
        }
        assert!(find("yolo", "settings.model").is_err());
        assert_eq!(find("nanodet-g-320", "detect.model").map(|v| v.size), Ok(320));
    }

    /// A model of 32 x 32 pixels, whose level of stride 16 has 2 x 2 cells.
    const SMALL: Variant = Variant { name: "small", size: 32 };

    /// Scores with one class set in one cell, and sides that put every distance at one stride.
    fn outputs(cell: usize, class: usize, score: f32) -> (Vec<f32>, Vec<f32>) {
        let mut scores = vec![0.0; 4 * CLASSES];
        scores[cell * CLASSES + class] = score;
        let sides = (0..4 * 44).map(|i| if i % 11 == 1 { 50.0 } else { -50.0 }).collect();
        (scores, sides)
    }

    fn run(cell: usize, class: usize, wanted: &[u32], picture: (u32, u32)) -> Vec<Candidate> {
        let (scores, sides) = outputs(cell, class, 0.9);
        let placement = letterbox::place(picture.0, picture.1, 32, 32).unwrap();
        let picture = Letterbox { width: picture.0, height: picture.1, placement };
        let level = SMALL.level(16, &scores, &sides).unwrap();
        in_frame(&level, 0.5, &|class| wanted.contains(&class), &picture).collect()
    }

    #[test]
    fn a_box_is_taken_to_the_frame_and_clipped() {
        // 64 x 32 pixels lie at half size under 8 rows of black. Cell 1: centre (24, 8), sides 16:
        // 8..40 by -8..24 in the tensor, so 16..80 by -32..32 in the frame, of which 16..64 by
        // 0..32 is left.
        let found = run(1, 0, &[0], (64, 32));
        assert_eq!(found.len(), 1);
        let BBox { left, top, right, bottom } = found[0].bbox;
        for (got, want) in [(left, 16.0), (top, 0.0), (right, 64.0), (bottom, 32.0)] {
            assert!((got - want).abs() < 1e-4, "{got} for {want}");
        }
    }

    #[test]
    fn only_the_classes_asked_for_pass() {
        assert_eq!(run(0, 2, &[2, 16], (32, 32)).len(), 1);
        assert!(run(0, 0, &[2, 16], (32, 32)).is_empty());
    }

    #[test]
    fn a_box_in_the_bars_is_left_out() {
        // 320 x 10 pixels are one row of the tensor, row 15. Sides of no length but one stride to
        // the top and left.
        let (mut scores, mut sides) = outputs(2, 0, 0.9);
        scores[0] = 0.0;
        for side in [2, 3] {
            for cell in 0..4 {
                let from = cell * 44 + side * 11;
                sides[from..from + 11].fill(-50.0);
                sides[from] = 50.0;
            }
        }
        // Top side one tenth of a stride: from row 22.4 to 24, below the picture.
        for cell in 0..4 {
            let from = cell * 44 + 11;
            sides[from..from + 11].fill(-50.0);
            sides[from] = 9f32.ln();
            sides[from + 1] = 0.0;
        }
        let placement = letterbox::place(320, 10, 32, 32).unwrap();
        let picture = Letterbox { width: 320, height: 10, placement };
        let level = SMALL.level(16, &scores, &sides).unwrap();
        assert_eq!(level.hits(0.5).len(), 1);
        assert_eq!(in_frame(&level, 0.5, &|_| true, &picture).count(), 0);
    }
}
