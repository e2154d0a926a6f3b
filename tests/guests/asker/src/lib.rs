//! Asks at each frame whether its detector may run, and tells the last boxes where it may not. How
//! much it wants is a setting.

use ocelli_sdk::labels::COCO_80;
use ocelli_sdk::nanodet::{self, Detector};
use ocelli_sdk::{
    Basis, Description, Detection, Frame, Output, Pipeline, budget, export_pipeline, nms, settings,
};

settings! {
    /// Settings of asker.
    struct Settings {
        /// How much it wants a run at each frame.
        want: f32 = 1.0;
    }
}

/// The pipeline of one camera.
pub struct Asker {
    want: f32,
    detector: Detector,
    last: Vec<Detection>,
    looked: u64,
}

impl Pipeline for Asker {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: settings::schema::<Settings>().to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let Settings { want } = settings::read(json)?;
        let detector = Detector::load(nanodet::DEFAULT)?;
        Ok(Self { want, detector, last: Vec::new(), looked: 0 })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let now = frame.presentation_time();
        if !budget::ask(self.want) {
            let age = now.saturating_sub(self.looked);
            return Ok(Output::found(self.last.clone()).resting_on(Basis::predicted(age)));
        }
        let candidates = self.detector.candidates(frame, 0.4, |_| true)?;
        let label = |class: u32| COCO_80.get(class as usize).copied().unwrap_or_default();
        let found = nms::suppress(candidates, 0.5);
        self.last =
            found.iter().map(|it| Detection::new(label(it.class), it.score, it.bbox)).collect();
        self.looked = now;
        Ok(Output::found(self.last.clone()).resting_on(Basis::model()))
    }
}

export_pipeline!(Asker);
