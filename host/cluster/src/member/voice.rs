//! For which cameras this host may speak at this moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::records::{CameraRecord, LeaseId, Ownership};
use crate::lease::BootTime;
use crate::site::Epoch;

pub(super) type Owned = Arc<BTreeMap<String, Ownership>>;

/// One life of a host: until when it may speak, if nothing renews its lease.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// [`BootTime::as_nanos`]; 0 for one that is over.
    until: AtomicU64,
    lease: Option<LeaseId>,
}

impl Life {
    pub(super) fn new(lease: LeaseId, until: BootTime) -> Arc<Self> {
        Arc::new(Self { until: AtomicU64::new(until.as_nanos()), lease: Some(lease) })
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
    /// Receivers see the changes in their order: locked while `now` is changed and sent. `now` itself is
    /// not locked while sending, which waits for receivers that look: they may ask whether they may
    /// speak.
    owned: Mutex<watch::Sender<Owned>>,
}

impl Voice {
    pub(super) fn new() -> Self {
        let owned = Owned::default();
        Self {
            now: Mutex::new((Arc::default(), Arc::clone(&owned))),
            owned: Mutex::new(watch::Sender::new(owned)),
        }
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Owned> {
        self.owned.lock().subscribe()
    }

    pub(super) fn owned(&self) -> Owned {
        Arc::clone(&self.now.lock().1)
    }

    pub(super) fn may_speak(&self, camera: &str, epoch: Epoch) -> bool {
        let now = self.now.lock();
        now.1.get(camera).is_some_and(|ownership| ownership.epoch == epoch) && now.0.holds()
    }

    /// The lease of this life, if it holds.
    pub(super) fn lease(&self) -> Option<LeaseId> {
        let now = self.now.lock();
        now.0.lease.filter(|_| now.0.holds())
    }

    /// Begins a life, without cameras.
    pub(super) fn begin(&self, life: &Arc<Life>) {
        self.change(|now_life, owned| {
            *now_life = Arc::clone(life);
            *owned = Owned::default();
            true
        });
    }

    /// Ends a life, and with it what is owned in it.
    pub(super) fn end(&self, life: &Arc<Life>) {
        // At once, whoever looks at what is owned.
        life.until.store(0, Ordering::Release);
        self.change(|now_life, owned| {
            let ends = Arc::ptr_eq(now_life, life);
            if ends {
                *owned = Owned::default();
            }
            ends
        });
    }

    /// Owns a camera, unless the life is over.
    pub(super) fn take(&self, life: &Arc<Life>, camera: &str, ownership: Ownership) {
        self.change(|now_life, owned| {
            let holds = Arc::ptr_eq(now_life, life) && life.holds();
            if holds {
                Arc::make_mut(owned).insert(camera.to_owned(), ownership);
            }
            holds
        });
    }

    /// Gives a camera up, if it is owned with that epoch.
    pub(super) fn drop(&self, camera: &str, epoch: Epoch) {
        self.change(|_, owned| {
            let owns = owned.get(camera).is_some_and(|ownership| ownership.epoch == epoch);
            if owns {
                Arc::make_mut(owned).remove(camera);
            }
            owns
        });
    }

    /// What is wanted of an owned camera may have changed.
    pub(super) fn describe(&self, camera: &str, record: &Arc<CameraRecord>) {
        let other = |ownership: &Ownership| !Arc::ptr_eq(&ownership.record, record);
        if !self.owned().get(camera).is_some_and(other) {
            return;
        }
        self.change(|_, owned| match Arc::make_mut(owned).get_mut(camera) {
            Some(ownership) => {
                ownership.record = Arc::clone(record);
                true
            }
            None => false,
        });
    }

    /// Changes what is owned, and sends it where `change` says so.
    fn change(&self, change: impl FnOnce(&mut Arc<Life>, &mut Owned) -> bool) {
        let sender = self.owned.lock();
        let owned = {
            let mut now = self.now.lock();
            let (life, owned) = &mut *now;
            if !change(life, owned) {
                return;
            }
            Arc::clone(owned)
        };
        sender.send_if_modified(|sent| {
            let differs = !Arc::ptr_eq(sent, &owned) && (!sent.is_empty() || !owned.is_empty());
            *sent = owned;
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn record() -> Arc<CameraRecord> {
        Arc::new(serde_json::from_str(r#"{"entry":{}}"#).unwrap())
    }

    fn life(millis: u64) -> Arc<Life> {
        Life::new(LeaseId(1), BootTime::now().after(Duration::from_millis(millis)))
    }

    #[test]
    fn a_lease_that_may_have_ended_silences_without_anybody_saying_so() {
        let voice = Voice::new();
        let life = life(0);
        voice.begin(&life);
        voice.take(&life, "x", Ownership { epoch: Epoch(7), record: record() });
        assert!(voice.owned().is_empty(), "nothing is taken by it either");
        life.extend(BootTime::now().after(Duration::from_secs(3600)));
        voice.take(&life, "x", Ownership { epoch: Epoch(7), record: record() });
        assert!(voice.may_speak("x", Epoch(7)));
        assert!(!voice.may_speak("x", Epoch(6)) && !voice.may_speak("y", Epoch(7)));
    }

    #[test]
    fn a_new_life_says_nothing_for_the_cameras_of_the_old_one() {
        let voice = Voice::new();
        let old = life(3_600_000);
        voice.begin(&old);
        voice.take(&old, "x", Ownership { epoch: Epoch(7), record: record() });
        let receiver = voice.subscribe();
        voice.end(&old);
        assert!(receiver.borrow().is_empty());
        let new = life(3_600_000);
        voice.begin(&new);
        // What was in flight in the old life.
        old.extend(BootTime::now().after(Duration::from_secs(3600)));
        voice.take(&old, "x", Ownership { epoch: Epoch(8), record: record() });
        assert!(!voice.may_speak("x", Epoch(7)) && !voice.may_speak("x", Epoch(8)));
    }

    /// Whoever looks at what is owned keeps the sender waiting, and may ask meanwhile.
    #[test]
    fn who_looks_at_what_is_owned_may_ask_whether_it_may_speak() {
        let voice = Arc::new(Voice::new());
        let life = life(3_600_000);
        voice.begin(&life);
        voice.take(&life, "x", Ownership { epoch: Epoch(1), record: record() });
        let receiver = voice.subscribe();
        let (asked, ask) = std::sync::mpsc::channel::<()>();
        let changing = {
            let (voice, life) = (Arc::clone(&voice), Arc::clone(&life));
            std::thread::spawn(move || {
                for epoch in 2..2000 {
                    let record = record();
                    voice.take(&life, "x", Ownership { epoch: Epoch(epoch), record });
                }
                drop(asked);
            })
        };
        while ask.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            for (camera, ownership) in receiver.borrow().iter() {
                voice.may_speak(camera, ownership.epoch);
            }
        }
        changing.join().unwrap();
        assert!(voice.may_speak("x", Epoch(1999)));
    }
}
