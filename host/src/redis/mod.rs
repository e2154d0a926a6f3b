//! Redis: events are written to it besides being sent to subscribers, and pipelines may use keys of
//! it that the operator has granted them.
//!
//! # Theory of operation
//!
//! One task ([`sink`]) reads the journal from where it stopped, and writes each session's events to
//! a stream of its own. An entry's id is `SEQ-0`: Redis itself refuses an event that it has, and a
//! reader of the stream goes on from the last id. How far each stream has come is noted in the
//! journal once Redis has answered. Nothing waits for Redis: where it is down, slow or full, events
//! wait in the journal, and the task tries again after a wait that grows.
//!
//! ```text
//! journal --page()--> [SET crop ...] XADD ... [PUBLISH] --MULTI/EXEC--> answered --set_cursors()--> journal
//! ```
//!
//! Each transaction holds events of one session. It is done as a whole or not at all: were one
//! event refused for want of memory and the next one taken, the first could never be written under
//! its number any more.
//!
//! After each connection Redis is asked how far its streams have come, since it may be another one
//! than before: restarted without its data, or the replica of one that failed ([`resume`]).

mod entry;
pub(crate) mod keyvalue;
mod link;
mod quota;
mod resume;
mod sink;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::config;
use crate::journal::events::EventJournal;
use link::SharedConnection;
use quota::BucketUsage;
use sink::EventSink;

/// Redis as the host has it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Redis {
    settings: watch::Sender<Option<config::RedisConfig>>,
    metrics: Arc<Mutex<RedisMetrics>>,
    /// For pipelines: the sink has a connection of its own, so that neither waits for the other.
    link: Arc<SharedConnection>,
    /// What pipelines keep, by the prefix that they were granted. Each is a key of the config.
    usage: Arc<Mutex<HashMap<String, BucketUsage>>>,
}

/// How the sink stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RedisMetrics {
    /// Whether Redis takes events.
    pub up: bool,
    /// Events of the journal that Redis does not have yet.
    pub behind: u64,
    /// Events written so far.
    pub written: u64,
    /// Times that Redis did not do what it was asked.
    pub errors: u64,
    /// Times that the journal had deleted events before Redis had them.
    pub gaps: u64,
}

impl Redis {
    /// With these settings; none: nothing is done.
    pub fn new(settings: Option<config::RedisConfig>) -> Self {
        let settings = watch::Sender::new(settings);
        Self { settings, metrics: Arc::default(), link: Arc::default(), usage: Arc::default() }
    }

    /// From now on with these settings.
    pub fn set_settings(&self, settings: Option<&config::RedisConfig>) {
        self.settings.send_if_modified(|now| {
            let differs = now.as_ref() != settings;
            *now = settings.cloned();
            differs
        });
    }

    /// Writes the journal's events from now on, until the task is aborted. To be called once.
    pub fn write(&self, journal: EventJournal) -> JoinHandle<()> {
        let sink = EventSink::new(journal, Arc::clone(&self.metrics));
        tokio::spawn(sink.run(self.settings.subscribe()))
    }

    /// How the sink stands; none where there is no `[redis]`.
    pub fn metrics(&self) -> Option<RedisMetrics> {
        self.settings.borrow().as_ref().map(|_| *self.metrics.lock())
    }
}
