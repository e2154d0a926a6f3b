//! A component's lines on their way to the session's log, so many in a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::LogLevel;
use parking_lot::Mutex;

use crate::counters::SharedCounters;
use crate::host_link::HostLink;

const SECOND_NS: u64 = 1_000_000_000;

/// Stands for no frame.
const NO_FRAME: u64 = u64::MAX;

/// Sends a component's log lines, and those of its standard output and error, to the host: as many
/// in a second as it may have. What is beyond is dropped and counted, and at most once in a second
/// a line says how many those were. Cheap to clone; the clones share the count.
#[derive(Clone)]
pub struct GuestLog {
    host: HostLink,
    tally: Arc<SharedCounters>,
    shared: Arc<LogState>,
}

struct LogState {
    per_second: u32,
    bucket: Mutex<TokenBucket>,
    /// The number of the frame in work.
    frame: AtomicU64,
}

impl GuestLog {
    /// A log of up to `per_second` lines in a second.
    pub fn new(host: HostLink, tally: Arc<SharedCounters>, per_second: u32) -> Self {
        let bucket = Mutex::new(TokenBucket::new(per_second, monotonic_ns()));
        let shared = Arc::new(LogState { per_second, bucket, frame: AtomicU64::new(NO_FRAME) });
        Self { host, tally, shared }
    }

    /// Names the frame that the following lines are about.
    pub fn set_frame(&self, number: u64) {
        self.shared.frame.store(number, Ordering::Relaxed);
    }

    /// The following lines are about no frame.
    pub fn forget_frame(&self) {
        self.set_frame(NO_FRAME);
    }

    /// A line of the component.
    pub fn line(&self, level: LogLevel, context: &str, message: &str) {
        self.line_at(monotonic_ns(), level, context, message);
    }

    /// A line of the worker itself: never dropped.
    pub fn own_line(&self, level: LogLevel, message: &str) {
        self.host.log(level, "worker", message, self.frame());
    }

    /// Says how many lines were dropped, where that is due. To be called now and then: a component
    /// that has fallen silent brings no line to say it with.
    pub fn report_dropped_if_due(&self) {
        self.report(|bucket| bucket.due(monotonic_ns()));
    }

    /// Says how many lines were dropped since that was last said.
    pub fn report_dropped(&self) {
        self.report(TokenBucket::take_dropped);
    }

    fn line_at(&self, now: u64, level: LogLevel, context: &str, message: &str) {
        self.report(|bucket| bucket.due(now));
        if self.with_bucket(|bucket| bucket.take(now)) {
            self.host.log(level, context, message, self.frame());
        } else {
            self.tally.count_limit(Limit::LogLines);
        }
    }

    fn report(&self, dropped: impl FnOnce(&mut TokenBucket) -> Option<u64>) {
        if let Some(dropped) = self.with_bucket(dropped) {
            let most = self.shared.per_second;
            let limit = Limit::LogLines;
            let message = format!(
                "limit {limit}: {dropped} lines of the component were dropped: {most} a second \
                    are kept"
            );
            self.own_line(LogLevel::Warn, &message);
        }
    }

    /// The lock is never held while a line is sent.
    fn with_bucket<T>(&self, use_it: impl FnOnce(&mut TokenBucket) -> T) -> T {
        use_it(&mut self.shared.bucket.lock())
    }

    fn frame(&self) -> Option<u64> {
        Some(self.shared.frame.load(Ordering::Relaxed)).filter(|&frame| frame != NO_FRAME)
    }
}

/// A token bucket: it holds the lines of one second and fills at that rate. Times are nanoseconds
/// of one clock.
#[derive(Debug)]
struct TokenBucket {
    per_second: u64,
    /// Lines that may pass, in billionths.
    room: u64,
    filled_at: u64,
    dropped: u64,
    /// When the first of `dropped` was dropped.
    dropped_since: u64,
}

impl TokenBucket {
    fn new(per_second: u32, now: u64) -> Self {
        let per_second = u64::from(per_second);
        Self {
            per_second,
            room: per_second * SECOND_NS,
            filled_at: now,
            dropped: 0,
            dropped_since: 0,
        }
    }

    /// Whether a line may pass. One that may not is counted.
    fn take(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let filled = self.room.saturating_add(passed.saturating_mul(self.per_second));
        self.room = filled.min(self.per_second * SECOND_NS);
        if let Some(rest) = self.room.checked_sub(SECOND_NS) {
            self.room = rest;
            return true;
        }
        if self.dropped == 0 {
            self.dropped_since = now;
        }
        self.dropped += 1;
        false
    }

    /// The number of lines dropped, once the first of them is a second old.
    fn due(&mut self, now: u64) -> Option<u64> {
        if now.saturating_sub(self.dropped_since) < SECOND_NS { None } else { self.take_dropped() }
    }

    fn take_dropped(&mut self) -> Option<u64> {
        Some(std::mem::take(&mut self.dropped)).filter(|&dropped| dropped > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::wire::Reader;
    use ocelli_protocol::worker::FromWorker;
    use std::os::unix::net::UnixStream;

    /// Lines that pass when `lines` come at `now`.
    fn passed(bucket: &mut TokenBucket, now: u64, lines: u32) -> u32 {
        (0..lines).map(|_| u32::from(bucket.take(now))).sum()
    }

    #[test]
    fn a_second_of_lines_passes_at_once_and_then_as_many_as_time_brings() {
        let mut bucket = TokenBucket::new(50, 0);
        assert_eq!(passed(&mut bucket, 0, 50), 50, "exactly the limit");
        assert_eq!(passed(&mut bucket, 0, 1), 0);
        assert_eq!(passed(&mut bucket, SECOND_NS / 10, 100), 5);
        assert_eq!(
            passed(&mut bucket, SECOND_NS * 1000, 100),
            50,
            "a long rest saves up one second's"
        );
        assert_eq!(passed(&mut bucket, 0, 10), 0, "a clock that runs backwards brings nothing");
    }

    #[test]
    fn dropped_lines_are_told_a_second_after_the_first() {
        let mut bucket = TokenBucket::new(1, 0);
        assert_eq!(bucket.due(5 * SECOND_NS), None, "none was dropped");
        passed(&mut bucket, 5 * SECOND_NS, 11);
        assert_eq!(bucket.due(6 * SECOND_NS - 1), None);
        assert_eq!(bucket.due(6 * SECOND_NS), Some(10));
        assert_eq!(bucket.due(8 * SECOND_NS), None, "told once");
    }

    #[test]
    fn a_flood_is_cut_down_counted_and_told_once_a_second() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let tally = Arc::new(SharedCounters::default());
        let log = GuestLog::new(HostLink::from_stream(ours), Arc::clone(&tally), 10);
        let start = monotonic_ns();
        let reading = std::thread::spawn(move || {
            let mut reader = Reader::new(theirs);
            let mut lines = Vec::new();
            while let Ok((FromWorker::Log { context, message, frame, .. }, _)) = reader.read() {
                lines.push((context, message, frame));
            }
            lines
        });
        log.set_frame(7);
        for step in 0..3000 {
            // A thousand lines in each of three seconds.
            log.line_at(start + step * SECOND_NS / 1000, LogLevel::Info, "flood", "line");
        }
        log.report_dropped();
        drop(log);
        let lines = reading.join().unwrap();
        let (told, kept): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|(context, ..)| context == "worker");
        // One second's lines at once, and three seconds' worth of more.
        assert!((30..=40).contains(&kept.len()), "{}", kept.len());
        assert!(kept.iter().all(|(_, message, frame)| message == "line" && *frame == Some(7)));
        let dropped = 3000 - kept.len() as u64;
        assert_eq!(tally.snapshot().limits.of(Limit::LogLines), dropped);
        assert!((3..=4).contains(&told.len()), "{told:?}");
        let told = told.iter().map(|(_, told, _)| {
            let count =
                told.strip_prefix("limit log_lines: ").and_then(|told| told.split_once(' '));
            count.unwrap().0.parse::<u64>().unwrap()
        });
        assert_eq!(told.sum::<u64>(), dropped);
    }
}
