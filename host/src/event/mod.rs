//! What sessions tell the world: the messages, and the hub that carries each to everyone who asked for it.
//!
//! A session publishes into the [`Hub`]; each subscriber has a bounded queue of its own there, so one that reads slowly
//! or never costs a fixed amount of memory and delays nobody:
//!
//! - **Detections** are live only. The newest win: when a session's [`MAX_DETECTIONS`] wait, the oldest goes, and the
//!   subscriber is told exactly how many it missed before it gets the next.
//! - **Events, changes of state and answers** are never skipped. A subscriber with more than [`MAX_EVENTS`] of them
//!   waiting is closed.
//!
//! Whatever a subscriber gets of one session is in the order in which it was published.

mod convert;
mod hub;
mod queue;
mod wire;

pub use convert::{BadResult, detections, event, rfc3339};
pub use hub::{Counts, Hold, Hub, Subscriber, Told, Wants};
pub use queue::{MAX_BYTES, MAX_DETECTIONS, MAX_EVENTS, Slow};
pub use wire::{ALERT, Attribute, Attributes, Detection, Detections, Event, Latency, ServerMessage, State};
