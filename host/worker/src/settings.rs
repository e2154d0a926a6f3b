//! Whether a pipeline's settings fit the JSON Schema that its component describes.
//!
//! The schema is text of a stranger, so whatever it says takes bounded time and stack, and nothing
//! is fetched for it. The crates for JSON Schema give neither bound, and the schemas of schemas
//! that they keep would make an idle worker a third larger. Known are the assertions of draft
//! 2020-12 and their forms of drafts 6 and 7, without the `unevaluated` ones; references lead to
//! places in the same schema. `format` and what is unknown say nothing, as the standard has it.

mod schema;

use serde_json::{Map, Value};

use schema::{Schema, SchemaError};

/// Longest schema in bytes. One of a pipeline with fifty documented settings takes 10 KiB.
const MAX_SCHEMA: usize = 256 << 10;

/// Violations that are named; there is no end to those of a long list.
const MAX_REPORTED: usize = 20;

/// Why settings are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsFault {
    /// The component's schema is invalid: no settings can be right.
    #[error("the pipeline's settings schema is not usable: {0}")]
    Schema(String),
    /// The settings do not fit; names each violation by its path.
    #[error("the settings do not fit the pipeline's schema: {0}")]
    Settings(String),
}

/// Holds settings against the schema that a component describes. An empty schema takes all.
pub fn check(schema: &str, settings: &Map<String, Value>) -> Result<(), SettingsFault> {
    if schema.trim().is_empty() {
        return Ok(());
    }
    if schema.len() > MAX_SCHEMA {
        let (length, bound) = (schema.len(), MAX_SCHEMA);
        return Err(SettingsFault::Schema(format!(
            "it has {length} bytes, at most {bound} are read"
        )));
    }
    let parsed = serde_json::from_str::<Value>(schema)
        .map_err(|error| SettingsFault::Schema(format!("it is no JSON: {error}")))?;
    let broken = |SchemaError(message)| SettingsFault::Schema(message);
    let schema = Schema::new(&parsed).map_err(broken)?;
    let violations = schema.violations(&Value::Object(settings.clone())).map_err(broken)?;
    if violations.is_empty() {
        return Ok(());
    }
    let more = violations.len().saturating_sub(MAX_REPORTED);
    let mut message = violations.into_iter().take(MAX_REPORTED).collect::<Vec<_>>().join("; ");
    if more > 0 {
        message += &format!("; and {more} more");
    }
    Err(SettingsFault::Settings(message))
}

#[cfg(test)]
mod tests;
