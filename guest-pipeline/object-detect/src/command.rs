//! Questions to the running pipeline.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::{Engine, label};

#[derive(Deserialize)]
#[serde(tag = "query", rename_all = "snake_case", deny_unknown_fields)]
enum Request {
    /// The tracks that are alive, and how many of each label.
    Tracks {},
}

#[derive(Serialize)]
struct Tracks {
    tracks: Vec<Track>,
    /// By label; of the tracks above.
    counts: BTreeMap<&'static str, usize>,
}

#[derive(Serialize)]
struct Track {
    track: u64,
    label: &'static str,
    score: f32,
    /// x, y, width and height in frame pixels, where it was last seen.
    #[serde(rename = "box")]
    bbox: [f32; 4],
    /// Presentation times in seconds.
    first_seen_s: f64,
    last_seen_s: f64,
    /// Whether it is out of sight at present.
    lost: bool,
}

/// Answers `{"query":"tracks"}` with `{"tracks":[...],"counts":{"person":3}}`.
///
/// # Errors
/// Any other request; the text says which ones there are.
pub fn answer(engine: &Engine, request: &str) -> Result<String, String> {
    let request = serde_json::from_str(request).map_err(|e| {
        format!("request not understood: {e}. This pipeline answers {{\"query\":\"tracks\"}}")
    })?;
    let Request::Tracks {} = request;
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let tracks: Vec<_> = engine.tracks();
    let tracks = tracks.iter().map(|t| Track {
        track: t.id,
        label: label(t.class),
        score: t.score,
        bbox: [t.bbox.left, t.bbox.top, t.bbox.width(), t.bbox.height()],
        first_seen_s: seconds(t.first_seen),
        last_seen_s: seconds(t.last_seen),
        lost: t.lost,
    });
    let tracks: Vec<_> = tracks.collect();
    let mut counts = BTreeMap::new();
    for track in &tracks {
        *counts.entry(track.label).or_default() += 1;
    }
    serde_json::to_string(&Tracks { tracks, counts }).map_err(|e| e.to_string())
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
        let at = |x, class| Candidate { bbox: BBox::from_xywh(x, 0.0, 10.0, 20.0), class, score: 0.75 };
        for n in 0..2 {
            engine.finish(n * 500_000_000, vec![at(0.0, 0), at(50.0, 0), at(100.0, 2)]);
        }
        let answer: serde_json::Value =
            serde_json::from_str(&answer(&engine, r#"{"query":"tracks"}"#).unwrap()).unwrap();
        assert_eq!(answer["counts"], serde_json::json!({ "car": 1, "person": 2 }));
        assert_eq!(
            answer["tracks"][2],
            serde_json::json!({ "track": 3, "label": "car", "score": 0.75, "box": [100.0, 0.0, 10.0, 20.0],
                "first_seen_s": 0.0, "last_seen_s": 0.5, "lost": false })
        );
    }

    #[test]
    fn an_unknown_request_is_answered_with_the_known_ones() {
        let engine = Engine::new(Settings::read("{}").unwrap());
        for request in [r#"{"query":"weather"}"#, "{}", "tracks", r#"{"query":"tracks","of":"me"}"#, ""] {
            let error = answer(&engine, request).unwrap_err();
            assert!(error.contains(r#"{"query":"tracks"}"#), "{request}: {error}");
        }
    }
}
