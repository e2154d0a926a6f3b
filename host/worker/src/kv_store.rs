//! The session's `wasi:keyvalue` store as its worker has it: one copy in memory, bounded, and with
//! it what calls into the component have changed since the host was last told.
//!
//! ```text
//! set, delete --> the call's changes --keep()--> kept changes --take_changes()--> the host
//!                      | roll_back()                  | reset()
//!                      v                              v
//!            the content is again as it was before the call, or when the host was last told
//! ```

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use ocelli_protocol::wire::MAX_MESSAGE;
use ocelli_protocol::worker::{StoreChange, StoreContents, WorkerLimits};
use parking_lot::{Mutex, MutexGuard};

/// Longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// Longest name of a bucket, in bytes.
pub const MAX_BUCKET: usize = 64;

/// Most buckets: they are the few kinds of things that a pipeline keeps, its keys are the many of
/// each.
pub const MAX_BUCKETS: usize = 16;

/// Keys of one page of a listing.
pub const PAGE: usize = 100;

/// Most bytes of changes that the host has not been told: names, values and what it takes to tell
/// them apart. They go in one message, so that all of them are kept or none.
const MAX_CHANGES: usize = MAX_MESSAGE / 4 * 3;

/// What a change takes in that message beside its bytes: three lengths of up to five bytes and a
/// mark.
const CHANGE_OVERHEAD: usize = 16;

/// Why the store does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// This bucket is not there, and no further one may be made.
    #[error("there are {MAX_BUCKETS} other buckets, which is the most")]
    NoSuchBucket,
    /// It would exceed a bound; the words have both figures.
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

/// A value at one moment: the write that had made it, or that there was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueVersion(Option<u64>);

/// Bucket and key.
type EntryKey = (String, String);

/// What stood at places before it was changed.
type PreviousValues = BTreeMap<EntryKey, Option<StoredValue>>;

/// See the module's documentation.
#[derive(Debug)]
pub struct KvStore {
    max_bytes: usize,
    max_keys: usize,
    content: BTreeMap<String, BTreeMap<String, StoredValue>>,
    /// Names of buckets, keys and values of `content`.
    bytes: usize,
    /// Keys of `content`.
    keys: usize,
    writes: u64,
    /// Of the call under way. A place that is as it was has no entry.
    current_call: PreviousValues,
    /// Of calls before it, which the host was not told.
    unreported: PreviousValues,
    /// What both take to tell.
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

    /// Takes over what the host has kept. Gives whether a component has [used](Self::set_used) the
    /// store and would have found something else in it now: it knows nothing of what was taken
    /// over, and what it changed is gone. An error means that the bounds are exceeded, and changes
    /// nothing.
    pub fn load(&mut self, kept: StoreContents) -> Result<bool, StoreError> {
        self.roll_back();
        let mut adopted = Self::bounded(self.max_bytes, self.max_keys);
        adopted.writes = self.writes;
        for (bucket, values) in kept {
            for (key, bytes) in values {
                adopted.check(&bucket, &key, bytes.len())?;
                adopted.writes += 1;
                let write = adopted.writes;
                adopted.put(&bucket, &key, Some(StoredValue { bytes, write }));
            }
        }
        if self.reported_equals(&adopted) {
            return Ok(false);
        }
        let used = self.used;
        *self = adopted;
        Ok(used)
    }

    /// Notes that a component has asked for something.
    pub fn set_used(&mut self) {
        self.used = true;
    }

    /// Whether there is a bucket of this name, or can be one.
    pub fn open(&self, bucket: &str) -> Result<(), StoreError> {
        if bucket.len() > MAX_BUCKET {
            return Err(over_limit("the bucket's name has", bucket.len(), MAX_BUCKET));
        }
        if self.content.contains_key(bucket) || self.content.len() < MAX_BUCKETS {
            Ok(())
        } else {
            Err(StoreError::NoSuchBucket)
        }
    }

    /// A value.
    pub fn get(&self, bucket: &str, key: &str) -> Option<&[u8]> {
        self.value(bucket, key).map(|value| value.bytes.as_slice())
    }

    /// Whether a value is still the same can be told by this.
    pub fn version(&self, bucket: &str, key: &str) -> ValueVersion {
        ValueVersion(self.value(bucket, key).map(|value| value.write))
    }

    /// Bytes that the store may hold.
    pub fn max_bytes(&self) -> usize {
        self.max_bytes
    }

    /// The [`PAGE`] keys after `after` in ascending order, and the last of them where there are
    /// more.
    pub fn list(&self, bucket: &str, after: Option<&str>) -> (Vec<String>, Option<String>) {
        let Some(values) = self.content.get(bucket) else { return (Vec::new(), None) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut following =
            values.range::<str, _>((from, Bound::Unbounded)).map(|(key, _)| key.clone());
        let keys: Vec<String> = following.by_ref().take(PAGE).collect();
        let cursor = following.next().and_then(|_| keys.last().cloned());
        (keys, cursor)
    }

    /// Puts a value in its place.
    pub fn set(&mut self, bucket: &str, key: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        self.check(bucket, key, bytes.len())?;
        self.check_changes(bucket, key, bytes.len())?;
        self.writes += 1;
        let write = self.writes;
        self.change(bucket, key, Some(StoredValue { bytes, write }));
        Ok(())
    }

    /// Takes a value away. One that is not there is no error.
    pub fn delete(&mut self, bucket: &str, key: &str) -> Result<(), StoreError> {
        if self.value(bucket, key).is_some() {
            self.check_changes(bucket, key, 0)?;
            self.change(bucket, key, None);
        }
        Ok(())
    }

    /// Keeps what the call has changed.
    pub fn commit(&mut self) {
        for (place, before) in std::mem::take(&mut self.current_call) {
            self.unreported.entry(place).or_insert(before);
        }
        let content = &self.content;
        self.unreported.retain(|(bucket, key), before| {
            before.is_some() || content.get(bucket).is_some_and(|values| values.contains_key(key))
        });
        self.changes = self.measure();
    }

    /// Undoes what the call has changed.
    pub fn roll_back(&mut self) {
        for ((bucket, key), before) in std::mem::take(&mut self.current_call) {
            self.put(&bucket, &key, before);
        }
        self.changes = self.measure();
    }

    /// Undoes all that the host was not told, for an instance that is to know nothing of it.
    pub fn reset(&mut self) {
        self.roll_back();
        self.current_call = std::mem::take(&mut self.unreported);
        self.roll_back();
        self.used = false;
    }

    /// What was kept since this was last asked, for the host. The call under way is not among it.
    pub fn take_changes(&mut self) -> Vec<StoreChange> {
        let changes = std::mem::take(&mut self.unreported).into_iter().filter_map(
            |((bucket, key), before)| {
                let value = self.get(&bucket, &key);
                let changed = value != before.as_ref().map(|before| before.bytes.as_slice());
                let value = value.map(<[u8]>::to_vec);
                changed.then_some(StoreChange { bucket, key, value })
            },
        );
        let changes = changes.collect();
        self.changes = self.measure();
        changes
    }

    fn value(&self, bucket: &str, key: &str) -> Option<&StoredValue> {
        self.content.get(bucket)?.get(key)
    }

    /// Whether a value of this length has room at this place.
    fn check(&self, bucket: &str, key: &str, length: usize) -> Result<(), StoreError> {
        self.open(bucket)?;
        if key.len() > MAX_KEY {
            return Err(over_limit("the key has", key.len(), MAX_KEY));
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

    /// Whether a value of this length, or its deletion, can still be told together with the other
    /// changes.
    fn check_changes(&self, bucket: &str, key: &str, length: usize) -> Result<(), StoreError> {
        let place = (bucket.to_owned(), key.to_owned());
        let changes = self.changes - self.cost(&place) + change_cost(&place) + length;
        if changes > MAX_CHANGES {
            return Err(over_limit("the call would change", changes, MAX_CHANGES));
        }
        Ok(())
    }

    /// Changes a place in the call under way. There has to be room.
    fn change(&mut self, bucket: &str, key: &str, value: Option<StoredValue>) {
        let place = (bucket.to_owned(), key.to_owned());
        self.changes -= self.cost(&place);
        let gone = value.is_none();
        let before = self.put(bucket, key, value);
        let first = self.current_call.entry(place.clone()).or_insert(before);
        if gone && first.is_none() {
            self.current_call.remove(&place);
        }
        self.changes += self.cost(&place);
    }

    /// What the change of a place takes to tell; nothing where it has not changed.
    fn cost(&self, place: &EntryKey) -> usize {
        if !self.current_call.contains_key(place) && !self.unreported.contains_key(place) {
            return 0;
        }
        change_cost(place) + self.get(&place.0, &place.1).map_or(0, <[u8]>::len)
    }

    fn measure(&self) -> usize {
        let again = self.unreported.keys().filter(|place| !self.current_call.contains_key(*place));
        self.current_call.keys().chain(again).map(|place| self.cost(place)).sum()
    }

    /// Puts a value or none in its place, and gives what stood there. Buckets come with their first
    /// key and go with their last.
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

    /// Whether what the host was told of is what `other` holds. Not to be asked during a call.
    fn reported_equals(&self, other: &Self) -> bool {
        let began = |bucket: &str, key: &str| match self
            .unreported
            .get(&(bucket.to_owned(), key.to_owned()))
        {
            Some(before) => before.as_ref().map(|before| before.bytes.as_slice()),
            None => self.get(bucket, key),
        };
        let changed = self.unreported.keys().map(|(bucket, key)| (bucket.as_str(), key.as_str()));
        let mut places = self.entries().chain(changed).chain(other.entries());
        places.all(|(bucket, key)| began(bucket, key) == other.get(bucket, key))
    }

    fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.content.iter().flat_map(|(bucket, values)| {
            values.keys().map(move |key| (bucket.as_str(), key.as_str()))
        })
    }
}

/// What it takes to tell that a value is gone.
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

    /// The store. One thread uses it: nobody waits.
    pub fn lock(&self) -> MutexGuard<'_, KvStore> {
        self.0.lock()
    }
}

#[cfg(test)]
mod tests;
