//! The store of the host.

use crate::bindings::wasi::keyvalue::atomics;
use crate::bindings::wasi::keyvalue::store::{self, Error};

pub(super) struct Handle(store::Bucket);

impl Handle {
    pub(super) fn open(name: &str) -> Result<Self, String> {
        store::open(name).map(Self).map_err(text)
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, String> {
        self.0.get(key).map_err(text)
    }

    pub(super) fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.0.set(key, value).map_err(text)
    }

    pub(super) fn delete(&self, key: &str) -> Result<(), String> {
        self.0.delete(key).map_err(text)
    }

    pub(super) fn increment(&self, key: &str, delta: i64) -> Result<i64, String> {
        atomics::increment(&self.0, key, delta).map_err(text)
    }
}

fn text(error: Error) -> String {
    match error {
        Error::NoSuchStore => "the host has no such bucket and makes no further one".into(),
        Error::AccessDenied => "the host allows no access".into(),
        Error::Other(text) => text,
    }
}
