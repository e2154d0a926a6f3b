//! The NanoDet models that this pipeline knows. wasi:nn cannot be asked for a model's input size, so it
//! stands here.

use ocelli_sdk::nanodet::Level;
use ocelli_sdk::settings::nearest;
use ocelli_sdk::{Channels, TensorSpec, labels};

/// A model, which differs from its sisters in input size or in the type of its weights, not in its outputs'
/// form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    /// The name in the host's catalogue.
    pub name: &'static str,
    /// Width and height of the input in pixels.
    pub size: u32,
}

/// The model that is used where the settings name none.
pub const DEFAULT: Variant = Variant { name: "nanodet-g-416", size: 416 };

/// All models that the settings may name.
pub const KNOWN: [Variant; 3] = [
    DEFAULT,
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

/// The model of that name.
///
/// # Errors
/// Names the models that are known.
pub fn find(name: &str) -> Result<Variant, String> {
    KNOWN.into_iter().find(|v| v.name == name).ok_or_else(|| {
        let known = KNOWN.map(|v| v.name);
        let hint = nearest(name, known).map(|n| format!("did you mean {n:?}? ")).unwrap_or_default();
        format!("settings.model: no model {name:?}: {hint}This pipeline knows {}", known.join(", "))
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
    pub fn level<'a>(&self, stride: u32, scores: &'a [f32], sides: &'a [f32]) -> Result<Level<'a>, String> {
        Level::new(self.size, stride, CLASSES, scores, sides).map_err(|e| format!("model {}: {e}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_model_is_answered_with_the_known_ones() {
        let error = find("nanodet-g-461").unwrap_err();
        assert!(error.starts_with("settings.model"), "{error}");
        for known in KNOWN {
            assert!(error.contains(known.name), "{error}");
        }
        assert!(find("yolo").is_err());
        assert_eq!(find("nanodet-g-320").map(|v| v.size), Ok(320));
    }
}
