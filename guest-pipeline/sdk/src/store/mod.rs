//! The session's own keys and values: kept on disk by the host, across crashes, restarts and
//! changes of the pipeline's version.
//!
//! What a call into the pipeline (`process`, `command`, ...) writes is kept when that call returns,
//! all of it together with the events that it gave; after a trap nothing of it is. What a rehearsal
//! of a deployment writes is thrown away.
//!
//! ```
//! use ocelli_sdk::store::Bucket;
//!
//! /// Counts an object, and gives the sum of all that any version of this pipeline has counted.
//! fn count(label: &str) -> Result<i64, String> {
//!     Bucket::open("line-count")?.increment(label, 1)
//! }
//! # assert_eq!(count("car"), Ok(1));
//! # assert_eq!(count("car"), Ok(2));
//! ```
//!
//! The store belongs to the session and not to the pipeline: a bucket named after the pipeline
//! keeps out of the way of another that the session may be given. Each write goes to the host's
//! disk, so write what has changed and not every frame. Natively, in tests, a thread has a store of
//! its own that ends with it.

#[cfg(target_family = "wasm")]
mod host;
#[cfg(not(target_family = "wasm"))]
mod memory;

use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(target_family = "wasm")]
use host::Handle;
#[cfg(not(target_family = "wasm"))]
use memory::Handle;

/// Keys with their values.
pub struct Bucket {
    name: String,
    handle: Handle,
}

impl Bucket {
    /// The bucket of this name. It is made when something is first written to it.
    ///
    /// # Errors
    /// A name that the host does not take.
    pub fn open(name: &str) -> Result<Self, String> {
        let handle = Handle::open(name).map_err(|error| format!("bucket {name}: {error}"))?;
        Ok(Self { name: name.to_owned(), handle })
    }

    /// The value of a key, if there is one.
    ///
    /// # Errors
    /// The host cannot read it.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.named(key, self.handle.get(key))
    }

    /// Gives a key a value.
    ///
    /// # Errors
    /// The store is full, or key or value is too long.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.named(key, self.handle.set(key, value))
    }

    /// Takes a key away. One that is not there is no error.
    ///
    /// # Errors
    /// The host does not let the pipeline write.
    pub fn delete(&self, key: &str) -> Result<(), String> {
        self.named(key, self.handle.delete(key))
    }

    /// The value of a key, written by [`Bucket::set_json`].
    ///
    /// # Errors
    /// The host cannot read it, or it is no such JSON.
    pub fn get_json<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, String> {
        let Some(bytes) = self.get(key)? else { return Ok(None) };
        // Text, as settings are: one reader in the component instead of two.
        let text = self.named(key, str::from_utf8(&bytes).map_err(|error| error.to_string()))?;
        self.named(key, serde_json::from_str(text).map(Some).map_err(|error| error.to_string()))
    }

    /// Gives a key a value as JSON.
    ///
    /// # Errors
    /// As [`Bucket::set`]; a value that JSON cannot say.
    pub fn set_json<T: Serialize>(&self, key: &str, value: &T) -> Result<(), String> {
        let json = self.named(key, serde_json::to_vec(value).map_err(|error| error.to_string()))?;
        self.set(key, &json)
    }

    /// Adds to a number, kept as decimal text; one that is not there counts as 0. Gives the sum.
    ///
    /// # Errors
    /// The value is no number or the sum is too large for one; the store is full.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, String> {
        self.named(key, self.handle.increment(key, delta))
    }

    fn named<T>(&self, key: &str, result: Result<T, String>) -> Result<T, String> {
        result.map_err(|error| format!("bucket {}, key {key}: {error}", self.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_under_its_bucket_and_key_alone() {
        let bucket = Bucket::open("one").unwrap();
        assert_eq!(bucket.get("a"), Ok(None));
        bucket.set("a", b"first").unwrap();
        bucket.set("a", b"second").unwrap();
        assert_eq!(Bucket::open("one").unwrap().get("a"), Ok(Some(b"second".to_vec())));
        assert_eq!(Bucket::open("two").unwrap().get("a"), Ok(None));
        bucket.delete("a").unwrap();
        bucket.delete("a").unwrap();
        assert_eq!(bucket.get("a"), Ok(None));
    }

    #[test]
    fn values_may_be_json_and_numbers() {
        let bucket = Bucket::open("one").unwrap();
        bucket.set_json("list", &[1.5, 0.1]).unwrap();
        assert_eq!(bucket.get_json("list"), Ok(Some(vec![1.5, 0.1])));
        assert_eq!(bucket.get_json::<u8>("none"), Ok(None));
        assert_eq!(bucket.increment("n", 5), Ok(5));
        assert_eq!(bucket.increment("n", -7), Ok(-2));
        assert_eq!(bucket.get("n"), Ok(Some(b"-2".to_vec())));
    }

    #[test]
    fn an_error_names_bucket_and_key() {
        let bucket = Bucket::open("one").unwrap();
        bucket.set("text", b"many").unwrap();
        let error = bucket.increment("text", 1).unwrap_err();
        assert!(error.starts_with("bucket one, key text: "), "{error}");
        assert!(
            bucket.get_json::<u8>("text").is_err_and(|e| e.starts_with("bucket one, key text: "))
        );
        bucket.set("n", i64::MAX.to_string().as_bytes()).unwrap();
        assert!(bucket.increment("n", 1).is_err());
        assert_eq!(bucket.get_json("n"), Ok(Some(i64::MAX)), "left as it was");
    }
}
