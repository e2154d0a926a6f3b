//! Cameras that subscribers had made: they are there while hosts have subscribers of them.

use etcd_client::{Compare, CompareOp, Txn, TxnOp};

use super::records::{CameraRecord, CoordError, Making};
use super::transactions::{Me, json, leased};
use super::{Member, about, check_camera};
use crate::documents::check;
use crate::etcd::keys::{CAMERA, PIN, listeners};
use crate::etcd::{Fault, signed};

/// How often a camera is tried to be added while others change the site's cameras: each try that
/// fails means that somebody else's succeeded.
const TRIES: usize = 16;

impl Member {
    /// Adds a camera that a subscriber of this host asks for, unless there is one of this name or
    /// the site has `most` cameras. Of hosts that are asked at the same time one makes it, and none
    /// makes one too many. A camera that is made counts as listened to by this host.
    pub async fn make_camera(
        &self,
        id: &str,
        record: &CameraRecord,
        most: u64,
    ) -> Result<Making, CoordError> {
        check_camera(id)?;
        for _ in 0..TRIES {
            let me = self.me()?;
            if me.etcd.get(&format!("{CAMERA}{id}")).await.map_err(about(id))?.is_some() {
                return Ok(Making::There);
            }
            let (count, revision) = me.etcd.count(CAMERA).await.map_err(about(id))?;
            if count >= most {
                return Ok(Making::Full(count));
            }
            if me.make(id, record, revision).await.map_err(about(id))? {
                return Ok(Making::Made);
            }
        }
        Err(CoordError::Changed { key: format!("{CAMERA}{id}") })
    }

    /// Says that this host has subscribers of a camera. False where there is no such camera: it was
    /// removed.
    pub async fn listen(&self, camera: &str) -> Result<bool, CoordError> {
        check_camera(camera)?;
        self.me()?.listen(camera).await.map_err(about(camera))
    }

    /// Takes back what [`Member::listen`] said at `revision`; what it has said since stays.
    pub async fn unlisten(&self, camera: &str, revision: u64) -> Result<(), CoordError> {
        check_camera(camera)?;
        self.me()?.unlisten(camera, revision).await.map_err(about(camera))
    }

    /// Removes a camera that subscribers had made, with these documents: with `deserted` only where
    /// no host listens to it at that moment. False where it is not removed.
    pub async fn remove_made(
        &self,
        camera: &str,
        deserted: bool,
        documents: &[String],
    ) -> Result<bool, CoordError> {
        check_camera(camera)?;
        documents.iter().try_for_each(|key| check(key))?;
        self.me()?.remove_made(camera, deserted, documents).await.map_err(about(camera))
    }
}

impl Me {
    /// Puts a camera, and that this host listens to it. Holds only where no camera has been put
    /// since `revision`, at which there were few enough, and none of this name: of two hosts that
    /// have counted the same, one has to count again.
    async fn make(
        &self,
        camera: &str,
        record: &CameraRecord,
        revision: u64,
    ) -> Result<bool, Fault> {
        let key = self.key(CAMERA, camera);
        let later = signed(revision.saturating_add(1));
        let when = [
            self.lives(),
            Compare::create_revision(key.clone(), CompareOp::Equal, 0),
            Compare::mod_revision(self.etcd.key(CAMERA), CompareOp::Less, later).with_prefix(),
        ];
        let then = [TxnOp::put(key, json(record), None), self.listens(camera)];
        Ok(self.etcd.transact(Txn::new().when(when).and_then(then)).await?.held)
    }

    async fn listen(&self, camera: &str) -> Result<bool, Fault> {
        let there = Compare::create_revision(self.key(CAMERA, camera), CompareOp::Greater, 0);
        let txn = Txn::new().when([self.lives(), there]).and_then([self.listens(camera)]);
        Ok(self.etcd.transact(txn).await?.held)
    }

    async fn unlisten(&self, camera: &str, revision: u64) -> Result<(), Fault> {
        let key = self.listener(camera);
        let as_said = Compare::mod_revision(key.clone(), CompareOp::Equal, signed(revision));
        let txn = Txn::new().when([as_said]).and_then([TxnOp::delete(key, None)]);
        self.etcd.transact(txn).await.map(drop)
    }

    async fn remove_made(
        &self,
        camera: &str,
        deserted: bool,
        documents: &[String],
    ) -> Result<bool, Fault> {
        let Some(entry) = self.etcd.get(&format!("{CAMERA}{camera}")).await? else {
            return Ok(false);
        };
        let made = serde_json::from_slice(&entry.value).is_ok_and(|it: CameraRecord| it.made);
        if !made {
            return Ok(false);
        }
        let key = self.key(CAMERA, camera);
        let read = Compare::mod_revision(key.clone(), CompareOp::Equal, signed(entry.modified));
        let mut when = vec![self.lives(), read];
        if deserted {
            // Of all keys in the folder: it holds where there is none.
            let folder = self.etcd.key(&listeners(camera));
            when.push(Compare::create_revision(folder, CompareOp::Equal, 0).with_prefix());
        }
        let mut then = vec![TxnOp::delete(key, None), TxnOp::delete(self.key(PIN, camera), None)];
        then.extend(documents.iter().map(|key| TxnOp::delete(self.etcd.key(key), None)));
        Ok(self.etcd.transact(Txn::new().when(when).and_then(then)).await?.held)
    }

    fn listener(&self, camera: &str) -> String {
        self.key(&listeners(camera), &self.host)
    }

    fn listens(&self, camera: &str) -> TxnOp {
        TxnOp::put(self.listener(camera), "", Some(leased(self.lease)))
    }
}
