//! The host and its sessions as an operator watches them: metrics to be scraped, and alerts that
//! are told.
//!
//! A task looks at everything once a second and hands what it sees to the alerts' state machine
//! (`alerts`). What changes is logged, shown in the sessions' status, and published as an event of
//! the session. Metrics ([`Monitor::metrics`]) are made when somebody asks for them.
//!
//! Sessions are seen by a copy of their numbers, and processes by `/proc`, on threads that may
//! block: neither an alert nor a scrape, however often, makes a session wait. Disks are looked at
//! by a task of their own, since one that hangs must not keep other alerts from being raised.

mod alerts;
mod exposition;
mod process;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use ocelli_protocol::inference::LoadedModel;
use parking_lot::Mutex;
use serde_json::{Map, Number, Value};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::analyze::Analyses;
use crate::config::Config;
use crate::deploy::Deployer;
use crate::event::{ALERT, Clock, Event, Hub, unix_ns};
use crate::inference::{InferenceHandle, InferenceStatus};
use crate::redis::Redis;
use crate::session::{Observation, Sessions};
use alerts::{Alert, AlertChange, AlertTracker, DiskSpace, MemoryUse, SessionReading};
use exposition::{Exposition, ProcessSample, SessionSample};
use process::{ProcessUsage, RoleCpuTotal, WorkerUsage, WorkerUsageTracker};

/// Between two looks at the sessions: thresholds are given in seconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Between two looks at the disks. At 200 MB a second, 5 s fill the last twentieth of a disk of 20
/// GB.
const DISK_INTERVAL: Duration = Duration::from_secs(5);

/// Watches the host. Cheap to clone; it watches until the last clone is dropped.
#[derive(Clone)]
pub struct Monitor {
    shared: Arc<MonitorInner>,
}

struct MonitorInner {
    sessions: Sessions,
    analyses: Analyses,
    deployer: Deployer,
    inference: InferenceHandle,
    hub: Hub,
    redis: Redis,
    lost_lines: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The folders that the host writes to.
    folders: [(&'static str, PathBuf); 2],
    /// The config that is in force.
    config: watch::Receiver<Arc<Config>>,
    /// Held while `/proc` is read: some milliseconds.
    seen: Mutex<MonitorState>,
    rooms: Mutex<Vec<DiskSpace>>,
    /// One scrape at a time: however many ask, one thread is busy.
    scraping: tokio::sync::Mutex<()>,
}

/// What a look keeps for the next.
#[derive(Default)]
struct MonitorState {
    alerts: AlertTracker,
    workers: WorkerUsageTracker,
    inference: RoleCpuTotal,
}

impl Monitor {
    /// Watches from now on, by the thresholds of the config that is in force at the time: an alert
    /// that is turned off clears within a second. `lost_lines` says how many log lines could not be
    /// written so far. To be called within a tokio runtime.
    pub fn start(
        sessions: Sessions,
        analyses: Analyses,
        deployer: Deployer,
        inference: InferenceHandle,
        hub: Hub,
        redis: Redis,
        lost_lines: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let config = deployer.watch_config();
        let now = Arc::clone(&config.borrow());
        let folders =
            [("logs", now.logs.directory.clone()), ("store", now.store.directory.clone())];
        let shared = Arc::new(MonitorInner {
            sessions,
            analyses,
            deployer,
            inference,
            hub,
            redis,
            lost_lines: Box::new(lost_lines),
            rooms: Mutex::new(disk_spaces(&folders)),
            folders,
            config,
            seen: Mutex::default(),
            scraping: tokio::sync::Mutex::default(),
        });
        tokio::spawn(every(INTERVAL, Arc::downgrade(&shared), MonitorInner::evaluate));
        tokio::spawn(every(DISK_INTERVAL, Arc::downgrade(&shared), MonitorInner::measure_disks));
        Self { shared }
    }

    /// The metrics as they are now, in the OpenMetrics text format.
    pub async fn metrics(&self) -> String {
        let _alone = self.shared.scraping.lock().await;
        let shared = Arc::clone(&self.shared);
        let made = tokio::task::spawn_blocking(move || shared.exposition().into_text()).await;
        made.unwrap_or_else(|error| {
            tracing::error!("the metrics could not be made: {error}");
            String::new()
        })
    }
}

/// Does something at an interval, on a thread that may block, for as long as anybody holds what it
/// is done to. A turn that takes longer than the interval is followed by a whole interval.
async fn every(interval: Duration, shared: Weak<MonitorInner>, turn: fn(&MonitorInner)) {
    let mut interval = tokio::time::interval(interval);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = tokio::task::spawn_blocking(move || turn(&shared)).await {
            tracing::error!("the monitor failed: {error}");
        }
    }
}

impl MonitorInner {
    /// Looks at every session, and tells what has changed.
    fn evaluate(&self) {
        let observations = self.sessions.observe();
        let rooms = self.rooms.lock().clone();
        let mut seen = self.seen.lock();
        let MonitorState { alerts, workers, inference } = &mut *seen;
        // So that little of a process's CPU time is lost when it dies.
        inference.update(&inference_usage(&self.inference.status()));
        let workers = workers.look(&observations);
        let readings: Vec<SessionReading<'_>> = observations
            .iter()
            .zip(&workers)
            .map(|(observation, worker)| reading(observation, worker))
            .collect();
        let config = Arc::clone(&self.config.borrow());
        let changes = alerts.evaluate(Instant::now(), &config.alerts, &readings, &rooms);
        for observation in &observations {
            let status = &observation.status;
            let active: Vec<&str> = alerts.active(&status.id).map(Alert::name).collect();
            if active != status.alerts
                && let Some(session) = self.sessions.get(&status.id)
            {
                session.show_alerts(active);
            }
        }
        drop(seen);
        for change in changes {
            self.report(&change, &observations);
        }
    }

    fn measure_disks(&self) {
        let rooms = disk_spaces(&self.folders);
        *self.rooms.lock() = rooms;
    }

    /// Logs a change and publishes it: the host's to the subscribers of every session.
    fn report(&self, change: &AlertChange, observations: &[Observation]) {
        let AlertChange { session, alert, raised, value, threshold, message } = change;
        let (session, alert) = (session.as_deref(), alert.name());
        if *raised {
            tracing::warn!(target: "ocelli::alert", session, alert, value, threshold, "alert raised: {message}");
        } else {
            tracing::info!(target: "ocelli::alert", session, alert, value, threshold, "alert cleared: {message}");
        }
        let concerned = observations.iter().map(|observation| &observation.status);
        for status in concerned.filter(|status| session.is_none_or(|session| session == status.id))
        {
            let event = event(change, &status.deployment, SystemTime::now());
            self.hub.publish_event_if_exists(&status.id, event);
        }
    }

    fn exposition(&self) -> Exposition {
        let observations = self.sessions.observe();
        let own = ProcessUsage::own();
        let status = self.inference.status();
        let inferring = inference_usage(&status);
        let mut seen = self.seen.lock();
        let MonitorState { alerts, workers, inference } = &mut *seen;
        let inference = inference.update(&inferring);
        let workers = workers.look(&observations);
        let active: Vec<Vec<Alert>> = observations
            .iter()
            .map(|observation| alerts.active(&observation.status.id).collect())
            .collect();
        let disk_alert = alerts.disk();
        drop(seen);
        let now = Instant::now();
        let sessions = observations.into_iter().zip(workers).zip(active);
        let sessions = sessions.map(|((observation, worker), alerts)| SessionSample {
            proportional: worker.now.and_then(|now| process::proportional(now.identity.0)),
            subscribers: self.hub.subscriber_count(&observation.status.id) as u64,
            result_age: observation
                .last_result
                .map(|at| now.saturating_duration_since(at).as_secs_f64()),
            worker,
            alerts,
            observation,
        });
        Exposition {
            sessions: sessions.collect(),
            analysis: self.analyses.figures(),
            deployments: self.deployer.figures(),
            journal: self.hub.events().metrics(),
            programs: vec![
                ProcessSample { name: "host", now: own, cpu: own.map_or(0.0, |own| own.cpu) },
                ProcessSample {
                    name: "inference",
                    now: ProcessUsage::together(&inferring),
                    cpu: inference,
                },
            ],
            descriptors: process::descriptors(),
            inference: exposition::InferenceSample {
                status,
                fallbacks: fallbacks(&self.inference.loaded()),
            },
            session_limit: self.config.borrow().session_processes.max_concurrent_sessions as u64,
            hub: self.hub.counts(),
            redis: self.redis.metrics(),
            lost_lines: (self.lost_lines)(),
            rooms: self.rooms.lock().clone(),
            disk_alert,
        }
    }
}

/// What each inference process uses.
fn inference_usage(status: &InferenceStatus) -> Vec<ProcessUsage> {
    status.processes.iter().filter_map(|process| ProcessUsage::of_child(process.pid)).collect()
}

fn fallbacks(loaded: &[LoadedModel]) -> BTreeMap<String, bool> {
    let mut fallbacks = BTreeMap::<String, bool>::new();
    for model in loaded {
        *fallbacks.entry(model.name.clone()).or_default() |= model.fell_back.is_some();
    }
    fallbacks
}

fn reading<'a>(observation: &'a Observation, worker: &WorkerUsage) -> SessionReading<'a> {
    let status = &observation.status;
    let mut memories = Vec::new();
    if let Some(now) = worker.now {
        // The kernel bounds what a process asks for; a control group bounds what it uses.
        let used = now.data.max(now.resident);
        memories.push(MemoryUse {
            whose: "the worker's memory",
            used,
            limit: observation.memory_limit,
        });
        memories.push(MemoryUse {
            whose: "the pipeline's linear memory",
            used: status.guest_memory,
            limit: observation.guest_memory_limit,
        });
    }
    SessionReading {
        session: &status.id,
        state: status.state,
        reason: status.reason.as_deref(),
        source_down: observation.source_down,
        results: observation.latencies.frames(),
        restarts: status.restarts,
        memories,
    }
}

/// The event that tells a session's subscribers of a change.
fn event(change: &AlertChange, deployment: &str, now: SystemTime) -> Event {
    let data = [
        ("alert", change.alert.name().into()),
        ("raised", change.raised.into()),
        ("value", number(change.value)),
        ("threshold", change.threshold.into()),
        ("message", change.message.as_str().into()),
    ];
    Event {
        time_ns: unix_ns(now),
        clock: Clock::Host,
        kind: ALERT.to_owned(),
        deployment: deployment.to_owned(),
        frame: None,
        detections: Vec::new(),
        data: data
            .into_iter()
            .map(|(key, value): (&str, Value)| (key.to_owned(), value))
            .collect::<Map<_, _>>(),
        attachments: Vec::new(),
    }
}

/// Whole numbers without a decimal point.
fn number(value: f64) -> Value {
    let whole = value.fract() == 0.0 && (0.0..1e15).contains(&value);
    if whole {
        (value as u64).into()
    } else {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}

/// The room in each folder; none of one that is not there.
fn disk_spaces(folders: &[(&'static str, PathBuf)]) -> Vec<DiskSpace> {
    folders.iter().filter_map(|(folder, path)| disk_space(folder, path)).collect()
}

/// As `df` counts it: what is kept back for root is neither free nor a part of the whole.
fn disk_space(folder: &'static str, path: &Path) -> Option<DiskSpace> {
    let disk = rustix::fs::statvfs(path).ok()?;
    let used = disk.f_blocks.saturating_sub(disk.f_bfree);
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Some(DiskSpace {
        folder,
        free: bytes(disk.f_bavail),
        size: bytes(used.saturating_add(disk.f_bavail)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;

    #[tokio::test]
    async fn an_alert_is_an_event_without_a_frame() {
        let change = AlertChange {
            session: Some("display-001;cam-001".into()),
            alert: Alert::SourceDown,
            raised: true,
            value: 12.5,
            threshold: 10,
            message: "no pictures for 12 s".into(),
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_123);
        let hub = Hub::new(Journal::temporary().unwrap().events().clone());
        let subscriber = hub.subscriber();
        hub.publish_state("cam", crate::event::SessionState::Degraded, None);
        subscriber
            .subscribe("cam", crate::event::SubscribeOptions { detections: true, after: None });
        assert!(hub.publish_event_if_exists("cam", event(&change, "0a1b2c3d4e5f", now)));
        hub.events().flush().await.unwrap();
        let told: Vec<String> = std::iter::from_fn(|| subscriber.try_next())
            .map(|told| told.unwrap().text.to_string())
            .collect();
        assert_eq!(
            told[1],
            concat!(
                r#"{"type":"event","session":"cam","seq":1,"time":"2023-11-14T22:13:20.123Z","clock":"host","kind":"alert","#,
                r#""deployment":"0a1b2c3d4e5f","detections":[],"data":{"alert":"source_down","#,
                r#""message":"no pictures for 12 s","raised":true,"threshold":10,"value":12.5}}"#
            )
        );
    }

    #[test]
    fn the_room_of_a_folder_is_that_of_its_disk() {
        let folder = tempfile::tempdir().unwrap();
        let folders =
            [("logs", folder.path().to_owned()), ("store", folder.path().join("missing"))];
        let rooms = disk_spaces(&folders);
        assert_eq!(rooms.len(), 1, "a folder that is not there has none");
        assert!(
            rooms[0].folder == "logs" && rooms[0].free > 0 && rooms[0].free <= rooms[0].size,
            "{rooms:?}"
        );
    }
}
