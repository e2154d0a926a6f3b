//! The start of a worker, the same for a stream and for single pictures: its place at the inference
//! process, its process, its control group, and what it is told to do.

use std::os::fd::OwnedFd;
use std::time::Duration;

use ocelli_protocol::worker::{Decode, Start, ToWorker, WorkerMode};
use serde_json::{Map, Value};

use super::cgroup::GroupLimits;
use super::health::WorkerHealth;
use super::worker::{WorkerProcess, WorkerSender};
use super::{Environment, Limits};
use crate::inference::{InferenceAttachment, ServiceTerms};
use crate::redis::keyvalue;

/// What a worker is started with.
pub(crate) struct WorkerLaunch<'a> {
    /// The session's name: in the process list, at the inference process, and in the log.
    pub(crate) name: &'a str,
    /// The compiled component.
    pub(crate) component: &'a OwnedFd,
    pub(crate) settings: &'a Map<String, Value>,
    pub(crate) mode: WorkerMode,
    pub(crate) decode: Decode,
    /// What it gets of the inference process.
    pub(crate) terms: ServiceTerms,
    pub(crate) limits: Limits,
    /// Whether it stands by.
    pub(crate) standby: bool,
    /// What the keys of Redis begin with that it may use.
    pub(crate) redis_prefix: Option<&'a str>,
    /// What the session's store holds, encoded; none for single pictures.
    pub(crate) store: Option<Vec<u8>>,
}

impl Environment {
    /// Starts a worker and tells it what to run. Its place at the inference process has to live as
    /// long as it does.
    pub(crate) async fn launch(
        &self,
        launch: WorkerLaunch<'_>,
    ) -> anyhow::Result<(WorkerProcess, WorkerSender, InferenceAttachment)> {
        let WorkerLaunch {
            name,
            component,
            settings,
            mode,
            decode,
            terms,
            limits,
            standby,
            redis_prefix,
            store: kept,
        } = launch;
        let attachment = self.inference.attach(name, terms).await?;
        let granted = match redis_prefix {
            Some(prefix) => {
                let host_call = Duration::from_millis(u64::from(limits.worker.host_call_ms));
                self.redis.grant(name, prefix, host_call)?
            }
            None => keyvalue::unserved_socket()?,
        };
        let (mut worker, mut outbox) =
            WorkerProcess::start(&self.programs, name, &attachment, component, granted)?;
        if let Some(groups) = &self.groups {
            let group =
                GroupLimits { memory: limits.worker.memory, cpu_percent: limits.cpu_percent };
            if let Err(error) = worker.enter_group(groups.clone(), group).await {
                tracing::warn!(target: "ocelli::session", session = name, "no control group: \
                    {error}");
            }
        }
        let start = Start {
            session: name.to_owned(),
            settings: serde_json::to_string(settings)?,
            mode,
            decode,
            limits: limits.worker,
            heartbeat_ms: u32::try_from(WorkerHealth::interval(limits.health).as_millis())
                .unwrap_or(u32::MAX),
            standby,
            redis_granted: redis_prefix.is_some(),
        };
        outbox.send(&ToWorker::Start(start), &[]).await?;
        if let Some(kept) = kept {
            outbox.send(&ToWorker::LoadStore, &kept).await?;
        }
        Ok((worker, outbox, attachment))
    }
}
