//! The comparison of a candidate's results with the running version's, for the same frames.

use std::collections::BTreeMap;

use ocelli_protocol::worker::{Detection, FrameResult, Rect};

use super::report::{ComparedDetection, ComparedFrame, Comparison};

/// Frames whose second result is still to come. A candidate that is slower than this skips frames.
const MAX_OPEN: usize = 64;

/// Frames in a row that the candidate does not get because the running version did not look at them:
/// ten seconds of most cameras.
const MAX_UNLOOKED: usize = 250;

/// IoU from which on two boxes count as the same object, as in the usual measures of detectors.
const SAME_OBJECT: f64 = 0.5;

/// Detections of a frame that are compared, those with the highest scores: every pair is looked at.
/// As many of its events are.
const MAX_COMPARED: usize = 200;

/// Labels and kinds of events that are counted by name, of each. Further ones count together as
/// [`OTHERS`]: a pipeline may make up a name for each box.
const MAX_NAMES: usize = 200;

/// Bytes of such a name; longer ones are cut.
const MAX_NAME: usize = 200;

/// The name that stands for those beyond [`MAX_NAMES`].
const OTHERS: &str = "(others)";

/// Detections of each version in the sample: as many boxes as a person can tell apart.
const MAX_SAMPLE: usize = 50;

/// Collects results and compares them.
#[derive(Debug, Default)]
pub(super) struct Comparer {
    open: BTreeMap<u64, ResultSummary>,
    /// Frames since the running version last looked at one; `None`: it has not.
    unlooked: Option<usize>,
    so_far: Comparison,
    running_ms: Vec<f64>,
    new_ms: Vec<f64>,
    sum_of_iou: f64,
    sum_of_score_differences: f64,
    labels: BTreeMap<String, [u64; 2]>,
    events: BTreeMap<String, [u64; 2]>,
    /// Detections without a pair in the sample so far.
    sample_unmatched: usize,
}

/// The compared part of a result.
#[derive(Debug)]
struct ResultSummary {
    /// `None`: the pipeline did not look at the frame.
    detections: Option<Vec<Compared>>,
    kinds: Vec<String>,
    ms: f64,
}

/// The compared part of a detection.
#[derive(Debug)]
struct Compared {
    label: String,
    score: f32,
    area: Rect,
}

/// A detection of the running version, the new one's of the same object, and their IoU before them.
type Pair<'a> = (f64, &'a Compared, &'a Compared);

impl Compared {
    fn shown(&self, matched: bool) -> ComparedDetection {
        let Rect { x, y, width, height } = self.area;
        let label = self.label.clone();
        ComparedDetection { label, score: self.score, area: [x, y, width, height], matched }
    }
}

/// A name as it is counted.
fn cut(name: &str) -> String {
    name.get(..name.floor_char_boundary(MAX_NAME)).unwrap_or(name).to_owned()
}

impl ResultSummary {
    fn of(result: &FrameResult) -> Self {
        let stations = result.timestamps;
        let compared = |found: &Detection| Compared {
            label: cut(&found.label),
            score: found.score,
            area: found.area,
        };
        let best = |found: &Vec<Detection>| {
            let mut best: Vec<_> = found.iter().collect();
            best.sort_by(|one, other| other.score.total_cmp(&one.score));
            best.into_iter().take(MAX_COMPARED).map(compared).collect()
        };
        Self {
            detections: result.detections.as_ref().map(best),
            kinds: result.events.iter().take(MAX_COMPARED).map(|event| cut(&event.kind)).collect(),
            ms: stations.emitted.saturating_sub(stations.submitted) as f64 / 1e6,
        }
    }
}

impl Comparer {
    /// Takes in the running version's result for a frame. Whether the candidate is to process it,
    /// too: not while too many are open. Of a version that looks at some frames alone the candidate
    /// gets these, so that both look at the same ones, unless no other comes for long.
    pub(super) fn expect(&mut self, result: &FrameResult) -> bool {
        match (&result.detections, &mut self.unlooked) {
            (Some(_), unlooked) => *unlooked = Some(0),
            (None, Some(frames)) => *frames += 1,
            (None, None) => {}
        }
        let is_left_out = self.unlooked.is_some_and(|frames| (1..=MAX_UNLOOKED).contains(&frames));
        if is_left_out || self.open.len() >= MAX_OPEN {
            return false;
        }
        self.open.insert(result.frame, ResultSummary::of(result));
        true
    }

    /// Takes in the candidate's outcome for a frame; `None`: it no longer holds the frame. A frame
    /// that was not asked for has no effect.
    pub(super) fn compare(&mut self, frame: u64, outcome: Option<&Result<FrameResult, String>>) {
        let Some(running) = self.open.remove(&frame) else { return };
        match outcome {
            None => self.so_far.missed += 1,
            Some(Err(words)) => {
                self.so_far.errors += 1;
                self.so_far.first_error.get_or_insert_with(|| words.clone());
            }
            Some(Ok(result)) => {
                let new = ResultSummary::of(result);
                self.add(&running, &new);
                if let (Some(running), Some(new)) = (&running.detections, &new.detections) {
                    let pairs = pairs(running, new);
                    self.add_detections(running, new, &pairs);
                    self.keep_sample(result, running, new, &pairs);
                }
            }
        }
    }

    /// Frames that have been compared, or cannot be.
    pub(super) fn settled(&self) -> u32 {
        self.so_far.frames + self.so_far.missed + self.so_far.errors
    }

    /// Frames asked for so far.
    pub(super) fn asked(&self) -> u32 {
        self.settled() + u32::try_from(self.open.len()).unwrap_or(u32::MAX)
    }

    /// Keeps a frame in which at least as many detections have no pair as in the one before.
    fn keep_sample(
        &mut self,
        of: &FrameResult,
        running: &[Compared],
        new: &[Compared],
        pairs: &[Pair],
    ) {
        let unmatched = (running.len() + new.len()).saturating_sub(2 * pairs.len());
        if unmatched < self.sample_unmatched {
            return;
        }
        self.sample_unmatched = unmatched;
        let shown = |all: &[Compared], is_paired: &dyn Fn(&Compared) -> bool| {
            let best = all.iter().take(MAX_SAMPLE);
            best.map(|one| one.shown(is_paired(one))).collect()
        };
        self.so_far.sample = Some(ComparedFrame {
            frame: of.frame,
            presentation_ns: of.presentation_ns,
            width: of.width,
            height: of.height,
            running: shown(running, &|one| pairs.iter().any(|pair| std::ptr::eq(pair.1, one))),
            new: shown(new, &|one| pairs.iter().any(|pair| std::ptr::eq(pair.2, one))),
        });
    }

    fn add(&mut self, running: &ResultSummary, new: &ResultSummary) {
        self.so_far.frames += 1;
        self.running_ms.push(running.ms);
        self.new_ms.push(new.ms);
        for (which, summary) in [running, new].into_iter().enumerate() {
            summary.kinds.iter().for_each(|kind| count(&mut self.events, kind, which));
        }
    }

    /// Of a frame that both have looked at.
    fn add_detections(&mut self, running: &[Compared], new: &[Compared], pairs: &[Pair]) {
        let found = &mut self.so_far.detections;
        found.running += running.len() as u64;
        found.new += new.len() as u64;
        found.frames_that_differ += u32::from(running.len() != new.len());
        for (iou, one, other) in pairs {
            found.matched += 1;
            self.sum_of_iou += iou;
            self.sum_of_score_differences += f64::from((one.score - other.score).abs());
        }
        for (which, all) in [running, new].into_iter().enumerate() {
            all.iter().for_each(|detection| count(&mut self.labels, &detection.label, which));
        }
    }

    pub(super) fn finish(mut self) -> Comparison {
        let differing = |counts: BTreeMap<String, [u64; 2]>| {
            counts.into_iter().filter(|(_, [one, other])| one != other).collect::<BTreeMap<_, _>>()
        };
        let mut report = self.so_far;
        let matched = report.detections.matched;
        if matched > 0 {
            report.detections.mean_iou = rounded(self.sum_of_iou / matched as f64);
            report.detections.mean_score_difference =
                rounded(self.sum_of_score_differences / matched as f64);
        }
        report.detections.labels = differing(self.labels);
        report.events = differing(self.events);
        let latency = &mut report.latency_ms;
        for (values, p50, p95) in [
            (&mut self.running_ms, &mut latency.running_p50, &mut latency.running_p95),
            (&mut self.new_ms, &mut latency.new_p50, &mut latency.new_p95),
        ] {
            values.sort_by(f64::total_cmp);
            (*p50, *p95) = (percentile(values, 50), percentile(values, 95));
        }
        report.agreement = rounded(report.measured_agreement());
        report
    }
}

/// Counts a name for the running version, 0, or the new one, 1.
fn count(counts: &mut BTreeMap<String, [u64; 2]>, name: &str, which: usize) {
    let is_counted = counts.len() < MAX_NAMES || counts.contains_key(name);
    let name = if is_counted { name } else { OTHERS };
    if let Some(count) = counts.entry(name.to_owned()).or_default().get_mut(which) {
        *count += 1;
    }
}

/// The value below which `percent` of the sorted values lie; 0 without values.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    rounded(sorted.get(sorted.len().saturating_sub(1) * percent / 100).copied().unwrap_or_default())
}

/// To a thousandth: the rest is noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Pairs of boxes of the same label that overlap, the best first; each box is in one pair at the
/// most.
fn pairs<'a>(running: &'a [Compared], new: &'a [Compared]) -> Vec<Pair<'a>> {
    let mut candidates = Vec::new();
    for (i, one) in running.iter().enumerate() {
        for (j, other) in new.iter().enumerate() {
            let iou = if one.label == other.label { iou(&one.area, &other.area) } else { 0.0 };
            if iou >= SAME_OBJECT {
                candidates.push((iou, i, j, one, other));
            }
        }
    }
    candidates.sort_by(|one, other| other.0.total_cmp(&one.0));
    let (mut taken, mut pairs) = ((Vec::new(), Vec::new()), Vec::new());
    for (iou, i, j, one, other) in candidates {
        if !taken.0.contains(&i) && !taken.1.contains(&j) {
            taken.0.push(i);
            taken.1.push(j);
            pairs.push((iou, one, other));
        }
    }
    pairs
}

/// Intersection over union, 0 to 1.
fn iou(one: &Rect, other: &Rect) -> f64 {
    let overlap = |start: f32, length: f32, other_start: f32, other_length: f32| {
        let end = f64::from(start + length).min(f64::from(other_start + other_length));
        (end - f64::from(start.max(other_start))).max(0.0)
    };
    let intersection = overlap(one.x, one.width, other.x, other.width)
        * overlap(one.y, one.height, other.y, other.height);
    let area = |rect: &Rect| f64::from(rect.width.max(0.0)) * f64::from(rect.height.max(0.0));
    let union = area(one) + area(other) - intersection;
    if union > 0.0 { intersection / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_protocol::worker::{CaptureClock, Event, Timestamps};

    fn detection(label: &str, x: f32, score: f32) -> Detection {
        Detection {
            label: label.to_owned(),
            score,
            area: Rect { x, y: 0.0, width: 10.0, height: 10.0 },
            track: None,
            attributes: Vec::new(),
            embedding: None,
        }
    }

    fn result(frame: u64, ms: u64, detections: Vec<Detection>, kinds: &[&str]) -> FrameResult {
        let event = |kind: &&str| Event {
            kind: (*kind).to_owned(),
            detections: Vec::new(),
            data: String::new(),
            attachments: Vec::new(),
        };
        FrameResult {
            frame,
            presentation_ns: 0,
            capture_ns: 0,
            capture_clock: CaptureClock::Host,
            width: 100,
            height: 100,
            detections: Some(detections),
            events: kinds.iter().map(event).collect(),
            basis: None,
            timestamps: Timestamps { emitted: ms * 1_000_000, ..Timestamps::default() },
        }
    }

    #[test]
    fn the_same_results_match_and_differ_in_nothing() {
        let mut comparer = Comparer::default();
        for frame in 0..10 {
            let same = result(
                frame,
                5,
                vec![detection("car", 0.0, 0.9), detection("car", 40.0, 0.5)],
                &["entered"],
            );
            assert!(comparer.expect(&same));
            comparer.compare(frame, Some(&Ok(same)));
        }
        let report = comparer.finish();
        assert_eq!((report.frames, report.missed, report.errors), (10, 0, 0));
        assert_eq!(
            (report.detections.running, report.detections.new, report.detections.matched),
            (20, 20, 20)
        );
        assert_eq!(
            (report.detections.mean_iou, report.detections.mean_score_difference),
            (1.0, 0.0)
        );
        assert!(report.detections.labels.is_empty() && report.events.is_empty());
        assert_eq!((report.latency_ms.new_p95, report.agreement), (5.0, 1.0));
    }

    #[test]
    fn what_differs_is_counted_by_name() {
        let mut comparer = Comparer::default();
        let running = vec![detection("car", 0.0, 0.9), detection("person", 60.0, 0.8)];
        // The car has moved by a quarter of its width: IoU 0.6. The person is a bicycle now.
        let new = vec![
            detection("car", 2.5, 0.7),
            detection("bicycle", 60.0, 0.8),
            detection("car", 80.0, 0.5),
        ];
        comparer.expect(&result(1, 4, running, &["entered"]));
        comparer.compare(1, Some(&Ok(result(1, 8, new, &[]))));
        comparer.expect(&result(2, 4, vec![], &[]));
        comparer.compare(2, Some(&Err("no model".into())));
        comparer.expect(&result(3, 4, vec![], &[]));
        comparer.compare(3, None);
        comparer.compare(4, None);
        assert_eq!((comparer.settled(), comparer.asked()), (3, 3));
        let report = comparer.finish();
        assert_eq!((report.frames, report.missed, report.errors), (1, 1, 1));
        assert_eq!(report.first_error.as_deref(), Some("no model"));
        assert_eq!((report.detections.matched, report.detections.frames_that_differ), (1, 1));
        assert_eq!(
            (report.detections.mean_iou, report.detections.mean_score_difference),
            (0.6, 0.2)
        );
        let labels: Vec<_> =
            report.detections.labels.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        assert_eq!(labels, [("bicycle", [0, 1]), ("car", [1, 2]), ("person", [1, 0])]);
        // One pair among five detections, and one of two frames without an error.
        assert_eq!(report.agreement, 0.2);
        assert_eq!(Comparer::default().finish().agreement, 1.0, "nothing differs");
        assert_eq!(report.events.get("entered"), Some(&[1, 0]));
        assert_eq!((report.latency_ms.running_p50, report.latency_ms.new_p50), (4.0, 8.0));
        let sample = report.sample.unwrap();
        let marked = |found: &[ComparedDetection]| -> Vec<_> {
            found.iter().map(|one| (one.label.clone(), one.matched)).collect()
        };
        assert_eq!(marked(&sample.running), [("car".into(), true), ("person".into(), false)]);
        let new = [("bicycle".into(), false), ("car".into(), true), ("car".into(), false)];
        assert_eq!((sample.frame, marked(&sample.new)), (1, new.into()));
        assert_eq!(sample.running[0].area, [0.0, 0.0, 10.0, 10.0]);
    }

    #[test]
    fn the_sample_is_the_last_frame_of_those_that_differ_most() {
        let mut comparer = Comparer::default();
        let car = || vec![detection("car", 0.0, 0.9)];
        for (frame, new) in [(1, car()), (2, vec![]), (3, vec![]), (4, car())] {
            comparer.expect(&result(frame, 1, car(), &[]));
            comparer.compare(frame, Some(&Ok(result(frame, 1, new, &[]))));
        }
        let many = (0..100).map(|n| detection("car", 20.0 * n as f32, 0.5)).collect::<Vec<_>>();
        assert_eq!(comparer.so_far.sample.as_ref().map(|sample| sample.frame), Some(3));
        comparer.expect(&result(5, 1, many, &[]));
        comparer.compare(5, Some(&Ok(result(5, 1, vec![], &[]))));
        let sample = comparer.finish().sample.unwrap();
        assert_eq!((sample.frame, sample.running.len(), sample.new.len()), (5, MAX_SAMPLE, 0));
    }

    #[test]
    fn versions_that_look_at_some_frames_alone_are_compared_on_those_that_both_looked_at() {
        let car = || vec![detection("car", 0.0, 0.9)];
        let unseen = |frame| FrameResult { detections: None, ..result(frame, 1, vec![], &[]) };
        let mut comparer = Comparer::default();
        assert!(comparer.expect(&unseen(0)), "it may look at none and give events alone");
        comparer.compare(0, Some(&Ok(result(0, 1, car(), &[]))));
        assert!(comparer.expect(&result(1, 1, car(), &[])));
        assert!(!comparer.expect(&unseen(2)));
        comparer.compare(1, Some(&Ok(unseen(1))));
        assert!(comparer.expect(&result(3, 1, car(), &[])));
        comparer.compare(3, Some(&Ok(result(3, 1, car(), &[]))));
        let report = comparer.finish();
        assert_eq!((report.frames, report.detections.running, report.agreement), (3, 1, 1.0));
        let mut comparer = Comparer::default();
        assert!(comparer.expect(&result(0, 1, car(), &[])));
        let given = (1..=400).find(|&frame| comparer.expect(&unseen(frame)));
        assert_eq!(given, Some(MAX_UNLOOKED as u64 + 1), "it looks at no more, and is compared");
    }

    #[test]
    fn a_slow_new_version_leaves_frames_out_instead_of_piling_them_up() {
        let mut comparer = Comparer::default();
        let taken =
            (0..1000).filter(|frame| comparer.expect(&result(*frame, 1, vec![], &[]))).count();
        assert_eq!(taken, MAX_OPEN);
    }

    #[test]
    fn names_that_are_made_up_do_not_fill_the_report() {
        let mut comparer = Comparer::default();
        for frame in 0..20 {
            let made_up = |box_number| format!("{frame}.{box_number}{}", "x".repeat(10_000));
            let labels = (0..100).map(|number| detection(&made_up(number), 0.0, 0.5)).collect();
            comparer.expect(&result(frame, 1, vec![], &[]));
            comparer.compare(frame, Some(&Ok(result(frame, 1, labels, &[&made_up(0)]))));
        }
        let report = comparer.finish();
        let labels = &report.detections.labels;
        assert_eq!(labels.len(), MAX_NAMES + 1);
        assert_eq!(labels.get(OTHERS), Some(&[0, 2000 - MAX_NAMES as u64]));
        assert!(labels.keys().chain(report.events.keys()).all(|name| name.len() <= MAX_NAME));
    }
}
