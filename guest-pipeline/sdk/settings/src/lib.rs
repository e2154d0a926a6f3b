//! Whether settings fit the JSON Schema that a pipeline describes. The host, its workers and the
//! tests of pipelines all ask here, so they agree.
//!
//! # How it works
//!
//! [`Schema::read`] compiles the text: each place of it where a schema stands becomes a node,
//! references become numbers of nodes, patterns are compiled once ([`compile`]). [`Schema::check`]
//! walks the settings ([`apply`]) and reports violations by their path.
//!
//! The schema is text of a stranger. Whatever it says takes bounded time, memory and stack, and
//! nothing is fetched for it:
//!
//! - What a reference leads to is applied to a value once; its verdict is remembered. So a check
//!   takes at most one step for each node and value, while applying references as they come is
//!   exponential. Settings of ten thousand values against a schema of ten thousand nodes, every
//!   one of which looks at every value, stay within the steps that a check may take.
//! - A reference that leads to itself at the same value is found at once.
//! - Violations are made one by one until there are enough, and each is short.
//!
//! The crates for JSON Schema give none of these bounds: `boon` 0.6 and `jsonschema` 0.61 take
//! exponential time for references that double, run out of memory over the violations of such a
//! schema, and the first out of stack over a chain of references; and the schemas of schemas that
//! they keep would make an idle worker a third larger.
//!
//! # What is known
//!
//! Draft 2020-12, and the forms of drafts 6, 7 and 2019-09 that do not contradict it (`items` as a
//! list with `additionalItems`, `dependencies`, `definitions`). `format`, `content...` and unknown
//! keywords say nothing, as the standard has it. Refused are references to other documents, a
//! second document within (`$id` below the root), schemas of schemas other than the drafts' own,
//! `$recursiveRef`, and patterns that need more than linear time (look-around, back-references) or
//! large tables (`\p`).

mod apply;
mod compile;
mod number;
mod pattern;
mod report;
mod value;

use serde_json::{Map, Value};

use apply::Check;
use compile::Compiled;

/// Longest schema in bytes. One of a pipeline with fifty documented settings takes 10 KiB.
pub const MAX_SCHEMA: usize = 256 << 10;

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

/// A fault of a schema, as text.
#[derive(Debug)]
struct SchemaError(String);

impl From<SchemaError> for SettingsFault {
    fn from(SchemaError(message): SchemaError) -> Self {
        Self::Schema(message)
    }
}

/// A JSON Schema of settings, ready to be held against some.
#[derive(Debug)]
pub struct Schema(Option<Compiled>);

impl Schema {
    /// Reads a schema. An empty text is one that takes all settings.
    ///
    /// # Errors
    /// [`SettingsFault::Schema`]: it is too long, no JSON, or no schema.
    pub fn read(text: &str) -> Result<Self, SettingsFault> {
        if text.trim().is_empty() {
            return Ok(Self(None));
        }
        if text.len() > MAX_SCHEMA {
            let (length, bound) = (text.len(), MAX_SCHEMA);
            let message = format!("it has {length} bytes, at most {bound} are read");
            return Err(SettingsFault::Schema(message));
        }
        let schema: Value = serde_json::from_str(text)
            .map_err(|error| SettingsFault::Schema(format!("it is no JSON: {error}")))?;
        Ok(Self(Some(Compiled::new(&schema)?)))
    }

    /// Holds settings against the schema.
    ///
    /// # Errors
    /// [`SettingsFault::Settings`] names what does not fit, and what would.
    /// [`SettingsFault::Schema`] is about a schema that shows only now that it has no end.
    pub fn check(&self, settings: &Map<String, Value>) -> Result<(), SettingsFault> {
        self.check_value(&Value::Object(settings.clone()))
    }

    /// The same for a value of any type.
    ///
    /// # Errors
    /// Those of [`Schema::check`].
    pub fn check_value(&self, value: &Value) -> Result<(), SettingsFault> {
        let Some(schema) = &self.0 else { return Ok(()) };
        match Check::new(schema).run(value)? {
            Some(violations) => Err(SettingsFault::Settings(violations)),
            None => Ok(()),
        }
    }
}

/// Holds settings against the text of a schema.
///
/// # Errors
/// Those of [`Schema::read`] and [`Schema::check`].
pub fn check(schema: &str, settings: &Map<String, Value>) -> Result<(), SettingsFault> {
    Schema::read(schema)?.check(settings)
}

#[cfg(test)]
mod tests;
