//! Sessions: one pipeline on one source, in a worker process of its own.
//!
//! # Theory of operation
//!
//! [`Sessions`] is the registry. Each session has one task ([`task`]) that owns everything of it:
//! the place at the inference process, the subscription to the source, the worker, and the
//! session's life as one value ([`lifecycle::Lifecycle`]). The rest of the host holds it by its
//! [`SessionHandle`]: what it is made of, what it runs, its status, a bounded channel of requests,
//! and its end.
//!
//! While a worker serves, a second task, the pump, carries access units from the source to it. The
//! worker's socket is the back-pressure: when a worker does not keep up, the pump waits, the
//! subscription's bounded queue fills, and the source leaves out units for this session alone, up
//! to the next key frame. A file's reader waits instead.
//!
//! Results go to the event hub as they come. Each loss of the worker is followed by a new one after
//! a wait that grows; the source's reader is kept meanwhile. Losses in a row, none of them after
//! ten seconds of results, are a crash loop, which ends in `failed` and waits for a person.

mod changeover;
mod error;
mod feed;
mod handle;
mod kv_replica;
pub mod latency;
mod lifecycle;
mod registry;
pub mod rollout;
mod serve;
mod serving;
mod spec;
mod status;
mod stream_worker;
mod task;
mod totals;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::Config;
use crate::event::Hub;
use crate::journal::Journal;
use crate::source::Sources;
use crate::worker::WorkerLauncher;
pub use error::SessionError;
pub use handle::{RunningVersion, SessionHandle};
pub use registry::{Sessions, Sinks};
use rollout::RolloutTerms;
pub use spec::{CompiledPipeline, Spec};
pub use status::{Observation, SessionStatus};
pub use totals::{Frames, Skipped};

/// What every session needs.
struct Environment {
    workers: Arc<WorkerLauncher>,
    sources: Sources,
    hub: Hub,
    journal: Journal,
    limits: Mutex<SessionLimits>,
}

impl Environment {
    /// Those of the config in force.
    fn limits(&self) -> SessionLimits {
        *self.limits.lock()
    }
}

/// Bounds on sessions from the config.
#[derive(Debug, Clone, Copy)]
struct SessionLimits {
    /// How long a worker may take to end by itself.
    cleanup: Duration,
    /// Time limits of a change beside a running worker.
    rollout: RolloutTerms,
    /// Sessions at a time.
    sessions: usize,
}

impl SessionLimits {
    fn new(config: &Config) -> Self {
        Self {
            cleanup: Duration::from_secs(config.session_processes.process_cleanup_timeout),
            rollout: RolloutTerms {
                start: Duration::from_secs(config.deploy.start_timeout_s),
                first_frame: Duration::from_millis(config.deploy.first_frame_ms),
                swap: Duration::from_millis(config.deploy.swap_timeout_ms),
                probation: Duration::from_secs(config.deploy.probation_s),
            },
            sessions: config.session_processes.max_concurrent_sessions,
        }
    }
}
