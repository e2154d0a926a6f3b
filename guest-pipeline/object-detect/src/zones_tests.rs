//! What zones promise.

use proptest::prelude::*;

use super::*;
use crate::engine::Engine;
use crate::settings::Settings;
use ocelli_sdk::nms::Candidate;

const FRAME: u64 = 100_000_000;
const SIZE: (u32, u32) = (1000, 500);

fn zone(polygon: &[[f32; 2]]) -> Zone {
    let settings = serde_json::json!({ "zones": [{ "name": "yard", "polygon": polygon }] });
    Settings::read(&settings.to_string()).unwrap().zones.remove(0)
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
fn walk(zones: &mut Zones, from: u64, places: &[f32]) -> Vec<(u64, TrackEventKind)> {
    let looks = (from..).zip(places);
    let happened = looks.flat_map(|(n, &x)| {
        let happened = zones.observe(n * FRAME, SIZE, &[track(1, x, n * FRAME)], usize::MAX);
        happened.into_iter().map(move |h| (n, h.kind))
    });
    happened.collect()
}

fn entered() -> TrackEventKind {
    TrackEventKind::ZoneEntered { zone: "yard".into() }
}

fn left_after(looks: u64) -> TrackEventKind {
    TrackEventKind::ZoneLeft { zone: "yard".into(), dwell: looks * FRAME }
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
    let left: Vec<_> = zones.end(&ended).into_iter().map(|h| (h.track.id, h.kind)).collect();
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
fn a_zone_is_about_its_labels() {
    let settings =
        r#"{"zones":[{"name":"road","polygon":[[0,0],[1,0],[1,1],[0,1]],"labels":["car"]}]}"#;
    let mut engine = Engine::new(Settings::read(settings).unwrap());
    let at = |x, class| Candidate { bbox: BBox::from_xywh(x, 10.0, 40.0, 80.0), class, score: 0.8 };
    let looks = (0..6u64).map(|n| engine.finish(n * FRAME, SIZE, vec![at(0.0, 0), at(300.0, 2)]));
    let events: Vec<_> = looks.flat_map(|output| output.events).collect();
    let zone: Vec<_> = events.iter().filter(|event| event.kind == "zone_entered").collect();
    assert_eq!(zone.len(), 1);
    assert_eq!(zone[0].data, r#"{"track":2,"label":"car","zone":"road"}"#);
    assert_eq!(
        (zone[0].detections[0].label.as_str(), zone[0].detections[0].track),
        ("car", Some(2))
    );
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
