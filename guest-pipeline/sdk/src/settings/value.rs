//! The types that a setting may have.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::limits::Limits;

/// A type of settings. `settings!` implements it for structs and enumerations; numbers, truth
/// values, texts, lists and options of them have it.
pub trait Setting: DeserializeOwned {
    /// The schema of the values within the limits.
    fn describe(limits: &Limits) -> Map<String, Value>;

    /// The value in JSON, as a schema shows a default.
    fn to_json(&self) -> Value;

    /// Checks a value; `path` is where it stands: `settings.zones[1]`.
    ///
    /// # Errors
    /// Names the place, the value, and what would be right.
    fn check(&self, limits: &Limits, path: &str) -> Result<(), String>;
}

fn typed(name: &str) -> Map<String, Value> {
    Map::from_iter([("type".to_owned(), name.into())])
}

macro_rules! numbers {
    ($($number:ty: $name:literal, $least:expr, $most:expr;)*) => {
        $(impl Setting for $number {
            fn describe(limits: &Limits) -> Map<String, Value> {
                let mut schema = typed($name);
                limits.number_schema(&mut schema, $least, $most);
                schema
            }

            fn to_json(&self) -> Value {
                // By way of its text, so that 0.4 is not written as 0.4000000059604645.
                serde_json::from_str(&format!("{self:?}")).unwrap_or_default()
            }

            fn check(&self, limits: &Limits, path: &str) -> Result<(), String> {
                limits.check_number(*self as f64, &self.to_string(), path)
            }
        })*
    };
}

numbers! {
    u8: "integer", Some(0.0), Some(255.0);
    u16: "integer", Some(0.0), Some(65535.0);
    u32: "integer", Some(0.0), Some(4_294_967_295.0);
    u64: "integer", Some(0.0), None;
    usize: "integer", Some(0.0), None;
    i32: "integer", Some(-2_147_483_648.0), Some(2_147_483_647.0);
    i64: "integer", None, None;
    f32: "number", None, None;
    f64: "number", None, None;
}

impl Setting for bool {
    fn describe(_: &Limits) -> Map<String, Value> {
        typed("boolean")
    }

    fn to_json(&self) -> Value {
        (*self).into()
    }

    fn check(&self, _: &Limits, _: &str) -> Result<(), String> {
        Ok(())
    }
}

impl Setting for String {
    fn describe(limits: &Limits) -> Map<String, Value> {
        if let Some(names) = limits.names() {
            return Map::from_iter([("enum".to_owned(), names.into())]);
        }
        let mut schema = typed("string");
        limits.count_schema(&mut schema, "Length");
        schema
    }

    fn to_json(&self) -> Value {
        self.as_str().into()
    }

    fn check(&self, limits: &Limits, path: &str) -> Result<(), String> {
        limits.check_count(self.chars().count(), path)?;
        limits.check_name(self, path)
    }
}

/// Null is a value beside those of the type.
impl<T: Setting> Setting for Option<T> {
    fn describe(limits: &Limits) -> Map<String, Value> {
        let mut schema = T::describe(limits);
        if let Some(name) = schema.get_mut("type") {
            *name = vec![name.take(), "null".into()].into();
        }
        if let Some(Value::Array(names)) = schema.get_mut("enum") {
            names.push(Value::Null);
        }
        schema
    }

    fn to_json(&self) -> Value {
        self.as_ref().map(T::to_json).unwrap_or_default()
    }

    fn check(&self, limits: &Limits, path: &str) -> Result<(), String> {
        self.as_ref().map_or(Ok(()), |value| value.check(limits, path))
    }
}

fn list<T: Setting>(limits: &Limits) -> Map<String, Value> {
    let mut schema = typed("array");
    schema.insert("items".into(), T::describe(&limits.of_each()).into());
    schema
}

fn check_items<T: Setting>(items: &[T], limits: &Limits, path: &str) -> Result<(), String> {
    let limits = limits.of_each();
    let mut items = items.iter().enumerate();
    items.try_for_each(|(n, item)| item.check(&limits, &format!("{path}[{n}]")))
}

impl<T: Setting> Setting for Vec<T> {
    fn describe(limits: &Limits) -> Map<String, Value> {
        let mut schema = list::<T>(limits);
        limits.count_schema(&mut schema, "Items");
        schema
    }

    fn to_json(&self) -> Value {
        self.iter().map(T::to_json).collect()
    }

    fn check(&self, limits: &Limits, path: &str) -> Result<(), String> {
        limits.check_count(self.len(), path)?;
        check_items(self, limits, path)
    }
}

impl<T: Setting, const N: usize> Setting for [T; N]
where
    [T; N]: DeserializeOwned,
{
    fn describe(limits: &Limits) -> Map<String, Value> {
        let mut schema = list::<T>(limits);
        schema.insert("minItems".into(), N.into());
        schema.insert("maxItems".into(), N.into());
        schema
    }

    fn to_json(&self) -> Value {
        self.iter().map(T::to_json).collect()
    }

    fn check(&self, limits: &Limits, path: &str) -> Result<(), String> {
        check_items(self, limits, path)
    }
}
