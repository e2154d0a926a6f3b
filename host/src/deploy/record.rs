//! The record of a deployment: what a session was to run, who asked for it, the step that it
//! reached, and the outcome.
//!
//! Each outcome says what the session runs then:
//!
//! | outcome | failed at | the session runs |
//! | --- | --- | --- |
//! | [`Refused`](Outcome::Refused) | check, compile, admit | what it ran before, which has heard nothing of it |
//! | [`Aborted`](Outcome::Aborted) | start to first_result | what it ran before, without a pause; where that had stopped already for its state to be handed over, it goes on after its last frame. A `restore` that refuses the state ends so, unless fresh starts are asked for |
//! | [`RolledBack`](Outcome::RolledBack) | probation | what it ran before, in a new worker with the state of the change, or without it where that cannot be had: the reason says which |
//! | [`Unverified`](Outcome::Unverified) | probation | the new version, tried again like any worker that is lost, for there is nothing to go back to; or the session has ended; or another version took its place before it gave a result |
//! | [`Superseded`](Outcome::Superseded) | | the new version, until the deployment after it |
//! | [`Healthy`](Outcome::Healthy) | | the new version: it has served for its probation |
//! | [`Compared`](Outcome::Compared) | | what it ran before, without a pause: the comparison was all that was asked for |
//! | [`Interrupted`](Outcome::Interrupted) | any step | the host or the session has ended meanwhile. A host that starts again runs the last healthy version |
//!
//! A rollback can fail too: the previous version is then started again and again like any other
//! worker, until the session fails as one in a crash loop. The deployment has ended as `RolledBack`
//! by that time; the session's state shows the rest.

use std::time::{Duration, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::VariantArray;

use ocelli_protocol::component::CheckReport;

use crate::event::{rfc3339, unix_ns};
use crate::session::rollout::{Comparison, Step, Swapped};
use crate::shape::TIME;
use crate::telemetry::otlp::TraceParent;
use crate::util::shown::without_folders;

/// The kind of origin that asked for a deployment.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schemars(inline)]
pub enum Cause {
    /// A client of the API.
    #[default]
    Request,
    /// A client of the API, for the previous version.
    Rollback,
    /// A change of the pipeline's file in the watched folder.
    File,
    /// The camera's entry in the config.
    Config,
    /// A subscriber that had the session made.
    Subscription,
}

impl Cause {
    /// Its name in JSON: "request".
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How a deployment ended; see the module's table.
#[derive(
    Debug,
    Clone,
    Copy,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::IntoStaticStr,
    VariantArray,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
#[schemars(inline)]
pub enum Outcome {
    /// It failed before the session took part in it.
    Refused,
    /// It failed in the session, before the new version was active.
    Aborted,
    /// The new version was lost on probation, and the previous one is back.
    RolledBack,
    /// The new version was lost on probation, and there was no previous one.
    Unverified,
    /// Another deployment followed during the probation.
    Superseded,
    /// The new version has served for its probation.
    Healthy,
    /// The host or the session ended during the deployment.
    Interrupted,
    /// The comparison was all that was asked for.
    Compared,
}

impl Outcome {
    /// All outcomes, in their order.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Its name in JSON: "healthy".
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The state of a deployment. In JSON one word: "pending", "probation", or the outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum DeploymentState {
    /// The new version is not active yet.
    #[default]
    Pending,
    /// The new version is active, on probation.
    Probation,
    /// The deployment has ended.
    #[serde(untagged)]
    Ended(Outcome),
}

impl DeploymentState {
    /// Its name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Probation => "probation",
            Self::Ended(outcome) => outcome.name(),
        }
    }
}

/// One deployment, as in the history and in the API.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Deployment")]
pub struct Record {
    /// Counts the session's deployments, from 1.
    #[schemars(range(min = 1))]
    pub number: u64,
    /// The session's name.
    pub session: String,
    /// The first 12 hexadecimal digits of the component's SHA-256, as in the `deployment` of
    /// results.
    pub deployment: String,
    /// SHA-256 of the component, hexadecimal.
    pub digest: String,
    /// Size of the component in bytes.
    pub size: u64,
    /// The pipeline as it was asked for: a name, or a file.
    pub pipeline: String,
    /// The component's name for itself. Null until it has described itself.
    pub name: Option<String>,
    /// The component's version. Null until it has described itself.
    pub version: Option<String>,
    /// The pipeline's settings.
    pub settings: Map<String, Value>,
    /// The settings that differ from those before, by their keys: `settings.score`.
    #[serde(default)]
    pub changed: Vec<String>,
    /// What asked for it.
    pub cause: Cause,
    /// Who asked for it: "operator", "ocelli deploy", "config".
    pub by: String,
    /// Frames on which both versions were to be compared before the change.
    pub shadow: u32,
    /// Whether the comparison was all that was asked for.
    #[serde(default)]
    pub shadow_only: bool,
    /// The agreement of the comparison below which the new version is given up, 0 to 1; null: none.
    #[serde(default)]
    pub threshold: Option<f64>,
    /// When it was asked for: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub requested: String,
    /// When the probation ends if the version lasts: RFC 3339 in UTC, with milliseconds. Null before
    /// the probation.
    #[serde(default)]
    #[schemars(regex(pattern = TIME))]
    pub probation_ends: Option<String>,
    /// When it ended: RFC 3339 in UTC, with milliseconds. Null while it is under way.
    #[schemars(regex(pattern = TIME))]
    pub ended: Option<String>,
    /// The version that ran before: the first 12 digits of its SHA-256. Null if there was none.
    pub before: Option<String>,
    /// The number of the deployment to which a rollback leads back.
    pub back_to: Option<u64>,
    /// The step under way, or the last one. The host writes its own steps, `check` to `admit`,
    /// before it takes them, and the session's as soon as they begin.
    pub step: Step,
    /// "pending", "probation", or the outcome.
    pub state: DeploymentState,
    /// The reason of the outcome, for a person.
    pub reason: Option<String>,
    /// The report of the component's check.
    pub check: Option<CheckReport>,
    /// Milliseconds of compiling. Null if the compiled code was in the cache, or `compile` was not
    /// reached.
    pub compile_ms: Option<u64>,
    /// Whether the compiled component was in the cache.
    pub cached: bool,
    /// Bytes of memory reserved for the second worker.
    pub admitted: Option<u64>,
    /// The comparison of both versions, with a shadow.
    pub comparison: Option<Comparison>,
    /// Durations and frames of the change. Null before the first result.
    pub swapped: Option<Swapped>,
    /// Within which trace it was asked for.
    #[serde(skip)]
    pub trace: Option<TraceParent>,
}

impl Record {
    /// A deployment before its check, without a number and a component.
    pub(super) fn draft(session: &str, cause: Cause, by: String) -> Self {
        Self { session: session.to_owned(), cause, by, requested: now(), ..Self::default() }
    }

    /// Who asked for it, for the turns of the compiler: a client, or the session for which the host
    /// itself did.
    pub(super) fn caller(&self) -> String {
        match self.cause {
            Cause::Request | Cause::Rollback => format!("client {}", self.by),
            Cause::File | Cause::Config | Cause::Subscription => {
                format!("session {}", self.session)
            }
        }
    }

    /// As clients of the API see it: without the folders of the host's files in its reason.
    pub fn for_clients(mut self) -> Self {
        self.reason = self.reason.as_deref().map(without_folders);
        self
    }

    /// The outcome; `None` while it is under way.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            DeploymentState::Ended(outcome) => Some(outcome),
            DeploymentState::Pending | DeploymentState::Probation => None,
        }
    }

    /// Whether the version has been active and was not lost: one to go back to.
    pub fn served(&self) -> bool {
        match self.state {
            DeploymentState::Probation => true,
            DeploymentState::Pending => false,
            DeploymentState::Ended(outcome) => {
                matches!(outcome, Outcome::Healthy | Outcome::Superseded)
            }
        }
    }

    /// Whether the version has served for its probation.
    pub fn healthy(&self) -> bool {
        self.outcome() == Some(Outcome::Healthy)
    }

    /// Whether a deployment has this component and these settings.
    pub fn same_as(&self, digest: &str, settings: &Map<String, Value>) -> bool {
        self.digest == digest && self.settings == *settings
    }
}

/// The time now as records have it: RFC 3339 in UTC, with milliseconds.
pub(super) fn now() -> String {
    after(Duration::ZERO)
}

/// The time a while from now, as records have it.
pub(super) fn after(wait: Duration) -> String {
    rfc3339(unix_ns(SystemTime::now() + wait))
}

#[cfg(test)]
pub(super) mod tests;
