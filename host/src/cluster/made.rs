//! Cameras of the site that subscribers had made by a source.
//!
//! Such a camera is one like the others: the plan places it, and it goes to another host when its
//! own dies. It is there while hosts have subscribers of it. Each host says of itself whether it
//! has, in words that end with its lease; the host that plans removes a camera of which nobody has
//! said so for the grace period. The site's transactions decide who is first, a subscriber or the
//! removal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt};
use ocelli_cluster::Member;
use ocelli_cluster::member::{
    CameraRecord, CoordError, LeaseId, Listener, Making, MemberStatus, SiteView,
};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use super::{CameraNeeds, Cluster, ClusterError, DEPLOYMENTS};
use crate::config::Config;
use crate::event::Hub;

/// Between two looks at who has subscribers: short beside the grace period, and cheap for a site
/// with a thousand such cameras.
const LOOK: Duration = Duration::from_millis(500);

/// The shortest grace period: a host whose lease has lapsed has a new one and has said anew who
/// listens within that time.
const SHORTEST_GRACE: Duration = Duration::from_secs(5);

/// How long a host that has joined may take to hear of itself.
const HEARD: Duration = Duration::from_secs(3);

/// Words to the site that are under way: a host with a new lease has to say it of all its cameras.
const WORDS: usize = 32;

impl Cluster {
    /// Adds a camera that a subscriber of this host asks for, unless the site has one of this name,
    /// or as many as its hosts take. The entry has been checked.
    pub async fn make_camera(
        &self,
        id: &str,
        table: Map<String, Value>,
    ) -> Result<Making, ClusterError> {
        let record = self.record(id, table, CameraNeeds::default())?;
        let record = CameraRecord { made: true, ..record };
        let (host, mut site) = (self.host(), self.member().site());
        // One that has just joined hears of itself within milliseconds.
        let heard = async {
            let view = site.wait_for(|view| view.hosts.contains_key(host)).await;
            view.map(|view| capacity(&view))
        };
        let Ok(Ok(most)) = timeout(HEARD, heard).await else {
            return Err(CoordError::NotMember.into());
        };
        Ok(self.member().make_camera(id, &record, most).await?)
    }

    /// Whether the site has a camera of this name that subscribers had made.
    pub fn is_made(&self, id: &str) -> bool {
        self.member().site().borrow().cameras.get(id).is_some_and(|record| record.made)
    }

    /// Removes a camera that subscribers had made, whoever listens to it. False where it was none.
    pub async fn remove_made(&self, id: &str) -> Result<bool, CoordError> {
        self.member().remove_made(id, false, &documents(id)).await
    }

    /// Says of which such cameras this host has subscribers, and removes those of which nobody has
    /// any, while the answer is kept.
    pub fn tend_made(
        &self,
        hub: Hub,
        config: watch::Receiver<Arc<Config>>,
    ) -> AbortOnDropHandle<()> {
        super::spawn(tend(self.member().clone(), hub, config))
    }
}

/// How many cameras the hosts take that are to have any.
fn capacity(view: &SiteView) -> u64 {
    let hosts = view.hosts.values().filter(|host| !host.draining);
    hosts.map(|host| u64::from(host.record.capacity)).sum()
}

/// What goes with a camera, whose name may never be used again.
fn documents(id: &str) -> [String; 1] {
    [format!("{DEPLOYMENTS}{id}")]
}

async fn tend(member: Member, hub: Hub, config: watch::Receiver<Arc<Config>>) {
    let (site, status) = (member.site(), member.status());
    let mut deserted = DesertedCameras::default();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        look.tick().await;
        let MemberStatus::Member { lease } = *status.borrow() else { continue };
        let view = Arc::clone(&site.borrow());
        let host = &*member.options().host;
        // Subscribers are counted behind the view: who comes later says it again, and what is taken
        // back here is what the view has.
        let words = words(&view, host, lease, |camera| hub.subscriber_count(camera) > 0);
        let told = stream::iter(words).for_each_concurrent(WORDS, |(camera, word)| {
            let member = &member;
            async move {
                let told = match word {
                    ListenerWord::Listens => member.listen(&camera).await.map(drop),
                    ListenerWord::ListensNoMore(revision) => {
                        member.unlisten(&camera, revision).await
                    }
                };
                failed(&camera, told);
            }
        });
        told.await;
        let grace = Duration::from_secs(config.borrow().subscriptions.grace_s);
        let gone = deserted.look(&view, grace.max(SHORTEST_GRACE), Instant::now());
        for camera in gone.into_iter().filter(|_| view.planner() == Some(host)) {
            match member.remove_made(&camera, true, &documents(&camera)).await {
                Ok(true) => tracing::info!(
                    target: "ocelli::cluster", session = camera,
                    "is removed from the site: its last subscriber is gone"
                ),
                removed => failed(&camera, removed.map(drop)),
            }
        }
    }
}

/// The next look tries again.
fn failed(camera: &str, told: Result<(), CoordError>) {
    if let Err(error) = told {
        tracing::debug!(target: "ocelli::cluster", session = camera, "{error}");
    }
}

/// What a host has to tell the site of a camera.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListenerWord {
    Listens,
    /// With the revision of what it said before.
    ListensNoMore(u64),
}

/// What a host in this life has to say that it has not said, or that is no longer so.
fn words(
    view: &SiteView,
    host: &str,
    lease: LeaseId,
    listens: impl Fn(&str) -> bool,
) -> Vec<(String, ListenerWord)> {
    let said = |camera: &str| {
        let said: Option<&Listener> = view.listeners.get(camera).and_then(|hosts| hosts.get(host));
        said.filter(|said| said.lease == lease)
    };
    let is_made = |camera: &str| view.cameras.get(camera).is_some_and(|record| record.made);
    let made = view.cameras.iter().filter(|(_, record)| record.made).map(|(camera, _)| camera);
    let made = made.filter_map(|camera| match (listens(camera), said(camera)) {
        (true, None) => Some((camera.clone(), ListenerWord::Listens)),
        (false, Some(said)) => Some((camera.clone(), ListenerWord::ListensNoMore(said.revision))),
        _ => None,
    });
    let gone = view.listeners.keys().filter(|camera| !is_made(camera));
    let gone = gone.filter_map(|camera| {
        Some((camera.clone(), ListenerWord::ListensNoMore(said(camera)?.revision)))
    });
    made.chain(gone).collect()
}

/// Since when nobody has said that it listens.
#[derive(Debug, Default)]
struct DesertedCameras {
    since: BTreeMap<String, Instant>,
}

impl DesertedCameras {
    /// Takes the site in as it is at `now`. The cameras that nobody has listened to for `grace`.
    fn look(&mut self, view: &SiteView, grace: Duration, now: Instant) -> Vec<String> {
        let made = view.cameras.iter().filter(|(_, record)| record.made);
        let deserted = made.filter(|(camera, _)| !view.listeners.contains_key(*camera));
        let since = |camera: &String| self.since.get(camera).copied().unwrap_or(now);
        self.since = deserted.map(|(camera, _)| (camera.clone(), since(camera))).collect();
        let over = |since: &Instant| now.saturating_duration_since(*since) >= grace;
        let gone = self.since.iter().filter(|(_, since)| over(since));
        gone.map(|(camera, _)| camera.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use ocelli_cluster::member::{HostRecord, HostView};
    use proptest::prelude::*;

    use super::*;

    const OURS: LeaseId = LeaseId(7);

    fn view(made: &[&str], others: &[&str], listeners: &[(&str, &str, i64)]) -> SiteView {
        let record = |made| {
            Arc::new(CameraRecord {
                entry: Value::Null,
                labels: Default::default(),
                networks: Default::default(),
                cost: 1,
                made,
            })
        };
        let cameras = made.iter().map(|id| (*id, true)).chain(others.iter().map(|id| (*id, false)));
        let cameras = cameras.map(|(id, made)| (id.to_owned(), record(made)));
        let mut said = BTreeMap::<String, BTreeMap<String, Listener>>::new();
        for (camera, host, lease) in listeners {
            let listener = Listener { lease: LeaseId(*lease), revision: 40 };
            said.entry((*camera).into()).or_default().insert((*host).into(), listener);
        }
        SiteView {
            cameras: Arc::new(cameras.collect()),
            listeners: Arc::new(said),
            ..SiteView::default()
        }
    }

    #[test]
    fn a_host_says_what_it_has_not_said_in_this_life() {
        let view = view(
            &["said", "unsaid", "before", "left", "idle", "theirs"],
            &["camera"],
            &[
                ("said", "a", 7),
                ("before", "a", 6),
                ("left", "a", 7),
                ("theirs", "b", 9),
                ("camera", "a", 7),
                ("gone", "a", 7),
            ],
        );
        let listens = |camera: &str| !["left", "idle", "theirs"].contains(&camera);
        let mut told = words(&view, "a", OURS, listens);
        told.sort_unstable_by(|one, other| one.0.cmp(&other.0));
        let told: Vec<_> = told.iter().map(|(camera, word)| (&**camera, *word)).collect();
        let no_more = ListenerWord::ListensNoMore(40);
        assert_eq!(
            told,
            [
                ("before", ListenerWord::Listens),
                ("camera", no_more),
                ("gone", no_more),
                ("left", no_more),
                ("unsaid", ListenerWord::Listens),
            ]
        );
    }

    #[test]
    fn hosts_that_are_to_be_emptied_take_no_camera() {
        let host = |capacity, draining| HostView {
            record: HostRecord { capacity, ..HostRecord::default() },
            lease: OURS,
            joined: 1,
            draining,
        };
        let hosts = [("a".to_owned(), host(3, false)), ("b".to_owned(), host(50, true))];
        let view = SiteView { hosts: Arc::new(hosts.into()), ..SiteView::default() };
        assert_eq!(capacity(&view), 3);
    }

    proptest! {
        /// Against a count of the looks: each camera is gone once it was deserted in all of them
        /// for the grace period, and no other.
        #[test]
        fn a_camera_goes_when_nobody_listened_for_the_whole_grace_period(
            looks in prop::collection::vec((0_u64..4, any::<[bool; 3]>()), 1..40),
            grace in 0_u64..8,
        ) {
            let start = Instant::now();
            let (mut deserted, mut now) = (DesertedCameras::default(), start);
            let mut since = [None; 3];
            for (passed, listened) in looks {
                now += Duration::from_secs(passed);
                let names = ["x", "y", "z"];
                let listeners: Vec<_> = names.iter().zip(listened).filter(|(_, it)| *it)
                    .map(|(name, _)| (*name, "b", 1)).collect();
                let gone = deserted.look(
                    &view(&names, &["camera"], &listeners), Duration::from_secs(grace), now,
                );
                for ((since, listened), name) in since.iter_mut().zip(listened).zip(names) {
                    if listened { *since = None } else { _ = since.get_or_insert(now) }
                    let over = since.is_some_and(|since| now - since >= Duration::from_secs(grace));
                    prop_assert_eq!(gone.iter().any(|it| it == name), over, "{}", name);
                }
                prop_assert!(!gone.contains(&"camera".to_owned()));
            }
        }
    }
}
