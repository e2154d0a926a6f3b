//! The motion of one box: a Kalman filter with constant velocity, in time rather than in frames.
//!
//! State and noise follow BoT-SORT (Aharon et al., 2022): centre x and y, width and height, each
//! with its rate of change; noise in proportion to the box's size, that of a measurement with
//! DeepSORT's weight. Weights are for one frame of a video of 30 frames a second. Here frames are
//! skipped, so they are taken as rates: variance grows with time, and one step of two seconds is
//! the same as two of one.
//!
//! The process is calmer than DeepSORT's (1/20 and 1/160): with those, velocity is that of the last
//! two or three boxes, and the last boxes before an object is hidden are cut off by what hides it.
//! A person keeps a velocity for a second or two.
//!
//! Measurements and noise are independent for each of the four numbers, so the 8 x 8 filter falls
//! into four filters of a value and its rate.

use serde::{Deserialize, Serialize};

use crate::geometry::BBox;

/// Deviation of a measured position, in box sizes (DeepSORT).
const MEASURED: f64 = 1.0 / 20.0;
/// Deviation of a frame's process noise of a position, in box sizes.
const POSITION: f64 = 0.015;
/// Deviation of a frame's process noise of a velocity, in box sizes a frame.
const VELOCITY: f64 = 1.0 / 800.0;
/// Frames a second at which the weights above are meant: that of the MOT videos.
const RATE: f64 = 30.0;
/// Deviations of a first measurement, in those of later ones (DeepSORT).
const FIRST_POSITION: f64 = 2.0;
/// Deviation of the unknown velocity after a first measurement, in box sizes a frame (DeepSORT).
const FIRST_VELOCITY: f64 = 1.0 / 16.0;
/// Pixels. No box is smaller, so that noise in proportion to its size never vanishes.
const SMALLEST: f64 = 1.0;

/// One number and its rate of change per second, with their covariance.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Axis {
    value: f64,
    rate: f64,
    /// Variance of the value, covariance, variance of the rate.
    covariance: [f64; 3],
}

impl Axis {
    fn new(value: f64, size: f64) -> Self {
        let value_deviation = FIRST_POSITION * MEASURED * size;
        let rate_deviation = FIRST_VELOCITY * size * RATE;
        Self {
            value,
            rate: 0.0,
            covariance: [value_deviation.powi(2), 0.0, rate_deviation.powi(2)],
        }
    }

    /// Moves on by `dt` seconds. The noise is the exact integral of a random walk of the value and
    /// one of the rate.
    fn predict(&mut self, dt: f64, size: f64) {
        let value_noise = (POSITION * size).powi(2) * RATE;
        let rate_noise = (VELOCITY * size * RATE).powi(2) * RATE;
        let [vv, vr, rr] = self.covariance;
        self.value += self.rate * dt;
        self.covariance = [
            vv + 2.0 * dt * vr + dt * dt * rr + value_noise * dt + rate_noise * dt.powi(3) / 3.0,
            vr + dt * rr + rate_noise * dt * dt / 2.0,
            rr + rate_noise * dt,
        ];
    }

    fn correct(&mut self, measured: f64, size: f64) {
        let [vv, vr, rr] = self.covariance;
        let variance = vv + (MEASURED * size).powi(2);
        let (value_gain, rate_gain) = (vv / variance, vr / variance);
        let innovation = measured - self.value;
        self.value += value_gain * innovation;
        self.rate += rate_gain * innovation;
        self.covariance = [vv - value_gain * vv, vr - value_gain * vr, rr - rate_gain * vr];
    }

    fn is_sound(&self) -> bool {
        let [vv, vr, rr] = self.covariance;
        [self.value, self.rate, vv, vr, rr].iter().all(|n| n.is_finite()) && vv > 0.0 && rr > 0.0
    }
}

/// Position and velocity of a box.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Motion {
    x: Axis,
    y: Axis,
    width: Axis,
    height: Axis,
    /// Width and height when last measured: the measure of all noise until the next time.
    size: [f64; 2],
}

/// Centre x, centre y, width, height.
fn measure(b: &BBox) -> [f64; 4] {
    let [left, top, right, bottom] = [b.left, b.top, b.right, b.bottom].map(f64::from);
    [
        (left + right) / 2.0,
        (top + bottom) / 2.0,
        (right - left).max(SMALLEST),
        (bottom - top).max(SMALLEST),
    ]
}

impl Motion {
    /// A box at rest.
    pub(super) fn new(b: &BBox) -> Self {
        let [x, y, width, height] = measure(b);
        Self {
            x: Axis::new(x, width),
            y: Axis::new(y, height),
            width: Axis::new(width, width),
            height: Axis::new(height, height),
            size: [width, height],
        }
    }

    /// Moves on by `dt` seconds.
    pub(super) fn predict(&mut self, dt: f64) {
        let [width, height] = self.size;
        self.x.predict(dt, width);
        self.y.predict(dt, height);
        self.width.predict(dt, width);
        self.height.predict(dt, height);
    }

    /// Takes in a measured box.
    pub(super) fn correct(&mut self, b: &BBox) {
        let [x, y, width, height] = measure(b);
        self.size = [width, height];
        self.x.correct(x, width);
        self.y.correct(y, height);
        self.width.correct(width, width);
        self.height.correct(height, height);
    }

    /// Pixels a second of the centre.
    pub(super) fn rates(&self) -> [f32; 2] {
        [self.x.rate as f32, self.y.rate as f32]
    }

    /// Lets the size stand still: of an object that is out of sight only the place is guessed.
    pub(super) fn hold_size(&mut self) {
        (self.width.rate, self.height.rate) = (0.0, 0.0);
    }

    /// The box as estimated.
    pub(super) fn bbox(&self) -> BBox {
        let (width, height) = (self.width.value.max(SMALLEST), self.height.value.max(SMALLEST));
        BBox {
            left: (self.x.value - width / 2.0) as f32,
            top: (self.y.value - height / 2.0) as f32,
            right: (self.x.value + width / 2.0) as f32,
            bottom: (self.y.value + height / 2.0) as f32,
        }
    }

    /// Whether the state can have come from this filter.
    pub(super) fn is_sound(&self) -> bool {
        [self.x, self.y, self.width, self.height].iter().all(Axis::is_sound)
            && self.size.iter().all(|s| s.is_finite() && *s >= SMALLEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
    }

    proptest! {
        #[test]
        fn a_long_step_is_the_same_as_two_short_ones(first in 0.001f64..2.0, second in 0.001f64..2.0) {
            let mut once = Motion::new(&BBox::from_xywh(10.0, 20.0, 30.0, 60.0));
            once.predict(0.1);
            once.correct(&BBox::from_xywh(14.0, 21.0, 31.0, 60.0));
            let mut twice = once;
            once.predict(first + second);
            twice.predict(first);
            twice.predict(second);
            for (a, b) in [(once.x, twice.x), (once.y, twice.y), (once.width, twice.width)] {
                prop_assert!(close(a.value, b.value) && close(a.rate, b.rate));
                for (p, q) in a.covariance.iter().zip(b.covariance) {
                    prop_assert!(close(*p, q), "{p} and {q}");
                }
            }
        }

        #[test]
        fn the_state_stays_sound_whatever_is_measured(
            boxes in prop::collection::vec((-1e4f32..1e4, -1e4f32..1e4, 0f32..1e4, 0f32..1e4, 0f64..100.0), 1..50),
        ) {
            let mut motion = Motion::new(&BBox::default());
            for (x, y, w, h, dt) in boxes {
                motion.predict(dt);
                motion.correct(&BBox::from_xywh(x, y, w, h));
                prop_assert!(motion.is_sound(), "{motion:?}");
                prop_assert!(motion.bbox().is_proper());
            }
        }
    }

    #[test]
    fn a_steady_velocity_is_learnt() {
        let mut motion = Motion::new(&BBox::from_xywh(0.0, 0.0, 40.0, 80.0));
        for step in 1..=30 {
            motion.predict(0.1);
            motion.correct(&BBox::from_xywh(step as f32 * 5.0, 0.0, 40.0, 80.0));
        }
        motion.predict(1.0);
        let b = motion.bbox();
        assert!(
            (b.left - 200.0).abs() < 5.0,
            "50 px/s from 150 px is at 200 a second on, not {}",
            b.left
        );
        assert!((b.height() - 80.0).abs() < 1.0);
    }
}
