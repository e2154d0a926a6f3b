//! Small documents that hosts of a site share: deployments, rollouts, tokens.
//!
//! A document lies under the site's prefix in etcd, at a key of its own choice (`rollout/7`) that
//! coordination does not use. Its [`Revision`] changes with each write: a writer that names the one
//! which it has read overwrites nothing that it has not seen.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch;

use crate::etcd::Etcd;
use crate::member::CoordError;

/// etcd's revision of a document's last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u64);

/// A document as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    pub value: Bytes,
    pub revision: Revision,
}

/// What a writer wants to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Whatever is there.
    Anything,
    /// No document.
    Nothing,
    /// That which was read.
    Revision(Revision),
}

/// Documents by their keys.
pub type DocumentMap = BTreeMap<String, Document>;

/// The documents of a site.
#[derive(Debug, Clone)]
pub struct Documents {
    _etcd: Etcd,
}

impl Documents {
    pub(crate) fn new(etcd: Etcd) -> Self {
        Self { _etcd: etcd }
    }

    pub async fn get(&self, _key: &str) -> Result<Option<Document>, CoordError> {
        Err(CoordError::NotMember)
    }

    /// All documents whose keys begin with `prefix`.
    pub async fn list(&self, _prefix: &str) -> Result<DocumentMap, CoordError> {
        Err(CoordError::NotMember)
    }

    /// Writes a document where it is as expected, [`CoordError::Changed`] where it is not.
    pub async fn put(
        &self,
        _key: &str,
        _value: &[u8],
        _expect: Expect,
    ) -> Result<Revision, CoordError> {
        Err(CoordError::NotMember)
    }

    /// Deletes a document where it is as expected. False where there was none.
    pub async fn delete(&self, _key: &str, _expect: Expect) -> Result<bool, CoordError> {
        Err(CoordError::NotMember)
    }

    /// A watched copy of the documents whose keys begin with `prefix`; `None` until they have been
    /// read. It is kept until the last receiver is dropped.
    pub fn watch(
        &self,
        _prefix: &str,
    ) -> Result<watch::Receiver<Option<Arc<DocumentMap>>>, CoordError> {
        Ok(watch::Sender::default().subscribe())
    }
}
