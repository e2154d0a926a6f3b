//! A system whose clock is set.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use super::*;

const NOW: i64 = 1_800_000_000_000;

const DAY: i64 = 24 * 3_600_000;

const KEEP: RetentionLimits = RetentionLimits {
    hours: 720,
    bytes: 0,
    attachment_hours: 168,
    attachment_bytes: 0,
    clip_hours: 0,
    clip_bytes: 0,
    reserve_bytes: 0,
    sinks: Vec::new(),
};

#[tokio::test]
async fn a_clock_that_is_set_40_days_ahead_deletes_nothing_and_is_told_until_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let (store, reader) = store::open(&file::folder(folder.path()).unwrap(), NOW).unwrap();
    let (ahead, begun) = (Arc::new(AtomicI64::new(0)), Instant::now());
    let set = Arc::clone(&ahead);
    let clocks = move || {
        let passed = i64::try_from(begun.elapsed().as_millis()).unwrap();
        let wall = NOW + passed + ahead.load(Ordering::Relaxed);
        ClockReading { wall, boot: 5000 + passed }
    };
    let events = EventJournal::start(store, reader, Box::new(clocks)).unwrap();
    events.set_retention(KEEP);
    for number in 1..=20 {
        events.append("cam", pictured(number, u8::try_from(number).unwrap(), 100));
    }
    events.flush().await.unwrap();
    for days in [40, -40] {
        set.store(days * DAY, Ordering::Relaxed);
        until(&events, "told", |health| health.clock.is_some()).await;
        assert_eq!(events.health().clock.unwrap().seconds / 86_400, days);
        events.append("cam", draft(0));
        events.flush().await.unwrap();
        // A step that deletes follows each look at the clock: one at least was under the other.
        set.store(0, Ordering::Relaxed);
        until(&events, "as before", |health| health.clock.is_none()).await;
    }
    let page = events.page("cam", all()).await.unwrap();
    let numbers: Vec<u64> = page.events.iter().map(|event| event.seq).collect();
    assert_eq!(numbers, (1..=22).collect::<Vec<_>>());
    assert!(events.attachment([1; 32].into()).await.unwrap().is_some());
}

#[test]
fn the_clock_of_age_is_kept_and_a_file_without_one_begins_with_its_last_event() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), NOW);
    assert_eq!(store.clock_record().unwrap(), None);
    keep(&mut store, "cam", vec![draft(1)], NOW);
    let last = store.clock_record().unwrap().unwrap();
    assert_eq!((last.age, last.at.wall, last.boot_id.as_str()), (NOW, NOW, ""));
    let record = ClockRecord {
        age: NOW + 7,
        at: ClockReading { wall: NOW + 9, boot: 11 },
        boot_id: "a".into(),
    };
    store.save_clock(&record).unwrap();
    store.save_clock(&record).unwrap();
    drop(store);
    assert_eq!(open_at(folder.path(), 0).clock_record().unwrap(), Some(record));
}
