//! Where the one bright square of a dark picture is: a box whose place can be seen in the picture
//! itself, so that a box beside another picture's square shows.

use ocelli_sdk::geometry::BBox;
use ocelli_sdk::{Description, Detection, Frame, Output, Pipeline, export_pipeline, settings};
use serde_json::json;

/// The grey picture that is looked at: half of the clip's columns and rows, so a box lies within two
/// pixels of its square.
const SIZE: (u32, u32) = (320, 180);

/// From here on a pixel is bright. What lies on the square's edge is half of it.
const BRIGHT: u8 = 128;

/// The pipeline of one camera.
pub struct Spot;

impl Pipeline for Spot {
    fn describe() -> Description {
        Description {
            name: env!("CARGO_PKG_NAME").into(),
            version: env!("CARGO_PKG_VERSION").into(),
            models: vec![],
            settings_schema: json!({"type": "object", "additionalProperties": false}).to_string(),
        }
    }

    fn new(json: &str) -> Result<Self, String> {
        settings::parse::<serde_json::Map<String, serde_json::Value>>(json)?;
        Ok(Self)
    }

    fn process(&mut self, frame: &Frame) -> Result<Output, String> {
        let picture = frame.luma(SIZE.0, SIZE.1).map_err(|error| error.to_string())?;
        let scale = (frame.width() as f32 / SIZE.0 as f32, frame.height() as f32 / SIZE.1 as f32);
        let found = bright(&picture, SIZE.0 as usize).map(|[left, top, right, bottom]| {
            let area = BBox::from_xywh(
                left as f32 * scale.0,
                top as f32 * scale.1,
                (right - left) as f32 * scale.0,
                (bottom - top) as f32 * scale.1,
            );
            Detection::new("spot", 1.0, area)
        });
        Ok(Output::found(found.into_iter().collect()))
    }
}

/// The least box around all bright pixels: left, top, and the first right and below it.
fn bright(picture: &[u8], width: usize) -> Option<[usize; 4]> {
    let mut found: Option<[usize; 4]> = None;
    for (pixel, _) in picture.iter().enumerate().filter(|(_, value)| **value >= BRIGHT) {
        let (x, y) = (pixel % width, pixel / width);
        let [left, top, right, bottom] = found.unwrap_or([x, y, x, y]);
        found = Some([left.min(x), top.min(y), right.max(x + 1), bottom.max(y + 1)]);
    }
    found
}

export_pipeline!(Spot);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_box_is_around_all_that_is_bright() {
        let mut picture = vec![20; 8 * 6];
        assert_eq!(bright(&picture, 8), None);
        for (x, y) in [(2, 1), (3, 1), (2, 4)] {
            picture[y * 8 + x] = 250;
        }
        assert_eq!(bright(&picture, 8), Some([2, 1, 4, 5]));
    }

    #[test]
    fn it_takes_no_settings() {
        assert!(Spot::new("{}").is_ok());
        assert!(
            ocelli_sdk::testing::Schema::read(&Spot::describe().settings_schema)
                .unwrap()
                .check(r#"{"x":1}"#)
                .is_err()
        );
    }
}
