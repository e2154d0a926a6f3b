//! Shorthands for the contract's records.

use crate::geometry::BBox;
use crate::{
    Basis, Channels, Detection, Element, Event, Fit, Layout, Output, Rect, Source, TensorSpec,
};

impl TensorSpec {
    /// A letterboxed f32 NCHW tensor in RGB with black borders, pixels left in 0 to 255. Change
    /// what differs with struct update syntax. `width` and `height` in pixels.
    #[must_use]
    pub fn letterbox(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            fit: Fit::Letterbox,
            channels: Channels::Rgb,
            layout: Layout::Nchw,
            element: Element::F32,
            fill: (0.0, 0.0, 0.0),
            mean: (0.0, 0.0, 0.0),
            std: (1.0, 1.0, 1.0),
        }
    }
}

impl Detection {
    /// A detection without track, attributes and embedding. `score` is 0 to 1, `bbox` in frame
    /// pixels.
    #[must_use]
    pub fn new(label: impl Into<String>, score: f32, bbox: BBox) -> Self {
        Self {
            label: label.into(),
            score,
            box_: bbox.into(),
            track: None,
            attributes: Vec::new(),
            embedding: None,
        }
    }
}

impl Event {
    /// An event that says only what happened.
    #[must_use]
    pub fn new(kind: impl Into<String>) -> Self {
        Self {
            kind: kind.into(),
            detections: Vec::new(),
            data: String::new(),
            attachments: Vec::new(),
        }
    }
}

impl Output {
    /// The output of a frame that the pipeline did not look at: nothing is sent to the subscribers.
    #[must_use]
    pub fn skipped() -> Self {
        Self { detections: None, events: Vec::new(), basis: None }
    }

    /// What was found in the frame, without events.
    #[must_use]
    pub fn found(detections: Vec<Detection>) -> Self {
        Self { detections: Some(detections), ..Self::skipped() }
    }

    /// The same with these events.
    #[must_use]
    pub fn with_events(self, events: Vec<Event>) -> Self {
        Self { events, ..self }
    }

    /// The same, resting on this. A pipeline that runs its model on every frame need not say so.
    #[must_use]
    pub fn resting_on(self, basis: Basis) -> Self {
        Self { basis: Some(basis), ..self }
    }
}

impl Basis {
    /// A model ran on this frame.
    #[must_use]
    pub fn model() -> Self {
        Self { source: Source::Model, model_age: 0 }
    }

    /// Pixels were followed since a model ran, so many nanoseconds of presentation time ago.
    #[must_use]
    pub fn flow(model_age: u64) -> Self {
        Self { source: Source::Flow, model_age }
    }

    /// Extrapolated since a model ran, so many nanoseconds of presentation time ago.
    #[must_use]
    pub fn predicted(model_age: u64) -> Self {
        Self { source: Source::Predicted, model_age }
    }
}

impl From<BBox> for Rect {
    fn from(b: BBox) -> Self {
        Self { x: b.left, y: b.top, width: b.right - b.left, height: b.bottom - b.top }
    }
}

impl From<Rect> for BBox {
    fn from(r: Rect) -> Self {
        Self { left: r.x, top: r.y, right: r.x + r.width, bottom: r.y + r.height }
    }
}
