use super::*;
use crate::event::{Clock, Event, Hub, SessionState};
use crate::journal::Journal;
use crate::sink::SinkConnection;

/// A target in memory: it keeps what it was given.
struct Memory;

struct MemoryConnection;

impl EventSink for Memory {
    type Settings = SinkStart;
    type Connection = MemoryConnection;

    fn start(settings: &SinkStart) -> SinkStart {
        *settings
    }

    async fn connect(&self, _: &SinkStart) -> Result<MemoryConnection, SinkError> {
        Ok(MemoryConnection)
    }
}

impl SinkConnection for MemoryConnection {
    async fn write(&mut self, batch: EventBatch<'_>) -> Result<Written, SinkError> {
        let events = batch.events.len() as u64;
        Ok(Written::Through { after: batch.last(), events, refused: 0 })
    }
}

fn driver(journal: &Journal) -> SinkDriver<Memory> {
    let name = SinkName::new("memory", "Memory");
    SinkDriver::new(name, Memory, journal.events().clone(), Arc::default())
}

#[tokio::test]
async fn a_sink_that_begins_leaves_out_what_was_before_and_knows_that_ever_after() {
    let journal = Journal::temporary().unwrap();
    let hub = Hub::new(journal.events().clone());
    hub.publish_state("gate", SessionState::Running, None);
    let event = || Event {
        time_ns: 0,
        clock: Clock::Host,
        kind: "entered".into(),
        deployment: "a".into(),
        frame: None,
        detections: Vec::new(),
        data: Default::default(),
        attachments: Vec::new(),
        clip: false,
    };
    for _ in 0..3 {
        assert!(hub.publish_event_if_exists("gate", event()));
    }
    journal.events().flush().await.unwrap();
    let starts = driver(&journal).begin(false).await.unwrap();
    assert_eq!(starts.get("gate"), Some(&3));
    assert!(hub.publish_event_if_exists("gate", event()));
    journal.events().flush().await.unwrap();
    assert_eq!(driver(&journal).begin(true).await.unwrap(), starts, "as it began the first time");

    let older = Journal::temporary().unwrap();
    let starts = driver(&older).begin(true).await.unwrap();
    assert_eq!(starts.keys().map(|name| &**name).collect::<Vec<_>>(), [BEGUN]);
}
