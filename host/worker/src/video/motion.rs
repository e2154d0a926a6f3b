//! What changes in a camera's picture: each sample of a small grey picture beside a background that
//! follows the camera.
//!
//! Light that changes all over is taken off first: a line from the background's brightness to the
//! picture's, through what the darker and the brighter half do for the most part. What then differs
//! by more than the picture's noise, and by more than that place is wont to, changes. The
//! background follows by presentation time, not by frames, so that 1 and 30 frames a second behave
//! alike.

use ocelli_protocol::worker::Rect;

use super::grey::{Averager, Grey};

mod cells;
mod regions;

use cells::Cells;
use regions::Regions;

/// Most samples of the picture that is looked at: 160 x 90, or 128 x 96. About a hundred rows see
/// 99.9 % of the moving people of a street camera.
pub(super) const PIXELS: usize = 20_000;

/// Share of the picture above which a change is one of the whole: its light changes, it is blinded.
const WHOLE: f32 = 0.8;

/// Share of the cells that show something above which the camera turns: where it does, 60 to 80 %
/// of them change; people before a camera that holds still, and rain, change 20 %.
const TURNED: f32 = 0.65;

/// Share above which the picture does not hold still yet, after such a change.
const UNSETTLED: f32 = 0.4;

/// How long the picture has to hold still, as a whole, before changes in it say something; and how
/// long that is waited for, at most, where people crowd before a camera that does hold still. In
/// seconds.
const SETTLING: f32 = 1.0;
const PATIENCE: f32 = 10.0;

/// Seconds in which the background comes nearer to the picture by a factor of e: where nothing
/// changes, so that it follows light and weather; where something does, so that what stopped is
/// background after about half a minute and who passes leaves no trace; and while it settles.
const FOLLOWING: f32 = 4.0;
const ABSORBING: f32 = 20.0;
const ADOPTING: f32 = 0.3;

/// Least difference that counts, of 255: below it compression alone makes differences.
const FLOOR: f32 = 9.0;

/// Multiples of the picture's noise (half the distance of the quartiles), and of what a place is
/// wont to differ by, that count.
const NOISE: f32 = 5.0;
const WONT: f32 = 2.0;

/// Levels a second by which a place's wont rises while it differs by more, and falls while it
/// differs by less: it is what is passed in a quarter of the time. A tree in the wind comes to rest
/// within half a minute, a path on which somebody walks now and then stays as it is.
const WONT_RISES: f32 = 2.0;
const WONT_FALLS: f32 = 0.6;

/// Most noise that is taken for one: where half a picture differs by more, it is another picture.
const MOST_NOISE: f32 = 6.0;

/// Most of a place's wont, so that a strong difference is seen everywhere.
const MOST_WONT: f32 = 30.0;

/// Bounds of a light that is taken off: how much more or less the brighter half may change than the
/// darker for each level between them, and how many levels each may change. What is beyond is
/// another picture.
const GAIN: f32 = 0.35;
const SHIFT: f32 = 48.0;

/// Seconds between two frames, at least and at most: where the source's time stands still the
/// background still follows, and where it leaps a single frame does not become the background.
const STEP: (f32, f32) = (0.01, 1.0);

/// What changes in a frame.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Motion {
    /// In frame pixels, the largest first.
    pub regions: Vec<Rect>,
    /// Of the picture's area, 0 to 1.
    pub share: f32,
    /// The picture changes as a whole, or did just now, or is the first.
    pub calibrating: bool,
}

/// What a camera's picture looks like while nothing changes.
#[derive(Default)]
pub(super) struct Background {
    averager: Averager,
    picture: Grey,
    /// Width, height, and a frame's pixels for one sample.
    size: (usize, usize, usize),
    /// By sample, of 255.
    levels: Vec<f32>,
    /// What each place differs by in a quarter of the time, of 255.
    wont: Vec<f32>,
    /// 1 where a sample changes.
    changed: Vec<u8>,
    light: Light,
    cells: Cells,
    regions: Regions,
    time: Option<u64>,
    /// Seconds still to settle, and for which that may begin again.
    settling: f32,
    patience: f32,
}

impl Background {
    /// What is different in this picture, `step` of a frame's pixels a side, at `time` in
    /// nanoseconds.
    pub(super) fn look(&mut self, grey: &Grey, step: usize, time: u64) -> Motion {
        let step = step * self.averager.grey(grey, PIXELS, &mut self.picture);
        let before = self.time.replace(time);
        let passed = time.saturating_sub(before.unwrap_or(time)) as f32 / 1e9;
        let passed = passed.clamp(STEP.0, STEP.1);
        let size = (self.picture.width, self.picture.height, step);
        if before.is_none() || std::mem::replace(&mut self.size, size) != size {
            self.size = size;
            self.adopt();
            return Motion { share: 0.0, calibrating: true, regions: Vec::new() };
        }
        self.light.measure(&self.picture.samples, &self.levels);
        let settling = self.settling > 0.0;
        self.compare(passed, settling);
        let (found, kept) = self.regions.find(&self.changed, size.0);
        let count = kept.iter().map(|&mark| usize::from(mark)).sum::<usize>();
        let share = count as f32 / kept.len().max(1) as f32;
        let seen = self.cells.share(kept, &self.levels, size.0);
        // While it settles, the background is a mean, into which rain does not come as a picture of
        // it would.
        let turned = seen > TURNED && !settling;
        if share > WHOLE || turned || self.light.beyond {
            self.adopt();
            return Motion { share, calibrating: true, regions: Vec::new() };
        }
        if settling {
            self.settle(passed, seen.max(share));
            return Motion { share, calibrating: true, regions: Vec::new() };
        }
        let scale = |samples: usize| (samples * step) as f32;
        let rect = |region: &regions::Patch| Rect {
            x: scale(region.left),
            y: scale(region.top),
            width: scale(region.right - region.left),
            height: scale(region.bottom - region.top),
        };
        Motion { regions: found.iter().map(rect).collect(), share, calibrating: false }
    }

    /// Takes the picture as it is for the background.
    fn adopt(&mut self) {
        self.levels.clear();
        self.levels.extend(self.picture.samples.iter().map(|&sample| f32::from(sample)));
        self.wont.clear();
        self.wont.resize(self.levels.len(), 0.0);
        self.changed.clear();
        self.changed.resize(self.levels.len(), 0);
        (self.settling, self.patience) = (SETTLING, PATIENCE);
    }

    /// Waits on, from the beginning where so large a share of the picture changes.
    fn settle(&mut self, passed: f32, share: f32) {
        self.settling = (self.settling - passed).max(0.0);
        self.patience -= passed;
        if share > UNSETTLED && self.patience > 0.0 {
            self.settling = SETTLING;
        }
    }

    /// Marks what changes, and lets the background follow.
    fn compare(&mut self, passed: f32, settling: bool) {
        let follow = |seconds: f32| 1.0 - (-passed / seconds).exp();
        let (still, moving) = if settling {
            (follow(ADOPTING), follow(ADOPTING))
        } else {
            (follow(FOLLOWING), follow(ABSORBING))
        };
        let (rise, fall) = (WONT_RISES * passed, WONT_FALLS * passed);
        let Light { gain, offset, noise, .. } = self.light;
        let least = FLOOR.max(NOISE * noise.min(MOST_NOISE));
        let pixels = self.picture.samples.iter().zip(&mut self.levels);
        let places = self.wont.iter_mut().zip(&mut self.changed);
        for ((&sample, level), (wont, changed)) in pixels.zip(places) {
            let sample = f32::from(sample);
            let differs = (sample - *level - (gain * *level + offset)).abs();
            let moves = differs > least.max(FLOOR + WONT * *wont);
            *changed = u8::from(moves);
            *level += (sample - *level) * if moves { moving } else { still };
            let step = if differs > *wont { rise } else { -fall };
            *wont = (*wont + step).clamp(0.0, MOST_WONT);
        }
    }
}

/// A change of light, from a background's level: `gain` times it plus `offset`; and the noise that
/// is left, half the distance between the quartiles.
#[derive(Debug, Clone, Copy, Default)]
struct Light {
    gain: f32,
    offset: f32,
    noise: f32,
    /// More than light does.
    beyond: bool,
}

/// Bins of a histogram of differences: half a level each, from -255 to 255.
const BINS: usize = 1024;

/// One sample of so many is enough for medians. It divides no usual width, so that all columns are
/// seen.
const EVERY: usize = 3;

impl Light {
    fn measure(&mut self, samples: &[u8], levels: &[f32]) {
        let mut brightness = [0_u32; 256];
        for &level in levels.iter().step_by(EVERY) {
            count(&mut brightness, level as usize);
        }
        let middle = quantile(&brightness, 0.5);
        let mut halves = [Half::default(), Half::default()];
        for (&sample, &level) in samples.iter().zip(levels).step_by(EVERY) {
            let [dark, bright] = &mut halves;
            let half = if level < middle { dark } else { bright };
            half.add(f32::from(sample) - level, level);
        }
        let [dark, bright] = halves.map(Half::summary);
        let distance = bright.level - dark.level;
        // Two levels that lie close say nothing of what lies beside them.
        let (gain, offset) = if dark.count > 0.0 && distance > 16.0 {
            let gain = ((bright.shift - dark.shift) / distance).clamp(-GAIN, GAIN);
            let level = (bright.level + dark.level) / 2.0;
            (gain, (bright.shift + dark.shift) / 2.0 - gain * level)
        } else {
            let all = (dark.count + bright.count).max(1.0);
            (0.0, (dark.shift * dark.count + bright.shift * bright.count) / all)
        };
        let all = (dark.count + bright.count).max(1.0);
        let noise = (dark.noise * dark.count + bright.noise * bright.count) / all;
        let beyond = dark.shift.abs().max(bright.shift.abs()) > SHIFT;
        *self = Self { gain, offset, noise, beyond };
    }
}

/// Differences of the darker or of the brighter half of a picture.
struct Half {
    differences: [u32; BINS],
    levels: f32,
    count: f32,
}

impl Default for Half {
    fn default() -> Self {
        Self { differences: [0; BINS], levels: 0.0, count: 0.0 }
    }
}

/// What they come to.
struct Shift {
    level: f32,
    shift: f32,
    noise: f32,
    count: f32,
}

impl Half {
    fn add(&mut self, difference: f32, level: f32) {
        count(&mut self.differences, ((difference + 256.0) * 2.0 + 0.5) as usize);
        self.levels += level;
        self.count += 1.0;
    }

    fn summary(self) -> Shift {
        let at = |share| quantile(&self.differences, share) / 2.0 - 256.0;
        Shift {
            level: self.levels / self.count.max(1.0),
            shift: if self.count > 0.0 { at(0.5) } else { 0.0 },
            noise: if self.count > 0.0 { (at(0.75) - at(0.25)) / 2.0 } else { 0.0 },
            count: self.count,
        }
    }
}

fn count(bins: &mut [u32], bin: usize) {
    if let Some(bin) = bins.get_mut(bin) {
        *bin += 1;
    }
}

/// The first bin by which so large a share is counted.
fn quantile(bins: &[u32], share: f32) -> f32 {
    let wanted = bins.iter().sum::<u32>() as f32 * share;
    let mut seen = 0;
    let before = bins.iter().take_while(|&&count| {
        seen += count;
        (seen as f32) < wanted
    });
    before.count() as f32
}

#[cfg(test)]
#[path = "motion/tests.rs"]
mod tests;
