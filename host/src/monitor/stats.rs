//! What `GET /v1/sessions/{id}/stats` answers: what a session does now, and did lately.

use std::num::NonZero;
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;

use super::MonitorInner;
use super::process::ProcessUsage;
use crate::event::{rfc3339, unix_ns};
use crate::session::{Rates, RecentView, Restart, StageLatency};
use crate::shape::TIME;

/// A session's figures, to be drawn as they change. `GET /v1/sessions/{id}` has its counts since it
/// was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SessionStats {
    /// When they were taken: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub time: String,
    /// Frames in a second.
    pub rates: Rates,
    /// How long the last frames took, a stage after the other; `total` is of all stages.
    pub latency: Vec<StageLatency>,
    /// Seconds since the last result, or since the pipeline was ready to give one; null before.
    #[schemars(range(min = 0))]
    pub result_age_s: Option<f64>,
    /// The worker's memory.
    pub memory: WorkerMemory,
    /// Who listens to the session.
    pub subscribers: usize,
    /// The last 32 new starts, the newest first.
    pub restarts: Vec<Restart>,
}

/// Memory of a worker, in bytes.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WorkerMemory {
    /// Private memory that it asked for: what its limit counts. Null without a worker.
    pub private: Option<u64>,
    /// What it may have of that.
    pub limit: u64,
    /// Memory in use, shared memory included; null without a worker.
    pub resident: Option<u64>,
    /// Linear memories of the component.
    pub guest: u64,
    /// What they may have together.
    pub guest_limit: u64,
}

impl SessionStats {
    /// As they are now. Reads `/proc`: not for a thread that others wait for.
    pub(super) fn of(monitor: &MonitorInner, session: &str) -> Option<Self> {
        let session = monitor.sessions.get(session)?;
        let observation = session.observe();
        let RecentView { rates, latency, restarts } = session.recent();
        let usage = observation.status.pid.and_then(ProcessUsage::of_child);
        Some(Self {
            time: rfc3339(unix_ns(SystemTime::now())),
            rates,
            latency,
            result_age_s: observation.last_result.map(|at| at.elapsed().as_secs_f64()),
            memory: WorkerMemory {
                private: usage.map(|usage| usage.data),
                limit: observation.memory_limit,
                resident: usage.map(|usage| usage.resident),
                guest: observation.status.guest_memory,
                guest_limit: observation.guest_memory_limit,
            },
            subscribers: monitor.hub.subscriber_count(session.id()),
            restarts,
        })
    }
}

/// What of this machine's inference is in use.
#[derive(Debug, Clone, Copy)]
pub(super) struct InferenceLoad {
    /// Inferences that have run, and how long they took together, in seconds.
    inferred: u64,
    run_s: f64,
    /// Inferences in a second, of late.
    rate: f64,
    /// Inferences that run at the same time.
    threads: f64,
    sessions: f64,
}

/// The part of the machine that is given away: decoding needs the rest, and each camera has its
/// crowded hours.
const USABLE: f64 = 0.8;

impl InferenceLoad {
    pub(super) fn of(monitor: &MonitorInner) -> Self {
        let threads = monitor.config.borrow().inference.threads.map(|threads| threads as usize);
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut load = Self {
            inferred: 0,
            run_s: 0.0,
            rate: 0.0,
            threads: threads.unwrap_or_else(cores) as f64,
            sessions: 0.0,
        };
        for status in monitor.sessions.list() {
            load.inferred = load.inferred.saturating_add(status.frames.inferred);
            load.run_s += status.frames.inference_run_ns as f64 / 1e9;
            load.sessions += 1.0;
            let session = monitor.sessions.get(&status.id);
            load.rate += session.map_or(0.0, |session| session.recent().rates.inferred);
        }
        load
    }

    /// What is free, and not less than an equal share: the queue before the models is fair.
    pub(super) fn suggested_rate(self, rate: f64) -> Option<f64> {
        if self.inferred == 0 || self.run_s <= 0.0 {
            return None;
        }
        let all = USABLE * self.threads * self.inferred as f64 / self.run_s;
        let free = (all - self.rate).max(all / (self.sessions + 1.0));
        let suggested = free.min(rate);
        suggested.is_finite().then(|| (suggested * 10.0).floor() / 10.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_gets_what_is_free_and_never_less_than_an_equal_share() {
        let load =
            InferenceLoad { inferred: 100, run_s: 5.0, rate: 10.0, threads: 2.0, sessions: 1.0 };
        // 50 ms each on two threads: 40 in a second, 32 of them to be given away.
        assert_eq!(load.suggested_rate(25.0), Some(22.0));
        assert_eq!(load.suggested_rate(5.0), Some(5.0));
        let busy = InferenceLoad { rate: 32.0, sessions: 3.0, ..load };
        assert_eq!(busy.suggested_rate(25.0), Some(8.0));
        assert_eq!(InferenceLoad { inferred: 0, ..load }.suggested_rate(25.0), None);
        assert_eq!(load.suggested_rate(f64::INFINITY), Some(22.0));
    }
}
