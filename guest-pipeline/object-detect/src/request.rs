//! Queries and commands to the running pipeline.

use std::collections::BTreeMap;

use ocelli_sdk::lines::Line;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::engine::Engine;
use crate::objects::tracking;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Query {
    /// The tracks that are alive, and how many of each label.
    Tracks,
    /// The counts of objects that entered and left.
    Counts,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Command {
    Reset(Reset),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reset {
    /// Counting begins anew with what is inside.
    Counts,
}

#[derive(Serialize)]
struct Tracks<'a> {
    tracks: Vec<Track<'a>>,
    /// By label; of the tracks above.
    counts: BTreeMap<&'a str, usize>,
    /// There where they cannot be relied on at the present pace.
    #[serde(skip_serializing_if = "Option::is_none")]
    tracking: Option<&'static str>,
}

#[derive(Serialize)]
struct Track<'a> {
    track: u64,
    label: &'a str,
    score: f32,
    /// x, y, width and height in frame pixels, where it was last seen.
    #[serde(rename = "box")]
    bbox: [f32; 4],
    /// Presentation times in seconds.
    first_seen_s: f64,
    last_seen_s: f64,
    /// Whether it is out of sight at present.
    lost: bool,
    /// The zones that it is in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    zones: Vec<InZone<'a>>,
}

#[derive(Serialize)]
struct InZone<'a> {
    zone: &'a str,
    /// Presentation time in seconds.
    since_s: f64,
}

/// Answers `"tracks"` with `{"tracks":[...],"counts":{"person":3}}`, and `"counts"` with
/// `{"zones":[{"zone":"door","labels":{"person":COUNTS}}],"objects":{...}}`, where `COUNTS` is
/// `{"entered":2,"left":1,"inside":1}`; with lines also
/// `"lines":[{"line":"gate","labels":{"person":{"to_right":2,"to_left":1}}}]`.
///
/// # Errors
/// Any other query; the text says which ones there are. A store that fails.
pub fn query(engine: &Engine, request: &str) -> Result<String, String> {
    match read(request)? {
        Query::Tracks => tracks(engine),
        Query::Counts => counts(engine),
    }
}

/// `{"reset":"counts"}` makes the counts begin anew and answers with them.
///
/// # Errors
/// Any other command; the text says which ones there are. A store that fails.
pub fn command(engine: &Engine, request: &str) -> Result<String, String> {
    let Command::Reset(Reset::Counts) = read(request)?;
    engine.counter.reset(&engine.inside())?;
    counts(engine)
}

fn read<T: DeserializeOwned>(request: &str) -> Result<T, String> {
    serde_json::from_str(request).map_err(|e| {
        format!(
            "request not understood: {e}. This pipeline answers the queries \"tracks\" and \
             \"counts\", and takes the command {{\"reset\":\"counts\"}}"
        )
    })
}

fn tracks(engine: &Engine) -> Result<String, String> {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let zones_of = |id| {
        let zones = engine.zones.inside().filter(move |(_, track, _)| *track == id);
        zones.map(|(zone, _, since)| InZone { zone, since_s: seconds(since) }).collect()
    };
    let tracks = engine.tracks();
    let tracks = tracks.iter().map(|t| Track {
        track: t.id,
        label: engine.settings.labels.of(t.class),
        score: t.score,
        bbox: [t.bbox.left, t.bbox.top, t.bbox.width(), t.bbox.height()],
        first_seen_s: seconds(t.first_seen),
        last_seen_s: seconds(t.last_seen),
        lost: t.lost,
        zones: zones_of(t.id),
    });
    let tracks: Vec<_> = tracks.collect();
    let mut counts = BTreeMap::new();
    for track in &tracks {
        *counts.entry(track.label).or_default() += 1;
    }
    let tracking = (!engine.tracker.is_reliable()).then(|| tracking(false));
    serde_json::to_string(&Tracks { tracks, counts, tracking }).map_err(|e| e.to_string())
}

fn counts(engine: &Engine) -> Result<String, String> {
    let mut answer = engine.counter.read()?.answer(&engine.inside());
    if !engine.settings.lines.is_empty() {
        set_lines_apart(&mut answer, &engine.settings.lines);
    }
    if !engine.tracker.is_reliable() {
        answer.insert("tracking".into(), tracking(false).into());
    }
    Ok(Value::Object(answer).to_string())
}

/// Moves the counts of lines out of those of zones: nothing is inside a line.
fn set_lines_apart(answer: &mut Map<String, Value>, lines: &[Line]) {
    let Some(Value::Array(places)) = answer.remove("zones") else { return };
    let is_line = |place: &Value| {
        let name = place.get("zone").and_then(Value::as_str);
        lines.iter().any(|line| Some(line.name.as_str()) == name)
    };
    let (crossed, zones): (Vec<_>, Vec<_>) = places.into_iter().partition(is_line);
    let crossings = crossed.iter().map(|place| {
        let labels = place.get("labels").and_then(Value::as_object).into_iter().flatten();
        let labels: Map<_, _> = labels
            .map(|(label, of)| {
                let sides = json!({ "to_right": of.get("entered"), "to_left": of.get("left") });
                (label.clone(), sides)
            })
            .collect();
        json!({ "line": place.get("zone"), "labels": labels })
    });
    answer.insert("lines".into(), crossings.collect());
    answer.insert("zones".into(), zones.into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Settings;
    use ocelli_sdk::geometry::BBox;
    use ocelli_sdk::nms::Candidate;

    #[test]
    fn live_tracks_are_listed_and_counted() {
        let mut engine = Engine::new(Settings::read("{}").unwrap());
        let at =
            |x, class| Candidate { bbox: BBox::from_xywh(x, 0.0, 10.0, 20.0), class, score: 0.75 };
        for n in 0..2 {
            engine.finish(n * 500_000_000, (640, 480), vec![at(0.0, 0), at(50.0, 0), at(100.0, 2)]);
        }
        let answer: serde_json::Value =
            serde_json::from_str(&query(&engine, r#""tracks""#).unwrap()).unwrap();
        assert_eq!(answer["counts"], serde_json::json!({ "car": 1, "person": 2 }));
        assert_eq!(answer.get("tracking"), None, "they are reliable");
        assert_eq!(
            answer["tracks"][2],
            serde_json::json!({ "track": 3, "label": "car", "score": 0.75, "box": [100.0, 0.0, 10.0, 20.0],
                "first_seen_s": 0.0, "last_seen_s": 0.5, "lost": false })
        );
    }

    #[test]
    fn an_unknown_request_is_answered_with_the_known_ones() {
        let engine = Engine::new(Settings::read("{}").unwrap());
        let queries =
            [r#""weather""#, r#"{"tracks":1}"#, r#"{"reset":"counts"}"#, "{}", "tracks", ""]
                .map(|request| query(&engine, request));
        let commands = [r#""tracks""#, r#"{"reset":"tracks"}"#, r#"{"reset":"counts","x":1}"#, ""]
            .map(|request| command(&engine, request));
        for answer in queries.into_iter().chain(commands) {
            let error = answer.unwrap_err();
            for known in [r#""tracks""#, r#""counts""#, r#"{"reset":"counts"}"#] {
                assert!(error.contains(known), "{error}");
            }
        }
    }
}
