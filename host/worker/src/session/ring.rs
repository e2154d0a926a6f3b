//! The newest frames of a worker on standby.

use std::collections::VecDeque;
use std::sync::Arc;

use ocelli_protocol::worker::STANDBY_FRAMES;
use parking_lot::Mutex;

use crate::video::Frame;

/// The newest [`STANDBY_FRAMES`] frames, in ascending order. Their pictures are the decoder's
/// buffers, so no more are held.
#[derive(Debug, Default)]
pub(super) struct FrameRing(Mutex<VecDeque<Arc<Frame>>>);

impl FrameRing {
    /// Adds a frame in place of the oldest.
    pub(super) fn push(&self, frame: Arc<Frame>) {
        let mut frames = self.0.lock();
        if frames.len() >= STANDBY_FRAMES {
            frames.pop_front();
        }
        frames.push_back(frame);
    }

    /// The frame of this number, or the newest.
    pub(super) fn find(&self, number: Option<u64>) -> Option<Arc<Frame>> {
        let frames = self.0.lock();
        match number {
            Some(number) => frames.iter().find(|frame| frame.number == number).cloned(),
            None => frames.back().cloned(),
        }
    }

    /// Takes out all frames after this one.
    pub(super) fn take_after(&self, after: Option<u64>) -> Vec<Arc<Frame>> {
        let mut frames = std::mem::take(&mut *self.0.lock());
        frames.retain(|frame| after.is_none_or(|after| frame.number > after));
        frames.into()
    }
}
