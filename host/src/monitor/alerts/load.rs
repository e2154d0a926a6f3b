//! The share of frames that load costs, over the last minute.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::session::Frames;

/// The window of the share: long enough that one slow moment is none.
const WINDOW: Duration = Duration::from_secs(60);

/// Interval of the samples: a window has [`WINDOW`] / `STEP` and two more.
const STEP: Duration = Duration::from_secs(5);

/// Frames that came to their end: those that the pipeline processed, and those that were skipped
/// because the pipeline, the decoder or the inference was busy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct FrameLoad {
    pub(super) processed: u64,
    pub(super) skipped: u64,
}

impl From<Frames> for FrameLoad {
    fn from(frames: Frames) -> Self {
        let skipped = frames.skipped.newer.saturating_add(frames.skipped.queue);
        Self { processed: frames.processed, skipped }
    }
}

impl FrameLoad {
    /// What came since. Nothing where the counts are another session's.
    pub(super) fn since(self, before: Self) -> Self {
        let difference = |now: u64, then: u64| now.checked_sub(then);
        let processed = difference(self.processed, before.processed);
        let skipped = difference(self.skipped, before.skipped);
        match (processed, skipped) {
            (Some(processed), Some(skipped)) => Self { processed, skipped },
            _ => Self::default(),
        }
    }

    /// The sum of both.
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            processed: self.processed.saturating_add(other.processed),
            skipped: self.skipped.saturating_add(other.skipped),
        }
    }

    /// Percent of the frames that were skipped; `None` without frames.
    fn percent(self) -> Option<f64> {
        let all = self.processed.saturating_add(self.skipped);
        (all > 0).then(|| self.skipped as f64 * 100.0 / all as f64)
    }
}

/// Counts of the last minute, as they grew.
#[derive(Debug, Default)]
pub(super) struct LoadWindow {
    /// The counts at each step, the oldest first: at most one before the window.
    samples: VecDeque<(Instant, FrameLoad)>,
    newest: FrameLoad,
}

/// What a window says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Load {
    /// Less than a whole window is known.
    Unknown,
    /// No frame came to its end within the window.
    NoFrames,
    /// Percent of the frames that were skipped.
    Percent(f64),
}

impl LoadWindow {
    /// Takes the counts in as they are now.
    pub(super) fn take_in(&mut self, now: Instant, counts: FrameLoad) {
        self.newest = counts;
        let age = |at: Instant| now.saturating_duration_since(at);
        if self.samples.back().is_none_or(|(at, _)| age(*at) >= STEP) {
            self.samples.push_back((now, counts));
        }
        while self.samples.get(1).is_some_and(|(at, _)| age(*at) >= WINDOW) {
            self.samples.pop_front();
        }
    }

    /// The share within the last window.
    pub(super) fn load(&self, now: Instant) -> Load {
        match self.samples.front() {
            Some((at, before)) if now.saturating_duration_since(*at) >= WINDOW => {
                self.newest.since(*before).percent().map_or(Load::NoFrames, Load::Percent)
            }
            _ => Load::Unknown,
        }
    }

    /// Samples that are held.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.samples.len()
    }
}
