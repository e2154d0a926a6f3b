//! The best score of each class in two crops of the frame, and the best so far. It runs its model
//! twice for one frame, one inference after the other, and remembers: an answer that belongs to
//! another camera stays in its maxima.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::labels::COCO_80;
use ocelli_sdk::nn::Model;
use ocelli_sdk::{
    Channels, Description, Detection, Event, Frame, ModelNeed, Output, Pipeline, Rect, TensorSpec,
    export_pipeline, settings,
};
use serde::Deserialize;
use serde_json::json;

const MODEL: &str = "nanodet-g-416";
const INPUT: &str = "input";
const SIZE: u32 = 416;

/// Class scores of the three levels: [1, cells, 80].
const SCORES: [&str; 3] = ["cls_s8", "cls_s16", "cls_s32"];

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Settings {
    /// Cut into an upper and a lower half; else a left and a right one.
    rows: bool,
    /// Every how many frames of the source it looks.
    every: u64,
    /// From this score on a class is there.
    score: f32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { rows: false, every: 10, score: 0.2 }
    }
}

/// The pipeline of one camera.
pub struct Scene {
    settings: Settings,
    model: Model,
    best: Maxima,
}

/// The best score so far of each class in each half.
#[derive(Debug, Clone)]
struct Maxima([Vec<f32>; 2]);

impl Pipeline for Scene {
    fn describe() -> Description {
        let shape = vec![1, 3, i64::from(SIZE), i64::from(SIZE)];
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![ModelNeed { name: MODEL.into(), inputs: vec![(INPUT.into(), shape)] }],
            settings_schema: json!({
                "type": "object",
                "additionalProperties": false,
                "properties": {
                    "rows": {"type": "boolean"},
                    "every": {"type": "integer", "minimum": 1},
                    "score": {"type": "number"},
                },
            })
            .to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        let settings: Settings = settings::parse(json)?;
        if settings.every == 0 {
            return Err("settings.every: 0 is not above 0".into());
        }
        Ok(Self { settings, model: Model::load(MODEL)?, best: Maxima::default() })
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        if !frame.index().is_multiple_of(self.settings.every) {
            return Ok(Output::skipped());
        }
        let mut output = Output::found(Vec::new());
        for (half, area) in halves(frame.width() as f32, frame.height() as f32, self.settings.rows)
            .into_iter()
            .enumerate()
        {
            let scores = self.look(frame, area)?;
            let (found, events) = self.best.take_in(half, area, &scores, self.settings.score);
            output.detections.get_or_insert_default().extend(found);
            output.events.extend(events);
        }
        Ok(output)
    }
}

impl Scene {
    /// The best score of each class in a part of the frame.
    fn look(&self, frame: &Frame, area: BBox) -> Result<Vec<f32>, String> {
        let spec = TensorSpec {
            channels: Channels::Bgr,
            mean: (103.53, 116.28, 123.675),
            std: (57.375, 57.12, 58.395),
            ..TensorSpec::letterbox(SIZE, SIZE)
        };
        let (tensor, _) =
            frame.tensor(Some(Rect::from(area)), spec).map_err(|error| error.to_string())?;
        let outputs = self.model.run([(INPUT, tensor)])?;
        let mut best = vec![0.0f32; COCO_80.len()];
        for name in SCORES {
            let scores = outputs.floats(name)?;
            for row in scores.values().chunks_exact(COCO_80.len()) {
                best.iter_mut().zip(row).for_each(|(best, score)| *best = best.max(*score));
            }
        }
        Ok(best)
    }
}

impl Default for Maxima {
    fn default() -> Self {
        Self([vec![0.0; COCO_80.len()], vec![0.0; COCO_80.len()]])
    }
}

impl Maxima {
    /// The classes that are there, and an event for each that was never there so surely.
    fn take_in(
        &mut self,
        half: usize,
        area: BBox,
        scores: &[f32],
        least: f32,
    ) -> (Vec<Detection>, Vec<Event>) {
        let (mut found, mut events) = (Vec::new(), Vec::new());
        let Some(best) = self.0.get_mut(half) else { return (found, events) };
        for ((label, score), best) in COCO_80.iter().zip(scores).zip(best) {
            if *score < least {
                continue;
            }
            found.push(Detection::new(*label, *score, area));
            if *score > *best {
                let data = json!({"half": half, "label": label, "score": score, "before": *best});
                events.push(Event { data: data.to_string(), ..Event::new("maximum") });
                *best = *score;
            }
        }
        (found, events)
    }
}

/// The left and the right half of a frame, or the upper and the lower one.
fn halves(width: f32, height: f32, rows: bool) -> [BBox; 2] {
    let (x, y) = if rows { (0.0, height / 2.0) } else { (width / 2.0, 0.0) };
    [BBox::from_xywh(0.0, 0.0, width - x, height - y), BBox::from_xywh(x, y, width - x, height - y)]
}

export_pipeline!(Scene);

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Schema;

    #[test]
    fn the_schema_takes_what_the_settings_take() {
        let schema = Schema::read(&Scene::describe().settings_schema).unwrap();
        for known in ["{}", r#"{"every":25,"rows":true,"score":0.1}"#] {
            assert_eq!(schema.check(known), Ok(()));
            assert!(settings::parse::<Settings>(known).is_ok());
        }
        for wrong in [r#"{"every":0}"#, r#"{"columns":true}"#, r#"{"score":"low"}"#] {
            assert!(schema.check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_halves_are_the_whole_frame() {
        let [left, right] = halves(640.0, 272.0, false);
        assert_eq!((left.left, left.right, right.left, right.right), (0.0, 320.0, 320.0, 640.0));
        assert_eq!((left.top, left.bottom, right.top, right.bottom), (0.0, 272.0, 0.0, 272.0));
        let [upper, lower] = halves(640.0, 272.0, true);
        assert_eq!(
            (upper.bottom, lower.top, lower.bottom, lower.right),
            (136.0, 136.0, 272.0, 640.0)
        );
    }

    #[test]
    fn a_class_is_an_event_when_it_is_surer_than_ever() {
        let mut maxima = Maxima::default();
        let area = BBox::from_xywh(0.0, 0.0, 1.0, 1.0);
        let mut scores = vec![0.0; COCO_80.len()];
        let mut events = |half, score| {
            scores[0] = score;
            let (found, events) = maxima.take_in(half, area, &scores, 0.2);
            (found.len(), events.len())
        };
        assert_eq!(events(0, 0.5), (1, 1));
        assert_eq!(events(0, 0.4), (1, 0));
        assert_eq!(events(1, 0.4), (1, 1), "the other half has a maximum of its own");
        assert_eq!(events(0, 0.1), (0, 0));
    }
}
