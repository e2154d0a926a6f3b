//! The metrics of the analysis of single pictures.

use std::fmt;

use super::{Exposition, FamilyEncoder, bare};

impl Exposition {
    pub(super) fn analysis(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let figures = &self.analysis;
        let outcomes = figures
            .outcomes
            .iter()
            .map(|(outcome, count)| ([("outcome", *outcome)], (*count).into()));
        out.counter("analyze_pictures", "Single pictures by what became of them", None, outcomes)?;
        let load = figures.load;
        out.gauge(
            "analyze_waiting",
            "Pictures that wait for a worker",
            None,
            bare(load.waiting as u64),
        )?;
        let workers = [("starting", load.starting), ("idle", load.idle), ("busy", load.busy)];
        let workers = workers.map(|(state, count)| ([("state", state)], (count as u64).into()));
        out.gauge("analyze_workers", "Workers for single pictures by what they do", None, workers)?;
        let limit = figures.worker_limit as u64;
        out.gauge(
            "analyze_workers_limit",
            "Workers for single pictures that there may be",
            None,
            bare(limit),
        )?;
        out.counter(
            "analyze_workers_lost",
            "Workers for single pictures that died or were killed",
            None,
            bare(figures.lost_workers),
        )?;
        let jobs =
            figures.jobs.iter().map(|(state, count)| ([("state", *state)], (*count as u64).into()));
        out.gauge("analyze_jobs", "Jobs by their state", None, jobs)
    }
}
