//! What outlasts a host: events, state and objects in NATS JetStream. Beside them, live messages.
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
//! | `$O.OCELLI_SITE_PICTURES.>` | `OBJ_OCELLI_SITE_PICTURES` | pictures of events, likewise |
//!
//! Names are mapped to tokens by [`names`].

mod error;
mod events;
mod follow;
mod link;
mod live;
pub mod names;
mod objects;
mod pages;
mod setup;
mod state;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::site::SiteOptions;
use link::Link;
use live::LiveSender;
use names::Names;

pub use error::StreamError;
pub use events::{Chain, EventRecord, Fence, Stored, TAKEOVER};
pub use follow::{Followed, Follower, Positions, SessionStates};
pub use live::{Live, LiveMessage};
pub use objects::Digest;
pub use pages::Page;
pub use state::{
    MAX_CHANGES, SessionState, Snapshot, StateChange, StateEntry, StoredState, StreamOwner,
};

/// How often the streams are looked at while they cannot be used.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// So many messages in a row are acknowledged by nobody while the streams have leaders: they store
/// nothing. A server whose disk is full does that, and says so in its log alone.
const STORES_NOTHING: u64 = 3;

/// After so many looks they are given another chance: nobody may be trying any more.
const CHANCE: u32 = 10;

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
    /// Pictures of events that are older are gone. 0: no limit.
    pub picture_age: Duration,
    /// The most that all pictures take, in bytes: the oldest go first. 0: no limit.
    pub picture_bytes: u64,
}

/// Whether JetStream can be used, and why not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StreamHealth {
    Ready,
    Down(StreamError),
}

/// A site's streams: one NATS connection, which reconnects for ever. A clone is the same.
#[derive(Clone)]
pub struct Streams {
    inner: Arc<StreamsInner>,
}

struct StreamsInner {
    link: Link,
    names: Names,
    host: String,
    replicas: u8,
    /// Over how many streams the site's events are spread, once that is known.
    layout: Arc<OnceLock<u8>>,
    live: LiveSender,
    _tasks: JoinSet<()>,
}

impl Streams {
    /// Returns at once and connects in the background, for ever; makes or updates the site's
    /// streams. Until then everything is [`StreamError::Unavailable`], and [`Self::health`] says
    /// why. Fails for what no waiting mends: a name, a URL or a file of the options.
    pub async fn connect(options: &SiteOptions, limits: StreamLimits) -> Result<Self, StreamError> {
        options.check()?;
        let link = Link::open(options).await?;
        let names = Names::new(&options.site);
        let layout = Arc::new(OnceLock::new());
        let (live, sending) = LiveSender::new(link.clone());
        let replicas = limits.replicas;
        let mut tasks = JoinSet::new();
        tasks.spawn(sending);
        tasks.spawn(supervise(link.clone(), names.clone(), limits, Arc::clone(&layout)));
        let host = options.host.clone();
        let inner = StreamsInner { link, names, host, replicas, layout, live, _tasks: tasks };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Whether JetStream can be used.
    pub fn health(&self) -> watch::Receiver<StreamHealth> {
        self.inner.link.health()
    }

    /// Waits until JetStream can be used, for ever if need be.
    pub async fn ready(&self) {
        // An error is the end of the connection, which `self` holds.
        let _ = self.health().wait_for(|health| *health == StreamHealth::Ready).await;
    }

    fn link(&self) -> &Link {
        &self.inner.link
    }

    fn names(&self) -> &Names {
        &self.inner.names
    }

    fn host(&self) -> &str {
        &self.inner.host
    }

    fn replicas(&self) -> u8 {
        self.inner.replicas
    }

    fn live(&self) -> &LiveSender {
        &self.inner.live
    }

    /// Over how many streams events are spread. Fails until the streams have been there once.
    fn layout(&self) -> Result<u8, StreamError> {
        if let Some(streams) = self.inner.layout.get() {
            return Ok(*streams);
        }
        self.inner.link.usable()?;
        match &*self.inner.link.health().borrow() {
            StreamHealth::Down(error) => Err(error.clone()),
            StreamHealth::Ready => Err(StreamError::Unavailable("connecting".to_owned())),
        }
    }

    /// Over how many streams events are spread, as soon as that is known.
    fn laid_out(&self) -> impl Future<Output = u8> + Send + use<> {
        let mut health = self.health();
        let layout = Arc::clone(&self.inner.layout);
        async move {
            loop {
                if let Some(streams) = layout.get() {
                    return *streams;
                }
                if health.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        }
    }

    /// The stream and the subject of a camera's events.
    fn events_of(&self, camera: &str) -> Result<(String, String), StreamError> {
        let stream = names::stream_of(camera, self.layout()?);
        Ok((self.names().event_stream(stream), self.names().events(stream, camera)))
    }
}

/// Makes the site's streams after each connect, and looks at them when something failed.
async fn supervise(link: Link, names: Names, limits: StreamLimits, layout: Arc<OnceLock<u8>>) {
    loop {
        link.check_wanted().await;
        let mut looks = 0;
        while link.connected() {
            let error = match setup::ensure(&link, &names, &limits).await {
                Ok(streams) => {
                    layout.get_or_init(|| streams);
                    if looks >= CHANCE {
                        link.answered();
                    }
                    if link.unanswered() < STORES_NOTHING {
                        link.report(StreamHealth::Ready);
                        break;
                    }
                    let what = "the servers store nothing: their logs say why (a full disk?)";
                    StreamError::Unavailable(what.to_owned())
                }
                Err(error) => error,
            };
            looks += 1;
            link.report(StreamHealth::Down(error));
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}
