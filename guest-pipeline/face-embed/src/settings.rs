//! The pipeline's settings, their checks and their JSON Schema.

use ocelli_sdk::centerface::{self, Face};
use ocelli_sdk::settings::parse;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Most faces of a frame that the settings may ask for. With embeddings, a result of that many has
/// half the bytes that a frame may give.
const MOST_FACES: usize = 256;

/// How a face is cut from the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Alignment {
    /// Turned and scaled so that eyes, nose and mouth lie where they lie in every face.
    FivePoint,
    /// A square about the box.
    Box,
}

impl Alignment {
    /// As the settings write it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FivePoint => "five-point",
            Self::Box => "box",
        }
    }
}

/// Settings that are sound.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Width and height of the detector's input in pixels. The frame is letterboxed into it.
    pub detector_size: [u32; 2],
    /// Faces of this score and more are reported. Above 0, up to 1.
    pub score: f32,
    /// Of two boxes that overlap by more than this IoU the better stands. Above 0, up to 1.
    pub iou: f32,
    /// Most faces of a frame, the best first.
    pub max_faces: usize,
    /// Faces whose box has a shorter side are left out: too little to tell anybody by. Frame
    /// pixels.
    pub min_face_pixels: f32,
    /// How a face is cut from the frame.
    pub alignment: Alignment,
    /// Whether gender and age are reported.
    pub gender_and_age: bool,
    /// Above 0. None: every frame that comes is looked at.
    pub max_results_per_second: Option<f64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            detector_size: [416, 416],
            score: 0.5,
            iou: 0.3,
            max_faces: 16,
            min_face_pixels: 32.0,
            alignment: Alignment::FivePoint,
            gender_and_age: false,
            max_results_per_second: None,
        }
    }
}

impl Settings {
    /// Reads and checks the settings. All are optional.
    ///
    /// # Errors
    /// Names the setting, its value and what would be right.
    pub fn read(json: &str) -> Result<Self, String> {
        let settings: Self = parse(json)?;
        centerface::check_size(settings.detector_size, "settings.detector_size")?;
        for (name, value) in [("score", settings.score), ("iou", settings.iou)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(format!("settings.{name}: {value} is not above 0 and up to 1"));
            }
        }
        let faces = settings.max_faces;
        if !(1..=MOST_FACES).contains(&faces) {
            return Err(format!("settings.max_faces: {faces} is not 1 to {MOST_FACES}"));
        }
        let pixels = settings.min_face_pixels;
        if !(pixels >= 0.0 && pixels.is_finite()) {
            return Err(format!("settings.min_face_pixels: {pixels} is not 0 or more"));
        }
        if let Some(rate) = settings.max_results_per_second
            && !(rate > 0.0 && rate.is_finite())
        {
            return Err(format!("settings.max_results_per_second: {rate} is not above 0"));
        }
        Ok(settings)
    }

    /// Whether a face, in frame pixels, is to be embedded.
    #[must_use]
    pub fn is_large_enough(&self, face: &Face) -> bool {
        face.bbox.width().min(face.bbox.height()) >= self.min_face_pixels
    }
}

/// The JSON Schema of the settings.
#[must_use]
pub fn schema() -> Value {
    let default = Settings::default();
    let share = |value: f32, description: &str| {
        // By way of its text, so that 0.3 is not written as 0.30000001192092896.
        let default: f64 = value.to_string().parse().unwrap_or_default();
        json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": default, "description": description })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of face-embed",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "detector_size": {
                "type": "array",
                "items": { "type": "integer", "minimum": centerface::SIDE_STEP, "multipleOf": centerface::SIDE_STEP },
                "minItems": 2,
                "maxItems": 2,
                "default": default.detector_size,
                "description": format!(
                    "Width and height of the detector's input, at most {} pixels in all. Larger: \
                        smaller faces, more time.",
                    centerface::MAX_PIXELS
                )
            },
            "score": share(default.score, "Faces of this score and more are reported."),
            "iou": share(default.iou, "Of two boxes that overlap by more than this, the better \
                stands."),
            "max_faces": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_FACES,
                "default": default.max_faces,
                "description": "Most faces of a frame, the best first."
            },
            "min_face_pixels": {
                "type": "number",
                "minimum": 0,
                "default": default.min_face_pixels,
                "description": "Faces whose box has a side shorter than this are left out."
            },
            "alignment": {
                "enum": [Alignment::FivePoint, Alignment::Box],
                "default": default.alignment,
                "description": "five-point: turned and scaled by the landmarks. box: a square \
                    about the box."
            },
            "gender_and_age": {
                "type": "boolean",
                "default": default.gender_and_age,
                "description": "Whether the attributes gender and age are reported."
            },
            "max_results_per_second": {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "default": default.max_results_per_second,
                "description": "Look at no more frames than this a second of the stream. Null: at \
                    every frame that comes."
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Schema;

    #[test]
    fn a_wrong_setting_is_named_with_what_would_be_right() {
        let cases = [
            (r#"{"score":0}"#, "settings.score: 0 "),
            (r#"{"iou":1.5}"#, "settings.iou: 1.5 "),
            (r#"{"detector_size":[400,416]}"#, "settings.detector_size: [400, 416] "),
            (r#"{"detector_size":416}"#, "settings.detector_size: "),
            (r#"{"max_faces":0}"#, "settings.max_faces: 0 "),
            (r#"{"min_face_pixels":-1}"#, "settings.min_face_pixels: -1 "),
            (
                r#"{"alignment":"eyes"}"#,
                "settings.alignment: unknown variant `eyes`, expected `five-point` or `box`",
            ),
            (r#"{"max_results_per_second":0}"#, "settings.max_results_per_second: 0 "),
            (r#"{"detector":416}"#, "unknown field `detector`"),
        ];
        for (json, expected) in cases {
            let error = Settings::read(json).unwrap_err();
            assert!(error.contains(expected), "{json} gave {error:?}, not {expected:?}");
        }
    }

    #[test]
    fn the_schema_knows_the_settings_and_its_defaults_are_sound() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        let defaults: serde_json::Map<_, _> = properties
            .iter()
            .map(|(name, property)| (name.clone(), property["default"].clone()))
            .collect();
        let settings = Settings::read(&Value::Object(defaults.clone()).to_string()).unwrap();
        assert_eq!(settings, Settings::default());
        assert_eq!(settings, Settings::read("").unwrap());
        assert_eq!(defaults["iou"].to_string(), "0.3");
        assert_eq!(defaults["alignment"], Alignment::FivePoint.name());
        let known = serde_json::to_value(Settings::default()).unwrap();
        assert!(known.as_object().unwrap().keys().eq(properties.keys()));
    }

    #[test]
    fn the_schema_takes_what_the_settings_take_and_refuses_the_rest() {
        let schema = Schema::read(&schema().to_string()).unwrap();
        let every_key = r#"{"detector_size":[960,544],"score":0.6,"iou":0.4,"max_faces":256,"min_face_pixels":0,
            "alignment":"box","gender_and_age":true,"max_results_per_second":0.5}"#;
        for settings in ["{}", r#"{"score":1,"max_results_per_second":null}"#, every_key] {
            assert_eq!(schema.check(settings), Ok(()));
            assert!(Settings::read(settings).is_ok(), "{settings}");
        }
        let wrong = [
            (r#"{"score":0}"#, ".score"),
            (r#"{"iou":1.5}"#, ".iou"),
            (r#"{"detector_size":[400,416]}"#, ".detector_size[0]"),
            (r#"{"detector_size":[416]}"#, ".detector_size"),
            (r#"{"max_faces":257}"#, ".max_faces"),
            (r#"{"min_face_pixels":-1}"#, ".min_face_pixels"),
            (r#"{"alignment":"eyes"}"#, ".alignment"),
            (r#"{"gender_and_age":1}"#, ".gender_and_age"),
            (r#"{"detector":416}"#, "detector"),
        ];
        for (settings, place) in wrong {
            assert!(schema.check(settings).is_err_and(|error| error.contains(place)), "{settings}");
            assert!(Settings::read(settings).is_err(), "{settings}");
        }
    }
}
