//! What a worker's process uses, as the kernel counts it.
//!
//! A worker's own limits and its control group come first. This holds where they do not: where the
//! kernel filters no system calls, or hands no control groups down.

use ocelli_protocol::process::worker::MAX_THREADS;
use ocelli_protocol::worker::WorkerLimits;
use procfs::process::{Process, Status};

use super::cgroup::UNCOUNTED_MEMORY;
use super::health::HealthFault;

/// The memory and the threads of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Usage {
    /// Bytes: private and shared pages, swapped ones and page tables. Pages of files are left out:
    /// a worker shares them with others, and maps no file but those that it inherited.
    memory: u64,
    threads: u64,
}

impl Usage {
    /// That of a process; `None` if it has ended.
    pub(super) fn of(pid: u32) -> Option<Self> {
        Some(Self::from(&Process::new(i32::try_from(pid).ok()?).ok()?.status().ok()?))
    }
}

impl From<&Status> for Usage {
    fn from(status: &Status) -> Self {
        let kib = [status.rssanon, status.rssshmem, status.vmswap, status.vmpte];
        Self { memory: kib.into_iter().flatten().sum::<u64>() << 10, threads: status.threads }
    }
}

/// What a worker's process may use.
#[derive(Debug, Clone, Copy)]
pub(super) struct UsageLimit {
    /// Bytes.
    memory: u64,
    threads: u64,
}

impl UsageLimit {
    /// That of a worker with these limits and so many bytes of tensors.
    pub(super) fn new(limits: &WorkerLimits, tensors: usize) -> Self {
        let memory = limits.memory.saturating_add(tensors as u64).saturating_add(UNCOUNTED_MEMORY);
        Self { memory, threads: MAX_THREADS }
    }

    /// Fails where a process uses more.
    pub(super) fn check(&self, usage: Usage) -> Result<(), HealthFault> {
        if usage.memory > self.memory {
            return Err(HealthFault::Memory { used: usage.memory, limit: self.memory });
        }
        if usage.threads > self.threads {
            return Err(HealthFault::Threads { used: usage.threads, limit: self.threads });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::tests::limits;

    #[test]
    fn memory_is_what_the_kernel_counts_but_for_pages_of_files() {
        let mut status = Process::myself().unwrap().status().unwrap();
        status.rssanon = Some(1 << 10);
        status.rssshmem = Some(2 << 10);
        status.vmswap = Some(4 << 10);
        status.vmpte = Some(8 << 10);
        status.rssfile = Some(16 << 10);
        status.threads = 5;
        assert_eq!(Usage::from(&status), Usage { memory: 15 << 20, threads: 5 });
        assert!(Usage::of(std::process::id()).unwrap().memory > 1 << 20);
        assert_eq!(Usage::of(u32::MAX), None);
    }

    #[test]
    fn a_process_above_its_limits_is_a_fault_that_says_which() {
        let limit = UsageLimit::new(&limits(), 8 << 20);
        let good = Usage { memory: limits().memory + (72 << 20), threads: MAX_THREADS };
        limit.check(good).unwrap();
        let memory = limit.check(Usage { memory: good.memory + 1, ..good }).unwrap_err();
        assert!(matches!(memory, HealthFault::Memory { .. }), "{memory}");
        let threads = limit.check(Usage { threads: MAX_THREADS + 1, ..good }).unwrap_err();
        assert_eq!(threads.to_string(), "it has 9 threads, 8 are allowed");
    }
}
