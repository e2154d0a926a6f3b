//! The site that the host belongs to, as the API needs it: which host has a session, and what there
//! is to see and to change of the site.

mod forward;
mod headers;
mod list;
mod overview;
mod relay;
pub(super) mod rollouts;
pub(super) mod tokens;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use ocelli_cluster::member::{CoordError, MemberStatus};
use ocelli_cluster::streams::StreamHealth;
use ocelli_protocol::digest::Digest;
use tokio::sync::watch;

use crate::api::control::Refusal;
use crate::cluster::{CameraOwner, Cluster, SiteTokenError, SiteTokenList};
use crate::config::Token;

pub(super) use forward::{RemoteAnswer, SessionPlace, SiteLink, is_forwarded, to_owner};
pub(super) use headers::OwnToken;
pub(super) use list::sessions;
pub use overview::{EngineState, EngineStatus, MemberState, SiteCamera, SiteHost, SiteStatus};
pub(super) use overview::{drain, move_camera, show};
pub(super) use relay::{RemoteNews, RemoteWatches};

/// Most bytes of an object of the site that a client gets: a picture of an event.
const MAX_OBJECT: usize = 16 << 20;

/// The site as the API needs it.
pub trait Site: Send + Sync + 'static {
    /// This host's name.
    fn host(&self) -> &str;

    /// Which host has a camera at this moment.
    fn owner(&self, camera: &str) -> CameraOwner;

    /// The address of the API of a host that lives.
    fn address(&self, host: &str) -> Option<String>;

    /// What is known of the site.
    fn status(&self) -> SiteStatus;

    /// The source of a camera, without its secrets, and its pipeline, by its entry in the site.
    fn streams_of(&self, camera: &str) -> (String, String);

    /// Why a camera of this host does not run.
    fn fault(&self, camera: &str) -> Option<String>;

    /// A PEM file of those who vouch for the APIs of the site's hosts. `None`: the system's.
    fn authorities(&self) -> Option<PathBuf>;

    /// What the site keeps by this digest.
    fn object(&self, digest: Digest) -> BoxFuture<'_, Option<Bytes>>;

    /// Wishes that a host be emptied, or no more.
    fn set_draining<'a>(
        &'a self,
        host: &'a str,
        draining: bool,
    ) -> BoxFuture<'a, Result<(), CoordError>>;

    /// Wishes a camera to a host, or to whichever. False where the site has no such camera.
    fn move_camera<'a>(
        &'a self,
        camera: &'a str,
        host: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, CoordError>>;

    /// The tokens of the site as this host knows them.
    fn tokens(&self) -> watch::Receiver<SiteTokenList>;

    /// Makes a token for all hosts of the site. It is in force here once this returns.
    fn make_token(&self, token: Token, by: String) -> BoxFuture<'_, Result<(), SiteTokenError>>;

    /// Revokes a token on all hosts of the site. False where the site has none of the name.
    fn revoke_token<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, SiteTokenError>>;
}

/// The site of a host whose config has the section `[cluster]`.
pub struct ClusterSite {
    cluster: Cluster,
    site: String,
    authorities: Option<PathBuf>,
}

impl ClusterSite {
    /// Whether the site has a session that a subscriber asks for by its source: it makes none.
    pub fn check_session(&self, id: &str) -> Result<(), Refusal> {
        if self.cluster.owner(id) != CameraOwner::Unknown {
            return Ok(());
        }
        let message = format!(
            "the site has no camera {id:?}, and subscribers make none in a site: add it to the site"
        );
        Err(Refusal { code: "not_in_site", message })
    }

    /// Of a host that is a member.
    pub fn new(cluster: Cluster, config: &crate::config::ClusterConfig) -> Self {
        Self { cluster, site: config.site.clone(), authorities: config.ca.clone() }
    }
}

impl Site for ClusterSite {
    fn host(&self) -> &str {
        self.cluster.host()
    }

    fn owner(&self, camera: &str) -> CameraOwner {
        self.cluster.owner(camera)
    }

    fn address(&self, host: &str) -> Option<String> {
        let site = Arc::clone(&self.cluster.member().site().borrow());
        site.hosts.get(host).map(|view| view.record.address.clone())
    }

    fn status(&self) -> SiteStatus {
        let member = self.cluster.member();
        let view = Arc::clone(&member.site().borrow());
        let (state, reason) = match &*member.status().borrow() {
            MemberStatus::Member { .. } => (MemberState::Member, None),
            MemberStatus::Joining(reason) => (MemberState::Joining, Some(reason.clone())),
            MemberStatus::Lapsed(reason) => (MemberState::Lapsed, Some(reason.clone())),
            MemberStatus::Refused(refusal) => (MemberState::Refused, Some(refusal.to_string())),
            MemberStatus::Left => (MemberState::Left, None),
        };
        let nats = match &*self.cluster.streams().health().borrow() {
            StreamHealth::Ready => EngineStatus::up(),
            StreamHealth::Down(error) => EngineStatus::down(error.to_string()),
        };
        let etcd = match (state, &reason) {
            (MemberState::Joining | MemberState::Lapsed, Some(reason)) => {
                EngineStatus::down(reason.clone())
            }
            _ => EngineStatus::up(),
        };
        SiteStatus {
            site: self.site.clone(),
            host: self.host().to_owned(),
            state,
            reason,
            planner: view.planner().map(str::to_owned),
            plan: view.plan.version,
            etcd,
            nats,
            hosts: overview::hosts(&view, self.host()),
            cameras: overview::cameras(&view, &self.cluster.faults()),
        }
    }

    fn streams_of(&self, camera: &str) -> (String, String) {
        let Some(Ok(table)) = self.cluster.camera(camera) else { return Default::default() };
        let table = crate::config::edit::without_secrets(table);
        let text = |key: &str| {
            table.get(key).and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
        };
        (text("source"), text("pipeline"))
    }

    fn fault(&self, camera: &str) -> Option<String> {
        self.cluster.faults().remove(camera)
    }

    fn authorities(&self) -> Option<PathBuf> {
        self.authorities.clone()
    }

    fn object(&self, digest: Digest) -> BoxFuture<'_, Option<Bytes>> {
        let digest = ocelli_cluster::streams::Digest(*digest.bytes());
        Box::pin(async move {
            let found = self.cluster.streams().get_picture(digest, MAX_OBJECT).await;
            found.inspect_err(|error| tracing::debug!(target: "ocelli::cluster", "{error}")).ok()
        })
    }

    fn set_draining<'a>(
        &'a self,
        host: &'a str,
        draining: bool,
    ) -> BoxFuture<'a, Result<(), CoordError>> {
        Box::pin(self.cluster.member().set_draining(host, draining))
    }

    fn move_camera<'a>(
        &'a self,
        camera: &'a str,
        host: Option<&'a str>,
    ) -> BoxFuture<'a, Result<bool, CoordError>> {
        Box::pin(self.cluster.member().move_camera(camera, host))
    }

    fn tokens(&self) -> watch::Receiver<SiteTokenList> {
        self.cluster.tokens()
    }

    fn make_token(&self, token: Token, by: String) -> BoxFuture<'_, Result<(), SiteTokenError>> {
        Box::pin(self.cluster.make_token(token, by))
    }

    fn revoke_token<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<bool, SiteTokenError>> {
        Box::pin(self.cluster.revoke_token(name))
    }
}
