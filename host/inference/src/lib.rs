//! The inference engine: ONNX Runtime behind a fair queue; tensors come and go in shared memory.
//!
//! One dispatcher thread waits for requests on the sockets of all sessions and puts them into the
//! queue; a fixed number of runner threads take them out; one thread keeps the time. Each runner
//! has its own ONNX Runtime session of every model that it has met, with one thread: concurrent
//! runs of one session are not safe with every execution provider, and sessions of one thread side
//! by side cost the least per result. All sessions of the runners allocate from one arena.
//!
//! - **Fair** (`fair.rs`): each share has the runners' time by its weight, however many sessions it
//!   has and however long its runs are.
//! - **Within a budget** (`budget.rs`): a pipeline that can go on without a run asks first; time
//!   goes where it is wanted most, and no run is granted for which there is none.
//! - **In time** (`deadline_timer.rs`): a request is answered at its deadline, whether it waits or
//!   runs; one whose frame is too old is dropped.
//! - **Attributed** (the in-flight table): each runner notes its request in memory that the host
//!   reads after a crash. A suspect runs alone.
//! - **In versions** (`catalog_versions.rs`): a session keeps the generation of the models that it
//!   was attached with.
//! - **Checked** (`request.rs`, `run.rs`): a request names places in the memory that the worker
//!   shares. All arguments are checked first, since one worker must not be able to harm the others:
//!   wrong ones are answered with an error, and a broken protocol ends that worker's connection.
//!   ONNX Runtime runs on copies, which a worker that writes during a run does not reach. Outputs
//!   of models are checked for NaN and infinity.
//! - **Joined** (`batch.rs`), where a model is configured so: requests of several sessions run as
//!   one.
//!
//! A session has at most one request under way, so the queue is never longer than the number of
//! sessions, and that is bounded by [`MAX_SESSIONS`].
//!
//! The program `ocelli-inference` puts the engine into a process of its own ([`process::main`]).
//! The host links it too, for isolation "in-process": [`Engine::prepare`],
//! [`Prepared::start`], then [`Engine::attach`], [`Engine::offer`] and [`Engine::drain`]
//! in place of the messages.

mod batch;
mod budget;
mod buffer;
mod catalog_versions;
mod client;
mod deadline_timer;
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
mod private_models;
pub mod process;
mod queue;
mod request;
mod run;
mod runner;
mod runtime;
mod shared;
mod tensor;
mod value;

pub use engine::{Engine, Prepared};
pub use error::{AttachError, EngineError, PINNED_VERSION, RequestError};
pub use hook::{Hook, RunInfo};
pub use inspect::{InspectError, inspect};
pub use shared::MAX_SESSIONS;
