//! From the candidates of a frame to its output: suppression, tracks, zones, detections, events,
//! counts. What is there between two runs of the model is in `between`.

use ocelli_sdk::counts::{Counter, Occupancy};
use ocelli_sdk::events::EventQueue;
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::lines::Lines;
use ocelli_sdk::nms::{self, Candidate};
use ocelli_sdk::rate_limiter::RateLimiter;
use ocelli_sdk::track::{Look, Observation, TrackInfo, Tracker, TrackerConfig};
use ocelli_sdk::zones::Zones;
use ocelli_sdk::{Basis, Event, Image, Output, log};

use crate::objects::tracking;
use crate::pace::Pace;
use crate::settings::{Filter, Settings};
use crate::track_event::{TrackEvent, TrackEventKind};

/// The state of one camera.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) settings: Settings,
    pub(crate) rate_limiter: RateLimiter,
    pub(crate) tracker: Tracker,
    pub(crate) zones: Zones,
    pub(crate) lines: Lines,
    pub(crate) pending: EventQueue<TrackEvent>,
    pub(crate) counter: Counter,
    /// In budget mode.
    pub(crate) pace: Option<Pace>,
    /// What moves in the present frame, in budget mode.
    pub(crate) moving: Vec<BBox>,
    /// Most of the present frame changes.
    pub(crate) calibrating: bool,
    /// Of the last frame in budget mode, in pixels.
    pub(crate) size: (u32, u32),
    /// Whether the tracks could be relied on, by the last event that said so.
    pub(crate) reliable: bool,
    /// Whether the log has a line about a failed write of counts since the last one that succeeded.
    uncounted: bool,
}

impl Engine {
    /// An engine that has seen nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let rate_limiter = RateLimiter::new(settings.max_results_per_second);
        let tracker = Tracker::new(TrackerConfig::for_score(settings.score));
        let (zones, lines) = (Zones::new(&settings.zones), Lines::new(&settings.lines));
        let counter = Counter::new(env!("CARGO_PKG_NAME")).picture(settings.count_objects);
        let counter = settings.zones.iter().fold(counter, Counter::zone);
        let counter = settings.lines.iter().fold(counter, Counter::line);
        let pace = settings.budget.map(Pace::new);
        Self {
            settings,
            rate_limiter,
            tracker,
            zones,
            lines,
            pending: EventQueue::default(),
            counter,
            pace,
            moving: Vec::new(),
            calibrating: false,
            size: (0, 0),
            reliable: true,
            uncounted: false,
        }
    }

    /// Whether the frame at `time`, its presentation time in nanoseconds, is to be looked at.
    pub fn is_due(&mut self, time: u64) -> bool {
        self.rate_limiter.is_due(time)
    }

    /// The part of the model's outputs that the engine uses.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        self.settings.filter()
    }

    /// The tracks that are alive.
    #[must_use]
    pub fn tracks(&self) -> Vec<TrackInfo> {
        self.tracker.tracks()
    }

    /// Makes the output of the frame at `time`, of `size` pixels, from its candidates, boxes in
    /// frame pixels. Counts the events of the output, which have no pictures.
    pub fn finish(&mut self, time: u64, size: (u32, u32), candidates: Vec<Candidate>) -> Output {
        let standing = self.standing(candidates);
        self.finish_with(time, size, &standing, &[], &mut |_| None)
    }

    /// What suppression leaves of the candidates of a frame, best first.
    pub(crate) fn standing(&self, candidates: Vec<Candidate>) -> Vec<Candidate> {
        nms::suppress(candidates, self.settings.iou)
    }

    /// The boxes of which the tracker wants to know what they look like: those that are reported.
    /// They come first in `standing`, which is best first.
    pub(crate) fn shown(&self, standing: &[Candidate]) -> Vec<BBox> {
        let reported = standing.iter().take_while(|c| c.score >= self.settings.score);
        reported.map(|c| c.bbox).collect()
    }

    /// As [`Engine::finish`], from what stands. `looks` says what each looks like, as far as that
    /// is known; `picture` is asked for the picture of each event.
    pub(crate) fn finish_with(
        &mut self,
        time: u64,
        size: (u32, u32),
        standing: &[Candidate],
        looks: &[Option<Look>],
        picture: &mut dyn FnMut(&TrackEvent) -> Option<Image>,
    ) -> Output {
        let observe =
            |&Candidate { bbox, score, class }: &Candidate| Observation { bbox, score, class };
        let observations: Vec<_> = standing.iter().map(observe).collect();
        let update = self.tracker.update_with(time, &observations, looks);

        let reported =
            standing.iter().zip(update.tracks).filter(|(c, _)| c.score >= self.settings.score);
        let labels = &self.settings.labels;
        let detections =
            reported.map(|(c, track)| labels.detection(c.class, c.score, c.bbox, track)).collect();
        self.end(&update.ended);
        let events = self.events(time, size, &update.began, picture);
        let output = Output::found(detections).with_events(events);
        let Some(pace) = &mut self.pace else { return output };
        pace.ran(&self.tracker.sights(), &self.moving);
        output.resting_on(Basis::model())
    }

    /// Takes in that tracks have ended.
    pub(crate) fn end(&mut self, ended: &[TrackInfo]) {
        let uncertain = !self.tracker.is_reliable();
        self.lines.end(ended);
        let of_zones = self.zones.end(ended).into_iter().map(TrackEvent::of_zone);
        let left = ended.iter().map(|track| TrackEvent::new(TrackEventKind::Left, track));
        let events = of_zones.chain(left).map(|event| TrackEvent { uncertain, ..event });
        self.pending.extend(events);
    }

    /// The events of a frame: of tracks that ended and `began`, of zones, of the tracker itself.
    pub(crate) fn events(
        &mut self,
        time: u64,
        size: (u32, u32),
        began: &[TrackInfo],
        picture: &mut dyn FnMut(&TrackEvent) -> Option<Image>,
    ) -> Vec<Event> {
        let uncertain = !self.tracker.is_reliable();
        let entered = |track| TrackEvent::new(TrackEventKind::Entered, track);
        let mut found: Vec<_> = began.iter().map(entered).collect();
        if !(self.zones.is_empty() && self.lines.is_empty()) {
            let mut seen = self.tracker.tracks();
            seen.retain(|track| !track.lost);
            // Each object that enters has to leave again: both events are reserved at once.
            let taken = found.len() + self.zones.inside().count();
            let free = self.pending.room().saturating_sub(taken) / 2;
            let changes = self.zones.observe(time, size, &seen, free);
            found.extend(changes.into_iter().map(TrackEvent::of_zone));
            let crossings = self.lines.observe(time, size, &seen);
            found.extend(crossings.into_iter().map(TrackEvent::of_line));
        }
        self.pending.extend(found.into_iter().map(|event| TrackEvent { uncertain, ..event }));
        let events = self.pending.take();
        self.count(&events);
        let change = self.reliability_change();
        let pictured = |event: &TrackEvent| Event {
            attachments: picture(event).into_iter().collect(),
            ..event.event(&self.settings.labels)
        };
        change.into_iter().chain(events.iter().map(pictured)).collect()
    }

    /// The event, and the line of the log, when tracks cease to be reliable or are so again. The
    /// tracker's measure is one of many looks, so it comes seldom.
    fn reliability_change(&mut self) -> Option<Event> {
        let reliable = self.tracker.is_reliable();
        if std::mem::replace(&mut self.reliable, reliable) == reliable {
            return None;
        }
        let pace = self.tracker.pace().unwrap_or_default();
        let word = tracking(reliable);
        let text = format!("{word} at {pace:.1} results a second");
        if reliable {
            log::info("tracking", &text)
        } else {
            log::warn("tracking", &text)
        }
        let pace = f64::from((pace * 10.0).round()) / 10.0;
        let data = serde_json::json!({ "tracking": word, "results_per_second": pace });
        Some(Event { data: data.to_string(), ..Event::new("tracking") })
    }

    /// A store that fails costs the counts and not the events.
    fn count(&mut self, events: &[TrackEvent]) {
        let steps: Vec<_> = events.iter().map(|event| event.step(&self.settings.labels)).collect();
        match self.counter.add(&steps) {
            Ok(()) => self.uncounted = false,
            Err(error) => {
                if !std::mem::replace(&mut self.uncounted, true) {
                    log::warn("counts", &format!("not counted, said once: {error}"));
                }
            }
        }
    }

    /// The objects inside now, by the events reported so far.
    pub(crate) fn inside(&self) -> Vec<Occupancy<'_>> {
        let tracks = self.tracker.tracks();
        let mut inside: Vec<Occupancy<'_>> = Vec::new();
        let mut count = |place, class, more: bool| {
            let label = self.settings.labels.of(class);
            let index = inside.iter().position(|i| i.place == place && i.label == label);
            let index = index.unwrap_or_else(|| {
                inside.push(Occupancy { place, label, count: 0 });
                inside.len() - 1
            });
            if let Some(Occupancy { count, .. }) = inside.get_mut(index) {
                *count = if more { *count + 1 } else { count.saturating_sub(1) };
            }
        };
        tracks.iter().for_each(|track| count(None, track.class, true));
        for (zone, id, _) in self.zones.inside() {
            let track = tracks.iter().find(|track| track.id == id);
            track.into_iter().for_each(|track| count(Some(zone), track.class, true));
        }
        // Pending exits first, so that no number goes below 0.
        for entry in [false, true] {
            let inside = self.pending.iter().filter(|event| event.line().is_none());
            for event in inside.filter(|event| event.is_entry() == entry) {
                count(event.zone(), event.track.class, !entry);
            }
        }
        inside.retain(|inside| inside.count > 0);
        inside
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 100_000_000;
    const SIZE: (u32, u32) = (640, 480);

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
        for n in 0..40u64 {
            let there = if n < 10 { vec![candidate(n as f32, 2, 0.8)] } else { vec![] };
            events.extend(engine.finish(n * FRAME, SIZE, there).events.into_iter().map(|e| (n, e)));
        }
        let kinds: Vec<_> = events.iter().map(|(n, e)| (*n, e.kind.as_str())).collect();
        assert_eq!(kinds, [(1, "entered"), (30, "left")]);
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
            engine.finish(n * FRAME, SIZE, vec![candidate(n as f32 * 3.0, 0, 0.8)]);
        }
        let output = engine.finish(
            5 * FRAME,
            SIZE,
            vec![candidate(14.3, 0, 0.5), candidate(200.0, 0, 0.499)],
        );
        assert_eq!(brief(&output), [("person", 0.5, 14.3, Some(1))]);
        // Too low to be reported, but it holds the track.
        let output = engine.finish(6 * FRAME, SIZE, vec![candidate(17.0, 0, 0.2)]);
        assert_eq!(brief(&output), []);
        assert!(!engine.tracks()[0].lost);
    }

    #[test]
    fn a_candidate_the_tracker_alone_wants_suppresses_nothing_that_is_reported() {
        let mut engine = engine("{}");
        let low = candidate(0.0, 0, 0.39);
        let output =
            engine.finish(0, SIZE, vec![low, candidate(2.0, 0, 0.41), candidate(60.0, 0, 0.9)]);
        assert_eq!(brief(&output), [("person", 0.9, 60.0, None), ("person", 0.41, 2.0, None)]);
    }

    #[test]
    fn a_frame_that_is_looked_at_has_detections_even_if_there_are_none() {
        assert_eq!(engine("{}").finish(0, SIZE, vec![]).detections.map(|d| d.len()), Some(0));
    }

    #[test]
    fn a_zone_is_about_its_labels() {
        let settings =
            r#"{"zones":[{"name":"road","polygon":[[0,0],[1,0],[1,1],[0,1]],"labels":["car"]}]}"#;
        let mut engine = engine(settings);
        let there = || vec![candidate(0.0, 0, 0.8), candidate(300.0, 2, 0.8)];
        let looks = (0..6u64).map(|n| engine.finish(n * FRAME, SIZE, there()));
        let events: Vec<_> = looks.flat_map(|output| output.events).collect();
        let zone: Vec<_> = events.iter().filter(|event| event.kind == "zone_entered").collect();
        assert_eq!(zone.len(), 1);
        assert_eq!(zone[0].data, r#"{"track":2,"label":"car","zone":"road"}"#);
        let about = &zone[0].detections[0];
        assert_eq!((about.label.as_str(), about.track), ("car", Some(2)));
    }

    #[test]
    fn events_of_tracks_that_cannot_be_relied_on_say_so() {
        let mut engine = engine("{}");
        // A crowd that walks: in 2.5 s each is where another was.
        let crowd = |n: u64| {
            (0..12).map(move |i| candidate((i * 50) as f32 + (n % 3) as f32 * 25.0, 0, 0.8))
        };
        let mut events = Vec::new();
        for n in 0..40u64 {
            let there = if n < 30 { crowd(n).collect() } else { vec![] };
            events.extend(engine.finish(n * 25 * FRAME, SIZE, there).events);
        }
        let said: Vec<_> = events.iter().filter(|event| event.kind == "tracking").collect();
        assert_eq!(said.len(), 1, "{said:?}");
        assert_eq!(said[0].data, r#"{"results_per_second":0.4,"tracking":"unreliable"}"#);
        let left: Vec<_> = events.iter().filter(|event| event.kind == "left").collect();
        assert!(!left.is_empty());
        assert!(left.iter().all(|event| event.data.ends_with(r#","tracking":"unreliable"}"#)));
    }
}
