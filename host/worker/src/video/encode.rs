//! A region of a picture as a JPEG file, and a picture as a PNG file.

use std::io::Write;

use jpeg_encoder::{ColorType, Encoder};
use ocelli_protocol::worker::Rect;

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
    if !(1..=100).contains(&quality) {
        return Err(FrameError::InvalidSpec(format!("quality {quality}: it is 1 to 100")));
    }
    let region = Region::of(picture, region)?.whole_pixels();
    // Whole numbers inside the picture's size.
    let (width, height) = (region.width as u32, region.height as u32);
    let too_large =
        || FrameError::InvalidRegion(format!("{width} x {height} is too large for JPEG"));
    let (columns, rows) = (u16::try_from(width), u16::try_from(height));
    let (columns, rows) = (columns.map_err(|_| too_large())?, rows.map_err(|_| too_large())?);

    let pixels = rgb(picture, &region, (width, height))?;
    let mut bytes = Vec::new();
    Encoder::new(&mut bytes, quality).encode(&pixels, columns, rows, ColorType::Rgb).map_err(
        |error| FrameError::InvalidRegion(format!("{width} x {height} cannot be encoded: {error}")),
    )?;
    Ok(Jpeg { width, height, bytes })
}

/// Writes the whole picture as a PNG file.
pub fn write_png(picture: &Picture, to: impl Write) -> anyhow::Result<()> {
    let size = (picture.width(), picture.height());
    let pixels = rgb(picture, &Region::of(picture, None)?, size)?;
    let mut encoder = png::Encoder::new(to, size.0, size.1);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels)?;
    Ok(writer.finish()?)
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
        resampler.rgb_rows(picture, &strip, (width, count), |_, [red, green, blue]| {
            let row = red.iter().zip(green).zip(blue);
            pixels.extend(row.flat_map(|((&red, &green), &blue)| [red, green, blue]));
        })?;
    }
    Ok(pixels)
}
