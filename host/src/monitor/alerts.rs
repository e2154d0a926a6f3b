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
//!
//! `no_results` and `source_down` are raised after a time, which is all the calm that they need. A
//! session that has stopped or is gone takes its alerts with it, untold.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use strum::VariantArray;

use crate::config::AlertsConfig as Thresholds;
use crate::event::SessionState;

/// The part of the threshold at which a `memory` alert clears.
const MEMORY_CLEARS: f64 = 0.95;

/// Points of free room above the threshold at which a `disk` alert clears: more than a rotation of
/// logs gives back.
const DISK_CLEARS: f64 = 2.0;

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
    /// The source delivers nothing.
    SourceDown,
    /// The disk of the logs or of the store is nearly full: of the host, and so of every session.
    Disk,
}

impl Alert {
    pub(super) const ALL: &'static [Self] = Self::VARIANTS;

    /// Its name in events, in the API and in metrics.
    pub(super) fn name(self) -> &'static str {
        self.into()
    }
}

/// How much of a memory is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoryUse {
    /// Whose it is, for a person.
    pub(super) whose: &'static str,
    /// Bytes.
    pub(super) used: u64,
    /// Bytes; 0 is no limit.
    pub(super) limit: u64,
}

/// What is known of a session at a moment.
#[derive(Debug, Clone)]
pub(super) struct SessionReading<'a> {
    pub(super) session: &'a str,
    pub(super) state: SessionState,
    pub(super) reason: Option<&'a str>,
    /// Since when its source delivers nothing.
    pub(super) source_down: Option<Instant>,
    pub(super) results: u64,
    pub(super) restarts: u64,
    /// Memories that have a limit; none where nothing is known of them now.
    pub(super) memories: Vec<MemoryUse>,
}

/// The room in a folder that the host writes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct DiskSpace {
    /// `logs` or `store`.
    pub(super) folder: &'static str,
    /// Bytes that the host may still write.
    pub(super) free: u64,
    /// Bytes in use and free together.
    pub(super) size: u64,
}

impl DiskSpace {
    /// Of what the host could use, in percent.
    pub(super) fn free_percent(&self) -> f64 {
        if self.size == 0 { 100.0 } else { self.free as f64 * 100.0 / self.size as f64 }
    }
}

/// An alert was raised or cleared.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct AlertChange {
    /// None: the host's.
    pub(super) session: Option<String>,
    pub(super) alert: Alert,
    pub(super) raised: bool,
    /// What was measured, in the threshold's unit, with one decimal.
    pub(super) value: f64,
    /// The setting: percent, seconds, or a count.
    pub(super) threshold: u64,
    /// For a person. Holds no credential.
    pub(super) message: String,
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

/// The alerts of all sessions and of the host.
#[derive(Debug, Default)]
pub(super) struct AlertTracker {
    sessions: BTreeMap<String, SessionAlerts>,
    disk: bool,
}

/// What is remembered of a session.
#[derive(Debug, Default)]
struct SessionAlerts {
    active: BTreeSet<Alert>,
    results: u64,
    /// Since when results could be expected and none came.
    quiet_since: Option<Instant>,
    restarts: u64,
    /// The start of a step of time, and the restarts within it.
    recent_restarts: VecDeque<(Instant, u64)>,
}

impl AlertTracker {
    /// Takes in what is known now; what has changed by it. To be called every second or so, with
    /// every session. The thresholds may be others than the last time: an alert that is turned off
    /// clears.
    pub(super) fn evaluate(
        &mut self,
        now: Instant,
        thresholds: &Thresholds,
        readings: &[SessionReading<'_>],
        rooms: &[DiskSpace],
    ) -> Vec<AlertChange> {
        let mut changes = Vec::new();
        let present: BTreeSet<&str> = readings.iter().map(|reading| reading.session).collect();
        self.sessions.retain(|session, _| present.contains(session.as_str()));
        for reading in readings {
            let watched = self.sessions.entry(reading.session.to_owned()).or_default();
            watched.take_in(now, reading);
            if reading.state == SessionState::Stopped {
                watched.active.clear();
                continue;
            }
            let verdicts = [
                (
                    Alert::Memory,
                    u64::from(thresholds.memory_percent),
                    watched.memory(reading, thresholds),
                ),
                (
                    Alert::NoResults,
                    thresholds.no_results_s,
                    watched.no_results(now, reading, thresholds),
                ),
                (
                    Alert::Restarts,
                    u64::from(thresholds.restarts_per_hour),
                    watched.restarts(thresholds),
                ),
                (
                    Alert::SourceDown,
                    thresholds.source_down_s,
                    source_down(now, reading, thresholds),
                ),
            ];
            for (alert, threshold, verdict) in verdicts {
                let mut active = watched.active.contains(&alert);
                let change = decide(Some(reading.session), alert, threshold, verdict, &mut active);
                if let Some(change) = change {
                    if active {
                        watched.active.insert(alert)
                    } else {
                        watched.active.remove(&alert)
                    };
                    changes.push(change);
                }
            }
        }
        let threshold = u64::from(thresholds.disk_free_percent);
        changes.extend(decide(
            None,
            Alert::Disk,
            threshold,
            disk(rooms, threshold),
            &mut self.disk,
        ));
        changes
    }

    /// The alerts of a session that are raised now, the host's among them.
    pub(super) fn active(&self, session: &str) -> impl Iterator<Item = Alert> {
        let own = self.sessions.get(session).map(|watched| &watched.active);
        own.into_iter().flatten().copied().chain(self.disk.then_some(Alert::Disk))
    }

    /// Whether the host's own alert is raised.
    pub(super) fn disk(&self) -> bool {
        self.disk
    }
}

/// The change that a verdict makes of what is raised. A threshold of 0 turns the alert off.
fn decide(
    session: Option<&str>,
    alert: Alert,
    threshold: u64,
    verdict: Verdict,
    active: &mut bool,
) -> Option<AlertChange> {
    let verdict = if threshold == 0 {
        Verdict::Clear(0.0, "the alert is turned off".into())
    } else {
        verdict
    };
    let (raised, value, message) = match verdict {
        Verdict::Raise(value, message) if !*active => (true, value, message),
        Verdict::Clear(value, message) if *active => (false, value, message),
        _ => return None,
    };
    *active = raised;
    let value = (value * 10.0).round() / 10.0;
    Some(AlertChange {
        session: session.map(str::to_owned),
        alert,
        raised,
        value,
        threshold,
        message,
    })
}

impl SessionAlerts {
    /// Notes what later evaluations need.
    fn take_in(&mut self, now: Instant, reading: &SessionReading<'_>) {
        if reading.restarts < self.restarts || reading.results < self.results {
            // Another session under the same name.
            *self = Self::default();
        }
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
    }

    fn memory(&self, reading: &SessionReading<'_>, thresholds: &Thresholds) -> Verdict {
        let threshold = f64::from(thresholds.memory_percent);
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
        if percent >= threshold {
            Verdict::Raise(percent, message)
        } else if percent <= threshold * MEMORY_CLEARS {
            Verdict::Clear(percent, message)
        } else {
            Verdict::Unchanged
        }
    }

    fn no_results(
        &self,
        now: Instant,
        reading: &SessionReading<'_>,
        thresholds: &Thresholds,
    ) -> Verdict {
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
        if quiet >= Duration::from_secs(thresholds.no_results_s) {
            let message = format!("no result for {} s while the source delivers", quiet.as_secs());
            Verdict::Raise(quiet.as_secs_f64(), message)
        } else {
            Verdict::Clear(quiet.as_secs_f64(), "the pipeline gives results".into())
        }
    }

    fn restarts(&self, thresholds: &Thresholds) -> Verdict {
        let count: u64 = self.recent_restarts.iter().map(|(_, count)| count).sum();
        let message = format!("{count} restarts within an hour");
        let threshold = u64::from(thresholds.restarts_per_hour);
        if count >= threshold {
            Verdict::Raise(count as f64, message)
        } else if count <= threshold / 2 {
            Verdict::Clear(count as f64, message)
        } else {
            Verdict::Unchanged
        }
    }
}

fn source_down(now: Instant, reading: &SessionReading<'_>, thresholds: &Thresholds) -> Verdict {
    match reading.source_down {
        _ if reading.state == SessionState::Failed => {
            Verdict::Clear(0.0, "the session has failed and reads no source".into())
        }
        None => Verdict::Clear(0.0, "the source delivers".into()),
        Some(since) => {
            let down = now.saturating_duration_since(since);
            if down < Duration::from_secs(thresholds.source_down_s) {
                return Verdict::Unchanged;
            }
            let why = reading.reason.filter(|_| reading.state == SessionState::Degraded);
            let why = why.map(|why| format!(": {why}")).unwrap_or_default();
            Verdict::Raise(down.as_secs_f64(), format!("no pictures for {} s{why}", down.as_secs()))
        }
    }
}

fn disk(rooms: &[DiskSpace], threshold: u64) -> Verdict {
    let shares = rooms.iter().map(|room| (room.free_percent(), room));
    let Some((percent, room)) = shares.min_by(|one, other| one.0.total_cmp(&other.0)) else {
        return Verdict::Unchanged;
    };
    let threshold = threshold as f64;
    let message =
        format!("{} MiB free for {}, {percent:.1} % of the disk", room.free >> 20, room.folder);
    // Below 100 whatever the threshold is, so that an empty disk clears every alert.
    let clears = (threshold + DISK_CLEARS).min((threshold + 100.0) / 2.0);
    if percent < threshold {
        Verdict::Raise(percent, message)
    } else if percent >= clears {
        Verdict::Clear(percent, message)
    } else {
        Verdict::Unchanged
    }
}

#[cfg(test)]
mod tests;
