//! Frigate's config: `cameras`, each with inputs that have roles; zones, labels and rates as
//! settings of the pipeline.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::stream::{self, ImportedStream, Unusable};
use super::variables::Variables;
use super::{DEFAULT_PIPELINE, Import, ImportError, ImportedCamera, LeftOut, go2rtc};

/// The labels of the default model of `object-detect`.
static LABELS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let model = include_str!("../../../models/nanodet-g-320-int8/model.toml");
    let model: Value = toml::from_str(model).unwrap_or_default();
    texts(model.get("labels"))
});

/// Most zones that `object-detect` takes, and most corners of one.
const MAX_ZONES: usize = 32;
const MAX_CORNERS: usize = 32;

/// Sections of a camera, and of the file, that say what is analysed or kept, and have no entry
/// here. Each is named if it is there.
const CAMERA_SECTIONS: [&str; 8] =
    ["audio", "face_recognition", "lpr", "motion", "onvif", "record", "review", "snapshots"];
const FILE_SECTIONS: [(&str, &str); 7] = [
    ("mqtt", "see [mqtt] of the config"),
    ("detectors", "see [inference]"),
    ("model", "see `ocelli models add`"),
    ("record", "recordings are not kept"),
    ("auth", "see `ocelli token new`"),
    ("semantic_search", "there is none"),
    ("genai", "there is none"),
];

pub(super) fn read(
    document: &Value,
    pipeline: &str,
    variables: &Variables,
) -> Result<Import, ImportError> {
    let cameras = document.get("cameras").and_then(Value::as_object);
    let cameras = cameras.filter(|cameras| !cameras.is_empty());
    let cameras = cameras.ok_or(ImportError::Empty { section: "cameras" })?;
    let own = document.get("environment_vars").and_then(Value::as_object);
    let own = own.into_iter().flatten();
    let file = FrigateFile {
        document,
        streams: document.get("go2rtc").and_then(go2rtc::streams),
        variables: variables
            .with_defaults(own.filter_map(|(name, value)| Some((name.clone(), scalar(value)?)))),
        pipeline,
    };
    let mut import = Import::default();
    for (name, camera) in cameras {
        match file.camera(camera) {
            Ok((table, notes)) => {
                import.cameras.push(ImportedCamera { id: name.clone(), table, notes });
            }
            Err(reason) => import.left_out.push(LeftOut::new(name, &reason)),
        }
    }
    for (section, instead) in FILE_SECTIONS {
        if document.get(section).is_some_and(|value| !value.is_null()) {
            import
                .notes
                .push(format!("Frigate's section `{section}` is not carried over: {instead}"));
        }
    }
    Ok(import)
}

/// What its cameras share.
struct FrigateFile<'a> {
    document: &'a Value,
    /// Those of the go2rtc inside.
    streams: Option<&'a Map<String, Value>>,
    variables: Variables,
    pipeline: &'a str,
}

impl FrigateFile<'_> {
    /// A camera's entry without its name, and its notes.
    fn camera(&self, camera: &Value) -> Result<(Map<String, Value>, Vec<String>), Unusable> {
        if camera.get("enabled").is_some_and(is_off) {
            return Err(Unusable::NotEnabled);
        }
        let inputs = camera.pointer("/ffmpeg/inputs").and_then(Value::as_array);
        let inputs = inputs.filter(|inputs| !inputs.is_empty()).ok_or(Unusable::NoInputs)?;
        let with_role = |role: &str| {
            inputs.iter().find(|input| texts(input.get("roles")).iter().any(|own| own == role))
        };
        let detect = with_role("detect").or_else(|| inputs.first()).ok_or(Unusable::NoInputs)?;
        let ImportedStream { mut keys, mut notes } = self.input(detect)?;
        if let Some(record) = with_role("record").filter(|record| !std::ptr::eq(*record, detect)) {
            self.add_main_stream(record, &mut keys, &mut notes);
        }
        if self.detect(camera, "enabled").is_some_and(is_off) {
            notes.push("Frigate does not detect on this camera, this entry does".to_owned());
        }
        let settings = self.settings(camera, &mut notes);
        keys.insert("pipeline".to_owned(), self.pipeline.into());
        if !settings.is_empty() {
            keys.insert("settings".to_owned(), settings.into());
        }
        let left: Vec<&str> = CAMERA_SECTIONS
            .into_iter()
            .filter(|section| camera.get(section).is_some_and(|value| !value.is_null()))
            .collect();
        if !left.is_empty() {
            notes.push(format!("without Frigate's {}", left.join(", ")));
        }
        Ok((keys, notes))
    }

    /// Makes the input with the role `record` the camera's main stream, and the one that is
    /// analysed its substream.
    fn add_main_stream(
        &self,
        record: &Value,
        keys: &mut Map<String, Value>,
        notes: &mut Vec<String>,
    ) {
        let main = match self.input(record) {
            Ok(main) => main,
            Err(reason) => {
                notes.push(format!("without the input with the role `record`: {reason}"));
                return;
            }
        };
        let of = |keys: &Map<String, Value>, key: &str| keys.get(key).cloned();
        let (source, substream) = (of(&main.keys, "source"), of(keys, "source"));
        if source == substream {
            return;
        }
        // A camera's other keys count for both of its streams.
        if of(&main.keys, "transport") != of(keys, "transport") {
            let reason = "it has another transport than the one with `detect`";
            notes.push(format!("without the input with the role `record`: {reason}"));
            return;
        }
        notes.extend(main.notes);
        for (key, value) in [("source", source), ("substream", substream)] {
            keys.extend(value.map(|value| (key.to_owned(), value)));
        }
    }

    /// An input: a camera's own address, or a restream of the go2rtc inside.
    fn input(&self, input: &Value) -> Result<ImportedStream, Unusable> {
        let path = input.get("path").and_then(Value::as_str).ok_or(Unusable::NoPath)?;
        let Some(name) = stream::restream(path) else {
            return stream::stream(path, &self.variables);
        };
        let sources = self.streams.and_then(|streams| streams.get(name));
        let sources = sources.ok_or(Unusable::UnknownRestream)?;
        stream::first_of(sources, &self.variables)
    }

    /// A key of `detect`: the camera's own, else that of the file.
    fn detect<'a>(&'a self, camera: &'a Value, key: &str) -> Option<&'a Value> {
        let key = |of: &'a Value| of.get("detect")?.get(key);
        key(camera).or_else(|| key(self.document))
    }

    /// The settings of `object-detect`; none for another pipeline, whose names nobody knows here.
    fn settings(&self, camera: &Value, notes: &mut Vec<String>) -> Map<String, Value> {
        let mut settings = Map::new();
        if self.pipeline != DEFAULT_PIPELINE {
            return settings;
        }
        let track = |of: &Value| of.pointer("/objects/track").map(|labels| texts(Some(labels)));
        // Frigate looks for people where nothing else is asked for.
        let wanted = track(camera).or_else(|| track(self.document));
        let labels = known(wanted.unwrap_or_else(|| vec!["person".to_owned()]), notes);
        if !labels.is_empty() {
            settings.insert("labels".to_owned(), labels.clone().into());
        }
        if let Some(fps) =
            self.detect(camera, "fps").and_then(Value::as_f64).filter(|fps| *fps > 0.0)
        {
            settings.insert("max_results_per_second".to_owned(), json!(fps));
        }
        let zones = self.zones(camera, &labels, notes);
        if !zones.is_empty() {
            settings.insert("zones".to_owned(), zones.into());
        }
        settings
    }

    fn zones(&self, camera: &Value, labels: &[String], notes: &mut Vec<String>) -> Vec<Value> {
        let side =
            |key| self.detect(camera, key).and_then(Value::as_f64).filter(|side| *side > 0.0);
        let size = side("width").zip(side("height"));
        let mut zones = Vec::new();
        for (name, zone) in camera.get("zones").and_then(Value::as_object).into_iter().flatten() {
            if zones.len() == MAX_ZONES {
                notes.push(format!("zone {name} is left out: at most {MAX_ZONES}"));
                continue;
            }
            let polygon = match polygon(zone.get("coordinates"), size) {
                Ok(polygon) => polygon,
                Err(reason) => {
                    notes.push(format!("zone {name} is left out: {reason}"));
                    continue;
                }
            };
            let mut entry = Map::new();
            entry.insert("name".to_owned(), name.clone().into());
            entry.insert("polygon".to_owned(), json!(polygon));
            let own = texts(zone.get("objects"));
            let own: Vec<String> = own
                .into_iter()
                .filter(|label| {
                    if labels.is_empty() { LABELS.contains(label) } else { labels.contains(label) }
                })
                .collect();
            if !own.is_empty() {
                entry.insert("labels".to_owned(), own.into());
            }
            zones.push(entry.into());
        }
        zones
    }
}

/// Leaves out labels that the model does not have, and names them.
fn known(labels: Vec<String>, notes: &mut Vec<String>) -> Vec<String> {
    let (known, unknown): (Vec<_>, Vec<_>) =
        labels.into_iter().partition(|label| LABELS.contains(label));
    if !unknown.is_empty() {
        let nothing_left = if known.is_empty() { "; it looks for all labels instead" } else { "" };
        let unknown = unknown.join(", ");
        notes.push(format!("without labels that the model does not have: {unknown}{nothing_left}"));
    }
    known
}

/// A zone's corners in parts of the picture. Frigate writes `x,y,x,y,...` as one text or as a list,
/// in parts of the picture or in pixels of the size at which it detects.
fn polygon(
    coordinates: Option<&Value>,
    size: Option<(f64, f64)>,
) -> Result<Vec<[f64; 2]>, &'static str> {
    let texts = match coordinates {
        Some(Value::String(text)) => text.split(',').map(str::to_owned).collect(),
        Some(Value::Array(parts)) => {
            let parts = parts.iter().filter_map(scalar).collect::<Vec<_>>().join(",");
            parts.split(',').map(str::to_owned).collect::<Vec<_>>()
        }
        _ => return Err("it has no coordinates"),
    };
    let numbers: Option<Vec<f64>> = texts
        .iter()
        .map(|text| text.trim().parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0))
        .collect();
    let numbers = numbers.ok_or("its coordinates are not numbers")?;
    let (corners, odd) = numbers.as_chunks::<2>();
    if !odd.is_empty() || !(3..=MAX_CORNERS).contains(&corners.len()) {
        return Err("its coordinates are not 3 to 32 corners");
    }
    let (width, height) = if numbers.iter().all(|n| *n <= 1.0) {
        (1.0, 1.0)
    } else {
        size.ok_or("its corners are pixels, and detect.width and detect.height are not there")?
    };
    // Four digits are a tenth of a pixel of the largest picture's width.
    let part = |n: f64, side: f64| ((n / side).min(1.0) * 1e4).round() / 1e4;
    Ok(corners.iter().map(|[x, y]| [part(*x, width), part(*y, height)]).collect())
}

/// A text, or a list of texts.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(values)) => values.iter().filter_map(scalar).collect(),
        Some(value) => scalar(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// A text, a number or a truth as a text.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// Whether a switch is off. YAML 1.1 has more words for it than JSON.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Bool(on) => !on,
        Value::String(text) => ["false", "no", "off"].contains(&text.to_ascii_lowercase().as_str()),
        _ => false,
    }
}
