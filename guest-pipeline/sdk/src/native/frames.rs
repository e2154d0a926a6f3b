//! `ocelli:pipeline/frames`.

use std::rc::Rc;
use std::time::Duration;

pub use crate::bindings::records::ocelli::pipeline::frames::{
    Affine, Channels, Element, Fit, FrameError, Layout, Motion, PerChannel, Placement, Point, Rect,
    TensorSpec,
};

use super::tensor::{NO_HANDLE, Tensor, TensorType};
use crate::letterbox;

/// Regions of a batch, as with the host.
const MAX_REGIONS: usize = 64;

/// Points that are followed in one call, as with the host.
const MAX_POINTS: usize = 1024;

/// Regions of a frame's motion, as with the host.
const MAX_MOTION_REGIONS: usize = 32;

/// Pixels of a side of a tensor, as with the host.
const MAX_SIDE: u32 = 4096;

/// Pixels of a side of a grey picture, as with the host.
const MAX_LUMA_SIDE: u32 = 640;

/// One picture of the camera, as a test scripts it.
///
/// Tensors are made as the host makes them, but of the pixel that lies in the middle of what the
/// host would average: enough for what a test's pictures show, not for a model's third decimal.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    index: u64,
    time: Duration,
    skipped: u64,
    size: (u32, u32),
    /// Red, green and blue, row by row; or of one pixel, which is all pixels.
    pixels: Rc<[u8]>,
    changes: Changes,
}

/// What a test says of a frame's motion. A rectangle is its left and upper edge, width and height.
#[derive(Debug, Clone, Default, PartialEq)]
struct Changes {
    regions: Vec<[f32; 4]>,
    calibrating: bool,
    moved: Vec<Moved>,
}

/// How far the points in a rectangle of the frame before have gone; None for those that are lost.
#[derive(Debug, Clone, PartialEq)]
struct Moved {
    area: [f32; 4],
    shift: Option<(f32, f32)>,
}

impl Frame {
    /// A picture of one colour: red, green, blue. Frame 0, at the beginning of the stream.
    #[must_use]
    pub fn solid(width: u32, height: u32, colour: [u8; 3]) -> Self {
        let pixels = colour.as_slice().into();
        Self {
            index: 0,
            time: Duration::ZERO,
            skipped: 0,
            size: (width, height),
            pixels,
            changes: Changes::default(),
        }
    }

    /// A picture of these pixels: red, green and blue, row by row.
    ///
    /// # Panics
    /// Another number of bytes than three for each pixel.
    #[must_use]
    pub fn of_rgb(width: u32, height: u32, pixels: &[u8]) -> Self {
        let expected = width as usize * height as usize * 3;
        assert!(pixels.len() == expected, "{} bytes are not {expected}", pixels.len());
        Self { pixels: pixels.into(), ..Self::solid(width, height, [0; 3]) }
    }

    /// The same picture as frame `index`, `time` after the stream began.
    #[must_use]
    pub fn at(self, index: u64, time: Duration) -> Self {
        Self { index, time, ..self }
    }

    /// The same picture after so many frames that the pipeline did not get.
    #[must_use]
    pub fn after_skipped(self, skipped: u64) -> Self {
        Self { skipped, ..self }
    }

    /// The same picture, in which this changes: [`Frame::motion`] gives these regions. Of a frame
    /// of which nothing is said nothing moves.
    #[must_use]
    pub fn with_motion(mut self, regions: &[Rect]) -> Self {
        self.changes.regions = regions.iter().map(edges).collect();
        self
    }

    /// The same picture, in which what lay in `area` of the frame before has gone so many pixels to
    /// the right and down, or is lost: [`Frame::flow`] gives its points so. Of several areas around
    /// a point the first counts; what lies in none stays.
    #[must_use]
    pub fn with_flow(mut self, area: Rect, shift: Option<(f32, f32)>) -> Self {
        self.changes.moved.push(Moved { area: edges(&area), shift });
        self
    }

    /// The same picture, which changed as a whole: [`Frame::motion`] says `calibrating`.
    #[must_use]
    pub fn calibrating(mut self) -> Self {
        self.changes.calibrating = true;
        self
    }

    /// The frame's number in its source.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// Nanoseconds since 1970, for a file its presentation time, as here.
    #[must_use]
    pub fn capture_time(&self) -> u64 {
        self.presentation_time()
    }

    /// Nanoseconds since the source began.
    #[must_use]
    pub fn presentation_time(&self) -> u64 {
        u64::try_from(self.time.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.size.0
    }

    /// Pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.size.1
    }

    /// Frames between the one before and this one that the pipeline did not get.
    #[must_use]
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// A tensor of a region, or of the whole frame.
    ///
    /// # Errors
    /// As with the host.
    pub fn tensor(
        &self,
        region: Option<Rect>,
        spec: TensorSpec,
    ) -> Result<(Tensor, Placement), FrameError> {
        let part = self.part(region)?;
        let placement = place(&part, &spec)?;
        Ok((self.filled(vec![placement], vec![part], spec), placement))
    }

    /// A batch of regions.
    ///
    /// # Errors
    /// As with the host.
    pub fn tensors(
        &self,
        regions: &[Rect],
        spec: TensorSpec,
    ) -> Result<(Tensor, Vec<Placement>), FrameError> {
        if regions.is_empty() || regions.len() > MAX_REGIONS {
            let count = regions.len();
            let message = format!("{count} regions: between 1 and {MAX_REGIONS} are taken");
            return Err(FrameError::InvalidSpec(message));
        }
        let parts = regions.iter().map(|region| self.part(Some(*region)));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let placements = parts.iter().map(|part| place(part, &spec));
        let placements = placements.collect::<Result<Vec<_>, _>>()?;
        Ok((self.filled(placements.clone(), parts, spec), placements))
    }

    /// An affine warp.
    ///
    /// # Errors
    /// As with the host.
    pub fn warp(&self, to_frame: Affine, spec: TensorSpec) -> Result<Tensor, FrameError> {
        check(&spec)?;
        let Affine { a, b, c, d, e, f } = to_frame;
        let (frame, whole) = (self.clone(), self.whole());
        Ok(tensor(spec, 1, move |_, x, y| {
            frame.pixel(a * x + b * y + c, d * x + e * y + f, &whole)
        }))
    }

    /// A small grey picture.
    ///
    /// # Errors
    /// As with the host.
    pub fn luma(&self, width: u32, height: u32) -> Result<Vec<u8>, FrameError> {
        let fits = |side| (1..=MAX_LUMA_SIDE).contains(&side);
        if !fits(width) || !fits(height) {
            let message = format!("{width} x {height}: sides are 1 to {MAX_LUMA_SIDE} pixels");
            return Err(FrameError::InvalidSpec(message));
        }
        let scale = |at: u32, side: u32, of: u32| (at as f32 + 0.5) * of as f32 / side as f32;
        let grey = |x, y| {
            let (x, y) = (scale(x, width, self.size.0), scale(y, height, self.size.1));
            let [red, green, blue] = self.pixel(x, y, &self.whole()).unwrap_or_default();
            // ITU-R BT.601.
            (0.299 * red + 0.587 * green + 0.114 * blue).round() as u8
        };
        Ok((0..height).flat_map(|y| (0..width).map(move |x| grey(x, y))).collect())
    }

    /// What changes, as the test says: [`Frame::with_motion`].
    ///
    /// # Errors
    /// None here.
    pub fn motion(&self) -> Result<Motion, FrameError> {
        let Changes { regions, calibrating, .. } = &self.changes;
        let area = |region: &[f32; 4]| region.iter().skip(2).product::<f32>();
        let all = self.whole().width * self.whole().height;
        let share = (regions.iter().map(area).sum::<f32>() / all.max(1.0)).min(1.0);
        if *calibrating {
            return Ok(Motion { regions: Vec::new(), share: 1.0, calibrating: true });
        }
        let rect = |&[x, y, width, height]: &[f32; 4]| Rect { x, y, width, height };
        let mut regions: Vec<_> = regions.iter().map(rect).collect();
        regions.sort_by(|one, other| {
            (other.width * other.height).total_cmp(&(one.width * one.height))
        });
        regions.truncate(MAX_MOTION_REGIONS);
        Ok(Motion { regions, share, calibrating: false })
    }

    /// Where points of the frame before are, as the test says: [`Frame::with_flow`]. A point that
    /// leaves the picture is lost.
    ///
    /// # Errors
    /// As with the host.
    pub fn flow(&self, points: &[Point]) -> Result<Vec<Option<Point>>, FrameError> {
        if points.len() > MAX_POINTS {
            let message = format!("{} points: at most {MAX_POINTS} are taken", points.len());
            return Err(FrameError::InvalidSpec(message));
        }
        let inside = |[left, top, width, height]: [f32; 4], x: f32, y: f32| {
            x >= left && y >= top && x < left + width && y < top + height
        };
        let all = edges(&self.whole());
        let follow = |&Point { x, y }: &Point| {
            let moved = self.changes.moved.iter().find(|moved| inside(moved.area, x, y));
            let (right, down) = moved.map_or(Some((0.0, 0.0)), |moved| moved.shift)?;
            let (x, y) = (x + right, y + down);
            inside(all, x, y).then_some(Point { x, y })
        };
        Ok(points.iter().map(follow).collect())
    }

    /// A picture of a region, or of the whole frame, to attach to an event. It is not encoded.
    ///
    /// # Errors
    /// As with the host.
    pub fn image(&self, region: Option<Rect>, quality: u8) -> Result<Image, FrameError> {
        self.image_within(region, u32::MAX, quality)
    }

    /// The same, made smaller where a side is longer than `longest` pixels.
    ///
    /// # Errors
    /// As with the host.
    pub fn image_within(
        &self,
        region: Option<Rect>,
        longest: u32,
        quality: u8,
    ) -> Result<Image, FrameError> {
        if !(1..=100).contains(&quality) {
            return Err(FrameError::InvalidSpec(format!("quality {quality}: it is 1 to 100")));
        }
        if longest == 0 {
            return Err(FrameError::InvalidSpec("no picture has sides of 0 pixels".into()));
        }
        let part = self.part(region)?;
        let (left, top) = (part.x.floor(), part.y.floor());
        let right = (part.x + part.width).ceil();
        let bottom = (part.y + part.height).ceil();
        let (width, height) = (right - left, bottom - top);
        let scale = (f64::from(longest) / f64::from(width.max(height))).min(1.0);
        let side = |side: f32| ((f64::from(side) * scale).round() as u32).max(1);
        Ok(Image { size: (side(width), side(height)), region, quality })
    }

    fn whole(&self) -> Rect {
        Rect { x: 0.0, y: 0.0, width: self.size.0 as f32, height: self.size.1 as f32 }
    }

    /// The part of a region that lies in the frame.
    fn part(&self, region: Option<Rect>) -> Result<Rect, FrameError> {
        let whole = self.whole();
        let Some(Rect { x, y, width, height }) = region else { return Ok(whole) };
        let refuse = |why: &str| {
            let (w, h) = self.size;
            let message =
                format!("{width} x {height} at ({x}, {y}) {why}; the frame has {w} x {h}");
            Err(FrameError::InvalidRegion(message))
        };
        if ![x, y, x + width, y + height].iter().all(|edge| edge.is_finite()) {
            return refuse("is not finite");
        }
        if width <= 0.0 || height <= 0.0 {
            return refuse("has no area");
        }
        let (left, top) = (x.max(0.0), y.max(0.0));
        let (right, bottom) = ((x + width).min(whole.width), (y + height).min(whole.height));
        if right <= left || bottom <= top {
            return refuse("lies outside the frame");
        }
        Ok(Rect { x: left, y: top, width: right - left, height: bottom - top })
    }

    /// The colour at a point of the frame, if that lies in the part.
    fn pixel(&self, x: f32, y: f32, part: &Rect) -> Option<[f32; 3]> {
        let inside =
            x >= part.x && y >= part.y && x < part.x + part.width && y < part.y + part.height;
        let (pixels, _) = self.pixels.as_chunks::<3>();
        // A picture of one colour has one pixel.
        let place =
            if pixels.len() == 1 { 0 } else { y as usize * self.size.0 as usize + x as usize };
        inside.then(|| pixels.get(place).map(|pixel| pixel.map(f32::from)))?
    }

    fn filled(&self, placements: Vec<Placement>, parts: Vec<Rect>, spec: TensorSpec) -> Tensor {
        let frame = self.clone();
        tensor(spec, placements.len(), move |n, x, y| {
            let (x, y) = placements.get(n)?.to_frame(x, y);
            frame.pixel(x, y, parts.get(n)?)
        })
    }

    #[doc(hidden)]
    #[must_use]
    #[allow(unsafe_code, reason = "generated code calls it so")]
    pub unsafe fn from_handle(_: u32) -> Self {
        unreachable!("{NO_HANDLE}")
    }
}

fn edges(rect: &Rect) -> [f32; 4] {
    [rect.x, rect.y, rect.width, rect.height]
}

fn check(spec: &TensorSpec) -> Result<(), FrameError> {
    let TensorSpec { width, height, std, .. } = spec;
    let fits = |side: &u32| (1..=MAX_SIDE).contains(side);
    if !fits(width) || !fits(height) {
        let message = format!("a tensor of {width} x {height}: sides are 1 to {MAX_SIDE} pixels");
        return Err(FrameError::InvalidSpec(message));
    }
    if [std.0, std.1, std.2].contains(&0.0) {
        return Err(FrameError::InvalidSpec(format!("std {std:?}: none may be 0")));
    }
    Ok(())
}

/// Where a part of a frame lies in its tensor.
fn place(part: &Rect, spec: &TensorSpec) -> Result<Placement, FrameError> {
    check(spec)?;
    let placed = match spec.fit {
        Fit::Letterbox => {
            let whole = |side: f32| (side.round() as u32).max(1);
            letterbox::place(whole(part.width), whole(part.height), spec.width, spec.height)
        }
        Fit::Stretch => Some(Placement {
            scale_x: spec.width as f32 / part.width,
            scale_y: spec.height as f32 / part.height,
            offset_x: 0.0,
            offset_y: 0.0,
        }),
    };
    let no_area = || FrameError::InvalidRegion("has no area".into());
    let Placement { scale_x, scale_y, offset_x, offset_y } = placed.ok_or_else(no_area)?;
    Ok(Placement {
        scale_x,
        scale_y,
        offset_x: offset_x - part.x * scale_x,
        offset_y: offset_y - part.y * scale_y,
    })
}

/// A tensor of `count` pictures. `pixel` gives the colour at a point of one of them.
fn tensor(
    spec: TensorSpec,
    count: usize,
    pixel: impl Fn(usize, f32, f32) -> Option<[f32; 3]> + 'static,
) -> Tensor {
    let pictures = u32::try_from(count).unwrap_or(u32::MAX);
    let dimensions = match spec.layout {
        Layout::Nchw => [pictures, 3, spec.height, spec.width],
        Layout::Nhwc => [pictures, spec.height, spec.width, 3],
    };
    match spec.element {
        Element::F32 => Tensor::later(&dimensions, TensorType::Fp32, move || {
            values(&spec, count, &pixel).into_iter().flat_map(f32::to_le_bytes).collect()
        }),
        Element::U8 => Tensor::later(&dimensions, TensorType::U8, move || {
            values(&spec, count, &pixel).into_iter().map(|value| value as u8).collect()
        }),
    }
}

/// The elements, in the spec's order.
fn values(
    spec: &TensorSpec,
    count: usize,
    pixel: &impl Fn(usize, f32, f32) -> Option<[f32; 3]>,
) -> Vec<f32> {
    let three = |(a, b, c): PerChannel| [a, b, c];
    let (fill, mean, std) = (three(spec.fill), three(spec.mean), three(spec.std));
    let (width, height) = (spec.width as usize, spec.height as usize);
    let mut values = vec![0.0f32; count * 3 * width * height];
    for n in 0..count {
        for place in 0..width * height {
            let (x, y) = ((place % width) as f32 + 0.5, (place / width) as f32 + 0.5);
            let found = pixel(n, x, y).map(|[red, green, blue]| match spec.channels {
                Channels::Rgb => [red, green, blue],
                Channels::Bgr => [blue, green, red],
            });
            let colour = found.unwrap_or(fill).into_iter().zip(mean).zip(std).enumerate();
            for (channel, ((value, mean), std)) in colour {
                let at = match spec.layout {
                    Layout::Nchw => (n * 3 + channel) * width * height + place,
                    Layout::Nhwc => (n * width * height + place) * 3 + channel,
                };
                let value = match spec.element {
                    Element::F32 => (value - mean) / std,
                    Element::U8 => value,
                };
                if let Some(element) = values.get_mut(at) {
                    *element = value;
                }
            }
        }
    }
    values
}

/// A picture that was asked of a [`Frame`]. It has no content here: a test sees what was asked for.
#[derive(Debug, Clone)]
pub struct Image {
    size: (u32, u32),
    region: Option<Rect>,
    quality: u8,
}

impl Image {
    /// Pixels.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.size.0
    }

    /// Pixels.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.size.1
    }

    /// Bytes of the encoded picture, with the host. Here it is not encoded, and has an eighth of a
    /// byte for each pixel: about what a camera's picture takes.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::from(self.size.0) * u64::from(self.size.1) / 8
    }

    /// The region of the frame that was asked for, in frame pixels.
    #[must_use]
    pub fn region(&self) -> Option<Rect> {
        self.region
    }

    /// The quality that was asked for.
    #[must_use]
    pub fn quality(&self) -> u8 {
        self.quality
    }

    #[doc(hidden)]
    #[must_use]
    pub fn take_handle(&self) -> u32 {
        unreachable!("{NO_HANDLE}")
    }
}
