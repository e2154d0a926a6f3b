//! Regions of a picture and where they land in a tensor.

use ocelli_protocol::worker::Rect;

use super::picture::Picture;
use super::spec::{Fit, FrameError, Placement, TensorSpec};

/// A region inside a picture, in luma pixels from the picture's left upper corner, as it is shown
/// or as it is coded. It has an area.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Region {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Region {
    /// The part of `rect` that lies in the picture; without a `rect`, all of it. As shown.
    pub(super) fn of(picture: &Picture, rect: Option<Rect>) -> Result<Self, FrameError> {
        let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
        let Some(rect) = rect else { return Ok(Self { x: 0.0, y: 0.0, width, height }) };
        let (left, top) = (f64::from(rect.x), f64::from(rect.y));
        let (right, bottom) = (left + f64::from(rect.width), top + f64::from(rect.height));
        let refuse = |why| {
            let Rect { x, y, width: w, height: h } = rect;
            FrameError::InvalidRegion(format!(
                "{w} x {h} at ({x}, {y}) {why}; the frame has {width} x {height}"
            ))
        };
        if ![left, top, right, bottom].iter().all(|edge| edge.is_finite()) {
            return Err(refuse("is not finite"));
        }
        if rect.width <= 0.0 || rect.height <= 0.0 {
            return Err(refuse("has no area"));
        }
        let (x, y) = (left.max(0.0), top.max(0.0));
        let inside = Self { x, y, width: right.min(width) - x, height: bottom.min(height) - y };
        if inside.width <= 0.0 || inside.height <= 0.0 {
            return Err(refuse("lies outside the frame"));
        }
        Ok(inside)
    }

    /// The coded pixels of this region of the picture as shown.
    pub(super) fn coded(self, picture: &Picture) -> Self {
        let (left, top) = picture.coded((self.x, self.y));
        let (right, bottom) = picture.coded((self.x + self.width, self.y + self.height));
        let (width, height) = picture.orientation().shown((self.width, self.height));
        // Counted from the other edge, the first place may come out below 0 by a rounding.
        Self { x: left.min(right).max(0.0), y: top.min(bottom).max(0.0), width, height }
    }

    /// The smallest region of whole pixels around it.
    pub(super) fn whole_pixels(self) -> Self {
        let (x, y) = (self.x.floor(), self.y.floor());
        Self {
            x,
            y,
            width: (self.x + self.width).ceil() - x,
            height: (self.y + self.height).ceil() - y,
        }
    }
}

/// The place of a region's pixels in a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) left: u32,
    pub(super) top: u32,
    pub(super) width: u32,
    pub(super) height: u32,
}

impl Target {
    /// Fits a region to a tensor. A letterbox scales by the smaller of both axes' scales, rounds
    /// the size to whole pixels and puts what is left over, half of it rounded down, to the left
    /// and above.
    pub(super) fn of(region: &Region, spec: &TensorSpec) -> Self {
        match spec.fit {
            Fit::Stretch => Self { left: 0, top: 0, width: spec.width, height: spec.height },
            Fit::Letterbox => {
                let scale = (f64::from(spec.width) / region.width)
                    .min(f64::from(spec.height) / region.height);
                let width = side(region.width * scale, spec.width);
                let height = side(region.height * scale, spec.height);
                Self {
                    left: (spec.width - width) / 2,
                    top: (spec.height - height) / 2,
                    width,
                    height,
                }
            }
        }
    }

    /// The way from frame coordinates to tensor coordinates. It is that of the pixels, whose size
    /// was rounded; so the scales of a letterbox differ by up to half a pixel over the picture's
    /// side.
    pub(super) fn placement(&self, region: &Region) -> Placement {
        let (scale_x, scale_y) =
            (f64::from(self.width) / region.width, f64::from(self.height) / region.height);
        Placement {
            scale_x: scale_x as f32,
            scale_y: scale_y as f32,
            offset_x: (f64::from(self.left) - region.x * scale_x) as f32,
            offset_y: (f64::from(self.top) - region.y * scale_y) as f32,
        }
    }
}

/// A side in whole pixels: at least one, ties to even, as Python's `round` has it in the models'
/// reference code.
fn side(length: f64, bound: u32) -> u32 {
    (length.round_ties_even() as u32).clamp(1, bound)
}
