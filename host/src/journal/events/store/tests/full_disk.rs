//! A disk with little room, and one with none.

use crate::journal::events::store::relief::Relieved;
use ocelli_testkit::small_disk::SmallDisk;

use super::*;

const RESERVE: RetentionLimits = RetentionLimits {
    hours: 0,
    bytes: 0,
    attachment_hours: 0,
    attachment_bytes: 0,
    clip_hours: 0,
    clip_bytes: 0,
    reserve_bytes: 1 << 20,
    sinks: Vec::new(),
};

#[tokio::test]
async fn a_disk_that_is_full_to_the_last_byte_costs_pictures_and_no_event() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(folder.path(), 16 << 10) else { return };
    let events = EventJournal::open(&file::folder(folder.path()).unwrap()).unwrap();
    events.set_retention(RESERVE);
    let told = told(&events);
    for number in 1..=40 {
        events.append("cam", pictured(number, u8::try_from(number).unwrap(), 50_000));
    }
    events.flush().await.unwrap();
    assert!(events.health().pictures.is_none(), "there is room");
    assert!(events.attachment([1; 32].into()).await.unwrap().is_some());

    // Pictures make way, and events go on.
    assert!(disk.fill() > 0);
    until(&events, "short of room", |health| health.pictures.is_some()).await;
    let mut number = 40;
    while events.health().failing.is_none() {
        disk.fill();
        number += 1;
        events.append("cam", sized(2000));
        // An error where the disk takes it no more: that is what is waited for.
        let _ = events.flush().await;
    }
    assert!(events.health().pictures_lost > 0);
    assert!(events.attachment([1; 32].into()).await.unwrap().is_none(), "the oldest went");
    let kept = told.lock().len();
    assert!(kept >= 40);

    // What cannot be written waits, and changes of state do not.
    let (done, mut notes) = mpsc::unbounded_channel();
    for (note, overtakes) in [("first", true), ("behind the events", false), ("second", true)] {
        number += 1;
        events.append("cam", pictured(number, 200, 1000));
        let done = done.clone();
        let run: DeliveryCallback = Box::new(move || done.send(note).unwrap());
        match overtakes {
            true => events.after_pending_while_kept("cam", run),
            false => events.after_pending("cam", run),
        }
    }
    assert_eq!((notes.recv().await.unwrap(), notes.recv().await.unwrap()), ("first", "second"));
    let health = events.health();
    assert!(health.failing.as_ref().unwrap().contains("full"), "{health:?}");
    assert_eq!(kept as u64 + health.waiting, number, "each waits or was told");
    assert_eq!(told.lock().len(), kept, "nothing is told that is not on the disk");

    // Room again: everything goes on by itself.
    disk.free();
    until(&events, "well again", |health| health.failing.is_none() && health.waiting == 0).await;
    assert_eq!(notes.recv().await.unwrap(), "behind the events");
    events.flush().await.unwrap();
    let page = events.page("cam", all()).await.unwrap();
    let numbers: Vec<u64> = page.events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=number).collect::<Vec<_>>(), "none is lost, each has its number");
    assert_eq!(told.lock().len() as u64, number, "each was told once");
    events.append("cam", pictured(number, 201, 1000));
    until(&events, "keeping pictures", |health| health.pictures.is_none()).await;
    events.flush().await.unwrap();
    assert!(events.attachment([201; 32].into()).await.unwrap().is_some());
}

#[test]
fn on_little_room_the_oldest_pictures_go_and_events_only_when_there_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    for number in 1..=9 {
        keep(&mut store, "cam", vec![pictured(number.into(), number, 1000)], number.into());
    }
    // Another session has the first picture, and has it later.
    keep(&mut store, "yard", vec![pictured(1, 1, 1000)], 20);
    let some = Shortage { pictures: 3000, events: true };
    // What a backup has too would stay on the disk.
    std::fs::create_dir(folder.path().join("backup")).unwrap();
    assert_eq!(store.relieve(some, &[], 100).unwrap(), Relieved::default());
    assert!(!folder.path().join("backup").exists());
    let gone = store.relieve(some, &[], 100).unwrap();
    assert_eq!((gone.pictures, gone.events), (3, 0));
    let there = |store: &EventStore, n: u8| store.pictures.read(&[n; 32].into()).unwrap().is_some();
    assert!(there(&store, 1), "another session has it");
    assert!(!there(&store, 2) && !there(&store, 3) && there(&store, 4));
    consistent(&store);
    assert_eq!(store.relieve(Shortage::ACUTE, &[], 100).unwrap().pictures, 7);
    assert_eq!(store.picture_bytes, 0);
    let gone = store.relieve(Shortage { pictures: 1, events: false }, &[], 100).unwrap();
    assert_eq!((gone.pictures, gone.events), (0, 0), "events stay");
    assert_eq!(numbers(&store, "cam").len(), 9);
}

#[test]
fn old_events_make_way_until_the_file_has_pages_for_new_ones_and_unconfirmed_ones_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    for _ in 0..300 {
        keep(&mut store, "cam", (0..10).map(|_| sized(4000)).collect(), 0);
    }
    // What else is noted under the name of a session holds nothing back.
    let cam: Arc<str> = "cam".into();
    let sinks: [Arc<str>; 2] = [REDIS_SINK.into(), "mqtt".into()];
    let cursors = Cursors::from([
        ((sinks[0].clone(), cam.clone()), 500),
        (("redis starts".into(), cam.clone()), 3),
        ((sinks[1].clone(), cam), 200),
    ]);
    store.commit(&[], &cursors, 0, true).unwrap();
    let acute = Shortage::ACUTE;
    while store.relieve(acute, &sinks, 100).unwrap().events > 0 {}
    assert_eq!(numbers(&store, "cam")[0], 201, "each sink has what went");
    let more = [sinks[0].clone(), "webhook:new".into()];
    assert_eq!(store.relieve(acute, &more, 100).unwrap().events, 0, "a new one has nothing");
    while store.relieve(acute, &sinks[..1], 100).unwrap().events > 0 {}
    consistent(&store);
    let kept = numbers(&store, "cam");
    assert_eq!(kept[0], 501, "Redis has what went, and no more");
    let free = |store: &EventStore| -> u64 {
        store.connection.pragma_query_value(None, "freelist_count", |row| row.get(0)).unwrap()
    };
    assert!(free(&store) < retention::FREE_PAGES);
    while store.relieve(acute, &[], 100).unwrap().events > 0 {}
    assert!(free(&store) >= retention::FREE_PAGES);
    let after = numbers(&store, "cam");
    assert!(after.len() > 1500, "{} stay: no more goes than new ones need", after.len());
    // New ones find their room in the file.
    let pages = |store: &EventStore| -> u64 {
        store.connection.pragma_query_value(None, "page_count", |row| row.get(0)).unwrap()
    };
    let before = pages(&store);
    keep(&mut store, "cam", (0..30).map(|_| sized(4000)).collect(), 0);
    assert_eq!(pages(&store), before);
}
