//! A pipeline that asks for one inference for each frame and marks some of them: `faulty-inference`
//! of the tests does what the mark says before it runs the model. What came of it is told as a
//! detection, so that a subscriber sees every result and every error.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::nn::Model;
use ocelli_sdk::{Description, Detection, Event, Frame, Output, Pipeline, Tensor, TensorType};
use ocelli_sdk::{export_pipeline, settings};
use serde::Deserialize;
use serde_json::json;

/// What a marked tensor begins with, before the deed's number and the frame's. `faulty-inference`
/// looks for it.
const MAGIC: f32 = 7_654_321.0;

/// Numbers in the model's input.
const LENGTH: usize = 16;

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// The deed that the marked frames ask for, by its number in `faulty-inference`.
    deed: u8,
    /// The marked frames by their number in the source.
    frames: Vec<u64>,
    /// The deed of all other frames; 0: they are not marked.
    otherwise: u8,
}

/// The pipeline of one camera.
pub struct Marked {
    settings: Settings,
    model: Model,
}

impl Pipeline for Marked {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "deed": {"type": "integer", "minimum": 0, "maximum": u8::MAX},
                    "frames": {"type": "array", "items": {"type": "integer", "minimum": 0}},
                    "otherwise": {"type": "integer", "minimum": 0, "maximum": u8::MAX},
                },
            })
            .to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        Ok(Self { settings: settings::parse(json)?, model: Model::load("echo")? })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let input = input(&self.settings, frame.index());
        let bytes: Vec<u8> = input.iter().flat_map(|number| number.to_le_bytes()).collect();
        let tensor = Tensor::new(&[LENGTH as u32], TensorType::Fp32, &bytes);
        Ok(match self.model.run([("x", tensor)]).and_then(|outputs| outputs.floats("y")) {
            Ok(output) if *output.values() == input => told("echo"),
            Ok(output) => told(&format!("{:?} instead of {input:?}", output.values())),
            // An event is not missed.
            Err(error) => {
                let data = json!({"frame": frame.index(), "error": error}).to_string();
                told("refused").with_events(vec![Event { data, ..Event::new("refused") }])
            }
        })
    }
}

fn told(label: &str) -> Output {
    let everywhere = BBox::from_xywh(0.0, 0.0, 1.0, 1.0);
    Output::found(vec![Detection::new(label, 1.0, everywhere)])
}

/// What the model is given for a frame: other numbers for each, so that an answer to another one
/// would show.
fn input(settings: &Settings, frame: u64) -> [f32; LENGTH] {
    let deed = if settings.frames.contains(&frame) { settings.deed } else { settings.otherwise };
    let mut input = [frame as f32; LENGTH];
    if deed != 0 {
        (input[0], input[1]) = (MAGIC, f32::from(deed));
    }
    input
}

export_pipeline!(Marked);

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Schema;

    #[test]
    fn the_schema_takes_what_the_settings_take() {
        let schema = Schema::read(&Marked::describe().settings_schema).unwrap();
        for known in ["{}", r#"{"deed":3,"frames":[5,6],"otherwise":6}"#] {
            assert_eq!(schema.check(known), Ok(()));
            assert!(settings::parse::<Settings>(known).is_ok());
        }
        for wrong in [r#"{"deed":-1}"#, r#"{"frames":5}"#, r#"{"deeds":1}"#] {
            assert!(
                schema.check(wrong).is_err() && settings::parse::<Settings>(wrong).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn the_frames_of_the_settings_are_marked() {
        let settings = Settings { deed: 3, frames: vec![5], otherwise: 0 };
        assert_eq!(input(&settings, 4), [4.0; LENGTH]);
        assert_eq!(input(&settings, 5)[..3], [MAGIC, 3.0, 5.0]);
        let settings = Settings { otherwise: 6, ..settings };
        assert_eq!(input(&settings, 4)[..3], [MAGIC, 6.0, 4.0]);
    }
}
