//! What the host checks of every message of a worker, whatever the worker is for: that it is one,
//! that there are not too many, and that the worker is healthy.

use std::time::{Duration, Instant};

use ocelli_protocol::limit::truncate_line;
use ocelli_protocol::worker::{Counters, FromWorker, LogLevel, WorkerLimits, WorkerMode};
use tokio::time::{Interval, MissedTickBehavior};

use super::health::{HealthFault, WorkerHealth};
use super::validate;

/// Messages of a worker in a second, beyond which it floods the host: ten times what a camera of
/// 100 frames a second comes to with all the log lines that a pipeline may write.
const MAX_MESSAGE_RATE: u64 = 10_000;

/// Log lines that a worker may write itself between two checks: it reports damaged pictures every
/// ten seconds.
const OWN_LINES: f64 = 100.0;

/// The counts and the health of one worker, and what its log lines are labelled with.
pub(super) struct WorkerMonitor {
    /// The session in the log.
    name: String,
    deployment: String,
    limits: WorkerLimits,
    /// A stream's worker owes progress, and its log lines name frames of the source.
    is_stream: bool,
    checks: Interval,
    health: WorkerHealth,
    /// Messages since the last check.
    messages: u64,
    /// Log lines among them.
    lines: u64,
}

impl WorkerMonitor {
    /// Watches a worker that is started now. One that hangs is noticed within `health`.
    pub(super) fn new(
        name: &str,
        deployment: &str,
        health: Duration,
        limits: WorkerLimits,
        mode: WorkerMode,
    ) -> Self {
        let mut checks = tokio::time::interval(WorkerHealth::interval(health));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            name: name.to_owned(),
            deployment: deployment.to_owned(),
            limits,
            is_stream: matches!(mode, WorkerMode::Stream(_)),
            checks,
            health: WorkerHealth::new(health, Instant::now()),
            messages: 0,
            lines: 0,
        }
    }

    pub(super) fn limits(&self) -> &WorkerLimits {
        &self.limits
    }

    pub(super) fn deployment(&self) -> &str {
        &self.deployment
    }

    /// Takes a message in: it comes back with its texts cut to their bounds, or `None` for a log
    /// line, which goes to the host's log.
    pub(super) fn receive(&mut self, mut message: FromWorker) -> Option<FromWorker> {
        let now = Instant::now();
        self.messages += 1;
        self.health.record_message(now);
        if let FromWorker::Log { level, context, message, frame } = message {
            self.lines += 1;
            let frame = frame.filter(|_| self.is_stream);
            log_line(&self.name, &self.deployment, level, &context, &message, frame);
            return None;
        }
        if let Some(counters) = counters(&message).filter(|_| self.is_stream) {
            self.health.record_counters(counters, now);
        }
        validate::truncate_texts(&mut message);
        Some(message)
    }

    /// Returns when the next [check](Self::check_health) is due. May be dropped at any time.
    pub(super) async fn check_due(&mut self) {
        self.checks.tick().await;
    }

    /// Checks a worker that was sent `sent` access units so far.
    pub(super) fn check_health(&mut self, sent: u64) -> Result<(), HealthFault> {
        let (messages, lines) =
            (std::mem::take(&mut self.messages), std::mem::take(&mut self.lines));
        let period = self.checks.period();
        let seconds = period.as_secs_f64();
        if messages as f64 > MAX_MESSAGE_RATE as f64 * seconds {
            return Err(HealthFault::Messages(messages, period));
        }
        // The worker holds its pipeline to as many, and may have saved up a second's.
        let most = f64::from(self.limits.log_lines_per_second) * (seconds + 1.0) * 2.0 + OWN_LINES;
        if lines as f64 > most {
            return Err(HealthFault::LogLines(lines, period));
        }
        self.health.check(sent, Instant::now())
    }
}

/// A worker's totals, if the message has them.
fn counters(message: &FromWorker) -> Option<Counters> {
    match message {
        FromWorker::Result { counters, .. }
        | FromWorker::FrameFailed { counters, .. }
        | FromWorker::Snapshot { counters, .. }
        | FromWorker::Analyzed { counters, .. }
        | FromWorker::Finished { counters, .. }
        | FromWorker::Heartbeat { counters, .. }
        | FromWorker::Failed { counters, .. } => Some(*counters),
        _ => None,
    }
}

/// Writes a line of a worker or its pipeline to the host's log.
pub(crate) fn log_line(
    session: &str,
    deployment: &str,
    level: LogLevel,
    context: &str,
    message: &str,
    frame: Option<u64>,
) {
    let (context, message) = (truncate_line(context), truncate_line(message));
    macro_rules! line {
        ($level:ident) => {
            tracing::$level!(
                target: "ocelli::pipeline",
                session, deployment, frame, context,
                "{message}"
            )
        };
    }
    match level {
        LogLevel::Trace => line!(trace),
        LogLevel::Debug => line!(debug),
        LogLevel::Info => line!(info),
        LogLevel::Warn => line!(warn),
        LogLevel::Error => line!(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::tests::limits;
    use ocelli_protocol::worker::Pacing;

    fn monitor() -> WorkerMonitor {
        let mode = WorkerMode::Stream(Pacing::NewestWins);
        WorkerMonitor::new("s", "d", Duration::from_secs(10), limits(), mode)
    }

    fn line() -> FromWorker {
        let (context, message) = ("pipeline".to_owned(), "line".to_owned());
        FromWorker::Log { level: LogLevel::Trace, context, message, frame: None }
    }

    #[tokio::test]
    async fn log_lines_go_no_further_and_too_many_are_a_fault() {
        let mut monitor = monitor();
        assert!(monitor.receive(line()).is_none());
        assert!(monitor.receive(FromWorker::Ready).is_some());
        monitor.check_health(0).unwrap();
        for _ in 0..=OWN_LINES as u32 {
            monitor.receive(line());
        }
        assert!(matches!(monitor.check_health(0), Err(HealthFault::LogLines(101, _))));
    }
}
