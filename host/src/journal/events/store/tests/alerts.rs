//! What the events say of alerts.

use super::*;

fn alert(name: &str, raised: bool, frame: Option<u64>) -> EventDraft {
    let data = serde_json::json!({"alert": name, "raised": raised, "message": "m"});
    let mut body = serde_json::json!({"kind": "alert", "data": data});
    if let Some(frame) = frame {
        body["frame"] = frame.into();
    }
    EventDraft { kind: ALERT_KIND.into(), body: body.to_string().into(), ..draft(0) }
}

fn raised(store: &EventStore) -> Vec<String> {
    let raised = reader::raised(&store.connection).unwrap();
    raised.into_iter().map(|(session, alert)| format!("{session} {alert}")).collect()
}

#[test]
fn what_is_raised_is_known_after_a_restart_and_for_as_long_as_it_is_not_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let both = vec![alert("disk", true, None), alert("source_down", true, None)];
    keep(&mut store, "cam", both, 0);
    let odd = EventDraft { kind: ALERT_KIND.into(), body: "no JSON".into(), ..draft(0) };
    keep(&mut store, "yard", vec![alert("of a pipeline", true, Some(7)), odd], 0);
    keep(&mut store, "yard", vec![alert("disk", true, None)], 0);
    keep(&mut store, "cam", vec![alert("disk", false, None)], 0);
    drop(store);
    let mut store = open_at(folder.path(), 0);
    assert_eq!(raised(&store), ["cam source_down", "yard disk"]);
    // Its event is deleted; it is raised all the same.
    retain(&mut store, &RetentionLimits { hours: 1, ..RetentionLimits::default() }, 10_000_000);
    assert!(numbers(&store, "cam").is_empty());
    assert_eq!(raised(&store), ["cam source_down", "yard disk"]);
}

#[test]
fn a_journal_of_a_version_before_says_by_its_events_what_is_raised() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = open_at(folder.path(), 0);
    let first = vec![alert("disk", true, None), alert("source_down", true, None)];
    keep(&mut store, "cam", first, 0);
    keep(&mut store, "cam", vec![alert("disk", false, None), alert("x", true, Some(1))], 0);
    let odd = EventDraft { kind: ALERT_KIND.into(), body: "no JSON".into(), ..draft(0) };
    keep(&mut store, "yard", vec![odd], 0);
    let before = "DROP TABLE raised; DROP TABLE age_clock; DROP TABLE marks;
        DROP TABLE clips; DROP TABLE event_clips;
        DROP INDEX events_number; ALTER TABLE events DROP COLUMN number;
        ALTER TABLE numbering DROP COLUMN deleted; PRAGMA user_version = 1";
    store.connection.execute_batch(before).unwrap();
    drop(store);
    assert_eq!(raised(&open_at(folder.path(), 0)), ["cam source_down"]);
}
