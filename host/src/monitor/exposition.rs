//! What `GET /metrics` answers: the state of the host and of every session in the OpenMetrics text
//! format.
//!
//! Nothing is kept between two scrapes: each one is made from what is so at its moment, so the
//! series of a session end with it.

mod analysis;
mod deployments;
mod inference;
mod journal;
mod redis;

use std::fmt;

use ocelli_protocol::limit::Limit;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    CounterValueEncoder, DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue,
    GaugeValueEncoder, NoLabelSet, text,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::alerts::{Alert, DiskSpace};
use super::process::{ProcessUsage, WorkerUsage};
use crate::analyze::AnalysisFigures;
use crate::event::{HubCounts, SessionState};
use crate::session::Observation;
pub(super) use inference::InferenceSample;

/// What every name begins with.
const PREFIX: &str = "ocelli";

const STATES: [SessionState; 6] = [
    SessionState::Starting,
    SessionState::Running,
    SessionState::Degraded,
    SessionState::Restarting,
    SessionState::Failed,
    SessionState::Stopped,
];

/// A session with what is known of its worker.
#[derive(Debug)]
pub(super) struct SessionSample {
    pub(super) observation: Observation,
    pub(super) worker: WorkerUsage,
    /// Bytes of the worker's memory, what it shares divided by the number of those who share it.
    pub(super) proportional: Option<u64>,
    pub(super) subscribers: u64,
    /// Seconds since the last result.
    pub(super) result_age: Option<f64>,
    pub(super) alerts: Vec<Alert>,
}

/// One of the host's own processes.
#[derive(Debug)]
pub(super) struct ProcessSample {
    /// `host` or `inference`.
    pub(super) name: &'static str,
    /// Of all processes in this role together.
    pub(super) now: Option<ProcessUsage>,
    /// Seconds of CPU time of all that had this role.
    pub(super) cpu: f64,
}

/// All that one answer says.
#[derive(Debug)]
pub(super) struct Exposition {
    pub(super) sessions: Vec<SessionSample>,
    pub(super) analysis: AnalysisFigures,
    pub(super) deployments: crate::deploy::DeploymentFigures,
    pub(super) journal: crate::journal::events::JournalMetrics,
    pub(super) programs: Vec<ProcessSample>,
    /// Open descriptors of the host, and its limit.
    pub(super) descriptors: Option<(u64, u64)>,
    pub(super) inference: InferenceSample,
    pub(super) session_limit: u64,
    pub(super) hub: HubCounts,
    /// None where no events go there.
    pub(super) redis: Option<crate::redis::RedisMetrics>,
    pub(super) lost_lines: u64,
    pub(super) rooms: Vec<DiskSpace>,
    pub(super) disk_alert: bool,
}

impl Exposition {
    /// The body of the answer.
    pub(super) fn into_text(self) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        match text::encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing to a string does not fail. An answer without its last line is refused by
            // whoever reads it.
            Err(fmt::Error) => String::new(),
        }
    }
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = FamilyEncoder(&mut encoder);
        self.host(&mut out)?;
        self.analysis(&mut out)?;
        self.deployments(&mut out)?;
        self.journal(&mut out)?;
        self.redis(&mut out)?;
        self.lives(&mut out)?;
        self.frames(&mut out)?;
        self.workers(&mut out)
    }
}

impl Exposition {
    fn host(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        out.info("build", "The version of this host", &[("version", env!("CARGO_PKG_VERSION"))])?;
        let programs = |value: fn(&ProcessSample, &ProcessUsage) -> Option<SampleValue>| {
            self.programs.iter().filter_map(move |program| {
                Some(([("process", program.name)], value(program, program.now.as_ref()?)?))
            })
        };
        let cpu = self
            .programs
            .iter()
            .map(|program| ([("process", program.name)], SampleValue::from(program.cpu)));
        out.counter("process_cpu", "CPU time", Some(Unit::Seconds), cpu)?;
        out.gauge(
            "process_resident_memory",
            "Memory in use, shared memory included",
            Some(Unit::Bytes),
            programs(|_, now| Some(now.resident.into())),
        )?;
        out.gauge(
            "process_start_time",
            "When the process was started, since 1970",
            Some(Unit::Seconds),
            programs(|_, now| now.started().map(SampleValue::from)),
        )?;
        out.gauge("process_threads", "Threads", None, programs(|_, now| Some(now.threads.into())))?;
        let host = |value: Option<u64>| value.map(|value| ([("process", "host")], value.into()));
        let (open, limit) = self.descriptors.unzip();
        out.gauge("process_open_fds", "Open descriptors", None, host(open))?;
        out.gauge("process_max_fds", "Descriptors that may be open", None, host(limit))?;

        self.inference(out)?;

        let states = STATES.map(|state| {
            let here = |session: &&SessionSample| session.observation.status.state == state;
            let count = self.sessions.iter().filter(here).count() as u64;
            ([("state", state.as_str())], count.into())
        });
        out.gauge("sessions", "Sessions by state", None, states)?;
        out.gauge("sessions_limit", "Sessions that there may be", None, bare(self.session_limit))?;
        out.gauge("subscribers", "Connected subscribers", None, bare(self.hub.subscribers))?;
        out.counter(
            "subscribers_closed",
            "Subscribers that were closed because they did not read what they were told",
            None,
            bare(self.hub.closed),
        )?;
        out.counter(
            "subscribers_fell_behind",
            "How often a subscriber was too slow for a session's events and went on from the \
                journal",
            None,
            bare(self.hub.fell_behind),
        )?;
        out.counter(
            "detections_missed",
            "Messages with detections that subscribers were too slow for",
            None,
            bare(self.hub.missed),
        )?;
        out.counter(
            "log_lines_lost",
            "Log lines that could not be written",
            None,
            bare(self.lost_lines),
        )?;
        let rooms = |value: fn(&DiskSpace) -> u64| {
            self.rooms.iter().map(move |room| ([("folder", room.folder)], value(room).into()))
        };
        let (free, size) = (rooms(|room| room.free), rooms(|room| room.size));
        out.gauge("disk_free", "Room on the disk of a folder", Some(Unit::Bytes), free)?;
        out.gauge(
            "disk_size",
            "Size of that disk, as far as the host may use it",
            Some(Unit::Bytes),
            size,
        )
    }

    fn lives(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let infos = self.sessions.iter().map(|SessionSample { observation, .. }| {
            let status = &observation.status;
            let (pipeline, deployment) = (status.pipeline.as_str(), status.deployment.as_str());
            [("session", status.id.as_str()), ("pipeline", pipeline), ("deployment", deployment)]
        });
        out.infos("session", "What a session runs", infos)?;
        let states = self.sessions.iter().flat_map(|session| {
            let status = &session.observation.status;
            STATES.map(|state| {
                let is = u64::from(status.state == state);
                ([("session", status.id.as_str()), ("state", state.as_str())], is.into())
            })
        });
        out.gauge(
            "session_state",
            "1 for the state that the session is in, 0 for the others",
            None,
            states,
        )?;
        out.gauge(
            "session_source_up",
            "Whether the source is not known to be down",
            None,
            self.each(|session| u64::from(session.observation.source_down.is_none())),
        )?;
        let alerts = self.sessions.iter().flat_map(|session| {
            let own = Alert::ALL.iter().copied().filter(|alert| *alert != Alert::Disk);
            own.map(|alert| {
                let raised = u64::from(session.alerts.contains(&alert));
                (vec![("session", session.name()), ("alert", alert.name())], raised.into())
            })
        });
        let disk = (vec![("alert", Alert::Disk.name())], u64::from(self.disk_alert).into());
        out.gauge("alert_active", "Whether the alert is raised", None, alerts.chain([disk]))?;
        out.counter(
            "session_restarts",
            "Workers started after the first",
            None,
            self.each(|session| session.observation.status.restarts),
        )?;
        out.counter(
            "session_results",
            "Frames that the pipeline looked at",
            None,
            self.each(|session| session.observation.status.results),
        )?;
        out.counter(
            "session_events",
            "Events of the pipeline",
            None,
            self.each(|session| session.observation.status.events),
        )?;
        out.gauge(
            "session_last_result_age",
            "Time since the last result, or since the pipeline was ready to give one",
            Some(Unit::Seconds),
            self.some(|session| session.result_age.map(SampleValue::from)),
        )?;
        out.gauge(
            "session_subscribers",
            "Who listens to the session",
            None,
            self.each(|session| session.subscribers),
        )
    }

    fn frames(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let frames = |session: &SessionSample| session.observation.status.frames;
        out.counter(
            "session_frames_received",
            "Access units that reached a worker",
            None,
            self.each(|session| frames(session).received),
        )?;
        out.counter(
            "session_frames_decoded",
            "Pictures decoded",
            None,
            self.each(|session| frames(session).decoded),
        )?;
        out.counter(
            "session_frames_processed",
            "Frames that the pipeline processed",
            None,
            self.each(|session| frames(session).processed),
        )?;
        self.session_inference(out)?;
        let skipped = self.sessions.iter().flat_map(|session| {
            let skipped = &session.observation.status.frames.skipped;
            let reasons = [
                ("newer", skipped.newer),
                ("setting", skipped.setting),
                ("no_key", skipped.no_key),
                ("corrupt", skipped.corrupt),
                ("queue", skipped.queue),
            ];
            reasons.map(|(reason, count)| {
                ([("session", session.name()), ("reason", reason)], count.into())
            })
        });
        out.counter(
            "session_frames_skipped",
            "Frames that the pipeline did not get, by reason",
            None,
            skipped,
        )?;
        out.histograms(
            "session_latency",
            "How long the frames that the pipeline processed took, by stage",
            &self.sessions,
        )?;
        let limits = self.sessions.iter().flat_map(|session| {
            Limit::ALL.iter().copied().map(|limit| {
                let count = session.observation.status.limits.of(limit);
                ([("session", session.name()), ("limit", limit.name())], count.into())
            })
        });
        out.counter("session_limit_hits", "Times that the pipeline ran into a limit", None, limits)
    }

    fn workers(&self, out: &mut FamilyEncoder<'_, '_>) -> fmt::Result {
        let bytes = || Some(Unit::Bytes);
        out.counter(
            "worker_cpu",
            "CPU time of the session's workers together",
            Some(Unit::Seconds),
            self.some(|session| Some(session.worker.cpu.into())),
        )?;
        out.gauge(
            "worker_resident_memory",
            "Memory of the worker in use, shared memory included",
            bytes(),
            self.some(|session| session.worker.now.map(|now| now.resident.into())),
        )?;
        out.gauge(
            "worker_proportional_memory",
            "Memory of the worker, what it shares divided by the number of those who share it",
            bytes(),
            self.some(|session| session.proportional.map(SampleValue::from)),
        )?;
        out.gauge(
            "worker_private_memory",
            "Private memory that the worker asked for, used or not: what its limit counts",
            bytes(),
            self.some(|session| session.worker.now.map(|now| now.data.into())),
        )?;
        out.gauge(
            "worker_private_memory_limit",
            "Private memory that the worker may have",
            bytes(),
            self.each(|session| session.observation.memory_limit),
        )?;
        out.gauge(
            "session_guest_memory",
            "Linear memories of the component",
            bytes(),
            self.each(|session| session.observation.status.guest_memory),
        )?;
        out.gauge(
            "session_guest_memory_limit",
            "Linear memories that the component may have",
            bytes(),
            self.each(|session| session.observation.guest_memory_limit),
        )
    }

    /// A sample for each session.
    fn each(
        &self,
        value: impl Fn(&SessionSample) -> u64,
    ) -> impl Iterator<Item = ([(&str, &str); 1], SampleValue)> {
        self.some(move |session| Some(value(session).into()))
    }

    /// A sample for each session of which there is one.
    fn some(
        &self,
        value: impl Fn(&SessionSample) -> Option<SampleValue>,
    ) -> impl Iterator<Item = ([(&str, &str); 1], SampleValue)> {
        self.sessions
            .iter()
            .filter_map(move |session| Some(([("session", session.name())], value(session)?)))
    }
}

impl SessionSample {
    fn name(&self) -> &str {
        &self.observation.status.id
    }
}

/// The value of a sample.
#[derive(Debug, Clone, Copy)]
enum SampleValue {
    Whole(u64),
    Real(f64),
}

impl From<u64> for SampleValue {
    fn from(number: u64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for SampleValue {
    fn from(number: f64) -> Self {
        Self::Real(number)
    }
}

impl EncodeCounterValue for SampleValue {
    fn encode(&self, encoder: &mut CounterValueEncoder) -> fmt::Result {
        match self {
            Self::Whole(number) => EncodeCounterValue::encode(number, encoder),
            Self::Real(number) => EncodeCounterValue::encode(number, encoder),
        }
    }
}

impl EncodeGaugeValue for SampleValue {
    fn encode(&self, encoder: &mut GaugeValueEncoder) -> fmt::Result {
        match self {
            Self::Whole(number) => EncodeGaugeValue::encode(number, encoder),
            Self::Real(number) => EncodeGaugeValue::encode(number, encoder),
        }
    }
}

/// A sample without labels.
fn bare(value: u64) -> [([(&'static str, &'static str); 0], SampleValue); 1] {
    [([], value.into())]
}

/// Writes families, each with all its samples.
struct FamilyEncoder<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl FamilyEncoder<'_, '_> {
    fn counter<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (L, SampleValue)>,
    ) -> fmt::Result {
        let mut family =
            self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
        for (labels, value) in samples {
            match labels.as_ref() {
                [] => family.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                labels => family
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(&value, None)?,
            }
        }
        Ok(())
    }

    fn gauge<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        samples: impl IntoIterator<Item = (L, SampleValue)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
        for (labels, value) in samples {
            match labels.as_ref() {
                [] => family.encode_gauge(&value)?,
                labels => family.encode_family(&labels)?.encode_gauge(&value)?,
            }
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) -> fmt::Result {
        self.infos(name, help, [labels])
    }

    fn infos<'l, L: AsRef<[(&'l str, &'l str)]>>(
        &mut self,
        name: &str,
        help: &str,
        samples: impl IntoIterator<Item = L>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Info)?;
        for labels in samples {
            family.encode_info(&labels.as_ref())?;
        }
        Ok(())
    }

    fn histograms(&mut self, name: &str, help: &str, sessions: &[SessionSample]) -> fmt::Result {
        let mut family =
            self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        for session in sessions {
            for (stage, histogram) in session.observation.latencies.stages() {
                let labels = [("session", session.name()), ("stage", stage.name())];
                let buckets: Vec<(f64, u64)> = histogram.buckets().collect();
                family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
                    histogram.sum(),
                    histogram.count(),
                    &buckets,
                    None,
                )?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
