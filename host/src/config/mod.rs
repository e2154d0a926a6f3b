//! The config: TOML or JSON with the same keys, overridden by `OCELLI__SECTION__KEY`, and checked
//! as a whole before the start.
//!
//! Three steps, each of which reports all its problems at once:
//!
//! 1. `tree`: the text becomes a tree whose values remember their lines.
//! 2. `schema`: the tree is checked for keys, types, ranges and choices. The schema is made of the
//!    types in `document`, `sections`, `inference`, `server` and `redis`.
//! 3. `check`: the typed values are checked for names, addresses, and values that depend on each
//!    other.

mod allow;
mod check;
pub mod diff;
mod document;
mod error;
mod inference;
mod redis;
mod schema;
mod sections;
mod server;
pub mod source;
mod source_error;
mod source_options;
mod text;
mod tree;

use std::path::Path;

pub use allow::SourcePattern;
pub use check::{EVERY_SESSION, LOCAL_CALLER, MAX_ID_BYTES, check_session_id, check_token_name};
pub use document::{Camera, Config};
pub use error::{ConfigError, ConfigProblem, ValueOrigin};
pub use inference::{DeviceFallback, InferenceConfig, Isolation, ModelOptions};
pub use redis::RedisConfig;
pub use schema::document as schema_document;
pub use sections::{
    AlertsConfig, AnalyzeConfig, AnalyzePipeline, DeployConfig, EventsConfig, LogFormat,
    LogRotation, LogsConfig, ModelsConfig, RefusedState, ResourceLimits, Sandbox, SessionProcesses,
    Signatures, StoreConfig, SubscriptionsConfig,
};
pub use server::{Role, ServerConfig, Tls, Token, TokenHash, WebOrigin};

use document::Document;
use schema::Schema;
use tree::Node;

/// Where the config is when no other file is named, relative to the working directory.
pub const DEFAULT_PATH: &str = "config/ocelli.toml";

impl Config {
    /// Reads a config file and the environment's overrides of it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
            _ => ConfigError::Unreadable { path: path.to_owned(), source },
        })?;
        let mut unreadable = Vec::new();
        // Sorted, so that the same environment gives the same result each time.
        let mut variables: Vec<(String, String)> = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| name.starts_with(tree::PREFIX))
            .filter_map(|(name, value)| match value.into_string() {
                Ok(value) => Some((name, value)),
                Err(_) => {
                    let origin = ValueOrigin::Environment(name);
                    unreadable.push(ConfigProblem::at(&origin, "", "the value is not valid UTF-8"));
                    None
                }
            })
            .collect();
        variables.sort_unstable();
        if unreadable.is_empty() {
            Self::from_text(path, &text, &variables)
        } else {
            Err(ConfigError::Invalid { path: path.to_owned(), problems: unreadable })
        }
    }

    /// A config from the text of a file, overridden by variables given as name and value. The
    /// ending of `path` selects TOML or JSON; without one the text decides. `path` also stands in
    /// errors. No file is read.
    pub fn from_text(
        path: &Path,
        text: &str,
        variables: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let json = match path.extension().and_then(|ending| ending.to_str()) {
            Some("json") => true,
            Some("toml") => false,
            // No TOML document begins with a brace.
            _ => text.trim_start().starts_with('{'),
        };
        let (format, parsed) =
            if json { ("JSON", Node::from_json(text)) } else { ("TOML", Node::from_toml(text)) };
        let mut tree = parsed.map_err(|error| ConfigError::Syntax {
            path: path.to_owned(),
            format,
            position: error.position,
            message: error.message,
        })?;
        let invalid = |problems| ConfigError::Invalid { path: path.to_owned(), problems };
        let schema = Schema::of_config().map_err(|error| {
            invalid(vec![ConfigProblem::whole(format!("the built-in schema is broken: {error}"))])
        })?;
        let mut problems = Vec::new();
        tree.overlay(variables, |path| schema.wants_string(path), &mut problems);
        schema.check(&tree, "", &mut problems);
        if !problems.is_empty() {
            return Err(invalid(problems));
        }
        let document: Document = serde_json::from_value(tree.to_json())
            .map_err(|error| invalid(check::type_problems(&tree, &error)))?;
        check::into_config(document, &tree).map_err(invalid)
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
