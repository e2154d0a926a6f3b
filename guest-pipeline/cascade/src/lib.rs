//! A tree of models: a detector looks at the frame, and further stages look at the crops of what it
//! found, each at those of the labels and scores that it is for. What they find becomes attributes
//! of the detection, each with its score; a face's embedding becomes the detection's.
//!
//! The settings define the tree ([`settings`] has its form, [`tree`] checks it); without settings
//! it is person, face, age and gender. The [`executor`] takes a frame through it.
//!
//! Stages on one level do not depend on each other's results, but run one after the other: a call
//! of `wasi:nn` returns when the model has run. Only other sessions' work runs at the same time. A
//! stage gets the crops of all detections at once, so a classifier whose model takes batches
//! answers them in one run; that gains much on a GPU and little on a processor.

pub mod batch;
pub mod executor;
mod model_set;
pub mod objects;
pub mod settings;
pub mod tree;

use ocelli_sdk::rate_limiter::RateLimiter;
use ocelli_sdk::{Description, Frame, Output, Pipeline, export_pipeline, log, models};

use model_set::ModelSet;
use tree::Tree;

/// The pipeline of one camera.
pub struct Cascade {
    tree: Tree,
    rate_limiter: RateLimiter,
    models: ModelSet,
    /// Whether the log has a line about crops over `max_crops` already.
    warned: bool,
}

impl Pipeline for Cascade {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            // The settings name the models. `new` loads them all and names one that is missing.
            models: Vec::new(),
            settings_schema: settings::schema().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let tree = Tree::read(json, &models::describe)?;
        let models = ModelSet::load(&tree)?;
        log::info("init", &format!("a detector and {} further stages", tree.stages().len()));
        Ok(Self {
            rate_limiter: RateLimiter::new(tree.max_results_per_second),
            tree,
            models,
            warned: false,
        })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        if !self.rate_limiter.is_due(frame.presentation_time()) {
            return Ok(Output::skipped());
        }
        let mut detections = self.models.detect(frame, &self.tree.detect)?;
        let left_out = executor::execute(&self.tree, &mut detections, &mut |stage, crops| {
            self.models.run_stage(frame, stage, crops)
        })?;
        if left_out > 0 && !std::mem::replace(&mut self.warned, true) {
            let most = self.tree.max_crops;
            let text = format!(
                "{left_out} crops over max_crops, which is {most}, were left out: said once"
            );
            log::warn("crops", &text);
        }
        Ok(Output::found(detections))
    }
}

export_pipeline!(Cascade);
