//! A camera's events: taking over, appending, reading pages.

use std::ops::Deref;
use std::sync::Arc;

use super::{StreamError, Streams, later};
use crate::site::Epoch;

/// The kind of the event with which an owner begins.
pub const TAKEOVER: &str = "takeover";

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

/// An event and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The sequence in its stream.
    pub place: u64,
    pub record: EventRecord,
}

/// Events of one camera, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    pub events: Vec<Stored>,
    /// Whether there were more when the page was read.
    pub more: bool,
}

/// The right to write for a camera: what its owner holds until another host takes over. Clones are
/// one right.
#[derive(Debug, Clone)]
pub struct Fence {
    camera: Arc<str>,
    epoch: Epoch,
}

impl Fence {
    pub fn camera(&self) -> &str {
        &self.camera
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
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
}

impl Deref for Chain {
    type Target = Fence;

    fn deref(&self) -> &Fence {
        &self.fence
    }
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
        _camera: &str,
        _epoch: Epoch,
        _floor: u64,
        _time_ms: i64,
    ) -> Result<Chain, StreamError> {
        Err(later())
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
        _chain: &mut Chain,
        _events: &[EventRecord],
    ) -> Result<(), StreamError> {
        Err(later())
    }

    /// Up to `limit` (1,000 at most) events of the camera with numbers greater than `after`,
    /// straight from the stream, found by binary search.
    pub async fn page(
        &self,
        _camera: &str,
        _after: u64,
        _limit: usize,
    ) -> Result<Page, StreamError> {
        Err(later())
    }
}
