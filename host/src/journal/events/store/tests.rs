use std::collections::HashMap;

use super::super::room::Shortage;
use super::super::tests::{all, draft, pictured, sized, told};
use super::super::*;
use super::*;

/// Opened by hand, with a clock that stands still and nothing that ends it but the test.
fn open_at(folder: &Path, now_ms: i64) -> EventStore {
    store::open(&file::folder(folder).unwrap(), now_ms).unwrap().0
}

fn part(session: &str, drafts: Vec<EventDraft>) -> outbox::OutboxBatch {
    let mut outboxes = outbox::Outboxes::default();
    drafts.into_iter().for_each(|draft| assert!(outboxes.append(session, draft)));
    outboxes.take().pop().unwrap()
}

fn keep(store: &mut EventStore, session: &str, drafts: Vec<EventDraft>, now_ms: i64) -> u64 {
    let parts = [part(session, drafts)];
    store.write_pictures(&parts).unwrap();
    store.commit(&parts, &BTreeMap::new(), now_ms, true).unwrap()[0]
}

/// The numbers that are kept of a session.
fn numbers(store: &EventStore, session: &str) -> Vec<u64> {
    let (mut numbers, mut query) = (Vec::new(), all());
    loop {
        let page = reader::page(&store.connection, session, &query).unwrap();
        numbers.extend(page.events.iter().map(|entry| entry.seq));
        match page.next {
            Some(next) => query.after = next,
            None => return numbers,
        }
    }
}

/// Until there is no more to do.
fn retain(store: &mut EventStore, keep: &RetentionLimits, now_ms: i64) {
    while store.retain(keep, now_ms, 100).unwrap() {}
    consistent(store);
}

/// What the writer knows is what the file says.
fn consistent(store: &EventStore) {
    let sum: u64 = store
        .connection
        .query_row(
            "SELECT COALESCE(SUM(octet_length(kind) + octet_length(body) + ?), 0) FROM events",
            [outbox::EVENT_BYTES],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(store.streams.values().map(|stream| stream.bytes).sum::<u64>(), sum);
    for stream in store.streams.values() {
        assert_eq!(stream.oldest, store::oldest(&store.connection, stream.id).unwrap());
        let pictures: u64 = store
            .connection
            .query_row(
                "SELECT COALESCE(SUM(bytes), 0) FROM attachments WHERE stream = ?",
                [stream.id],
                |row| row.get(0),
            )
            .unwrap();
        assert_eq!(stream.pictures, pictures);
    }
}

/// Waits until the journal is as wanted.
async fn until(events: &EventJournal, what: &str, wanted: impl Fn(&EventHealth) -> bool) {
    let begun = std::time::Instant::now();
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    while !wanted(&events.health()) {
        tick.tick().await;
        let health = events.health();
        assert!(begun.elapsed() < Duration::from_secs(20), "not {what}: {health:?}");
    }
}

#[test]
fn events_that_are_too_old_go_and_numbers_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let hour = 3_600_000;
    let mut store = open_at(folder.path(), 0);
    for time in 0..10 {
        keep(&mut store, "cam", (0..30).map(draft).collect(), time * hour);
    }
    retain(&mut store, &RetentionLimits { hours: 3, ..RetentionLimits::default() }, 10 * hour);
    assert_eq!(numbers(&store, "cam"), (211..=300).collect::<Vec<_>>());
    retain(&mut store, &RetentionLimits { hours: 3, ..RetentionLimits::default() }, 100 * hour);
    assert!(numbers(&store, "cam").is_empty());
    let page = reader::page(&store.connection, "cam", &all()).unwrap();
    assert_eq!(page.span, SequenceRange { oldest: 301, newest: 300 });
    drop(store);
    let mut store = open_at(folder.path(), 0);
    assert_eq!(keep(&mut store, "cam", vec![draft(1)], 100 * hour), 301);
}

/// How SQLite finds what a statement asks for.
fn plan(store: &EventStore, statement: &str) -> Vec<String> {
    let mut plan = store.connection.prepare(&format!("EXPLAIN QUERY PLAN {statement}")).unwrap();
    let none = rusqlite::params_from_iter(std::iter::repeat_n(0, plan.parameter_count()));
    let rows = plan.query_map(none, |row| row.get("detail")).unwrap();
    rows.map(Result::unwrap).collect()
}

#[test]
fn the_numbers_of_all_sessions_are_the_order_of_storage_and_are_found_by_an_index() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let kept = |store: &EventStore, number, limit| {
        let page = reader::kept_after(&store.connection, number, limit).unwrap();
        let places = page.events.iter().map(|kept| {
            assert!(kept.number > number);
            (kept.number, (*kept.session).to_owned(), kept.event.seq)
        });
        (places.collect::<Vec<_>>(), page.more, page.last, page.deleted)
    };
    let place = |number, session: &str, seq| (number, session.to_owned(), seq);
    assert_eq!(kept(&store, 0, 9), (vec![], false, 0, 0));
    for (session, time) in [("b", 0), ("a", 1), ("b", 2)] {
        keep(&mut store, session, vec![draft(1)], time);
    }
    let (all, more, last, deleted) = kept(&store, 0, 9);
    assert_eq!(all, [place(1, "b", 1), place(2, "a", 1), place(3, "b", 2)]);
    assert_eq!((more, last, deleted), (false, 3, 0));
    assert_eq!(kept(&store, 1, 1), (vec![place(2, "a", 1)], true, 3, 0));
    assert_eq!(kept(&store, u64::MAX, 0), (vec![], false, 3, 0));
    // What is deleted is told, and no number is given twice.
    let hours = RetentionLimits { hours: 1, ..RetentionLimits::default() };
    retain(&mut store, &hours, 3_600_001);
    assert_eq!(kept(&store, 0, 9), (vec![place(2, "a", 1), place(3, "b", 2)], false, 3, 1));
    retain(&mut store, &hours, 9_000_000);
    assert_eq!(kept(&store, 0, 9), (vec![], false, 3, 3));
    drop(store);
    let mut store = open_at(folder.path(), 0);
    keep(&mut store, "c", vec![draft(1)], 0);
    assert_eq!(kept(&store, 0, 9), (vec![place(4, "c", 1)], false, 4, 3));
    for statement in [reader::KEPT_AFTER, reader::LAST_NUMBER] {
        let plan = plan(&store, statement);
        let scans = |step: &String| {
            step.starts_with("SCAN") && step != "SCAN numbering" || step.contains("TEMP B-TREE")
        };
        assert!(!plan.iter().any(scans), "{plan:?}");
        assert!(plan.iter().any(|step| step.contains("events_number")), "{plan:?}");
    }
}

#[test]
fn of_a_journal_that_is_too_large_a_session_that_floods_it_gives_its_own_events_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let bounds = RetentionLimits { bytes: 2 << 20, ..RetentionLimits::default() };
    let mut quiet = 0;
    for _ in 0..100 {
        quiet += 1;
        keep(&mut store, "quiet", vec![sized(400)], 0);
        for _ in 0..10 {
            keep(&mut store, "flood", (0..30).map(|_| sized(400)).collect(), 0);
        }
        retain(&mut store, &bounds, 0);
        assert!(store.bytes().unwrap() <= bounds.bytes);
    }
    assert_eq!(numbers(&store, "quiet"), (1..=quiet).collect::<Vec<_>>());
    let flood = numbers(&store, "flood");
    assert_eq!(*flood.last().unwrap(), 30_000);
    assert!(flood.len() > 1000, "{} of the flood are kept: what there is room for", flood.len());
    assert!(flood.windows(2).all(|two| two[0] + 1 == two[1]), "the oldest went");
    // The file gives back what it does not need.
    retain(&mut store, &RetentionLimits { bytes: 1 << 19, ..bounds }, 0);
    store.connection.pragma_update(None, "wal_checkpoint", "TRUNCATE").unwrap();
    let size = std::fs::metadata(folder.path().join(store::FILE)).unwrap().len();
    assert!(size < 6 << 20, "{size}");
}

#[test]
fn streams_beyond_the_bound_go_unused_ones_first_and_numbers_never_go_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    for _ in 0..20 {
        keep(&mut store, "long ago", (0..25).map(draft).collect(), 1);
    }
    for first in (0..retention::STREAMS).step_by(500) {
        let parts: Vec<_> =
            (first..first + 500).map(|n| part(&format!("s{n}"), vec![draft(1)])).collect();
        store.commit(&parts, &BTreeMap::new(), 10, true).unwrap();
    }
    assert_eq!(store.streams.len(), retention::STREAMS + 1);
    retain(&mut store, &RetentionLimits::default(), 20);
    assert_eq!(store.streams.len(), retention::STREAMS);
    assert!(numbers(&store, "long ago").is_empty());
    drop(store);
    let mut store = open_at(folder.path(), 0);
    assert_eq!(keep(&mut store, "long ago", vec![draft(1)], 30), 501);
    assert_eq!(keep(&mut store, "another", vec![draft(1)], 30), 501);
}

#[test]
fn attachments_go_by_age_and_size_and_files_with_the_last_row_that_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let hour = 3_600_000;
    let mut store = open_at(folder.path(), 0);
    keep(&mut store, "one", vec![pictured(1, 1, 1000), pictured(2, 2, 1000)], 0);
    keep(&mut store, "two", vec![pictured(1, 1, 1000)], 5 * hour);
    assert_eq!(store.picture_bytes, 2000);
    let files = |store: &EventStore| {
        (0..10)
            .filter(|n| store.pictures.read(&[*n; 32].into()).unwrap().is_some())
            .collect::<Vec<u8>>()
    };
    retain(
        &mut store,
        &RetentionLimits { attachment_hours: 2, ..RetentionLimits::default() },
        6 * hour,
    );
    assert_eq!(files(&store), [1], "which the other session has");
    assert_eq!(reader::owners(&store.connection, &[1; 32].into()).unwrap(), [Arc::from("two")]);
    assert_eq!(store.picture_bytes, 1000);
    keep(&mut store, "flood", (2..9).map(|n| pictured(n.into(), n, 1000)).collect(), 6 * hour);
    retain(
        &mut store,
        &RetentionLimits { attachment_bytes: 4000, ..RetentionLimits::default() },
        6 * hour,
    );
    assert_eq!(files(&store), [1, 6, 7, 8]);
    assert_eq!(store.picture_bytes, 4000);
    assert_eq!(numbers(&store, "flood").len(), 7, "events outlive their pictures");
}

#[test]
fn files_of_attachments_that_no_event_names_go_at_the_start_and_others_stay() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    keep(&mut store, "cam", vec![pictured(1, 1, 10)], 0);
    let orphans = [
        Attachment { digest: [1; 32].into(), bytes: vec![1; 10].into() },
        Attachment { digest: [0xab; 32].into(), bytes: vec![2].into() },
    ];
    store.pictures.write(orphans.iter()).unwrap();
    let below = folder.path().join("attachments/ab");
    let begun = below.join(format!("{}.new", "ab".repeat(31) + "cd"));
    std::fs::write(&begun, "half").unwrap();
    std::fs::write(below.join("notes.txt"), "an operator's").unwrap();
    drop(store);
    let mut store = open_at(folder.path(), 0);
    retain(&mut store, &RetentionLimits::default(), 0);
    assert_eq!(store.pictures.read(&[1; 32].into()).unwrap().unwrap(), vec![1; 10]);
    assert_eq!(store.pictures.read(&[0xab; 32].into()).unwrap(), None);
    assert!(!begun.exists());
    assert!(below.join("notes.txt").exists());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    #[test]
    fn whatever_goes_the_newest_stay_without_gaps_and_within_the_bounds(
        appended in proptest::collection::vec((0..4usize, 1..30usize, 0..3000usize, 0..5i64), 1..40),
        hours in 0..6u64,
        kilobytes in 200..2000u64,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open_at(folder.path(), 0);
        let bounds = RetentionLimits { hours, bytes: kilobytes << 10, ..RetentionLimits::default() };
        let (mut now, mut times) = (0, HashMap::<String, Vec<i64>>::new());
        for (session, count, size, later) in appended {
            now += later * 1_000_000;
            let session = format!("s{session}");
            keep(&mut store, &session, (0..count).map(|_| sized(size)).collect(), now);
            times.entry(session).or_default().extend(vec![now; count]);
            retain(&mut store, &bounds, now);
            assert!(store.bytes().unwrap() <= bounds.bytes);
        }
        for (session, times) in times {
            let kept = numbers(&store, &session);
            assert!(kept.windows(2).all(|two| two[0] + 1 == two[1]));
            assert!(kept.last().is_none_or(|last| *last == times.len() as u64));
            for seq in kept {
                assert!(hours == 0 || times[seq as usize - 1] >= now - hours as i64 * 3_600_000);
            }
            assert_eq!(store.streams[session.as_str()].last, times.len() as u64);
        }
    }
}

#[tokio::test]
async fn pages_end_where_the_next_begins_and_a_filter_costs_no_more_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let (mut store, reader) = store::open(&file::folder(folder.path()).unwrap(), 0).unwrap();
    for first in (1..=25_000).step_by(25) {
        let drafts = (first..first + 25).map(|number| EventDraft {
            kind: if number % 10_000 == 0 { "rare".into() } else { "usual".into() },
            ..draft(number)
        });
        keep(&mut store, "cam", drafts.collect(), 0);
    }
    let page = |query| reader::page(&reader, "cam", &query).unwrap();
    let rare = |after| EventQuery { after, kind: Some("rare".into()), ..all() };
    let first = page(rare(0));
    assert_eq!(first.events.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [10_000, 20_000]);
    assert_eq!(first.next, Some(20_000));
    assert_eq!(page(rare(20_000)), JournalPage { events: vec![], span: first.span, next: None });
    let three = page(EventQuery { after: 5, limit: 3, ..EventQuery::default() });
    assert_eq!(three.events.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [6, 7, 8]);
    assert_eq!(three.next, Some(8));
    let between = page(EventQuery { from_ms: Some(7), to_ms: Some(9), ..all() });
    assert_eq!(between.events.iter().map(|entry| entry.seq).collect::<Vec<_>>(), [7, 8]);
    let last = page(EventQuery { after: 24_990, limit: 10, ..EventQuery::default() });
    assert_eq!((last.events.len(), last.next), (10, None));
    keep(&mut store, "large", vec![sized(reader::PAGE_BYTES * 2), sized(10)], 0);
    let large = reader::page(&reader, "large", &all()).unwrap();
    assert_eq!((large.events.len(), large.next), (1, Some(1)));
    let unknown = reader::page(&reader, "nobody", &all()).unwrap();
    assert_eq!(unknown.span, SequenceRange { oldest: 1, newest: 0 });
}

#[tokio::test]
async fn cursors_are_read_back_at_once_and_after_a_flush_by_another() {
    let folder = tempfile::tempdir().unwrap();
    let events = EventJournal::open(&file::folder(folder.path()).unwrap()).unwrap();
    let set = |seq| vec![(Arc::from("cam"), seq), (Arc::from("other"), 1)];
    events.set_cursors(&"redis".into(), set(7));
    assert_eq!(events.cursors(&"redis".into()).await.unwrap(), set(7));
    events.set_cursors(&"redis".into(), set(9));
    events.flush().await.unwrap();
    let other = open_at(folder.path(), 0);
    assert_eq!(reader::cursors(&other.connection, "redis").unwrap(), set(9));
    assert!(events.cursors(&"another".into()).await.unwrap().is_empty());
}

mod alerts;
mod clock;
mod full_disk;
mod recovery;
mod search;
