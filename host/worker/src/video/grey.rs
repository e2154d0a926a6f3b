//! A picture's luma made small by averaging whole samples: cheap enough to be made of every frame.

use ocelli_protocol::worker::Orientation;

use super::orientation::turn;
use super::picture::{Picture, Plane};

/// Samples of a row, or of a column, that become one, at most: sums of so many fit 16 bits.
const MAX_STEP: usize = 256;

/// A small grey picture, as shown, row by row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Grey {
    pub(super) samples: Vec<u8>,
    pub(super) width: usize,
    pub(super) height: usize,
}

/// Sums of a few rows, kept from picture to picture.
#[derive(Debug, Default)]
pub(super) struct Averager {
    sums: Vec<u16>,
    row: Vec<u8>,
    turned: Vec<u8>,
}

impl Averager {
    /// Makes `grey` of the picture's luma, of at most `pixels` samples, and gives how many of the
    /// picture's pixels are one of its own along each side. What is left over at the right and
    /// lower edge is not looked at.
    pub(super) fn picture(&mut self, picture: &Picture, pixels: usize, grey: &mut Grey) -> usize {
        let plane = picture.luma();
        let (width, height) = (plane.width() as usize, plane.height() as usize);
        let step = step(width, height, pixels);
        let mut row = std::mem::take(&mut self.row);
        let rows = (0..plane.height()).map(|y| plane.row(y));
        if plane.depth() == 8 {
            self.average(rows, width, step, &mut grey.samples);
        } else {
            self.begin(width, step, &mut grey.samples);
            rows.for_each(|wide| {
                reduce(wide, &plane, &mut row);
                self.add(&row, step, &mut grey.samples);
            });
        }
        self.row = row;
        if picture.orientation() != Orientation::Upright {
            turn(picture.orientation(), &grey.samples, width / step, &mut self.turned);
            std::mem::swap(&mut grey.samples, &mut self.turned);
        }
        (grey.width, grey.height) = picture.orientation().shown((width / step, height / step));
        step
    }

    /// The same of a picture that is grey already.
    pub(super) fn grey(&mut self, from: &Grey, pixels: usize, grey: &mut Grey) -> usize {
        let step = step(from.width, from.height, pixels);
        self.by(from, step, grey);
        step
    }

    /// Makes `grey` of a picture, `step` samples a side becoming one.
    pub(super) fn by(&mut self, from: &Grey, step: usize, grey: &mut Grey) {
        let rows = from.samples.chunks_exact(from.width.max(1));
        self.average(rows, from.width, step, &mut grey.samples);
        (grey.width, grey.height) = (from.width / step, from.height / step);
    }

    fn average<'a>(
        &mut self,
        rows: impl Iterator<Item = &'a [u8]>,
        width: usize,
        step: usize,
        out: &mut Vec<u8>,
    ) {
        self.begin(width, step, out);
        rows.for_each(|row| self.add(row, step, out));
    }

    fn begin(&mut self, width: usize, step: usize, out: &mut Vec<u8>) {
        out.clear();
        self.sums.clear();
        // The last place counts rows.
        self.sums.resize(width / step * step + 1, 0);
    }

    /// Adds a row; with the last of `step` rows, writes a row of averages.
    fn add(&mut self, row: &[u8], step: usize, out: &mut Vec<u8>) {
        let Some((rows, sums)) = self.sums.split_last_mut() else { return };
        for (sum, &sample) in sums.iter_mut().zip(row) {
            *sum += u16::from(sample);
        }
        *rows += 1;
        if usize::from(*rows) == step {
            match step {
                1 => out.extend(sums.iter().map(|&sum| sum as u8)),
                2 => averages::<2>(sums, out),
                3 => averages::<3>(sums, out),
                4 => averages::<4>(sums, out),
                _ => {
                    let area = (step * step) as u32;
                    out.extend(sums.chunks_exact(step).map(|sums| {
                        let sum: u32 = sums.iter().copied().map(u32::from).sum();
                        ((sum + area / 2) / area) as u8
                    }));
                }
            }
            self.sums.fill(0);
        }
    }
}

/// The averages of `N` columns each of sums of `N` rows. A constant, so that the compiler divides
/// by a multiplication.
fn averages<const N: usize>(sums: &[u16], out: &mut Vec<u8>) {
    let area = (N * N) as u32;
    out.extend(sums.as_chunks::<N>().0.iter().map(|sums| {
        let sum: u32 = sums.iter().copied().map(u32::from).sum();
        ((sum + area / 2) / area) as u8
    }));
}

/// The smallest step by which a picture has at most so many samples.
fn step(width: usize, height: usize, pixels: usize) -> usize {
    let fits = |step: &usize| (width / step) * (height / step) <= pixels;
    (1..MAX_STEP).find(fits).unwrap_or(MAX_STEP)
}

/// A row of more than 8 bits in 8.
fn reduce(row: &[u8], plane: &Plane<'_>, out: &mut Vec<u8>) {
    let shift = plane.depth().saturating_sub(8);
    out.clear();
    out.extend(row.as_chunks().0.iter().map(|&sample| (u16::from_le_bytes(sample) >> shift) as u8));
}

#[cfg(test)]
mod tests {
    use super::super::picture::Matrix;
    use super::*;

    fn picture(width: u32, height: u32) -> Picture {
        let sample = |_: usize, x: u32, y: u32| (x * 10 + y) as u8;
        Picture::painted((width, height), (1, 1), Matrix::Bt601, false, sample)
    }

    #[test]
    fn each_sample_is_the_average_of_as_many_as_it_takes() {
        let mut grey = Grey::default();
        let mut averager = Averager::default();
        assert_eq!(averager.picture(&picture(4, 2), 8, &mut grey), 1);
        assert_eq!(grey.samples, [0, 10, 20, 30, 1, 11, 21, 31]);
        for (size, most, step, expected) in [
            ((5, 3), 4, 2, &[6, 26][..]),
            ((6, 6), 4, 3, &[11, 41, 14, 44]),
            ((8, 4), 2, 3, &[11, 41]),
            ((9, 4), 2, 4, &[17, 57]),
            ((20, 5), 4, 5, &[22, 72, 122, 172]),
            ((5, 5), 1, 3, &[11]),
        ] {
            let made = averager.picture(&picture(size.0, size.1), most, &mut grey);
            assert_eq!(made, step, "{size:?}");
            assert_eq!(grey.samples, expected, "{size:?}");
            assert_eq!(grey.width * grey.height, expected.len(), "{size:?}");
        }
    }

    #[test]
    fn deep_samples_and_turned_pictures_are_averaged_alike() {
        let mut averager = Averager::default();
        let [mut plain, mut deep, mut turned] =
            [const { Grey { samples: vec![], width: 0, height: 0 } }; 3];
        averager.picture(&picture(6, 4), 6, &mut plain);
        averager.picture(&picture(6, 4).deeper(10), 6, &mut deep);
        assert_eq!(plain, deep);
        averager.picture(&picture(6, 4).oriented(Orientation::TurnRight), 6, &mut turned);
        assert_eq!((turned.width, turned.height), (2, 3));
        let [a, b, c, d, e, f] = plain.samples[..] else { panic!("{plain:?}") };
        assert_eq!(turned.samples, [d, a, e, b, f, c]);
    }

    #[test]
    fn a_picture_of_any_shape_is_small() {
        let mut averager = Averager::default();
        let mut grey = Grey::default();
        for (width, height) in [(1, 1), (3, 1), (1, 700), (2000, 2), (333, 77)] {
            averager.picture(&picture(width, height), 100, &mut grey);
            assert!(grey.samples.len() <= 100, "{width} x {height}");
            assert_eq!(grey.samples.len(), grey.width * grey.height);
        }
    }
}
