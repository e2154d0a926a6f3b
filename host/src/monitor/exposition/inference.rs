//! The families about inference: of its processes, and of what each session had of them.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::registry::Unit;

use super::{Exposition, FamilyEncoder, SampleValue, bare};
use crate::inference::{Duty, InferenceStatus};

/// Inference at the moment of a scrape.
#[derive(Debug)]
pub(in crate::monitor) struct InferenceSample {
    pub(in crate::monitor) status: InferenceStatus,
    /// Loaded models by name, and whether one of that name runs on the processor for want of its
    /// device.
    pub(in crate::monitor) fallbacks: BTreeMap<String, bool>,
}

const DUTIES: [Duty; 3] = [Duty::Serving, Duty::Spare, Duty::Draining];

const NANOSECONDS: f64 = 1e9;

impl Exposition {
    pub(super) fn inference(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let InferenceSample { status, fallbacks } = &self.inference;
        out.gauge(
            "inference_up",
            "Whether every session has what runs its models",
            None,
            bare(u64::from(status.serves)),
        )?;
        let restarts =
            status.restarts.by_reason().map(|(reason, count)| ([("reason", reason)], count.into()));
        out.counter(
            "inference_restarts",
            "Inference processes that were replaced, by reason",
            None,
            restarts,
        )?;
        let processes = DUTIES.map(|duty| {
            let count =
                status.processes.iter().filter(|process| process.duty == duty).count() as u64;
            ([("duty", duty.name())], count.into())
        });
        out.gauge(
            "inference_processes",
            "Inference processes that are ready, by duty",
            None,
            processes,
        )?;
        let pids: Vec<String> =
            status.processes.iter().map(|process| process.pid.to_string()).collect();
        let memory = status.processes.iter().zip(&pids).map(|(process, pid)| {
            ([("pid", pid.as_str()), ("duty", process.duty.name())], process.memory.into())
        });
        out.gauge(
            "inference_private_memory",
            "Private memory that an inference process uses: what inference.memory_mb counts",
            Some(Unit::Bytes),
            memory,
        )?;
        out.gauge(
            "inference_spare_ready",
            "Whether an inference process stands by, where one is to",
            None,
            status.spare_ready.map(|ready| ([("", ""); 0], u64::from(ready).into())),
        )?;
        out.counter(
            "inference_poison_requests",
            "Requests that were refused since they ended inference processes",
            None,
            bare(status.poison),
        )?;
        let fallbacks = fallbacks
            .iter()
            .map(|(model, fell_back)| ([("model", model.as_str())], u64::from(*fell_back).into()));
        out.gauge(
            "inference_model_fallback",
            "Whether a loaded model runs on the processor since its device is not usable",
            None,
            fallbacks,
        )
    }

    pub(super) fn session_inference(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let seconds = |nanoseconds: u64| Some(SampleValue::from(nanoseconds as f64 / NANOSECONDS));
        out.counter(
            "session_inferences",
            "Inferences run",
            None,
            self.each(|session| session.observation.status.frames.inferred),
        )?;
        out.counter(
            "session_inferences_failed",
            "Inferences that brought an error",
            None,
            self.each(|session| session.observation.status.frames.inference_failed),
        )?;
        out.counter(
            "session_inferences_stale",
            "Inferences that were dropped since they had waited too long",
            None,
            self.each(|session| session.observation.status.frames.inference_stale),
        )?;
        out.counter(
            "session_inference_wait",
            "Time that inferences waited for their turn, together",
            Some(Unit::Seconds),
            self.some(|session| seconds(session.observation.status.frames.inference_wait_ns)),
        )?;
        out.counter(
            "session_inference_run",
            "Time that inferences ran, together",
            Some(Unit::Seconds),
            self.some(|session| seconds(session.observation.status.frames.inference_run_ns)),
        )
    }
}
