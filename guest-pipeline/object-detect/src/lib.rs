//! The default pipeline: objects of the 80 COCO classes by a NanoDet detector, with a track number
//! for each object, zones, the events `entered`, `left`, `zone_entered` and `zone_left`, and counts
//! of these.
//!
//! Each frame that is looked at goes the same way: letterboxed tensor, model, boxes ([`nanodet`]),
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

use ocelli_sdk::nanodet::{self, Detector, Variant};
use ocelli_sdk::{Description, Frame, ModelNeed, Output, Pipeline, export_pipeline, log};

use engine::Engine;
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
        let Variant { name, size } = nanodet::DEFAULT;
        let size = i64::from(size);
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![ModelNeed {
                name: name.into(),
                inputs: vec![(nanodet::INPUT.into(), vec![1, 3, size, size])],
            }],
            settings_schema: settings::schema().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let settings = Settings::read(json)?;
        let variant = nanodet::find(&settings.model, "settings.model")?;
        let detector = Detector::load(variant)?;
        let Settings { score, iou, .. } = &settings;
        log::info(
            "init",
            &format!("{} at {} pixels, score {score}, IoU {iou}", variant.name, variant.size),
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
        let candidates =
            self.detector.candidates(frame, filter.least_score, |class| filter.wants(class))?;
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
