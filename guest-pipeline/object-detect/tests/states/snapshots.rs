//! Snapshots of other versions, and of nobody's.

use object_detect::engine::Engine;
use object_detect::settings::Settings;
use object_detect::snapshot;
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::nms::Candidate;
use proptest::prelude::*;
use serde_json::{Value, json};

const FRAME: u64 = 100_000_000;

const SETTINGS: &str = r#"{"zones":[
    {"name":"left","polygon":[[0,0],[0.5,0],[0.5,1],[0,1]]},
    {"name":"all","polygon":[[0,0],[1,0],[1,1],[0,1]]}
]}"#;

fn engine() -> Engine {
    Engine::new(Settings::read(SETTINGS).unwrap())
}

/// Two objects that walk from the left to the right.
fn look(engine: &mut Engine, looks: std::ops::Range<u64>) -> Vec<String> {
    let at = |x: f32, y: f32, class| Candidate {
        bbox: BBox::from_xywh(x, y, 40.0, 80.0),
        class,
        score: 0.8,
    };
    let looks = looks.flat_map(|n| {
        let x = n as f32 * 8.0;
        engine.finish(n * FRAME, (640, 480), vec![at(x, 0.0, 0), at(x + 60.0, 200.0, 2)]).events
    });
    looks.map(|event| format!("{} {}", event.kind, event.data)).collect()
}

/// The state of an engine that has seen a good deal.
fn state() -> Value {
    let mut engine = engine();
    look(&mut engine, 0..30);
    serde_json::from_slice(&snapshot::write(&engine)).unwrap()
}

/// As version 0.1.0 gave it.
const WITHOUT_ZONES: &str = include_str!("state-0.1.json");

#[test]
fn tracks_of_version_0_1_go_on_and_zones_begin_empty() {
    let mut green = engine();
    snapshot::read(&mut green, "0.1.0", WITHOUT_ZONES.as_bytes()).unwrap();
    let numbers: Vec<_> = green.tracks().iter().map(|track| track.id).collect();
    assert_eq!(numbers, [1, 2]);
    let events = look(&mut green, 6..9);
    let expected = [
        r#"zone_entered {"track":1,"label":"person","zone":"left"}"#,
        r#"zone_entered {"track":1,"label":"person","zone":"all"}"#,
        r#"zone_entered {"track":2,"label":"car","zone":"left"}"#,
        r#"zone_entered {"track":2,"label":"car","zone":"all"}"#,
    ];
    assert_eq!(events, expected);
}

#[test]
fn the_bytes_say_which_version_of_which_pipeline_gave_them() {
    let state = state();
    assert_eq!(state["pipeline"], "object-detect");
    assert_eq!(state["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(state["format"], 2);
}

#[test]
fn zones_that_no_look_makes_are_refused_and_change_nothing() {
    let before = snapshot::write(&engine());
    let cases = [
        ("/zones/0/tracks/0/track", json!(77), "track 77 in zone \"left\" is not alive"),
        ("/zones/1/tracks/0/since", json!(9_000_000_000u64), "times that no look gives"),
        ("/zones/1/tracks/0/out_since", json!(0), "times that no look gives"),
        ("/zones/1/tracks/1/track", json!(1), "is there twice or out of order"),
        ("/zones", json!(vec![json!({"name": "z", "polygon": [], "tracks": []}); 33]), "33 zones"),
        ("/pending", json!([{"kind": "entered", "track": null}]), "invalid type"),
    ];
    for (place, value, reason) in cases {
        let mut state = state();
        *state.pointer_mut(place).unwrap() = value;
        let mut engine = engine();
        let error = snapshot::read(&mut engine, "9.9.9", state.to_string().as_bytes()).unwrap_err();
        assert!(error.contains(reason) && error.contains("9.9.9"), "{place}: {error}");
        assert_eq!(snapshot::write(&engine), before);
    }
}

#[test]
fn an_event_to_be_told_is_one_that_can_be_told() {
    let track = &state()["tracker"]["tracks"][0];
    let told = json!({"id": 1, "class": 0, "score": 0.5, "bbox": track["bbox"], "first_seen": 0, "last_seen": 1, "lost": false});
    let spoilt = |key: &str, value: Value| {
        let mut told = told.clone();
        told[key] = value;
        told
    };
    let read = |track: &Value| {
        let mut state = state();
        state["pending"] =
            json!([{"kind": {"zone_left": {"zone": "all", "dwell": 5}}, "track": track}]);
        snapshot::read(&mut engine(), "9.9.9", state.to_string().as_bytes())
    };
    assert_eq!(read(&told), Ok(()));
    for track in [
        spoilt("class", json!(80)),
        spoilt("score", json!(1e300)),
        spoilt("bbox", json!({"left": 1, "top": 1, "right": 0, "bottom": 0})),
    ] {
        assert!(read(&track).is_err(), "{track}");
    }
}

/// A place in a JSON value, by a number for each step down.
fn place<'a>(value: &'a mut Value, way: &[usize]) -> &'a mut Value {
    let Some((step, rest)) = way.split_first() else { return value };
    let count = match value {
        Value::Array(items) => items.len(),
        Value::Object(entries) => entries.len(),
        _ => 0,
    };
    if count == 0 {
        return value;
    }
    let next = match value {
        Value::Array(items) => &mut items[step % count],
        Value::Object(entries) => entries.values_mut().nth(step % count).unwrap(),
        _ => unreachable!(),
    };
    place(next, rest)
}

fn any_value() -> impl Strategy<Value = Value> {
    let numbers = [
        0.0,
        -1.0,
        0.5,
        1e9,
        -1e300,
        1e300,
        1e-300,
        18_446_744_073_709_551_615.0,
        f64::from(f32::MAX),
    ];
    prop_oneof![
        prop::sample::select(numbers.to_vec()).prop_map(|number| json!(number)),
        any::<u64>().prop_map(|number| json!(number)),
        (-3i64..200).prop_map(|number| json!(number)),
        prop::sample::select(vec![
            json!(null),
            json!(true),
            json!("left"),
            json!(""),
            json!([]),
            json!({}),
            json!([[0, 0], [1, 1]])
        ]),
    ]
}

/// Reads a state and, where it is taken over, goes on with it for a while.
fn survive(state: &[u8]) {
    let mut engine = engine();
    let before = snapshot::write(&engine);
    if snapshot::read(&mut engine, "6.6.6", state).is_err() {
        assert_eq!(snapshot::write(&engine), before, "a refusal changes nothing");
        return;
    }
    for n in 25..60u64 {
        let seen = Candidate {
            bbox: BBox::from_xywh(n as f32 * 8.0, 0.0, 40.0, 80.0),
            class: 0,
            score: 0.8,
        };
        for event in engine.finish(n * FRAME, (640, 480), vec![seen]).events {
            for detection in event.detections {
                let area = detection.box_;
                assert!(
                    [detection.score, area.x, area.y, area.width, area.height]
                        .iter()
                        .all(|n| n.is_finite())
                );
            }
            serde_json::from_str::<Value>(&event.data).unwrap();
        }
    }
    object_detect::request::query(&engine, r#""counts""#).unwrap();
    let mut next = self::engine();
    snapshot::read(&mut next, "0.2.0", &snapshot::write(&engine)).unwrap();
}

proptest! {
    #[test]
    fn a_state_with_other_values_never_breaks_the_pipeline(
        changes in prop::collection::vec((prop::collection::vec(0usize..12, 1..7), any_value()), 1..4),
    ) {
        let mut state = state();
        for (way, value) in changes {
            *place(&mut state, &way) = value;
        }
        survive(state.to_string().as_bytes());
    }

    #[test]
    fn a_state_with_damaged_bytes_never_breaks_the_pipeline(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut bytes = state().to_string().into_bytes();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        survive(&bytes);
    }
}
