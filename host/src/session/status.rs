//! The status of a session: as its task keeps it, and as the API, metrics and alerts see it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use ocelli_protocol::confinement::Confinement;
use ocelli_protocol::limit::{Limit, LimitCounts};
use ocelli_protocol::worker::{FrameResult, Timestamps, WorkerLimits};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::drift::Drift;
use super::latency::Latencies;
use super::main_stream::MainStreamStatus;
use super::recent::{Rates, Recent, Restart, StageLatency};
use super::spec::Spec;
use super::totals::{Frames, Totals};
use crate::event::{SessionState, rfc3339, unix_ns};
use crate::shape::TIME;
use crate::source::{ReaderStatus, ReaderView, ViewerCounts};

/// A session as `GET /v1/sessions` shows it.
#[derive(Debug, Clone, Default, Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub struct SessionStatus {
    /// The session's name.
    pub id: String,
    /// The host of the site that has it; left out where the host stands alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether it runs.
    pub state: SessionState,
    /// Why it is in this state; null for `starting` and `running`.
    pub reason: Option<String>,
    /// The worker's process ID; null without a worker.
    pub pid: Option<u32>,
    /// Its source, without credentials.
    pub source: String,
    /// The camera's smaller stream, whose frames are analysed, without credentials; null: those of
    /// `source` are. `reader`, `codec` and `size` are those of the stream that is analysed.
    pub substream: Option<String>,
    /// The stream of `source` that viewers get beside a substream; null without one.
    pub main_stream: Option<MainStreamStatus>,
    /// The reader of its camera; null for a file, and before one is chosen.
    pub reader: Option<ReaderStatus>,
    /// How its pictures are coded; null before the first.
    #[schemars(extend("enum" = ["h264", "h265", "mjpeg", null]))]
    pub codec: Option<&'static str>,
    /// Width and height of its frames in pixels; null before the first result.
    pub size: Option<(u32, u32)>,
    /// Its pipeline, as configured.
    pub pipeline: String,
    /// The pipeline's own name and version; null before it has described itself.
    pub pipeline_version: Option<String>,
    /// The first 12 hexadecimal digits of the running component's SHA-256.
    pub deployment: String,
    /// Seconds since the session was made or restarted by a person.
    #[schemars(range(min = 0))]
    pub uptime_s: f64,
    /// Workers started after the first.
    pub restarts: u64,
    /// The last error, of the worker, the pipeline or the source; null once the session has been
    /// running for 10 minutes without another.
    pub last_error: Option<String>,
    /// When it came: RFC 3339 in UTC, with milliseconds. Null without one.
    #[schemars(regex(pattern = TIME))]
    pub last_error_time: Option<String>,
    /// Results since the session was made.
    pub results: u64,
    /// Events since the session was made.
    pub events: u64,
    /// Counts of frames since the session was made.
    pub frames: Frames,
    /// Runs of models in a second, over the last 10 seconds.
    #[schemars(range(min = 0))]
    pub runs_per_second: f64,
    /// Seconds since the last frame on which a model ran; null before the first.
    #[schemars(range(min = 0))]
    pub last_run_age_s: Option<f64>,
    /// Bytes of the component's linear memories together.
    pub guest_memory: u64,
    /// How often the pipeline ran into each limit since the session was made; those that it never
    /// met are left out.
    #[serde(serialize_with = "serialize_limits")]
    #[schemars(with = "BTreeMap<String, u64>", extend("propertyNames" = {"enum": limit_names()}))]
    pub limits: LimitCounts,
    /// The alerts that are raised now.
    // Their names belong to the monitor, which is above the sessions; its tests hold them to these.
    #[schemars(extend("items" = {"type": "string", "enum": ["memory", "no_results", "restarts", "source_down", "overload", "disk", "host_overload", "clock"]}))]
    pub alerts: Vec<&'static str>,
    /// What the kernel enforces on the worker; null before the worker has reported it.
    pub sandbox: Option<Confinement>,
    /// Whether the worker runs in a control group of its own, which bounds its memory and CPU time.
    pub control_group: bool,
    /// How a configured camera differs from its entry in the config; null: it does not.
    pub drift: Option<Drift>,
}

/// What a session's pipeline was set to, as `GET /v1/sessions/{id}/settings` shows it.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SessionSettings {
    /// Its pipeline, as configured.
    pub pipeline: String,
    /// The first 12 hexadecimal digits of the running component's SHA-256.
    pub deployment: String,
    /// The settings that it runs with; those that are left out have the pipeline's defaults.
    pub settings: Map<String, Value>,
    /// The pipeline's JSON Schema of its settings; null before it has described itself.
    pub schema: Option<Value>,
}

fn serialize_limits<S: Serializer>(counts: &LimitCounts, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(counts.hit().map(|(limit, count)| (limit.name(), count)))
}

fn limit_names() -> Vec<&'static str> {
    Limit::ALL.iter().map(|limit| limit.name()).collect()
}

/// A session as metrics and alerts see it.
#[derive(Debug, Clone)]
pub struct Observation {
    /// As the API shows it.
    pub status: SessionStatus,
    /// How long its frames took, since the session was made.
    pub latencies: Latencies,
    /// When its pipeline last gave a result, or was ready to.
    pub last_result: Option<Instant>,
    /// Since when its source delivers nothing, or nothing but damage.
    pub source_down: Option<Instant>,
    /// Workers that were lost and replaced, without those that an operator's own change replaced.
    pub losses: u64,
    /// Bytes of private memory that its worker may have.
    pub memory_limit: u64,
    /// Bytes that the component's linear memories may have together.
    pub guest_memory_limit: u64,
    /// Who views its pictures, and what they were too slow for.
    pub viewing: Arc<ViewerCounts>,
}

/// What a session did lately.
#[derive(Debug, Clone)]
pub struct RecentView {
    /// Frames in a second.
    pub rates: Rates,
    /// How long the last frames took, by stage.
    pub latency: Vec<StageLatency>,
    /// The last new starts, the newest first.
    pub restarts: Vec<Restart>,
}

/// A session's status as its task keeps it.
pub(super) struct StatusInner {
    /// As the API shows it, but for what [`status`](Self::status) fills in.
    pub(super) shown: SessionStatus,
    pub(super) since: Instant,
    pub(super) totals: Totals,
    pub(super) latencies: Latencies,
    pub(super) recent: Recent,
    pub(super) reader: ReaderView,
    /// The pipeline's schema of its settings, as it gave it; `None` before it has described itself.
    pub(super) settings_schema: Option<String>,
    /// The name by which the pipeline that was started last describes itself.
    pub(super) described_as: Option<String>,
    /// Limits of the worker that runs, or of the next one if none runs.
    pub(super) allowed: WorkerLimits,
    /// When the pipeline last gave a result, or was ready to.
    pub(super) last_result: Option<Instant>,
    /// When the result of the last frame came on which a model ran.
    last_run: Option<Instant>,
    /// Since when the source delivers nothing, or nothing but damage.
    pub(super) source_down: Option<Instant>,
    /// Workers that were lost and replaced.
    pub(super) losses: u64,
    /// When the last error came, and since when the session has been running.
    pub(super) last_error: Option<Instant>,
    pub(super) running_since: Option<Instant>,
}

/// How long a session runs without another error until its last one is forgotten: longer than a
/// person takes to look, shorter than it would mislead the next one.
const ERROR_FORGOTTEN: Duration = Duration::from_secs(600);

impl StatusInner {
    /// A session that starts now, with these limits on its worker.
    pub(super) fn new(allowed: WorkerLimits) -> Self {
        Self {
            shown: SessionStatus::default(),
            since: Instant::now(),
            totals: Totals::default(),
            latencies: Latencies::default(),
            recent: Recent::default(),
            reader: ReaderView::default(),
            settings_schema: None,
            described_as: None,
            allowed,
            last_result: None,
            last_run: None,
            source_down: None,
            losses: 0,
            last_error: None,
            running_since: None,
        }
    }

    /// Notes an error.
    pub(super) fn note_error(&mut self, error: &str, now: Instant) {
        self.shown.last_error = Some(error.to_owned());
        self.shown.last_error_time = Some(rfc3339(unix_ns(SystemTime::now())));
        self.last_error = Some(now);
    }

    /// Whether the session has run for long enough to forget its last error.
    fn has_recovered(&self, now: Instant) -> bool {
        let (Some(since), Some(error)) = (self.running_since, self.last_error) else {
            return false;
        };
        now.saturating_duration_since(since.max(error)) >= ERROR_FORGOTTEN
    }

    /// Takes in the running worker's counts.
    pub(super) fn count(&mut self, frames: Frames, limits: LimitCounts, now: Instant) {
        self.totals.count(frames, limits);
        self.recent.count(self.totals.frames(), now);
    }

    /// Takes in a result.
    pub(super) fn count_result(&mut self, result: &FrameResult, now: Instant) {
        self.shown.results += u64::from(result.detections.is_some());
        self.shown.events += result.events.len() as u64;
        self.shown.size = Some((result.width, result.height));
        self.last_result = Some(now);
        let Timestamps { submitted, inferred, .. } = result.timestamps;
        if inferred > submitted {
            self.last_run = Some(now);
        }
        self.latencies.record(&result.timestamps);
        self.recent.record(&result.timestamps, now);
    }

    /// Ends a worker's part of the status.
    pub(super) fn end_worker(&mut self) {
        self.shown.pid = None;
        self.shown.guest_memory = 0;
        self.totals.end_worker();
    }

    /// The status as the API shows it.
    pub(super) fn status(&self, spec: &Spec) -> SessionStatus {
        let (shown, now) = (&self.shown, Instant::now());
        let frames = self.totals.frames();
        let (last_error, last_error_time) = match self.has_recovered(now) {
            true => (None, None),
            false => (shown.last_error.clone(), shown.last_error_time.clone()),
        };
        SessionStatus {
            id: spec.id.clone(),
            source: spec.source.to_string(),
            substream: spec.substream.as_ref().map(ToString::to_string),
            main_stream: shown.main_stream.clone().filter(|_| spec.substream.is_some()),
            reader: self.reader.status(),
            pipeline: spec.pipeline.name.clone(),
            deployment: spec.pipeline.id().to_owned(),
            uptime_s: milliseconds(now.saturating_duration_since(self.since)),
            runs_per_second: self.recent.rates(&frames, now).inferred,
            last_run_age_s: self.last_run.map(|at| milliseconds(now.saturating_duration_since(at))),
            frames,
            limits: self.totals.limits(),
            last_error,
            last_error_time,
            ..self.shown.clone()
        }
    }

    /// What the session did lately.
    pub(super) fn recent_view(&self, now: Instant) -> RecentView {
        RecentView {
            rates: self.recent.rates(&self.totals.frames(), now),
            latency: self.recent.latencies(now),
            restarts: self.recent.restarts(),
        }
    }

    /// The settings, and their schema.
    pub(super) fn settings(&self, spec: &Spec) -> SessionSettings {
        let schema = self.settings_schema.as_deref();
        SessionSettings {
            pipeline: spec.pipeline.name.clone(),
            deployment: spec.pipeline.id().to_owned(),
            settings: spec.settings.clone(),
            // The worker has held the settings against it, so it is JSON.
            schema: schema.and_then(|schema| serde_json::from_str(schema).ok()),
        }
    }

    /// The status, with what metrics and alerts need.
    pub(super) fn observation(&self, spec: &Spec, viewing: Arc<ViewerCounts>) -> Observation {
        Observation {
            status: self.status(spec),
            latencies: self.latencies,
            last_result: self.last_result,
            source_down: self.source_down,
            losses: self.losses,
            memory_limit: self.allowed.memory,
            guest_memory_limit: self.allowed.guest_memory,
            viewing,
        }
    }
}

/// Seconds, to a thousandth.
fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1000.0).round() / 1000.0
}

#[cfg(test)]
mod tests {
    use ocelli_protocol::worker::CaptureClock;

    use super::*;

    #[test]
    fn an_error_is_forgotten_once_the_session_has_run_for_ten_minutes_without_another() {
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        let mut status = StatusInner::new(crate::worker::tests::limits());
        status.note_error("no route to host", begun);
        assert!(status.shown.last_error_time.is_some());
        assert!(!status.has_recovered(at(86_400)), "it has not run since");
        status.running_since = Some(at(100));
        assert!(!status.has_recovered(at(699)) && status.has_recovered(at(700)));
        status.note_error("it traps", at(650));
        assert!(!status.has_recovered(at(700)) && status.has_recovered(at(1250)));
        status.running_since = None;
        assert!(!status.has_recovered(at(9999)));
    }

    #[test]
    fn a_run_is_a_result_that_waited_for_a_model() {
        let mut status = StatusInner::new(crate::worker::tests::limits());
        let result = |inferred| FrameResult {
            timestamps: Timestamps { submitted: 7, inferred, ..Timestamps::default() },
            frame: 0,
            presentation_ns: 0,
            capture_ns: 0,
            capture_clock: CaptureClock::Host,
            width: 100,
            height: 100,
            detections: Some(Vec::new()),
            events: Vec::new(),
            basis: None,
        };
        let begun = Instant::now();
        status.count_result(&result(7), begun);
        assert_eq!(status.last_run, None);
        status.count_result(&result(9), begun + Duration::from_secs(1));
        status.count_result(&result(7), begun + Duration::from_secs(2));
        assert_eq!(status.last_run, Some(begun + Duration::from_secs(1)));
    }
}
