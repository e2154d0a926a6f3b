//! Limits and plain types that the modules of this pipeline share. It imports none of them.

use ocelli_sdk::Detection;
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::labels::COCO_80;

/// Zones that the settings may define. Each track is compared with each of them in every frame.
pub const MAX_ZONES: usize = 32;

/// Corners of a zone's polygon.
pub const CORNERS: std::ops::RangeInclusive<usize> = 3..=32;

/// Characters of a zone's name: it is part of every event of the zone.
pub const MAX_ZONE_NAME: usize = 64;

/// Twice the least area of a zone, as a share of the picture: about two pixels in 1080 lines.
pub(crate) const LEAST_AREA: f64 = 2e-6;

/// Events of one frame. The host ends an instance that returns more than its limit (100 unless
/// configured), and when a stream resumes after an outage, all tracks end at once, in their zones,
/// too.
pub(crate) const EVENTS_PER_FRAME: usize = 64;

/// Events that wait for the next frames. More than that are returned at once: no camera shows as
/// much, and if one does, the host's limit reports it.
pub(crate) const MAX_PENDING: usize = 2048;

/// Objects of one label that are in a zone now, or in the picture (`zone` is `None`): their entry
/// has been reported and their exit has not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Occupancy<'a> {
    pub(crate) zone: Option<&'a str>,
    pub(crate) label: &'static str,
    pub(crate) count: u64,
}

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
