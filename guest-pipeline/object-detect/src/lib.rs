//! The default pipeline: objects of the 80 COCO classes by a NanoDet detector, with a track number for each
//! object, and the events `entered` and `left`.
//!
//! Each frame that is looked at goes the same way: letterboxed tensor, model, boxes ([`decode`]), non-maximum
//! suppression and tracks ([`engine`]). Detections are the detector's own: the tracker adds numbers and moves
//! no box. It also sees detections below the `score` setting, which ByteTrack needs to hold on to objects
//! that are half hidden; these are not reported.
//!
//! Everything but [`ObjectDetect`], which calls the host, is tested natively.

pub mod command;
pub mod decode;
pub mod engine;
pub mod model;
pub mod pace;
pub mod settings;
pub mod snapshot;

use ocelli_sdk::nn::Model;
use ocelli_sdk::{Description, Frame, ModelNeed, Output, Pipeline, TensorSpec, export_pipeline, log};

use engine::Engine;
use model::Variant;
use settings::Settings;

/// The pipeline of one camera.
pub struct ObjectDetect {
    variant: Variant,
    input: TensorSpec,
    model: Model,
    engine: Engine,
}

impl Pipeline for ObjectDetect {
    fn describe() -> Description {
        let Variant { name, size } = model::DEFAULT;
        let size = i64::from(size);
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![ModelNeed {
                name: name.into(),
                inputs: vec![(model::INPUT.into(), vec![1, 3, size, size])],
            }],
            settings_schema: settings::schema().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let settings = Settings::read(json)?;
        let variant = model::find(&settings.model)?;
        let model = Model::load(variant.name)?;
        let Settings { score, iou, .. } = &settings;
        log::info("init", &format!("{} at {} pixels, score {score}, IoU {iou}", variant.name, variant.size));
        Ok(Self { variant, input: variant.input(), model, engine: Engine::new(settings) })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let time = frame.presentation_time();
        if !self.engine.is_due(time) {
            return Ok(Output::skipped());
        }
        let (tensor, placement) = frame.tensor(None, self.input).map_err(|e| e.to_string())?;
        let outputs = self.model.run([(model::INPUT, tensor)])?;
        let picture = decode::Picture { width: frame.width(), height: frame.height(), placement };
        let mut candidates = Vec::new();
        for names in model::LEVELS {
            let (scores, sides) = (outputs.floats(names.scores)?, outputs.floats(names.sides)?);
            let (scores, sides) = (scores.values(), sides.values());
            let level = self.variant.level(names.stride, &scores, &sides)?;
            candidates.extend(decode::candidates(&level, self.engine.filter(), &picture));
        }
        Ok(self.engine.finish(time, candidates))
    }

    fn command(&mut self, request: &str) -> Result<String, String> {
        command::answer(&self.engine, request)
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
