//! Hosts of a site without workers: members that do at once what they are asked.

#![allow(dead_code, unreachable_pub, reason = "several tests have it, each uses a part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd_client::{Client, EventType, WatchOptions};
use ocelli_cluster::member::{
    CameraRecord, CoordError, HostRecord, MemberStatus, Owner, Ownership, SiteView,
};
use ocelli_cluster::plan::{Needs, Place, plan};
use ocelli_cluster::{Epoch, Member, SiteOptions};
use ocelli_testkit::DEADLINE;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub const SITE: &str = "hall";

pub fn options(urls: &[String], host: &str) -> SiteOptions {
    SiteOptions {
        site: SITE.into(),
        host: host.into(),
        etcd: urls.to_vec(),
        nats: Vec::new(),
        tls: None,
    }
}

pub fn record(capacity: u32) -> HostRecord {
    HostRecord {
        version: "1.2.3".into(),
        capacity,
        address: "10.0.0.1:8080".into(),
        ..HostRecord::default()
    }
}

pub fn camera() -> CameraRecord {
    CameraRecord {
        entry: serde_json::json!({"source": "rtsp://10.0.0.7/1"}),
        labels: BTreeSet::new(),
        networks: BTreeSet::new(),
        cost: 1,
    }
}

pub fn set(of: &[&str]) -> BTreeSet<String> {
    of.iter().map(|name| (*name).to_owned()).collect()
}

pub fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("cam {number}")).collect()
}

/// Waits until it is so.
pub async fn until<T: Clone + std::fmt::Debug>(
    receiver: &mut watch::Receiver<T>,
    what: &str,
    so: impl FnMut(&T) -> bool,
) -> T {
    if let Ok(value) = tokio::time::timeout(DEADLINE, receiver.wait_for(so)).await {
        return value.unwrap().clone();
    }
    panic!("not in time: {what}; it is {:?}", *receiver.borrow())
}

/// A host that prepares and hands over at once, unless it is told not to.
pub struct Host {
    pub id: String,
    pub member: Member,
    /// It does not say that cameras are prepared.
    pub unprepared: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Host {
    pub fn start(urls: &[String], id: &str, record: HostRecord) -> Self {
        Self::with(options(urls, id), record)
    }

    pub fn with(options: SiteOptions, record: HostRecord) -> Self {
        let id = options.host.clone();
        let member = Member::start(options, record).unwrap();
        let unprepared = Arc::new(AtomicBool::new(false));
        let driver = tokio::spawn(drive(member.clone(), Arc::clone(&unprepared)));
        Self { id, member, unprepared, driver }
    }

    pub async fn joined(urls: &[String], id: &str, record: HostRecord) -> Self {
        let host = Self::start(urls, id, record);
        host.is_member().await;
        host
    }

    pub async fn is_member(&self) {
        let member = |status: &MemberStatus| matches!(status, MemberStatus::Member { .. });
        until(&mut self.member.status(), "a member", member).await;
    }

    /// The host dies: nobody renews, releases or gives back.
    pub async fn die(self) {
        self.driver.abort();
        let _ = self.driver.await;
    }

    pub fn owned(&self) -> BTreeMap<String, Ownership> {
        (**self.member.owned().borrow()).clone()
    }

    /// Waits until it owns exactly these.
    pub async fn owns(&self, cameras: &[String]) -> BTreeMap<String, Ownership> {
        let wanted: BTreeSet<_> = cameras.iter().collect();
        let (mut owned, what) = (self.member.owned(), format!("{} owns {wanted:?}", self.id));
        let owned = until(&mut owned, &what, |owned| owned.keys().eq(wanted.iter().copied())).await;
        (*owned).clone()
    }

    pub async fn owns_count(&self, so: impl Fn(usize) -> bool) -> usize {
        let what = format!("{} owns so many", self.id);
        until(&mut self.member.owned(), &what, |owned| so(owned.len())).await.len()
    }

    pub async fn sees(&self, what: &str, so: impl Fn(&SiteView) -> bool) -> SiteView {
        (*until(&mut self.member.site(), what, |site| so(site)).await).clone()
    }

    pub async fn put(&self, cameras: &[String]) {
        for id in cameras {
            put_camera(&self.member, id).await;
        }
    }
}

/// Asks until etcd answers, as those who change the site do: on a busy machine one request may not get
/// its answer in time.
pub async fn again<T, F>(mut ask: impl FnMut() -> F) -> Result<T, CoordError>
where
    F: Future<Output = Result<T, CoordError>>,
{
    let answer = async {
        loop {
            match ask().await {
                Err(CoordError::Unavailable(_)) => tokio::task::yield_now().await,
                answer => return answer,
            }
        }
    };
    tokio::time::timeout(DEADLINE, answer).await.expect("etcd answers again")
}

pub async fn put_camera(member: &Member, id: &str) {
    let record = camera();
    again(|| member.put_camera(id, &record)).await.unwrap();
}

async fn drive(member: Member, unprepared: Arc<AtomicBool>) {
    let (mut coming, mut leaving) = (member.coming(), member.leaving());
    loop {
        let now = coming.borrow_and_update().clone();
        if !unprepared.load(Ordering::Relaxed) {
            now.keys().for_each(|camera| member.prepared(camera));
        }
        let now = leaving.borrow_and_update().clone();
        for (camera, epoch) in now.iter() {
            // Whether it is still the owner is what the tests look at.
            let _ = member.release(camera, *epoch).await;
        }
        tokio::select! {
            _ = coming.changed() => {}
            _ = leaving.changed() => {}
        }
    }
}

/// Waits until all these cameras are owned by these hosts, each by one; with whose they are.
pub async fn all_owned(hosts: &[&Host], cameras: &[String]) -> BTreeMap<String, (String, Epoch)> {
    let all = async {
        loop {
            let mut owners = BTreeMap::new();
            for host in hosts {
                for (camera, ownership) in host.owned() {
                    owners.insert(camera, (host.id.clone(), ownership.epoch));
                }
            }
            if cameras.iter().all(|camera| owners.contains_key(camera)) {
                return owners;
            }
            // One of them changes before anything does.
            let mut owned: Vec<_> = hosts.iter().map(|host| host.member.owned()).collect();
            owned.iter_mut().for_each(watch::Receiver::mark_unchanged);
            let changes = owned.iter_mut().map(|owned| Box::pin(owned.changed()));
            let changed = futures_util::future::select_all(changes);
            // Something may have changed between looking and marking.
            let _ = tokio::time::timeout(Duration::from_millis(200), changed).await;
        }
    };
    tokio::time::timeout(DEADLINE, all).await.expect("all cameras are owned in time")
}

/// Waits until no camera is on its way and nothing would be planned otherwise.
pub async fn settled(host: &Host, cameras: &[String]) {
    host.sees("it has come to rest", |site| {
        let hosts = site.hosts.iter().map(|(id, host)| {
            let place = Place {
                capacity: host.record.capacity,
                labels: host.record.labels.clone(),
                networks: host.record.networks.clone(),
                draining: host.draining,
            };
            (id.clone(), place)
        });
        let needs = site.cameras.iter().map(|(id, record)| {
            let (labels, networks) = (record.labels.clone(), record.networks.clone());
            (id.clone(), Needs { labels, networks, cost: record.cost })
        });
        let owners = site.owners.keys().filter_map(|id| Some((id.clone(), site.owner(id)?)));
        let owners: BTreeMap<_, _> = owners.map(|(id, it)| (id, it.host.clone())).collect();
        let planned = plan(&hosts.collect(), &needs.collect(), &owners, &site.plan, &site.pins);
        planned == *site.plan
            && owners == planned.cameras
            && cameras.iter().all(|camera| owners.contains_key(camera))
    })
    .await;
}

/// Reads the whole history of a site's keys and asserts that each claim was of a camera which nobody
/// had. Returns how many claims there were.
pub async fn audit(urls: &[String]) -> usize {
    let mut client = Client::connect(urls, None).await.unwrap();
    let prefix = format!("/ocelli/{SITE}/");
    let last = client.get(prefix.clone(), None).await.unwrap().header().unwrap().revision();
    // So that there is a last event to wait for.
    client.put(format!("{prefix}end/audit"), "", None).await.unwrap();
    let options = WatchOptions::new().with_prefix().with_start_revision(1);
    let mut stream = client.watch(prefix.clone(), Some(options)).await.unwrap();
    let mut hosts: BTreeMap<String, i64> = BTreeMap::new();
    let mut owners: BTreeMap<String, Owner> = BTreeMap::new();
    let mut claims = 0;
    'all: loop {
        let message = tokio::time::timeout(DEADLINE, stream.message()).await.unwrap();
        for event in message.unwrap().unwrap().events() {
            let pair = event.kv().unwrap();
            let key = pair.key_str().unwrap().strip_prefix(&prefix).unwrap();
            let put = event.event_type() == EventType::Put;
            if let Some(host) = key.strip_prefix("host/") {
                if put {
                    hosts.insert(host.into(), pair.lease());
                } else {
                    hosts.remove(host);
                }
            } else if let Some(camera) = key.strip_prefix("own/") {
                if !put {
                    owners.remove(camera);
                    continue;
                }
                let value: serde_json::Value = serde_json::from_slice(pair.value()).unwrap();
                let lease = i64::from_str_radix(value["lease"].as_str().unwrap(), 16).unwrap();
                let owner = Owner {
                    host: value["host"].as_str().unwrap().into(),
                    lease: ocelli_cluster::member::LeaseId(lease),
                    held: value["held"].as_bool().unwrap(),
                    epoch: Epoch(u64::try_from(pair.mod_revision()).unwrap()),
                };
                let former = owners.insert(camera.into(), owner.clone());
                let lives = |owner: &Owner| hosts.get(&owner.host) == Some(&owner.lease.0);
                if owner.held {
                    claims += 1;
                    assert!(lives(&owner), "{camera} was claimed by a dead host: {owner:?}");
                    let free = former.as_ref().is_none_or(|owner| !owner.held || !lives(owner));
                    assert!(free, "{camera} was taken from {former:?} by {owner:?}");
                } else {
                    let own =
                        former.is_some_and(|it| it.host == owner.host && it.lease == owner.lease);
                    assert!(own, "{camera} was released by another: {owner:?}");
                }
            }
            if pair.mod_revision() > last {
                break 'all;
            }
        }
    }
    claims
}

/// Looks at all members all the time: no two may speak for one camera at one moment.
pub struct Listener {
    members: Arc<Mutex<Vec<Member>>>,
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Listener {
    pub fn start() -> Self {
        let members: Arc<Mutex<Vec<Member>>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let (all, stopped) = (Arc::clone(&members), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                let members = all.lock().clone();
                looks += listen(&members);
                drop(members);
                std::thread::sleep(Duration::from_millis(5));
            }
            looks
        });
        Self { members, stop, thread: Some(thread) }
    }

    pub fn hear(&self, host: &Host) {
        self.members.lock().push(host.member.clone());
    }

    /// No member of this name is listened to any more: it can die.
    pub fn forget(&self, host: &Host) {
        self.members.lock().retain(|member| member.options().host != host.id);
    }

    /// How often a voice was heard.
    pub fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().expect("nobody spoke twice")
    }
}

/// A voice that is heard, then another, then the first again: two at one moment, since one that has
/// ended with its epoch never speaks again.
fn listen(members: &[Member]) -> u64 {
    let mut voices: BTreeMap<String, Vec<(usize, Epoch)>> = BTreeMap::new();
    for (number, member) in members.iter().enumerate() {
        for (camera, ownership) in member.owned().borrow().iter() {
            if member.may_speak(camera, ownership.epoch) {
                voices.entry(camera.clone()).or_default().push((number, ownership.epoch));
            }
        }
    }
    for (camera, heard) in &voices {
        for (number, epoch) in heard.iter().take(heard.len() - 1) {
            assert!(
                !members[*number].may_speak(camera, *epoch),
                "two speak for {camera}: {heard:?}"
            );
        }
    }
    voices.len() as u64
}
