//! What components say of themselves without a session that runs them. Each is asked once, in a
//! confined process that runs its `describe` and nothing else.

use std::collections::VecDeque;
use std::sync::Arc;

use ocelli_protocol::worker::Description;
use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::Semaphore;

use super::compile::PreparedComponent;
use crate::config::Config;
use crate::shape::DIGEST;
use crate::worker::{Programs, try_settings};

/// Processes that describe a component at the same time: each is busy for some milliseconds. Also
/// the requests that have one in memory.
const TURNS: usize = 4;

/// Descriptions that are kept: those of the pipelines of one host, of 512 KiB each at the most.
const REMEMBERED: usize = 32;

/// Asks components what they are, and keeps the answers.
pub(super) struct Describer {
    /// Requests whose component is in memory.
    pub(super) requests: Arc<Semaphore>,
    turns: Semaphore,
    /// By the component's digest, the oldest first.
    known: Mutex<VecDeque<(String, Arc<Description>)>>,
}

impl Default for Describer {
    fn default() -> Self {
        let requests = Arc::new(Semaphore::new(TURNS));
        Self { requests, turns: Semaphore::new(TURNS), known: Mutex::default() }
    }
}

impl Describer {
    /// What a compiled component says of itself where no settings are given.
    pub(super) async fn describe(
        &self,
        pipeline: &str,
        component: &PreparedComponent,
        config: &Config,
    ) -> anyhow::Result<Arc<Description>> {
        let digest = &component.digest;
        if let Some(known) = self.known(digest) {
            return Ok(known);
        }
        let _turn = self.turns.acquire().await?;
        // Another one may have asked it meanwhile.
        if let Some(known) = self.known(digest) {
            return Ok(known);
        }
        let worker = Programs::find()?.worker;
        let (compiled, none) = (&component.compiled, Map::new());
        let trial = try_settings(&worker, pipeline, compiled, &none, config).await?;
        let description = Arc::new(trial.description);
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.pop_front();
        }
        known.push_back((digest.clone(), Arc::clone(&description)));
        Ok(description)
    }

    fn known(&self, digest: &str) -> Option<Arc<Description>> {
        let known = self.known.lock();
        known.iter().find(|(of, _)| of == digest).map(|(_, description)| Arc::clone(description))
    }
}

/// A pipeline that has a name, as it describes itself.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "PipelineDescription")]
pub struct DescribedPipeline {
    /// The name by which sessions are given it.
    pub name: String,
    /// SHA-256 of its component, hexadecimal.
    #[schemars(regex(pattern = DIGEST))]
    pub digest: String,
    /// The name that it gives itself.
    pub pipeline: String,
    /// Its version.
    pub version: String,
    /// The models that it needs where no settings are given.
    pub models: Vec<String>,
    /// The JSON Schema of its settings.
    pub schema: Value,
}

impl DescribedPipeline {
    pub(super) fn new(name: String, digest: String, description: &Description) -> Self {
        let Description { name: pipeline, version, models, settings_schema } = description;
        Self {
            name,
            digest,
            pipeline: pipeline.clone(),
            version: version.clone(),
            models: models.iter().map(|need| need.name.clone()).collect(),
            // No schema admits anything, as the empty one does.
            schema: serde_json::from_str(settings_schema).unwrap_or_else(|_| Map::new().into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::worker::ModelNeed;

    #[test]
    fn a_description_is_shown_with_its_schema_as_json() {
        let describes = |schema: &str| Description {
            name: "eye".into(),
            version: "1.0.0".into(),
            models: vec![ModelNeed { name: "seer".into(), inputs: Vec::new() }],
            settings_schema: schema.into(),
        };
        let shown = |schema: &str| {
            DescribedPipeline::new("mine".into(), "ab".into(), &describes(schema)).schema
        };
        assert_eq!(shown(r#"{"type":"object"}"#)["type"], "object");
        assert_eq!(shown(""), Value::Object(Map::new()));
    }
}
