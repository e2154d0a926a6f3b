//! Sinks: destinations that events are written to, besides being sent to subscribers.
//!
//! # Theory of operation
//!
//! Each sink has a task of its own, the [`driver`], which reads the journal from where it stopped
//! and hands the target batches of one session's events ([`SinkConnection::write`]). Once the target
//! has acknowledged a batch, the journal notes how far it has come: the cursor of that sink and
//! session. So each event is written at least once, in the order of its session, and what was
//! written without being acknowledged is written again. Nothing waits for a target: where one is
//! down, slow or full, its events wait in the journal, and the driver tries again after a wait that
//! grows. One sink does not hold up another.
//!
//! ```text
//! journal --page()--> driver --write(batch)--> target --acknowledged--> set_cursors() --> journal
//! ```
//!
//! A call to a target ends within a time of its own. How long a target is left alone is the
//! driver's to wait, by its own backoff or for as long as the target asks ([`SinkError::Rest`]): it
//! is woken by other settings, and ends with the host.
//!
//! After each connection the target says where to go on, if it knows ([`SinkConnection::resume`]);
//! otherwise the cursor does. A sink that is turned on begins with the events from then on, unless
//! its settings say to begin with the journal ([`SinkStart`]): its cursors begin there, too.
//!
//! The journal keeps events by age and size whatever a sink has; an event that goes before the
//! target had it is a gap, which is counted and told in its place ([`EventBatch::gap`]). For want of
//! room on the disk alone no event goes that a configured sink does not have.

mod driver;
mod mqtt;
mod redis;
pub(crate) mod webhook;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config::{Config, SinkStart};
use crate::event::Hub;
use crate::journal::JournalError;
use crate::journal::events::{EventJournal, MQTT_SINK, REDIS_SINK, SequenceRange, StoredEvent};
use crate::redis::Redis;
use crate::session::Sessions;
use crate::util::backoff::BackoffPolicy;
use driver::SinkDriver;
use mqtt::{MqttSink, PresenceSources};
use redis::RedisSink;
use webhook::Webhooks;

/// A kind of target.
pub(crate) trait EventSink: Send + Sync + 'static {
    /// Which.
    const KIND: SinkKind;
    /// How long to wait before a target is tried again that did not do what it was asked.
    const WAITS: BackoffPolicy = driver::WAITS;

    /// Other settings: a new connection.
    type Settings: Clone + PartialEq + Send + Sync + 'static;
    type Connection: SinkConnection;

    /// Where the target is, for a person. Holds no credential.
    fn address(settings: &Self::Settings) -> String;

    /// Where a target begins that this host has not written to before.
    fn start(settings: &Self::Settings) -> SinkStart;

    /// Connects. Ends within a time of its own.
    fn connect(
        &self,
        settings: &Self::Settings,
    ) -> impl Future<Output = Result<Self::Connection, SinkError>> + Send;
}

/// A connection to a target. After an error it is dropped, and another is made.
///
/// Each call ends within a time of its own. All of them may be dropped halfway, since the settings
/// may change at any time; the connection is not used any more then, except after [`idle`].
///
/// [`idle`]: SinkConnection::idle
pub(crate) trait SinkConnection: Send {
    /// Most events of one batch.
    fn max_events(&self) -> usize {
        driver::MAX_EVENTS
    }

    /// Where to go on with each of these sessions, in their order. Asked once for each session on
    /// each connection, and again for one that was suspended or is [`Written::Unknown`].
    fn resume(
        &mut self,
        sessions: &[SessionPosition],
    ) -> impl Future<Output = Result<Vec<Resume>, SinkError>> + Send {
        let sessions = sessions.iter().map(SessionPosition::after_cursor).collect();
        async { Ok(sessions) }
    }

    /// Writes a batch, or the beginning of it, and waits until the target has acknowledged that.
    fn write(
        &mut self,
        batch: EventBatch<'_>,
    ) -> impl Future<Output = Result<Written, SinkError>> + Send;

    /// There is nothing to write for so long: waits, and finds out whether the connection is well.
    /// Dropped where there is something to write, and then the connection is used on.
    fn idle(&mut self, wait: Duration) -> impl Future<Output = Result<(), SinkError>> + Send {
        async move {
            tokio::time::sleep(wait).await;
            Ok(())
        }
    }
}

/// Why nothing can be written now.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SinkError {
    /// The target does not do what it is asked. Holds no credential.
    #[error("{0}")]
    Target(String),
    /// The target did not answer in time: it is given fewer events at once.
    #[error("{0}")]
    Timeout(String),
    /// The target wants to be left alone for so long. Asked again before where its settings change.
    #[error("{reason}")]
    Rest { reason: String, wait: Duration },
    /// The journal cannot be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// How far a session has come.
#[derive(Debug, Clone)]
pub(crate) struct SessionPosition {
    pub(crate) session: Arc<str>,
    /// What the journal has of it.
    pub(crate) span: SequenceRange,
    /// The last event that was ever acknowledged, if any was.
    pub(crate) cursor: Option<u64>,
}

impl SessionPosition {
    /// Goes on behind the cursor: where a target does not know how far it has come.
    pub(crate) fn after_cursor(&self) -> Resume {
        Resume::After(self.cursor.unwrap_or(self.span.oldest.saturating_sub(1)))
    }
}

/// Where to go on with a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Resume {
    /// With the event after this one.
    After(u64),
    /// Not now, for this reason; asked again in [`driver::ASIDE`].
    Suspended(String),
}

/// Events of one session, in order.
#[derive(Debug)]
pub(crate) struct EventBatch<'a> {
    pub(crate) session: &'a Arc<str>,
    /// Before the events: the first and the last of those that the journal had deleted before the
    /// target had them.
    pub(crate) gap: Option<(u64, u64)>,
    pub(crate) events: &'a [StoredEvent],
    /// Events up to this one were acknowledged before: they are written again.
    pub(crate) cursor: Option<u64>,
}

impl EventBatch<'_> {
    /// The last number of the batch, its gap included; 0 where it is empty.
    pub(crate) fn last(&self) -> u64 {
        let gap = self.gap.map_or(0, |(_, to)| to);
        self.events.last().map_or(gap, |event| event.seq)
    }
}

/// What became of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Written {
    /// The target has everything up to this number, for good: the last of the batch, or an earlier
    /// one where the rest is to come again.
    Through {
        after: u64,
        /// Events written.
        events: u64,
        /// Events that were left out since the target will never take them.
        refused: u64,
    },
    /// The target has others than expected: it is asked where to go on.
    Unknown,
    /// The target does not take this session's events now, for this reason; its other sessions go
    /// on.
    Suspended(String),
}

/// Which kind of target a sink has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SinkKind {
    /// A Redis, with a stream for each session.
    Redis,
    /// An MQTT broker.
    Mqtt,
    /// A receiver over HTTP.
    Webhook,
}

/// The figures of a sink.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SinkMetrics {
    /// Whether the target takes events.
    pub up: bool,
    /// Events of the journal that the target does not have yet.
    pub behind: u64,
    /// Events written so far.
    pub written: u64,
    /// Times that the target did not do what it was asked.
    pub errors: u64,
    /// Times that the journal had deleted events before the target had them.
    pub gaps: u64,
    /// Events that were left out since the target will never take them.
    pub refused: u64,
}

/// How a sink stands.
#[derive(Debug, Clone, Default)]
pub(crate) struct SinkHealth {
    metrics: SinkMetrics,
    /// Why the target takes no events, while it does not. Holds no credential.
    reason: Option<String>,
    /// When the target last acknowledged an event.
    last_written: Option<SystemTime>,
}

impl SinkHealth {
    /// There are no settings.
    fn turn_off(&mut self) {
        self.metrics.up = false;
        self.reason = None;
    }

    fn fail(&mut self, reason: String) {
        self.metrics.up = false;
        self.reason = Some(reason);
    }

    /// Whether the target took events before.
    fn succeed(&mut self) -> bool {
        self.reason = None;
        std::mem::replace(&mut self.metrics.up, true)
    }

    fn note_written(&mut self, events: u64, refused: u64) {
        self.metrics.written += events;
        self.metrics.refused += refused;
        if events > 0 {
            self.last_written = Some(SystemTime::now());
        }
    }
}

/// A sink that has settings, as others may see it.
#[derive(Debug, Clone)]
pub struct SinkStatus {
    /// As the journal, the metrics and the API have it: `redis`.
    pub name: Arc<str>,
    pub kind: SinkKind,
    /// Where its target is. Holds no credential.
    pub address: String,
    /// Why the target takes no events, while it does not. Holds no credential.
    pub reason: Option<String>,
    /// When the target last acknowledged an event; none: not since the host was started.
    pub last_written: Option<SystemTime>,
    pub metrics: SinkMetrics,
}

/// A sink's name.
#[derive(Debug, Clone)]
pub(crate) struct SinkName {
    /// As the journal, the metrics and the API have it: `redis`.
    pub(crate) id: Arc<str>,
    /// As the log has it, at the beginning of a sentence: `Redis`.
    pub(crate) label: Arc<str>,
}

impl SinkName {
    pub(crate) fn new(id: &str, label: &str) -> Self {
        Self { id: id.into(), label: label.into() }
    }
}

/// Who hands a session's events to sinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionOwner {
    /// This host.
    ThisHost,
    /// Another host of the site.
    OtherHost,
    /// It is on its way to this host.
    Changing,
}

/// Says who hands a session's events to sinks at this moment.
pub type Owners = Arc<dyn Fn(&str) -> SessionOwner + Send + Sync>;

/// The sinks of a host. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Sinks {
    journal: EventJournal,
    owners: Owners,
    states: Arc<Mutex<BTreeMap<Arc<str>, SinkState>>>,
}

/// What others may know of a sink.
struct SinkState {
    kind: SinkKind,
    health: Arc<Mutex<SinkHealth>>,
    /// Where its target is; none: it has no settings.
    address: Box<dyn Fn() -> Option<String> + Send>,
}

/// The task of a sink. Ends when this is dropped, and the sink is forgotten then.
pub(crate) struct SinkTask {
    sinks: Sinks,
    id: Arc<str>,
    task: JoinHandle<()>,
}

impl Drop for SinkTask {
    fn drop(&mut self) {
        self.task.abort();
        self.sinks.states.lock().remove(&self.id);
    }
}

impl Sinks {
    /// Of a host whose sessions are all its own.
    pub fn new(journal: EventJournal) -> Self {
        Self::of_site(journal, Arc::new(|_| SessionOwner::ThisHost))
    }

    /// Of a host whose journal has events of others' sessions, too.
    pub fn of_site(journal: EventJournal, owners: Owners) -> Self {
        Self { journal, owners, states: Arc::default() }
    }

    /// Writes the journal's events to a target from now on, by the settings that are in force at
    /// the time; none: nothing is done. A name has one task at a time.
    pub(crate) fn start<S: EventSink>(
        &self,
        name: SinkName,
        sink: S,
        settings: watch::Receiver<Option<S::Settings>>,
    ) -> SinkTask {
        let (health, watched) = (Arc::default(), settings.clone());
        let address = Box::new(move || watched.borrow().as_ref().map(S::address));
        let id = Arc::clone(&name.id);
        let state = SinkState { kind: S::KIND, health: Arc::clone(&health), address };
        self.states.lock().insert(Arc::clone(&id), state);
        let driver =
            SinkDriver::new(name, sink, self.journal.clone(), Arc::clone(&self.owners), health);
        SinkTask { sinks: self.clone(), id, task: tokio::spawn(driver.run(settings)) }
    }

    /// Each sink that has settings, in the order of their names.
    pub fn list(&self) -> Vec<SinkStatus> {
        let states = self.states.lock();
        let listed = states.iter().filter_map(|(id, state)| {
            let address = (state.address)()?;
            let SinkHealth { metrics, reason, last_written } = state.health.lock().clone();
            let (name, kind) = (Arc::clone(id), state.kind);
            Some(SinkStatus { name, kind, address, reason, last_written, metrics })
        });
        listed.collect()
    }

    /// The figures of each sink that has settings, by its name.
    pub fn metrics(&self) -> BTreeMap<Arc<str>, SinkMetrics> {
        self.list().into_iter().map(|sink| (sink.name, sink.metrics)).collect()
    }
}

/// The tasks of the configured sinks. They end when this is dropped.
pub struct ConfiguredSinks {
    _redis: SinkTask,
    _mqtt: SinkTask,
    _webhooks: Webhooks,
    following: JoinHandle<()>,
}

impl Drop for ConfiguredSinks {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl ConfiguredSinks {
    /// Starts them. They follow the config from then on.
    pub fn start(
        sinks: &Sinks,
        redis: &Redis,
        hub: Hub,
        sessions: Sessions,
        mut config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        let name = SinkName::new(REDIS_SINK, "Redis");
        let sink = RedisSink::new(sinks.journal.clone());
        let to_redis = sinks.start(name, sink, redis.watch_settings());

        let mqtt = watch::Sender::new(config.borrow_and_update().mqtt.clone());
        let sources = PresenceSources::new(hub, sessions, config.clone());
        let name = SinkName::new(MQTT_SINK, "MQTT");
        let to_mqtt = sinks.start(name, MqttSink::new(Some(sources)), mqtt.subscribe());
        let webhooks = Webhooks::start(sinks, config.clone());
        let following = tokio::spawn(async move {
            while config.changed().await.is_ok() {
                let settings = config.borrow_and_update().mqtt.clone();
                mqtt.send_if_modified(|now| {
                    let differs = *now != settings;
                    *now = settings;
                    differs
                });
            }
        });
        Self { _redis: to_redis, _mqtt: to_mqtt, _webhooks: webhooks, following }
    }
}

#[cfg(test)]
mod tests;
