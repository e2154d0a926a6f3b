//! A deployment: what a session was to run, who asked for it, how far it came and what became of
//! it.
//!
//! Every deployment ends in one of these ways, and the session then runs what the table says:
//!
//! | outcome | failed at | the session runs |
//! | --- | --- | --- |
//! | [`Refused`](Outcome::Refused) | check, compile, admit | what it ran before, which has heard nothing of it |
//! | [`Aborted`](Outcome::Aborted) | start to first_result | what it ran before, without a pause; where that had stopped already for its state to be handed over, it goes on after its last frame. A `restore` that refuses the state ends so, unless fresh starts are asked for |
//! | [`RolledBack`](Outcome::RolledBack) | probation | what it ran before, in a new worker with the state of the change, or without it where that cannot be had: the reason says which |
//! | [`Unverified`](Outcome::Unverified) | probation | the new version, tried again like any worker that is lost, for there is nothing to go back to; or the session has ended; or another version took its place before it gave a result |
//! | [`Superseded`](Outcome::Superseded) | | the new version, until the deployment after it |
//! | [`Healthy`](Outcome::Healthy) | | the new version: it has served for its probation |
//! | [`Interrupted`](Outcome::Interrupted) | any step | the host or the session has ended meanwhile. A host that starts again runs the last healthy version |
//!
//! Going back can fail too: the version before is started like any other worker then, again and
//! again, until the session fails as one that crashes in a loop. The deployment has ended as
//! `RolledBack` by that time, and the session's state tells the rest.

use std::time::SystemTime;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use strum::VariantArray;

use ocelli_protocol::component::CheckReport;

use crate::event::{rfc3339, unix_ns};
use crate::session::rollout::{Comparison, Step, Swapped};
use crate::shape::TIME;

/// Why a session was to run another version.
#[derive(
    Debug,
    Clone,
    Copy,
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
    /// Somebody asked for it.
    Request,
    /// Somebody asked for the version before.
    Rollback,
    /// The file of a pipeline's name has changed.
    File,
    /// The config says so.
    Config,
    /// A subscriber has made the session.
    Subscription,
}

impl Cause {
    /// As it is told: "request".
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
    /// Before the session heard of it.
    Refused,
    /// Before it spoke.
    Aborted,
    /// Lost during its probation, and the version before it is back.
    RolledBack,
    /// Lost during its probation without anything to go back to.
    Unverified,
    /// Followed by another during its probation.
    Superseded,
    /// It has served for its probation.
    Healthy,
    /// The host or the session ended while it was under way.
    Interrupted,
}

impl Outcome {
    /// All of them.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// As it is told: "healthy".
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// Where a deployment stands. In JSON one word: "pending", "probation", or the outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum DeploymentState {
    /// The new version does not speak yet.
    Pending,
    /// It speaks, and whether it lasts has to be seen.
    Probation,
    /// It has ended.
    #[serde(untagged)]
    Ended(Outcome),
}

impl DeploymentState {
    /// As it is told.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Probation => "probation",
            Self::Ended(outcome) => outcome.name(),
        }
    }
}

/// One deployment, as the history keeps it and the API shows it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "Deployment")]
pub struct Record {
    /// Counts the session's deployments from 1 on.
    #[schemars(range(min = 1))]
    pub number: u64,
    /// The session's name.
    pub session: String,
    /// The first 12 hexadecimal digits of the component's SHA-256: what results carry as
    /// `deployment`.
    pub deployment: String,
    /// The whole of it.
    pub digest: String,
    /// Size of the component in bytes.
    pub size: u64,
    /// The pipeline as it was asked for: a name, or a file.
    pub pipeline: String,
    /// What the component calls itself, once it has said so.
    pub name: Option<String>,
    /// Its version, likewise.
    pub version: Option<String>,
    /// The pipeline's settings.
    pub settings: Map<String, Value>,
    /// Why.
    pub cause: Cause,
    /// Who: "operator", "ocelli deploy", "config".
    pub by: String,
    /// Frames that both versions were to process before the change.
    pub shadow: u32,
    /// When it was asked for: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub requested: String,
    /// When it ended, likewise: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub ended: Option<String>,
    /// The deployment that ran when this one began: the first 12 digits. None where none did.
    pub before: Option<String>,
    /// The number of the deployment that a rollback leads back to.
    pub back_to: Option<u64>,
    /// The step that is under way, or that it ended in. Written before the step is taken where the
    /// host takes it (check to admit), and as soon as it has begun where the session does.
    pub step: Step,
    /// Where it stands: "pending", "probation", or how it ended.
    pub state: DeploymentState,
    /// Why it ended so, for a person.
    pub reason: Option<String>,
    /// What the component's check found.
    pub check: Option<CheckReport>,
    /// Milliseconds that compiling took; none where it was in the cache, or has not come so far.
    pub compile_ms: Option<u64>,
    /// Whether the compiled component was in the cache.
    pub cached: bool,
    /// Bytes of memory that were admitted for the second worker.
    pub admitted: Option<u64>,
    /// What the shadow showed.
    pub comparison: Option<Comparison>,
    /// Figures of the change.
    pub swapped: Option<Swapped>,
}

impl Record {
    /// A deployment before its check, without a number and a component.
    pub(super) fn draft(session: &str, cause: Cause, by: String) -> Self {
        Self {
            number: 0,
            session: session.to_owned(),
            deployment: String::new(),
            digest: String::new(),
            size: 0,
            pipeline: String::new(),
            name: None,
            version: None,
            settings: Map::new(),
            cause,
            by,
            shadow: 0,
            requested: now(),
            ended: None,
            before: None,
            back_to: None,
            step: Step::Check,
            state: DeploymentState::Pending,
            reason: None,
            check: None,
            compile_ms: None,
            cached: false,
            admitted: None,
            comparison: None,
            swapped: None,
        }
    }

    /// How it ended; `None` while it is under way.
    pub fn outcome(&self) -> Option<Outcome> {
        match self.state {
            DeploymentState::Ended(outcome) => Some(outcome),
            DeploymentState::Pending | DeploymentState::Probation => None,
        }
    }

    /// Whether it has spoken to the session's subscribers: a version that one could want back.
    pub fn served(&self) -> bool {
        match self.state {
            DeploymentState::Probation => true,
            DeploymentState::Pending => false,
            DeploymentState::Ended(outcome) => {
                matches!(outcome, Outcome::Healthy | Outcome::Superseded)
            }
        }
    }

    /// Whether it has served for its probation.
    pub fn healthy(&self) -> bool {
        self.outcome() == Some(Outcome::Healthy)
    }

    /// Whether two deployments run the same: component and settings.
    pub fn same_as(&self, digest: &str, settings: &Map<String, Value>) -> bool {
        self.digest == digest && self.settings == *settings
    }
}

/// Now, as records have it: RFC 3339 in UTC, with milliseconds.
pub(super) fn now() -> String {
    rfc3339(unix_ns(SystemTime::now()))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A record whose digest is the letter repeated.
    pub(in crate::deploy) fn record(
        number: u64,
        digest: char,
        cause: Cause,
        state: DeploymentState,
    ) -> Record {
        let digest = digest.to_string().repeat(64);
        Record {
            number,
            deployment: digest[..12].to_owned(),
            digest,
            size: 1,
            pipeline: "eye".into(),
            requested: "2026-01-01T00:00:00.000Z".into(),
            state,
            ..Record::draft("cam", cause, "test".into())
        }
    }

    #[test]
    fn a_state_is_one_word_and_is_read_back() {
        let states = [DeploymentState::Pending, DeploymentState::Probation]
            .into_iter()
            .chain(Outcome::ALL.iter().copied().map(DeploymentState::Ended));
        for state in states {
            let text = serde_json::to_string(&state).unwrap();
            assert_eq!(text, format!("\"{}\"", state.name()));
            assert_eq!(serde_json::from_str::<DeploymentState>(&text).unwrap(), state);
        }
    }

    #[test]
    fn a_record_is_read_back_as_it_was_written() {
        let mut record = record(7, 'a', Cause::Rollback, DeploymentState::Ended(Outcome::Aborted));
        record.swapped = Some(Swapped { total_ms: 12.5, gap_ms: Some(0.1), ..Swapped::default() });
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    }
}
