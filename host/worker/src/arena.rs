//! Allocator of tensors: blocks of the session's shared memory, given out first-fit and returned
//! when dropped.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ocelli_protocol::shm::{ALIGNMENT, SharedMemory};
use parking_lot::Mutex;

/// Hands out blocks of one region of shared memory.
#[derive(Debug)]
pub struct Arena {
    memory: SharedMemory,
    /// Free ranges: sorted, not adjacent, multiples of [`ALIGNMENT`].
    free: Mutex<Vec<Range<usize>>>,
    /// Bytes that are given out now, and the most that ever were.
    used: AtomicUsize,
    peak: AtomicUsize,
}

impl Arena {
    /// An arena over a whole region.
    pub fn new(memory: SharedMemory) -> Arc<Self> {
        let length = memory.len() / ALIGNMENT * ALIGNMENT;
        let whole = 0..length;
        Arc::new(Self {
            memory,
            free: Mutex::new(vec![whole]),
            used: AtomicUsize::new(0),
            peak: AtomicUsize::new(0),
        })
    }

    /// Bytes of the region.
    pub fn capacity(&self) -> usize {
        self.memory.len()
    }

    /// Bytes that are given out now, and the most that ever were.
    pub fn usage(&self) -> (usize, usize) {
        (self.used.load(Ordering::Relaxed), self.peak.load(Ordering::Relaxed))
    }

    /// The largest block that could be given out now, in bytes.
    pub fn largest_free(&self) -> usize {
        let free = self.free.lock();
        free.iter().map(|range| range.end - range.start).max().unwrap_or(0)
    }

    /// What to do about a block of `length` bytes that does not fit: the setting that has to be
    /// raised, and the least value with which it would fit beside what is given out now.
    pub fn advice(&self, length: usize) -> String {
        let taken = self.capacity().saturating_sub(self.largest_free());
        let mebibytes = taken.saturating_add(length).div_ceil(1 << 20);
        format!("it takes resource_limits.tensor_memory_mb = {mebibytes}")
    }

    /// A block of at least `length` bytes. `None` if no free range is that long. Its bytes are
    /// what was left there.
    pub fn allocate(self: &Arc<Self>, length: usize) -> Option<Block> {
        let length = length.max(1).checked_next_multiple_of(ALIGNMENT)?;
        let mut free = self.free.lock();
        let (index, range) =
            free.iter_mut().enumerate().find(|(_, range)| range.end - range.start >= length)?;
        let taken = range.start..range.start + length;
        range.start = taken.end;
        if range.start == range.end {
            free.remove(index);
        }
        drop(free);
        let used = self.used.fetch_add(length, Ordering::Relaxed) + length;
        self.peak.fetch_max(used, Ordering::Relaxed);
        Some(Block { arena: Arc::clone(self), range: taken })
    }

    fn release(&self, range: Range<usize>) {
        self.used.fetch_sub(range.len(), Ordering::Relaxed);
        let mut free = self.free.lock();
        let index = free.partition_point(|other| other.start < range.start);
        free.insert(index, range);
        free.dedup_by(|next, previous| {
            let adjacent = previous.end == next.start;
            if adjacent {
                previous.end = next.end;
            }
            adjacent
        });
    }
}

/// A part of the shared memory that its holder alone uses within this process.
#[derive(Debug)]
pub struct Block {
    arena: Arc<Arena>,
    range: Range<usize>,
}

impl Block {
    /// Offset of the block in the shared memory.
    pub fn offset(&self) -> usize {
        self.range.start
    }

    /// Length of the block in bytes.
    pub fn len(&self) -> usize {
        self.range.end - self.range.start
    }

    /// Whether the block has no bytes. No block that an arena gave out is empty.
    pub fn is_empty(&self) -> bool {
        self.range.start == self.range.end
    }

    /// The bytes, to read.
    #[allow(unsafe_code)]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: within this process the block's range belongs to the block, and writing takes
        // `&mut self`. The inference process writes to a block only between a request that names it
        // and the answer; `inference::Client` keeps blocks of an unanswered request out of reach
        // until then. The bytes are plain numbers, so a process that broke this rule could spoil
        // values, not memory safety.
        unsafe { self.arena.memory.bytes(self.range.clone()) }.unwrap_or_default()
    }

    /// The bytes, to write.
    #[allow(unsafe_code)]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `&mut self` keeps readers in this process away.
        unsafe { self.arena.memory.bytes_mut(self.range.clone()) }.unwrap_or_default()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.release(self.range.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn arena(length: usize) -> Arc<Arena> {
        Arena::new(SharedMemory::create(length).unwrap())
    }

    #[test]
    fn what_does_not_fit_is_refused_until_something_is_returned() {
        let arena = arena(8192);
        let first = arena.allocate(4096).unwrap();
        let second = arena.allocate(4096).unwrap();
        assert!(arena.allocate(1).is_none());
        drop(first);
        drop(second);
        assert_eq!(arena.allocate(8192).unwrap().len(), 8192);
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_memory_that_it_takes() {
        // YOLOv5 at 640 x 640: its input, then its output.
        let arena = arena(8 << 20);
        let input = arena.allocate(640 * 640 * 3 * 4).unwrap();
        let output = 25_200 * 85 * 4;
        assert!(arena.allocate(output).is_none());
        assert!(
            arena.advice(output).ends_with("tensor_memory_mb = 13"),
            "{}",
            arena.advice(output)
        );
        drop(input);
        let enough = self::arena(13 << 20);
        let _input = enough.allocate(640 * 640 * 3 * 4).unwrap();
        assert!(enough.allocate(output).is_some());
    }

    #[test]
    fn the_most_that_was_given_out_is_remembered() {
        let arena = arena(8192);
        let first = arena.allocate(100).unwrap();
        let second = arena.allocate(4096).unwrap();
        let used = first.len() + second.len();
        assert_eq!(arena.usage(), (used, used));
        drop(second);
        assert_eq!(arena.usage(), (first.len(), used));
    }

    #[test]
    fn an_impossible_length_is_refused() {
        assert!(arena(4096).allocate(usize::MAX).is_none());
    }

    proptest! {
        #[test]
        fn blocks_never_overlap_and_all_room_comes_back(steps in proptest::collection::vec((0usize..3000, any::<bool>()), 1..60)) {
            let arena = arena(1 << 14);
            let mut held: Vec<Block> = Vec::new();
            for (length, give_back) in steps {
                if give_back && !held.is_empty() {
                    held.swap_remove(length % held.len());
                } else if let Some(mut block) = arena.allocate(length) {
                    prop_assert_eq!(block.offset() % ALIGNMENT, 0);
                    for other in &held {
                        prop_assert!(block.range.end <= other.range.start || other.range.end <= block.range.start);
                    }
                    block.bytes_mut().fill(held.len() as u8);
                    held.push(block);
                }
            }
            held.clear();
            prop_assert_eq!(arena.largest_free(), 1 << 14);
        }
    }
}
