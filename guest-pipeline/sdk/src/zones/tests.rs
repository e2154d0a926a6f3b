//! What zones promise.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::geometry::BBox;

const FRAME: u64 = 100_000_000;
const SIZE: (u32, u32) = (1000, 500);

fn zone(polygon: &[[f32; 2]]) -> Zone {
    Zone { name: "yard".into(), polygon: polygon.to_vec(), classes: Classes::all() }
}

/// The left half of the picture.
fn left_half() -> Zone {
    zone(&[[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]])
}

/// A track whose foot point is at x, in pixels, on the lower edge of the picture, seen at `time`.
fn track(id: u64, x: f32, time: u64) -> TrackInfo {
    let bbox = BBox { left: x - 20.0, top: 400.0, right: x + 20.0, bottom: 500.0 };
    TrackInfo { id, class: 0, score: 0.8, bbox, first_seen: 0, last_seen: time, lost: false }
}

/// What happens to one track that is at these places, one look after the other.
fn walk(zones: &mut Zones, from: u64, places: &[f32]) -> Vec<(u64, Passage)> {
    let looks = (from..).zip(places);
    let happened = looks.flat_map(|(n, &x)| {
        let happened = zones.observe(n * FRAME, SIZE, &[track(1, x, n * FRAME)], usize::MAX);
        happened.into_iter().map(move |h| (n, h.passage))
    });
    happened.collect()
}

fn entered() -> Passage {
    Passage::Entered
}

fn left_after(looks: u64) -> Passage {
    Passage::Left { dwell: looks * FRAME }
}

#[test]
fn a_second_look_confirms_what_the_first_saw_and_times_count_from_the_first() {
    let mut zones = Zones::new(&[left_half()]);
    let happened = walk(&mut zones, 0, &[700.0, 400.0, 300.0, 300.0, 600.0, 700.0]);
    assert_eq!(happened, [(2, entered()), (5, left_after(3))]);
    assert_eq!(zones.inside().count(), 0);
}

#[test]
fn a_box_that_trembles_at_the_edge_gives_no_events() {
    let mut zones = Zones::new(&[left_half()]);
    assert_eq!(walk(&mut zones, 0, &[499.0, 501.0].repeat(50)), [], "never twice inside");
    assert_eq!(walk(&mut zones, 100, &[499.0, 499.0]), [(101, entered())]);
    assert_eq!(walk(&mut zones, 102, &[501.0, 499.0].repeat(50)), [], "never twice outside");
    assert_eq!(zones.inside().collect::<Vec<_>>(), [("yard", 1, 100 * FRAME)]);
}

#[test]
fn a_track_that_ends_has_left_where_it_was_last_seen() {
    let mut zones =
        Zones::new(&[left_half(), zone(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])]);
    walk(&mut zones, 0, &[100.0; 5]);
    zones.observe(5 * FRAME, SIZE, &[track(2, 100.0, 5 * FRAME)], usize::MAX);
    let ended = [track(1, 100.0, 4 * FRAME), track(2, 100.0, 5 * FRAME)];
    let left: Vec<_> = zones.end(&ended).into_iter().map(|h| (h.track.id, h.passage)).collect();
    assert_eq!(
        left,
        [(1, left_after(4)), (1, left_after(4))],
        "what was seen inside once had not entered"
    );
    assert_eq!(zones.state(), Zones::new(&[left_half(), zones.0[1].zone.clone()]).state());
}

#[test]
fn where_there_is_no_room_an_object_enters_with_a_later_look() {
    let mut zones = Zones::new(&[left_half()]);
    let seen = |n: u64| (1..=3).map(|id| track(id, 100.0, n * FRAME)).collect::<Vec<_>>();
    let mut look = |n, room| zones.observe(n * FRAME, SIZE, &seen(n), room).len();
    assert_eq!([look(0, 9), look(1, 2), look(2, 0), look(3, 9), look(4, 9)], [0, 2, 0, 1, 0]);
    assert!(
        zones.inside().all(|(_, _, since)| since == 0),
        "inside since the first look all the same"
    );
}

#[test]
fn what_the_edge_of_the_picture_cuts_off_stands_in_a_zone_that_ends_there() {
    let whole = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    for (x, y) in [(0.0, 500.0), (1000.0, 500.0), (1000.0, 0.1), (0.0, 0.1), (500.0, 500.0)] {
        let bbox = BBox { left: x, top: y - 10.0, right: x, bottom: y };
        assert!(contains(&whole, foot(&bbox, SIZE)), "{x}, {y}");
    }
}

#[test]
fn a_point_is_in_one_of_two_zones_that_share_an_edge() {
    let right = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]];
    for y in [0.0, 0.25, 0.5, 0.999] {
        let point = [0.5, y];
        assert_ne!(contains(&left_half().polygon, point), contains(&right, point), "{y}");
    }
}

#[test]
fn a_polygon_may_be_hollow() {
    // A U: open at the top, its arms to the left and the right.
    let u = [
        [0.1, 0.1],
        [0.3, 0.1],
        [0.3, 0.7],
        [0.7, 0.7],
        [0.7, 0.1],
        [0.9, 0.1],
        [0.9, 0.9],
        [0.1, 0.9],
    ];
    let cases = [
        ([0.2, 0.2], true),
        ([0.8, 0.2], true),
        ([0.5, 0.8], true),
        ([0.5, 0.3], false),
        ([0.95, 0.5], false),
    ];
    for (point, inside) in cases {
        assert_eq!(contains(&u, point), inside, "{point:?}");
    }
}

#[test]
fn a_zone_is_about_its_classes() {
    let names = ["car".to_owned()];
    let classes = Classes::named(&names, &["person", "bicycle", "car"]);
    let mut zones = Zones::new(&[Zone { classes, ..left_half() }]);
    let mut changes = Vec::new();
    for n in 0..3 {
        let of = |id, class| TrackInfo { class, ..track(id, 100.0, n * FRAME) };
        changes.extend(zones.observe(n * FRAME, SIZE, &[of(1, 0), of(2, 2)], usize::MAX));
    }
    let entered: Vec<_> = changes.iter().map(|c| (c.zone.as_str(), c.track.id)).collect();
    assert_eq!(entered, [("yard", 2)]);
}

#[test]
fn a_long_stay_is_told_once_and_anew_when_the_object_has_come_back() {
    let mut zones = Zones::new(&[left_half()]);
    let mut watch = DwellWatch::new(Duration::from_millis(500));
    let places = [[100.0; 10], [900.0; 10], [100.0; 10]].concat();
    let mut told = Vec::new();
    for (n, x) in (0..).zip(places) {
        zones.observe(n * FRAME, SIZE, &[track(1, x, n * FRAME)], usize::MAX);
        if n == 7 {
            let before = watch.told().to_vec();
            watch = DwellWatch::new(Duration::from_millis(500));
            watch.resume(before);
        }
        told.extend(watch.observe(n * FRAME, &zones).into_iter().map(|stay| (n, stay.since)));
    }
    assert_eq!(told, [(5, 0), (25, 20 * FRAME)]);
}

#[test]
fn a_polygon_is_one_that_can_be_stood_in() {
    let refused = |polygon: &[[f32; 2]]| check_polygon(polygon, "at").unwrap_err();
    assert_eq!(check_polygon(&left_half().polygon, "at"), Ok(()));
    assert_eq!(refused(&[[0.0, 0.0], [1.0, 1.0]]), "at: 2 corners are not 3 to 32");
    assert_eq!(refused(&[[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]), "at: has no area");
    assert!(refused(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.1]]).starts_with("at[2]: [1.0, 1.1] "));
    assert!(refused(&[[0.0, 0.0], [1.0, 0.0], [f32::NAN, 1.0]]).starts_with("at[2]: "));
}

#[test]
fn a_name_is_short_and_in_one_line() {
    assert_eq!(check_name(&"é".repeat(MAX_ZONE_NAME), "at"), Ok(()));
    for name in ["", "a\nb", &"a".repeat(MAX_ZONE_NAME + 1)] {
        assert!(check_name(name, "at").is_err_and(|e| e.starts_with("at: ")), "{name:?}");
    }
}

#[test]
fn zones_come_from_settings_with_the_labels_of_the_model() {
    let read = |zones: serde_json::Value| {
        let zones: Vec<ZoneSettings> = serde_json::from_value(zones).unwrap();
        Zone::of_settings(&zones, &["person", "car"], "settings.zones")
    };
    let corners = left_half().polygon;
    let zone = |name: &str, labels: &[&str]| serde_json::json!({ "name": name, "polygon": corners, "labels": labels });
    let zones = read(serde_json::json!([zone("yard", &["car"]), zone("all", &[])])).unwrap();
    assert!(zones[0].is("yard", &corners));
    assert_eq!([0, 1].map(|class| zones[0].classes.wants(class)), [false, true]);
    assert_eq!([0, 1].map(|class| zones[1].classes.wants(class)), [true, true]);
    let refused = |zones| read(zones).unwrap_err();
    let twice = refused(serde_json::json!([zone("yard", &[]), zone("yard", &[])]));
    assert_eq!(twice, "settings.zones[1].name: another zone is called \"yard\" too");
    let label = refused(serde_json::json!([zone("yard", &["cat"])]));
    assert!(label.starts_with("settings.zones[0].labels[0]: no label \"cat\""), "{label}");
    let many = refused((0..=MAX_ZONES).map(|n| zone(&n.to_string(), &[])).collect());
    assert_eq!(many, "settings.zones: 33 are more than 32");
}

proptest! {
    /// Against a second way to tell: the sum of the angles under which the edges are seen is a
    /// whole turn from within.
    #[test]
    fn inside_a_polygon_is_where_it_goes_round(
        corners in prop::collection::vec((0.0f32..1.0, 0.1f32..0.5), 3..12),
        x in 0.0f32..1.0,
        y in 0.0f32..1.0,
    ) {
        // A star about the middle: corners by rising angle.
        let mut corners = corners;
        corners.sort_by(|a, b| a.0.total_cmp(&b.0));
        let polygon: Vec<[f32; 2]> = corners.iter().map(|&(turn, radius)| {
            let (sin, cos) = (turn * std::f32::consts::TAU).sin_cos();
            [0.5 + radius * cos, 0.5 + radius * sin]
        }).collect();
        let ends = polygon.iter().zip(polygon.iter().cycle().skip(1));
        let mut turned = 0.0f64;
        for (a, b) in ends {
            let (ax, ay) = (f64::from(a[0] - x), f64::from(a[1] - y));
            let (bx, by) = (f64::from(b[0] - x), f64::from(b[1] - y));
            let angle = (ax * by - ay * bx).atan2(ax * bx + ay * by);
            // Too near to an edge for two ways of rounding to agree.
            prop_assume!(std::f64::consts::PI - angle.abs() > 1e-3);
            turned += angle;
        }
        let whole_turns = (turned / std::f64::consts::TAU).round() as i64;
        prop_assert_eq!(contains(&polygon, [x, y]), whole_turns % 2 != 0);
    }
}
