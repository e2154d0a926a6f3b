//! Bounds on a component's memory and tables, and which limit, if any, is behind an error.

use std::sync::Arc;

use ocelli_protocol::engine::MAX_WASM_STACK;
use ocelli_protocol::limit::Limit;
use rustix::io::Errno;
use wasmtime::component::ResourceTableError;
use wasmtime::{OutOfMemory, ResourceLimiter, Trap};

use crate::counters::SharedCounters;
use crate::memory::{RESERVED, can_allocate};

/// Handles that a component may hold at a time: tensors, frames, contexts, streams. A pipeline
/// holds a few dozen. One that never drops its handles gets an error before it fills the process's
/// memory.
pub(super) const MAX_HANDLES: usize = 10_000;

/// Most elements of a component's tables together. Interpreters compiled to wasm use about ten
/// thousand.
const MAX_TABLE_ELEMENTS: usize = 100_000;

/// Most core instances and tables of one component. Components made of Python use about forty
/// instances.
const MAX_INSTANCES: usize = 200;

/// Most linear memories of one component, each of which reserves addresses. One made of a single
/// program has one or two, and each program that it is composed of adds as many.
pub(crate) const MAX_MEMORIES: usize = 8;

/// A limit that was run into. As an error it ends the call, and the instance with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("limit {limit}: {message}")]
pub(super) struct LimitExceeded {
    pub limit: Limit,
    /// The amount asked for, and the amount allowed.
    pub message: String,
}

impl LimitExceeded {
    /// The component ran into this limit.
    pub(super) fn new(limit: Limit, message: impl Into<String>) -> Self {
        Self { limit, message: message.into() }
    }

    /// The limit behind an error of Wasmtime or of one of the host's functions, if any.
    pub(super) fn from_error(error: &wasmtime::Error) -> Option<Self> {
        if let Some(exceeded) = error.downcast_ref::<Self>() {
            return Some(exceeded.clone());
        }
        if matches!(error.downcast_ref::<Trap>(), Some(Trap::StackOverflow)) {
            let message =
                format!("the component used more than {} KiB of stack", MAX_WASM_STACK >> 10);
            return Some(Self::new(Limit::Stack, message));
        }
        // Wasmtime has no types for the two errors that are known by their text.
        let text = error.root_cause().to_string();
        let full =
            matches!(error.downcast_ref::<ResourceTableError>(), Some(ResourceTableError::Full));
        if full || text.contains("store handle limit exceeded") {
            let message = format!("the component holds more than {MAX_HANDLES} handles");
            return Some(Self::new(Limit::Handles, message));
        }
        if text.contains("fuel allocated for hostcalls has been exhausted") {
            let message = "the component handed over more at a time than the host takes";
            return Some(Self::new(Limit::OutputBytes, message));
        }
        if error.is::<OutOfMemory>() || is_out_of_memory(error) {
            return Some(Self::new(Limit::Memory, "the process has no more memory"));
        }
        None
    }
}

/// Whether the kernel refused something: of a component's making that can only be memory. Wasmtime
/// says it in two ways.
fn is_out_of_memory(error: &wasmtime::Error) -> bool {
    let number = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    number == Some(Errno::NOMEM.raw_os_error())
        || error.downcast_ref::<Errno>() == Some(&Errno::NOMEM)
}

/// Bounds linear memory and tables, summed over a component, and remembers what was refused: a
/// guest that is denied memory traps as `unreachable`, which by itself has no reason.
#[derive(Debug)]
pub(super) struct Limiter {
    memory: usize,
    memory_limit: usize,
    /// Bytes that the latest permitted growth added to `memory`.
    added: usize,
    table: usize,
    refused: Option<LimitExceeded>,
    counters: Arc<SharedCounters>,
}

impl Limiter {
    /// A limiter for an instance that may have `memory_limit` bytes of linear memory.
    pub(super) fn new(memory_limit: u64, counters: Arc<SharedCounters>) -> Self {
        let memory_limit = usize::try_from(memory_limit).unwrap_or(usize::MAX);
        Self { memory: 0, memory_limit, added: 0, table: 0, refused: None, counters }
    }

    /// Counts and remembers a refusal that the component may survive.
    pub(super) fn refuse(&mut self, limit: Limit, message: String) {
        self.counters.count_limit(limit);
        self.refused = Some(LimitExceeded::new(limit, message));
    }

    /// The limit behind an error, if any: the one that the error names, which is counted here, or
    /// the latest refusal, which was counted when it was made.
    pub(super) fn explain(&mut self, error: &wasmtime::Error) -> Option<LimitExceeded> {
        let exceeded = LimitExceeded::from_error(error);
        if let Some(exceeded) = &exceeded {
            self.counters.count_limit(exceeded.limit);
        }
        exceeded.or_else(|| self.take_refusal())
    }

    /// The latest refusal since the last call of this function.
    pub(super) fn take_refusal(&mut self) -> Option<LimitExceeded> {
        self.refused.take()
    }

    fn set_memory(&mut self, bytes: usize) {
        self.memory = bytes;
        self.counters.set_guest_memory(bytes);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            // The component's own bound.
            return Ok(false);
        }
        let added = desired.saturating_sub(current);
        let total = self.memory.saturating_add(added);
        if total > self.memory_limit {
            let (total, limit) = (total >> 20, self.memory_limit >> 20);
            let message = format!(
                "the component was refused linear memory of {total} MiB, the limit is {limit} MiB"
            );
            self.refuse(Limit::Memory, message);
            return Ok(false);
        }
        if !can_allocate(added.saturating_add(RESERVED)) {
            let (total, reserved) = (total >> 20, RESERVED >> 20);
            let message = format!(
                "the component was refused linear memory of {total} MiB, the process has no room \
                    for it beside \
                 the {reserved} MiB that it keeps for itself"
            );
            self.refuse(Limit::Memory, message);
            return Ok(false);
        }
        self.added = added;
        self.set_memory(total);
        Ok(true)
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        // Other errors come without `memory_growing` having been asked, or are none that a 64-bit
        // system gives: to take something off the sum for those could let a component have more
        // than its share.
        if is_out_of_memory(&error) {
            let wanted = self.memory >> 20;
            let added = std::mem::take(&mut self.added);
            self.set_memory(self.memory.saturating_sub(added));
            let message =
                format!("the process has no room for linear memory of {wanted} MiB: {error:#}");
            self.refuse(Limit::Memory, message);
        }
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let total = self.table.saturating_add(desired.saturating_sub(current));
        if total > MAX_TABLE_ELEMENTS {
            let message = format!(
                "the component was refused tables of {total} elements, the limit is \
                    {MAX_TABLE_ELEMENTS}"
            );
            self.refuse(Limit::Tables, message);
            return Ok(false);
        }
        self.table = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::worker::Counters;

    fn limiter(memory_limit: u64) -> (Limiter, Arc<SharedCounters>) {
        let counters = Arc::new(SharedCounters::default());
        (Limiter::new(memory_limit, Arc::clone(&counters)), counters)
    }

    fn counted(counters: Counters) -> Vec<(Limit, u64)> {
        counters.limits.hit().collect()
    }

    #[test]
    fn memories_are_summed_up_to_the_limit_and_not_beyond() {
        let (mut limiter, counters) = limiter(10 << 20);
        assert!(limiter.memory_growing(0, 6 << 20, None).unwrap());
        assert!(!limiter.memory_growing(0, 6 << 20, None).unwrap());
        let refused = limiter.take_refusal().unwrap().to_string();
        assert_eq!(
            refused,
            "limit memory: the component was refused linear memory of 12 MiB, the limit is 10 MiB"
        );
        assert!(limiter.memory_growing(0, 4 << 20, None).unwrap());
        assert_eq!(counters.guest_memory(), 10 << 20);
        assert!(!limiter.memory_growing(4 << 20, (4 << 20) + 1, None).unwrap());
        assert_eq!(counted(counters.snapshot()), [(Limit::Memory, 2)]);
    }

    #[test]
    fn memory_that_the_system_has_not_is_given_back_once() {
        let (mut limiter, counters) = limiter(10 << 20);
        let denied = || std::io::Error::from(Errno::NOMEM);
        assert!(limiter.memory_growing(0, 4 << 20, None).unwrap());
        assert!(limiter.memory_growing(4 << 20, 9 << 20, None).unwrap());
        limiter.memory_grow_failed(denied().into()).unwrap();
        assert_eq!(counters.guest_memory(), 4 << 20);
        assert!(
            limiter.take_refusal().unwrap().message.contains("no room for linear memory of 9 MiB")
        );
        limiter.memory_grow_failed(denied().into()).unwrap();
        assert_eq!(counters.guest_memory(), 4 << 20);
    }

    #[test]
    fn a_growth_that_was_never_permitted_takes_nothing_off_the_sum() {
        let (mut limiter, counters) = limiter(10 << 20);
        assert!(limiter.memory_growing(0, 4 << 20, None).unwrap());
        limiter.memory_grow_failed(wasmtime::Error::msg("exceeds memory type's limits")).unwrap();
        assert!(!limiter.memory_growing(4 << 20, 8 << 20, Some(6 << 20)).unwrap());
        assert_eq!(counters.guest_memory(), 4 << 20);
        assert_eq!(counted(counters.snapshot()), [], "a component's own bound is no limit of ours");
    }

    #[test]
    fn tables_are_summed_up_to_the_limit_and_not_beyond() {
        let (mut limiter, counters) = limiter(0);
        assert!(limiter.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
        assert!(!limiter.table_growing(0, 2, Some(1)).unwrap());
        assert!(limiter.take_refusal().unwrap().message.contains("100001 elements"));
        assert_eq!(counted(counters.snapshot()), [(Limit::Tables, 1)]);
    }
}
