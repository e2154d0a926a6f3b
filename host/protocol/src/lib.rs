//! What Ocelli's processes agree on: their messages, their shared memory, and which descriptor is
//! which.
//!
//! Four kinds of connection, each made by the host before a child starts and inherited by it:
//!
//! - **host and worker** ([`worker`]): a stream socket carrying [`wire`] messages. The host sends
//!   compressed access units and commands, the worker answers with results, log lines and counters.
//! - **worker and inference** ([`inference`]): a sequenced-packet socket for small requests and
//!   answers, beside one sealed [`shm::SharedMemory`] per session that holds the tensors. Nothing
//!   is copied on the way.
//! - **host and worker** again ([`redis_bridge`]): a stream socket for the keys of Redis that a
//!   session was granted.
//! - **host and inference** ([`inference`]): a sequenced-packet socket over which the host
//!   announces sessions and hands their descriptors on.
//!
//! No process trusts what another sends: lengths are bounded before anything is allocated, offsets
//! are checked against the region before anything is read.

pub mod clock;
pub mod component;
pub mod confinement;
pub mod digest;
pub mod engine;
pub mod graph;
pub mod in_flight;
pub mod inference;
pub mod key;
pub mod limit;
pub mod process;
pub mod redis_bridge;
pub mod shm;
pub mod wire;
pub mod worker;
