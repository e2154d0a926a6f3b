//! The families with samples for each session.

use std::fmt;

use ocelli_protocol::limit::Limit;
use strum::VariantArray;

use super::family::Families;
use super::{Exposition, SessionSample};
use crate::event::SessionState;
use crate::monitor::alerts::Alert;
use crate::session::SkipReason;
use crate::source::ReaderKind;

const NANOSECONDS: f64 = 1e9;

impl Exposition {
    pub(super) fn encode_sessions(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        self.lives(out)?;
        self.frames(out)?;
        self.workers(out)
    }

    fn lives(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        let infos = self.sessions.iter().map(|session| {
            let status = session.status();
            let (pipeline, deployment) = (status.pipeline.as_str(), status.deployment.as_str());
            [("session", session.name()), ("pipeline", pipeline), ("deployment", deployment)]
        });
        out.info("session", "What a session runs", infos)?;
        let states = self.sessions.iter().flat_map(|session| {
            SessionState::VARIANTS.iter().map(|state| {
                let is = u64::from(session.status().state == *state);
                ([("session", session.name()), ("state", state.as_str())], is)
            })
        });
        out.gauge("session_state", "1 for the state that the session is in, 0 for the others")?
            .samples(states)?;
        out.gauge("session_source_up", "Whether the source is not known to be down")?
            .samples(self.each(|it| u64::from(it.observation.source_down.is_none())))?;
        let compatible = self.some(|it| {
            let reader = it.status().reader.as_ref()?;
            Some(u64::from(reader.kind == ReaderKind::Compatible))
        });
        let help = "Whether the compatible reader reads its camera";
        out.gauge("session_compatible_reader", help)?.samples(compatible)?;
        let alerts = self.sessions.iter().flat_map(|session| {
            let own = Alert::ALL.iter().filter(|alert| !Alert::OF_HOST.contains(alert));
            own.map(|alert| {
                let raised = u64::from(session.alerts.contains(alert));
                (vec![("session", session.name()), ("alert", alert.name())], raised)
            })
        });
        let host = self
            .host_alerts
            .map(|(alert, raised)| (vec![("alert", alert.name())], u64::from(raised)));
        out.gauge("alert_active", "Whether the alert is raised")?.samples(alerts.chain(host))?;
        out.counter("session_restarts", "Workers started after the first")?
            .samples(self.each(|it| it.status().restarts))?;
        out.counter("session_results", "Frames that the pipeline looked at")?
            .samples(self.each(|it| it.status().results))?;
        out.counter("session_events", "Events of the pipeline")?
            .samples(self.each(|it| it.status().events))?;
        out.gauge(
            "session_last_result_age_seconds",
            "Time since the last result, or since the pipeline was ready to give one",
        )?
        .samples(self.some(|it| it.result_age))?;
        out.gauge(
            "session_last_run_age_seconds",
            "Time since the last frame on which a model ran",
        )?
        .samples(self.some(|it| it.status().last_run_age_s))?;
        out.gauge("session_subscribers", "Who listens to the session")?
            .samples(self.each(|it| it.subscribers))?;
        out.gauge("session_viewers", "Who watches the session's pictures")?
            .samples(self.each(|it| it.observation.viewing.viewers()))?;
        let help = "Pictures that viewers were too slow for";
        out.counter("session_viewer_pictures_dropped", help)?
            .samples(self.each(|it| it.observation.viewing.dropped()))?;
        let help = "Video that is kept in memory for clips of events to come";
        out.gauge("session_clip_buffer_bytes", help)?
            .samples(self.each(|it| it.observation.viewing.clip_bytes()))
    }

    fn frames(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        out.counter("session_frames_received", "Access units that reached a worker")?
            .samples(self.each(|it| it.status().frames.received))?;
        out.counter("session_frames_decoded", "Pictures decoded")?
            .samples(self.each(|it| it.status().frames.decoded))?;
        out.counter("session_frames_processed", "Frames that the pipeline processed")?
            .samples(self.each(|it| it.status().frames.processed))?;
        self.inferences(out)?;
        let skipped = self.sessions.iter().flat_map(|session| {
            let skipped = &session.status().frames.skipped;
            SkipReason::ALL.iter().map(|reason| {
                let labels = [("session", session.name()), ("reason", reason.name())];
                (labels, skipped.of(*reason))
            })
        });
        out.counter("session_frames_skipped", "Frames that the pipeline did not get, by reason")?
            .samples(skipped)?;
        let latencies = self.sessions.iter().flat_map(|session| {
            let stages = session.observation.latencies.stages();
            stages.map(|(stage, histogram)| {
                ([("session", session.name()), ("stage", stage.name())], histogram)
            })
        });
        let help = "How long the frames that the pipeline processed took, by stage";
        out.histograms("session_latency_seconds", help, latencies)?;
        let limits = self.sessions.iter().flat_map(|session| {
            Limit::ALL.iter().map(|limit| {
                let count = session.status().limits.of(*limit);
                ([("session", session.name()), ("limit", limit.name())], count)
            })
        });
        out.counter("session_limit_hits", "Times that the pipeline ran into a limit")?
            .samples(limits)
    }

    fn inferences(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        out.counter("session_inferences", "Inferences run")?
            .samples(self.each(|it| it.status().frames.inferred))?;
        out.counter("session_inferences_failed", "Inferences that brought an error")?
            .samples(self.each(|it| it.status().frames.inference_failed))?;
        out.counter(
            "session_inferences_stale",
            "Inferences that were dropped since they had waited too long",
        )?
        .samples(self.each(|it| it.status().frames.inference_stale))?;
        out.counter(
            "session_inference_wait_seconds",
            "Time that inferences waited for their turn, together",
        )?
        .samples(self.each(|it| it.status().frames.inference_wait_ns as f64 / NANOSECONDS))?;
        out.counter("session_inference_run_seconds", "Time that inferences ran, together")?
            .samples(self.each(|it| it.status().frames.inference_run_ns as f64 / NANOSECONDS))?;
        out.counter("session_budget_asked", "Frames for which the pipeline asked the budget")?
            .samples(self.each(|it| it.status().frames.budget_asked))?;
        out.counter("session_budget_granted", "Frames for which the budget granted a run")?
            .samples(self.each(|it| it.status().frames.budget_granted))
    }

    fn workers(&self, out: &mut Families<'_, '_>) -> fmt::Result {
        out.counter("worker_cpu_seconds", "CPU time of the session's workers together")?
            .samples(self.each(|it| it.worker.cpu))?;
        out.gauge(
            "worker_resident_memory_bytes",
            "Memory of the worker in use, shared memory included",
        )?
        .samples(self.some(|it| it.worker.now.map(|now| now.resident)))?;
        out.gauge(
            "worker_proportional_memory_bytes",
            "Memory of the worker, what it shares divided by the number of those who share it",
        )?
        .samples(self.some(|it| it.proportional))?;
        out.gauge(
            "worker_private_memory_bytes",
            "Private memory that the worker asked for, used or not: what its limit counts",
        )?
        .samples(self.some(|it| it.worker.now.map(|now| now.data)))?;
        out.gauge("worker_private_memory_limit_bytes", "Private memory that the worker may have")?
            .samples(self.each(|it| it.observation.memory_limit))?;
        out.gauge("session_guest_memory_bytes", "Linear memories of the component")?
            .samples(self.each(|it| it.status().guest_memory))?;
        out.gauge(
            "session_guest_memory_limit_bytes",
            "Linear memories that the component may have",
        )?
        .samples(self.each(|it| it.observation.guest_memory_limit))
    }

    /// A sample for each session.
    fn each<T>(
        &self,
        value: impl Fn(&SessionSample) -> T,
    ) -> impl Iterator<Item = ([(&str, &str); 1], T)> {
        self.some(move |session| Some(value(session)))
    }

    /// A sample for each session that has one.
    pub(super) fn some<T>(
        &self,
        value: impl Fn(&SessionSample) -> Option<T>,
    ) -> impl Iterator<Item = ([(&str, &str); 1], T)> {
        self.sessions
            .iter()
            .filter_map(move |session| Some(([("session", session.name())], value(session)?)))
    }
}
