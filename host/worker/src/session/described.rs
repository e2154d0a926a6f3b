//! A pipeline that has described itself and is not initialised yet.

use ocelli_protocol::limit::MAX_DESCRIPTION;
use ocelli_protocol::wire;
use ocelli_protocol::worker::{FromWorker, WorkerStage};
use serde_json::{Map, Value};

use super::failure::WorkerFailure;
use crate::guest::instance::{Instance, InstanceFactory};
use crate::host_link::HostLink;

/// The pipeline, with its first instance.
pub(super) struct DescribedPipeline {
    pub(super) factory: InstanceFactory,
    pub(super) instance: Instance,
    /// JSON Schema of its settings.
    pub(super) schema: String,
    /// The settings of `Start` by their keys.
    pub(super) fields: Map<String, Value>,
}

impl DescribedPipeline {
    /// Instantiates the pipeline and sends its description to the host.
    pub(super) fn new(
        factory: InstanceFactory,
        fields: Map<String, Value>,
        host: &HostLink,
    ) -> Result<Self, WorkerFailure> {
        let instance = factory.instance(fields.clone());
        let mut instance = instance.map_err(WorkerFailure::of_call(WorkerStage::Instantiate))?;
        let description =
            instance.describe().map_err(WorkerFailure::of_call(WorkerStage::Describe))?;
        let schema = description.settings_schema.clone();
        let described = FromWorker::Described(description);
        let size = wire::to_bytes(&described).map_or(usize::MAX, |bytes| bytes.len());
        if size > MAX_DESCRIPTION {
            let text = format!("a description of {size} bytes: at most {MAX_DESCRIPTION} are read");
            return Err(WorkerFailure::new(WorkerStage::Describe, text));
        }
        host.send(&described);
        Ok(Self { factory, instance, schema, fields })
    }

    /// Fails if the settings do not fit the pipeline's schema.
    pub(super) fn check_settings(&self) -> Result<(), WorkerFailure> {
        ocelli_settings::check(&self.schema, &self.fields)
            .map_err(|fault| WorkerFailure::new(WorkerStage::Settings, fault.to_string()))
    }
}
