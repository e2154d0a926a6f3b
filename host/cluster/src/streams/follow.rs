//! Following the events, and the states of sessions, of all cameras.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, pull};
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::link::{Kept, Link};
use super::names::Names;
use super::setup::info;
use super::{EventRecord, SessionState, StreamError, Streams, state};

/// What waits for whoever calls [`Follower::next`], each 1 MB at most, as NATS has it. JetStream
/// keeps the rest.
const QUEUE: usize = 64;

/// The most messages and bytes that JetStream sends ahead.
const PULL: (usize, usize) = (256, 4 << 20);

/// A silent consumer says so often that it is there; two missed ones are one too many.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long one request for messages lasts: longer than two heartbeats.
const EXPIRES: Duration = Duration::from_secs(10);

/// JetStream forgets a consumer that nobody asks for so long.
const FORGOTTEN: Duration = Duration::from_secs(30);

/// The wait before following begins again.
const PAUSE: Duration = Duration::from_millis(250);

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
    /// too much. Where `first` is not beyond `after`, the stream was made anew.
    Missed { stream: u8, after: u64, first: u64 },
}

/// Gives all events of the site, catching up first, then as they come.
pub struct Follower {
    queue: mpsc::Receiver<Followed>,
    _task: JoinSet<()>,
}

impl Follower {
    /// The next one, waiting for ever. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Followed {
        match self.queue.recv().await {
            Some(followed) => followed,
            None => std::future::pending().await,
        }
    }
}

/// The states of all sessions: the last one of each camera first, then as they change.
pub struct SessionStates {
    queue: mpsc::Receiver<SessionState>,
    _task: JoinSet<()>,
}

impl SessionStates {
    /// The next one, waiting for ever. After a reconnect each camera's last one comes again.
    pub async fn next(&mut self) -> SessionState {
        match self.queue.recv().await {
            Some(state) => state,
            None => std::future::pending().await,
        }
    }
}

impl Streams {
    /// All events of the site behind `from`.
    pub fn follow(&self, from: Positions) -> Follower {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (link, names) = (self.link().clone(), Arc::new(self.names().clone()));
        let layout = self.laid_out();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let streams = layout.await;
            let each = (0..streams).map(|stream| {
                let names = Arc::clone(&names);
                let after = from.0.get(&stream).copied().unwrap_or_default();
                let following = Following { stream, after, names, sender: sender.clone() };
                following.run(link.clone())
            });
            join_all(each).await;
        });
        Follower { queue, _task: task }
    }

    /// The states of all sessions of the site.
    pub fn follow_states(&self) -> SessionStates {
        let (sender, queue) = mpsc::channel(QUEUE);
        let (link, names) = (self.link().clone(), self.names().clone());
        let layout = self.laid_out();
        let mut task = JoinSet::new();
        task.spawn(async move {
            layout.await;
            loop {
                let Err(error) = give_states(&link, &names, &sender).await;
                tracing::debug!("following the states of sessions begins again: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        });
        SessionStates { queue, _task: task }
    }
}

/// Follows the states of all sessions until something fails.
async fn give_states(
    link: &Link,
    names: &Names,
    sender: &mpsc::Sender<SessionState>,
) -> Result<Infallible, StreamError> {
    let filter = names.all_sessions();
    let mut tail =
        Tail::begin(link, &names.state_stream(), DeliverPolicy::LastPerSubject, filter).await?;
    loop {
        let (kept, _) = tail.next().await?;
        let Some(camera) = names.camera(&kept.subject) else { continue };
        match state::session(&camera, &kept) {
            // Nobody reads any more: the task is about to end.
            Ok(state) => drop(sender.send(state).await),
            Err(error) => tracing::warn!(camera, "{error}"),
        }
    }
}

/// Follows one stream of events.
struct Following {
    stream: u8,
    after: u64,
    names: Arc<Names>,
    sender: mpsc::Sender<Followed>,
}

impl Following {
    async fn run(mut self, link: Link) {
        loop {
            let Err(error) = self.run_once(&link).await;
            tracing::debug!(stream = self.stream, "following begins again: {error}");
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Follows until something fails.
    async fn run_once(&mut self, link: &Link) -> Result<Infallible, StreamError> {
        let name = self.names.event_stream(self.stream);
        let there = info(link, &name).await?.state;
        let stream = self.stream;
        let (first, last) = (there.first_sequence, there.last_sequence);
        if self.after > 0 && (last < self.after || first > self.after + 1) {
            self.give(Followed::Missed { stream, after: self.after, first }).await;
            self.after = first.saturating_sub(1);
        }
        let policy = DeliverPolicy::ByStartSequence { start_sequence: self.after + 1 };
        let mut tail = Tail::begin(link, &name, policy, String::new()).await?;
        let mut pending = tail.pending;
        let mut caught_up = false;
        loop {
            if pending == 0 && !caught_up {
                caught_up = true;
                self.give(Followed::CaughtUp { stream }).await;
            }
            let (kept, more) = tail.next().await?;
            self.after = kept.place;
            self.event(&kept).await;
            pending = more;
        }
    }

    async fn event(&self, kept: &Kept) {
        let camera = self.names.camera(&kept.subject);
        let record = EventRecord::read(&kept.headers, &kept.payload);
        let (Some(camera), Ok(record)) = (camera, record) else {
            tracing::warn!(subject = kept.subject, place = kept.place, "no event: passed over");
            return;
        };
        self.give(Followed::Event { stream: self.stream, place: kept.place, camera, record }).await;
    }

    async fn give(&self, followed: Followed) {
        // Nobody reads any more: the task is about to end.
        let _ = self.sender.send(followed).await;
    }
}

/// The messages of a stream in order, each once, until something fails. (The client's own ordered
/// consumer begins at the first message again where it is lost before it has given one.)
struct Tail {
    stream: String,
    messages: pull::Stream,
    /// How many there were when it began.
    pending: u64,
    given: u64,
}

impl Tail {
    /// Begins where `policy` says, with the subjects of `filter`; with all for an empty one.
    async fn begin(
        link: &Link,
        stream: &str,
        policy: DeliverPolicy,
        filter: String,
    ) -> Result<Self, StreamError> {
        link.usable()?;
        let config = pull::Config {
            deliver_policy: policy,
            filter_subject: filter,
            ack_policy: AckPolicy::None,
            inactive_threshold: FORGOTTEN,
            num_replicas: 1,
            memory_storage: true,
            ..Default::default()
        };
        let asked = format!("$JS.API.CONSUMER.CREATE.{stream}");
        let making = link.context.create_consumer_on_stream(config, stream);
        let made = link.watched(&asked, making).await?;
        let consumer = made.map_err(|error| unavailable(stream, &error))?;
        let messages = consumer
            .stream()
            .max_messages_per_batch(PULL.0)
            .max_bytes_per_batch(PULL.1)
            .expires(EXPIRES)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| unavailable(stream, &error))?;
        let pending = consumer.cached_info().num_pending;
        Ok(Self { stream: stream.to_owned(), messages, pending, given: 0 })
    }

    /// The next message, and how many more there were behind it.
    async fn next(&mut self) -> Result<(Kept, u64), StreamError> {
        let Some(message) = self.messages.next().await else {
            return Err(unavailable(&self.stream, &"the consumer ended"));
        };
        let message = message.map_err(|error| unavailable(&self.stream, &error))?;
        let about = message.info().map_err(|error| unavailable(&self.stream, &error))?;
        let (place, pending) = (about.stream_sequence, about.pending);
        if about.consumer_sequence != self.given + 1 {
            return Err(unavailable(&self.stream, &"a message was lost on its way"));
        }
        self.given += 1;
        let message = message.message;
        let subject = message.subject.to_string();
        let headers = message.headers.unwrap_or_default();
        Ok((Kept { subject, place, headers, payload: message.payload }, pending))
    }
}

fn unavailable(stream: &str, error: &impl std::fmt::Display) -> StreamError {
    StreamError::Unavailable(format!("{stream}: {error}"))
}
