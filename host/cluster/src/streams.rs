//! What outlasts a host: events, state and objects in NATS JetStream, and live messages beside them.
//!
//! # How a camera's events stay one chain
//!
//! A camera's events are the messages of one subject. Each append names the stream sequence of the
//! event before it, and JetStream refuses it where another is the last. Its owner alone knows that
//! sequence: to become the owner is to write the camera's `own` message with a greater epoch, and
//! then to append the numbered event `takeover` ([`Streams::take_over`]). From then on whatever the
//! owner before appends is refused. What is kept beside the events (key-value entries, the
//! snapshot, the session's state) is written on the condition that `own` is still the one that
//! was written at the take-over.
//!
//! An append whose outcome is unknown is tried again with the same expected sequence. Either it is
//! stored, or it is refused since the first one was: then the last event is read, and is the same.
//!
//! # What is where
//!
//! | subject | stream | content |
//! | --- | --- | --- |
//! | `SITE.ev.K.CAM` | `OCELLI_SITE_EV_K` | events, of 1 to 8 streams by the camera's hash |
//! | `SITE.st.CAM.own` | `OCELLI_SITE_ST`, one message a subject | `{epoch, host, seq}` |
//! | `SITE.st.CAM.kv.BUCKET.KEY` | the same | an entry of a key-value store |
//! | `SITE.st.CAM.snap` | the same | the last snapshot, or the name of its object |
//! | `SITE.st.CAM.state` | the same | what the session is doing |
//! | `SITE.live.CAM` | none | detections, with their epoch |
//! | `$O.OCELLI_SITE.>` | `OBJ_OCELLI_SITE` | objects by their SHA-256 |
//!
//! Names are mapped to tokens by [`names`].

#[allow(dead_code)]
mod error;
mod events;
mod follow;
mod live;
#[allow(dead_code)]
pub mod names;
mod objects;
mod state;

use std::time::Duration;

use tokio::sync::watch;

use crate::site::SiteOptions;

pub use error::StreamError;
pub use events::{Chain, EventRecord, Fence, Page, Stored, TAKEOVER};
pub use follow::{Followed, Follower, Positions};
pub use live::{Live, LiveMessage};
pub use objects::Digest;
pub use state::{Entry, Owner, SessionState, SessionStates, Snapshot, StateChange, StoredState};

/// How much a site keeps. Each host of a site has to say the same: the last one to connect wins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamLimits {
    /// Copies of everything: 1, or 3 where the site has three servers.
    pub replicas: u8,
    /// Over how many streams events are spread, 1 to 8. What the site began with stays.
    pub streams: u8,
    /// Events that are older are gone. 0: no limit.
    pub max_age: Duration,
    /// The most that each stream of events holds, in bytes: the oldest go first. 0: no limit.
    pub max_bytes: u64,
    /// The most events of one camera. 0: no limit.
    pub max_msgs_per_subject: u64,
}

/// Whether JetStream can be used, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamHealth {
    Ready,
    Down(StreamError),
}

/// A site's streams: one NATS connection, which reconnects for ever.
#[derive(Clone)]
pub struct Streams;

impl Streams {
    /// Returns at once and connects in the background, for ever; makes or updates the site's
    /// streams. Until then everything is [`StreamError::Unavailable`], and [`Self::health`] says
    /// why. Fails for what no waiting mends: a name, a URL or a file of the options.
    pub async fn connect(
        _options: &SiteOptions,
        _limits: StreamLimits,
    ) -> Result<Self, StreamError> {
        Err(later())
    }

    /// Whether JetStream can be used.
    pub fn health(&self) -> watch::Receiver<StreamHealth> {
        watch::channel(StreamHealth::Ready).1
    }

    /// Waits until JetStream can be used, for ever if need be.
    pub async fn ready(&self) {}
}

fn later() -> StreamError {
    StreamError::Unavailable("not connected".to_owned())
}
