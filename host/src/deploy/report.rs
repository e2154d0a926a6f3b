//! The reports of a deployment: a line in the log, an event of the session, and counters.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde_json::{Map, Value};

use super::record::{Cause, DeploymentState, Outcome, Record};
use crate::event::{Clock, Event, unix_ns};
use crate::util::line;

/// The kind of the event that subscribers get of a deployment.
pub const DEPLOYMENT: &str = "deployment";

/// Counts of all deployments since the host was started, for metrics.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeploymentFigures {
    /// Ended deployments by outcome. Outcomes without one are left out.
    pub outcomes: BTreeMap<Outcome, u64>,
    /// Of each session's last change: milliseconds between the last result of the previous version
    /// and the first of the new one.
    pub gap_ms: BTreeMap<String, f64>,
}

impl DeploymentFigures {
    /// Counts a deployment that has come to a state.
    pub(super) fn count(&mut self, record: &Record) {
        match record.state {
            DeploymentState::Pending => {}
            DeploymentState::Probation => {
                if let Some(gap) = record.swapped.and_then(|swapped| swapped.gap_ms) {
                    self.gap_ms.insert(record.session.clone(), gap);
                }
            }
            DeploymentState::Ended(outcome) => *self.outcomes.entry(outcome).or_default() += 1,
        }
    }

    /// Forgets sessions that have ended.
    pub(super) fn retain(&mut self, lives: impl Fn(&str) -> bool) {
        self.gap_ms.retain(|session, _| lives(session));
    }
}

/// Logs one line: both versions, the state, compile and swap time, frames skipped, and the reason.
pub(super) fn log(record: &Record) {
    let (session, deployment, line) = (&record.session, &record.deployment, line(record));
    match record.outcome() {
        Some(Outcome::Refused | Outcome::Aborted | Outcome::RolledBack) => {
            tracing::error!(target: "ocelli::deploy", session, deployment, "{line}");
        }
        // A subscriber that leaves soon ends its session, which is no failure.
        Some(Outcome::Unverified) if record.cause != Cause::Subscription => {
            tracing::warn!(target: "ocelli::deploy", session, deployment, "{line}");
        }
        _ => tracing::info!(target: "ocelli::deploy", session, deployment, "{line}"),
    }
}

fn line(record: &Record) -> String {
    let before = record.before.as_deref().unwrap_or("none");
    let new = if record.deployment.is_empty() { "unread" } else { &record.deployment };
    let mut line = format!(
        "deployment {} ({}, by {}) is {}: {before} -> {new}",
        record.number,
        record.cause.name(),
        record.by,
        record.state.name()
    );
    if !record.changed.is_empty() {
        line += &format!(", changed: {}", record.changed.join(", "));
    }
    if let Some(ms) = record.compile_ms {
        line += &format!(", compiled in {ms} ms");
    } else if record.cached {
        line += ", compiled before";
    }
    if let Some(swapped) = &record.swapped {
        line += &format!(", swapped in {:.0} ms", swapped.total_ms);
        if let Some(gap) = swapped.gap_ms {
            line += &format!(" with {gap:.0} ms between two results");
        }
        if let (Some(last), Some(first)) = (swapped.last_frame, swapped.first_frame) {
            line += &format!(", {} frames skipped", first.saturating_sub(last).saturating_sub(1));
        }
    }
    if let Some(reason) = &record.reason {
        line += &format!(", {}: {}", record.step, first_line(reason));
    }
    line
}

/// The first line: the rest is a backtrace, which the worker's own log has.
pub(super) fn first_line(text: &str) -> String {
    line::line(text.lines().next().unwrap_or_default())
}

/// The event for a session's subscribers.
pub(super) fn event(record: &Record) -> Event {
    let mut data = Map::from_iter([
        ("number".to_owned(), Value::from(record.number)),
        ("state".to_owned(), record.state.name().into()),
        ("step".to_owned(), record.step.name().into()),
        ("cause".to_owned(), record.cause.name().into()),
        ("by".to_owned(), record.by.as_str().into()),
        ("pipeline".to_owned(), record.pipeline.as_str().into()),
        ("before".to_owned(), record.before.clone().into()),
    ]);
    if !record.changed.is_empty() {
        data.insert("changed".to_owned(), record.changed.clone().into());
    }
    if let Some(reason) = &record.reason {
        data.insert("reason".to_owned(), first_line(reason).into());
    }
    Event {
        time_ns: unix_ns(SystemTime::now()),
        clock: Clock::Host,
        kind: DEPLOYMENT.to_owned(),
        deployment: record.deployment.clone(),
        frame: None,
        detections: Vec::new(),
        data,
        attachments: Vec::new(),
        clip: false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::record;
    use super::*;
    use crate::session::rollout::{Step, Swapped};

    #[test]
    fn the_kind_of_a_deployment_is_the_hosts() {
        assert!(crate::event::HOST_KINDS.contains(&DEPLOYMENT));
    }

    #[test]
    fn one_line_says_what_became_of_a_deployment() {
        let mut told = record(3, 'b', Cause::Request, DeploymentState::Probation);
        told.before = Some("aaaaaaaaaaaa".into());
        told.compile_ms = Some(210);
        told.swapped = Some(Swapped {
            total_ms: 431.6,
            gap_ms: Some(38.2),
            last_frame: Some(99),
            first_frame: Some(100),
            ..Swapped::default()
        });
        assert_eq!(
            line(&told),
            "deployment 3 (request, by test) is probation: aaaaaaaaaaaa -> bbbbbbbbbbbb, compiled \
                in 210 ms, swapped in \
             432 ms with 38 ms between two results, 0 frames skipped"
        );
        let mut refused = record(4, 'b', Cause::Config, DeploymentState::Ended(Outcome::Aborted));
        (refused.step, refused.reason) =
            (Step::Restore, Some("refuses the state\nbacktrace".into()));
        assert_eq!(
            line(&refused),
            "deployment 4 (config, by test) is aborted: none -> bbbbbbbbbbbb, restore: refuses the \
                state"
        );
        let event = event(&refused);
        assert_eq!(
            (event.kind.as_str(), event.data["step"].as_str()),
            ("deployment", Some("restore"))
        );
        assert_eq!(event.data["reason"], "refuses the state");
    }

    #[test]
    fn deployments_are_counted_by_their_outcome() {
        let mut figures = DeploymentFigures::default();
        let mut one = record(1, 'a', Cause::Request, DeploymentState::Probation);
        one.swapped = Some(Swapped { gap_ms: Some(40.0), ..Swapped::default() });
        figures.count(&one);
        for outcome in [Outcome::Healthy, Outcome::Aborted, Outcome::Aborted] {
            figures.count(&Record { state: DeploymentState::Ended(outcome), ..one.clone() });
        }
        assert_eq!(figures.outcomes, [(Outcome::Aborted, 2), (Outcome::Healthy, 1)].into());
        assert_eq!(figures.gap_ms["cam"], 40.0);
        figures.retain(|session| session != "cam");
        assert!(figures.gap_ms.is_empty());
    }
}
