//! What the sections of sinks have in common.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The first event of a target that this host has not written to before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SinkStart {
    /// The next one.
    #[default]
    Now,
    /// The oldest one of the journal.
    Beginning,
}
