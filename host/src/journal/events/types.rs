//! What the journal is given and what it gives.

use std::sync::Arc;

use bytes::Bytes;
use ocelli_protocol::digest::Digest;

use super::ClockJump;
use crate::config::Config;

/// The kind of the events by which the host tells that an alert was raised or cleared.
pub const ALERT_KIND: &str = "alert";

/// The kind of the event that stands for events that could not be kept.
pub const LOST_KIND: &str = "events_lost";

/// The name under which the journal keeps how far Redis has come.
pub const REDIS_SINK: &str = "redis";

/// Likewise the MQTT broker.
pub const MQTT_SINK: &str = "mqtt";

/// An event that has no number yet.
#[derive(Debug, Clone, PartialEq)]
pub struct EventDraft {
    pub kind: String,
    /// Wall-clock time in milliseconds since 1970: what `from` and `to` of a [`EventQuery`] are
    /// compared with.
    pub time_ms: i64,
    /// All there is to say of it but session and number: the text of a JSON object.
    pub body: Box<str>,
    /// Pictures that `body` names by their digests; kept before the event is.
    pub attachments: Vec<Attachment>,
    /// The number of its clip; see [`EventJournal::begin_clip`](super::EventJournal::begin_clip).
    pub clip: Option<u64>,
}

/// A picture of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    pub bytes: Bytes,
}

/// An event of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredEvent {
    /// Counts the session's events.
    pub seq: u64,
    pub kind: Box<str>,
    /// As in [`EventDraft`].
    pub body: Box<str>,
}

/// Which events of a session are asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventQuery {
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
pub struct JournalPage {
    /// Bounded by [`EventQuery::limit`] and in bytes, and by how many events are looked at for one
    /// page.
    pub events: Vec<StoredEvent>,
    /// What the session has now.
    pub span: SequenceRange,
    /// What to ask for next, as [`EventQuery::after`]: everything up to it was looked at. None:
    /// that was all there is.
    pub next: Option<u64>,
}

/// An event among those of all sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NumberedEvent {
    /// Counts the events of all sessions.
    pub number: u64,
    pub session: Arc<str>,
    pub event: StoredEvent,
}

/// Events of all sessions, in the order in which they were kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NumberedPage {
    /// Bounded in number and in bytes.
    pub events: Vec<NumberedEvent>,
    /// Whether there are more.
    pub more: bool,
    /// The last number that was given.
    pub last: u64,
    /// The greatest number of an event that is deleted.
    pub deleted: u64,
}

/// The numbers of the events that are kept of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SequenceRange {
    /// The first that is kept; `newest + 1` where none is.
    pub oldest: u64,
    /// The last that was given; 0 where there was no event yet.
    pub newest: u64,
}

impl SequenceRange {
    /// Of a stream that there is not.
    pub(super) const NONE: Self = Self { oldest: 1, newest: 0 };

    pub(super) fn new(oldest: Option<u64>, newest: u64) -> Self {
        Self { oldest: oldest.unwrap_or(newest + 1), newest }
    }
}

/// Something that waits its turn behind the events of a session that were given before it.
pub type DeliveryCallback = Box<dyn FnOnce() + Send>;

/// Told of each event, on the journal's own thread, in the order of the session's numbers, once it
/// is on the disk.
pub type DeliveryHandler = Box<dyn Fn(&Arc<str>, &StoredEvent) + Send + Sync>;

/// How much is kept, and for how long. 0: no bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionLimits {
    /// Hours after which an event goes.
    pub hours: u64,
    /// Bytes of the events' file.
    pub bytes: u64,
    /// Hours after which an attachment goes.
    pub attachment_hours: u64,
    /// Bytes of all attachments.
    pub attachment_bytes: u64,
    /// Hours after which a clip goes.
    pub clip_hours: u64,
    /// Bytes of all clips.
    pub clip_bytes: u64,
    /// Bytes that stay free on the disk: clips go for it, then attachments, and at last old events.
    /// 0: nothing goes for want of room.
    pub reserve_bytes: u64,
    /// The sinks whose events stay until each has them, however little room there is.
    pub sinks: Vec<Arc<str>>,
}

/// The names of the sinks that a config has.
fn sinks(config: &Config) -> Vec<Arc<str>> {
    let redis = config.redis.is_some().then(|| REDIS_SINK.into());
    let webhooks = config.webhooks.iter().map(|hook| hook.sink_id().into());
    let mqtt = config.mqtt.is_some().then(|| MQTT_SINK.into());
    redis.into_iter().chain(mqtt).chain(webhooks).collect()
}

impl From<&Config> for RetentionLimits {
    fn from(config: &Config) -> Self {
        let bytes = |mb: u64| mb.saturating_mul(1 << 20);
        let events = &config.events;
        Self {
            hours: events.keep_hours,
            bytes: bytes(events.keep_mb),
            attachment_hours: events.attachments_hours,
            attachment_bytes: bytes(events.attachments_mb),
            clip_hours: events.clips_hours,
            clip_bytes: bytes(events.clips_mb),
            reserve_bytes: bytes(events.reserve_mb),
            sinks: sinks(config),
        }
    }
}

/// Whether events and their pictures are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventHealth {
    /// Why commits fail; then events wait, and are numbered when the disk takes them again.
    pub failing: Option<String>,
    /// Why pictures are not kept, or go early.
    pub pictures: Option<String>,
    /// What is to be told of the system's clock, while it is news.
    pub clock: Option<ClockJump>,
    /// Events that wait.
    pub waiting: u64,
    /// Events since the start for which there was no room to wait.
    pub lost: u64,
    /// Pictures since the start that were not kept, or went early.
    pub pictures_lost: u64,
}

/// How the journal stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalMetrics {
    /// Events kept since the host was started.
    pub events: u64,
    /// Events since then for which there was no room.
    pub lost: u64,
    /// Commits since then that failed.
    pub failures: u64,
    /// Pictures since then that were not kept, or went early, for want of room.
    pub pictures_lost: u64,
    /// What the events take on the disk.
    pub bytes: u64,
    /// What the attachments take.
    pub attachment_bytes: u64,
    pub clips: ClipMetrics,
}

/// What became of clips since the host was started, and what they take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ClipMetrics {
    /// Kept, from beginning to end.
    pub whole: u64,
    /// Kept, and ending before their time.
    pub cut: u64,
    /// For which there were no pictures or no memory.
    pub refused: u64,
    /// Not written.
    pub failed: u64,
    /// What they take on the disk.
    pub bytes: u64,
}
