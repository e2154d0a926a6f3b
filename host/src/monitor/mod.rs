//! The host and its sessions as an operator watches them: metrics to be scraped, and alerts that
//! are told.
//!
//! A task looks at everything once a second and hands what it sees to the alerts' state machine
//! (`alerts`). What changes is logged, shown in the sessions' status, and published as an event of
//! the session. How the host is (`host`) is told without the journal. Metrics ([`Monitor::metrics`]) are made when they are asked for.
//!
//! Sessions are seen by a copy of their numbers, and processes by `/proc`, on threads that may
//! block: neither an alert nor a scrape, however often, makes a session wait. Disks are looked at
//! by a task of their own, since one that hangs must not keep other alerts from being raised.

mod alerts;
mod exposition;
mod host;
mod process;
pub(crate) mod prometheus_text;
mod stats;
mod system;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::analyze::Analyses;
use crate::cluster::Cluster;
use crate::config::Config;
use crate::deploy::Deployer;
use crate::event::Hub;
use crate::inference::{InferenceHandle, InferenceStatus};
use crate::journal::Journal;
use crate::session::{Observation, Sessions};
use crate::sink::Sinks;
use crate::telemetry::otlp;
use alerts::{Alert, AlertChange, AlertTracker, SessionReading};
use exposition::Exposition;
use host::{HostReading, HostWatch};
use process::{ProcessUsage, RoleCpuTotal, WorkerUsageTracker};

pub use stats::{SessionStats, WorkerMemory};
use system::StoreGrowth;
pub use system::SystemStatus;

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

/// What a monitor looks at.
pub struct Monitored {
    pub sessions: Sessions,
    pub analyses: Analyses,
    pub deployer: Deployer,
    pub inference: InferenceHandle,
    pub hub: Hub,
    pub journal: Journal,
    pub sinks: Sinks,
    /// `None`: it stands alone.
    pub cluster: Option<Cluster>,
    /// The alerts that the journal says are raised, by session.
    pub raised: Vec<(Arc<str>, String)>,
}

struct MonitorInner {
    sessions: Sessions,
    analyses: Analyses,
    deployer: Deployer,
    inference: InferenceHandle,
    hub: Hub,
    journal: Journal,
    sinks: Sinks,
    cluster: Option<Cluster>,
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
    host: HostWatch,
    growth: StoreGrowth,
}

impl Monitor {
    /// Watches from now on, by the thresholds of the config that is in force at the time: an alert
    /// that is turned off clears within a second. `lost_lines` says how many log lines could not be
    /// written so far. To be called within a tokio runtime.
    pub fn start(
        monitored: Monitored,
        lost_lines: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Self {
        let Monitored {
            sessions,
            analyses,
            deployer,
            inference,
            hub,
            journal,
            sinks,
            cluster,
            raised,
        } = monitored;
        let mut seen = MonitorState::default();
        seen.alerts.restore(raised.iter().map(|(session, alert)| (&**session, alert.as_str())));
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
            journal,
            sinks,
            cluster,
            lost_lines: Box::new(lost_lines),
            rooms: Mutex::new(disk_spaces(&folders)),
            folders,
            config,
            seen: Mutex::new(seen),
            scraping: tokio::sync::Mutex::default(),
        });
        tokio::spawn(every(INTERVAL, Arc::downgrade(&shared), MonitorInner::evaluate));
        tokio::spawn(every(DISK_INTERVAL, Arc::downgrade(&shared), MonitorInner::measure_disks));
        Self { shared }
    }

    /// From now on a session that is not there is gone, and its alerts clear: to be called when the
    /// configured ones have been started.
    pub fn set_complete(&self) {
        self.shared.seen.lock().alerts.set_complete();
    }

    /// The metrics as they are now, in the OpenMetrics text format.
    pub async fn metrics(&self) -> String {
        let _alone = self.shared.scraping.lock().await;
        let shared = Arc::clone(&self.shared);
        let made = tokio::task::spawn_blocking(move || Exposition::of(&shared).into_text()).await;
        made.unwrap_or_else(|error| {
            tracing::error!("the metrics could not be made: {error}");
            String::new()
        })
    }

    /// Results in a second that this machine has room for beside those that it gives, of a camera
    /// of this rate; `None` before a model has run.
    pub async fn suggested_rate(&self, rate: Option<f64>) -> Option<f64> {
        let load = stats::InferenceLoad::of(&self.shared);
        load.suggested_rate(rate.unwrap_or(f64::INFINITY))
    }

    /// The host and its machine, as they are now; `None` if that cannot be found out.
    pub async fn system(&self) -> Option<SystemStatus> {
        let shared = Arc::clone(&self.shared);
        let made = tokio::task::spawn_blocking(move || SystemStatus::of(&shared)).await;
        made.inspect_err(|error| tracing::error!("the host's figures failed: {error}")).ok()
    }

    /// A session's figures; `None` if there is no such session.
    pub async fn session_stats(&self, session: String) -> Option<SessionStats> {
        let shared = Arc::clone(&self.shared);
        let made = tokio::task::spawn_blocking(move || SessionStats::of(&shared, &session)).await;
        made.inspect_err(|error| tracing::error!("a session's figures failed: {error}")).ok()?
    }
}

/// Does something at an interval, on a thread that may block, until the last [`Monitor`] is
/// dropped. A turn that takes longer than the interval is followed by a whole interval.
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
        let MonitorState { alerts, workers, inference, .. } = &mut *seen;
        // So that little of a process's CPU time is lost when it dies.
        inference.update(&inference_usage(&self.inference.status()));
        let workers = workers.look(&observations);
        let readings: Vec<SessionReading<'_>> = observations
            .iter()
            .zip(&workers)
            .map(|(observation, worker)| SessionReading::new(observation, worker))
            .collect();
        let config = Arc::clone(&self.config.borrow());
        let clock = self.hub.events().health().clock;
        let now = Instant::now();
        let changes = alerts.evaluate(now, &config.alerts, &readings, &rooms, clock.as_ref());
        for observation in &observations {
            let status = &observation.status;
            let active: Vec<&str> = alerts.active(&status.id).map(Alert::name).collect();
            if active != status.alerts
                && let Some(session) = self.sessions.get(&status.id)
            {
                session.show_alerts(active);
            }
        }
        seen.growth.note(self.hub.events().metrics(), now);
        let reading = self.host_reading(seen.alerts.host(Alert::Disk));
        self.hub.update_host(|host| {
            seen.host.take_in(host, &reading, Instant::now(), SystemTime::now());
        });
        drop(seen);
        for change in changes {
            self.report(&change, &observations);
        }
    }

    /// What is known of the host itself, without asking a disk.
    fn host_reading(&self, disk_alert: bool) -> HostReading {
        let rooms = self.rooms.lock();
        HostReading {
            events: self.hub.events().health(),
            stores: self.journal.failing(),
            disk: disk_alert.then(|| DiskSpace::least(&rooms).map(DiskSpace::describe)).flatten(),
            config: self.config_fault(),
            inference_serves: self.inference.status().serves,
            traces: otlp::metrics().map(|metrics| metrics.fault),
            sinks: self.sinks.metrics(),
        }
    }

    /// Why the file of the config is not in force as it is, without what it says.
    fn config_fault(&self) -> Option<String> {
        let status = self.deployer.config_status();
        if let Some(refused) = status.refused {
            let errors = refused.problems.len();
            return Some(format!(
                "the file has errors ({errors}), the config before it is in force"
            ));
        }
        let faults = status.problems.len();
        (faults > 0).then(|| format!("faults of single cameras, or of what they name: {faults}"))
    }

    fn measure_disks(&self) {
        let rooms = disk_spaces(&self.folders);
        *self.rooms.lock() = rooms;
    }

    /// Logs a change and tells it to its session's subscribers, through the journal. The session may
    /// be gone.
    fn report(&self, change: &AlertChange, observations: &[Observation]) {
        if !change.is_part() {
            change.log();
        }
        let Some(session) = change.session() else { return };
        let status = observations.iter().map(|observation| &observation.status);
        let status = status.into_iter().find(|status| status.id == session);
        let deployment = status.map_or("", |status| &status.deployment);
        self.hub.record_event(session, change.event(deployment, SystemTime::now()));
    }
}

/// What each inference process uses.
fn inference_usage(status: &InferenceStatus) -> Vec<ProcessUsage> {
    status.processes.iter().filter_map(|process| ProcessUsage::of_child(process.pid)).collect()
}

/// The room in a folder that the host writes to.
#[derive(Debug, Clone, PartialEq)]
struct DiskSpace {
    /// `logs` or `store`.
    folder: &'static str,
    /// Bytes that the host may still write.
    free: u64,
    /// Bytes in use and free together.
    size: u64,
}

impl DiskSpace {
    /// The one with the least room.
    fn least(rooms: &[Self]) -> Option<&Self> {
        rooms.iter().min_by(|one, other| one.free_percent().total_cmp(&other.free_percent()))
    }

    /// Its room, for a person.
    fn describe(&self) -> String {
        let (mib, percent) = (self.free >> 20, self.free_percent());
        format!("{mib} MiB free for {}, {percent:.1} % of the disk", self.folder)
    }

    /// Of what the host could use, in percent.
    fn free_percent(&self) -> f64 {
        if self.size == 0 { 100.0 } else { self.free as f64 * 100.0 / self.size as f64 }
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
