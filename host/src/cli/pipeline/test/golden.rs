//! The golden file of a test: what a pipeline found in each frame when its author looked at it and
//! found it good. A line of JSON says what it is of, then each frame has one, as `ocelli pipeline
//! run --json` writes them, without times.

use std::io::BufRead;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::super::draft::DraftFile;
use super::TestVerdict;
use crate::playback::FrameLine;
use crate::util::folder::open_regular;

/// The form of these files.
const FORMAT: u32 = 1;

/// Bytes of a golden file that are read: an hour of a busy camera.
const MAX_BYTES: u64 = 256 << 20;

/// Frames that differ of which the words are told.
const TOLD: usize = 5;

/// Numbers in the data of events that are no integers differ by this part where they are equal:
/// what the order of operations does to sums.
const ROUNDING: f64 = 1e-6;

/// How far numbers may lie from the golden ones: other processors round models' outputs otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Tolerance {
    /// Of scores and of the numbers of embeddings.
    pub(super) score: f64,
    /// Of the sides of boxes, in pixels.
    pub(super) pixels: f64,
}

impl Default for Tolerance {
    fn default() -> Self {
        Self { score: 0.02, pixels: 2.0 }
    }
}

/// What a golden file is of.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct GoldenHeader {
    /// [`FORMAT`].
    ocelli_golden: u32,
    pipeline: String,
    /// The version that made it. Others are held to it.
    version: String,
    /// SHA-256 of the video, or of the pictures.
    footage: String,
    settings: Map<String, Value>,
}

impl GoldenHeader {
    pub(super) fn new(
        pipeline: &str,
        version: &str,
        footage: String,
        settings: Map<String, Value>,
    ) -> Self {
        let (pipeline, version) = (pipeline.to_owned(), version.to_owned());
        Self { ocelli_golden: FORMAT, pipeline, version, footage, settings }
    }
}

/// A golden file.
pub(super) struct Golden {
    path: PathBuf,
    header: GoldenHeader,
    /// A JSON object for each frame.
    lines: Vec<Value>,
}

impl Golden {
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let file = match open_regular(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("there is no golden file {shown}: --bless makes it of what is found now")
            }
            file => file.with_context(|| shown.to_string())?,
        };
        let bytes = file.metadata().with_context(|| shown.to_string())?.len();
        ensure!(bytes <= MAX_BYTES, "{shown} is larger than {} MiB", MAX_BYTES >> 20);
        let mut lines = Vec::new();
        for (line, number) in std::io::BufReader::new(file).lines().zip(1..) {
            let line = line.with_context(|| shown.to_string())?;
            let value: Value = serde_json::from_str(&line)
                .with_context(|| format!("{shown}: line {number} is not JSON"))?;
            lines.push(value);
        }
        ensure!(!lines.is_empty(), "{shown} is empty: --bless makes it anew");
        let header = lines.remove(0);
        match header.get("ocelli_golden").and_then(Value::as_u64) {
            Some(format) if format == u64::from(FORMAT) => {}
            Some(other) => bail!(
                "{shown} is a golden file of form {other}, and this program reads form {FORMAT}: \
                 --bless makes it anew"
            ),
            None => bail!("{shown} is no golden file: its first line does not say so"),
        }
        let header = serde_json::from_value(header)
            .with_context(|| format!("{shown}: line 1 is not what a golden file begins with"))?;
        Ok(Self { path: path.to_owned(), header, lines })
    }

    /// Holds what was found to the file. Fails where the file is of something else.
    pub(super) fn judge(
        &self,
        found: &GoldenHeader,
        lines: &[FrameLine],
        tolerance: &Tolerance,
    ) -> anyhow::Result<TestVerdict> {
        let shown = self.path.display();
        let GoldenHeader { pipeline, version, footage, settings, .. } = &self.header;
        ensure!(
            *pipeline == found.pipeline,
            "{shown} is of the pipeline {pipeline:?}, and this one is {:?}",
            found.pipeline
        );
        ensure!(*footage == found.footage, "{shown} is of other frames: --bless makes it anew");
        ensure!(*settings == found.settings, "{shown} is of other settings: --bless makes it anew");
        let lines = values(lines)?;
        let mut differences = Vec::new();
        for (expected, found) in self.lines.iter().zip(&lines) {
            differences.extend(difference(expected, found, tolerance).map(|words| {
                format!("frame {}: {words}", expected.get("frame").unwrap_or(&Value::Null))
            }));
        }
        if self.lines.len() != lines.len() {
            let (expected, found) = (self.lines.len(), lines.len());
            differences.push(format!("{expected} frames expected, {found} found"));
        }
        Ok(match differences.len() {
            0 => TestVerdict::Good(format!(
                "{} frames as in {shown}, made by version {version}",
                lines.len()
            )),
            many => {
                differences.truncate(TOLD);
                let more = many.saturating_sub(TOLD);
                if more > 0 {
                    differences.push(format!("and {more} more"));
                }
                TestVerdict::Bad(differences.join("\n"))
            }
        })
    }
}

/// Writes a golden file.
pub(super) fn write(path: &Path, header: &GoldenHeader, lines: &[FrameLine]) -> anyhow::Result<()> {
    let mut file = DraftFile::new(path)?;
    file.write(format!("{}\n", serde_json::to_string(header)?).as_bytes())?;
    for line in lines {
        file.write(format!("{}\n", serde_json::to_string(line)?).as_bytes())?;
    }
    file.finish().map(drop)
}

/// The first difference of two runs, which are to be equal.
pub(super) fn first_difference(
    first: &[FrameLine],
    second: &[FrameLine],
) -> anyhow::Result<Option<String>> {
    const NONE: Tolerance = Tolerance { score: 0.0, pixels: 0.0 };
    let (first, second) = (values(first)?, values(second)?);
    let differing = first.iter().zip(&second).find(|(expected, found)| expected != found);
    if let Some((expected, found)) = differing {
        let frame = expected.get("frame").unwrap_or(&Value::Null);
        let words = difference(expected, found, &NONE).unwrap_or_else(|| {
            // The same detections in another order.
            format!("{expected} expected, {found} found")
        });
        return Ok(Some(format!("frame {frame}: {words}")));
    }
    let (expected, found) = (first.len(), second.len());
    Ok((expected != found).then(|| format!("{expected} frames expected, {found} found")))
}

fn values(lines: &[FrameLine]) -> anyhow::Result<Vec<Value>> {
    lines.iter().map(|line| Ok(serde_json::to_value(line)?)).collect()
}

/// How a frame differs from the golden one, in words.
fn difference(expected: &Value, found: &Value, tolerance: &Tolerance) -> Option<String> {
    for member in ["frame", "presentation_ns", "width", "height", "error"] {
        let (wanted, is) = (expected.get(member), found.get(member));
        if wanted != is {
            let shown = |value: Option<&Value>| value.map_or("none".to_owned(), Value::to_string);
            return Some(format!("{member} {} expected, {} found", shown(wanted), shown(is)));
        }
    }
    let list =
        |frame: &'_ Value, member: &str| frame.get(member).and_then(Value::as_array).cloned();
    let difference = match (list(expected, "detections"), list(found, "detections")) {
        (Some(expected), Some(found)) => detections(&expected, &found, tolerance),
        (None, None) => None,
        (None, Some(_)) => Some("it was not to be looked at, and was".to_owned()),
        (Some(_), None) => Some("it was to be looked at, and was not".to_owned()),
    };
    difference.or_else(|| {
        let events = |frame| list(frame, "events").unwrap_or_default();
        events_differ(&events(expected), &events(found), tolerance)
    })
}

/// Detections are the same whatever their order: those of nearly equal scores change places.
fn detections(expected: &[Value], found: &[Value], tolerance: &Tolerance) -> Option<String> {
    let mut left: Vec<&Value> = found.iter().collect();
    for one in expected {
        match left.iter().position(|other| is_same(None, one, other, tolerance)) {
            Some(place) => drop(left.remove(place)),
            None => {
                let near: Vec<_> = left
                    .iter()
                    .filter(|other| other.get("label") == one.get("label"))
                    .map(|other| brief(other))
                    .collect();
                let near = if near.is_empty() { "none".to_owned() } else { near.join(", ") };
                return Some(format!("{} expected; left of that label: {near}", brief(one)));
            }
        }
    }
    left.first().map(|extra| format!("{} found, and not expected", brief(extra)))
}

fn events_differ(expected: &[Value], found: &[Value], tolerance: &Tolerance) -> Option<String> {
    let kinds = |events: &[Value]| -> Vec<String> {
        let kind = |event: &Value| {
            event.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned()
        };
        events.iter().map(kind).collect()
    };
    let (wanted, are) = (kinds(expected), kinds(found));
    if wanted != are {
        return Some(format!("events {wanted:?} expected, {are:?} found"));
    }
    let mut pairs = expected.iter().zip(found);
    let (expected, found) = pairs.find(|(one, other)| !is_same(None, one, other, tolerance))?;
    Some(format!("event {expected} expected, {found} found"))
}

/// Whether two values are the same, as far as the tolerance goes. `member` is the name under which
/// they stand.
fn is_same(member: Option<&str>, expected: &Value, found: &Value, tolerance: &Tolerance) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(found)) => {
            expected.len() == found.len()
                && expected.iter().all(|(name, one)| {
                    let other = found.get(name);
                    // Two encoders of pictures need not agree on a byte.
                    let is_file = matches!(name.as_str(), "digest" | "bytes")
                        && member == Some("attachments");
                    other.is_some_and(|other| {
                        is_file || is_same(Some(name.as_str()), one, other, tolerance)
                    })
                })
        }
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .zip(found)
                    .all(|(one, other)| is_same(member, one, other, tolerance))
        }
        (Value::Number(one), Value::Number(other)) => {
            let (Some(first), Some(second)) = (one.as_f64(), other.as_f64()) else {
                return one == other;
            };
            let most = match member {
                Some("score" | "embedding") => tolerance.score,
                Some("box") => tolerance.pixels,
                _ if one.is_f64() || other.is_f64() => first.abs().max(1.0) * ROUNDING,
                _ => return one == other,
            };
            // Rounded to 4 decimals and 2: a difference of just the tolerance is not above it.
            (first - second).abs() <= most + 1e-9
        }
        (expected, found) => expected == found,
    }
}

/// A detection in a few words.
fn brief(detection: &Value) -> String {
    let member = |name: &str| detection.get(name).cloned().unwrap_or_default();
    let label = member("label");
    let track = match member("track") {
        Value::Null => String::new(),
        track => format!(" #{track}"),
    };
    let label = label.as_str().unwrap_or_default();
    let mut words = format!("{label} {} at {}{track}", member("score"), member("box"));
    if let Value::Object(attributes) = member("attributes") {
        for (name, attribute) in attributes {
            words += &format!(" {name} {}", attribute.get("value").unwrap_or(&Value::Null));
        }
    }
    words
}

#[cfg(test)]
mod tests;
