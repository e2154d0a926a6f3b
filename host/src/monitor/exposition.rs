//! What `GET /metrics` answers: the state of the host and of every session in the OpenMetrics text
//! format.
//!
//! Nothing is kept between two scrapes: each one is made from what is so at its moment, so the
//! series of a session end with it.

mod family;
mod host;
mod sessions;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, text};
use prometheus_client::registry::Registry;

use super::alerts::Alert;
use super::process::{self, ProcessUsage, WorkerUsage};
use super::{DiskSpace, MonitorInner, MonitorState};
use crate::analyze::AnalysisFigures;
use crate::cluster::{Cluster, SiteFigures, tokens_in_force};
use crate::config::Config;
use crate::deploy::{DeploymentFigures, ReloadFigures};
use crate::event::HubCounts;
use crate::inference::InferenceStatus;
use crate::journal::events::JournalMetrics;
use crate::session::{DriftKind, Observation, SessionStatus};
use crate::sink::SinkMetrics;
use crate::telemetry::otlp::{self, TraceMetrics};
use family::Families;

/// What every name begins with.
const PREFIX: &str = "ocelli";

/// A session with what is known of its worker.
#[derive(Debug)]
struct SessionSample {
    observation: Observation,
    worker: WorkerUsage,
    /// Bytes of the worker's memory, what it shares divided by the number of those who share it.
    proportional: Option<u64>,
    subscribers: usize,
    /// Seconds since the last result.
    result_age: Option<f64>,
    alerts: Vec<Alert>,
}

/// One of the host's own processes.
#[derive(Debug)]
struct ProcessSample {
    /// `host` or `inference`.
    name: &'static str,
    /// Of all processes in this role together.
    now: Option<ProcessUsage>,
    /// Seconds of CPU time of all that had this role.
    cpu: f64,
}

/// All that one answer says.
#[derive(Debug)]
pub(super) struct Exposition {
    sessions: Vec<SessionSample>,
    analysis: AnalysisFigures,
    deployments: DeploymentFigures,
    reloads: ReloadFigures,
    /// The kinds of drift of the cameras that have one, by their names.
    drifts: BTreeMap<String, DriftKind>,
    journal: JournalMetrics,
    /// Events that wait for the disk.
    events_waiting: u64,
    /// When tokens of config and site end, by their names: seconds since 1970.
    token_ends: Vec<(String, f64)>,
    programs: [ProcessSample; 2],
    /// Open descriptors of the host, and its limit.
    descriptors: Option<(u64, u64)>,
    inference: InferenceStatus,
    /// Loaded models by name, and whether one of that name runs on the processor for want of its
    /// device.
    fallbacks: BTreeMap<String, bool>,
    session_limit: usize,
    hub: HubCounts,
    /// Each sink that has settings.
    sinks: BTreeMap<Arc<str>, SinkMetrics>,
    /// None where the host stands alone.
    site: Option<SiteFigures>,
    /// None without a collector of traces.
    traces: Option<TraceMetrics>,
    lost_lines: u64,
    rooms: Vec<DiskSpace>,
    /// The host's own alerts, and whether each is raised.
    host_alerts: [(Alert, bool); 3],
}

impl Exposition {
    /// All that is so now. Reads `/proc`: not for a thread that others wait for.
    pub(super) fn of(monitor: &MonitorInner) -> Self {
        let observations = monitor.sessions.observe();
        let own = ProcessUsage::own();
        let status = monitor.inference.status();
        let inferring = super::inference_usage(&status);
        let mut seen = monitor.seen.lock();
        let MonitorState { alerts, workers, inference, .. } = &mut *seen;
        let inference = inference.update(&inferring);
        let workers = workers.look(&observations);
        let active: Vec<Vec<Alert>> = observations
            .iter()
            .map(|observation| alerts.active(&observation.status.id).collect())
            .collect();
        let host_alerts = Alert::OF_HOST.map(|alert| (alert, alerts.host(alert)));
        drop(seen);
        let now = Instant::now();
        let age = |at| now.saturating_duration_since(at).as_secs_f64();
        let sessions = observations.into_iter().zip(workers).zip(active);
        let sessions = sessions.map(|((observation, worker), alerts)| SessionSample {
            proportional: worker.now.and_then(|now| process::proportional(now.identity.0)),
            subscribers: monitor.hub.subscriber_count(&observation.status.id),
            result_age: observation.last_result.map(age),
            worker,
            alerts,
            observation,
        });
        let mut fallbacks = BTreeMap::<String, bool>::new();
        for model in monitor.inference.loaded() {
            *fallbacks.entry(model.name).or_default() |= model.fell_back.is_some();
        }
        let together = ProcessUsage::together(&inferring);
        let config = Arc::clone(&monitor.config.borrow());
        let token_ends = token_ends(&config, monitor.cluster.as_ref());
        let drifts = monitor.deployer.drifts().into_iter();
        let drifts = drifts.map(|(camera, drift)| (camera, drift.kind));
        Self {
            sessions: sessions.collect(),
            analysis: monitor.analyses.figures(),
            deployments: monitor.deployer.figures(),
            reloads: monitor.deployer.reload_figures(),
            drifts: drifts.collect(),
            journal: monitor.hub.events().metrics(),
            events_waiting: monitor.hub.events().health().waiting,
            token_ends,
            programs: [
                ProcessSample { name: "host", now: own, cpu: own.map_or(0.0, |own| own.cpu) },
                ProcessSample { name: "inference", now: together, cpu: inference },
            ],
            descriptors: process::descriptors(),
            inference: status,
            fallbacks,
            session_limit: config.session_processes.max_concurrent_sessions,
            hub: monitor.hub.counts(),
            sinks: monitor.sinks.metrics(),
            site: monitor.cluster.as_ref().map(Cluster::figures),
            traces: otlp::metrics(),
            lost_lines: (monitor.lost_lines)(),
            rooms: monitor.rooms.lock().clone(),
            host_alerts,
        }
    }

    /// The body of the answer.
    pub(super) fn into_text(self) -> String {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        match text::encode(&mut text, &registry) {
            Ok(()) => text,
            // Writing to a string does not fail. An answer without its last line is refused by its
            // reader.
            Err(fmt::Error) => String::new(),
        }
    }
}

/// When the tokens that are in force end.
fn token_ends(config: &Config, cluster: Option<&Cluster>) -> Vec<(String, f64)> {
    let site = cluster.map(|cluster| Arc::clone(&cluster.tokens().borrow()));
    let tokens = tokens_in_force(&config.server.tokens, site.as_ref()).into_iter();
    tokens.filter_map(|token| Some((token.name, token.expires?.as_second() as f64))).collect()
}

impl Collector for Exposition {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Families(&mut encoder);
        self.encode_host(&mut out)?;
        self.encode_sessions(&mut out)
    }
}

impl SessionSample {
    fn status(&self) -> &SessionStatus {
        &self.observation.status
    }

    fn name(&self) -> &str {
        &self.status().id
    }
}

#[cfg(test)]
mod tests;
