//! Small documents that hosts of a site share: deployments, rollouts, tokens.
//!
//! A document lies under the site's prefix in etcd, at a key of its own choice (`rollout/7`) in a
//! folder that coordination does not use. Its [`Revision`] changes with each write: a writer that names
//! the one which it has read overwrites nothing that it has not seen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{Compare, CompareOp, Txn, TxnOp};
use tokio::sync::watch;

use crate::etcd::keys::bad_document;
use crate::etcd::{Entry, Etcd, Event, Fault, signed};
use crate::member::CoordError;

/// From a failed reading to the next.
const RETRY: Duration = Duration::from_millis(300);

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
    etcd: Etcd,
}

impl Documents {
    pub(crate) fn new(etcd: Etcd) -> Self {
        Self { etcd }
    }

    pub async fn get(&self, key: &str) -> Result<Option<Document>, CoordError> {
        check(key)?;
        let entry = self.etcd.get(key).await.map_err(|fault| fault.about(key))?;
        Ok(entry.map(|entry| document(entry).1))
    }

    /// All documents whose keys begin with `prefix`.
    pub async fn list(&self, prefix: &str) -> Result<DocumentMap, CoordError> {
        check(prefix)?;
        let (entries, _) = self.etcd.read(&[prefix]).await.map_err(|fault| fault.about(prefix))?;
        Ok(entries.into_iter().map(document).collect())
    }

    /// Writes a document where it is as expected, [`CoordError::Changed`] where it is not.
    pub async fn put(
        &self,
        key: &str,
        value: &[u8],
        expect: Expect,
    ) -> Result<Revision, CoordError> {
        check(key)?;
        let whole = self.etcd.key(key);
        let expected: Vec<_> = expected(&whole, expect).into_iter().collect();
        let txn = Txn::new().when(expected).and_then([TxnOp::put(whole, value, None)]);
        let outcome = self.etcd.transact(txn).await.map_err(|fault| fault.about(key))?;
        if outcome.held {
            Ok(Revision(outcome.revision))
        } else {
            Err(CoordError::Changed { key: key.to_owned() })
        }
    }

    /// Deletes a document where it is as expected. False where there was none.
    pub async fn delete(&self, key: &str, expect: Expect) -> Result<bool, CoordError> {
        check(key)?;
        let whole = self.etcd.key(key);
        let there = Compare::create_revision(whole.clone(), CompareOp::Greater, 0);
        let as_expected = expected(&whole, expect).unwrap_or_else(|| there.clone());
        let txn = Txn::new().when([there, as_expected]).and_then([TxnOp::delete(whole, None)]);
        let outcome = self.etcd.transact(txn).await.map_err(|fault| fault.about(key))?;
        if outcome.held {
            return Ok(true);
        }
        match self.etcd.get(key).await.map_err(|fault| fault.about(key))? {
            Some(_) => Err(CoordError::Changed { key: key.to_owned() }),
            None => Ok(false),
        }
    }

    /// A watched copy of the documents whose keys begin with `prefix`; `None` until they have been
    /// read. It is kept until the last receiver is dropped. Needs a tokio runtime.
    pub fn watch(
        &self,
        prefix: &str,
    ) -> Result<watch::Receiver<Option<Arc<DocumentMap>>>, CoordError> {
        check(prefix)?;
        let (copy, receiver) = watch::channel(None);
        let (etcd, prefix) = (self.etcd.clone(), prefix.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = copy.closed() => {}
                () = follow(&etcd, &prefix, &copy) => {}
            }
        });
        Ok(receiver)
    }
}

/// Fails where no document can lie at `key`.
pub(crate) fn check(key: &str) -> Result<(), CoordError> {
    match bad_document(key) {
        Some(why) => Err(CoordError::Key(key.to_owned(), why)),
        None => Ok(()),
    }
}

fn expected(key: &str, expect: Expect) -> Option<Compare> {
    let revision = match expect {
        Expect::Anything => return None,
        Expect::Nothing => 0,
        Expect::Revision(Revision(revision)) => signed(revision),
    };
    Some(Compare::mod_revision(key, CompareOp::Equal, revision))
}

fn document(entry: Entry) -> (String, Document) {
    (entry.key, Document { value: entry.value, revision: Revision(entry.modified) })
}

type Copy = watch::Sender<Option<Arc<DocumentMap>>>;

/// Keeps `copy` up to date, for ever.
async fn follow(etcd: &Etcd, prefix: &str, copy: &Copy) {
    loop {
        let Err(fault) = follow_once(etcd, prefix, copy).await;
        tracing::debug!(prefix, "documents are read anew: {}", fault.reason());
        tokio::time::sleep(RETRY).await;
    }
}

async fn follow_once(
    etcd: &Etcd,
    prefix: &str,
    copy: &Copy,
) -> Result<std::convert::Infallible, Fault> {
    let (entries, revision) = etcd.read(&[prefix]).await?;
    let mut documents: Arc<DocumentMap> = Arc::new(entries.into_iter().map(document).collect());
    copy.send_if_modified(|old| {
        let changed = old.as_ref() != Some(&documents);
        *old = Some(Arc::clone(&documents));
        changed
    });
    let mut changes = etcd.watch(prefix, revision + 1).await?;
    loop {
        let map = Arc::make_mut(&mut documents);
        for event in changes.next().await? {
            match event {
                Event::Put(entry) => map.extend([document(entry)]),
                Event::Deleted { key, .. } => drop(map.remove(&key)),
            }
        }
        copy.send_replace(Some(Arc::clone(&documents)));
    }
}
