//! What the tracker promises.

use proptest::prelude::*;

use super::*;
use crate::Frame;

/// Nanoseconds between two frames of a camera with 10 frames a second.
const FRAME: u64 = 100_000_000;

fn at(x: f32, y: f32, score: f32) -> Observation {
    Observation { bbox: BBox::from_xywh(x, y, 40.0, 80.0), score, class: 0 }
}

fn tracker() -> Tracker {
    Tracker::new(TrackerConfig::for_score(0.4))
}

/// Feeds frames of 100 ms; gives what each update said.
fn feed(tracker: &mut Tracker, from: u64, frames: &[Vec<Observation>]) -> Vec<TrackUpdate> {
    (from..).zip(frames).map(|(n, frame)| tracker.update(n * FRAME, frame)).collect()
}

#[test]
fn a_track_is_confirmed_by_its_second_sight_and_numbers_start_at_one() {
    let mut tracker = tracker();
    let first = tracker.update(0, &[at(0.0, 0.0, 0.8)]);
    assert_eq!(first, TrackUpdate { tracks: vec![None], ..TrackUpdate::default() });
    let second = tracker.update(FRAME, &[at(2.0, 0.0, 0.9)]);
    assert_eq!(second.tracks, [Some(1)]);
    let began = second.began[0];
    assert_eq!((began.id, began.first_seen, began.last_seen), (1, 0, FRAME));
    assert_eq!(began.bbox, at(2.0, 0.0, 0.9).bbox, "the detector's box, not a smoothed one");
}

#[test]
fn something_seen_once_or_with_a_low_score_begins_no_track() {
    let mut tracker = tracker();
    let flicker =
        feed(&mut tracker, 0, &[vec![at(0.0, 0.0, 0.9)], vec![], vec![at(0.0, 0.0, 0.9)], vec![]]);
    let faint = feed(&mut tracker, 4, &vec![vec![at(0.0, 0.0, 0.3)]; 10]);
    for update in flicker.iter().chain(&faint) {
        assert!(
            update.began.is_empty()
                && update.ended.is_empty()
                && update.tracks.iter().all(Option::is_none)
        );
    }
    assert!(tracker.tracks().is_empty());
}

#[test]
fn two_crossing_objects_keep_their_numbers() {
    let mut tracker = tracker();
    // One goes right and one left at 60 px/s, 15 px apart in height: they meet in frame 25.
    let frame = |n: u64| {
        let travelled = n as f32 * 6.0;
        vec![at(travelled, 100.0, 0.8), at(300.0 - travelled, 115.0, 0.8)]
    };
    let frames: Vec<_> = (0..50).map(frame).collect();
    let updates = feed(&mut tracker, 0, &frames);
    for update in &updates[1..] {
        assert_eq!(update.tracks, [Some(1), Some(2)]);
    }
}

#[test]
fn an_object_hidden_behind_another_keeps_its_number() {
    let mut tracker = tracker();
    // As above, but while they overlap the detector sees only the one in front.
    let frame = |n: u64| {
        let (right, left) = (n as f32 * 6.0, 300.0 - n as f32 * 6.0);
        let front = at(right, 100.0, 0.8);
        let back = at(left, 115.0, 0.8);
        if front.bbox.iou(&back.bbox) > 0.2 { vec![front] } else { vec![front, back] }
    };
    let frames: Vec<_> = (0..50).map(frame).collect();
    assert!(frames.iter().filter(|f| f.len() == 1).count() >= 3, "it is hidden for a while");
    let updates = feed(&mut tracker, 0, &frames);
    assert_eq!(updates.last().unwrap().tracks, [Some(1), Some(2)]);
    assert!(updates.iter().all(|u| u.ended.is_empty()));
}

/// A picture of one colour, as what somebody in such clothes looks like.
fn dressed(colour: [u8; 3]) -> Option<Look> {
    let frame = Frame::solid(100, 100, colour);
    Look::of(&frame, &[BBox::from_xywh(10.0, 10.0, 40.0, 80.0)]).unwrap()[0]
}

const RED: [u8; 3] = [180, 40, 40];
const BLUE: [u8; 3] = [40, 40, 180];

#[test]
fn two_who_meet_and_turn_back_are_told_apart_by_their_looks() {
    let clothes = [dressed(RED), dressed(BLUE)];
    for (looks, expected) in [(&clothes[..], [Some(1), Some(2)]), (&[], [Some(2), Some(1)])] {
        let mut tracker = tracker();
        // They walk towards each other, are hidden for half a second, and walk back.
        let seen = |n: u64| {
            let way = 6.0 * if n < 20 { n as f32 } else { 45.0 - n as f32 };
            [at(100.0 + way, 100.0, 0.8), at(355.0 - way, 100.0, 0.8)]
        };
        (0..20).for_each(|n| drop(tracker.update_with(n * FRAME, &seen(n), looks)));
        (20..25).for_each(|n| drop(tracker.update(n * FRAME, &[])));
        let found = tracker.update_with(25 * FRAME, &seen(25), looks);
        assert_eq!(found.tracks, expected, "with {} looks", looks.len());
    }
}

#[test]
fn of_two_who_meet_the_one_in_front_has_the_detection_that_is_left() {
    for (lower, expected) in [(8.0, Some(1)), (-8.0, Some(2))] {
        let mut tracker = tracker();
        let seen = |n: u64| {
            let way = 3.0 * n as f32;
            [at(100.0 + way, 100.0 + lower, 0.8), at(180.0 - way, 100.0, 0.8)]
        };
        (0..10).for_each(|n| drop(tracker.update(n * FRAME, &seen(n))));
        // They are 20 pixels apart, and one box lies between them.
        let found = tracker.update(10 * FRAME, &[at(140.0, 100.0 + lower / 2.0, 0.8)]);
        assert_eq!(found.tracks, [expected], "the first {lower} pixels lower");
    }
}

#[test]
fn where_two_overlap_nothing_is_learnt_of_their_looks() {
    let mut tracker = tracker();
    let apart = [at(100.0, 100.0, 0.8), at(300.0, 100.0, 0.8)];
    let looks = [dressed(RED), dressed(BLUE)];
    (0..5).for_each(|n| drop(tracker.update_with(n * FRAME, &apart, &looks)));
    let known: Vec<_> = tracker.state().tracks.iter().map(|track| track.look).collect();
    let near = [at(112.0, 100.0, 0.8), at(100.0, 130.0, 0.8)];
    tracker.update_with(5 * FRAME, &near, &[dressed(BLUE), dressed(BLUE)]);
    assert_eq!(tracker.state().tracks[0].look, known[0], "its box shows some of the other");
    let alone = [at(112.0, 100.0, 0.8)];
    tracker.update_with(6 * FRAME, &alone, &[dressed(BLUE)]);
    assert_ne!(tracker.state().tracks[0].look, known[0]);
}

#[test]
fn a_short_gap_keeps_the_number_of_a_moving_object() {
    let mut tracker = tracker();
    let walk = |n: u64| at(n as f32 * 6.0, 0.0, 0.8);
    for n in 0..20 {
        tracker.update(n * FRAME, &[walk(n)]);
    }
    for n in 20..28 {
        assert_eq!(tracker.update(n * FRAME, &[]), TrackUpdate::default());
        assert!(tracker.tracks()[0].lost);
    }
    // 54 px on, more than its width: found again only where it was expected.
    let found = tracker.update(28 * FRAME, &[walk(28)]);
    assert_eq!(found.tracks, [Some(1)]);
    assert!(!tracker.tracks()[0].lost);
}

#[test]
fn an_object_that_is_hidden_for_a_second_is_found_though_it_slowed_down() {
    let mut tracker = tracker();
    for n in 0..20 {
        tracker.update(n * FRAME, &[at(n as f32 * 6.0, 0.0, 0.8)]);
    }
    feed(&mut tracker, 20, &vec![vec![]; 10]);
    // It is expected 66 px on and comes out 30 px behind that, where nothing overlaps much.
    let found = tracker.update(30 * FRAME, &[at(150.0, 5.0, 0.8)]);
    assert_eq!(found.tracks, [Some(1)]);
}

#[test]
fn what_is_left_of_a_box_before_it_is_hidden_does_not_turn_its_track_back() {
    let mut tracker = tracker();
    for n in 0..20 {
        tracker.update(n * FRAME, &[at(n as f32 * 6.0, 0.0, 0.8)]);
    }
    // A post hides it from the right: the box's right edge stands still for three frames.
    for n in 20..23u64 {
        let left = n as f32 * 6.0;
        let cut = Observation {
            bbox: BBox::from_xywh(left, 0.0, 160.0 - left, 80.0),
            ..at(0.0, 0.0, 0.5)
        };
        assert_eq!(tracker.update(n * FRAME, &[cut]).tracks, [Some(1)]);
    }
    feed(&mut tracker, 23, &vec![vec![]; 8]);
    let found = tracker.update(31 * FRAME, &[at(31.0 * 6.0, 0.0, 0.8)]);
    assert_eq!(found.tracks, [Some(1)]);
}

#[test]
fn a_gap_longer_than_the_buffer_ends_the_track_and_gives_a_new_number() {
    let mut tracker = tracker();
    feed(&mut tracker, 0, &vec![vec![at(50.0, 50.0, 0.8)]; 5]);
    let gap = feed(&mut tracker, 5, &vec![vec![]; 25]);
    let ended: Vec<_> = gap.iter().flat_map(|u| &u.ended).collect();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].id, ended[0].last_seen), (1, 4 * FRAME));
    assert_eq!(ended[0].duration(), Duration::from_nanos(4 * FRAME));
    let when = gap.iter().position(|u| !u.ended.is_empty()).unwrap();
    assert_eq!(when, 20, "2.1 s after it was last seen, the first update above 2 s");
    let again = feed(&mut tracker, 30, &vec![vec![at(50.0, 50.0, 0.8)]; 2]);
    assert_eq!(again[1].tracks, [Some(2)]);
}

#[test]
fn the_buffer_counts_time_not_updates() {
    // The same two seconds without a sight, at 30 and at 5 updates a second.
    for rate in [30u64, 5] {
        let step = 1_000_000_000 / rate;
        let mut tracker = tracker();
        for n in 0..rate {
            tracker.update(n * step, &[at(50.0, 50.0, 0.8)]);
        }
        let last_seen = (rate - 1) * step;
        let mut ended_at = None;
        for n in rate..rate * 4 {
            let update = tracker.update(n * step, &[]);
            if !update.ended.is_empty() {
                ended_at = Some(n * step - last_seen);
                break;
            }
        }
        let seconds = ended_at.unwrap() as f64 / 1e9;
        assert!(
            seconds > 2.0 && seconds < 2.0 + 1.5 / rate as f64,
            "{seconds} s at {rate} a second"
        );
    }
}

#[test]
fn with_few_updates_a_second_one_miss_ends_nothing() {
    let mut tracker = tracker();
    let second = 1_000_000_000;
    for n in 0..4 {
        tracker.update(n * second, &[at(50.0, 50.0, 0.8)]);
    }
    assert!(
        tracker.update(6 * second, &[]).ended.is_empty(),
        "3 s unseen, but looked for once only"
    );
    assert_eq!(tracker.update(7 * second, &[at(50.0, 50.0, 0.8)]).tracks, [Some(1)]);
}

#[test]
fn skipped_frames_do_not_cost_the_number_of_a_moving_object() {
    let mut tracker = tracker();
    // 60 px/s; only these frames are looked at.
    let looked_at = [0u64, 1, 2, 3, 5, 6, 10, 11, 12, 17, 18, 24, 25, 30];
    let updates: Vec<_> = looked_at
        .iter()
        .map(|&n| tracker.update(n * FRAME, &[at(n as f32 * 6.0, 0.0, 0.8)]))
        .collect();
    assert!(updates[1..].iter().all(|u| u.tracks == [Some(1)]));
}

#[test]
fn a_low_score_keeps_a_track_that_is_in_sight() {
    let mut tracker = tracker();
    feed(&mut tracker, 0, &vec![vec![at(0.0, 0.0, 0.8)]; 5]);
    let faint = feed(&mut tracker, 5, &vec![vec![at(0.0, 0.0, 0.15)]; 30]);
    assert!(faint.iter().all(|u| u.tracks == [Some(1)] && u.ended.is_empty()));
    let below = tracker.update(35 * FRAME, &[at(0.0, 0.0, 0.05)]);
    assert_eq!(below.tracks, [None]);
}

#[test]
fn a_low_score_does_not_bring_back_a_lost_track() {
    let mut tracker = tracker();
    feed(&mut tracker, 0, &vec![vec![at(0.0, 0.0, 0.8)]; 5]);
    let updates = feed(&mut tracker, 5, &[vec![], vec![at(0.0, 0.0, 0.2)]]);
    assert_eq!(updates[1].tracks, [None]);
}

#[test]
fn objects_of_different_classes_are_never_one_track() {
    let mut tracker = tracker();
    let car = Observation { class: 2, ..at(0.0, 0.0, 0.8) };
    feed(&mut tracker, 0, &vec![vec![at(0.0, 0.0, 0.8)]; 5]);
    let updates = feed(&mut tracker, 5, &vec![vec![car]; 2]);
    assert_eq!(updates[0].tracks, [None]);
    assert_eq!(updates[1].tracks, [Some(2)]);
    assert_eq!(updates[1].began[0].class, 2);
}

#[test]
fn time_that_jumps_ends_every_track() {
    for later in [0, 60 * 1_000_000_000] {
        let mut tracker = tracker();
        feed(&mut tracker, 10, &vec![vec![at(0.0, 0.0, 0.8)]; 5]);
        let update = tracker.update(later, &[at(0.0, 0.0, 0.8)]);
        assert_eq!(update.ended.len(), 1);
        assert_eq!(update.tracks, [None]);
        assert_eq!(
            tracker.update(later + FRAME, &[at(0.0, 0.0, 0.8)]).tracks,
            [Some(2)],
            "no number twice"
        );
    }
}

#[test]
fn an_object_that_is_seen_twice_has_one_track() {
    let mut tracker = tracker();
    let twice = vec![at(0.0, 0.0, 0.9), at(14.0, 0.0, 0.8)];
    let updates = feed(&mut tracker, 0, &vec![twice; 10]);
    assert_eq!(updates[9].tracks, [Some(1), None]);
}

#[test]
fn of_two_tracks_on_one_object_the_younger_ends() {
    let mut tracker = tracker();
    // Two objects walk until one hides the other for good, and both stand still.
    let place = |n: u64| (n as f32 * 6.0).min(120.0);
    let apart = |n: u64| vec![at(place(n), 0.0, 0.9), at(240.0 - place(n), 0.0, 0.9)];
    feed(&mut tracker, 0, &(0..14).map(apart).collect::<Vec<_>>());
    assert_eq!(tracker.tracks().len(), 2);
    let one = |n: u64| vec![at(place(n), 0.0, 0.9)];
    let updates = feed(&mut tracker, 14, &(14..45).map(one).collect::<Vec<_>>());
    let ended: Vec<_> = updates.iter().flat_map(|u| &u.ended).map(|t| t.id).collect();
    assert_eq!(ended, [2]);
    assert_eq!(tracker.tracks().len(), 1);
}

#[test]
fn numbers_of_tracks_and_detections_are_bounded() {
    let mut tracker = tracker();
    for n in 0..10u64 {
        let shift = n as f32 * 1000.0;
        let crowd: Vec<_> = (0..300)
            .map(|i| at(shift + (i % 20) as f32 * 50.0, (i / 20) as f32 * 90.0, 0.9))
            .collect();
        let update = tracker.update(n * FRAME, &crowd);
        assert_eq!(update.tracks.len(), 300);
        assert!(tracker.state().tracks.len() <= MAX_TRACKS);
    }
}

#[test]
fn what_is_not_a_number_is_passed_over() {
    let mut tracker = tracker();
    let nan = Observation {
        bbox: BBox { left: f32::NAN, ..at(0.0, 0.0, 0.9).bbox },
        score: 0.9,
        class: 0,
    };
    let update = tracker.update(0, &[nan, at(0.0, 0.0, f32::INFINITY), at(0.0, 0.0, f32::NAN)]);
    assert_eq!(update.tracks, [None; 3]);
    assert!(tracker.state().tracks.is_empty());
}

/// A few objects that wander, vanish, flicker and cross, at times that are not regular.
fn scene() -> impl Strategy<Value = Vec<(u64, Vec<Observation>)>> {
    let seen = (0usize..4, -6f32..6.0, -6f32..6.0, 0.05f32..1.0);
    let frame = (20_000_000u64..400_000_000, prop::collection::vec(seen, 0..6));
    prop::collection::vec(frame, 1..60).prop_map(|frames| {
        let mut time = 0;
        let place = |n: usize, object: usize, dx: f32, dy: f32, score: f32| Observation {
            bbox: BBox::from_xywh(
                n as f32 * (object as f32 - 1.5) * 3.0 + 100.0 + dx,
                60.0 * object as f32 + dy,
                40.0,
                80.0,
            ),
            score,
            class: (object / 2) as u32,
        };
        let at_times = frames.into_iter().enumerate().map(|(n, (dt, seen))| {
            time += dt;
            (
                time,
                seen.into_iter()
                    .map(|(object, dx, dy, score)| place(n, object, dx, dy, score))
                    .collect(),
            )
        });
        at_times.collect()
    })
}

proptest! {
    #[test]
    fn every_track_begins_once_and_ends_at_most_once(scene in scene()) {
        let mut tracker = tracker();
        let mut alive = Vec::new();
        let mut last = 0;
        for (time, frame) in &scene {
            let update = tracker.update(*time, frame);
            for began in &update.began {
                prop_assert_eq!(began.id, last + 1, "numbers follow each other");
                last = began.id;
                alive.push(began.id);
            }
            for ended in &update.ended {
                prop_assert!(alive.contains(&ended.id));
                alive.retain(|id| *id != ended.id);
            }
            let mut numbers: Vec<_> = update.tracks.iter().flatten().collect();
            numbers.sort_unstable();
            let mut pairs = numbers.iter().zip(numbers.iter().skip(1));
            prop_assert!(pairs.all(|(a, b)| a != b), "one detection a track");
            let known: Vec<_> = tracker.tracks().iter().map(|t| t.id).collect();
            prop_assert_eq!(&known, &alive);
        }
    }

    #[test]
    fn another_instance_goes_on_with_the_same_numbers(scene in scene(), at in 0usize..60) {
        let mut blue = tracker();
        let (before, after) = scene.split_at(at.min(scene.len()));
        for (time, frame) in before {
            blue.update(*time, frame);
        }
        let kept = serde_json::to_string(blue.state()).unwrap();
        let mut green = Tracker::resume(TrackerConfig::for_score(0.4), serde_json::from_str(&kept).unwrap()).unwrap();
        for (time, frame) in after {
            prop_assert_eq!(blue.update(*time, frame), green.update(*time, frame));
        }
        prop_assert_eq!(blue.state(), green.state(), "to the last bit");
    }
}

#[test]
fn a_state_that_no_tracker_makes_is_refused() {
    let mut tracker = tracker();
    feed(&mut tracker, 0, &vec![vec![at(0.0, 0.0, 0.8), at(100.0, 0.0, 0.8)]; 3]);
    let sound = serde_json::to_value(tracker.state()).unwrap();
    let resume = |state: serde_json::Value| -> Result<(), String> {
        let state = serde_json::from_value(state).map_err(|e| e.to_string())?;
        Tracker::resume(TrackerConfig::default(), state).map(|_| ())
    };
    assert_eq!(resume(sound.clone()), Ok(()));
    let spoilt = |pointer: &str, value: serde_json::Value| {
        let mut state = sound.clone();
        *state.pointer_mut(pointer).unwrap() = value;
        resume(state).unwrap_err()
    };
    assert!(spoilt("/tracks/1/id", 1.into()).contains("twice"));
    assert!(spoilt("/next_id", 2.into()).contains("track 1 of 2"));
    assert!(spoilt("/tracks/0/bbox/right", (-5.0).into()).contains("track 0 of 2"));
    assert!(spoilt("/tracks/0/motion/x/covariance/0", (-1.0).into()).contains("track 0 of 2"));
    let look = serde_json::json!([[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1e9]]);
    assert!(spoilt("/tracks/0/look", look).contains("track 0 of 2"));
    spoilt("/tracks/0/score", serde_json::Value::Null);
}

/// People that walk through the picture from left to right or back, each in a lane of its own.
/// Speeds are in pixels a second; a box has 40 x 80 pixels, so its size is 57.
struct Walkers {
    /// When each enters, in seconds, its lane's height and its speed.
    all: Vec<(f32, f32, f32)>,
}

/// Pixels that a walker passes through.
const WAY: f32 = 1200.0;

impl Walkers {
    fn new(count: usize, apart_s: f32, lane: f32) -> Self {
        let speeds = [60.0, -75.0, 85.0, -50.0];
        let walker =
            |n: usize| (n as f32 * apart_s, (n % 4) as f32 * lane, speeds[n % speeds.len()]);
        Self { all: (0..count).map(walker).collect() }
    }

    fn at(&self, seconds: f32) -> Vec<Observation> {
        let place = |&(enters, y, speed): &(f32, f32, f32)| {
            let way = (seconds - enters) * speed.abs();
            let x = if speed > 0.0 { way } else { WAY - way };
            (0.0..=WAY).contains(&way).then(|| at(x, y, 0.8))
        };
        self.all.iter().filter_map(place).collect()
    }
}

/// Looks at the walkers until they are gone; gives how many tracks began and ended, and in which
/// share of the looks the tracker said that it can be relied on.
fn look(walkers: &Walkers, rate: f32, first: f32) -> (usize, usize, f32) {
    let (mut tracker, mut began, mut ended, mut reliable) = (tracker(), 0, 0, 0);
    let last = walkers.all.iter().map(|w| w.0).fold(0.0, f32::max) + WAY / 50.0 + 12.0;
    let looks = ((last - first) * rate) as usize;
    for n in 0..looks {
        let seconds = first + n as f32 / rate;
        let update = tracker.update((f64::from(seconds) * 1e9) as u64, &walkers.at(seconds));
        began += update.began.len();
        ended += update.ended.len();
        reliable += usize::from(tracker.is_reliable());
    }
    (began, ended, reliable as f32 / looks as f32)
}

#[test]
fn at_any_pace_that_it_holds_each_who_passes_enters_once_and_leaves_once() {
    // Lanes far apart: who is who is never in doubt.
    let few = Walkers::new(24, 5.0, 400.0);
    for rate in [0.4, 0.7, 1.0, 1.4, 2.0, 5.0, 10.0] {
        for first in [0.0, 0.3 / rate, 0.7 / rate] {
            let (began, ended, reliable) = look(&few, rate, first);
            assert_eq!((began, ended), (24, 24), "at {rate} a second from {first} s on");
            assert_eq!(reliable, 1.0, "at {rate} a second from {first} s on");
        }
    }
}

#[test]
fn below_the_pace_that_it_holds_the_tracker_says_so() {
    // How many, seconds from one to the next, and lanes that are near or overlap.
    let crowds = [(60, 1.0, 70.0), (60, 0.5, 70.0), (60, 1.0, 40.0), (100, 0.4, 50.0)];
    for (count, apart_s, lane) in crowds {
        let crowd = Walkers::new(count, apart_s, lane);
        for rate in [0.4, 0.7, 1.0, 1.4, 2.0, 5.0, 10.0] {
            let (began, ended, reliable) = look(&crowd, rate, 0.0);
            let what = format!("{count} each {apart_s} s at {rate} a second: {reliable}");
            if reliable > 0.5 {
                assert_eq!((began, ended), (count, count), "{what}");
            }
            assert!(rate > 0.7 || reliable < 0.5, "{what}");
            assert!(rate < 5.0 || reliable > 0.9, "{what}");
        }
    }
}
