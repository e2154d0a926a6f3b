//! The metrics of deployments.

use std::fmt;

use prometheus_client::registry::Unit;

use super::{Exposition, FamilyEncoder, SessionSample};
use crate::deploy::Outcome;

impl Exposition {
    pub(super) fn deployments(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let figures = &self.deployments;
        let outcomes = Outcome::ALL.iter().map(|&outcome| {
            let count = figures.outcomes.get(&outcome).copied().unwrap_or_default();
            ([("outcome", outcome.name())], count.into())
        });
        out.counter("deployments", "Deployments by what became of them", None, outcomes)?;
        let gap =
            |session: &SessionSample| Some((figures.gap_ms.get(session.name())? / 1000.0).into());
        out.gauge(
            "session_swap_gap",
            "Time between the last result of the version before and the first of the one that runs",
            Some(Unit::Seconds),
            self.some(gap),
        )
    }
}
