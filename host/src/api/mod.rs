//! The HTTP and WebSocket API. It knows sessions through [`Control`] and [`Deployments`] alone, and their messages through the event hub.
//!
//! Every error answer is a problem of RFC 9457; every WebSocket message is one JSON object, `type` first.

pub mod access;
mod analyze;
mod audit;
mod body;
mod deployments;
mod gate;
mod jobs;
mod keys;
mod limits;
mod message;
mod models;
mod origin;
mod problem;
mod rate;
mod rest;
mod resume;
mod routes;
mod socket;
mod stream;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::serve::ListenerExt;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::analyze::Analyses;
use crate::config::Config;
use crate::event::Hub;

pub use deployments::Deployments;
use gate::Gate;

/// WebSockets and streams at the same time, far beyond the displays of a site; each holds a file descriptor and up to
/// 2 x [`MAX_BYTES`](crate::event::MAX_BYTES) of messages.
const MAX_SOCKETS: usize = 4096;

/// What the API asks of the sessions.
pub trait Control: Clone + Send + Sync + 'static {
    /// A session as `GET /v1/sessions` shows it.
    type Status: Serialize + Send;

    /// All models, as `GET /v1/models` shows them.
    type Models: Serialize + Send;

    /// All sessions, sorted by name.
    fn sessions(&self) -> Vec<Self::Status>;

    /// The name of a session that is shown.
    fn id(status: &Self::Status) -> &str;

    /// One session.
    fn session(&self, id: &str) -> Option<Self::Status>;

    /// Makes sure that there is a session of this name on this source with this pipeline. Runs to its end whether its
    /// caller still waits or not.
    fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Asks a session's pipeline a question and brings its answer.
    fn command(&self, id: &str, command: Value) -> impl Future<Output = Result<Value, Refusal>> + Send;

    /// Starts a session anew.
    fn restart(&self, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Ends a session. Returns when it has ended.
    fn stop(&self, id: &str) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// The models as `GET /v1/models` shows them.
    fn models(&self) -> Self::Models;

    /// The analysis of single pictures.
    fn analyses(&self) -> &Analyses;

    /// The host and its sessions in the OpenMetrics text format.
    fn metrics(&self) -> impl Future<Output = String> + Send;
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Stable, for programs: `unknown_session`, `timeout`, ...
    pub code: &'static str,
    /// For a person. Holds no credential.
    pub message: String,
}

impl Refusal {
    /// There is no such session.
    pub fn unknown(id: &str) -> Self {
        Self { code: "unknown_session", message: format!("there is no session {id:?}") }
    }
}

/// How long the API waits for a client.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    /// Between two pings to a WebSocket.
    pub ping: Duration,
    /// A client from which nothing came for this long, not even the answer to a ping, is gone.
    pub silence: Duration,
    /// A client that takes not a byte of a message for this long does not read.
    pub send: Duration,
    /// From the first byte of a client's message to its last.
    pub message: Duration,
    /// For the last message, the closing handshake, and requests under way when the host stops.
    pub farewell: Duration,
}

impl Default for Timing {
    /// Three pings within the silence: one may be lost in a change of networks, and proxies that close what is idle for
    /// a minute see traffic.
    fn default() -> Self {
        Self {
            ping: Duration::from_secs(15),
            silence: Duration::from_secs(45),
            send: Duration::from_secs(20),
            message: Duration::from_secs(30),
            farewell: Duration::from_secs(2),
        }
    }
}

/// What every request can reach.
struct State<C> {
    control: C,
    hub: Hub,
    timing: Timing,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
    /// WebSockets and streams that may yet be opened.
    sockets: Arc<Semaphore>,
    squeezed: websocket::Squeezed,
    /// Components that are read from clients.
    uploads: Semaphore,
    tasks: TaskTracker,
}

/// The running API.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
    tasks: TaskTracker,
    timing: Timing,
    serving: JoinHandle<std::io::Result<()>>,
    /// Follows who gets in.
    keys: JoinHandle<()>,
}

impl Server {
    /// Answers on a bound address from now on; `/readyz` only once [`set_ready`](Self::set_ready) was called. Of the config
    /// it is the `[server]` section that counts, as it changes.
    pub fn start<C: Control + Deployments>(
        listener: TcpListener,
        hub: Hub,
        control: C,
        timing: Timing,
        config: watch::Receiver<Arc<Config>>,
    ) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let gate = Arc::new(Gate::new(config.clone(), address.ip().to_canonical().is_loopback()));
        let keys = tokio::spawn(Arc::clone(&gate.keys).follow(config));
        let (ready, stop, tasks) =
            (Arc::new(AtomicBool::new(false)), CancellationToken::new(), TaskTracker::new());
        let state = State {
            control,
            hub,
            timing,
            ready: Arc::clone(&ready),
            stop: stop.clone(),
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
            squeezed: websocket::Squeezed::default(),
            uploads: Semaphore::new(deployments::MAX_UPLOADS),
            tasks: tasks.clone(),
        };
        let router = routes::router(state, &gate).into_make_service_with_connect_info::<SocketAddr>();
        let listener = listener.tap_io(|connection| {
            // A small message waits for no other. Where this fails the connection is gone already.
            let _ = connection.set_nodelay(true);
        });
        let serving = axum::serve(listener, router).with_graceful_shutdown(stop.clone().cancelled_owned());
        let serving = tokio::spawn(serving.into_future());
        Ok(Self { address, ready, stop, tasks, timing, serving, keys })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `/readyz` say so.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Takes no more requests, tells every subscriber that the host stops, and returns when they are gone or the time
    /// for a farewell is over.
    pub async fn stop(self) {
        self.keys.abort();
        self.stop.cancel();
        self.tasks.close();
        // A socket bounds its own farewell; requests under way get as much time.
        let mut serving = self.serving;
        let under_way = tokio::time::timeout(self.timing.farewell, &mut serving);
        if tokio::join!(under_way, self.tasks.wait()).0.is_err() {
            serving.abort();
        }
    }
}
