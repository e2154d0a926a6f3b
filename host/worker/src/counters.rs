//! The counters of a worker, the size of its component's memory and the damage of its source: one
//! owner, read and written by all of its threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use ocelli_protocol::limit::Limit;
use ocelli_protocol::usage::GuestUsage;
use ocelli_protocol::worker::Counters;
use parking_lot::Mutex;

use crate::arena::Arena;

/// The totals since the worker started. Its lock is held for a few additions, never while anything
/// waits, so that the heartbeat gets through whatever intake and pipeline do.
#[derive(Debug, Default)]
pub struct SharedCounters {
    counters: Mutex<Counters>,
    guest_memory: AtomicU64,
    guest_memory_peak: AtomicU64,
    tensors: OnceLock<Arc<Arena>>,
    damage: Mutex<Option<String>>,
}

impl SharedCounters {
    /// Applies `change` and gives the totals after it. `change` only counts: it runs under the
    /// lock.
    pub fn update(&self, change: impl FnOnce(&mut Counters)) -> Counters {
        let mut counters = self.counters.lock();
        change(&mut counters);
        *counters
    }

    /// A copy of the totals.
    pub fn snapshot(&self) -> Counters {
        self.update(|_| ())
    }

    /// Counts that the component ran into a limit.
    pub fn count_limit(&self, limit: Limit) {
        self.update(|counters| counters.limits.add(limit, 1));
    }

    /// Bytes of the component's linear memories together.
    pub fn guest_memory(&self) -> u64 {
        self.guest_memory.load(Ordering::Relaxed)
    }

    /// Sets the bytes of the component's linear memories together.
    pub fn set_guest_memory(&self, bytes: usize) {
        self.guest_memory.store(bytes as u64, Ordering::Relaxed);
        self.guest_memory_peak.fetch_max(bytes as u64, Ordering::Relaxed);
    }

    /// Says where the worker's tensors lie, once.
    pub fn set_tensors(&self, arena: &Arc<Arena>) {
        // A worker has one arena.
        let _ = self.tensors.set(Arc::clone(arena));
    }

    /// What the component has used of memory.
    pub fn usage(&self) -> GuestUsage {
        let (tensors, peak) = self.tensors.get().map_or((0, 0), |arena| arena.usage());
        GuestUsage {
            memory: self.guest_memory_peak.load(Ordering::Relaxed),
            tensors: tensors as u64,
            tensors_peak: peak as u64,
        }
    }

    /// The decoder's words, while the source has nothing but damaged pictures.
    pub fn damage(&self) -> Option<String> {
        self.damage.lock().clone()
    }

    /// Sets the decoder's words on a source of nothing but damaged pictures.
    pub fn set_damage(&self, words: Option<&str>) {
        *self.damage.lock() = words.map(str::to_owned);
    }
}
