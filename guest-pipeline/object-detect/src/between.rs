//! Budget mode: what is known of a frame for which the model does not run.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::track::{Footing, Points, Sight};
use ocelli_sdk::{Basis, Image, Motion, Output};

use crate::engine::Engine;
use crate::pace::Scene;
use crate::track_event::TrackEvent;

/// The least part of a box that is in the picture, where one is reported: an object that walks out
/// of the picture is followed beyond its edge.
const IN_PICTURE: f32 = 0.5;

/// Regions that the host gives at most: with so many, there may be more.
const MAX_REGIONS: usize = 32;

impl Engine {
    /// Whether the model runs for some of the frames alone.
    pub(crate) fn is_on_budget(&self) -> bool {
        self.pace.is_some()
    }

    /// Takes in the frame's size. What was found in a picture of another size says nothing of it.
    pub(crate) fn measure(&mut self, size: (u32, u32)) {
        if std::mem::replace(&mut self.size, size) != size
            && let Some(pace) = &mut self.pace
        {
            pace.begin();
        }
    }

    /// Takes in what changes in the frame.
    pub(crate) fn see(&mut self, motion: &Motion) {
        self.calibrating = motion.calibrating;
        self.moving = motion.regions.iter().map(|&region| region.into()).collect();
    }

    /// The points to be looked for in the frame.
    pub(crate) fn points(&self) -> Points {
        let touches = |a: &BBox, b: &BBox| a.iou(b) > 0.0;
        let known = !self.calibrating && self.moving.len() < MAX_REGIONS;
        self.tracker.points(|b| known && !self.moving.iter().any(|m| touches(m, b)))
    }

    /// Moves the tracks on to the frame, in which the points were found.
    pub(crate) fn follow(&mut self, time: u64, points: &Points, found: &[Option<[f32; 2]>]) {
        let ended = self.tracker.follow(time, points, found);
        self.end(&ended);
    }

    /// How much a run for the frame is worth; none where none is due.
    pub(crate) fn want(&mut self, time: u64) -> Option<f32> {
        let sights = self.tracker.sights();
        let lost = self.tracker.tracks().iter().filter(|track| track.lost).count();
        let (moving, calibrating) = (self.moving.as_slice(), self.calibrating);
        self.pace.as_mut()?.want(time, &Scene { sights: &sights, lost, moving, calibrating })
    }

    /// Makes the output of the frame at `time`, of `size` pixels, without the model: the tracks as
    /// their pixels moved them. Nothing before the model has run.
    pub(crate) fn carry_on(
        &mut self,
        time: u64,
        size: (u32, u32),
        picture: &mut dyn FnMut(&TrackEvent) -> Option<Image>,
    ) -> Output {
        let events = self.events(time, size, &[], picture);
        let Some(age) = self.pace.as_ref().and_then(|pace| pace.age(time)) else {
            return Output::skipped().with_events(events);
        };
        let (width, height) = (size.0 as f32, size.1 as f32);
        let in_picture = |sight: Sight| {
            let bbox = sight.bbox.clip(width, height);
            let is_shown = bbox.is_proper() && bbox.area() >= IN_PICTURE * sight.bbox.area();
            (is_shown && sight.score >= self.settings.score).then_some(Sight { bbox, ..sight })
        };
        let mut shown: Vec<_> = self.tracker.sights().into_iter().filter_map(in_picture).collect();
        shown.sort_by(|a, b| b.score.total_cmp(&a.score));
        let is_predicted = shown.iter().any(|sight| sight.footing == Footing::Predicted);
        let basis = if is_predicted { Basis::predicted(age) } else { Basis::flow(age) };
        let labels = &self.settings.labels;
        let detection = |s: &Sight| labels.detection(s.class, s.score, s.bbox, s.track);
        let detections = shown.iter().map(detection).collect();
        Output::found(detections).with_events(events).resting_on(basis)
    }
}
