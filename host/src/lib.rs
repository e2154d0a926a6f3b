//! The control plane of Ocelli: everything that runs in the host's own process.
//!
//! No decoder, no ML library and no guest code lives here; those are child processes that this
//! crate starts, feeds and supervises. A camera's access units come in through [`source`], go to a
//! worker through [`session`], come back as detections and events into [`event`], and leave through
//! [`api`].
//!
//! Imports point down, in this order: `fuzzing`, [`cli`] and [`serve`], `reload`, `preflight`,
//! [`api`], [`fleet`], [`monitor`], [`sink`], [`analyze`], `playback`, [`deploy`], [`session`], [`probe`],
//! [`worker`], [`redis`],
//! `registry`, [`inference`], [`source`], [`cluster`], [`event`], [`journal`], [`telemetry`], [`config`],
//! `discover`, `shape` and `util`.

pub mod analyze;
pub mod api;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod deploy;
mod discover;
pub mod event;
pub mod fleet;
#[doc(hidden)]
pub mod fuzzing;
mod import;
pub mod inference;
pub mod journal;
pub mod monitor;
mod playback;
mod preflight;
pub mod probe;

pub mod redis;
mod registry;
mod reload;
pub mod serve;
pub mod session;
mod shape;
pub mod sink;
pub mod source;
pub mod telemetry;
mod util;
pub mod worker;
