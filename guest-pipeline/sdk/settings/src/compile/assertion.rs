//! Keywords that say something about a value alone.

use std::cmp::Ordering;

use serde_json::{Map, Number, Value};

use super::{object, wrong};
use crate::SchemaError;
use crate::number;
use crate::pattern::Pattern;
use crate::report::{Path, Report, Step};
use crate::value::{TYPES, compare, is_a, list, shown, type_of, weight};

#[derive(Debug)]
pub(crate) enum Assertion {
    /// The schema `false`.
    Never,
    Types(Vec<&'static str>),
    Enum {
        /// Ordered.
        values: Vec<Value>,
        /// As an error lists them.
        shown: String,
    },
    Const(Value),
    Bound(Bound, Number),
    MultipleOf(Number),
    /// The least and the most of what is counted.
    Length(Counted, Option<usize>, Option<usize>),
    Pattern(Pattern),
    Unique,
    Required(Vec<String>),
    /// With the first field there must be the others.
    Needs(String, Vec<String>),
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Bound {
    Least,
    Most,
    Above,
    Below,
}

impl Bound {
    fn takes(self, order: Ordering) -> bool {
        match self {
            Self::Least => order.is_ge(),
            Self::Most => order.is_le(),
            Self::Above => order.is_gt(),
            Self::Below => order.is_lt(),
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Least => "at least",
            Self::Most => "at most",
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Counted {
    Characters,
    Items,
    Fields,
}

impl Counted {
    fn of(self, value: &Value) -> Option<usize> {
        match (self, value) {
            (Self::Characters, Value::String(text)) => Some(text.chars().count()),
            (Self::Items, Value::Array(items)) => Some(items.len()),
            (Self::Fields, Value::Object(fields)) => Some(fields.len()),
            _ => None,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Characters => "characters",
            Self::Items => "items",
            Self::Fields => "fields",
        }
    }
}

/// Reads the assertions among the keywords of the schema at `at`; adds to the number of `patterns`.
pub(super) fn read(
    keywords: &Map<String, Value>,
    at: &str,
    patterns: &mut usize,
) -> Result<Vec<Assertion>, SchemaError> {
    let mut read = Vec::new();
    if let Some(types) = keywords.get("type") {
        read.push(Assertion::Types(types_of(types, &format!("{at}/type"))?));
    }
    if let Some(values) = keywords.get("enum") {
        let items =
            values.as_array().ok_or_else(|| wrong(&format!("{at}/enum"), values, "a list"))?;
        let (mut values, shown) = (items.clone(), list(items));
        values.sort_by(compare);
        read.push(Assertion::Enum { values, shown });
    }
    read.extend(keywords.get("const").cloned().map(Assertion::Const));
    for (keyword, bound) in [
        ("minimum", Bound::Least),
        ("maximum", Bound::Most),
        ("exclusiveMinimum", Bound::Above),
        ("exclusiveMaximum", Bound::Below),
    ] {
        read.extend(numeral(keywords, keyword, at)?.map(|number| Assertion::Bound(bound, number)));
    }
    if let Some(divisor) = numeral(keywords, "multipleOf", at)? {
        if compare(&Value::Number(divisor.clone()), &0.into()).is_le() {
            let at = format!("{at}/multipleOf");
            return Err(wrong(&at, &Value::Number(divisor), "a number above 0"));
        }
        read.push(Assertion::MultipleOf(divisor));
    }
    for (counted, least, most) in [
        (Counted::Characters, "minLength", "maxLength"),
        (Counted::Items, "minItems", "maxItems"),
        (Counted::Fields, "minProperties", "maxProperties"),
    ] {
        let bounds = (count(keywords, least, at)?, count(keywords, most, at)?);
        if bounds != (None, None) {
            read.push(Assertion::Length(counted, bounds.0, bounds.1));
        }
    }
    match keywords.get("pattern") {
        None => {}
        Some(Value::String(text)) => {
            *patterns += 1;
            let pattern = Pattern::new(text);
            let pattern =
                pattern.map_err(|SchemaError(why)| SchemaError(format!("{at}: {why}")))?;
            read.push(Assertion::Pattern(pattern));
        }
        Some(other) => return Err(wrong(&format!("{at}/pattern"), other, "a pattern")),
    }
    match keywords.get("uniqueItems") {
        None | Some(Value::Bool(false)) => {}
        Some(Value::Bool(true)) => read.push(Assertion::Unique),
        Some(other) => return Err(wrong(&format!("{at}/uniqueItems"), other, "true or false")),
    }
    required(keywords, at, &mut read)?;
    Ok(read)
}

fn required(
    keywords: &Map<String, Value>,
    at: &str,
    read: &mut Vec<Assertion>,
) -> Result<(), SchemaError> {
    if let Some(value) = keywords.get("required") {
        read.push(Assertion::Required(names(value, &format!("{at}/required"))?));
    }
    for keyword in ["dependentRequired", "dependencies"] {
        let dependent = object(keywords, keyword, at)?;
        // `dependencies` of other forms are schemas.
        let dependent =
            dependent.filter(|(_, names)| names.is_array() || keyword != "dependencies");
        for (name, value) in dependent {
            let needed = names(value, &format!("{at}/{keyword}/{name}"))?;
            read.push(Assertion::Needs(name.clone(), needed));
        }
    }
    Ok(())
}

fn types_of(value: &Value, at: &str) -> Result<Vec<&'static str>, SchemaError> {
    let one = std::slice::from_ref(value);
    let names = value.as_array().map_or(one, Vec::as_slice);
    let known = |name: &Value| TYPES.into_iter().find(|known| name == known);
    let types: Option<Vec<_>> = names.iter().map(known).collect();
    types.filter(|types| !types.is_empty()).ok_or_else(|| wrong(at, value, "a type"))
}

fn names(value: &Value, at: &str) -> Result<Vec<String>, SchemaError> {
    let names = value.as_array().and_then(|names| {
        names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    names.ok_or_else(|| wrong(at, value, "a list of names"))
}

fn numeral(
    keywords: &Map<String, Value>,
    keyword: &str,
    at: &str,
) -> Result<Option<Number>, SchemaError> {
    match keywords.get(keyword) {
        None => Ok(None),
        Some(Value::Number(number)) => Ok(Some(number.clone())),
        Some(other) => Err(wrong(&format!("{at}/{keyword}"), other, "a number")),
    }
}

/// A keyword that counts: a whole number from 0 on. What cannot be counted is the largest number.
pub(super) fn count(
    keywords: &Map<String, Value>,
    keyword: &str,
    at: &str,
) -> Result<Option<usize>, SchemaError> {
    let Some(value) = keywords.get(keyword) else { return Ok(None) };
    let number = value.as_number().filter(|number| number::is_integer(number));
    let number = number.and_then(Number::as_f64).filter(|number| *number >= 0.0);
    let number = number.ok_or_else(|| wrong(&format!("{at}/{keyword}"), value, "a count"))?;
    Ok(Some(number as usize))
}

impl Assertion {
    /// How many steps it takes to hold the value against it.
    pub(crate) fn cost(&self, value: &Value) -> usize {
        match (self, value) {
            (Self::Enum { values, .. }, _) => {
                weight(value) + values.len().checked_ilog2().unwrap_or(0) as usize
            }
            (Self::Const(_), _) => weight(value),
            (Self::Unique, Value::Array(items)) => {
                weight(value).saturating_mul(1 + items.len().checked_ilog2().unwrap_or(0) as usize)
            }
            (Self::Pattern(pattern), Value::String(text)) => pattern.cost(text),
            (Self::Required(names) | Self::Needs(_, names), Value::Object(_)) => names.len(),
            _ => 0,
        }
    }

    /// Whether the value fits; what does not is reported.
    pub(crate) fn takes(&self, value: &Value, at: &Path<'_>, report: &mut Report) -> bool {
        let said = match (self, value) {
            (Self::Required(names), Value::Object(fields)) => {
                return has(fields, names, at, report, String::new);
            }
            (Self::Needs(name, names), Value::Object(fields)) if fields.contains_key(name) => {
                let needs = || format!(", which {} needs", shown(&name.as_str().into()));
                return has(fields, names, at, report, needs);
            }
            (Self::Unique, Value::Array(items)) => {
                let again = twice(items);
                if let Some(index) = again {
                    report.add(&at.to(Step::Item(index)), || "is there twice".into());
                }
                return again.is_none();
            }
            _ => self.against(value),
        };
        let Some(words) = said else { return true };
        report.add(at, words);
        false
    }

    /// What is against the value, if anything is.
    fn against<'a>(&'a self, value: &'a Value) -> Option<Box<dyn FnOnce() -> String + 'a>> {
        let words: Box<dyn FnOnce() -> String> = match (self, value) {
            (Self::Never, _) => Box::new(|| "nothing may stand here".into()),
            (Self::Types(types), _) if !types.iter().any(|name| is_a(value, name)) => {
                Box::new(|| {
                    let (shown, found) = (shown(value), type_of(value));
                    format!("{shown} is of type {found}, not {}", types.join(" or "))
                })
            }
            (Self::Enum { values, shown: known }, _)
                if values.binary_search_by(|known| compare(known, value)).is_err() =>
            {
                Box::new(move || format!("{} is none of {known}", shown(value)))
            }
            (Self::Const(known), _) if compare(known, value).is_ne() => {
                Box::new(move || format!("{} is not {}", shown(value), shown(known)))
            }
            (Self::Bound(kind, bound), Value::Number(number))
                if !kind.takes(number::compare(number, bound)) =>
            {
                Box::new(move || format!("{number} is not {} {bound}", kind.words()))
            }
            (Self::MultipleOf(by), Value::Number(number)) if !number::is_multiple(number, by) => {
                Box::new(move || format!("{number} is not a multiple of {by}"))
            }
            (Self::Pattern(pattern), Value::String(text)) if !pattern.fits(text) => {
                Box::new(move || format!("{} does not match {}", shown(value), pattern.shown()))
            }
            (Self::Length(counted, least, most), _) => {
                let number = counted.of(value)?;
                let what = counted.words();
                match (least, most) {
                    (Some(least), _) if number < *least => Box::new(move || {
                        format!("has {number} {what}, at least {least} are needed")
                    }),
                    (_, Some(most)) if number > *most => {
                        Box::new(move || format!("has {number} {what}, at most {most} may be"))
                    }
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some(words)
    }
}

fn has(
    fields: &Map<String, Value>,
    names: &[String],
    at: &Path<'_>,
    report: &mut Report,
    why: impl Fn() -> String,
) -> bool {
    let mut all = true;
    for name in names.iter().filter(|name| !fields.contains_key(*name)) {
        all = false;
        report.add(&at.to(Step::Field(name)), || format!("is missing{}", why()));
    }
    all
}

/// The index of an item that is equal to one before it.
fn twice(items: &[Value]) -> Option<usize> {
    let mut ordered: Vec<(usize, &Value)> = items.iter().enumerate().collect();
    // Stable, so of equal ones the first comes first.
    ordered.sort_by(|(_, one), (_, other)| compare(one, other));
    let pairs = ordered.iter().zip(ordered.iter().skip(1));
    pairs.filter(|(one, other)| compare(one.1, other.1).is_eq()).map(|(_, other)| other.0).min()
}
