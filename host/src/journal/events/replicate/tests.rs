use std::collections::HashMap;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::super::tests::{all, draft, pictured, told};
use super::*;
use crate::journal::events::SequenceRange;

/// A log in memory, which takes events when the test says so.
struct MemoryLog {
    /// Whether it takes them: `Ok`, or why not.
    takes: watch::Receiver<Result<(), EventLogError>>,
    /// The last number of each session.
    last: Mutex<HashMap<Arc<str>, u64>>,
}

impl EventLog for MemoryLog {
    fn append(&self, session: Arc<str>, events: Vec<EventDraft>) -> Appended {
        let taken = self.takes.borrow().clone().map(|()| {
            let mut last = self.last.lock();
            let last = last.entry(session).or_insert(100);
            *last += events.len() as u64;
            *last - events.len() as u64 + 1
        });
        Box::pin(async move { taken })
    }

    fn note_cursor(&self, _sink: &str, _session: &Arc<str>, _seq: u64) {}
}

fn journal(
    takes: Result<(), EventLogError>,
) -> (EventJournal, watch::Sender<Result<(), EventLogError>>) {
    let (sender, takes) = watch::channel(takes);
    let events = crate::journal::Journal::temporary().unwrap().events().clone();
    events.set_log(Arc::new(MemoryLog { takes, last: Mutex::default() }));
    (events, sender)
}

fn unavailable() -> Result<(), EventLogError> {
    Err(EventLogError::Unavailable("an election".into()))
}

#[tokio::test]
async fn events_have_the_numbers_of_the_log() {
    let (events, _takes) = journal(Ok(()));
    let told = told(&events);
    assert!(events.append("one", pictured(1, 7, 100)));
    assert!(events.append("one", draft(2)));
    events.flush().await.unwrap();
    assert_eq!(*told.lock(), ["one 101 {\"n\":1}", "one 102 {\"n\":2}"]);
    let page = events.page("one", all()).await.unwrap();
    assert_eq!(page.span, SequenceRange { oldest: 101, newest: 102 });
    assert!(events.attachment([7; 32].into()).await.unwrap().is_some(), "its picture is kept");
}

#[tokio::test]
async fn nothing_is_told_before_the_log_has_it_and_states_do_not_wait() {
    let (events, takes) = journal(unavailable());
    let told = told(&events);
    let mut changed = events.changed();
    events.append("one", draft(1));
    changed.wait_for(|_| events.health().failing.is_some()).await.unwrap();
    assert_eq!(events.health().failing.as_deref(), Some("an election"));
    assert!(!events.wait_for_capacity("one").await, "a pipeline is not stopped by it");
    let (overtakes, state) = tokio::sync::oneshot::channel::<()>();
    events.after_pending_while_kept("one", Box::new(move || drop(overtakes)));
    state.await.unwrap_err();
    assert_eq!(*told.lock(), [""; 0]);
    assert_eq!(events.health().waiting, 1);
    let _ = takes.send_replace(Ok(()));
    changed.wait_for(|_| events.health().failing.is_none()).await.unwrap();
    events.flush().await.unwrap();
    assert_eq!(*told.lock(), ["one 101 {\"n\":1}"]);
}

#[tokio::test]
async fn what_is_another_hosts_to_tell_is_neither_kept_nor_told() {
    let (events, takes) = journal(Err(EventLogError::NotOwned("it is b's".into())));
    let told = told(&events);
    events.append("one", draft(1));
    let (behind, note) = tokio::sync::oneshot::channel::<()>();
    events.after_pending("one", Box::new(move || drop(behind)));
    note.await.unwrap_err();
    let _ = takes.send_replace(Ok(()));
    events.append("one", draft(2));
    events.flush().await.unwrap();
    assert_eq!(*told.lock(), ["one 101 {\"n\":2}"]);
    let kept = std::fs::read_to_string(events.shared().untold.get().unwrap().shown()).unwrap();
    let kept: serde_json::Value = serde_json::from_str(&kept).unwrap();
    assert_eq!((&kept["reason"], &kept["event"]["n"]), (&"it is b's".into(), &1.into()));
}

#[tokio::test]
async fn events_of_other_hosts_are_kept_once_and_told_with_their_numbers() {
    let (events, _takes) = journal(Ok(()));
    let told = told(&events);
    let receive = |first, numbers: std::ops::Range<u64>| {
        let drafts = numbers.map(draft).collect();
        events.receive(ReceivedEvents { session: "far".into(), first, events: drafts })
    };
    receive(7, 7..9).await;
    // Again, and one more; then behind some that were deleted where they came from.
    receive(7, 7..10).await;
    receive(8, 8..9).await;
    receive(20, 20..21).await;
    let mut changed = events.changed();
    changed.wait_for(|_| told.lock().len() >= 4).await.unwrap();
    let numbers = ["far 7 {\"n\":7}", "far 8 {\"n\":8}", "far 9 {\"n\":9}", "far 20 {\"n\":20}"];
    assert_eq!(*told.lock(), numbers);
    let page = events.page("far", all()).await.unwrap();
    assert_eq!(page.span, SequenceRange { oldest: 7, newest: 20 });
    assert_eq!(page.events.len(), 4);
}

#[tokio::test]
async fn more_than_may_wait_from_other_hosts_waits_for_the_disk() {
    let (events, _takes) = journal(Ok(()));
    let told = told(&events);
    let many = 5 * RECEIVED as u64;
    for number in 1..=many {
        let received =
            ReceivedEvents { session: "far".into(), first: number, events: vec![draft(number)] };
        events.receive(received).await;
        assert!(events.shared().state.lock().numbered.len() <= RECEIVED);
    }
    events.changed().wait_for(|_| told.lock().len() as u64 == many).await.unwrap();
}
