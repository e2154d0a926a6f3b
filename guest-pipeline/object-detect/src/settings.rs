//! The pipeline's settings, their checks and their JSON Schema.

use ocelli_sdk::labels::{self, COCO_80};
use ocelli_sdk::nanodet;
use ocelli_sdk::settings::parse;
use serde::Deserialize;
use serde_json::{Value, json};

/// ByteTrack's lower bound: below this score a detection says nothing even where a track is expected.
const LOW_SCORE: f32 = 0.1;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Raw {
    model: String,
    score: f32,
    iou: f32,
    labels: Vec<String>,
    max_results_per_second: Option<f64>,
}

impl Default for Raw {
    fn default() -> Self {
        Self {
            model: nanodet::DEFAULT.name.into(),
            score: 0.40,
            iou: 0.50,
            labels: Vec::new(),
            max_results_per_second: None,
        }
    }
}

/// Settings that are sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The name of one of [`nanodet::KNOWN`].
    pub model: String,
    /// Detections of this score and more are reported. Above 0, up to 1.
    pub score: f32,
    /// Non-maximum suppression: of two boxes of a class that overlap by more than this IoU the better stands.
    /// Above 0, up to 1.
    pub iou: f32,
    /// Above 0. None: every frame that comes is looked at.
    pub max_results_per_second: Option<f64>,
    filter: Filter,
}

/// What of the model's outputs is of interest at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Below this score nothing is, neither as a detection nor to the tracker.
    pub least_score: f32,
    /// Class by class; empty means all.
    wanted: Vec<bool>,
}

impl Filter {
    /// Whether the settings ask for the class.
    #[must_use]
    pub fn wants(&self, class: u32) -> bool {
        self.wanted.is_empty() || self.wanted.get(class as usize).copied().unwrap_or(false)
    }
}

impl Settings {
    /// Reads and checks the settings. All are optional.
    ///
    /// # Errors
    /// Names the setting, its value and what would be right.
    pub fn read(json: &str) -> Result<Self, String> {
        let raw: Raw = parse(json)?;
        nanodet::find(&raw.model, "settings.model")?;
        for (name, value) in [("score", raw.score), ("iou", raw.iou)] {
            if !(value > 0.0 && value <= 1.0) {
                return Err(format!("settings.{name}: {value} is not above 0 and up to 1"));
            }
        }
        if let Some(rate) = raw.max_results_per_second
            && !(rate > 0.0 && rate.is_finite())
        {
            return Err(format!("settings.max_results_per_second: {rate} is not above 0"));
        }
        let filter = Filter { least_score: raw.score.min(LOW_SCORE), wanted: wanted(&raw.labels)? };
        let Raw { model, score, iou, max_results_per_second, .. } = raw;
        Ok(Self { model, score, iou, max_results_per_second, filter })
    }

    /// What of the model's outputs is of interest.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

fn wanted(names: &[String]) -> Result<Vec<bool>, String> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    labels::check(names, &COCO_80, "settings.labels")?;
    Ok(COCO_80.iter().map(|label| names.iter().any(|name| name == label)).collect())
}

/// The JSON Schema of the settings.
#[must_use]
pub fn schema() -> Value {
    let default = Raw::default();
    let share = |value: f32, description: &str| {
        // By way of its text, so that 0.4 is not written as 0.4000000059604645.
        let default: f64 = value.to_string().parse().unwrap_or_default();
        json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": default, "description": description })
    };
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Settings of object-detect",
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "model": {
                "enum": nanodet::KNOWN.map(|v| v.name),
                "default": default.model,
                "description": "The detector. Smaller or int8: faster, a little less exact."
            },
            "score": share(default.score, "Detections of this score and more are reported."),
            "iou": share(default.iou, "Of two boxes of one label that overlap by more than this, the better stands."),
            "labels": {
                "type": "array",
                "items": { "enum": COCO_80.to_vec() },
                "default": default.labels,
                "description": "Labels to look for. None: all."
            },
            "max_results_per_second": {
                "type": ["number", "null"],
                "exclusiveMinimum": 0,
                "default": default.max_results_per_second,
                "description": "Look at no more frames than this a second of the stream. Null: at every frame that comes."
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_optional() {
        let settings = Settings::read("{}").unwrap();
        assert_eq!((settings.model.as_str(), settings.score, settings.iou), ("nanodet-g-416", 0.40, 0.50));
        assert_eq!(settings.max_results_per_second, None);
        assert!((0..80).all(|class| settings.filter().wants(class)));
    }

    #[test]
    fn a_wrong_setting_is_named_with_what_would_be_right() {
        let cases = [
            (r#"{"score":0}"#, "settings.score: 0 "),
            (r#"{"score":1.5}"#, "settings.score: 1.5 "),
            (r#"{"score":"high"}"#, "settings.score: invalid type"),
            (r#"{"iou":-1}"#, "settings.iou: -1 "),
            (r#"{"max_results_per_second":0}"#, "settings.max_results_per_second: 0 "),
            (
                r#"{"labels":["person","persn"]}"#,
                "settings.labels[1]: no label \"persn\", did you mean \"person\"?",
            ),
            (r#"{"labels":["Person"]}"#, "did you mean \"person\"?"),
            (r#"{"labels":["xyzzy"]}"#, "settings.labels[0]: no label \"xyzzy\"; there are \"person\", "),
            (r#"{"labels":"person"}"#, "settings.labels: "),
            (r#"{"model":"yolo"}"#, "nanodet-g-320"),
            (r#"{"treshold":0.4}"#, "unknown field `treshold`"),
        ];
        for (json, expected) in cases {
            let error = Settings::read(json).unwrap_err();
            assert!(error.contains(expected), "{json} gave {error:?}, not {expected:?}");
        }
    }

    #[test]
    fn the_tracker_sees_more_than_is_reported_but_never_less() {
        assert_eq!(Settings::read("{}").unwrap().filter().least_score, 0.1);
        assert_eq!(Settings::read(r#"{"score":0.05}"#).unwrap().filter().least_score, 0.05);
    }

    #[test]
    fn the_schema_knows_the_settings_and_its_defaults_are_sound() {
        let schema = schema();
        let properties = schema["properties"].as_object().unwrap();
        let defaults: serde_json::Map<_, _> =
            properties.iter().map(|(name, property)| (name.clone(), property["default"].clone())).collect();
        let settings = Settings::read(&Value::Object(defaults.clone()).to_string()).unwrap();
        assert_eq!(settings, Settings::read("{}").unwrap());
        assert_eq!(defaults["score"].to_string(), "0.4");
        // The error for an unknown field lists all known ones.
        let error = Settings::read(r#"{"?":0}"#).unwrap_err();
        assert_eq!(error.matches('`').count(), 2 * (properties.len() + 1), "{error}");
        assert!(properties.keys().all(|name| error.contains(&format!("`{name}`"))), "{error}");
    }
}
