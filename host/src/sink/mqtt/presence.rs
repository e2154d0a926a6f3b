//! What is now, for as long as one connection: states, counts, pictures and detections of sessions,
//! and that cameras are there or are gone.

mod counts;
mod pictures;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::discovery::Announced;
use super::link::BrokerLink;
use super::topics::MqttTopics;
use crate::config::{Config, EVERY_SESSION, MqttConfig, PicturePublishing};
use crate::event::{EncodedMessage, Hub, SubscribeOptions, Subscriber, rfc3339, unix_ns};
use crate::session::{SessionStatus, Sessions};
use crate::sink::SinkError;
use counts::{LabelCounts, ZoneCounts};

/// Between two looks at the sessions.
const LOOK: Duration = Duration::from_secs(1);

/// By which the journal knows the sessions that the broker was told of: 1, and 0 where they were
/// taken back. One that is removed while the broker is away is taken back later.
const ANNOUNCED: &str = "mqtt announced";

/// What it all comes from. Cheap to clone.
#[derive(Clone)]
pub(in crate::sink) struct PresenceSources {
    pub(in crate::sink) hub: Hub,
    pub(in crate::sink) sessions: Sessions,
    pub(in crate::sink) config: watch::Receiver<Arc<Config>>,
    /// The labels that were seen of each session, and its zones: they outlast a connection.
    pub(in crate::sink) names: Arc<Mutex<HashMap<String, KnownNames>>>,
}

/// The names of a session's counts.
#[derive(Debug, Clone, Default)]
pub(in crate::sink) struct KnownNames {
    labels: BTreeSet<String>,
    zones: BTreeSet<String>,
}

impl PresenceSources {
    pub(in crate::sink) fn new(
        hub: Hub,
        sessions: Sessions,
        config: watch::Receiver<Arc<Config>>,
    ) -> Self {
        Self { hub, sessions, config, names: Arc::default() }
    }
}

/// See the module's documentation.
pub(super) struct Presence {
    sources: PresenceSources,
    settings: MqttConfig,
    host: String,
    topics: MqttTopics,
    link: Arc<BrokerLink>,
    /// What the broker was told of each session.
    told: BTreeMap<String, ToldSession>,
    counts: LabelCounts,
    zones: ZoneCounts,
    /// Gets detections, where any are wanted.
    subscriber: Option<Subscriber>,
    /// Those that it gets them of, by name.
    subscribed: HashSet<String>,
    /// When the next detections of a session may go out.
    due: HashMap<String, Instant>,
}

/// What the broker was told of a session.
#[derive(Debug, Default)]
struct ToldSession {
    state: String,
    announcement: String,
    /// The topics of its counts, with what they say.
    counts: BTreeMap<String, u64>,
}

/// The session of a message.
#[derive(serde::Deserialize)]
struct MessageHead {
    session: String,
}

impl Presence {
    pub(super) fn new(
        sources: PresenceSources,
        settings: &MqttConfig,
        host: &str,
        topics: MqttTopics,
        link: Arc<BrokerLink>,
    ) -> Self {
        Self {
            sources,
            settings: settings.clone(),
            host: host.to_owned(),
            topics,
            link,
            told: BTreeMap::new(),
            counts: LabelCounts::default(),
            zones: ZoneCounts::default(),
            subscriber: None,
            subscribed: HashSet::new(),
            due: HashMap::new(),
        }
    }

    /// Tells it all, until the connection is lost.
    pub(super) async fn run(mut self) {
        let pictures = pictures::publish(
            self.sources.clone(),
            self.settings.clone(),
            self.topics.clone(),
            Arc::clone(&self.link),
        );
        let zones = self.zones.clone().ask(self.sources.clone(), self.settings.discovery.is_some());
        tokio::select! {
            told = self.tell() => {
                if let Err(error) = told {
                    tracing::debug!(target: "ocelli::sink", "MQTT: {error}");
                }
            }
            () = pictures => {}
            () = zones => {}
        }
    }

    async fn tell(&mut self) -> Result<(), SinkError> {
        self.take_back_absent().await?;
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.look().await?,
                message = next(self.subscriber.as_ref()) => match message {
                    Some(message) => self.take_in(&message),
                    // It was too slow: a new one begins with what is now.
                    None => self.subscriber = None,
                },
            }
        }
    }

    /// Takes back what the broker was told of sessions that are gone since.
    async fn take_back_absent(&mut self) -> Result<(), SinkError> {
        let announced = self.sources.hub.events().cursors(&ANNOUNCED.into()).await?;
        let there = self.there();
        for (session, _) in announced.into_iter().filter(|(_, told)| *told == 1) {
            if !there.contains(&*session) {
                self.take_back(&session).await?;
            }
        }
        Ok(())
    }

    /// The sessions that there are, or are about to be.
    fn there(&self) -> HashSet<String> {
        let config = self.sources.config.borrow();
        let cameras = config.cameras.iter().map(|camera| camera.id.clone());
        let sessions = self.sources.sessions.list().into_iter().map(|status| status.id);
        cameras.chain(sessions).collect()
    }

    async fn look(&mut self) -> Result<(), SinkError> {
        let cameras: HashSet<String> = {
            let config = self.sources.config.borrow();
            config.cameras.iter().map(|camera| camera.id.clone()).collect()
        };
        self.listen(&cameras);
        let sessions = self.sources.sessions.list();
        for status in &sessions {
            self.tell_state(status).await?;
            self.tell_counts(status).await?;
            if cameras.contains(&status.id) {
                self.announce(status).await?;
            }
        }
        let there: HashSet<&str> = sessions.iter().map(|status| status.id.as_str()).collect();
        let gone = self.told.keys().filter(|id| !there.contains(id.as_str()));
        let gone: Vec<String> = gone.filter(|id| !cameras.contains(*id)).cloned().collect();
        for session in gone {
            self.take_back(&session).await?;
        }
        Ok(())
    }

    /// Subscribes to those whose detections are wanted, and to no others.
    fn listen(&mut self, cameras: &HashSet<String>) {
        let every = self.settings.detections.iter().any(|session| session == EVERY_SESSION);
        let announced = self.settings.discovery.iter().flat_map(|_| cameras);
        let named = self.settings.detections.iter().filter(|it| *it != EVERY_SESSION);
        let wanted: HashSet<String> = match every {
            true => HashSet::new(),
            false => announced.chain(named).cloned().collect(),
        };
        if !every && wanted.is_empty() {
            self.subscriber = None;
        } else if self.subscriber.is_none() {
            let subscriber = self.sources.hub.subscriber();
            if every {
                subscriber.subscribe_all(true, HashMap::new());
            }
            self.subscriber = Some(subscriber);
            self.subscribed.clear();
        }
        let Some(subscriber) = &self.subscriber else { return };
        for session in wanted.difference(&self.subscribed) {
            subscriber.subscribe(session, SubscribeOptions { detections: true, after: None });
        }
        for session in self.subscribed.difference(&wanted) {
            subscriber.unsubscribe(session);
        }
        self.subscribed = wanted;
    }

    /// Counts what a message has, and publishes it where it is asked for and time has come.
    fn take_in(&mut self, message: &EncodedMessage) {
        if message.kind != "detections" {
            return;
        }
        self.counts.take_in(&message.text);
        let wanted = &self.settings.detections;
        let Ok(MessageHead { session }) = serde_json::from_str(&message.text) else { return };
        if !wanted.iter().any(|it| it == EVERY_SESSION || *it == session) {
            return;
        }
        let now = Instant::now();
        if self.due.get(&session).is_some_and(|due| *due > now) {
            return;
        }
        let topic = self.topics.of(&session, "detections");
        let pause = Duration::from_secs_f64(1.0 / self.settings.detections_per_second);
        self.due.insert(session, now + pause);
        self.link.offer(topic, Bytes::copy_from_slice(message.text.as_bytes()), false);
    }

    async fn tell_state(&mut self, status: &SessionStatus) -> Result<(), SinkError> {
        let said = json!([status.state, status.reason]).to_string();
        let is_new = !self.told.contains_key(&status.id);
        let told = self.told.entry(status.id.clone()).or_default();
        if told.state == said {
            return Ok(());
        }
        if is_new {
            let announced = vec![(status.id.as_str().into(), 1)];
            self.sources.hub.events().set_cursors(&ANNOUNCED.into(), announced);
        }
        let state = json!({
            "session": status.id, "state": status.state, "reason": status.reason,
            "time": rfc3339(unix_ns(SystemTime::now())),
        });
        told.state = said;
        self.link.retain(self.topics.of(&status.id, "state"), state.to_string().into()).await
    }

    async fn tell_counts(&mut self, status: &SessionStatus) -> Result<(), SinkError> {
        let names = self.sources.names.lock().get(&status.id).cloned().unwrap_or_default();
        let running = status.state == crate::event::SessionState::Running;
        let objects = self.counts.take(&status.id, running, &names.labels);
        let zones = if running { self.zones.of(&status.id) } else { Some(BTreeMap::new()) };
        if objects.is_none() && zones.is_none() {
            return Ok(());
        }
        let zone_names = {
            let mut known = self.sources.names.lock();
            let names = known.entry(status.id.clone()).or_default();
            names.labels.extend(objects.iter().flatten().map(|(label, _)| label.clone()));
            names.zones.extend(zones.iter().flatten().map(|(zone, _)| zone.clone()));
            names.zones.clone()
        };
        let Some(told) = self.told.get_mut(&status.id) else { return Ok(()) };
        let zones = zones.map(|zones| {
            let count = |zone: &String| (zone.clone(), zones.get(zone).copied().unwrap_or(0));
            zone_names.iter().map(count).collect::<BTreeMap<_, _>>()
        });
        for (what, counts) in [("objects", objects), ("zones", zones)] {
            for (name, count) in counts.into_iter().flatten() {
                let topic = self.topics.count(&status.id, what, &name);
                if told.counts.get(&topic) != Some(&count) {
                    self.link.retain(topic.clone(), count.to_string().into()).await?;
                    told.counts.insert(topic, count);
                }
            }
        }
        Ok(())
    }

    async fn announce(&mut self, status: &SessionStatus) -> Result<(), SinkError> {
        let Some(root) = &self.settings.discovery else { return Ok(()) };
        let names = self.sources.names.lock().get(&status.id).cloned().unwrap_or_default();
        let camera = Announced {
            host: &self.host,
            session: &status.id,
            pipeline: &status.pipeline,
            pictures: self.settings.pictures != PicturePublishing::Off,
            labels: &names.labels,
            zones: &names.zones,
        };
        let payload = camera.payload(&self.topics);
        let told = self.told.entry(status.id.clone()).or_default();
        if told.announcement == payload {
            return Ok(());
        }
        let topic = Announced::topic(root, &self.host, &status.id);
        told.announcement.clone_from(&payload);
        self.link.retain(topic, payload.into()).await
    }

    /// Has the broker keep nothing of a session.
    async fn take_back(&mut self, session: &str) -> Result<(), SinkError> {
        let told = self.told.remove(session).unwrap_or_default();
        let names = self.sources.names.lock().remove(session).unwrap_or_default();
        let mut topics: BTreeSet<String> = told.counts.into_keys().collect();
        for (what, names) in [("objects", &names.labels), ("zones", &names.zones)] {
            topics.extend(names.iter().map(|name| self.topics.count(session, what, name)));
        }
        topics.insert(self.topics.of(session, "state"));
        topics.insert(self.topics.of(session, "picture"));
        let root = self.settings.discovery.as_ref();
        topics.extend(root.map(|root| Announced::topic(root, &self.host, session)));
        for topic in topics {
            self.link.retain(topic, Bytes::new()).await?;
        }
        let announced = vec![(session.into(), 0)];
        self.sources.hub.events().set_cursors(&ANNOUNCED.into(), announced);
        Ok(())
    }
}

/// The next message; none where the subscriber was too slow. Never without a subscriber.
async fn next(subscriber: Option<&Subscriber>) -> Option<EncodedMessage> {
    match subscriber {
        Some(subscriber) => subscriber.next().await.ok(),
        None => std::future::pending().await,
    }
}
