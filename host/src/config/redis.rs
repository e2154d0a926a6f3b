//! The section `[redis]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::sink::{self, SinkStart};

/// The Redis that events are written to, besides being sent to subscribers. Without the section:
/// none.
// Its `Debug` leaves out the address, which holds credentials.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedisConfig {
    /// redis://USER:PASSWORD@HOST:PORT/DATABASE; rediss:// for TLS.
    #[schemars(length(min = 1), extend("writeOnly" = true))]
    pub url: String,
    /// Prefix of every key that the host makes. Hosts that share a Redis need different ones.
    #[serde(default = "redis_prefix")]
    #[schemars(length(min = 1, max = 200))]
    pub prefix: String,
    /// Events that the stream of a session keeps, or a little more.
    #[serde(default = "redis_stream_length")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub stream_length: u64,
    /// Where a Redis begins that this host has not written to before: with the events from now on,
    /// or with the beginning of the journal.
    #[serde(default)]
    pub from: SinkStart,
    /// Whether each event is published on a channel too.
    #[serde(default)]
    pub publish: bool,
    /// Whether the pictures of events are written too.
    #[serde(default = "yes")]
    pub crops: bool,
    /// Seconds for which Redis keeps a picture.
    #[serde(default = "redis_crops_expire")]
    #[schemars(range(min = 1, max = 31_536_000))]
    pub crops_expire_s: u64,
    /// Milliseconds that connecting to Redis may take, and each of its answers.
    #[serde(default = "redis_timeout")]
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
}

impl RedisConfig {
    /// Where it is, without credentials.
    pub fn shown_address(&self) -> String {
        sink::shown(&self.url)
    }
}

impl std::fmt::Debug for RedisConfig {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Redis").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn redis_prefix() -> String {
    "ocelli:".into()
}

fn redis_stream_length() -> u64 {
    10_000
}

fn redis_crops_expire() -> u64 {
    86_400
}

fn redis_timeout() -> u32 {
    5000
}

fn yes() -> bool {
    true
}
