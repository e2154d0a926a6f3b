//! The state that outlives a change of the pipeline's version or settings: tracks, the next number,
//! the frame rate, the tracks in each zone and beside each line, and the pending events.

use std::collections::BTreeMap;

use ocelli_sdk::events::EventQueue;
use ocelli_sdk::lines::{LineState, Lines};
use ocelli_sdk::log;
use ocelli_sdk::track::{Certainty, TrackInfo, Tracker, TrackerState};
use ocelli_sdk::zones::{ZoneState, Zones};
use serde::{Deserialize, Serialize};

use crate::engine::Engine;
use crate::settings::Settings;
use crate::track_event::TrackEvent;

/// Raised with every change of [`Snapshot`] or of what is in it that an older version cannot read.
const FORMAT: u32 = 3;

/// The format without lines, which is written where the settings have none; all else is as in
/// [`FORMAT`].
const WITHOUT_LINES: u32 = 2;

/// The format of version 0.1, which has no zones; all else is as in [`WITHOUT_LINES`].
const WITHOUT_ZONES: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Snapshot<S> {
    /// First, so that a reader can tell the formats apart.
    format: u32,
    pipeline: String,
    /// The detector's labels of the classes that tracks are of. Older versions neither write nor
    /// read it.
    #[serde(default)]
    classes: BTreeMap<u32, String>,
    /// Version of the pipeline that wrote it.
    #[serde(default)]
    version: String,
    next_due: Option<u64>,
    tracker: S,
    /// Older versions neither write nor read it.
    #[serde(default)]
    certainty: Certainty,
    #[serde(default)]
    zones: Vec<ZoneState>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    lines: Vec<LineState>,
    #[serde(default)]
    pending: Vec<TrackEvent>,
}

/// The only part that every format has.
#[derive(Deserialize)]
struct Header {
    format: u32,
    pipeline: String,
}

/// Writes the engine's state as JSON.
#[must_use]
pub fn write(engine: &Engine) -> Vec<u8> {
    let tracks = engine.tracker.tracks();
    let pending = engine.pending.iter().map(|event| event.track.class);
    let classes = tracks.iter().map(|track| track.class).chain(pending);
    let label = |class| (class, engine.settings.labels.of(class).to_owned());
    let snapshot = Snapshot {
        format: if engine.lines.is_empty() { WITHOUT_LINES } else { FORMAT },
        pipeline: env!("CARGO_PKG_NAME").into(),
        classes: classes.map(label).collect(),
        version: env!("CARGO_PKG_VERSION").into(),
        next_due: engine.rate_limiter.next(),
        tracker: engine.tracker.state(),
        certainty: engine.tracker.certainty(),
        zones: engine.zones.state(),
        lines: engine.lines.state(),
        pending: engine.pending.iter().cloned().collect(),
    };
    // Plain records with text keys always serialise; no state would mean to start afresh.
    serde_json::to_vec(&snapshot).unwrap_or_default()
}

/// Goes on from what [`write()`] gave, in an engine with settings of its own: tracks as they are;
/// zones and lines whose name and shape are still the same with their tracks. No state leaves the engine
/// as it is, and so does that of a detector with other classes.
///
/// # Errors
/// Says why the state of `version` cannot be taken over; the engine is as before.
pub fn read(engine: &mut Engine, version: &str, state: &[u8]) -> Result<(), String> {
    if state.is_empty() {
        return Ok(());
    }
    let refuse =
        |why: String| format!("the state of version {version} cannot be taken over: {why}");
    let unreadable = |e: serde_json::Error| refuse(e.to_string());
    let state = str::from_utf8(state).map_err(|e| refuse(e.to_string()))?;
    let Header { format, pipeline } = serde_json::from_str(state).map_err(unreadable)?;
    let own = env!("CARGO_PKG_NAME");
    if pipeline != own {
        return Err(refuse(format!("it is of the pipeline {pipeline:?}, this is {own}")));
    }
    if !(WITHOUT_ZONES..=FORMAT).contains(&format) {
        let newer = if format > FORMAT { ", so the version that gave it is newer" } else { "" };
        let own = env!("CARGO_PKG_VERSION");
        return Err(refuse(format!(
            "its format is {format}{newer}; version {own} reads {WITHOUT_ZONES} to {FORMAT}"
        )));
    }
    let snapshot: Snapshot<TrackerState> = serde_json::from_str(state).map_err(unreadable)?;
    let labels = engine.settings.labels.clone();
    if let Some((class, label)) =
        snapshot.classes.iter().find(|&(&class, label)| labels.of(class) != label)
    {
        let own = labels.of(*class);
        let text = format!("tracks begin anew: class {class} was {label:?} and is {own:?} now");
        log::info("restore", &text);
        return Ok(());
    }
    let is_known = |track: &TrackInfo| labels.has(track.class);
    let config = engine.tracker.config().clone();
    let tracker = Tracker::resume(config, snapshot.tracker).map_err(refuse)?;
    let tracks = tracker.tracks();
    if let Some(track) = tracks.iter().find(|t| !is_known(t)) {
        return Err(refuse(format!("track {} is of the unknown class {}", track.id, track.class)));
    }
    let Settings { zones, lines, .. } = &engine.settings;
    let exists = |event: &TrackEvent| {
        let zone = event.zone();
        let zone =
            zone.is_none_or(|name| snapshot.zones.iter().any(|state| state.is_of(name, zones)));
        let line = event.line();
        let line =
            line.is_none_or(|name| snapshot.lines.iter().any(|state| state.is_of(name, lines)));
        zone && line
    };
    let pending = pending(snapshot.pending, exists, is_known).map_err(refuse)?;
    let zones = Zones::resume(zones, snapshot.zones, &tracks).map_err(refuse)?;
    let lines = Lines::resume(lines, snapshot.lines, &tracks).map_err(refuse)?;
    engine.tracker = tracker.with_certainty(snapshot.certainty);
    engine.reliable = engine.tracker.is_reliable();
    engine.rate_limiter.resume(snapshot.next_due);
    (engine.zones, engine.lines, engine.pending) = (zones, lines, pending);
    Ok(())
}

/// The events still to be reported: all but those of zones and lines that no longer exist.
fn pending(
    events: Vec<TrackEvent>,
    exists: impl Fn(&TrackEvent) -> bool,
    is_known: impl Fn(&TrackInfo) -> bool,
) -> Result<EventQueue<TrackEvent>, String> {
    let events = EventQueue::resume(events)?;
    let sound = |event: &TrackEvent| {
        let track = &event.track;
        is_known(track) && track.score.is_finite() && track.bbox.is_proper()
    };
    if let Some(event) = events.iter().find(|event| !sound(event)) {
        return Err(format!(
            "a pending event of track {}, is none of this pipeline",
            event.track.id
        ));
    }
    let mut left = EventQueue::default();
    left.extend(events.iter().filter(|event| exists(event)).cloned());
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ocelli_sdk::geometry::BBox;
    use ocelli_sdk::nms::Candidate;

    fn engine(settings: &str) -> Engine {
        Engine::new(Settings::read(settings).unwrap())
    }

    /// Two objects that walk; frame `n` of 10 a second.
    fn look(engine: &mut Engine, n: u64) -> Option<String> {
        let at = |x: f32, class| Candidate {
            bbox: BBox::from_xywh(x, 0.0, 31.3, 77.7),
            class,
            score: 0.8,
        };
        let step = n as f32 * 1.7;
        let time = n * 100_000_000;
        engine.is_due(time).then(|| {
            format!("{:?}", engine.finish(time, (640, 480), vec![at(step, 0), at(300.0 - step, 2)]))
        })
    }

    #[test]
    fn a_new_version_goes_on_with_the_same_tracks_and_pace() {
        let settings = r#"{"max_results_per_second":4}"#;
        let (mut blue, mut green) = (engine(settings), engine(settings));
        for n in 0..21 {
            look(&mut blue, n);
        }
        read(&mut green, "0.0.9", &write(&blue)).unwrap();
        assert_eq!(green.tracks().len(), 2);
        for n in 21..40 {
            assert_eq!(look(&mut green, n), look(&mut blue, n));
        }
        assert_eq!(write(&green), write(&blue));
    }

    #[test]
    fn the_state_of_a_detector_with_other_classes_is_a_fresh_start() {
        use crate::objects::Labels;
        let mut blue = engine("{}");
        (0..5).for_each(|n| drop(look(&mut blue, n)));
        let with = |names: &[&str]| {
            let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
            Engine::new(Settings::read_for("{}", Labels::new(&names)).unwrap())
        };
        let mut alike = with(&["person", "cup", "car"]);
        read(&mut alike, "0.0.9", &write(&blue)).unwrap();
        assert_eq!(alike.tracks().len(), 2, "the classes that there are stand for the same");
        let mut other = with(&["person", "cup"]);
        read(&mut other, "0.0.9", &write(&blue)).unwrap();
        assert!(other.tracks().is_empty());
    }

    #[test]
    fn no_state_is_a_fresh_start() {
        let mut engine = engine("{}");
        read(&mut engine, "0.0.9", b"").unwrap();
        assert!(engine.tracks().is_empty());
    }

    #[test]
    fn a_state_that_does_not_fit_is_refused_with_the_reason_and_changes_nothing() {
        let mut blue = engine("{}");
        (0..5).for_each(|n| drop(look(&mut blue, n)));
        let state: serde_json::Value = serde_json::from_slice(&write(&blue)).unwrap();
        let before = write(&blue);
        let spoilt = |pointer: &str, value: serde_json::Value| {
            let mut state = state.clone();
            *state.pointer_mut(pointer).unwrap() = value;
            serde_json::to_vec(&state).unwrap()
        };
        let cases = [
            (
                spoilt("/format", 4.into()),
                "its format is 4, so the version that gave it is newer; version 0.2.0 reads 1 to 3",
            ),
            (spoilt("/format", 0.into()), "its format is 0; version"),
            (spoilt("/pipeline", "line-count".into()), "pipeline \"line-count\""),
            (spoilt("/tracker/tracks/0/class", 80.into()), "unknown class 80"),
            (spoilt("/tracker/next_id", 1.into()), "track 0 of 2"),
            (spoilt("/tracker", 1.into()), "invalid type"),
            (b"{".to_vec(), "EOF"),
            (b"\xff\x00".to_vec(), "invalid utf-8"),
        ];
        for (state, reason) in cases {
            let error = read(&mut blue, "0.0.9", &state).unwrap_err();
            assert!(
                error.contains(reason) && error.contains("version 0.0.9"),
                "{error} for {reason}"
            );
            assert_eq!(write(&blue), before);
        }
    }
}
