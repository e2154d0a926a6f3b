//! Times as messages have them.

use std::time::SystemTime;

use jiff::Timestamp;

/// A time in nanoseconds since 1970.
pub fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds since 1970 as RFC 3339 in UTC with milliseconds, cut off, not rounded.
pub fn rfc3339(wall_ns: u64) -> String {
    // 64 bits of nanoseconds end in the year 2554, within what a timestamp can hold.
    let time = Timestamp::from_nanosecond(i128::from(wall_ns)).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.3}")
}
