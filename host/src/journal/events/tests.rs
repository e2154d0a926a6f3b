use std::sync::Mutex;

use super::*;

fn draft(number: u64) -> Draft {
    Draft {
        kind: "seen".into(),
        time_ms: i64::try_from(number).unwrap(),
        body: format!("{{\"n\":{number}}}").into(),
        attachments: Vec::new(),
    }
}

fn all() -> Query {
    Query { limit: usize::MAX, ..Query::default() }
}

type Told = Arc<Mutex<Vec<String>>>;

fn told(events: &Events) -> Told {
    let told = Told::default();
    let list = Arc::clone(&told);
    events.deliver_to(Box::new(move |session, entry| {
        list.lock().unwrap().push(format!("{session} {} {}", entry.seq, entry.body));
    }));
    told
}

#[tokio::test]
async fn events_are_numbered_by_session_delivered_in_order_and_read_back() {
    let folder = tempfile::tempdir().unwrap();
    for events in [Events::default(), Events::open(folder.path()).unwrap()] {
        let told = told(&events);
        for number in 1..=100 {
            assert!(events.append("one", draft(number)));
            assert!(events.append("two", draft(number)));
        }
        events.flush().await.unwrap();
        for session in ["one", "two"] {
            let page = events.page(session, all()).await.unwrap();
            assert_eq!(page.span, Span { oldest: 1, newest: 100 });
            assert_eq!(page.next, None);
            let told: Vec<_> =
                told.lock().unwrap().iter().filter(|line| line.starts_with(session)).cloned().collect();
            let read: Vec<_> =
                page.events.iter().map(|entry| format!("{session} {} {}", entry.seq, entry.body)).collect();
            assert_eq!(told, read);
            assert_eq!(read.len(), 100);
        }
    }
}
