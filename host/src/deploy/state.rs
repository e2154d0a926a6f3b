//! What deployments know and leave behind: the history, the components on disk, and what each
//! session runs.

use std::sync::Arc;

use tokio::sync::watch;

use super::compile::ComponentSource;
use super::components::{ComponentLease, ComponentStore};
use super::desired::DriftNotes;
use super::history::History;
use super::pipelines::PipelineFolders;
use super::request::DeployError;
use super::session_index::SessionIndex;
use crate::config::Config;

/// The state that all deployments of a host share.
pub(super) struct DeployState {
    pub(super) history: History,
    pub(super) components: ComponentStore,
    pub(super) pipelines: PipelineFolders,
    pub(super) sessions: SessionIndex,
    pub(super) notes: DriftNotes,
    config: watch::Receiver<Arc<Config>>,
}

impl DeployState {
    pub(super) fn new(
        history: History,
        components: ComponentStore,
        pipelines: PipelineFolders,
        config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        let (sessions, notes) = Default::default();
        Self { history, components, pipelines, sessions, notes, config }
    }

    /// The config that is in force.
    pub(super) fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config.borrow())
    }

    /// Copies a component into the store. `None` if it exceeds `deploy.max_component_mb`.
    pub(super) async fn store(
        &self,
        source: &ComponentSource,
    ) -> Result<Option<ComponentLease>, DeployError> {
        let (components, source) = (self.components.clone(), source.clone());
        let most = u64::from(self.config().deploy.max_component_mb) << 20;
        let stored = tokio::task::spawn_blocking(move || components.insert(&source, most)).await;
        let stored = stored.map_err(|error| DeployError::Internal(error.to_string()))?;
        stored.map_err(|error| DeployError::storing("the component", &error))
    }
}
