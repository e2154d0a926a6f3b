//! What the code of `settings!` is made with.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, Visitor};
use serde_json::{Map, Value};

use super::limits::Limits;
use super::value::Setting;

/// The schema of an object, field by field.
pub struct ObjectSchema {
    description: String,
    fields: Map<String, Value>,
    required: Vec<Value>,
}

/// What stands for a field that is not given.
pub enum Absent {
    /// A value, as the schema shows it.
    Default(Value),
    /// Nothing: the field has to be given.
    Required,
    /// Nothing, and the pipeline sees that it was not given.
    Open,
}

impl ObjectSchema {
    /// An object without fields; `docs` are the lines of its comment.
    #[must_use]
    pub fn new(docs: &[&str]) -> Self {
        Self { description: text(docs), fields: Map::new(), required: Vec::new() }
    }

    /// Adds a field; `docs` are the lines of its comment.
    pub fn field(&mut self, key: &str, docs: &[&str], values: Map<String, Value>, absent: Absent) {
        let mut schema = values;
        match absent {
            Absent::Default(default) => drop(schema.insert("default".into(), default)),
            Absent::Required => self.required.push(key.into()),
            Absent::Open => {}
        }
        let description = text(docs);
        if !description.is_empty() {
            schema.insert("description".into(), description.into());
        }
        self.fields.insert(key.into(), schema.into());
    }

    /// The schema.
    #[must_use]
    pub fn finish(self) -> Map<String, Value> {
        let mut schema = Map::new();
        schema.insert("type".into(), "object".into());
        schema.insert("additionalProperties".into(), false.into());
        schema.insert("properties".into(), self.fields.into());
        if !self.description.is_empty() {
            schema.insert("description".into(), self.description.into());
        }
        if !self.required.is_empty() {
            schema.insert("required".into(), self.required.into());
        }
        schema
    }
}

/// A comment as one line.
pub(super) fn text(docs: &[&str]) -> String {
    docs.iter().flat_map(|line| line.split_whitespace()).collect::<Vec<_>>().join(" ")
}

/// Checks a field by its own check, whose words are the better ones, and by its limits.
///
/// # Errors
/// Those of the two.
pub fn check_field<T: Setting>(
    value: &T,
    path: &str,
    limits: &Limits,
    check: impl FnOnce(&T, &str) -> Result<(), String>,
) -> Result<(), String> {
    check(value, path)?;
    value.check(limits, path)
}

/// Reads a key of an object, one of these; so an unknown one is named by its path.
pub struct Key(pub &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for Key {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        deserializer.deserialize_identifier(self)
    }
}

impl Visitor<'_> for Key {
    type Value = &'static str;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the name of a setting")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'static str, E> {
        let known = self.0.iter().find(|key| **key == name).copied();
        known.ok_or_else(|| E::unknown_field(name, self.0))
    }
}

/// Reads the name of a variant.
pub struct VariantName(pub &'static [&'static str]);

impl Visitor<'_> for VariantName {
    type Value = &'static str;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "one of {}", self.0.join(", "))
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<&'static str, E> {
        let known = self.0.iter().find(|variant| **variant == name).copied();
        known.ok_or_else(|| E::unknown_variant(name, self.0))
    }
}
