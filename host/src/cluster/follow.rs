//! What other hosts of the site tell: their events into this host's journal, their states and
//! detections into its hub.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ocelli_cluster::streams::{EventRecord, Followed, Positions, Streams, TAKEOVER};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::chains::Chains;
use crate::event::{Hub, SessionState};
use crate::journal::events::{EventDraft, EventJournal, ReceivedEvents};

/// The name under which the journal knows how far it has come with each of the site's streams.
const CURSORS: &str = "site";

/// Events that are asked for at once where some are missing.
const PAGE: usize = 500;

/// Between two looks at which cameras of other hosts somebody here watches: a display that has
/// subscribed sees its first box after that.
const LOOK: Duration = Duration::from_millis(200);

/// Takes the site's events into the journal.
pub(super) struct EventFollower {
    streams: Streams,
    journal: EventJournal,
    chains: Arc<Chains>,
    host: String,
    /// The last number of each camera that the journal was given, or that this host appended.
    last: HashMap<String, u64>,
    /// Cameras of which the last event was this host's own. Where another host goes on, what of it
    /// came to the journal is asked anew: an append of unknown outcome may have arrived.
    own: HashSet<String>,
}

impl EventFollower {
    pub(super) fn new(
        streams: Streams,
        journal: EventJournal,
        chains: Arc<Chains>,
        host: &str,
    ) -> Self {
        let (last, own) = (HashMap::new(), HashSet::new());
        Self { streams, journal, chains, host: host.to_owned(), last, own }
    }

    /// Follows, until it is dropped.
    pub(super) async fn run(mut self) -> anyhow::Result<()> {
        let sink: Arc<str> = CURSORS.into();
        let known = self.journal.cursors(&sink).await?;
        let positions =
            known.iter().filter_map(|(stream, place)| Some((stream.parse().ok()?, *place)));
        let mut follower = self.streams.follow(Positions(positions.collect()));
        for (session, span) in self.journal.sessions().await? {
            self.last.insert(session.to_string(), span.newest);
        }
        loop {
            match follower.next().await {
                Followed::Event { stream, place, camera, record } => {
                    self.take(camera, record).await;
                    // Written with the next commit at the earliest, which has the event.
                    let cursor = (stream.to_string().into(), place.saturating_sub(1));
                    self.journal.set_cursors(&sink, vec![cursor]);
                }
                Followed::CaughtUp { stream } => {
                    tracing::debug!(target: "ocelli::cluster", stream, "has all events of the site");
                }
                Followed::Missed { stream, after, first } => tracing::warn!(
                    target: "ocelli::cluster", stream, after, first,
                    "events of the site were deleted before this host had them"
                ),
            }
        }
    }

    async fn take(&mut self, camera: String, record: EventRecord) {
        let mut last = self.last.get(&camera).copied().unwrap_or(0);
        let is_own = record.host == self.host
            && record.kind != TAKEOVER
            && self.chains.epoch(&camera) == Some(record.epoch);
        if is_own {
            // It comes to the journal with its pictures when it is acknowledged.
            self.own.insert(camera.clone());
            self.last.insert(camera, record.seq.max(last));
            return;
        }
        if self.own.remove(&camera)
            && let Ok(span) = self.journal.span(&camera).await
        {
            last = last.min(span.newest);
        }
        if last > 0 && record.seq > last + 1 {
            self.fill(&camera, last, record.seq).await;
        }
        self.last.insert(camera.clone(), record.seq.max(last));
        self.give(&camera, record).await;
    }

    /// Gives the journal what the site has between two numbers.
    async fn fill(&mut self, camera: &str, mut after: u64, before: u64) {
        loop {
            let page = match self.streams.page(camera, after, PAGE).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(
                        target: "ocelli::cluster", session = camera,
                        "events after {after} are missing here: {error}"
                    );
                    return;
                }
            };
            let more = page.more;
            for stored in page.events {
                if stored.record.seq >= before {
                    return;
                }
                after = stored.record.seq;
                self.give(camera, stored.record).await;
            }
            if !more {
                return;
            }
        }
    }

    async fn give(&self, camera: &str, record: EventRecord) {
        let body = if record.kind == TAKEOVER { takeover(&record) } else { record.body };
        let EventRecord { seq, kind, time_ms, .. } = record;
        // Its pictures are in the site's store, and its clip on the host that made it.
        let draft = EventDraft { kind, time_ms, body, attachments: Vec::new(), clip: None };
        let session = Arc::from(camera);
        self.journal.receive(ReceivedEvents { session, first: seq, events: vec![draft] }).await;
    }
}

/// The event by which a host begins, with the members that every event has.
fn takeover(record: &EventRecord) -> Box<str> {
    let time = Timestamp::from_millisecond(record.time_ms).unwrap_or_default();
    let mut data: Map<String, Value> = serde_json::from_str(&record.body).unwrap_or_default();
    data.insert("host".to_owned(), record.host.as_str().into());
    data.insert("epoch".to_owned(), record.epoch.0.into());
    let body = json!({
        "time": format!("{time:.3}"), "clock": "host", "kind": TAKEOVER, "deployment": "",
        "detections": [], "data": data,
    });
    body.to_string().into()
}

/// What a session is doing, as its host says it.
#[derive(Deserialize)]
struct ToldState {
    state: SessionState,
    reason: Option<String>,
}

/// Takes the states of other hosts' sessions into the hub, until it is dropped.
pub(super) async fn states(streams: Streams, hub: Hub, host: String) {
    let mut states = streams.follow_states();
    // A late word of an owner before.
    let mut epochs = HashMap::new();
    loop {
        let told = states.next().await;
        let newest = epochs.entry(told.camera.clone()).or_insert(told.epoch);
        if told.epoch < *newest {
            continue;
        }
        *newest = told.epoch;
        if told.host == host {
            continue;
        }
        match serde_json::from_str(&told.json) {
            Ok(ToldState { state, reason }) => {
                hub.receive_state(&told.camera, state, reason.as_deref());
            }
            Err(error) => tracing::warn!(
                target: "ocelli::cluster", session = told.camera, host = told.host,
                "what it says of its session is not understood: {error}"
            ),
        }
    }
}

/// Takes detections of other hosts' cameras into the hub, while somebody here wants them. Until it is
/// dropped.
pub(super) async fn detections(streams: Streams, hub: Hub, chains: Arc<Chains>) {
    let mut watched: BTreeMap<Arc<str>, AbortOnDropHandle<()>> = BTreeMap::new();
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        let wanted = hub.wanted_detections();
        let foreign: Vec<_> =
            wanted.into_iter().filter(|camera| chains.epoch(camera).is_none()).collect();
        watched.retain(|camera, task| foreign.contains(camera) && !task.is_finished());
        for camera in foreign {
            let (streams, hub) = (streams.clone(), hub.clone());
            watched.entry(Arc::clone(&camera)).or_insert_with(|| {
                AbortOnDropHandle::new(tokio::spawn(watch(streams, hub, camera)))
            });
        }
    }
}

/// Takes one camera's detections into the hub, until it is dropped, or the site cannot be asked.
async fn watch(streams: Streams, hub: Hub, camera: Arc<str>) {
    let mut live = match streams.subscribe_live(&camera).await {
        Ok(live) => live,
        Err(error) => {
            tracing::debug!(
                target: "ocelli::cluster", session = &*camera,
                "its detections are not there yet: {error}"
            );
            return;
        }
    };
    loop {
        let message = live.next().await;
        if let Ok(text) = std::str::from_utf8(&message.bytes) {
            hub.receive_detections(&camera, text.into());
        }
    }
}
