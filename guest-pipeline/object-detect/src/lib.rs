//! The default pipeline: objects by any detector that describes itself, a NanoDet of the 80 COCO
//! classes unless the settings name another, with a track number for each object, zones and lines,
//! the events `entered`, `left`, `zone_entered`, `zone_left` and `line_crossed`, and counts of
//! these.
//!
//! Each frame that is looked at goes the same way: tensor, model, boxes ([`ocelli_sdk::detect`]),
//! non-maximum suppression, tracks and zones ([`engine`]). Detections are the detector's own: the
//! tracker adds numbers and moves no box. It also sees detections below the `score` setting, which
//! ByteTrack needs to hold on to objects that are half hidden; these are not reported.
//!
//! In budget mode the model runs for some of the frames: where the host has time for it, asked with
//! what a run is worth (`pace`). Between two runs the tracks go where their pixels go
//! (`between`), so that there are boxes on every frame all the same; the output says what they
//! rest on.
//!
//! What is in view, tracks and who is in which zone, goes from version to version in the
//! [`snapshot`]. Counts are for months: they live in the session's store alone
//! ([`ocelli_sdk::counts`]).
//!
//! Events have pictures if the settings ask for them (`pictures`). All of it is tested natively.

mod between;
pub mod engine;
pub mod objects;
mod pace;
mod pictures;
pub mod request;
pub mod settings;
pub mod snapshot;
mod track_event;

use ocelli_sdk::detect::Detector;
use ocelli_sdk::settings::given;
use ocelli_sdk::track::{Look, Points};
use ocelli_sdk::{Description, Frame, ModelNeed, Output, Pipeline, Point, budget, export_pipeline};
use ocelli_sdk::{log, nanodet};

use engine::Engine;
use objects::Labels;
use pictures::FramePictures;
use settings::{Pictures, Settings};
use track_event::TrackEvent;

/// The pipeline of one camera.
pub struct ObjectDetect {
    detector: Detector,
    engine: Engine,
    pictures: Option<Pictures>,
}

impl Pipeline for ObjectDetect {
    fn describe() -> Description {
        // A model of another name is described by itself.
        let name = given("model").unwrap_or_else(|| nanodet::DEFAULT.name.into());
        let size = i64::from(nanodet::DEFAULT.size);
        let inputs = match name == nanodet::DEFAULT.name {
            true => vec![(nanodet::INPUT.into(), vec![1, 3, size, size])],
            false => Vec::new(),
        };
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![ModelNeed { name, inputs }],
            settings_schema: settings::schema().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let detector = Detector::load(&settings::model(json)?)
            .map_err(|error| format!("settings.model: {error}"))?;
        let settings = Settings::read_for(json, Labels::new(detector.labels()))?;
        let Settings { model, score, iou, .. } = &settings;
        let spec = detector.description().spec;
        log::info(
            "init",
            &format!("{model} at {} x {}, score {score}, IoU {iou}", spec.width, spec.height),
        );
        let pictures = settings.pictures.clone();
        Ok(Self { detector, engine: Engine::new(settings), pictures })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let time = frame.presentation_time();
        if !self.engine.is_due(time) {
            return Ok(Output::skipped());
        }
        let runs = !self.engine.is_on_budget() || self.follow(frame)?;
        let mut pictures = FramePictures::new(self.pictures.as_ref());
        let size = (frame.width(), frame.height());
        let mut picture = |event: &TrackEvent| pictures.of(event, frame);
        if !runs {
            return Ok(self.engine.carry_on(time, size, &mut picture));
        }
        let filter = self.engine.filter();
        // A class beyond the labels of a model would have no name, and no snapshot takes it.
        let wants = |class| filter.wants(class) && self.engine.settings.labels.has(class);
        let candidates = self.detector.candidates(frame, None, filter.least_score, wants)?;
        let standing = self.engine.standing(candidates);
        // Colours are a hint: without them tracks meet as before.
        let looks = Look::of(frame, &self.engine.shown(&standing)).unwrap_or_default();
        Ok(self.engine.finish_with(time, size, &standing, &looks, &mut picture))
    }

    fn query(&self, request: &str) -> Result<String, String> {
        request::query(&self.engine, request)
    }

    fn command(&mut self, request: &str) -> Result<String, String> {
        request::command(&self.engine, request)
    }

    fn snapshot(&mut self) -> Vec<u8> {
        snapshot::write(&self.engine)
    }

    fn restore(&mut self, version: &str, state: &[u8]) -> Result<(), String> {
        snapshot::read(&mut self.engine, version, state)?;
        log::info(
            "restore",
            &format!("{} tracks taken over from version {version}", self.engine.tracks().len()),
        );
        Ok(())
    }
}

impl ObjectDetect {
    /// Moves the tracks on to the frame by what its pixels say. Whether the model is to run for it:
    /// a run is due, and the host has time for one.
    fn follow(&mut self, frame: &Frame) -> Result<bool, String> {
        let time = frame.presentation_time();
        self.engine.measure((frame.width(), frame.height()));
        self.engine.see(&frame.motion().map_err(|e| e.to_string())?);
        let points = self.engine.points();
        // With nothing to be followed no frame has to be kept for it.
        let follows = !self.engine.tracker.sights().is_empty();
        let found = if follows { flow(frame, &points)? } else { Vec::new() };
        self.engine.follow(time, &points, &found);
        let runs = self.engine.want(time).is_some_and(budget::ask);
        if runs && !follows {
            // What the model sees is followed from here.
            flow(frame, &points)?;
        }
        Ok(runs)
    }
}

/// Where points of the frame before are in this one.
fn flow(frame: &Frame, points: &Points) -> Result<Vec<Option<[f32; 2]>>, String> {
    let asked: Vec<_> = points.all().iter().map(|&[x, y]| Point { x, y }).collect();
    let found = frame.flow(&asked).map_err(|e| e.to_string())?;
    Ok(found.into_iter().map(|point| point.map(|Point { x, y }| [x, y])).collect())
}

export_pipeline!(ObjectDetect);

#[cfg(test)]
mod tests;
