//! A component's lines in the session's log, up to a limit per second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ocelli_protocol::clock::monotonic_ns;
use ocelli_protocol::limit::Limit;
use ocelli_protocol::worker::LogLevel;
use parking_lot::Mutex;

use super::newest::wasi::logging::logging;
use crate::counters::SharedCounters;
use crate::host_link::HostLink;

const SECOND_NS: u64 = 1_000_000_000;

/// The value of [`LogState::frame`] between frames.
const NO_FRAME: u64 = u64::MAX;

/// Sends a component's log lines, and those of its standard output and error, to the host, up to a
/// limit per second. Lines beyond that are dropped and counted, and at most once in a second a line
/// reports their number. Cheap to clone; the clones share the count.
#[derive(Clone)]
pub struct GuestLog {
    host: HostLink,
    counters: Arc<SharedCounters>,
    state: Arc<LogState>,
}

struct LogState {
    bucket: Mutex<TokenBucket>,
    /// The number of the frame in process, or [`NO_FRAME`].
    frame: AtomicU64,
}

impl logging::Host for GuestLog {
    fn log(
        &mut self,
        level: logging::Level,
        context: String,
        message: String,
    ) -> wasmtime::Result<()> {
        let level = match level {
            logging::Level::Trace => LogLevel::Trace,
            logging::Level::Debug => LogLevel::Debug,
            logging::Level::Info => LogLevel::Info,
            logging::Level::Warn => LogLevel::Warn,
            logging::Level::Error | logging::Level::Critical => LogLevel::Error,
        };
        self.line(level, &context, &message);
        Ok(())
    }
}

impl GuestLog {
    /// A log of up to `per_second` lines in a second.
    pub fn new(host: HostLink, counters: Arc<SharedCounters>, per_second: u32) -> Self {
        let bucket = Mutex::new(TokenBucket::new(per_second, monotonic_ns()));
        let state = Arc::new(LogState { bucket, frame: AtomicU64::new(NO_FRAME) });
        Self { host, counters, state }
    }

    /// Names the frame that the following lines are about.
    pub fn set_frame(&self, number: u64) {
        self.state.frame.store(number, Ordering::Relaxed);
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

    /// Reports dropped lines if the first of them is a second old. To be called after each call
    /// into the component: one that has gone silent has no line to report them with.
    pub fn report_dropped_if_due(&self) {
        self.report(|bucket| bucket.due(monotonic_ns()));
    }

    /// Reports the lines that were dropped since the last report.
    pub fn report_dropped(&self) {
        self.report(TokenBucket::take_dropped);
    }

    fn line_at(&self, now: u64, level: LogLevel, context: &str, message: &str) {
        self.report(|bucket| bucket.due(now));
        if self.with_bucket(|bucket| bucket.take(now)) {
            self.host.log(level, context, message, self.frame());
        } else {
            self.counters.count_limit(Limit::LogLines);
        }
    }

    fn report(&self, dropped: impl FnOnce(&mut TokenBucket) -> Option<u64>) {
        let (dropped, most) = self.with_bucket(|bucket| (dropped(bucket), bucket.per_second));
        if let Some(dropped) = dropped {
            let limit = Limit::LogLines;
            let message = format!(
                "limit {limit}: {dropped} lines of the component were dropped: {most} a second \
                    are kept"
            );
            self.own_line(LogLevel::Warn, &message);
        }
    }

    /// The lock is never held while a line is sent.
    fn with_bucket<T>(&self, change: impl FnOnce(&mut TokenBucket) -> T) -> T {
        change(&mut self.state.bucket.lock())
    }

    fn frame(&self) -> Option<u64> {
        Some(self.state.frame.load(Ordering::Relaxed)).filter(|&frame| frame != NO_FRAME)
    }
}

/// A token bucket: it holds the lines of one second and fills at that rate. Times are nanoseconds
/// of one clock.
#[derive(Debug)]
struct TokenBucket {
    per_second: u64,
    /// Lines that may pass, in billionths.
    tokens: u64,
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
            tokens: per_second * SECOND_NS,
            filled_at: now,
            dropped: 0,
            dropped_since: 0,
        }
    }

    /// Whether a line may pass. A refused one is counted.
    fn take(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let filled = self.tokens.saturating_add(passed.saturating_mul(self.per_second));
        self.tokens = filled.min(self.per_second * SECOND_NS);
        if let Some(rest) = self.tokens.checked_sub(SECOND_NS) {
            self.tokens = rest;
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
    fn dropped_lines_are_reported_a_second_after_the_first() {
        let mut bucket = TokenBucket::new(1, 0);
        assert_eq!(bucket.due(5 * SECOND_NS), None, "none was dropped");
        passed(&mut bucket, 5 * SECOND_NS, 11);
        assert_eq!(bucket.due(6 * SECOND_NS - 1), None);
        assert_eq!(bucket.due(6 * SECOND_NS), Some(10));
        assert_eq!(bucket.due(8 * SECOND_NS), None, "reported once");
    }

    #[test]
    fn a_flood_is_cut_down_counted_and_reported_once_a_second() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let counters = Arc::new(SharedCounters::default());
        let log = GuestLog::new(HostLink::from_stream(ours), Arc::clone(&counters), 10);
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
        let (reports, passed): (Vec<_>, Vec<_>) =
            lines.into_iter().partition(|(context, ..)| context == "worker");
        // One second's lines at once, and three seconds' worth of more.
        assert!((30..=40).contains(&passed.len()), "{}", passed.len());
        assert!(passed.iter().all(|(_, message, frame)| message == "line" && *frame == Some(7)));
        let dropped = 3000 - passed.len() as u64;
        assert_eq!(counters.snapshot().limits.of(Limit::LogLines), dropped);
        assert!((3..=4).contains(&reports.len()), "{reports:?}");
        let reported = reports.iter().map(|(_, line, _)| {
            let count =
                line.strip_prefix("limit log_lines: ").and_then(|line| line.split_once(' '));
            count.unwrap().0.parse::<u64>().unwrap()
        });
        assert_eq!(reported.sum::<u64>(), dropped);
    }
}
