//! What the inference process is running at a moment: memory that it shares with the host, so that
//! the host can read it when the process has died, or hangs.
//!
//! Each runner has [`SLOTS`] lanes, one for each request of a batch. The host trusts nothing that
//! it reads here further than this: it decides whose request is run alone, refused, or ended with
//! the process.
//!
//! ```text
//! u64 LE  when the process last showed a sign of life: CLOCK_MONOTONIC in nanoseconds
//! 24 bytes unused
//! for each runner, for each lane:
//!   u64   the attachment's number; 0: the lane is empty
//!   u64   the request's number
//!   u64   when the run has to be over: CLOCK_MONOTONIC in nanoseconds; 0: it may take as long as it wants
//!   u64   unused
//! ```

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::inference::MAX_BATCH;
use crate::shm::SharedMemory;

/// Lanes of a runner.
pub const SLOTS: usize = MAX_BATCH as usize;

/// Words of 8 bytes in a lane and before the first.
const SLOT_WORDS: usize = 4;

/// A request that is running.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunningRequest {
    /// Whose it is: [`Attach::number`](crate::inference::Attach::number), never 0.
    pub attachment: u64,
    /// Its number among the worker's requests.
    pub request: u64,
    /// When it has to be over, on the monotonic clock in nanoseconds; 0: at no time.
    pub deadline_ns: u64,
}

/// The memory.
#[derive(Debug)]
pub struct InFlightTable {
    memory: SharedMemory,
    runners: usize,
}

impl InFlightTable {
    /// An empty ledger for so many runners.
    pub fn create(runners: usize) -> io::Result<Self> {
        let memory = SharedMemory::create((1 + runners * SLOTS) * SLOT_WORDS * size_of::<u64>())?;
        Ok(Self { memory, runners })
    }

    /// Maps the ledger that the host has passed.
    pub fn map(file: OwnedFd) -> io::Result<Self> {
        let memory = SharedMemory::map(file)?;
        let runners = (memory.len() / (SLOT_WORDS * size_of::<u64>())).saturating_sub(1) / SLOTS;
        Ok(Self { memory, runners })
    }

    /// The descriptor, to pass on.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }

    /// How many runners it has room for.
    pub fn runners(&self) -> usize {
        self.runners
    }

    /// Says that the process is alive. `now_ns` is the monotonic clock.
    pub fn record_heartbeat(&self, now_ns: u64) {
        self.store(0, now_ns);
    }

    /// When the process last said that it is alive; 0 where it never has.
    pub fn last_heartbeat(&self) -> u64 {
        self.load(0)
    }

    /// Notes that a request begins to run. Lanes that do not exist are not written.
    pub fn begin(&self, runner: usize, lane: usize, running: RunningRequest) {
        if let Some(word) = self.lane(runner, lane) {
            self.store(word + 1, running.request);
            self.store(word + 2, running.deadline_ns);
            // Last, so that whoever sees the number sees the rest.
            self.store(word, running.attachment);
        }
    }

    /// Notes that it runs no more.
    pub fn end(&self, runner: usize, lane: usize) {
        if let Some(word) = self.lane(runner, lane) {
            self.store(word, 0);
        }
    }

    /// What is running. Of a process that lives, a request that ends or begins meanwhile may be
    /// missing.
    pub fn running(&self) -> Vec<RunningRequest> {
        let lanes = (0..self.runners).flat_map(|runner| (0..SLOTS).map(move |lane| (runner, lane)));
        let read = |word: usize| RunningRequest {
            attachment: self.load(word),
            request: self.load(word + 1),
            deadline_ns: self.load(word + 2),
        };
        lanes
            .filter_map(|(runner, lane)| {
                let word = self.lane(runner, lane)?;
                let running = read(word);
                (running.attachment != 0 && read(word) == running).then_some(running)
            })
            .collect()
    }

    fn lane(&self, runner: usize, slot_word: usize) -> Option<usize> {
        (runner < self.runners && slot_word < SLOTS)
            .then(|| (1 + runner * SLOTS + slot_word) * SLOT_WORDS)
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
    fn a_lane_that_does_not_exist_is_not_written() {
        let ledger = InFlightTable::create(1).unwrap();
        let running = RunningRequest { attachment: 1, request: 1, deadline_ns: 0 };
        ledger.begin(1, 0, running);
        ledger.begin(0, SLOTS, running);
        ledger.begin(usize::MAX, usize::MAX, running);
        assert!(ledger.running().is_empty());
    }
}
