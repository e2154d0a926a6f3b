//! The requests that the inference process is running: memory that it shares with the host, so that
//! the host can read it when the process has died, or hangs.
//!
//! Each runner has [`SLOTS`] slots, one for each request of a batch. The host uses the table for
//! one decision alone: whose request it runs alone, refuses, or ends with the process.
//!
//! ```text
//! u64 LE  the process's last heartbeat: CLOCK_MONOTONIC in nanoseconds
//! 24 bytes unused
//! for each runner, for each slot:
//!   u64   the attachment's number; 0: the slot is empty
//!   u64   the request's number
//!   u64   the run's deadline: CLOCK_MONOTONIC in nanoseconds; 0: none
//!   u64   unused
//! ```

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inference::MAX_BATCH;
use crate::shm::SharedMemory;

/// Slots of a runner.
pub const SLOTS: usize = MAX_BATCH as usize;

/// Words of 8 bytes in a slot, and in the header before the first slot.
const SLOT_WORDS: usize = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunningRequest {
    /// The session's attachment: [`Attach::number`](crate::inference::Attach::number), never 0.
    pub attachment: u64,
    /// The request's number among those of the session.
    pub request: u64,
    /// The run's deadline on the monotonic clock in nanoseconds; 0: none.
    pub deadline_ns: u64,
}

/// The table in shared memory. One process writes, the other reads.
#[derive(Debug)]
pub struct InFlightTable {
    memory: SharedMemory,
    runners: usize,
}

impl InFlightTable {
    /// An empty table for `runners` runners.
    pub fn create(runners: usize) -> io::Result<Self> {
        let memory = SharedMemory::create((1 + runners * SLOTS) * SLOT_WORDS * size_of::<u64>())?;
        Ok(Self { memory, runners })
    }

    /// Maps the table that the host has passed.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::map(file)?;
        let runners = (memory.len() / (SLOT_WORDS * size_of::<u64>())).saturating_sub(1) / SLOTS;
        Ok(Self { memory, runners })
    }

    /// The descriptor, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// The number of runners that the table has slots for.
    pub fn runners(&self) -> usize {
        self.runners
    }

    /// Records a heartbeat. `now_ns` is the monotonic clock.
    pub fn record_heartbeat(&self, now_ns: u64) {
        self.store(0, now_ns);
    }

    /// The last heartbeat on the monotonic clock in nanoseconds; 0 before the first.
    pub fn last_heartbeat(&self) -> u64 {
        self.load(0)
    }

    /// Enters a request that begins to run. A slot that does not exist is not written.
    pub fn begin(&self, runner: usize, slot: usize, running: RunningRequest) {
        if let Some(word) = self.slot_word(runner, slot) {
            self.store(word + 1, running.request);
            self.store(word + 2, running.deadline_ns);
            // Last: a reader that sees the number sees the rest.
            self.store(word, running.attachment);
        }
    }

    /// Empties the slot of a request that has ended.
    pub fn end(&self, runner: usize, slot: usize) {
        if let Some(word) = self.slot_word(runner, slot) {
            self.store(word, 0);
        }
    }

    /// The running requests. While the process is alive, a request that begins or ends meanwhile
    /// may be missing.
    pub fn running(&self) -> Vec<RunningRequest> {
        let slots = (0..self.runners).flat_map(|runner| (0..SLOTS).map(move |slot| (runner, slot)));
        let read = |word: usize| RunningRequest {
            attachment: self.load(word),
            request: self.load(word + 1),
            deadline_ns: self.load(word + 2),
        };
        slots
            .filter_map(|(runner, slot)| {
                let word = self.slot_word(runner, slot)?;
                let running = read(word);
                (running.attachment != 0 && read(word) == running).then_some(running)
            })
            .collect()
    }

    /// The index of a slot's first word.
    fn slot_word(&self, runner: usize, slot: usize) -> Option<usize> {
        (runner < self.runners && slot < SLOTS).then(|| (1 + runner * SLOTS + slot) * SLOT_WORDS)
    }

    fn store(&self, word: usize, value: u64) {
        if let Some(word) = self.word(word) {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn load(&self, word: usize) -> u64 {
        self.word(word).map_or(0, |word| word.load(Ordering::SeqCst))
    }

    #[allow(unsafe_code)]
    fn word(&self, word: usize) -> Option<&AtomicU64> {
        let start = word.checked_mul(size_of::<u64>())?;
        let address = self.memory.address(start..start.checked_add(size_of::<u64>())?)?;
        // SAFETY: the address lies in the mapping, which lives as long as `self` and begins at a
        // page, so a multiple of 8 is aligned. Both processes touch these bytes by atomic
        // operations alone.
        Some(unsafe { AtomicU64::from_ptr(address.cast()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_runs_the_host_reads() {
        let host = InFlightTable::create(2).unwrap();
        let process = InFlightTable::map(host.fd().try_clone_to_owned().unwrap()).unwrap();
        assert_eq!(process.runners(), 2);
        let running = |attachment| RunningRequest {
            attachment,
            request: attachment + 10,
            deadline_ns: attachment + 20,
        };
        process.begin(0, 0, running(1));
        process.begin(1, SLOTS - 1, running(2));
        assert_eq!(host.running(), [running(1), running(2)]);
        process.end(0, 0);
        assert_eq!(host.running(), [running(2)]);
        process.record_heartbeat(7);
        assert_eq!(host.last_heartbeat(), 7);
    }

    #[test]
    fn a_slot_that_does_not_exist_is_not_written() {
        let table = InFlightTable::create(1).unwrap();
        let running = RunningRequest { attachment: 1, request: 1, deadline_ns: 0 };
        table.begin(1, 0, running);
        table.begin(0, SLOTS, running);
        table.begin(usize::MAX, usize::MAX, running);
        assert!(table.running().is_empty());
    }
}
