//! What sessions publish: the messages, and the hub that carries each to the session's subscribers.
//!
//! A session publishes into the [`Hub`]; each subscriber has a bounded queue of its own there, so
//! one that reads slowly or never costs a fixed amount of memory and delays no other:
//!
//! - **Detections** are live only. The newest win: when a session's [`MAX_DETECTIONS`] wait, the
//!   oldest goes, and the subscriber is told exactly how many it missed before it gets the next.
//! - **Events** go through the [journal](crate::journal::events) first and are told when they are
//!   on the disk. A subscriber with more than [`MAX_EVENTS`] of them waiting, or one that asks for
//!   earlier ones, reads them from there (`catch_up`).
//! - **Changes of state and answers** are kept nowhere else and never skipped. A subscriber with
//!   more than [`MAX_ANSWERS`] of them waiting is closed.
//! - **How the host is** ([`HostStatus`]) goes to every subscriber whenever it changes, without the
//!   journal; of several that wait the newest takes the place of the others.
//!
//! Events and changes of state of one session come in the order in which they were published, but
//! that one which reads from the journal hears of changes of state at once. Detections do not wait
//! for the disk: those of a later frame may come before an event.

mod catch_up;
mod convert;
mod host;
mod hub;
mod queue;
mod subscriber;
mod time;
mod wire;

pub use convert::{InvalidResult, detections, event};
pub use host::{HostStatus, PartState, PartStatus};
pub use hub::{Hub, Relay, SubscriberHold};
pub use queue::{HubCounts, MAX_ANSWERS, MAX_BYTES, MAX_DETECTIONS, MAX_EVENTS, SlowSubscriber};
pub use subscriber::{SubscribeOptions, Subscriber};
pub use time::{rfc3339, unix_ns};
pub use wire::{
    ALERT, AttachmentRef, Attribute, Attributes, Clock, Detection, DetectionSource, Detections,
    EncodedMessage, Event, Latency, PictureChoice, PictureCodec, ServerMessage, SessionState,
    encode_event,
};
pub(crate) use wire::{CODE, HOST_KINDS, JournalledEvent};
