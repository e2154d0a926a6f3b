//! The pipeline's settings: as they are written, and what they mean.

use ocelli_sdk::labels::{self, COCO_80, Classes};
use ocelli_sdk::lines::{Line, MAX_LINES};
use ocelli_sdk::zones::{self, CORNERS, MAX_ZONE_NAME, MAX_ZONES, Zone};
use ocelli_sdk::{nanodet, settings};
use serde_json::{Value, json};

use crate::objects::Labels;

/// ByteTrack's lower bound: below this score a detection says nothing even where a track is
/// expected.
const LOW_SCORE: f32 = 0.1;

/// Runs of the model a second in budget mode. Measured on a clip with ground truth at 10 frames a
/// second, MOTA and the recall of moving people are 99 % and more of those of the model on every
/// frame then, 98 % with 2 runs and 93 % with one.
const RUNS_PER_SECOND: f64 = 3.3;

/// Least and largest side of an event's picture: a thumbnail, and what a camera shows.
const LEAST_SIDE: u32 = 16;
const MAX_SIDE: u32 = 4096;

settings! {
    /// Settings of object-detect.
    struct RawSettings {
        /// The detector: any model that describes itself. Smaller or int8: faster, a little less
        /// exact.
        model: String = nanodet::DEFAULT.name.into(), not_empty();
        /// Detections of this score and more are reported.
        score: f32 = 0.4, above(0).up_to(1);
        /// Of two boxes of one label that overlap by more than this, the better stands.
        iou: f32 = 0.5, above(0).up_to(1);
        /// Labels to look for. None: all.
        labels: Vec<String> = Vec::new();
        /// Look at no more frames than this a second of the stream. Null: at every frame that
        /// comes.
        max_results_per_second: Option<f64> = None, above(0);
        /// every: the model runs for every frame that is looked at. budget: as often as the host
        /// has time; between, boxes follow their pixels.
        mode: Mode = Mode::Every;
        /// In budget mode: runs of the model a second, at most, where something moves.
        runs_per_second: f64 = RUNS_PER_SECOND, above(0);
        /// Parts of the picture. What enters and leaves one is an event, and is counted.
        zones: Vec<RawZone> = Vec::new(), count(0..=MAX_ZONES);
        /// Lines across the picture. What crosses one is an event, and is counted.
        lines: Vec<RawLine> = Vec::new(), count(0..=MAX_LINES);
        /// Whether the objects that enter and leave the picture are counted, by label.
        count_objects: bool = false;
        /// The pictures that events have. Null: none.
        pictures: Option<Pictures> = None;
    }
}

settings! {
    /// For which frames the model runs.
    pub enum Mode {
        /// For every one that is looked at.
        Every = "every",
        /// For those for which the host has time.
        Budget = "budget",
    }
}

settings! {
    /// What an event's picture shows.
    pub enum Shown {
        /// The object with its surroundings.
        Crop = "crop",
        /// The whole frame.
        Frame = "frame",
    }
}

settings! {
    /// The events that have pictures: those of objects that are in the picture then.
    pub enum PicturedEvent {
        Entered = "entered",
        ZoneEntered = "zone_entered",
        ZoneLeft = "zone_left",
        LineCrossed = "line_crossed",
    }
}

settings! {
    /// The pictures that events have.
    pub struct Pictures {
        /// crop: the object with its surroundings. frame: the whole frame.
        pub of: Shown = Shown::Crop;
        /// Longest side in pixels; larger pictures are made smaller.
        pub size: u32 = 640, at_least(LEAST_SIDE).up_to(MAX_SIDE);
        /// That of JPEG, 1 to 100.
        pub quality: u8 = 80, at_least(1).up_to(100);
        /// Events that have one.
        pub events: Vec<PicturedEvent> = vec![
            PicturedEvent::Entered, PicturedEvent::ZoneEntered, PicturedEvent::LineCrossed,
        ], count(1..=4);
    }
}

settings! {
    struct RawZone {
        /// What events and counts call it. No other zone is called so.
        name: String, count(1..=MAX_ZONE_NAME) => |name, path| zones::check_name(name, path);
        /// The corners in turn, x and y in parts of the picture: [0,0] is its upper left.
        polygon: Vec<[f32; 2]>, count(*CORNERS.start()..=*CORNERS.end())
            .each(each(at_least(0).up_to(1)))
            => |polygon, path| zones::check_polygon(polygon, path);
        /// What it is about. None: all that is looked for.
        labels: Vec<String> = Vec::new();
    }
}

settings! {
    struct RawLine {
        /// What events and counts call it. No other line or zone is called so.
        name: String, count(1..=MAX_ZONE_NAME) => |name, path| zones::check_name(name, path);
        /// Its two ends, x and y in parts of the picture. Left and right are those of somebody who
        /// looks from the first to the second.
        ends: Vec<[f32; 2]>, count(2..=2).each(each(at_least(0).up_to(1)));
        /// What it is about. None: all that is looked for.
        labels: Vec<String> = Vec::new();
    }
}

/// Settings that are sound.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The detector's name in the host's catalogue.
    pub model: String,
    /// The labels of its classes.
    pub labels: Labels,
    /// Detections of this score and more are reported. Above 0, up to 1.
    pub score: f32,
    /// Non-maximum suppression: of two boxes of a class that overlap by more than this IoU the
    /// better stands. Above 0, up to 1.
    pub iou: f32,
    /// Above 0. None: every frame that comes is looked at.
    pub max_results_per_second: Option<f64>,
    /// Most runs of the model a second, above 0, in budget mode.
    pub budget: Option<f64>,
    /// Each with a name of its own.
    pub zones: Vec<Zone>,
    /// Each with a name of its own, which no zone has either.
    pub lines: Vec<Line>,
    /// Whether the objects that enter and leave the picture are counted.
    pub count_objects: bool,
    /// The pictures that events have.
    pub pictures: Option<Pictures>,
    filter: Filter,
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

/// The detector that the settings name.
///
/// # Errors
/// Settings that cannot be read.
pub fn model(json: &str) -> Result<String, String> {
    settings::read::<RawSettings>(json).map(|raw| raw.model)
}

impl Settings {
    /// Reads and checks the settings for a detector with COCO's labels. All are optional.
    ///
    /// # Errors
    /// Names the setting, its value and what would be right.
    pub fn read(json: &str) -> Result<Self, String> {
        Self::read_for(json, Labels::coco())
    }

    /// As [`Settings::read`], for a detector with these labels.
    ///
    /// # Errors
    /// As of [`Settings::read`].
    pub fn read_for(json: &str, labels: Labels) -> Result<Self, String> {
        let raw: RawSettings = settings::read(json)?;
        labels::check(&raw.labels, labels.all(), "settings.labels")?;
        let zones = zones(&raw, labels.all())?;
        let lines = lines(&raw, labels.all())?;
        let filter = Filter {
            least_score: raw.score.min(LOW_SCORE),
            classes: Classes::named(&raw.labels, labels.all()),
        };
        let RawSettings { model, score, iou, max_results_per_second, .. } = raw;
        let RawSettings { count_objects, pictures, mode, runs_per_second, .. } = raw;
        let budget = (mode == Mode::Budget).then_some(runs_per_second);
        Ok(Self {
            model,
            labels,
            score,
            iou,
            max_results_per_second,
            budget,
            zones,
            lines,
            count_objects,
            pictures,
            filter,
        })
    }

    /// The part of the model's outputs that the pipeline uses.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }
}

/// The zones, with what only all settings together say: that each has a name of its own, and that
/// it is about labels that are looked for.
fn zones(raw: &RawSettings, known: &[String]) -> Result<Vec<Zone>, String> {
    let mut zones: Vec<Zone> = Vec::new();
    for (n, RawZone { name, polygon, labels }) in raw.zones.iter().enumerate() {
        if zones.iter().any(|zone| zone.name == *name) {
            return Err(format!("settings.zones[{n}].name: another zone is called {name:?} too"));
        }
        let among = if raw.labels.is_empty() { known } else { &raw.labels };
        labels::check(labels, among, &format!("settings.zones[{n}].labels"))?;
        let classes = Classes::named(labels, known);
        zones.push(Zone { name: name.clone(), polygon: polygon.clone(), classes });
    }
    Ok(zones)
}

/// The lines, likewise. Their names are apart from those of the zones too: counts go by them.
fn lines(raw: &RawSettings, known: &[String]) -> Result<Vec<Line>, String> {
    let mut lines: Vec<Line> = Vec::new();
    for (n, RawLine { name, ends, labels }) in raw.lines.iter().enumerate() {
        let path = format!("settings.lines[{n}]");
        let is_zone = raw.zones.iter().any(|zone| zone.name == *name);
        if is_zone || lines.iter().any(|line| line.name == *name) {
            let other = if is_zone { "a zone" } else { "another line" };
            return Err(format!("{path}.name: {other} is called {name:?} too"));
        }
        let among = if raw.labels.is_empty() { known } else { &raw.labels };
        labels::check(labels, among, &format!("{path}.labels"))?;
        let &[from, to] = ends.as_slice() else {
            return Err(format!("{path}.ends: {} are not 2", ends.len()));
        };
        let line = Line { name: name.clone(), from, to, classes: Classes::named(labels, known) };
        line.check(&path)?;
        lines.push(line);
    }
    Ok(lines)
}

/// The JSON Schema of the settings. The labels of the models that are known here are in it; those
/// of others are the model's own, which only the host knows.
#[must_use]
pub fn schema() -> Value {
    let mut schema = settings::schema::<RawSettings>();
    let labels = json!({ "items": { "enum": COCO_80.to_vec() } });
    let known = json!([{
        "if": { "properties": { "model": { "enum": nanodet::KNOWN.map(|v| v.name) } } },
        "then": { "properties": {
            "labels": labels,
            "zones": { "items": { "properties": { "labels": labels } } },
            "lines": { "items": { "properties": { "labels": labels } } }
        } }
    }]);
    if let Value::Object(schema) = &mut schema {
        schema.insert("allOf".into(), known);
    }
    schema
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
            ("nanodet-g-320-int8", 0.40, 0.50)
        );
        assert_eq!((settings.max_results_per_second, settings.budget), (None, None));
        let budget = |json| Settings::read(json).unwrap().budget;
        assert_eq!(budget(r#"{"mode":"budget"}"#), Some(3.3));
        assert_eq!(budget(r#"{"mode":"budget","runs_per_second":1}"#), Some(1.0));
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
            (r#"{"mode":"all"}"#, "settings.mode: unknown variant `all`"),
            (r#"{"runs_per_second":0}"#, "settings.runs_per_second: 0 "),
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
            (r#"{"model":""}"#, "settings.model: "),
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
            (r#"{"lines":[{"name":"a"}]}"#, "settings.lines[0]: missing field `ends`"),
            (r#"{"lines":[{"name":"a","ends":[[0,0]]}]}"#, "settings.lines[0].ends: 1 "),
            (
                r#"{"lines":[{"name":"a","ends":[[0,0],[1,1.1]]}]}"#,
                "settings.lines[0].ends[1][1]: 1.1 ",
            ),
            (
                r#"{"lines":[{"name":"a","ends":[[0.5,0.5],[0.5,0.5]]}]}"#,
                "settings.lines[0]: has no length",
            ),
            (
                r#"{"lines":[{"name":"a","ends":[[0,0],[1,1]]},{"name":"a","ends":[[0,0],[1,0]]}]}"#,
                "settings.lines[1].name: another line is called \"a\" too",
            ),
            (
                r#"{"zones":[{"name":"a","polygon":[[0,0],[1,0],[1,1]]}],
                    "lines":[{"name":"a","ends":[[0,0],[1,1]]}]}"#,
                "settings.lines[0].name: a zone is called \"a\" too",
            ),
            (
                r#"{"labels":["person"],"lines":[{"name":"a","ends":[[0,0],[1,1]],"labels":["car"]}]}"#,
                "settings.lines[0].labels[0]: no label \"car\"; there are \"person\"",
            ),
            (r#"{"count_objects":1}"#, "settings.count_objects: "),
            (r#"{"pictures":{"of":"zone"}}"#, "settings.pictures.of: unknown variant `zone`"),
            (r#"{"pictures":{"size":8}}"#, "settings.pictures.size: 8 is not 16 to 4096"),
            (r#"{"pictures":{"quality":0}}"#, "settings.pictures.quality: 0 is not 1 to 100"),
            (r#"{"pictures":{"events":[]}}"#, "settings.pictures.events: 0 are fewer than 1"),
            (r#"{"pictures":{"events":["left"]}}"#, "settings.pictures.events[0]: "),
        ];
        for (json, expected) in cases {
            let error = Settings::read(json).unwrap_err();
            assert!(error.contains(expected), "{json} gave {error:?}, not {expected:?}");
        }
    }

    #[test]
    fn labels_are_those_of_the_model() {
        let dishes = || Labels::new(&["cup".to_owned(), "plate".to_owned()]);
        let read = |json: &str| Settings::read_for(json, dishes());
        let zone = r#"{"name":"a","polygon":[[0,0],[1,0],[1,1]],"labels":["plate"]}"#;
        let settings = format!(r#"{{"model":"dishes","labels":["plate"],"zones":[{zone}]}}"#);
        let found = read(&settings).unwrap();
        assert_eq!([0, 1, 2].map(|class| found.filter().wants(class)), [false, true, false]);
        assert!(!found.zones[0].classes.wants(0) && found.zones[0].classes.wants(1));
        assert_eq!([0, 2].map(|class| found.labels.of(class).to_owned()), ["cup", "unknown"]);
        assert_eq!(Schema::read(&schema().to_string()).unwrap().check(&settings), Ok(()));
        let error = read(r#"{"model":"dishes","labels":["person"]}"#).unwrap_err();
        assert!(error.contains("settings.labels[0]: no label \"person\"; there are"), "{error}");
        assert_eq!(model(&settings).as_deref(), Ok("dishes"));
        assert_eq!(model("{}").as_deref(), Ok("nanodet-g-320-int8"));
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
        let line = |n: usize| {
            let name = format!("{n:ü>MAX_ZONE_NAME$}");
            json!({ "name": name, "ends": [[0.123, 0.0], [0.5, 1.0]], "labels": COCO_80.to_vec() })
        };
        let largest = json!({
            "model": "nanodet-g-416", "score": 1, "iou": 1, "labels": COCO_80.to_vec(),
            "max_results_per_second": 1e9, "count_objects": true,
            "mode": "budget", "runs_per_second": 1e9,
            "pictures": {
                "of": "frame", "size": MAX_SIDE, "quality": 100,
                "events": ["entered", "zone_entered", "zone_left", "line_crossed"]
            },
            "lines": (0..MAX_LINES).map(line).collect::<Vec<_>>(),
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
            "max_results_per_second":0.5,"count_objects":true,"mode":"budget","runs_per_second":2.5,
            "pictures":{"of":"crop","size":320,"quality":70,"events":["entered","zone_left"]},
            "zones":[{"name":"door","polygon":[[0,0],[0.5,0.25],[1,1]],"labels":["person"]},
                     {"name":"yard","polygon":[[0,0],[1,0],[1,1],[0,1]]}],
            "lines":[{"name":"gate","ends":[[0.5,0],[0.5,1]],"labels":["person"]}]}"#;
        for settings in
            ["{}", r#"{"score":1,"labels":[],"max_results_per_second":null,"zones":[]}"#, every_key]
        {
            assert_eq!(schema.check(settings), Ok(()));
            assert!(Settings::read(settings).is_ok(), "{settings}");
        }
        let wrong = [
            (r#"{"score":9}"#, ".score"),
            (r#"{"iou":0}"#, ".iou"),
            (r#"{"model":""}"#, ".model"),
            (r#"{"labels":["persn"]}"#, ".labels[0]"),
            (r#"{"max_results_per_second":0}"#, ".max_results_per_second"),
            (r#"{"mode":"Budget"}"#, ".mode"),
            (r#"{"runs_per_second":0}"#, ".runs_per_second"),
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
            (r#"{"lines":[{"name":"a","ends":[[0,0],[0,1],[1,1]]}]}"#, ".lines[0].ends"),
            (r#"{"count_objects":"all"}"#, ".count_objects"),
            (r#"{"pictures":{"size":5000}}"#, ".pictures.size"),
            (r#"{"pictures":{"kind":"crop"}}"#, "kind"),
        ];
        for (settings, place) in wrong {
            assert!(schema.check(settings).is_err_and(|error| error.contains(place)), "{settings}");
            assert!(Settings::read(settings).is_err(), "{settings}");
        }
    }
}
