//! `wasi:config`: the pipeline's settings.

use serde_json::{Map, Value};

use super::newest::wasi::config::store;

/// The pipeline's settings by their keys.
pub(super) struct GuestSettings(pub(super) Map<String, Value>);

impl store::Host for GuestSettings {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, store::Error>> {
        Ok(Ok(self.0.get(&key).map(as_text)))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, store::Error>> {
        Ok(Ok(self.0.iter().map(|(key, value)| (key.clone(), as_text(value))).collect()))
    }
}

/// A string as it is, anything else as JSON.
fn as_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
