//! Pages over several sessions.

use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::super::super::search::{self, search, search_within};
use super::*;

fn seen(time_ms: i64, kind: &str, labels: &[&str], zone: &str) -> EventDraft {
    let found: Vec<_> = labels.iter().map(|label| json!({"label": label})).collect();
    let body = json!({"kind": kind, "detections": found, "data": {"zone": zone}});
    EventDraft {
        kind: kind.into(),
        time_ms,
        body: body.to_string().into(),
        attachments: Vec::new(),
        clip: None,
    }
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// All pages of a search: the sessions and numbers, and how many pages.
fn pages(store: &EventStore, mut wanted: EventSearch, seeks: usize) -> (Vec<(String, u64)>, usize) {
    let (mut found, mut count) = (Vec::new(), 0);
    loop {
        let page = search_within(&store.connection, &wanted, seeks).unwrap();
        assert!(page.events.len() <= wanted.limit);
        found.extend(page.events.iter().map(|(session, event)| (session.to_string(), event.seq)));
        count += 1;
        match page.next {
            Some(next) => wanted.start = Some(next),
            None => return (found, count),
        }
    }
}

#[test]
fn no_search_looks_through_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let store = open_at(folder.path(), 0);
    for statement in [search::NEXT, search::PREVIOUS] {
        let plan = plan(&store, statement);
        let by_key = "SEARCH marks USING PRIMARY KEY (mark=? AND (time,stream,seq)";
        assert!(plan.len() == 1 && plan[0].starts_with(by_key), "{plan:?}");
    }
}

#[test]
fn a_page_costs_the_same_whatever_the_size_of_the_store() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let rare = EventFilter {
        sessions: Some(set(&["gate"])),
        labels: set(&["bus"]),
        zones: set(&["road"]),
        ..EventFilter::default()
    };
    let wanted = EventSearch { filter: rare, limit: 10, newest_first: true, ..Default::default() };
    let everything = EventSearch { limit: 100, newest_first: true, ..Default::default() };
    let mut costs = Vec::new();
    for round in 0..2 {
        // Many are in the zone, many of the session, few of the label.
        let drafts =
            |first: i64, count| (first..first + count).map(|at| seen(at, "left", &["car"], "road"));
        for part in 0..if round == 0 { 1 } else { 100 } {
            keep(&mut store, "gate", drafts(part * 30, 30).collect(), 0);
            keep(&mut store, "yard", drafts(part * 30, 30).collect(), 0);
        }
        keep(&mut store, "gate", vec![seen(7, "left", &["bus", "car"], "road")], 0);
        let cost = |wanted: &EventSearch| search(&store.connection, wanted).unwrap().seeks;
        assert_eq!(pages(&store, wanted.clone(), usize::MAX).0.len(), round + 1);
        costs.push((cost(&wanted), cost(&everything)));
    }
    let [(rare, all), (rare_later, all_later)] = costs[..] else { panic!("{costs:?}") };
    assert!(rare_later <= 3 * rare && rare_later < 30, "{costs:?}");
    assert!(all_later < 110 && all < 110, "{costs:?}");
    // One that nothing passes ends where its seeks do, and goes on.
    let none = EventFilter { zones: set(&["road"]), labels: set(&["bus"]), ..Default::default() };
    let none = EventSearch { filter: none, limit: 1, ..Default::default() };
    let (found, count) = pages(&store, none, 2);
    assert_eq!(found.len(), 2, "{count} pages");
    assert!(count > 1);
}

#[test]
fn what_an_event_was_found_by_goes_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let odd = EventDraft { body: "no JSON".into(), ..draft(0) };
    keep(&mut store, "gate", vec![seen(1, "left", &["car", "bus", "car"], "road"), odd], 0);
    let marks = |store: &EventStore| {
        let count = "SELECT COUNT(*) FROM marks";
        store.connection.query_row(count, [], |row| row.get::<_, u64>(0)).unwrap()
    };
    assert_eq!(marks(&store), 6 + 3);
    let hours = RetentionLimits { hours: 1, ..RetentionLimits::default() };
    retain(&mut store, &hours, 9_000_000);
    assert_eq!(marks(&store), 0);
}

#[test]
fn the_events_of_an_older_store_are_found_as_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let mut alert = seen(3, "alert", &[], "road");
    alert.body = json!({"detections": [], "data": {"label": "tram", "zone": 7}}).to_string().into();
    let odd = EventDraft { body: "no JSON".into(), ..draft(0) };
    let drafts = vec![seen(1, "left", &["car", "bus"], "road"), alert, odd];
    keep(&mut store, "gate", drafts, 0);
    let all = |store: &EventStore| {
        let mut marks = store.connection.prepare("SELECT * FROM marks").unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            Ok((row.get::<_, String>(0)?, [row.get::<_, i64>(1)?, row.get(2)?, row.get(3)?]))
        };
        marks.query_map([], row).unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    let new = all(&store);
    assert_eq!(new.len(), 6 + 4 + 3);
    let before = "DROP TABLE marks; DROP TABLE clips; DROP TABLE event_clips;
        PRAGMA user_version = 4";
    store.connection.execute_batch(before).unwrap();
    drop(store);
    assert_eq!(all(&open_at(folder.path(), 0)), new);
}

fn word() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("b"), Just("c")]
}

fn some() -> impl Strategy<Value = BTreeSet<String>> {
    proptest::collection::btree_set(word().prop_map(str::to_owned), 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_event_that_is_asked_for_is_found_once_and_in_order(
        events in proptest::collection::vec((word(), 0i64..20, word(), word(), word()), 0..60),
        (sessions, kinds, labels, zones) in (proptest::option::of(some()), some(), some(), some()),
        (from, to) in (proptest::option::of(0i64..20), proptest::option::of(0i64..20)),
        newest_first: bool,
        (limit, seeks) in (1usize..5, 1usize..9),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = open_at(folder.path(), 0);
        let filter = EventFilter { sessions, kinds, labels, zones };
        let mut expected = Vec::new();
        for (session, time, kind, label, zone) in events {
            let draft = seen(time, kind, &[label], zone);
            let passes = filter.passes(session, kind, &draft.body);
            let seq = keep(&mut store, session, vec![draft], 0);
            let within = from.is_none_or(|from| from <= time) && to.is_none_or(|to| time < to);
            if passes && within {
                let stream = store.streams[session].id;
                let place = EventPlace { time, stream, seq: seq as i64 };
                expected.push((place, (session.to_owned(), seq)));
            }
        }
        expected.sort();
        if newest_first {
            expected.reverse();
        }
        let expected: Vec<_> = expected.into_iter().map(|(_, event)| event).collect();
        let (from_ms, to_ms) = (from, to);
        let wanted = EventSearch { filter, from_ms, to_ms, newest_first, limit, start: None };
        prop_assert_eq!(pages(&store, wanted, seeks).0, expected);
    }
}
