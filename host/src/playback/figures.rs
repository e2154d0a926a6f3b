//! What a run cost and brought, in figures.

use std::collections::BTreeMap;

use ocelli_protocol::usage::GuestUsage;
use ocelli_protocol::worker::Counters;

use super::line::FrameLine;

/// The figures of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    /// The last frame with an outcome.
    pub(crate) last_frame: Option<u64>,
    /// Frames that the pipeline has processed without an error.
    pub(crate) processed: u64,
    /// Frames that it did not look at, among them.
    pub(crate) not_looked_at: u64,
    /// Frames whose `process` returned an error.
    pub(crate) failed: u64,
    /// The first of them, and its error.
    pub(crate) first_failure: Option<(u64, String)>,
    /// Pictures of the footage that could not be read or decoded.
    pub(crate) undecoded: u64,
    /// Why the first part of the footage could not be read.
    pub(crate) damaged: Option<String>,
    /// Access units of the footage that were read.
    pub(crate) units: u64,
    pub(crate) detections: u64,
    /// Events by kind.
    pub(crate) events: BTreeMap<String, u64>,
    /// Nanoseconds in the component and in the host functions that it called, without inference,
    /// frame by frame.
    guest_ns: Vec<u64>,
    /// Nanoseconds of inferences, of frames with some.
    inference_ns: Vec<u64>,
    /// `None`: the worker was lost before it could say.
    pub(crate) used: Option<GuestUsage>,
}

impl Figures {
    pub(super) fn on_line(&mut self, line: &FrameLine, guest_ns: u64, inference_ns: Option<u64>) {
        self.last_frame = Some(line.frame);
        self.processed += 1;
        self.not_looked_at += u64::from(line.detections.is_none());
        self.detections += line.detections.as_ref().map_or(0, |found| found.len() as u64);
        for event in &line.events {
            *self.events.entry(event.kind.clone()).or_default() += 1;
        }
        self.guest_ns.push(guest_ns);
        self.inference_ns.extend(inference_ns);
    }

    pub(super) fn on_failed(&mut self, frame: u64, error: &str) {
        self.last_frame = Some(frame);
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| (frame, error.to_owned()));
    }

    pub(super) fn on_finished(&mut self, counters: &Counters) {
        self.undecoded +=
            counters.skipped_corrupt + counters.skipped_no_key + counters.skipped_no_picture;
    }

    /// Takes in what is known at the end.
    pub(super) fn close(
        &mut self,
        units: u64,
        lost: u64,
        damaged: Option<String>,
        used: Option<GuestUsage>,
    ) {
        self.units = units;
        self.undecoded += lost;
        self.damaged = damaged;
        self.used = used;
    }

    /// Time in the guest, of the frames without an error.
    pub(crate) fn guest(&self) -> Option<Spread> {
        Spread::of(&self.guest_ns)
    }

    /// Time of inferences, of the frames with some.
    pub(crate) fn inference(&self) -> Option<Spread> {
        Spread::of(&self.inference_ns)
    }
}

/// How times spread, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) max: f64,
}

impl Spread {
    /// Of times in nanoseconds; `None` without one. A percentile is the smallest time that as many
    /// in a hundred do not exceed.
    fn of(times: &[u64]) -> Option<Self> {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let percentile = |percent: usize| {
            let rank = (sorted.len() * percent).div_ceil(100).max(1);
            sorted.get(rank - 1).map(|&time| time as f64 / 1e6)
        };
        Some(Self { p50: percentile(50)?, p99: percentile(99)?, max: percentile(100)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let times: Vec<u64> = (1..=200).rev().map(|time| time * 1_000_000).collect();
        assert_eq!(Spread::of(&times), Some(Spread { p50: 100.0, p99: 198.0, max: 200.0 }));
        assert_eq!(Spread::of(&[7_000_000]), Some(Spread { p50: 7.0, p99: 7.0, max: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }
}
