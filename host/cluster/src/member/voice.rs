//! For which cameras this host may speak at this moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::records::{CameraRecord, Ownership};
use crate::lease::BootTime;
use crate::site::Epoch;

pub(super) type Owned = Arc<BTreeMap<String, Ownership>>;

/// One life of a host: until when it may speak, if nothing renews its lease.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// [`BootTime::as_nanos`]; 0 for one that is over.
    until: AtomicU64,
}

impl Life {
    pub(super) fn new(until: BootTime) -> Arc<Self> {
        Arc::new(Self { until: AtomicU64::new(until.as_nanos()) })
    }

    /// The lease was renewed. A life that is over stays so.
    pub(super) fn extend(&self, until: BootTime) {
        let later = |now: u64| (now != 0).then_some(now.max(until.as_nanos()));
        // An error says that it is over.
        let _ = self.until.fetch_update(Ordering::AcqRel, Ordering::Acquire, later);
    }

    fn holds(&self) -> bool {
        BootTime::now().as_nanos() < self.until.load(Ordering::Acquire)
    }
}

/// What the host owns, together with the life in which it does: cameras of an earlier life are never
/// spoken for by the lease of a later one.
#[derive(Debug)]
pub(super) struct Voice {
    now: Mutex<(Arc<Life>, Owned)>,
    /// Sent while `now` is locked, so that receivers see the changes in their order.
    owned: watch::Sender<Owned>,
}

impl Voice {
    pub(super) fn new() -> Self {
        let owned = Owned::default();
        Self {
            now: Mutex::new((Arc::default(), Arc::clone(&owned))),
            owned: watch::Sender::new(owned),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Owned> {
        self.owned.subscribe()
    }

    pub(super) fn owned(&self) -> Owned {
        Arc::clone(&self.now.lock().1)
    }

    pub(super) fn may_speak(&self, camera: &str, epoch: Epoch) -> bool {
        let now = self.now.lock();
        now.1.get(camera).is_some_and(|ownership| ownership.epoch == epoch) && now.0.holds()
    }

    /// Begins a life, without cameras.
    pub(super) fn begin(&self, life: &Arc<Life>) {
        let mut now = self.now.lock();
        now.0 = Arc::clone(life);
        self.replace(&mut now.1, Owned::default());
    }

    /// Ends a life, and with it what is owned in it.
    pub(super) fn end(&self, life: &Arc<Life>) {
        life.until.store(0, Ordering::Release);
        let mut now = self.now.lock();
        if Arc::ptr_eq(&now.0, life) {
            self.replace(&mut now.1, Owned::default());
        }
    }

    /// Owns a camera, unless the life is over.
    pub(super) fn take(&self, life: &Arc<Life>, camera: &str, ownership: Ownership) {
        let mut now = self.now.lock();
        if Arc::ptr_eq(&now.0, life) && life.holds() {
            Arc::make_mut(&mut now.1).insert(camera.to_owned(), ownership);
            self.owned.send_replace(Arc::clone(&now.1));
        }
    }

    /// Gives a camera up, if it is owned with that epoch.
    pub(super) fn drop(&self, camera: &str, epoch: Epoch) {
        let mut now = self.now.lock();
        let owns = now.1.get(camera).is_some_and(|ownership| ownership.epoch == epoch);
        if owns {
            Arc::make_mut(&mut now.1).remove(camera);
            self.owned.send_replace(Arc::clone(&now.1));
        }
    }

    /// What is wanted of an owned camera has changed.
    pub(super) fn describe(&self, camera: &str, record: &Arc<CameraRecord>) {
        let mut now = self.now.lock();
        let changed = now.1.get(camera).is_some_and(|owned| !Arc::ptr_eq(&owned.record, record));
        if changed && let Some(owned) = Arc::make_mut(&mut now.1).get_mut(camera) {
            owned.record = Arc::clone(record);
            self.owned.send_replace(Arc::clone(&now.1));
        }
    }

    fn replace(&self, owned: &mut Owned, with: Owned) {
        if !owned.is_empty() || !with.is_empty() {
            *owned = with;
            self.owned.send_replace(Arc::clone(owned));
        }
    }
}
