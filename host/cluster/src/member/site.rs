//! The keeper's copy of what etcd says of the site.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::sync::mpsc;

use super::records::{CameraRecord, HostRecord, HostView, LeaseId, Owner, SiteRefusal, SiteView};
use crate::etcd::keys::{COORDINATION, Key};
use crate::etcd::{Entry, Etcd, Event, Fault};
use crate::plan::{Plan, Unplaced};
use crate::site::Epoch;

/// The format of host keys that this version writes, and the latest that it knows.
const HOST_FORMAT: u32 = 1;

/// Likewise, of the plan.
const PLAN_FORMAT: u32 = 1;

/// From a failed reading or watch to the next, doubled each time up to [`MAX_RETRY`]: on a busy
/// machine, reading anew is what keeps it busy.
const RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_millis(1600);

/// A host key's value.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HostDocument {
    format: u32,
    #[serde(flatten)]
    pub(super) record: HostRecord,
}

impl HostDocument {
    pub(super) fn new(record: HostRecord) -> Self {
        Self { format: HOST_FORMAT, record }
    }
}

/// An owner key's value.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct OwnerDocument {
    pub(super) host: String,
    pub(super) lease: LeaseId,
    pub(super) held: bool,
}

/// The plan as it is stored: by host, since hosts' names are short and few.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct PlanDocument {
    format: u32,
    version: u64,
    hosts: BTreeMap<String, Vec<String>>,
    unplaced: BTreeMap<String, Unplaced>,
}

impl PlanDocument {
    pub(super) fn new(plan: &Plan) -> Self {
        let mut hosts: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (camera, host) in &plan.cameras {
            hosts.entry(host.clone()).or_default().push(camera.clone());
        }
        Self { format: PLAN_FORMAT, version: plan.version, hosts, unplaced: plan.unplaced.clone() }
    }

    fn plan(self) -> Plan {
        let of = |(host, cameras): (String, Vec<String>)| {
            cameras.into_iter().map(move |camera| (camera, host.clone()))
        };
        let cameras = self.hosts.into_iter().flat_map(of).collect();
        Plan { version: self.version, cameras, unplaced: self.unplaced }
    }
}

/// The value of a key that only names a host.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Named {
    pub(super) host: String,
}

/// What [`watch`] tells the keeper.
#[derive(Debug)]
pub(super) enum Change {
    /// All keys, at a revision.
    Read(Vec<Entry>, u64),
    Events(Vec<Event>),
    /// etcd cannot be read now.
    Away(Fault),
}

/// How soon a change of the site asks for a new plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Touched {
    Nothing,
    /// Something has become better, as a new host.
    Later,
    /// Somebody waits: a host is gone, a camera is new.
    Soon,
}

/// The copy.
#[derive(Debug, Default)]
pub(super) struct Site {
    pub(super) view: SiteView,
    /// The plan key's modification revision.
    pub(super) plan_revision: u64,
    /// By camera, the lease of the host that has prepared it.
    pub(super) prepared: BTreeMap<String, LeaseId>,
    drains: BTreeSet<String>,
    /// By key, what is there that this version cannot take part with.
    refusals: BTreeMap<String, SiteRefusal>,
}

impl Site {
    pub(super) fn refusal(&self) -> Option<&SiteRefusal> {
        self.refusals.values().next()
    }

    /// Replaces all.
    pub(super) fn load(&mut self, entries: Vec<Entry>, revision: u64) {
        *self = Self::default();
        for entry in entries {
            self.put(entry);
        }
        self.view.revision = revision;
    }

    pub(super) fn apply(&mut self, event: Event) -> Touched {
        match event {
            Event::Put(entry) => self.put(entry),
            Event::Deleted { key, revision } => self.delete(&key, revision),
        }
    }

    fn put(&mut self, entry: Entry) -> Touched {
        self.view.revision = self.view.revision.max(entry.modified);
        self.refusals.remove(&entry.key);
        match Key::parse(&entry.key) {
            Key::Host(host) => self.put_host(host, &entry),
            Key::Plan => self.put_plan(&entry),
            Key::Camera(camera) => match parse::<CameraRecord>(&entry) {
                Ok(record) => {
                    let cameras = Arc::make_mut(&mut self.view.cameras);
                    cameras.insert(camera.to_owned(), Arc::new(record));
                    Touched::Soon
                }
                // It stays as it was: one camera is no reason to stop all.
                Err(refusal) => unreadable(&refusal),
            },
            Key::Owner(camera) => match parse::<OwnerDocument>(&entry) {
                Ok(OwnerDocument { host, lease, held }) => {
                    let owner = Owner { host, lease, held, epoch: Epoch(entry.modified) };
                    let owners = Arc::make_mut(&mut self.view.owners);
                    owners.insert(camera.to_owned(), owner);
                    Touched::Later
                }
                Err(refusal) => unreadable(&refusal),
            },
            Key::Pin(camera) => match parse::<Named>(&entry) {
                Ok(Named { host }) => {
                    Arc::make_mut(&mut self.view.pins).insert(camera.to_owned(), host);
                    Touched::Soon
                }
                Err(refusal) => unreadable(&refusal),
            },
            Key::Prepared(camera) => {
                self.prepared.insert(camera.to_owned(), LeaseId(entry.lease));
                Touched::Nothing
            }
            Key::Drain(host) => {
                self.drains.insert(host.to_owned());
                self.mark(host);
                Touched::Soon
            }
            Key::Document(_) => Touched::Nothing,
        }
    }

    fn put_host(&mut self, host: &str, entry: &Entry) -> Touched {
        let record = match format(entry) {
            Ok(found) if found > HOST_FORMAT => {
                Err(SiteRefusal::HostFormat { host: host.to_owned(), found, known: HOST_FORMAT })
            }
            Ok(_) => parse::<HostDocument>(entry).map(|document| document.record),
            Err(refusal) => Err(refusal),
        };
        let record = match record {
            Ok(record) => record,
            Err(refusal) => {
                self.refusals.insert(entry.key.clone(), refusal);
                return Touched::Nothing;
            }
        };
        let draining = record.draining || self.drains.contains(host);
        let view =
            HostView { record, lease: LeaseId(entry.lease), joined: entry.created, draining };
        let former = Arc::make_mut(&mut self.view.hosts).insert(host.to_owned(), view);
        let now_drains = former.is_some_and(|former| former.draining != draining);
        if now_drains { Touched::Soon } else { Touched::Later }
    }

    fn put_plan(&mut self, entry: &Entry) -> Touched {
        self.plan_revision = entry.modified;
        let plan = match format(entry) {
            Ok(found) if found > PLAN_FORMAT => {
                Err(SiteRefusal::PlanFormat { found, known: PLAN_FORMAT })
            }
            Ok(_) => parse::<PlanDocument>(entry),
            Err(refusal) => Err(refusal),
        };
        match plan {
            Ok(plan) => self.view.plan = Arc::new(plan.plan()),
            Err(refusal) => drop(self.refusals.insert(entry.key.clone(), refusal)),
        }
        Touched::Later
    }

    fn delete(&mut self, key: &str, revision: u64) -> Touched {
        self.view.revision = self.view.revision.max(revision);
        self.refusals.remove(key);
        match Key::parse(key) {
            Key::Host(host) => {
                Arc::make_mut(&mut self.view.hosts).remove(host);
                Touched::Soon
            }
            Key::Camera(camera) => {
                Arc::make_mut(&mut self.view.cameras).remove(camera);
                Touched::Soon
            }
            Key::Owner(camera) => {
                Arc::make_mut(&mut self.view.owners).remove(camera);
                Touched::Later
            }
            Key::Pin(camera) => {
                Arc::make_mut(&mut self.view.pins).remove(camera);
                Touched::Soon
            }
            Key::Prepared(camera) => {
                self.prepared.remove(camera);
                Touched::Nothing
            }
            Key::Drain(host) => {
                self.drains.remove(host);
                self.mark(host);
                Touched::Soon
            }
            Key::Plan => {
                self.plan_revision = 0;
                self.view.plan = Arc::default();
                Touched::Soon
            }
            Key::Document(_) => Touched::Nothing,
        }
    }

    /// Says of a host whether it is draining.
    fn mark(&mut self, host: &str) {
        let wished = self.drains.contains(host);
        if let Some(view) = Arc::make_mut(&mut self.view.hosts).get_mut(host) {
            view.draining = view.record.draining || wished;
        }
    }
}

fn unreadable(refusal: &SiteRefusal) -> Touched {
    tracing::warn!("{refusal}");
    Touched::Nothing
}

fn parse<T: DeserializeOwned>(entry: &Entry) -> Result<T, SiteRefusal> {
    serde_json::from_slice(&entry.value).map_err(|error| SiteRefusal::Unreadable {
        key: entry.key.clone(),
        reason: error.to_string(),
    })
}

/// Which format a value has, whatever else is in it.
fn format(entry: &Entry) -> Result<u32, SiteRefusal> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    parse::<Format>(entry).map(|found| found.format)
}

/// Reads the site's keys.
pub(super) async fn read(etcd: &Etcd) -> Result<(Vec<Entry>, u64), Fault> {
    etcd.read(&COORDINATION).await
}

/// Tells the keeper what is in etcd and each change of it, until the keeper ends.
pub(super) async fn watch(etcd: Etcd, changes: mpsc::Sender<Change>) {
    let mut retry = RETRY;
    let mut from = None;
    loop {
        let fault = match follow(&etcd, &changes, &mut from, &mut retry).await {
            Ok(()) => return,
            Err(fault) => fault,
        };
        if fault == Fault::Compacted {
            from = None;
        }
        tracing::debug!("the site's keys are watched anew: {}", fault.reason());
        if changes.send(Change::Away(fault)).await.is_err() {
            return;
        }
        tokio::time::sleep(retry).await;
        retry = (retry * 2).min(MAX_RETRY);
    }
}

/// Ends well when the keeper has ended. `from` is the revision from which on the keeper has to be
/// told of changes, `None` where it knows nothing: a watch that breaks goes on where it was, since
/// all hosts that read everything would keep a busy etcd busy.
async fn follow(
    etcd: &Etcd,
    changes: &mpsc::Sender<Change>,
    from: &mut Option<u64>,
    retry: &mut Duration,
) -> Result<(), Fault> {
    let start = match *from {
        Some(start) => start,
        None => {
            let (entries, revision) = read(etcd).await?;
            if changes.send(Change::Read(entries, revision)).await.is_err() {
                return Ok(());
            }
            revision + 1
        }
    };
    *from = Some(start);
    let mut watching = etcd.watch("", start).await?;
    loop {
        let events = tokio::select! {
            events = watching.next() => events?,
            () = changes.closed() => return Ok(()),
        };
        *retry = RETRY;
        // Of the last revision there may be more; what has come of it does no harm twice.
        *from = events.iter().map(Event::revision).max().max(*from);
        if changes.send(Change::Events(events)).await.is_err() {
            return Ok(());
        }
    }
}
