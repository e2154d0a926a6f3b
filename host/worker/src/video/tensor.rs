//! From a picture to a tensor: each plane is resized on its own, straight to the tensor's size, and
//! only then converted.
//!
//! Luma is resized in 8 bits, as image libraries do it. Chroma is resized as floats, from where its
//! samples lie (beside the luma samples in video, between them in JPEG): an error in chroma is
//! doubled on its way to blue, so this is what decides how close the result comes to that of
//! converting the whole picture first.

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{F32x2, InnerPixel, U8};
use fast_image_resize::{
    FilterType, ImageView, PixelTrait, ResizeAlg, ResizeError, ResizeOptions, Resizer,
};
use ocelli_protocol::worker::{Orientation, Rect};

use super::colour::{Conversion, NEUTRAL, Writer};
use super::orientation::turn;
use super::picture::{Picture, Plane};
use super::region::{Region, Target};
use super::spec::{FrameError, Placement, TensorSpec};

/// Longest side of a luma picture, in pixels: it is copied into the component's memory.
pub const MAX_LUMA_SIDE: u32 = 640;

/// Samples of the buffers that stay allocated between calls: enough for the usual 640 x 640, 1.6 MB
/// in each of the larger ones. One large tensor does not make a worker large for good.
const KEPT_SAMPLES: usize = 640 * 640;

/// Resizes and converts. It keeps its buffers from call to call.
#[derive(Default)]
pub struct Resampler {
    resizer: Resizer,
    luma: Vec<U8>,
    /// Both chroma planes, interleaved: the filter's weights are the same.
    chroma: Vec<F32x2>,
    luma_window: Vec<U8>,
    chroma_window: Vec<F32x2>,
    rows: [Vec<u8>; 3],
}

impl Resampler {
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes a region of the picture, or all of it, to `out` as `spec` says; `out` has
    /// [`TensorSpec::bytes`] bytes. Downscaling averages over the area of a pixel (a triangle
    /// filter, as Pillow's bilinear). A region that reaches beyond the frame is cut off at its
    /// edges; the placement tells where what is left lies.
    pub fn tensor(
        &mut self,
        picture: &Picture,
        region: Option<Rect>,
        spec: &TensorSpec,
        out: &mut [u8],
    ) -> Result<Placement, FrameError> {
        check(spec, out, 1)?;
        let placement = self.one(picture, region, spec, out);
        self.give_back();
        placement
    }

    /// Writes one tensor after the other: `out` has [`TensorSpec::bytes`] for each region.
    pub fn tensors(
        &mut self,
        picture: &Picture,
        regions: &[Rect],
        spec: &TensorSpec,
        out: &mut [u8],
    ) -> Result<Vec<Placement>, FrameError> {
        check(spec, out, regions.len())?;
        let each = regions.iter().zip(out.chunks_exact_mut(spec.bytes()));
        let placements =
            each.map(|(region, out)| self.one(picture, Some(*region), spec, out)).collect();
        self.give_back();
        placements
    }

    /// The whole picture as `width` x `height` grey bytes, 0 black to 255 white, row by row.
    pub fn luma(
        &mut self,
        picture: &Picture,
        width: u32,
        height: u32,
    ) -> Result<Vec<u8>, FrameError> {
        if !(1..=MAX_LUMA_SIDE).contains(&width) || !(1..=MAX_LUMA_SIDE).contains(&height) {
            let message = format!(
                "a luma picture of {width} x {height}: sides are 1 to {MAX_LUMA_SIDE} pixels"
            );
            return Err(FrameError::InvalidSize(message));
        }
        let region = Region::of(picture, None)?;
        self.resize_luma(picture, &region, width, height)?;
        let grey = Conversion::of(picture).grey();
        let luma = U8::components(&self.luma).iter();
        Ok(luma.map(|&y| grey.get(usize::from(y)).copied().unwrap_or(y)).collect())
    }

    /// Resizes a region and hands out its rows, top to bottom, as red, green and blue.
    pub(super) fn rgb_rows(
        &mut self,
        picture: &Picture,
        region: &Region,
        (width, height): (u32, u32),
        mut row: impl FnMut(u32, [&[u8]; 3]),
    ) -> Result<(), FrameError> {
        self.resize_luma(picture, region, width, height)?;
        self.resize_chroma(picture, region, width, height)?;
        let conversion = Conversion::of(picture);
        let row_length = width as usize;
        let [red, green, blue] = &mut self.rows;
        [&mut *red, green, blue].into_iter().for_each(|row| row.resize(row_length, 0));
        let luma = U8::components(&self.luma).chunks_exact(row_length);
        let chroma = F32x2::components(&self.chroma).as_chunks().0.chunks_exact(row_length);
        for ((luma, chroma), y) in luma.zip(chroma).zip(0..) {
            conversion.row(luma, chroma, [red, green, blue]);
            row(y, [red, green, blue]);
        }
        Ok(())
    }

    fn one(
        &mut self,
        picture: &Picture,
        region: Option<Rect>,
        spec: &TensorSpec,
        out: &mut [u8],
    ) -> Result<Placement, FrameError> {
        let region = Region::of(picture, region)?;
        let target = Target::of(&region, spec);
        let writer = Writer::new(spec);
        for y in (0..target.top).chain(target.top + target.height..spec.height) {
            writer.fill(out, y);
        }
        self.rgb_rows(picture, &region, (target.width, target.height), |y, rgb| {
            writer.row(out, target.top + y, target.left, rgb);
        })?;
        Ok(target.placement(&region))
    }

    /// Resizes luma into `self.luma`, as shown.
    fn resize_luma(
        &mut self,
        picture: &Picture,
        region: &Region,
        width: u32,
        height: u32,
    ) -> Result<(), FrameError> {
        let (width, height) = picture.orientation().shown((width, height));
        self.resize_coded_luma(picture, &region.coded(picture), width, height)?;
        show(picture, width, &mut self.luma, &mut self.luma_window);
        Ok(())
    }

    fn resize_coded_luma(
        &mut self,
        picture: &Picture,
        region: &Region,
        width: u32,
        height: u32,
    ) -> Result<(), FrameError> {
        let plane = picture.luma();
        let area = Area::new(region, (0, 0), (0.0, 0.0));
        let Self { resizer, luma, luma_window, .. } = self;
        if plane.depth() == 8 {
            return resize(resizer, &PlaneView(plane), &area, luma, width, height);
        }
        let window = Window::around(&area, &plane, width, height);
        let shift = plane.depth().saturating_sub(8);
        let reduce = |sample| {
            // Rounded to 8 bits; the largest samples would round up to 256.
            let rounded = (u32::from(u16::from_le_bytes(sample)) + (1 << shift >> 1)) >> shift;
            U8::new(u8::try_from(rounded).unwrap_or(u8::MAX))
        };
        window.copy([plane], luma_window, |[row], out| {
            out.extend(row.as_chunks().0.iter().copied().map(reduce))
        });
        resize_window(resizer, luma_window, &window, &area, luma, width, height)
    }

    /// Resizes both chroma planes into `self.chroma`, as shown.
    fn resize_chroma(
        &mut self,
        picture: &Picture,
        region: &Region,
        width: u32,
        height: u32,
    ) -> Result<(), FrameError> {
        let Self { resizer, chroma, chroma_window, .. } = self;
        let Some([blue, red]) = picture.chroma() else {
            // A grey picture: chroma is neutral everywhere.
            chroma.clear();
            chroma.resize(width as usize * height as usize, F32x2::new([NEUTRAL; 2]));
            return Ok(());
        };
        let (width, height) = picture.orientation().shown((width, height));
        let region = region.coded(picture);
        let area = Area::new(&region, picture.chroma_shift(), picture.chroma_offset());
        let window = Window::around(&area, &blue, width, height);
        if blue.depth() == 8 {
            window.copy([blue, red], chroma_window, |[blue, red], out| {
                let samples = blue.iter().zip(red);
                out.extend(samples.map(|(&u, &v)| F32x2::new([f32::from(u), f32::from(v)])));
            });
        } else {
            let scale = 1.0 / f32::from(1_u16 << blue.depth().saturating_sub(8).min(8));
            let read = |sample| f32::from(u16::from_le_bytes(sample)) * scale;
            window.copy([blue, red], chroma_window, |[blue, red], out| {
                let samples = blue.as_chunks().0.iter().zip(red.as_chunks().0);
                out.extend(samples.map(|(&u, &v)| F32x2::new([read(u), read(v)])));
            });
        }
        resize_window(resizer, chroma_window, &window, &area, chroma, width, height)?;
        show(picture, width, chroma, chroma_window);
        Ok(())
    }

    /// Gives back buffers beyond what the usual tensor needs.
    fn give_back(&mut self) {
        fn trim<T>(buffer: &mut Vec<T>) {
            if buffer.capacity() > KEPT_SAMPLES {
                *buffer = Vec::new();
            }
        }
        trim(&mut self.luma);
        trim(&mut self.luma_window);
        trim(&mut self.chroma_window);
        trim(&mut self.chroma);
        if self.resizer.size_of_internal_buffers() > KEPT_SAMPLES * size_of::<f32>() {
            self.resizer.reset_internal_buffers();
        }
    }
}

fn check(spec: &TensorSpec, out: &[u8], count: usize) -> Result<(), FrameError> {
    spec.check()?;
    if spec.bytes().checked_mul(count) != Some(out.len()) {
        let message =
            format!("{count} times {} bytes do not make {} bytes", spec.bytes(), out.len());
        return Err(FrameError::InvalidSpec(message));
    }
    Ok(())
}

/// Turns samples that were resized as coded, rows of `width`, to where they are shown. The window
/// that they were resized from is of no use any more: its buffer takes them.
fn show<P: PixelTrait>(picture: &Picture, width: u32, samples: &mut Vec<P>, window: &mut Vec<P>) {
    if picture.orientation() != Orientation::Upright {
        turn(picture.orientation(), samples, width as usize, window);
        std::mem::swap(samples, window);
    }
}

/// A region in the coordinates of one plane. It may reach beyond the right and lower edge by less
/// than a sample.
#[derive(Debug, Clone, Copy)]
struct Area {
    x: (f64, f64),
    y: (f64, f64),
}

impl Area {
    fn new(region: &Region, shift: (u32, u32), offset: (f64, f64)) -> Self {
        let along = |start: f64, length: f64, shift: u32, offset: f64| {
            let scale = 1.0 / f64::from(1_u32 << shift.min(31));
            ((start + offset) * scale, (start + length + offset) * scale)
        };
        Self {
            x: along(region.x, region.width, shift.0, offset.0),
            y: along(region.y, region.height, shift.1, offset.1),
        }
    }
}

/// The samples of a plane that an area's pixels are made of.
#[derive(Debug, Clone, Copy)]
struct Window {
    left: u32,
    top: u32,
    width: u32,
    height: u32,
}

impl Window {
    fn around(area: &Area, plane: &Plane<'_>, width: u32, height: u32) -> Self {
        let along = |(start, end): (f64, f64), target: u32, size: u32| {
            // A triangle filter reaches one output pixel, and at least one sample, to each side of
            // a pixel's middle.
            let reach = ((end - start) / f64::from(target.max(1))).max(1.0) + 1.0;
            let first = (start - reach).floor().max(0.0) as u32;
            // An area that ends behind the last sample gets copies of that one.
            let last = ((end + reach).ceil() as u32).min(size.max(end.ceil() as u32));
            (first.min(last), last.saturating_sub(first))
        };
        let (left, columns) = along(area.x, width, plane.width());
        let (top, rows) = along(area.y, height, plane.height());
        Self { left, top, width: columns, height: rows }
    }

    /// Copies its samples from planes of the same size, a row at a time: `append` gets the bytes of
    /// the rows that the planes have side by side. Beyond the planes' edges samples are those of
    /// the edge.
    fn copy<P: Copy, const N: usize>(
        &self,
        planes: [Plane<'_>; N],
        out: &mut Vec<P>,
        append: impl Fn([&[u8]; N], &mut Vec<P>),
    ) {
        out.clear();
        out.reserve_exact(self.width as usize * self.height as usize);
        let left = self.left as usize;
        for y in self.top..self.top + self.height {
            let start = out.len();
            append(
                planes.map(|plane| {
                    let bytes = if plane.depth() == 8 { 1 } else { 2 };
                    let right = (left + self.width as usize).min(plane.width() as usize);
                    let row = plane.row(y.min(plane.height().saturating_sub(1)));
                    row.get(left * bytes..right * bytes).unwrap_or_default()
                }),
                out,
            );
            if let Some(&last) = out.last() {
                out.resize(start + self.width as usize, last);
            }
        }
    }
}

/// Resizes a window's samples so that `area` fills `out`.
fn resize_window<P: PixelTrait>(
    resizer: &mut Resizer,
    samples: &[P],
    window: &Window,
    area: &Area,
    out: &mut Vec<P>,
    width: u32,
    height: u32,
) -> Result<(), FrameError> {
    let source = TypedImageRef::new(window.width, window.height, samples)
        .map_err(|_| refused("a window is too small"))?;
    let (left, top) = (f64::from(window.left), f64::from(window.top));
    let area = Area { x: (area.x.0 - left, area.x.1 - left), y: (area.y.0 - top, area.y.1 - top) };
    resize(resizer, &source, &area, out, width, height)
}

fn resize<P: PixelTrait>(
    resizer: &mut Resizer,
    source: &impl ImageView<Pixel = P>,
    area: &Area,
    out: &mut Vec<P>,
    width: u32,
    height: u32,
) -> Result<(), FrameError> {
    out.resize(width as usize * height as usize, P::default());
    let (columns, rows) = (span(area.x, source.width()), span(area.y, source.height()));
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(FilterType::Bilinear))
        .crop(area.x.0, area.y.0, columns, rows)
        .use_alpha(false);
    let mut out = TypedImage::from_pixels_slice(width, height, out)
        .map_err(|_| refused("a buffer is too small"))?;
    resizer.resize_typed(source, &mut out, &options).map_err(|error: ResizeError| refused(error))
}

/// The length of a span, made such that start + length does not exceed `size` by rounding.
fn span((start, end): (f64, f64), size: u32) -> f64 {
    let length = end.min(f64::from(size)) - start;
    if start + length > f64::from(size) { length.next_down() } else { length }
}

fn refused(why: impl std::fmt::Display) -> FrameError {
    FrameError::InvalidRegion(format!("it cannot be resized: {why}"))
}

/// A plane of 8-bit samples as the resizer reads it: without copying, rows apart by the plane's
/// stride.
struct PlaneView<'a>(Plane<'a>);

// SAFETY: each row is as long as the plane is wide: `Plane::rows` gives no others for the rows that
// are there, and `Picture::plane` holds all of them.
#[allow(unsafe_code)]
unsafe impl ImageView for PlaneView<'_> {
    type Pixel = U8;

    fn width(&self) -> u32 {
        self.0.width()
    }

    fn height(&self) -> u32 {
        self.0.height()
    }

    fn iter_rows(&self, start_row: u32) -> impl Iterator<Item = &[U8]> {
        self.0.rows(start_row).map(|row| {
            // SAFETY: a `U8` is a byte and a zero-sized marker, laid out as in C, so every byte is
            // one.
            let (_, pixels, _) = unsafe { row.align_to::<U8>() };
            pixels
        })
    }
}

#[cfg(test)]
#[path = "tensor_tests.rs"]
mod tests;
