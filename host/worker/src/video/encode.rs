//! A region of a picture as a JPEG file, a picture for people as one, and as a PNG file.

use std::io::Write;

use jpeg_encoder::{ColorType, Encoder};
use ocelli_protocol::worker::{Detection, Rect};

use super::picture::Picture;
use super::region::Region;
use super::spec::FrameError;
use super::tensor::Resampler;

/// Rows that are converted at a time: the buffers stay small however large the picture is.
const STRIP_ROWS: u32 = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Jpeg {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    pub bytes: Vec<u8>,
}

/// Encodes a region, or the whole picture, at its own size; a region is widened to whole pixels.
/// Quality is 1 to 100.
pub fn jpeg(picture: &Picture, region: Option<Rect>, quality: u8) -> Result<Jpeg, FrameError> {
    jpeg_within(picture, region, u32::MAX, quality)
}

/// As [`jpeg`], made smaller where a side is longer than `longest` pixels.
pub fn jpeg_within(
    picture: &Picture,
    region: Option<Rect>,
    longest: u32,
    quality: u8,
) -> Result<Jpeg, FrameError> {
    if !(1..=100).contains(&quality) {
        return Err(FrameError::InvalidSpec(format!("quality {quality}: it is 1 to 100")));
    }
    if longest == 0 {
        return Err(FrameError::InvalidSpec("no picture has sides of 0 pixels".into()));
    }
    let region = Region::of(picture, region)?.whole_pixels();
    // Whole numbers inside the picture's size.
    let size = (region.width as u32, region.height as u32);
    let longer = size.0.max(size.1);
    if longer <= longest {
        return encode(&rgb(picture, &region, size)?, size, quality);
    }
    let scale = f64::from(longest) / f64::from(longer);
    let side = |side: u32| ((f64::from(side) * scale).round() as u32).max(1);
    let size = (side(size.0), side(size.1));
    encode(&rgb_scaled(picture, &region, size)?, size, quality)
}

/// Encodes red, green and blue, row by row.
pub(super) fn encode(
    pixels: &[u8],
    (width, height): (u32, u32),
    quality: u8,
) -> Result<Jpeg, FrameError> {
    let too_large =
        || FrameError::InvalidRegion(format!("{width} x {height} is too large for JPEG"));
    let (columns, rows) = (u16::try_from(width), u16::try_from(height));
    let (columns, rows) = (columns.map_err(|_| too_large())?, rows.map_err(|_| too_large())?);

    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, quality).encode(pixels, columns, rows, ColorType::Rgb).map_err(
        |error| FrameError::InvalidRegion(format!("{width} x {height} cannot be encoded: {error}")),
    )?;
    Ok(Jpeg { width, height, bytes })
}

/// Quality of pictures for people: no blocks to be seen, and 60 kB for 768x576.
const SHOWN_QUALITY: u8 = 80;

/// Smallest width of a picture for people, in pixels: a thumbnail.
const LEAST_WIDTH: u32 = 16;

/// Colours of boxes, by label: told apart on dark and on bright pictures.
const COLOURS: [[u8; 3]; 6] =
    [[64, 224, 96], [255, 176, 0], [80, 168, 255], [255, 96, 160], [255, 232, 64], [0, 224, 224]];

/// A box to draw into a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShownBox {
    area: Rect,
    colour: [u8; 3],
}

impl ShownBox {
    /// Where an object is; all of one label have one colour.
    pub fn of(found: &Detection) -> Self {
        let sum: usize = found.label.bytes().map(usize::from).sum();
        let colour = COLOURS.get(sum % COLOURS.len());
        Self { area: found.area, colour: colour.copied().unwrap_or_default() }
    }

    /// Red, green and blue.
    pub fn colour(&self) -> [u8; 3] {
        self.colour
    }
}

/// Encodes the whole picture for people: at most `width` pixels wide, with boxes drawn in.
pub fn jpeg_shown(
    picture: &Picture,
    width: Option<u32>,
    boxes: &[ShownBox],
) -> Result<Jpeg, FrameError> {
    let whole = (picture.width(), picture.height());
    let width = width.unwrap_or(whole.0).max(LEAST_WIDTH).min(whole.0);
    let scale = f64::from(width) / f64::from(whole.0.max(1));
    let size = (width, ((f64::from(whole.1) * scale).round() as u32).max(1));
    let region = Region::of(picture, None)?;
    let mut pixels = if size == whole {
        rgb(picture, &region, size)?
    } else {
        rgb_scaled(picture, &region, size)?
    };
    boxes.iter().for_each(|shown| outline(&mut pixels, size, shown, scale));
    encode(&pixels, size, SHOWN_QUALITY)
}

/// Draws a box's edges, inside of it.
pub(super) fn outline(
    pixels: &mut [u8],
    (width, height): (u32, u32),
    shown: &ShownBox,
    scale: f64,
) {
    let Rect { x, y, width: wide, height: high } = shown.area;
    let place = |at: f32, most: u32| (f64::from(at) * scale).round().clamp(0.0, most.into()) as u32;
    let (left, right) = (place(x, width), place(x + wide, width));
    let (top, bottom) = (place(y, height), place(y + high, height));
    // As thick as it takes to be seen from afar.
    let thick = (height / 240).max(2);
    let rows = pixels.chunks_exact_mut(width.max(1) as usize * 3).zip(0..height);
    for (row, y) in rows.filter(|(_, y)| (top..bottom).contains(y)) {
        let is_edge = y < top.saturating_add(thick) || y.saturating_add(thick) >= bottom;
        let Some(row) = row.get_mut(left as usize * 3..right as usize * 3) else { return };
        let side = if is_edge { row.len() } else { row.len().min(thick as usize * 3) };
        for part in [0..side, row.len() - side..row.len()] {
            for pixel in row.get_mut(part).unwrap_or_default().chunks_exact_mut(3) {
                pixel.copy_from_slice(&shown.colour);
            }
        }
    }
}

fn push_row(pixels: &mut Vec<u8>, [red, green, blue]: [&[u8]; 3]) {
    let row = red.iter().zip(green).zip(blue);
    pixels.extend(row.flat_map(|((&red, &green), &blue)| [red, green, blue]));
}

/// Writes the whole picture as a PNG file.
pub fn write_png(picture: &Picture, to: impl Write) -> anyhow::Result<()> {
    let size = (picture.width(), picture.height());
    let pixels = whole_rgb(picture)?;
    let mut encoder = png::Encoder::new(to, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    Ok(writer.finish()?)
}

/// The pixels of a region, brought to a smaller size at once: strips of it would not meet at whole
/// pixels.
fn rgb_scaled(picture: &Picture, region: &Region, size: (u32, u32)) -> Result<Vec<u8>, FrameError> {
    let mut pixels = Vec::with_capacity(size.0 as usize * size.1 as usize * 3);
    Resampler::new().rgb_rows(picture, region, size, |_, rgb| push_row(&mut pixels, rgb))?;
    Ok(pixels)
}

/// The pixels of the whole picture: red, green, blue, row by row.
pub(super) fn whole_rgb(picture: &Picture) -> Result<Vec<u8>, FrameError> {
    rgb(picture, &Region::of(picture, None)?, (picture.width(), picture.height()))
}

/// The pixels of a region of whole pixels: red, green, blue, row by row.
fn rgb(
    picture: &Picture,
    region: &Region,
    (width, height): (u32, u32),
) -> Result<Vec<u8>, FrameError> {
    let mut pixels = Vec::with_capacity(width as usize * height as usize * 3);
    let mut resampler = Resampler::new();
    for top in (0..height).step_by(STRIP_ROWS as usize) {
        let count = STRIP_ROWS.min(height - top);
        let strip = Region { y: region.y + f64::from(top), height: f64::from(count), ..*region };
        resampler.rgb_rows(picture, &strip, (width, count), |_, rgb| push_row(&mut pixels, rgb))?;
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_is_drawn_along_its_edges_inside_of_it_and_scaled() {
        let (width, height) = (40, 30);
        let mut pixels = vec![0; width as usize * height as usize * 3];
        let area = Rect { x: 20.0, y: 10.0, width: 40.0, height: 100.0 };
        let colour = [1, 2, 3];
        outline(&mut pixels, (width, height), &ShownBox { area, colour }, 0.5);
        for (pixel, at) in pixels.chunks(3).zip(0..) {
            let (x, y) = (at % width, at / width);
            let inside = (10..30).contains(&x) && (5..30).contains(&y);
            let within = (12..28).contains(&x) && (7..28).contains(&y);
            let expected = if inside && !within { colour } else { [0; 3] };
            assert_eq!(pixel, expected, "at {x}, {y}");
        }
    }
}
