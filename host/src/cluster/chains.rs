//! The cameras that this host speaks for: the ends of their events, and what it says of them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use ocelli_cluster::streams::{Chain, EventRecord, Fence, StreamError, Streams};
use ocelli_cluster::{Epoch, Member};
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::{Notify, mpsc};

use super::snapshots::PipelineSnapshot;
use super::state::StateMirror;
use crate::event::{Relay, SessionState};
use crate::journal::events::{Appended, EventDraft, EventLog, EventLogError};

/// Cameras that a fence has refused, and that nobody has dealt with yet: as many as a host has.
pub(super) const REFUSED: usize = 1024;

/// See the module's documentation. One for each host.
pub(super) struct Chains {
    member: Member,
    streams: Streams,
    host: String,
    held: Mutex<HashMap<Arc<str>, HeldCamera>>,
    /// Cameras that this host is taking over. Locked within `held`.
    coming: Mutex<HashSet<Arc<str>>>,
    /// States that are not told yet: the newest of each camera.
    states: Mutex<BTreeMap<Arc<str>, String>>,
    told: Notify,
    /// Told of cameras that were refused by a fence.
    refused: mpsc::Sender<(Arc<str>, Epoch)>,
}

/// A camera that this host has taken over.
struct HeldCamera {
    fence: Fence,
    /// Locked while events are appended.
    end: Arc<tokio::sync::Mutex<ChainEnd>>,
    /// The state with which its pipeline goes on here, until it is given one.
    snapshot: Option<PipelineSnapshot>,
}

/// What a host that has taken a camera over goes on with.
pub(super) struct Inheritance {
    pub(super) chain: Chain,
    /// The state of the camera's pipeline, if there is one.
    pub(super) snapshot: Option<PipelineSnapshot>,
}

/// The end of a camera's events.
struct ChainEnd {
    chain: Chain,
    /// The number of the first event of a batch that was not held as a whole.
    begun: Option<u64>,
}

impl Chains {
    pub(super) fn new(
        member: Member,
        streams: Streams,
        refused: mpsc::Sender<(Arc<str>, Epoch)>,
    ) -> Self {
        let host = member.options().host.clone();
        let (held, coming, states) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { member, streams, host, held, coming, states, told: Notify::new(), refused }
    }

    /// A camera is being taken over.
    pub(super) fn expect(&self, camera: Arc<str>) {
        self.coming.lock().insert(camera);
    }

    /// Who speaks for a camera.
    pub(super) fn speaker(&self, camera: &str) -> Speaker {
        let held = self.held.lock();
        if held.contains_key(camera) {
            Speaker::ThisHost
        } else if self.coming.lock().contains(camera) {
            Speaker::Changing
        } else {
            Speaker::OtherHost
        }
    }

    /// Speaks for a camera from now on.
    pub(super) fn hold(&self, camera: Arc<str>, Inheritance { chain, snapshot }: Inheritance) {
        let fence = chain.fence();
        let end = Arc::new(tokio::sync::Mutex::new(ChainEnd { chain, begun: None }));
        let mut held = self.held.lock();
        self.coming.lock().remove(&camera);
        held.insert(camera, HeldCamera { fence, end, snapshot });
    }

    /// Speaks no more for a camera.
    pub(super) fn let_go(&self, camera: &str) {
        let mut held = self.held.lock();
        held.remove(camera);
        self.coming.lock().remove(camera);
        drop(held);
        self.states.lock().remove(camera);
    }

    /// How many cameras this host speaks for.
    pub(super) fn count(&self) -> usize {
        self.held.lock().len()
    }

    /// The epoch by which this host speaks for a camera.
    pub(super) fn epoch(&self, camera: &str) -> Option<Epoch> {
        self.held.lock().get(camera).map(|held| held.fence.epoch())
    }

    /// The right to write what is kept beside a camera's events.
    pub(super) fn fence(&self, camera: &str) -> Option<Fence> {
        self.held.lock().get(camera).map(|held| held.fence.clone())
    }

    /// The state that came with a camera, once.
    pub(super) fn take_snapshot(&self, camera: &str) -> Option<PipelineSnapshot> {
        self.held.lock().get_mut(camera)?.snapshot.take()
    }

    /// Tells states, until it is dropped.
    pub(super) async fn tell_states(&self) {
        loop {
            let told = self.told.notified();
            let next = self.states.lock().pop_first();
            let Some((camera, json)) = next else {
                told.await;
                continue;
            };
            let Some(fence) = self.fence(&camera) else { continue };
            match self.streams.put_session_state(&fence, &json).await {
                Ok(()) => {}
                Err(StreamError::Fenced { epoch, .. }) => self.refuse(&camera, epoch),
                Err(error) => {
                    tracing::debug!(
                        target: "ocelli::cluster", session = &*camera,
                        "its state is told again: {error}"
                    );
                    // Unless there is a newer one by now.
                    self.states.lock().entry(camera).or_insert(json);
                    self.streams.ready().await;
                    tokio::time::sleep(super::AGAIN).await;
                }
            }
        }
    }

    /// A fence has refused this host: another one speaks for the camera.
    pub(super) fn refuse(&self, camera: &Arc<str>, epoch: Epoch) {
        if self.epoch(camera).is_some_and(|own| own == epoch) {
            self.let_go(camera);
        }
        // Where nobody takes it, the lease's end does the same.
        let _ = self.refused.try_send((Arc::clone(camera), epoch));
    }

    async fn hold_events(
        &self,
        camera: &Arc<str>,
        events: &[EventDraft],
    ) -> Result<u64, EventLogError> {
        let host = &self.host;
        let not_owned =
            || EventLogError::NotOwned(format!("host {host} does not own the camera any more"));
        let held = |held: &HeldCamera| (held.fence.epoch(), Arc::clone(&held.end));
        let (epoch, end) = self.held.lock().get(camera).map(held).ok_or_else(not_owned)?;
        let mut end = end.lock().await;
        if !self.member.may_speak(camera, epoch) {
            return Err(not_owned());
        }
        self.hold_pictures(events).await;
        let ChainEnd { chain, begun } = &mut *end;
        let first = *begun.get_or_insert(chain.seq() + 1);
        let records: Vec<EventRecord> = (first..)
            .zip(events)
            .skip_while(|(seq, _)| *seq <= chain.seq())
            .map(|(seq, event)| self.record(seq, epoch, event))
            .collect();
        match self.streams.append(chain, &records).await {
            Ok(()) => {
                *begun = None;
                Ok(first)
            }
            Err(StreamError::Fenced { epoch, .. }) => {
                self.refuse(camera, epoch);
                Err(not_owned())
            }
            Err(error) => Err(EventLogError::Unavailable(error.to_string())),
        }
    }

    fn record(&self, seq: u64, epoch: Epoch, event: &EventDraft) -> EventRecord {
        let attachments = event.attachments.iter();
        EventRecord {
            seq,
            epoch,
            host: self.host.clone(),
            kind: event.kind.clone(),
            time_ms: event.time_ms,
            body: event.body.clone(),
            attachments: attachments.map(|picture| picture.digest.to_string()).collect(),
            clip: event.clip,
        }
    }

    /// Has the site hold the pictures of events. Those that it does not take are this host's alone:
    /// no event waits for its picture.
    async fn hold_pictures(&self, events: &[EventDraft]) {
        for picture in events.iter().flat_map(|event| &event.attachments) {
            if let Err(error) = self.streams.put_picture(picture.bytes.clone()).await {
                tracing::warn!(
                    target: "ocelli::cluster", picture = %picture.digest,
                    "a picture of an event is held by this host alone: {error}"
                );
            }
        }
    }
}

/// Who speaks for a camera of the site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaker {
    /// This host.
    ThisHost,
    /// Another one, or none.
    OtherHost,
    /// This host is taking it over.
    Changing,
}

/// Events of the host's sessions are held by the site, as is how far sinks have come with them.
pub(super) struct SiteLog {
    pub(super) chains: Arc<Chains>,
    pub(super) mirror: Arc<StateMirror>,
}

impl EventLog for SiteLog {
    fn append(&self, session: Arc<str>, events: Vec<EventDraft>) -> Appended {
        let chains = Arc::clone(&self.chains);
        Box::pin(async move { chains.hold_events(&session, &events).await })
    }

    fn note_cursor(&self, sink: &str, session: &Arc<str>, seq: u64) {
        self.mirror.note_cursor(sink, session, seq);
    }
}

impl Relay for Chains {
    fn may_speak(&self, session: &str) -> bool {
        self.epoch(session).is_some_and(|epoch| self.member.may_speak(session, epoch))
    }

    fn tell_detections(&self, session: &str, message: &Arc<str>) {
        if let Some(epoch) = self.epoch(session) {
            let bytes = Bytes::copy_from_slice(message.as_bytes());
            self.streams.publish_live(session, epoch, bytes);
        }
    }

    fn tell_state(&self, session: &str, state: SessionState, reason: Option<&str>) {
        let json = json!({"state": state, "reason": reason}).to_string();
        self.states.lock().insert(session.into(), json);
        self.told.notify_one();
    }
}
