//! The worker process of one camera session.
//!
//! Two threads share the work, and a third sends heartbeats ([`heartbeat`]). The *intake* reads the
//! host's messages and decodes access units into pictures; the *pipeline* thread owns the Wasmtime
//! store and calls the guest component. Between them is one bounded queue ([`queue::WorkQueue`]):
//! for a live source a newer frame takes the place of one that still waits there, for a file the
//! intake waits until the queue has a place.
//!
//! ```text
//! host --units--> intake: decode -> queue -> pipeline thread: guest.process --results--> host
//!                                                 | tensors in shared memory
//!                                                 v
//!                                           inference process
//! ```
//!
//! A worker for single pictures ([`ocelli_protocol::worker::WorkerMode::Analyze`]) has one thread
//! for both: it decodes a file, lets a fresh instance process it, answers, and makes the next
//! instance ready.
//!
//! The process opens nothing by name: sockets, shared memory and the compiled component are
//! inherited. It holds no compiler; the component was compiled by `ocelli-compile` with the same
//! [`ocelli_protocol::engine`].

pub mod arena;
pub mod counters;
pub mod directories;
pub mod engine;
pub mod guest;
pub mod heartbeat;
pub mod host_link;
pub mod inference;
pub mod kv_store;
mod memory;
#[cfg(test)]
mod own_process;
mod poll;
pub mod queue;
pub mod redis_bridge;
pub mod session;
pub mod video;
