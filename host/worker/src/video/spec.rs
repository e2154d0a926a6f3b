//! The specification of a tensor, and the place of the picture in it. Mirrors `wit/0.1/frames.wit`.

/// Longest side of a tensor, in pixels. No model in use takes more; with it every size fits 32
/// bits.
pub const MAX_SIDE: u32 = 4096;

/// How a region of another aspect ratio is brought to the tensor's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// Keep the aspect ratio, centre the picture, fill what is left.
    Letterbox,
    /// Scale both axes on their own.
    Stretch,
}

/// The order of the colour channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Red first.
    Rgb,
    Bgr,
}

/// The order of the axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One plane per channel.
    Nchw,
    /// The channels of a pixel side by side.
    Nhwc,
}

/// The type of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float in the machine's byte order, normalised.
    F32,
    /// The pixel value.
    U8,
}

impl Element {
    /// Bytes of one element.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::U8 => 1,
        }
    }
}

/// The tensor that a model takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorSpec {
    /// Width of the tensor in pixels.
    pub width: u32,
    /// Height of the tensor in pixels.
    pub height: u32,
    /// How a region of another aspect ratio is placed.
    pub fit: Fit,
    /// The order of the colour channels.
    pub channels: Channels,
    /// The order of the axes.
    pub layout: Layout,
    /// The type of the elements.
    pub element: Element,
    /// Pixel value, 0 to 255, of what is left empty, in the order of `channels`; before
    /// normalisation.
    pub fill: [f32; 3],
    /// An `f32` element is (pixel - mean) / std, in the order of `channels`.
    pub mean: [f32; 3],
    /// Per channel, the divisor after `mean` is subtracted.
    pub std: [f32; 3],
}

impl TensorSpec {
    /// Refuses a size of 0 or beyond [`MAX_SIDE`], a std of 0 and numbers that are not finite.
    pub fn check(&self) -> Result<(), FrameError> {
        let Self { width, height, fill, mean, std, .. } = self;
        if !(1..=MAX_SIDE).contains(width) || !(1..=MAX_SIDE).contains(height) {
            let message =
                format!("a tensor of {width} x {height}: sides are 1 to {MAX_SIDE} pixels");
            return Err(FrameError::InvalidSize(message));
        }
        if !fill.iter().chain(mean).chain(std).all(|number| number.is_finite()) {
            let message =
                format!("fill {fill:?}, mean {mean:?}, std {std:?}: all have to be finite");
            return Err(FrameError::InvalidSpec(message));
        }
        if std.contains(&0.0) {
            return Err(FrameError::InvalidSpec(format!("std {std:?}: none may be 0")));
        }
        Ok(())
    }

    /// Bytes of one picture.
    pub fn bytes(&self) -> usize {
        (self.width as usize)
            .saturating_mul(self.height as usize)
            .saturating_mul(3)
            .saturating_mul(self.element.size())
    }
}

/// Where the picture lies in the tensor: tensor x = (frame x) * `scale_x` + `offset_x`, y alike.
/// Coordinates are those of boxes: 0 is the left edge of the first pixel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Placement {
    /// Tensor pixels per frame pixel.
    pub scale_x: f32,
    /// Tensor pixels per frame pixel.
    pub scale_y: f32,
    /// Left edge of the picture in tensor pixels.
    pub offset_x: f32,
    /// Upper edge of the picture in tensor pixels.
    pub offset_y: f32,
}

/// Takes tensor coordinates to the frame: frame x = a * x + b * y + c, frame y = d * x + e * y + f.
/// Coordinates are those of boxes: the middle of the first pixel is (0.5, 0.5).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Affine {
    pub a: f32,
    pub b: f32,
    pub c: f32,
    pub d: f32,
    pub e: f32,
    pub f: f32,
}

/// Why a picture cannot be had as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The region has no area, lies outside the frame or is not finite.
    #[error("invalid region: {0}")]
    InvalidRegion(String),
    /// The spec cannot be served.
    #[error("invalid spec: {0}")]
    InvalidSpec(String),
    /// The size of the tensor is none, or beyond what is made.
    #[error("invalid size: {0}")]
    InvalidSize(String),
}
