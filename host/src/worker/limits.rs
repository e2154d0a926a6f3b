//! What the config allows workers.

use std::time::Duration;

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::inference::Priority;
use ocelli_protocol::worker::{Description, WorkerLimits};
use parking_lot::Mutex;

use super::fault::StartError;
use crate::config::{Config, Sandbox};
use crate::inference::{InferenceHandle, ServiceTerms, Share, catalog};

/// A config's settings for workers.
#[derive(Debug, Clone, Copy)]
pub(super) struct WorkerSettings {
    pub(super) limits: WorkerLimits,
    /// CPU time of a worker in percent of one core.
    pub(super) cpu_percent: u32,
    /// A worker that hangs is noticed within this time.
    pub(super) health: Duration,
    /// Milliseconds that an inference of a live source may wait; 0: as long as it may take.
    stale_ms: u32,
    /// Whether pipelines may bring models of their own.
    may_load: bool,
    /// Bytes of shared memory for a worker's tensors.
    pub(super) tensor_memory: usize,
    /// Whether a worker that is not fully confined may run.
    pub(super) sandbox: Sandbox,
}

impl WorkerSettings {
    pub(super) fn new(config: &Config) -> Self {
        let resources = &config.resource_limits;
        Self {
            limits: WorkerLimits {
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
            cpu_percent: resources.cpu_percent,
            health: Duration::from_secs(config.session_processes.health_check_interval),
            stale_ms: config.inference.stale_ms,
            may_load: config.inference.load,
            // The schema admits no more than `MAX_LENGTH` of the shared memory, 1 GiB.
            tensor_memory: usize::try_from(resources.tensor_memory_mb).unwrap_or(1) << 20,
            sandbox: config.session_processes.sandbox,
        }
    }

    /// What a worker with these limits gets of the inference process. `live`: its frames come from
    /// a camera. All frames of a file and all single images count, so none of them is ever stale.
    pub(super) fn service_terms(
        &self,
        limits: &WorkerLimits,
        share: Share,
        priority: Priority,
        live: bool,
    ) -> ServiceTerms {
        ServiceTerms {
            share,
            priority,
            timeout_ms: limits.inference_timeout_ms,
            stale_ms: (live && self.stale_ms > 0).then_some(self.stale_ms),
            may_load: self.may_load,
            budgeted: live,
            tensor_memory: self.tensor_memory,
        }
    }

    /// Fails if a worker with this sandbox may not run.
    pub(super) fn admit(&self, confinement: &Confinement) -> Result<(), StartError> {
        if confinement.is_complete() || self.sandbox != Sandbox::Required {
            return Ok(());
        }
        let missing = confinement.missing_text();
        Err(StartError::Sandbox(format!(
            "the worker is not confined as session_processes.sandbox = \"required\" wants: \
             {missing}"
        )))
    }
}

/// What is in force for workers now: the config's settings and the models that are offered.
pub(super) struct WorkerPolicy {
    settings: Mutex<WorkerSettings>,
    inference: InferenceHandle,
}

impl WorkerPolicy {
    pub(super) fn new(config: &Config, inference: InferenceHandle) -> Self {
        Self { settings: Mutex::new(WorkerSettings::new(config)), inference }
    }

    pub(super) fn apply_config(&self, config: &Config) {
        *self.settings.lock() = WorkerSettings::new(config);
    }

    pub(super) fn settings(&self) -> WorkerSettings {
        *self.settings.lock()
    }

    pub(super) fn inference(&self) -> &InferenceHandle {
        &self.inference
    }

    /// Fails if a model that the pipeline needs is not offered as it needs it.
    pub(super) fn check_models(&self, pipeline: &Description) -> Result<(), StartError> {
        let missing = catalog::missing_model(&self.inference.models(), pipeline);
        missing.map_or(Ok(()), |missing| Err(StartError::Model(missing)))
    }
}
