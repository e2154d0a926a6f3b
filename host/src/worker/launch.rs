//! The start of a worker, for a stream and for single images alike.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ocelli_protocol::decode_device::DecodeDevice;
use ocelli_protocol::gate::Gate;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::process::worker::{MAX_DEVICE_THREADS, MAX_THREADS};
use ocelli_protocol::worker::{Decode, Pacing, Start, ToWorker, WorkerLimits, WorkerMode};
use serde_json::{Map, Value};

use super::cgroup::{ControlGroups, CpuLimit, GroupLimits, REMEDY};
use super::handle::WorkerHandle;
use super::handshake::HandshakeState;
use super::health::WorkerHealth;
use super::limits::WorkerPolicy;
use super::monitor::WorkerMonitor;
use super::process::{Granted, OpenDirectory, Programs, WorkerProcess};
use super::usage::UsageLimit;
use crate::config::{Config, Directory, DirectoryError, Sandbox};
use crate::inference::{InferenceHandle, Share};
use crate::redis::{Redis, keyvalue};

/// Why a worker does not run under a required sandbox.
fn without_group(cause: &str) -> String {
    format!(
        "session_processes.sandbox = \"required\", but the worker's memory is not bounded by a \
            control group: {cause}; to have them, {REMEDY}"
    )
}

/// Starts workers, with the config that is in force at that moment.
pub struct WorkerLauncher {
    program: PathBuf,
    policy: Arc<WorkerPolicy>,
    redis: Redis,
    groups: Option<ControlGroups>,
    /// What no pipeline may be granted. The keys take effect at a start of the host.
    secrets: Vec<PathBuf>,
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
        /// What decodes them.
        decode_device: &'a DecodeDevice,
        /// Whether it processes no frame before it is activated.
        standby: bool,
        /// The prefix of the Redis keys that it may use; `None`: it may use none.
        redis_prefix: Option<&'a str>,
        /// The folders that it may use.
        directories: &'a [Directory],
        /// The session's key-value store, encoded.
        store: &'a [u8],
        /// Whether it sends each frame with its output drawn in.
        annotate: bool,
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
        let secrets = config.secrets();
        Self { program: programs.worker.clone(), policy, redis, groups, secrets }
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

    /// Opens the folders of a session. On a thread of its own: a network file system may take its
    /// time.
    async fn open(&self, directories: &[Directory]) -> anyhow::Result<Vec<OpenDirectory>> {
        if directories.is_empty() {
            return Ok(Vec::new());
        }
        let (directories, secrets) = (directories.to_vec(), self.secrets.clone());
        let opened = tokio::task::spawn_blocking(move || {
            let opened = directories.iter().map(|directory| {
                Ok(OpenDirectory {
                    folder: directory.open(&secrets)?,
                    granted: directory.granted(),
                })
            });
            opened.collect::<Result<Vec<_>, DirectoryError>>()
        });
        Ok(opened.await??)
    }

    /// Starts a worker and sends it what to run.
    pub(crate) async fn launch(&self, launch: WorkerLaunch<'_>) -> anyhow::Result<WorkerHandle> {
        let WorkerLaunch { name, deployment, component, settings, limits, workload } = launch;
        let config = self.policy.settings();
        let (terms, mode, decoding, standby, redis_prefix, directories, store) = match workload {
            Workload::Stream {
                live,
                priority,
                decode,
                decode_device,
                standby,
                redis_prefix,
                directories,
                store,
                annotate,
            } => {
                let terms = config.service_terms(&limits, Share::Own, priority, live);
                let pacing = if live { Pacing::NewestWins } else { Pacing::EveryFrame };
                let mode = WorkerMode::Stream(pacing);
                let store = Some((store, annotate));
                let decoding = (decode, decode_device);
                (terms, mode, decoding, standby, redis_prefix, directories, store)
            }
            Workload::Images { share } => {
                let terms = config.service_terms(&limits, share, Priority::default(), false);
                let decoding = (Decode::default(), &DecodeDevice::Cpu);
                (terms, WorkerMode::Analyze, decoding, false, None, [].as_slice(), None)
            }
        };
        let (decode, device) = decoding;
        let attachment = self.policy.inference().attach(name, terms).await?;
        let redis = match redis_prefix {
            Some(prefix) => {
                let host_call = Duration::from_millis(u64::from(limits.host_call_ms));
                self.redis.grant(name, prefix, host_call)?
            }
            None => keyvalue::unserved_socket()?,
        };
        let annotate = store.is_some_and(|(_, annotate)| annotate);
        let gate = Gate::new(mode, standby).with_annotations(annotate);
        let granted = Granted { device, directories: self.open(directories).await? };
        let (mut process, mut sender) = WorkerProcess::start(
            &self.program,
            name,
            gate,
            &attachment,
            component,
            redis,
            granted,
        )?;
        let group = GroupLimits {
            memory: limits.memory,
            cpu: CpuLimit::Percent(config.cpu_percent),
            threads: if device.is_cpu() { MAX_THREADS } else { MAX_DEVICE_THREADS },
        };
        self.enter_group(&mut process, name, group, config.sandbox).await?;
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
            annotate,
        };
        let models = self.policy.inference().descriptions();
        sender.send(&ToWorker::Start(start), &models).await?;
        if let Some((store, _)) = store {
            sender.send(&ToWorker::LoadStore, store).await?;
        }
        let monitor = WorkerMonitor::new(name, deployment, config.health, limits, mode);
        let handshake = HandshakeState::new(Arc::clone(&self.policy));
        let usage = UsageLimit::new(&limits, config.tensor_memory);
        Ok(WorkerHandle::new(process, sender, monitor, handshake, attachment, usage))
    }

    /// Puts a worker into a group of its own, where there are groups. Fails only where a required
    /// sandbox lacks the bound on memory.
    async fn enter_group(
        &self,
        process: &mut WorkerProcess,
        session: &str,
        limits: GroupLimits,
        sandbox: Sandbox,
    ) -> anyhow::Result<()> {
        let required = sandbox == Sandbox::Required;
        let Some(groups) = &self.groups else {
            anyhow::ensure!(!required, "{}", without_group("there are no control groups"));
            return Ok(());
        };
        anyhow::ensure!(!required || groups.bound_memory(), "{}", without_group("no controller"));
        match process.enter_group(groups.clone(), limits).await {
            Err(error) if required => anyhow::bail!(without_group(&error.to_string())),
            Err(error) => {
                tracing::warn!(target: "ocelli::session", session, "no control group: {error}");
            }
            Ok(()) => {}
        }
        Ok(())
    }
}
