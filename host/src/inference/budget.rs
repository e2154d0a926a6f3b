//! How much memory an inference process may use before a fresh one takes its place.
//!
//! Counted is resident private memory, `RssAnon` of `/proc/PID/status`. It grows with leaks and
//! with arenas that never shrink. It leaves out the library, shared memory and unused reservations.

use std::time::Duration;

use procfs::process::Process;

/// Time between two measurements.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);

/// Minimum time between two replacements: if fresh processes exceed the budget soon, replacing them
/// again and again would cost more than the memory.
const REST: Duration = Duration::from_secs(60);

/// Bytes that a process may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget(u64);

impl Budget {
    /// `None` for 0: unbounded.
    pub(super) fn from_mib(mib: u64) -> Option<Self> {
        (mib > 0).then(|| Self(mib.saturating_mul(1 << 20)))
    }

    pub(super) fn bytes(self) -> u64 {
        self.0
    }

    /// Hard limit of the process, far above the budget: it is commonly replaced before, and one
    /// excessive request ends the process instead of the machine.
    pub(super) fn hard_limit(self) -> u64 {
        self.0.saturating_mul(2)
    }

    /// Whether a process that uses so many bytes is to be replaced. `took_over`: how long ago it
    /// replaced one above the budget, if it did.
    pub(super) fn is_exceeded(self, used: u64, took_over: Option<Duration>) -> bool {
        used > self.0 && took_over.is_none_or(|since| since >= REST)
    }
}

/// Bytes of private memory that a process uses. `None` if it has ended.
pub(super) fn private_memory(pid: u32) -> Option<u64> {
    let status = Process::new(i32::try_from(pid).ok()?).ok()?.status().ok()?;
    // In KiB.
    status.rssanon?.checked_mul(1 << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_above_the_budget_is_replaced_and_the_next_one_has_a_minute() {
        let budget = Budget::from_mib(100).unwrap();
        let (below, above) = (budget.bytes(), budget.bytes() + 1);
        assert!(!budget.is_exceeded(below, None));
        assert!(budget.is_exceeded(above, None));
        assert!(!budget.is_exceeded(above, Some(Duration::from_secs(59))));
        assert!(budget.is_exceeded(above, Some(Duration::from_secs(60))));
        assert_eq!(budget.hard_limit(), 200 << 20);
        assert_eq!(Budget::from_mib(0), None);
    }

    #[test]
    fn memory_that_is_used_counts() {
        let before = private_memory(std::process::id()).unwrap();
        let filled = std::hint::black_box(vec![1_u8; 64 << 20]);
        let after = private_memory(std::process::id()).unwrap();
        assert!(after >= before + (48 << 20), "{before}, then {after} bytes");
        drop(filled);
    }
}
