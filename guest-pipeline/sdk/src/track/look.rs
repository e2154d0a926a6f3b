//! What an object looks like: colours by which two people who meet are told apart.
//!
//! Four bands of a box's middle, from top down: hair and face, jacket, trousers, shoes, each as a
//! mean that weighs its middle most and reaches half a band beyond it. That is twelve numbers, which
//! a picture of one pixel by four has. On people 75 pixels high a second apart (PETS09-S2L1), 94 of
//! 100 pairs of sights are more alike if they are of one person than if they are of two.

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;
use crate::{Channels, Element, Fit, Frame, FrameError, Layout, Rect, TensorSpec};

/// Bands of a box.
const BANDS: usize = 4;

/// The part of a box that is its object for the most part, in its width and height.
const INNER: [[f32; 2]; 2] = [[0.25, 0.75], [0.08, 0.92]];

/// Boxes that the host takes in one call. Of more objects the first are looked at.
const MOST: usize = 64;

/// The least side of what is looked at, in pixels.
const LEAST_SIDE: f32 = 1.0;

/// What a step of a colour weighs against one of brightness: shadows and light change brightness
/// more.
const COLOUR: f32 = 3.0;

/// The difference, in levels of 255, at which one object is as probable as two.
const DIFFERENT: f32 = 35.0;

/// What a full likeness is worth against a full overlap, and what a difference costs at most.
const ALIKE: f32 = 0.9;
const UNLIKE: f32 = -1.25;

/// The part of what is remembered that each clear sight replaces: a look is that of the last ten.
const LEARNT: f32 = 0.1;

/// Mean colours of an object's bands: brightness of each, then blue, then red against it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Look([[f32; BANDS]; 3]);

impl Look {
    /// What is in these boxes of the frame, in their order; none where a box is too small or out of
    /// the picture, and for boxes beyond the 64th.
    ///
    /// # Errors
    /// A frame that gives no pixels.
    pub fn of(frame: &Frame, boxes: &[BBox]) -> Result<Vec<Option<Self>>, FrameError> {
        let size = (frame.width() as f32, frame.height() as f32);
        let regions = boxes.iter().map(|b| inner(b, size));
        let regions: Vec<Option<Rect>> = regions.collect();
        let seen: Vec<Rect> = regions.iter().flatten().copied().take(MOST).collect();
        if seen.is_empty() {
            return Ok(vec![None; boxes.len()]);
        }
        let (pixels, _) = frame.tensors(&seen, spec())?;
        let pixels = pixels.data();
        let mut looks = pixels.as_chunks().0.iter().map(Self::of_rgb);
        Ok(regions.iter().map(|region| region.and_then(|_| looks.next())).collect())
    }

    /// From the red values of all bands, then green, then blue. BT.601.
    fn of_rgb(rgb: &[u8; 3 * BANDS]) -> Self {
        let mut look = [[0.0; BANDS]; 3];
        let [lights, blues, reds] = &mut look;
        let [red, green, blue] = [0, 1, 2].map(|n| rgb.iter().skip(n * BANDS).copied());
        let bands = red.zip(green).zip(blue).map(|((r, g), b)| [r, g, b].map(f32::from));
        let values = lights.iter_mut().zip(blues).zip(reds);
        for (((light, to_blue), to_red), [r, g, b]) in values.zip(bands) {
            *light = 0.299 * r + 0.587 * g + 0.114 * b;
            *to_blue = 0.564 * (b - *light);
            *to_red = 0.713 * (r - *light);
        }
        Self(look)
    }

    /// What it adds to the gain of pairing a track that looks so with a sight that looks like
    /// `other`; below 0 where two objects are more probable than one.
    pub(super) fn likeness(&self, other: &Self) -> f32 {
        let mean = |own: &[f32; BANDS], other: &[f32; BANDS]| {
            let each = own.iter().zip(other).map(|(own, other)| (own - other).abs());
            each.sum::<f32>() / BANDS as f32
        };
        let ([light, blue, red], [lights, blues, reds]) = (&self.0, &other.0);
        let (light, blue, red) = (mean(light, lights), mean(blue, blues), mean(red, reds));
        let difference = light + COLOUR * (blue + red) / 2.0;
        (ALIKE * (1.0 - difference / DIFFERENT)).max(UNLIKE)
    }

    /// Takes in another sight of the same object.
    pub(super) fn learn(&mut self, seen: &Self) {
        for (own, seen) in self.0.iter_mut().flatten().zip(seen.0.iter().flatten()) {
            *own += LEARNT * (seen - *own);
        }
    }

    /// Whether it can have come from a picture.
    pub(super) fn is_sound(&self) -> bool {
        self.0.iter().flatten().all(|value| value.abs() <= 255.0)
    }
}

/// One pixel for each band.
fn spec() -> TensorSpec {
    TensorSpec {
        fit: Fit::Stretch,
        channels: Channels::Rgb,
        layout: Layout::Nchw,
        element: Element::U8,
        ..TensorSpec::letterbox(1, BANDS as u32)
    }
}

/// The part of a box that is looked at, as far as it is in a picture of this size.
fn inner(b: &BBox, (width, height): (f32, f32)) -> Option<Rect> {
    let [across, down] = INNER;
    let part = BBox {
        left: b.left + across[0] * b.width(),
        top: b.top + down[0] * b.height(),
        right: b.left + across[1] * b.width(),
        bottom: b.top + down[1] * b.height(),
    };
    let part = part.clip(width, height);
    let is_large = part.is_proper() && part.width().min(part.height()) >= LEAST_SIDE;
    is_large.then(|| part.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 3] = [180, 40, 40];
    const BLUE: [u8; 3] = [40, 40, 180];

    fn look(jacket: [u8; 3], trousers: [u8; 3]) -> Look {
        let bands = [jacket, jacket, trousers, trousers];
        let mut rgb = [0; 12];
        for (place, value) in rgb.iter_mut().enumerate() {
            *value = bands[place % 4][place / 4];
        }
        Look::of_rgb(&rgb)
    }

    #[test]
    fn who_is_dressed_alike_is_alike_and_light_tells_less_than_colour() {
        let own = look(RED, [60; 3]);
        assert_eq!(own.likeness(&own), ALIKE);
        let in_the_shade = look([150, 25, 25], [45; 3]);
        assert!(own.likeness(&in_the_shade) > 0.0, "{}", own.likeness(&in_the_shade));
        assert_eq!(own.likeness(&look(BLUE, [60; 3])), UNLIKE);
        assert_eq!(own.likeness(&look([60; 3], RED)), UNLIKE, "bands are in order");
    }

    #[test]
    fn bands_are_read_from_the_boxs_inner_part_from_top_down() {
        // A red jacket over blue trousers, in a green meadow.
        let (width, height) = (100usize, 100usize);
        let pixels: Vec<u8> = (0..width * height)
            .flat_map(|n| match (n % width, n / width) {
                (40..60, 20..50) => RED,
                (40..60, 50..80) => BLUE,
                _ => [30, 200, 30],
            })
            .collect();
        let frame = Frame::of_rgb(100, 100, &pixels);
        let there = BBox::from_xywh(40.0, 20.0, 20.0, 60.0);
        let beyond = BBox::from_xywh(140.0, 20.0, 20.0, 60.0);
        let thin = BBox::from_xywh(40.0, 20.0, 0.5, 60.0);
        let cut = BBox::from_xywh(90.0, 70.0, 20.0, 60.0);
        let looks = Look::of(&frame, &[beyond, there, thin, cut]).unwrap();
        assert_eq!((looks[0], looks[2]), (None, None));
        assert_eq!(looks[1], Some(look(RED, BLUE)));
        assert_eq!(looks[3], Some(look([30, 200, 30], [30, 200, 30])));
        assert_eq!(Look::of(&frame, &[]).unwrap(), []);
    }

    #[test]
    fn a_crowd_is_looked_at_as_far_as_the_host_takes_it() {
        let frame = Frame::solid(100, 100, RED);
        let crowd = vec![BBox::from_xywh(10.0, 10.0, 20.0, 40.0); 70];
        let looks = Look::of(&frame, &crowd).unwrap();
        assert_eq!(looks.iter().flatten().count(), 64);
        assert_eq!(looks.len(), 70);
    }

    #[test]
    fn a_look_follows_slowly() {
        let (mut own, other) = (look(RED, [60; 3]), look(BLUE, [60; 3]));
        own.learn(&other);
        assert!(own.likeness(&look(RED, [60; 3])) > 0.5);
        (0..40).for_each(|_| own.learn(&other));
        assert!(own.likeness(&other) > 0.8 && own.is_sound());
    }
}
