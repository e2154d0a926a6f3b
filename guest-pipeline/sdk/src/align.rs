//! Faces brought into one position by their five landmarks: the similarity transform (shift, turn,
//! one scale) that fits best in least squares, after Umeyama, "Least-Squares Estimation of
//! Transformation Parameters Between Two Point Patterns", IEEE PAMI 13(4), 1991.

use crate::Affine;

/// x and y, in pixels.
pub type Point = (f32, f32);

/// Where ArcFace's training set has a face's landmarks in a picture of 112 x 112 pixels: the eyes,
/// the nose's tip and the mouth's corners, left before right as one sees them (Deng et al.,
/// "ArcFace", CVPR 2019).
pub const ARCFACE_112: [Point; 5] = [
    (38.2946, 51.6963),
    (73.5318, 51.5014),
    (56.0252, 71.7366),
    (41.5493, 92.3655),
    (70.7299, 92.2041),
];

/// A similarity transform: x' = a x - b y + x0, y' = b x + a y + y0. Scale and turn are the length
/// and the angle of (a, b); there is no mirroring.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    a: f64,
    b: f64,
    x0: f64,
    y0: f64,
}

impl Similarity {
    /// The transform that takes `from` to `to` with the least sum of squared distances. The points
    /// belong together in pairs.
    ///
    /// `None` where there is none: points that are not finite, points of one side that all lie on
    /// one spot, and points that fit so badly that the best scale is 0.
    #[must_use]
    pub fn fit<const N: usize>(from: &[Point; N], to: &[Point; N]) -> Option<Self> {
        let (from_middle, to_middle) = (middle(from), middle(to));
        // As complex numbers around their middles, the best factor is the sum of conj(from) * to
        // over the sum of |from|^2: without a reflection to rule out, Umeyama's decomposition comes
        // to this.
        let (mut real, mut imaginary, mut from_spread, mut to_spread) = (0.0, 0.0, 0.0, 0.0);
        for (&p, &q) in from.iter().zip(to) {
            let (px, py) = (f64::from(p.0) - from_middle.0, f64::from(p.1) - from_middle.1);
            let (qx, qy) = (f64::from(q.0) - to_middle.0, f64::from(q.1) - to_middle.1);
            real += px * qx + py * qy;
            imaginary += px * qy - py * qx;
            from_spread += px * px + py * py;
            to_spread += qx * qx + qy * qy;
        }
        // The share of the spread that the transform explains, 0 to 1. A face seen from any side
        // has more than a half; below a thousandth rounding decides where the picture goes.
        let explained = (real * real + imaginary * imaginary) / (from_spread * to_spread);
        if !explained.is_finite() || explained < 1e-3 {
            return None;
        }
        let (a, b) = (real / from_spread, imaginary / from_spread);
        let x0 = to_middle.0 - a * from_middle.0 + b * from_middle.1;
        let y0 = to_middle.1 - b * from_middle.0 - a * from_middle.1;
        let finite = [a, b, x0, y0].iter().all(|number| number.is_finite());
        finite.then_some(Self { a, b, x0, y0 })
    }

    /// Applies the transform to a point.
    #[must_use]
    pub fn apply(&self, (x, y): Point) -> Point {
        let (x, y) = (f64::from(x), f64::from(y));
        ((self.a * x - self.b * y + self.x0) as f32, (self.b * x + self.a * y + self.y0) as f32)
    }

    /// The transform back.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        Self { a, b, x0: -a * self.x0 + b * self.y0, y0: -b * self.x0 - a * self.y0 }
    }
}

impl From<Similarity> for Affine {
    fn from(s: Similarity) -> Self {
        let Similarity { a, b, x0, y0 } = s;
        Self { a: a as f32, b: -b as f32, c: x0 as f32, d: b as f32, e: a as f32, f: y0 as f32 }
    }
}

fn middle(points: &[Point]) -> (f64, f64) {
    let count = points.len() as f64;
    let sum =
        points.iter().fold((0.0, 0.0), |sum, p| (sum.0 + f64::from(p.0), sum.1 + f64::from(p.1)));
    (sum.0 / count, sum.1 / count)
}

/// The map for [`Frame::warp`](crate::Frame::warp) that gives the face with these landmarks, in
/// frame pixels, as [`ARCFACE_112`] has it, in a picture of `size` x `size`. The fit is made from
/// the frame to the template, as everybody makes it who compares such faces, and then turned round.
/// `None` as with [`Similarity::fit`].
#[must_use]
pub fn face_to_frame(landmarks: &[Point; 5], size: u32) -> Option<Affine> {
    let scale = size as f32 / 112.0;
    let template = ARCFACE_112.map(|(x, y)| (x * scale, y * scale));
    Some(Similarity::fit(landmarks, &template)?.inverse().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(p: Point, q: Point, tolerance: f32) -> bool {
        (p.0 - q.0).abs() <= tolerance && (p.1 - q.1).abs() <= tolerance
    }

    fn known(scale: f32, turn: f32, x0: f32, y0: f32) -> impl Fn(Point) -> Point {
        move |(x, y)| {
            let (a, b) = (scale * turn.cos(), scale * turn.sin());
            (a * x - b * y + x0, b * x + a * y + y0)
        }
    }

    proptest! {
        #[test]
        fn a_known_transform_is_found_again(
            scale in 0.05f32..20.0, turn in -3.1f32..3.1, x0 in -2000f32..2000.0, y0 in -2000f32..2000.0,
        ) {
            let to = ARCFACE_112.map(known(scale, turn, x0, y0));
            let found = Similarity::fit(&ARCFACE_112, &to).unwrap();
            // Single precision of coordinates of a few thousand.
            let tolerance = 2e-3 * scale.max(1.0);
            for (p, q) in ARCFACE_112.into_iter().zip(to) {
                prop_assert!(close(found.apply(p), q, tolerance));
                prop_assert!(close(found.inverse().apply(q), p, tolerance.max(2e-3 / scale)));
            }
        }

        #[test]
        fn no_other_transform_near_it_fits_better(
            noise in prop::array::uniform5((-8f32..8.0, -8f32..8.0)),
            step in prop::array::uniform4(-1f64..1.0),
        ) {
            let mut to = ARCFACE_112.map(known(1.7, 0.4, 30.0, -12.0));
            to.iter_mut().zip(noise).for_each(|(p, n)| { p.0 += n.0; p.1 += n.1; });
            let best = Similarity::fit(&ARCFACE_112, &to).unwrap();
            let error = |s: &Similarity| ARCFACE_112.iter().zip(to).map(|(&(x, y), q)| {
                let (x, y) = (f64::from(x), f64::from(y));
                let (dx, dy) = (s.a * x - s.b * y + s.x0 - f64::from(q.0), s.b * x + s.a * y + s.y0 - f64::from(q.1));
                dx * dx + dy * dy
            }).sum::<f64>();
            let [a, b, x0, y0] = step;
            let other = Similarity {
                a: best.a + a * 0.05, b: best.b + b * 0.05, x0: best.x0 + x0 * 3.0, y0: best.y0 + y0 * 3.0,
            };
            prop_assert!(error(&best) <= error(&other) + 1e-6);
        }
    }

    #[test]
    fn the_map_takes_the_template_to_the_landmarks() {
        let landmarks = ARCFACE_112.map(known(0.8, -0.3, 200.0, 90.0));
        let Affine { a, b, c, d, e, f } = face_to_frame(&landmarks, 224).unwrap();
        for ((x, y), landmark) in ARCFACE_112.into_iter().zip(landmarks) {
            let (x, y) = (2.0 * x, 2.0 * y);
            assert!(close((a * x + b * y + c, d * x + e * y + f), landmark, 1e-2));
        }
    }

    #[test]
    fn points_that_make_no_face_have_no_transform() {
        assert_eq!(Similarity::fit(&[(5.0, 5.0); 5], &ARCFACE_112), None, "all on one spot");
        assert_eq!(Similarity::fit(&ARCFACE_112, &[(5.0, 5.0); 5]), None);
        for bad in [f32::NAN, f32::INFINITY] {
            let mut points = ARCFACE_112;
            points[3].1 = bad;
            assert_eq!(Similarity::fit(&points, &ARCFACE_112), None);
        }
        // A square and its mirror image have nothing in common that a turn could find.
        let square = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)];
        assert_eq!(Similarity::fit(&square, &square.map(|(x, y)| (1.0 - x, y))), None);
        assert!(face_to_frame(&[(0.0, 0.0); 5], 224).is_none());
    }
}
