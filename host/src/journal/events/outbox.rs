//! What waits for the disk: a bounded outbox for each session, and whose turn it is.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{DeliveryCallback, EventDraft};

/// Events of a session that may wait, those included that are being written: forty frames with as
/// many events as a frame may have, and minutes of a camera whose pipeline tells a few in a second.
pub(super) const EVENTS: usize = 4096;

/// Bytes of them: what three frames may bring at most. With fifty sessions whose disk does not
/// answer that is 400 MiB.
pub(super) const BYTES: usize = 8 << 20;

/// Events and pictures of a session in one commit. A picture is a file to be synced, which takes
/// longer than many events.
const TURN: usize = 32;

/// Bytes in one commit, so that a session with small events does not wait for hundreds of megabytes
/// of others.
const BATCH_BYTES: usize = 16 << 20;

/// What an event takes beside its texts: [`EventDraft`], and a row of the file.
pub(super) const EVENT_BYTES: usize = 128;

pub(super) enum OutboxItem {
    Event(EventDraft),
    /// In the place of so many that were lost.
    Lost(u64),
    Note(DeliveryNote),
}

/// Something that waits its turn behind events.
pub(super) struct DeliveryNote {
    pub(super) run: DeliveryCallback,
    /// Whether it goes ahead of events that the disk does not take.
    pub(super) overtakes: bool,
}

/// What the writer takes from one outbox.
pub(super) struct OutboxBatch {
    pub(super) session: Arc<str>,
    pub(super) items: Vec<OutboxItem>,
    /// The number of its first event, where something else than the file has numbered it.
    pub(super) first: Option<u64>,
    events: usize,
    bytes: usize,
    /// Whether it was taken from an outbox.
    is_own: bool,
}

impl OutboxBatch {
    fn new(session: Arc<str>) -> Self {
        Self { session, items: Vec::new(), first: None, events: 0, bytes: 0, is_own: true }
    }

    /// Events that another host has numbered and told.
    pub(super) fn received(session: Arc<str>, first: u64, drafts: Vec<EventDraft>) -> Self {
        let items = drafts.into_iter().map(OutboxItem::Event).collect();
        Self { items, first: Some(first), is_own: false, ..Self::new(session) }
    }

    /// The events, without their pictures.
    pub(super) fn events(&self) -> impl Iterator<Item = &EventDraft> {
        self.items.iter().filter_map(OutboxItem::draft)
    }
}

#[derive(Default)]
struct Outbox {
    items: VecDeque<OutboxItem>,
    /// Those included that the writer has.
    events: usize,
    bytes: usize,
    /// After the last of `items`.
    lost: u64,
    /// Whether the writer has a part of it, or a note is being run: nothing overtakes that.
    in_flight: bool,
}

/// All outboxes. Sessions without one have nothing that waits.
#[derive(Default)]
pub(super) struct Outboxes {
    boxes: HashMap<Arc<str>, Outbox>,
    /// The sessions that have something and that the writer has nothing of.
    turns: VecDeque<Arc<str>>,
    /// Whether a note that may overtake has come since they were taken.
    overtaking: bool,
}

impl Outboxes {
    /// Takes an event in. False: there is no room.
    pub(super) fn append(&mut self, session: &str, draft: EventDraft) -> bool {
        let bytes = draft.bytes();
        let outbox = self.outbox(session);
        let first = outbox.is_idle();
        // One that is larger than an outbox passes alone.
        let fits = outbox.events < EVENTS && outbox.bytes.saturating_add(bytes) <= BYTES;
        if !fits && outbox.events > 0 {
            outbox.lost += 1;
            return false;
        }
        outbox.settle_lost();
        outbox.push(OutboxItem::Event(draft), bytes);
        if first {
            self.turns.push_back(session.into());
        }
        true
    }

    /// Queues a note. Given back to be run at once where nothing is before it; then
    /// [`done`](Self::done) is to be told.
    pub(super) fn behind(
        &mut self,
        session: &str,
        note: DeliveryNote,
    ) -> Option<(DeliveryCallback, OutboxBatch)> {
        let outbox = self.outbox(session);
        if outbox.is_idle() {
            outbox.in_flight = true;
            return Some((note.run, OutboxBatch::new(session.into())));
        }
        // It has its turn, or gets it from `done`.
        let overtakes = note.overtakes;
        outbox.items.push_back(OutboxItem::Note(note));
        self.overtaking |= overtakes;
        None
    }

    /// Whether there is a new note that may overtake.
    pub(super) fn has_overtaking(&self) -> bool {
        self.overtaking
    }

    /// The notes that may overtake, in their order, out of the parts that the writer holds and
    /// cannot write, and of what waits behind them.
    pub(super) fn take_overtaking(&mut self, held: &mut [OutboxBatch]) -> Vec<DeliveryCallback> {
        self.overtaking = false;
        let mut notes = Vec::new();
        let mut sift = |items: &mut dyn Iterator<Item = OutboxItem>| -> Vec<OutboxItem> {
            let stays = |item| match item {
                OutboxItem::Note(DeliveryNote { run, overtakes: true }) => {
                    notes.push(run);
                    None
                }
                item => Some(item),
            };
            items.filter_map(stays).collect()
        };
        for part in &mut *held {
            part.items = sift(&mut std::mem::take(&mut part.items).into_iter());
        }
        for (session, outbox) in &mut self.boxes {
            // One that is in flight and not held has a note that is being run by another thread.
            if !outbox.in_flight || held.iter().any(|part| part.session == *session) {
                let items = std::mem::take(&mut outbox.items).into_iter();
                outbox.items = sift(&mut { items }).into();
            }
        }
        notes
    }

    /// Events that wait, those included that the writer has.
    pub(super) fn waiting(&self) -> usize {
        self.boxes.values().map(|outbox| outbox.events).sum()
    }

    /// Something of each session that has something, in turn, as far as one commit goes.
    pub(super) fn take(&mut self) -> Vec<OutboxBatch> {
        let (mut parts, mut bytes) = (Vec::new(), 0);
        while bytes < BATCH_BYTES
            && let Some(session) = self.turns.pop_front()
        {
            let Some(outbox) = self.boxes.get_mut(&session) else { continue };
            let part = outbox.take(session);
            bytes += part.bytes;
            parts.push(part);
        }
        parts
    }

    /// Whether there is something to take.
    pub(super) fn has_pending(&self) -> bool {
        !self.turns.is_empty()
    }

    /// A part is dealt with.
    pub(super) fn done(&mut self, part: &OutboxBatch) {
        if !part.is_own {
            return;
        }
        let session = &part.session;
        let Some(outbox) = self.boxes.get_mut(session) else { return };
        outbox.in_flight = false;
        outbox.events = outbox.events.saturating_sub(part.events);
        outbox.bytes = outbox.bytes.saturating_sub(part.bytes);
        outbox.settle_lost();
        if outbox.items.is_empty() {
            self.boxes.remove(session);
        } else {
            self.turns.push_back(Arc::clone(session));
        }
    }

    /// Whether a frame's events fit: half of an outbox is more than a frame may bring.
    pub(super) fn has_capacity(&self, session: &str) -> bool {
        self.boxes
            .get(session)
            .is_none_or(|outbox| outbox.events <= EVENTS / 2 && outbox.bytes <= BYTES / 2)
    }

    /// The sessions that have something on its way.
    pub(super) fn busy(&self) -> Vec<Arc<str>> {
        self.boxes.keys().cloned().collect()
    }

    fn outbox(&mut self, session: &str) -> &mut Outbox {
        self.boxes.entry(session.into()).or_default()
    }
}

impl Outbox {
    /// Whether nothing waits and nothing is on its way.
    fn is_idle(&self) -> bool {
        self.items.is_empty() && !self.in_flight
    }

    fn push(&mut self, item: OutboxItem, bytes: usize) {
        self.items.push_back(item);
        self.events += 1;
        self.bytes += bytes;
    }

    /// What was lost has its place after what waits by now.
    fn settle_lost(&mut self) {
        match std::mem::take(&mut self.lost) {
            0 => {}
            lost => self.push(OutboxItem::Lost(lost), EVENT_BYTES),
        }
    }

    fn take(&mut self, session: Arc<str>) -> OutboxBatch {
        let mut part = OutboxBatch::new(session);
        let mut turn = 0;
        while let Some(item) = self.items.front() {
            let (cost, events, bytes) = match item {
                OutboxItem::Event(draft) => (1 + draft.attachments.len(), 1, draft.bytes()),
                OutboxItem::Lost(_) => (1, 1, EVENT_BYTES),
                OutboxItem::Note(_) => (0, 0, 0),
            };
            // Notes that follow the last event go with it.
            if cost > 0 && turn > 0 && turn + cost > TURN {
                break;
            }
            turn += cost;
            part.events += events;
            part.bytes += bytes;
            part.items.extend(self.items.pop_front());
        }
        self.in_flight = true;
        part
    }
}

impl EventDraft {
    /// What it takes while it waits.
    fn bytes(&self) -> usize {
        let pictures: usize =
            self.attachments.iter().map(|attachment| attachment.bytes.len()).sum();
        self.kind.len() + self.body.len() + pictures + EVENT_BYTES
    }
}
