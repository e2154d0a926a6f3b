//! The config: TOML or JSON with the same keys, overridden by `OCELLI__SECTION__KEY`, and checked
//! as a whole before the start.
//!
//! Three steps, each of which reports all its problems at once:
//!
//! 1. `tree`: the text becomes a tree whose values remember their lines.
//! 2. `schema`: the tree is checked for keys, types, ranges and choices. The schema is made of the
//!    types in `document`, `sections`, `inference`, `server`, `redis` and `registry`.
//! 3. `check`: the typed values are checked for names, addresses, and values that depend on each
//!    other.

mod allow;
mod base_path;
mod cameras;
mod check;
mod cluster;
pub mod diff;
mod directory;
mod document;
pub mod edit;
mod error;
mod file;
mod http_url;
mod inference;
mod mqtt;
mod otlp;
mod redis;
mod registry;
mod schema;
mod sections;
mod server;
mod sink;
pub mod source;
mod source_error;
mod source_options;
pub(crate) mod text;
mod token;
mod tree;
mod trusted_proxy;
mod webhook;

use std::path::Path;

pub use allow::SourcePattern;
pub use base_path::{BasePath, BasePathError};
pub(crate) use check::check_token_name;
pub use check::{EVERY_SESSION, LOCAL_CALLER, MAX_ID_BYTES, check_session_id};
pub use cluster::ClusterConfig;
pub use directory::{Directory, DirectoryError};
pub use document::{Camera, Config};
pub(crate) use error::listing;
pub use error::{CamerasLine, ConfigError, ConfigProblem, ShownProblem, ValueOrigin};
pub use file::{CamerasPlace, ConfigFile};
pub use inference::{DeviceFallback, InferenceConfig, Isolation, ModelOptions};
pub use mqtt::{BrokerAddress, MqttConfig, PicturePublishing};
pub use otlp::OtlpConfig;
pub use redis::RedisConfig;
pub use registry::{OciReference, OciReferenceError, RegistryConfig};
pub use schema::document as schema_document;
pub use sections::{
    AlertsConfig, AnalyzeConfig, AnalyzePipeline, DeployConfig, EventsConfig, LogFormat,
    LogRotation, LogsConfig, ModelsConfig, RefusedState, ResourceLimits, Sandbox, SessionProcesses,
    Signatures, StoreConfig, SubscriptionsConfig,
};
pub use server::{Role, ServerConfig, Tls, Token, TokenHash, WebOrigin};
pub use sink::SinkStart;
pub use token::{TokenRequest, TokenRequestError};
pub use trusted_proxy::{TrustedProxy, TrustedProxyError};
pub use webhook::{WebhookConfig, WebhookSecret};

/// Where the config is when no other file is named, relative to the working directory.
pub const DEFAULT_PATH: &str = "config/ocelli.toml";

impl Config {
    /// Reads a config file and the environment's overrides of it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Ok(ConfigFile::load(path)?.config)
    }

    /// A config from the text of a file; see [`ConfigFile::from_text`].
    pub fn from_text(
        path: &Path,
        text: &str,
        variables: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        Ok(ConfigFile::from_text(path, text, variables)?.config)
    }

    /// Warnings about risky settings, one line each, for the log at start.
    pub fn warnings(&self) -> Vec<String> {
        let limits = &self.resource_limits;
        let mut warnings = Vec::new();
        if self.inference.isolation == Isolation::InProcess {
            warnings.push(
                "inference.isolation = \"in-process\": models run in the host itself, so a crash \
                 of ONNX Runtime or of a GPU's driver ends the host and every session with it; \
                 \"process\" is the default for that reason"
                    .to_owned(),
            );
        }
        let health_ms = self.session_processes.health_check_interval.saturating_mul(1000);
        if u64::from(limits.call_timeout_ms.max(limits.host_call_ms)) >= health_ms {
            warnings.push(format!(
                "resource_limits.call_timeout_ms = {} and host_call_ms = {} are not below \
                 session_processes.health_check_interval ({health_ms} ms): a pipeline that takes \
                 so long is ended as one that hangs, without the limit's name",
                limits.call_timeout_ms, limits.host_call_ms
            ));
        }
        warnings
    }
}

#[cfg(test)]
mod tests;
