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

pub(crate) mod bounds;
mod cgroup;
mod changeover;
mod error;
mod feed;
mod handle;
mod health;
mod kv_replica;
pub mod latency;
mod launch;
mod lifecycle;
mod member;
mod registry;
pub mod rollout;
mod sandbox;
mod serve;
mod serving;
mod spec;
mod status;
mod task;
mod totals;
pub(crate) mod watched;
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::worker::WorkerLimits;
use parking_lot::Mutex;

use crate::config::{Config, Sandbox};
use crate::event::Hub;
use crate::inference::{InferenceHandle, ServiceTerms, Share};
use crate::journal::Journal;
use crate::redis::Redis;
use crate::source::Sources;
pub use error::SessionError;
pub use handle::{RunningVersion, SessionHandle};
pub(crate) use launch::WorkerLaunch;
pub use registry::{Sessions, Sinks};
use rollout::RolloutTerms;
pub use sandbox::check_sandbox;
pub use spec::{CompiledPipeline, Spec};
pub use status::{Observation, SessionStatus};
pub use totals::{Frames, Skipped};
use watched::WorkerMonitor;
pub(crate) use worker::{WorkerProcess, WorkerSender};

pub use cgroup::{ControlGroups, ControlGroupsUnavailable, REMEDY as CONTROL_GROUPS_REMEDY};

/// How long loading a component, its `init` and opening its models may take. A model of hundreds of
/// megabytes that is not preloaded takes tens of seconds.
pub(crate) const READY_TIMEOUT: Duration = Duration::from_secs(90);

/// The programs of the child processes: beside the host's own.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `ocelli-worker`.
    pub worker: PathBuf,
    /// `ocelli-inference`.
    pub inference: PathBuf,
    /// `ocelli-compile`.
    pub compile: PathBuf,
}

impl Programs {
    /// Looks for the programs in the folder of the running one.
    pub fn find() -> anyhow::Result<Self> {
        let own = std::env::current_exe().context("asking for this program's path")?;
        let find = |name: &str| {
            let path = own.with_file_name(name);
            anyhow::ensure!(path.is_file(), "{} is missing: `./x build` makes it", path.display());
            Ok(path)
        };
        Ok(Self {
            worker: find("ocelli-worker")?,
            inference: find("ocelli-inference")?,
            compile: find("ocelli-compile")?,
        })
    }
}

/// What every session needs.
pub(crate) struct Environment {
    pub(crate) programs: Programs,
    pub(crate) sources: Sources,
    pub(crate) inference: InferenceHandle,
    pub(crate) hub: Hub,
    pub(crate) journal: Journal,
    pub(crate) redis: Redis,
    pub(crate) groups: Option<ControlGroups>,
    /// Those of the config in force.
    limits: Mutex<Limits>,
}

impl Environment {
    pub(crate) fn limits(&self) -> Limits {
        *self.limits.lock()
    }
}

/// Bounds from the config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    worker: WorkerLimits,
    /// Milliseconds that an inference of a live source may wait; 0: as long as it may take.
    stale_ms: u32,
    /// Whether pipelines may bring models of their own.
    may_load: bool,
    /// Bytes of shared memory for a session's tensors.
    tensor_memory: usize,
    /// CPU time of a worker in percent of one core.
    cpu_percent: u32,
    /// Within which a worker that hangs is noticed.
    health: Duration,
    /// Whether a worker that is not confined as it should be may run.
    sandbox: Sandbox,
    cleanup: Duration,
    /// Those of a change beside a running worker.
    rollout: RolloutTerms,
    sessions: usize,
}

impl Limits {
    fn new(config: &Config) -> Self {
        let resources = &config.resource_limits;
        Self {
            worker: WorkerLimits {
                memory: resources.memory_per_process_mb << 20,
                open_files: resources.open_files,
                guest_memory: resources.guest_memory_mb << 20,
                call_cpu_ms: resources.call_cpu_ms,
                call_timeout_ms: resources.call_timeout_ms,
                host_call_ms: resources.host_call_ms,
                inference_timeout_ms: config.inference.timeout_ms,
                events_per_frame: resources.events_per_frame,
                event_bytes: resources.event_kb << 10,
                attachments_per_frame: resources.attachments_per_frame,
                log_lines_per_second: resources.log_lines_per_second,
                image_pixels: config.analyze.max_megapixels.saturating_mul(1_000_000),
                store_bytes: resources.keyvalue_kb << 10,
                store_keys: resources.keyvalue_keys,
            },
            stale_ms: config.inference.stale_ms,
            may_load: config.inference.load,
            // The schema admits no more than `MAX_LENGTH` of the shared memory, 1 GiB.
            tensor_memory: usize::try_from(resources.tensor_memory_mb).unwrap_or(1) << 20,
            cpu_percent: resources.cpu_percent,
            health: Duration::from_secs(config.session_processes.health_check_interval),
            sandbox: config.session_processes.sandbox,
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

    /// As these, for a worker of single pictures: a picture may take `timeout_ms`, and so may all
    /// that is done for it.
    #[must_use]
    pub(crate) fn for_pictures(self, timeout_ms: u32) -> Self {
        let worker = WorkerLimits {
            call_timeout_ms: timeout_ms,
            inference_timeout_ms: timeout_ms,
            ..self.worker
        };
        Self { worker, ..self }
    }

    /// What a worker's single pictures get of the inference process. `share` is that of all workers
    /// of its pipeline.
    pub(crate) fn service_for_pictures(&self, share: Share) -> ServiceTerms {
        ServiceTerms {
            share,
            priority: Priority::default(),
            timeout_ms: self.worker.inference_timeout_ms,
            stale_ms: None,
            may_load: self.may_load,
            tensor_memory: self.tensor_memory,
        }
    }

    /// Looks after a worker that is started with these.
    pub(crate) fn watch(&self) -> WorkerMonitor {
        WorkerMonitor::new(self.health, self.worker)
    }

    /// Whether a worker that is confined like this may run; if not, why.
    pub(crate) fn admit(&self, confinement: &Confinement) -> Result<(), String> {
        if confinement.is_complete() || self.sandbox != Sandbox::Required {
            return Ok(());
        }
        let lacks = confinement.missing_text();
        Err(format!(
            "the worker is not confined as session_processes.sandbox = \"required\" wants: {lacks}"
        ))
    }

    /// What a session gets of the inference process. A file's frames all count, so none of them is
    /// stale.
    fn service(&self, priority: Priority, live: bool) -> ServiceTerms {
        ServiceTerms {
            share: Share::Own,
            priority,
            timeout_ms: self.worker.inference_timeout_ms,
            stale_ms: (live && self.stale_ms > 0).then_some(self.stale_ms),
            may_load: self.may_load,
            tensor_memory: self.tensor_memory,
        }
    }
}
