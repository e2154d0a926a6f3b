//! A pipeline's schema, applied as the host applies it, by the same code.

/// A JSON Schema of settings.
#[derive(Debug)]
pub struct Schema(ocelli_settings::Schema);

impl Schema {
    /// Reads a schema, of draft 2020-12 or a form of the drafts before it.
    ///
    /// # Errors
    /// The text is no JSON, no schema, or one that the host refuses.
    pub fn read(text: &str) -> Result<Self, String> {
        ocelli_settings::Schema::read(text).map(Self).map_err(|fault| fault.to_string())
    }

    /// Whether settings, a JSON object, fit.
    ///
    /// # Errors
    /// Each place that does not, with what would.
    pub fn check(&self, settings: &str) -> Result<(), String> {
        let settings = serde_json::from_str(settings).map_err(|error| error.to_string())?;
        self.0.check(&settings).map_err(|fault| fault.to_string())
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
        assert!(schema.check(r#"{"score":2}"#).is_err_and(|error| error.contains(".score: 2")));
        assert!(schema.check(r#"{"scor":1}"#).is_err_and(|error| error.contains(".scor: ")));
        assert!(schema.check("[]").is_err());
    }

    #[test]
    fn what_is_no_schema_is_refused() {
        for text in
            ["{", r#"{"type":"objekt"}"#, r#"{"minItems":-1}"#, r##"{"$ref":"#/$defs/none"}"##]
        {
            assert!(Schema::read(text).is_err(), "{text}");
        }
    }
}
