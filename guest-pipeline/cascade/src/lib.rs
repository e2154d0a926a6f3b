//! A tree of models: a detector looks at the frame, and further stages look at the crops of what it
//! found, each at those of the labels and scores that it is for. What they find becomes attributes
//! of the detection, each with its score; a face's embedding becomes the detection's.
//!
//! The tree stands in the settings ([`settings`] has its form, [`tree`] checks it); without
//! settings it is person, face, age and gender. One recursive walk ([`executor`]) takes a frame
//! through it.
//!
//! Stages beside each other do not depend on each other's results, but run one after the other: a
//! call of `wasi:nn` returns when the model has run. What runs at the same time is other sessions'
//! work. A stage gets the crops of all detections at once, so a classifier whose model takes
//! batches answers them in one run; that gains much on a GPU and little on a processor.

pub mod batch;
mod eyes;
pub mod settings;
pub mod tree;
pub mod walk;

use ocelli_sdk::pace::RateLimiter;
use ocelli_sdk::{Description, Frame, Output, Pipeline, export_pipeline, log};

use eyes::ModelSet;
use tree::Tree;

/// The pipeline of one camera.
pub struct Cascade {
    tree: Tree,
    pace: RateLimiter,
    models: ModelSet,
    /// Whether the log has been told that there are more crops than may be looked at.
    warned: bool,
}

impl Pipeline for Cascade {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            // Which models are needed stands in the settings. `new` loads them all and names one
            // that is missing.
            models: Vec::new(),
            settings_schema: settings::schema().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let tree = Tree::read(json)?;
        let eyes = ModelSet::load(&tree)?;
        log::info("init", &format!("a detector and {} further stages", tree.stages().len()));
        Ok(Self {
            pace: RateLimiter::new(tree.max_results_per_second),
            tree,
            models: eyes,
            warned: false,
        })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        if !self.pace.is_due(frame.presentation_time()) {
            return Ok(Output::skipped());
        }
        let mut detections = self.models.detect(frame, &self.tree.detect)?;
        let left_out = walk::execute(&self.tree, &mut detections, &mut |stage, crops| {
            self.models.run_stage(frame, stage, crops)
        })?;
        if left_out > 0 && !std::mem::replace(&mut self.warned, true) {
            let most = self.tree.max_crops;
            let text = format!(
                "{left_out} crops over max_crops, which is {most}, were left out: said once"
            );
            log::warn("crops", &text);
        }
        Ok(Output { detections: Some(detections), events: Vec::new() })
    }
}

export_pipeline!(Cascade);
