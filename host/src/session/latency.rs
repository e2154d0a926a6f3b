//! Latencies of a session's frames, in histograms over its whole life.

use ocelli_protocol::worker::Timestamps;
use strum::VariantArray;

/// Upper bounds of the buckets in milliseconds; one without a bound follows. They reach from the
/// decoding of a small picture to twice an inference's time limit, in steps of at most 2.5, so that
/// a quantile is known to within that factor.
pub const BOUNDS_MS: [u64; 13] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000];

/// The most that a single frame adds to a sum, in nanoseconds: an hour. The times come from a
/// worker, and a wrong one must not drown the sum of the others.
const LONGEST: u64 = 3_600_000_000_000;

const NS_PER_MS: u64 = 1_000_000;

/// A stage of a frame's way through the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, VariantArray)]
#[strum(serialize_all = "lowercase")]
pub enum LatencyStage {
    /// From the access unit's arrival at the host to the decoded picture.
    Decode,
    /// From there until the pipeline took the frame.
    Wait,
    /// From there to the last inference's answer. A frame without inference is not counted.
    Inference,
    /// From there until the pipeline returned.
    Pipeline,
    /// From the access unit's arrival until the pipeline returned.
    Total,
}

impl LatencyStage {
    /// All stages, in order.
    pub const ALL: &'static [Self] = Self::VARIANTS;

    /// Its name in metrics: that of the same time in `latency_ms` of a `detections` message.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// The names of all stages.
    pub(super) fn names() -> Vec<&'static str> {
        Self::ALL.iter().map(|stage| stage.name()).collect()
    }

    /// The stage's duration in nanoseconds; `None` for a frame without inference.
    pub(super) fn of(self, stations: &Timestamps) -> Option<u64> {
        let between = |from: u64, to: u64| Some(to.saturating_sub(from));
        match self {
            Self::Decode => between(stations.received, stations.decoded),
            Self::Wait => between(stations.decoded, stations.submitted),
            Self::Inference => between(stations.submitted, stations.inferred).filter(|ns| *ns > 0),
            Self::Pipeline => between(stations.inferred, stations.emitted),
            Self::Total => between(stations.received, stations.emitted),
        }
    }
}

/// Durations in buckets, with their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS_MS.len() + 1],
    sum_ns: u64,
}

impl Histogram {
    fn record(&mut self, ns: u64) {
        let bucket =
            BOUNDS_MS.iter().position(|bound| ns <= bound * NS_PER_MS).unwrap_or(BOUNDS_MS.len());
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns.min(LONGEST));
    }

    /// Each bucket: its upper bound in seconds, infinite for the last, and its own count.
    pub fn buckets(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let bounds = BOUNDS_MS.iter().map(|ms| *ms as f64 / 1e3).chain([f64::INFINITY]);
        bounds.zip(self.counts.iter().copied())
    }

    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum in seconds.
    pub fn sum(&self) -> f64 {
        self.sum_ns as f64 / 1e9
    }
}

/// A session's latencies by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Latencies([Histogram; LatencyStage::ALL.len()]);

impl Latencies {
    /// Counts a frame that a pipeline has processed.
    pub fn record(&mut self, stations: &Timestamps) {
        for (stage, histogram) in LatencyStage::ALL.iter().zip(&mut self.0) {
            if let Some(ns) = stage.of(stations) {
                histogram.record(ns);
            }
        }
    }

    /// Each stage with its times.
    pub fn stages(&self) -> impl Iterator<Item = (LatencyStage, &Histogram)> {
        LatencyStage::ALL.iter().copied().zip(&self.0)
    }

    /// Frames counted so far.
    pub fn frames(&self) -> u64 {
        self.0.last().map_or(0, Histogram::count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stations(times_ms: [u64; 5]) -> Timestamps {
        let [received, decoded, submitted, inferred, emitted] = times_ms.map(|ms| ms * NS_PER_MS);
        Timestamps { received, decoded, submitted, inferred, emitted }
    }

    fn of(latencies: &Latencies, wanted: LatencyStage) -> Histogram {
        *latencies.stages().find(|(stage, _)| *stage == wanted).unwrap().1
    }

    #[test]
    fn each_stage_is_counted_in_the_bucket_that_its_time_fits() {
        let mut latencies = Latencies::default();
        latencies.record(&stations([1_000, 1_005, 1_011, 1_061, 1_062]));
        for (stage, bound) in [
            (LatencyStage::Decode, 0.005),
            (LatencyStage::Wait, 0.01),
            (LatencyStage::Inference, 0.05),
            (LatencyStage::Pipeline, 0.001),
            (LatencyStage::Total, 0.1),
        ] {
            let hit: Vec<_> =
                of(&latencies, stage).buckets().filter(|(_, count)| *count > 0).collect();
            assert_eq!(hit, [(bound, 1)], "{stage:?}");
        }
        assert!((of(&latencies, LatencyStage::Total).sum() - 0.062).abs() < 1e-9);
        assert_eq!(latencies.frames(), 1);
    }

    #[test]
    fn a_frame_without_inference_does_not_make_inference_look_fast() {
        let mut latencies = Latencies::default();
        latencies.record(&stations([0, 5, 6, 6, 7]));
        assert_eq!(of(&latencies, LatencyStage::Inference).count(), 0);
        assert_eq!(of(&latencies, LatencyStage::Pipeline).count(), 1);
    }

    #[test]
    fn times_that_cannot_be_are_counted_and_drown_nothing() {
        let mut latencies = Latencies::default();
        latencies.record(&Timestamps { emitted: u64::MAX, ..Timestamps::default() });
        latencies.record(&Timestamps { received: 9, decoded: 3, ..Timestamps::default() });
        let total = of(&latencies, LatencyStage::Total);
        assert_eq!((total.count(), total.sum()), (2, 3600.0));
        assert_eq!(total.buckets().last(), Some((f64::INFINITY, 1)));
        assert_eq!(of(&latencies, LatencyStage::Decode).sum(), 0.0);
    }
}
