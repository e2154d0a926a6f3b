//! What one pipeline follows from frame to frame: what changes in the picture, and where points of
//! it go. Of a frame a small grey picture is made once, when it is first asked for; who asks for
//! nothing pays nothing.

use super::flow::{Point, Pyramid};
use super::grey::Averager;
use super::motion::{Background, Motion};
use super::picture::Picture;

/// Most samples of the grey picture: 640 x 360. One of its samples is 2 x 2 pixels of 576 and 720
/// lines, 3 x 3 of 1080. With the smaller ones and those of the frame before, that is 0.6 MB.
const PIXELS: usize = 640 * 360;

/// The pictures that a pipeline's looks at its frames compare.
#[derive(Default)]
pub struct Watch {
    averager: Averager,
    /// The current frame's.
    current: Pyramid,
    /// A frame's pixels for one sample of `current`, along each side. None before it is made.
    step: Option<usize>,
    background: Background,
    motion: Option<Motion>,
    /// The points of the current frame are to be followed: its whole pyramid is made.
    is_reference: bool,
    /// The frame whose points are followed, and its step.
    reference: Pyramid,
    reference_step: Option<usize>,
}

impl Watch {
    /// The next frame is another one.
    pub fn next(&mut self) {
        let step = self.step.take();
        if std::mem::take(&mut self.is_reference) {
            std::mem::swap(&mut self.current, &mut self.reference);
            self.reference_step = step;
        }
        self.motion = None;
    }

    /// What changes in the current frame, which its source shows at `time`, in nanoseconds.
    pub fn motion(&mut self, picture: &Picture, time: u64) -> Motion {
        if let Some(motion) = &self.motion {
            return motion.clone();
        }
        let step = self.grey(picture);
        let motion = self.background.look(&self.current.base, step, time);
        self.motion.insert(motion).clone()
    }

    /// Where points of the frame for which this was called before are in the current one, in frame
    /// pixels and in their order; None for a point that is lost.
    pub fn flow(&mut self, picture: &Picture, points: &[Point]) -> Vec<Option<Point>> {
        let step = self.grey(picture);
        if !std::mem::replace(&mut self.is_reference, true) {
            self.current.build(&mut self.averager);
        }
        // A picture of another size has other steps, or other sides: then all are lost.
        let Some(step) = self.reference_step.filter(|&before| before == step) else {
            return vec![None; points.len()];
        };
        let scale = step as f32;
        let follow = |point: &Point| {
            let found = self.reference.follow(&self.current, point.scaled(1.0 / scale))?;
            Some(found.scaled(scale))
        };
        points.iter().map(follow).collect()
    }

    fn grey(&mut self, picture: &Picture) -> usize {
        let Self { averager, current, step, .. } = self;
        *step.get_or_insert_with(|| averager.picture(picture, PIXELS, &mut current.base))
    }
}
