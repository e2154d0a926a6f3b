//! A single picture: a JPEG or PNG file, decoded to what a camera's picture is.
//!
//! The decoders are Rust: libavcodec would conceal what is missing in a truncated file, and ignores
//! the orientation. A file that ends too soon, or whose compressed data make no sense, is
//! refused: half a picture would be analysed as if it were the whole. JPEG: baseline and
//! progressive, 8 bits; its luma and chroma go to the resampler as they are; RGB, CMYK and YCCK
//! ones by way of RGB. PNG: all kinds, 16 bits cut to 8, transparency ignored, as image libraries
//! do where they are asked for three channels. An animation gives its first picture. Colour
//! profiles are not looked at. What EXIF says of the orientation holds for both.

use std::io::Cursor;
use std::panic::catch_unwind;

use png::{ColorType, DecodeOptions, DecodingError, Limits, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::colour::ycbcr;
use super::orientation::of_exif;
use super::picture::Picture;
use crate::memory::{RESERVED, can_allocate};

/// The first bytes of every JPEG file: the start of image, and the first byte of a marker.
const JPEG: &[u8] = b"\xff\xd8\xff";

/// The first bytes of every PNG file.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Bytes of memory that decoding takes for each pixel: of a progressive JPEG in four colours, 8 for
/// the coefficients, and 3 for the pixels, which become 3 of planes once the coefficients are gone;
/// a spare byte for rows in work.
const BYTES_PER_PIXEL: usize = 12;

/// Longest side of a JPEG picture: what its header can say.
const MAX_JPEG_SIDE: usize = u16::MAX as usize;

/// Memory for a PNG file's rows in work and what it has beside its pixels, in bytes: the crate's
/// own default.
const PNG_MEMORY: usize = 64 << 20;

/// Why a file gives no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StillError {
    /// It is none that is read here.
    #[error("{0}")]
    Unsupported(String),
    /// It is damaged or ends too soon.
    #[error("{0}")]
    Damaged(String),
    /// The picture has more pixels than are allowed, or than there is memory for.
    #[error("{0}")]
    TooLarge(String),
}

/// Decodes a JPEG or PNG file of up to `max_pixels` pixels. The bound holds before memory is taken
/// for them.
pub fn still(file: &[u8], max_pixels: u32) -> Result<Picture, StillError> {
    let decode = || {
        if file.starts_with(JPEG) {
            jpeg(file, max_pixels)
        } else if file.starts_with(PNG) {
            png(file, max_pixels)
        } else {
            let size = file.len();
            Err(StillError::Unsupported(format!(
                "{size} bytes that are neither a JPEG nor a PNG file"
            )))
        }
    };
    // The decoders own all that they change, so nothing is left half done where one of them panics
    // on a file that its authors have not thought of.
    catch_unwind(decode).unwrap_or_else(|_| {
        Err(StillError::Damaged("the file is more than its decoder can take".into()))
    })
}

/// Refuses a picture of too many pixels.
fn check_size((width, height): (usize, usize), max_pixels: u32) -> Result<(), StillError> {
    let pixels = width.saturating_mul(height);
    if pixels > max_pixels as usize {
        let message =
            format!("the picture has {width} x {height} pixels: at most {max_pixels} are taken");
        return Err(StillError::TooLarge(message));
    }
    if !can_allocate(pixels.saturating_mul(BYTES_PER_PIXEL).saturating_add(RESERVED)) {
        let message = format!(
            "the picture has {width} x {height} pixels: the worker's memory does not suffice"
        );
        return Err(StillError::TooLarge(message));
    }
    Ok(())
}

fn jpeg(file: &[u8], max_pixels: u32) -> Result<Picture, StillError> {
    let options = DecoderOptions::default()
        .set_strict_mode(true)
        .set_max_width(MAX_JPEG_SIDE)
        .set_max_height(MAX_JPEG_SIDE);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(file), options);
    decoder.decode_headers().map_err(|error| jpeg_error(&error))?;
    let size = decoder.dimensions().ok_or_else(|| damaged("JPEG", "its header says no size"))?;
    check_size(size, max_pixels)?;
    let found = decoder.input_colorspace();
    let wanted = match found {
        Some(ColorSpace::Luma) => ColorSpace::Luma,
        Some(ColorSpace::YCbCr) => ColorSpace::YCbCr,
        Some(ColorSpace::RGB | ColorSpace::CMYK | ColorSpace::YCCK) => ColorSpace::RGB,
        _ => {
            let message = format!("a JPEG file in the colour space {found:?} is not read");
            return Err(StillError::Unsupported(message));
        }
    };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let pixels = decoder.decode().map_err(|error| jpeg_error(&error))?;
    let orientation = of_exif(decoder.exif().map(Vec::as_slice));
    drop(decoder);
    let planes = match wanted {
        ColorSpace::Luma => planes(&pixels, size, |grey: [u8; 1]| grey),
        ColorSpace::YCbCr => planes(&pixels, size, |samples: [u8; 3]| samples),
        _ => planes(&pixels, size, ycbcr),
    };
    Ok(picture(size, planes, "JPEG")?.oriented(orientation))
}

fn jpeg_error(error: &DecodeErrors) -> StillError {
    match error {
        DecodeErrors::Unsupported(what) => {
            StillError::Unsupported(format!("a JPEG file of a kind that is not read: {what:?}"))
        }
        DecodeErrors::LargeDimensions(_) => StillError::TooLarge(format!("{error:?}")),
        // 12 bits is the other depth that the standard has. The crate has no kind of its own for
        // it.
        DecodeErrors::SofError(reason) if reason.contains("8-bit") => {
            StillError::Unsupported(reason.clone())
        }
        _ => damaged("JPEG", &format!("{error:?}")),
    }
}

fn png(file: &[u8], max_pixels: u32) -> Result<Picture, StillError> {
    let mut options = DecodeOptions::default();
    options.set_ignore_checksums(false);
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = png::Decoder::new_with_options(Cursor::new(file), options);
    decoder.set_limits(Limits { bytes: PNG_MEMORY });
    decoder.set_transformations(Transformations::normalize_to_color8());
    let (width, height) = decoder.read_header_info().map_err(|error| png_error(&error))?.size();
    let size = (width as usize, height as usize);
    check_size(size, max_pixels)?;
    let mut reader = decoder.read_info().map_err(|error| png_error(&error))?;
    let mut pixels =
        vec![0; reader.output_buffer_size().ok_or_else(|| damaged("PNG", "its size has no end"))?];
    reader.next_frame(&mut pixels).map_err(|error| png_error(&error))?;
    reader.finish().map_err(|error| png_error(&error))?;
    let orientation = of_exif(reader.info().exif_metadata.as_deref());
    let (colours, _) = reader.output_color_type();
    drop(reader);
    let planes = match colours {
        ColorType::Grayscale => planes(&pixels, size, |grey: [u8; 1]| grey),
        ColorType::GrayscaleAlpha => planes(&pixels, size, |[grey, _]| [grey]),
        ColorType::Rgb => planes(&pixels, size, ycbcr),
        ColorType::Rgba => planes(&pixels, size, |[red, green, blue, _]| ycbcr([red, green, blue])),
        // The transformations expand palettes.
        ColorType::Indexed => return Err(damaged("PNG", "its palette cannot be expanded")),
    };
    Ok(picture(size, planes, "PNG")?.oriented(orientation))
}

fn png_error(error: &DecodingError) -> StillError {
    match error {
        DecodingError::LimitsExceeded => StillError::TooLarge(format!("PNG file: {error}")),
        _ => damaged("PNG", &error.to_string()),
    }
}

fn damaged(kind: &str, why: &str) -> StillError {
    StillError::Damaged(format!("the {kind} file is damaged: {why}"))
}

/// Splits pixels of `N` bytes, row by row from the upper left, into planes; `samples` makes a
/// pixel's samples.
fn planes<const N: usize, const P: usize>(
    pixels: &[u8],
    (width, height): (usize, usize),
    samples: impl Fn([u8; N]) -> [u8; P],
) -> Vec<Vec<u8>> {
    let mut planes: [Vec<u8>; P] =
        std::array::from_fn(|_| Vec::with_capacity(width.saturating_mul(height)));
    for pixel in pixels.as_chunks().0 {
        planes.iter_mut().zip(samples(*pixel)).for_each(|(plane, sample)| plane.push(sample));
    }
    planes.into()
}

fn picture(
    (width, height): (usize, usize),
    planes: Vec<Vec<u8>>,
    format: &'static str,
) -> Result<Picture, StillError> {
    let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok());
    sides
        .and_then(|(width, height)| Picture::of_planes(width, height, planes, format))
        .ok_or_else(|| damaged(format, "its pixels do not fill its size"))
}
