//! The cameras that the site gives this host and takes from it.
//!
//! A camera that is given is taken over first: from then on whoever had it can append nothing, and
//! this host's journal has all its events. Then it goes to the config, which starts its session. One
//! that is to be given up leaves the config first, and is released when its session has ended and
//! what it told is held.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ocelli_cluster::member::{CameraRecord, Ownership};
use ocelli_cluster::streams::{StreamError, StreamHealth, Streams};
use ocelli_cluster::{Epoch, Member};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::chains::{Chains, Inheritance};
use super::entry::{self, SiteKey};
use super::owned::{OwnedCamera, OwnedSender};
use super::snapshots::SiteSnapshots;
use super::state::StateMirror;
use super::{AGAIN, ClusterError, HooksReceiver};
use crate::journal::Journal;

/// How long a host that has taken a camera over waits for the camera's earlier events in its own
/// journal: those of a second at most are missing where it follows the site.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long a session that is given up may take to end, and its last events to be held, before the
/// camera is released all the same: the worker's own time, and an election of the site's servers.
const HAND_OVER: Duration = Duration::from_secs(20);

/// Why cameras of this host do not run, by name.
pub(super) type CameraFaults = Arc<Mutex<BTreeMap<String, String>>>;

/// See the module's documentation.
pub(super) struct OwnedTask {
    pub(super) member: Member,
    pub(super) streams: Streams,
    pub(super) journal: Journal,
    pub(super) chains: Arc<Chains>,
    pub(super) mirror: Arc<StateMirror>,
    pub(super) snapshots: Arc<SiteSnapshots>,
    pub(super) key: Option<SiteKey>,
    pub(super) cameras: OwnedSender,
    pub(super) faults: CameraFaults,
    pub(super) hooks: HooksReceiver,
    /// Cameras that a fence has refused.
    pub(super) refused: mpsc::Receiver<(Arc<str>, Epoch)>,
}

/// A camera on its way to this host.
struct TakingOver {
    epoch: Epoch,
    _task: AbortOnDropHandle<()>,
}

/// A camera that was taken over.
struct TakenOver {
    camera: Arc<str>,
    epoch: Epoch,
    /// None: another host was there first.
    inheritance: Option<Inheritance>,
}

/// A camera that runs here.
struct RunningCamera {
    epoch: Epoch,
    record: Arc<CameraRecord>,
}

/// What the task knows of its cameras.
#[derive(Default)]
struct CameraTasks {
    taking: HashMap<Arc<str>, TakingOver>,
    running: BTreeMap<Arc<str>, RunningCamera>,
    /// Those that are being given up.
    leaving: HashMap<Arc<str>, Epoch>,
    /// Those that are to come, and that another host still has.
    preparing: HashMap<Arc<str>, AbortOnDropHandle<()>>,
}

impl OwnedTask {
    /// Runs until it is dropped.
    pub(super) async fn run(mut self) {
        let (mut owned, mut leaving) = (self.member.owned(), self.member.leaving());
        let mut coming = self.member.coming();
        let (done, mut taken) = mpsc::channel(1);
        let mut cameras = CameraTasks::default();
        let mut released = JoinSet::new();
        loop {
            let wanted = Arc::clone(&owned.borrow_and_update());
            self.follow(&wanted, &mut cameras, &done);
            let going = Arc::clone(&leaving.borrow_and_update());
            for (camera, epoch) in &*going {
                self.give_up(camera, *epoch, &mut cameras, &mut released);
            }
            let arriving = Arc::clone(&coming.borrow_and_update());
            self.prepare(&arriving, &mut cameras);
            tokio::select! {
                Ok(()) = owned.changed() => {}
                Ok(()) = coming.changed() => {}
                Ok(()) = leaving.changed() => {}
                Some(taken) = taken.recv() => self.take(taken, &wanted, &mut cameras).await,
                Some((camera, epoch)) = self.refused.recv() => {
                    self.member.relinquish(&camera, epoch).await;
                }
                Some(Ok(camera)) = released.join_next() => {
                    cameras.leaving.remove(&camera);
                }
            }
        }
    }

    /// Begins to take over what is new, and lets go of what is gone.
    fn follow(
        &self,
        wanted: &BTreeMap<String, Ownership>,
        cameras: &mut CameraTasks,
        done: &mpsc::Sender<TakenOver>,
    ) {
        let owned = |camera: &str, epoch| wanted.get(camera).is_some_and(|one| one.epoch == epoch);
        cameras.taking.retain(|camera, taking| {
            let stays = owned(camera, taking.epoch);
            if !stays {
                self.chains.let_go(camera);
            }
            stays
        });
        cameras.leaving.retain(|camera, epoch| owned(camera, *epoch));
        cameras.running.retain(|camera, running| {
            let stays = owned(camera, running.epoch);
            if !stays {
                self.chains.let_go(camera);
                tracing::info!(target: "ocelli::cluster", session = &**camera, "is no longer this host's");
            }
            stays
        });
        for (camera, Ownership { epoch, record }) in wanted {
            let (camera, epoch): (Arc<str>, _) = (camera.as_str().into(), *epoch);
            if let Some(running) = cameras.running.get_mut(&camera) {
                running.record = Arc::clone(record);
            } else if !cameras.taking.contains_key(&camera)
                && !cameras.leaving.contains_key(&camera)
            {
                self.chains.expect(Arc::clone(&camera));
                let _task = self.begin(Arc::clone(&camera), epoch, done.clone());
                cameras.taking.insert(camera, TakingOver { epoch, _task });
            }
        }
        self.faults.lock().retain(|camera, _| wanted.contains_key(camera));
        self.publish(cameras);
    }

    /// Makes ready what is to come from hosts that still have it.
    fn prepare(&self, coming: &BTreeMap<String, Arc<CameraRecord>>, cameras: &mut CameraTasks) {
        cameras.preparing.retain(|camera, _| coming.contains_key(&**camera));
        for (camera, record) in coming {
            if cameras.preparing.contains_key(camera.as_str()) {
                continue;
            }
            let Ok(table) = entry::table(camera, &record.entry, self.key.as_ref()) else {
                // Told where it is started.
                continue;
            };
            let (member, mut hooks) = (self.member.clone(), self.hooks.clone());
            let camera: Arc<str> = camera.as_str().into();
            let own = Arc::clone(&camera);
            let task = async move {
                let hooks = hooks.wait_for(Option::is_some).await.map(|hooks| hooks.clone());
                if let Some(hooks) = hooks.ok().flatten().and_then(|hooks| hooks.upgrade()) {
                    hooks.prepare(Arc::clone(&own), table).await;
                }
                member.prepared(&own);
            };
            cameras.preparing.insert(camera, AbortOnDropHandle::new(tokio::spawn(task)));
        }
    }

    fn begin(
        &self,
        camera: Arc<str>,
        epoch: Epoch,
        done: mpsc::Sender<TakenOver>,
    ) -> AbortOnDropHandle<()> {
        let (streams, journal, mirror) =
            (self.streams.clone(), self.journal.clone(), Arc::clone(&self.mirror));
        let (faults, hooks) = (Arc::clone(&self.faults), self.hooks.clone());
        AbortOnDropHandle::new(tokio::spawn(async move {
            let inheritance = loop {
                let taken = take_over(&streams, &journal, &mirror, &camera, epoch).await;
                let restored = match taken {
                    Ok(taken) => restore(hooks.clone(), &camera).await.map(|()| taken),
                    Err(error) => Err(error.into()),
                };
                match restored {
                    Ok(taken) => break Some(taken),
                    Err(ClusterError::Streams(StreamError::Fenced { .. })) => break None,
                    Err(error) => {
                        let before = faults.lock().insert(camera.to_string(), error.to_string());
                        if before.is_none_or(|before| before != error.to_string()) {
                            tracing::warn!(
                                target: "ocelli::cluster", session = &*camera,
                                "cannot be taken over yet: {error}"
                            );
                        }
                        tokio::time::sleep(AGAIN).await;
                    }
                }
            };
            // The host stops.
            let _ = done.send(TakenOver { camera, epoch, inheritance }).await;
        }))
    }

    async fn take(
        &self,
        taken: TakenOver,
        wanted: &BTreeMap<String, Ownership>,
        cameras: &mut CameraTasks,
    ) {
        let TakenOver { camera, epoch, inheritance } = taken;
        if cameras.taking.get(&camera).is_none_or(|taking| taking.epoch != epoch) {
            return;
        }
        cameras.taking.remove(&camera);
        let Some(inheritance) = inheritance else {
            self.chains.let_go(&camera);
            self.member.relinquish(&camera, epoch).await;
            return;
        };
        let Some(ownership) = wanted.get(&*camera).filter(|one| one.epoch == epoch) else { return };
        self.faults.lock().remove(&*camera);
        tracing::info!(
            target: "ocelli::cluster", session = &*camera, %epoch, "is this host's from now on"
        );
        self.chains.hold(Arc::clone(&camera), inheritance);
        let record = Arc::clone(&ownership.record);
        cameras.running.insert(camera, RunningCamera { epoch, record });
    }

    /// Gives the config the cameras that run here.
    fn publish(&self, cameras: &CameraTasks) -> u64 {
        let mut owned = BTreeMap::new();
        for (camera, running) in &cameras.running {
            match entry::table(camera, &running.record.entry, self.key.as_ref()) {
                Ok(table) => {
                    let (lines, made) = (entry::toml(camera, table).into(), running.record.made);
                    owned.insert(camera.to_string(), OwnedCamera { lines, made });
                }
                Err(error) => {
                    let error = error.to_string();
                    let before = self.faults.lock().insert(camera.to_string(), error.clone());
                    if before.is_none_or(|before| before != error) {
                        tracing::error!(target: "ocelli::cluster", session = &**camera, "{error}");
                    }
                }
            }
        }
        self.cameras.send(owned)
    }

    /// Ends the session of a camera and releases it.
    fn give_up(
        &self,
        camera: &str,
        epoch: Epoch,
        cameras: &mut CameraTasks,
        released: &mut JoinSet<Arc<str>>,
    ) {
        let camera: Arc<str> = camera.into();
        if cameras.leaving.contains_key(&camera) {
            return;
        }
        cameras.taking.remove(&camera);
        let was_running = cameras.running.remove(&camera).is_some();
        cameras.leaving.insert(Arc::clone(&camera), epoch);
        let applied = self.cameras.applied(self.publish(cameras));
        let (member, chains) = (self.member.clone(), Arc::clone(&self.chains));
        let (events, mirror) = (self.journal.events().clone(), Arc::clone(&self.mirror));
        let snapshots = Arc::clone(&self.snapshots);
        released.spawn(async move {
            let ended = async {
                if was_running {
                    applied.await;
                    let (done, told) = oneshot::channel::<()>();
                    events.after_pending(&camera, Box::new(move || drop(done)));
                    // Dropped once all its events are held.
                    let _ = told.await;
                    mirror.flush(&camera).await;
                    snapshots.flush(&camera).await;
                }
            };
            if tokio::time::timeout(HAND_OVER, ended).await.is_err() {
                tracing::warn!(
                    target: "ocelli::cluster", session = &*camera,
                    "is released before all that it told is held"
                );
            }
            chains.let_go(&camera);
            if let Err(error) = member.release(&camera, epoch).await {
                tracing::warn!(
                    target: "ocelli::cluster", session = &*camera,
                    "could not be released, its lease has to end: {error}"
                );
            }
            camera
        });
    }
}

/// Brings what the site has of a camera's pipeline here.
async fn restore(mut hooks: HooksReceiver, camera: &Arc<str>) -> Result<(), ClusterError> {
    // The host stops where there will be none.
    let Ok(hooks) = hooks.wait_for(Option::is_some).await.map(|hooks| hooks.clone()) else {
        return Ok(());
    };
    match hooks.and_then(|hooks| hooks.upgrade()) {
        Some(hooks) => hooks.restore(Arc::clone(camera)).await,
        None => Ok(()),
    }
}

/// Becomes the camera's owner for its data, and brings what it left behind here.
async fn take_over(
    streams: &Streams,
    journal: &Journal,
    mirror: &StateMirror,
    camera: &Arc<str>,
    epoch: Epoch,
) -> Result<Inheritance, StreamError> {
    if let StreamHealth::Down(error) = &*streams.health().borrow() {
        return Err(error.clone());
    }
    let events = journal.events();
    let known = events.span(camera).await.map_or(0, |span| span.newest);
    let now = Timestamp::now().as_millisecond();
    let chain = streams.take_over(camera, epoch, known, now).await?;
    let mut progress = events.changed();
    let caught_up = async {
        while events.span(camera).await.is_ok_and(|span| span.newest < chain.seq()) {
            if progress.changed().await.is_err() {
                break;
            }
        }
    };
    if tokio::time::timeout(CATCH_UP, caught_up).await.is_err() {
        tracing::warn!(
            target: "ocelli::cluster", session = &**camera,
            "goes on without some of its events in this host's journal"
        );
    }
    let snapshot = mirror.load(camera).await?;
    Ok(Inheritance { chain, snapshot })
}
