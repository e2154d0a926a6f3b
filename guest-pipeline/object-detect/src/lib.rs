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
//! What is in view, tracks and who is in which zone, goes from version to version in the
//! [`snapshot`]. Counts are for months: they live in the session's store alone
//! ([`ocelli_sdk::counts`]).
//!
//! Events have pictures if the settings ask for them (`pictures`). All of it is tested natively.

pub mod engine;
pub mod objects;
mod pictures;
pub mod request;
pub mod settings;
pub mod snapshot;
mod track_event;

use ocelli_sdk::detect::Detector;
use ocelli_sdk::settings::given;
use ocelli_sdk::{Description, Frame, ModelNeed, Output, Pipeline, export_pipeline, log, nanodet};

use engine::Engine;
use objects::Labels;
use pictures::FramePictures;
use settings::{Pictures, Settings};

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
        let filter = self.engine.filter();
        // A class beyond the labels of a model would have no name, and no snapshot takes it.
        let wants = |class| filter.wants(class) && self.engine.settings.labels.has(class);
        let candidates = self.detector.candidates(frame, None, filter.least_score, wants)?;
        let mut pictures = FramePictures::new(self.pictures.as_ref());
        let size = (frame.width(), frame.height());
        Ok(self.engine.finish_with(time, size, candidates, &mut |event| pictures.of(event, frame)))
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

export_pipeline!(ObjectDetect);

#[cfg(test)]
mod tests;
