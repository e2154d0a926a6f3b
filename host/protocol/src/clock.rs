//! The two clocks that stations on a frame's way are read from.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds on the machine's monotonic clock. The same clock in every process, so differences
/// between stations in different processes are meaningful.
pub fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// Nanoseconds since 1970-01-01T00:00:00Z.
pub fn wall_ns() -> u64 {
    nanoseconds(ClockId::Realtime)
}

/// CPU time that the calling thread has used, in nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    nanoseconds(ClockId::ThreadCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_monotonic_clock_never_runs_backwards() {
        let readings: Vec<u64> = (0..1000).map(|_| monotonic_ns()).collect();
        assert!(readings.is_sorted());
        assert!(readings.last() > readings.first(), "it stands still");
    }
}
