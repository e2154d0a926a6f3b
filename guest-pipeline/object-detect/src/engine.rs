//! What happens to the candidates of a frame: suppression, tracks, detections, events.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::labels::COCO_80;
use ocelli_sdk::nms::{self, Candidate};
use ocelli_sdk::pace::Pace;
use ocelli_sdk::track::{Config, Observation, TrackInfo, Tracker};
use ocelli_sdk::{Detection, Event, Output};
use serde::Serialize;

use crate::settings::{Filter, Settings};

/// The state of one camera.
#[derive(Debug, Clone)]
pub struct Engine {
    settings: Settings,
    pub(crate) pace: Pace,
    pub(crate) tracker: Tracker,
}

/// What an event's `data` holds.
#[derive(Serialize)]
struct EventData {
    track: u64,
    label: &'static str,
    /// From the first sight to the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_s: Option<f64>,
}

impl Engine {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let pace = Pace::new(settings.max_results_per_second);
        let tracker = Tracker::new(Config::for_score(settings.score));
        Self { settings, pace, tracker }
    }

    /// Whether the frame at `time`, its presentation time in nanoseconds, is to be looked at.
    pub fn is_due(&mut self, time: u64) -> bool {
        self.pace.is_due(time)
    }

    /// What of the model's outputs the engine wants to have.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        self.settings.filter()
    }

    /// The tracks that are alive.
    #[must_use]
    pub fn tracks(&self) -> Vec<TrackInfo> {
        self.tracker.tracks()
    }

    /// Makes the output of the frame at `time` from its candidates, boxes in frame pixels.
    pub fn finish(&mut self, time: u64, candidates: Vec<Candidate>) -> Output {
        let standing = nms::suppress(candidates, self.settings.iou);
        let observe = |&Candidate { bbox, score, class }: &Candidate| Observation { bbox, score, class };
        let observations: Vec<_> = standing.iter().map(observe).collect();
        let update = self.tracker.update(time, &observations);

        let reported = standing.iter().zip(update.tracks).filter(|(c, _)| c.score >= self.settings.score);
        let detections = reported.map(|(c, track)| detection(c.class, c.score, c.bbox, track)).collect();
        let began = update.began.iter().map(|track| event("entered", track, None));
        let ended =
            update.ended.iter().map(|track| event("left", track, Some(track.duration().as_secs_f64())));
        Output { detections: Some(detections), events: ended.chain(began).collect() }
    }
}

/// The label of a class.
#[must_use]
pub fn label(class: u32) -> &'static str {
    COCO_80.get(class as usize).copied().unwrap_or("unknown")
}

fn detection(class: u32, score: f32, bbox: BBox, track: Option<u64>) -> Detection {
    Detection { track, ..Detection::new(label(class), score, bbox) }
}

fn event(kind: &str, track: &TrackInfo, duration_s: Option<f64>) -> Event {
    let label = label(track.class);
    let data = EventData { track: track.id, label, duration_s };
    Event {
        detections: vec![detection(track.class, track.score, track.bbox, Some(track.id))],
        // Numbers and a plain string always serialise.
        data: serde_json::to_string(&data).unwrap_or_default(),
        ..Event::new(kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 100_000_000;

    fn engine(settings: &str) -> Engine {
        Engine::new(Settings::read(settings).unwrap())
    }

    fn candidate(x: f32, class: u32, score: f32) -> Candidate {
        Candidate { bbox: BBox::from_xywh(x, 10.0, 40.0, 80.0), class, score }
    }

    /// Label, score, x and track of each detection.
    fn brief(output: &Output) -> Vec<(&str, f32, f32, Option<u64>)> {
        let detections = output.detections.as_deref().unwrap_or_default();
        detections.iter().map(|d| (d.label.as_str(), d.score, d.box_.x, d.track)).collect()
    }

    #[test]
    fn an_object_enters_once_and_leaves_once() {
        let mut engine = engine("{}");
        let mut events = Vec::new();
        for n in 0..30u64 {
            let there = if n < 10 { vec![candidate(n as f32, 2, 0.8)] } else { vec![] };
            events.extend(engine.finish(n * FRAME, there).events.into_iter().map(|e| (n, e)));
        }
        let kinds: Vec<_> = events.iter().map(|(n, e)| (*n, e.kind.as_str())).collect();
        assert_eq!(kinds, [(1, "entered"), (20, "left")]);
        let (_, entered) = &events[0];
        assert_eq!(entered.data, r#"{"track":1,"label":"car"}"#);
        assert_eq!(entered.detections[0].track, Some(1));
        assert_eq!(entered.detections[0].box_.x, 1.0);
        let (_, left) = &events[1];
        assert_eq!(left.data, r#"{"track":1,"label":"car","duration_s":0.9}"#);
        assert_eq!(left.detections[0].box_.x, 9.0, "where it was last seen");
    }

    #[test]
    fn only_what_reaches_the_score_is_reported_and_boxes_are_the_detectors() {
        let mut engine = engine(r#"{"score":0.5}"#);
        for n in 0..5u64 {
            engine.finish(n * FRAME, vec![candidate(n as f32 * 3.0, 0, 0.8)]);
        }
        let output = engine.finish(5 * FRAME, vec![candidate(14.3, 0, 0.5), candidate(200.0, 0, 0.499)]);
        assert_eq!(brief(&output), [("person", 0.5, 14.3, Some(1))]);
        // Too low to be reported, but it holds the track.
        let output = engine.finish(6 * FRAME, vec![candidate(17.0, 0, 0.2)]);
        assert_eq!(brief(&output), []);
        assert!(!engine.tracks()[0].lost);
    }

    #[test]
    fn a_candidate_the_tracker_alone_wants_suppresses_nothing_that_is_reported() {
        let mut engine = engine("{}");
        let low = candidate(0.0, 0, 0.39);
        let output = engine.finish(0, vec![low, candidate(2.0, 0, 0.41), candidate(60.0, 0, 0.9)]);
        assert_eq!(brief(&output), [("person", 0.9, 60.0, None), ("person", 0.41, 2.0, None)]);
    }

    #[test]
    fn a_frame_that_is_looked_at_has_detections_even_if_there_are_none() {
        assert_eq!(engine("{}").finish(0, vec![]).detections.map(|d| d.len()), Some(0));
    }
}
