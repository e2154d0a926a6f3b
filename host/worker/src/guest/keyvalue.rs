//! `wasi:keyvalue`: the session's store, for components of every version of the contract.

use wasmtime::component::{HasSelf, Linker, Resource};

use self::bindings::wasi::keyvalue::{atomics, batch, store};
use super::state::State;
use crate::kept::{KeptError, Seen};

/// Generated from `wasi:keyvalue` alone.
#[allow(missing_docs, reason = "generated; the documentation stands in the WIT files")]
pub mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit/0.2/deps/wasi-keyvalue",
        inline: "
            package ocelli:host;

            world keeps {
                import wasi:keyvalue/store@0.2.0-draft2;
                import wasi:keyvalue/atomics@0.2.0-draft2;
                import wasi:keyvalue/batch@0.2.0-draft2;
            }
        ",
        world: "ocelli:host/keeps",
        imports: { default: trappable },
        with: {
            "wasi:keyvalue/store.bucket": crate::guest::keyvalue::Bucket,
            "wasi:keyvalue/atomics.cas": crate::guest::keyvalue::Cas,
        },
    });
}

/// Offers the session's store to components.
pub fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    bindings::Keeps::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
}

/// A component's handle to a bucket.
#[derive(Debug, Clone)]
pub struct Bucket(String);

/// A component's handle to a value as it was when the handle was made.
#[derive(Debug, Clone)]
pub struct Cas {
    bucket: String,
    key: String,
    seen: Seen,
}

impl From<KeptError> for store::Error {
    fn from(error: KeptError) -> Self {
        match error {
            KeptError::NoBucket => Self::NoSuchStore,
            KeptError::TooMuch(_) => Self::Other(error.to_string()),
        }
    }
}

/// The outer error ends the instance, the inner is the component's to handle.
type Answer<T, E = store::Error> = wasmtime::Result<Result<T, E>>;

impl State {
    fn bucket(&self, handle: &Resource<Bucket>) -> wasmtime::Result<String> {
        self.kept.lock().set_used();
        Ok(self.table.get(handle)?.0.clone())
    }

    fn cas(&mut self, bucket: String, key: String) -> wasmtime::Result<Resource<Cas>> {
        let seen = self.kept.lock().seen(&bucket, &key);
        Ok(self.table.push(Cas { bucket, key, seen })?)
    }
}

impl store::Host for State {
    fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        let opened = {
            let mut kept = self.kept.lock();
            kept.set_used();
            kept.open(&identifier)
        };
        match opened {
            Ok(()) => Ok(Ok(self.table.push(Bucket(identifier))?)),
            Err(error) => Ok(Err(error.into())),
        }
    }
}

impl store::HostBucket for State {
    fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        let bucket = self.bucket(&bucket)?;
        Ok(Ok(self.kept.lock().get(&bucket, &key).map(<[u8]>::to_vec)))
    }

    fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        Ok(self.kept.lock().set(&bucket, &key, value).map_err(Into::into))
    }

    fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        Ok(self.kept.lock().delete(&bucket, &key).map_err(Into::into))
    }

    fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        let bucket = self.bucket(&bucket)?;
        Ok(Ok(self.kept.lock().get(&bucket, &key).is_some()))
    }

    fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Answer<store::KeyResponse> {
        let bucket = self.bucket(&bucket)?;
        let (keys, cursor) = self.kept.lock().list(&bucket, cursor.as_deref());
        Ok(Ok(store::KeyResponse { keys, cursor }))
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for State {
    fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        let bucket = self.bucket(&bucket)?;
        let mut kept = self.kept.lock();
        let number = match kept.get(&bucket, &key) {
            None => Ok(0),
            Some(value) => decimal(value).ok_or_else(|| format!("the value of {key:?} is no decimal number")),
        };
        let sum = number.and_then(|number| {
            number
                .checked_add(delta)
                .ok_or_else(|| format!("{number} and {delta} make more than 64 bits hold"))
        });
        Ok(match sum {
            Ok(sum) => {
                kept.set(&bucket, &key, sum.to_string().into_bytes()).map(|()| sum).map_err(Into::into)
            }
            Err(words) => Err(store::Error::Other(words)),
        })
    }

    fn swap(&mut self, cas: Resource<Cas>, value: Vec<u8>) -> Answer<(), atomics::CasError> {
        let Cas { bucket, key, seen } = self.table.delete(cas)?;
        let swapped = {
            let mut kept = self.kept.lock();
            (kept.seen(&bucket, &key) == seen).then(|| kept.set(&bucket, &key, value))
        };
        Ok(match swapped {
            Some(set) => set.map_err(|error| atomics::CasError::StoreError(error.into())),
            None => Err(atomics::CasError::CasFailed(self.cas(bucket, key)?)),
        })
    }
}

impl atomics::HostCas for State {
    fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Cas>> {
        let bucket = self.bucket(&bucket)?;
        Ok(Ok(self.cas(bucket, key)?))
    }

    /// The handle holds no value, only which one it saw: thousands of handles to large values would fill the process.
    fn current(&mut self, cas: Resource<Cas>) -> Answer<Option<Vec<u8>>> {
        let Cas { bucket, key, seen } = self.table.get(&cas)?;
        let kept = self.kept.lock();
        if kept.seen(bucket, key) != *seen {
            let words = format!("the value of {key:?} has changed since");
            return Ok(Err(store::Error::Other(words)));
        }
        Ok(Ok(kept.get(bucket, key).map(<[u8]>::to_vec)))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for State {
    fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        let bucket = self.bucket(&bucket)?;
        let kept = self.kept.lock();
        // A key may be asked for again and again.
        let bytes: usize = keys
            .iter()
            .filter_map(|key| Some(key.len().saturating_add(kept.get(&bucket, key)?.len())))
            .fold(0, usize::saturating_add);
        if bytes > kept.max_bytes() {
            let bound = kept.max_bytes();
            return Ok(Err(store::Error::Other(format!(
                "the answer would have {bytes} bytes, at most {bound} are given"
            ))));
        }
        let values = keys.into_iter().map(|key| {
            let value = kept.get(&bucket, &key)?.to_vec();
            Some((key, value))
        });
        Ok(Ok(values.collect()))
    }

    fn set_many(&mut self, bucket: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        let mut kept = self.kept.lock();
        let mut values = key_values.into_iter();
        Ok(values.try_for_each(|(key, value)| kept.set(&bucket, &key, value)).map_err(Into::into))
    }

    fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        let mut kept = self.kept.lock();
        Ok(keys.iter().try_for_each(|key| kept.delete(&bucket, key)).map_err(Into::into))
    }
}

/// A number in decimal text.
fn decimal(value: &[u8]) -> Option<i64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}
