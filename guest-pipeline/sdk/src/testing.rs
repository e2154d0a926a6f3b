//! What tests of a pipeline use, natively: its schema, applied as the host applies it before
//! [`Pipeline::new`] is called.
//!
//! [`Pipeline::new`]: crate::Pipeline::new

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::Value;

/// Where the schema is said to lie. Nothing is read there.
const PLACE: &str = "memory:settings.json";

/// A JSON Schema of settings.
pub struct Schema {
    schemas: Schemas,
    index: SchemaIndex,
}

impl Schema {
    /// Reads a schema, of draft 2020-12 unless it says otherwise.
    ///
    /// # Errors
    /// The text is no JSON, or no schema.
    pub fn read(text: &str) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut compiler = Compiler::new();
        compiler.set_default_draft(boon::Draft::V2020_12);
        compiler.add_resource(PLACE, schema).map_err(|error| format!("{error:#}"))?;
        let mut schemas = Schemas::new();
        let index = compiler.compile(PLACE, &mut schemas).map_err(|error| format!("{error:#}"))?;
        Ok(Self { schemas, index })
    }

    /// Whether settings, a JSON object, fit.
    ///
    /// # Errors
    /// Each place that does not, with what would.
    pub fn check(&self, settings: &str) -> Result<(), String> {
        let settings: Value = serde_json::from_str(settings).map_err(|error| error.to_string())?;
        self.schemas.validate(&settings, self.index).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_named_by_its_place() {
        let schema = Schema::read(
            r#"{"type":"object","additionalProperties":false,"properties":{"score":{"maximum":1}}}"#,
        );
        let schema = schema.unwrap();
        assert_eq!(schema.check(r#"{"score":0.5}"#), Ok(()));
        assert!(schema.check(r#"{"score":2}"#).is_err_and(|error| error.contains("/score")));
        assert!(schema.check(r#"{"scor":1}"#).is_err_and(|error| error.contains("scor")));
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for text in
            ["", "{", r#"{"type":"objekt"}"#, r#"{"minItems":-1}"#, r##"{"$ref":"#/$defs/none"}"##]
        {
            assert!(Schema::read(text).is_err(), "{text}");
        }
    }
}
