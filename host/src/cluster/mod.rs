//! This host in its site: cameras come and go, their events are held by all, and each host answers
//! for all.
//!
//! ```text
//! etcd --owned--> ownership --config's cameras--> reload --> sessions
//! JetStream <--append-- chains <-- journal (outbox)            |
//! JetStream --follow--> journal (file) --> hub --> subscribers
//! NATS <--detections, states-- hub of the owner; --> hubs of the others
//! ```
//!
//! `ocelli_cluster` has who owns what and what outlasts a host; here it meets the journal, the hub and
//! the config. A host that belongs to no site has none of this.

mod chains;
mod entry;
mod follow;
mod made;
mod owned;
mod ownership;
mod snapshots;
mod state;
mod tokens;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_cluster::member::{CameraRecord, CoordError, HostRecord, MemberStatus, SiteView};
use ocelli_cluster::streams::{StreamError, StreamHealth, StreamLimits, Streams};
use ocelli_cluster::{Member, SiteError, SiteOptions, SiteTls};
use ocelli_protocol::digest::Digest;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use tokio_util::task::AbortOnDropHandle;

use crate::config::{ClusterConfig, Config, Token};
use crate::event::{Hub, SessionState};
use crate::journal::Journal;
pub use chains::Speaker;
use chains::{Chains, REFUSED, SiteLog};
use entry::SiteKey;
pub use entry::{EntryError, SiteKeyError};
use follow::EventFollower;
use owned::UnfitCameras;
pub use owned::{OwnedCameras, OwnedFeed};
use ownership::{CameraFaults, OwnedTask};
use snapshots::SiteSnapshots;
pub use snapshots::{PipelineSnapshot, SnapshotStore};
use state::StateMirror;
use tokens::SiteTokens;
pub use tokens::{SiteToken, SiteTokenError, SiteTokenList, tokens_in_force};

/// How long a camera is without a host before that is told: a planned move takes less.
const BETWEEN: Duration = Duration::from_secs(1);

/// What the documents of cameras' versions begin with.
const DEPLOYMENTS: &str = "dep/";

/// Between two attempts at what the site's servers do not do: an election takes seconds.
const AGAIN: Duration = Duration::from_millis(300);

/// Why the host cannot be a member of its site.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(transparent)]
    Site(#[from] SiteError),
    #[error(transparent)]
    Streams(#[from] StreamError),
    #[error("[cluster] secret_file: {0}")]
    Key(#[from] SiteKeyError),
    #[error(transparent)]
    Entry(#[from] EntryError),
    #[error(transparent)]
    Coordination(#[from] CoordError),
}

impl ClusterError {
    /// Whether the same may succeed later.
    pub fn passes(&self) -> bool {
        match self {
            Self::Streams(error) => error.passes(),
            Self::Coordination(CoordError::Unavailable(_) | CoordError::NotMember) => true,
            Self::Site(_) | Self::Key(_) | Self::Entry(_) | Self::Coordination(_) => false,
        }
    }
}

/// This host as a member of its site. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<ClusterInner>,
}

struct ClusterInner {
    host: String,
    member: Member,
    streams: Streams,
    key: Option<SiteKey>,
    faults: CameraFaults,
    unfit: UnfitCameras,
    chains: Arc<Chains>,
    snapshots: Arc<SiteSnapshots>,
    tokens: SiteTokens,
    hooks: watch::Sender<Option<Weak<dyn CameraHooks>>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// What the host does for cameras that come from other hosts.
pub trait CameraHooks: Send + Sync {
    /// Brings what the site has of a camera's pipeline here, before the camera is started.
    fn restore(&self, camera: Arc<str>) -> BoxFuture<'_, Result<(), ClusterError>>;

    /// Makes ready what the camera takes that has this table, while another host still has it.
    fn prepare(&self, camera: Arc<str>, table: Map<String, Value>) -> BoxFuture<'_, ()>;
}

/// The hooks, once there are some; they end with the host's deployer.
type HooksReceiver = watch::Receiver<Option<Weak<dyn CameraHooks>>>;

/// Which host has a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CameraOwner {
    /// This one.
    Here,
    /// Another one, whose API is at this address.
    At { host: String, address: String },
    /// None at this moment: it is between two, on its way here, or nobody can take it.
    Nobody,
    /// The site has no such camera.
    Unknown,
}

impl Cluster {
    /// Joins in the background, for ever: nothing of it waits for a server. What the journal and the
    /// hub are given belongs to the site from here on. Fails for what no waiting mends.
    pub async fn start(
        config: &Config,
        cluster: &ClusterConfig,
        journal: &Journal,
        hub: &Hub,
    ) -> Result<(Self, OwnedFeed), ClusterError> {
        let key = cluster.secret_file.as_deref().map(SiteKey::read).transpose()?;
        let options = options(cluster);
        let member = Member::start(options.clone(), record(config, cluster))?;
        let (tokens, token_follower) =
            SiteTokens::start(member.documents(), &cluster.site, &config.store.directory)?;
        let streams = Streams::connect(&options, limits(config, cluster)).await?;
        let (refused, refusals) = mpsc::channel(REFUSED);
        let chains = Arc::new(Chains::new(member.clone(), streams.clone(), refused));
        let mirror =
            Arc::new(StateMirror::new(streams.clone(), Arc::clone(&chains), journal.clone()));
        let snapshots = Arc::new(SiteSnapshots::new(streams.clone(), Arc::clone(&chains)));
        journal.events().set_log(Arc::new(SiteLog {
            chains: Arc::clone(&chains),
            mirror: Arc::clone(&mirror),
        }));
        journal.set_store_mirror(Arc::<StateMirror>::clone(&mirror));
        hub.set_relay(Arc::<Chains>::clone(&chains));
        let faults = CameraFaults::default();
        let (cameras, feed) = owned::channel();
        let unfit = cameras.unfit();
        let hooks = watch::Sender::new(None);
        let task = OwnedTask {
            hooks: hooks.subscribe(),
            member: member.clone(),
            streams: streams.clone(),
            journal: journal.clone(),
            chains: Arc::clone(&chains),
            mirror: Arc::clone(&mirror),
            snapshots: Arc::clone(&snapshots),
            key: key.clone(),
            cameras,
            faults: Arc::clone(&faults),
            refused: refusals,
        };
        let events = journal.events().clone();
        let follower =
            EventFollower::new(streams.clone(), events, Arc::clone(&chains), &cluster.host);
        let (telling, keeping) = (Arc::clone(&chains), Arc::clone(&snapshots));
        let tasks = vec![
            spawn(task.run()),
            spawn(async move {
                if let Err(error) = follower.run().await {
                    tracing::error!(target: "ocelli::cluster", "does not follow the site: {error:#}");
                }
            }),
            spawn(async move { telling.tell_states().await }),
            spawn(async move { mirror.run().await }),
            spawn(async move { keeping.run().await }),
            spawn(follow::states(streams.clone(), hub.clone(), cluster.host.clone())),
            spawn(follow::detections(streams.clone(), hub.clone(), Arc::clone(&chains))),
            spawn(token_follower.run()),
            spawn(tell(member.status(), streams.health())),
            spawn(tell_of_cameras(member.site(), hub.clone())),
        ];
        let host = cluster.host.clone();
        let inner = ClusterInner {
            host,
            member,
            streams,
            key,
            faults,
            unfit,
            chains,
            snapshots,
            tokens,
            hooks,
            _tasks: tasks,
        };
        Ok((Self { inner: Arc::new(inner) }, feed))
    }

    /// This host's name in its site.
    pub fn host(&self) -> &str {
        &self.inner.host
    }

    /// As which the site knows this host.
    pub fn member(&self) -> &Member {
        &self.inner.member
    }

    /// What the site holds.
    pub fn streams(&self) -> &Streams {
        &self.inner.streams
    }

    /// Where states of cameras' pipelines outlast this host.
    pub fn snapshots(&self) -> Arc<dyn SnapshotStore> {
        Arc::<SiteSnapshots>::clone(&self.inner.snapshots)
    }

    /// Has cameras wait for what this does for them. No camera is taken over before.
    pub fn set_hooks(&self, hooks: &Arc<dyn CameraHooks>) {
        self.inner.hooks.send_replace(Some(Arc::downgrade(hooks)));
    }

    /// Notes the version of a camera that proved itself. One of another host's camera is left to
    /// that host.
    pub async fn put_deployment(&self, camera: &str, text: &[u8]) -> Result<(), ClusterError> {
        let Some(epoch) = self.inner.chains.epoch(camera) else { return Ok(()) };
        let key = format!("{DEPLOYMENTS}{camera}");
        match self.inner.member.put_owned(camera, epoch, &key, text).await {
            Err(CoordError::NotOwner { .. }) => Ok(()),
            put => Ok(put?),
        }
    }

    /// The version of a camera that proved itself last, as its host has written it.
    pub async fn deployment(&self, camera: &str) -> Result<Option<Bytes>, ClusterError> {
        let key = format!("{DEPLOYMENTS}{camera}");
        let document = self.inner.member.documents().get(&key).await?;
        Ok(document.map(|document| document.value))
    }

    /// What the site keeps by this digest; `None` where it is not there, or not whole.
    pub async fn object(
        &self,
        digest: &Digest,
        most: usize,
    ) -> Result<Option<Bytes>, ClusterError> {
        let name = ocelli_cluster::streams::Digest(*digest.bytes());
        match self.inner.streams.get_object(name, most).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.passes() => Err(error.into()),
            Err(error) => {
                tracing::warn!(target: "ocelli::cluster", %digest, "{error}");
                Ok(None)
            }
        }
    }

    /// Which host has a camera.
    pub fn owner(&self, camera: &str) -> CameraOwner {
        if self.inner.chains.epoch(camera).is_some() {
            return CameraOwner::Here;
        }
        let site = Arc::clone(&self.inner.member.site().borrow());
        match site.owner(camera) {
            // It is taken over, or given up.
            Some(owner) if owner.host == self.inner.host => CameraOwner::Nobody,
            Some(owner) => match site.hosts.get(&owner.host) {
                Some(view) => CameraOwner::At {
                    host: owner.host.clone(),
                    address: view.record.address.clone(),
                },
                None => CameraOwner::Nobody,
            },
            None if site.cameras.contains_key(camera) => CameraOwner::Nobody,
            None => CameraOwner::Unknown,
        }
    }

    /// Who speaks for a camera at this moment.
    pub fn speaks_for(&self, camera: &str) -> Speaker {
        self.inner.chains.speaker(camera)
    }

    /// Why cameras of this host do not run, by name.
    pub fn faults(&self) -> BTreeMap<String, String> {
        let mut all = self.inner.unfit.now();
        all.extend(self.inner.faults.lock().clone());
        all
    }

    /// A camera's entry, as a config has it.
    pub fn camera(&self, id: &str) -> Option<Result<Map<String, Value>, EntryError>> {
        let site = Arc::clone(&self.inner.member.site().borrow());
        let record = site.cameras.get(id)?;
        Some(entry::table(id, &record.entry, self.inner.key.as_ref()))
    }

    /// Adds a camera to the site, or says anew what is wanted of it. The entry has been checked.
    pub async fn put_camera(
        &self,
        id: &str,
        table: Map<String, Value>,
        needs: CameraNeeds,
    ) -> Result<(), ClusterError> {
        let record = self.record(id, table, needs)?;
        Ok(self.inner.member.put_camera(id, &record).await?)
    }

    fn record(
        &self,
        id: &str,
        table: Map<String, Value>,
        needs: CameraNeeds,
    ) -> Result<CameraRecord, EntryError> {
        let entry = entry::stored(id, table, self.inner.key.as_ref())?;
        let CameraNeeds { labels, networks } = needs;
        let (labels, networks) = (labels.into_iter().collect(), networks.into_iter().collect());
        Ok(CameraRecord { entry, labels, networks, cost: 1, made: false })
    }

    /// The site's tokens as this host knows them: while etcd is away, as it knew them last.
    pub fn tokens(&self) -> watch::Receiver<SiteTokenList> {
        self.inner.tokens.known()
    }

    /// Makes a token for all hosts of the site.
    pub async fn make_token(&self, token: Token, by: String) -> Result<(), SiteTokenError> {
        self.inner.tokens.make(token, by).await
    }

    /// Revokes a token on all hosts of the site: false where the site has none of the name.
    pub async fn revoke_token(&self, name: &str) -> Result<bool, SiteTokenError> {
        self.inner.tokens.revoke(name).await
    }

    /// Figures for the metrics.
    pub fn figures(&self) -> SiteFigures {
        let inner = &self.inner;
        SiteFigures {
            member: matches!(*inner.member.status().borrow(), MemberStatus::Member { .. }),
            streams: matches!(*inner.streams.health().borrow(), StreamHealth::Ready),
            cameras: inner.chains.count(),
            faulty: self.faults().len(),
            live_dropped: inner.streams.live_dropped(),
            snapshot_failures: inner.snapshots.failures(),
        }
    }

    /// Leaves the site: hands its cameras over, as far as others take them.
    pub async fn leave(&self, within: Duration) {
        self.inner.member.leave(within).await;
    }
}

/// How this host stands in its site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SiteFigures {
    /// Whether it is a member.
    pub member: bool,
    /// Whether the site holds events.
    pub streams: bool,
    /// Cameras that it speaks for.
    pub cameras: usize,
    /// Those that it cannot run, or not yet.
    pub faulty: usize,
    /// Detections that were not told to other hosts since the start.
    pub live_dropped: u64,
    /// States of pipelines that could not be had, or were not taken by the site, since the start.
    pub snapshot_failures: u64,
}

/// What a camera asks of its host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CameraNeeds {
    pub labels: Vec<String>,
    pub networks: Vec<String>,
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

/// Where the site is, and who this host is there.
pub fn options(cluster: &ClusterConfig) -> SiteOptions {
    let ClusterConfig { site, host, etcd, nats, ca, certificate, key, .. } = cluster.clone();
    let tls =
        |((ca, certificate), key): ((PathBuf, PathBuf), PathBuf)| SiteTls { ca, certificate, key };
    SiteOptions { site, host, etcd, nats, tls: ca.zip(certificate).zip(key).map(tls) }
}

/// What this host says of itself.
fn record(config: &Config, cluster: &ClusterConfig) -> HostRecord {
    let sessions = config.session_processes.max_concurrent_sessions;
    let capacity = cluster.capacity.unwrap_or(u32::try_from(sessions).unwrap_or(u32::MAX));
    HostRecord {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        capacity,
        labels: cluster.labels.iter().cloned().collect(),
        networks: cluster.networks.iter().cloned().collect(),
        address: cluster.address.clone(),
        ..HostRecord::default()
    }
}

/// How much the site holds: what a host keeps.
fn limits(config: &Config, cluster: &ClusterConfig) -> StreamLimits {
    let streams = cluster.streams.max(1);
    StreamLimits {
        replicas: u8::try_from(cluster.replicas).unwrap_or(u8::MAX),
        streams,
        max_age: Duration::from_secs(config.events.keep_hours.saturating_mul(3600)),
        max_bytes: config.events.keep_mb.saturating_mul(1 << 20) / u64::from(streams),
        max_msgs_per_subject: 0,
        picture_age: Duration::from_secs(config.events.attachments_hours.saturating_mul(3600)),
        picture_bytes: config.events.attachments_mb.saturating_mul(1 << 20),
    }
}

/// Tells the log how the site's servers are, whenever that changes. Until it is dropped.
async fn tell(
    mut member: watch::Receiver<MemberStatus>,
    mut health: watch::Receiver<StreamHealth>,
) {
    let mut told = None;
    loop {
        let (status, streams) =
            (member.borrow_and_update().clone(), health.borrow_and_update().clone());
        let before = told.replace(status.clone());
        match status {
            status if before.as_ref() == Some(&status) => {}
            MemberStatus::Member { lease } => {
                tracing::info!(target: "ocelli::cluster", %lease, "is a member of its site");
            }
            MemberStatus::Joining(reason) | MemberStatus::Lapsed(reason) => tracing::warn!(
                target: "ocelli::cluster", "is no member of its site, and runs no camera: {reason}"
            ),
            MemberStatus::Refused(refusal) => tracing::error!(
                target: "ocelli::cluster", "takes no part in its site: {refusal}"
            ),
            MemberStatus::Left => tracing::info!(target: "ocelli::cluster", "has left its site"),
        }
        if let StreamHealth::Down(error) = streams {
            tracing::warn!(target: "ocelli::cluster", "events of the site wait: {error}");
        }
        tokio::select! {
            Ok(()) = member.changed() => {}
            Ok(()) = health.changed() => {}
            else => return,
        }
    }
}

/// Tells the hub of cameras that no host has, and has it forget those that the site no longer has.
/// Until it is dropped.
async fn tell_of_cameras(mut site: watch::Receiver<Arc<SiteView>>, hub: Hub) {
    let mut known = Arc::<BTreeMap<String, Arc<CameraRecord>>>::default();
    let mut ownerless = BTreeMap::<String, Option<Instant>>::new();
    loop {
        let view = Arc::clone(&site.borrow_and_update());
        for gone in known.keys().filter(|camera| !view.cameras.contains_key(*camera)) {
            hub.remove_session(gone);
        }
        known = Arc::clone(&view.cameras);
        ownerless.retain(|camera, _| known.contains_key(camera) && view.owner(camera).is_none());
        for camera in known.keys().filter(|camera| view.owner(camera).is_none()) {
            let since = ownerless.entry(camera.clone()).or_insert_with(|| Some(Instant::now()));
            if since.is_some_and(|since| since.elapsed() >= BETWEEN) {
                // Once.
                *since = None;
                let reason = Some("no host of the site has it at this moment");
                hub.receive_state(camera, SessionState::Degraded, reason);
            }
        }
        let waiting = ownerless.values().any(Option::is_some);
        tokio::select! {
            changed = site.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(BETWEEN), if waiting => {}
        }
    }
}
