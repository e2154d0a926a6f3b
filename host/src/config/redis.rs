//! The section `[redis]`.

use serde::{Deserialize, Serialize};

/// The Redis that events are written to. Without `Debug` of its address, which holds credentials.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// `redis://USER:PASSWORD@HOST:PORT/DATABASE`; `rediss` for TLS.
    pub url: String,
    /// What every key that the host makes begins with.
    #[serde(default = "redis_prefix")]
    pub prefix: String,
    /// Events that the stream of a session keeps, or a little more.
    #[serde(default = "redis_stream_length")]
    pub stream_length: u64,
    /// Whether each event is published on a channel too.
    #[serde(default)]
    pub publish: bool,
    /// Whether the pictures of events are written too.
    #[serde(default = "yes")]
    pub crops: bool,
    /// Seconds for which Redis keeps a picture.
    #[serde(default = "redis_crops_expire")]
    pub crops_expire_s: u64,
    /// Milliseconds that connecting may take, and each answer.
    #[serde(default = "redis_timeout")]
    pub timeout_ms: u32,
}

impl std::fmt::Debug for Redis {
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
