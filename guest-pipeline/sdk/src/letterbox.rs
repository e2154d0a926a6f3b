//! Letterbox arithmetic: where a picture lies in a model's input, and back from there to the frame.
//!
//! The host letterboxes and returns the [`Placement`] with the tensor; [`place`] states the same
//! arithmetic, for tests and for pipelines that plan their crops.

use crate::Placement;
use crate::geometry::BBox;

/// Where a picture of `width` x `height` lies in a letterboxed tensor, all in pixels.
///
/// The aspect ratio is kept: scale = min(tensor width / width, tensor height / height). The scaled
/// size is rounded to whole pixels, at least 1, and centred, an odd remainder leaving the larger
/// border at the right and below. The scales of the placement are those of the rounded size, so the
/// picture's edges map onto the tensor's pixel edges.
///
/// `None` when a size is 0.
#[must_use]
pub fn place(width: u32, height: u32, tensor_width: u32, tensor_height: u32) -> Option<Placement> {
    if [width, height, tensor_width, tensor_height].contains(&0) {
        return None;
    }
    let (w, h) = (f64::from(width), f64::from(height));
    let scale = (f64::from(tensor_width) / w).min(f64::from(tensor_height) / h);
    let scaled = |size: f64, limit: u32| ((size * scale).round().max(1.0) as u32).min(limit);
    let (new_width, new_height) = (scaled(w, tensor_width), scaled(h, tensor_height));
    Some(Placement {
        scale_x: (f64::from(new_width) / w) as f32,
        scale_y: (f64::from(new_height) / h) as f32,
        offset_x: ((tensor_width - new_width) / 2) as f32,
        offset_y: ((tensor_height - new_height) / 2) as f32,
    })
}

/// A letterboxed tensor's frame, with its place in the tensor.
#[derive(Debug, Clone, Copy)]
pub struct Letterbox {
    /// Width of the frame in pixels.
    pub width: u32,
    /// Height of the frame in pixels.
    pub height: u32,
    /// The frame's place in the tensor.
    pub placement: Placement,
}

impl Letterbox {
    /// A box of the tensor in frame pixels, clipped to the frame.
    #[must_use]
    pub fn in_frame(&self, b: &BBox) -> BBox {
        self.placement.box_to_frame(b).clip(self.width as f32, self.height as f32)
    }
}

impl Placement {
    /// A point of the frame in tensor pixels.
    #[must_use]
    pub fn to_tensor(&self, x: f32, y: f32) -> (f32, f32) {
        (x * self.scale_x + self.offset_x, y * self.scale_y + self.offset_y)
    }

    /// A point of the tensor in frame pixels.
    #[must_use]
    pub fn to_frame(&self, x: f32, y: f32) -> (f32, f32) {
        ((x - self.offset_x) / self.scale_x, (y - self.offset_y) / self.scale_y)
    }

    /// A box of the frame in tensor pixels.
    #[must_use]
    pub fn box_to_tensor(&self, b: &BBox) -> BBox {
        let ((left, top), (right, bottom)) =
            (self.to_tensor(b.left, b.top), self.to_tensor(b.right, b.bottom));
        BBox { left, top, right, bottom }
    }

    /// A box of the tensor in frame pixels; it may reach over the frame's edges, see
    /// [`BBox::clip`].
    #[must_use]
    pub fn box_to_frame(&self, b: &BBox) -> BBox {
        let ((left, top), (right, bottom)) =
            (self.to_frame(b.left, b.top), self.to_frame(b.right, b.bottom));
        BBox { left, top, right, bottom }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wide_picture_gets_bars_above_and_below() {
        // 768 x 576 at 416 x 416: scale 416 / 768, so 416 x 312 with 52 rows above and below.
        let p = place(768, 576, 416, 416).unwrap();
        assert_eq!((p.offset_x, p.offset_y), (0.0, 52.0));
        assert_eq!((p.scale_x, p.scale_y), (416.0 / 768.0, 312.0 / 576.0));
    }

    #[test]
    fn an_odd_remainder_is_halved_downwards() {
        // 100 x 33 at 50 x 50: 50 x 17 (16.5 rounds up), 33 rows left, 16 of them above.
        let p = place(100, 33, 50, 50).unwrap();
        assert_eq!((p.offset_x, p.offset_y), (0.0, 16.0));
        assert_eq!(p.scale_y, 17.0 / 33.0);
    }

    #[test]
    fn a_size_of_zero_has_no_placement() {
        assert!(place(0, 10, 10, 10).is_none());
        assert!(place(10, 10, 10, 0).is_none());
    }

    proptest! {
        #[test]
        fn a_box_comes_back_from_the_tensor(
            (w, h) in (1u32..4096, 1u32..4096),
            (tw, th) in (16u32..1024, 16u32..1024),
            edges in prop::array::uniform4(0f32..1.0),
        ) {
            let p = place(w, h, tw, th).unwrap();
            let (fw, fh) = (w as f32, h as f32);
            let b = BBox { left: edges[0] * fw, top: edges[1] * fh, right: edges[2] * fw, bottom: edges[3] * fh };
            let back = p.box_to_frame(&p.box_to_tensor(&b));
            // The offset (below 1024) costs single precision about 1e-4 tensor pixels, which the
            // scale enlarges.
            let tolerance = 2e-4 / p.scale_x.min(p.scale_y) + 1e-3;
            for (x, y) in [(b.left, back.left), (b.top, back.top), (b.right, back.right), (b.bottom, back.bottom)] {
                prop_assert!((x - y).abs() <= tolerance, "{x} came back as {y}");
            }
        }

        #[test]
        fn the_picture_lies_within_the_tensor(
            (w, h) in (1u32..8192, 1u32..8192),
            (tw, th) in (1u32..1024, 1u32..1024),
        ) {
            let p = place(w, h, tw, th).unwrap();
            let (right, bottom) = p.to_tensor(w as f32, h as f32);
            prop_assert!(p.offset_x >= 0.0 && p.offset_y >= 0.0);
            prop_assert!(right <= tw as f32 + 1e-2 && bottom <= th as f32 + 1e-2);
            prop_assert!(right > tw as f32 - 1.1 || bottom > th as f32 - 1.1, "one axis fills the \
                tensor");
        }
    }
}
