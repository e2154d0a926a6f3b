//! What `GET /v1/system` says of the machine: processes, disks, what is kept and for how long,
//! sinks, alerts.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use procfs::process::{LimitValue, Process};
use schemars::JsonSchema;
use serde::Serialize;

use super::MonitorInner;
use super::alerts::Alert;
use super::process::ProcessUsage;
use crate::config::AlertsConfig;
use crate::event::{HostStatus, rfc3339, unix_ns};
use crate::journal::events::JournalMetrics;
use crate::shape::TIME;
use crate::sink::{SinkKind, SinkMetrics, SinkStatus};

/// Between two samples of what the journal takes.
const BETWEEN_SAMPLES: Duration = Duration::from_secs(60);

/// Samples that are kept: an hour, so that a busy minute is no forecast.
const MAX_SAMPLES: usize = 61;

/// Children that are listed: a thousand sessions, with a reader for each.
const MAX_PROCESSES: usize = 4096;

const MIB: u64 = 1 << 20;

/// The host and its machine, as they are now.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct SystemStatus {
    /// When: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub time: String,
    /// The version of `ocelli`.
    pub version: &'static str,
    /// How its parts are, as in the message `host`.
    pub host: HostStatus,
    /// The host first, then its children by their kind.
    pub processes: Vec<SystemProcess>,
    /// The disks that the host writes to.
    pub disks: Vec<DiskStatus>,
    /// What of events and pictures is kept.
    pub store: StoreStatus,
    /// The sinks that have settings, by their names: `redis`, `mqtt`, `webhook:NAME`.
    pub sinks: BTreeMap<String, SystemSink>,
    /// Where alerts are raised; 0: never.
    pub thresholds: AlertsConfig,
    /// The alerts that are raised.
    pub alerts: Vec<RaisedAlert>,
}

/// What a process is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ProcessKind {
    /// The host itself.
    Host,
    /// Runs models.
    Inference,
    /// Runs a session, or analyses pictures.
    Worker,
    /// Reads a camera or a file.
    Reader,
    /// Compiles a component.
    Compiler,
}

/// A process of the host's.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct SystemProcess {
    /// Its number.
    pub pid: u32,
    /// What it is for.
    pub kind: ProcessKind,
    /// Its program's name.
    pub program: String,
    /// The session that it runs; null for others.
    pub session: Option<String>,
    /// Bytes of memory in use, shared memory included.
    pub resident: u64,
    /// Bytes of private memory that it asked for: what `limit` bounds.
    pub private: u64,
    /// Bytes of private memory that it may have; null: unbounded.
    pub limit: Option<u64>,
    /// Seconds of CPU time so far.
    #[schemars(range(min = 0))]
    pub cpu_s: f64,
    /// Its threads.
    pub threads: u64,
}

/// A disk that the host writes to, in bytes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct DiskStatus {
    /// `logs` or `store`.
    pub folder: &'static str,
    /// What the host may still write.
    pub free: u64,
    /// In use and free together.
    pub size: u64,
}

/// What is kept of events, pictures and clips.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct StoreStatus {
    /// Events.
    pub events: KeptData,
    /// Pictures of events.
    pub attachments: KeptData,
    /// Clips of events.
    pub clips: KeptData,
}

/// How much is kept, and for how long.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct KeptData {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Bytes at which the oldest go.
    pub limit: u64,
    /// Hours after which they go in any case.
    pub keep_hours: u64,
    /// Bytes in an hour by which they have grown of late; null: less than a minute is known.
    pub growth_per_hour: Option<u64>,
    /// Hours until the limit is reached at that rate; null: not before `keep_hours`.
    #[schemars(range(min = 0))]
    pub full_in_hours: Option<f64>,
}

/// A sink of events as the host sees it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct SystemSink {
    /// What it is.
    pub kind: SinkKind,
    /// Where it is, without credentials; of a webhook without the path. Empty: the config's address
    /// has no host.
    pub address: String,
    /// Whether it takes events.
    pub up: bool,
    /// Why it does not, for a person; null while it does, or was not reached yet. Has no credential.
    pub reason: Option<String>,
    /// When it last acknowledged an event: RFC 3339 in UTC, with milliseconds; null: not since the
    /// host was started.
    #[schemars(regex(pattern = TIME))]
    pub last_written: Option<String>,
    /// Events that it does not have yet.
    pub behind: u64,
    /// Events written since the host was started.
    pub written: u64,
    /// Times that it did not do what it was asked.
    pub errors: u64,
    /// Times that events were deleted before it had them.
    pub gaps: u64,
    /// Events that were left out since it will never take them.
    pub refused: u64,
}

impl From<SinkStatus> for SystemSink {
    fn from(sink: SinkStatus) -> Self {
        let SinkMetrics { up, behind, written, errors, gaps, refused } = sink.metrics;
        Self {
            kind: sink.kind,
            address: sink.address,
            up,
            reason: sink.reason,
            last_written: sink.last_written.map(|time| rfc3339(unix_ns(time))),
            behind,
            written,
            errors,
            gaps,
            refused,
        }
    }
}

/// An alert that is raised.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct RaisedAlert {
    /// Its name.
    pub alert: &'static str,
    /// The sessions that it is about; empty: the host.
    pub sessions: Vec<String>,
}

/// What the journal took of late.
#[derive(Debug, Default)]
pub(super) struct StoreGrowth(VecDeque<(Instant, JournalMetrics)>);

impl StoreGrowth {
    /// Notes what it takes now.
    pub(super) fn note(&mut self, journal: JournalMetrics, now: Instant) {
        let last = self.0.back().map(|(at, _)| *at);
        if last.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_SAMPLES) {
            return;
        }
        if self.0.len() >= MAX_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back((now, journal));
    }

    /// The forecast for what `bytes` says of the journal.
    fn kept(
        &self,
        bytes: fn(&JournalMetrics) -> u64,
        journal: &JournalMetrics,
        (limit_mb, keep_hours): (u64, u64),
        now: Instant,
    ) -> KeptData {
        let (have, limit) = (bytes(journal), limit_mb.saturating_mul(MIB));
        let growth = self.0.front().and_then(|(at, before)| {
            let hours = now.saturating_duration_since(*at).as_secs_f64() / 3600.0;
            let grown = have.saturating_sub(bytes(before)) as f64;
            (hours * 3600.0 >= BETWEEN_SAMPLES.as_secs_f64()).then(|| grown / hours)
        });
        let left = limit.saturating_sub(have) as f64;
        let full = growth.filter(|growth| *growth > 0.0).map(|growth| left / growth);
        KeptData {
            bytes: have,
            limit,
            keep_hours,
            growth_per_hour: growth.map(|growth| growth as u64),
            full_in_hours: full
                .filter(|hours| *hours < keep_hours as f64)
                .map(|hours| (hours * 10.0).round() / 10.0),
        }
    }
}

impl SystemStatus {
    /// As it is now. Reads `/proc`: not for a thread that others wait for.
    pub(super) fn of(monitor: &MonitorInner) -> Self {
        let config = monitor.config.borrow().clone();
        let (journal, keep) = (monitor.hub.events().metrics(), &config.events);
        let seen = monitor.seen.lock();
        let now = Instant::now();
        let store = StoreStatus {
            events: seen.growth.kept(
                |journal| journal.bytes,
                &journal,
                (keep.keep_mb, keep.keep_hours),
                now,
            ),
            attachments: seen.growth.kept(
                |journal| journal.attachment_bytes,
                &journal,
                (keep.attachments_mb, keep.attachments_hours),
                now,
            ),
            clips: seen.growth.kept(
                |journal| journal.clips.bytes,
                &journal,
                (keep.clips_mb, keep.clips_hours),
                now,
            ),
        };
        let sessions = monitor.sessions.list();
        let mut raised = BTreeMap::<&'static str, Vec<String>>::new();
        for session in &sessions {
            for alert in seen.alerts.active(&session.id).filter(|it| !Alert::OF_HOST.contains(it)) {
                raised.entry(alert.name()).or_default().push(session.id.clone());
            }
        }
        for alert in Alert::OF_HOST.into_iter().filter(|alert| seen.alerts.host(*alert)) {
            raised.insert(alert.name(), Vec::new());
        }
        drop(seen);
        let of_session: BTreeMap<u32, String> =
            sessions.into_iter().filter_map(|it| Some((it.pid?, it.id))).collect();
        let disks = monitor.rooms.lock().clone();
        let sinks = monitor.sinks.list();
        Self {
            time: rfc3339(unix_ns(SystemTime::now())),
            version: env!("CARGO_PKG_VERSION"),
            host: monitor.hub.host(),
            processes: processes(&of_session),
            disks: disks
                .into_iter()
                .map(|disk| DiskStatus { folder: disk.folder, free: disk.free, size: disk.size })
                .collect(),
            store,
            sinks: sinks.into_iter().map(|sink| (sink.name.to_string(), sink.into())).collect(),
            thresholds: config.alerts.clone(),
            alerts: raised
                .into_iter()
                .map(|(alert, sessions)| RaisedAlert { alert, sessions })
                .collect(),
        }
    }
}

/// This process and its children.
fn processes(of_session: &BTreeMap<u32, String>) -> Vec<SystemProcess> {
    let Ok(own) = Process::myself() else { return Vec::new() };
    // A child is its parent's thread's, each of which has a list of its own.
    let threads = own.tasks().into_iter().flatten().flatten();
    let children = threads.flat_map(|thread| thread.children().unwrap_or_default());
    let children = children.take(MAX_PROCESSES).filter_map(|pid| {
        let process = Process::new(i32::try_from(pid).ok()?).ok()?;
        seen(&process, ProcessUsage::of_child(pid)?, of_session)
    });
    let host = ProcessUsage::own().and_then(|usage| seen(&own, usage, of_session));
    let mut all: Vec<SystemProcess> = host.into_iter().chain(children).collect();
    all.sort_by(|one, other| {
        (one.kind, &one.session, one.pid).cmp(&(other.kind, &other.session, other.pid))
    });
    all
}

/// `None` for a child that is none of the host's programs, or is just being started.
fn seen(
    process: &Process,
    usage: ProcessUsage,
    of_session: &BTreeMap<u32, String>,
) -> Option<SystemProcess> {
    // The kernel keeps 15 characters of a name.
    let program = process.stat().ok()?.comm;
    let pid = usage.identity.0;
    let own = std::process::id() == pid;
    let kind = match program.as_str() {
        _ if own => ProcessKind::Host,
        "ocelli-worker" => ProcessKind::Worker,
        "ocelli-rtsp" | "ocelli-ingest" => ProcessKind::Reader,
        name if name.starts_with("ocelli-infer") => ProcessKind::Inference,
        name if name.starts_with("ocelli-compi") => ProcessKind::Compiler,
        _ => return None,
    };
    let limit = process.limits().ok().and_then(|limits| match limits.max_data_size.soft_limit {
        LimitValue::Value(bytes) => Some(bytes),
        LimitValue::Unlimited => None,
    });
    Some(SystemProcess {
        pid,
        kind,
        program: if own { "ocelli".to_owned() } else { program },
        session: of_session.get(&pid).cloned(),
        resident: usage.resident,
        private: usage.data,
        limit,
        cpu_s: (usage.cpu * 100.0).round() / 100.0,
        threads: usage.threads,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forecast_is_by_the_growth_of_the_last_hour() {
        let begun = Instant::now();
        let at = |minutes: u64| begun + Duration::from_secs(minutes * 60);
        let journal = |mib: u64| JournalMetrics { bytes: mib * MIB, ..Default::default() };
        let mut growth = StoreGrowth::default();
        let kept = |growth: &StoreGrowth, mib: u64, minute: u64, hours: u64| {
            growth.kept(|journal| journal.bytes, &journal(mib), (100, hours), at(minute))
        };
        assert_eq!(kept(&growth, 1, 0, 720).growth_per_hour, None);
        for minute in 0..=180 {
            // Nothing for two hours, then a MiB in five minutes.
            growth.note(journal(1 + u64::saturating_sub(minute, 120) / 5), at(minute));
            growth.note(journal(99), at(minute));
        }
        assert_eq!(growth.0.len(), MAX_SAMPLES);
        let now = kept(&growth, 13, 180, 720);
        assert_eq!((now.growth_per_hour, now.full_in_hours), (Some(12 * MIB), Some(7.3)));
        assert_eq!((now.bytes, now.limit, now.keep_hours), (13 * MIB, 100 * MIB, 720));
        assert_eq!(kept(&growth, 13, 180, 7).full_in_hours, None, "they are deleted before");
        assert_eq!(kept(&growth, 1, 180, 720).full_in_hours, None, "it does not grow");
    }

    #[test]
    fn this_process_is_listed_with_its_memory() {
        let all = processes(&BTreeMap::new());
        let own = &all[0];
        assert_eq!((own.pid, own.kind), (std::process::id(), ProcessKind::Host));
        assert!(own.resident > 0 && own.threads > 0, "{own:?}");
    }
}
