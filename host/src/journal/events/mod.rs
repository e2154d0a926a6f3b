//! The event journal: every event of every session, numbered and on the disk before anyone is told of it. One SQLite file,
//! `events.db`, beside the folder of its attachments.

use std::sync::Arc;

use anyhow::bail;
use bytes::Bytes;
use tokio::sync::watch;

/// An event that has no number yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// What happened.
    pub kind: String,
    /// Wall-clock time in milliseconds since 1970: what `from` and `to` of a [`Query`] are compared with.
    pub time_ms: i64,
    /// All there is to say of it but session and number: the text of a JSON object.
    pub body: Box<str>,
    /// Pictures that `body` names by their digests; kept before the event is.
    pub attachments: Vec<Attachment>,
}

/// A picture of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// SHA-256 of the bytes.
    pub digest: [u8; 32],
    /// A JPEG file.
    pub bytes: Bytes,
}

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts the session's events.
    pub seq: u64,
    /// What happened.
    pub kind: Box<str>,
    /// As in [`Draft`].
    pub body: Box<str>,
}

/// Which events of a session are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Those with greater numbers.
    pub after: u64,
    /// At most so many.
    pub limit: usize,
    /// Of this kind alone.
    pub kind: Option<String>,
    /// Not before this time, in milliseconds since 1970.
    pub from_ms: Option<i64>,
    /// Before this time, in milliseconds since 1970.
    pub to_ms: Option<i64>,
}

/// Events of one session, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Bounded by [`Query::limit`] and in bytes, and by how many events are looked at for one page.
    pub events: Vec<Entry>,
    /// What the session has now.
    pub span: Span,
    /// What to ask for next, as [`Query::after`]: everything up to it was looked at. None: that was all there is.
    pub next: Option<u64>,
}

/// The numbers of the events that are kept of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Span {
    /// The first that is kept; `newest + 1` where none is.
    pub oldest: u64,
    /// The last that was given; 0 where there was no event yet.
    pub newest: u64,
}

/// Something that waits its turn behind the events of a session that were given before it.
pub type Note = Box<dyn FnOnce() + Send>;

/// Told of each event, on the journal's own thread, in the order of the session's numbers, once it is on the disk.
pub type Deliver = Box<dyn Fn(&Arc<str>, &Entry) + Send + Sync>;

/// The event journal. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Events {}

impl Events {
    /// Who is told of events. To be called once, before the first is appended.
    pub fn deliver_to(&self, _deliver: Deliver) {}

    /// Takes an event of a session in, in order. It is numbered, kept and delivered soon. False: the session has too many
    /// that wait for the disk, and this one is lost; an event of kind `events_lost` will say how many were.
    pub fn append(&self, _session: &str, _draft: Draft) -> bool {
        false
    }

    /// Waits until the session has room for a frame's events again, or until it is clear that the disk does not take them
    /// (then false): a pipeline that is faster than the disk is slowed down, and one whose disk has failed is not stopped.
    pub async fn room(&self, _session: &str) -> bool {
        false
    }

    /// Calls `note` once every event of the session that was appended before is delivered: at once where none waits.
    pub fn behind(&self, _session: &str, note: Note) {
        note();
    }

    /// Reads events of a session. Sees everything that was delivered. An unknown session has an empty page.
    pub async fn page(&self, _session: &str, _query: Query) -> anyhow::Result<Page> {
        bail!("no journal")
    }

    /// Every session that the journal has events of, or had.
    pub async fn sessions(&self) -> anyhow::Result<Vec<(Arc<str>, Span)>> {
        bail!("no journal")
    }

    /// How far a sink has come with each session: the number of the last event that it has taken.
    pub async fn cursors(&self, _sink: &'static str) -> anyhow::Result<Vec<(Arc<str>, u64)>> {
        bail!("no journal")
    }

    /// Notes how far a sink has come. Written with the next events; a kill may set a sink back by a second.
    pub async fn set_cursors(
        &self,
        _sink: &'static str,
        _cursors: Vec<(Arc<str>, u64)>,
    ) -> anyhow::Result<()> {
        bail!("no journal")
    }

    /// Changes whenever events were delivered.
    pub fn changed(&self) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    /// A picture, and the sessions whose events it belongs to. None where it is not kept, or no more.
    pub async fn attachment(&self, _digest: [u8; 32]) -> anyhow::Result<Option<(Bytes, Vec<Arc<str>>)>> {
        bail!("no journal")
    }

    /// Waits until everything that was appended is on the disk and delivered.
    pub async fn flush(&self) -> anyhow::Result<()> {
        bail!("no journal")
    }
}
