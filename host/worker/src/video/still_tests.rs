//! Files as people and cameras make them, and files as they should not be.

use jpeg_encoder::{ColorType as JpegColour, Encoder as JpegEncoder, SamplingFactor};
use ocelli_testkit::Random;
use ocelli_testkit::depth::rounds;
use png::{BitDepth, ColorType};

use super::*;
use StillError::{Damaged, TooLarge, Unsupported};

const WIDTH: u32 = 37;
const HEIGHT: u32 = 29;

/// More than any picture here has.
const ENOUGH: u32 = 1 << 20;

/// The colour of each pixel: red grows to the right, green downwards. `tests/images/interlaced.png`
/// has the same.
fn colour(x: u32, y: u32) -> [u8; 3] {
    [(x * 255 / (WIDTH - 1)) as u8, (y * 255 / (HEIGHT - 1)) as u8, 128]
}

fn pixels<const N: usize>(colour: impl Fn(u32, u32) -> [u8; N]) -> Vec<u8> {
    let all = (0..HEIGHT).flat_map(|y| (0..WIDTH).map(move |x| (x, y)));
    all.flat_map(|(x, y)| colour(x, y)).collect()
}

fn jpeg_file(
    colours: JpegColour,
    pixels: &[u8],
    with: impl FnOnce(&mut JpegEncoder<&mut Vec<u8>>),
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = JpegEncoder::new(&mut file, 100);
    with(&mut encoder);
    encoder.encode(pixels, WIDTH as u16, HEIGHT as u16, colours).unwrap();
    file
}

fn png_file(
    colours: ColorType,
    depth: BitDepth,
    data: &[u8],
    with: impl FnOnce(&mut png::Info<'static>),
) -> Vec<u8> {
    let mut info = png::Info::with_size(WIDTH, HEIGHT);
    (info.color_type, info.bit_depth) = (colours, depth);
    with(&mut info);
    let mut file = Vec::new();
    let mut writer = png::Encoder::with_info(&mut file, info).unwrap().write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    file
}

fn baseline() -> Vec<u8> {
    jpeg_file(JpegColour::Rgb, &pixels(colour), |encoder| {
        encoder.set_sampling_factor(SamplingFactor::F_2_2)
    })
}

fn progressive() -> Vec<u8> {
    jpeg_file(JpegColour::Rgb, &pixels(colour), |encoder| encoder.set_progressive(true))
}

fn plain_png() -> Vec<u8> {
    png_file(ColorType::Rgb, BitDepth::Eight, &pixels(colour), |_| ())
}

fn deep_png() -> Vec<u8> {
    let deep = pixels(|x, y| {
        colour(x, y).map(|sample| [sample, 77]).concat().try_into().unwrap_or([0; 6])
    });
    png_file(ColorType::Rgb, BitDepth::Sixteen, &deep, |_| ())
}

/// 16 colours in a row of the palette: red grows with the index.
fn palette_png() -> Vec<u8> {
    let index = |x: u32| (x * 15 / (WIDTH - 1)) as u8;
    let row: Vec<u8> = (0..WIDTH.div_ceil(2))
        .map(|pair| index(2 * pair) << 4 | index((2 * pair + 1).min(WIDTH - 1)))
        .collect();
    png_file(ColorType::Indexed, BitDepth::Four, &row.repeat(HEIGHT as usize), |info| {
        info.palette =
            Some((0..16_u8).flat_map(|index| [index * 17, 40, 128]).collect::<Vec<_>>().into());
    })
}

fn interlaced_png() -> Vec<u8> {
    std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/images/interlaced.png"))
        .unwrap()
}

/// The picture's pixels, red, green, blue, by the way that tensors take.
fn rgb(picture: &Picture) -> Vec<u8> {
    let spec = TensorSpec {
        width: picture.width(),
        height: picture.height(),
        fit: Fit::Stretch,
        channels: Channels::Rgb,
        layout: Layout::Nhwc,
        element: Element::U8,
        fill: [0.0; 3],
        mean: [0.0; 3],
        std: [1.0; 3],
    };
    let mut out = vec![0; spec.bytes()];
    Resampler::new().tensor(picture, None, &spec, &mut out).unwrap();
    out
}

/// The largest difference from the pixels that there should be.
fn off_by(file: &[u8], expected: &[u8]) -> u8 {
    let picture = still(file, ENOUGH).unwrap();
    assert_eq!((picture.width(), picture.height()), (WIDTH, HEIGHT));
    let shown = rgb(&picture);
    assert_eq!(shown.len(), expected.len());
    shown.iter().zip(expected).map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn a_png_of_each_kind_shows_its_colours() {
    let expected = pixels(colour);
    assert!(off_by(&plain_png(), &expected) <= 2);
    assert!(off_by(&deep_png(), &expected) <= 2, "16 bits");
    assert!(off_by(&interlaced_png(), &expected) <= 2, "interlaced");
    let palette = pixels(|x, _| [(x * 15 / (WIDTH - 1)) as u8 * 17, 40, 128]);
    assert!(off_by(&palette_png(), &palette) <= 2, "palette");

    let clear =
        pixels(|x, y| [colour(x, y), [x as u8; 3]].concat()[..4].try_into().unwrap_or([0; 4]));
    let file = png_file(ColorType::Rgba, BitDepth::Eight, &clear, |_| ());
    assert!(off_by(&file, &expected) <= 2, "transparency is ignored");
    let grey = pixels(|x, y| [(x + y) as u8; 3]);
    let file =
        png_file(ColorType::Grayscale, BitDepth::Eight, &pixels(|x, y| [(x + y) as u8]), |_| ());
    assert_eq!(off_by(&file, &grey), 0, "grey");
    let file = png_file(
        ColorType::GrayscaleAlpha,
        BitDepth::Eight,
        &pixels(|x, y| [(x + y) as u8, 9]),
        |_| (),
    );
    assert_eq!(off_by(&file, &grey), 0, "grey with transparency");
}

#[test]
fn a_jpeg_of_each_kind_shows_its_colours() {
    let expected = pixels(colour);
    assert!(off_by(&progressive(), &expected) <= 6, "progressive");
    assert!(off_by(&baseline(), &expected) <= 10, "chroma of a quarter of the size");
    let restarts = jpeg_file(JpegColour::Rgb, &expected, |encoder| encoder.set_restart_interval(2));
    assert!(off_by(&restarts, &expected) <= 10, "restart markers");
    let grey = jpeg_file(JpegColour::Luma, &pixels(|x, y| [(2 * x + y) as u8]), |_| ());
    assert!(off_by(&grey, &pixels(|x, y| [(2 * x + y) as u8; 3])) <= 2, "grey");
    // Printers' colours: how much ink there is of each, and none of the black one.
    let inks = |x: u32, y: u32| {
        let [red, green, blue] = colour(x, y);
        [255 - red, 255 - green, 255 - blue, 0]
    };
    for colours in [JpegColour::Cmyk, JpegColour::CmykAsYcck] {
        let worst = off_by(&jpeg_file(colours, &pixels(inks), |_| ()), &expected);
        assert!(worst <= 12, "{colours:?}: {worst}");
    }
}

/// EXIF data that say only this of the orientation.
fn exif(orientation: u8) -> Vec<u8> {
    // Big-endian TIFF, one directory at 8 with one entry: tag 0x0112, one SHORT.
    let entry = [0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, orientation, 0, 0];
    [b"MM\0\x2a\0\0\0\x08\0\x01".as_slice(), &entry, &[0; 4]].concat()
}

#[test]
fn pictures_are_turned_as_their_camera_was_held() {
    let turned = jpeg_file(JpegColour::Rgb, &pixels(colour), |encoder| {
        encoder.add_app_segment(1, [b"Exif\0\0".as_slice(), &exif(6)].concat()).unwrap();
    });
    let png = png_file(ColorType::Rgb, BitDepth::Eight, &pixels(colour), |info| {
        info.exif_metadata = Some(exif(6).into());
    });
    for file in [turned, png] {
        let picture = still(&file, ENOUGH).unwrap();
        assert_eq!((picture.width(), picture.height()), (HEIGHT, WIDTH));
        let shown = rgb(&picture);
        // Turned to the right, the left edge, which has no red, is the upper one, and the lower
        // edge the left one.
        let corner = |x: u32, y: u32| shown[((y * HEIGHT + x) * 3) as usize..][..2].to_vec();
        let near = |shown: Vec<u8>, expected: [u8; 2]| {
            assert!(
                shown.iter().zip(expected).all(|(a, b)| a.abs_diff(b) < 20),
                "{shown:?} {expected:?}"
            );
        };
        near(corner(0, 0), [0, 255]);
        near(corner(HEIGHT - 1, 0), [0, 0]);
        near(corner(0, WIDTH - 1), [255, 255]);
    }
}

#[test]
fn what_is_no_picture_is_named_so() {
    for file in [&b""[..], b"\xff", b"hello, this is text", b"GIF89a...", b"RIFF....WEBPVP8 "] {
        assert!(matches!(still(file, ENOUGH), Err(Unsupported(_))));
    }
}

#[test]
fn a_file_that_ends_too_soon_is_damaged() {
    for (kind, file) in [
        ("baseline", baseline()),
        ("progressive", progressive()),
        ("png", plain_png()),
        ("interlaced", interlaced_png()),
    ] {
        for part in [4, 2] {
            let cut = &file[..file.len() - file.len() / part];
            let refused = still(cut, ENOUGH);
            assert!(matches!(refused, Err(Damaged(_))), "{kind}: {refused:?}");
        }
    }
}

#[test]
fn a_picture_beyond_the_bound_is_refused_before_it_is_decoded() {
    let most = WIDTH * HEIGHT;
    for file in [baseline(), progressive(), plain_png()] {
        assert!(still(&file, most).is_ok());
        let refused = still(&file, most - 1).unwrap_err();
        assert!(matches!(&refused, TooLarge(words) if words.contains("37 x 29")), "{refused}");
    }
}

#[test]
fn a_header_that_claims_an_enormous_picture_is_refused() {
    let mut jpeg = baseline();
    // Height and width stand 5 bytes behind the start of the frame's marker.
    let at = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap() + 5;
    jpeg[at..at + 4].fill(0xff);
    let refused = still(&jpeg, 50_000_000).unwrap_err();
    assert!(matches!(&refused, TooLarge(words) if words.contains("65535 x 65535")), "{refused}");

    let mut png = plain_png();
    png[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    // The checksum of the header, so that the size is believed.
    let sum = crc(&png[12..29]).to_be_bytes();
    png[29..33].copy_from_slice(&sum);
    let refused = still(&png, u32::MAX).unwrap_err();
    assert!(matches!(&refused, TooLarge(words) if words.contains("2147483647")), "{refused}");
}

/// CRC-32 as PNG has it.
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    }
    !crc
}

/// Sets bytes, flips bits near the beginning, or takes away, repeats or empties a part.
fn mutate(file: &mut Vec<u8>, random: &mut Random) {
    let length = file.len();
    let start = random.usize(..length);
    let part = start..(start + 1 + random.usize(..60)).min(length);
    match random.usize(..6) {
        0 => (0..1 + random.usize(..20)).for_each(|_| file[random.usize(..length)] = random.u8(..)),
        1 => (0..1 + random.usize(..4))
            .for_each(|_| file[random.usize(..length.min(200))] ^= 1 << random.usize(..8)),
        2 => file[part].fill(0),
        3 => drop(file.drain(part)),
        4 => {
            let again = file[part.clone()].to_vec();
            drop(file.splice(part.end..part.end, again));
        }
        _ => file.truncate(start.max(1)),
    }
}

/// Makes the checksums of a PNG file right again, so that what was changed gets past them.
fn mend(file: &mut [u8]) {
    let mut at = 8;
    while let Some(header) = file.get(at..at + 8) {
        let length = u32::from_be_bytes(header[..4].try_into().unwrap()) as usize;
        let Some(end) = at.checked_add(8).and_then(|data| data.checked_add(length)) else { return };
        if end + 4 > file.len() {
            return;
        }
        let sum = crc(&file[at + 4..end]).to_be_bytes();
        file[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
}

/// Private memory in which the mutated files are decoded: a size that a mutation made up may be
/// any.
const FUZZ_MEMORY: u64 = 512 << 20;

#[test]
fn mutated_files_are_pictures_or_named_errors() {
    crate::own_process::run_in_own_process("video::still_tests::mutations_of_each_kind");
}

#[test]
#[ignore = "limits the whole process; run by mutated_files_are_pictures_or_named_errors"]
fn mutations_of_each_kind() {
    ocelli_sandbox::limit::memory(FUZZ_MEMORY).unwrap();
    let kinds = [
        ("JPEG baseline", baseline()),
        ("JPEG progressive", progressive()),
        ("PNG", plain_png()),
        ("PNG of 16 bits", deep_png()),
        ("PNG with a palette", palette_png()),
        ("PNG interlaced", interlaced_png()),
    ];
    for (kind, whole) in kinds {
        let (mut shown, mut unsupported, mut damaged, mut too_large) = (0, 0, 0, 0);
        let rounds = rounds(80) as u64;
        for seed in 0..rounds {
            let mut random = Random::with_seed(seed);
            let mut file = whole.clone();
            (0..1 + random.usize(..4)).for_each(|_| mutate(&mut file, &mut random));
            if seed % 2 == 0 && kind.starts_with("PNG") {
                mend(&mut file);
            }
            match still(&file, 4_000_000) {
                Ok(picture) => {
                    // Each row can be read to its end.
                    let ends = picture.luma().rows(0).filter_map(|row| row.last()).count();
                    assert_eq!(ends, picture.height() as usize, "{kind} seed {seed}");
                    shown += 1;
                }
                Err(Unsupported(_)) => unsupported += 1,
                Err(Damaged(_)) => damaged += 1,
                Err(TooLarge(_)) => too_large += 1,
            }
        }
        eprintln!(
            "{kind}: of {rounds} mutated files {shown} are pictures, {unsupported} no such file, \
                {damaged} damaged, \
             {too_large} too large"
        );
        // A PNG file is so much checked that hardly a change gets through.
        assert!(
            damaged > rounds / 8 && (shown > 0 || kind.starts_with("PNG")),
            "{kind}: the mutations find nothing"
        );
    }
}
