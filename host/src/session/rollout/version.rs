//! A change whose version is the session's: on probation, or on its way back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ocelli_protocol::worker::{Description, ToWorker};

use super::machine::{Rollout, RolloutTerms, VersionInput};
use super::report::{ProbationRequest, Report, ReportSender, Step, Swapped, send_report};
use crate::session::spec::Spec;

/// The state that a pipeline gave.
#[derive(Debug, Clone)]
pub(crate) struct PipelineState {
    pub(crate) version: String,
    pub(crate) bytes: Vec<u8>,
}

impl PipelineState {
    /// The message that gives a worker the state, with its payload.
    pub(crate) fn restore(&self) -> (ToWorker, Vec<u8>) {
        (ToWorker::Restore { version: self.version.clone() }, self.bytes.clone())
    }
}

/// What a session ran before, and goes back to.
pub(crate) struct Fallback {
    pub(crate) spec: Arc<Spec>,
    /// The state that it gave at the handoff, if any.
    pub(crate) state: Option<PipelineState>,
}

/// See the module's documentation.
pub(crate) struct VersionChange {
    rollout: Rollout,
    reports: ReportSender,
    fallback: Option<Fallback>,
    /// When it was asked for, until it serves in the place of a version that was not running.
    cold_since: Option<Instant>,
}

impl VersionChange {
    /// A version that the session begins with, or gets with another source.
    pub(crate) fn in_place(request: ProbationRequest, terms: RolloutTerms) -> Self {
        let ProbationRequest { fallback, reports } = request;
        let fallback = fallback.map(|spec| Fallback { spec: Arc::new(spec), state: None });
        Self { rollout: Rollout::in_place(terms), reports, fallback, cold_since: None }
    }

    /// A version that takes the place of one that is not running.
    pub(crate) fn cold(
        reports: ReportSender,
        fallback: Option<Fallback>,
        terms: RolloutTerms,
        now: Instant,
    ) -> Self {
        Self { rollout: Rollout::in_place(terms), reports, fallback, cold_since: Some(now) }
    }

    /// A candidate that has taken the running version's place.
    pub(super) fn completed(rollout: Rollout, reports: ReportSender, fallback: Fallback) -> Self {
        Self { rollout, reports, fallback: Some(fallback), cold_since: None }
    }

    /// Reports that the candidate has taken the running version's place.
    pub(crate) fn on_completed(&self, swapped: Swapped) {
        self.report(Report::StepStarted(Step::Probation));
        self.report(Report::Swapped(swapped));
    }

    /// When the probation is over; `None`: it has not begun, or the version is rolled back.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.rollout.deadline()
    }

    /// Whether the version before is on its way back.
    pub(crate) fn is_rolling_back(&self) -> bool {
        self.rollout.is_rolling_back()
    }

    /// Whether a lost worker brings the version before back.
    pub(crate) fn can_roll_back(&self) -> bool {
        self.fallback.is_some() && !self.is_rolling_back()
    }

    /// Begins the way back, if there is one. Returns what the session is to run.
    pub(crate) fn roll_back(&mut self, reason: &str) -> Option<Arc<Spec>> {
        let fallback = self.fallback.as_ref().filter(|_| !self.rollout.is_rolling_back())?;
        self.rollout.roll_back(reason.to_owned(), fallback.state.is_some());
        Some(Arc::clone(&fallback.spec))
    }

    /// The state that the next worker is to take back.
    pub(crate) fn state_to_restore(&self) -> Option<&PipelineState> {
        let fallback = self.fallback.as_ref().filter(|_| self.is_rolling_back());
        fallback.and_then(|fallback| fallback.state.as_ref())
    }

    /// A worker serves. If it is this version's, reports what it is.
    pub(crate) fn on_serving(
        &mut self,
        description: Option<&Description>,
        probation: Duration,
        now: Instant,
    ) -> bool {
        let is_over = self.on(VersionInput::Serving { probation }, false, now);
        if self.is_rolling_back() || is_over {
            return is_over;
        }
        if let Some(Description { name, version, .. }) = description {
            let (name, version) = (name.clone(), version.clone());
            self.report(Report::Described { name, version });
        }
        if let Some(since) = self.cold_since.take() {
            let total_ms = now.duration_since(since).as_secs_f64() * 1000.0;
            self.report(Report::Swapped(Swapped { total_ms, cold: true, ..Swapped::default() }));
        }
        false
    }

    /// Takes in an input, and reports the outcome. Whether the change is over.
    pub(crate) fn on(&mut self, input: VersionInput, has_results: bool, now: Instant) -> bool {
        let report = self.rollout.on_version(input, has_results, now);
        let is_over = report.is_some();
        report.into_iter().for_each(|report| self.report(report));
        is_over
    }

    fn report(&self, report: Report) {
        send_report(&self.reports, report);
    }
}
