//! What hosts tell each other through etcd.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::plan::{Needs, Place, Plan};
use crate::site::{Epoch, SiteOptions};

/// What a host says of itself, as long as its lease lives.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HostRecord {
    /// The version of its program.
    pub version: String,
    /// The sum of the costs of the cameras that it can have.
    pub capacity: u32,
    /// What cameras ask for: `gpu`, `hall-2`.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// The networks in which it reaches cameras.
    #[serde(default)]
    pub networks: BTreeSet<String>,
    /// Where other hosts and people reach it.
    #[serde(default)]
    pub address: String,
    /// It is about to leave.
    #[serde(default)]
    pub draining: bool,
}

/// A camera of the site.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CameraRecord {
    /// What is wanted of it, which means nothing here.
    pub entry: serde_json::Value,
    /// What its host must have.
    #[serde(default)]
    pub labels: BTreeSet<String>,
    /// The networks that its host must reach.
    #[serde(default)]
    pub networks: BTreeSet<String>,
    /// What it takes of a host's capacity.
    #[serde(default = "one")]
    pub cost: u32,
}

fn one() -> u32 {
    1
}

impl CameraRecord {
    pub(crate) fn needs(&self) -> Needs {
        Needs { labels: self.labels.clone(), networks: self.networks.clone(), cost: self.cost }
    }
}

/// A camera that this host may speak for.
#[derive(Debug, Clone, PartialEq)]
pub struct Ownership {
    pub epoch: Epoch,
    pub record: Arc<CameraRecord>,
}

/// etcd's name of a lease, written as etcd's own tools do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

impl fmt::Display for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:x}", self.0)
    }
}

impl fmt::Debug for LeaseId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Serialize for LeaseId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for LeaseId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        i64::from_str_radix(&text, 16).map(Self).map_err(serde::de::Error::custom)
    }
}

/// Who has a camera.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub host: String,
    /// The lease that it was claimed with: where the host has another or none, the camera is free.
    pub lease: LeaseId,
    /// False after the host has given it up.
    pub held: bool,
    pub epoch: Epoch,
}

/// A host that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostView {
    pub record: HostRecord,
    pub lease: LeaseId,
    /// etcd's revision at which it joined: the live host with the least one plans.
    pub joined: u64,
    /// It is about to leave, or somebody asked that it be emptied.
    pub draining: bool,
}

impl HostView {
    pub(crate) fn place(&self) -> Place {
        Place {
            capacity: self.record.capacity,
            labels: self.record.labels.clone(),
            networks: self.record.networks.clone(),
            draining: self.draining,
        }
    }
}

/// A copy of what etcd says of the site, a little late.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SiteView {
    /// etcd's revision up to which it is known; 0 before anything is.
    pub revision: u64,
    pub hosts: Arc<BTreeMap<String, HostView>>,
    pub cameras: Arc<BTreeMap<String, Arc<CameraRecord>>>,
    /// Of each camera that was ever owned, the last owner; whether it still is one says
    /// [`SiteView::owner`].
    pub owners: Arc<BTreeMap<String, Owner>>,
    pub plan: Arc<Plan>,
    /// The hosts that cameras are wished to.
    pub pins: Arc<BTreeMap<String, String>>,
}

impl SiteView {
    /// Who has `camera`: a host that lives, and has not given it up.
    pub fn owner(&self, camera: &str) -> Option<&Owner> {
        self.owners.get(camera).filter(|owner| self.lives(owner))
    }

    pub(crate) fn lives(&self, owner: &Owner) -> bool {
        owner.held && self.hosts.get(&owner.host).is_some_and(|host| host.lease == owner.lease)
    }

    /// The host that plans: of those that live, the one that joined first.
    pub fn planner(&self) -> Option<&str> {
        let first = self.hosts.iter().min_by_key(|(_, host)| host.joined)?;
        Some(first.0.as_str())
    }
}

/// What a [`Member`](super::Member) is in its site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberStatus {
    /// On its way in, without cameras; with what keeps it out.
    Joining(String),
    /// It has a lease.
    Member { lease: LeaseId },
    /// It had one, which may be over; with the reason. It has no cameras, and joins again.
    Lapsed(String),
    /// The site is not as this host could take part in it. It claims nothing, keeps what it may have,
    /// and looks again.
    Refused(SiteRefusal),
    /// It has left.
    Left,
}

/// Why a host cannot take part.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SiteRefusal {
    /// Another process is this host.
    #[error(
        "the site has a host {host:?} already (version {version}, address {address:?}, lease {lease})"
    )]
    SameHost { host: String, version: String, address: String, lease: LeaseId },
    /// The plan is of a later format.
    #[error("the site's plan has format {found}, of which this version ({known}) knows nothing")]
    PlanFormat { found: u32, known: u32 },
    /// A host is of a version with a later format.
    #[error("host {host:?} has format {found}, of which this version ({known}) knows nothing")]
    HostFormat { host: String, found: u32, known: u32 },
    /// etcd does not let this host into its site.
    #[error("etcd gives {user} no right to read and write {prefix}: {said}")]
    NoRight { user: String, prefix: String, said: String },
    /// A key that coordination depends on cannot be read.
    #[error("{key:?} cannot be read: {reason}")]
    Unreadable { key: String, reason: String },
}

impl SiteRefusal {
    /// Of a host that etcd refuses with these words.
    pub(super) fn no_right(options: &SiteOptions, said: String) -> Self {
        let user = match &options.tls {
            Some(tls) => {
                format!("the user of {}, its common name,", tls.certificate.display())
            }
            None => "a host without a certificate".to_owned(),
        };
        Self::NoRight { user, prefix: options.prefix(), said }
    }

    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SameHost { .. } => "same_host",
            Self::PlanFormat { .. } => "plan_format",
            Self::HostFormat { .. } => "host_format",
            Self::NoRight { .. } => "no_right",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

/// Why something could not be asked of the site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CoordError {
    /// etcd did not answer, or cannot write. Whether a change was made is not known.
    #[error("etcd: {0}")]
    Unavailable(String),
    /// etcd does not let this host.
    #[error("etcd refuses: {0}")]
    Denied(String),
    /// It is not, or no more, as the request has it.
    #[error("{key:?} has changed")]
    Changed { key: String },
    /// The camera is not this host's with that epoch.
    #[error("camera {camera:?} is not this host's with epoch {epoch}")]
    NotOwner { camera: String, epoch: Epoch },
    /// This host has no lease, or has left.
    #[error("this host is no member of the site")]
    NotMember,
    /// A key or an id that cannot be one.
    #[error("{0:?} cannot be used: {1}")]
    Key(String, &'static str),
    /// More than etcd takes.
    #[error("{0:?} is too large for etcd")]
    TooLarge(String),
}

impl CoordError {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Denied(_) => "denied",
            Self::Changed { .. } => "changed",
            Self::NotOwner { .. } => "not_owner",
            Self::NotMember => "not_member",
            Self::Key(..) => "bad_key",
            Self::TooLarge(_) => "too_large",
        }
    }
}
