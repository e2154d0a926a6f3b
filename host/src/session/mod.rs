//! Sessions: one pipeline on one source, in a worker process of its own.
//!
//! # Theory of operation
//!
//! [`Sessions`] is the registry. Each session has one task ([`task`]) that owns everything of it:
//! the place at the inference process, the subscription to the source, the worker, and the
//! session's life as one value ([`lifecycle::Lifecycle`]). The rest of the host holds it by its
//! [`SessionHandle`]: what it is made of, what it runs, its status, a bounded channel of requests,
//! and its end.
//!
//! While a worker serves, a second task, the pump, carries access units from the source to it. The
//! worker's socket is the back-pressure: when a worker does not keep up, the pump waits, the
//! subscription's bounded queue fills, and the source leaves out units for this session alone, up
//! to the next key frame. A file's reader waits instead.
//!
//! A camera with a substream has two subscriptions: what is said above holds for that one, and
//! [`main_stream`] reads the other for viewers.
//!
//! Results go to the event hub as they come. Each loss of the worker is followed by a new one after
//! a wait that grows; the source's reader goes on meanwhile. Losses in a row, none of them after
//! ten seconds of results, are a crash loop, which ends in `failed` and waits for a person.

mod drift;
mod environment;
mod error;
mod feed;
mod handle;
mod kv_replica;
pub mod latency;
mod lifecycle;
mod main_stream;
mod picture;
mod recent;
mod registry;
pub mod rollout;
mod snapshots;
mod spec;
mod status;
mod stream_worker;
mod task;
mod totals;

pub use drift::{Drift, DriftKind};
pub use error::SessionError;
pub use handle::{RunningVersion, SessionHandle};
pub(crate) use kv_replica::StoreReplica;
pub use picture::{EncodedPicture, PictureError};
pub use recent::{Rates, Restart, RestartCause, StageLatency};
pub use registry::Sessions;
pub use spec::{CompiledPipeline, Spec, deployment_id};
pub use status::{Observation, RecentView, SessionSettings, SessionStatus};
pub use totals::{Frames, SkipReason, Skipped};
