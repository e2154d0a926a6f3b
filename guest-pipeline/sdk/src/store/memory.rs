//! In the place of the host's store, natively: a store for each thread.

use std::cell::RefCell;
use std::collections::BTreeMap;

type Buckets = BTreeMap<String, BTreeMap<String, Vec<u8>>>;

std::thread_local! {
    static BUCKETS: RefCell<Buckets> = const { RefCell::new(BTreeMap::new()) };
}

pub(super) struct Handle(String);

#[allow(clippy::unnecessary_wraps, reason = "the host's store can fail")]
impl Handle {
    pub(super) fn open(name: &str) -> Result<Self, String> {
        Ok(Self(name.to_owned()))
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        Ok(BUCKETS.with_borrow(|buckets| buckets.get(&self.0)?.get(key).cloned()))
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        BUCKETS.with_borrow_mut(|buckets| {
            buckets.entry(self.0.clone()).or_default().insert(key.to_owned(), value.to_vec())
        });
        Ok(())
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), String> {
        BUCKETS
            .with_borrow_mut(|buckets| buckets.get_mut(&self.0).map(|bucket| bucket.remove(key)));
        Ok(())
    }

    pub(super) fn increment(&self, key: &str, delta: i64) -> Result<i64, String> {
        let number = |bytes: Vec<u8>| {
            String::from_utf8(bytes).ok().and_then(|text| text.parse::<i64>().ok())
        };
        let before = match self.get(key)? {
            Some(bytes) => number(bytes).ok_or("the value is no number")?,
            None => 0,
        };
        let sum =
            before.checked_add(delta).ok_or("the sum is too large for a number of 64 bits")?;
        self.set(key, sum.to_string().as_bytes())?;
        Ok(sum)
    }
}
