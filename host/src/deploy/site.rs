//! Deployments of a site: what a camera's pipeline is goes with the camera to its next host.
//!
//! The owner of a camera writes each version that proved itself into the site, its component first.
//! A host that takes the camera over puts that into its own history before the camera is started, so
//! the camera starts there as it would have here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_protocol::digest::Digest;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::Deployer;
use super::compile::ComponentSource;
use super::history::CameraEntry;
use super::record::Record;
use crate::cluster::{CameraHooks, Cluster, ClusterError};

/// Records that wait for the site: a version that proves itself on each camera of a host at once.
const WAITING: usize = 1024;

/// Between two attempts at what the site's servers do not take.
const AGAIN: Duration = Duration::from_secs(1);

/// The last version of a camera that proved itself, as the site has it.
#[derive(Serialize, Deserialize)]
struct SiteDeployment {
    record: Record,
    /// The config's entry that the camera had with it.
    entry: Option<CameraEntry>,
}

/// Takes records of versions that proved themselves.
pub(super) type HealthyRecords = mpsc::Sender<(Record, Option<CameraEntry>)>;

/// What a host does for cameras that come and go.
struct SiteDeployer {
    deployer: Deployer,
    cluster: Cluster,
}

impl Deployer {
    /// Has deployments follow their cameras through the site.
    pub fn join(&self, cluster: &Cluster) {
        let (records, inbox) = mpsc::channel(WAITING);
        self.inner.executor.state.history.tell_healthy(records);
        let site = SiteDeployer { deployer: self.clone(), cluster: cluster.clone() };
        let site = Arc::new(site);
        let hooks: Arc<dyn CameraHooks> = site.clone();
        cluster.set_hooks(&hooks);
        tokio::spawn(async move {
            site.publish(inbox).await;
            // As long as the deployer lives.
            drop(hooks);
        });
    }
}

impl SiteDeployer {
    /// Writes each record into the site, until no deployer is left.
    async fn publish(&self, mut records: mpsc::Receiver<(Record, Option<CameraEntry>)>) {
        while let Some((record, entry)) = records.recv().await {
            let session = record.session.clone();
            loop {
                match self.write(&record, entry.as_ref()).await {
                    Ok(()) => break,
                    Err(error) if error.passes() => tracing::debug!(
                        target: "ocelli::deploy", session,
                        "the site does not have its version yet: {error}"
                    ),
                    Err(error) => {
                        tracing::warn!(
                            target: "ocelli::deploy", session,
                            "its version does not go with it to its next host: {error}"
                        );
                        break;
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    async fn write(
        &self,
        record: &Record,
        entry: Option<&CameraEntry>,
    ) -> Result<(), ClusterError> {
        let camera = &record.session;
        if let Some(component) = self.component(&record.digest).await {
            self.cluster.streams().put_object(component).await?;
        }
        let deployment = SiteDeployment { record: record.clone(), entry: entry.cloned() };
        // Keys are strings and numbers finite: nothing to refuse.
        let text = serde_json::to_vec(&deployment).unwrap_or_default();
        self.cluster.put_deployment(camera, &text).await
    }

    /// A component out of this host's store.
    async fn component(&self, digest: &str) -> Option<Bytes> {
        let lease = self.deployer.inner.executor.state.components.lease(digest)?;
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            std::io::Read::read_to_end(&mut lease.source().open()?, &mut bytes)?;
            std::io::Result::Ok(bytes)
        });
        read.await.ok()?.ok().map(Bytes::from)
    }

    async fn bring(&self, camera: &str) -> Result<(), ClusterError> {
        let Some(text) = self.cluster.deployment(camera).await? else { return Ok(()) };
        let Ok(SiteDeployment { mut record, entry }) = serde_json::from_slice(&text) else {
            tracing::warn!(
                target: "ocelli::deploy", session = camera,
                "its version in the site is none that this version reads"
            );
            return Ok(());
        };
        let state = &self.deployer.inner.executor.state;
        let own = state.history.list(camera, usize::MAX).await.unwrap_or_default();
        let is_known = |own: &Record| {
            own.healthy() && own.digest == record.digest && own.requested == record.requested
        };
        if own.iter().any(is_known) {
            return Ok(());
        }
        // Where it is not there any more the camera starts with what its entry says.
        let mut lease = state.components.lease(&record.digest);
        if lease.is_none()
            && let Ok(digest) = record.digest.parse::<Digest>()
        {
            let most = self.deployer.config().deploy.max_component_mb as usize;
            let Some(bytes) = self.cluster.object(&digest, most << 20).await? else {
                return Ok(());
            };
            lease = state.store(&ComponentSource::Bytes(bytes)).await.ok().flatten();
        }
        camera.clone_into(&mut record.session);
        // It is a number of the other host's history.
        record.back_to = None;
        match state.history.begin(&mut record, true).await {
            Ok(()) => state.history.adopt(&record, entry.as_ref()).await,
            Err(error) => tracing::warn!(
                target: "ocelli::deploy", session = camera,
                "its version in the site is not in this host's history: {error:#}"
            ),
        }
        // From here on the history keeps the component.
        drop(lease);
        Ok(())
    }
}

impl CameraHooks for SiteDeployer {
    fn restore(&self, camera: Arc<str>) -> BoxFuture<'_, Result<(), ClusterError>> {
        Box::pin(async move { self.bring(&camera).await })
    }

    fn prepare(&self, camera: Arc<str>, table: Map<String, Value>) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            if let Err(error) = self.bring(&camera).await {
                tracing::debug!(target: "ocelli::deploy", session = &*camera, "{error}");
            }
            let pipeline = table.get("pipeline").and_then(Value::as_str).unwrap_or_default();
            // Compiled now, or found compiled; what is wrong with it is told when it starts.
            let _ = self.deployer.component(pipeline).await;
        })
    }
}
