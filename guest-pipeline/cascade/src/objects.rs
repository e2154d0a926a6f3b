//! Limits and plain types that the modules of this pipeline share. It imports none of them.

use ocelli_sdk::geometry::BBox;

/// The label of every face.
pub const FACE: &str = "face";

/// Levels of stages. Each level multiplies the time of a frame.
pub const MAX_DEPTH: usize = 4;

/// Stages of a tree: each is a loaded model.
pub const MAX_STAGES: usize = 16;

/// Crops of a frame that the settings may allow: at 10 ms each, seconds.
pub const MAX_CROPS: usize = 256;

/// Crops of one run: 8 of 224 x 224 fill 4.8 MB of the 8 MiB that a session has for tensors.
pub const MAX_BATCH: usize = 8;

/// Side of a classifier's input in pixels: one input of this size fits into the session's tensors
/// beside its outputs.
pub const MAX_SIDE: u32 = 768;

/// A region of interest: a detection, or an object that a stage found in one.
#[derive(Debug, Clone, PartialEq)]
pub struct Roi {
    /// The label that the next stages select by.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// In frame pixels.
    pub bbox: BBox,
}
