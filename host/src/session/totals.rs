//! Counts of a session's frames and of the limits that it met, over all its workers.

use ocelli_protocol::limit::{Limit, LimitCounts};
use ocelli_protocol::worker::Counters;
use schemars::JsonSchema;
use serde::Serialize;
use strum::VariantArray;

/// Counts of frames.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Frames {
    /// Access units sent to the worker.
    pub received: u64,
    /// Pictures decoded.
    pub decoded: u64,
    /// Frames that the pipeline processed.
    pub processed: u64,
    /// Inferences run.
    pub inferred: u64,
    /// Inferences that failed.
    pub inference_failed: u64,
    /// Inferences dropped because they had waited too long.
    pub inference_stale: u64,
    /// Time that inferences waited for a free runner, together, in nanoseconds.
    pub inference_wait_ns: u64,
    /// Time that inferences ran, together, in nanoseconds.
    pub inference_run_ns: u64,
    /// Frames for which the pipeline asked the budget whether its models may run.
    pub budget_asked: u64,
    /// Of these, frames for which they might.
    pub budget_granted: u64,
    /// Skipped frames by reason.
    pub skipped: Skipped,
}

/// Skipped frames by reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Skipped {
    /// A newer frame had come.
    pub newer: u64,
    /// The decode setting leaves them out.
    pub setting: u64,
    /// They came before the first key frame.
    pub no_key: u64,
    /// Damaged.
    pub corrupt: u64,
    /// The source does not show them: they lie outside of a file's edit list.
    pub hidden: u64,
    /// The decoder made no picture of them.
    pub no_picture: u64,
    /// The worker's queue was full.
    pub queue: u64,
    /// The source could not be read there: a damaged part of a file.
    pub unreadable: u64,
}

/// Why a frame was skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum SkipReason {
    Newer,
    Setting,
    NoKey,
    Corrupt,
    Hidden,
    NoPicture,
    Queue,
    Unreadable,
}

impl SkipReason {
    /// All reasons.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Its name in the API and in metrics.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The names of all reasons.
    pub(super) fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|reason| reason.name()).collect()
    }
}

impl Skipped {
    /// The frames that were skipped for this reason.
    pub fn of(&self, reason: SkipReason) -> u64 {
        match reason {
            SkipReason::Newer => self.newer,
            SkipReason::Setting => self.setting,
            SkipReason::NoKey => self.no_key,
            SkipReason::Corrupt => self.corrupt,
            SkipReason::Hidden => self.hidden,
            SkipReason::NoPicture => self.no_picture,
            SkipReason::Queue => self.queue,
            SkipReason::Unreadable => self.unreadable,
        }
    }
}

impl From<Counters> for Frames {
    fn from(counters: Counters) -> Self {
        Self {
            received: counters.received,
            // Frames that another worker had processed count there.
            decoded: counters.decoded.saturating_sub(counters.already_processed),
            processed: counters.processed,
            inferred: counters.inferred,
            inference_failed: counters.inference_failed,
            inference_stale: counters.inference_stale,
            inference_wait_ns: counters.inference_wait_ns,
            inference_run_ns: counters.inference_run_ns,
            budget_asked: counters.budget_asked,
            budget_granted: counters.budget_granted,
            skipped: Skipped {
                newer: counters.skipped_newer,
                setting: counters.skipped_setting,
                no_key: counters.skipped_no_key,
                corrupt: counters.skipped_corrupt,
                hidden: counters.skipped_hidden,
                no_picture: counters.skipped_no_picture,
                queue: 0,
                unreadable: 0,
            },
        }
    }
}

impl Frames {
    /// The sum of both.
    #[must_use]
    fn plus(self, other: Self) -> Self {
        // The numbers come from a worker and are not trusted: no sum may overflow.
        let sum = u64::saturating_add;
        let (one, two) = (self.skipped, other.skipped);
        Self {
            received: sum(self.received, other.received),
            decoded: sum(self.decoded, other.decoded),
            processed: sum(self.processed, other.processed),
            inferred: sum(self.inferred, other.inferred),
            inference_failed: sum(self.inference_failed, other.inference_failed),
            inference_stale: sum(self.inference_stale, other.inference_stale),
            budget_asked: sum(self.budget_asked, other.budget_asked),
            budget_granted: sum(self.budget_granted, other.budget_granted),
            inference_wait_ns: sum(self.inference_wait_ns, other.inference_wait_ns),
            inference_run_ns: sum(self.inference_run_ns, other.inference_run_ns),
            skipped: Skipped {
                newer: sum(one.newer, two.newer),
                setting: sum(one.setting, two.setting),
                no_key: sum(one.no_key, two.no_key),
                corrupt: sum(one.corrupt, two.corrupt),
                hidden: sum(one.hidden, two.hidden),
                no_picture: sum(one.no_picture, two.no_picture),
                queue: sum(one.queue, two.queue),
                unreadable: sum(one.unreadable, two.unreadable),
            },
        }
    }
}

/// A session's sums: each worker counts from 0, and these never go back.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    frames: Frames,
    limits: LimitCounts,
    past_frames: Frames,
    past_limits: LimitCounts,
}

impl Totals {
    /// Replaces the running worker's counts.
    pub(super) fn count(&mut self, frames: Frames, limits: LimitCounts) {
        self.frames = frames;
        self.limits = limits;
    }

    /// Replaces the running worker's limits alone, before the first frame.
    pub(super) fn count_limits(&mut self, limits: LimitCounts) {
        self.limits = limits;
    }

    /// Adds a limit that the worker met and could not report.
    pub(super) fn hit(&mut self, limit: Limit) {
        // Beside the worker's own numbers, which replace each other.
        self.past_limits.add(limit, 1);
    }

    /// Ends a worker: the next one counts on top.
    pub(super) fn end_worker(&mut self) {
        self.past_frames = self.frames();
        self.past_limits = self.limits();
        (self.frames, self.limits) = Default::default();
    }

    /// The frames of all workers together.
    pub(super) fn frames(&self) -> Frames {
        self.past_frames.plus(self.frames)
    }

    /// The limits that all workers together met.
    pub(super) fn limits(&self) -> LimitCounts {
        self.past_limits.plus(self.limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counters(count: u64) -> Counters {
        let mut limits = LimitCounts::default();
        limits.add(Limit::LogLines, count);
        Counters {
            received: count,
            decoded: count,
            processed: count,
            inferred: count,
            inference_failed: count,
            inference_stale: count,
            inference_wait_ns: count,
            inference_run_ns: count,
            inference_call_ns: 0,
            budget_asked: count,
            budget_granted: count,
            skipped_newer: count,
            skipped_setting: count,
            skipped_no_key: count,
            skipped_corrupt: count,
            skipped_hidden: count,
            skipped_no_picture: count,
            already_processed: 0,
            limits,
        }
    }

    /// The numbers of the sums, by name.
    fn numbers(totals: &Totals) -> Vec<(String, u64)> {
        let serde_json::Value::Object(mut frames) = serde_json::to_value(totals.frames()).unwrap()
        else {
            panic!("frames are an object")
        };
        let serde_json::Value::Object(skipped) = frames.remove("skipped").unwrap() else {
            panic!("skipped is an object")
        };
        let numbers =
            frames.into_iter().chain(skipped).map(|(name, count)| (name, count.as_u64().unwrap()));
        numbers.chain([("log_lines".to_owned(), totals.limits().of(Limit::LogLines))]).collect()
    }

    proptest! {
        #[test]
        fn no_number_goes_back_when_a_worker_is_replaced(workers in proptest::collection::vec(0u64..50, 1..8)) {
            let (mut totals, mut last) = (Totals::default(), numbers(&Totals::default()));
            let mut total = 0;
            for last_count in workers {
                for count in 0..=last_count {
                    let counters = counters(count);
                    let mut frames = Frames::from(counters);
                    frames.skipped.queue = count;
                    frames.skipped.unreadable = count;
                    totals.count(frames, counters.limits);
                    let now = numbers(&totals);
                    for (before, after) in last.iter().zip(&now) {
                        prop_assert!(before.0 == after.0 && before.1 <= after.1, "{before:?}, \
                            then {after:?}");
                        prop_assert_eq!(after.1, total + count, "{}", after.0);
                    }
                    last = now;
                }
                total += last_count;
                totals.end_worker();
                prop_assert_eq!(numbers(&totals), last.clone(), "the end of a worker changes \
                    nothing");
            }
        }
    }
}
