//! What the modules of this pipeline share. It imports none of them.

use ocelli_sdk::Detection;
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::labels::COCO_80;

/// The label of a class of the detector.
#[must_use]
pub fn label(class: u32) -> &'static str {
    COCO_80.get(class as usize).copied().unwrap_or("unknown")
}

/// What events and answers say of the tracks.
pub(crate) fn tracking(reliable: bool) -> &'static str {
    if reliable { "reliable" } else { "unreliable" }
}

/// A detection as subscribers get it. `bbox` is in frame pixels.
pub(crate) fn detection(class: u32, score: f32, bbox: BBox, track: Option<u64>) -> Detection {
    Detection { track, ..Detection::new(label(class), score, bbox) }
}
