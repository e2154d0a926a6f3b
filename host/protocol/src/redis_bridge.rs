//! Messages between a worker and the host about the keys of Redis that the operator has granted its
//! session: `wire` messages without payloads over a stream socket of their own, so that a response
//! never waits behind pictures. One request at a time.

use serde::{Deserialize, Serialize};

/// The name under which a component opens the bucket.
pub const BUCKET: &str = "redis";

/// Longest key, in bytes.
pub const MAX_KEY: usize = 256;

/// Longest value, in bytes.
pub const MAX_VALUE: usize = 1 << 20;

/// Most keys of one request, and about as many of one response.
pub const MAX_KEYS: usize = 1000;

/// Bytes of the keys and values of one request or response. Their framing, five bytes each, fits
/// into a message beside them.
pub const MAX_BYTES: usize = 3 << 20;

/// Bytes that a request's keys and values take in memory: themselves, and two lengths and places
/// for each.
pub const MAX_DECODED: usize = MAX_BYTES + MAX_KEYS * size_of::<(String, Vec<u8>)>();

/// From a worker to the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisRequest {
    /// Repeated in the response.
    pub id: u64,
    /// Whether the worker is active. For a worker on standby the host leaves out changes.
    pub active: bool,
    /// The operation to perform.
    pub operation: RedisOperation,
}

/// An operation on the granted keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedisOperation {
    /// Answered by [`RedisReply::Values`].
    Get(Vec<String>),
    /// Answered by [`RedisReply::Done`].
    Set(Vec<(String, Vec<u8>)>),
    /// Answered by [`RedisReply::Done`].
    Delete(Vec<String>),
    /// Answered by [`RedisReply::Exists`].
    Exists(String),
    /// Lists keys from the cursor of the previous reply on. Answered by [`RedisReply::Keys`].
    List(Option<String>),
    /// Adds to a number. Answered by [`RedisReply::Number`].
    Increment {
        /// Key of the number; a missing one counts as 0.
        key: String,
        delta: i64,
    },
}

/// A request has more keys or bytes than the protocol allows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {has}, at most {bound} are taken")]
pub struct LimitExceeded {
    what: &'static str,
    has: usize,
    bound: usize,
}

impl RedisOperation {
    /// Checks the bounds of keys and values. The error names the bound that is exceeded.
    pub fn check(&self) -> Result<(), LimitExceeded> {
        let (keys, values): (Vec<&str>, Vec<usize>) = match self {
            Self::Get(keys) | Self::Delete(keys) => {
                (keys.iter().map(String::as_str).collect(), Vec::new())
            }
            Self::Set(values) => {
                values.iter().map(|(key, value)| (key.as_str(), value.len())).unzip()
            }
            Self::Exists(key) | Self::Increment { key, .. } => (vec![key], Vec::new()),
            Self::List(cursor) => (cursor.as_deref().into_iter().collect(), Vec::new()),
        };
        let too_much = |what: &'static str, has: usize, bound: usize| {
            if has > bound { Err(LimitExceeded { what, has, bound }) } else { Ok(()) }
        };
        too_much("keys:", keys.len(), MAX_KEYS)?;
        too_much("bytes of a key:", keys.iter().map(|key| key.len()).max().unwrap_or(0), MAX_KEY)?;
        too_much("bytes of a value:", values.iter().copied().max().unwrap_or(0), MAX_VALUE)?;
        let bytes = keys.iter().map(|key| key.len()).chain(values).fold(0, usize::saturating_add);
        too_much("bytes of keys and values:", bytes, MAX_BYTES)
    }
}

/// From the host to a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisResponse {
    /// As in the request.
    pub id: u64,
    /// The reply, or an error text for the pipeline.
    pub result: Result<RedisReply, String>,
}

/// The result of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RedisReply {
    /// A value for each key, `None` for a missing one.
    Values(Vec<Option<Vec<u8>>>),
    /// The change is made.
    Done,
    /// Whether the key exists.
    Exists(bool),
    /// Some keys, in no order; a key may come again.
    Keys {
        /// Keys without the granted prefix.
        keys: Vec<String>,
        /// The cursor of the next request; `None` if that was all.
        cursor: Option<String>,
    },
    /// The number after the addition.
    Number(i64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire;

    #[test]
    fn keys_and_values_are_bounded_and_what_keeps_to_the_bounds_fits_a_message() {
        let key = |length: usize| "k".repeat(length);
        let set =
            |count: usize, length| RedisOperation::Set(vec![(key(1), vec![0; length]); count]);
        for within in [
            RedisOperation::Get(vec![key(MAX_KEY); MAX_KEYS]),
            set(1, MAX_VALUE),
            set(MAX_KEYS, 3000),
        ] {
            within.check().unwrap();
            let request = RedisRequest { id: u64::MAX, active: true, operation: within };
            let message = wire::encode(&request, 0).unwrap();
            let decoded = wire::decode_within(&message[wire::HEADER..], MAX_DECODED);
            assert_eq!(decoded.map(|request: RedisRequest| request.id).unwrap(), u64::MAX);
        }
        for over in [
            RedisOperation::Get(vec![key(1); MAX_KEYS + 1]),
            RedisOperation::Exists(key(MAX_KEY + 1)),
            RedisOperation::List(Some(key(MAX_KEY + 1))),
            RedisOperation::Increment { key: key(MAX_KEY + 1), delta: 1 },
            set(1, MAX_VALUE + 1),
            set(3, MAX_VALUE),
        ] {
            assert!(over.check().unwrap_err().to_string().contains("at most"), "{over:?}");
        }
    }
}
