//! The resources behind a component's handles, apart from [tensors](super::tensor).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::inference::OpenedModel;
use crate::video;

/// Bytes of encoded images that a component may hold: they lie in the worker's memory, not in its
/// own. Twenty images of a 4K camera.
const MAX_IMAGE_BYTES: usize = 64 << 20;

/// The frame that a component borrows while it processes it.
#[derive(Debug, Clone)]
pub struct FrameHandle {
    pub frame: Arc<video::Frame>,
    /// Frames between the one that the instance got before and this one.
    pub skipped: u64,
}

#[derive(Debug)]
pub struct Image {
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
    pub jpeg: Vec<u8>,
    /// The file's share of the `ImageBudget`, returned on drop.
    pub lease: ImageLease,
}

/// A model that a component has loaded.
#[derive(Debug, Clone)]
pub struct Graph(pub(super) OpenedModel);

/// A model ready to compute.
#[derive(Debug, Clone)]
pub struct ExecutionContext(pub(super) Graph);

/// Counts the bytes of the encoded images that a component holds.
#[derive(Debug, Clone, Default)]
pub(super) struct ImageBudget(Arc<AtomicUsize>);

impl ImageBudget {
    /// Reserves `bytes` until the lease is dropped. `None` if the component would hold more than
    /// the budget.
    pub(super) fn reserve(&self, bytes: usize) -> Option<ImageLease> {
        let held = self.0.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let lease = ImageLease { budget: self.clone(), bytes };
        if held > MAX_IMAGE_BYTES { None } else { Some(lease) }
    }

    /// The whole budget in bytes.
    pub(super) fn capacity(&self) -> usize {
        MAX_IMAGE_BYTES
    }
}

/// A part of the `ImageBudget`. Dropping it returns the bytes.
#[derive(Debug)]
pub struct ImageLease {
    budget: ImageBudget,
    bytes: usize,
}

impl Drop for ImageLease {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_held_up_to_the_limit_and_give_their_bytes_back() {
        let budget = ImageBudget::default();
        let all = budget.reserve(MAX_IMAGE_BYTES).unwrap();
        assert!(budget.reserve(1).is_none());
        assert!(budget.reserve(1).is_none(), "a refused image counts for nothing");
        drop(all);
        assert!(budget.reserve(MAX_IMAGE_BYTES).is_some());
    }
}
