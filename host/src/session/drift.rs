//! How what a session runs differs from what the config says.

use schemars::JsonSchema;
use serde::Serialize;
use strum::VariantArray;

use crate::shape::TIME;

/// The kind of a difference.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    JsonSchema,
    strum::IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schemars(inline)]
pub enum DriftKind {
    /// It runs another pipeline, or another version of it: one that came over the API.
    Pipeline,
    /// It runs the pipeline with other settings.
    Settings,
    /// The config's entry could not be applied, or did not last.
    Refused,
    /// There is nothing to run.
    Failed,
    /// An operator has ended it.
    Ended,
}

impl DriftKind {
    /// Its name in JSON and in metrics: "settings".
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// All kinds, in their order.
    pub const ALL: &'static [Self] = Self::VARIANTS;
}

/// A difference between the config and what runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Drift {
    /// pipeline, settings: another one came over the API. refused: the entry could not be applied,
    /// or did not last. failed: there is nothing to run. ended: by an operator.
    pub kind: DriftKind,
    /// The pipeline that the config names.
    pub desired: String,
    /// The pipeline that runs. Null if none does.
    pub actual: Option<String>,
    /// The settings that differ, by their keys: `settings.score`.
    pub keys: Vec<String>,
    /// Since when: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub since: String,
    /// Why, for a person.
    pub reason: String,
}
