//! The Redis of the config: the way to it, and the keys of it that pipelines may use where the
//! operator has granted them. Events are written to it by `sink/redis`.

pub(crate) mod keyvalue;
mod link;
mod quota;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::config;
use link::SharedConnection;
pub(crate) use link::{ask, connect, short_message};
use quota::BucketUsage;

/// Redis as the host has it. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Redis {
    settings: watch::Sender<Option<config::RedisConfig>>,
    /// For pipelines: the sink has a connection of its own, so that neither waits for the other.
    link: Arc<SharedConnection>,
    /// What pipelines keep, by the prefix that they were granted. Each is a key of the config.
    usage: Arc<Mutex<HashMap<String, BucketUsage>>>,
}

impl Redis {
    /// With these settings; none: nothing is done.
    pub fn new(settings: Option<config::RedisConfig>) -> Self {
        let settings = watch::Sender::new(settings);
        Self { settings, link: Arc::default(), usage: Arc::default() }
    }

    /// From now on with these settings.
    pub fn set_settings(&self, settings: Option<&config::RedisConfig>) {
        self.settings.send_if_modified(|now| {
            let differs = now.as_ref() != settings;
            *now = settings.cloned();
            differs
        });
    }

    /// The settings that are in force.
    pub fn watch_settings(&self) -> watch::Receiver<Option<config::RedisConfig>> {
        self.settings.subscribe()
    }
}
