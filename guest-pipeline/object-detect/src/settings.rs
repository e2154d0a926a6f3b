//! The pipeline's settings, their checks and their JSON Schema.

use ocelli_sdk::labels::{self, COCO_80};
use ocelli_sdk::nanodet;
use ocelli_sdk::settings::parse;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::objects::{CORNERS, LEAST_AREA, MAX_ZONE_NAME, MAX_ZONES};

/// ByteTrack's lower bound: below this score a detection says nothing even where a track is
/// expected.
const LOW_SCORE: f32 = 0.1;

#[derive(Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawSettings {
    model: String,
    score: f32,
    iou: f32,
    labels: Vec<String>,
    max_results_per_second: Option<f64>,
    zones: Vec<RawZone>,
    count_objects: bool,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawZone {
    name: String,
    polygon: Vec<[f32; 2]>,
    #[serde(default)]
    labels: Vec<String>,
}

impl Default for RawSettings {
    fn default() -> Self {
        Self {
            model: nanodet::DEFAULT.name.into(),
            score: 0.40,
            iou: 0.50,
            labels: Vec::new(),
            max_results_per_second: None,
            zones: Vec::new(),
            count_objects: false,
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
    /// Non-maximum suppression: of two boxes of a class that overlap by more than this IoU the
    /// better stands. Above 0, up to 1.
    pub iou: f32,
    /// Above 0. None: every frame that comes is looked at.
    pub max_results_per_second: Option<f64>,
    /// Each with a name of its own.
    pub zones: Vec<Zone>,
    /// Whether the objects that enter and leave the picture are counted.
    pub count_objects: bool,
    filter: Filter,
}

/// A part of the picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Name in events and counts.
    pub name: String,
    /// Its corners in turn, x and y in parts of the picture, 0 to 1.
    pub polygon: Vec<[f32; 2]>,
    /// Labels of the objects that count.
    pub labels: Classes,
}

impl Zone {
    /// Whether the zone has this name and polygon. The labels may change while its counts go on.
    #[must_use]
    pub fn is(&self, name: &str, polygon: &[[f32; 2]]) -> bool {
        self.name == name && self.polygon == polygon
    }
}

/// Some of the detector's classes, or all.
#[derive(Debug, Clone, PartialEq)]
pub struct Classes {
    /// Class by class; empty means all.
    wanted: Vec<bool>,
}

impl Classes {
    /// Whether the class is one of them.
    #[must_use]
    pub fn wants(&self, class: u32) -> bool {
        self.wanted.is_empty() || self.wanted.get(class as usize).copied().unwrap_or(false)
    }
}

/// Selects the part of the model's outputs that the pipeline uses.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// Below this score nothing is, neither as a detection nor to the tracker.
    pub least_score: f32,
    classes: Classes,
}

impl Filter {
    /// Whether the settings ask for the class.
    #[must_use]
    pub fn wants(&self, class: u32) -> bool {
        self.classes.wants(class)
    }
}

impl Settings {
    /// Reads and checks the settings. All are optional.
    ///
    /// # Errors
    /// Names the setting, its value and what would be right.
    pub fn read(json: &str) -> Result<Self, String> {
        let raw: RawSettings = parse(json)?;
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
        let classes = classes(&raw.labels, &COCO_80, "settings.labels")?;
        let filter = Filter { least_score: raw.score.min(LOW_SCORE), classes };
        let zones = zones(&raw)?;
        let RawSettings { model, score, iou, max_results_per_second, count_objects, .. } = raw;
        Ok(Self { model, score, iou, max_results_per_second, zones, count_objects, filter })
    }

    /// The part of the model's outputs that the pipeline uses.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

fn classes<K: AsRef<str>>(names: &[String], known: &[K], path: &str) -> Result<Classes, String> {
    if names.is_empty() {
        return Ok(Classes { wanted: Vec::new() });
    }
    labels::check(names, known, path)?;
    let wanted = COCO_80.iter().map(|label| names.iter().any(|name| name == label)).collect();
    Ok(Classes { wanted })
}

fn zones(raw: &RawSettings) -> Result<Vec<Zone>, String> {
    if raw.zones.len() > MAX_ZONES {
        return Err(format!("settings.zones: {} are more than {MAX_ZONES}", raw.zones.len()));
    }
    let mut zones: Vec<Zone> = Vec::new();
    for (n, RawZone { name, polygon, labels }) in raw.zones.iter().enumerate() {
        let path = format!("settings.zones[{n}]");
        let letters = name.chars().count();
        if !(1..=MAX_ZONE_NAME).contains(&letters) || name.chars().any(char::is_control) {
            return Err(format!(
                "{path}.name: {name:?} is not 1 to {MAX_ZONE_NAME} letters in one line"
            ));
        }
        if zones.iter().any(|zone| zone.name == *name) {
            return Err(format!("{path}.name: another zone is called {name:?} too"));
        }
        check_polygon(polygon, &format!("{path}.polygon"))?;
        let path = format!("{path}.labels");
        let labels = match raw.labels.as_slice() {
            [] => classes(labels, &COCO_80, &path)?,
            looked_for => classes(labels, looked_for, &path)?,
        };
        zones.push(Zone { name: name.clone(), polygon: polygon.clone(), labels });
    }
    Ok(zones)
}

fn check_polygon(polygon: &[[f32; 2]], path: &str) -> Result<(), String> {
    let corners = polygon.len();
    if !CORNERS.contains(&corners) {
        return Err(format!(
            "{path}: {corners} corners are not {} to {}",
            CORNERS.start(),
            CORNERS.end()
        ));
    }
    let outside = |corner: &[f32; 2]| !corner.iter().all(|part| (0.0..=1.0).contains(part));
    if let Some((n, corner)) = polygon.iter().enumerate().find(|(_, corner)| outside(corner)) {
        return Err(format!("{path}[{n}]: {corner:?} is not in parts of the picture, 0 to 1"));
    }
    // Twice the area, by the shoelace formula.
    let next = polygon.iter().cycle().skip(1);
    let area: f64 = polygon.iter().zip(next).map(|(a, b)| cross(*a, *b)).sum();
    if area.abs() < LEAST_AREA {
        return Err(format!("{path}: has no area"));
    }
    Ok(())
}

fn cross([ax, ay]: [f32; 2], [bx, by]: [f32; 2]) -> f64 {
    f64::from(ax) * f64::from(by) - f64::from(bx) * f64::from(ay)
}

/// The JSON Schema of the settings.
#[must_use]
pub fn schema() -> Value {
    let default = RawSettings::default();
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
            "iou": share(default.iou, "Of two boxes of one label that overlap by more than this, \
                the better stands."),
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
                "description": "Look at no more frames than this a second of the stream. Null: at \
                    every frame that comes."
            },
            "zones": {
                "type": "array",
                "maxItems": MAX_ZONES,
                "items": zone_schema(),
                "default": [],
                "description": "Parts of the picture. What enters and leaves one is an event, and \
                    is counted."
            },
            "count_objects": {
                "type": "boolean",
                "default": default.count_objects,
                "description": "Whether the objects that enter and leave the picture are counted, \
                    by label."
            }
        }
    })
}

fn zone_schema() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": ["name", "polygon"],
        "properties": {
            "name": {
                "type": "string", "minLength": 1, "maxLength": MAX_ZONE_NAME,
                "description": "What events and counts call it. No other zone is called so."
            },
            "polygon": {
                "type": "array",
                "minItems": CORNERS.start(),
                "maxItems": CORNERS.end(),
                "items": {
                    "type": "array",
                    "items": { "type": "number", "minimum": 0, "maximum": 1 },
                    "minItems": 2,
                    "maxItems": 2
                },
                "description": "The corners in turn, x and y in parts of the picture: [0,0] is \
                    its upper left."
            },
            "labels": {
                "type": "array",
                "items": { "enum": COCO_80.to_vec() },
                "default": [],
                "description": "What it is about. None: all that is looked for."
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::testing::Schema;

    #[test]
    fn every_setting_is_optional() {
        let settings = Settings::read("{}").unwrap();
        assert_eq!(
            (settings.model.as_str(), settings.score, settings.iou),
            ("nanodet-g-416", 0.40, 0.50)
        );
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
            (
                r#"{"labels":["xyzzy"]}"#,
                "settings.labels[0]: no label \"xyzzy\"; there are \"person\", ",
            ),
            (r#"{"labels":"person"}"#, "settings.labels: "),
            (r#"{"model":"yolo"}"#, "nanodet-g-320"),
            (r#"{"treshold":0.4}"#, "unknown field `treshold`"),
            (r#"{"zones":[{"name":"a"}]}"#, "settings.zones[0]: missing field `polygon`"),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0]]}]}"#,
                "settings.zones[0].polygon: 2 corners ",
            ),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,1.1]]}]}"#,
                "settings.zones[0].polygon[2]: [1.0, 1.1] ",
            ),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[0.5,0.5],[1,1]]}]}"#,
                "settings.zones[0].polygon: has no area",
            ),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,1,1]]}]}"#,
                "settings.zones[0].polygon[2]",
            ),
            (
                r#"{"zones":[{"name":"","polygon":[[0,0],[1,0],[1,1]]}]}"#,
                "settings.zones[0].name: \"\" ",
            ),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,1]]},{"name":"a","polygon":[[0,0],[1,0],[0,1]]}]}"#,
                "settings.zones[1].name: another zone is called \"a\" too",
            ),
            (
                r#"{"labels":["person"],"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,1]],"labels":["car"]}]}"#,
                "settings.zones[0].labels[0]: no label \"car\"; there are \"person\"",
            ),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,1]],"line":1}]}"#,
                "settings.zones[0].line: unknown field",
            ),
            (r#"{"count_objects":1}"#, "settings.count_objects: "),
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
        let defaults: serde_json::Map<_, _> = properties
            .iter()
            .map(|(name, property)| (name.clone(), property["default"].clone()))
            .collect();
        let settings = Settings::read(&Value::Object(defaults.clone()).to_string()).unwrap();
        assert_eq!(settings, Settings::read("{}").unwrap());
        assert_eq!(defaults["score"].to_string(), "0.4");
        // The error for an unknown field lists all known ones.
        let error = Settings::read(r#"{"?":0}"#).unwrap_err();
        assert_eq!(error.matches('`').count(), 2 * (properties.len() + 1), "{error}");
        assert!(properties.keys().all(|name| error.contains(&format!("`{name}`"))), "{error}");
    }

    #[test]
    fn there_are_no_more_zones_than_a_look_has_time_for() {
        let zones = |count: usize| {
            let zone =
                |n| json!({ "name": format!("zone {n}"), "polygon": [[0, 0], [1, 0], [1, 1]] });
            json!({ "zones": (0..count).map(zone).collect::<Vec<_>>() }).to_string()
        };
        assert_eq!(Settings::read(&zones(MAX_ZONES)).unwrap().zones.len(), MAX_ZONES);
        assert_eq!(
            Settings::read(&zones(MAX_ZONES + 1)).unwrap_err(),
            "settings.zones: 33 are more than 32"
        );
        let schema = Schema::read(&schema().to_string()).unwrap();
        assert_eq!(schema.check(&zones(MAX_ZONES)), Ok(()));
        assert!(schema.check(&zones(MAX_ZONES + 1)).is_err());
    }

    #[test]
    fn the_largest_settings_fit_the_schema() {
        let corner = |n: usize| {
            let (sin, cos) = (n as f64 / *CORNERS.end() as f64 * std::f64::consts::TAU).sin_cos();
            [0.5 + sin / 2.0, 0.5 + cos / 2.0]
        };
        let polygon: Vec<_> = (0..*CORNERS.end()).map(corner).collect();
        let zone = |n: usize| {
            let name = format!("{n:é>MAX_ZONE_NAME$}");
            json!({ "name": name, "polygon": polygon, "labels": COCO_80.to_vec() })
        };
        let largest = json!({
            "model": "nanodet-g-416", "score": 1, "iou": 1, "labels": COCO_80.to_vec(),
            "max_results_per_second": 1e9, "count_objects": true,
            "zones": (0..MAX_ZONES).map(zone).collect::<Vec<_>>()
        });
        let largest = largest.to_string();
        assert_eq!(Settings::read(&largest).map(|settings| settings.zones.len()), Ok(MAX_ZONES));
        assert_eq!(Schema::read(&schema().to_string()).unwrap().check(&largest), Ok(()));
    }

    #[test]
    fn the_schema_takes_what_the_settings_take_and_refuses_the_rest() {
        let schema = Schema::read(&schema().to_string()).unwrap();
        let every_key = r#"{"model":"nanodet-g-320","score":0.25,"iou":0.3,"labels":["person","car"],
            "max_results_per_second":0.5,"count_objects":true,
            "zones":[{"name":"door","polygon":[[0,0],[0.5,0.25],[1,1]],"labels":["person"]},
                     {"name":"yard","polygon":[[0,0],[1,0],[1,1],[0,1]]}]}"#;
        for settings in
            ["{}", r#"{"score":1,"labels":[],"max_results_per_second":null,"zones":[]}"#, every_key]
        {
            assert_eq!(schema.check(settings), Ok(()));
            assert!(Settings::read(settings).is_ok(), "{settings}");
        }
        let wrong = [
            (r#"{"score":9}"#, ".score"),
            (r#"{"iou":0}"#, ".iou"),
            (r#"{"model":"yolo"}"#, ".model"),
            (r#"{"labels":["persn"]}"#, ".labels[0]"),
            (r#"{"max_results_per_second":0}"#, ".max_results_per_second"),
            (r#"{"treshold":0.4}"#, "treshold"),
            (r#"{"zones":[{"name":"a"}]}"#, ".zones[0]"),
            (r#"{"zones":[{"name":"","polygon":[[0,0],[1,0],[1,1]]}]}"#, ".zones[0].name"),
            (r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0]]}]}"#, ".zones[0].polygon"),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,-1]]}]}"#,
                ".zones[0].polygon[2][1]",
            ),
            (r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1]]}]}"#, ".zones[0].polygon[2]"),
            (r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,1]],"line":1}]}"#, "line"),
            (r#"{"count_objects":"all"}"#, ".count_objects"),
        ];
        for (settings, place) in wrong {
            assert!(schema.check(settings).is_err_and(|error| error.contains(place)), "{settings}");
            assert!(Settings::read(settings).is_err(), "{settings}");
        }
    }
}
