//! The HTTP and WebSocket API. It knows sessions through [`Control`] and [`DeploymentsCommand`]
//! alone, and their messages through the event hub.
//!
//! Every error answer is a problem of RFC 9457; every WebSocket message is one JSON object, `type`
//! first.

pub mod access;
mod analyze;
mod audit;
mod body;
mod deployments;
mod documents;
mod events;
mod gate;
mod jobs;
mod keys;
mod limits;
mod message;
mod models;
mod origin;
mod problem;
mod rest;
mod resume;
mod routes;
mod server;
mod socket;
mod stream;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::Method;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::analyze::Analyses;
use crate::config::Config;
use crate::event::Hub;

pub use deployments::Deployments;
use gate::Gate;
use server::Connections;

/// WebSockets and streams at the same time, far beyond the displays of a site; each holds a file
/// descriptor and up to 2 x [`MAX_RESULT_BYTES`](crate::event::MAX_RESULT_BYTES) of messages.
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

    /// Makes sure that there is a session of this name on this source with this pipeline. Runs to
    /// its end whether its caller still waits or not.
    fn ensure(
        &self,
        id: &str,
        source: &str,
        pipeline: &str,
        settings: Map<String, Value>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Asks a session's pipeline a question and brings its answer.
    fn command(
        &self,
        id: &str,
        command: Value,
    ) -> impl Future<Output = Result<Value, Refusal>> + Send;

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
    /// Three pings within the silence: one may be lost in a change of networks, and proxies that
    /// close what is idle for a minute see traffic.
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
    squeezed: websocket::CompressedMessages,
    /// Components that are read from clients.
    uploads: Semaphore,
    tasks: TaskTracker,
}

/// The running API.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    secure: bool,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
    tasks: TaskTracker,
    timing: Timing,
    /// Takes connections, follows who gets in and the certificate.
    running: JoinSet<()>,
    connections: TaskTracker,
    abort: CancellationToken,
}

impl Server {
    /// Answers on a bound address from now on; `/readyz` only once [`set_ready`](Self::set_ready)
    /// was called. Of the config it is the `[server]` section that counts, as it changes.
    ///
    /// # Errors
    /// Certificate or key cannot be used.
    pub fn start<C: Control + Deployments>(
        listener: TcpListener,
        hub: Hub,
        control: C,
        timing: Timing,
        config: watch::Receiver<Arc<Config>>,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let mut running = JoinSet::new();
        let files = config.borrow().server.tls.clone();
        let tls = match files {
            None => None,
            Some(files) => {
                let (current, followed) = watch::channel(tls::load(&files)?);
                running.spawn(tls::follow(files, current));
                Some(followed)
            }
        };
        let gate = Arc::new(Gate::new(config.clone(), address.ip().to_canonical().is_loopback()));
        running.spawn(Arc::clone(&gate.keys).follow(config.clone()));
        let (ready, stop, tasks) =
            (Arc::new(AtomicBool::new(false)), CancellationToken::new(), TaskTracker::new());
        let state = State {
            control,
            hub,
            timing,
            ready: Arc::clone(&ready),
            stop: stop.clone(),
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
            squeezed: websocket::CompressedMessages::default(),
            uploads: Semaphore::new(deployments::MAX_UPLOADS),
            tasks: tasks.clone(),
        };
        let (connections, abort) = (TaskTracker::new(), CancellationToken::new());
        let secure = tls.is_some();
        let router = routes::router(state, &gate);
        let serving = Connections {
            router,
            config,
            tls,
            stop: stop.clone(),
            abort: abort.clone(),
            tasks: connections.clone(),
        };
        running.spawn(serving.serve(listener));
        Ok(Self { address, secure, ready, stop, tasks, timing, running, connections, abort })
    }

    /// Everything that can be asked: methods and paths, with their parameters in braces.
    pub fn routes(&self) -> Vec<(Method, &'static str)> {
        routes::ROUTES.iter().map(|route| (route.method.clone(), route.path)).collect()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `/readyz` say so.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Takes no more requests, tells every subscriber that the host stops, and returns when they
    /// are gone or the time for a farewell is over.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.running.shutdown().await;
        self.tasks.close();
        self.connections.close();
        // A socket bounds its own farewell; requests under way get as much time.
        let under_way = tokio::time::timeout(self.timing.farewell, self.connections.wait());
        if tokio::join!(under_way, self.tasks.wait()).0.is_err() {
            self.abort.cancel();
        }
    }
}
