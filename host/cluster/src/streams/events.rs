//! A camera's events: taking over and appending.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::link::{Failure, Kept, Outgoing};
use super::state::{By, OwnRecord, SnapshotObject};
use super::{StreamError, Streams};
use crate::site::Epoch;

/// The kind of the event with which an owner begins.
pub const TAKEOVER: &str = "takeover";

/// How long an append or a take-over tries: longer than an election of JetStream.
const PATIENCE: Duration = Duration::from_secs(10);

/// The first and the longest wait before the next try.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));

/// The most events and bytes of one atomic batch. JetStream takes 1,000 messages; fewer are sooner
/// replicated, and an entry of its log stays small.
const BATCH: (usize, usize) = (256, 1 << 20);

/// Fewer events than these go one by one where there is one server: it writes each batch to a file
/// of its own first, which takes as long as so many messages. Replicas keep batches in memory.
const ALONE: usize = 16;

/// What a message has beside its payload, in bytes, at most: headers of a batch, the protocol.
const OVERHEAD: usize = 1024;

/// One event, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRecord {
    /// Counts the camera's events without a gap, through all owners, from 1.
    pub seq: u64,
    pub epoch: Epoch,
    /// The host that wrote it.
    pub host: String,
    pub kind: String,
    /// Milliseconds since 1970, by the clock of the host.
    pub time_ms: i64,
    /// The text of a JSON object.
    pub body: Box<str>,
    /// SHA-256 digests of objects, in hexadecimal.
    pub attachments: Vec<String>,
    pub clip: Option<u64>,
}

/// The header that has all of an event but its body, as JSON.
const EVENT_HEADER: &str = "Ocelli-Event";

/// What [`EVENT_HEADER`] says.
#[derive(Serialize, Deserialize)]
struct EventHead {
    seq: u64,
    epoch: Epoch,
    host: String,
    kind: String,
    time_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    attachments: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    clip: Option<u64>,
}

impl EventRecord {
    fn head(&self) -> Result<String, StreamError> {
        let head = EventHead {
            seq: self.seq,
            epoch: self.epoch,
            host: self.host.clone(),
            kind: self.kind.clone(),
            time_ms: self.time_ms,
            attachments: self.attachments.clone(),
            clip: self.clip,
        };
        serde_json::to_string(&head).map_err(|error| StreamError::Damaged(error.to_string()))
    }

    pub(super) fn read(headers: &HeaderMap, payload: &Bytes) -> Result<Self, StreamError> {
        let damaged = |what: String| StreamError::Damaged(format!("an event ({what})"));
        let head = headers.get(EVENT_HEADER).ok_or_else(|| damaged(EVENT_HEADER.to_owned()))?;
        let head: EventHead =
            serde_json::from_str(head.as_str()).map_err(|error| damaged(error.to_string()))?;
        let body = std::str::from_utf8(payload).map_err(|error| damaged(error.to_string()))?;
        Ok(Self {
            seq: head.seq,
            epoch: head.epoch,
            host: head.host,
            kind: head.kind,
            time_ms: head.time_ms,
            body: body.into(),
            attachments: head.attachments,
            clip: head.clip,
        })
    }
}

/// An event and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The sequence in its stream.
    pub place: u64,
    pub record: EventRecord,
}

impl Stored {
    pub(super) fn read(kept: &Kept) -> Result<Self, StreamError> {
        let record = EventRecord::read(&kept.headers, &kept.payload)?;
        Ok(Self { place: kept.place, record })
    }
}

/// The right to write for a camera: what its owner holds until another host takes over. Clones are
/// one right.
#[derive(Debug, Clone)]
pub struct Fence {
    pub(super) camera: Arc<str>,
    pub(super) epoch: Epoch,
    /// The place of the message `own` that this owner wrote.
    pub(super) own: u64,
    pub(super) shared: Arc<FenceShared>,
}

/// What the clones of a fence share.
#[derive(Debug, Default)]
pub(super) struct FenceShared {
    /// The number of the last event that was acknowledged.
    pub(super) seq: AtomicU64,
    /// JetStream refuses a conditional write while another on the same condition is on its way:
    /// they go one by one. Has the object of the last snapshot.
    pub(super) writing: tokio::sync::Mutex<SnapshotObject>,
}

impl Fence {
    pub fn camera(&self) -> &str {
        &self.camera
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub(super) fn fenced(&self, by: Option<Epoch>) -> StreamError {
        StreamError::Fenced { camera: self.camera.to_string(), epoch: self.epoch, by }
    }
}

/// The end of a camera's events, held by its owner. It is a [`Fence`], too.
#[derive(Debug)]
pub struct Chain {
    fence: Fence,
    seq: u64,
    place: u64,
}

impl Chain {
    fn new(fence: Fence, seq: u64, place: u64) -> Self {
        let mut chain = Self { fence, seq: 0, place: 0 };
        chain.advance(seq, place);
        chain
    }

    /// The number of the last event. The next one has one more.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The stream sequence of the last event.
    pub fn place(&self) -> u64 {
        self.place
    }

    /// For whoever writes this camera's state beside its events.
    pub fn fence(&self) -> Fence {
        self.fence.clone()
    }

    fn advance(&mut self, seq: u64, place: u64) {
        self.seq = seq;
        self.place = place;
        self.fence.shared.seq.store(seq, Ordering::Release);
    }
}

impl Deref for Chain {
    type Target = Fence;

    fn deref(&self) -> &Fence {
        &self.fence
    }
}

/// An event ready to be sent.
struct Encoded {
    seq: u64,
    head: String,
    payload: Bytes,
}

impl Encoded {
    fn new(record: &EventRecord, most: usize) -> Result<Self, StreamError> {
        let head = record.head()?;
        let size = head.len() + record.body.len() + OVERHEAD;
        if size > most {
            return Err(StreamError::TooLarge { what: "an event", size, most });
        }
        let payload = Bytes::copy_from_slice(record.body.as_bytes());
        Ok(Self { seq: record.seq, head, payload })
    }

    fn size(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    fn outgoing(&self, subject: &str) -> Outgoing {
        let mut headers = HeaderMap::new();
        headers.insert(EVENT_HEADER, self.head.as_str());
        Outgoing { subject: subject.to_owned(), headers, payload: self.payload.clone() }
    }

    /// Whether a message that a stream holds is this one.
    fn is(&self, kept: &Kept) -> bool {
        kept.payload == self.payload
            && kept.headers.get(EVENT_HEADER).is_some_and(|head| head.as_str() == self.head)
    }
}

/// Tries until a time, waiting longer each time.
pub(super) struct Tries {
    until: Instant,
    wait: Duration,
}

impl Tries {
    pub(super) fn new() -> Self {
        Self { until: Instant::now() + PATIENCE, wait: BACKOFF.0 }
    }

    /// Waits before the next try; gives `error` back where there is none.
    pub(super) async fn again(&mut self, error: StreamError) -> Result<(), StreamError> {
        if Instant::now() + self.wait > self.until {
            return Err(error);
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(BACKOFF.1);
        Ok(())
    }

    /// What was read, or `None` where it has to be read again.
    pub(super) async fn settle<T>(
        &mut self,
        read: Result<T, StreamError>,
    ) -> Result<Option<T>, StreamError> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error @ StreamError::Unavailable(_)) => self.again(error).await.map(|()| None),
            Err(error) => Err(error),
        }
    }

    /// The same, after a message was not acknowledged.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), StreamError> {
        match failure {
            // Whoever reads again at once has the best chance against one who goes on writing.
            Failure::Sequence if Instant::now() < self.until => Ok(()),
            Failure::Sequence => {
                Err(StreamError::Unavailable("another host goes on writing".to_owned()))
            }
            Failure::Busy(reason) => self.again(StreamError::Unavailable(reason)).await,
            Failure::Unknown(error) | Failure::Refused(error @ StreamError::Unavailable(_)) => {
                self.again(error).await
            }
            Failure::Refused(error) => Err(error),
        }
    }
}

/// How many of the events go into one message or batch.
fn batch_of(events: &[Encoded], replicas: u8) -> usize {
    if replicas == 1 && events.len() < ALONE {
        return 1;
    }
    let mut bytes = 0;
    let fit = events.iter().take(BATCH.0).take_while(|event| {
        bytes += event.size();
        bytes <= BATCH.1
    });
    fit.count().max(1)
}

/// Has a message stored only where the last one of its subject is at `place`, 0 for none.
fn expect(message: &mut Outgoing, place: u64) {
    message.headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(place));
}

impl Streams {
    /// Becomes the camera's owner: writes `own` unless a greater epoch is there, and appends the
    /// event [`TAKEOVER`] whose body is `{"from_host": .., "from_epoch": ..}`.
    ///
    /// `floor` is the greatest number of this camera's events that the caller knows of, 0 for none:
    /// the next numbers are greater, though all events may have aged out. Calling it again with the
    /// same epoch goes on behind what this epoch has appended.
    pub async fn take_over(
        &self,
        camera: &str,
        epoch: Epoch,
        floor: u64,
        time_ms: i64,
    ) -> Result<Chain, StreamError> {
        self.layout()?;
        let mut tries = Tries::new();
        let (fence, own) = self.own(camera, epoch, floor, &mut tries).await?;
        let floor = floor.max(own.seq);
        loop {
            match self.open_chain(&fence, &own, floor, time_ms).await {
                Ok(chain) => return Ok(chain),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    /// Writes `own`.
    async fn own(
        &self,
        camera: &str,
        epoch: Epoch,
        floor: u64,
        tries: &mut Tries,
    ) -> Result<(Fence, OwnRecord), StreamError> {
        let host = self.host();
        let fence = |own| Fence { camera: camera.into(), epoch, own, shared: Arc::default() };
        loop {
            let Some(last) = tries.settle(self.read_own(camera).await).await? else { continue };
            let (place, before) = match last {
                Some((place, own)) if own.epoch == epoch && own.host == host => {
                    return Ok((fence(place), own));
                }
                Some((_, own)) if own.epoch >= epoch => {
                    return Err(fence(0).fenced(Some(own.epoch)));
                }
                Some((place, own)) => (place, Some(own)),
                None => (0, None),
            };
            let own = OwnRecord {
                epoch,
                host: host.to_owned(),
                seq: before.as_ref().map_or(floor, |before| before.seq.max(floor)),
                from_epoch: before.as_ref().map(|before| before.epoch),
                from_host: before.map(|before| before.host),
            };
            let subject = self.names().own(camera);
            let mut message = Outgoing {
                headers: HeaderMap::new(),
                payload: own.written()?,
                subject: subject.clone(),
            };
            expect(&mut message, place);
            match self.link().store(&subject, vec![message]).await {
                Ok(place) => return Ok((fence(place), own)),
                Err(failure) => tries.after(failure).await?,
            }
        }
    }

    /// Goes on behind this epoch's last event, or appends its first.
    async fn open_chain(
        &self,
        fence: &Fence,
        own: &OwnRecord,
        floor: u64,
        time_ms: i64,
    ) -> Result<Chain, Failure> {
        let camera = fence.camera();
        let (stream, subject) = self.events_of(camera).map_err(Failure::Refused)?;
        let last = self.link().last(&stream, &subject).await.map_err(Failure::Refused)?;
        let last = last.as_ref().map(Stored::read).transpose().map_err(Failure::Refused)?;
        let (place, before) = match last {
            Some(last) if last.record.epoch > fence.epoch => {
                return Err(Failure::Refused(fence.fenced(Some(last.record.epoch))));
            }
            Some(last) if last.record.epoch == fence.epoch => {
                return Ok(Chain::new(fence.clone(), last.record.seq, last.place));
            }
            Some(last) => (last.place, floor.max(last.record.seq)),
            None => (0, self.last_number(camera, floor).await.map_err(Failure::Refused)?),
        };
        let from = (&own.from_host, &own.from_epoch);
        let body = serde_json::json!({ "from_host": from.0, "from_epoch": from.1 });
        let event = EventRecord {
            seq: before + 1,
            epoch: fence.epoch,
            host: self.host().to_owned(),
            kind: TAKEOVER.to_owned(),
            time_ms,
            body: body.to_string().into(),
            attachments: Vec::new(),
            clip: None,
        };
        let most = self.link().client.max_payload();
        let mut message = Encoded::new(&event, most).map_err(Failure::Refused)?.outgoing(&subject);
        expect(&mut message, place);
        let place = self.link().store(&subject, vec![message]).await?;
        Ok(Chain::new(fence.clone(), event.seq, place))
    }

    /// The greatest number that anything speaks of, where no event is left.
    async fn last_number(&self, camera: &str, floor: u64) -> Result<u64, StreamError> {
        let names = self.names();
        let stream = names.state_stream();
        let mut most = floor;
        for subject in [names.snapshot(camera), names.session(camera)] {
            if let Some(kept) = self.link().last(&stream, &subject).await? {
                most = most.max(By::read(&kept)?.seq);
            }
        }
        Ok(most)
    }

    /// Appends events in order; returns when all are stored by the replicas. They have to be
    /// numbered on from [`Chain::seq`] and carry the chain's epoch.
    ///
    /// It finds out what has arrived before it tries again, for about ten seconds. After
    /// [`StreamError::Unavailable`] or [`StreamError::Full`] some of the events may have been
    /// stored: give the same ones again ([`Chain::seq`] says with which to begin), and more behind
    /// them if need be.
    pub async fn append(
        &self,
        chain: &mut Chain,
        events: &[EventRecord],
    ) -> Result<(), StreamError> {
        let most = self.link().client.max_payload();
        let mut encoded = Vec::with_capacity(events.len());
        for (expected, event) in (chain.seq + 1..).zip(events) {
            if event.seq != expected || event.epoch != chain.fence.epoch {
                let epoch = chain.fence.epoch;
                return Err(StreamError::Order { expected, got: event.seq, epoch });
            }
            encoded.push(Encoded::new(event, most)?);
        }
        let (stream, subject) = self.events_of(chain.camera())?;
        let mut rest = encoded.as_slice();
        let mut tries = Tries::new();
        while !rest.is_empty() {
            let (batch, _) = rest.split_at(batch_of(rest, self.replicas()).min(rest.len()));
            let mut messages: Vec<_> = batch.iter().map(|event| event.outgoing(&subject)).collect();
            if let Some(first) = messages.first_mut() {
                expect(first, chain.place);
            }
            let arrived = match self.link().store(&subject, messages).await {
                Ok(place) => {
                    if let Some(last) = batch.last() {
                        chain.advance(last.seq, place);
                    }
                    batch.len()
                }
                Err(Failure::Sequence) => {
                    match self.arrived(chain, &stream, &subject, rest).await {
                        Ok(arrived) => arrived,
                        Err(error @ StreamError::Unavailable(_)) => {
                            tries.again(error).await?;
                            0
                        }
                        Err(error) => return Err(error),
                    }
                }
                Err(failure) => {
                    tries.after(failure).await?;
                    0
                }
            };
            rest = rest.get(arrived..).unwrap_or_default();
            if arrived > 0 {
                tries = Tries::new();
            }
        }
        Ok(())
    }

    /// How many of the events are stored already, after an expected sequence was refused. Corrects
    /// the end of the chain; fails where it is another's.
    async fn arrived(
        &self,
        chain: &mut Chain,
        stream: &str,
        subject: &str,
        events: &[Encoded],
    ) -> Result<usize, StreamError> {
        let Some(last) = self.link().last(stream, subject).await? else {
            // All events have aged out, and none refuses a stale owner: `own` does.
            self.still_own(&chain.fence).await?;
            let again = chain.place == 0;
            chain.place = 0;
            return match again {
                true => Err(StreamError::Unavailable(format!("{subject} is being written"))),
                false => Ok(0),
            };
        };
        if last.place == chain.place {
            return Err(StreamError::Unavailable(format!("{subject} is being written")));
        }
        if let Some(index) = events.iter().position(|event| event.is(&last)) {
            if let Some(event) = events.get(index) {
                chain.advance(event.seq, last.place);
            }
            return Ok(index + 1);
        }
        let last = Stored::read(&last)?;
        if last.record.epoch != chain.fence.epoch {
            return Err(chain.fence.fenced(Some(last.record.epoch)));
        }
        Err(StreamError::Diverged { camera: chain.camera().to_owned(), seq: last.record.seq })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(body: &str) -> EventRecord {
        EventRecord {
            seq: 7,
            epoch: Epoch(3),
            host: "a".to_owned(),
            kind: "line\n\"crossed\" über".to_owned(),
            time_ms: -1,
            body: body.into(),
            attachments: vec!["00ff".to_owned()],
            clip: Some(2),
        }
    }

    #[test]
    fn an_event_comes_back() {
        for record in [event("{}"), EventRecord { clip: None, attachments: vec![], ..event("") }] {
            let outgoing = Encoded::new(&record, 1 << 20).unwrap().outgoing("s");
            assert_eq!(EventRecord::read(&outgoing.headers, &outgoing.payload).unwrap(), record);
        }
        assert_eq!(
            EventRecord::read(&HeaderMap::new(), &Bytes::new()).unwrap_err().code(),
            "damaged"
        );
    }

    #[test]
    fn a_batch_is_bounded_in_events_and_bytes() {
        let many = |count: usize, size: usize| -> Vec<Encoded> {
            let record = event(&"x".repeat(size));
            (0..count).map(|_| Encoded::new(&record, 1 << 21).unwrap()).collect()
        };
        assert_eq!(batch_of(&many(1, 10), 3), 1);
        assert_eq!(batch_of(&many(15, 10), 3), 15);
        assert_eq!(batch_of(&many(15, 10), 1), 1);
        assert_eq!(batch_of(&many(1000, 10), 1), BATCH.0);
        assert_eq!(batch_of(&many(5, 400_000), 3), 2);
        assert_eq!(batch_of(&many(2, 1_100_000), 3), 1);
        let error = Encoded::new(&event(&"x".repeat(1000)), 1000).err().unwrap();
        assert_eq!(error.code(), "too_large");
    }
}
