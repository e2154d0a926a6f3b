//! What Ocelli's processes agree on: their messages, their shared memory, their descriptors, and
//! common limits.
//!
//! The host makes each connection before a child starts; the child inherits it.
//!
//! - **host and worker** ([`worker`]): a stream socket carrying [`wire`] messages. The host sends
//!   compressed access units and commands, the worker answers with results, log lines and counters.
//!   The [`gate`] says what a worker may send when.
//! - **worker and inference** ([`inference`]): a sequenced-packet socket for small requests and
//!   responses, and one sealed [`shm::SharedMemory`] per session that holds the tensors. The
//!   inference process runs models on copies of its own.
//! - **host and worker** again ([`redis_bridge`]): a stream socket for the keys of Redis that a
//!   session was granted.
//! - **host and inference** ([`inference`]): a sequenced-packet socket over which the host
//!   announces sessions and passes their descriptors.
//! - **host and ingest** ([`ingest`]): a stream socket carrying [`wire`] messages, and a
//!   sequenced-packet socket over which the child asks for connections and gets them.
//! - **host and strict reader** ([`rtsp`]): the same two sockets.
//!
//! No process trusts another's messages: lengths are bounded before anything is allocated, so is
//! what a message takes once it is decoded, and offsets are checked against the region before
//! anything is read.

pub mod clock;
pub mod component;
pub mod confinement;
pub mod contract;
mod decode;
pub mod decode_device;
pub mod digest;
pub mod engine;
pub mod gate;
pub mod graph;
pub mod in_flight;
pub mod inference;
pub mod ingest;
pub mod key;
pub mod limit;
pub mod model;
mod orientation;
mod packet;
pub mod process;
pub mod redis_bridge;
pub mod rtsp;
pub mod shm;
pub mod usage;
pub mod wire;
pub mod worker;
