//! Changes of what a session runs: the requests, and the reports on them.
//!
//! A request brings a channel for [`Report`]s. A change ends with exactly one of these:
//!
//! | last report | the session runs | because |
//! | --- | --- | --- |
//! | [`Aborted`](Report::Aborted) | what it ran before, without a pause | the new version failed before it was active |
//! | [`RolledBack`](Report::RolledBack) | what it ran before, in a new worker | the new version was lost during its probation |
//! | [`Unverified`](Report::Unverified) | what the reason says | it was lost during its probation with nothing to go back to, or the session ended |
//! | [`Superseded`](Report::Superseded) | the new version, until the next change | another change began during its probation |
//! | [`Healthy`](Report::Healthy) | the new version | it has served for its probation |
//! | [`OnlyCompared`](Report::OnlyCompared) | what it ran before, without a pause | the comparison was all that was asked for |

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::config::RefusedState;
use crate::session::spec::Spec;

/// A step of a deployment, in their order. The first three come before the request to the
/// session.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
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
    /// The component is read and checked against the contract.
    #[default]
    Check,
    /// It is compiled, or found in the cache.
    Compile,
    /// Memory for a second worker is asked for.
    Admit,
    /// The new worker is started and the pipeline in it initialised.
    Start,
    /// It decodes what the running one has decoded.
    CatchUp,
    /// It processes a frame; its output is discarded.
    DryRun,
    /// It processes frames beside the running one; its output is compared and discarded.
    Shadow,
    /// The running one processes what it has, gives its state and stops.
    Handoff,
    /// The new one takes the state over.
    Restore,
    /// The new one is active; its first result is awaited.
    FirstResult,
    /// It serves, and has to last.
    Probation,
}

impl Step {
    /// The name in the API and the log: "check", "catch_up".
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// How the new version did beside the running one, on the same frames.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Comparison {
    /// Frames that both processed.
    pub frames: u32,
    /// Frames that the new one was to process and no longer held.
    pub missed: u32,
    /// Frames for which the new one returned an error.
    pub errors: u32,
    /// The first of those errors.
    pub first_error: Option<String>,
    /// Time in the pipeline, inference included, in milliseconds.
    pub latency_ms: ComparedLatency,
    /// Detections of both versions, compared.
    pub detections: ComparedDetections,
    /// Events of the running version and of the new one, by kind, where their numbers differ.
    pub events: std::collections::BTreeMap<String, [u64; 2]>,
    /// How far both agree, 0 to 1: the share of all detections that are pairs, times the share of
    /// frames without an error of the new version. 1 where neither has a detection or an error.
    #[serde(default)]
    pub agreement: f64,
    /// The frame on which they differ most, the last of several; null before the first frame.
    #[serde(default)]
    pub sample: Option<ComparedFrame>,
}

/// What both versions found in one frame: their 50 detections with the highest scores.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ComparedFrame {
    /// The frame's number in its source.
    pub frame: u64,
    /// When the picture is shown, in nanoseconds since its source began.
    pub presentation_ns: i64,
    /// Width of the frame in pixels.
    pub width: u32,
    /// Height of the frame in pixels.
    pub height: u32,
    /// Of the running version.
    pub running: Vec<ComparedDetection>,
    /// Of the new one.
    pub new: Vec<ComparedDetection>,
}

/// A detection of a frame that both processed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub struct ComparedDetection {
    /// Its label.
    pub label: String,
    /// 0 to 1.
    pub score: f32,
    /// Left, top, width and height in pixels of the frame.
    #[serde(rename = "box")]
    pub area: [f32; 4],
    /// Whether the other version has a detection of the same object.
    pub matched: bool,
}

impl Comparison {
    /// See the member of this name.
    pub(super) fn measured_agreement(&self) -> f64 {
        let share = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 1.0 };
        let ComparedDetections { running, new, matched, .. } = &self.detections;
        let all = running.saturating_add(*new) as f64;
        let frames = f64::from(self.frames);
        share(2.0 * *matched as f64, all) * share(frames, frames + f64::from(self.errors))
    }
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
    /// Pairs of the same object.
    pub matched: u64,
    /// Mean IoU of the pairs, 0 to 1; 0 without pairs.
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
    /// From the request at the session to the first result, in milliseconds.
    pub total_ms: f64,
    /// From the last result of the old version to the first of the new one, in milliseconds. Null
    /// if one of them gave none.
    pub gap_ms: Option<f64>,
    /// Bytes of state that the old version gave; null if it gave none.
    pub state_bytes: Option<u64>,
    /// Whether there was a state and the new version began without: it refused it, it is another
    /// pipeline, or the deployment said so.
    pub fresh: bool,
    /// The last frame of the old version.
    pub last_frame: Option<u64>,
    /// The first frame of the new one.
    pub first_frame: Option<u64>,
    /// Whether the old version was not running: the new one was started in its place.
    pub cold: bool,
}

/// What has become of a change so far. Each is sent once, in this order; only
/// [`StepStarted`](Self::StepStarted) comes several times.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A step has begun.
    StepStarted(Step),
    /// The new component's own name and version.
    Described { name: String, version: String },
    /// The comparison is complete.
    Compared(Comparison),
    /// The new version is active.
    Swapped(Swapped),
    /// See the module's table.
    Aborted {
        /// The step that failed.
        step: Step,
        /// Why the step failed.
        reason: String,
    },
    /// See the module's table.
    RolledBack {
        /// Why the new version is gone.
        reason: String,
        /// Whether the version before it goes on with the state that it gave.
        with_state: bool,
    },
    /// See the module's table.
    Unverified {
        /// Why its probation is not complete.
        reason: String,
    },
    /// See the module's table.
    Superseded,
    /// See the module's table.
    Healthy,
    /// The comparison was all that was asked for.
    OnlyCompared,
}

impl Report {
    pub fn is_last(&self) -> bool {
        matches!(
            self,
            Self::Aborted { .. }
                | Self::RolledBack { .. }
                | Self::Unverified { .. }
                | Self::Superseded
                | Self::Healthy
                | Self::OnlyCompared
        )
    }
}

/// Where reports go. A change brings two dozen at the most: fewer than [`REPORT_CAPACITY`], so none
/// waits.
pub type ReportSender = mpsc::Sender<Report>;

/// Capacity of the channel of a [`ReportSender`].
pub const REPORT_CAPACITY: usize = 64;

/// A change of a running session's pipeline. The session's source, decode setting and priority
/// stay.
#[derive(Debug)]
pub struct SwapRequest {
    /// The session's new spec. Only its pipeline and its settings may differ from the present one.
    pub spec: Spec,
    /// What the new version does beside the running one before it is active.
    pub shadow: Shadow,
    /// Whether its settings are those that the session has, because it was given none.
    pub inherits_settings: bool,
    pub handover: StateHandover,
    pub reports: ReportSender,
}

/// What becomes of the running version's state. Another pipeline's state is never handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateHandover {
    /// The new version takes it over; if it refuses, the running version stays.
    Keep,
    /// The new version takes it over; if it refuses, it begins without.
    FreshIfRefused,
    /// The new version begins without: its `restore` is not called.
    Fresh,
}

impl From<RefusedState> for StateHandover {
    fn from(refused: RefusedState) -> Self {
        match refused {
            RefusedState::Keep => Self::Keep,
            RefusedState::Fresh => Self::FreshIfRefused,
        }
    }
}

/// A comparison of the new version with the running one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Shadow {
    /// Frames that both process, at most [`MAX_SHADOW`]; 0: no comparison.
    pub frames: u32,
    /// Whether the comparison is all: the new version does not become active.
    pub only: bool,
    /// The [`agreement`](Comparison#structfield.agreement), 0 to 1, below which the new version is
    /// given up.
    pub threshold: Option<f64>,
}

impl Shadow {
    /// Whether nothing may become of the change without the comparison.
    pub fn is_condition(&self) -> bool {
        self.only || self.threshold.is_some()
    }
}

/// Most frames of a shadow: ten minutes at 25 a second.
pub const MAX_SHADOW: u32 = 15_000;

/// The probation of a spec that a session gets without a change beside a running worker: at its
/// start, or with another source.
#[derive(Debug)]
pub struct ProbationRequest {
    /// What the session goes back to if a worker is lost during the probation; `None`: it starts
    /// again as it is.
    pub fallback: Option<Spec>,
    /// Gets [`Report::Described`], then one of the last reports.
    pub reports: ReportSender,
}

/// Sends a report. The channel has room for all of a change; without a receiver it is dropped.
pub(crate) fn send_report(reports: &ReportSender, report: Report) {
    let _ = reports.try_send(report);
}
