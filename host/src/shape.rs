//! JSON Schemas of the types of the API and the config, in the plain form of our documents.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::transform_subschemas;
use serde_json::Value;

/// The pattern of times: RFC 3339 in UTC, with milliseconds.
pub(crate) const TIME: &str = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z$";

/// The pattern of digests: SHA-256 in lower-case hexadecimal.
pub(crate) const DIGEST: &str = "^[0-9a-f]{64}$";

/// The settings for all documents.
pub(crate) fn settings() -> SchemaSettings {
    SchemaSettings::draft2020_12().with_transform(simplify)
}

/// Removes details that concern Rust alone.
fn simplify(schema: &mut Schema) {
    transform_subschemas(&mut simplify, schema);
    // The width of a number in memory; its range stands beside the type.
    let width = |format: &str| {
        ["int", "uint", "float", "double"].iter().any(|name| format.starts_with(name))
    };
    if schema.get("format").and_then(Value::as_str).is_some_and(width) {
        schema.remove("format");
    }
    // A map of anything admits this by itself.
    if schema.get("additionalProperties") == Some(&Value::Bool(true)) {
        schema.remove("additionalProperties");
    }
    // Line breaks of the comment.
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(choices) = choices(schema) {
        schema.remove("oneOf");
        schema.remove("anyOf");
        schema.insert("type".into(), "string".into());
        schema.insert("enum".into(), choices.into());
    }
}

/// The words of an enum whose variants are all single words.
fn choices(schema: &Schema) -> Option<Vec<Value>> {
    let words = |variant: &Value| match (variant.get("const"), variant.get("enum")) {
        (Some(word @ Value::String(_)), None) => Some(vec![word.clone()]),
        (None, Some(Value::Array(words))) => Some(words.clone()),
        _ => None,
    };
    let variants: Option<Vec<_>> = schema
        .get("oneOf")
        .or_else(|| schema.get("anyOf"))?
        .as_array()?
        .iter()
        .map(words)
        .collect();
    variants.map(|words| words.concat())
}

/// Removes null from the values that a schema admits.
pub(crate) fn never_null(schema: &mut Schema) {
    if let Some(Value::Array(types)) = schema.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            schema.insert("type".into(), only);
        }
    }
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    let Some(Value::Array(variants)) = schema.get_mut("anyOf") else { return };
    variants.retain(|variant| variant.get("type").is_none_or(|kind| kind != "null"));
    if let [Value::Object(only)] = variants.as_slice() {
        let only = only.clone();
        schema.remove("anyOf");
        for (key, value) in only {
            // The member's own description has precedence over its type's.
            if schema.get(&key).is_none() {
                schema.insert(key, value);
            }
        }
    }
}
