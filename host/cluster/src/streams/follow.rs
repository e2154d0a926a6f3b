//! Following the events of all cameras.

use std::collections::BTreeMap;

use super::{EventRecord, Streams};

/// The stream sequence of the last event that was dealt with, for each stream. Its keeper stores it
/// together with what it made of the events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(pub BTreeMap<u8, u64>);

/// What following gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// An event. Those of one stream come in order, and none twice.
    Event { stream: u8, place: u64, camera: String, record: EventRecord },
    /// Everything that the stream held when following began has been given. Comes again after a
    /// reconnect.
    CaughtUp { stream: u8 },
    /// What came after place `after` and before place `first` is gone: it aged out, or there was
    /// too much.
    Missed { stream: u8, after: u64, first: u64 },
}

/// Gives all events of the site, catching up first, then as they come.
pub struct Follower;

impl Follower {
    /// The next one, waiting for ever. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Followed {
        std::future::pending().await
    }
}

impl Streams {
    /// All events of the site behind `from`.
    pub fn follow(&self, _from: Positions) -> Follower {
        Follower
    }
}
