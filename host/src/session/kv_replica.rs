//! The host's copy of a session's `wasi:keyvalue` store: the next worker gets it, and a worker's
//! changes are validated against it.

use ocelli_protocol::limit::{MAX_STORE_BUCKET, MAX_STORE_BUCKETS, MAX_STORE_KEY};
use ocelli_protocol::wire;
use ocelli_protocol::worker::{StoreChange, StoreContents, WorkerLimits};

use crate::worker::WorkerFault;

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct StoreReplica {
    contents: StoreContents,
    bytes: usize,
    keys: usize,
}

impl StoreReplica {
    pub(crate) fn new(contents: StoreContents) -> Self {
        let mut replica = Self { contents, bytes: 0, keys: 0 };
        (replica.bytes, replica.keys) = size(&replica.contents);
        replica
    }

    /// Raises the limits to the present size: a store above lowered limits stays and may not grow.
    pub(crate) fn raise_limits(&self, limits: &mut WorkerLimits) {
        limits.store_bytes = limits.store_bytes.max(u32::try_from(self.bytes).unwrap_or(u32::MAX));
        limits.store_keys = limits.store_keys.max(u32::try_from(self.keys).unwrap_or(u32::MAX));
    }

    /// Encodes the store as the payload of `LoadStore`.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // Texts and bytes always serialise.
        wire::to_bytes(&self.contents).unwrap_or_default()
    }

    /// Applies the changes of one call. An error says how the worker breaks its limits; the replica
    /// is unusable then.
    pub(crate) fn apply(
        &mut self,
        changes: &[StoreChange],
        limits: &WorkerLimits,
    ) -> Result<(), WorkerFault> {
        for StoreChange { bucket, key, value } in changes {
            if bucket.len() > MAX_STORE_BUCKET || key.len() > MAX_STORE_KEY {
                return Err(WorkerFault::ProtocolViolation(format!(
                    "a bucket's name of {} bytes, a key of {}",
                    bucket.len(),
                    key.len()
                )));
            }
            let entries = self.contents.entry(bucket.clone()).or_default();
            if entries.is_empty() {
                self.bytes += bucket.len();
            }
            let before = match value {
                Some(value) => {
                    self.bytes += key.len() + value.len();
                    self.keys += 1;
                    entries.insert(key.clone(), value.clone())
                }
                None => entries.remove(key),
            };
            if let Some(before) = before {
                self.bytes -= key.len() + before.len();
                self.keys -= 1;
            }
            if entries.is_empty() {
                self.bytes -= bucket.len();
                self.contents.remove(bucket);
            }
        }
        let (most_bytes, most_keys) = (limits.store_bytes as usize, limits.store_keys as usize);
        if self.bytes > most_bytes
            || self.keys > most_keys
            || self.contents.len() > MAX_STORE_BUCKETS
        {
            return Err(WorkerFault::ProtocolViolation(format!(
                "its store has {} bytes in {} keys and {} buckets: at most {most_bytes} in \
                 {most_keys} and {MAX_STORE_BUCKETS} are kept",
                self.bytes,
                self.keys,
                self.contents.len()
            )));
        }
        Ok(())
    }
}

/// The store's size: bytes of names, keys and values together, and keys.
fn size(contents: &StoreContents) -> (usize, usize) {
    let entries = contents.values().flatten();
    let bytes = entries.map(|(key, value)| key.len() + value.len()).sum::<usize>();
    let names = contents.keys().map(String::len).sum::<usize>();
    (bytes + names, contents.values().map(|bucket| bucket.len()).sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn limits() -> WorkerLimits {
        WorkerLimits { store_bytes: 400, store_keys: 12, ..crate::worker::tests::limits() }
    }

    fn change() -> impl Strategy<Value = StoreChange> {
        let value = proptest::option::of(proptest::collection::vec(any::<u8>(), 0..8));
        ("[ab]", "[a-d]", value).prop_map(|(bucket, key, value)| StoreChange { bucket, key, value })
    }

    proptest! {
        #[test]
        fn sizes_are_those_of_what_is_kept(changes in proptest::collection::vec(change(), 0..60)) {
            let mut replica = StoreReplica::default();
            for change in changes {
                replica.apply(&[change], &limits()).unwrap();
                prop_assert_eq!((replica.bytes, replica.keys), size(&replica.contents));
                let again = StoreReplica::new(wire::decode(&replica.encode()).unwrap());
                prop_assert_eq!(again.bytes, replica.bytes);
            }
        }
    }

    #[test]
    fn a_store_above_lowered_bounds_may_stay_and_not_grow() {
        let set = |key: &str| StoreChange {
            bucket: "b".into(),
            key: key.into(),
            value: Some(vec![0; 9]),
        };
        let mut replica = StoreReplica::default();
        replica.apply(&[set("k"), set("l")], &limits()).unwrap();
        let mut lowered = WorkerLimits { store_bytes: 10, store_keys: 1, ..limits() };
        replica.raise_limits(&mut lowered);
        replica.apply(&[set("l")], &lowered).unwrap();
        replica.apply(&[set("m")], &lowered).unwrap_err();
    }

    #[test]
    fn what_a_worker_that_keeps_to_its_limits_would_not_send_is_an_error() {
        let set = |bucket: &str, key: String, bytes| StoreChange {
            bucket: bucket.to_owned(),
            key,
            value: Some(vec![0; bytes]),
        };
        let many: Vec<_> = (0..13).map(|key| set("b", key.to_string(), 0)).collect();
        let buckets: Vec<_> =
            (0..17).map(|bucket| set(&bucket.to_string(), "k".into(), 0)).collect();
        for (changes, said) in [
            (vec![set("b", "k".into(), 399)], "401 bytes"),
            (many, "13 keys"),
            (buckets, "17 buckets"),
            (vec![set("b", "k".repeat(257), 0)], "a key of 257"),
            (vec![set(&"b".repeat(65), "k".into(), 0)], "name of 65 bytes"),
        ] {
            let error = StoreReplica::default().apply(&changes, &limits()).unwrap_err().to_string();
            assert!(error.contains(said), "{error} for {said}");
        }
    }
}
