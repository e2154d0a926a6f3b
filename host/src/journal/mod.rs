//! What the host keeps on disk beside files: the sessions' `wasi:keyvalue` stores, and the history of deployments.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use ocelli_protocol::worker::{Kept, KeptChange};

/// The journal. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Journal {
    kept: Arc<Mutex<BTreeMap<String, Kept>>>,
}

impl Journal {
    /// What a session's store holds, all changes before included.
    pub async fn kept(&self, session: &str) -> anyhow::Result<Kept> {
        let stores = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(stores.get(session).cloned().unwrap_or_default())
    }

    /// Keeps changes of a session's store: all of them or none.
    pub async fn keep(&self, session: &str, changes: Vec<KeptChange>) -> anyhow::Result<()> {
        let mut stores = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let store = stores.entry(session.to_owned()).or_default();
        for KeptChange { bucket, key, value } in changes {
            let bucket = store.entry(bucket).or_default();
            match value {
                Some(value) => drop(bucket.insert(key, value)),
                None => drop(bucket.remove(&key)),
            }
        }
        Ok(())
    }
}
