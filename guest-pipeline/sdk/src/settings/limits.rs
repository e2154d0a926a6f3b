//! What values a setting may have: one description, of which both the check and the schema are
//! made.

use serde_json::{Map, Value};

use super::nearest;

/// The least value of a number.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Least {
    Above(f64),
    From(f64),
}

/// The values that a setting may have. [`any`] and the functions beside it begin one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Limits {
    least: Option<Least>,
    most: Option<f64>,
    step: Option<u32>,
    names: Option<Vec<String>>,
    fewest: Option<usize>,
    largest: Option<usize>,
    each: Option<Box<Limits>>,
}

/// A number that a limit may be written as.
pub trait Bound {
    /// As a number of JSON.
    fn bound(self) -> f64;
}

macro_rules! bounds {
    ($($number:ty),*) => {
        $(impl Bound for $number {
            fn bound(self) -> f64 {
                self as f64
            }
        })*
    };
}

bounds!(i32, u32, usize, f32, f64);

/// Any value of the type.
#[must_use]
pub fn any() -> Limits {
    Limits::default()
}

/// A number greater than this.
#[must_use]
pub fn above(least: impl Bound) -> Limits {
    Limits { least: Some(Least::Above(least.bound())), ..any() }
}

/// A number of this and more.
#[must_use]
pub fn at_least(least: impl Bound) -> Limits {
    Limits { least: Some(Least::From(least.bound())), ..any() }
}

/// A number of this and less.
#[must_use]
pub fn up_to(most: impl Bound) -> Limits {
    any().up_to(most)
}

/// A whole number that this one divides, and not 0.
#[must_use]
pub fn multiples_of(step: u32) -> Limits {
    Limits { step: Some(step), ..at_least(step) }
}

/// One of these texts.
#[must_use]
pub fn one_of<T: Into<String>>(names: impl IntoIterator<Item = T>) -> Limits {
    Limits { names: Some(names.into_iter().map(Into::into).collect()), ..any() }
}

/// So many items of a list, or letters of a text.
#[must_use]
pub fn count(counts: std::ops::RangeInclusive<usize>) -> Limits {
    let (fewest, largest) = counts.into_inner();
    Limits { fewest: (fewest > 0).then_some(fewest), largest: Some(largest), ..any() }
}

/// At least one item of a list, or letter of a text.
#[must_use]
pub fn not_empty() -> Limits {
    Limits { fewest: Some(1), ..any() }
}

/// Items of a list that are each within limits.
#[must_use]
pub fn each(limits: Limits) -> Limits {
    Limits { each: Some(Box::new(limits)), ..any() }
}

impl Limits {
    /// These, and a number of this and less.
    #[must_use]
    pub fn up_to(self, most: impl Bound) -> Self {
        Self { most: Some(most.bound()), ..self }
    }

    /// These, and items of a list that are each within limits.
    #[must_use]
    pub fn each(self, limits: Limits) -> Self {
        Self { each: Some(Box::new(limits)), ..self }
    }

    /// The limits of a list's items.
    pub(super) fn of_each(&self) -> Limits {
        self.each.as_deref().cloned().unwrap_or_default()
    }

    /// Adds what a schema says of a number. `least` and `most` are those of its type.
    pub(super) fn number_schema(
        &self,
        schema: &mut Map<String, Value>,
        least: Option<f64>,
        most: Option<f64>,
    ) {
        match self.least.or(least.map(Least::From)) {
            Some(Least::Above(least)) => schema.insert("exclusiveMinimum".into(), number(least)),
            Some(Least::From(least)) => schema.insert("minimum".into(), number(least)),
            None => None,
        };
        if let Some(most) = self.most.or(most) {
            schema.insert("maximum".into(), number(most));
        }
        if let Some(step) = self.step {
            schema.insert("multipleOf".into(), step.into());
        }
    }

    /// Adds how many there may be: "minItems", "maxItems".
    pub(super) fn count_schema(&self, schema: &mut Map<String, Value>, of: &str) {
        for (key, count) in [("min", self.fewest), ("max", self.largest)] {
            if let Some(count) = count {
                schema.insert(format!("{key}{of}"), count.into());
            }
        }
    }

    /// The texts of an enumeration.
    pub(super) fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Checks a number; `shown` is as it was written.
    pub(super) fn check_number(&self, value: f64, shown: &str, path: &str) -> Result<(), String> {
        let fits_least = match self.least {
            Some(Least::Above(least)) => value > least,
            Some(Least::From(least)) => value >= least,
            None => true,
        };
        let fits_most = self.most.is_none_or(|most| value <= most);
        let fits_step = self.step.is_none_or(|step| value % f64::from(step) == 0.0);
        if fits_least && fits_most && fits_step && value.is_finite() {
            return Ok(());
        }
        let range = match (self.least, self.most) {
            (Some(Least::Above(least)), Some(most)) => format!("above {least} and up to {most}"),
            (Some(Least::Above(least)), None) => format!("above {least}"),
            (Some(Least::From(least)), Some(most)) => format!("{least} to {most}"),
            (Some(Least::From(least)), None) => format!("{least} or more"),
            (None, Some(most)) => format!("up to {most}"),
            (None, None) => "a finite number".into(),
        };
        let step = self.step.map(|step| format!(" in steps of {step}")).unwrap_or_default();
        Err(format!("{path}: {shown} is not {range}{step}"))
    }

    /// Checks how many there are: items, or letters.
    pub(super) fn check_count(&self, count: usize, path: &str) -> Result<(), String> {
        match (self.fewest, self.largest) {
            (_, Some(most)) if count > most => Err(format!("{path}: {count} are more than {most}")),
            (Some(least), _) if count < least => {
                Err(format!("{path}: {count} are fewer than {least}"))
            }
            _ => Ok(()),
        }
    }

    /// Checks a text against an enumeration.
    pub(super) fn check_name(&self, name: &str, path: &str) -> Result<(), String> {
        let Some(names) = &self.names else { return Ok(()) };
        if names.iter().any(|known| known == name) {
            return Ok(());
        }
        let like = nearest(name, names.iter().map(String::as_str));
        let hint = like.map(|like| format!(", did you mean {like:?}?"));
        let list = || format!("; there are {}", super::listed(names.iter().map(String::as_str)));
        Err(format!("{path}: there is no {name:?}{}", hint.unwrap_or_else(list)))
    }
}

/// A number as a schema writes it: 1 rather than 1.0.
fn number(value: f64) -> Value {
    // Exact up to here, and nobody writes a limit beyond.
    let whole = value.fract() == 0.0 && value.abs() < 1e15;
    if whole { (value as i64).into() } else { value.into() }
}
