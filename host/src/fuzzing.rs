//! Doors for the fuzz targets (`fuzz/`) to what reads the bytes of others. A panic is a finding:
//! each door holds what has to be true whatever the bytes are.

#![allow(clippy::panic, clippy::expect_used, reason = "a panic is how a fuzz target fails")]

use std::path::Path;

use crate::config::Config;
use crate::inference::catalog;

pub use crate::api::read_client_frames;
pub use crate::source::assemble_units;

/// Reads the text of a config file. Returns whether it is a config.
pub fn read_config(text: &str) -> bool {
    match Config::from_text(Path::new("config"), text, &[]) {
        Ok(config) => {
            // What a host would print at its start.
            let _ = config.warnings();
            true
        }
        Err(error) => {
            assert!(!error.to_string().is_empty(), "an error without words");
            false
        }
    }
}

/// Reads the text of a `model.toml`. Returns whether it describes a model.
pub fn read_model_manifest(text: &str) -> bool {
    let manifest = toml::from_str::<catalog::Manifest>(text);
    manifest.is_ok_and(|manifest| manifest.problem(&manifest.name).is_none())
}
