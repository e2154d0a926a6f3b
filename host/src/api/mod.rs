//! The HTTP and WebSocket API. It reaches sessions through [`Control`] and [`DeploymentControl`]
//! only, and their messages through the event hub.
//!
//! Every error answer is a problem of RFC 9457; every WebSocket message is one JSON object, `type`
//! first.

pub mod access;
mod analyze;
mod ask;
mod audit;
mod backup;
mod body;
mod client_address;
mod clips;
mod config;
mod connections;
mod control;
mod deployments;
mod discover;
mod documents;
mod events;
mod extract;
mod filter;
mod gate;
mod insight;
mod jobs;
mod keys;
mod limits;
mod login;
mod logins;
mod message;
mod origin;
mod pictures;
mod probe;
mod problem;
mod request_id;
mod rest;
mod resume;
mod routes;
mod server;
mod site;
mod socket;
mod state;
mod stream;
mod tls;
mod tokens;
mod ui;
mod watching;
mod websocket;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::Method;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{BasePath, Config};
use crate::event::Hub;

use gate::Gate;
use keys::TokenSources;
use server::ApiListener;
use site::SiteLink;
use state::ApiState;

pub use config::ConfigControl;
pub use control::{Control, Refusal};
pub use deployments::DeploymentControl;
pub use insight::InsightControl;
pub use site::{
    ClusterSite, EngineState, EngineStatus, MemberState, Site, SiteCamera, SiteHost, SiteStatus,
};
#[doc(hidden)]
pub use socket::read_client_frames;
pub use state::Timing;

/// Most WebSockets and streams, far beyond the displays of a site; each has a file descriptor and
/// up to 2 x [`MAX_RESULT_BYTES`](crate::event::MAX_RESULT_BYTES) of messages.
const MAX_SOCKETS: usize = 4096;

#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    scheme: &'static str,
    base: BasePath,
    ready: Arc<AtomicBool>,
    stop: CancellationToken,
    tasks: TaskTracker,
    timing: Timing,
    /// Accepts connections, and follows the tokens and the certificate.
    running: JoinSet<()>,
    connections: TaskTracker,
    abort: CancellationToken,
}

impl Server {
    /// Answers on a bound address from now on; `/readyz` only after [`set_ready`](Self::set_ready).
    /// It follows the config's section `[server]`.
    ///
    /// # Errors
    /// The certificate or the key cannot be used.
    pub fn start<C: Control + DeploymentControl + InsightControl + ConfigControl>(
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
        let scheme = if tls.is_some() { "https" } else { "http" };
        let loopback = address.ip().to_canonical().is_loopback();
        let site = control.site();
        let sources = TokenSources::new(config, site.as_ref().map(|site| site.tokens()));
        let gate = Arc::new(Gate::new(sources.clone(), loopback, scheme));
        running.spawn(Arc::clone(&gate.keys).follow(sources));
        let logins = Arc::clone(&gate);
        running.spawn(async move { logins.logins.follow().await });
        let (ready, stop, tasks) =
            (Arc::new(AtomicBool::new(false)), CancellationToken::new(), TaskTracker::new());
        let state = ApiState {
            site: site.map(|site| Arc::new(SiteLink::new(site))),
            control,
            gate: Arc::clone(&gate),
            hub,
            timing,
            ready: Arc::clone(&ready),
            stop: stop.clone(),
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
            squeezed: websocket::CompressedMessages::default(),
            uploads: Semaphore::new(deployments::MAX_UPLOADS),
            revoking: tokio::sync::Mutex::default(),
            searches: Semaphore::new(1),
            asked: limits::Entered::default(),
            documents: documents::Documents::default(),
            displays: Arc::new(Semaphore::new(pictures::MJPEG_CLIENTS)),
            tasks: tasks.clone(),
        };
        let (connections, abort) = (TaskTracker::new(), CancellationToken::new());
        let router = routes::router(state, &gate);
        let base = gate.base.clone();
        let serving = ApiListener {
            audit: gate.audit.clone(),
            router,
            tls,
            base: gate.base.clone(),
            stop: stop.clone(),
            abort: abort.clone(),
            tasks: connections.clone(),
        };
        running.spawn(serving.serve(listener));
        Ok(Self { address, scheme, base, ready, stop, tasks, timing, running, connections, abort })
    }

    /// Fails if certificate and key cannot be used.
    pub(crate) fn check_certificate(files: &crate::config::Tls) -> anyhow::Result<()> {
        tls::load(files).map(drop)
    }

    /// All routes: methods and paths, with their parameters in braces.
    pub fn routes(&self) -> Vec<(Method, &'static str)> {
        routes::ROUTES.iter().map(|route| (route.method.clone(), route.path)).collect()
    }

    /// `http` or `https`.
    pub fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// Where it answers: scheme, address and path.
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.address, self.base)
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on `/readyz` says that the host serves.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// Takes no more requests, tells every subscriber that the host stops, and returns when they
    /// are gone or `farewell` is over.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.running.shutdown().await;
        self.tasks.close();
        self.connections.close();
        // A socket limits its own farewell; requests under way get as much time.
        let under_way = tokio::time::timeout(self.timing.farewell, self.connections.wait());
        if tokio::join!(under_way, self.tasks.wait()).0.is_err() {
            self.abort.cancel();
        }
    }
}
