//! The config's schema, made of the types of [`super`], and the check against it.
//! `config/ocelli.schema.json` is the same for editors, kept current by a test.
//!
//! The schema uses only what this file reads: `type`, `properties` with `additionalProperties:
//! false`, `required`, `items`, `enum`, `minimum`, `maximum`, `minLength`, and `writeOnly` for
//! values that may hold a credential and are not shown.

use std::collections::BTreeMap;

use schemars::transform::transform_subschemas;
use serde::Deserialize;
use serde_json::Value as Json;

use super::document::Document;
use super::error::ConfigProblem;
use super::tree::{Node, NodeValue};
use crate::shape;

/// The schema as a document.
pub fn document() -> Json {
    let settings = shape::settings().with(|settings| settings.inline_subschemas = true);
    settings.with_transform(written).into_generator().into_root_schema_for::<Document>().to_value()
}

/// Adapts the schema to configs: a missing key has its default, null is no value, and a section has
/// the defaults of its keys.
fn written(schema: &mut schemars::Schema) {
    transform_subschemas(&mut written, schema);
    shape::never_null(schema);
    if schema.get("default").is_some_and(Json::is_null) || schema.get("properties").is_some() {
        schema.remove("default");
    }
}

/// Below this similarity (0 to 1, by Damerau and Levenshtein) a known key is not suggested:
/// `tokens` is no typo of `listen`.
const SIMILAR: f64 = 0.6;

/// Characters of a wrong value that a message repeats.
const SHOWN: usize = 60;

/// The types of JSON Schema that the config uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SchemaType {
    Object,
    Array,
    String,
    Integer,
    Number,
    Boolean,
}

/// A node of the schema.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Schema {
    #[serde(rename = "type")]
    kind: Option<SchemaType>,
    #[serde(default)]
    properties: BTreeMap<String, Schema>,
    additional_properties: Option<bool>,
    #[serde(default)]
    required: Vec<String>,
    items: Option<Box<Schema>>,
    #[serde(rename = "enum", default)]
    choices: Vec<String>,
    minimum: Option<f64>,
    maximum: Option<f64>,
    min_length: Option<usize>,
    #[serde(default)]
    write_only: bool,
}

impl Schema {
    /// That of a config.
    pub(super) fn of_config() -> Result<Self, serde_json::Error> {
        Self::deserialize(document())
    }

    /// The type; a choice is a string.
    fn kind(&self) -> SchemaType {
        self.kind.unwrap_or(SchemaType::String)
    }

    /// Whether the key at this path is a string.
    pub(super) fn wants_string(&self, path: &[&str]) -> bool {
        let schema = path.iter().try_fold(self, |schema, step| schema.properties.get(*step));
        schema.is_some_and(|schema| schema.kind() == SchemaType::String)
    }

    /// Adds all that is wrong with a value. `key` is the value's full path, empty for the root.
    pub(super) fn check(&self, node: &Node, key: &str, problems: &mut Vec<ConfigProblem>) {
        self.check_below(self, node, key, problems);
    }

    fn check_below(&self, root: &Self, node: &Node, key: &str, problems: &mut Vec<ConfigProblem>) {
        match (&node.value, self.kind()) {
            (NodeValue::Table(members), SchemaType::Object) => {
                self.check_table(root, members, node, key, problems)
            }
            (NodeValue::Array(items), SchemaType::Array) => {
                let Some(schema) = &self.items else { return };
                for (index, item) in items.iter().enumerate() {
                    schema.check_below(root, item, &format!("{key}[{index}]"), problems);
                }
            }
            (NodeValue::Scalar(scalar), kind) if self.admits(scalar, kind) => {}
            _ => {
                let (expected, found) = (self.expected(), self.found(&node.value));
                let message = format!("expected {expected}, found {found}");
                problems.push(ConfigProblem::at(&node.origin, key, message));
            }
        }
    }

    fn check_table(
        &self,
        root: &Self,
        members: &BTreeMap<String, Node>,
        node: &Node,
        key: &str,
        problems: &mut Vec<ConfigProblem>,
    ) {
        for (name, member) in members {
            match self.properties.get(name) {
                Some(schema) => schema.check_below(root, member, &joined(key, name), problems),
                None if self.additional_properties == Some(false) => {
                    let (key, message) = (joined(key, name), self.unknown(root, name));
                    problems.push(ConfigProblem::at(&member.origin, key, message));
                }
                None => {}
            }
        }
        for name in self.required.iter().filter(|name| !members.contains_key(*name)) {
            problems.push(ConfigProblem::at(&node.origin, joined(key, name), "missing"));
        }
    }

    fn unknown(&self, root: &Self, name: &str) -> String {
        let nearest = self
            .properties
            .keys()
            .map(|known| (strsim::normalized_damerau_levenshtein(known, name), known))
            .max_by(|one, other| one.0.total_cmp(&other.0));
        if let Some((_, known)) = nearest.filter(|(similarity, _)| *similarity >= SIMILAR) {
            return format!("unknown key; did you mean {known}?");
        }
        if let Some(elsewhere) = root.find(name, "") {
            return format!("unknown key here; did you mean {elsewhere}?");
        }
        let known: Vec<&str> = self.properties.keys().map(String::as_str).collect();
        format!("unknown key; known here: {}", known.join(", "))
    }

    /// The full path of a key of this name.
    fn find(&self, name: &str, path: &str) -> Option<String> {
        let below = |(key, schema): (&String, &Self)| {
            let path = joined(path, key);
            if key == name { Some(path) } else { schema.find(name, &path) }
        };
        self.properties.iter().find_map(below)
    }

    fn admits(&self, scalar: &Json, kind: SchemaType) -> bool {
        let in_range = |number: f64| {
            self.minimum.is_none_or(|minimum| number >= minimum)
                && self.maximum.is_none_or(|maximum| number <= maximum)
        };
        match (scalar, kind) {
            (Json::Bool(_), SchemaType::Boolean) => true,
            (Json::Number(number), SchemaType::Number) => number.as_f64().is_some_and(in_range),
            (Json::Number(number), SchemaType::Integer) => {
                !number.is_f64() && number.as_f64().is_some_and(in_range)
            }
            (Json::String(text), SchemaType::String) => {
                self.min_length.is_none_or(|length| text.chars().count() >= length)
                    && (self.choices.is_empty() || self.choices.contains(text))
            }
            _ => false,
        }
    }

    fn expected(&self) -> String {
        let range = match (self.minimum, self.maximum) {
            (Some(minimum), Some(maximum)) => format!(" from {minimum} to {maximum}"),
            _ => String::new(),
        };
        match self.kind() {
            SchemaType::Object => "a table".into(),
            SchemaType::Array
                if self.items.as_ref().is_some_and(|items| items.kind() == SchemaType::Object) =>
            {
                "an array of tables".into()
            }
            SchemaType::Array => "an array".into(),
            SchemaType::Integer => format!("an integer{range}"),
            SchemaType::Number => format!("a number{range}"),
            SchemaType::Boolean => "true or false".into(),
            SchemaType::String if !self.choices.is_empty() => {
                let choices: Vec<String> =
                    self.choices.iter().map(|choice| format!("\"{choice}\"")).collect();
                format!("one of {}", choices.join(", "))
            }
            SchemaType::String if self.min_length.is_some() => "a string that is not empty".into(),
            SchemaType::String => "a string".into(),
        }
    }

    fn found(&self, value: &NodeValue) -> String {
        let (article, value) = match value {
            NodeValue::Table(_) => return "a table".into(),
            NodeValue::Array(_) => return "an array".into(),
            NodeValue::Scalar(scalar) => (
                match scalar {
                    Json::String(_) => "the string ",
                    Json::Number(_) => "the number ",
                    _ => "",
                },
                scalar.to_string(),
            ),
        };
        if self.write_only {
            return "something else (not shown: it may hold a password)".into();
        }
        match value.char_indices().nth(SHOWN) {
            Some((end, _)) => format!("{article}{}...", value.get(..end).unwrap_or_default()),
            None => format!("{article}{value}"),
        }
    }
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}
