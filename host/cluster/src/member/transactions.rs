//! What a member writes to etcd. Each is one transaction whose comparisons prove what it depends on.

use std::collections::BTreeSet;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp};
use serde::Serialize;

use super::records::{CameraRecord, HostRecord, LeaseId, Owner, SiteRefusal};
use super::site::{HostDocument, Named, OwnerDocument, PlanDocument};
use crate::etcd::keys::{CAMERA, DRAIN, HOST, OWNER, PIN, PLAN, PREPARED};
use crate::etcd::{Etcd, Fault, signed};
use crate::lease::BootTime;
use crate::plan::Plan;
use crate::site::Epoch;

/// This host, in one of its lives.
#[derive(Debug, Clone)]
pub(super) struct Me {
    pub(super) etcd: Etcd,
    pub(super) host: String,
    pub(super) lease: LeaseId,
}

/// Why a host did not join.
#[derive(Debug)]
pub(super) enum NotJoined {
    Refused(SiteRefusal),
    Fault(Fault),
}

/// A host's attempt to join.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) etcd: Etcd,
    pub(super) host: String,
    pub(super) record: HostRecord,
    /// The leases of this host's lives that are over: by its own clock, so nobody speaks by them.
    pub(super) formers: BTreeSet<LeaseId>,
}

/// A lease, and when it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Granted {
    pub(super) lease: LeaseId,
    pub(super) sent: BootTime,
}

impl Joining {
    /// Gets a lease and puts the host's key. The lease, if there is one, may be with the key even
    /// where joining failed.
    pub(super) async fn run(&self) -> (Option<Granted>, Result<(), NotJoined>) {
        let as_read = match self.look().await {
            Ok(revision) => revision,
            Err(error) => return (None, Err(error)),
        };
        let sent = BootTime::now();
        let lease = match self.etcd.grant().await {
            Ok(lease) => LeaseId(lease),
            Err(fault) => return (None, Err(NotJoined::Fault(fault))),
        };
        let granted = Some(Granted { lease, sent });
        let key = self.etcd.key(&format!("{HOST}{}", self.host));
        let document = json(&HostDocument::new(self.record.clone()));
        let txn = Txn::new()
            .when([Compare::mod_revision(key.clone(), CompareOp::Equal, signed(as_read))])
            .and_then([TxnOp::put(key, document, Some(leased(lease)))]);
        let result = match self.etcd.transact(txn).await {
            Ok(outcome) if outcome.held => Ok(()),
            Ok(_) => Err(NotJoined::Fault(Fault::Unavailable("the host's key changed".into()))),
            Err(fault) => Err(NotJoined::Fault(fault)),
        };
        if result.is_err() {
            // It ends by itself, too, only later.
            let _ = self.etcd.revoke(lease.0).await;
        }
        (granted, result)
    }

    /// The revision of this host's key, 0 where there is none, if no other process has it.
    async fn look(&self) -> Result<u64, NotJoined> {
        let key = format!("{HOST}{}", self.host);
        let Some(entry) = self.etcd.get(&key).await.map_err(NotJoined::Fault)? else {
            return Ok(0);
        };
        let lease = LeaseId(entry.lease);
        if self.formers.contains(&lease) {
            return Ok(entry.modified);
        }
        let record = serde_json::from_slice::<HostDocument>(&entry.value).ok();
        let record = record.map(|document| document.record).unwrap_or_default();
        Err(NotJoined::Refused(SiteRefusal::SameHost {
            host: self.host.clone(),
            version: record.version,
            address: record.address,
            lease,
        }))
    }
}

impl Me {
    pub(super) fn key(&self, folder: &str, name: &str) -> String {
        self.etcd.key(&format!("{folder}{name}"))
    }

    /// This host's key lives with this life's lease.
    pub(super) fn lives(&self) -> Compare {
        Compare::lease(self.key(HOST, &self.host), CompareOp::Equal, self.lease.0)
    }

    fn owner(&self, held: bool) -> Vec<u8> {
        json(&OwnerDocument { host: self.host.clone(), lease: self.lease, held })
    }

    /// Claims a camera, whose owner was read as `former`. `None` where that is not so (any more).
    pub(super) async fn claim(
        &self,
        camera: &str,
        former: Option<&Owner>,
    ) -> Result<Option<Epoch>, Fault> {
        let key = self.key(OWNER, camera);
        let as_read = former.map_or(0, |owner| signed(owner.epoch.0));
        let mut when = vec![
            self.lives(),
            Compare::create_revision(self.key(CAMERA, camera), CompareOp::Greater, 0),
            Compare::mod_revision(key.clone(), CompareOp::Equal, as_read),
        ];
        if let Some(owner) = former.filter(|owner| owner.held) {
            // An absent key has lease 0: the former owner is dead, whether or not it is back.
            let host = self.key(HOST, &owner.host);
            when.push(Compare::lease(host, CompareOp::NotEqual, owner.lease.0));
        }
        let then = [
            TxnOp::put(key, self.owner(true), None),
            TxnOp::delete(self.key(PREPARED, camera), None),
        ];
        let outcome = self.etcd.transact(Txn::new().when(when).and_then(then)).await?;
        Ok(outcome.held.then_some(Epoch(outcome.revision)))
    }

    /// Gives a camera up. False where it is not this life's with `epoch`.
    pub(super) async fn release(&self, camera: &str, epoch: Epoch) -> Result<bool, Fault> {
        let key = self.key(OWNER, camera);
        let mine = [
            Compare::mod_revision(key.clone(), CompareOp::Equal, signed(epoch.0)),
            Compare::value(key.clone(), CompareOp::Equal, self.owner(true)),
        ];
        let wanted = Compare::create_revision(self.key(CAMERA, camera), CompareOp::Greater, 0);
        let mut when = mine.to_vec();
        when.push(wanted);
        let put = TxnOp::put(key.clone(), self.owner(false), None);
        if self.etcd.transact(Txn::new().when(when).and_then([put])).await?.held {
            return Ok(true);
        }
        // A camera that was removed leaves nothing behind.
        let delete = TxnOp::delete(key, None);
        Ok(self.etcd.transact(Txn::new().when(mine).and_then([delete])).await?.held)
    }

    /// Says that this host has prepared a camera.
    pub(super) async fn prepare(&self, camera: &str) -> Result<bool, Fault> {
        let value = json(&Named { host: self.host.clone() });
        let put = TxnOp::put(self.key(PREPARED, camera), value, Some(leased(self.lease)));
        let txn = Txn::new().when([self.lives()]).and_then([put]);
        Ok(self.etcd.transact(txn).await?.held)
    }

    /// Takes [`Me::prepare`] back.
    pub(super) async fn unprepare(&self, camera: &str) -> Result<(), Fault> {
        let key = self.key(PREPARED, camera);
        let mine = Compare::lease(key.clone(), CompareOp::Equal, self.lease.0);
        let txn = Txn::new().when([mine]).and_then([TxnOp::delete(key, None)]);
        self.etcd.transact(txn).await.map(drop)
    }

    /// Says anew what this host is. False where it does not live any more.
    pub(super) async fn describe(&self, record: HostRecord) -> Result<bool, Fault> {
        let value = json(&HostDocument::new(record));
        let put = TxnOp::put(self.key(HOST, &self.host), value, Some(leased(self.lease)));
        let txn = Txn::new().when([self.lives()]).and_then([put]);
        Ok(self.etcd.transact(txn).await?.held)
    }

    /// Replaces the plan that was read at `as_read`. `None` where there is another.
    pub(super) async fn write_plan(&self, plan: &Plan, as_read: u64) -> Result<Option<u64>, Fault> {
        let key = self.etcd.key(PLAN);
        let when =
            [self.lives(), Compare::mod_revision(key.clone(), CompareOp::Equal, signed(as_read))];
        let put = TxnOp::put(key, json(&PlanDocument::new(plan)), None);
        let outcome = self.etcd.transact(Txn::new().when(when).and_then([put])).await?;
        Ok(outcome.held.then_some(outcome.revision))
    }

    /// Deletes the owner of a camera that is no more, if it is still as read.
    pub(super) async fn forget(&self, camera: &str, epoch: Epoch) -> Result<(), Fault> {
        let key = self.key(OWNER, camera);
        let when = [
            Compare::create_revision(self.key(CAMERA, camera), CompareOp::Equal, 0),
            Compare::mod_revision(key.clone(), CompareOp::Equal, signed(epoch.0)),
        ];
        let txn = Txn::new().when(when).and_then([TxnOp::delete(key, None)]);
        self.etcd.transact(txn).await.map(drop)
    }

    /// Writes a document, if the camera is this life's with `epoch`.
    pub(super) async fn put_owned(
        &self,
        camera: &str,
        epoch: Epoch,
        key: &str,
        value: &[u8],
    ) -> Result<bool, Fault> {
        let owner = self.key(OWNER, camera);
        let when = [
            self.lives(),
            // A camera that is removed keeps nothing, even while its owner still has to release it.
            Compare::create_revision(self.key(CAMERA, camera), CompareOp::Greater, 0),
            Compare::mod_revision(owner.clone(), CompareOp::Equal, signed(epoch.0)),
            Compare::value(owner, CompareOp::Equal, self.owner(true)),
        ];
        let txn = Txn::new().when(when).and_then([TxnOp::put(self.etcd.key(key), value, None)]);
        Ok(self.etcd.transact(txn).await?.held)
    }
}

/// Writes nothing where the same is there.
pub(super) async fn put_camera(
    etcd: &Etcd,
    camera: &str,
    record: &CameraRecord,
) -> Result<(), Fault> {
    let (key, value) = (etcd.key(&format!("{CAMERA}{camera}")), json(record));
    let same = Compare::value(key.clone(), CompareOp::Equal, value.clone());
    let txn = Txn::new().when([same]).or_else([TxnOp::put(key, value, None)]);
    etcd.transact(txn).await.map(drop)
}

/// Removes a camera and what was wished for it. False where there was none.
pub(super) async fn remove_camera(etcd: &Etcd, camera: &str) -> Result<bool, Fault> {
    let key = etcd.key(&format!("{CAMERA}{camera}"));
    let there = Compare::create_revision(key.clone(), CompareOp::Greater, 0);
    let pin = etcd.key(&format!("{PIN}{camera}"));
    let delete = [TxnOp::delete(key, None), TxnOp::delete(pin, None)];
    Ok(etcd.transact(Txn::new().when([there]).and_then(delete)).await?.held)
}

/// False where there is no such camera.
pub(super) async fn move_camera(
    etcd: &Etcd,
    camera: &str,
    host: Option<&str>,
) -> Result<bool, Fault> {
    let key = etcd.key(&format!("{CAMERA}{camera}"));
    let there = Compare::create_revision(key, CompareOp::Greater, 0);
    let pin = etcd.key(&format!("{PIN}{camera}"));
    let wish = match host {
        Some(host) => TxnOp::put(pin, json(&Named { host: host.to_owned() }), None),
        None => TxnOp::delete(pin, None),
    };
    Ok(etcd.transact(Txn::new().when([there]).and_then([wish])).await?.held)
}

pub(super) async fn set_draining(etcd: &Etcd, host: &str, draining: bool) -> Result<(), Fault> {
    let key = etcd.key(&format!("{DRAIN}{host}"));
    let wish = if draining {
        TxnOp::put(key, json(&Named { host: host.to_owned() }), None)
    } else {
        TxnOp::delete(key, None)
    };
    etcd.transact(Txn::new().and_then([wish])).await.map(drop)
}

pub(super) fn leased(lease: LeaseId) -> PutOptions {
    PutOptions::new().with_lease(lease.0)
}

/// Types of maps with text as keys and of numbers, which JSON always can have.
pub(super) fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}
