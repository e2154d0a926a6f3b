//! What the tests of all crates are made with: the real programs, real RTSP cameras and scripted ones,
//! a WebSocket client, real servers of what hosts speak to, servers that are no cameras, and the one way to skip.
//!
//! It knows no crate of the product, so that any may have it for its tests, and so that
//! whole-system tests see what an operator and a subscriber see. Whatever waits has a deadline, and
//! a test that fails shows the end of its host's log.
//!
//! The kernel ends hosts and cameras with the *thread* that started them. Start them from the body
//! of a test, which has its thread for itself, and not from a task.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "what goes wrong here fails the test"
)]

pub mod browser;
pub mod camera;
mod cameras;
mod certificates;
mod client;
mod client_process;
pub mod depth;
mod engine;
mod etcd;
mod fake_server;
mod guests;
mod host;
pub mod http;
mod log;
mod mosquitto;
mod nats;
pub mod onnx;
mod page;
mod play;
mod process;
mod programs;
mod proxy;
mod receiver;
mod recording;
mod redis;
mod registry;
mod resources;
mod site;
pub mod skip;
pub mod small_disk;
mod versions;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use cameras::Cameras;
pub use certificates::{Authority, SignedCertificate};
pub use client::Client;
pub use client_process::{ClientProcess, axe_core, client_python};
pub use engine::{EnginePlace, Servers};
pub use etcd::Etcd;
pub use fake_server::{ClosedPort, FakeServer, Relay};
pub use guests::{PipelineFolder, guest};
pub use host::{Exit, Ocelli, built, built_in_pipeline, program, run_to_end};
pub use log::Log;
pub use mosquitto::{BrokerCertificates, Mosquitto, MqttMessage, MqttSubscriber};
pub use nats::{Nats, NatsAccount, NatsSettings, NatsUser};
pub use page::BrowserPage;
pub use play::{FileSession, assert_identical};
pub use process::{Process, children};
pub use programs::Programs;
pub use proxy::ReverseProxy;
pub use receiver::{HookReceiver, HookRequest, Reception};
pub use recording::{Received, Recording};
pub use redis::{Entry, Redis};
pub use registry::{OciRegistry, REGISTRY_LOGIN};
pub use resources::ProcessResources;
pub use site::Site;
pub use versions::{changeling, tagged};

/// Numbers that depend on a seed alone, so that what fails can be run again.
pub use fastrand::Rng as Random;

/// Far above what any step takes on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Waits for what is to come soon; what does not fails the test.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("in time")
}

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}

/// A file of `tests/clips`.
pub fn clip(name: &str) -> PathBuf {
    let path = root().join("tests/clips").join(name);
    assert!(path.is_file(), "{} is missing", path.display());
    path
}
