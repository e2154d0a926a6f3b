//! The session's `wasi:keyvalue` store as its worker has it: one bounded copy in memory, with the
//! changes that the host has not been sent yet.
//!
//! ```text
//! set, delete --> current call --commit()--> unreported --take_changes()--> the host
//!                     | roll_back()              | reset()
//!                     v                          v
//!           content before the call    content that the host has
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ocelli_protocol::limit::{MAX_STORE_BUCKET, MAX_STORE_BUCKETS, MAX_STORE_KEY};
use ocelli_protocol::wire::MAX_MESSAGE;
use ocelli_protocol::worker::{StoreChange, StoreContents, WorkerLimits};
use parking_lot::{Mutex, MutexGuard};

/// Keys of one page of a listing.
pub const PAGE: usize = 100;

/// Most bytes of unreported changes: names, values and their framing. They go in one message, so
/// that the host keeps all of them or none.
const MAX_CHANGES: usize = MAX_MESSAGE / 4 * 3;

/// Framing of a change in that message: three lengths of up to five bytes and a mark.
const CHANGE_OVERHEAD: usize = 16;

/// Why the store refuses an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The bucket does not exist, and no further one may be made.
    #[error("there are {MAX_STORE_BUCKETS} other buckets, which is the most")]
    NoSuchBucket,
    /// A bound would be exceeded; the text has both figures.
    #[error("{0}")]
    OverLimit(String),
}

fn over_limit(what: &str, would: usize, bound: usize) -> StoreError {
    StoreError::OverLimit(format!("{what} {would} bytes, at most {bound} are taken"))
}

/// A value, and the number of the write that made it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct StoredValue {
    bytes: Vec<u8>,
    write: u64,
}

/// The version of a value: the number of the write that made it, `None` for a missing value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueVersion(Option<u64>);

type EntryKey = (String, String);

/// The values of changed entries before the change.
type PreviousValues = BTreeMap<EntryKey, Option<StoredValue>>;

/// See the module's documentation.
#[derive(Debug)]
pub struct KvStore {
    max_bytes: usize,
    max_keys: usize,
    content: BTreeMap<String, BTreeMap<String, StoredValue>>,
    /// Bytes of the names of buckets, keys and values of `content`.
    bytes: usize,
    /// Keys of `content`.
    keys: usize,
    writes: u64,
    /// Changed by the call under way. An entry that is as before is left out.
    current_call: PreviousValues,
    /// Changed by earlier calls and not sent to the host.
    unreported: PreviousValues,
    /// Bytes that both sets of changes take in a message.
    changes: usize,
    used: bool,
}

impl KvStore {
    /// An empty store with a session's bounds.
    pub fn new(limits: &WorkerLimits) -> Self {
        Self::bounded(limits.store_bytes as usize, limits.store_keys as usize)
    }

    fn bounded(max_bytes: usize, max_keys: usize) -> Self {
        Self {
            max_bytes,
            max_keys,
            content: BTreeMap::new(),
            bytes: 0,
            keys: 0,
            writes: 0,
            current_call: PreviousValues::new(),
            unreported: PreviousValues::new(),
            changes: 0,
            used: false,
        }
    }

    /// Replaces the content by the host's, and drops every change. Gives whether a component has
    /// [used](Self::set_used) the store and would find other content in it now: it has to be
    /// instantiated anew. An error means that the bounds are exceeded, and changes nothing.
    pub fn load(&mut self, contents: StoreContents) -> Result<bool, StoreError> {
        self.roll_back();
        let mut loaded = Self::bounded(self.max_bytes, self.max_keys);
        loaded.writes = self.writes;
        for (bucket, values) in contents {
            for (key, bytes) in values {
                loaded.check(&bucket, &key, bytes.len())?;
                loaded.writes += 1;
                let write = loaded.writes;
                loaded.put(&bucket, &key, Some(StoredValue { bytes, write }));
            }
        }
        if self.reported_equals(&loaded) {
            return Ok(false);
        }
        let used = self.used;
        *self = loaded;
        Ok(used)
    }

    /// Records that a component has used the store.
    pub fn set_used(&mut self) {
        self.used = true;
    }

    /// Checks that the bucket exists or can be made.
    pub fn open(&self, bucket: &str) -> Result<(), StoreError> {
        if bucket.len() > MAX_STORE_BUCKET {
            return Err(over_limit("the bucket's name has", bucket.len(), MAX_STORE_BUCKET));
        }
        if self.content.contains_key(bucket) || self.content.len() < MAX_STORE_BUCKETS {
            Ok(())
        } else {
            Err(StoreError::NoSuchBucket)
        }
    }

    /// The value of a key.
    pub fn get(&self, bucket: &str, key: &str) -> Option<&[u8]> {
        self.value(bucket, key).map(|value| value.bytes.as_slice())
    }

    /// The version of a key's value: equal versions are the same write.
    pub fn version(&self, bucket: &str, key: &str) -> ValueVersion {
        ValueVersion(self.value(bucket, key).map(|value| value.write))
    }

    /// Bytes that the store may hold.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The [`PAGE`] keys after `after` in ascending order, and the last of them if there are more.
    pub fn list(&self, bucket: &str, after: Option<&str>) -> (Vec<String>, Option<String>) {
        let Some(values) = self.content.get(bucket) else { return (Vec::new(), None) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut following =
            values.range::<str, _>((from, Bound::Unbounded)).map(|(key, _)| key.clone());
        let keys: Vec<String> = following.by_ref().take(PAGE).collect();
        let cursor = following.next().and_then(|_| keys.last().cloned());
        (keys, cursor)
    }

    /// Sets the value of a key.
    pub fn set(&mut self, bucket: &str, key: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.check(bucket, key, bytes.len())?;
        self.check_changes(bucket, key, bytes.len())?;
        self.writes += 1;
        let write = self.writes;
        self.change(bucket, key, Some(StoredValue { bytes, write }));
        Ok(())
    }

    /// Deletes a key. A missing key is no error.
    pub fn delete(&mut self, bucket: &str, key: &str) -> Result<(), StoreError> {
        if self.value(bucket, key).is_some() {
            self.check_changes(bucket, key, 0)?;
            self.change(bucket, key, None);
        }
        Ok(())
    }

    /// Ends the call under way with its changes.
    pub fn commit(&mut self) {
        for (entry, before) in std::mem::take(&mut self.current_call) {
            self.unreported.entry(entry).or_insert(before);
        }
        let content = &self.content;
        self.unreported.retain(|(bucket, key), before| {
            before.is_some() || content.get(bucket).is_some_and(|values| values.contains_key(key))
        });
        self.changes = self.measure();
    }

    /// Ends the call under way and undoes its changes.
    pub fn roll_back(&mut self) {
        for ((bucket, key), before) in std::mem::take(&mut self.current_call) {
            self.put(&bucket, &key, before);
        }
        self.changes = self.measure();
    }

    /// Undoes every change that the host has not been sent, for an instance that is to know nothing
    /// of them.
    pub fn reset(&mut self) {
        self.roll_back();
        self.current_call = std::mem::take(&mut self.unreported);
        self.roll_back();
        self.used = false;
    }

    /// Takes the unreported changes, for the host. Those of the call under way are not among them.
    pub fn take_changes(&mut self) -> Vec<StoreChange> {
        let unreported = std::mem::take(&mut self.unreported).into_iter();
        let changes = unreported.filter_map(|((bucket, key), before)| {
            let value = self.get(&bucket, &key);
            let changed = value != before.as_ref().map(|before| before.bytes.as_slice());
            let value = value.map(<[u8]>::to_vec);
            changed.then_some(StoreChange { bucket, key, value })
        });
        let changes = changes.collect();
        self.changes = self.measure();
        changes
    }

    fn value(&self, bucket: &str, key: &str) -> Option<&StoredValue> {
        self.content.get(bucket)?.get(key)
    }

    /// Checks that a value of this length fits into the store.
    fn check(&self, bucket: &str, key: &str, length: usize) -> Result<(), StoreError> {
        self.open(bucket)?;
        if key.len() > MAX_STORE_KEY {
            return Err(over_limit("the key has", key.len(), MAX_STORE_KEY));
        }
        let (added, freed) = match self.value(bucket, key) {
            Some(value) => (0, value.bytes.len()),
            None if self.content.contains_key(bucket) => (key.len(), 0),
            None => (bucket.len() + key.len(), 0),
        };
        let bytes = (self.bytes - freed).saturating_add(added).saturating_add(length);
        if bytes > self.max_bytes {
            return Err(over_limit("the store would hold", bytes, self.max_bytes));
        }
        if self.value(bucket, key).is_none() && self.keys >= self.max_keys {
            let (keys, bound) = (self.keys + 1, self.max_keys);
            return Err(StoreError::OverLimit(format!(
                "the store would hold {keys} keys, at most {bound} are taken"
            )));
        }
        Ok(())
    }

    /// Checks that a value of this length, or a deletion, fits into one message with the other
    /// changes.
    fn check_changes(&self, bucket: &str, key: &str, length: usize) -> Result<(), StoreError> {
        let entry = (bucket.to_owned(), key.to_owned());
        let changes = self.changes - self.cost(&entry) + change_cost(&entry) + length;
        if changes > MAX_CHANGES {
            return Err(over_limit("the call would change", changes, MAX_CHANGES));
        }
        Ok(())
    }

    /// Changes an entry in the call under way. The bounds have been checked.
    fn change(&mut self, bucket: &str, key: &str, value: Option<StoredValue>) {
        let entry = (bucket.to_owned(), key.to_owned());
        self.changes -= self.cost(&entry);
        let deleted = value.is_none();
        let before = self.put(bucket, key, value);
        let first = self.current_call.entry(entry.clone()).or_insert(before);
        if deleted && first.is_none() {
            self.current_call.remove(&entry);
        }
        self.changes += self.cost(&entry);
    }

    /// Bytes of an entry's change in a message; 0 for an unchanged entry.
    fn cost(&self, entry: &EntryKey) -> usize {
        if !self.current_call.contains_key(entry) && !self.unreported.contains_key(entry) {
            return 0;
        }
        change_cost(entry) + self.get(&entry.0, &entry.1).map_or(0, <[u8]>::len)
    }

    fn measure(&self) -> usize {
        let others = self.unreported.keys().filter(|entry| !self.current_call.contains_key(*entry));
        self.current_call.keys().chain(others).map(|entry| self.cost(entry)).sum()
    }

    /// Sets or deletes a value, and gives the previous one. A bucket comes with its first key and
    /// goes with its last.
    fn put(&mut self, bucket: &str, key: &str, value: Option<StoredValue>) -> Option<StoredValue> {
        let before = match value {
            Some(value) => {
                self.bytes += value.bytes.len();
                if !self.content.contains_key(bucket) {
                    self.bytes += bucket.len();
                    self.content.insert(bucket.to_owned(), BTreeMap::new());
                }
                let before = self.content.get_mut(bucket)?.insert(key.to_owned(), value);
                if before.is_none() {
                    self.bytes += key.len();
                    self.keys += 1;
                }
                before
            }
            None => {
                let values = self.content.get_mut(bucket)?;
                let before = values.remove(key)?;
                let empty = values.is_empty();
                self.bytes -= key.len();
                self.keys -= 1;
                if empty {
                    self.content.remove(bucket);
                    self.bytes -= bucket.len();
                }
                Some(before)
            }
        };
        self.bytes -= before.as_ref().map_or(0, |before| before.bytes.len());
        before
    }

    /// Whether the content that the host has been sent equals that of `other`. Not to be called
    /// during a call.
    fn reported_equals(&self, other: &Self) -> bool {
        let reported = |bucket: &str, key: &str| match self
            .unreported
            .get(&(bucket.to_owned(), key.to_owned()))
        {
            Some(before) => before.as_ref().map(|before| before.bytes.as_slice()),
            None => self.get(bucket, key),
        };
        let changed = self.unreported.keys().map(|(bucket, key)| (bucket.as_str(), key.as_str()));
        let mut entries = self.entries().chain(changed).chain(other.entries());
        entries.all(|(bucket, key)| reported(bucket, key) == other.get(bucket, key))
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.content.iter().flat_map(|(bucket, values)| {
            values.keys().map(move |key| (bucket.as_str(), key.as_str()))
        })
    }
}

/// Bytes of a deletion in a message.
fn change_cost((bucket, key): &EntryKey) -> usize {
    bucket.len() + key.len() + CHANGE_OVERHEAD
}

/// The one store of a worker, for its session and for each instance of the component. Cheap to
/// clone.
#[derive(Debug, Clone)]
pub struct SharedKvStore(Arc<Mutex<KvStore>>);

impl SharedKvStore {
    /// An empty store with a session's bounds.
    pub fn new(limits: &WorkerLimits) -> Self {
        Self(Arc::new(Mutex::new(KvStore::new(limits))))
    }

    /// The store. One thread uses it, so the lock is never waited for.
    pub fn lock(&self) -> MutexGuard<'_, KvStore> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests;
