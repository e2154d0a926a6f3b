//! An affine warp: the picture as it looks along other axes, an aligned face for instance.

use super::colour::{Conversion, NEUTRAL, Writer};
use super::picture::{Picture, Plane};
use super::spec::{Affine, FrameError, TensorSpec};

/// Writes to `out`, of [`TensorSpec::bytes`] bytes, what `to_frame` maps each of the tensor's
/// pixels to, sampled bilinearly at the pixel's middle; outside the frame, `fill`. The spec's `fit`
/// is not looked at.
pub fn warp(
    picture: &Picture,
    to_frame: &Affine,
    spec: &TensorSpec,
    out: &mut [u8],
) -> Result<(), FrameError> {
    spec.check()?;
    if out.len() != spec.bytes() {
        let message = format!("{} bytes do not make {} bytes", spec.bytes(), out.len());
        return Err(FrameError::InvalidSpec(message));
    }
    let Affine { a, b, c, d, e, f } = *to_frame;
    if ![a, b, c, d, e, f].iter().all(|number| number.is_finite()) {
        return Err(FrameError::InvalidRegion(format!("the map {to_frame:?} is not finite")));
    }
    let [a, b, c, d, e, f] = [a, b, c, d, e, f].map(f64::from);
    let (width, height) = (f64::from(picture.width()), f64::from(picture.height()));
    let (writer, conversion) = (Writer::new(spec), Conversion::of(picture));
    let sampler = Sampler::new(picture);
    let columns = spec.width as usize;
    let (mut luma, mut chroma) = (Vec::new(), Vec::new());
    let mut rgb: [Vec<u8>; 3] = Default::default();
    for y in 0..spec.height {
        luma.clear();
        chroma.clear();
        let row = f64::from(y) + 0.5;
        // A row is mapped to a line, and the frame is convex: the pixels inside it follow each
        // other.
        let mut left = 0;
        for x in 0..spec.width {
            let column = f64::from(x) + 0.5;
            let (frame_x, frame_y) = (a * column + (b * row + c), d * column + (e * row + f));
            if (0.0..width).contains(&frame_x) && (0.0..height).contains(&frame_y) {
                if luma.is_empty() {
                    left = x;
                }
                let place = picture.coded((frame_x, frame_y));
                luma.push(sampler.luma(place));
                chroma.push(sampler.chroma(place));
            }
        }
        rgb.iter_mut().for_each(|row| row.resize(columns, 0));
        let [red, green, blue] = &mut rgb;
        conversion.row(&luma, &chroma, [red, green, blue]);
        let inside = |row| <[u8]>::get(row, ..luma.len()).unwrap_or_default();
        writer.row(out, y, left, [inside(red), inside(green), inside(blue)]);
    }
    Ok(())
}

/// Bilinear samples of a picture at coordinates in luma pixels as coded, 0 being the left edge of
/// the first.
struct Sampler<'a> {
    luma: Plane<'a>,
    chroma: Option<[Plane<'a>; 2]>,
    scale: (f64, f64),
    offset: (f64, f64),
}

impl<'a> Sampler<'a> {
    fn new(picture: &'a Picture) -> Self {
        let along = |shift: u32| 1.0 / f64::from(1_u32 << shift.min(31));
        let (x, y) = picture.chroma_shift();
        Self {
            luma: picture.luma(),
            chroma: picture.chroma(),
            scale: (along(x), along(y)),
            offset: picture.chroma_offset(),
        }
    }

    fn luma(&self, (x, y): (f64, f64)) -> u8 {
        // Between 0 and 255, so nothing is cut off. Cheaper than `round`, which is a call on
        // processors of the oldest kind.
        (sample(&self.luma, x, y) + 0.5) as u8
    }

    fn chroma(&self, (x, y): (f64, f64)) -> [f32; 2] {
        let Some([u, v]) = &self.chroma else { return [NEUTRAL; 2] };
        let (x, y) = ((x + self.offset.0) * self.scale.0, (y + self.offset.1) * self.scale.1);
        [sample(u, x, y), sample(v, x, y)]
    }
}

/// The plane at a point in its own coordinates, in steps of 8 bits; beyond its edges it goes on as
/// at the edge.
fn sample(plane: &Plane<'_>, x: f64, y: f64) -> f32 {
    let split = |at: f64, size: u32| {
        let at = (at - 0.5).clamp(0.0, f64::from(size.saturating_sub(1)));
        // Not below 0, so this cuts off what `floor` would, without a call.
        let index = at as u32;
        let first = f64::from(index);
        (index, index.saturating_add(1).min(size.saturating_sub(1)), (at - first) as f32)
    };
    let (left, right, across) = split(x, plane.width());
    let (top, bottom, down) = split(y, plane.height());
    let (upper, lower) = (plane.row(top), plane.row(bottom));
    let mix = |a: f32, b: f32, part: f32| a + (b - a) * part;
    let along = |row| mix(at(plane, row, left), at(plane, row, right), across);
    mix(along(upper), along(lower), down)
}

fn at(plane: &Plane<'_>, row: &[u8], x: u32) -> f32 {
    let x = x as usize;
    if plane.depth() == 8 {
        return row.get(x).copied().map_or(0.0, f32::from);
    }
    let sample = row.as_chunks().0.get(x).copied().map_or(0, u16::from_le_bytes);
    // The largest samples of a deeper picture lie between 255 and 256.
    (f32::from(sample) / f32::from(1_u16 << plane.depth().saturating_sub(8).min(8))).min(255.0)
}
