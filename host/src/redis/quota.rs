//! How much pipelines may keep in Redis: keys and bytes of each granted prefix.
//!
//! Counted is what pipelines have written since the start of the host, and not deleted: looking for
//! what is there would cost Redis a walk through all keys, those of others included.

use std::collections::HashMap;

/// Keys of one prefix: many times what a camera's counters take.
pub(super) const MAX_KEYS: usize = 10_000;

/// Bytes of one prefix's keys and values: a part of what the smallest Redis holds.
pub(super) const MAX_BYTES: u64 = 64 << 20;

/// A write beyond the quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prefix would hold {keys} keys and {bytes} bytes of pipelines; at most {MAX_KEYS} and \
     {MAX_BYTES}: delete some"
)]
pub(super) struct QuotaExceeded {
    keys: usize,
    bytes: u64,
}

/// What pipelines keep under one prefix.
#[derive(Debug, Default)]
pub(super) struct BucketUsage {
    /// Bytes of each key with its value.
    sizes: HashMap<String, u64>,
    bytes: u64,
}

impl BucketUsage {
    /// Counts keys with the sizes of their values, all of them or none.
    pub(super) fn admit<'a>(
        &mut self,
        values: impl Iterator<Item = (&'a str, usize)>,
    ) -> Result<(), QuotaExceeded> {
        // The last of several values of one key counts.
        let new: HashMap<&str, u64> =
            values.map(|(key, value)| (key, (key.len() + value) as u64)).collect();
        let before = |key: &&str| self.sizes.get(*key).copied();
        let keys = self.sizes.len() + new.keys().filter(|key| before(key).is_none()).count();
        let replaced: u64 = new.keys().filter_map(before).sum();
        let bytes = self.bytes.saturating_sub(replaced).saturating_add(new.values().sum());
        let grows = keys > self.sizes.len() || bytes > self.bytes;
        if grows && (keys > MAX_KEYS || bytes > MAX_BYTES) {
            return Err(QuotaExceeded { keys, bytes });
        }
        self.sizes.extend(new.into_iter().map(|(key, size)| (key.to_owned(), size)));
        self.bytes = bytes;
        Ok(())
    }

    /// Counts keys no more.
    pub(super) fn remove(&mut self, keys: &[String]) {
        for size in keys.iter().filter_map(|key| self.sizes.remove(key)) {
            self.bytes = self.bytes.saturating_sub(size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(usage: &mut BucketUsage, key: &str, bytes: usize) -> Result<(), QuotaExceeded> {
        usage.admit([(key, bytes)].into_iter())
    }

    #[test]
    fn keys_and_bytes_are_bounded_and_a_deleted_key_makes_room() {
        let mut usage = BucketUsage::default();
        for number in 0..MAX_KEYS {
            admit(&mut usage, &number.to_string(), 1).unwrap();
        }
        let error = admit(&mut usage, "more", 1).unwrap_err();
        assert_eq!(error.keys, MAX_KEYS + 1);
        admit(&mut usage, "7", 2).unwrap();
        usage.remove(&["7".to_owned(), "none".to_owned()]);
        admit(&mut usage, "more", 1).unwrap();

        let (mut usage, half) = (BucketUsage::default(), 32 << 20);
        admit(&mut usage, "a", half).unwrap();
        admit(&mut usage, "b", half - 2).unwrap();
        assert_eq!(usage.bytes, MAX_BYTES);
        assert_eq!(admit(&mut usage, "b", half - 1).unwrap_err().bytes, MAX_BYTES + 1);
        assert!(admit(&mut usage, "c", 0).is_err());
        // Of several at once none is counted where one is too many.
        assert!(usage.admit([("a", 1), ("c", half + 1)].into_iter()).is_err());
        assert_eq!((usage.bytes, usage.sizes.len()), (MAX_BYTES, 2));
        admit(&mut usage, "a", 1).unwrap();
        assert_eq!(usage.bytes, MAX_BYTES - half as u64 + 1);
        usage.admit([("d", 5), ("d", 7)].into_iter()).unwrap();
        assert_eq!(usage.bytes, MAX_BYTES - half as u64 + 9);
    }
}
