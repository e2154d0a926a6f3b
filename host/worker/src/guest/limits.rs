//! Bounds on what a component may use: memory, tables, and CPU time per call.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ocelli_protocol::clock::thread_cpu_ns;
use wasmtime::{Engine, ResourceLimiter, Store, UpdateDeadline};

use super::state::State;

/// Most elements of a component's tables together. Interpreters compiled to wasm use about ten thousand.
const MAX_TABLE_ELEMENTS: usize = 100_000;

/// Most core instances, memories and tables of one component. Components made of Python use about forty instances.
const MAX_INSTANCES: usize = 200;

/// How often a running call is looked at. A call may overrun its share by this much; each look costs some 0.1 ms of CPU.
const TICK: Duration = Duration::from_millis(50);

/// Bounds linear memory and tables, summed over a component, and remembers what it refused: a guest that is denied
/// memory traps as `unreachable`, which by itself does not tell why.
#[derive(Debug)]
pub struct Limiter {
    memory: usize,
    memory_limit: usize,
    table: usize,
    refused: Option<String>,
}

impl Limiter {
    /// A limiter for an instance that may have `memory_limit` bytes of linear memory.
    pub fn new(memory_limit: usize) -> Self {
        Self { memory: 0, memory_limit, table: 0, refused: None }
    }

    /// What has been refused since the last call of this function.
    pub fn take_refused(&mut self) -> Option<String> {
        self.refused.take()
    }

    /// Bytes of linear memory in use.
    pub fn memory(&self) -> usize {
        self.memory
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.memory_limit {
            let limit = self.memory_limit >> 20;
            self.refused = Some(format!("linear memory of {} MiB, the limit is {limit} MiB", total >> 20));
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let total = self.table.saturating_add(desired.saturating_sub(current));
        if total > MAX_TABLE_ELEMENTS {
            self.refused = Some(format!("tables of {total} elements, the limit is {MAX_TABLE_ELEMENTS}"));
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
        MAX_INSTANCES
    }
}

/// Advances the engine's epoch while a call runs, so that the call can be looked at; rests between calls.
pub struct Ticker {
    shared: Arc<TickerState>,
}

struct TickerState {
    running: Mutex<bool>,
    changed: Condvar,
    over: AtomicBool,
}

impl Ticker {
    /// Starts the thread. It ends when the ticker is dropped.
    pub fn start(engine: &Engine) -> std::io::Result<Self> {
        let state =
            TickerState { running: Mutex::new(false), changed: Condvar::new(), over: AtomicBool::new(false) };
        let shared = Arc::new(state);
        let (state, engine) = (Arc::clone(&shared), engine.clone());
        std::thread::Builder::new().name("epoch".into()).spawn(move || state.tick(&engine))?;
        Ok(Self { shared })
    }

    /// Ticks until the returned guard is dropped.
    pub fn during_call(&self) -> Ticking {
        self.shared.set(true);
        Ticking { shared: Arc::clone(&self.shared) }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.shared.set(true);
    }
}

/// A call is running.
pub struct Ticking {
    shared: Arc<TickerState>,
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.shared.set(false);
    }
}

impl TickerState {
    fn set(&self, running: bool) {
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = running;
        // Starting wakes the thread from its rest; stopping need not: it looks after its tick.
        if running {
            self.changed.notify_one();
        }
    }

    fn tick(&self, engine: &Engine) {
        loop {
            let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            let running =
                self.changed.wait_while(running, |running| !*running).unwrap_or_else(PoisonError::into_inner);
            // Woken early only by `over`, or by the start of a following call, which then is looked at a little early.
            drop(self.changed.wait_timeout(running, TICK).unwrap_or_else(PoisonError::into_inner));
            if self.over.load(Ordering::Acquire) {
                return;
            }
            engine.increment_epoch();
        }
    }
}

/// Makes the store check its call's CPU time at every tick. Waiting, for inference say, uses none.
pub fn install_cpu_limit(store: &mut Store<State>) {
    store.epoch_deadline_callback(|context| {
        if thread_cpu_ns() > context.data().cpu_deadline_ns {
            return Ok(UpdateDeadline::Interrupt);
        }
        Ok(UpdateDeadline::Continue(1))
    });
}

/// Starts a call's share of CPU time.
pub fn start_call(store: &mut Store<State>, limit: Duration) {
    store.set_epoch_deadline(1);
    let limit = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    store.data_mut().cpu_deadline_ns = thread_cpu_ns().saturating_add(limit);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memories_are_summed() {
        let mut limiter = Limiter::new(10 << 20);
        assert!(limiter.memory_growing(0, 6 << 20, None).unwrap());
        assert!(!limiter.memory_growing(0, 6 << 20, None).unwrap());
        assert_eq!(limiter.take_refused().unwrap(), "linear memory of 12 MiB, the limit is 10 MiB");
        assert!(limiter.memory_growing(0, 4 << 20, None).unwrap());
        assert_eq!(limiter.memory(), 10 << 20);
    }

    #[test]
    fn tables_are_summed() {
        let mut limiter = Limiter::new(0);
        assert!(limiter.table_growing(0, MAX_TABLE_ELEMENTS, None).unwrap());
        assert!(!limiter.table_growing(0, 1, None).unwrap());
    }
}
