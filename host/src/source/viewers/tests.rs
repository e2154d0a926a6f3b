use super::super::tests::unit;
use super::*;

/// Nanoseconds from one unit to the next: 25 a second.
const STEP: u64 = 40_000_000;

/// A reader's tap, the session on it, and one connection.
struct Stage {
    owner: PictureFeedOwner,
    tap: PictureTap,
    group: Arc<ViewerGroup>,
}

impl Stage {
    fn new() -> Self {
        let (owner, tap) = (PictureFeedOwner::default(), PictureTap::default());
        owner.follow(tap.clone());
        Self { owner, tap, group: Arc::default() }
    }

    fn view(&self, choice: ViewerChoice) -> Viewer {
        self.owner.feed().view(&self.group, 1, choice)
    }

    /// Units as a source with GOPs of 10 gives them.
    fn publish(&self, numbers: std::ops::Range<u64>, size: usize) {
        numbers.for_each(|number| self.tap.unit(&timed(number, number.is_multiple_of(10), size)));
    }

    fn waiting(&self) -> usize {
        self.group.waiting_bytes.load(Ordering::Relaxed)
    }

    fn dropped(&self) -> u64 {
        self.owner.feed().counts().dropped()
    }
}

fn timed(number: u64, key: bool, size: usize) -> Arc<AccessUnit> {
    let mut unit = AccessUnit::clone(&unit(number, key, size));
    unit.header.received_ns = number * STEP;
    Arc::new(unit)
}

/// Numbers of what waits for a viewer, and those before which something is missing.
fn drain(viewer: &Viewer) -> (Vec<u64>, Vec<u64>) {
    let pictures: Vec<_> = std::iter::from_fn(|| viewer.next()).collect();
    let number = |picture: &ViewedPicture| picture.unit.header.number;
    let gaps = pictures.iter().filter(|picture| picture.discontinuity).map(number).collect();
    (pictures.iter().map(number).collect(), gaps)
}

fn run(numbers: std::ops::Range<u64>) -> Vec<u64> {
    numbers.collect()
}

#[test]
fn a_joiner_gets_the_kept_gop_and_then_every_picture_once() {
    let stage = Stage::new();
    stage.publish(0..17, 1);
    let viewer = stage.view(ViewerChoice::All);
    stage.publish(17..20, 1);
    assert_eq!(drain(&viewer), (run(10..20), vec![]));
    stage.publish(20..23, 1);
    assert_eq!(drain(&viewer), (run(20..23), vec![]));
    assert_eq!((stage.dropped(), stage.waiting()), (0, 0));
}

#[test]
fn pictures_are_shared_and_not_copied() {
    let stage = Stage::new();
    let viewer = stage.view(ViewerChoice::All);
    let unit = timed(0, true, 9);
    stage.tap.unit(&unit);
    assert!(Arc::ptr_eq(&viewer.next().unwrap().unit, &unit));
}

#[test]
fn without_a_key_unit_a_viewer_waits_for_one_and_has_lost_nothing() {
    let stage = Stage::new();
    stage.publish(3..5, 1);
    let viewer = stage.view(ViewerChoice::All);
    stage.publish(5..12, 1);
    assert_eq!(drain(&viewer), (run(10..12), vec![]));
    assert_eq!(stage.dropped(), 0);
}

#[test]
fn one_who_does_not_read_for_half_a_second_goes_on_at_the_newest_key_unit() {
    let stage = Stage::new();
    let viewer = stage.view(ViewerChoice::All);
    stage.publish(0..13, 1);
    assert_eq!(drain(&viewer), (run(0..13), vec![]), "12 steps are less than half a second");
    stage.publish(13..29, 1);
    assert_eq!(stage.dropped(), 3, "26, 27 and 28 came half a second after 13");
    assert_eq!(viewer.next().unwrap().unit.header.number, 13);
    stage.publish(29..33, 1);
    assert_eq!(drain(&viewer), (run(30..33), vec![30]), "a key unit takes the others' place");
    assert_eq!(stage.dropped(), 4 + 12);
    stage.publish(33..36, 1);
    assert_eq!(drain(&viewer), (run(33..36), vec![]));
}

#[test]
fn what_waited_comes_before_the_gap_where_it_was_read_in_time() {
    let stage = Stage::new();
    let viewer = stage.view(ViewerChoice::All);
    stage.publish(0..15, 1);
    assert_eq!(drain(&viewer), (run(0..13), vec![]));
    stage.publish(15..22, 1);
    assert_eq!(drain(&viewer), (run(20..22), vec![20]), "nothing but a key unit follows a gap");
}

#[test]
fn two_mebibytes_may_wait_beside_the_gop_that_a_viewer_joined_with() {
    let stage = Stage::new();
    stage.publish(0..9, MAX_WAITING_BYTES / 2);
    let viewer = stage.view(ViewerChoice::All);
    stage.publish(9..12, MAX_WAITING_BYTES / 2);
    assert_eq!(stage.dropped(), 1, "the third is one too many");
    assert_eq!(drain(&viewer).0, run(0..11));
    let large = timed(20, true, 3 * MAX_WAITING_BYTES);
    stage.tap.unit(&large);
    assert_eq!(drain(&viewer), (vec![20], vec![20]), "one picture always has room");
    assert_eq!(stage.waiting(), 0);
}

#[test]
fn all_viewers_of_a_connection_have_a_bound_together() {
    let stage = Stage::new();
    stage.tap.unit(&timed(0, true, MAX_GROUP_BYTES / 4));
    let viewers: Vec<_> = (1..6)
        .map(|number| stage.owner.feed().view(&stage.group, number, ViewerChoice::All))
        .collect();
    assert!(stage.waiting() <= MAX_GROUP_BYTES, "{}", stage.waiting());
    let joined: Vec<_> = viewers.iter().map(|viewer| viewer.next().is_some()).collect();
    assert_eq!(joined, [true, true, true, true, false]);
    assert_eq!(stage.waiting(), 0);
    stage.tap.unit(&timed(10, true, 1));
    assert!(viewers.iter().all(|viewer| viewer.next().is_some()));
    drop(viewers);
    assert_eq!((stage.waiting(), stage.owner.feed().counts().viewers()), (0, 0));
}

#[test]
fn whoever_wants_key_units_gets_those_alone_and_none_is_missing() {
    let stage = Stage::new();
    stage.publish(0..5, 1);
    let viewer = stage.view(ViewerChoice::Key);
    stage.publish(5..12, 1);
    assert_eq!(drain(&viewer), (vec![0, 10], vec![]));
    viewer.choose(ViewerChoice::All);
    stage.publish(12..14, 1);
    assert_eq!(drain(&viewer), (run(10..14), vec![10]), "from the kept GOP on");
    stage.publish(14..22, 1);
    viewer.choose(ViewerChoice::Key);
    stage.publish(22..32, 1);
    assert_eq!(drain(&viewer), (vec![20, 30], vec![]));
    assert_eq!((stage.dropped(), stage.waiting()), (0, 0));
}

#[test]
fn after_the_source_was_down_a_joiner_gets_no_old_pictures() {
    let stage = Stage::new();
    stage.publish(0..5, 1);
    stage.tap.clear();
    let viewer = stage.view(ViewerChoice::All);
    stage.publish(5..11, 1);
    assert_eq!(drain(&viewer).0, [10]);
}

#[tokio::test]
async fn a_viewer_follows_its_session_to_another_reader_and_to_its_end() {
    let mut stage = Stage::new();
    stage.publish(0..3, 1);
    let mut viewer = stage.view(ViewerChoice::All);
    let changes = tokio::spawn(viewer.changes());
    drain(&viewer);
    stage.owner.follow(stage.tap.clone());
    assert_eq!(viewer.follow(), None, "it is the same reader");
    let old = std::mem::take(&mut stage.tap);
    stage.publish(50..52, 1);
    stage.owner.follow(stage.tap.clone());
    while !viewer.taps.has_changed().unwrap() {
        stage.group.wait().await;
    }
    assert_eq!(viewer.follow(), Some(FeedChange::Moved));
    old.unit(&timed(3, true, 1));
    assert_eq!(drain(&viewer), (run(50..52), vec![50]));
    let feed = stage.owner.feed();
    drop(stage.owner);
    changes.await.unwrap();
    stage.group.wait().await;
    assert_eq!(viewer.follow(), Some(FeedChange::Ended));
    drop(viewer);
    assert_eq!(feed.counts().viewers(), 0);
}

#[test]
fn viewers_take_turns() {
    let stage = Stage::new();
    let other = PictureFeedOwner::default();
    let tap = PictureTap::default();
    other.follow(tap.clone());
    let viewers =
        [stage.view(ViewerChoice::All), other.feed().view(&stage.group, 2, ViewerChoice::All)];
    stage.publish(0..4, 1);
    (0..2).for_each(|number| tap.unit(&timed(number, number == 0, 1)));
    let turns = std::iter::from_fn(|| {
        let number = stage.group.next_ready()?;
        viewers[number as usize - 1].next().map(|_| number)
    });
    assert_eq!(turns.collect::<Vec<_>>(), [1, 2, 1, 2, 1, 1]);
}
