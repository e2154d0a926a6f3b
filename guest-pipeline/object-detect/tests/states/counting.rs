//! Zones and counts over random walks: what is counted agrees with what is told, whatever happens
//! in between.

use std::collections::BTreeMap;

use object_detect::engine::Engine;
use object_detect::settings::Settings;
use object_detect::{request, snapshot};
use ocelli_sdk::Event;
use ocelli_sdk::geometry::BBox;
use ocelli_sdk::nms::Candidate;
use ocelli_sdk::store::Bucket;
use proptest::prelude::*;
use serde_json::{Value, json};

const FRAME: u64 = 100_000_000;
const SIZE: (u32, u32) = (640, 480);

/// Zones that overlap, one of them for cars alone, and the picture.
const SETTINGS: &str = r#"{
    "count_objects": true,
    "zones": [
        {"name": "left", "polygon": [[0,0],[0.5,0],[0.5,1],[0,1]]},
        {"name": "stripe", "polygon": [[0.3,0],[0.7,0],[0.7,1],[0.3,1]]},
        {"name": "low", "polygon": [[0,0.5],[1,0.5],[1,1],[0,1]], "labels": ["car"]}
    ]
}"#;

/// What is seen in each look.
type Walk = Vec<Vec<Candidate>>;

fn engine(settings: &str) -> Engine {
    Engine::new(Settings::read(settings).unwrap())
}

fn at(x: f32, y: f32, class: u32) -> Candidate {
    Candidate { bbox: BBox::from_xywh(x, y, 40.0, 80.0), class, score: 0.8 }
}

/// An object that stays where it is.
fn still(x: f32, looks: usize) -> Walk {
    vec![vec![at(x, 100.0, 0)]; looks]
}

/// Up to five objects, each on a lane of its own, that wander, vanish and come back.
fn walks() -> impl Strategy<Value = Walk> {
    let look = prop::collection::vec((-35.0f32..35.0, 0u8..8), 5);
    let starts = prop::collection::vec(0.0f32..600.0, 5);
    (starts, prop::collection::vec(look, 1..80)).prop_map(|(mut x, looks)| {
        let step = |look: Vec<(f32, u8)>| {
            let lanes = look.into_iter().enumerate();
            let seen = lanes.filter_map(|(lane, (dx, whim))| {
                x[lane] = (x[lane] + dx).clamp(0.0, 600.0);
                // One look in eight misses it.
                (whim > 0).then(|| at(x[lane], lane as f32 * 95.0, [0, 2][lane % 2]))
            });
            seen.collect()
        };
        looks.into_iter().map(step).collect()
    })
}

/// Looks at frames from number `from` on; gives what was told.
fn look(engine: &mut Engine, from: u64, walk: &[Vec<Candidate>]) -> Vec<Event> {
    let looks = (from..).zip(walk);
    looks.flat_map(|(n, seen)| engine.finish(n * FRAME, SIZE, seen.clone()).events).collect()
}

fn ask(engine: &Engine, query: &str) -> Value {
    serde_json::from_str(&request::query(engine, query).unwrap()).unwrap()
}

fn reset(engine: &Engine) -> Value {
    serde_json::from_str(&request::command(engine, r#"{"reset":"counts"}"#).unwrap()).unwrap()
}

fn counts(engine: &Engine) -> Value {
    ask(engine, r#""counts""#)
}

/// Of an answer: by zone ("": the picture) and label what entered, left and is inside.
fn numbers(counts: &Value) -> BTreeMap<(String, String), [u64; 3]> {
    let zones = counts["zones"].as_array().unwrap().iter();
    let zones =
        zones.map(|zone| (zone["zone"].as_str().unwrap(), zone["labels"].as_object().unwrap()));
    let objects = counts["objects"].as_object().map(|objects| ("", objects));
    let number = |n: &Value| ["entered", "left", "inside"].map(|name| n[name].as_u64().unwrap());
    let all = zones.chain(objects).flat_map(|(zone, labels)| {
        labels.iter().map(move |(label, n)| ((zone.to_owned(), label.clone()), number(n)))
    });
    all.collect()
}

/// The same of events.
fn tell(events: &[Event], told: &mut BTreeMap<(String, String), [u64; 3]>) {
    // What is said of the tracks as a whole counts nothing.
    for event in events.iter().filter(|event| event.kind != "tracking") {
        let data: Value = serde_json::from_str(&event.data).unwrap();
        let zone = data["zone"].as_str().unwrap_or_default().to_owned();
        let number = told.entry((zone, data["label"].as_str().unwrap().to_owned())).or_default();
        match event.kind.as_str() {
            "entered" | "zone_entered" => *number = [number[0] + 1, number[1], number[2] + 1],
            "left" | "zone_left" => *number = [number[0], number[1] + 1, number[2] - 1],
            other => panic!("{other}"),
        }
    }
}

/// Runs `f` with a store of its own.
fn apart<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    std::thread::scope(|scope| scope.spawn(f).join().unwrap())
}

fn debug(events: &[Event]) -> Vec<String> {
    events.iter().map(|event| format!("{event:?}")).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_entered_less_what_left_is_inside_and_events_tell_the_same(walk in walks()) {
        let (mut engine, mut told) = (engine(SETTINGS), BTreeMap::new());
        apart(|| {
            for (n, seen) in (0u64..).zip(walk) {
                tell(&engine.finish(n * FRAME, SIZE, seen).events, &mut told);
                let counted = numbers(&counts(&engine));
                assert_eq!(counted, told);
                assert!(counted.values().all(|[entered, left, inside]| entered - left == *inside));
            }
        });
    }

    #[test]
    fn a_swap_changes_neither_events_nor_counts(walk in walks(), at in 0usize..80, wait in 0u64..3) {
        let swap = at.min(walk.len());
        // The looks that the swap takes are missing in both.
        let (before, after) = walk.split_at(swap);
        let from = swap as u64 + wait;
        let straight = apart(|| {
            let mut blue = engine(SETTINGS);
            let mut events = look(&mut blue, 0, before);
            events.extend(look(&mut blue, from, after));
            (debug(&events), counts(&blue), snapshot::write(&blue))
        });
        let swapped = apart(|| {
            let (mut blue, mut green) = (engine(SETTINGS), engine(SETTINGS));
            let mut events = look(&mut blue, 0, before);
            snapshot::read(&mut green, "0.2.0", &snapshot::write(&blue)).unwrap();
            events.extend(look(&mut green, from, after));
            (debug(&events), counts(&green), snapshot::write(&green))
        });
        prop_assert_eq!(straight, swapped);
    }

    #[test]
    fn after_a_reset_counting_begins_with_what_is_inside(walk in walks(), at in 0usize..80) {
        apart(|| {
            let mut engine = engine(SETTINGS);
            let (before, after) = walk.split_at(at.min(walk.len()));
            look(&mut engine, 0, before);
            let inside = numbers(&counts(&engine)).into_iter().filter(|(_, [_, _, inside])| *inside > 0);
            let anew: BTreeMap<_, _> = inside.map(|(key, [_, _, inside])| (key, [inside, 0, inside])).collect();
            assert_eq!(numbers(&reset(&engine)), anew);
            look(&mut engine, before.len() as u64, after);
            let counted = numbers(&counts(&engine));
            assert!(counted.values().all(|[entered, left, inside]| entered - left == *inside), "{counted:?}");
        });
    }
}

#[test]
fn zones_that_stay_the_same_go_on_and_others_begin_anew() {
    let mut blue = engine(SETTINGS);
    look(&mut blue, 0, &still(200.0, 10));
    let settings = json!({
        "count_objects": true,
        "score": 0.5,
        "zones": [
            {"name": "stripe", "polygon": [[0.2, 0], [0.7, 0], [0.7, 1], [0.2, 1]]},
            {"name": "left", "polygon": [[0, 0], [0.5, 0], [0.5, 1], [0, 1]], "labels": ["person"]},
        ]
    });
    let mut green = engine(&settings.to_string());
    snapshot::read(&mut green, "0.2.0", &snapshot::write(&blue)).unwrap();
    let person = |entered: u64, inside: u64| json!({"person": {"entered": entered, "left": 0, "inside": inside}});
    let expected = json!({
        "zones": [{"zone": "stripe", "labels": {}}, {"zone": "left", "labels": person(1, 1)}],
        "objects": person(1, 1),
    });
    assert_eq!(counts(&green), expected);

    let events = look(&mut green, 10, &still(200.0, 5));
    let data: Vec<_> =
        events.iter().map(|event| (event.kind.as_str(), event.data.as_str())).collect();
    assert_eq!(data, [("zone_entered", r#"{"track":1,"label":"person","zone":"stripe"}"#)]);
    let tracks = ask(&green, r#""tracks""#);
    let zones = json!([{"zone": "stripe", "since_s": 1.0}, {"zone": "left", "since_s": 0.1}]);
    assert_eq!(tracks["tracks"][0]["zones"], zones);
}

#[test]
fn counts_outlive_an_instance_that_gave_no_snapshot() {
    look(&mut engine(SETTINGS), 0, &still(100.0, 5));
    let mut fresh = engine(SETTINGS);
    look(&mut fresh, 0, &still(100.0, 5));
    let left = &counts(&fresh)["zones"][0];
    assert_eq!(
        *left,
        json!({"zone": "left", "labels": {"person": {"entered": 2, "left": 0, "inside": 1}}})
    );
}

#[test]
fn the_store_is_written_only_when_something_that_is_counted_changes() {
    let store = Bucket::open("object-detect").unwrap();
    let mut plain = engine("{}");
    assert_eq!(look(&mut plain, 0, &still(100.0, 5)).len(), 1);
    assert_eq!(counts(&plain), json!({"zones": []}));
    assert_eq!(reset(&plain), json!({"zones": []}));
    assert_eq!(store.get("counts"), Ok(None), "nothing is counted");

    let mut counting = engine(&SETTINGS.replace("true", "false"));
    look(&mut counting, 0, &still(600.0, 20));
    assert_eq!(
        store.get("counts"),
        Ok(None),
        "nobody came into a zone, and the picture is not counted"
    );
    look(&mut counting, 20, &still(100.0, 5));
    assert!(store.get("counts").unwrap().is_some());
    store.set("counts", b"untouched").unwrap();
    look(&mut counting, 25, &still(100.0, 20));
    assert_eq!(store.get("counts"), Ok(Some(b"untouched".to_vec())));
}

#[test]
fn a_value_that_is_none_of_this_pipelines_is_replaced() {
    let store = Bucket::open("object-detect").unwrap();
    for value in [
        "",
        "7",
        "[",
        r#"{"zones":[{"zone":"left","polygon":[],"labels":{"person":{"entered":-1}}}]}"#,
    ] {
        store.set("counts", value.as_bytes()).unwrap();
        let mut engine = engine(SETTINGS);
        assert_eq!(numbers(&counts(&engine)), BTreeMap::new(), "{value}");
        look(&mut engine, 0, &still(100.0, 5));
        assert_eq!(
            numbers(&counts(&engine))[&("left".into(), "person".into())],
            [1, 0, 1],
            "{value}"
        );
    }
}

#[test]
fn a_crowd_that_is_gone_at_once_is_told_in_portions() {
    // 150 people in two zones; then the stream is away for so long that all tracks end.
    let settings = json!({"count_objects": true, "zones": [
        {"name": "a", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]]},
        {"name": "b", "polygon": [[0, 0], [1, 0], [1, 1], [0, 1]], "labels": ["person"]},
    ]});
    let settings = settings.to_string();
    let crowd: Vec<_> = (0u8..150)
        .map(|n| at(f32::from(n % 15) * 42.0, f32::from(n / 15) * 40.0 - 40.0, 0))
        .collect();
    let mut blue = engine(&settings);
    let mut told = BTreeMap::new();
    let mut portion = |engine: &mut Engine, n: u64, seen: Vec<Candidate>| {
        let events = engine.finish(n * FRAME, SIZE, seen).events;
        tell(&events, &mut told);
        assert_eq!(numbers(&counts(engine)), told, "at {n}");
        events.len()
    };
    let came: Vec<_> = (0..12).map(|n| portion(&mut blue, n, crowd.clone())).collect();
    let all: usize = came.iter().sum();
    assert!(came.iter().all(|&events| events <= 64) && all >= 200, "{came:?}");
    let first = portion(&mut blue, 100, vec![]);

    // Swapped while the half is not told.
    let mut green = engine(&settings);
    snapshot::read(&mut green, "0.2.0", &snapshot::write(&blue)).unwrap();
    let went: Vec<_> = (101..115).map(|n| portion(&mut green, n, vec![])).collect();
    assert_eq!((first, went[0]), (64, 64));
    assert_eq!(first + went.iter().sum::<usize>(), all, "all that came has left");
    assert!(
        told.values().all(|[entered, left, inside]| entered == left && *inside == 0),
        "{told:?}"
    );
}
