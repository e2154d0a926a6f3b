//! The inference engine: ONNX Runtime behind a queue, over tensors in shared memory.
//!
//! One dispatcher thread waits for requests on the sockets of all sessions and puts them into one queue; a fixed number
//! of runner threads take them out. Each runner has its own ONNX Runtime session of every model that it has met, with
//! one thread: concurrent runs of one session are not safe with every execution provider, and sessions of one thread
//! side by side cost the least per result. What the runners' sessions allocate comes from one arena.
//!
//! A request names places in the memory that the worker shares. ONNX Runtime reads its inputs and writes its outputs
//! right there. All that a worker says is checked first (in `request.rs`), since one worker must not be able to hurt the
//! others: wrong arguments are answered with an error, and a broken protocol ends that worker's connection.
//!
//! A session has at most one request under way, so the queue is never longer than the number of sessions, and that is
//! bounded by [`MAX_SESSIONS`].
//!
//! The program `ocelli-inference` puts the engine into a process of its own. The host may also link it, for isolation
//! "in-process".

mod batch;
mod buffer;
mod device;
mod dispatch;
mod engine;
mod error;
mod fair;
mod finite;
mod hook;
mod inspect;
mod job;
mod model;
mod offers;
mod private;
pub mod process;
mod queue;
mod request;
mod run;
mod runner;
mod runtime;
mod session;
mod value;
mod watch;

pub use engine::{Engine, MAX_SESSIONS, Prepared};
pub use error::{AttachError, EngineError, RequestError};
pub use hook::{Hook, Run};
pub use inspect::{InspectError, inspect};
