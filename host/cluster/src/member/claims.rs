//! Which cameras this host takes, prepares and gives up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::PREPARATION;
use super::keeper::{Alive, Done, Keeper, Local};
use super::records::{CameraRecord, CoordError, Owner, Ownership};
use super::site::Site;
use super::transactions::Me;
use crate::etcd::Fault;
use crate::site::Epoch;

/// Claims in flight. After an outage of etcd all hosts of a site claim at once, while they have to
/// renew their leases: with 50 hosts these are 400 transactions, some tenths of a second of an etcd.
const CLAIMS: usize = 8;

/// From a claim that was not as etcd has it, or of which nothing is known, to the next.
const RETRY: Duration = Duration::from_millis(300);

/// From a release that etcd did not answer to the next attempt.
const RELEASE_RETRY: Duration = Duration::from_millis(100);

/// What one look at the cameras brought.
struct Look {
    coming: BTreeMap<String, Arc<CameraRecord>>,
    leaving: BTreeMap<String, Epoch>,
    wake: Instant,
    /// What to start.
    starts: Vec<(String, Start)>,
}

enum Start {
    Claim(Option<Owner>),
    Release(Epoch),
    /// Whether it is to be written that the camera is prepared.
    Prepared(bool),
}

impl Keeper {
    /// Brings what this host owns together with what etcd says, and starts what is to be done. Says
    /// when to look again.
    pub(super) fn reconcile(&mut self, now: Instant) -> Instant {
        let never = now + PREPARATION;
        let mut look = Look {
            coming: BTreeMap::new(),
            leaving: BTreeMap::new(),
            wake: never,
            starts: Vec::new(),
        };
        let claims = self.site.refusal().is_none() && !self.departs();
        let Some(alive) = &self.alive else {
            self.tell(&look);
            return never;
        };
        let me = alive.me.clone();
        for camera in self.concerned(&me.host) {
            let local = self.cameras.entry(camera.clone()).or_default();
            self.shared.adopt(alive, &self.site, &camera, local, &mut look);
            let owned = self.shared.voice.owned().get(&camera).map(|owned| owned.epoch);
            match owned {
                Some(epoch) => owned_camera(&me, &self.site, &camera, epoch, local, now, &mut look),
                None if claims => other_camera(&me, &self.site, &camera, local, now, &mut look),
                None => {}
            }
            prepared_key(&me, &self.site, &camera, local, &mut look);
        }
        let mut claiming = self.cameras.values().filter(|local| local.claiming).count();
        for (camera, start) in std::mem::take(&mut look.starts) {
            if matches!(start, Start::Claim(_)) {
                claiming += 1;
                if claiming > CLAIMS {
                    // The end of another one looks again.
                    continue;
                }
            }
            self.start(&me, camera, start);
        }
        self.tell(&look);
        self.cameras.retain(|_, local| !local.is_idle());
        look.wake
    }

    /// The cameras that have to do with this host.
    fn concerned(&self, host: &str) -> BTreeSet<String> {
        let planned = self.site.view.plan.cameras.iter().filter(|(_, at)| *at == host);
        let owned = self.shared.voice.owned();
        planned
            .map(|(camera, _)| camera)
            .chain(self.cameras.keys())
            .chain(owned.keys())
            .cloned()
            .collect()
    }

    fn start(&mut self, me: &Me, camera: String, start: Start) {
        let me = me.clone();
        let local = self.cameras.entry(camera.clone()).or_default();
        match start {
            Start::Claim(former) => {
                local.claiming = true;
                self.jobs.spawn(async move {
                    let result = me.claim(&camera, former.as_ref()).await;
                    Done::Claimed(camera, result)
                });
            }
            Start::Release(epoch) => self.release(camera, epoch, None),
            Start::Prepared(prepared) => {
                local.writing = Some(prepared);
                self.jobs.spawn(async move {
                    let written = if prepared {
                        me.prepare(&camera).await
                    } else {
                        me.unprepare(&camera).await.map(|()| true)
                    };
                    let written = written.is_ok_and(|written| written);
                    if !written {
                        tokio::time::sleep(RETRY).await;
                    }
                    Done::Prepared(camera, written)
                });
            }
        }
    }

    pub(super) fn claimed(&mut self, camera: &str, result: Result<Option<Epoch>, Fault>) {
        let Some(alive) = &self.alive else { return };
        let local = self.cameras.entry(camera.to_owned()).or_default();
        local.claiming = false;
        match result {
            // The view was faster than this answer, and the host gave it up since.
            Ok(Some(epoch)) if epoch <= local.given_up => {}
            Ok(Some(epoch)) => {
                tracing::debug!(camera, %epoch, "claimed");
                match self.site.view.cameras.get(camera) {
                    Some(record) => {
                        let ownership = Ownership { epoch, record: Arc::clone(record) };
                        self.shared.voice.take(&alive.life, camera, ownership);
                    }
                    // Removed meanwhile.
                    None => self.release(camera.to_owned(), epoch, None),
                }
            }
            // Where a claim was made without an answer, the view brings it.
            Ok(None) | Err(_) => local.retry = Some(Instant::now() + RETRY),
        }
    }

    /// Gives a camera up: at once for this host, and in etcd as soon as that answers.
    pub(super) fn release(
        &mut self,
        camera: String,
        epoch: Epoch,
        done: Option<oneshot::Sender<Result<(), CoordError>>>,
    ) {
        self.shared.voice.drop(&camera, epoch);
        let Some(alive) = &self.alive else {
            if let Some(done) = done {
                // Who does not wait needs no answer.
                let _ = done.send(Err(CoordError::NotMember));
            }
            return;
        };
        let local = self.cameras.entry(camera.clone()).or_default();
        local.given_up = local.given_up.max(epoch);
        if let Some(waiting) = &mut local.releasing {
            waiting.extend(done);
            return;
        }
        local.releasing = Some(done.into_iter().collect());
        let me = alive.me.clone();
        self.jobs.spawn(async move {
            loop {
                if let Ok(mine) = me.release(&camera, epoch).await {
                    return Done::Released(camera, epoch, mine);
                }
                // Ends with the life, if not before.
                tokio::time::sleep(RELEASE_RETRY).await;
            }
        });
    }

    pub(super) fn released(&mut self, camera: &str, epoch: Epoch, mine: bool) {
        let local = self.cameras.entry(camera.to_owned()).or_default();
        let result = if mine {
            Ok(())
        } else {
            Err(CoordError::NotOwner { camera: camera.to_owned(), epoch })
        };
        let given_up = local.given_up;
        for done in local.releasing.take().into_iter().flatten() {
            // Who does not wait any more needs no answer.
            let _ = done.send(result.clone());
        }
        if given_up > epoch {
            // A later epoch was given up while this release was in flight.
            self.release(camera.to_owned(), given_up, None);
        }
    }

    fn tell(&self, look: &Look) {
        self.shared.coming.send_if_modified(|coming| {
            let same = coming.len() == look.coming.len()
                && coming
                    .iter()
                    .zip(&look.coming)
                    .all(|((id, record), (new, other))| id == new && Arc::ptr_eq(record, other));
            if !same {
                *coming = Arc::new(look.coming.clone());
            }
            !same
        });
        self.shared.leaving.send_if_modified(|leaving| {
            let changed = **leaving != look.leaving;
            if changed {
                *leaving = Arc::new(look.leaving.clone());
            }
            changed
        });
    }
}

impl Local {
    /// It says nothing that the site does not.
    fn is_idle(&self) -> bool {
        !self.claiming
            && self.retry.is_none()
            && self.given_up == Epoch::default()
            && self.releasing.is_none()
            && !self.prepared
            && self.writing.is_none()
            && self.elsewhere.is_none()
    }
}

impl super::Shared {
    /// Takes over what etcd says of a camera's owner: a claim without an answer was made after all, or
    /// a camera is not this host's any more.
    fn adopt(&self, alive: &Alive, site: &Site, camera: &str, local: &Local, look: &mut Look) {
        let owner = site.view.owners.get(camera);
        let owned = self.voice.owned().get(camera).map(|owned| owned.epoch);
        let record = site.view.cameras.get(camera);
        let mine = owner.filter(|owner| {
            owner.held && owner.lease == alive.me.lease && owner.epoch > local.given_up
        });
        match (owned, mine, owner) {
            (None, Some(mine), _) => match record {
                Some(record) => {
                    let ownership = Ownership { epoch: mine.epoch, record: Arc::clone(record) };
                    self.voice.take(&alive.life, camera, ownership);
                }
                None => look.starts.push((camera.to_owned(), Start::Release(mine.epoch))),
            },
            // Somebody else has it, or its key is gone: only by a hand in etcd.
            (Some(epoch), None, Some(owner)) if owner.epoch > epoch => {
                self.voice.drop(camera, epoch);
            }
            (Some(epoch), None, None) if site.view.revision >= epoch.0 => {
                self.voice.drop(camera, epoch);
            }
            (Some(_), ..) => {
                if let Some(record) = record {
                    self.voice.describe(camera, record);
                }
            }
            (None, None, _) => {}
        }
    }
}

/// Whether this host is to give up a camera that it owns.
fn owned_camera(
    me: &Me,
    site: &Site,
    camera: &str,
    epoch: Epoch,
    local: &mut Local,
    now: Instant,
    look: &mut Look,
) {
    local.retry = None;
    let planned = site.view.plan.cameras.get(camera);
    let unwanted = !site.view.cameras.contains_key(camera)
        || (planned.is_none() && site.view.plan.unplaced.contains_key(camera));
    let target = planned.filter(|host| **host != me.host);
    // Where the new host is gone, too, a new plan comes.
    let target = target.and_then(|id| Some((id, site.view.hosts.get(id)?)));
    let Some((id, host)) = target else {
        local.elsewhere = None;
        if unwanted {
            look.leaving.insert(camera.to_owned(), epoch);
        }
        return;
    };
    let since = match &local.elsewhere {
        Some((elsewhere, since)) if elsewhere == id => *since,
        _ => now,
    };
    local.elsewhere = Some((id.clone(), since));
    let ready = site.prepared.get(camera) == Some(&host.lease);
    if unwanted || ready || now >= since + PREPARATION {
        look.leaving.insert(camera.to_owned(), epoch);
    } else {
        look.wake = look.wake.min(since + PREPARATION);
    }
}

/// Whether this host is to take a camera that it does not own.
fn other_camera(
    me: &Me,
    site: &Site,
    camera: &str,
    local: &mut Local,
    now: Instant,
    look: &mut Look,
) {
    local.elsewhere = None;
    let planned = site.view.plan.cameras.get(camera) == Some(&me.host);
    let Some(record) = site.view.cameras.get(camera).filter(|_| planned) else {
        local.retry = None;
        return;
    };
    if local.claiming || local.releasing.is_some() {
        return;
    }
    let owner = site.view.owners.get(camera);
    match owner.filter(|owner| site.view.lives(owner)) {
        // Its own release, which the view does not have yet.
        Some(owner) if owner.host == me.host => {}
        Some(_) => drop(look.coming.insert(camera.to_owned(), Arc::clone(record))),
        None => match local.retry.filter(|at| *at > now) {
            Some(at) => look.wake = look.wake.min(at),
            None => {
                local.retry = None;
                look.starts.push((camera.to_owned(), Start::Claim(owner.cloned())));
            }
        },
    }
}

/// Whether it is to be written that this host has prepared a camera, or no more.
fn prepared_key(me: &Me, site: &Site, camera: &str, local: &mut Local, look: &mut Look) {
    let coming = look.coming.contains_key(camera);
    let written = site.prepared.get(camera) == Some(&me.lease);
    local.prepared &= coming;
    if local.writing == Some(written) || (!coming && !written) {
        local.writing = None;
    }
    // A claim takes the key with it.
    if local.claiming || local.writing.is_some() {
        return;
    }
    if local.prepared && !written {
        look.starts.push((camera.to_owned(), Start::Prepared(true)));
    } else if !coming && written {
        look.starts.push((camera.to_owned(), Start::Prepared(false)));
    }
}
