//! A pipeline, called as the host calls it.

use super::Schema;
use crate::{Frame, Output, Pipeline};

/// A running pipeline: settings against the schema, then [`Pipeline::new`], then frames, queries
/// and commands.
pub struct Session<P> {
    pipeline: P,
}

impl<P: Pipeline> Session<P> {
    /// Makes a pipeline with these settings, a JSON object.
    ///
    /// # Errors
    /// Settings that do not fit the schema that it describes, as the host says it; then those of
    /// [`Pipeline::new`].
    pub fn start(settings: &str) -> Result<Self, String> {
        Schema::read(&P::describe().settings_schema)?.check(settings)?;
        Ok(Self { pipeline: P::new(settings)? })
    }

    /// Gives it a frame.
    ///
    /// # Errors
    /// Those of [`Pipeline::process`], and an output that the host would refuse: `data` that is no
    /// JSON object, a score that is not finite.
    pub fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let output = self.pipeline.process(frame)?;
        for event in &output.events {
            let is_object = event.data.is_empty()
                || serde_json::from_str::<serde_json::Map<_, serde_json::Value>>(&event.data)
                    .is_ok();
            if !is_object {
                let data = &event.data;
                return Err(format!("event {:?}: data is no JSON object: {data}", event.kind));
            }
        }
        let detections = output.detections.iter().flatten();
        let all = detections.chain(output.events.iter().flat_map(|event| &event.detections));
        for detection in all {
            let scores = detection.attributes.iter().map(|attribute| attribute.score);
            if !scores.chain([detection.score]).all(f32::is_finite) {
                return Err(format!("{:?}: a score is not finite", detection.label));
            }
        }
        Ok(output)
    }

    /// Asks it something.
    ///
    /// # Errors
    /// Those of [`Pipeline::query`].
    pub fn query(&self, request: &str) -> Result<String, String> {
        self.pipeline.query(request)
    }

    /// Has it do something.
    ///
    /// # Errors
    /// Those of [`Pipeline::command`].
    pub fn command(&mut self, request: &str) -> Result<String, String> {
        self.pipeline.command(request)
    }

    /// Goes on with another instance with these settings, which takes over the state of this one,
    /// as when a version is deployed. This one goes on if that fails.
    ///
    /// # Errors
    /// Those of [`Session::start`] and of [`Pipeline::restore`].
    pub fn swap(&mut self, settings: &str) -> Result<(), String> {
        let mut next = Self::start(settings)?;
        let state = self.pipeline.snapshot();
        if !state.is_empty() {
            next.pipeline.restore(&P::describe().version, &state)?;
        }
        *self = next;
        Ok(())
    }

    /// The pipeline itself.
    pub fn pipeline(&mut self) -> &mut P {
        &mut self.pipeline
    }
}
