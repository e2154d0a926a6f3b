//! Rows of luma and chroma to rows of red, green and blue, and those to rows of a tensor.

use super::picture::{Matrix, Picture};
use super::spec::{Channels, Element, Layout, TensorSpec};

/// Adding this to a number between 0 and 2^22 leaves the number, rounded to an integer (ties to
/// even), in the low bits of the float: it is 1.5 * 2^23, where neighbouring floats differ by 1.
/// Conversions that saturate are several times slower.
const ROUND: f32 = 12_582_912.0;

/// Chroma of grey, 8 bits.
pub(super) const NEUTRAL: f32 = 128.0;

/// The number, clamped to 0 to 255, as the nearest byte.
fn byte(number: f32) -> u8 {
    (number.clamp(0.0, 255.0) + ROUND).to_bits() as u8
}

/// The conversion of one picture's samples, by the formulas of its matrix's recommendation:
/// R = Y + 2 (1 - Kr) V, B = Y + 2 (1 - Kb) U, and G such that Y = Kr R + Kg G + Kb B.
#[derive(Debug, Clone, Copy)]
pub(super) struct Conversion {
    luma_offset: f32,
    luma: f32,
    red_v: f32,
    green_u: f32,
    green_v: f32,
    blue_u: f32,
}

impl Conversion {
    /// For a picture's matrix and range.
    pub(super) fn of(picture: &Picture) -> Self {
        Self::new(picture.matrix(), picture.full_range())
    }

    fn new(matrix: Matrix, full_range: bool) -> Self {
        // Limited range: 219 steps of luma from 16 on, 224 of chroma around 128 (ITU-R BT.601, 8
        // bits).
        let (luma_offset, luma, chroma) =
            if full_range { (0.0, 1.0, 1.0) } else { (16.0, 255.0 / 219.0, 255.0 / 224.0) };
        let (kr, kb) = matrix.weights();
        let kg = 1.0 - kr - kb;
        let (red, blue) = (2.0 * (1.0 - kr) * chroma, 2.0 * (1.0 - kb) * chroma);
        Self {
            luma_offset,
            luma,
            red_v: red,
            green_u: blue * kb / kg,
            green_v: red * kr / kg,
            blue_u: blue,
        }
    }

    /// Converts a row of luma, and blue and red difference. All rows have the same length.
    pub(super) fn row(&self, luma: &[u8], chroma: &[[f32; 2]], [red, green, blue]: [&mut [u8]; 3]) {
        let Self { luma_offset, luma: scale, red_v, green_u, green_v, blue_u } = *self;
        let pixels = red.iter_mut().zip(green).zip(blue);
        for ((&y, &[u, v]), ((red, green), blue)) in luma.iter().zip(chroma).zip(pixels) {
            let (y, u, v) = ((f32::from(y) - luma_offset) * scale, u - NEUTRAL, v - NEUTRAL);
            *red = byte(y + red_v * v);
            *green = byte(y - green_u * u - green_v * v);
            *blue = byte(y + blue_u * u);
        }
    }

    /// The grey value, 0 to 255, of each luma sample.
    pub(super) fn grey(&self) -> [u8; 256] {
        let mut table = [0; 256];
        for (entry, y) in table.iter_mut().zip(0_u8..=u8::MAX) {
            *entry = byte((f32::from(y) - self.luma_offset) * self.luma);
        }
        table
    }
}

/// Luma, blue and red difference of a colour, in full range by BT.601: what [`Conversion`] turns
/// back.
pub(super) fn ycbcr([red, green, blue]: [u8; 3]) -> [u8; 3] {
    let (kr, kb) = Matrix::Bt601.weights();
    let [red, green, blue] = [red, green, blue].map(f32::from);
    let luma = kr * red + (1.0 - kr - kb) * green + kb * blue;
    let difference =
        |colour: f32, weight: f32| byte((colour - luma) / (2.0 * (1.0 - weight)) + NEUTRAL);
    [byte(luma), difference(blue, kb), difference(red, kr)]
}

/// Writes rows of pixels to a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    spec: &'a TensorSpec,
}

impl<'a> Writer<'a> {
    /// For tensors of this spec.
    pub(super) fn new(spec: &'a TensorSpec) -> Self {
        Self { spec }
    }

    /// Writes row `y` of the picture `out`: red, green and blue from column `left` on, fill before
    /// and after them.
    pub(super) fn row(&self, out: &mut [u8], y: u32, left: u32, [red, green, blue]: [&[u8]; 3]) {
        let spec = self.spec;
        let channels = match spec.channels {
            Channels::Rgb => [red, green, blue],
            Channels::Bgr => [blue, green, red],
        };
        let (width, left) = (spec.width as usize, left as usize);
        let row_bytes = width * spec.element.size();
        match spec.layout {
            Layout::Nchw => {
                let planes = out.chunks_exact_mut(row_bytes * spec.height as usize);
                for (channel, (plane, pixels)) in planes.zip(channels).enumerate() {
                    let row = plane.chunks_exact_mut(row_bytes).nth(y as usize).unwrap_or_default();
                    self.planar(row, channel, left, pixels);
                }
            }
            Layout::Nhwc => {
                let row = out.chunks_exact_mut(row_bytes * 3).nth(y as usize).unwrap_or_default();
                self.interleaved(row, left, channels);
            }
        }
    }

    /// Fills row `y`.
    pub(super) fn fill(&self, out: &mut [u8], y: u32) {
        self.row(out, y, 0, [&[]; 3]);
    }

    fn planar(&self, row: &mut [u8], channel: usize, left: usize, pixels: &[u8]) {
        let scale = self.scale(channel);
        let size = self.spec.element.size();
        let (before, rest) = row.split_at_mut((left * size).min(row.len()));
        let (picture, after) = rest.split_at_mut((pixels.len() * size).min(rest.len()));
        match self.spec.element {
            Element::U8 => {
                before.fill(scale.fill);
                picture.copy_from_slice(pixels.get(..picture.len()).unwrap_or_default());
                after.fill(scale.fill);
            }
            Element::F32 => {
                let fill = scale.filled.to_ne_bytes();
                before.as_chunks_mut().0.fill(fill);
                for (element, &pixel) in picture.as_chunks_mut().0.iter_mut().zip(pixels) {
                    *element = scale.apply(pixel).to_ne_bytes();
                }
                after.as_chunks_mut().0.fill(fill);
            }
        }
    }

    fn interleaved(&self, row: &mut [u8], left: usize, [first, second, third]: [&[u8]; 3]) {
        let scales = [self.scale(0), self.scale(1), self.scale(2)];
        let size = 3 * self.spec.element.size();
        let (before, rest) = row.split_at_mut((left * size).min(row.len()));
        let (picture, after) = rest.split_at_mut((first.len() * size).min(rest.len()));
        let pixels = first.iter().zip(second).zip(third).map(|((&a, &b), &c)| [a, b, c]);
        match self.spec.element {
            Element::U8 => {
                let fill = scales.map(|scale| scale.fill);
                before.as_chunks_mut().0.fill(fill);
                picture
                    .as_chunks_mut()
                    .0
                    .iter_mut()
                    .zip(pixels)
                    .for_each(|(element, pixel)| *element = pixel);
                after.as_chunks_mut().0.fill(fill);
            }
            Element::F32 => {
                let [a, b, c] = scales;
                let fill = scales.map(|scale| scale.filled.to_ne_bytes());
                before.as_chunks_mut::<4>().0.as_chunks_mut().0.fill(fill);
                let elements = picture.as_chunks_mut::<4>().0.as_chunks_mut().0;
                for (element, [x, y, z]) in elements.iter_mut().zip(pixels) {
                    *element = [
                        a.apply(x).to_ne_bytes(),
                        b.apply(y).to_ne_bytes(),
                        c.apply(z).to_ne_bytes(),
                    ];
                }
                after.as_chunks_mut::<4>().0.as_chunks_mut().0.fill(fill);
            }
        }
    }

    fn scale(&self, channel: usize) -> Scale {
        let of = |values: &[f32; 3]| values.get(channel).copied().unwrap_or(0.0);
        let (mean, std, fill) = (of(&self.spec.mean), of(&self.spec.std), of(&self.spec.fill));
        Scale { mean, std, fill: byte(fill), filled: (fill - mean) / std }
    }
}

#[derive(Debug, Clone, Copy)]
struct Scale {
    mean: f32,
    std: f32,
    fill: u8,
    filled: f32,
}

impl Scale {
    fn apply(self, pixel: u8) -> f32 {
        (f32::from(pixel) - self.mean) / self.std
    }
}
