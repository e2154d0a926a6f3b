//! A config as it was written: TOML, JSON and environment variables in one tree whose values
//! remember where they stood.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigProblem, ValueOrigin};

/// Variables with this prefix override the file: `OCELLI__SECTION__KEY`.
pub(super) const PREFIX: &str = "OCELLI__";

/// A value and where it was written.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) value: NodeValue,
    pub(super) origin: ValueOrigin,
}

#[derive(Debug, Clone)]
pub(super) enum NodeValue {
    Table(BTreeMap<String, Node>),
    Array(Vec<Node>),
    /// Neither an object nor an array.
    Scalar(Json),
}

/// A syntax error: where, and the parser's words.
pub(super) struct SyntaxError {
    pub(super) position: String,
    pub(super) message: String,
}

impl Node {
    /// Parses TOML. Each value gets its line.
    pub(super) fn from_toml(text: &str) -> Result<Self, SyntaxError> {
        let lines = Lines::of(text);
        let (table, errors) = DeTable::parse_recoverable(text);
        // The parser continues after an error; later errors are mostly consequences.
        let first =
            errors.iter().min_by_key(|error| error.span().map_or(usize::MAX, |span| span.start));
        match first {
            None => Ok(Self {
                value: toml_table(table.get_ref(), &lines),
                origin: ValueOrigin::Line(1),
            }),
            Some(error) => Err(SyntaxError {
                position: error
                    .span()
                    .map_or_else(|| "at its end".into(), |span| lines.position(text, span.start)),
                message: error.message().to_owned(),
            }),
        }
    }

    /// Parses JSON, which has no lines.
    pub(super) fn from_json(text: &str) -> Result<Self, SyntaxError> {
        match serde_json::from_str(text) {
            Ok(value) => Ok(Self::of_json(value, &ValueOrigin::File)),
            Err(error) => Err(SyntaxError {
                position: format!("line {}, column {}", error.line(), error.column()),
                // The position stands at the end of serde_json's text too.
                message: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
            }),
        }
    }

    /// Gives each value that has a line another origin, made of the line.
    pub(super) fn relocate(&mut self, origin: &impl Fn(usize) -> ValueOrigin) {
        if let ValueOrigin::Line(line) = self.origin {
            self.origin = origin(line);
        }
        match &mut self.value {
            NodeValue::Table(members) => {
                members.values_mut().for_each(|node| node.relocate(origin));
            }
            NodeValue::Array(items) => items.iter_mut().for_each(|node| node.relocate(origin)),
            NodeValue::Scalar(_) => {}
        }
    }

    fn of_json(value: Json, origin: &ValueOrigin) -> Self {
        let value = match value {
            Json::Object(members) => NodeValue::Table(
                members
                    .into_iter()
                    .map(|(key, value)| (key, Self::of_json(value, origin)))
                    .collect(),
            ),
            Json::Array(items) => NodeValue::Array(
                items.into_iter().map(|value| Self::of_json(value, origin)).collect(),
            ),
            scalar => NodeValue::Scalar(scalar),
        };
        Self { value, origin: origin.clone() }
    }

    /// The tree without its origins.
    pub(super) fn to_json(&self) -> Json {
        match &self.value {
            NodeValue::Table(members) => Json::Object(
                members.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
            ),
            NodeValue::Array(items) => Json::Array(items.iter().map(Self::to_json).collect()),
            NodeValue::Scalar(scalar) => scalar.clone(),
        }
    }

    /// The node at a path such as `cameras[0].source`, or the nearest one above it.
    pub(super) fn nearest(&self, path: &str) -> &Self {
        let mut node = self;
        for step in path.split(['.', '[']).map(|step| step.trim_end_matches(']')) {
            let next = match &node.value {
                NodeValue::Table(members) => members.get(step),
                NodeValue::Array(items) => {
                    step.parse::<usize>().ok().and_then(|index| items.get(index))
                }
                NodeValue::Scalar(_) => None,
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node
    }

    /// Inserts the values of environment variables. Unknown keys show when the tree is checked
    /// against the schema. Reported here are variables that fit nowhere in the tree. `is_string`
    /// says whether the key at a path is a string.
    pub(super) fn overlay(
        &mut self,
        variables: &[(String, String)],
        is_string: impl Fn(&[&str]) -> bool,
        problems: &mut Vec<ConfigProblem>,
    ) {
        for (name, text) in variables {
            let Some(path) = name.strip_prefix(PREFIX) else { continue };
            let path = path.to_lowercase();
            let steps: Vec<&str> = path.split("__").collect();
            let origin = ValueOrigin::Environment(name.clone());
            let problem = |message| ConfigProblem::at(&origin, "", message);
            if steps.iter().any(|step| step.is_empty()) {
                problems.push(problem("not a key; overrides are written OCELLI__SECTION__KEY"));
            } else if steps.first() == Some(&"cameras") {
                problems.push(problem(
                    "cameras cannot be set from the environment; write them into the config file",
                ));
            } else {
                let value = environment_value(text, is_string(&steps));
                if !self.put(&steps, Self::of_json(value, &origin)) {
                    problems.push(problem(
                        "no such key: what stands above it is a value, not a section",
                    ));
                }
            }
        }
    }

    /// Whether there was a place for it.
    fn put(&mut self, steps: &[&str], node: Node) -> bool {
        let NodeValue::Table(members) = &mut self.value else { return false };
        match steps {
            [] => false,
            [key] => {
                members.insert((*key).to_owned(), node);
                true
            }
            [section, rest @ ..] => members
                .entry((*section).to_owned())
                .or_insert_with(|| Node {
                    value: NodeValue::Table(BTreeMap::new()),
                    origin: node.origin.clone(),
                })
                .put(rest, node),
        }
    }
}

/// A variable's text as a TOML value. It stays text if it is no TOML, or if the key is a string: a
/// folder may be called `2024`.
fn environment_value(text: &str, is_string: bool) -> Json {
    let parsed =
        Node::from_toml(&format!("value = {text}")).ok().and_then(|node| match node.to_json() {
            Json::Object(mut members) if members.len() == 1 => members.remove("value"),
            _ => None,
        });
    match parsed {
        Some(value) if value.is_string() || !is_string => value,
        _ => Json::String(text.to_owned()),
    }
}

fn toml_table(table: &DeTable<'_>, lines: &Lines) -> NodeValue {
    let member = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
        let node = Node {
            value: toml_value(value.get_ref(), lines),
            origin: lines.origin(key.span().start),
        };
        (key.get_ref().to_string(), node)
    };
    NodeValue::Table(table.iter().map(member).collect())
}

fn toml_value(value: &DeValue<'_>, lines: &Lines) -> NodeValue {
    match value {
        DeValue::Table(table) => toml_table(table, lines),
        DeValue::Array(items) => NodeValue::Array(
            items
                .iter()
                .map(|item| Node {
                    value: toml_value(item.get_ref(), lines),
                    origin: lines.origin(item.span().start),
                })
                .collect(),
        ),
        DeValue::String(text) => NodeValue::Scalar(Json::String(text.to_string())),
        DeValue::Boolean(value) => NodeValue::Scalar(Json::Bool(*value)),
        DeValue::Integer(integer) => NodeValue::Scalar(
            i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or_else(|_| Json::String(integer.to_string()), Json::from),
        ),
        // JSON has neither infinities nor times: as text the schema refuses them for a number.
        DeValue::Float(float) => NodeValue::Scalar(
            float
                .as_str()
                .parse::<f64>()
                .ok()
                .and_then(serde_json::Number::from_f64)
                .map_or_else(|| Json::String(float.as_str().to_owned()), Json::Number),
        ),
        DeValue::Datetime(time) => NodeValue::Scalar(Json::String(time.to_string())),
    }
}

/// Finds the line of a byte.
struct Lines {
    /// Where each line ends.
    ends: Vec<usize>,
}

impl Lines {
    fn of(text: &str) -> Self {
        Self {
            ends: text
                .bytes()
                .enumerate()
                .filter(|&(_, byte)| byte == b'\n')
                .map(|(at, _)| at)
                .collect(),
        }
    }

    fn line(&self, at: usize) -> usize {
        self.ends.partition_point(|&end| end < at) + 1
    }

    fn origin(&self, at: usize) -> ValueOrigin {
        ValueOrigin::Line(self.line(at))
    }

    fn position(&self, text: &str, at: usize) -> String {
        let line = self.line(at);
        let start =
            line.checked_sub(2).and_then(|before| self.ends.get(before)).map_or(0, |end| end + 1);
        let column = text.get(start..at).map_or(0, |part| part.chars().count()) + 1;
        format!("line {line}, column {column}")
    }
}
