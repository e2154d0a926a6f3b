use parking_lot::Mutex;

use super::*;

pub(super) fn draft(number: u64) -> EventDraft {
    EventDraft {
        kind: "seen".into(),
        time_ms: i64::try_from(number).unwrap(),
        body: format!("{{\"n\":{number}}}").into(),
        attachments: Vec::new(),
        clip: None,
    }
}

fn temporary() -> EventJournal {
    crate::journal::Journal::temporary().unwrap().events().clone()
}

pub(super) fn all() -> EventQuery {
    EventQuery { limit: usize::MAX, ..EventQuery::default() }
}

pub(super) type Told = Arc<Mutex<Vec<String>>>;

pub(super) fn told(events: &EventJournal) -> Told {
    let told = Told::default();
    let list = Arc::clone(&told);
    events.set_delivery_handler(Box::new(move |session, entry| {
        list.lock().push(format!("{session} {} {}", entry.seq, entry.body));
    }));
    told
}

#[tokio::test]
async fn events_are_numbered_by_session_delivered_in_order_and_read_back() {
    let events = temporary();
    let told = told(&events);
    for number in 1..=100 {
        assert!(events.append("one", draft(number)));
        assert!(events.append("two", draft(number)));
    }
    events.flush().await.unwrap();
    for session in ["one", "two"] {
        let page = events.page(session, all()).await.unwrap();
        assert_eq!(page.span, SequenceRange { oldest: 1, newest: 100 });
        assert_eq!(page.next, None);
        let told: Vec<_> =
            told.lock().iter().filter(|line| line.starts_with(session)).cloned().collect();
        let read: Vec<_> = page
            .events
            .iter()
            .map(|entry| format!("{session} {} {}", entry.seq, entry.body))
            .collect();
        assert_eq!(told, read);
        assert_eq!(read.len(), 100);
    }
}

pub(super) fn sized(bytes: usize) -> EventDraft {
    EventDraft { body: format!("{{\"x\":\"{}\"}}", "x".repeat(bytes)).into(), ..draft(0) }
}

pub(super) fn pictured(number: u64, picture: u8, bytes: usize) -> EventDraft {
    let attachment =
        Attachment { digest: [picture; 32].into(), bytes: vec![picture; bytes].into() };
    EventDraft { attachments: vec![attachment], ..draft(number) }
}

#[test]
fn a_session_that_floods_the_journal_delays_another_by_one_turn() {
    let mut outboxes = outbox::Outboxes::default();
    for number in 0..outbox::EVENTS as u64 {
        assert!(outboxes.append("flood", draft(number)));
    }
    assert!(!outboxes.append("flood", draft(0)), "no more may wait");
    assert!(!outboxes.has_capacity("flood"));
    assert!(outboxes.append("quiet", draft(1)));
    let parts = outboxes.take();
    let taken: Vec<_> = parts.iter().map(|part| (&*part.session, part.items.len())).collect();
    assert_eq!(taken, [("flood", 32), ("quiet", 1)]);
    assert!(outboxes.take().is_empty(), "nothing overtakes what is being written");
    parts.iter().for_each(|part| outboxes.done(part));
    assert_eq!(outboxes.take().len(), 1);
    assert_eq!(outboxes.busy().len(), 1, "who has nothing is forgotten");
}

#[test]
fn what_waits_of_a_session_is_bounded_in_bytes_and_one_event_always_passes() {
    let mut outboxes = outbox::Outboxes::default();
    assert!(outboxes.append("cam", sized(outbox::BYTES * 2)));
    assert!(!outboxes.append("cam", sized(1)));
    let parts = outboxes.take();
    outboxes.done(&parts[0]);
    assert!(outboxes.append("cam", sized(1)));
    let parts = outboxes.take();
    assert!(matches!(
        parts[0].items[..],
        [outbox::OutboxItem::Lost(1), outbox::OutboxItem::Event(_)]
    ));
}

#[tokio::test]
async fn notes_have_their_place_between_the_events() {
    let events = temporary();
    let told = told(&events);
    let note = |text: &str| {
        let (told, text) = (Arc::clone(&told), text.to_owned());
        Box::new(move || told.lock().push(text))
    };
    events.after_pending("cam", note("at once"));
    assert_eq!(*told.lock(), ["at once"]);
    for number in 1..=200 {
        events.append("cam", draft(number));
        events.after_pending("cam", note(&format!("after {number}")));
    }
    events.flush().await.unwrap();
    let told = told.lock();
    let expected = (1..=200).flat_map(|n| [format!("cam {n} {{\"n\":{n}}}"), format!("after {n}")]);
    assert_eq!(told[1..], expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn a_note_may_append_and_what_it_appends_comes_after_it() {
    let events = temporary();
    let told = told(&events);
    let (other, list) = (events.clone(), Arc::clone(&told));
    events.after_pending(
        "cam",
        Box::new(move || {
            other.append("cam", draft(1));
            list.lock().push("note".into());
        }),
    );
    events.flush().await.unwrap();
    assert_eq!(*told.lock(), ["note", "cam 1 {\"n\":1}"]);
}

#[tokio::test]
async fn a_long_read_delays_no_commit() {
    let folder = tempfile::tempdir().unwrap();
    let events = EventJournal::open(&crate::journal::file::folder(folder.path()).unwrap()).unwrap();
    events.append("cam", draft(1));
    events.flush().await.unwrap();
    let (begun, reads) = oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let long = events.read(move |connection| {
        let moment = connection.unchecked_transaction()?;
        let count = |moment: &rusqlite::Transaction<'_>| {
            moment.query_row("SELECT COUNT(*) FROM events", [], |row| row.get::<_, u64>(0))
        };
        assert_eq!(count(&moment)?, 1);
        begun.send(()).unwrap();
        released.recv().unwrap();
        count(&moment)
    });
    let meanwhile = async {
        reads.await.unwrap();
        for number in 2..=100 {
            events.append("cam", draft(number));
            events.flush().await.unwrap();
        }
        release.send(()).unwrap();
    };
    assert_eq!(tokio::join!(long, meanwhile).0.unwrap(), 1, "a read sees one moment");
    assert_eq!(events.page("cam", all()).await.unwrap().events.len(), 100);
}

#[tokio::test]
async fn a_picture_is_read_back_with_the_sessions_that_have_it() {
    let events = temporary();
    events.append("one", pictured(1, 7, 50));
    events.append("two", pictured(1, 7, 50));
    events.flush().await.unwrap();
    let (bytes, sessions) = events.attachment([7; 32].into()).await.unwrap().unwrap();
    assert_eq!(bytes, vec![7; 50]);
    assert_eq!(sessions, [Arc::from("one"), Arc::from("two")]);
    assert_eq!(events.attachment([8; 32].into()).await.unwrap(), None);
}
