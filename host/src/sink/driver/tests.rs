use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::task::AbortHandle;

use super::*;
use crate::event::{Clock, Event, Hub, SessionState};
use crate::journal::Journal;
use crate::sink::{SinkConnection, SinkKind};

/// What a target in memory does with a batch.
type Answer = fn() -> Result<(), SinkError>;

/// A target in memory.
struct Memory {
    /// When it was connected to.
    connected: watch::Sender<Vec<tokio::time::Instant>>,
    answer: Answer,
}

struct MemoryConnection(Answer);

impl EventSink for Memory {
    const KIND: SinkKind = SinkKind::Webhook;

    /// Another number is another setting.
    type Settings = (SinkStart, u8);
    type Connection = MemoryConnection;

    fn address((_, number): &Self::Settings) -> String {
        number.to_string()
    }

    fn start((start, _): &Self::Settings) -> SinkStart {
        *start
    }

    async fn connect(&self, _: &Self::Settings) -> Result<MemoryConnection, SinkError> {
        self.connected.send_modify(|times| times.push(tokio::time::Instant::now()));
        Ok(MemoryConnection(self.answer))
    }
}

impl SinkConnection for MemoryConnection {
    async fn write(&mut self, batch: EventBatch<'_>) -> Result<Written, SinkError> {
        (self.0)()?;
        let events = batch.events.len() as u64;
        Ok(Written::Through { after: batch.last(), events, refused: 0 })
    }
}

fn driver(journal: &Journal, answer: Answer) -> SinkDriver<Memory> {
    let name = SinkName::new("memory", "Memory");
    let sink = Memory { connected: watch::Sender::default(), answer };
    let owners: Owners = Arc::new(|_| SessionOwner::ThisHost);
    SinkDriver::new(name, sink, journal.events().clone(), owners, Arc::default())
}

/// A sink that runs: its settings, and when its target was connected to. It ends when dropped.
struct RunningSink {
    settings: watch::Sender<Option<(SinkStart, u8)>>,
    connected: watch::Receiver<Vec<tokio::time::Instant>>,
    task: AbortHandle,
}

impl RunningSink {
    fn start(journal: &Journal, start: SinkStart, answer: Answer) -> Self {
        let driver = driver(journal, answer);
        let connected = driver.sink.connected.subscribe();
        let (settings, watched) = watch::channel(Some((start, 0)));
        let task = tokio::spawn(driver.run(watched)).abort_handle();
        Self { settings, connected, task }
    }

    async fn connects(&mut self, times: usize) -> Vec<tokio::time::Instant> {
        self.connected.wait_for(|connected| connected.len() >= times).await.unwrap().clone()
    }
}

impl Drop for RunningSink {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn publish(journal: &Journal, session: &str, events: usize) {
    let hub = Hub::new(journal.events().clone());
    hub.publish_state(session, SessionState::Running, None);
    for _ in 0..events {
        let event = Event {
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
        assert!(hub.publish_event_if_exists(session, event));
    }
    journal.events().flush().await.unwrap();
}

/// The cursors of the sink once they are as wanted.
async fn cursors_become(journal: &Journal, wanted: &[(&str, u64)]) {
    let wanted: Vec<(Arc<str>, u64)> =
        wanted.iter().map(|(session, seq)| (Arc::from(*session), *seq)).collect();
    let become_so = async {
        while journal.events().cursors(&"memory".into()).await.unwrap() != wanted {
            tokio::task::yield_now().await;
        }
    };
    let became = tokio::time::timeout(ocelli_testkit::DEADLINE, become_so).await;
    let now = journal.events().cursors(&"memory".into()).await.unwrap();
    assert!(became.is_ok(), "{now:?} instead of {wanted:?}");
}

fn takes() -> Result<(), SinkError> {
    Ok(())
}

fn is_away() -> Result<(), SinkError> {
    Err(SinkError::Target("away".into()))
}

const HOUR: Duration = Duration::from_secs(3600);

fn rests() -> Result<(), SinkError> {
    Err(SinkError::Rest { reason: "busy".into(), wait: HOUR })
}

fn is_gone() -> Result<(), SinkError> {
    Err(SinkError::Rest { reason: "gone".into(), wait: Duration::MAX })
}

static TAKEN: AtomicUsize = AtomicUsize::new(0);
static IS_BACK: AtomicBool = AtomicBool::new(false);

/// Takes a batch, and then nothing more until it is back.
fn takes_one() -> Result<(), SinkError> {
    if TAKEN.load(Ordering::Relaxed) > 0 && !IS_BACK.load(Ordering::Relaxed) {
        return is_away();
    }
    TAKEN.fetch_add(1, Ordering::Relaxed);
    Ok(())
}

#[tokio::test]
async fn what_a_sink_owes_stays_owed_when_it_is_to_begin_later() {
    let journal = Journal::temporary().unwrap();
    // More than one batch has.
    publish(&journal, "gate", MAX_EVENTS + 5).await;
    let mut sink = RunningSink::start(&journal, SinkStart::Beginning, takes_one);
    cursors_become(&journal, &[("gate", MAX_EVENTS as u64)]).await;
    sink.connects(2).await;
    sink.settings.send(Some((SinkStart::Now, 1))).unwrap();
    IS_BACK.store(true, Ordering::Relaxed);
    cursors_become(&journal, &[("gate", MAX_EVENTS as u64 + 5)]).await;
    assert_eq!(TAKEN.load(Ordering::Relaxed), 2, "the rest was written");
}

#[tokio::test]
async fn a_sink_that_begins_leaves_out_what_was_before_and_knows_that_ever_after() {
    let journal = Journal::temporary().unwrap();
    publish(&journal, "gate", 3).await;
    let starts = driver(&journal, takes).begin(false).await.unwrap();
    assert_eq!(starts.get("gate"), Some(&3));
    publish(&journal, "gate", 1).await;
    let again = driver(&journal, takes).begin(true).await.unwrap();
    assert_eq!(again, starts, "as it began the first time");

    let older = Journal::temporary().unwrap();
    let starts = driver(&older, takes).begin(true).await.unwrap();
    assert_eq!(starts.keys().map(|name| &**name).collect::<Vec<_>>(), [BEGUN]);
}

#[tokio::test]
async fn nothing_is_kept_for_a_sink_of_what_was_before_it_even_where_its_target_is_never_there() {
    for (answer, given) in [(takes as Answer, 6), (is_away, 2)] {
        let journal = Journal::temporary().unwrap();
        publish(&journal, "idle", 3).await;
        publish(&journal, "gate", 2).await;
        {
            let _sink = RunningSink::start(&journal, SinkStart::Now, answer);
            cursors_become(&journal, &[("gate", 2), ("idle", 3)]).await;
        }
        // After a restart what came meanwhile is owed, and only what was given moves the cursor.
        publish(&journal, "gate", 4).await;
        let mut sink = RunningSink::start(&journal, SinkStart::Now, answer);
        sink.connects(1).await;
        cursors_become(&journal, &[("gate", given), ("idle", 3)]).await;
    }
    let journal = Journal::temporary().unwrap();
    publish(&journal, "idle", 3).await;
    let mut sink = RunningSink::start(&journal, SinkStart::Beginning, is_away);
    sink.connects(2).await;
    cursors_become(&journal, &[]).await;
}

#[tokio::test(start_paused = true)]
async fn a_target_is_left_alone_as_long_as_it_asks_unless_its_settings_change() {
    let journal = Journal::temporary().unwrap();
    publish(&journal, "gate", 1).await;
    let mut sink = RunningSink::start(&journal, SinkStart::Beginning, rests);
    let times = sink.connects(2).await;
    assert!(times[1] - times[0] >= HOUR, "{times:?}");
    sink.settings.send_replace(Some((SinkStart::Beginning, 1)));
    let times = sink.connects(3).await;
    assert!(times[2] - times[1] < HOUR, "{times:?}");

    let mut gone = RunningSink::start(&journal, SinkStart::Beginning, is_gone);
    gone.connects(1).await;
    tokio::time::sleep(HOUR * 24 * 365).await;
    assert_eq!(gone.connected.borrow().len(), 1, "as long as its settings stay");
    gone.settings.send_replace(Some((SinkStart::Beginning, 1)));
    gone.connects(2).await;
}

#[tokio::test(start_paused = true)]
async fn other_settings_are_tried_as_soon_as_the_first_ones_were() {
    let journal = Journal::temporary().unwrap();
    publish(&journal, "gate", 1).await;
    let mut sink = RunningSink::start(&journal, SinkStart::Beginning, is_away);
    // The waits have grown by then.
    let before = sink.connects(8).await.len();
    sink.settings.send_replace(Some((SinkStart::Beginning, 1)));
    let times = sink.connects(before + 2).await;
    assert!(times[before + 1] - times[before] <= WAITS.first, "{times:?}");
}
