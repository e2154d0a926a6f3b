//! Values of JSON: their types, their order, and how they are shown.

use std::cmp::Ordering;

use serde_json::Value;

use crate::number;

/// Longest part of a value that is repeated in an error, in characters.
const MAX_SHOWN: usize = 60;

/// The types that a schema may name.
pub(crate) const TYPES: [&str; 7] =
    ["null", "boolean", "object", "array", "number", "integer", "string"];

pub(crate) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(value) if number::is_integer(value) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

pub(crate) fn is_a(value: &Value, name: &str) -> bool {
    type_of(value) == name || name == "number" && value.is_number()
}

/// A total order in which values are equal that JSON Schema calls equal.
pub(crate) fn compare(one: &Value, other: &Value) -> Ordering {
    match (one, other) {
        (Value::Bool(one), Value::Bool(other)) => one.cmp(other),
        (Value::Number(one), Value::Number(other)) => number::compare(one, other),
        (Value::String(one), Value::String(other)) => one.cmp(other),
        (Value::Array(one), Value::Array(other)) => {
            let items = one.iter().zip(other).map(|(one, other)| compare(one, other));
            first_difference(one.len().cmp(&other.len()), items)
        }
        // Maps are ordered by their keys.
        (Value::Object(one), Value::Object(other)) => {
            let fields = one.iter().zip(other);
            let fields =
                fields.map(|(one, other)| one.0.cmp(other.0).then(compare(one.1, other.1)));
            first_difference(one.len().cmp(&other.len()), fields)
        }
        _ => rank(one).cmp(&rank(other)),
    }
}

fn first_difference(length: Ordering, parts: impl Iterator<Item = Ordering>) -> Ordering {
    let mut parts = std::iter::once(length).chain(parts);
    parts.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
}

fn rank(value: &Value) -> u8 {
    match value {
        Value::Null => 0,
        Value::Bool(_) => 1,
        Value::Number(_) => 2,
        Value::String(_) => 3,
        Value::Array(_) => 4,
        Value::Object(_) => 5,
    }
}

/// How many values there are in a value, itself too.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.iter().map(weight).sum::<usize>() + 1,
        Value::Object(fields) => fields.values().map(weight).sum::<usize>() + 1,
        _ => 1,
    }
}

/// How many values stand directly in a value.
pub(crate) fn children(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        _ => 0,
    }
}

/// A value as an error repeats it.
pub(crate) fn shown(value: &Value) -> String {
    shorten(&value.to_string(), MAX_SHOWN)
}

/// Several values as an error lists them.
pub(crate) fn list(values: &[Value]) -> String {
    // More than fit are cut off anyway.
    let first = values.iter().take(5 * MAX_SHOWN).map(shown).collect::<Vec<_>>();
    shorten(&first.join(", "), 5 * MAX_SHOWN)
}

pub(crate) fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
