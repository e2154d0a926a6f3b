//! What a person sees of the clips `spot`: where the white square is, and where the box.

use std::collections::BTreeSet;
use std::io::Cursor;
use std::time::Instant;

use ocelli_testkit::DEADLINE;
use ocelli_testkit::browser::Window;

/// The clip's square and the box around it, in the picture's own pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Seen {
    /// Left and upper edge.
    pub(crate) square: (f64, f64),
    /// The same of the box; none where none is drawn.
    pub(crate) drawn: Option<(f64, f64)>,
}

/// Columns of the clip, and by how many the square moves from one picture to the next.
const WIDTH: f64 = 640.0;
const STEP: f64 = 14.0;

impl Seen {
    /// The number of the frame in the clip.
    pub(crate) fn frame(&self) -> i64 {
        (self.square.0 / STEP).round() as i64
    }

    /// By how many frames the box is behind its picture, if there is a box.
    pub(crate) fn late(&self) -> Option<i64> {
        Some(((self.square.0 - self.drawn?.0) / STEP).round() as i64)
    }
}

/// Looks at a picture until the square has been seen at `count` places.
pub(crate) async fn places(window: &Window, selector: &str, count: usize) -> Vec<Seen> {
    let begun = Instant::now();
    let (mut all, mut frames) = (Vec::new(), BTreeSet::new());
    while frames.len() < count {
        assert!(
            begun.elapsed() < DEADLINE,
            "the square was seen in frames {frames:?} alone; faults: {:?}",
            window.faults()
        );
        if let Some(seen) = look(&window.seen(selector).await) {
            frames.insert(seen.frame());
            all.push(seen);
        }
    }
    all
}

/// None where there is no square.
pub(crate) fn look(png: &[u8]) -> Option<Seen> {
    let mut reader = png::Decoder::new(Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    let (width, samples) = (info.width as usize, info.color_type.samples());
    let scale = WIDTH / f64::from(info.width);
    let edges = |is: fn(&[u8]) -> bool| {
        let place = |pixel: usize| (pixel % width, pixel / width);
        let found: Vec<_> = pixels
            .chunks_exact(samples)
            .enumerate()
            .filter(|(_, pixel)| is(pixel))
            .map(|(pixel, _)| place(pixel))
            .collect();
        let left = first_full(found.iter().map(|(x, _)| *x), width)?;
        let top = first_full(found.iter().map(|(_, y)| *y), info.height as usize)?;
        Some((left as f64 * scale, top as f64 * scale))
    };
    let square = edges(|pixel| pixel.iter().take(3).all(|value| *value > 215))?;
    // The clip is grey: what has a colour is drawn over it.
    let drawn = edges(|pixel| {
        let colours = pixel.iter().take(3);
        colours.clone().max().unwrap().abs_diff(*colours.min().unwrap()) > 60
    });
    Some(Seen { square, drawn })
}

/// The first line that has at least half as many pixels as the line with the most: words have few
/// in one line, edges many.
fn first_full(places: impl Iterator<Item = usize>, lines: usize) -> Option<usize> {
    let mut counts = vec![0; lines];
    places.for_each(|place| counts[place] += 1);
    let most = counts.iter().max().copied().filter(|most| *most > 8)?;
    counts.iter().position(|count| count * 2 >= most)
}

#[test]
fn a_box_beside_its_square_is_seen() {
    let (width, height) = (320u32, 180u32);
    let mut pixels = [32u8, 36, 40].repeat((width * height) as usize);
    let mut fill = |left: u32, top: u32, wide: u32, high: u32, colour: [u8; 3]| {
        for (x, y) in (left..left + wide).flat_map(|x| (top..top + high).map(move |y| (x, y))) {
            pixels[((y * width + x) * 3) as usize..][..3].copy_from_slice(&colour);
        }
    };
    fill(70, 23, 32, 32, [250; 3]);
    // A box, drawn for the frame before, with a word above it.
    for (left, top, wide, high) in
        [(63, 12, 32, 1), (63, 44, 32, 1), (63, 12, 1, 32), (94, 12, 1, 32), (63, 2, 20, 8)]
    {
        fill(left, top, wide, high, [20, 220, 90]);
    }
    let mut png = Vec::new();
    let mut encoder = png::Encoder::new(&mut png, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    let seen = look(&png).unwrap();
    assert_eq!((seen.frame(), seen.late()), (10, Some(1)), "{seen:?}");
}
