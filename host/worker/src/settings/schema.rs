//! The part of JSON Schema that settings need.

use regex_lite::{Regex, RegexBuilder};
use serde_json::{Map, Number, Value};

/// Schemas that are applied to values in one check. Settings of a hundred values take a few
/// hundred; references can make it exponential.
const MAX_STEPS: usize = 20_000;

/// How deep schemas are applied within schemas. Each takes less than 2 KiB of stack.
const MAX_DEPTH: usize = 200;

/// Compiled size of a pattern in bytes.
const MAX_PATTERN: usize = 64 << 10;

/// What compiling a pattern counts for. A large one takes a millisecond, so all that a check may
/// take take a second.
const PATTERN_STEPS: usize = 20;

/// Longest part of a value that is repeated in an error, in characters.
const MAX_SHOWN: usize = 60;

/// A fault of a schema, as text.
#[derive(Debug)]
pub(super) struct SchemaError(pub(super) String);

/// The form of a keyword's value.
#[derive(Clone, Copy)]
enum Form {
    Schema,
    SchemaOrSchemas,
    Schemas,
    NamedSchemas,
    PatternedSchemas,
    Dependencies,
    Reference,
    Types,
    List,
    Names,
    NamedNames,
    Number,
    Divisor,
    Count,
    Flag,
    Pattern,
    Unsupported,
}

fn form(keyword: &str) -> Option<Form> {
    Some(match keyword {
        "additionalProperties"
        | "propertyNames"
        | "contains"
        | "not"
        | "if"
        | "then"
        | "else"
        | "additionalItems" => Form::Schema,
        "items" => Form::SchemaOrSchemas,
        "prefixItems" | "allOf" | "anyOf" | "oneOf" => Form::Schemas,
        "properties" | "$defs" | "definitions" | "dependentSchemas" => Form::NamedSchemas,
        "patternProperties" => Form::PatternedSchemas,
        "dependencies" => Form::Dependencies,
        "$ref" => Form::Reference,
        "type" => Form::Types,
        "enum" => Form::List,
        "required" => Form::Names,
        "dependentRequired" => Form::NamedNames,
        "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => Form::Number,
        "multipleOf" => Form::Divisor,
        "minLength" | "maxLength" | "minItems" | "maxItems" | "minProperties" | "maxProperties"
        | "minContains" | "maxContains" => Form::Count,
        "uniqueItems" => Form::Flag,
        "pattern" => Form::Pattern,
        "unevaluatedProperties" | "unevaluatedItems" | "$dynamicRef" | "$recursiveRef" => {
            Form::Unsupported
        }
        _ => return None,
    })
}

const TYPES: [&str; 7] = ["null", "boolean", "object", "array", "number", "integer", "string"];

/// A schema whose keywords have the values that they are to have.
pub(super) struct Schema<'a>(&'a Value);

impl<'a> Schema<'a> {
    pub(super) fn new(schema: &'a Value) -> Result<Self, SchemaError> {
        well_formed(schema, schema, "#")?;
        Ok(Self(schema))
    }

    /// The violations of a value, each with its path.
    pub(super) fn violations(&self, settings: &Value) -> Result<Vec<String>, SchemaError> {
        let mut check = Check { root: self.0, steps: MAX_STEPS };
        let mut found = Vec::new();
        check.apply(self.0, settings, "settings", 0, &mut found)?;
        Ok(found)
    }
}

fn well_formed(root: &Value, schema: &Value, at: &str) -> Result<(), SchemaError> {
    let keywords = match schema {
        Value::Bool(_) => return Ok(()),
        Value::Object(keywords) => keywords,
        _ => return Err(SchemaError(format!("{at} is neither an object nor true or false"))),
    };
    for (keyword, value) in keywords {
        let Some(form) = form(keyword) else { continue };
        let at = format!("{at}/{keyword}");
        let is = |fits: bool, what: &str| {
            if fits {
                Ok(())
            } else {
                Err(SchemaError(format!("{at} is {}, not {what}", shown(value))))
            }
        };
        let is_names = |value: &Value| {
            value.as_array().is_some_and(|names| names.iter().all(|name| name.is_string()))
        };
        match form {
            Form::Schema => well_formed(root, value, &at)?,
            Form::SchemaOrSchemas if !value.is_array() => well_formed(root, value, &at)?,
            Form::Schemas | Form::SchemaOrSchemas => {
                is(value.is_array(), "a list of schemas")?;
                for (index, schema) in value.as_array().into_iter().flatten().enumerate() {
                    well_formed(root, schema, &format!("{at}/{index}"))?;
                }
            }
            Form::NamedSchemas | Form::PatternedSchemas | Form::Dependencies => {
                is(value.is_object(), "an object of schemas")?;
                for (name, schema) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}/{name}");
                    if matches!(form, Form::PatternedSchemas) {
                        pattern(name).map_err(|error| SchemaError(format!("{at}: {error}")))?;
                    }
                    if !(matches!(form, Form::Dependencies) && is_names(schema)) {
                        well_formed(root, schema, &at)?;
                    }
                }
            }
            Form::Reference => {
                let found = value.as_str().and_then(|reference| resolve(root, reference));
                is(
                    found.is_some_and(|schema| schema.is_object() || schema.is_boolean()),
                    "a place in this schema",
                )?;
            }
            Form::Types => {
                let known = |name: &Value| name.as_str().is_some_and(|name| TYPES.contains(&name));
                let all = value.as_array().is_some_and(|names| names.iter().all(known));
                is(known(value) || all, "a type")?;
            }
            Form::List => is(value.is_array(), "a list")?,
            Form::Names => is(is_names(value), "a list of names")?,
            Form::NamedNames => {
                let all = value.as_object().is_some_and(|lists| lists.values().all(is_names));
                is(all, "an object of lists of names")?;
            }
            Form::Number => is(value.is_number(), "a number")?,
            Form::Divisor => {
                is(value.as_f64().is_some_and(|divisor| divisor > 0.0), "a number above 0")?
            }
            Form::Count => is(count(Some(value)).is_some(), "a count")?,
            Form::Flag => is(value.is_boolean(), "true or false")?,
            Form::Pattern => {
                is(value.is_string(), "a pattern")?;
                let compiled = value.as_str().map(pattern).transpose();
                compiled.map_err(|error| SchemaError(format!("{at}: {error}")))?;
            }
            Form::Unsupported => return Err(SchemaError(format!("{at} is not supported here"))),
        }
    }
    Ok(())
}

fn pattern(text: &str) -> Result<Regex, regex_lite::Error> {
    RegexBuilder::new(text).size_limit(MAX_PATTERN).build()
}

/// The place in `root` that a reference leads to: `#`, or `#/` and a JSON pointer.
fn resolve<'a>(root: &'a Value, reference: &str) -> Option<&'a Value> {
    root.pointer(reference.strip_prefix('#')?)
}

/// One check under way.
struct Check<'a> {
    root: &'a Value,
    /// That it may still take.
    steps: usize,
}

impl Check<'_> {
    /// Adds to `found` what does not fit.
    fn apply(
        &mut self,
        schema: &Value,
        value: &Value,
        at: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), SchemaError> {
        self.spend(1)?;
        if depth > MAX_DEPTH {
            return Err(SchemaError(format!("it goes deeper than {MAX_DEPTH} schemas at {at}")));
        }
        let keywords = match schema {
            Value::Bool(true) => return Ok(()),
            Value::Object(keywords) => keywords,
            _ => {
                found.push(format!("{at}: nothing may stand here"));
                return Ok(());
            }
        };
        let depth = depth + 1;
        if let Some(reference) = keywords.get("$ref").and_then(Value::as_str)
            && let Some(schema) = resolve(self.root, reference)
        {
            self.apply(schema, value, at, depth, found)?;
        }
        self.any_value(keywords, value, at, found)?;
        match value {
            Value::Object(fields) => self.object(keywords, (value, fields), at, depth, found)?,
            Value::Array(items) => self.array(keywords, items, at, depth, found)?,
            Value::Number(number) => numeric(keywords, number, at, found),
            Value::String(text) => {
                self.spend(PATTERN_STEPS * usize::from(keywords.contains_key("pattern")))?;
                textual(keywords, text, at, found);
            }
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(keywords, value, at, depth, found)
    }

    /// The keywords that apply to a value of any type.
    fn any_value(
        &mut self,
        keywords: &Map<String, Value>,
        value: &Value,
        at: &str,
        found: &mut Vec<String>,
    ) -> Result<(), SchemaError> {
        let types: Vec<&str> = match keywords.get("type") {
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).collect(),
            Some(one) => one.as_str().into_iter().collect(),
            None => Vec::new(),
        };
        if keywords.contains_key("type") && !types.iter().any(|name| is_a(value, name)) {
            found.push(format!(
                "{at}: {} is of type {}, not {}",
                shown(value),
                type_of(value),
                types.join(" or ")
            ));
        }
        if let Some(values) = keywords.get("enum").and_then(Value::as_array) {
            self.spend(values.len())?;
            if !values.iter().any(|known| same(known, value)) {
                let known = shorten(
                    &values.iter().map(shown).collect::<Vec<_>>().join(", "),
                    5 * MAX_SHOWN,
                );
                found.push(format!("{at}: {} is none of {known}", shown(value)));
            }
        }
        if let Some(known) = keywords.get("const").filter(|known| !same(known, value)) {
            found.push(format!("{at}: {} is not {}", shown(value), shown(known)));
        }
        Ok(())
    }

    fn object(
        &mut self,
        keywords: &Map<String, Value>,
        (object, fields): (&Value, &Map<String, Value>),
        at: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), SchemaError> {
        counted(keywords, ("minProperties", "maxProperties"), fields.len(), "fields", at, found);
        let mut missing = |names: &[Value], why: &str| {
            let names =
                names.iter().filter_map(Value::as_str).filter(|name| !fields.contains_key(*name));
            found.extend(names.map(|name| format!("{}: is missing{why}", field(at, name))));
        };
        if let Some(names) = keywords.get("required").and_then(Value::as_array) {
            self.spend(names.len())?;
            missing(names, "");
        }
        let dependent =
            |keyword| named(keywords, keyword).filter(|(name, _)| fields.contains_key(*name));
        for (name, names) in dependent("dependentRequired").chain(dependent("dependencies")) {
            if let Some(names) = names.as_array() {
                self.spend(names.len())?;
                missing(names, &format!(", which {} needs", shown(&name.as_str().into())));
            }
        }
        for (_, schema) in dependent("dependentSchemas").chain(dependent("dependencies")) {
            if !schema.is_array() {
                self.apply(schema, object, at, depth, found)?;
            }
        }
        self.spend(PATTERN_STEPS.saturating_mul(named(keywords, "patternProperties").count()))?;
        let patterns: Vec<(Regex, &Value)> = named(keywords, "patternProperties")
            .filter_map(|(text, schema)| Some((pattern(text).ok()?, schema)))
            .collect();
        for (name, value) in fields {
            let at = field(at, name);
            let property = keywords.get("properties").and_then(|properties| properties.get(name));
            let matching = patterns.iter().filter(|(pattern, _)| pattern.is_match(name));
            let mut known = false;
            for schema in property.into_iter().chain(matching.map(|(_, schema)| *schema)) {
                known = true;
                self.apply(schema, value, &at, depth, found)?;
            }
            match keywords.get("additionalProperties").filter(|_| !known) {
                Some(Value::Bool(false)) => found.push(format!("{at}: there is no such setting")),
                Some(schema) => self.apply(schema, value, &at, depth, found)?,
                None => {}
            }
            if let Some(schema) = keywords.get("propertyNames") {
                self.apply(
                    schema,
                    &Value::String(name.clone()),
                    &format!("{at}'s name"),
                    depth,
                    found,
                )?;
            }
        }
        Ok(())
    }

    fn array(
        &mut self,
        keywords: &Map<String, Value>,
        items: &[Value],
        at: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), SchemaError> {
        counted(keywords, ("minItems", "maxItems"), items.len(), "items", at, found);
        // Before draft 2020-12 a list of `items` was what `prefixItems` is, and `additionalItems`
        // what `items` is.
        let (first, rest) = match keywords.get("items") {
            Some(Value::Array(first)) => (first.as_slice(), keywords.get("additionalItems")),
            rest => {
                let first = keywords.get("prefixItems").and_then(Value::as_array);
                (first.map(Vec::as_slice).unwrap_or_default(), rest)
            }
        };
        for (index, item) in items.iter().enumerate() {
            if let Some(schema) = first.get(index).or(rest) {
                self.apply(schema, item, &format!("{at}[{index}]"), depth, found)?;
            }
        }
        if keywords.get("uniqueItems") == Some(&Value::Bool(true)) {
            self.spend(items.len().saturating_mul(items.len()))?;
            let again = |(index, item): (usize, &Value)| {
                items.iter().take(index).any(|before| same(before, item)).then_some(index)
            };
            if let Some(index) = items.iter().enumerate().find_map(again) {
                found.push(format!("{at}[{index}]: is there twice"));
            }
        }
        if let Some(schema) = keywords.get("contains") {
            let mut fitting = 0;
            for item in items {
                let mut against = Vec::new();
                self.apply(schema, item, at, depth, &mut against)?;
                fitting += usize::from(against.is_empty());
            }
            let least = count(keywords.get("minContains")).unwrap_or(1);
            let most = count(keywords.get("maxContains")).unwrap_or(usize::MAX);
            if fitting < least || fitting > most {
                found.push(format!(
                    "{at}: {fitting} items are as some have to be, which is not the right number"
                ));
            }
        }
        Ok(())
    }

    /// `allOf`, `anyOf`, `oneOf`, `not`, `if`.
    fn combined(
        &mut self,
        keywords: &Map<String, Value>,
        value: &Value,
        at: &str,
        depth: usize,
        found: &mut Vec<String>,
    ) -> Result<(), SchemaError> {
        let list = |keyword| keywords.get(keyword).and_then(Value::as_array);
        for schema in list("allOf").into_iter().flatten() {
            self.apply(schema, value, at, depth, found)?;
        }
        for (keyword, most) in [("anyOf", usize::MAX), ("oneOf", 1)] {
            let Some(schemas) = list(keyword) else { continue };
            let (mut fitting, mut why) = (0, Vec::new());
            for schema in schemas {
                let mut against = Vec::new();
                self.apply(schema, value, at, depth, &mut against)?;
                fitting += usize::from(against.is_empty());
                why.extend(against.into_iter().next());
            }
            if fitting == 0 {
                found.push(format!(
                    "{at}: fits none of its forms ({})",
                    shorten(&why.join("; "), 10 * MAX_SHOWN)
                ));
            } else if fitting > most {
                found.push(format!("{at}: {} fits {fitting} forms and may fit one", shown(value)));
            }
        }
        if let Some(schema) = keywords.get("not") {
            let mut against = Vec::new();
            self.apply(schema, value, at, depth, &mut against)?;
            if against.is_empty() {
                found.push(format!("{at}: {} is what it may not be", shown(value)));
            }
        }
        if let Some(schema) = keywords.get("if") {
            let mut against = Vec::new();
            self.apply(schema, value, at, depth, &mut against)?;
            if let Some(schema) = keywords.get(if against.is_empty() { "then" } else { "else" }) {
                self.apply(schema, value, at, depth, found)?;
            }
        }
        Ok(())
    }

    fn spend(&mut self, steps: usize) -> Result<(), SchemaError> {
        self.steps = self.steps.checked_sub(steps).ok_or_else(|| {
            SchemaError(format!(
                "holding the settings against it takes more than {MAX_STEPS} steps"
            ))
        })?;
        Ok(())
    }
}

fn numeric(keywords: &Map<String, Value>, number: &Number, at: &str, found: &mut Vec<String>) {
    let Some(value) = number.as_f64() else { return };
    let bound = |keyword| keywords.get(keyword).and_then(Value::as_f64);
    let mut against = |fits: bool, what: &str, bound: f64| {
        if !fits {
            found.push(format!("{at}: {number} is not {what} {bound}"));
        }
    };
    if let Some(least) = bound("minimum") {
        against(value >= least, "at least", least);
    }
    if let Some(most) = bound("maximum") {
        against(value <= most, "at most", most);
    }
    if let Some(least) = bound("exclusiveMinimum") {
        against(value > least, "above", least);
    }
    if let Some(most) = bound("exclusiveMaximum") {
        against(value < most, "below", most);
    }
    if let Some(divisor) = bound("multipleOf") {
        let quotient = value / divisor;
        // 0.3 is a multiple of 0.1, which binary fractions deny by a few units of the last place.
        let off = (quotient - quotient.round()).abs();
        against(off <= 4.0 * f64::EPSILON * quotient.abs().max(1.0), "a multiple of", divisor);
    }
}

fn textual(keywords: &Map<String, Value>, text: &str, at: &str, found: &mut Vec<String>) {
    counted(keywords, ("minLength", "maxLength"), text.chars().count(), "characters", at, found);
    if let Some(text_of) = keywords.get("pattern").and_then(Value::as_str)
        && let Ok(pattern) = pattern(text_of)
        && !pattern.is_match(text)
    {
        found.push(format!(
            "{at}: {} does not match {}",
            shown(&text.into()),
            shorten(text_of, MAX_SHOWN)
        ));
    }
}

fn counted(
    keywords: &Map<String, Value>,
    (least, most): (&str, &str),
    number: usize,
    what: &str,
    at: &str,
    found: &mut Vec<String>,
) {
    if let Some(least) = count(keywords.get(least)).filter(|least| number < *least) {
        found.push(format!("{at}: has {number} {what}, at least {least} are needed"));
    }
    if let Some(most) = count(keywords.get(most)).filter(|most| number > *most) {
        found.push(format!("{at}: has {number} {what}, at most {most} may be"));
    }
}

fn count(value: Option<&Value>) -> Option<usize> {
    let number = value?.as_f64().filter(|number| *number >= 0.0 && number.fract() == 0.0)?;
    // Beyond what can be counted is as good as the largest number.
    Some(number as usize)
}

fn named<'a>(
    keywords: &'a Map<String, Value>,
    keyword: &str,
) -> impl Iterator<Item = (&'a String, &'a Value)> {
    keywords.get(keyword).and_then(Value::as_object).into_iter().flatten()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) if is_a(value, "integer") => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match (value, name) {
        (Value::Null, "null")
        | (Value::Bool(_), "boolean")
        | (Value::Number(_), "number")
        | (Value::String(_), "string")
        | (Value::Array(_), "array")
        | (Value::Object(_), "object") => true,
        (Value::Number(number), "integer") => {
            !number.is_f64() || number.as_f64().is_some_and(|number| number.fract() == 0.0)
        }
        _ => false,
    }
}

/// Whether two values are equal: 1 and 1.0 are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            one == other || one.as_f64() == other.as_f64()
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .all(|(name, value)| other.get(name).is_some_and(|other| same(value, other)))
        }
        _ => one == other,
    }
}

/// The path of a field.
fn field(at: &str, name: &str) -> String {
    let plain = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
    if !name.is_empty() && name.len() <= MAX_SHOWN && name.chars().all(plain) {
        format!("{at}.{name}")
    } else {
        format!("{at}[{}]", shown(&name.into()))
    }
}

fn shown(value: &Value) -> String {
    shorten(&value.to_string(), MAX_SHOWN)
}

fn shorten(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
