//! Axis-aligned boxes by their edges.

/// A box, in pixels of the frame or of a model's input as its giver says. The y axis points down.
#[derive(Debug, Clone, Copy, PartialEq, Default, serde::Serialize, serde::Deserialize)]
pub struct BBox {
    /// Smallest x.
    pub left: f32,
    /// Smallest y.
    pub top: f32,
    /// Largest x.
    pub right: f32,
    /// Largest y.
    pub bottom: f32,
}

impl BBox {
    /// A box by its left and upper edge and its size.
    #[must_use]
    pub const fn from_xywh(x: f32, y: f32, width: f32, height: f32) -> Self {
        Self { left: x, top: y, right: x + width, bottom: y + height }
    }

    /// Right minus left edge; not above 0 for a box that has no area.
    #[must_use]
    pub fn width(&self) -> f32 {
        self.right - self.left
    }

    /// Lower minus upper edge; not above 0 for a box that has no area.
    #[must_use]
    pub fn height(&self) -> f32 {
        self.bottom - self.top
    }

    /// Square pixels, never below 0.
    #[must_use]
    pub fn area(&self) -> f32 {
        self.width().max(0.0) * self.height().max(0.0)
    }

    /// Whether all edges are finite and the box has an area.
    #[must_use]
    pub fn is_proper(&self) -> bool {
        [self.left, self.top, self.right, self.bottom].iter().all(|edge| edge.is_finite())
            && self.width() > 0.0
            && self.height() > 0.0
    }

    /// Intersection over union with another box: 0 for boxes that do not overlap, 1 for equal ones.
    #[must_use]
    pub fn iou(&self, other: &Self) -> f32 {
        let width = self.right.min(other.right) - self.left.max(other.left);
        let height = self.bottom.min(other.bottom) - self.top.max(other.top);
        let intersection = width.max(0.0) * height.max(0.0);
        if intersection > 0.0 {
            intersection / (self.area() + other.area() - intersection)
        } else {
            0.0
        }
    }

    /// The box grown by `factor` about its middle.
    #[must_use]
    pub fn expanded(&self, factor: f32) -> Self {
        self.about_middle(self.width() * factor, self.height() * factor)
    }

    /// The square about the box's middle whose side is the longer of the box's.
    #[must_use]
    pub fn square(&self) -> Self {
        let side = self.width().max(self.height());
        self.about_middle(side, side)
    }

    fn about_middle(&self, width: f32, height: f32) -> Self {
        let (x, y) = (self.left + self.width() / 2.0, self.top + self.height() / 2.0);
        Self::from_xywh(x - width / 2.0, y - height / 2.0, width, height)
    }

    /// The part of the box within 0 to `width` and 0 to `height`.
    #[must_use]
    pub fn clip(&self, width: f32, height: f32) -> Self {
        Self {
            left: self.left.clamp(0.0, width),
            top: self.top.clamp(0.0, height),
            right: self.right.clamp(0.0, width),
            bottom: self.bottom.clamp(0.0, height),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_is_the_shared_area_over_the_joint_area() {
        let a = BBox::from_xywh(0.0, 0.0, 10.0, 10.0);
        let b = BBox::from_xywh(5.0, 0.0, 10.0, 10.0);
        assert!((a.iou(&b) - 50.0 / 150.0).abs() < 1e-6);
        assert_eq!(a.iou(&a), 1.0);
        assert_eq!(
            a.iou(&BBox::from_xywh(10.0, 0.0, 5.0, 5.0)),
            0.0,
            "touching boxes do not overlap"
        );
        assert_eq!(BBox::default().iou(&BBox::default()), 0.0, "no area, no division by zero");
    }

    #[test]
    fn a_box_grows_about_its_middle() {
        let b = BBox::from_xywh(10.0, 20.0, 10.0, 40.0);
        assert_eq!(b.expanded(1.5), BBox::from_xywh(7.5, 10.0, 15.0, 60.0));
        assert_eq!(b.square(), BBox::from_xywh(-5.0, 20.0, 40.0, 40.0));
    }

    #[test]
    fn a_clipped_box_lies_within_the_frame() {
        let clipped = BBox::from_xywh(-5.0, 90.0, 20.0, 20.0).clip(100.0, 100.0);
        assert_eq!(clipped, BBox { left: 0.0, top: 90.0, right: 15.0, bottom: 100.0 });
        assert!(!BBox::from_xywh(-20.0, 0.0, 10.0, 10.0).clip(100.0, 100.0).is_proper());
    }
}
