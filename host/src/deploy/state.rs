//! What deployments know and leave behind: the history, the components on disk, and what each
//! session runs.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use super::compile::ComponentSource;
use super::components::{ComponentLease, ComponentStore};
use super::desired::DriftNotes;
use super::history::History;
use super::pipelines::PipelineFolders;
use super::request::DeployError;
use super::session_index::SessionIndex;
use crate::config::{Config, OciReference};
use crate::registry::{Registry, RegistryAccess};
use crate::util::backoff::{Backoff, BackoffPolicy};

/// Components that are fetched from registries at the same time. Each is in memory meanwhile, and
/// may have `deploy.max_component_mb`, 128 MiB at the most.
const MAX_PULLS: usize = 4;

/// Attempts at a component of a registry whose fault may pass. One that is away for longer is asked
/// again for cameras that lack a component ([`super::Deployer::fetch_missing`]).
const PULL_ATTEMPTS: usize = 3;

/// The waits between these attempts.
const PULL_WAITS: BackoffPolicy = BackoffPolicy {
    free: 0,
    first: Duration::from_millis(500),
    longest: Duration::from_secs(2),
    jitter: 0.5,
};

/// The state that all deployments of a host share.
pub(super) struct DeployState {
    pub(super) history: History,
    pub(super) components: ComponentStore,
    pub(super) pipelines: PipelineFolders,
    pub(super) sessions: SessionIndex,
    pub(super) notes: DriftNotes,
    pulls: Semaphore,
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
        let pulls = Semaphore::new(MAX_PULLS);
        Self { history, components, pipelines, sessions, notes, pulls, config }
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

    /// The component that a reference means now, in the store. It is fetched if it is not there. A
    /// fault of the registry that may pass costs another attempt, some seconds altogether.
    pub(super) async fn pull(
        &self,
        reference: &OciReference,
    ) -> Result<ComponentLease, DeployError> {
        let mut waits = Backoff::new(PULL_WAITS);
        for _ in 1..PULL_ATTEMPTS {
            match self.pull_once(reference).await {
                Err(DeployError::Registry(error)) if error.is_passing() => {
                    let wait = waits.fail(rand::random());
                    tracing::warn!(
                        target: "ocelli::deploy",
                        "{reference}: {error}; the next attempt is in {:.1} s", wait.as_secs_f64()
                    );
                    tokio::time::sleep(wait).await;
                }
                done => return done,
            }
        }
        self.pull_once(reference).await
    }

    async fn pull_once(&self, reference: &OciReference) -> Result<ComponentLease, DeployError> {
        let config = self.config();
        let access = config.registry(&reference.registry).map(RegistryAccess::from);
        let mut registry = Registry::new(reference, access.unwrap_or_default())?;
        let stopped = |_| DeployError::Stopping;
        let _turn = self.pulls.acquire().await.map_err(stopped)?;
        let found = registry.find().await?;
        if let Some(lease) = self.components.lease(&found.digest.to_string()) {
            return Ok(lease);
        }
        let most = u64::from(config.deploy.max_component_mb) << 20;
        let bytes = registry.fetch(found, most).await?;
        tracing::info!(
            target: "ocelli::deploy",
            "fetched {reference}: {} bytes, sha256:{}",
            bytes.len(),
            found.digest
        );
        let stored = self.store(&ComponentSource::Bytes(bytes)).await?;
        stored.ok_or_else(|| DeployError::Internal("the component was not stored".to_owned()))
    }
}
