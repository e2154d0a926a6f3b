//! What the host makes of a worker's messages whatever the worker is for: whether it is well,
//! whether it floods its host, how it has ended.

use std::time::{Duration, Instant};

use ocelli_protocol::limit::truncate_line;
use ocelli_protocol::wire::WireError;
use ocelli_protocol::worker::{Counters, FromWorker, LogLevel, WorkerLimits, WorkerStage};
use tokio::time::MissedTickBehavior;

use super::bounds;
use super::health::WorkerHealth;
use super::worker::ReceivedMessage;

/// Messages of a worker in a second, beyond which it floods its host: ten times what a camera of
/// 100 frames a second with all the log lines that a pipeline may write comes to.
const MAX_MESSAGE_RATE: u64 = 10_000;

/// Log lines that a worker may write for itself between two looks: it tells of damaged pictures
/// every ten seconds.
const OWN_LINES: f64 = 100.0;

/// Why a worker is of no more use.
#[derive(Debug)]
pub(crate) enum WorkerFault {
    /// It died, or said that it cannot go on.
    Exited(String),
    /// It hangs or breaks the protocol: it is to be killed.
    ProtocolViolation(String),
}

impl WorkerFault {
    /// The fault in words.
    pub(crate) fn into_reason(self) -> String {
        let (Self::Exited(reason) | Self::ProtocolViolation(reason)) = self;
        reason
    }
}

/// What a worker says that cannot go on.
pub(crate) fn failed(stage: WorkerStage, message: String) -> WorkerFault {
    WorkerFault::Exited(format!("{stage:?}: {}", bounds::truncate_cause(message)))
}

/// What a worker may not say now. Only the beginning is told: a message may be megabytes.
pub(crate) fn out_of_turn(message: &FromWorker) -> WorkerFault {
    const TOLD: usize = 200;
    WorkerFault::ProtocolViolation(format!("out of turn: {:.TOLD$}", format!("{message:?}")))
}

/// Writes a line of a worker or its pipeline to the host's log.
pub(crate) fn log(
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
            tracing::$level!(target: "ocelli::pipeline", session, deployment, frame, context, "{message}")
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

/// A worker's health, when it is looked at, and what the worker may use.
pub(crate) struct WorkerMonitor {
    pub(crate) limits: WorkerLimits,
    /// When to [look](Self::look).
    pub(crate) looks: tokio::time::Interval,
    health: WorkerHealth,
    /// Messages since the last look.
    messages: u64,
    /// Log lines among them.
    lines: u64,
}

impl WorkerMonitor {
    /// A worker that was started now. One that hangs is noticed within `limit`.
    pub(crate) fn new(limit: Duration, limits: WorkerLimits) -> Self {
        let mut looks = tokio::time::interval(WorkerHealth::interval(limit));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            limits,
            health: WorkerHealth::new(limit, Instant::now()),
            looks,
            messages: 0,
            lines: 0,
        }
    }

    /// The message with its payload, or how the worker's life has ended.
    pub(crate) fn message(
        &mut self,
        received: Option<ReceivedMessage>,
    ) -> Result<(FromWorker, Vec<u8>), WorkerFault> {
        match received {
            Some(Ok((message, payload))) => {
                self.messages += 1;
                self.lines += u64::from(matches!(message, FromWorker::Log { .. }));
                self.health.record_message(Instant::now());
                Ok((message, payload))
            }
            Some(Err(WireError::Closed)) | None => {
                Err(WorkerFault::Exited("the connection is closed".into()))
            }
            Some(Err(WireError::Io(error))) => Err(WorkerFault::Exited(error.to_string())),
            Some(Err(error)) => {
                Err(WorkerFault::ProtocolViolation(format!("it broke the protocol: {error}")))
            }
        }
    }

    /// Takes in the counts of a worker that serves a stream: it owes results.
    pub(crate) fn counted(&mut self, counters: Counters) {
        self.health.record_counters(counters, Instant::now());
    }

    /// Looks at the worker, which was sent `sent` access units so far.
    pub(crate) fn look(&mut self, sent: u64) -> Result<(), WorkerFault> {
        let (messages, lines) =
            (std::mem::take(&mut self.messages), std::mem::take(&mut self.lines));
        let seconds = self.looks.period().as_secs_f64();
        if messages as f64 > MAX_MESSAGE_RATE as f64 * seconds {
            return Err(WorkerFault::ProtocolViolation(format!(
                "it sent {messages} messages within {seconds:.1} s"
            )));
        }
        // The worker holds its pipeline to as many, and may have saved up a second's; it says
        // little for itself.
        let most = f64::from(self.limits.log_lines_per_second) * (seconds + 1.0) * 2.0 + OWN_LINES;
        if lines as f64 > most {
            return Err(WorkerFault::ProtocolViolation(format!(
                "it sent {lines} log lines within {seconds:.1} s"
            )));
        }
        self.health
            .check(sent, Instant::now())
            .map_err(|unwell| WorkerFault::ProtocolViolation(unwell.to_string()))
    }
}
