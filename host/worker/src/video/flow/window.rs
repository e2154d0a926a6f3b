//! The samples around a point, between those that a picture has.

use super::super::grey::Grey;
use super::Point;

/// Samples of a window's side: two vector registers of four numbers, so that each loop over a row
/// is a few instructions.
pub(super) const SIDE: usize = 8;

/// Least eigenvalue of a window's gradients, a sample, of a point that can be followed: below it,
/// noise moves the point as much as the picture does.
const TEXTURE: f32 = 2.0;

type Row = [f32; SIDE];

/// The samples of a window.
pub(super) struct Found([Row; SIDE]);

/// A point's samples, what they change by along x and y, and what a step is made with.
pub(super) struct Template {
    samples: [Row; SIDE],
    /// Without their mean.
    along_x: [Row; SIDE],
    along_y: [Row; SIDE],
    /// The inverse of the matrix of the gradients' products: xx, xy, yy.
    inverse: [f32; 3],
    /// Sum of the samples' squared distances from their mean.
    spread: f32,
}

/// Rows and columns of whole samples around a window with its margins, and how far it lies behind
/// the first of them.
struct Surroundings<const ROWS: usize> {
    samples: [[u8; 16]; ROWS],
    x: f32,
    y: f32,
}

impl<const ROWS: usize> Surroundings<ROWS> {
    /// `margin` samples to the left of and above the window around a point.
    #[inline(always)]
    fn around(picture: &Grey, at: Point, margin: f32) -> Self {
        // A sample's middle lies half a sample behind its edge; half a window, less that half.
        let before = SIDE as f32 / 2.0 + margin;
        let (x, y) = (at.x - before, at.y - before);
        let (left, top) = (floor(x), floor(y));
        let samples =
            Self::whole(picture, left, top).unwrap_or_else(|| Self::with_edges(picture, left, top));
        Self { samples, x: x - left, y: y - top }
    }

    /// The samples, where all of them lie in the picture.
    #[inline(always)]
    fn whole(picture: &Grey, left: f32, top: f32) -> Option<[[u8; 16]; ROWS]> {
        if left < 0.0 || top < 0.0 {
            return None;
        }
        let (left, top) = (left as usize, top as usize);
        if left + 16 > picture.width || top + ROWS > picture.height {
            return None;
        }
        let start = top * picture.width + left;
        let last = (ROWS - 1) * picture.width + 16;
        let rows = picture.samples.get(start..)?.get(..last)?.chunks(picture.width);
        let mut samples = [[0; 16]; ROWS];
        for (out, row) in samples.iter_mut().zip(rows) {
            *out = *row.first_chunk()?;
        }
        Some(samples)
    }

    /// The samples; those of the edge continue beyond it.
    #[inline(never)]
    fn with_edges(picture: &Grey, left: f32, top: f32) -> [[u8; 16]; ROWS] {
        let place = |start: f32, offset: usize, side: usize| {
            // Not a number becomes 0.
            (start + offset as f32).clamp(0.0, side.saturating_sub(1) as f32) as usize
        };
        // As many as there are rows: no window is wider than it is high.
        let columns: [usize; ROWS] = std::array::from_fn(|x| place(left, x, picture.width));
        let mut samples = [[0; 16]; ROWS];
        for (y, out) in samples.iter_mut().enumerate() {
            let start = place(top, y, picture.height) * picture.width;
            let row = picture.samples.get(start..).unwrap_or_default();
            for (out, &column) in out.iter_mut().zip(&columns) {
                *out = row.get(column).copied().unwrap_or_default();
            }
        }
        samples
    }
}

/// The next lower whole number; `f32::floor` is a call where the processor may be an old one.
#[inline(always)]
fn floor(value: f32) -> f32 {
    let whole = value as i32 as f32;
    if whole > value { whole - 1.0 } else { whole }
}

/// The first `N` samples of a row and one more, `share` of the way from each to the next.
#[inline(always)]
fn along<const N: usize>(row: &[u8; 16], share: f32) -> [f32; N] {
    let mut out = [0.0; N];
    let next = row.iter().skip(1);
    for ((out, &one), &next) in out.iter_mut().zip(row).zip(next) {
        let one = f32::from(one);
        *out = one + (f32::from(next) - one) * share;
    }
    out
}

#[inline(always)]
fn between<const N: usize>(one: &[f32; N], other: &[f32; N], share: f32) -> [f32; N] {
    let mut out = [0.0; N];
    for ((out, one), other) in out.iter_mut().zip(one).zip(other) {
        *out = one + (other - one) * share;
    }
    out
}

/// Sums of a window, by column until the end: no sum waits for the one before.
#[inline(always)]
fn sum(rows: impl Iterator<Item = Row>) -> f32 {
    let mut sums = [0.0; SIDE];
    for row in rows {
        sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value);
    }
    sums.iter().sum()
}

#[inline(always)]
fn product(one: &Row, other: &Row) -> Row {
    let mut out = [0.0; SIDE];
    for ((out, one), other) in out.iter_mut().zip(one).zip(other) {
        *out = one * other;
    }
    out
}

#[inline(always)]
fn products(one: &[Row; SIDE], other: &[Row; SIDE]) -> f32 {
    sum(one.iter().zip(other).map(|(one, other)| product(one, other)))
}

fn centred(rows: &mut [Row; SIDE]) {
    let mean = sum(rows.iter().copied()) / (SIDE * SIDE) as f32;
    rows.as_flattened_mut().iter_mut().for_each(|value| *value -= mean);
}

impl Found {
    pub(super) fn of(picture: &Grey, at: Point) -> Self {
        let around = Surroundings::<{ SIDE + 1 }>::around(picture, at, 0.0);
        let mut rows = [[0.0; SIDE]; SIDE + 1];
        for (row, samples) in rows.iter_mut().zip(&around.samples) {
            *row = along(samples, around.x);
        }
        let mut out = [[0.0; SIDE]; SIDE];
        for (out, (one, next)) in out.iter_mut().zip(rows.iter().zip(rows.iter().skip(1))) {
            *out = between(one, next, around.y);
        }
        Self(out)
    }
}

/// A window's side with a margin of one sample on both sides, in whole registers.
const WIDE: usize = SIDE + 4;

impl Template {
    /// None where too little is around the point to tell it from its neighbours.
    pub(super) fn of(picture: &Grey, at: Point) -> Option<Self> {
        let around = Surroundings::<{ SIDE + 3 }>::around(picture, at, 1.0);
        let mut across = [[0.0; WIDE]; SIDE + 3];
        for (row, samples) in across.iter_mut().zip(&around.samples) {
            *row = along(samples, around.x);
        }
        let mut wide = [[0.0; WIDE]; SIDE + 2];
        for (out, (one, next)) in wide.iter_mut().zip(across.iter().zip(across.iter().skip(1))) {
            *out = between(one, next, around.y);
        }
        let mut template = Self {
            samples: [[0.0; SIDE]; SIDE],
            along_x: [[0.0; SIDE]; SIDE],
            along_y: [[0.0; SIDE]; SIDE],
            inverse: [0.0; 3],
            spread: 0.0,
        };
        let rows = template.samples.iter_mut().zip(&mut template.along_x);
        for ((samples, along_x), row) in rows.zip(wide.iter().skip(1)) {
            let columns = row.iter().zip(row.iter().skip(1)).zip(row.iter().skip(2));
            let out = samples.iter_mut().zip(along_x);
            for ((sample, along), ((left, here), right)) in out.zip(columns) {
                *sample = *here;
                *along = (right - left) * 0.5;
            }
        }
        for (along_y, (above, below)) in
            template.along_y.iter_mut().zip(wide.iter().zip(wide.iter().skip(2)))
        {
            let columns = above.iter().skip(1).zip(below.iter().skip(1));
            for (along, (above, below)) in along_y.iter_mut().zip(columns) {
                *along = (below - above) * 0.5;
            }
        }
        template.solve().then_some(template)
    }

    /// Prepares steps. False where there are none to make.
    fn solve(&mut self) -> bool {
        centred(&mut self.samples);
        centred(&mut self.along_x);
        centred(&mut self.along_y);
        self.spread = products(&self.samples, &self.samples);
        let xx = products(&self.along_x, &self.along_x);
        let xy = products(&self.along_x, &self.along_y);
        let yy = products(&self.along_y, &self.along_y);
        let least = ((xx + yy) - ((xx - yy) * (xx - yy) + 4.0 * xy * xy).sqrt()) * 0.5;
        let determinant = xx * yy - xy * xy;
        self.inverse = [yy / determinant, -xy / determinant, xx / determinant];
        least >= TEXTURE * (SIDE * SIDE) as f32
    }

    /// How far the samples that were looked for lie from these, to first order.
    pub(super) fn step(&self, found: &Found) -> (f32, f32) {
        let mut sums = [[0.0; SIDE]; 2];
        let [sums_x, sums_y] = &mut sums;
        let rows = self.along_x.iter().zip(&self.along_y).zip(self.samples.iter().zip(&found.0));
        for ((along_x, along_y), (wanted, found)) in rows {
            let gradients = along_x.iter().zip(along_y);
            let samples = wanted.iter().zip(found);
            let sums = sums_x.iter_mut().zip(sums_y.iter_mut());
            for (((x, y), (wanted, found)), (sum_x, sum_y)) in gradients.zip(samples).zip(sums) {
                let error = wanted - found;
                *sum_x += error * x;
                *sum_y += error * y;
            }
        }
        let [x, y] = sums.map(|sums| sums.iter().sum::<f32>());
        let [xx, xy, yy] = self.inverse;
        (xx * x + xy * y, xy * x + yy * y)
    }

    /// The correlation of the samples with these, -1 to 1.
    pub(super) fn likeness(&self, found: &Found) -> f32 {
        let count = (SIDE * SIDE) as f32;
        let mean = sum(found.0.iter().copied()) / count;
        let spread = products(&found.0, &found.0) - mean * mean * count;
        // The samples that were looked for have no mean: that of the others takes no part.
        let both = products(&self.samples, &found.0);
        both / (self.spread * spread).max(1.0).sqrt()
    }
}
