//! The start of a worker, for a stream and for single images alike.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::gate::Gate;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::worker::{Decode, Pacing, Start, ToWorker, WorkerLimits, WorkerMode};
use serde_json::{Map, Value};

use super::cgroup::{ControlGroups, GroupLimits};
use super::handle::WorkerHandle;
use super::handshake::HandshakeState;
use super::health::WorkerHealth;
use super::limits::WorkerPolicy;
use super::monitor::WorkerMonitor;
use super::process::{Programs, WorkerProcess};
use crate::config::Config;
use crate::inference::{InferenceHandle, Share};
use crate::redis::{Redis, keyvalue};

/// Starts workers, with the config that is in force at that moment.
pub struct WorkerLauncher {
    program: PathBuf,
    policy: Arc<WorkerPolicy>,
    redis: Redis,
    groups: Option<ControlGroups>,
}

/// What a worker is started with.
pub(crate) struct WorkerLaunch<'a> {
    /// Its name in the process list, at the inference process, and in the log.
    pub(crate) name: &'a str,
    /// The component's id, for the log.
    pub(crate) deployment: &'a str,
    /// The compiled component, open for reading.
    pub(crate) component: &'a OwnedFd,
    /// The pipeline's settings, as its schema has them.
    pub(crate) settings: &'a Map<String, Value>,
    /// [`WorkerLauncher::limits`], or what the workload needs instead.
    pub(crate) limits: WorkerLimits,
    pub(crate) workload: Workload<'a>,
}

/// What a worker is for.
pub(crate) enum Workload<'a> {
    /// The frames of one source.
    Stream {
        /// The source is a camera: frames may be skipped, and inferences may become stale.
        live: bool,
        /// Among all sessions at the inference process.
        priority: Priority,
        /// Which frames are decoded.
        decode: Decode,
        /// Whether it processes no frame before it is activated.
        standby: bool,
        /// The prefix of the Redis keys that it may use; `None`: it may use none.
        redis_prefix: Option<&'a str>,
        /// The session's key-value store, encoded.
        store: &'a [u8],
    },
    /// Single images. `share` is that of all workers of the pipeline at the inference process.
    Images { share: Share },
}

impl WorkerLauncher {
    /// Starts nothing yet. `groups`: where workers get control groups of their own.
    pub fn new(
        programs: &Programs,
        inference: InferenceHandle,
        redis: Redis,
        groups: Option<ControlGroups>,
        config: &Config,
    ) -> Self {
        let policy = Arc::new(WorkerPolicy::new(config, inference));
        Self { program: programs.worker.clone(), policy, redis, groups }
    }

    /// Takes another config over: its limits for the next workers, its Redis at once.
    pub(crate) fn apply_config(&self, config: &Config) {
        self.policy.apply_config(config);
        self.redis.set_settings(config.redis.as_ref());
    }

    /// What a worker may use by the config in force.
    pub(crate) fn limits(&self) -> WorkerLimits {
        self.policy.settings().limits
    }

    /// Starts a worker and sends it what to run.
    pub(crate) async fn launch(&self, launch: WorkerLaunch<'_>) -> anyhow::Result<WorkerHandle> {
        let WorkerLaunch { name, deployment, component, settings, limits, workload } = launch;
        let config = self.policy.settings();
        let (terms, mode, decode, standby, redis_prefix, store) = match workload {
            Workload::Stream { live, priority, decode, standby, redis_prefix, store } => {
                let terms = config.service_terms(&limits, Share::Own, priority, live);
                let pacing = if live { Pacing::NewestWins } else { Pacing::EveryFrame };
                (terms, WorkerMode::Stream(pacing), decode, standby, redis_prefix, Some(store))
            }
            Workload::Images { share } => {
                let terms = config.service_terms(&limits, share, Priority::default(), false);
                (terms, WorkerMode::Analyze, Decode::default(), false, None, None)
            }
        };
        let attachment = self.policy.inference().attach(name, terms).await?;
        let redis = match redis_prefix {
            Some(prefix) => {
                let host_call = Duration::from_millis(u64::from(limits.host_call_ms));
                self.redis.grant(name, prefix, host_call)?
            }
            None => keyvalue::unserved_socket()?,
        };
        let gate = Gate::new(mode, standby);
        let (mut process, mut sender) =
            WorkerProcess::start(&self.program, name, gate, &attachment, component, redis)?;
        if let Some(groups) = &self.groups {
            let group = GroupLimits { memory: limits.memory, cpu_percent: config.cpu_percent };
            if let Err(error) = process.enter_group(groups.clone(), group).await {
                tracing::warn!(
                    target: "ocelli::session",
                    session = name,
                    "no control group: {error}"
                );
            }
        }
        let heartbeat = WorkerHealth::interval(config.health).as_millis();
        let start = Start {
            session: name.to_owned(),
            settings: serde_json::to_string(settings)?,
            mode,
            decode,
            limits,
            heartbeat_ms: u32::try_from(heartbeat).unwrap_or(u32::MAX),
            standby,
            redis_granted: redis_prefix.is_some(),
        };
        sender.send(&ToWorker::Start(start), &[]).await?;
        if let Some(store) = store {
            sender.send(&ToWorker::LoadStore, store).await?;
        }
        let monitor = WorkerMonitor::new(name, deployment, config.health, limits, mode);
        let handshake = HandshakeState::new(Arc::clone(&self.policy));
        Ok(WorkerHandle::new(process, sender, monitor, handshake, attachment))
    }
}
