//! What the modules of this pipeline share. It imports none of them.

use std::sync::Arc;

use ocelli_sdk::Detection;
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::labels::COCO_80;

/// The labels of the detector's classes, in their order. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Arc<[String]>);

impl Labels {
    /// Those of a model.
    #[must_use]
    pub fn new(labels: &[String]) -> Self {
        Self(labels.into())
    }

    /// Those of COCO.
    #[must_use]
    pub fn coco() -> Self {
        Self(COCO_80.map(str::to_owned).into())
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[String] {
        &self.0
    }

    /// The label of a class.
    #[must_use]
    pub fn of(&self, class: u32) -> &str {
        self.0.get(class as usize).map_or("unknown", String::as_str)
    }

    /// Whether a class may be the detector's.
    pub(crate) fn has(&self, class: u32) -> bool {
        self.0.is_empty() || (class as usize) < self.0.len()
    }

    /// A detection as subscribers get it. `bbox` is in frame pixels.
    pub(crate) fn detection(
        &self,
        class: u32,
        score: f32,
        bbox: BBox,
        track: Option<u64>,
    ) -> Detection {
        Detection { track, ..Detection::new(self.of(class), score, bbox) }
    }
}

/// What events and answers say of the tracks.
pub(crate) fn tracking(reliable: bool) -> &'static str {
    if reliable { "reliable" } else { "unreliable" }
}
