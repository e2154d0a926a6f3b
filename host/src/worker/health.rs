//! The health of a worker: it sends heartbeats, and turns the frames that it gets into results.
//!
//! That the process exists proves little. A worker owes two things: a message at least once per
//! heartbeat interval, which it sends from a thread that nothing else can hold up; and progress. It
//! owes progress while the host has sent it access units that it has not taken in, and while it has
//! decoded frames that its pipeline has neither processed nor skipped for a newer one.

use std::time::{Duration, Instant};

use ocelli_protocol::worker::Counters;

/// Heartbeats within the time in which a worker that hangs is noticed: one or two late ones are no
/// reason to kill it.
pub(super) const HEARTBEATS: u32 = 5;

/// Why a worker is unhealthy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HealthFault {
    /// No message came: it is stopped, or gets no CPU time.
    #[error("health: no sign of life for {:.1} s", .0.as_secs_f64())]
    Silent(Duration),
    /// It was sent access units and takes none in.
    #[error("health: the decoder has taken nothing in for {:.1} s although frames \
        arrive", .0.as_secs_f64())]
    NotDecoding(Duration),
    /// It has decoded frames and gives no results.
    #[error("health: no result for {:.1} s although frames arrive", .0.as_secs_f64())]
    NoResults(Duration),
    /// Bytes that it uses, above those that it may use.
    #[error("limit memory: it uses {} MiB, {} MiB are allowed", .used >> 20, .limit >> 20)]
    Memory { used: u64, limit: u64 },
    /// Threads that it has, above those that it may have.
    #[error("it has {used} threads, {limit} are allowed")]
    Threads { used: u64, limit: u64 },
    /// It floods the host: messages within a time.
    #[error("it sent {0} messages within {seconds:.1} s", seconds = .1.as_secs_f64())]
    Messages(u64, Duration),
    /// It floods the log: lines within a time.
    #[error("it sent {0} log lines within {seconds:.1} s", seconds = .1.as_secs_f64())]
    LogLines(u64, Duration),
}

/// The time since when a worker owes progress.
#[derive(Debug, Default)]
struct ProgressDeadline {
    done: u64,
    since: Option<Instant>,
}

impl ProgressDeadline {
    fn update(&mut self, owed: bool, done: u64, now: Instant) {
        if !owed {
            self.since = None;
        } else if done != self.done || self.since.is_none() {
            self.since = Some(now);
        }
        self.done = done;
    }

    fn age(&self, now: Instant) -> Duration {
        self.since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// A worker's health, from its messages and counters.
#[derive(Debug)]
pub(super) struct WorkerHealth {
    limit: Duration,
    last_message: Instant,
    last_check: Instant,
    counters: Counters,
    intake: ProgressDeadline,
    pipeline: ProgressDeadline,
}

impl WorkerHealth {
    /// The health of a worker that is started now. A hang is noticed within `limit` if
    /// [`check`](Self::check) is called every [`interval`](Self::interval).
    pub(super) fn new(limit: Duration, now: Instant) -> Self {
        Self {
            limit,
            last_message: now,
            last_check: now,
            counters: Counters::default(),
            intake: ProgressDeadline::default(),
            pipeline: ProgressDeadline::default(),
        }
    }

    /// The time between two checks, and between two heartbeats.
    pub(super) fn interval(limit: Duration) -> Duration {
        limit / HEARTBEATS
    }

    /// A message has come; any message is a sign of life.
    pub(super) fn record_message(&mut self, now: Instant) {
        self.last_message = now;
    }

    /// Takes the worker's totals in.
    pub(super) fn record_counters(&mut self, counters: Counters, now: Instant) {
        self.counters = counters;
        let settled = counters
            .processed
            .saturating_add(counters.skipped_newer)
            .saturating_add(counters.already_processed);
        self.pipeline.update(counters.decoded > settled, counters.processed, now);
    }

    /// Checks the worker, which was sent `sent` access units so far.
    pub(super) fn check(&mut self, sent: u64, now: Instant) -> Result<(), HealthFault> {
        let pause = now.saturating_duration_since(std::mem::replace(&mut self.last_check, now));
        if pause >= self.limit / 2 {
            // The host itself did not run: the worker's messages of that time have still to be
            // read.
            self.last_message = now;
            self.pipeline.since = None;
            self.intake.since = None;
        }
        // The intake of a file waits for the pipeline, so progress of the pipeline counts for it
        // too.
        let done = self.counters.received.saturating_add(self.counters.processed);
        self.intake.update(sent > self.counters.received, done, now);
        let limit = self.limit.saturating_sub(Self::interval(self.limit));
        let silent = now.saturating_duration_since(self.last_message);
        if silent >= limit {
            Err(HealthFault::Silent(silent))
        } else if self.pipeline.age(now) >= self.limit {
            Err(HealthFault::NoResults(self.pipeline.age(now)))
        } else if self.intake.age(now) >= self.limit {
            Err(HealthFault::NotDecoding(self.intake.age(now)))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn counters(received: u64, decoded: u64, processed: u64) -> Counters {
        Counters { received, decoded, processed, ..Counters::default() }
    }

    /// Looks at every interval for `seconds`, doing `each` before; how it went and when it ended.
    fn watch(
        seconds: u64,
        sent: impl Fn(u64) -> u64,
        mut each: impl FnMut(&mut WorkerHealth, u64, Instant),
    ) -> Result<(), (u64, HealthFault)> {
        let begin = Instant::now();
        let mut health = WorkerHealth::new(LIMIT, begin);
        for second in (0..seconds).step_by(2) {
            let now = begin + Duration::from_secs(second);
            each(&mut health, second, now);
            health.check(sent(second), now).map_err(|unwell| (second, unwell))?;
        }
        Ok(())
    }

    #[test]
    fn a_worker_that_has_nothing_to_do_is_well_as_long_as_it_says_so() {
        assert_eq!(watch(1000, |_| 0, |health, _, now| health.record_message(now)), Ok(()));
    }

    #[test]
    fn a_stopped_worker_is_noticed_within_the_limit() {
        let stopped = watch(
            1000,
            |_| 0,
            |health, second, now| {
                if second < 50 {
                    health.record_message(now);
                }
            },
        );
        let (second, unwell) = stopped.unwrap_err();
        assert!(matches!(unwell, HealthFault::Silent(_)), "{unwell}");
        assert!(second - 48 <= LIMIT.as_secs(), "{second}");
    }

    #[test]
    fn a_pipeline_that_hangs_is_noticed_while_the_decoder_goes_on() {
        let hung = watch(
            1000,
            |second| second,
            |health, second, now| {
                health.record_message(now);
                let processed = second.min(50);
                let skipped_newer = second.saturating_sub(52);
                health.record_counters(
                    Counters { skipped_newer, ..counters(second, second, processed) },
                    now,
                );
            },
        );
        let (second, unwell) = hung.unwrap_err();
        assert!(matches!(unwell, HealthFault::NoResults(_)), "{unwell}");
        assert!((60..=64).contains(&second), "{second}");
    }

    #[test]
    fn a_decoder_that_hangs_is_noticed() {
        let hung = watch(
            1000,
            |second| second,
            |health, second, now| {
                health.record_message(now);
                health
                    .record_counters(counters(second.min(50), second.min(50), second.min(50)), now);
            },
        );
        let (second, unwell) = hung.unwrap_err();
        assert!(matches!(unwell, HealthFault::NotDecoding(_)), "{unwell}");
        assert!((60..=64).contains(&second), "{second}");
    }

    #[test]
    fn a_pause_of_the_host_is_not_the_workers_fault() {
        let begin = Instant::now();
        let mut health = WorkerHealth::new(LIMIT, begin);
        health.record_counters(counters(2, 2, 1), begin);
        health.check(2, begin).unwrap();
        let resumed = begin + Duration::from_secs(1000);
        assert_eq!(health.check(2, resumed), Ok(()));
        let unwell =
            (1..=5).map(|look| health.check(2, resumed + look * WorkerHealth::interval(LIMIT)));
        assert!(unwell.last().unwrap().is_err(), "after that it counts again");
    }

    #[test]
    fn a_pause_of_the_source_is_no_debt() {
        let sent = |second: u64| if second < 500 { 10 } else { second };
        let seen = watch(1000, sent, |health, second, now| {
            health.record_message(now);
            let done = sent(second).saturating_sub(1).max(10);
            health.record_counters(counters(done, done, done), now);
        });
        assert_eq!(seen, Ok(()));
    }

    #[test]
    fn a_file_whose_every_frame_takes_long_is_well() {
        // The intake waits inside one unit as long as the pipeline does.
        let seen = watch(
            1000,
            |_| 1000,
            |health, second, now| {
                health.record_message(now);
                health.record_counters(counters(20, 20, second / 8), now);
            },
        );
        assert_eq!(seen, Ok(()));
    }
}
