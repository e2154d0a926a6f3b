//! When an alert is raised and when it is cleared: a state machine that reads no clock and no
//! process.
//!
//! An alert is told when it is raised and when it is cleared, never twice in a row. Where what is
//! measured wavers around a threshold, the alert clears at another level than it is raised at, so
//! that it does not flap:
//!
//! | alert | raised | cleared |
//! | --- | --- | --- |
//! | `memory` | a memory is at the threshold | all are at 95 % of the threshold |
//! | `no_results` | no result for so long | with a result, or when none can be expected |
//! | `restarts` | so many within an hour | half as many within an hour |
//! | `source_down` | down for so long | up |
//! | `disk` | less room than the threshold | two points more than the threshold |
//! | `clock` | the system's clock has jumped | it is back, or has held for a while |
//! | `overload`, `host_overload` | such a part of a minute's frames is skipped | four fifths of it |
//!
//! `no_results` and `source_down` are raised after a time, which is all the calm that they need. A
//! session that has stopped or is gone has its alerts cleared. An alert of the host's is told to each
//! session by itself, also to one that comes while it is raised.
//!
//! What the journal says is raised at the start of the host ([`AlertTracker::restore`]) is raised:
//! it clears as any other, but not before the session has shown how it is, and is not raised anew.

mod load;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Map, Number, Value};
use strum::VariantArray;

use super::DiskSpace;
use super::process::WorkerUsage;
use crate::config::AlertsConfig as Thresholds;
use crate::event::{ALERT, Clock, Event, SessionState, unix_ns};
use crate::journal::events::ClockJump;
use crate::session::Observation;
use load::{FrameLoad, Load, LoadWindow};

/// The part of the threshold at which a `memory` alert clears.
const MEMORY_CLEARS: f64 = 0.95;

/// Points of free room above the threshold at which a `disk` alert clears: more than a rotation of
/// logs gives back.
const DISK_CLEARS: f64 = 2.0;

/// The part of the threshold at which an alert of overload clears.
const OVERLOAD_CLEARS: f64 = 0.8;

/// Seconds that a clock jumps: the threshold of its alert, which has no setting.
const CLOCK_THRESHOLD: u64 = 60;

/// How long after the start of the host an alert of an earlier run stays at most without a result of
/// its session that would say whether it still holds: a worker and a camera are there by then.
const SETTLES: Duration = Duration::from_secs(60);

/// How far back restarts count.
const RESTART_WINDOW: Duration = Duration::from_secs(3600);

/// Restarts are remembered by the minute: sixty numbers for a session, however often it restarts.
const RESTART_STEP: Duration = Duration::from_secs(60);

/// What can be raised.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, strum::IntoStaticStr, VariantArray,
)]
#[strum(serialize_all = "snake_case")]
pub(super) enum Alert {
    /// The memory of a worker, or of the component in it, is near its limit.
    Memory,
    /// The source delivers and the pipeline gives nothing.
    NoResults,
    /// The worker was started anew too often.
    Restarts,
    /// The source delivers nothing, or nothing but damage.
    SourceDown,
    /// Too many of the session's frames are skipped for load.
    Overload,
    /// The disk of the logs or of the store is nearly full: of the host, and so of every session.
    Disk,
    /// Too many of all sessions' frames together: of the host, and so of every session.
    HostOverload,
    /// The system's clock has jumped: of the host, and so of every session.
    Clock,
}

impl Alert {
    pub(super) const ALL: &'static [Self] = Self::VARIANTS;

    /// Those of the host, which every session shows.
    pub(super) const OF_HOST: [Self; 3] = [Self::Disk, Self::HostOverload, Self::Clock];

    /// Its name in events, in the API and in metrics.
    pub(super) fn name(self) -> &'static str {
        self.into()
    }
}

/// How much of a memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MemoryUse {
    /// Whose it is, for a person.
    whose: &'static str,
    /// Bytes.
    used: u64,
    /// Bytes; 0 is no limit.
    limit: u64,
}

/// What is known of a session at a moment.
#[derive(Debug, Clone)]
pub(super) struct SessionReading<'a> {
    session: &'a str,
    state: SessionState,
    reason: Option<&'a str>,
    /// Since when its source delivers nothing, or nothing but damage.
    source_down: Option<Instant>,
    results: u64,
    /// Workers that were lost and replaced. Those that an operator replaced do not count.
    restarts: u64,
    load: FrameLoad,
    /// Memories that have a limit; none where nothing is known of them now.
    memories: Vec<MemoryUse>,
}

impl<'a> SessionReading<'a> {
    pub(super) fn new(observation: &'a Observation, worker: &WorkerUsage) -> Self {
        let status = &observation.status;
        // The kernel bounds what a process asks for; a control group bounds what it uses.
        let used = worker.now.map(|now| now.data.max(now.resident));
        let (limit, guest_limit) = (observation.memory_limit, observation.guest_memory_limit);
        let memories = used.map(|used| {
            let (guest, guest_used) = ("the pipeline's linear memory", status.guest_memory);
            [
                MemoryUse { whose: "the worker's memory", used, limit },
                MemoryUse { whose: guest, used: guest_used, limit: guest_limit },
            ]
        });
        Self {
            session: &status.id,
            state: status.state,
            reason: status.reason.as_deref(),
            source_down: observation.source_down,
            results: observation.latencies.frames(),
            restarts: observation.losses,
            load: status.frames.into(),
            memories: memories.into_iter().flatten().collect(),
        }
    }
}

/// An alert was raised or cleared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AlertChange {
    /// None: the host's.
    session: Option<String>,
    alert: Alert,
    raised: bool,
    /// What was measured, in the threshold's unit, with one decimal.
    value: f64,
    /// The setting: percent, seconds, or a count.
    threshold: u64,
    /// For a person. Holds no credential.
    message: String,
}

impl AlertChange {
    pub(super) fn log(&self) {
        let Self { session, alert, raised, value, threshold, message } = self;
        let (session, alert) = (session.as_deref(), alert.name());
        if *raised {
            tracing::warn!(target: "ocelli::alert", session, alert, value, threshold, "alert raised: {message}");
        } else {
            tracing::info!(target: "ocelli::alert", session, alert, value, threshold, "alert cleared: {message}");
        }
    }

    /// The session whose subscribers are told. None: it is the host's own, which is logged, and
    /// told by a change for each session.
    pub(super) fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Whether it is a session's part in a change of the host's.
    pub(super) fn is_part(&self) -> bool {
        self.session.is_some() && Alert::OF_HOST.contains(&self.alert)
    }

    /// The event that tells a session's subscribers of it.
    pub(super) fn event(&self, deployment: &str, now: SystemTime) -> Event {
        let data: [(&str, Value); 5] = [
            ("alert", self.alert.name().into()),
            ("raised", self.raised.into()),
            ("value", number(self.value)),
            ("threshold", self.threshold.into()),
            ("message", self.message.as_str().into()),
        ];
        Event {
            time_ns: unix_ns(now),
            clock: Clock::Host,
            kind: ALERT.to_owned(),
            deployment: deployment.to_owned(),
            frame: None,
            detections: Vec::new(),
            data: Map::from_iter(data.map(|(key, value)| (key.to_owned(), value))),
            attachments: Vec::new(),
            clip: false,
        }
    }
}

/// Whole numbers without a decimal point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && (0.0..1e15).contains(&value) {
        (value as u64).into()
    } else {
        Number::from_f64(value).map_or(Value::Null, Value::Number)
    }
}

/// What a measurement says of an alert.
enum Verdict {
    /// It is to be raised.
    Raise(f64, String),
    /// It is to be cleared.
    Clear(f64, String),
    /// It stays as it is.
    Unchanged,
}

impl Verdict {
    fn of(raises: bool, clears: bool, value: f64, message: String) -> Self {
        match (raises, clears) {
            (true, _) => Self::Raise(value, message),
            (false, true) => Self::Clear(value, message),
            (false, false) => Self::Unchanged,
        }
    }
}

/// The alerts of all sessions and of the host.
#[derive(Debug, Default)]
pub(super) struct AlertTracker {
    sessions: BTreeMap<String, SessionAlerts>,
    /// The host's own that are raised.
    host: BTreeSet<Alert>,
    /// What was last said of them.
    host_said: BTreeMap<Alert, AlertChange>,
    /// Whether every session that is to be there is: those that are not are gone.
    complete: bool,
    /// The frames of all sessions since the start, and of the last minute.
    host_load: FrameLoad,
    host_window: LoadWindow,
}

/// What is remembered of a session.
#[derive(Debug, Default)]
struct SessionAlerts {
    active: BTreeSet<Alert>,
    /// Those of `active` that an earlier run of the host has raised.
    restored: BTreeSet<Alert>,
    /// When the session was first seen, and whether it has shown how it is since.
    seen: Option<Instant>,
    settled: bool,
    results: u64,
    /// Since when results could be expected and none came.
    quiet_since: Option<Instant>,
    restarts: u64,
    /// The start of a step of time, and the restarts within it.
    recent_restarts: VecDeque<(Instant, u64)>,
    load: FrameLoad,
    window: LoadWindow,
}

impl AlertTracker {
    /// Begins with what the journal says is raised, by sessions and names of alerts.
    pub(super) fn restore<'a>(&mut self, raised: impl Iterator<Item = (&'a str, &'a str)>) {
        for (session, name) in raised {
            let Some(alert) = Alert::ALL.iter().find(|alert| alert.name() == name) else {
                continue;
            };
            let watched = self.sessions.entry(session.to_owned()).or_default();
            watched.active.insert(*alert);
            watched.restored.insert(*alert);
            if Alert::OF_HOST.contains(alert) {
                self.host.insert(*alert);
            }
        }
    }

    /// From now on a session that is not there is gone, and its alerts with it.
    pub(super) fn set_complete(&mut self) {
        self.complete = true;
    }

    /// Takes in what is known now; what has changed by it. To be called every second or so, with
    /// every session. The thresholds may be others than the last time: an alert that is turned off
    /// clears.
    pub(super) fn evaluate(
        &mut self,
        now: Instant,
        thresholds: &Thresholds,
        readings: &[SessionReading<'_>],
        rooms: &[DiskSpace],
        clock: Option<&ClockJump>,
    ) -> Vec<AlertChange> {
        let mut changes = self.clear_gone(readings);
        for reading in readings {
            let watched = self.sessions.entry(reading.session.to_owned()).or_default();
            self.host_load = self.host_load.plus(watched.take_in(now, reading));
            if reading.state == SessionState::Stopped {
                changes.extend(watched.clear_all(reading.session, "the session has stopped"));
                continue;
            }
            let (memory, quiet) = (thresholds.memory_percent.into(), thresholds.no_results_s);
            let (restarts, down) = (thresholds.restarts_per_hour.into(), thresholds.source_down_s);
            let load = thresholds.overload_percent.into();
            let verdicts = [
                (Alert::Memory, memory, watched.memory(reading, memory)),
                (Alert::NoResults, quiet, watched.no_results(now, reading, quiet)),
                (Alert::Restarts, restarts, watched.restarts(restarts)),
                (Alert::SourceDown, down, source_down(now, reading, down)),
                (Alert::Overload, load, overload(watched.window.load(now), load)),
            ];
            changes.extend(verdicts.into_iter().filter_map(|(alert, threshold, verdict)| {
                watched.decide(reading.session, alert, threshold, verdict)
            }));
        }
        let threshold = thresholds.disk_free_percent.into();
        let verdict = disk(rooms, threshold);
        self.decide_host(Alert::Disk, threshold, verdict, readings, &mut changes);
        self.host_window.take_in(now, self.host_load);
        let threshold = thresholds.overload_percent.into();
        let verdict = overload(self.host_window.load(now), threshold);
        self.decide_host(Alert::HostOverload, threshold, verdict, readings, &mut changes);
        let verdict = match clock {
            Some(jump) => Verdict::Raise(jump.seconds as f64, jump.message.clone()),
            None => Verdict::Clear(0.0, "the system's clock holds".into()),
        };
        self.decide_host(Alert::Clock, CLOCK_THRESHOLD, verdict, readings, &mut changes);
        changes
    }

    /// Clears the alerts of sessions that are gone.
    fn clear_gone(&mut self, readings: &[SessionReading<'_>]) -> Vec<AlertChange> {
        let present: BTreeSet<&str> = readings.iter().map(|reading| reading.session).collect();
        let mut changes = Vec::new();
        self.sessions.retain(|session, watched| {
            // At the start sessions come one after the other.
            let may_come = !self.complete && watched.seen.is_none();
            if present.contains(session.as_str()) || may_come {
                return true;
            }
            changes.extend(watched.clear_all(session, "the session is gone"));
            false
        });
        changes
    }

    /// Decides on an alert of the host's, and tells each session that believes otherwise.
    fn decide_host(
        &mut self,
        alert: Alert,
        threshold: u64,
        verdict: Verdict,
        readings: &[SessionReading<'_>],
        changes: &mut Vec<AlertChange>,
    ) {
        let was = self.host.clone();
        if let Some(said) = said(None, alert, threshold, verdict) {
            match said.raised {
                true => self.host.insert(alert),
                false => self.host.remove(&alert),
            };
            if was != self.host {
                changes.push(said.clone());
            }
            self.host_said.insert(alert, said);
        }
        let raised = self.host.contains(&alert);
        let Some(said) = self.host_said.get(&alert).filter(|said| said.raised == raised) else {
            return;
        };
        for reading in readings.iter().filter(|one| one.state != SessionState::Stopped) {
            let Some(watched) = self.sessions.get_mut(reading.session) else { continue };
            let changed = match raised {
                true => watched.active.insert(alert),
                false => watched.active.remove(&alert),
            };
            if changed {
                let message = watched.message(alert, raised, &said.message);
                let session = Some(reading.session.to_owned());
                changes.push(AlertChange { session, message, ..said.clone() });
            }
        }
    }

    /// The alerts of a session that are raised now, the host's among them.
    pub(super) fn active(&self, session: &str) -> impl Iterator<Item = Alert> {
        let own = self.sessions.get(session).map(|watched| &watched.active);
        own.into_iter().flatten().copied()
    }

    /// Whether an alert of the host's own is raised.
    pub(super) fn host(&self, alert: Alert) -> bool {
        self.host.contains(&alert)
    }
}

/// What a verdict says, as a change that may be none. A threshold of 0 turns the alert off.
fn said(
    session: Option<&str>,
    alert: Alert,
    threshold: u64,
    verdict: Verdict,
) -> Option<AlertChange> {
    let (raised, value, message) = match verdict {
        _ if threshold == 0 => (false, 0.0, "the alert is turned off".into()),
        Verdict::Raise(value, message) => (true, value, message),
        Verdict::Clear(value, message) => (false, value, message),
        Verdict::Unchanged => return None,
    };
    let (session, value) = (session.map(str::to_owned), (value * 10.0).round() / 10.0);
    Some(AlertChange { session, alert, raised, value, threshold, message })
}

impl SessionAlerts {
    /// The change that a verdict makes of what is raised.
    fn decide(
        &mut self,
        session: &str,
        alert: Alert,
        threshold: u64,
        verdict: Verdict,
    ) -> Option<AlertChange> {
        let mut change = said(Some(session), alert, threshold, verdict)?;
        let waits = !self.settled && threshold > 0 && self.restored.contains(&alert);
        if !change.raised && waits {
            return None;
        }
        let changed = match change.raised {
            true => self.active.insert(alert),
            false => self.active.remove(&alert),
        };
        change.message = self.message(alert, change.raised, &change.message);
        changed.then_some(change)
    }

    /// What is said of a change: of one that an earlier run of the host began, that too.
    fn message(&mut self, alert: Alert, raised: bool, message: &str) -> String {
        match !raised && self.restored.remove(&alert) {
            true => format!("{message}; it was raised before the host was restarted"),
            false => message.to_owned(),
        }
    }

    /// Clears everything of a session that has ended.
    fn clear_all(&mut self, session: &str, why: &str) -> Vec<AlertChange> {
        let active = std::mem::take(&mut self.active);
        let clear = |alert| AlertChange {
            session: Some(session.to_owned()),
            alert,
            raised: false,
            value: 0.0,
            threshold: 0,
            message: self.message(alert, false, why),
        };
        active.into_iter().map(clear).collect()
    }

    /// Notes what later evaluations need. Returns the frames since the last one.
    fn take_in(&mut self, now: Instant, reading: &SessionReading<'_>) -> FrameLoad {
        if reading.restarts < self.restarts || reading.results < self.results {
            // Another session under the same name, whose alerts are what was told of the first.
            let (active, restored) =
                (std::mem::take(&mut self.active), std::mem::take(&mut self.restored));
            *self = Self { active, restored, seen: self.seen, settled: true, ..Self::default() };
        }
        let seen = *self.seen.get_or_insert(now);
        self.settled |= reading.results > 0
            || reading.state == SessionState::Failed
            || now.saturating_duration_since(seen) >= SETTLES;
        let new = reading.restarts - self.restarts;
        self.restarts = reading.restarts;
        if new > 0 {
            match self.recent_restarts.back_mut() {
                Some((start, count)) if now.saturating_duration_since(*start) < RESTART_STEP => {
                    *count += new
                }
                _ => self.recent_restarts.push_back((now, new)),
            }
        }
        let old = |start: &Instant| now.saturating_duration_since(*start) >= RESTART_WINDOW;
        while self.recent_restarts.front().is_some_and(|(start, _)| old(start)) {
            self.recent_restarts.pop_front();
        }

        let came = reading.results > self.results;
        self.results = reading.results;
        self.quiet_since = match reading.state {
            _ if reading.source_down.is_some() => None,
            SessionState::Running => self.quiet_since.filter(|_| !came).or(Some(now)),
            // A worker that is replaced again and again without a result between has not stopped
            // being quiet.
            SessionState::Restarting => self.quiet_since.filter(|_| !came),
            _ => None,
        };
        self.window.take_in(now, reading.load);
        let before = std::mem::replace(&mut self.load, reading.load);
        reading.load.since(before)
    }

    fn memory(&self, reading: &SessionReading<'_>, threshold: u64) -> Verdict {
        let threshold = threshold as f64;
        let limited = reading.memories.iter().filter(|memory| memory.limit > 0);
        let shares =
            limited.map(|memory| (memory.used as f64 * 100.0 / memory.limit as f64, memory));
        let Some((percent, memory)) = shares.max_by(|one, other| one.0.total_cmp(&other.0)) else {
            // Between two workers nothing is measured, which is no reason to clear.
            return match reading.state {
                SessionState::Failed => {
                    Verdict::Clear(0.0, "the session has failed and has no worker".into())
                }
                _ => Verdict::Unchanged,
            };
        };
        let mib = |bytes: u64| bytes >> 20;
        let message =
            format!("{}: {} MiB of {} MiB", memory.whose, mib(memory.used), mib(memory.limit));
        let clears = percent <= threshold * MEMORY_CLEARS;
        Verdict::of(percent >= threshold, clears, percent, message)
    }

    fn no_results(&self, now: Instant, reading: &SessionReading<'_>, threshold: u64) -> Verdict {
        let Some(since) = self.quiet_since else {
            return match reading.state {
                // Before the first result of a new start nothing is known.
                SessionState::Starting | SessionState::Restarting
                    if reading.source_down.is_none() =>
                {
                    Verdict::Unchanged
                }
                state => {
                    Verdict::Clear(0.0, format!("no results are expected: the session is {state}"))
                }
            };
        };
        let quiet = now.saturating_duration_since(since);
        if quiet >= Duration::from_secs(threshold) {
            let message = format!("no result for {} s while the source delivers", quiet.as_secs());
            Verdict::Raise(quiet.as_secs_f64(), message)
        } else {
            Verdict::Clear(quiet.as_secs_f64(), "the pipeline gives results".into())
        }
    }

    fn restarts(&self, threshold: u64) -> Verdict {
        let count: u64 = self.recent_restarts.iter().map(|(_, count)| count).sum();
        let message = format!("{count} restarts within an hour");
        Verdict::of(count >= threshold, count <= threshold / 2, count as f64, message)
    }
}

fn source_down(now: Instant, reading: &SessionReading<'_>, threshold: u64) -> Verdict {
    match reading.source_down {
        _ if reading.state == SessionState::Failed => {
            Verdict::Clear(0.0, "the session has failed and reads no source".into())
        }
        None => Verdict::Clear(0.0, "the source delivers".into()),
        Some(since) => {
            let down = now.saturating_duration_since(since);
            if down < Duration::from_secs(threshold) {
                return Verdict::Unchanged;
            }
            let why = reading.reason.filter(|_| reading.state == SessionState::Degraded);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Verdict::Raise(down.as_secs_f64(), format!("no pictures for {} s{why}", down.as_secs()))
        }
    }
}

fn overload(load: Load, threshold: u64) -> Verdict {
    let percent = match load {
        Load::Unknown => return Verdict::Unchanged,
        Load::NoFrames => return Verdict::Clear(0.0, "no frames come".into()),
        Load::Percent(percent) => percent,
    };
    let message = format!("{percent:.0} % of the last minute's frames were skipped for load");
    let threshold = threshold as f64;
    Verdict::of(percent >= threshold, percent <= threshold * OVERLOAD_CLEARS, percent, message)
}

fn disk(rooms: &[DiskSpace], threshold: u64) -> Verdict {
    let Some(room) = DiskSpace::least(rooms) else { return Verdict::Unchanged };
    let (percent, threshold, message) = (room.free_percent(), threshold as f64, room.describe());
    // Below 100 whatever the threshold is, so that an empty disk clears every alert.
    let clears = (threshold + DISK_CLEARS).min((threshold + 100.0) / 2.0);
    Verdict::of(percent < threshold, percent >= clears, percent, message)
}

#[cfg(test)]
mod tests;
