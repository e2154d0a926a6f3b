//! Changes of what a session runs: from the session's hearing of one to its last report.
//!
//! [`Rollout`] decides: one value for each change, with its step, its deadline and its outcome.
//! [`Candidate`] is the new version's worker while it gets ready beside the running one, and
//! [`VersionChange`] what is left of a change once its version is the session's: what the session
//! falls back to, and who gets the reports. The session's task carries the decisions out
//! (`changeover`).

mod candidate;
mod machine;
mod report;
mod shadow;
mod version;

use std::future::pending;
use std::time::Instant;

pub(in crate::session) use candidate::{Candidate, CandidateEvent, Completed};
pub(crate) use machine::{
    Action as CandidateAction, CandidateInput, RolloutTerms, RunningView, VersionInput,
};
pub(crate) use report::send_report;
pub use report::{
    ComparedDetection, ComparedDetections, ComparedFrame, ComparedLatency, Comparison, MAX_SHADOW,
    ProbationRequest, REPORT_CAPACITY, Report, ReportSender, Shadow, StateHandover, Step,
    SwapRequest, Swapped,
};
pub(crate) use version::{Fallback, PipelineState, VersionChange};

/// Returns at the deadline; never if there is none.
pub(crate) async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => pending().await,
    }
}
