//! What a session did lately: its rates, how long its last frames took, why it was started anew. A
//! value without a clock.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use ocelli_protocol::worker::Timestamps;
use schemars::JsonSchema;
use serde::Serialize;

use super::latency::LatencyStage;
use super::totals::{Frames, SkipReason};
use crate::shape::TIME;

/// What rates are taken over: long enough for a camera at one picture a second, short enough that a
/// page shows a change.
const SPAN: Duration = Duration::from_secs(10);

/// Between two samples of the counts. Workers report them at least once a second.
const BETWEEN_SAMPLES: Duration = Duration::from_secs(1);

/// Samples of [`SPAN`], and the one before it.
const MAX_SAMPLES: usize = 12;

/// Frames whose times are kept: 10 s at 25 pictures a second, some 14 KB for each session.
const MAX_FRAMES: usize = 256;

/// Frames older than this say nothing of now.
const FRESH: Duration = Duration::from_secs(60);

/// Restarts that are kept. A crash loop ends after five, a version on probation after one.
const MAX_RESTARTS: usize = 32;

/// Characters of a reason that is kept: a trap's first lines, with the frames that matter. The log
/// has it whole.
const MAX_REASON: usize = 600;

/// Why a session was started anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RestartCause {
    /// Its worker was lost.
    Lost,
    /// Its worker was lost on probation, and the version before came back.
    RolledBack,
    /// A person asked for it, or its entry in the config has changed.
    Asked,
}

/// A new start of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Restart {
    /// When: RFC 3339 in UTC, with milliseconds.
    #[schemars(regex(pattern = TIME))]
    pub time: String,
    /// Why.
    pub cause: RestartCause,
    /// What was wrong; null if nothing was.
    pub reason: Option<String>,
}

/// Frames in a second, over the last seconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct Rates {
    /// Seconds that they are taken over, 10 at most; 0: nothing is known yet, and they are 0.
    #[schemars(range(min = 0))]
    pub span_s: f64,
    /// Access units sent to the worker.
    #[schemars(range(min = 0))]
    pub received: f64,
    /// Pictures decoded.
    #[schemars(range(min = 0))]
    pub decoded: f64,
    /// Frames that the pipeline processed.
    #[schemars(range(min = 0))]
    pub processed: f64,
    /// Inferences run.
    #[schemars(range(min = 0))]
    pub inferred: f64,
    /// Skipped frames by reason; those without any are left out.
    #[schemars(extend("propertyNames" = {"enum": SkipReason::names()}))]
    pub skipped: BTreeMap<&'static str, f64>,
}

/// How long a stage of the last frames took.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StageLatency {
    /// As in `latency_ms` of a `detections` message.
    #[schemars(extend("enum" = LatencyStage::names()))]
    pub stage: &'static str,
    /// Frames that this is of: the last 256 at most, of the last minute.
    pub frames: u64,
    /// Half of them took no longer, in milliseconds; null without a frame.
    #[schemars(range(min = 0))]
    pub p50_ms: Option<f64>,
    /// 95 of 100 took no longer, in milliseconds; null without a frame.
    #[schemars(range(min = 0))]
    pub p95_ms: Option<f64>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Recent {
    samples: VecDeque<(Instant, Frames)>,
    frames: VecDeque<(Instant, Timestamps)>,
    restarts: VecDeque<Restart>,
}

impl Recent {
    /// Notes the session's counts so far.
    pub(super) fn count(&mut self, frames: Frames, now: Instant) {
        let last = self.samples.back().map(|(at, _)| *at);
        if last.is_some_and(|at| now.saturating_duration_since(at) < BETWEEN_SAMPLES) {
            return;
        }
        if self.samples.len() >= MAX_SAMPLES {
            self.samples.pop_front();
        }
        self.samples.push_back((now, frames));
    }

    /// Notes a frame that the pipeline has processed.
    pub(super) fn record(&mut self, stations: &Timestamps, now: Instant) {
        if self.frames.len() >= MAX_FRAMES {
            self.frames.pop_front();
        }
        self.frames.push_back((now, *stations));
    }

    /// Notes a new start.
    pub(super) fn restart(&mut self, time: String, cause: RestartCause, reason: Option<&str>) {
        if self.restarts.len() >= MAX_RESTARTS {
            self.restarts.pop_back();
        }
        let reason = reason.map(|reason| match reason.char_indices().nth(MAX_REASON) {
            Some((end, _)) => format!("{}\u{2026}", reason.get(..end).unwrap_or_default()),
            None => reason.to_owned(),
        });
        self.restarts.push_front(Restart { time, cause, reason });
    }

    /// The last new starts, the newest first.
    pub(super) fn restarts(&self) -> Vec<Restart> {
        self.restarts.iter().cloned().collect()
    }

    /// The rates, by the counts of now.
    pub(super) fn rates(&self, frames: &Frames, now: Instant) -> Rates {
        let age = |at: &Instant| now.saturating_duration_since(*at);
        let Some((at, before)) = self.samples.iter().find(|(at, _)| age(at) <= SPAN) else {
            // Without a sample for so long there is no worker.
            let span = if self.samples.is_empty() { Duration::ZERO } else { SPAN };
            return Rates { span_s: span.as_secs_f64(), ..Rates::default() };
        };
        let span_s = age(at).as_secs_f64();
        if age(at) < BETWEEN_SAMPLES {
            return Rates::default();
        }
        let rate = |now: u64, before: u64| rounded(now.saturating_sub(before) as f64 / span_s);
        let skipped = SkipReason::ALL.iter().filter_map(|reason| {
            let (now, before) = (frames.skipped.of(*reason), before.skipped.of(*reason));
            (now > before).then(|| (reason.name(), rate(now, before)))
        });
        Rates {
            span_s: rounded(span_s),
            received: rate(frames.received, before.received),
            decoded: rate(frames.decoded, before.decoded),
            processed: rate(frames.processed, before.processed),
            inferred: rate(frames.inferred, before.inferred),
            skipped: skipped.collect(),
        }
    }

    /// The times of the last frames, by stage.
    pub(super) fn latencies(&self, now: Instant) -> Vec<StageLatency> {
        let fresh =
            self.frames.iter().filter(|(at, _)| now.saturating_duration_since(*at) <= FRESH);
        let fresh: Vec<_> = fresh.map(|(_, stations)| stations).collect();
        let stages = LatencyStage::ALL.iter().map(|stage| {
            let mut times: Vec<u64> = fresh.iter().filter_map(|it| stage.of(it)).collect();
            times.sort_unstable();
            StageLatency {
                stage: stage.name(),
                frames: times.len() as u64,
                p50_ms: quantile(&times, 50),
                p95_ms: quantile(&times, 95),
            }
        });
        stages.collect()
    }
}

/// The least of sorted times in nanoseconds that so many percent do not exceed, in milliseconds.
fn quantile(sorted: &[u64], percent: usize) -> Option<f64> {
    let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(place).map(|ns| rounded(*ns as f64 / 1e6))
}

/// To a hundredth: more is noise.
fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: u64) -> Frames {
        let mut frames = Frames { received: count, decoded: count, ..Frames::default() };
        frames.processed = count / 2;
        frames.skipped.newer = count - count / 2;
        frames
    }

    #[test]
    fn rates_are_of_the_last_seconds_and_end_with_the_worker() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let mut recent = Recent::default();
        assert_eq!(recent.rates(&frames(9), at(0)), Rates::default());
        for tenth in 0..=300u64 {
            // 10 pictures a second, then 20 of them.
            let count = tenth + tenth.saturating_sub(150);
            recent.count(frames(count), at(tenth * 100));
        }
        let now = frames(450);
        let rates = recent.rates(&now, at(30_000));
        assert_eq!((rates.span_s, rates.received, rates.processed), (10.0, 20.0, 10.0));
        assert_eq!(rates.skipped, BTreeMap::from([("newer", 10.0)]));
        assert!(recent.samples.len() <= MAX_SAMPLES);
        assert_eq!(recent.rates(&now, at(35_000)).received, 10.0);
        let later = recent.rates(&now, at(99_000));
        assert_eq!((later.span_s, later.received), (10.0, 0.0));
    }

    #[test]
    fn rates_of_less_than_a_second_are_not_told() {
        let begun = Instant::now();
        let mut recent = Recent::default();
        recent.count(frames(0), begun);
        let soon = begun + Duration::from_millis(1);
        assert_eq!(recent.rates(&frames(1), soon), Rates::default());
    }

    #[test]
    fn latencies_are_those_of_the_last_frames() {
        let begun = Instant::now();
        let mut recent = Recent::default();
        let took = |ms: u64| {
            let decoded = ms * 1_000_000;
            let (submitted, inferred, emitted) = (decoded, decoded, decoded);
            Timestamps { received: 0, decoded, submitted, inferred, emitted }
        };
        for ms in 0..1000 {
            recent.record(&took(ms), begun);
        }
        for ms in 1..=100 {
            recent.record(&took(ms), begun + FRESH);
        }
        assert_eq!(recent.frames.len(), MAX_FRAMES);
        let stages = recent.latencies(begun + FRESH + Duration::from_secs(1));
        let decode = &stages[0];
        assert_eq!((decode.stage, decode.frames), ("decode", 100));
        assert_eq!((decode.p50_ms, decode.p95_ms), (Some(50.0), Some(95.0)));
        let inference = stages.iter().find(|stage| stage.stage == "inference").unwrap();
        assert_eq!((inference.frames, inference.p50_ms), (0, None), "no frame had one");
    }

    #[test]
    fn the_last_restarts_are_kept_the_newest_first() {
        let mut recent = Recent::default();
        for number in 0..100 {
            let reason = "e".repeat(number * 10);
            recent.restart(number.to_string(), RestartCause::Lost, Some(&reason));
        }
        let restarts = recent.restarts();
        assert_eq!((restarts.len(), restarts[0].time.as_str()), (MAX_RESTARTS, "99"));
        assert_eq!(restarts[0].reason.as_ref().unwrap().chars().count(), MAX_REASON + 1);
    }
}
