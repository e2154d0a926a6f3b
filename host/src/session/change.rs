//! Changing what a session runs: what is asked for, and what is told of it.
//!
//! Whoever asks gets [`Report`]s. A change ends with one of these, and with nothing else:
//!
//! | last report | the session runs | because |
//! | --- | --- | --- |
//! | [`Aborted`](Report::Aborted) | what it ran before, without a pause | the new version failed before it spoke |
//! | [`RolledBack`](Report::RolledBack) | what it ran before, in a new worker | the new version was lost during its probation |
//! | [`Unverified`](Report::Unverified) | what the reason says | it was lost during its probation and there is nothing to go back to, or the session ended |
//! | [`Superseded`](Report::Superseded) | the new version, until the next change | another change began during its probation |
//! | [`Healthy`](Report::Healthy) | the new version | it has served for its probation |

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Spec;
use crate::config::RefusedState;

/// A step of a deployment, in their order. The first three are taken before the session hears of
/// it.
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
    strum::Display,
    strum::IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Step {
    /// The component is read and held against the contract.
    Check,
    /// It is compiled, or found in the cache.
    Compile,
    /// Memory for a second worker is asked for.
    Admit,
    /// The new worker is started and the pipeline in it initialised.
    Start,
    /// It decodes what the running one has decoded.
    CatchUp,
    /// It processes a frame unheard.
    DryRun,
    /// It processes frames beside the running one, unheard.
    Shadow,
    /// The running one processes what it has, gives its state and stops.
    Handoff,
    /// The new one takes the state over.
    Restore,
    /// The new one speaks; its first result is waited for.
    FirstResult,
    /// It serves, and whether it lasts has to be seen.
    Probation,
}

impl Step {
    /// As it is told: "check", "catch_up".
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How the new version did beside the running one, on the same frames.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Frames that both processed.
    pub frames: u32,
    /// Frames that the new one was to process and had not kept.
    pub missed: u32,
    /// Frames for which the new one returned an error.
    pub errors: u32,
    /// The first of those errors.
    pub first_error: Option<String>,
    /// Time in the pipeline, inference included, in milliseconds.
    pub latency_ms: ComparedLatency,
    /// Detections of both.
    pub detections: ComparedDetections,
    /// Events of the running version and of the new one, by kind, where their numbers differ.
    pub events: std::collections::BTreeMap<String, [u64; 2]>,
}

/// Medians and 95th percentiles of both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ComparedLatency {
    /// Of the running version.
    pub running_p50: f64,
    /// Of the running version.
    pub running_p95: f64,
    /// Of the new one.
    pub new_p50: f64,
    /// Of the new one.
    pub new_p95: f64,
}

/// Detections of the same label are taken for the same object where their boxes overlap by at least
/// half (IoU), the best pairs first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ComparedDetections {
    /// Of the running version.
    pub running: u64,
    /// Of the new one.
    pub new: u64,
    /// Pairs.
    pub matched: u64,
    /// Mean IoU of the pairs, 0 to 1; 0 where there are none.
    pub mean_iou: f64,
    /// Mean difference of the pairs' scores, without its sign.
    pub mean_score_difference: f64,
    /// Frames on which the numbers of detections differ.
    pub frames_that_differ: u32,
    /// Detections of the running version and of the new one, by label, where their numbers differ.
    pub labels: std::collections::BTreeMap<String, [u64; 2]>,
}

/// Figures of a change at the moment when the new version has given its first result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Swapped {
    /// From the session's hearing of the change to the first result, in milliseconds.
    pub total_ms: f64,
    /// From the last result of the old version to the first of the new one, in milliseconds. None
    /// where one of them gave none.
    pub gap_ms: Option<f64>,
    /// Bytes of state handed over; none where none was.
    pub state_bytes: Option<u64>,
    /// Whether the state was refused and the new version began without.
    pub fresh: bool,
    /// The last frame of the old version.
    pub last_frame: Option<u64>,
    /// The first frame of the new one.
    pub first_frame: Option<u64>,
    /// Whether the old version was not running: the new one was started in its place.
    pub cold: bool,
}

/// What becomes of a change. Each is told once, in this order, but for
/// [`StepStarted`](Self::StepStarted).
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A step has begun.
    StepStarted(Step),
    /// What the new component says of itself: name and version.
    Described {
        /// The pipeline's name.
        name: String,
        /// Its version.
        version: String,
    },
    /// The comparison is complete.
    Compared(Comparison),
    /// The new version speaks.
    Swapped(Swapped),
    /// See the module's table.
    Kept {
        /// The step that failed.
        step: Step,
        /// Why.
        reason: String,
    },
    /// See the module's table.
    Returned {
        /// Why the new version is gone.
        reason: String,
        /// Whether the version before it goes on with the state that it gave.
        with_state: bool,
    },
    /// See the module's table.
    Unproven {
        /// What became of it.
        reason: String,
    },
    /// See the module's table.
    Superseded,
    /// See the module's table.
    Healthy,
}

impl Report {
    /// Whether nothing follows.
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Kept { .. }
                | Self::Returned { .. }
                | Self::Unproven { .. }
                | Self::Superseded
                | Self::Healthy
        )
    }
}

/// Where reports go. A change brings two dozen at the most; [`REPORT_CAPACITY`] is room for all, so
/// none waits.
pub type ReportSender = mpsc::Sender<Report>;

/// Room of a channel for [`ReportSender`].
pub const REPORT_CAPACITY: usize = 64;

/// A change of a running session's pipeline. The session's source, decode setting and priority
/// stay.
#[derive(Debug)]
pub struct SwapRequest {
    /// What the session is to be. Only its deployment and its settings may differ from what the
    /// session is.
    pub spec: Spec,
    /// Frames that the new version processes beside the running one before it speaks, at most
    /// [`MAX_SHADOW`].
    pub shadow: u32,
    /// What happens when the new version refuses the state.
    pub refused_state: RefusedState,
    /// Told what becomes of it.
    pub reports: ReportSender,
}

/// Most frames of a shadow: ten minutes at 25 a second.
pub const MAX_SHADOW: u32 = 15_000;

/// A spec that a session is given without a change beside a running worker: at its start, or where
/// its source changes.
#[derive(Debug)]
pub struct ProbationRequest {
    /// What the session goes back to when a worker is lost during the probation; none: it is
    /// started again as it is.
    pub fallback: Option<Spec>,
    /// Told what becomes of it: [`Report::Described`], then one of the last reports.
    pub reports: ReportSender,
}
