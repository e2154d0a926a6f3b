//! What `GET /v1/sessions/{id}/stats` answers: what a session does now, and did lately.

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
