//! The section `[otlp]`.

use std::fmt;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::http_url::HttpUrl;
use super::text;

/// A collector of OpenTelemetry that gets traces. Without the section: there are none.
// Its `Debug` leaves out what may be a credential.
#[derive(Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OtlpConfig {
    /// Where the collector takes traces over HTTP: http://HOST:4318/v1/traces, or https://.
    #[serde(with = "text")]
    #[schemars(with = "String", length(min = 1), extend("writeOnly" = true))]
    pub endpoint: HttpUrl,
    /// The value of the header Authorization, if the collector wants one.
    #[serde(default)]
    #[schemars(length(min = 1), extend("writeOnly" = true))]
    pub authorization: Option<String>,
    /// The share of frames that are traced, drawn at random.
    #[serde(default = "frames")]
    #[schemars(range(min = 0, max = 1))]
    pub frames: f64,
    /// Whether deployments are traced.
    #[serde(default = "yes")]
    pub deployments: bool,
    /// Milliseconds that a request may take.
    #[serde(default = "timeout")]
    #[schemars(range(min = 100, max = 60_000))]
    pub timeout_ms: u32,
    /// A PEM file with the certificate authorities that are trusted, instead of the system's.
    /// Relative to the working directory.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub ca: Option<PathBuf>,
}

impl fmt::Debug for OtlpConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Otlp").field("frames", &self.frames).finish_non_exhaustive()
    }
}

fn frames() -> f64 {
    0.01
}

fn yes() -> bool {
    true
}

fn timeout() -> u32 {
    10_000
}
